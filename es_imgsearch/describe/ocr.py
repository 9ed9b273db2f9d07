"""Read text in the picture with PP-OCR: Chinese, Latin letters and digits.

Uses RapidOCR with the models that its package carries (PP-OCRv6 small, of PaddleOCR); nothing is
downloaded.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from PIL import Image

from es_imgsearch.describe.registry import WORDS_AND_STEMS

# Pictures are shrunk to these before detection; small print on an A4 page needs them.
_LONGER_SIDE_PIXELS = 1600
_DETECTION_SIDE_PIXELS = 736

# A page of small print takes minutes: the largest lines are read first, until time is up.
# Processor time, so that a busy machine reads the same text.
_MOST_CPU_SECONDS = 8.0
_LINES_AT_ONCE = 6

# PP-OCR's own confidence in a line.
_LEAST_SCORE = 0.6

_MOST_CHARACTERS = 20_000


class TextInImage:
    """Field text_in_image: the lines in reading order; absent without any."""

    name = "text_in_image"
    # It takes ten times as long as all the others together (benchmarks/describers.py --ocr).
    on_request = True
    # For a 4:3 photograph with this longer side.
    shorter_side_pixels = _LONGER_SIDE_PIXELS * 3 // 4
    mapping: ClassVar[Mapping[str, Mapping[str, Any]]] = {"text_in_image": WORDS_AND_STEMS}

    @property
    def missing(self) -> str | None:
        absent = [each for each in ("rapidocr", "onnxruntime") if find_spec(each) is None]
        if not absent:
            return None
        return f"{' and '.join(absent)} must be installed: pip install 'es-imgsearch[ocr]'"

    def describe(self, image: Image.Image, exif: Image.Exif, path: str) -> Mapping[str, Any]:
        _ = exif, path
        lines = self._lines(image)
        return {"text_in_image": "\n".join(lines)[:_MOST_CHARACTERS]} if lines else {}

    def _lines(self, image: Image.Image) -> list[str]:
        crops = self._crops(image)
        until = time.process_time() + _MOST_CPU_SECONDS
        largest_first = sorted(range(len(crops)), key=lambda n: -crops[n].shape[0])
        texts: dict[int, str] = {}
        for start in range(0, len(crops), _LINES_AT_ONCE):
            if time.process_time() > until:
                break
            numbers = largest_first[start : start + _LINES_AT_ONCE]
            read = self._engine.recognize_txt([crops[n] for n in numbers])
            for number, line, score in zip(numbers, read.txts, read.scores, strict=True):
                text = line.strip()
                # A lone Latin letter or digit is some shape more often than writing.
                if score >= _LEAST_SCORE and (len(text) > 1 or not text.isascii()):
                    texts[number] = text
        return [texts[number] for number in sorted(texts)]

    def _crops(self, image: Image.Image) -> list[Any]:
        """Crop the detected lines of text, upright, from top to bottom."""
        from rapidocr.main import RapidOCRError

        longer = max(image.size)
        if longer > _LONGER_SIDE_PIXELS:
            scale = _LONGER_SIDE_PIXELS / longer
            size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
            image = image.resize(size, Image.Resampling.BICUBIC, reducing_gap=2.0)
        # PaddleOCR's channels are in the order of OpenCV: blue first.
        pixels = np.ascontiguousarray(np.asarray(image)[:, :, ::-1])
        pixels, record = self._engine.preprocess_img(pixels)
        try:
            crops, _ = self._engine.detect_and_crop(pixels, record)
        except RapidOCRError:
            # Raised where there is no text.
            return []
        return list(crops)

    @cached_property
    def _engine(self) -> Any:
        import rapidocr

        models = Path(rapidocr.__file__).parent / "models"
        return rapidocr.RapidOCR(
            params={
                "Global.log_level": "error",
                # Given as files, so that nothing is downloaded.
                "Det.model_path": _only(models, "*_det_*.onnx"),
                "Rec.model_path": _only(models, "*_rec_*.onnx"),
                "Det.limit_type": "max",
                "Det.limit_side_len": _DETECTION_SIDE_PIXELS,
                # There are as many reading workers as cores.
                "EngineConfig.onnxruntime.intra_op_num_threads": 1,
                "EngineConfig.onnxruntime.inter_op_num_threads": 1,
            }
        )


def _only(folder: Path, pattern: str) -> str:
    files = sorted(folder.glob(pattern))
    if not files:
        raise FileNotFoundError(f"rapidocr has no model {pattern}: pip install 'rapidocr>=3.10,<4'")
    return str(files[0])
