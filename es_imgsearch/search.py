"""The thin client: a query becomes a vector, the vector a request, the answer hits."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

import numpy as np
import numpy.typing as npt
from PIL import Image

from es_imgsearch import queries
from es_imgsearch.connection import connect
from es_imgsearch.errors import ImageMissing, RenderingUnavailable, TextUnsupported, UsageError
from es_imgsearch.query_picture import Box, QueryPicture, open_query_picture
from es_imgsearch.records import disk_path, is_text
from es_imgsearch.sealing import sealed_encoder
from es_imgsearch.settings import Settings, changed_settings, load_settings
from es_imgsearch.store import IndexInfo, Store

if TYPE_CHECKING:
    import elasticsearch
    import pandas

    from es_imgsearch.embed import Encoder

Query = str | QueryPicture
Vector = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Hit:
    """One picture found.

    `score` is the cosine of query and picture, from -1 to 1.  `relevance` is the calibrated
    probability that the hit is right; None until the index has been calibrated.  `fields` holds
    everything stored of the picture; `path` is the original, None where its root is on another
    host.
    """

    image_id: str
    root: str
    relative_path: str
    score: float
    relevance: float | None
    fields: Mapping[str, Any] = field(repr=False)
    path: Path | None = field(default=None, repr=False)

    @property
    def image_name(self) -> str:
        return str(self.fields.get("image_name", self.relative_path.rpartition("/")[2]))

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as `search --json` prints them."""
        return {
            **self.fields,
            "image_id": self.image_id,
            "root": self.root,
            "relative_path": self.relative_path,
            "score": self.score,
            "relevance": self.relevance,
        }


class Hits(Sequence[Hit]):
    """The hits of one search, best first.

    `took_ms` is Elasticsearch's own time; `queries` are the pictures and texts asked for, a
    picture that had a box as the part that was searched for.
    """

    def __init__(self, hits: Sequence[Hit], took_ms: int, queries: Sequence[Query] = ()) -> None:
        self._hits = tuple(hits)
        self.took_ms = took_ms
        self.queries = tuple(queries)

    @overload
    def __getitem__(self, position: int) -> Hit: ...
    @overload
    def __getitem__(self, position: slice) -> Hits: ...
    def __getitem__(self, position: int | slice) -> Hit | Hits:
        if isinstance(position, slice):
            return Hits(self._hits[position], self.took_ms, self.queries)
        return self._hits[position]

    def __len__(self) -> int:
        return len(self._hits)

    def __iter__(self) -> Iterator[Hit]:
        return iter(self._hits)

    def __repr__(self) -> str:
        lines = [f"  {hit.score:6.3f}  {hit.root}/{hit.relative_path}" for hit in self._hits]
        return "\n".join([f"<{len(self)} hits, {self.took_ms} ms>", *lines])

    def to_pandas(self) -> pandas.DataFrame:
        """A frame with one row a hit and one column a field.

        Raises RenderingUnavailable where pandas is not installed.
        """
        try:
            import pandas
        except ImportError as error:
            raise RenderingUnavailable(
                "A frame needs pandas, which is not installed: pip install pandas."
            ) from error
        return pandas.DataFrame([hit.to_dict() for hit in self._hits])

    def sheet(self, columns: int = 5) -> Image.Image:
        """A contact sheet: the query on the left, hits with their scores on the right."""
        from es_imgsearch.sheet import draw_sheet

        return draw_sheet([self], columns=columns)


class ImageSearch:
    """Searches one index.

    `elasticsearch` is an address or a client of your own; without it the settings say where
    (`ES_URL`, es-imgsearch.toml).  The model loads with the first query that needs it and
    stays loaded.  Safe to share between threads.

    Every search takes:

    `k`
        how many hits, 1 to 10,000.
    `num_candidates`
        how many neighbours a shard weighs; more is slower and finds more.  By default what
        the index was tuned to.
    `filters`
        {field: value}, all of which a hit meets; see `queries.filter_clauses`.
    `since`, `until`
        the days between which a picture was taken (or modified, where no camera said).
    `exact`
        compare every picture instead of walking the graph.
    `fields`
        the stored fields that hits carry; by default all.
    """

    def __init__(
        self,
        elasticsearch: str | elasticsearch.Elasticsearch | None = None,
        index: str | None = None,
        *,
        encoder: Encoder | None = None,
        settings: Settings | None = None,
    ) -> None:
        client = None if isinstance(elasticsearch, str) else elasticsearch
        address = elasticsearch if isinstance(elasticsearch, str) else None
        if client is not None and not hasattr(client, "perform_request"):
            raise UsageError(
                "ImageSearch takes one address, a client (elasticsearch.Elasticsearch) or nothing,"
                f" not a {type(client).__name__}."
            )
        given = {"es_url": address, "index": index}
        self._settings = (
            load_settings(given) if settings is None else changed_settings(settings, **given)
        )
        self._store = Store(client or connect(self._settings), self._settings.index)
        self._given_encoder = encoder
        self._encoder: Encoder | None = None
        self._info: IndexInfo | None = None
        self._lock = threading.RLock()

    def __repr__(self) -> str:
        return f"ImageSearch({self._store.address!r}, index={self._store.index!r})"

    # -- searching -------------------------------------------------------------------------

    def search_text(self, text: str, k: int = 10, **options: Any) -> Hits:
        """Pictures that fit words.

        Raises TextUnsupported where the index's encoder knows pictures only.
        """
        return self.search([text], k=k, **options)

    def search_image(
        self, image: QueryPicture, box: Box | None = None, k: int = 10, **options: Any
    ) -> Hits:
        """Pictures like a picture: a path, the bytes of a file, a PIL image or an array.

        `box` is (x, y, width, height) in pixels of the upright picture: only that part counts.
        Raises QueryPictureInvalid.
        """
        if isinstance(image, str):
            image = Path(image)
        return self.search([image], box=box, k=k, **options)

    def search(
        self,
        positive: Query | Sequence[Query],
        negative: Query | Sequence[Query] = (),
        k: int = 10,
        *,
        box: Box | None = None,
        num_candidates: int | None = None,
        filters: queries.Filters | None = None,
        since: str | date | None = None,
        until: str | date | None = None,
        exact: bool = False,
        fields: Sequence[str] | None = None,
    ) -> Hits:
        """Pictures near every positive query and away from every negative one.

        A string is words; a path has to be a `Path`; one query need not be in a list.
        The query vector is the sum of the positive unit vectors less the negative ones, brought
        to unit length.  `box` applies to every picture given.
        """
        queries.check_k(k)
        positive, negative = _listed(positive), _listed(negative)
        if not positive:
            raise UsageError("There is nothing to search for: give words or a picture.")
        clauses = self._clauses(filters, since, until)
        if box is not None:
            # Cut before it is asked for, since a sheet shows what was searched with.
            positive, negative = self._cut(positive, box), self._cut(negative, box)
        vectors = self._vectors([*positive, *negative])
        signs = np.array([1.0] * len(positive) + [-1.0] * len(negative), dtype=np.float32)
        total = (vectors * signs[:, None]).sum(axis=0)
        length = float(np.linalg.norm(total))
        # Equal to rounding: nothing is left of the query.
        if length < 1e-6:
            raise UsageError("The negative queries cancel the positive ones: nothing is left.")
        vector = (total / length).astype(np.float32)
        return self._run(vector, k, num_candidates, clauses, exact, fields, positive)

    def similar(
        self,
        image_id: str,
        k: int = 10,
        *,
        num_candidates: int | None = None,
        filters: queries.Filters | None = None,
        since: str | date | None = None,
        until: str | date | None = None,
        exact: bool = False,
        fields: Sequence[str] | None = None,
    ) -> Hits:
        """Pictures like a stored one, which is not among them; needs no model.

        Raises ImageMissing.
        """
        queries.check_k(k)
        clauses = self._clauses(filters, since, until)
        _check_id(image_id)
        clauses.append({"bool": {"must_not": [{"term": {"image_id": image_id}}]}})
        vector = self._store.vector(image_id)
        return self._run(vector, k, num_candidates, clauses, exact, fields, [])

    def get(self, image_id: str) -> Mapping[str, Any]:
        """Every stored field of one picture but its vectors.  Raises ImageMissing."""
        _check_id(image_id)
        return self._store.get(image_id)

    def embed(self, query: Query, box: Box | None = None) -> Vector:
        """The query's vector, unit length, of shape (dims,)."""
        vector: Vector = self._vectors([query] if box is None else self._cut([query], box))[0]
        return vector

    # -- parts -----------------------------------------------------------------------------

    @property
    def info(self) -> IndexInfo:
        """The index as it was when first asked for; `reload` asks again."""
        with self._lock:
            if self._info is None:
                self._info = self._store.info()
            return self._info

    @property
    def encoder(self) -> Encoder:
        """The index's encoder, checked against its seal."""
        with self._lock:
            if self._encoder is None:
                self._encoder = sealed_encoder(
                    self.info, self._store.index, self._settings, self._given_encoder
                )
            return self._encoder

    def reload(self) -> None:
        """Forget what is known of the index, after it was tuned, extended or switched."""
        with self._lock:
            self._info = self._encoder = None

    def _clauses(
        self,
        filters: queries.Filters | None,
        since: str | date | None,
        until: str | date | None,
    ) -> list[dict[str, Any]]:
        return queries.filter_clauses(filters, self.info.properties, since=since, until=until)

    def _cut(self, wanted: Sequence[Query], box: Box) -> list[Query]:
        return [
            query
            if isinstance(query, str)
            else open_query_picture(query, box, max_pixels=self._settings.max_pixels)
            for query in wanted
        ]

    def _vectors(self, wanted: Sequence[Query]) -> Vector:
        """Shape (n, dims): every text and every picture in one batch each."""
        encoder = self.encoder
        vectors = np.empty((len(wanted), encoder.dims), dtype=np.float32)
        texts = {n: query.strip() for n, query in enumerate(wanted) if isinstance(query, str)}
        pictures = {n: query for n, query in enumerate(wanted) if not isinstance(query, str)}
        if texts:
            vectors[list(texts)] = self._text_vectors(encoder, list(texts.values()))
        if pictures:
            pixels = [
                encoder.preparation.apply(
                    open_query_picture(picture, max_pixels=self._settings.max_pixels)
                )
                for picture in pictures.values()
            ]
            with self._lock:
                vectors[list(pictures)] = encoder.embed_images(np.stack(pixels))
        return vectors

    def _text_vectors(self, encoder: Encoder, texts: Sequence[str]) -> Vector:
        if not encoder.supports_text:
            raise TextUnsupported(
                f"Encoder {encoder.name!r} of index {self._store.index!r} knows pictures only:"
                " search with a picture, or use an index with a text encoder."
            )
        if not all(texts):
            raise UsageError("The text to search for is empty.")
        if not all(map(is_text, texts)):
            raise UsageError("The text to search for is not valid Unicode.")
        with self._lock:
            return encoder.embed_texts(texts)

    def _run(
        self,
        vector: Vector,
        k: int,
        num_candidates: int | None,
        clauses: Sequence[Mapping[str, Any]],
        exact: bool,
        fields: Sequence[str] | None,
        asked: Sequence[Query],
    ) -> Hits:
        meta = self.info.meta
        source: Literal[True] | list[str] = True
        if fields is not None:
            source = sorted({*fields, "root", "relative_path"})
        if exact:
            body = queries.exact_body(vector, k, meta.similarity, filters=clauses, source=source)
        else:
            body = queries.knn_body(
                vector,
                k,
                meta.tuning,
                num_candidates=num_candidates,
                filters=clauses,
                source=source,
            )
        answer = self._store.search(body)
        found = answer.get("hits", {}).get("hits", ())
        return Hits([self._hit(each) for each in found], int(answer.get("took", 0)), asked)

    def _hit(self, raw: Mapping[str, Any]) -> Hit:
        meta = self.info.meta
        source = raw.get("_source", {})
        root, relative_path = source.get("root", ""), source.get("relative_path", "")
        return Hit(
            image_id=raw["_id"],
            root=root,
            relative_path=relative_path,
            score=round(queries.cosine_of(raw["_score"], meta.similarity), 6),
            relevance=None,
            fields=source,
            path=self._original(root, relative_path),
        )

    def _original(self, root: str, relative_path: str) -> Path | None:
        entry = self.info.meta.roots.get(root)
        if entry is None or entry["host"] != self._settings.host:
            return None
        return Path(disk_path(entry["path"])) / disk_path(relative_path)


def _listed(asked: Query | Sequence[Query]) -> list[Query]:
    """One query is a list of one: a string would be a list of letters, an array of rows."""
    one = (str, PathLike, bytes, bytearray, memoryview, Image.Image, np.ndarray)
    return [asked] if isinstance(asked, one) else list(asked)  # type: ignore[list-item]


def _check_id(image_id: str) -> None:
    if not is_text(image_id):
        raise ImageMissing(f"No picture has the image_id {image_id!r}.")
