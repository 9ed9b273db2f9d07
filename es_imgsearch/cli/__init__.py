"""The command line: data on standard output, the rest on standard error.

A module bears its command's name; `options` and `printing` hold what the commands share, `judge`
and `exchange` the commands under those headings of the help.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
from types import TracebackType
from typing import Any

import click

from es_imgsearch.cli.completion import completion
from es_imgsearch.cli.describe import describe
from es_imgsearch.cli.duplicates import duplicates
from es_imgsearch.cli.exchange.kibana import kibana
from es_imgsearch.cli.exchange.snapshot import snapshot
from es_imgsearch.cli.exchange.transfer import export_command, import_command
from es_imgsearch.cli.find import find
from es_imgsearch.cli.help import help_command
from es_imgsearch.cli.init import drop, encoder, init
from es_imgsearch.cli.judge.codes import codes
from es_imgsearch.cli.judge.evaluate import calibrate, evaluate
from es_imgsearch.cli.judge.tags import identify, tags
from es_imgsearch.cli.judge.tune import tune
from es_imgsearch.cli.options import Group
from es_imgsearch.cli.printing.lines import drop_output
from es_imgsearch.cli.printing.logs import outlive_standard_error, set_up_logging
from es_imgsearch.cli.production.doctor import doctor
from es_imgsearch.cli.production.keys import keys
from es_imgsearch.cli.production.plan import plan
from es_imgsearch.cli.reindex import reindex
from es_imgsearch.cli.search import search, similar
from es_imgsearch.cli.serving.serve import serve
from es_imgsearch.cli.status import status
from es_imgsearch.cli.sync import sync
from es_imgsearch.cli.verify import failures, verify
from es_imgsearch.cli.watch import watch
from es_imgsearch.errors import EXIT_DIFFERENCE, EXIT_DONE, ImgSearchError

_LEAK_FILTER = "ignore:resource_tracker:UserWarning"


class _Main(Group):
    """Turn our errors into one line on standard error and their exit code."""

    def main(self, *arguments: Any, **given: Any) -> Any:
        outlive_standard_error()
        try:
            return super().main(*arguments, **given)
        except OSError as error:
            # What no part expects, such as of the text of --help.
            if error.errno not in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
                raise
            drop_output()
            where = error.filename or "Standard output, or a file,"
            click.echo(f"Error: {where} cannot be written: {error.strerror}.", err=True)
            sys.exit(EXIT_DIFFERENCE)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except ImgSearchError as error:
            click.echo(f"Error: {error}", err=True)
            ctx.exit(error.exit_code)
        except BrokenPipeError:
            # `es-imgsearch search … | head`
            drop_output()
            ctx.exit(EXIT_DONE)


@click.group(
    cls=_Main, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.version_option(package_name="es-imgsearch")
@click.option("-v", "--verbose", is_flag=True, help="Log more on standard error.")
def main(verbose: bool) -> None:
    """Find pictures by words, by another picture or by part of one."""
    let_waiting_threads_sleep()
    ignore_leaks_of_killed_processes()
    set_up_logging(verbose=verbose)


main.headings = {
    "Find pictures": [find, search, similar, duplicates, identify],
    "Make an index": [init, reindex, encoder, drop],
    "Keep it up to date": [watch, sync, describe, status, verify, failures],
    "Judge and tune the results": [evaluate, calibrate, tune, tags, codes],
    "Exchange": [export_command, import_command, snapshot, kibana],
    "Serve": [serve],
    "Run it for others": [plan, doctor, keys],
    "Help": [help_command, completion],
}
for _commands in main.headings.values():
    for _each in _commands:
        main.add_command(_each)


def let_waiting_threads_sleep() -> None:
    """Keep idle threads of torch and OpenBLAS from spinning on the readers' cores.

    Works for libraries that are not imported yet, and leaves variables that are set already.  On
    two busy cores `sync` of 600 small pictures took 15.0 s with OpenBLAS's default and 11.7 s with
    this (compare with OPENBLAS_THREAD_TIMEOUT=26); 200 pictures with a model in torch took 29 s
    and 17 s.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # The smallest value it accepts: threads spin for 2**4 cycles.  The default, 26, is about 25 ms.
    os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "4")


def ignore_leaks_of_killed_processes() -> None:
    """Keep Python's resource tracker from printing a warning after `kill -9`.

    It removes the semaphores of the pools of a killed process, and warns of each; it reads its
    filters from the environment.
    """
    filters = [each for each in (os.environ.get("PYTHONWARNINGS"), _LEAK_FILTER) if each]
    os.environ["PYTHONWARNINGS"] = ",".join(dict.fromkeys(filters))


def _report_unless_left(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    """Report an error of a starting process, unless its parent gave it up.

    Then, or when the parent was killed, the pipe that it reads ends, or the semaphores that it was
    given are removed.
    """
    if not isinstance(error, EOFError | FileNotFoundError):
        sys.__excepthook__(kind, error, trace)


def _start_quietly() -> None:
    """Print no traceback if this process is stopped before it has started.

    multiprocessing has a new process import the program first, then what it is given to run; only
    that can ask for an end with its parent (`read.workers.begin_child`).
    """
    sys.excepthook = _report_unless_left
    signal.signal(signal.SIGINT, signal.SIG_IGN)


_processes = sys.modules.get("multiprocessing.process")
# Set while multiprocessing prepares a new process, and checked by it in the same way.
if _processes and getattr(_processes.current_process(), "_inheriting", False):
    _start_quietly()
