"""The result of a search: `Hits`, with facets and notes, and each `Hit`."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, overload

from es_imgsearch.errors import LibraryMissing
from es_imgsearch.records import stored_path

if TYPE_CHECKING:
    import pandas
    from PIL import Image

    from es_imgsearch.records import Box
    from es_imgsearch.search.query import QueryPicture


# A hit of at least this relevance is more likely right than wrong.
LIKELY: Final = 0.5
# `repr` shows this many hits, one a line.
_LINES_SHOWN = 20
# The columns of a data frame without hits.
_MINIMAL_COLUMNS = ["image_id", "path", "root", "relative_path", "score", "relevance", "cosine"]


@dataclass(frozen=True, slots=True)
class Hit:
    """One picture of a search's result.

    `score`
        orders the hits: in mode vector the cosine of query and picture, from -1 to 1 (with
        `weights` the weighted mean of the parts' cosines); in mode text the BM25 score; in mode
        hybrid the sum of reciprocal ranks.  A picture that the words name as a whole gets 1 more
        for a tag and 2 for an id, path or name; in mode text 1,000 and 2,000.
    `relevance`
        the estimated probability, 0 to 1, that the hit is right; None if it is not known, for
        example in an index of fewer than 30 pictures.
    `fields`
        every stored field of the picture, or those of the option `fields`.
    `path`
        the original file; None if its root is on another host.
    `cosine`
        the cosine of the content vectors, if known: in mode vector without weights, in mode hybrid
        for hits of the search by vectors, for all if relevance is known, and always with `explain`.
    `explanation`
        filled by the option `explain`, see `SearchOptions`.
    `matched_box`
        with the option `regions`, the part (x, y, width, height) in pixels of the upright picture
        that matched better than the whole; `cosine` is the cosine of this part.
    `matches_words`
        True if the stored words of the picture match those of the query: in the modes text and
        hybrid, closely if the mode was auto.
    """

    image_id: str
    root: str
    relative_path: str
    score: float
    relevance: float | None
    fields: Mapping[str, Any] = field(repr=False)
    path: Path | None = field(default=None, repr=False)
    cosine: float | None = field(default=None, repr=False)
    explanation: Mapping[str, Any] | None = field(default=None, repr=False)
    matched_box: Box | None = field(default=None, repr=False)
    matches_words: bool = field(default=False, repr=False)

    @property
    def image_name(self) -> str:
        """The file name."""
        return str(self.fields.get("image_name", self.relative_path.rpartition("/")[2]))

    @property
    def percent(self) -> str:
        """The relevance for a person, such as 31%; "" if it is not known."""
        return "" if self.relevance is None else f"{self.relevance:.0%}"

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, as `search --json` prints them.

        Bytes of `path` that are not UTF-8 are escaped as in `relative_path`.
        """
        optional: dict[str, Any] = {}
        if self.explanation is not None:
            optional["explanation"] = self.explanation
        if self.matched_box is not None:
            optional["matched_box"] = list(self.matched_box)
        if self.matches_words:
            optional["matches_words"] = True
        return {
            **self.fields,
            "image_id": self.image_id,
            "path": None if self.path is None else stored_path(os.fspath(self.path)),
            "root": self.root,
            "relative_path": self.relative_path,
            "score": self.score,
            "relevance": self.relevance,
            "cosine": self.cosine,
            **optional,
        }


class LazyHits(Sequence[Hit]):
    """Hits that `build` (position from 0 -> hit) builds on first access."""

    def __init__(self, count: int, build: Callable[[int], Hit]) -> None:
        self._hits: list[Hit | None] = [None] * count
        self._build = build

    @overload
    def __getitem__(self, position: int) -> Hit: ...
    @overload
    def __getitem__(self, position: slice) -> Sequence[Hit]: ...
    def __getitem__(self, position: int | slice) -> Hit | Sequence[Hit]:
        numbers = range(len(self._hits))[position]
        if isinstance(numbers, range):
            return [self[number] for number in numbers]
        hit = self._hits[numbers]
        if hit is None:
            hit = self._hits[numbers] = self._build(numbers)
        return hit

    def __len__(self) -> int:
        return len(self._hits)

    def __reduce__(self) -> tuple[type[tuple[Hit, ...]], tuple[list[Hit]]]:
        # Pickle the hits, not `build`, which holds the raw answer and the client's settings.
        return tuple, (list(self),)


class Hits(Sequence[Hit]):
    """The hits of one search, best first.

        hits = search.search_text("cat", k=200, size=20, facets=["year"])
        hits[0].path, len(hits), hits.facets["year"]

    `took_ms` is Elasticsearch's own time.  `queries` holds the positive texts and pictures of the
    search; a picture with a box is the part that was cut out.  `notes` are remarks for a person,
    for example that the end of a long text was not read.  `facets` counts values over all k hits,
    including those outside of the page.  `mode` is the mode of the search, never ``auto``: the one
    that was chosen.
    """

    def __init__(
        self,
        hits: Sequence[Hit],
        took_ms: int,
        queries: Sequence[str | QueryPicture] = (),
        *,
        notes: Sequence[str] = (),
        facets: Mapping[str, Mapping[str, int]] | None = None,
        mode: str = "vector",
    ) -> None:
        self._hits = hits if isinstance(hits, LazyHits) else tuple(hits)
        self.took_ms = took_ms
        self.queries = tuple(queries)
        self.notes = tuple(notes)
        self.facets = facets or {}
        self.mode = mode

    @overload
    def __getitem__(self, position: int) -> Hit: ...
    @overload
    def __getitem__(self, position: slice) -> Hits: ...
    def __getitem__(self, position: int | slice) -> Hit | Hits:
        if isinstance(position, slice):
            return Hits(
                self._hits[position],
                self.took_ms,
                self.queries,
                notes=self.notes,
                facets=self.facets,
                mode=self.mode,
            )
        return self._hits[position]

    def __len__(self) -> int:
        return len(self._hits)

    def __iter__(self) -> Iterator[Hit]:
        return iter(self._hits)

    @property
    def relevant(self) -> int | None:
        """Number of hits that are likely right, with a relevance of at least 0.5.

        None if the relevance of no hit is known.
        """
        known = [hit.relevance for hit in self if hit.relevance is not None]
        return sum(each >= LIKELY for each in known) if known else None

    @property
    def likely_end(self) -> int | None:
        """Position after the last hit that is likely right or has the words of the query.

        What follows is likely wrong.  None if the relevance of no hit is known.
        """
        if self.relevant is None:
            return None
        likely = [
            position
            for position, hit in enumerate(self, start=1)
            if (hit.relevance or 0.0) >= LIKELY or hit.matches_words
        ]
        return max(likely, default=0)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, as `search --json` prints them."""
        return {
            "hits": [hit.to_dict() for hit in self],
            "facets": self.facets,
            "notes": list(self.notes),
            "took_ms": self.took_ms,
            "relevant": self.relevant,
        }

    def __repr__(self) -> str:
        shown = self._hits[:_LINES_SHOWN]
        percents = [f"{hit.percent:>6}" if hit.percent else "" for hit in shown]
        lines = [
            f"  {hit.score:6.3f}{percent}  {hit.root}/{hit.relative_path}"
            for hit, percent in zip(shown, percents, strict=True)
        ]
        if len(self) > len(shown):
            lines.append(f"  and {len(self) - len(shown)} more")
        return "\n".join([f"<{len(self)} hits, {self.took_ms} ms>", *lines])

    def _repr_html_(self) -> str:
        """Show the first hits in a notebook, with thumbnails of originals on this host."""
        from es_imgsearch.search.notebook import hits_html

        return hits_html(self)

    def to_pandas(self) -> pandas.DataFrame:
        """Return a data frame with one row a hit and one column a field.

            hits.to_pandas().sort_values("taken_at")

        Raises LibraryMissing if pandas is not installed.
        """
        try:
            import pandas
        except ImportError as error:
            raise LibraryMissing(
                "A data frame needs pandas, which is not installed: pip install pandas."
            ) from error
        frame = pandas.DataFrame([hit.to_dict() for hit in self._hits])
        # Without hits there would be no columns, and code that names one would fail.
        return frame if len(self) else frame.reindex(columns=_MINIMAL_COLUMNS)

    def sheet(self, columns: int = 5) -> Image.Image:
        """Draw a contact sheet: the query on the left, hits with scores on the right.

            hits.sheet(columns=8).save("sheet.png")

        Shows the first 200 hits.  Raises UsageError for fewer than one column.
        """
        from es_imgsearch.search.sheet import draw_sheet

        return draw_sheet([self], columns=columns)
