"""Store how pictures are embedded on this machine.

The choice is as measured, or as last made by the rule.
"""

from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import astuple
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

from es_imgsearch.embed.runtime.onnx import default_cache_dir
from es_imgsearch.embed.runtime.plan import RuntimeChoice, RuntimeOptions
from es_imgsearch.embed.weights import cpu_model_and_flags, gpu_models
from es_imgsearch.files.whole import write_whole
from es_imgsearch.settings import Settings, available_cores, changed_settings

logger = logging.getLogger(__name__)

_CHOICE_FORMAT: Final = 2
_LIBRARIES: Final = ("torch", "onnxruntime", "transformers", "timm")


class StoredChoices:
    """JSON files in the folder `choices` of the cache.

    A choice belongs to an encoder (its revision and fingerprint), the settings (`options`), the
    versions of the libraries, and this machine's processor, cores and GPUs.  Reading one imports
    no library.
    """

    def __init__(self, settings: Settings) -> None:
        """`workers` share the cores.  Raises SettingsError for contradicting settings."""
        if settings.workers > 1 and settings.threads is None:
            share = max(1, available_cores() // settings.workers)
            settings = changed_settings(settings, threads=share)
        self.cache = settings.cache_dir or default_cache_dir()
        self.options = RuntimeOptions.of(settings)

    def find(self, revision: str, fingerprint: str) -> RuntimeChoice | None:
        """Return the choice for an encoder, or None."""
        try:
            body = json.loads(self._file(revision, fingerprint).read_text("utf-8"))
            return RuntimeChoice.from_dict(body)
        except (OSError, ValueError, TypeError, KeyError):
            return None

    def record(self, revision: str, fingerprint: str, choice: RuntimeChoice) -> bool:
        """Write the choice; return False if the file cannot be written."""
        file = self._file(revision, fingerprint)
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            write_whole(file, json.dumps(choice.to_dict(), indent=2).encode())
        except OSError as error:
            logger.debug("%s cannot be written: %s", file, error)
            return False
        return True

    def _file(self, revision: str, fingerprint: str) -> Path:
        key = [
            _CHOICE_FORMAT,
            revision,
            fingerprint,
            astuple(self.options),
            [_version(name) for name in _LIBRARIES],
            cpu_model_and_flags()[0],
            available_cores(),
            gpu_models(),
        ]
        name = hashlib.sha256(json.dumps(key).encode()).hexdigest()[:24]
        return self.cache / "choices" / f"{name}.json"


def _version(library: str) -> str:
    try:
        return version(library)
    except PackageNotFoundError:
        return ""
