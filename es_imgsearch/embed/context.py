"""What every command that writes needs of an index, opened in one place."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from es_imgsearch.codes.apply import CodeStep
from es_imgsearch.describe.registry import mapped_describers
from es_imgsearch.elastic.generations import IndexInfo
from es_imgsearch.elastic.meta import Meta
from es_imgsearch.elastic.store import Store
from es_imgsearch.embed.index_encoder import writing_encoder
from es_imgsearch.embed.protocol import Encoder, Vectors
from es_imgsearch.records import Grid
from es_imgsearch.settings import Settings


class PostEmbed(Protocol):
    """The optional step after embedding: fields that are made of the stored vector."""

    def fields(self, vector: Vectors) -> Mapping[str, Any]:
        """The fields that the document gets in addition to its vector."""

    def refresh(self) -> None:
        """Take up what was trained for it meanwhile.  Raises what the store does."""


@dataclass(frozen=True, slots=True)
class IndexContext:
    """An index and what writes into it.

    `encoder` gives vectors as the index stores them, `describers` are the names of those to run,
    and `grid` says of which tiles vectors are kept too (see `regions`).
    """

    store: Store
    info: IndexInfo
    encoder: Encoder
    describers: tuple[str, ...]
    grid: Grid | None

    def post_embed(self) -> PostEmbed:
        """Open the step after embedding.  Raises IndexConflict where what it needs is missing."""
        return open_post_embed(self.store, self.info.meta)


def open_post_embed(store: Store, meta: Meta) -> PostEmbed:
    """Open the step after embedding of an index.  Raises as `IndexContext.post_embed`."""
    return CodeStep.of(store, meta)


def open_context(
    store: Store,
    settings: Settings,
    encoder: Encoder | None = None,
    *,
    describers: Iterable[str] | None = None,
    alone: bool = False,
) -> IndexContext:
    """Read the index's metadata and load its encoder, or check the one given.

    `store` should be held to the generation that is written, see `Store.pinned`.  `describers` are
    those to run, by default those of the settings; the ones whose fields the index does not map are
    left out with a warning.  An encoder that embeds `alone` has all cores, else its share of them
    as one of `workers`.

    Raises EncoderMismatch, ModelUnavailable, IndexConflict, and what a request raises.
    """
    info = store.info()
    chosen = settings.describers if describers is None else describers
    return IndexContext(
        store=store,
        info=info,
        describers=tuple(mapped_describers(info.properties, store.index, chosen)),
        encoder=writing_encoder(store, info, settings, encoder, alone=alone),
        grid=info.meta.grid,
    )
