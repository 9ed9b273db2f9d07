"""Load a new index without graphs, which are built once at the end.

A refresh interval of -1 marks an index whose load is running or was interrupted; the next import
completes it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from es_imgsearch.describe.registry import describer_mappings
from es_imgsearch.elastic.generations import IndexInfo
from es_imgsearch.elastic.mapping import DEFAULT_PROFILE, DEFAULT_SIMILARITY, index_body, new_meta
from es_imgsearch.elastic.meta import Meta, Seal
from es_imgsearch.elastic.meta_entries import ShardLayout
from es_imgsearch.elastic.store import Store
from es_imgsearch.embed.index_encoder import seal_of
from es_imgsearch.embed.registry import load_encoder
from es_imgsearch.errors import EncoderMismatch, ImgSearchError, UsageError
from es_imgsearch.files.columns import Origin
from es_imgsearch.files.formats import FileReader
from es_imgsearch.manage.production.preload import EXPECTED_PICTURES, GROWTH, choose_preload
from es_imgsearch.manage.upgrade import upgrade
from es_imgsearch.settings import Settings

_RESTORED = ("refresh_interval", "auto_expand_replicas")

# A merge of 100,000 vectors takes a minute on two cores; one of millions continues by itself.
_MERGE_WAIT_SECONDS = 1800.0


def open_upgraded(store: Store) -> IndexInfo:
    """Read an existing index; upgrade one of an earlier schema.  Raises IndexMissing."""
    upgrade(store)
    return store.info()


def create_loading_index(
    store: Store,
    settings: Settings,
    reader: FileReader,
    profile: str | None,
    dims: int | None,
) -> IndexInfo:
    """Create an empty index to load from a file.

    It is sealed to the encoder of the file or of the settings.  Raises UsageError if neither names
    the encoder of the vectors, EncoderMismatch if they differ, or do not fit the `dims` of the
    vectors.
    """
    meta = _meta(settings, reader.origin, profile)
    _check_dims(meta.seal, dims, store.index)
    layout, _ = choose_preload(
        store,
        None,
        ShardLayout(),
        meta.profile,
        meta.seal.dims,
        meta.grid,
        pictures=max(EXPECTED_PICTURES, GROWTH * reader.rows),
    )
    store.generations.create(meta, describer_mappings(), for_loading=True, layout=layout)
    return store.info()


def _meta(settings: Settings, origin: Origin | None, profile: str | None) -> Meta:
    if origin is not None:
        if settings.encoder is not None:
            _check_encoder(settings, origin.seal, settings.index)
        return new_meta(origin.seal, profile or origin.profile, origin.similarity, grid=origin.grid)
    if settings.encoder is None:
        raise UsageError(
            f"There is no index {settings.index!r}, and the file does not say which encoder made"
            " its vectors: add --encoder NAME, or make the index with `es-imgsearch init"
            f" --index {settings.index}`."
        )
    encoder = load_encoder(settings.encoder, models_dir=settings.models_dir, device=settings.device)
    return new_meta(seal_of(encoder), profile or DEFAULT_PROFILE, DEFAULT_SIMILARITY)


def check_seal(
    info: IndexInfo, settings: Settings, origin: Origin | None, dims: int | None
) -> None:
    """Raise EncoderMismatch unless the vectors of the file fit this index.

    The encoder of the settings has to fit, too.  Without it, and if the file names no encoder, only
    the dims are checked.
    """
    if origin is not None:
        info.meta.seal.check(origin.seal, settings.index)
    _check_encoder(settings, info.meta.seal, settings.index)
    _check_dims(info.meta.seal, dims, settings.index)


def _check_dims(seal: Seal, dims: int | None, index: str) -> None:
    if dims not in {None, seal.dims}:
        raise EncoderMismatch(
            f"The vectors of the file have {dims} dims, those of encoder {seal.name!r} of index"
            f" {index!r} have {seal.dims}: use another --index."
        )


def _check_encoder(settings: Settings, seal: Seal, index: str) -> None:
    if settings.encoder is None or settings.encoder == seal.name:
        return
    try:
        encoder = load_encoder(
            settings.encoder, models_dir=settings.models_dir, device=settings.device
        )
        seal.check(seal_of(encoder), index)
    except EncoderMismatch:
        raise
    except ImgSearchError as error:
        raise EncoderMismatch(
            f"Index {index!r} is sealed to encoder {seal.name!r}, not {settings.encoder!r}"
            f" ({error}): leave the encoder out, or use another --index."
        ) from error


def finish(
    store: Store, info: IndexInfo, resend: Callable[[], None], note: Callable[[str], None]
) -> None:
    """Map graphs, restore the settings that `create_loading_index` changed, and merge.

    `resend` writes some rows again: a single segment is never rewritten by a merge, and would keep
    its vectors without a graph.
    """
    body = index_body(info.meta, describer_mappings())
    properties = body["mappings"]["properties"]
    mapped = store.info().properties
    changed: dict[str, Mapping[str, Any]] = {
        name: each for name, each in properties.items() if _lacks_graph(mapped.get(name, {}), each)
    }
    store.generations.end_loading(changed, {name: body["settings"][name] for name in _RESTORED})
    resend()
    note("Building the graphs: the pictures can be searched already.")
    store.refresh()
    if not store.generations.merge(wait_seconds=_MERGE_WAIT_SECONDS):
        note("Elasticsearch is still merging and continues by itself.")
    store.refresh()


def _lacks_graph(mapped: Mapping[str, Any], final: Mapping[str, Any]) -> bool:
    """Check for a field, or one in it, that was loaded flat and shall get a graph."""
    within = mapped.get("properties", {})
    return _index_type(mapped) == "flat" != _index_type(final) or any(
        _lacks_graph(within.get(name, {}), each)
        for name, each in final.get("properties", {}).items()
    )


def _index_type(mapping: Mapping[str, Any]) -> str:
    return str(mapping.get("index_options", {}).get("type", ""))
