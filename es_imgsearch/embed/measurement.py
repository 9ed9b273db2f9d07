"""Which way of running a network is the fastest here: a second or two of trying, then a choice.

`candidates`, `choose` and `describe` are pure; `measure` runs the network.
"""

from __future__ import annotations

import logging
import platform
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from es_imgsearch.embed.loading import LEAST_COSINE, first_line, least_cosine
from es_imgsearch.embed.plan import Dtype, Plan, Wanted
from es_imgsearch.errors import ImgSearchError
from es_imgsearch.settings import available_cores

if TYPE_CHECKING:
    from es_imgsearch.embed.network import Inputs, Runner
    from es_imgsearch.embed.protocol import Vectors

logger = logging.getLogger(__name__)

# What is slower by less than this is not slower: one run to the next differs as much.
_TIE: Final = 0.95

# Pictures at once while backends are compared; enough to fill a GPU's or a CPU's units.
_FIRST_BATCH: Final = 4
_BATCHES: Final = {"cpu": (4, 8, 16, 32), "gpu": (16, 32, 64, 128)}
# Of one candidate; a forward pass is timed at least twice, after one that is not.
_SECONDS: Final = 0.3
# A batch that takes longer than this is not tried: it would hold up pictures and gain nothing.
_LONGEST_BATCH_SECONDS: Final = 0.5

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
    """What one plan reached; `cosine` is the least to float32 in torch."""

    plan: Plan
    pictures_per_second: float
    cosine: float = 1.0


def candidates(wanted: Wanted, machine: Machine, *, has_export: bool) -> list[Plan]:
    """What is worth trying, the preferred first: ONNX Runtime, fewer threads, whole precision."""
    all_threads = [wanted.threads] if wanted.threads else _thread_counts(machine.cores)
    size = wanted.batch_size or _FIRST_BATCH
    plans: list[Plan] = []
    if wanted.allows_onnx and has_export:
        dtype = wanted.onnx_dtype
        plans += [Plan("onnx", "cpu", dtype, threads, size) for threads in all_threads]
    if wanted.allows_torch or not plans:
        devices = machine.devices if wanted.device == "auto" else (wanted.device,)
        for device in devices:
            for each in _torch_dtypes(wanted, machine, device):
                counts = all_threads if device == "cpu" else [1]
                plans += [Plan("torch", device, each, threads, size) for threads in counts]
    return plans


def _thread_counts(cores: int) -> list[int]:
    # Two threads of one core share its arithmetic units: half as many may do as much.
    return [cores // 2, cores] if cores >= 4 else [cores]


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


def choose(timings: Sequence[Timing]) -> Timing:
    """The first of those that are as fast as the fastest, to 5 %.

    `timings` are in order of preference.  Those whose vectors differ too much count only if
    all do: then that precision was asked for.
    """
    same = [each for each in timings if each.cosine >= LEAST_COSINE] or timings
    best = max(each.pictures_per_second for each in same)
    return next(each for each in same if each.pictures_per_second >= _TIE * best)


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
    words = f"{chosen.plan}: {chosen.pictures_per_second:.3g} pictures/s"
    if others:
        told = ", ".join(f"{name} {speed:.3g}" for name, speed in others.items())
        words += f" (also measured: {told})"
    return words


def measure(
    wanted: Wanted,
    plans: Sequence[Plan],
    pictures: Callable[[int], Inputs],
    runner: Callable[[Plan], Runner],
) -> tuple[Timing, list[Timing]]:
    """What is chosen of these plans, and the timings of all.

    `pictures` gives inputs of so many; `runner` makes a plan ready.  One plan alone is not
    timed against anything, only its batches are.
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
            speed = _pictures_per_second(ready, pictures(plan.batch_size))
        except ImgSearchError:
            raise
        except Exception as error:  # noqa: BLE001 - out of a GPU's memory, no such operation on it
            logger.warning("The model does not run in %s (%s).", plan, first_line(error))
            failure = error
            continue
        near = 1.0 if reference is None else least_cosine(reference, rows)
        timings.append(Timing(plan, speed, near))
        if choose(timings) is timings[-1]:
            # One at a time is kept: each holds all its weights.
            chosen = (timings[-1], ready)
    if not timings and failure is not None:
        raise failure
    if chosen is None or choose(timings) is not chosen[0]:
        best = choose(timings)
        chosen = (best, runner(best.plan))
    fastest, ready = chosen
    tried = [
        replace(
            fastest,
            plan=replace(fastest.plan, batch_size=size),
            pictures_per_second=_pictures_per_second(ready, pictures(size)),
        )
        for size in batch_sizes(wanted, fastest)
    ]
    return choose(tried), [*timings, *tried]


def _pictures_per_second(run: Runner, inputs: Inputs) -> float:
    run(inputs)
    count = len(next(iter(inputs.values())))
    best = float("inf")
    began = time.perf_counter()
    for number in range(1_000):
        started = time.perf_counter()
        run(inputs)
        now = time.perf_counter()
        best = min(best, now - started)
        if number >= 1 and now - began > _SECONDS:
            break
    return count / best


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
