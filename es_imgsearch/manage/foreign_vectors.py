"""Find stored vectors that the index's encoder did not make, and replace them.

A vector does not say which encoder made it, so pictures are embedded again and compared.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from es_imgsearch.elastic.mapping import VECTOR_FIELD
from es_imgsearch.elastic.queries import parse_vector
from es_imgsearch.elastic.store import Store
from es_imgsearch.embed.context import IndexContext
from es_imgsearch.embed.in_process import InProcessEncoder
from es_imgsearch.embed.runtime.network import batch_size
from es_imgsearch.pipeline.vector_source import VectorSource
from es_imgsearch.read.workers import ReadPlan, ReadWorkers
from es_imgsearch.records import Embedded, Picture, Root, disk_path, unit
from es_imgsearch.settings import Settings
from es_imgsearch.write.documents import vector_fields

# If a tenth of a root's vectors is foreign, 64 pictures show it in 999 of 1,000 cases.
SAMPLE = 64
_SEED = 1
_PAGE = 64
# Runtimes and precisions of one encoder agree to .99 (`embed.runtime.select`).
_SAME_ENCODER = 0.9
_FIELDS = ("image_id", "relative_path", "content_id")


class ForeignVector(NamedTuple):
    """A document whose vector differs from that of its picture, and the right one."""

    image_id: str
    stored_path: str
    cosine: float
    embedded: Embedded


class VectorCheck:
    """Embeds pictures again with the index's encoder, in the calling thread."""

    def __init__(self, context: IndexContext, settings: Settings) -> None:
        self._store: Store = context.store
        self._context = context
        self._encoder = InProcessEncoder(context.encoder)
        self._vectors = VectorSource(
            context.encoder,
            lambda _ids, _fields: {},
            batch_size(context.encoder, settings.batch_size),
        )
        plan = ReadPlan.of(settings, context.encoder.preparation, describers=(), grid=context.grid)
        self._workers = ReadWorkers(plan, settings.read_workers)

    def close(self) -> None:
        """End the reading processes."""
        self._workers.close()

    def sample(self, root: Root) -> list[ForeignVector]:
        """Find the foreign ones among some random pictures of a root."""
        hits = self._store.searches.sample(SAMPLE, _SEED, _FIELDS, root_name=root.name)
        return list(self._foreign(root, list(hits)))

    def replace_all(self, root: Root) -> int:
        """Replace every foreign vector of a root; return their number."""
        replaced = 0
        steps = self._context.post_embed()
        pages = self._store.listings.pages(
            [{"term": {"root": root.name}}, {"exists": {"field": VECTOR_FIELD}}],
            fields=_FIELDS,
            vectors=[VECTOR_FIELD],
            size=_PAGE,
        )
        for hits in pages:
            foreign = {each.image_id: each.embedded for each in self._foreign(root, hits)}

            def changed(
                document: dict[str, Any], foreign: Mapping[str, Embedded] = foreign
            ) -> dict[str, Any]:
                embedded = foreign[document["image_id"]]
                return {
                    **document,
                    **embedded.fields,
                    **vector_fields(embedded),
                    **steps.fields(embedded.vector),
                }

            if foreign:
                result = self._store.rewrites.rewrite(list(foreign), changed)
                replaced += len(result.written)
                for error in result.refused.values():
                    raise error
        return replaced

    def _foreign(self, root: Root, hits: Sequence[Mapping[str, Any]]) -> Iterator[ForeignVector]:
        """Compare the vectors of those documents whose file has their content."""
        by_path = {
            root.absolute(disk_path(hit["_source"]["relative_path"])): hit
            for hit in hits
            if "content_id" in hit["_source"]
        }
        pictures: dict[str, Picture] = {}
        same: list[Mapping[str, Any]] = []
        for path, outcome in self._workers.read_each(by_path):
            hit = by_path[path]
            if isinstance(outcome, Picture) and outcome.content_id == hit["_source"]["content_id"]:
                pictures[outcome.content_id] = outcome
                same.append(hit)
        if not same:
            return
        embedded, _errors = self._vectors.embed(list(pictures.values()), self._encoder)
        for hit in same:
            source = hit["_source"]
            now = embedded.get(source["content_id"])
            if now is None:
                continue
            cosine = float(unit(parse_vector(hit["fields"][VECTOR_FIELD])) @ unit(now.vector))
            if cosine < _SAME_ENCODER:
                yield ForeignVector(source["image_id"], source["relative_path"], cosine, now)
