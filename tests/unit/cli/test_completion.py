"""Completion on Tab, installed by one command and taken out by another."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from es_imgsearch.cli import main

_COMMAND = Path(sys.executable).parent / "es-imgsearch"


def run(home: Path, *words: str, shell: str = "/bin/bash") -> Result:
    environment = {"HOME": str(home), "SHELL": shell}
    environment |= dict.fromkeys(("XDG_DATA_HOME", "XDG_CONFIG_HOME", "ZDOTDIR"), "")
    return CliRunner(env=environment).invoke(main, ["completion", *words])


def completed(*words: str) -> list[str]:
    """What bash would offer for the last of these words."""
    environment = {
        "_ES_IMGSEARCH_COMPLETE": "bash_complete",
        "COMP_WORDS": " ".join(["es-imgsearch", *words]),
        "COMP_CWORD": str(len(words)),
    }
    result = CliRunner(env=environment).invoke(main, [], prog_name="es-imgsearch")
    return result.output.splitlines()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["sea"], ["plain,search"]),
        (["search", "--filter", "form"], ["plain,format="]),
        (["search", "--mod"], ["plain,--mode"]),
        (["help", "fil"], ["plain,filters"]),
        (["find", "a", "Pic"], ["dir,Pic"]),
        (["watch", "Pic"], ["dir,Pic"]),
        (["search", "hol"], ["file,hol"]),
        (["similar", "hol"], ["file,hol"]),
        (["import", "vec"], ["file,vec"]),
    ],
)
def test_commands_options_values_and_paths_are_completed(
    words: list[str], expected: list[str]
) -> None:
    assert completed(*words) == expected


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_one_line_is_added_to_the_start_file_once_and_removed_again(
    tmp_path: Path, shell: str
) -> None:
    start = tmp_path / f".{shell}rc"
    start.write_bytes(b"alias ll='ls -l'\nexport N=\xff")
    for _ in range(2):
        result = run(tmp_path, shell)
        assert result.exit_code == 0
        assert "open a new shell" in result.stderr
    lines = start.read_bytes().splitlines()
    assert lines[:2] == [b"alias ll='ls -l'", b"export N=\xff"]
    assert len(lines) == 3
    script = tmp_path / ".local" / "share" / "es_imgsearch" / f"completion.{shell}"
    assert str(script).encode() in lines[2]
    assert run(tmp_path, shell, "--remove").exit_code == 0
    assert start.read_bytes() == b"alias ll='ls -l'\nexport N=\xff\n"
    assert not script.exists()


def test_a_line_whose_script_is_gone_is_removed(tmp_path: Path) -> None:
    assert run(tmp_path).exit_code == 0
    (tmp_path / ".local" / "share" / "es_imgsearch" / "completion.bash").unlink()
    (tmp_path / ".bashrc").chmod(0o600)
    assert run(tmp_path, "--remove").exit_code == 0
    assert (tmp_path / ".bashrc").read_text() == ""
    assert (tmp_path / ".bashrc").stat().st_mode & 0o777 == 0o600
    assert "No completion" in run(tmp_path, "--remove").stderr


def test_fish_gets_a_file_and_no_line(tmp_path: Path) -> None:
    assert run(tmp_path, shell="/usr/bin/fish").exit_code == 0
    script = tmp_path / ".config" / "fish" / "completions" / "es-imgsearch.fish"
    assert "es-imgsearch" in script.read_text("utf-8")
    assert run(tmp_path, "--remove", shell="/usr/bin/fish").exit_code == 0
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("shell", ["", "/bin/dash", "/usr/bin/nu"])
def test_another_shell_is_refused(tmp_path: Path, shell: str) -> None:
    result = run(tmp_path, shell=shell)
    assert result.exit_code == 2
    assert "bash, zsh, fish" in result.stderr
    assert [*tmp_path.iterdir()] == []


def test_a_start_file_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / ".local").write_text("a file")
    result = run(tmp_path)
    assert result.exit_code == 2
    assert "es-imgsearch completion bash --print" in result.stderr


def test_printing_installs_nothing(tmp_path: Path) -> None:
    result = run(tmp_path, "--print")
    assert "_ES_IMGSEARCH_COMPLETE=bash_complete" in result.stdout
    assert [*tmp_path.iterdir()] == []


@pytest.mark.process
def test_a_new_bash_completes(tmp_path: Path) -> None:
    bash = shutil.which("bash")
    assert bash is not None
    assert run(tmp_path).exit_code == 0
    ask = (
        "COMP_WORDS=(es-imgsearch sea); COMP_CWORD=1;"
        " _es_imgsearch_completion es-imgsearch; echo ${COMPREPLY[@]}"
    )
    environment = {"HOME": str(tmp_path), "PATH": f"{_COMMAND.parent}:{os.environ['PATH']}"}
    command = [bash, "--norc", "-c", f". {tmp_path}/.bashrc; {ask}"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "search"
    assert done.stderr == ""
