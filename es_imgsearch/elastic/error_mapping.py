"""Translate errors of the Elasticsearch client and of its answers into ours."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import elastic_transport
import elasticsearch

from es_imgsearch.elastic.naming import no_index
from es_imgsearch.elastic.server.blocks import words_of_block
from es_imgsearch.elastic.server.version import SUPPORTED
from es_imgsearch.errors import (
    ImageMissing,
    ImgSearchError,
    IndexMissing,
    ShardsMoving,
    StoreBusy,
    StoreDenied,
    StoreError,
    StoreRejected,
    StoreUnreachable,
)

SyncClient = elasticsearch.Elasticsearch
AsyncClient = elasticsearch.AsyncElasticsearch

JSON_TYPE, SMILE_TYPE = "application/json", "application/vnd.elasticsearch+smile"

# While a node stops, and until the others know; a search met the first while each of three nodes
# was started again (8.19.13).
_MOVING = {
    "search_context_missing_exception",
    "no_shard_available_action_exception",
    "node_closed_exception",
    "node_disconnected_exception",
    "node_not_connected_exception",
}
_BUSY = {408, 429, 502, 503, 504}
# Statuses by which other servers answer requests that only Elasticsearch knows.  A proxy that
# refuses the type or the size of one request is no outage: waiting would not help.
_FOREIGN_STATUSES = {404, 405, 410, 421, 501}

# Of a security_exception; privileges are listed from the least on.
_GRANTED_BY = re.compile(r"granted by the (cluster|index) privileges \[([a-z0-9_:/*]+)")
_ON_INDICES = re.compile(r" on (?:restricted )?indices \[([^\]]+)\]")


def item_error(result: Mapping[str, Any]) -> StoreError:
    """Translate the error of one item of a bulk request.

    Raises IndexMissing, which concerns every document.
    """
    error = result.get("error") or {}
    kind, message = _kind_and_message(error)
    status = int(result["status"])
    if closed := _closed(error):
        return closed
    if kind == "index_not_found_exception":
        raise IndexMissing(
            f"The index does not exist any more ({message}): make it with `es-imgsearch init`,"
            " with the same --index."
        )
    if status in _BUSY or status >= 500 or kind == "cluster_block_exception":
        return _busy(message, "Elasticsearch cannot write now")
    if status in {401, 403}:
        return StoreDenied(
            f"Elasticsearch does not allow writing ({message}): the key or user needs"
            f" {_privilege(message)}."
        )
    return StoreRejected(f"Elasticsearch rejected the document ({message}).")


def search_error(result: Mapping[str, Any]) -> StoreError:
    """Translate the error of one search of a multi-search."""
    error = result["error"]
    causes = error.get("root_cause") or [error]
    kind, message = _kind_and_message(causes[0])
    status = int(result.get("status", 500))
    if closed := _closed(causes[0]):
        return closed
    if causes[0].get("type") in _MOVING:
        return ShardsMoving(f"Elasticsearch cannot search now ({message}).")
    if status in _BUSY or status >= 500 or kind == "cluster_block_exception":
        return _busy(message, "Elasticsearch cannot search now")
    if status in {401, 403}:
        return StoreDenied(
            f"Elasticsearch does not allow searching ({message}): the key or user needs"
            f" {_privilege(message)}."
        )
    return StoreRejected(f"Elasticsearch rejected the search ({message}).")


def multi_get_error(error: Mapping[str, Any]) -> StoreError | None:
    """Translate the error of one document of a multi-get.

    Returns None if its index does not exist.  These errors carry no status, and the request as a
    whole succeeds.
    """
    kind, message = _kind_and_message(error)
    if kind == "index_not_found_exception":
        return None
    if kind == "security_exception":
        return StoreDenied(
            f"Elasticsearch does not allow reading ({message}): the key or user needs"
            f" {_privilege(message)}."
        )
    if error.get("type") in _MOVING:
        return ShardsMoving(f"Elasticsearch cannot read now ({message}).")
    return _closed(error) or _busy(message, "Elasticsearch cannot read now")


def _busy(message: str, what: str) -> StoreBusy:
    return StoreBusy(words_of_block(message) or f"{what} ({message}).")


def _closed(error: Mapping[str, Any]) -> StoreBusy | None:
    """Report a closed index as transient: it may be opened again."""
    if error.get("type") != "index_closed_exception":
        return None
    name = error.get("index", "NAME")
    return StoreBusy(f"Index {name!r} is closed: open it with POST /{name}/_open.")


def _kind_and_message(error: Mapping[str, Any]) -> tuple[str, str]:
    kind, reason = str(error.get("type", "unknown")), str(error.get("reason", ""))
    cause = error.get("caused_by") or {}
    if cause.get("reason"):
        reason = f"{reason} ({cause['reason']})"
    return kind, f"{kind}: {reason}"


@contextmanager
def translate_errors(address: str, index: str) -> Iterator[None]:
    """Translate every error of the client libraries, by the table `_TRANSLATIONS`."""
    try:
        yield
    except tuple(_TRANSLATIONS) as error:
        kind = next(kind for kind in _TRANSLATIONS if isinstance(error, kind))
        raise _TRANSLATIONS[kind](error, address, index) from error


def _unsupported_product(error: Any, address: str, _index: str) -> StoreUnreachable:
    return _not_elasticsearch(address, f"HTTP {error.meta.status}")


def _not_elasticsearch(address: str, why: str) -> StoreUnreachable:
    """Report another server as transient: it may be a proxy's page during an outage."""
    return StoreUnreachable(
        f"The server at {address} is not Elasticsearch 8 or 9 ({why}): set the address with"
        " ES_URL or --es-url."
    )


def _api_error(error: elastic_transport.ApiError, address: str, index: str) -> ImgSearchError:
    status = error.meta.status
    # Elasticsearch marks all its answers; the client checks successful ones only.
    is_marked = "x-elastic-product" in error.meta.headers
    if not is_marked and (status in _FOREIGN_STATUSES or status < 400):
        return _not_elasticsearch(address, f"HTTP {status}")
    if closed := _closed_of_request(error):
        return closed
    kind, reason = _kind_and_reason(error)
    detail = f"{kind}: {reason}" if reason else kind
    if status == 401:
        return _unauthenticated(error, address, detail)
    if status == 403 and kind != "cluster_block_exception":
        return _unprivileged(address, detail, reason)
    if kind in _MOVING:
        return ShardsMoving(f"Elasticsearch at {address} cannot do this now ({detail}).")
    if status == 404:
        return _missing(address, kind, detail, index)
    if kind == "media_type_header_exception":
        # A server answers clients of its own major version and of the one before.
        return StoreRejected(
            f"Elasticsearch at {address} is of a version that this program does not know"
            f" ({reason}): use a server of version {SUPPORTED}."
        )
    if status == 413:
        return StoreRejected(f"The request is too large for Elasticsearch ({detail}).")
    if status in _BUSY or status >= 500 or kind == "cluster_block_exception":
        return _busy(detail, f"Elasticsearch at {address} cannot do this now")
    return StoreRejected(
        f"Elasticsearch rejected the request ({detail})."
        if is_marked
        else f"The server at {address} rejected the request ({detail}) and does not identify itself"
        " as Elasticsearch: check for a proxy, and whether the address needs https://."
    )


def _missing(address: str, kind: str, detail: str, index: str) -> ImgSearchError:
    if kind == "index_not_found_exception":
        return IndexMissing(no_index(index, address))
    return ImageMissing(f"Elasticsearch does not have this document ({detail}).")


def _unprivileged(address: str, detail: str, reason: str) -> StoreDenied:
    hint = f"its key or user needs {_privilege(reason)}"
    return StoreDenied(f"Elasticsearch at {address} refuses this client ({detail}): {hint}.")


# What Elasticsearch says of a key that it refuses, and what that means.
_REFUSED_KEYS = {
    "api key is expired": "The API key has expired",
    "has been invalidated": "The API key was revoked",
    "unable to find apikey": "The API key is not known there",
    "invalid credentials for api key": "The API key is wrong",
}


def _unauthenticated(error: elastic_transport.ApiError, address: str, detail: str) -> StoreDenied:
    details = error.body.get("error") if isinstance(error.body, Mapping) else None
    said = str((details or {}).get("additional_unsuccessful_credentials", "")).lower()
    for words, meaning in _REFUSED_KEYS.items():
        if words in said:
            return StoreDenied(
                f"{meaning} (401 from Elasticsearch at {address}): set ES_API_KEY to another one."
            )
    return StoreDenied(
        f"Elasticsearch at {address} refuses this client ({detail}): set ES_API_KEY, or"
        " user:password@ in ES_URL."
    )


def _privilege(reason: str) -> str:
    """Name the least privilege that the reason of a refusal lists, and the index."""
    granted = _GRANTED_BY.search(reason)
    if granted is None:
        return "more privileges"
    where = _ON_INDICES.search(reason)
    on = "" if where is None else f" on {where[1]}"
    return f"the {granted[1]} privilege {granted[2]!r}{on}"


def _closed_of_request(error: elastic_transport.ApiError) -> StoreBusy | None:
    details = error.body.get("error") if isinstance(error.body, Mapping) else None
    if not isinstance(details, Mapping):
        return None
    return next(filter(None, map(_closed, [details, *(details.get("root_cause") or ())])), None)


def _kind_and_reason(error: elastic_transport.ApiError) -> tuple[str, str]:
    body = error.body
    details = body.get("error") if isinstance(body, Mapping) else None
    if not isinstance(details, Mapping):
        return f"HTTP {error.meta.status}", str(details or "")
    kind, reason = str(details.get("type", error.message)), str(details.get("reason", ""))
    causes = details.get("root_cause") or ()
    if kind == "search_phase_execution_exception" and causes:
        kind, reason = str(causes[0].get("type")), str(causes[0].get("reason"))
    deepest = details.get("caused_by")
    while isinstance(deepest, Mapping) and isinstance(deepest.get("caused_by"), Mapping):
        # The causes in between only report that an inner one failed.
        deepest = deepest["caused_by"]
    if isinstance(deepest, Mapping) and deepest.get("reason") and deepest["reason"] != reason:
        reason = f"{reason} ({deepest['reason']})"
    return kind, reason


def _tls_error(error: Any, address: str, _index: str) -> StoreError:
    if "WRONG_VERSION_NUMBER" in _reason(error):
        return StoreUnreachable(
            f"The server at {address} does not speak https: write http:// in ES_URL or --es-url."
        )
    return StoreDenied(
        f"Elasticsearch at {address} cannot be trusted ({_reason(error)}): set ES_CA_CERTS to"
        " the file of its certificate authority."
    )


def _timeout(error: Any, address: str, _index: str) -> StoreUnreachable:
    return StoreUnreachable(
        f"Elasticsearch at {address} did not answer in time ({_reason(error)})."
    )


def _serialization_error(error: Any, address: str, _index: str) -> StoreError:
    # Its own message contains the whole body.
    if error.message.startswith("Unable to serialize"):
        return StoreRejected(f"The request to {address} cannot be encoded as JSON.")
    return _not_elasticsearch(address, "its answer cannot be read")


def _no_answer(error: Any, address: str, _index: str) -> StoreUnreachable:
    return StoreUnreachable(
        f"Elasticsearch at {address} does not answer ({_reason(error)}): start it, or set"
        " its address with ES_URL or --es-url."
    )


def _reason(error: Exception) -> str:
    """Return the innermost message, without object addresses."""
    text = str(error.args[0] if error.args else error)
    return text.split("): ", 1)[-1].split(">: ", 1)[-1].strip(" .")


# The first matching class counts: subclasses come before their bases.
_TRANSLATIONS: dict[type[Exception], Callable[[Any, str, str], ImgSearchError]] = {
    elasticsearch.UnsupportedProductError: _unsupported_product,
    elastic_transport.ApiError: _api_error,
    elastic_transport.TlsError: _tls_error,
    elastic_transport.ConnectionTimeout: _timeout,
    elastic_transport.SerializationError: _serialization_error,
    elastic_transport.TransportError: _no_answer,
}


def is_conflict(error: StoreError) -> bool:
    """Return True if another version was stored than the one to replace, or create."""
    return "version_conflict_engine_exception" in str(error)
