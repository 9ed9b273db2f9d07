"""Families of drawn pictures that are alike and not the same, for tests of duplicates.

Flags, icons, drawings, pages of text and screenshots that differ in a word, a colour, a stripe, a
direction; `copies` makes files that do show the same picture.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from itertools import product

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance, ImageFont

_STRIPES = {
    "france": ("v", (0, 38, 84), (255, 255, 255), (206, 17, 38)),
    "italy": ("v", (0, 146, 70), (255, 255, 255), (206, 43, 55)),
    "mexico plain": ("v", (0, 104, 71), (255, 255, 255), (206, 17, 38)),
    "ireland": ("v", (22, 155, 98), (255, 255, 255), (255, 136, 62)),
    "ivory coast": ("v", (255, 136, 62), (255, 255, 255), (22, 155, 98)),
    "romania": ("v", (0, 43, 127), (252, 209, 22), (206, 17, 38)),
    "chad": ("v", (0, 38, 100), (254, 203, 0), (198, 12, 48)),
    "mali": ("v", (20, 181, 58), (252, 209, 22), (206, 17, 38)),
    "guinea": ("v", (206, 17, 38), (252, 209, 22), (0, 148, 96)),
    "belgium": ("v", (0, 0, 0), (250, 224, 66), (237, 41, 57)),
    "netherlands": ("h", (174, 28, 40), (255, 255, 255), (33, 70, 139)),
    "luxembourg": ("h", (237, 41, 57), (255, 255, 255), (0, 161, 222)),
    "russia": ("h", (255, 255, 255), (0, 57, 166), (213, 43, 30)),
    "slovenia plain": ("h", (255, 255, 255), (0, 93, 164), (237, 28, 36)),
    "germany": ("h", (0, 0, 0), (221, 0, 0), (255, 206, 0)),
    "hungary": ("h", (205, 42, 62), (255, 255, 255), (67, 111, 77)),
    "bulgaria": ("h", (255, 255, 255), (0, 150, 110), (214, 38, 18)),
    "india plain": ("h", (255, 153, 51), (255, 255, 255), (19, 136, 8)),
    "niger plain": ("h", (224, 82, 6), (255, 255, 255), (13, 176, 43)),
    "austria": ("h", (237, 41, 57), (255, 255, 255), (237, 41, 57)),
    "latvia": ("h", (158, 48, 57), (255, 255, 255), (158, 48, 57)),
    "monaco": ("h", (206, 17, 38), (255, 255, 255)),
    "poland": ("h", (255, 255, 255), (220, 20, 60)),
    "ukraine": ("h", (0, 91, 187), (255, 213, 0)),
}
_CROSSES = {
    "denmark": ((198, 12, 48), (255, 255, 255), None),
    "sweden": ((0, 106, 167), (254, 204, 0), None),
    "finland": ((255, 255, 255), (0, 53, 128), None),
    "norway": ((186, 12, 47), (255, 255, 255), (0, 32, 91)),
    "iceland": ((2, 82, 156), (255, 255, 255), (220, 30, 53)),
    "faroe": ((255, 255, 255), (0, 101, 189), (237, 41, 57)),
}
COLOURS = {
    "red": (200, 30, 40), "green": (40, 150, 60), "blue": (40, 80, 190), "orange": (240, 140, 30),
    "purple": (130, 50, 150), "teal": (0, 140, 140), "grey": (120, 120, 120),
}  # fmt: skip
_WORDS = [
    *("the", "quick", "brown", "fox", "jumps", "over", "a", "lazy", "dog", "while", "seven"),
    *("wizards", "make", "toxic", "brew", "for", "evil", "queen", "and", "jack", "quietly"),
    *("moved", "up", "front", "with", "my", "box", "of", "liquor", "jugs", "near", "five", "old"),
]


def flags() -> Iterator[tuple[str, Image.Image]]:
    """Flags of stripes and crosses, 300 x 200; two with a stripe of another width."""
    for name, (direction, *colours) in _STRIPES.items():
        yield name, _striped(direction, colours, [1] * len(colours))
    yield "netherlands wide", _striped("h", list(_STRIPES["netherlands"][1:]), [1, 1.3, 1])
    yield "france narrow", _striped("v", list(_STRIPES["france"][1:]), [30, 33, 37])
    for name, (ground, outer, inner) in _CROSSES.items():
        flag = Image.new("RGB", (300, 200), ground)
        draw = ImageDraw.Draw(flag)
        for colour, half in ((outer, 20), (inner, 10)):
            if colour is not None:
                draw.rectangle((110 - half, 0, 110 + half, 200), fill=colour)
                draw.rectangle((0, 100 - half, 300, 100 + half), fill=colour)
        yield name, flag
    star = _striped("h", [(20, 80, 160), (255, 255, 255), (200, 30, 40)], [1, 1, 1])
    yield "plain", star.copy()
    ImageDraw.Draw(star).regular_polygon((60, 33, 16), 5, fill=(255, 220, 0))
    yield "starred", star


def icons(side: int = 64) -> Iterator[tuple[str, Image.Image]]:
    """Icons on white: arrows in four directions, marks and letters, in seven colours."""
    for colour, rgb in COLOURS.items():
        arrow = _drawn(side, lambda d, rgb=rgb: d.polygon(
            [(20, 130), (130, 20), (240, 130), (165, 130), (165, 240), (95, 240), (95, 130)],
            fill=rgb))  # fmt: skip
        for turn, name in enumerate(("up", "left", "down", "right")):
            yield f"{colour} {name}", arrow.rotate(90 * turn)
        yield f"{colour} tick", _drawn(side, lambda d, rgb=rgb: d.line(
            [(40, 140), (100, 200), (220, 60)], fill=rgb, width=36))  # fmt: skip
        yield f"{colour} disc", _drawn(side, lambda d, rgb=rgb: d.ellipse(
            (30, 30, 226, 226), fill=rgb))  # fmt: skip
        for letter in "EFPRB8":
            yield f"{colour} {letter}", _lettered(side, letter, rgb)
    for badge in ((200, 0, 0), (0, 160, 0), None):
        yield f"folder {badge}", _drawn(side, lambda d, badge=badge: (
            d.rounded_rectangle((20, 60, 236, 220), 20, fill=(230, 180, 60)),
            badge and d.ellipse((170, 160, 230, 220), fill=badge)))  # fmt: skip


def drawings(side: int = 320) -> Iterator[tuple[str, Image.Image]]:
    """Shirts, wagons and apples in seven colours, shaded; one of each with a small detail."""
    for name, paint in (("shirt", _shirt), ("wagon", _wagon), ("apple", _apple)):
        for colour, rgb in COLOURS.items():
            yield f"{colour} {name}", _shaded(_drawn(side, lambda d, p=paint, c=rgb: p(d, c)))
        detailed = _drawn(side, lambda d, p=paint: (
            p(d, COLOURS["red"]), d.ellipse((120, 120, 136, 136), fill=(30, 30, 30))))  # fmt: skip
        yield f"detailed {name}", _shaded(detailed)


def pages(size: tuple[int, int] = (620, 877), count: int = 6) -> Iterator[tuple[str, Image.Image]]:
    """Pages of text; of each, one with another word and one with another digit."""
    for number in range(count):
        words = [*np.random.default_rng(number).choice(_WORDS, 400)]
        words[200] = "1,024"
        yield f"page {number}", _page(words, size)
        yield f"page {number}, a word", _page([*words[:90], "lemon", *words[91:]], size)
        yield f"page {number}, a digit", _page([*words[:200], "1,824", *words[201:]], size)


def screenshots(size: tuple[int, int] = (960, 600)) -> Iterator[tuple[str, Image.Image]]:
    """Windows with a list and buttons that differ in a word, a colour, a tick or the row chosen."""
    for theme, (ground, ink) in {"light": (245, 30), "dark": (35, 220)}.items():
        for word, button, row in product(("Save", "Send"), ("blue", "green"), (1, 2)):
            yield (
                f"{theme} {word} {button} {row}",
                _window(size, ground, ink, word, button, row, ""),
            )
        yield f"{theme} ticked", _window(size, ground, ink, "Save", "blue", 1, "x")


FAMILIES: dict[str, Callable[[], Iterator[tuple[str, Image.Image]]]] = {
    "flags": flags,
    "icons": icons,
    "drawings": drawings,
    "pages of text": pages,
    "screenshots": screenshots,
}


def copies() -> dict[str, tuple[str, Callable[[Image.Image], bytes]]]:
    """Kinds of true copies: suffix and content of the file."""

    def saved(image: Image.Image, form: str, **options: object) -> bytes:
        buffer = io.BytesIO()
        image.save(buffer, form, **options)
        return buffer.getvalue()

    def scaled(image: Image.Image, factor: float) -> Image.Image:
        size = (max(1, round(image.width * factor)), max(1, round(image.height * factor)))
        return image.resize(size, Image.Resampling.LANCZOS)

    def cropped(image: Image.Image) -> Image.Image:
        across, down = image.width * 0.01, image.height * 0.01
        box = (round(across), round(down), round(image.width - across), round(image.height - down))
        return image.crop(box)

    def exif_turned(image: Image.Image) -> bytes:
        exif = Image.Exif()
        exif[0x0112] = 6
        return saved(image.transpose(Image.Transpose.ROTATE_90), "PNG", exif=exif)

    def with_metadata(image: Image.Image) -> bytes:
        exif = Image.Exif()
        exif[0x010E] = "a description"
        return saved(image, "PNG", exif=exif, compress_level=1)

    return {
        "JPEG, quality 90": (".jpg", lambda i: saved(i, "JPEG", quality=90)),
        "JPEG, quality 60": (".jpg", lambda i: saved(i, "JPEG", quality=60)),
        "WebP, quality 80": (".webp", lambda i: saved(i, "WEBP", quality=80)),
        "WebP, lossless": (".webp", lambda i: saved(i, "WEBP", lossless=True)),
        "half the size": (".png", lambda i: saved(scaled(i, 0.5), "PNG")),
        "twice the size": (".png", lambda i: saved(scaled(i, 2), "PNG")),
        "half, JPEG 80": (".jpg", lambda i: saved(scaled(i, 0.5), "JPEG", quality=80)),
        "cropped by 2 %": (".png", lambda i: saved(cropped(i), "PNG")),
        "5 % brighter": (".png", lambda i: saved(ImageEnhance.Brightness(i).enhance(1.05), "PNG")),
        "5 % darker, JPEG": (
            ".jpg", lambda i: saved(ImageEnhance.Brightness(i).enhance(0.95), "JPEG", quality=85),
        ),
        "other metadata": (".png", with_metadata),
        "turned, with EXIF": (".png", exif_turned),
    }  # fmt: skip


def _striped(direction: str, colours: list, widths: list[float]) -> Image.Image:
    flag = Image.new("RGB", (300, 200))
    draw = ImageDraw.Draw(flag)
    ends = np.cumsum([0, *widths]) / sum(widths)
    for colour, start, end in zip(colours, ends[:-1], ends[1:], strict=True):
        box = (
            (start * 300, 0, end * 300, 200)
            if direction == "v"
            else (0, start * 200, 300, end * 200)
        )
        draw.rectangle(tuple(map(round, box)), fill=colour)
    return flag


def _drawn(side: int, paint: Callable[[ImageDraw.ImageDraw], object]) -> Image.Image:
    """Draw on 256 x 256 at four times the size, and scale."""
    large = Image.new("RGB", (1024, 1024), "white")
    paint(_Scaled(large))  # type: ignore[arg-type]
    return large.resize((side, side), Image.Resampling.LANCZOS)


class _Scaled:
    """An ImageDraw whose coordinates are multiplied by four."""

    def __init__(self, image: Image.Image) -> None:
        self._draw = ImageDraw.Draw(image)

    def __getattr__(self, name: str) -> Callable[..., None]:
        method = getattr(self._draw, name)

        def call(places: object, *rest: object, width: int = 0, **options: object) -> None:
            scaled = (np.array(places) * 4).tolist()
            if isinstance(scaled[0], list):
                scaled = [tuple(each) for each in scaled]
            if width:
                options["width"] = width * 4
            method(
                scaled, *(each * 4 if isinstance(each, int) else each for each in rest), **options
            )

        return call


def _shaded(image: Image.Image) -> Image.Image:
    """Darken towards the lower right, as a drawing program's shading."""
    y, x = np.mgrid[: image.height, : image.width]
    shade = 1 - 0.25 * (x / image.width + y / image.height) / 2
    pixels = np.asarray(image, float)
    is_drawn = (pixels < 250).any(axis=2)
    pixels[is_drawn] *= shade[is_drawn][:, None]
    return Image.fromarray(pixels.round().astype(np.uint8))


def _shirt(d: ImageDraw.ImageDraw, rgb: tuple[int, int, int]) -> None:
    d.polygon([(70, 40), (110, 55), (146, 55), (186, 40), (240, 90), (210, 120), (186, 100),
               (186, 230), (70, 230), (70, 100), (46, 120), (16, 90)], fill=rgb)  # fmt: skip
    d.line([(110, 55), (128, 75), (146, 55)], fill=(30, 30, 30), width=4)


def _wagon(d: ImageDraw.ImageDraw, rgb: tuple[int, int, int]) -> None:
    d.rectangle([(20, 80), (236, 180)], fill=rgb)
    for x in (40, 100, 160):
        d.rectangle([(x, 95), (x + 40, 135)], fill=(200, 225, 245))
    for x in (60, 190):
        d.ellipse([(x - 25, 160), (x + 25, 210)], fill=(40, 40, 40))


def _apple(d: ImageDraw.ImageDraw, rgb: tuple[int, int, int]) -> None:
    d.ellipse([(40, 70), (150, 220)], fill=rgb)
    d.ellipse([(106, 70), (216, 220)], fill=rgb)
    d.line([(128, 80), (138, 40)], fill=(90, 60, 30), width=8)
    d.ellipse([(140, 30), (190, 60)], fill=(60, 140, 60))


def _lettered(side: int, letter: str, rgb: tuple[int, int, int]) -> Image.Image:
    icon = Image.new("RGB", (256, 256), "white")
    draw = ImageDraw.Draw(icon)
    draw.text((128, 128), letter, rgb, ImageFont.load_default(220), anchor="mm")
    return icon.resize((side, side), Image.Resampling.LANCZOS)


def _page(words: list[str], size: tuple[int, int]) -> Image.Image:
    page = Image.new("RGB", size, "white")
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(15)
    lines = [" ".join(words[n : n + 10]) for n in range(0, len(words), 10)]
    for row, line in enumerate(lines):
        draw.text((50, 50 + row * 19), line, (20, 20, 20), font)
    return page


def _window(
    size: tuple[int, int], ground: int, ink: int, word: str, button: str, chosen: int, tick: str
) -> Image.Image:
    window = Image.new("RGB", size, (ground,) * 3)
    draw, font = ImageDraw.Draw(window), ImageFont.load_default(14)
    draw.rectangle((0, 0, size[0], 28), fill=(70, 90, 120))
    draw.text((10, 6), "Settings - Example", (255, 255, 255), font)
    for row in range(20):
        if row == chosen:
            draw.rectangle((12, 44 + row * 24, 600, 66 + row * 24), fill=(150, 180, 230))
        draw.rectangle((18, 49 + row * 24, 30, 61 + row * 24), outline=(ink,) * 3)
        if row == 7:
            draw.text((21, 46 + row * 24), tick, (ink,) * 3, font)
        line = " ".join(np.random.default_rng(row).choice(_WORDS, 7))
        draw.text((40, 46 + row * 24), line, (ink,) * 3, font)
    draw.rounded_rectangle((size[0] - 160, size[1] - 60, size[0] - 30, size[1] - 24), 6,
                           fill=COLOURS[button])  # fmt: skip
    draw.text((size[0] - 95, size[1] - 42), word, (255, 255, 255), font, anchor="mm")
    return window
