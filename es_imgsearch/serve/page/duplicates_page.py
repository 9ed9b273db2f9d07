"""The page `/duplicates`: groups of the same picture; it deletes nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final, Literal

from es_imgsearch.duplicates.groups import DuplicateGroup
from es_imgsearch.duplicates.report import (
    day_of,
    evidence,
    group_lines,
    headline,
    length_of,
    place_of,
    size_of,
    summary,
)
from es_imgsearch.duplicates.script import check_removable, removal_script
from es_imgsearch.errors import UsageError, counted
from es_imgsearch.serve.answers.duplicate_lists import (
    ComparisonRunning,
    DuplicateList,
    DuplicateRequest,
)
from es_imgsearch.serve.page.address import Address
from es_imgsearch.serve.page.search_page import page_number
from es_imgsearch.serve.problems import status_of, validated
from es_imgsearch.serve.service import SearchService

PAGE_GROUPS: Final = 20
_NOTHING: Final[Mapping[str, Any]] = {
    "is_running": False, "problem": "", "groups": [], "summary": "", "notes": [], "previous": "",
    "more": "",
}  # fmt: skip
_MOST_SHOWN: Final = 60
# A small index is compared in that time; a page that says so comes soon for a large one.
_WAIT_SECONDS: Final = 3.0
_DOWNLOAD_SECONDS: Final = 25.0


def parse_duplicates(address: Address) -> DuplicateRequest:
    """Return what an address asks for, by default equal bytes.  Raises UsageError."""
    asked = {"level": "same", **{name: value for name, value in address.pairs if name != "page"}}
    request = validated(DuplicateRequest, asked, "query")
    if request.level == "same":
        # What the form offers for other levels: equal bytes need no threshold.
        is_near = request.thorough or request.unconfirmed
        level: Literal["near", "same"] = "near" if is_near else "same"
        threshold = request.threshold if is_near else None
        return request.model_copy(update={"level": level, "threshold": threshold})
    return request


def duplicates_page(service: SearchService, address: Address) -> dict[str, Any]:
    """Return what the template `duplicates.html` shows."""
    request, number = parse_duplicates(address), page_number(address, 500)
    shown = {
        "request": request,
        "roots": sorted(service.store.info().meta.roots),
        "threshold": address.get("threshold"),
        "text": str(address.at("/duplicates.txt")),
        "script": str(address.at("/duplicates.sh")) if _is_removable(request) else "",
        "all_pictures": str(address.dropping("image_id")) if request.image_id else "",
    }
    try:
        found = service.duplicates(request, _WAIT_SECONDS)
    except ComparisonRunning:
        return {**shown, **_NOTHING, "is_running": True}
    except UsageError as error:
        # The form is there to be mended.
        return {**shown, **_NOTHING, "problem": str(error), "http_status": status_of(error)}
    first = (number - 1) * PAGE_GROUPS
    page = found.groups[first : first + PAGE_GROUPS]
    return {
        **shown,
        **_NOTHING,
        "summary": summary(found.groups),
        "notes": list(_notes(found, request)),
        "groups": [_group(each, n) for n, each in enumerate(page, first + 1)],
        "previous": str(address.turning_to(number - 1)) if number > 1 else "",
        "more": str(address.turning_to(number + 1))
        if len(found.groups) > first + PAGE_GROUPS
        else "",
    }


def as_text(service: SearchService, address: Address) -> bytes:
    """Return the groups as `duplicates` prints them."""
    found = service.duplicates(parse_duplicates(address), _DOWNLOAD_SECONDS)
    lines = [*group_lines(found.groups), "", summary(found.groups), ""]
    return "\n".join(lines).lstrip("\n").encode()


def as_script(service: SearchService, address: Address) -> bytes:
    """Return the script of `duplicates --script`.  Raises UsageError as that does."""
    request = parse_duplicates(address)
    check_removable(request.level, thorough=request.thorough, unconfirmed=request.unconfirmed)
    found = service.duplicates(request, _DOWNLOAD_SECONDS)
    return b"".join(removal_script(found.groups))


def _is_removable(request: DuplicateRequest) -> bool:
    return request.level != "similar" and not request.unconfirmed and not request.thorough


def _notes(found: DuplicateList, request: DuplicateRequest) -> Iterator[str]:
    if request.level == "same":
        yield "Pictures that were saved again are not among these: compare “the same picture”."
    elif found.groups and not _is_removable(request):
        yield "There is no script for these: look at each pair yourself."
    if found.is_cut:
        yield "These are the first groups that were found; there are more."
    if found.left_out:
        files = counted(found.left_out, "file was", "files were")
        yield f"{files} left out, gone or changed since indexed: bring the index up to date."
    if found.unconfirmed and not request.unconfirmed:
        pairs = counted(found.unconfirmed, "pair looks", "pairs look")
        yield (
            f"{pairs} the same by what is stored, and no file here confirms that: tick “also"
            " unconfirmed ones” to see them."
        )


def _group(group: DuplicateGroup, number: int) -> dict[str, Any]:
    first, *others = group.pictures
    return {
        "headline": headline(number, group),
        "more": max(0, len(group.pictures) - _MOST_SHOWN),
        "pictures": [
            {
                "image_id": each.image_id,
                "view": f"/pictures/{each.image_id}",
                "width": each.width,
                "height": each.height,
                "size": size_of(each).replace("x", "×"),
                "length": length_of(each),
                "day": day_of(each),
                "place": place_of(each),
                "name": each.relative_path.rpartition("/")[2],
                "is_kept": each is first,
                "evidence": evidence(group, each),
                "details": _details(group, each.image_id) if each is not first else "",
            }
            for each in [first, *others][:_MOST_SHOWN]
        ],
    }


def _details(group: DuplicateGroup, image_id: str) -> str:
    """Say how far the picture is from another one of its group, if that is known."""
    if group.level == "similar":
        return ""
    pair = next(each for each in group.pairs if image_id in {each.one, each.other})
    bits = pair.hash_distance
    known = [
        "" if bits is None else f"{counted(bits, 'bit')} of 64 of the hashes differ",
        "" if pair.cosine is None else f"cosine {pair.cosine:.3f}",
        "" if pair.corners is None else f"{counted(pair.corners, 'corner')} agree",
    ]
    return ", ".join(filter(None, known))
