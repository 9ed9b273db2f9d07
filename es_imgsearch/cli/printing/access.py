"""Messages about rights and secrets: a command's role, a password that shows."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import click

from es_imgsearch.errors import StoreDenied


@contextmanager
def naming_the_role(index: str) -> Iterator[None]:
    """Add to StoreDenied the role that the command needs, and how to make its key."""
    try:
        yield
    except StoreDenied as error:
        from es_imgsearch.manage.production.roles import role_advice

        if (advice := role_advice(_command(), index)) is None:
            raise
        raise StoreDenied(f"{error} {advice}") from error


def _command() -> str:
    """Return the words of the command that runs, such as `failures retry`."""
    context = click.get_current_context()
    words = context.command_path.split()[1:]
    # `failures retry` and `codes train` are commands with an argument.
    action = context.params.get("action") or ("--merge" if context.params.get("merge") else None)
    return " ".join([*words, action] if action else words)


def warn_of_password(
    _context: click.Context, parameter: click.Parameter, url: str | None
) -> str | None:
    """Warn of a password on the command line, which other users can see."""
    if url and "@" in url:
        option = parameter.opts[0]
        variable = option.removeprefix("--").replace("-", "_").upper()
        click.echo(
            f"Whoever lists the processes of this machine sees the password in {option}: set"
            f" {variable} instead.",
            err=True,
        )
    return url
