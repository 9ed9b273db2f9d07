"""Contact sheets: pictures that show the hits of searches."""

from es_imgsearch.search.sheet.drawing import (
    MAX_PIXELS,
    MISSING_LETTERS,
    ShownHit,
    ShownHits,
    draw_sheet,
)

__all__ = ["MAX_PIXELS", "MISSING_LETTERS", "ShownHit", "ShownHits", "draw_sheet"]
