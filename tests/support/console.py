"""Run the `console` blocks of a page as somebody at a terminal would, and compare what is printed.

A line `$ …` is a command for bash; the lines after it are its output, standard error included.  A
daemon (`$ es-imgsearch watch …`) goes on; a block that begins with another line is what it printed
since, among other lines, and its line `^C` interrupts it.

    IMGSEARCH_TEST_WRITE_PAGES=1 pytest tests/e2e/test_tutorial.py

writes what was printed into the page.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from tests.support.house import until

# Where the page's reader is at home.
HOME: Final = "/home/ada"
_BLOCK = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_DAEMON = re.compile(r"es-imgsearch watch\b")
# What differs from run to run.
_VARYING: Final = (
    (re.compile(r"ONNX Runtime \(.*?\)"), "RUNTIME"),
    (re.compile(r"(?<=/home/ada/Pictures on )\S+"), "HOST"),
    (re.compile(r"\b\d?\d%"), "N%"),
    (re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d)?([.,]\d+)?(Z|\+00:00)?"), "DATE"),
    (re.compile(r"\d{4}-\d\d-\d\d"), "DAY"),
    (re.compile(r"\b\d+(\.\d+)? (s|ms|min|seconds)\b"), "TIME"),
    (re.compile(r"\b\d+(\.\d+)? (pictures|files)(/s| a second)"), "RATE"),
    (re.compile(r"\b\d+(\.\d+)? ([kMG]?B|bytes)\b"), "SIZE"),
    (re.compile(r"\b\d+ segments?, at most \d+ in a shard"), "SEGMENTS"),
    (re.compile(r"http://127.0.0.1:\d+"), "ADDRESS"),
    (re.compile(r"Elasticsearch [89]\.\d+\.\d+"), "Elasticsearch VERSION"),
    (re.compile(r"\bprocess \d+ on [\w.-]+"), "process N on HOST"),
    (re.compile(r"(\d\.\d)\d\d\b"), r"\1"),
    (re.compile(r"-[0-9a-f]{8}\b"), "-ID"),
    (re.compile(r" +"), " "),
)

# What only a machine that is slow enough prints: a line every few seconds, and what costs.
_OF_SLOW_MACHINES: Final = re.compile(
    r"^([\d,]+ of (at least )?[\d,]+ files?\b|Reading [\d,]+ pictures? took ).*\n", re.MULTILINE
)


def comparable(text: str) -> str:
    """Replace times, sizes and further decimals, which differ from run to run."""
    for pattern, word in _VARYING:
        text = pattern.sub(word, text)
    return text.strip()


class Terminal:
    """A home folder with its environment, and at most one daemon in the background."""

    def __init__(self, home: Path, environment: Mapping[str, str]) -> None:
        self._home = home
        self._environment = {**environment, "HOME": str(home)}
        self._daemon: subprocess.Popen[bytes] | None = None
        self._daemon_log = home.parent / "daemon.log"
        self._read = 0

    def run_page(self, text: str) -> str:
        """Return the page with what its commands print now."""
        try:
            return _BLOCK.sub(lambda block: f"```console\n{self._run_block(block[1])}```", text)
        finally:
            if self._daemon is not None:
                self._daemon.kill()
                self._daemon.wait()

    def _run_block(self, block: str) -> str:
        before, *parts = re.split(r"^\$ (.*)\n", block, flags=re.MULTILINE)
        shown = self._daemon_output(before) if before else ""
        for command, expected in zip(parts[::2], parts[1::2], strict=True):
            shown += f"$ {command}\n"
            shown += (
                self._start(command, expected) if _DAEMON.search(command) else self._run(command)
            )
        return shown

    def _run(self, command: str) -> str:
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=self._home,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )
        return _OF_SLOW_MACHINES.sub("", self._at_home(done.stdout))

    def _start(self, command: str, expected: str) -> str:
        with self._daemon_log.open("wb") as log:
            self._daemon = subprocess.Popen(
                ["bash", "-c", f"exec {command}"],
                cwd=self._home,
                env=self._environment,
                stdout=log,
                stderr=log,
            )
        return self._daemon_output(expected)

    def _daemon_output(self, expected: str) -> str:
        """Return what is expected once the daemon has printed it all; else what it has printed.

        It may print other lines between: when it sums up what it did is up to the machine.
        """
        assert self._daemon is not None
        before, interrupt, after = expected.partition("^C\n")
        shown = self._printed(before)
        if interrupt:
            self._daemon.send_signal(signal.SIGINT)
            self._daemon.wait(timeout=60)
            shown += interrupt + self._printed(after)
        return shown

    def _printed(self, expected: str) -> str:
        def log() -> str:
            return self._at_home(self._daemon_log.read_bytes()[self._read :])

        wanted = {comparable(line) for line in expected.splitlines()}
        try:
            until(lambda: wanted <= {comparable(line) for line in log().splitlines()})
        except AssertionError:
            expected = log()
        self._read += len(self._daemon_log.read_bytes()[self._read :])
        return expected

    def _at_home(self, output: bytes) -> str:
        text = output.decode("utf-8").replace(str(self._home), HOME)
        return text if not text or text.endswith("\n") else f"{text}\n"


def environment_of(es_url: str, programs: Path) -> dict[str, str]:
    """Return the environment of a terminal: this one's, with the programs on its path."""
    # Caches are those of the home: what other tests measured is not on the page.
    others = {"ES_IMGSEARCH_DESCRIBERS", "ES_IMGSEARCH_CACHE_DIR", "XDG_CACHE_HOME"}
    kept = {name: value for name, value in os.environ.items() if name not in others}
    return {
        **kept,
        "ES_URL": es_url,
        "PATH": f"{programs}:{os.environ['PATH']}",
        "COLUMNS": "100",
    }
