"""Pictures, and 17 kinds of copies of each, for same_picture.py."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance, ImageFont, ImageOps

# Below this side a stamp is an icon.
LEAST_SIDE_PIXELS = 96
# Two files of one scene or one drawing would be each other's false pairs.
TWINS = {"motorcycle_right.png", "chessboard_RGB.png", "multipage.tif", "multipage_rgb.tif"}
WHITE = (255, 255, 255)


class Source(NamedTuple):
    """Picture on white, and the mask of its subject (mode L)."""

    name: str
    image: Image.Image
    subject: Image.Image


def sources(stamps: Path | None, most_stamps: int) -> list[Source]:
    """Load scikit-image's photographs, and stamps of animals and food."""
    import skimage

    data = Path(skimage.__file__).parent / "data"
    found = [
        _source(file)
        for file in sorted(data.iterdir())
        if file.suffix in {".png", ".jpg", ".gif"} and file.name not in TWINS
    ]
    if stamps is not None:
        files = sorted(f for name in ("animals", "food") for f in (stamps / name).rglob("*.png"))
        drawn = [each for each in map(_source, files) if min(each.image.size) >= LEAST_SIDE_PIXELS]
        step = max(1, math.ceil(len(drawn) / most_stamps))
        found += drawn[::step]
    return found


def _source(file: Path) -> Source:
    with Image.open(file) as opened:
        has_ground = opened.has_transparency_data
        whole = opened.convert("RGBA")
    subject = whole.getchannel("A")
    if not has_ground:
        subject = Image.new("L", whole.size, 0)
        margin = [side // 10 for side in whole.size]
        box = (*margin, whole.width - margin[0], whole.height - margin[1])
        ImageDraw.Draw(subject).ellipse(box, fill=255)
    on_white = Image.alpha_composite(Image.new("RGBA", whole.size, "white"), whole)
    return Source(file.name, on_white.convert("RGB"), subject)


Copy = Callable[[Source, Image.Image], Image.Image]


def copies(background: Image.Image) -> dict[str, Callable[[Source], Image.Image]]:
    """Make all kinds of copies; all but the recompressed one are JPEG of quality 90."""
    kinds: dict[str, Callable[[Source], Image.Image]] = {
        "resized to half": lambda s: s.image.resize(_scaled(s.image, 0.5)),
        "recompressed": lambda s: _saved(s.image, 25),
        "cropped 10 %": lambda s: _cropped(s.image, 0.10),
        "cropped 25 %": lambda s: _cropped(s.image, 0.25),
        "rotated 90°": lambda s: s.image.transpose(Image.Transpose.ROTATE_90),
        "rotated 5°": lambda s: s.image.rotate(
            5, Image.Resampling.BICUBIC, expand=True, fillcolor=WHITE
        ),
        "mirrored": lambda s: ImageOps.mirror(s.image),
        "watermarked": lambda s: _watermarked(s.image),
        "brighter": lambda s: ImageEnhance.Brightness(s.image).enhance(1.4),
        "grey": lambda s: ImageOps.grayscale(s.image).convert("RGB"),
        "bordered": lambda s: ImageOps.expand(s.image, max(s.image.size) // 12, (20, 20, 20)),
        "screenshot": lambda s: _screenshot(s.image),
        "half of it": lambda s: s.image.crop((0, 0, s.image.width // 2, s.image.height)),
        "perspective 10°": lambda s: _turned_away(s.image, 10),
        "perspective 25°": lambda s: _turned_away(s.image, 25),
        "new background": lambda s: _on(background, s),
        "pasted into 3x": lambda s: _pasted(background, s.image),
    }
    return {name: lambda s, make=make: _saved(make(s), 90) for name, make in kinds.items()}


def _scaled(image: Image.Image, factor: float) -> tuple[int, int]:
    return max(1, round(image.width * factor)), max(1, round(image.height * factor))


def _saved(image: Image.Image, quality: int) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer).convert("RGB")


def _cropped(image: Image.Image, share: float) -> Image.Image:
    """Crop `share` of width and height, more of it at the left and the bottom."""
    width, height = image.width * share, image.height * share
    left, top = round(width * 0.7), round(height * 0.3)
    return image.crop(
        (left, top, round(left + image.width - width), round(top + image.height - height))
    )


def _watermarked(image: Image.Image) -> Image.Image:
    layer = Image.new("RGBA", image.size, (0, 0, 0, 0))
    font = ImageFont.load_default(size=max(12, min(image.size) // 5))
    draw = ImageDraw.Draw(layer)
    for row in range(3):
        place = (image.width * (0.02 + 0.15 * row), image.height * (0.1 + 0.3 * row))
        draw.text(place, "SAMPLE", font=font, fill=(255, 255, 255, 150), stroke_width=1,
                  stroke_fill=(0, 0, 0, 150))  # fmt: skip
    return Image.alpha_composite(image.convert("RGBA"), layer).convert("RGB")


def _screenshot(image: Image.Image) -> Image.Image:
    """Show it in a window with title bar and buttons; the picture fills two thirds."""
    bar = max(14, image.height // 9)
    frame = Image.new("RGB", (round(image.width * 1.12), image.height + 3 * bar), (232, 232, 235))
    draw = ImageDraw.Draw(frame)
    draw.rectangle((0, 0, frame.width, bar), fill=(45, 60, 90))
    font = ImageFont.load_default(size=max(9, bar - 5))
    draw.text((6, 1), "Picture viewer", font=font, fill="white")
    for n in range(5):
        left = 6 + n * bar * 1.4
        draw.rectangle((left, bar * 1.2, left + bar * 1.1, bar * 1.8), outline=(90, 90, 90))
    frame.paste(image, (round(image.width * 0.06), 2 * bar))
    return frame


def _turned_away(image: Image.Image, degrees: float) -> Image.Image:
    """Turn it as a print about its upright axis, seen from 1.2 times its width."""
    width, height = image.size
    angle, away = math.radians(degrees), 1.2 * max(width, height)
    seen = []
    for x, y in ((0, 0), (width, 0), (width, height), (0, height)):
        right, down = x - width / 2, y - height / 2
        depth = away + right * math.sin(angle)
        seen.append((right * math.cos(angle) * away / depth, down * away / depth))
    left, top = (min(each[n] for each in seen) for n in (0, 1))
    size = [math.ceil(max(each[n] for each in seen) - low) for n, low in ((0, left), (1, top))]
    corners = ((0, 0), (width, 0), (width, height), (0, height))
    rows, right_side = [], []
    for (to_x, to_y), (x, y) in zip(seen, corners, strict=True):
        u, v = to_x - left, to_y - top
        rows += [[u, v, 1, 0, 0, 0, -x * u, -x * v], [0, 0, 0, u, v, 1, -y * u, -y * v]]
        right_side += [x, y]
    matrix = np.linalg.solve(np.array(rows, float), np.array(right_side, float))
    return image.transform(
        (max(1, size[0]), max(1, size[1])),
        Image.Transform.PERSPECTIVE,
        matrix.tolist(),
        Image.Resampling.BICUBIC,
        fillcolor=WHITE,
    )


def _on(background: Image.Image, source: Source) -> Image.Image:
    """Put a drawing's subject, or a photograph's middle, on another background."""
    ground = ImageOps.fit(background, source.image.size)
    ground.paste(source.image, mask=source.subject)
    return ground


def _pasted(background: Image.Image, image: Image.Image) -> Image.Image:
    whole = ImageOps.fit(background, _scaled(image, math.sqrt(3)))
    whole.paste(image, (round(image.width * 0.5), round(image.height * 0.2)))
    return whole
