"""Have searches answered by a running `serve`, or by Elasticsearch from here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from es_imgsearch.cli.options import import_client
from es_imgsearch.errors import ServiceUnreachable, ServiceUnsuitable, StoreBusy, UsageError

if TYPE_CHECKING:
    from es_imgsearch.search.client import ImageSearch
    from es_imgsearch.search.hits import Hits
    from es_imgsearch.search.remote.service_search import ServiceSearch
    from es_imgsearch.settings import Settings


def _read_token(_context: click.Context, _option: click.Parameter, file: Path | None) -> str | None:
    """Return the token that a file holds."""
    if file is None:
        return None
    try:
        return file.read_text("ascii")
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is no text"
        raise UsageError(f"--service-token-file {str(file)!r} cannot be read: {why}.") from None


service_options = (
    click.option("--service", metavar="URL|none",
                 help="Ask this running `serve` in place of Elasticsearch, or none.  [default: one"
                 " of the same user and index on this machine, if there is one]"),
    click.option("--service-token-file", "service_token", metavar="FILE", callback=_read_token,
                 type=click.Path(path_type=Path), help="File with the token that it needs."),
)  # fmt: skip


def found(
    settings: Settings, ask: Callable[[ImageSearch | ServiceSearch], Hits], *, is_local: bool
) -> Hits:
    """Ask the service that is named or found; or else Elasticsearch from here.

    The service that was found itself is asked for what it can do as it is done here, while it
    answers; the one that was named is asked for everything.
    """
    is_found = settings.service == "auto"
    if not (settings.service == "none" or (is_found and is_local)):
        from es_imgsearch.search.remote.running import open_running
        from es_imgsearch.search.remote.service_search import open_service

        named = None if is_found else open_service(settings.service, settings)
        service = named or open_running(settings)
        if service is not None:
            try:
                return ask(service)
            except (ServiceUnreachable, ServiceUnsuitable, StoreBusy):
                if not is_found:
                    raise
    import_client()
    from es_imgsearch.search.client import ImageSearch

    return ask(ImageSearch(settings=settings))
