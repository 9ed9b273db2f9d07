"""`completion`: have a shell complete commands, options and paths on Tab."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import click
from click.shell_completion import BashComplete, FishComplete, ZshComplete

from es_imgsearch.cli.options import examples
from es_imgsearch.cli.printing.lines import print_line
from es_imgsearch.errors import UsageError
from es_imgsearch.files.whole import write_whole

_PROGRAM: Final = "es-imgsearch"
_VARIABLE: Final = "_ES_IMGSEARCH_COMPLETE"
_SHELLS: Final = {"bash": BashComplete, "zsh": ZshComplete, "fish": FishComplete}
# What the lines in a shell's start file are recognised by.
_MARK: Final = "# es-imgsearch completion"


@click.command(epilog=examples("completion", "completion zsh --print", "completion --remove"))
@click.argument("shell", type=click.Choice([*_SHELLS]), required=False)
@click.option("--print", "print_it", is_flag=True, help="Print the script and install nothing.")
@click.option("--remove", is_flag=True, help="Take the completion out again.")
@click.pass_context
def completion(context: click.Context, shell: str | None, print_it: bool, remove: bool) -> None:
    """Install completion on Tab for SHELL.

    Without SHELL, for the one that the variable SHELL names.  Of bash and zsh a line is added to
    ~/.bashrc or ~/.zshrc, of fish a file to its folder of completions.
    """
    name = shell or _this_shell()
    script = _SHELLS[name](context.find_root().command, {}, _PROGRAM, _VARIABLE).source()
    if print_it:
        print_line(script)
        return
    file, start = _places(name)
    try:
        if not remove:
            _install(script, file, start)
        elif not _remove(file, start):
            click.echo(f"No completion for {name} is installed.", err=True)
            return
    except OSError as error:
        raise UsageError(
            f"{error.filename!r} cannot be written: {error.strerror}. Print the script with"
            f" `es-imgsearch completion {name} --print`, and have your shell read it."
        ) from error
    if remove:
        click.echo(f"Removed the completion for {name}.", err=True)
    else:
        click.echo(
            f"Installed completion for {name}: open a new shell, type and press Tab.", err=True
        )


def _this_shell() -> str:
    name = os.path.basename(os.environ.get("SHELL", ""))
    if name not in _SHELLS:
        raise UsageError(
            f"The variable SHELL names {name or 'no shell'}: name one of {', '.join(_SHELLS)}, as"
            " in `es-imgsearch completion bash`."
        )
    return name


def _places(shell: str) -> tuple[Path, Path | None]:
    """Return the file of the script, and the shell's start file that has to read it."""
    home = Path.home()
    if shell == "fish":
        config = Path(os.environ.get("XDG_CONFIG_HOME") or home / ".config")
        return config / "fish" / "completions" / f"{_PROGRAM}.fish", None
    data = Path(os.environ.get("XDG_DATA_HOME") or home / ".local" / "share")
    start = Path(os.environ.get("ZDOTDIR") or home) if shell == "zsh" else home
    return data / "es_imgsearch" / f"completion.{shell}", start / f".{shell}rc"


def _install(script: str, file: Path, start: Path | None) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    write_whole(file, script.encode())
    if start is None:
        return
    lines = _others(start)
    # zsh's script needs its completion system.
    prepare = "autoload -Uz compinit && compinit; " if start.name == ".zshrc" else ""
    lines.append(f'{prepare}. "{file}"  {_MARK}\n')
    _replace(start, lines)


def _remove(file: Path, start: Path | None) -> bool:
    """Take out what was installed; return False if nothing was."""
    found = file.exists()
    file.unlink(missing_ok=True)
    if start is not None and start.exists() and _MARK in _read(start):
        found = True
        _replace(start, _others(start))
    return found


def _replace(start: Path, lines: Sequence[str]) -> None:
    """Write a start file, or the one that it links to, whole or not at all."""
    write_whole(start, "".join(lines).encode(errors="surrogateescape"))


def _read(start: Path) -> str:
    return start.read_text(encoding="utf-8", errors="surrogateescape")


def _others(start: Path) -> list[str]:
    """Read the lines of a start file that are not ours, each with its end."""
    if not start.exists():
        return []
    lines = [each for each in _read(start).splitlines(keepends=True) if _MARK not in each]
    if lines and not lines[-1].endswith("\n"):
        lines[-1] += "\n"
    return lines
