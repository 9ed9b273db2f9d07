"""How a network runs: library, device, number format, threads and batch size."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol, Self

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

# The formats of our exports; ONNX Runtime for GPUs is another package.
ONNX_DTYPES: Final = ("float32", "int8")
_LIBRARY_NAMES: Final = {"torch": "torch", "onnx": "ONNX Runtime"}


@dataclass(frozen=True, slots=True)
class RuntimePlan:
    """One way to run a network.

    `device` is a torch device, for ONNX Runtime always cpu.
    """

    backend: Backend
    device: str
    dtype: Dtype
    threads: int
    batch_size: int

    def __str__(self) -> str:
        threads = f", {self.threads} thread{'s' * (self.threads != 1)}"
        return (
            f"{_LIBRARY_NAMES[self.backend]} ({self.dtype}, {self.device}"
            f"{threads if self.device == 'cpu' else ''}, batches of {self.batch_size})"
        )


@dataclass(frozen=True, slots=True)
class RuntimeChoice:
    """The plan by which this machine embeds pictures, and why.

    `why` is one line for people.  `cosine` is the lowest cosine to float32 in torch, of the
    export or of the same architecture, or None if unknown.  `pictures_per_second` is None for a
    plan chosen by the rule, without a benchmark.
    """

    plan: RuntimePlan
    why: str
    cosine: float | None
    pictures_per_second: float | None = None

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, body: Mapping[str, Any]) -> Self:
        return cls(**{**body, "plan": RuntimePlan(**body["plan"])})


@dataclass(frozen=True, slots=True)
class RuntimeOptions:
    """The settings that fix parts of a plan; `auto` or None leaves a part open."""

    backend: Literal["auto", "torch", "onnx"] = "auto"
    device: str = "auto"
    dtype: Literal["auto", "float32", "bfloat16", "float16", "int8"] = "auto"
    threads: int | None = None
    batch_size: int | None = None

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """Read the options; raise SettingsError if they contradict each other."""
        options = cls(
            settings.backend,
            settings.device,
            settings.dtype,
            settings.threads,
            settings.batch_size,
        )
        if options.backend == "onnx" and not options.allows_onnx:
            what = "device" if options.device not in {"auto", "cpu"} else "dtype"
            raise SettingsError(
                f"backend onnx does not run with {what} {getattr(options, what)}: leave one of the"
                " two out."
            )
        if options.dtype == "int8" and not options.allows_onnx:
            what = "backend" if options.backend == "torch" else "device"
            raise SettingsError(
                f"dtype int8 is for ONNX Runtime on the CPU, not for {what}"
                f" {getattr(options, what)}: leave one of the two out."
            )
        return options

    @property
    def allows_onnx(self) -> bool:
        """True if ONNX Runtime may run the network."""
        return (
            self.backend != "torch"
            and self.device in {"auto", "cpu"}
            and self.dtype in {"auto", *ONNX_DTYPES}
        )

    @property
    def allows_torch(self) -> bool:
        """True if torch may run the network although an export is available."""
        return self.backend != "onnx" and self.dtype != "int8"

    @property
    def onnx_dtype(self) -> Dtype:
        """The number format of the export."""
        return "int8" if self.dtype == "int8" else "float32"
