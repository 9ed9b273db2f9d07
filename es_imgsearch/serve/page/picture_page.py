"""The page `/pictures/{id}`: one picture, large, with all that is known of it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from es_imgsearch.errors import ImageMissing, UsageError, readable_bytes
from es_imgsearch.records import stored_path
from es_imgsearch.serve.originals import kind_of
from es_imgsearch.serve.page import contents
from es_imgsearch.serve.page.address import Address
from es_imgsearch.serve.page.field_rows import field_rows, place_of
from es_imgsearch.serve.page.neighbours import neighbours
from es_imgsearch.serve.page.reasons import reasons
from es_imgsearch.serve.page.whereabouts import whereabouts
from es_imgsearch.serve.search_request import SearchRequest
from es_imgsearch.serve.service import SearchService
from es_imgsearch.serve.thumbnails import PREVIEW_PIXELS, PictureFiles

_SIMILAR: Final = 12
_MOST_COPIES: Final = 50
_IMAGE_ID: Final = re.compile(r"[0-9a-f]{32}")


def picture_page(
    service: SearchService, pictures: PictureFiles, address: Address, image_id: str
) -> dict[str, Any]:
    """Return what the template `picture.html` shows.  Raises ImageMissing."""
    if not _IMAGE_ID.fullmatch(image_id):
        raise ImageMissing(f"No picture has the image_id {image_id[:40]!r}.")
    fields = service.picture(image_id)
    alone = Address("/", (("like", image_id),))
    root, relative = str(fields.get("root", "")), str(fields.get("relative_path", ""))
    path = service.store.info().meta.path_on(service.settings.host, root, relative)
    place = place_of(fields)
    width, height = _preview_size(fields)
    return {
        "image_id": image_id,
        "name": str(fields.get("image_name", image_id)),
        "words": str(fields.get("title") or fields.get("caption") or ""),
        "path": "" if path is None else stored_path(os.fspath(path)),
        "place": f"{root}/{relative}",
        "where": whereabouts(pictures, service.store, image_id),
        "width": width,
        "height": height,
        "original": _original(fields),
        "is_shown": kind_of(str(fields.get("format"))).is_shown,
        "rows": list(field_rows(fields)),
        "geo": "" if place is None else f"geo:{place[0]:.6f},{place[1]:.6f}",
        "copies": list(_copies(service, fields, image_id)),
        "similar": _similar(service, image_id),
        "all_similar": str(alone),
        "part": str(alone.setting("part", "1")),
        "duplicates": str(Address("/duplicates", (("level", "near"), ("image_id", image_id)))),
        "why": reasons(service, address, image_id, fields),
        "around": neighbours(service, address, image_id),
    }


def _preview_size(fields: Mapping[str, Any]) -> tuple[int, int]:
    """Return width and height of the preview, 0 if the picture's are not known."""
    width, height = int(fields.get("width") or 0), int(fields.get("height") or 0)
    scale = min(1.0, PREVIEW_PIXELS / max(width, height, 1))
    return max(1, round(width * scale)) * (width > 0), max(1, round(height * scale)) * (height > 0)


def _original(fields: Mapping[str, Any]) -> str:
    """Describe the file: JPEG, 4.2 MB."""
    parts = [str(fields["format"]).upper()] if fields.get("format") else []
    parts += [readable_bytes(fields["size_bytes"])] if fields.get("size_bytes", -1) >= 0 else []
    return ", ".join(parts)


def _copies(
    service: SearchService, fields: Mapping[str, Any], image_id: str
) -> Iterator[tuple[str, str]]:
    """Yield address and place of each other file with the same content."""
    if not fields.get("content_id"):
        return
    ids = [each for each in service.ids_of_content(str(fields["content_id"])) if each != image_id]
    found = service.store.documents.stored_fields(ids[:_MOST_COPIES], ["root", "relative_path"])
    for each, stored in found.items():
        yield f"/pictures/{each}", f"{stored.get('root')}/{stored.get('relative_path')}"


def _similar(service: SearchService, image_id: str) -> list[contents.Thumb]:
    """Return the nearest others; none for a picture that has no vector."""
    request = SearchRequest.model_validate({"like": [image_id], "k": _SIMILAR, "collapse": True})
    try:
        hits = service.ranked(request, _SIMILAR, contents.FIELDS)
    except (ImageMissing, UsageError):
        return []
    return list(contents.tiles(hits, Address("/", (("like", image_id),)), 1, {}))
