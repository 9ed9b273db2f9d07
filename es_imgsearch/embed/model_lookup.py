"""Find the folder of a model: a path, `models_dir`, the hub's cache, or the hub."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Final

from es_imgsearch.embed.model_folder import ModelFolder
from es_imgsearch.errors import ModelUnavailable

logger = logging.getLogger(__name__)

# Weights for the library open_clip, in repositories that serve both.
_OPEN_CLIP: Final = "open_clip_"

_ORGANISATION: Final = "sentence-transformers"

# The hub gets this long to answer the first question; huggingface_hub itself waits and retries
# for a minute on a connection that never answers.
_HUB_SECONDS: Final = 3.0

# A model folder has one of these.
_MARKS: Final = ("modules.json", "config.json")

# The same weights for other runtimes.
_OTHER_FORMATS: Final = ["*.h5", "*.msgpack", "*.onnx", "*.ot", "*.tflite", "onnx/*", "openvino/*"]

# All weights in one file.
_WHOLE: Final = ("model.safetensors", "pytorch_model.bin")


def default_models_dir() -> Path:
    """The folder of model folders, unless the settings name one."""
    from platformdirs import user_data_dir

    return Path(user_data_dir("es_imgsearch")) / "models"


def portable(spec: str, found: ModelFolder) -> str:
    """Return the folder's name if `spec` is its path, for other machines; else `spec`."""
    return found.path.resolve().name if found.path == Path(spec) else spec


def placed(spec: str, found: ModelFolder) -> str:
    """Return the absolute path of the folder if `spec` is its path, else `spec`."""
    return os.path.abspath(found.path) if found.path == Path(spec) else spec


def split_pair(spec: str) -> list[str]:
    """Split FIRST+SECOND, or return MODEL alone; folders' names may have plus signs."""
    if "+" not in spec or Path(spec).is_dir():
        return [spec]
    pairs = [[spec[:at], spec[at + 1 :]] for at, letter in enumerate(spec) if letter == "+"]

    def folders(pair: list[str]) -> int:
        return sum(Path(each).is_dir() for each in pair)

    return max(pairs, key=folders)


def find_folder(spec: str, models_dir: Path) -> ModelFolder:
    """Find a model.

    It is a folder, a folder in `models_dir`, in the hub's cache, or on the hub.  Raises
    ModelUnavailable, within seconds, if it is in none of these places.
    """
    if (folder := _placed_folder(spec, models_dir)) is not None:
        return _complete(folder)
    if spec.startswith((".", "/", "~")) or spec.count("/") > 1:
        raise ModelUnavailable(f"There is no model folder at {spec}.")
    repository = _repository(spec)
    return _cached(repository) or _complete(ModelFolder(_downloaded(repository)))


def is_on_this_machine(spec: str, models_dir: Path) -> bool:
    """Return True if `find_folder` finds the model with its weights, and asks no hub."""
    folder = _placed_folder(spec, models_dir) or _cached(_repository(spec))
    return folder is not None and bool(folder.weight_files())


def _placed_folder(spec: str, models_dir: Path) -> ModelFolder | None:
    inside = [models_dir / spec, models_dir / spec.rsplit("/", 1)[-1]]
    for path in [Path(spec), *inside] if "/" in spec else [*inside, Path(spec)]:
        if path.is_dir() and any((path / file).is_file() for file in _MARKS):
            return ModelFolder(path)
    return None


def _repository(spec: str) -> str:
    return spec if "/" in spec else f"{_ORGANISATION}/{spec}"


def find_folders(specs: Sequence[str], models_dir: Path) -> list[ModelFolder]:
    """Find several models as `find_folder` does.

    The error also says what to do instead.
    """
    try:
        return [find_folder(spec, models_dir) for spec in specs]
    except ModelUnavailable as error:
        raise ModelUnavailable(
            f"{error} Give a model folder, put one into {models_dir}, or use --encoder starter,"
            " which works offline."
        ) from error


def _complete(folder: ModelFolder) -> ModelFolder:
    if code := folder.code_of_its_own:
        raise ModelUnavailable(
            f"The model in {folder.path} brings program code of its own ({code}), which is not"
            " run; take a model that sentence-transformers loads without trust_remote_code."
        )
    if not folder.weight_files():
        raise ModelUnavailable(f"The model folder {folder.path} has no weights in it.")
    return folder


def _cached(repository: str) -> ModelFolder | None:
    from huggingface_hub import snapshot_download

    try:
        folder = ModelFolder(Path(snapshot_download(repository, local_files_only=True)))
    except (OSError, ValueError):
        return None
    return folder if folder.weight_files() else None


def _downloaded(repository: str) -> Path:
    from huggingface_hub import HfApi, snapshot_download

    try:
        info = HfApi().model_info(repository, timeout=_HUB_SECONDS)
        logger.info("fetching the model %s from the hub", repository)
        names = [file.rfilename for file in info.siblings or ()]
        return Path(snapshot_download(repository, ignore_patterns=_not_needed(names)))
    except Exception as error:
        # The hub's client changed its HTTP library, and with it its exceptions, twice.
        raise ModelUnavailable(
            f"The model {repository} is not on this machine and the model hub did not give it "
            f"({type(error).__name__})."
        ) from error


def _not_needed(names: Sequence[str]) -> list[str]:
    """Return files of a repository, or patterns, that hold the same weights again."""
    paths = [PurePosixPath(name) for name in names]
    safe = {path.parent for path in paths if path.suffix == ".safetensors"}
    pickles = [str(path) for path in paths if path.suffix == ".bin" and path.parent in safe]
    whole = any(path.name in _WHOLE for path in paths)
    return [*_OTHER_FORMATS, *pickles, *([f"{_OPEN_CLIP}*"] if whole else [])]
