"""`serve`: thumbnails and originals over HTTP."""

from __future__ import annotations

import ipaddress
import os
import signal
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from es_imgsearch.cli.options import examples, open_store, with_settings_options
from es_imgsearch.cli.printing.lines import print_line
from es_imgsearch.errors import LibraryMissing, UsageError

if TYPE_CHECKING:
    from es_imgsearch.serve.traffic.access_log import Detail
    from es_imgsearch.settings import Settings


@click.command(epilog=examples("serve", "serve --port 8090"))
@with_settings_options
@click.option("--address", default="127.0.0.1", show_default=True,
              help="Address to listen on.  Without tokens, all who can reach it see every picture,"
              " and only this machine itself may search.")  # fmt: skip
@click.option("--port", type=click.IntRange(0, 65535), default=8080, show_default=True,
              help="Port to listen on; 0 picks a free one.")  # fmt: skip
@click.option(
    "--allow-host",
    "hosts",
    metavar="NAME",
    multiple=True,
    help="Answer requests for this name of the machine, too; may be repeated.",
)
@click.option(
    "--token-file",
    type=click.Path(path_type=Path),
    help="Answer only who sends a token whose hash this file has.",
)
@click.option(
    "--rate-limit",
    metavar="N/TIME",
    help="Requests of one token or address, such as 600/minute; none switches it off.  Pictures"
    " are counted apart, 60 times as many.  [default: 600/minute for other machines]",
)
@click.option(
    "--trust-proxy",
    "proxies",
    metavar="ADDRESS",
    multiple=True,
    help="Believe X-Forwarded-For and X-Forwarded-Proto of the reverse proxy at this address or"
    " network; may be repeated.",
)
@click.option(
    "--root-path",
    metavar="PATH",
    default="",
    help="The path under which a reverse proxy serves this, such as /pictures.",
)
@click.option(
    "--access-log",
    type=click.Choice(["plain", "full"]),
    is_flag=False,
    flag_value="plain",
    help="Write a line for each request to standard error; full adds what was searched for.",
)
@click.option("--new-token", is_flag=True,
              help="Print a new token, add its hash to --token-file, and end.")  # fmt: skip
def serve(
    settings: Settings,
    address: str,
    port: int,
    hosts: tuple[str, ...],
    token_file: Path | None,
    rate_limit: str | None,
    proxies: tuple[str, ...],
    root_path: str,
    access_log: Detail | None,
    new_token: bool,
) -> None:
    """Serve pictures by id, and an HTTP API to search them.

    Run it on the machine that holds the pictures.  The API is described by /openapi.json; on
    another --address than this machine's own it needs a --token-file.
    """
    try:
        # Starlette imports it only once a form arrives.
        import python_multipart  # noqa: F401
        import uvicorn

        from es_imgsearch.serve.app import create_app
        from es_imgsearch.serve.tokens import new_token as make_token
        from es_imgsearch.serve.tokens import read_hashes
        from es_imgsearch.serve.traffic.access_log import AccessLog
        from es_imgsearch.serve.traffic.connections import BOUNDS
    except ImportError as error:
        raise LibraryMissing(
            "`es-imgsearch serve` needs FastAPI, Jinja2, limits, python-multipart and uvicorn: pip"
            " install 'es-imgsearch[serve]'."
        ) from error
    from es_imgsearch.search.remote.running import announced
    from es_imgsearch.serve.service import SearchService
    from es_imgsearch.serve.thumbnails import PictureFiles
    from es_imgsearch.serve.traffic.ending import EndingServer
    from es_imgsearch.serve.traffic.rate_limit import parse_rate
    from es_imgsearch.serve.traffic.root_path import checked_root_path

    if new_token:
        if token_file is None:
            raise UsageError("Name the file that gets the hash of the token with --token-file.")
        print_line(make_token(token_file))
        return
    has_tokens = token_file is not None and bool(read_hashes(token_file))
    # Wrong options end it before it starts processes.
    trusted = _networks(proxies)
    parse_rate(rate_limit or "")
    root_path = checked_root_path(root_path)
    store = open_store(settings)
    store.info()
    with _listening(address, port) as listening:
        bound, port = listening.getsockname()[:2]
        is_searched = has_tokens or ipaddress.ip_address(bound).is_loopback
        # Reading processes start only now.
        pictures = PictureFiles(store, settings)
        app = create_app(
            pictures,
            SearchService(settings, originals=pictures) if is_searched else None,
            hosts={address, *hosts},
            token_file=token_file,
            rate_limit=rate_limit,
            root_path=root_path,
            access_log=AccessLog(_print_log_line, access_log) if access_log else None,
            index=settings.index,
        )
        config = uvicorn.Config(
            app,
            log_level="warning",
            server_header=False,
            **BOUNDS,
            # uvicorn itself believes every program of this machine.
            proxy_headers=bool(trusted),
            forwarded_allow_ips=trusted,
        )
        shown = f"[{address}]" if ":" in address else address
        click.echo(f"Serving pictures of {settings.index!r} on http://{shown}:{port}", err=True)
        if not is_searched:
            click.echo(
                "Other machines can reach this address, so the search API is switched off: make a"
                " token with `es-imgsearch serve --new-token --token-file tokens.txt`, and add"
                " --token-file tokens.txt.",
                err=True,
            )
        # uvicorn ends in good order and then raises the signal again; it is no error.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, _end)
        server = EndingServer(config, shutdown_seconds=settings.shutdown_seconds)
        # Without its API there is nothing that `search` could ask.
        near = bound if is_searched else ""
        with announced(settings, near, port, needs_token=has_tokens):
            server.run(sockets=[listening])


def _networks(addresses: tuple[str, ...]) -> list[str]:
    """Check addresses and networks.  Raises UsageError."""
    for each in addresses:
        try:
            network = ipaddress.ip_network(each)
        except ValueError as error:
            raise UsageError(
                f"--trust-proxy cannot be {each!r} ({error}): give the address of the proxy, such"
                " as 10.0.0.2, or its network, such as 10.0.0.0/24."
            ) from None
        if _holds_everyone(network):
            raise UsageError(
                f"--trust-proxy cannot be {each!r}: everyone in it could choose the address that is"
                " counted and logged; give the address of the proxy, such as 10.0.0.2, or its"
                " network, such as 10.0.0.0/24."
            )
    return list(addresses)


def _holds_everyone(network: ipaddress.IPv4Network | ipaddress.IPv6Network) -> bool:
    """Whether a network has all addresses, of IPv4 in IPv6 too, or half of them."""
    if network.prefixlen <= 1:
        return True
    mapped = ipaddress.IPv6Network("::ffff:0:0/96")
    return isinstance(network, ipaddress.IPv6Network) and mapped.subnet_of(network)


def _print_log_line(line: str) -> None:
    click.echo(line, err=True)


def _end(*_: object) -> None:
    sys.exit(0)


def _listening(address: str, port: int) -> socket.socket:
    """Bind the socket here: uvicorn would end the process itself, with exit code 1."""
    try:
        family = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM)[0][0]
        listening = socket.create_server((address, port), family=family, backlog=2048)
        # Else an answer waits up to 40 ms until the client acknowledges the headers: asyncio sets
        # it on its own sockets only.  Connections inherit it.
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
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
    return listening
