"""How a network runs: in what, where, in which numbers, on how many threads, how many at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol

import numpy.typing as npt

from es_imgsearch.errors import SettingsError

if TYPE_CHECKING:
    from es_imgsearch.embed.protocol import Vectors
    from es_imgsearch.settings import Settings


Inputs = Mapping[str, npt.NDArray[Any]]
Part = Literal["pictures", "texts"]

# The name of the one input of a network of pictures.
PICTURES: Final = "pictures"


class Runner(Protocol):
    """A network that is ready to run."""

    def __call__(self, inputs: Inputs) -> Vectors:
        """Rows of shape (n, width), float32, for inputs whose first axes are n."""


Backend = Literal["torch", "onnx"]
Dtype = Literal["float32", "bfloat16", "float16", "int8"]

# What ONNX Runtime runs of ours; its package for GPUs is another one.
ONNX_DTYPES: Final = ("float32", "int8")
_NAMES: Final = {"torch": "torch", "onnx": "ONNX Runtime"}


@dataclass(frozen=True, slots=True)
class Plan:
    """One way of running a network; `device` is a torch device, for ONNX Runtime always cpu."""

    backend: Backend
    device: str
    dtype: Dtype
    threads: int
    batch_size: int

    def __str__(self) -> str:
        threads = f", {self.threads} thread{'s' * (self.threads != 1)}"
        return (
            f"{_NAMES[self.backend]} ({self.dtype}, {self.device}"
            f"{threads if self.device == 'cpu' else ''}, batches of {self.batch_size})"
        )


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the settings leave open (`auto` or None) and what they do not."""

    backend: Literal["auto", "torch", "onnx"] = "auto"
    device: str = "auto"
    dtype: Literal["auto", "float32", "bfloat16", "float16", "int8"] = "auto"
    threads: int | None = None
    batch_size: int | None = None

    @classmethod
    def of(cls, settings: Settings) -> Wanted:
        """Raises SettingsError for settings that contradict each other."""
        wanted = cls(
            settings.backend,
            settings.device,
            settings.dtype,
            settings.threads,
            settings.batch_size,
        )
        if wanted.backend == "onnx" and not wanted.allows_onnx:
            what = "device" if wanted.device not in {"auto", "cpu"} else "dtype"
            raise SettingsError(
                f"backend onnx does not run with {what} {getattr(wanted, what)}: leave one of the"
                " two out."
            )
        if wanted.dtype == "int8" and not wanted.allows_onnx:
            what = "backend" if wanted.backend == "torch" else "device"
            raise SettingsError(
                f"dtype int8 is for ONNX Runtime on the CPU, not for {what}"
                f" {getattr(wanted, what)}: leave one of the two out."
            )
        return wanted

    @property
    def allows_onnx(self) -> bool:
        """Whether ONNX Runtime may run it."""
        return (
            self.backend != "torch"
            and self.device in {"auto", "cpu"}
            and self.dtype in {"auto", *ONNX_DTYPES}
        )

    @property
    def allows_torch(self) -> bool:
        """Whether torch may run it where an export is at hand as well."""
        return self.backend != "onnx" and self.dtype != "int8"

    @property
    def onnx_dtype(self) -> Dtype:
        """What ONNX Runtime calculates in."""
        return "int8" if self.dtype == "int8" else "float32"
