"""Choose how an encoder's networks run here: by a rule, or by measurement.

The choice is for this machine.  `choose_plan` is the rule; it costs nothing.  Programs that embed
many pictures (`watch`, `sync`) call `run_for_pictures`, which exports the networks for ONNX Runtime
once.  Searches call `run_for_queries`, which exports nothing: an export that is there runs without
torch.  The command `encoder` calls `measure_for_pictures`; its stored result takes precedence over
the rule.

Encoders without `HasNetworks`, such as those of other packages, run in their own way.
"""

from __future__ import annotations

import logging
import sys
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from es_imgsearch.embed.runtime.benchmark import benchmark_network
from es_imgsearch.embed.runtime.network import BATCH_SIZE, HasNetworks, torch_missing, torch_runner
from es_imgsearch.embed.runtime.onnx import Exports, default_cache_dir
from es_imgsearch.embed.runtime.plan import (
    Backend,
    Dtype,
    RuntimeChoice,
    RuntimeOptions,
    RuntimePlan,
)
from es_imgsearch.embed.runtime.stored_choices import StoredChoices
from es_imgsearch.embed.weights import (
    LEAST_COSINE,
    cpu_model_and_flags,
    devices,
    has_torch,
    pick_device,
)
from es_imgsearch.settings import available_cores

if TYPE_CHECKING:
    from collections.abc import Mapping

    from es_imgsearch.embed.protocol import Encoder
    from es_imgsearch.embed.runtime.network import Network
    from es_imgsearch.embed.runtime.onnx import Export
    from es_imgsearch.embed.runtime.plan import Part
    from es_imgsearch.settings import Settings


logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ArchitectureMeasurement:
    """Measurements of one architecture (benchmarks/encoder_speed.py).

    `bfloat16` and `float16` are the lowest cosines to float32 in torch, over the photographs of
    scikit-image and the synthetic samples.  `is_light` is True if a picture takes less CPU than
    reading it (12 ms): then half of the cores are left for reading.
    """

    bfloat16: float
    float16: float
    is_light: bool = False


MEASURED: Final[Mapping[str, ArchitectureMeasurement]] = {
    # The weights of `starter`; 6 ms of CPU a picture.
    "efficientnet-lite0": ArchitectureMeasurement(0.99127, 0.99995, is_light=True),
    # Random weights; 40 ms of CPU a picture.
    "clip-vit-b-32": ArchitectureMeasurement(0.99995, 0.99999),
}

# Pictures of one forward pass.  On a CPU, batches of 4 and 8 are within 7 % of the fastest for
# `starter` and ViT-B/32, and a small batch delays a single picture least.  A GPU needs more.
_CPU_BATCH: Final = 8
_GPU_BATCH: Final = 64

# Files that a GPU's driver makes on Linux; without them torch need not be imported to look.
_GPU_FILES: Final = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")


@dataclass(frozen=True, slots=True)
class Hardware:
    """The input of the rule; `gpu` is torch's name of the GPU, None without one."""

    cores: int
    gpu: str | None = None
    has_amx_bfloat16: bool = False
    has_torch: bool = True

    @classmethod
    def detect(cls) -> Hardware:
        """This machine; imports torch only if there may be a GPU."""
        may_have_gpu = sys.platform != "linux" or any(Path(file).exists() for file in _GPU_FILES)
        found = devices() if may_have_gpu else []
        gpu = found[0] if found and found[0] != "cpu" else None
        _, flags = cpu_model_and_flags()
        return cls(available_cores(), gpu, "amx_bf16" in flags, has_torch())


def choose_plan(
    options: RuntimeOptions, hardware: Hardware, architecture: str, *, has_export: bool
) -> RuntimePlan | None:
    """Apply the rule; None if neither torch nor an export can run the network.

    - With a GPU, torch runs it there, in float16 if `MEASURED` lists a cosine of .999 or more.
    - On a CPU with AMX bfloat16, torch runs it in bfloat16 if `MEASURED` lists such a cosine.
    - Everything else runs in ONNX Runtime, or in torch in float32 if it has no export.

    `options` override each part.
    """
    measured = MEASURED.get(architecture)
    device = options.device
    if device == "auto":
        device = hardware.gpu if hardware.gpu and options.allows_torch else "cpu"
    half: Dtype = "bfloat16" if device == "cpu" else "float16"
    takes_half = (
        options.dtype == "auto"
        and (device != "cpu" or hardware.has_amx_bfloat16)
        and getattr(measured, half, 0.0) >= LEAST_COSINE
    )
    prefers_torch = options.allows_torch and (device != "cpu" or takes_half)
    backend: Backend = "torch"
    dtype: Dtype = "float32"
    if has_export and options.allows_onnx and not (prefers_torch and hardware.has_torch):
        backend, device, dtype = "onnx", "cpu", options.onnx_dtype
    elif not hardware.has_torch:
        return None
    elif takes_half:
        dtype = half
    elif options.dtype != "auto" and options.dtype != "int8":
        dtype = options.dtype
    threads = hardware.cores
    if measured is not None and measured.is_light:
        threads = max(1, threads // 2)
    batch = _CPU_BATCH if device == "cpu" else _GPU_BATCH
    return RuntimePlan(
        backend, device, dtype, options.threads or threads, options.batch_size or batch
    )


def run_for_queries(encoder: Encoder, settings: Settings) -> None:
    """Have the networks run where the first query waits least.

    That is in ONNX Runtime if they are exported.  Raises SettingsError for settings that contradict
    each other.
    """
    options = RuntimeOptions.of(settings)
    if not isinstance(encoder, HasNetworks) or not options.allows_onnx:
        return
    exports = Exports(settings.cache_dir or default_cache_dir())
    plan = _query_plan(options)
    for network in encoder.networks:
        if (export := exports.find(network, plan.dtype)) is not None:
            _use(network, plan, export)


def run_for_pictures(encoder: Encoder, settings: Settings) -> RuntimeChoice | None:
    """Have the networks run as was measured here, or else by the rule.

    None if there is no choice.  The first time it exports the networks, which takes 1 s (`starter`)
    to a minute.  What runs is recorded for `status`.  Raises SettingsError for settings that
    contradict each other or name a device that is not here, ModelUnavailable if there is neither an
    export nor torch.
    """
    return _run(encoder, settings)


def measure_for_pictures(
    encoder: Encoder, settings: Settings, *, again: bool = False
) -> RuntimeChoice | None:
    """Have the networks run in the fastest way, and store the choice.

    None if there is no choice.  A stored result is used, unless `again`.  Raises what
    `run_for_pictures` does, and EncodersFailed if the network runs in none of the ways.
    """
    return _run(encoder, settings, measures=True, again=again)


def plan_of(encoder: Encoder) -> dict[str, Any] | None:
    """Return the plan by which an encoder embeds pictures, as JSON.

    None if it has no plan.
    """
    # The encoder whose vectors a ReducedEncoder shortens.
    whole = getattr(encoder, "whole", encoder)
    if isinstance(whole, HasNetworks):
        for network in whole.networks:
            if network.part == "pictures" and network.plan is not None:
                return asdict(network.plan)
    return None


def _run(
    encoder: Encoder, settings: Settings, *, measures: bool = False, again: bool = False
) -> RuntimeChoice | None:
    """Export the networks, choose how the one of the pictures runs, and have all run."""
    stored = StoredChoices(settings)
    options = stored.options
    if not isinstance(encoder, HasNetworks):
        return None
    if options.device not in {"auto", "cpu"} and has_torch():
        # Now, and not with the first picture.
        pick_device(options.device)
    exports: dict[Part, Export | None] = {}
    if options.allows_onnx:
        from es_imgsearch.embed.runtime.onnx import find_or_export

        for network in encoder.networks:
            exports[network.part] = find_or_export(
                Exports(stored.cache), network, options.onnx_dtype, encoder.name
            )
    choice: RuntimeChoice | None = None
    for network in encoder.networks:
        export = exports.get(network.part)
        if network.part == "pictures":
            choice = _choice(encoder, network, export, stored, measures=measures, again=again)
            logger.info("%s runs in %s.", encoder.name, choice.why)
            _use(network, choice.plan, export)
        elif export is not None:
            _use(network, _query_plan(options), export)
    if choice is None:
        logger.info("%s embeds pictures in torch.", encoder.name)
    return choice


def _choice(
    encoder: Encoder,
    network: Network,
    export: Export | None,
    stored: StoredChoices,
    *,
    measures: bool,
    again: bool,
) -> RuntimeChoice:
    """Return a benchmark's stored result, else measure or apply the rule.

    A stored result counts if it can run.
    """
    found = stored.find(encoder.revision, encoder.fingerprint)
    if (
        found is not None
        and found.pictures_per_second is not None
        and not again
        and (found.plan.backend == "torch" or export is not None)
    ):
        return found
    if measures:
        choice = benchmark_network(network, encoder.preparation, stored.options, export)
    else:
        choice = _choice_by_rule(network, export, stored.options)
    if not stored.record(encoder.revision, encoder.fingerprint, choice) and measures:
        logger.warning(
            "The measurement is not stored, since %s cannot be written: set cache_dir.",
            stored.cache,
        )
    return choice


def _choice_by_rule(
    network: Network, export: Export | None, options: RuntimeOptions
) -> RuntimeChoice:
    plan = choose_plan(
        options, Hardware.detect(), network.architecture, has_export=export is not None
    )
    if plan is None:
        raise torch_missing(network.part)
    cosine: float | None = 1.0
    if plan.backend == "onnx" and export is not None:
        cosine = export.cosine
    elif plan.dtype != "float32":
        cosine = getattr(MEASURED.get(network.architecture), plan.dtype, None)
    return RuntimeChoice(plan, f"{plan}, by rule", cosine)


def _query_plan(options: RuntimeOptions) -> RuntimePlan:
    threads = options.threads or available_cores()
    size = options.batch_size or BATCH_SIZE
    return RuntimePlan("onnx", "cpu", options.onnx_dtype, threads, size)


def _use(network: Network, plan: RuntimePlan, export: Export | None) -> None:
    if plan.backend == "onnx" and export is not None:
        network.unload()
        network.use(plan, partial(export.runner, plan.threads), export.folder)
    else:
        network.use(plan, lambda: torch_runner(network.load(), plan))
