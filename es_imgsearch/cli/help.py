"""`help`: pages on what several commands share, and the help of a command."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Final

import click

from es_imgsearch.cli.options import examples
from es_imgsearch.cli.printing.lines import print_line
from es_imgsearch.errors import UsageError, did_you_mean

_PAGES: Final = files("es_imgsearch.cli") / "topics"
TOPICS: Final = ("boxes", "dates", "filters", "patterns", "results", "settings")


def page(topic: str) -> str:
    """Read the page of a topic; its first line says what it is about."""
    return (_PAGES / f"{topic}.txt").read_text(encoding="utf-8").rstrip()


def _names(context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    """Complete the names of topics and commands."""
    names = [*TOPICS, *_commands(context.find_root())]
    return [name for name in sorted(names) if name.startswith(incomplete)]


@click.command("help", epilog=examples("help filters", "help search", "help tags train"))
@click.argument("topic", nargs=-1, shell_complete=_names)
@click.pass_context
def help_command(context: click.Context, topic: tuple[str, ...]) -> None:
    """Explain a topic or a command; without one, list the topics.

    Topics are boxes, dates, filters, patterns, results and settings.
    """
    if not topic:
        for name in TOPICS:
            about = page(name).splitlines()[0].partition(": ")[2]
            print_line(f"{name:10}{about}")
        click.echo(
            "\n`es-imgsearch help TOPIC` prints one, `es-imgsearch --help` lists the commands.",
            err=True,
        )
    elif topic[0] in TOPICS:
        print_line(page(topic[0]))
    else:
        print_line(_help_of_command(context.find_root(), topic))


def _commands(context: click.Context) -> Mapping[str, click.Command]:
    command = context.command
    return command.commands if isinstance(command, click.Group) else {}


def _help_of_command(context: click.Context, names: Sequence[str]) -> str:
    for name in names:
        commands = _commands(context)
        if name not in commands and isinstance(context.command, click.Group):
            raise UsageError(
                f"There is no topic or command {name!r}.{did_you_mean(name, [*TOPICS, *commands])}"
                f" Topics are {', '.join(TOPICS)}."
            )
        if name not in commands:
            raise UsageError(
                f"`{context.info_name}` has no commands of its own: ask for one page, as in"
                f" `es-imgsearch help {name}`."
            )
        context = click.Context(commands[name], context, name)
    return context.get_help()
