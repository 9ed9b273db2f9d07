"""One tree of errors, and every foreign error in its place."""

from __future__ import annotations

import inspect
import pickle
import re
from collections.abc import Mapping
from typing import Any

import elastic_transport
import elasticsearch
import pytest
from elastic_transport import ApiResponseMeta, HttpHeaders, NodeConfig
from elasticsearch.serializer import OrjsonSerializer

from es_imgsearch import errors
from es_imgsearch.elastic.error_mapping import item_error, translate_errors
from es_imgsearch.errors import (
    ImageMissing,
    ImgSearchError,
    IndexMissing,
    ReadError,
    ShardsMoving,
    StoreBusy,
    StoreDenied,
    StoreError,
    StoreRejected,
    StoreUnreachable,
    UsageError,
)

ADDRESS = "https://es:9200"


def turned(foreign: BaseException) -> ImgSearchError:
    with pytest.raises(ImgSearchError) as caught, translate_errors(ADDRESS, "images"):
        raise foreign
    assert caught.value.__cause__ is foreign
    assert str(caught.value)
    assert "\n" not in str(caught.value)
    return caught.value


# Elasticsearch marks every answer.
MARK = {"X-Elastic-Product": "Elasticsearch"}


def meta(status: int, headers: Mapping[str, str] = MARK) -> ApiResponseMeta:
    node = NodeConfig("https", "es", 9200)
    return ApiResponseMeta(status, "1.1", HttpHeaders(headers), 0.1, node)


def api_error(status: int, body: Any, kind: type[Any] = elasticsearch.ApiError) -> Any:
    return kind("message", meta(status), body)


def body(kind: str, reason: str = "why", **more: Any) -> dict[str, Any]:
    return {"error": {"type": kind, "reason": reason, **more}, "status": 0}


# -- what the libraries raise --------------------------------------------------------------

# One entry a class, so that a class that is new upstream fails the test until it was thought of.
CONSIDERED: dict[str, type[ImgSearchError]] = {
    "elastic_transport.ApiError": StoreBusy,
    "elasticsearch.ApiError": StoreBusy,
    "elasticsearch.AuthenticationException": StoreDenied,
    "elasticsearch.AuthorizationException": StoreDenied,
    "elasticsearch.BadRequestError": StoreRejected,
    "elasticsearch.ConflictError": StoreRejected,
    "elasticsearch.NotFoundError": ImageMissing,
    "elasticsearch.UnsupportedProductError": StoreUnreachable,
    "elastic_transport.ConnectionError": StoreUnreachable,
    "elastic_transport.ConnectionTimeout": StoreUnreachable,
    "elastic_transport.SerializationError": StoreUnreachable,
    "elastic_transport.SniffingError": StoreUnreachable,
    "elastic_transport.TlsError": StoreDenied,
    "elastic_transport.TransportError": StoreUnreachable,
}
STATUS = {
    "AuthenticationException": 401, "AuthorizationException": 403, "BadRequestError": 400,
    "ConflictError": 409, "NotFoundError": 404, "UnsupportedProductError": 200,
}  # fmt: skip


def foreign_classes() -> dict[str, type[Exception]]:
    found = {}
    for module in (elasticsearch.exceptions, elastic_transport):
        for each in vars(module).values():
            if not inspect.isclass(each) or not issubclass(each, Exception):
                continue
            if not issubclass(each, Warning):
                found[f"{each.__module__.split('.')[0]}.{each.__name__}"] = each
    return found


def test_every_class_the_libraries_have_was_thought_of():
    assert foreign_classes().keys() == CONSIDERED.keys()


@pytest.mark.parametrize("name", CONSIDERED)
def test_every_error_of_the_libraries_becomes_one_of_ours(name: str):
    kind = foreign_classes()[name]
    if issubclass(kind, elastic_transport.ApiError):
        foreign = api_error(STATUS.get(kind.__name__, 503), {}, kind)
    else:
        foreign = kind("message")
    found = turned(foreign)
    assert type(found) is CONSIDERED[name]
    assert ADDRESS in str(found) or issubclass(kind, elastic_transport.ApiError)


def test_what_could_not_be_written_as_json_is_not_repeated():
    with pytest.raises(elastic_transport.SerializationError) as caught:
        OrjsonSerializer().dumps({"password": "hunter2", "number": 2**70})
    assert "hunter2" in str(caught.value)
    found = turned(caught.value)
    assert type(found) is StoreRejected
    assert "hunter2" not in str(found)


def test_what_is_not_elasticsearch_is_said_not_to_be():
    foreign = elasticsearch.UnsupportedProductError("not ours", meta(200), {})
    assert "is not Elasticsearch 8" in str(turned(foreign))
    with pytest.raises(elastic_transport.SerializationError) as caught:
        OrjsonSerializer().loads(b"<html>")
    found = turned(caught.value)
    assert type(found) is StoreUnreachable
    assert "is not Elasticsearch 8" in str(found)


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (301, StoreUnreachable),
        (404, StoreUnreachable),
        (405, StoreUnreachable),
        (501, StoreUnreachable),
        (400, StoreRejected),
        (406, StoreRejected),
        (415, StoreRejected),
        (401, StoreDenied),
        (403, StoreDenied),
        (413, StoreRejected),
        (429, StoreBusy),
        (502, StoreBusy),
        (503, StoreBusy),
    ],
)
def test_what_other_servers_and_proxies_say(status: int, expected: type[ImgSearchError]):
    foreign = elasticsearch.ApiError("message", meta(status, {}), "<html>")
    found = turned(foreign)
    assert type(found) is expected
    assert ("is not Elasticsearch 8" in str(found)) == (expected is StoreUnreachable)
    refused = expected is StoreRejected and status != 413
    assert ("check for a proxy" in str(found)) == refused


def test_https_where_http_is_spoken():
    foreign = elastic_transport.TlsError("[SSL: WRONG_VERSION_NUMBER] wrong version number")
    found = turned(foreign)
    assert type(found) is StoreUnreachable
    assert "write http://" in str(found)


@pytest.mark.parametrize(
    ("status", "answer", "expected"),
    [
        (400, body("parsing_exception"), StoreRejected),
        (401, body("security_exception"), StoreDenied),
        (403, body("security_exception"), StoreDenied),
        (403, body("cluster_block_exception", "index [x] blocked by: FORBIDDEN/8"), StoreBusy),
        (429, body("cluster_block_exception", "disk usage exceeded flood-stage"), StoreBusy),
        (404, body("index_not_found_exception"), IndexMissing),
        (404, {"_index": "images", "_id": "a", "found": False}, ImageMissing),
        (405, body("method_not_allowed"), StoreRejected),
        (408, "", StoreBusy),
        (409, body("version_conflict_engine_exception"), StoreRejected),
        (413, "<html>nginx</html>", StoreRejected),
        (429, body("es_rejected_execution_exception"), StoreBusy),
        (500, body("null_pointer_exception"), StoreBusy),
        (502, "<html>Bad Gateway</html>", StoreBusy),
        (503, body("no_shard_available_action_exception"), ShardsMoving),
        (404, body("search_context_missing_exception"), ShardsMoving),
        (504, None, StoreBusy),
    ],
)
def test_each_status_has_its_error(status: int, answer: Any, expected: type[ImgSearchError]):
    assert type(turned(api_error(status, answer))) is expected


def test_the_reason_is_that_of_the_shard_and_what_caused_it():
    answer = body(
        "search_phase_execution_exception",
        "all shards failed",
        root_cause=[{"type": "query_shard_exception", "reason": "failed to create query"}],
        caused_by={"type": "x", "reason": "dims differ"},
    )
    assert "query_shard_exception: failed to create query (dims differ)" in str(
        turned(api_error(400, answer))
    )


@pytest.mark.parametrize(
    "answer",
    [None, "", "text", [], {"error": None}, {"error": "text"}, {"error": []},
     body("search_phase_execution_exception", root_cause=[]), {"error": {"type": None}},
     body("x", caused_by=None)],
)  # fmt: skip
def test_an_answer_of_any_shape_is_told(answer: Any):
    assert isinstance(turned(api_error(400, answer)), StoreRejected)


def test_ours_pass_unchanged_and_others_too():
    for error in (ReadError("corrupt", "x"), KeyError("x"), KeyboardInterrupt()):
        with pytest.raises(type(error)) as caught, translate_errors(ADDRESS, "images"):
            raise error
        assert caught.value is error


# -- the tree ------------------------------------------------------------------------------


def our_classes() -> dict[str, type[ImgSearchError]]:
    return {
        name: each
        for name, each in vars(errors).items()
        if inspect.isclass(each) and issubclass(each, ImgSearchError)
    }


def drawn_tree() -> Mapping[str, str | None]:
    """Class to base, as drawn in the module's docstring."""
    parents: dict[str, str | None] = {}
    above: list[tuple[int, str]] = []
    for line in (errors.__doc__ or "").splitlines():
        match = re.match(r"^    ([ │├└─]*)([A-Z]\w+)", line)
        if match is None:
            continue
        depth = len(match[1])
        while above and above[-1][0] >= depth:
            above.pop()
        parents[match[2]] = above[-1][1] if above else None
        above.append((depth, match[2]))
    return parents


def test_the_tree_that_is_drawn_is_the_tree_that_is():
    actual = {
        name: None if each is ImgSearchError else each.__bases__[0].__name__
        for name, each in our_classes().items()
    }
    assert drawn_tree() == actual


def test_what_is_transient_and_how_the_command_line_ends():
    for name, each in our_classes().items():
        is_transient = name in {
            "StoreUnreachable",
            "ServiceUnreachable",
            "StoreBusy",
            "ShardsMoving",
            "KibanaUnreachable",
        }
        assert each.transient == is_transient, name
        if issubclass(each, UsageError) or name in {"StoreDenied", "KibanaDenied"}:
            expected = errors.EXIT_USAGE
        elif each.transient:
            expected = errors.EXIT_UNREACHABLE
        else:
            expected = errors.EXIT_DIFFERENCE
        assert each.exit_code == expected, name
        assert each.__doc__, name
    assert issubclass(StoreUnreachable, StoreError)


def test_a_read_error_survives_the_way_between_processes():
    error = pickle.loads(pickle.dumps(ReadError("truncated", "It ends too early.")))
    assert (type(error), error.error_class) == (ReadError, "truncated")
    assert str(error) == error.message == "It ends too early."


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        (
            "index [x-000001] blocked by: [TOO_MANY_REQUESTS/12/disk usage exceeded flood-stage];",
            "A disk of Elasticsearch is full, so that x-000001 takes no writes",
        ),
        ("No space left on device", "A disk of Elasticsearch is full, so that it takes"),
        ("Disk quota exceeded", "A disk of Elasticsearch is full, so that it takes"),
        (
            "index [x-000001] blocked by: [FORBIDDEN/5/index read-only (api)];",
            'PUT /x-000001/_settings {"index.blocks.read_only": null}',
        ),
        (
            "index [x-000001] blocked by: [FORBIDDEN/8/index write (api)];",
            'PUT /x-000001/_settings {"index.blocks.write": null}',
        ),
        (
            "index [x-000001] blocked by: [FORBIDDEN/7/index read (api)];",
            'PUT /x-000001/_settings {"index.blocks.read": null}',
        ),
        (
            "index [x-000001] blocked by: [FORBIDDEN/9/index metadata (api)];",
            'PUT /x-000001/_settings {"index.blocks.metadata": null}',
        ),
        (
            "blocked by: [FORBIDDEN/6/cluster read-only (api)];",
            '{"cluster.blocks.read_only": null}',
        ),
        (
            "index [x] blocked by: [FORBIDDEN/6/cluster (api)];[TOO_MANY_REQUESTS/12/disk];",
            '{"cluster.blocks.read_only": null}',
        ),
        (
            "blocked by: [FORBIDDEN/13/cluster read-only / allow delete (api)];",
            '{"cluster.blocks.read_only_allow_delete": null}',
        ),
        ("blocked by: [SERVICE_UNAVAILABLE/2/no master];", "cannot write now"),
        ("index [x] blocked by: [SERVICE_UNAVAILABLE/1/state not recovered];", "cannot write now"),
    ],
)
def test_a_block_is_said_with_what_ends_it(reason: str, words: str):
    item = {"status": 403, "error": {"type": "cluster_block_exception", "reason": reason}}
    error = item_error(item)
    assert isinstance(error, StoreBusy)
    assert words in str(error)
