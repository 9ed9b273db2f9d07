"""`serve`: thumbnails and originals over HTTP."""

from __future__ import annotations

import os
import signal
import socket
import sys
from typing import TYPE_CHECKING

import click

from es_imgsearch.cli.options import examples, open_store, with_settings_options
from es_imgsearch.errors import LibraryMissing, UsageError

if TYPE_CHECKING:
    from es_imgsearch.settings import Settings


@click.command(epilog=examples("serve", "serve --port 8090"))
@with_settings_options
@click.option("--address", default="127.0.0.1", show_default=True,
              help="Address to listen on; all who can reach it see every picture.")  # fmt: skip
@click.option("--port", type=click.IntRange(0, 65535), default=8080, show_default=True,
              help="Port to listen on; 0 picks a free one.")  # fmt: skip
def serve(settings: Settings, address: str, port: int) -> None:
    """Serve thumbnails and originals by id, for Kibana and browsers.

    Run it on the machine that holds the pictures.
    """
    try:
        import uvicorn

        from es_imgsearch.serve.app import create_app
    except ImportError as error:
        raise LibraryMissing(
            "`es-imgsearch serve` needs FastAPI and uvicorn: pip install 'es-imgsearch[serve]'."
        ) from error
    from es_imgsearch.serve.thumbnails import PictureFiles

    store = open_store(settings)
    store.info()
    with _listening(address, port) as listening:
        # Reading processes start only now.
        config = uvicorn.Config(
            create_app(PictureFiles(store, settings)), log_level="warning", server_header=False
        )
        shown = f"[{address}]" if ":" in address else address
        bound = listening.getsockname()[1]
        click.echo(f"Serving pictures of {settings.index!r} on http://{shown}:{bound}", err=True)
        # uvicorn ends in good order and then raises the signal again; it is no error.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, _end)
        uvicorn.Server(config).run(sockets=[listening])


def _end(*_: object) -> None:
    sys.exit(0)


def _listening(address: str, port: int) -> socket.socket:
    """Bind the socket here: uvicorn would end the process itself, with exit code 1."""
    try:
        family = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((address, port), family=family, backlog=2048)
    except UnicodeError as error:
        raise UsageError(
            f"{address}:{port} cannot be listened on: no host has that name, since what stands"
            " between two dots must have 1 to 63 letters; give an --address of this machine, such"
            " as 127.0.0.1."
        ) from error
    except OSError as error:
        # A name that does not resolve has numbers and words of its own; the system's words come
        # without the address that Python adds.
        number = None if isinstance(error, socket.gaierror) else error.errno
        why = os.strerror(number) if number else error.strerror
        raise UsageError(f"{address}:{port} cannot be listened on: {why}.") from error
