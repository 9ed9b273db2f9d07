"""The sentence above the hits."""

from __future__ import annotations

import pytest

from es_imgsearch.serve.page.contents import summary


@pytest.mark.parametrize(
    ("found", "said", "is_only_nearest"),
    [
        ((77, 7, 0, None), "7 of 77 are relevant", False),
        ((77, 7, 12, None), "7 of 77 are relevant; 12 contain the words", False),
        ((77, 7, 1, None), "7 of 77 are relevant; 1 contains the words", False),
        ((77, 77, 77, None), "77 of 77 are relevant; 77 contain the words", False),
        ((77, 0, 12, None), "0 of 77 are relevant; 12 contain the words", False),
        ((77, 0, 0, None), "Nothing here matches; the nearest are these.", True),
        ((77, None, 0, None), "The 77 nearest", False),
        ((77, None, 12, None), "12 of 77 contain the words", False),
        ((12, None, 12, None), "12 of 12 contain the words", False),
        ((1, None, 1, None), "1 of 1 contains the words", False),
        ((1, None, 0, None), "One picture", False),
        ((0, None, 0, None), "No picture meets this.", False),
        ((5, 5, 2, 0.3), "5 of at least 30% relevance; 2 contain the words", False),
        ((5, 5, 0, 0.3), "5 of at least 30% relevance", False),
    ],
)
def test_summary(
    found: tuple[int, int | None, int, float | None], said: str, is_only_nearest: bool
) -> None:
    assert summary(*found) == (said, is_only_nearest)
