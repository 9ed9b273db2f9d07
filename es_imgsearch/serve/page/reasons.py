"""Why a picture matched the search that its page was opened from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from es_imgsearch.errors import ImageMissing, UsageError
from es_imgsearch.serve.page.address import Address
from es_imgsearch.serve.page.field_rows import FieldRow, field_rows
from es_imgsearch.serve.page.search_page import WARM_SECONDS, is_search, parse_request
from es_imgsearch.serve.service import SearchService


@dataclass(frozen=True, slots=True)
class Reasons:
    """What the page shows; `ask` is the address that shows it, `hide` the one without.

    `box` is the nearest part, in pixels of a picture of `size`; without one it is None.
    """

    ask: str = ""
    hide: str = ""
    sentence: str = ""
    rows: Sequence[FieldRow] = ()
    notes: Sequence[str] = ()
    box: Sequence[int] | None = None
    size: tuple[int, int] = (0, 0)


def reasons(
    service: SearchService, address: Address, image_id: str, fields: Mapping[str, Any]
) -> Reasons:
    """Compare a picture with the search in its address, if that asks for it (`why=1`).

    Without a search there are no reasons; comparing takes as long as embedding 14 pictures.
    """
    try:
        request = parse_request(address)
        if not is_search(request):
            return Reasons()
        if address.get("why") != "1":
            return Reasons(ask=str(address.setting("why", "1")))
        service.check_model(WARM_SECONDS)
        match = service.match(image_id, request)
    except (UsageError, ImageMissing):
        return Reasons()
    size = int(fields.get("width") or 0), int(fields.get("height") or 0)
    return Reasons(
        hide=str(address.dropping("why")),
        sentence=sentence(match),
        rows=list(field_rows(match["fields"])),
        notes=match["notes"],
        box=match["box"] if all(size) else None,
        size=size,
    )


def sentence(match: Mapping[str, Any]) -> str:
    """Say what of a picture is like the query."""
    whole, part = match["whole_cosine"], match["box_cosine"]
    if whole is None:
        return "Only words were compared."
    if match["box"] is None:
        return f"The picture as a whole is nearest to the query (cosine {whole:.3f})."
    x, y, width, height = match["box"]
    return (
        f"Nearest to the query is the part of {width} × {height} pixels at {x}, {y}: its cosine is"
        f" {part:.3f}, that of the whole {whole:.3f}."
    )
