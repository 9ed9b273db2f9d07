"""What a search finds."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from es_imgsearch.errors import LibraryMissing

if TYPE_CHECKING:
    import pandas
    from PIL import Image

    from es_imgsearch.records import Box
    from es_imgsearch.search.query import QueryPicture


# A line each; who wants more asks for them.
_LINES_SHOWN = 20
# What a picture has whatever is stored of it.
_ALWAYS = ["image_id", "root", "relative_path", "score", "relevance", "cosine"]


@dataclass(frozen=True, slots=True)
class Hit:
    """One picture found.

    `score` is what the hits are ordered by: in mode vector the cosine of query and picture,
    from -1 to 1 (with `weights` the weighted mean of the parts' cosines); in mode text the BM25
    score; in mode hybrid the fused score of reciprocal ranks.  `relevance` is the calibrated
    probability that the hit is right; None until the index has been calibrated.  `fields` holds
    everything stored of the picture; `path` is the original, None where its root is on another
    host.  `cosine` is that of the content, where it is known: in mode vector without weights, in
    mode hybrid of hits that the vectors found, and always with `explain`.  `explanation` is
    filled by `explain`, see `SearchOptions`.  `matched_box` is the part (x, y, width, height) in
    pixels of the upright picture that was nearer than the whole; only in a search with `regions`,
    where `cosine` is that of this part.
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

    @property
    def image_name(self) -> str:
        return str(self.fields.get("image_name", self.relative_path.rpartition("/")[2]))

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as `search --json` prints them."""
        told: dict[str, Any] = {}
        if self.explanation is not None:
            told["explanation"] = self.explanation
        if self.matched_box is not None:
            told["matched_box"] = list(self.matched_box)
        return {
            **self.fields,
            "image_id": self.image_id,
            "root": self.root,
            "relative_path": self.relative_path,
            "score": self.score,
            "relevance": self.relevance,
            "cosine": self.cosine,
            **told,
        }


class LazyHits(Sequence[Hit]):
    """Hits made from what the server sent when somebody looks at them, each once."""

    def __init__(self, count: int, make: Callable[[int], Hit]) -> None:
        self._made: list[Hit | None] = [None] * count
        self._make = make

    @overload
    def __getitem__(self, position: int) -> Hit: ...
    @overload
    def __getitem__(self, position: slice) -> Sequence[Hit]: ...
    def __getitem__(self, position: int | slice) -> Hit | Sequence[Hit]:
        numbers = range(len(self._made))[position]
        if isinstance(numbers, range):
            return [self[number] for number in numbers]
        found = self._made[numbers]
        if found is None:
            found = self._made[numbers] = self._make(numbers)
        return found

    def __len__(self) -> int:
        return len(self._made)

    def __reduce__(self) -> tuple[type[tuple[Hit, ...]], tuple[list[Hit]]]:
        # What makes them holds the answer and the client's settings; the hits are what counts.
        return tuple, (list(self),)


class Hits(Sequence[Hit]):
    """The hits of one search, best first.

    `took_ms` is Elasticsearch's own time; `queries` are the pictures and texts asked for, a
    picture that had a box as the part that was searched for.  `notes` say what a person should
    know, such as that the end of a long text was not read.  `facets` counts values over all
    hits, also over those that the page left out.
    """

    def __init__(
        self,
        hits: Sequence[Hit],
        took_ms: int,
        queries: Sequence[str | QueryPicture] = (),
        *,
        notes: Sequence[str] = (),
        facets: Mapping[str, Mapping[str, int]] | None = None,
    ) -> None:
        self._hits = hits if isinstance(hits, LazyHits) else tuple(hits)
        self.took_ms = took_ms
        self.queries = tuple(queries)
        self.notes = tuple(notes)
        self.facets = facets or {}

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
            )
        return self._hits[position]

    def __len__(self) -> int:
        return len(self._hits)

    def __iter__(self) -> Iterator[Hit]:
        return iter(self._hits)

    def __repr__(self) -> str:
        shown = self._hits[:_LINES_SHOWN]
        lines = [f"  {hit.score:6.3f}  {hit.root}/{hit.relative_path}" for hit in shown]
        if len(self) > len(shown):
            lines.append(f"  and {len(self) - len(shown)} more")
        return "\n".join([f"<{len(self)} hits, {self.took_ms} ms>", *lines])

    def _repr_html_(self) -> str:
        """For notebooks: small pictures of the first hits, those whose originals are here."""
        from es_imgsearch.search.notebook import hits_html

        return hits_html(self)

    def to_pandas(self) -> pandas.DataFrame:
        """A frame with one row a hit and one column a field.

        Raises LibraryMissing where pandas is not installed.
        """
        try:
            import pandas
        except ImportError as error:
            raise LibraryMissing(
                "A frame needs pandas, which is not installed: pip install pandas."
            ) from error
        frame = pandas.DataFrame([hit.to_dict() for hit in self._hits])
        # A frame of no hits has the columns that every other has, so that they can be named.
        return frame if len(self) else frame.reindex(columns=_ALWAYS)

    def sheet(self, columns: int = 5) -> Image.Image:
        """A contact sheet: the query on the left, hits with their scores on the right.

        Shows the first 200 hits; a sheet of more would not fit into memory.
        """
        from es_imgsearch.search.sheet import draw_sheet

        return draw_sheet([self], columns=columns)
