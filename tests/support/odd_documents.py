"""Random documents of an index, with values at the limits of their fields; and queries."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

DIMS = 4
PROPERTIES: dict[str, Any] = {
    "image_id": {"type": "keyword"},
    "root": {"type": "keyword"},
    "relative_path": {"type": "keyword", "fields": {"text": {"type": "text"}}},
    "content_id": {"type": "keyword"},
    "size_bytes": {"type": "long"},
    "width": {"type": "integer"},
    "rating": {"type": "byte"},
    "taken_at": {"type": "date"},
    "f_number": {"type": "float"},
    "format": {"type": "keyword", "normalizer": "lowercase"},
    "title": {"type": "text", "fields": {"keyword": {"type": "keyword", "ignore_above": 8}}},
    "transparent": {"type": "boolean"},
    "location": {"type": "geo_point"},
    "attributes": {"type": "flattened"},
    "body": {"type": "object", "enabled": False},
    "image_embedding": {
        "type": "dense_vector",
        "dims": DIMS,
        "index": True,
        "similarity": "cosine",
        "index_options": {"type": "flat"},
    },
    "perceptual_hash": {
        "type": "dense_vector",
        "element_type": "bit",
        "dims": 16,
        "index": True,
        "index_options": {"type": "flat"},
    },
    "regions": {
        "type": "nested",
        "properties": {
            "box": {"type": "integer", "index": False, "doc_values": False},
            "embedding": {"type": "dense_vector", "dims": 2, "index_options": {"type": "flat"}},
        },
    },
}
BODY = {
    "settings": {
        # The simulated server refreshes when it is asked to.
        "refresh_interval": "-1",
        "number_of_replicas": 0,
        "index.sort.field": ["root", "relative_path"],
        "index.sort.order": ["asc", "asc"],
    },
    "mappings": {
        "dynamic": "strict",
        "_source": {"excludes": ["image_embedding", "regions.embedding"]},
        "properties": PROPERTIES,
    },
}
IDS = [f"id{n}" for n in range(6)]
PATHS = dict(
    zip(IDS, ["a.jpg", "a/b.jpg", "a/\u00e9.png", "z/\U0001f4f7", "a/B.jpg", "\ufb01"], strict=True)
)

# -- strategies ---------------------------------------------------------------------------------

unit_vectors = st.sampled_from(
    [[1, 0, 0, 0], [0.6, 0.8, 0, 0], [0.5, 0.5, 0.5, 0.5], [0.0, -0.6, 0, -0.8]]
)
query_vectors = st.sampled_from([[1, 0, 0, 0], [-0.6, 0.8, 0, 0], [0, 1, 0]])
odd_numbers = st.sampled_from(
    [0, -1, 127, 128, 2**31, 2**63 - 1, 2**63, -(2**63), 1.5, -0.5, 1e300, 1e39, 3.4e38, "12"]
) | st.sampled_from(["x", "1.5", "", True, None, [], [1, 2], [[3]], {"a": 1}])
dates = st.sampled_from(
    [
        "2026-11-28T08:44:37.214+00:00",
        "2026-11-28",
        "0000-01-01",
        "-0001-01-01",
        "10000-01-01",
        "2026-02-30",
        "2026-11-28T25:00:00Z",
        "1900",
        "1900-1-1",
        "",
        "x",
        "2026-11-28T08:44:60Z",
        "2026-11-28T08:44:37.2141234567Z",
        "2026-11-28 08:44:37",
        "+31690708-07-05T01:46:40Z",
    ]
) | st.sampled_from([0, -1, 10**12, 10**17, 1.5, 1e300, True, [], {"a": 1}])
odd_texts = st.sampled_from(
    ["", "a", "JPEG", "123456789", "\U0001f4f7" * 5, "é" * 16383, "é" * 16384, "a" * 32766]
) | st.sampled_from(["a" * 32767, "\0", 5, 1.5, True, ["a", "b", "a"], [], None, {"a": 1}, [["c"]]])
odd_vectors = st.sampled_from(
    [[1, 0, 0], [0, 0, 0, 0], [1, 0, 0, 1e39], ["x", 0, 0, 0], [], None, "x", 5, [[1, 0, 0, 0]]]
) | st.sampled_from([[3, 4, 0, 0.5, 1], [None, 1, 0, 0], {"a": 1}])
hashes = st.sampled_from(
    ["abcd", "0001", "", "xy", "abc", "abcdef", [1, -2], [1, 200], [1], 5, None]
)
places = st.sampled_from(
    [{"lat": 1.5, "lon": -7}, {"lat": 91, "lon": 0}, {"lat": 0, "lon": 181}, None]
)
attributes = st.sampled_from(
    [{}, {"a": {"b": [1, None, "c"]}}, {"a": "b" * 32764}, {"a": "b" * 32765}, "x", [], None, 5]
)
region_lists = st.sampled_from(
    [
        [],
        None,
        [{"box": [0, 1, 2, 3], "embedding": [1, 0]}],
        {"box": [1], "embedding": [0, 1]},
        [{"box": [0], "embedding": [1, 0]}, {"box": [9, 9]}],
        [{"box": "x"}],
        [{"other": 1}],
        "x",
        [{"box": [0], "embedding": [1, 0, 0]}],
    ]
)
odd_fields: dict[str, st.SearchStrategy[Any]] = {
    "size_bytes": odd_numbers,
    "width": odd_numbers,
    "rating": odd_numbers,
    "f_number": odd_numbers,
    "taken_at": dates,
    "content_id": odd_texts,
    "format": odd_texts,
    "title": odd_texts,
    "transparent": st.sampled_from([True, False, "true", "", "no", 1, None]),
    "location": places,
    "attributes": attributes,
    "body": st.sampled_from([{}, {"a": [1, {"b": None}]}, None]),
    "image_embedding": odd_vectors,
    "perceptual_hash": hashes,
    "regions": region_lists,
    "unmapped": st.just(1),
}


odd_values = st.sampled_from(sorted(odd_fields)).flatmap(
    lambda name: st.tuples(st.just(name), odd_fields[name])
)
# What `docvalue_fields` return in the product's requests.
READ_BACK = {"size_bytes", "width", "rating", "content_id", "format", "transparent"}
READ_BACK |= {"image_embedding", "perceptual_hash"}


def chance(one_in: int) -> st.SearchStrategy[bool]:
    """True once in so many draws; integers would be 0 most of the time."""
    return st.sampled_from([False] * (one_in - 1) + [True])


@st.composite
def documents(draw: st.DrawFn, image_id: str, *, may_be_odd: bool = True) -> dict[str, Any]:
    """A picture's document; one of three has a field that may be refused."""
    document = {
        "root": draw(st.sampled_from(["r", "r", "s"])),
        "relative_path": PATHS[image_id],
        "size_bytes": draw(st.integers(0, 3)),
        "content_id": draw(st.sampled_from(["c1", "c2"])),
    }
    if draw(chance(20)):
        document["relative_path"] = PATHS["id0"]
    if draw(st.booleans()):
        document["image_embedding"] = draw(unit_vectors)
    if may_be_odd and draw(chance(3)):
        name = draw(st.sampled_from(sorted(odd_fields)))
        document[name] = draw(odd_fields[name])
    return document


@st.composite
def queries(draw: st.DrawFn, depth: int = 1) -> dict[str, Any]:
    """Filters as listings send them."""
    leaves = [
        {"match_all": {}},
        {"term": {"root": "r"}},
        {"term": {"unmapped": "r"}},
        {"term": {"format": "JPEG"}},
        {"term": {"size_bytes": 1}},
        {"terms": {"content_id": ["c1", "b"]}},
        {"prefix": {"relative_path": "a/"}},
        {"prefix": {"content_id": "a"}},
        {"ids": {"values": IDS[:3]}},
        {"range": {"_seq_no": {"gt": 5}}},
        {"range": {"size_bytes": {"gte": 1, "lt": 3}}},
        {"range": {"taken_at": {"gte": "2000-01-01"}}},
        *({"exists": {"field": each}} for each in PROPERTIES if each not in {"regions", "body"}),
        {"exists": {"field": "title.keyword"}},
        {"exists": {"field": "unmapped"}},
    ]
    if depth == 0 or draw(st.booleans()):
        return draw(st.sampled_from(leaves))
    some = st.lists(queries(depth=0), min_size=1, max_size=2)
    kinds = st.sampled_from(["filter", "must_not", "should"])
    return {"bool": {draw(kinds): draw(some) for _ in range(draw(st.integers(1, 2)))}}
