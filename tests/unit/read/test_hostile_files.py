"""Mutated files in a real reading process: it lives, in time, and without a word."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from es_imgsearch.errors import ReadError
from es_imgsearch.read.file import Skipped
from es_imgsearch.read.preparation import Preparation
from es_imgsearch.read.workers import ReadPlan, ReadWorkers
from es_imgsearch.records import Picture
from tests.support import broken_files as broken
from tests.support import picture_samples as samples

pytestmark = [pytest.mark.process, pytest.mark.filterwarnings("ignore")]

MUTATIONS = 400
PHOTOGRAPHS = ("cell.png", "rocket.jpg", "multipage_rgb.tif", "no_time_for_that_tiny.gif")
# All that reads metadata, and what computes fields from pixels; reading texts takes too long.
DESCRIBERS = ("colours", "exif", "hashes", "iptc", "layout", "sidecar")
# Where a decoder looks for metadata: what stands there is changed more often than pixels.
MARKS = (b"Exif", b"acsp", b"8BIM", b"MPF", b"II*\0", b"MM\0*", b"xpacket", b"infe", b"iloc")


def rich_files(photographs: Path) -> dict[str, bytes]:
    exif, profile = samples.exif_bytes(6), samples.rgb_profile(samples.ADOBE_RGB)
    xmp = b'<?xpacket begin=""?><x:xmpmeta xmlns:x="adobe:ns:meta/"/><?xpacket end="w"?>'
    everything = {"exif": exif, "icc_profile": profile, "xmp": xmp}
    rich = {
        "rich.jpg": broken.saved("JPEG", **everything),
        "rich.webp": broken.saved("WEBP", **everything),
        "rich.heic": broken.saved("HEIF", **everything),
        "rich.avif": broken.saved("AVIF", **everything),
        "rich.png": broken.saved("PNG", exif=exif, icc_profile=profile),
        "rich.tif": broken.saved("TIFF", exif=exif, icc_profile=profile),
        "several.jpg": broken.saved("MPO", save_all=True, append_images=[broken.noise()]),
    }
    return samples.good_files() | rich | {
        name: (photographs / name).read_bytes() for name in PHOTOGRAPHS
    }  # fmt: skip


def mutated(content: bytes, others: list[bytes], dice: random.Random) -> bytes:
    marks = [at for mark in MARKS if (at := content.find(mark)) >= 0]
    if not marks or dice.random() < 0.5:
        return samples.mutated(content, others, dice)
    at = max(0, dice.choice(marks) + dice.randrange(-20, 250))
    new = dice.choice(
        [b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f\xff", b"\x0c", b"", dice.randbytes(3)]
    )
    return content[:at] + new + content[at + dice.choice([len(new), len(new), 4]) :]


def test_no_mutated_file_ends_a_reading_process_or_says_a_word(
    photographs: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    dice = random.Random(16)
    files = rich_files(photographs)
    names, contents = list(files), list(files.values())
    paths = []
    for number in range(MUTATIONS):
        name = names[number % len(names)]
        paths.append(tmp_path / f"{number}-{name}")
        paths[-1].write_bytes(mutated(files[name], contents, dice))
    plan = ReadPlan(
        Preparation(width=16, height=16, mode="squash"), 4_000_000, 1024, 30.0, DESCRIBERS
    )
    workers = ReadWorkers(plan, 1)
    try:
        outcomes = dict(workers.read_each([str(path) for path in paths]))
    finally:
        workers.close()
    assert len(outcomes) == MUTATIONS
    for path, outcome in outcomes.items():
        assert isinstance(outcome, Picture | Skipped | ReadError), path
        if isinstance(outcome, ReadError):
            assert outcome.error_class not in {"crashed", "timeout", "out_of_memory"}, path
            outcome.message.encode()
        elif isinstance(outcome, Picture):
            # No describer failed: at most a value was left out.
            assert all(
                ": left out: " in each for each in outcome.fields.get("describe_errors", ())
            ), path
    assert capfd.readouterr().err == ""
    assert sum(isinstance(each, Picture) for each in outcomes.values()) > MUTATIONS // 5
