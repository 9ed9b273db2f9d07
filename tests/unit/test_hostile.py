"""Malformed files of every format end as a picture, a skip or a failure with a documented name."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import picture_samples as samples
import pytest

from es_imgsearch import read
from es_imgsearch.errors import ReadError
from es_imgsearch.preparation import Preparation
from es_imgsearch.read import Skipped, read_file
from es_imgsearch.records import Picture

DOCUMENTED = {
    line.split()[0]
    for line in (read.__doc__ or "").splitlines()
    if line.startswith("    ") and line.strip()
}
MUTATIONS = 340

pytestmark = pytest.mark.filterwarnings("ignore")


def good_files() -> dict[str, bytes]:
    """Suffix (made unique by a stem) to content, small and each of its own format."""
    files = {f"{name}{samples.WRITTEN[name][1]}": samples.sample(name) for name in samples.WRITTEN}
    image = samples.four_corners()
    files |= {
        "palette.png": samples.saved(image.quantize(16), "PNG", transparency=0),
        "grey16.png": samples.saved(image.convert("I;16"), "PNG"),
        "float.tif": samples.saved(image.convert("F"), "TIFF"),
        "lzw.tif": samples.saved(image, "TIFF", compression="tiff_lzw"),
        "cmyk.jpg": samples.saved(image.convert("CMYK"), "JPEG"),
        "progressive.jpg": samples.saved(image, "JPEG", progressive=True),
        "turned.jpg": samples.saved(image, "JPEG", exif=samples.exif_bytes(6)),
        "bits.xbm": samples.saved(image.convert("1"), "XBM"),
        "frames.gif": samples.saved(
            image, "GIF", save_all=True, append_images=[image.rotate(90)], duration=10
        ),
        "picture.psd": samples.psd(),
        "picture.xpm": samples.xpm(),
    }
    return files


def mutated(content: bytes, others: list[bytes], dice: random.Random) -> bytes:
    changed = bytearray(content)
    kind = dice.randrange(5)
    if kind == 0:  # bytes flipped anywhere
        for _ in range(dice.randint(1, 30)):
            changed[dice.randrange(len(changed))] = dice.randrange(256)
    elif kind == 1:  # bytes flipped in the header, where sizes and offsets stand
        for _ in range(dice.randint(1, 6)):
            changed[dice.randrange(min(64, len(changed)))] = dice.choice([0, 1, 127, 255])
    elif kind == 2:  # cut off
        del changed[dice.randrange(len(changed)) :]
    elif kind == 3:  # the header of another format
        other = dice.choice(others)
        length = dice.choice([4, 16, 40])
        changed[:length] = other[:length]
    else:  # a piece moved or repeated
        start, length = dice.randrange(len(changed)), dice.randrange(1, 200)
        at = dice.randrange(len(changed))
        changed[at:at] = changed[start : start + length]
    return bytes(changed)


def test_mutated_files_end_as_picture_skip_or_documented_failure(tmp_path: Path):
    """A decoder that hangs or crashes takes this test with it; tests/unit/test_workers.py has
    those.  The seed is fixed: what fails once fails again."""
    dice = random.Random(20240531)
    files = good_files()
    outcomes: Counter[str] = Counter()
    for number in range(MUTATIONS):
        name = list(files)[number % len(files)]
        content = mutated(files[name], list(files.values()), dice)
        path = tmp_path / name
        path.write_bytes(content)
        outcome: Picture | Skipped | ReadError
        try:
            outcome = read_file(
                str(path), Preparation(width=16, height=16, mode="squash"), max_pixels=4_000_000
            )
        except ReadError as error:
            outcome = error
        except BaseException as error:
            raise AssertionError(f"mutation {number} of {path}") from error
        if isinstance(outcome, ReadError):
            assert outcome.error_class in DOCUMENTED
            assert outcome.message.encode()
            outcomes[outcome.error_class] += 1
        else:
            assert isinstance(outcome, Picture | Skipped)
            outcomes[type(outcome).__name__] += 1
    # The mutations reach past the headers, and most of them do harm.
    assert outcomes["corrupt"] > 40
    assert outcomes["truncated"] > 20
    assert outcomes["Picture"] > 40
