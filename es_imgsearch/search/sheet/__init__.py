"""Contact sheets: pictures that show the hits of searches."""

from es_imgsearch.search.sheet.drawing import MISSING_LETTERS, ShownHit, ShownHits, draw_sheet

__all__ = ["MISSING_LETTERS", "ShownHit", "ShownHits", "draw_sheet"]
