"""Benchmark the ways to run a network on this machine and choose the fastest.

`candidates`, `choose` and `describe` are pure; `measure` runs the network for a few seconds.  The
fastest plan is the one with which the whole pipeline is the fastest, where reading takes its share
of the cores.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import numpy as np

from es_imgsearch.embed.runtime.network import sample_pictures, torch_missing, torch_runner
from es_imgsearch.embed.runtime.plan import (
    PICTURES,
    Dtype,
    RuntimeChoice,
    RuntimeOptions,
    RuntimePlan,
)
from es_imgsearch.embed.weights import (
    LEAST_COSINE,
    cpu_model_and_flags,
    devices,
    first_line,
    least_cosine,
)
from es_imgsearch.errors import EncodersFailed, ImgSearchError
from es_imgsearch.settings import available_cores

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    import torch

    from es_imgsearch.embed.protocol import Vectors
    from es_imgsearch.embed.runtime.network import Network
    from es_imgsearch.embed.runtime.onnx import Export
    from es_imgsearch.embed.runtime.plan import Inputs, Runner
    from es_imgsearch.read.preparation import Preparation


logger = logging.getLogger(__name__)

# A plan slower by less than 5 % counts as equal: one run differs from the next by as much.
_TIE: Final = 0.95

# Pictures of one forward pass while plans are compared, and the batches tried for the fastest.
_FIRST_BATCH: Final = 4
_BATCHES: Final = {"cpu": (4, 8, 16, 32), "gpu": (16, 32, 64, 128)}
# Time for one candidate, after a pass that is not timed.
_SECONDS: Final = 0.4
_LEAST_PASSES: Final = 3
# A longer batch is not tried: it would delay pictures and gain nothing.
_LONGEST_BATCH_SECONDS: Final = 0.5

# CPU that reading takes for each picture, at the least: 11.6 ms for files of 500 x 375 with all
# describers but OCR, 57 ms for a JPEG of 12 megapixels (benchmarks/pipeline_speed.py).
_READ_CPU_SECONDS: Final = 0.012

# Without one of these a CPU is slower in bfloat16 than in float32.
_FAST_BFLOAT16: Final = {"amx_bf16", "avx512_bf16"}


@dataclass(frozen=True, slots=True)
class Timing:
    """The speed of one plan; `cosine` is the lowest to float32 in torch.

    `cpu_seconds` are for one picture, summed over all threads.
    """

    plan: RuntimePlan
    pictures_per_second: float
    cosine: float = 1.0
    cpu_seconds: float = 0.0

    def while_reading(self, cores: int) -> float:
        """Pictures a second if these cores read the pictures as well.

        A second thread of `starter` makes it 1.2 times as fast and costs 1.3 times the CPU,
        which the reading workers then lack.
        """
        return min(self.pictures_per_second, cores / (self.cpu_seconds + _READ_CPU_SECONDS))


def benchmark_network(
    network: Network, preparation: Preparation, options: RuntimeOptions, export: Export | None
) -> RuntimeChoice:
    """Time the ways to run a network of pictures, and choose one.

    The ways are those that `options` leave open.  Raises ModelUnavailable if there is neither an
    export nor torch, EncodersFailed if the network runs in none of the ways.
    """
    cores = available_cores()
    has_fast_bfloat16 = bool(_FAST_BFLOAT16 & cpu_model_and_flags()[1])
    plans = candidates(
        options, cores, devices(), has_fast_bfloat16=has_fast_bfloat16, has_export=bool(export)
    )
    if not plans:
        raise torch_missing(network.part)
    loaded: list[torch.nn.Module] = []

    def runner(plan: RuntimePlan) -> Runner:
        if plan.backend == "onnx" and export is not None:
            return export.runner(plan.threads)
        if not loaded:
            loaded.append(network.load())
        return torch_runner(loaded[0], plan)

    def pictures(count: int) -> Inputs:
        # At most 8, repeated: the speed does not depend on their content.
        samples = sample_pictures(min(count, 8), preparation.height, preparation.width)
        return {PICTURES: np.resize(samples, (count, *samples.shape[1:]))}

    chosen, timings = measure(options, plans, pictures, runner, cores=cores)
    cosine = chosen.cosine
    if chosen.plan.backend == "onnx" and export is not None:
        cosine = export.cosine
    return RuntimeChoice(
        chosen.plan,
        describe(chosen, timings),
        round(cosine, 6),
        round(chosen.pictures_per_second, 1),
    )


def candidates(
    options: RuntimeOptions,
    cores: int,
    devices: Sequence[str],
    *,
    has_fast_bfloat16: bool = False,
    has_export: bool,
) -> list[RuntimePlan]:
    """Plans to time, the preferred first: ONNX Runtime, fewer threads, full precision.

    `devices` are those of torch, none without it.
    """
    # Two threads of one core may share its arithmetic units, and reading needs cores too.
    all_threads = [options.threads] if options.threads else sorted({max(1, cores // 2), cores})
    size = options.batch_size or _FIRST_BATCH
    plans = []
    if options.allows_onnx and has_export:
        plans = [
            RuntimePlan("onnx", "cpu", options.onnx_dtype, threads, size) for threads in all_threads
        ]
    if devices and (options.allows_torch or not plans):
        for device in devices if options.device == "auto" else [options.device]:
            for dtype in _torch_dtypes(options, device, has_fast_bfloat16=has_fast_bfloat16):
                counts = all_threads if device == "cpu" else [1]
                plans += [RuntimePlan("torch", device, dtype, threads, size) for threads in counts]
    return plans


def _torch_dtypes(
    options: RuntimeOptions, device: str, *, has_fast_bfloat16: bool
) -> Sequence[Dtype]:
    if options.dtype == "int8":
        # Set, but there is no export.
        return ["float32"]
    if options.dtype != "auto":
        return [options.dtype]
    if device == "cpu":
        return ["float32", "bfloat16"] if has_fast_bfloat16 else ["float32"]
    return ["float32", "float16"]


def batch_sizes(options: RuntimeOptions, fastest: Timing) -> list[int]:
    """Batches to try with the fastest plan, the smallest first."""
    if options.batch_size:
        return [options.batch_size]
    sizes = _BATCHES["cpu" if fastest.plan.device == "cpu" else "gpu"]
    most = fastest.pictures_per_second * _LONGEST_BATCH_SECONDS
    return [size for size in sizes if size <= most] or [sizes[0]]


def choose(timings: Sequence[Timing], cores: int) -> Timing:
    """Return the first timing that is as fast as the fastest, to 5 %.

    The speed compared is that while these cores read as well.  `timings` are in order of
    preference.  Those whose vectors differ too much count only if all do: then that precision was
    set.
    """
    same = [each for each in timings if each.cosine >= LEAST_COSINE] or timings
    best = max(each.while_reading(cores) for each in same)
    return next(each for each in same if each.while_reading(cores) >= _TIE * best)


def describe(chosen: Timing, timings: Iterable[Timing]) -> str:
    """The chosen plan with its speed, and what was slower, in one line."""
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
        speeds = ", ".join(f"{name} {speed:.3g}" for name, speed in others.items())
        words += f" (also measured: {speeds})"
    return words


def measure(
    options: RuntimeOptions,
    plans: Sequence[RuntimePlan],
    pictures: Callable[[int], Inputs],
    runner: Callable[[RuntimePlan], Runner],
    *,
    cores: int,
) -> tuple[Timing, list[Timing]]:
    """Time the plans, then batches of the fastest plan.

    Returns the chosen timing and all of them.  `pictures` makes inputs of so many; `runner` loads a
    plan.  A plan that fails is left out, with a line in the log.  Raises EncodersFailed if all
    fail.
    """
    examples = pictures(_FIRST_BATCH)
    timings: list[Timing] = []
    failure: Exception | None = None
    reference: Vectors | None = None
    for plan in plans:
        try:
            ready = runner(plan)
            rows = ready(examples)
            if reference is None and plan.dtype == "float32":
                reference = rows
            elif reference is None and plan.backend == "torch":
                # Half precision was set; its cosine is reported nevertheless.
                reference = runner(replace(plan, dtype="float32"))(examples)
            timing = _timed(plan, ready, pictures)
        except ImgSearchError:
            raise
        except Exception as error:  # noqa: BLE001 - out of a GPU's memory, no such operation on it
            logger.warning("The model does not run in %s (%s).", plan, first_line(error))
            failure = error
            continue
        cosine = 1.0 if reference is None else least_cosine(reference, rows)
        timings.append(replace(timing, cosine=cosine))
    if not timings and failure is not None:
        raise EncodersFailed(
            f"The model runs in none of the ways that were tried ({first_line(failure)}): are it"
            " and its libraries whole, and is there memory enough?"
        ) from failure
    fastest = choose(timings, cores)
    ready = runner(fastest.plan)
    batches = [
        replace(
            _timed(replace(fastest.plan, batch_size=size), ready, pictures), cosine=fastest.cosine
        )
        for size in batch_sizes(options, fastest)
    ]
    return choose(batches, cores), [*timings, *batches]


def _timed(plan: RuntimePlan, run: Runner, pictures: Callable[[int], Inputs]) -> Timing:
    """Time the best of some passes: other load on the machine only adds time."""
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
