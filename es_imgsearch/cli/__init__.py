"""The command line: thin.  Data on standard output, everything else on standard error.

One module a group of commands; `shared` holds what they have in common.
"""

from __future__ import annotations

import logging
import sys
from typing import Any

import click

from es_imgsearch.cli.coding import codes
from es_imgsearch.cli.describing import describe
from es_imgsearch.cli.duplicates import duplicates
from es_imgsearch.cli.encoding import encoder
from es_imgsearch.cli.evaluating import calibrate, evaluate
from es_imgsearch.cli.exchanging import export_command, import_command
from es_imgsearch.cli.keeping import sync, watch
from es_imgsearch.cli.looking import failures, status, verify
from es_imgsearch.cli.making import init
from es_imgsearch.cli.migrating import reindex
from es_imgsearch.cli.searching import search, similar
from es_imgsearch.cli.serving import serve
from es_imgsearch.cli.shared import Group, drop_output
from es_imgsearch.cli.tagging import identify, tags
from es_imgsearch.cli.tuning import tune
from es_imgsearch.cli.visualising import kibana
from es_imgsearch.errors import EXIT_DONE, ImgSearchError
from es_imgsearch.waiting_threads import let_waiting_threads_sleep


class _Main(Group):
    """Ends with the exit code of an error of ours, and one line instead of a traceback."""

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
@click.option("-v", "--verbose", is_flag=True, help="Say more on standard error.")
def main(verbose: bool) -> None:
    """Find pictures by words, by another picture or by a piece of one, on Elasticsearch 8."""
    let_waiting_threads_sleep()
    logging.basicConfig(
        stream=sys.stderr,
        format="%(asctime)s %(levelname)s %(message)s",
        level=logging.DEBUG if verbose else logging.WARNING,
    )
    for foreign in ("elastic_transport", "urllib3", "PIL", "asyncio", "sentence_transformers"):
        logging.getLogger(foreign).setLevel(logging.ERROR)


for _each in (
    init,
    encoder,
    watch,
    sync,
    search,
    similar,
    tune,
    duplicates,
    evaluate,
    calibrate,
    codes,
    status,
    verify,
    failures,
    reindex,
    export_command,
    import_command,
    tags,
    identify,
    describe,
    kibana,
    serve,
):
    main.add_command(_each)
