"""The examples in `--help`: every command has some, and each can be typed as it stands."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from itertools import takewhile

import click
import pytest
from click.testing import CliRunner

from es_imgsearch.cli import main


def commands(group: click.Group, *names: str) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, *names, name)
        else:
            yield (*names, name), command


COMMANDS = dict(commands(main))


def example_lines(command: click.Command) -> list[str]:
    return [line.strip() for line in (command.epilog or "").splitlines() if "es-imgsearch" in line]


@pytest.mark.parametrize("names", COMMANDS, ids=" ".join)
def test_every_command_shows_two_to_four_examples_of_itself(names: tuple[str, ...]) -> None:
    lines = example_lines(COMMANDS[names])
    assert 2 <= len(lines) <= 4
    assert all(line.startswith(f"es-imgsearch {' '.join(names)}") for line in lines)


@pytest.mark.parametrize("names", COMMANDS, ids=" ".join)
def test_every_example_is_accepted_by_its_command(names: tuple[str, ...]) -> None:
    for line in example_lines(COMMANDS[names]):
        words = shlex.split(line)
        # What a shell does with the output is not the command's.
        words = [*takewhile(lambda word: word not in {">", "|"}, words)]
        COMMANDS[names].make_context(names[-1], words[1 + len(names) :])


def test_every_command_is_under_one_heading_with_a_whole_sentence() -> None:
    listed = [each for commands in main.headings.values() for each in commands]
    assert len(listed) == len(set(listed))
    assert {*listed} == {*main.commands.values()}
    help_text = CliRunner().invoke(main, ["--help"]).output
    for heading in main.headings:
        assert f"\n{heading}:\n" in help_text
    assert "..." not in help_text.split("Find pictures:")[1]
