"""What was measured to be the fastest way of embedding pictures, kept for the next start."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Mapping
from dataclasses import asdict, astuple, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from es_imgsearch.embed.exports import default_cache_dir
from es_imgsearch.embed.measurement import cpu
from es_imgsearch.embed.plan import Plan, Wanted
from es_imgsearch.settings import available_cores, changed_settings

if TYPE_CHECKING:
    from es_imgsearch.settings import Settings

logger = logging.getLogger(__name__)

_FORMAT: Final = 2
_LIBRARIES: Final = ("torch", "onnxruntime", "transformers", "timm")


@dataclass(frozen=True, slots=True)
class Choice:
    """How pictures are embedded on this machine.

    `why` says in one line what `plan` reached and what was slower; `cosine` is the least between
    its rows and those of float32 in torch.
    """

    plan: Plan
    why: str
    pictures_per_second: float
    cosine: float

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, told: Mapping[str, Any]) -> Choice:
        return cls(**{**told, "plan": Plan(**told["plan"])})


class Choices:
    """Those in the folder `choices` of the cache.

    A choice is for an encoder (its revision and fingerprint), what the settings leave open, the
    libraries' versions, and this machine's processor, cores and GPUs.  Asking loads no library.
    `wanted` is what the settings leave open to each of the `workers`.
    """

    def __init__(self, settings: Settings) -> None:
        """Raises SettingsError for settings that contradict each other."""
        self.cache = settings.cache_dir or default_cache_dir()
        self.wanted = Wanted.of(_for_each_worker(settings))

    def find(self, revision: str, fingerprint: str) -> Choice | None:
        """What was chosen; None if that is still to be measured."""
        try:
            told = json.loads(self._file(revision, fingerprint).read_text("utf-8"))
            return Choice.from_dict(told)
        except (OSError, ValueError, TypeError, KeyError):
            return None

    def keep(self, revision: str, fingerprint: str, choice: Choice) -> None:
        """Write it for the next time; where that cannot be, the log says so."""
        file = self._file(revision, fingerprint)
        unfinished = file.with_suffix(f".{os.getpid()}")
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            unfinished.write_text(json.dumps(choice.to_dict(), indent=2), "utf-8")
            unfinished.replace(file)
        except OSError as error:
            logger.warning(
                "How the encoder runs is measured again at every start, since %s cannot be written"
                " (%s): set cache_dir.", file.parent, error.strerror,
            )  # fmt: skip

    def _file(self, revision: str, fingerprint: str) -> Path:
        told = [
            _FORMAT,
            revision,
            fingerprint,
            astuple(self.wanted),
            [_version(name) for name in _LIBRARIES],
            cpu()[0],
            available_cores(),
            _gpus(),
        ]
        name = hashlib.sha256(json.dumps(told).encode()).hexdigest()[:24]
        return self.cache / "choices" / f"{name}.json"


def _for_each_worker(settings: Settings) -> Settings:
    """Several processes that embed share the cores; one alone would seem faster with them all."""
    if settings.workers == 1 or settings.threads is not None:
        return settings
    return changed_settings(settings, threads=max(1, available_cores() // settings.workers))


def _version(library: str) -> str:
    try:
        return version(library)
    except PackageNotFoundError:
        return ""


def _gpus() -> list[str]:
    """Models of the GPUs whose driver is loaded; torch would take seconds to say so."""
    return sorted(
        line.partition(":")[2].strip()
        for file in Path("/proc/driver/nvidia/gpus").glob("*/information")
        for line in file.read_text("utf-8", "replace").splitlines()
        if line.startswith("Model")
    )
