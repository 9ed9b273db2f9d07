"""Decides how an encoder's networks run on this machine, and keeps what was decided.

Whoever embeds many pictures (`watch`, `sync`) calls `run_for_pictures`: the networks are exported
for ONNX Runtime, the ways of running them are timed, and the fastest is taken; all of it once,
since exports and timings are kept in `cache_dir`.  A search calls `run_for_queries`, which exports
and times nothing: where there is an export, it runs without torch, else in torch.

Encoders that are no `Movable`, such as those of other packages, run as they like.
"""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from es_imgsearch.embed.runtime import benchmark as measurement
from es_imgsearch.embed.runtime.benchmark import Choice, Choices
from es_imgsearch.embed.runtime.network import (
    BATCH_SIZE,
    Movable,
    Network,
    sample_pictures,
    torch_missing,
)
from es_imgsearch.embed.runtime.onnx import Export, Exports, default_cache_dir
from es_imgsearch.embed.runtime.plan import PICTURES, Part, Plan, Runner, Wanted
from es_imgsearch.embed.weights import devices
from es_imgsearch.settings import available_cores

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import torch

    from es_imgsearch.embed.protocol import Encoder
    from es_imgsearch.embed.runtime.plan import Inputs
    from es_imgsearch.read.preparation import Preparation
    from es_imgsearch.settings import Settings


logger = logging.getLogger(__name__)


def run_for_queries(encoder: Encoder, settings: Settings) -> None:
    """Have the networks run where the first query waits least: in ONNX Runtime if exported.

    Raises SettingsError for settings that contradict each other.
    """
    wanted = Wanted.of(settings)
    if not isinstance(encoder, Movable) or not wanted.allows_onnx:
        return
    exports = Exports(settings.cache_dir or default_cache_dir())
    plan = _query_plan(wanted)
    for network in encoder.networks:
        if (export := exports.find(network, plan.dtype)) is not None:
            _use(network, plan, export)


def run_for_pictures(encoder: Encoder, settings: Settings, *, again: bool = False) -> Choice | None:
    """Have the networks run in the fastest way, which is measured unless it was; None if fixed.

    The first time it exports the networks and takes seconds to a minute.  `again` measures once
    more.  Raises SettingsError for settings that contradict each other or name a device that is
    not here, ModelUnavailable where there is neither an export nor torch.
    """
    choices = Choices(settings)
    wanted = choices.wanted
    if not isinstance(encoder, Movable):
        return None
    if "pictures" not in {network.part for network in encoder.networks}:
        logger.info("%s embeds pictures in torch.", encoder.name)
    exports = _exported(encoder.name, encoder.networks, wanted, choices.cache)
    choice: Choice | None = None
    for network in encoder.networks:
        export = exports.get(network.part)
        if network.part == "pictures":
            choice = None if again else choices.find(encoder.revision, encoder.fingerprint)
            if choice is None or (choice.plan.backend == "onnx" and export is None):
                choice = _measured(network, encoder.preparation, wanted, export)
                choices.keep(encoder.revision, encoder.fingerprint, choice)
            logger.info("%s runs in %s.", encoder.name, choice.why)
            _use(network, choice.plan, export)
        elif export is not None:
            _use(network, _query_plan(wanted), export)
    return choice


def _query_plan(wanted: Wanted) -> Plan:
    threads = wanted.threads or available_cores()
    return Plan("onnx", "cpu", wanted.onnx_dtype, threads, wanted.batch_size or BATCH_SIZE)


def _exported(
    name: str, networks: Sequence[Network], wanted: Wanted, cache: Path
) -> dict[Part, Export]:
    if not wanted.allows_onnx:
        return {}
    from es_imgsearch.embed.runtime.onnx import exported

    made = {
        network.part: exported(Exports(cache), network, wanted.onnx_dtype, name)
        for network in networks
    }
    return {part: export for part, export in made.items() if export is not None}


def _use(network: Network, plan: Plan, export: Export | None) -> None:
    if plan.backend == "onnx" and export is not None:
        network.unload()
        network.use(plan, partial(export.runner, plan.threads), export.folder)
    else:
        network.use(plan, lambda: _torch_runner(network.load(), plan))


def _torch_runner(module: torch.nn.Module, plan: Plan) -> Runner:
    from es_imgsearch.embed.runtime.torch import TorchRunner

    return TorchRunner(module, plan.device, plan.dtype, plan.threads)


def _measured(
    network: Network, preparation: Preparation, wanted: Wanted, export: Export | None
) -> Choice:
    machine = measurement.this_machine(devices())
    plans = measurement.candidates(wanted, machine, has_export=export is not None)
    if not plans:
        raise torch_missing(network.part)
    loaded: list[torch.nn.Module] = []

    def runner(plan: Plan) -> Runner:
        if plan.backend == "onnx" and export is not None:
            return export.runner(plan.threads)
        if not loaded:
            loaded.append(network.load())
        return _torch_runner(loaded[0], plan)

    def pictures(count: int) -> Inputs:
        # Few are made, and repeated: the speed does not depend on what is in them.
        made = sample_pictures(min(count, 8), preparation.height, preparation.width)
        return {PICTURES: np.resize(made, (count, *made.shape[1:]))}

    chosen, timings = measurement.measure(wanted, plans, pictures, runner, cores=machine.cores)
    cosine = chosen.cosine
    if chosen.plan.backend == "onnx" and export is not None:
        cosine = export.cosine
    return Choice(
        chosen.plan,
        measurement.describe(chosen, timings),
        round(chosen.pictures_per_second, 1),
        round(cosine, 6),
    )
