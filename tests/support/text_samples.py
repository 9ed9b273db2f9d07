"""Pictures with writing in them; Chinese is drawn stroke by stroke, for want of a font."""

from __future__ import annotations

from PIL import Image, ImageDraw, ImageFont

# Strokes of characters in a square of 100.
_STROKES = {
    "王": [
        [(10, 10), (90, 10)],
        [(15, 55), (85, 55)],
        [(5, 100), (95, 100)],
        [(50, 10), (50, 100)],
    ],
    "中": [[(15, 30), (85, 30), (85, 72), (15, 72), (15, 25)], [(50, 0), (50, 110)]],
    "山": [[(50, 0), (50, 95)], [(10, 35), (10, 95), (90, 95), (90, 35)]],
    "田": [
        [(15, 10), (85, 10), (85, 100), (15, 100), (15, 5)],
        [(50, 10), (50, 100)],
        [(15, 55), (85, 55)],
    ],
}


def written_on(image: Image.Image, text: str, size: float = 48) -> Image.Image:
    """A copy with these words across it."""
    copy = image.convert("RGB")
    draw = ImageDraw.Draw(copy)
    place = (copy.width * 0.1, copy.height * 0.45)
    draw.text(place, text, fill="yellow", font=ImageFont.load_default(size), stroke_width=2,
              stroke_fill="black")  # fmt: skip
    return copy


def chinese(text: str = "王中山田") -> Image.Image:
    image = Image.new("RGB", (160 * len(text), 240), "white")
    draw = ImageDraw.Draw(image)
    for n, character in enumerate(text):
        for stroke in _STROKES[character]:
            points = [(30 + 150 * n + x * 1.2, 50 + y * 1.2) for x, y in stroke]
            draw.line(points, fill="black", width=10)
    return image
