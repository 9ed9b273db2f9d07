"""Open an index for a command: its encoder, or everything that writing needs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from es_imgsearch.codes.apply import CodeStep
from es_imgsearch.describe.registry import mapped_describers
from es_imgsearch.elastic.generations import IndexInfo
from es_imgsearch.elastic.meta import Meta
from es_imgsearch.elastic.store import Store
from es_imgsearch.embed.index_encoder import sealed_encoder
from es_imgsearch.embed.protocol import Encoder, Vectors
from es_imgsearch.embed.reduced_encoder import ReducedEncoder
from es_imgsearch.embed.reduction import load_reduction
from es_imgsearch.embed.runtime.select import run_for_pictures
from es_imgsearch.records import Grid
from es_imgsearch.settings import Settings


class PostEmbed(Protocol):
    """The optional step after embedding: compute fields from the stored vector."""

    def fields(self, vector: Vectors) -> Mapping[str, Any]:
        """Return the fields that the document gets in addition to its vector."""

    def refresh(self) -> None:
        """Load what was trained for it meanwhile.  Raises what the store does."""


@dataclass(frozen=True, slots=True)
class IndexContext:
    """An index and its encoder, describers and tiles.

    `encoder` returns vectors as the index stores them, `describers` are the names of those to run,
    and `grid` is the grid of tiles whose vectors are stored too (see `records.Grid`).
    """

    store: Store
    info: IndexInfo
    encoder: Encoder
    describers: tuple[str, ...]
    grid: Grid | None

    def post_embed(self) -> PostEmbed:
        """Open the step after embedding.

        Raises IndexConflict if its parameters are missing.
        """
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
    """Read the index's metadata; load its encoder, or check the given one.

    Pass a `store` that is pinned to the generation to write, see `Store.pinned`.  `describers` are
    those to run, by default the ones of the settings; those whose fields the index does not map
    are left out with a warning.  Raises as `open_encoder`, and what a request raises.
    """
    info = store.info()
    names = settings.describers if describers is None else describers
    return IndexContext(
        store=store,
        info=info,
        describers=tuple(
            mapped_describers(info.properties, store.index, names, partial(_holds, store))
        ),
        encoder=open_encoder(store, info, settings, encoder, alone=alone),
        grid=info.meta.grid,
    )


def _holds(store: Store, fields: Iterable[str]) -> bool:
    exists = [{"exists": {"field": each}} for each in fields]
    return bool(exists) and store.listings.count_matching({"bool": {"should": exists}}) > 0


def open_encoder(
    store: Store,
    info: IndexInfo,
    settings: Settings,
    encoder: Encoder | None = None,
    *,
    alone: bool = False,
) -> Encoder:
    """Load the index's encoder, or check the given one.

    Its vectors are as the index stores them.  It is ready for pictures: with all cores if it embeds
    `alone`, else with its share of them as one of `workers`.  Raises EncoderMismatch,
    ModelUnavailable, and IndexConflict if the matrix of a reduced index is missing.
    """
    full = sealed_encoder(info, store.index, settings, encoder)
    if encoder is None:
        run_for_pictures(full, settings.model_copy(update={"workers": 1}) if alone else settings)
    reduction = load_reduction(store, info.meta)
    return full if reduction is None else ReducedEncoder(full, reduction)
