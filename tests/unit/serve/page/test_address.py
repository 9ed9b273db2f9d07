"""The state of a page stands in its address, in one short form."""

from __future__ import annotations

from urllib.parse import parse_qsl, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from es_imgsearch.serve.page.address import Address

NAMES = st.sampled_from(["q", "not", "like", "filter", "page", "mode", "box_x", "box", "image"])
PAIRS = st.lists(st.tuples(NAMES, st.text(max_size=6)), max_size=8)


@pytest.mark.parametrize(
    ("given_pairs", "address"),
    [
        ([], "/"),
        ([("q", "")], "/"),
        ([("q", " a cat "), ("mode", "auto"), ("sort", "relevance")], "/?q=a+cat"),
        ([("q", "cat"), ("page", "1"), ("min_relevance", "0")], "/?q=cat"),
        ([("filter", "tags:a"), ("filter", "tags:a"), ("filter", "")], "/?filter=tags:a"),
        ([("filter", "folder:a/b"), ("filter", "-tags:é&x")],
         "/?filter=folder:a/b&filter=-tags:%C3%A9%26x"),
        ([("image", "f0"), ("box_x", "1"), ("box_y", "2"), ("box_w", "3"), ("box_h", "4")],
         "/?image=f0&box=1,2,3,4"),
        ([("box", "9,9,9,9"), ("box_x", "1"), ("box_y", "2"), ("box_w", "3"), ("box_h", "4")],
         "/?box=1,2,3,4"),
        # Fields that were emptied take the box away.
        ([("image", "f0"), ("box", "9,9,9,9"), ("box_x", ""), ("box_y", ""), ("box_w", ""),
          ("box_h", "")], "/?image=f0"),
        ([("image", "f0"), ("box_x", "1"), ("box_y", ""), ("box_w", "3"), ("box_h", "4")],
         "/?image=f0&box=1,,3,4"),
    ],
)  # fmt: skip
def test_an_address_has_what_means_something(given_pairs, address: str):
    assert str(Address.parse("/", given_pairs)) == address


@given(PAIRS)
def test_the_short_form_stays_and_survives_a_browser(pairs: list[tuple[str, str]]):
    address = Address.parse("/", pairs)
    assert Address.parse("/", address.pairs) == address
    assert tuple(parse_qsl(urlsplit(f"/?{address.query}").query, True)) == address.pairs


def test_what_is_added_is_taken_away_again_and_both_begin_at_the_first_page():
    third = Address.parse("/", [("q", "cat"), ("page", "3")])
    more = third.adding("filter", "tags:a").adding("filter", "tags:b")
    assert str(more) == "/?q=cat&filter=tags:a&filter=tags:b"
    assert str(more.dropping("filter", "tags:a")) == "/?q=cat&filter=tags:b"
    assert str(more.dropping("filter")) == "/?q=cat"
    assert str(third.turning_to(4)) == "/?q=cat&page=4"
    assert str(third.turning_to(1)) == "/?q=cat"
    assert str(third.at("/pictures/x").setting("n", "5")) == "/pictures/x?q=cat&n=5"


def test_a_picture_goes_with_its_box():
    address = Address.parse("/", [("image", "f0"), ("box", "1,2,3,4"), ("not", "dog")])
    assert str(address.dropping("image")) == "/?not=dog"
    assert str(address.dropping("box")) == "/?image=f0&not=dog"
