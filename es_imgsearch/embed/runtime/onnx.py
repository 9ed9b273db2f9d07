"""Export networks for ONNX Runtime, check their results, and run them.

The check is that they return the same rows.  An export is a folder `<cache>/onnx/<name>`, written
atomically: `network.onnx`, its weights in `network.onnx.data`, a report in `export.json`, and other
files that the network needs.  The name is a hash of the network, the format of these files and the
number format, so a changed model is exported again.  Only making an export imports torch.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import warnings
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from es_imgsearch.embed.weights import LEAST_COSINE, first_line, has_torch, least_cosine
from es_imgsearch.errors import ImgSearchError
from es_imgsearch.settings import available_cores

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy.typing as npt
    import torch

    from es_imgsearch.embed.protocol import Vectors
    from es_imgsearch.embed.runtime.network import Network
    from es_imgsearch.embed.runtime.plan import Dtype, Inputs


logger = logging.getLogger(__name__)

# Raise it when the files of an export change.
_EXPORT_FORMAT: Final = 1
# The newest that both onnxruntime 1.20 and torch 2.7 know.
OPSET: Final = 18

NETWORK: Final = "network.onnx"
REPORT: Final = "export.json"
_IMPOSSIBLE: Final = ".impossible"
_PLAIN: Final = "float32.onnx"
_FULL_BELOW_BYTES: Final = 10_000_000


@dataclass(frozen=True)
class Export:
    """A network in `folder`, ready for ONNX Runtime."""

    folder: Path

    @cached_property
    def report(self) -> dict[str, Any]:
        """`export.json`: the encoder, versions, size, and the cosine to float32 in torch."""
        report: dict[str, Any] = json.loads((self.folder / REPORT).read_text("utf-8"))
        return report

    @property
    def cosine(self) -> float:
        """The lowest cosine to the same network in torch in float32, over the examples."""
        return float(self.report["cosine"])

    def runner(self, threads: int) -> OnnxRunner:
        """Load the network."""
        return OnnxRunner(self.folder / NETWORK, threads)


class Exports:
    """The exports in the folder `onnx` of `cache`."""

    def __init__(self, cache: Path) -> None:
        self._folder = cache / "onnx"

    def path(self, network: Network, dtype: Dtype) -> Path:
        """Return the folder of an export, whether or not it exists."""
        key = json.dumps([_EXPORT_FORMAT, OPSET, network.part, network.identity(), dtype])
        return self._folder / hashlib.sha256(key.encode()).hexdigest()[:24]

    def find(self, network: Network, dtype: Dtype) -> Export | None:
        """Return the export if it exists, else None."""
        folder = self.path(network, dtype)
        return Export(folder) if (folder / REPORT).is_file() else None


class OnnxRunner:
    """A network in ONNX Runtime, on the CPU."""

    def __init__(self, network: Path, threads: int) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        # Waiting threads would spin and take the cores from the reading workers.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = onnxruntime.InferenceSession(
            str(network), options, providers=["CPUExecutionProvider"]
        )
        # TorchScript leaves out inputs that the network ignores.
        self._inputs = [each.name for each in self._session.get_inputs()]

    def __call__(self, inputs: Inputs) -> Vectors:
        rows: Vectors = self._session.run(None, {name: inputs[name] for name in self._inputs})[0]
        return rows


def default_cache_dir() -> Path:
    """The folder of exports and measurements, unless the settings name one."""
    from platformdirs import user_cache_dir

    return Path(user_cache_dir("es_imgsearch"))


def find_or_export(exports: Exports, network: Network, dtype: Dtype, name: str) -> Export | None:
    """Return the export of a network, made if it is missing; None if that fails.

    A failure is logged in one line, and the export not tried again with the same versions of the
    libraries.  Without torch it is not tried.  Raises ModelUnavailable if torch cannot load the
    network.
    """
    if (export := exports.find(network, dtype)) is not None:
        return export
    if not has_torch():
        return None
    folder = exports.path(network, dtype)
    note = folder.with_suffix(_IMPOSSIBLE)
    versions = " ".join(_versions())
    if note.is_file() and note.read_text("utf-8") == versions:
        return None
    logger.info("Exporting the %s of %s for ONNX Runtime (%s), once.", network.part, name, dtype)
    unfinished = folder.with_name(f".unfinished-{folder.name}-{os.getpid()}")
    try:
        unfinished.mkdir(parents=True, exist_ok=True)
        report = _export(network, dtype, unfinished, exports)
        whole = {"encoder": name, "part": network.part, "dtype": dtype, **report}
        (unfinished / REPORT).write_text(json.dumps(whole, indent=2), "utf-8")
        _move_into_place(unfinished, folder)
    except ImgSearchError:
        raise
    except Exception as error:  # noqa: BLE001 - libraries raise anything; torch runs it all the same
        if is_full := _is_full(folder.parent):
            why = f"the disk of {folder.parent} is full: make room there, or set cache_dir"
        else:
            why = first_line(error)
        logger.warning(
            "The %s of %s cannot be exported for ONNX Runtime (%s): torch runs them.",
            network.part, name, why,
        )  # fmt: skip
        if not (is_full or isinstance(error, OSError)):
            # A full disk may have room the next time.
            _note_impossible(note, versions)
        return None
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    export = Export(folder)
    logger.info(
        "Exported the %s of %s: cosine to float32 in torch %.5f.", network.part, name, export.cosine
    )
    return export


def _is_full(folder: Path) -> bool:
    try:
        return shutil.disk_usage(folder).free < _FULL_BELOW_BYTES
    except OSError:
        return False  # The folder could not be made.


def _note_impossible(note: Path, versions: str) -> None:
    try:
        note.write_text(versions, "utf-8")
    except OSError as error:
        logger.warning(
            "The export is tried again at every start, since %s cannot be written (%s): make room"
            " there, or set cache_dir.", note.parent, error.strerror,
        )  # fmt: skip


class _NotEqual(Exception):
    """The exported network gives different rows."""


def _move_into_place(unfinished: Path, folder: Path) -> None:
    try:
        os.rename(unfinished, folder)
    except OSError:
        # Another process was faster.
        if not (folder / REPORT).is_file():
            raise


def _export(network: Network, dtype: Dtype, folder: Path, exports: Exports) -> dict[str, Any]:
    from es_imgsearch.embed.runtime.torch import TorchRunner

    examples = network.examples()
    reference = TorchRunner(network.load(), "cpu")
    module = reference.module
    expected = [reference(each) for each in examples]
    for name, content in network.files().items():
        (folder / name).write_bytes(content)
    if dtype == "int8":
        plain = exports.find(network, "float32")
        if plain is None:
            _write(module, examples, expected, folder / _PLAIN)
        _quantise(folder / _PLAIN if plain is None else plain.folder / NETWORK, folder / NETWORK)
        for leftover in folder.glob(f"{_PLAIN}*"):
            leftover.unlink()
        # Any cosine is accepted: int8 was set, and `encoder` shows it.
        cosine = _lowest_cosine(folder / NETWORK, examples, expected)
    else:
        cosine = _write(module, examples, expected, folder / NETWORK)
    for each in folder.iterdir():
        # onnx writes weights with mode 0600; a cache may be shared.
        each.chmod((folder.stat().st_mode & 0o444) | 0o200)
    size = sum(each.stat().st_size for each in folder.iterdir())
    return {"cosine": round(cosine, 6), "versions": _versions(), "bytes": size}


def _lowest_cosine(file: Path, examples: Sequence[Inputs], expected: Sequence[Vectors]) -> float:
    runner = OnnxRunner(file, available_cores())
    return min(
        least_cosine(runner(inputs), rows) for inputs, rows in zip(examples, expected, strict=True)
    )


def _write(
    module: torch.nn.Module, examples: Sequence[Inputs], expected: Sequence[Vectors], file: Path
) -> float:
    """Write the network to `file`; return the lowest cosine to `expected`.

    The weights are written next to it.  torch has two exporters.  TorchScript took 2 s of CPU for
    EfficientNet-Lite0, torch.export 7 to 17 s; but TorchScript is deprecated and follows no
    conditions in a model's code.  The examples check its result; if that is wrong, torch.export is
    tried.
    """
    try:
        _by_torchscript(module, examples[0], file)
        cosine = _lowest_cosine(file, examples, expected)
    except Exception as error:  # noqa: BLE001 - the other exporter reports what is wrong
        logger.debug("TorchScript did not export it: %s", first_line(error))
        cosine = 0.0
    if not cosine >= LEAST_COSINE:
        _by_torch_export(module, examples[0], file)
        cosine = _lowest_cosine(file, examples, expected)
    if not cosine >= LEAST_COSINE:
        raise _NotEqual(f"its vectors differ, cosine {cosine:.4f}")
    return cosine


def _by_torchscript(module: torch.nn.Module, example: Inputs, file: Path) -> None:
    import onnx
    import torch

    single = file.with_suffix(".single")
    with _silent(), torch.inference_mode():
        torch.onnx.export(
            module,
            tuple(torch.from_numpy(array) for array in example.values()),
            str(single),
            input_names=list(example),
            output_names=["rows"],
            dynamic_axes={name: dict(enumerate(_axes(array))) for name, array in example.items()},
            opset_version=OPSET,
            dynamo=False,
        )
    # Weights in a separate file are mapped, not parsed: ViT-B/32 loads in 0.4 instead of 0.6 s.
    onnx.save_model(
        onnx.load(str(single)),
        str(file),
        save_as_external_data=True,
        location=f"{file.name}.data",
    )
    single.unlink()


def _by_torch_export(module: torch.nn.Module, example: Inputs, file: Path) -> None:
    import torch

    dims = {name: torch.export.Dim(name) for name in ("batch", "tokens")}
    for leftover in file.parent.glob(f"{file.name}*"):
        leftover.unlink()
    with _silent(), torch.inference_mode():
        torch.onnx.export(
            module,
            tuple(torch.from_numpy(array) for array in example.values()),
            str(file),
            input_names=list(example),
            output_names=["rows"],
            dynamic_shapes=tuple(
                {at: dims[name] for at, name in enumerate(_axes(array))}
                for array in example.values()
            ),
            opset_version=OPSET,
            dynamo=True,
            external_data=True,
            verbose=False,
        )


def _axes(array: npt.NDArray[Any]) -> tuple[str, ...]:
    """The leading axes of variable length: pictures; or texts and tokens."""
    return ("batch", "tokens") if array.ndim == 2 else ("batch",)


def _quantise(source: Path, file: Path) -> None:
    """Quantise the weights of matrix products to 8 bits, their inputs at run time.

    Convolutions stay in float32: quantised this way they are slower.
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with _silent():
        quantize_dynamic(
            source,
            file,
            op_types_to_quantize=["MatMul", "Gemm"],
            per_channel=True,
            weight_type=QuantType.QInt8,
            use_external_data_format=True,
        )


def _versions() -> list[str]:
    from importlib.metadata import version

    return [f"{name} {version(name)}" for name in ("torch", "onnxruntime", "onnxscript")]


@contextmanager
def _silent() -> Iterator[None]:
    """Silence the exporters: they warn of much that a user cannot act on."""
    names: Sequence[str] = ("torch.onnx", "torch.export", "onnxscript", "onnx_ir", "")
    loggers = [logging.getLogger(name) for name in names]
    levels = [each.level for each in loggers]
    for each in loggers:
        each.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for each, level in zip(loggers, levels, strict=True):
            each.setLevel(level)
