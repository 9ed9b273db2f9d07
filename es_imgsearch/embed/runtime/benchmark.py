"""Which way of running a network is the fastest here: a second or two of trying, then a choice.

`candidates`, `choose` and `describe` are pure; `measure` runs the network.  The fastest is the
one with which the whole pipeline is the fastest, where reading takes its share of the cores.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import platform
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, astuple, dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from es_imgsearch.embed.runtime.onnx import default_cache_dir
from es_imgsearch.embed.runtime.plan import Dtype, Plan, Wanted
from es_imgsearch.embed.weights import LEAST_COSINE, first_line, least_cosine
from es_imgsearch.errors import EncodersFailed, ImgSearchError
from es_imgsearch.settings import available_cores, changed_settings

if TYPE_CHECKING:
    from es_imgsearch.embed.protocol import Vectors
    from es_imgsearch.embed.runtime.plan import Inputs, Runner
    from es_imgsearch.settings import Settings


logger = logging.getLogger(__name__)

# What is slower by less than this is not slower: one run to the next differs as much.
_TIE: Final = 0.95

# Pictures at once while backends are compared; enough to fill a GPU's or a CPU's units.
_FIRST_BATCH: Final = 4
_BATCHES: Final = {"cpu": (4, 8, 16, 32), "gpu": (16, 32, 64, 128)}
# Of one candidate; a forward pass is timed at least three times, after one that is not.
_SECONDS: Final = 0.4
_LEAST_PASSES: Final = 3
# A batch that takes longer than this is not tried: it would hold up pictures and gain nothing.
_LONGEST_BATCH_SECONDS: Final = 0.5

# CPU that reading takes of the same cores for each picture, at the least: 11.6 ms for files of
# 500 x 375 with all describers but OCR, 57 ms for a JPEG of 12 megapixels
# (benchmarks/pipeline_speed.py).
_READ_CPU_SECONDS: Final = 0.012

# With these a CPU may be faster in bfloat16 than in float32; without them it is slower.
_FAST_BFLOAT16: Final = {"amx_bf16", "avx512_bf16"}


@dataclass(frozen=True, slots=True)
class Machine:
    """What the speed of a network depends on, besides the network."""

    cores: int
    devices: tuple[str, ...] = ("cpu",)
    has_fast_bfloat16: bool = False


@dataclass(frozen=True, slots=True)
class Timing:
    """What one plan reached; `cosine` is the least to float32 in torch.

    `cpu_seconds` are those of a picture, all threads together.
    """

    plan: Plan
    pictures_per_second: float
    cosine: float = 1.0
    cpu_seconds: float = 0.0

    def beside_reading(self, cores: int) -> float:
        """Pictures a second where these cores read the pictures as well.

        A second thread of `starter` makes it 1.2 times as fast and costs 1.3 times the CPU,
        which the reading workers then lack.
        """
        return min(self.pictures_per_second, cores / (self.cpu_seconds + _READ_CPU_SECONDS))


def candidates(wanted: Wanted, machine: Machine, *, has_export: bool) -> list[Plan]:
    """What is worth trying, the preferred first: ONNX Runtime, fewer threads, whole precision."""
    all_threads = [wanted.threads] if wanted.threads else _thread_counts(machine.cores)
    size = wanted.batch_size or _FIRST_BATCH
    plans: list[Plan] = []
    if wanted.allows_onnx and has_export:
        dtype = wanted.onnx_dtype
        plans += [Plan("onnx", "cpu", dtype, threads, size) for threads in all_threads]
    # Without torch there is no device.
    if machine.devices and (wanted.allows_torch or not plans):
        devices = machine.devices if wanted.device == "auto" else (wanted.device,)
        for device in devices:
            for each in _torch_dtypes(wanted, machine, device):
                counts = all_threads if device == "cpu" else [1]
                plans += [Plan("torch", device, each, threads, size) for threads in counts]
    return plans


def _thread_counts(cores: int) -> list[int]:
    # Two threads of one core may share its arithmetic units, and reading needs cores too.
    return [cores // 2, cores] if cores >= 2 else [cores]


def _torch_dtypes(wanted: Wanted, machine: Machine, device: str) -> list[Dtype]:
    if wanted.dtype == "int8":
        # Asked for, but there is no export.
        return ["float32"]
    if wanted.dtype != "auto":
        return [wanted.dtype]
    if device == "cpu":
        return ["float32", "bfloat16"] if machine.has_fast_bfloat16 else ["float32"]
    return ["float32", "float16"]


def batch_sizes(wanted: Wanted, fastest: Timing) -> list[int]:
    """Batches to try for the plan that was the fastest, the smallest first."""
    if wanted.batch_size:
        return [wanted.batch_size]
    sizes = _BATCHES["cpu" if fastest.plan.device == "cpu" else "gpu"]
    most = fastest.pictures_per_second * _LONGEST_BATCH_SECONDS
    return [size for size in sizes if size <= most] or [sizes[0]]


def choose(timings: Sequence[Timing], cores: int) -> Timing:
    """The first of those that are as fast beside reading as the fastest, to 5 %.

    `timings` are in order of preference.  Those whose vectors differ too much count only if
    all do: then that precision was asked for.
    """
    same = [each for each in timings if each.cosine >= LEAST_COSINE] or timings
    best = max(each.beside_reading(cores) for each in same)
    return next(each for each in same if each.beside_reading(cores) >= _TIE * best)


def describe(chosen: Timing, timings: Iterable[Timing]) -> str:
    """What runs, at what speed, and what was slower, in one line."""
    others: dict[str, float] = {}
    for each in timings:
        plan = each.plan
        if (plan.backend, plan.device, plan.dtype) != (
            chosen.plan.backend, chosen.plan.device, chosen.plan.dtype,
        ):  # fmt: skip
            name = f"{plan.backend} {plan.dtype} on {plan.device}"
            others[name] = max(others.get(name, 0.0), each.pictures_per_second)
    words = (
        f"{chosen.plan}: {chosen.pictures_per_second:.3g} pictures/s,"
        f" {chosen.cpu_seconds * 1000:.3g} ms of CPU each"
    )
    if others:
        told = ", ".join(f"{name} {speed:.3g}" for name, speed in others.items())
        words += f" (also measured: {told})"
    return words


def measure(
    wanted: Wanted,
    plans: Sequence[Plan],
    pictures: Callable[[int], Inputs],
    runner: Callable[[Plan], Runner],
    *,
    cores: int,
) -> tuple[Timing, list[Timing]]:
    """What is chosen of these plans, and the timings of all.

    `pictures` gives inputs of so many; `runner` makes a plan ready.  One plan alone is not
    timed against anything, only its batches are.  Raises EncodersFailed where none of them runs.
    """
    examples = pictures(_FIRST_BATCH)
    timings: list[Timing] = []
    failure: Exception | None = None
    reference: Vectors | None = None
    chosen: tuple[Timing, Runner] | None = None
    for plan in plans:
        try:
            ready = runner(plan)
            rows = ready(examples)
            if reference is None and plan.dtype == "float32":
                reference = rows
            elif reference is None and plan.backend == "torch":
                # Half precision alone was asked for; what it costs is told all the same.
                reference = runner(replace(plan, dtype="float32"))(examples)
            timing = _timed(plan, ready, pictures)
        except ImgSearchError:
            raise
        except Exception as error:  # noqa: BLE001 - out of a GPU's memory, no such operation on it
            logger.warning("The model does not run in %s (%s).", plan, first_line(error))
            failure = error
            continue
        near = 1.0 if reference is None else least_cosine(reference, rows)
        timings.append(replace(timing, cosine=near))
        if choose(timings, cores) is timings[-1]:
            # One at a time is kept: each holds all its weights.
            chosen = (timings[-1], ready)
    if not timings and failure is not None:
        raise EncodersFailed(
            f"The model runs in none of the ways that were tried ({first_line(failure)}): are it"
            " and its libraries whole, and is there memory enough?"
        ) from failure
    if chosen is None or choose(timings, cores) is not chosen[0]:
        best = choose(timings, cores)
        chosen = (best, runner(best.plan))
    fastest, ready = chosen
    tried = [
        replace(
            _timed(replace(fastest.plan, batch_size=size), ready, pictures), cosine=fastest.cosine
        )
        for size in batch_sizes(wanted, fastest)
    ]
    return choose(tried, cores), [*timings, *tried]


def _timed(plan: Plan, run: Runner, pictures: Callable[[int], Inputs]) -> Timing:
    """The best of some passes: what else the machine does only ever adds."""
    inputs = pictures(plan.batch_size)
    run(inputs)
    best_seconds = best_cpu_seconds = float("inf")
    began = time.perf_counter()
    for passes in range(1, 1_000):
        started, cpu_started = time.perf_counter(), time.process_time()
        run(inputs)
        now = time.perf_counter()
        best_seconds = min(best_seconds, now - started)
        best_cpu_seconds = min(best_cpu_seconds, time.process_time() - cpu_started)
        if passes >= _LEAST_PASSES and now - began > _SECONDS:
            break
    return Timing(
        plan,
        pictures_per_second=plan.batch_size / best_seconds,
        cpu_seconds=best_cpu_seconds / plan.batch_size,
    )


def this_machine(devices: Sequence[str]) -> Machine:
    """This one, with the devices that torch sees."""
    _, flags = cpu()
    return Machine(available_cores(), tuple(devices), bool(_FAST_BFLOAT16 & flags))


def cpu() -> tuple[str, set[str]]:
    """The model of this machine's processor, and what it can, as far as the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine(), set()
    told = {key.strip(): value.strip() for key, _, value in (each.partition(":") for each in lines)}
    return told.get("model name", platform.machine()), set(told.get("flags", "").split())


# What was measured to be the fastest way of embedding pictures, kept for the next start.


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
