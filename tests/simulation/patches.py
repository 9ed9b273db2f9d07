"""Put the simulated clock, threads, files and transport under the product's modules.

Only module globals are replaced (`time`, `os`, `threading`, ...), and defaults of parameters that
are functions of them.
"""

from __future__ import annotations

import datetime as real_datetime
import importlib
import os
import pkgutil
import queue
import random
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FunctionType, ModuleType, SimpleNamespace
from typing import Any

import es_imgsearch
from tests.simulation.machine.file_calls import FileCalls, SimulatedReader
from tests.simulation.machine.scheduler import EPOCH_NS, Scheduler, SimulatedProcess
from tests.simulation.machine.threads import Threads
from tests.simulation.pictures import TaskWorkers, decode, load_encoder
from tests.simulation.transport import Network, node_class

# Packages and modules that run in the world.
SIMULATED = (
    "codes.apply",
    "elastic",
    "embed.context",
    "embed.in_process",
    "embed.index_encoder",
    "manage.init",
    "manage.reindex",
    "manage.upgrade",
    "pipeline",
    "read.file",
    "records",
    "watch",
    "write",
)
# What is replaced as a whole, or must stay real: HTTP to the real server; inotify of the kernel.
REAL = ("elastic.server.http_node", "watch.inotify", "pipeline.reporting.metrics")
_LOCK_TYPES = (type(threading.Lock()), type(threading.RLock()))
_MISSING = object()


def simulated_modules() -> list[ModuleType]:
    """Import and return the modules that run in the world."""
    modules = []
    for info in pkgutil.walk_packages(es_imgsearch.__path__, "es_imgsearch."):
        name = info.name.removeprefix("es_imgsearch.")
        if name in REAL:
            continue
        if any(name == each or name.startswith(f"{each}.") for each in SIMULATED):
            modules.append(importlib.import_module(info.name))
    modules.append(importlib.import_module("es_imgsearch.cli.watch"))
    return modules


def is_state(name: str, value: object) -> bool:
    """Return True for a module global that the product changes: each process has its own."""
    if name.startswith("__") or name != name.lower():
        return False
    return isinstance(value, (*_LOCK_TYPES, set, dict, list))


class Patches:
    """Replacements of attributes, undone in reverse order."""

    def __init__(self) -> None:
        self._undo: list[tuple[Any, str, Any]] = []

    def set(self, where: Any, name: str, value: Any) -> None:
        self._undo.append((where, name, getattr(where, name, _MISSING)))
        setattr(where, name, value)

    def undo(self) -> None:
        while self._undo:
            where, name, value = self._undo.pop()
            if value is _MISSING:
                delattr(where, name)
            else:
                setattr(where, name, value)


def _times(scheduler: Scheduler) -> tuple[SimpleNamespace, type]:
    def now_ns() -> int:
        return scheduler.tick()

    class SimulatedDatetime(real_datetime.datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return cls.fromtimestamp(now_ns() / 1e9, tz)

    module = SimpleNamespace(
        monotonic=lambda: scheduler.seconds,
        perf_counter=lambda: scheduler.seconds,
        monotonic_ns=lambda: scheduler.now_ns,
        time=lambda: (EPOCH_NS + scheduler.now_ns) / 1e9,
        time_ns=now_ns,
        sleep=scheduler.sleep,
    )
    return module, SimulatedDatetime


def _functions(module: ModuleType) -> Iterator[FunctionType]:
    for value in vars(module).values():
        if getattr(value, "__module__", None) != module.__name__:
            continue
        if isinstance(value, FunctionType):
            yield value
        elif isinstance(value, type):
            yield from (each for each in vars(value).values() if isinstance(each, FunctionType))


def _replace_defaults(
    patches: Patches, function: FunctionType, replaced: list[tuple[Any, Any]]
) -> None:
    def new(value: Any) -> Any:
        return next((fake for real, fake in replaced if value is real), value)

    if function.__defaults__ and any(new(each) is not each for each in function.__defaults__):
        patches.set(function, "__defaults__", tuple(map(new, function.__defaults__)))
    named = function.__kwdefaults__
    if named and any(new(each) is not each for each in named.values()):
        patches.set(function, "__kwdefaults__", {key: new(each) for key, each in named.items()})


@contextmanager
def simulated(
    scheduler: Scheduler, threads: Threads, calls: FileCalls, network: Network
) -> Iterator[None]:
    """Context in which the product's modules run in the world."""
    patches = Patches()
    times, datetime_class = _times(scheduler)
    uuids = SimpleNamespace(
        uuid4=lambda: uuid.UUID(int=scheduler.random.getrandbits(128), version=4)
    )
    chances = SimpleNamespace(
        uniform=scheduler.random.uniform,
        random=scheduler.random.random,
        Random=random.Random,
    )
    replaced: list[tuple[Any, Any]] = [
        (time, times),
        (os, calls),
        (threading, threads.threading),
        (queue, threads.queue),
        (uuid, uuids),
        (random, chances),
        (real_datetime.datetime, datetime_class),
        (os.stat, calls.stat),
        (time.monotonic, times.monotonic),
        (time.time, times.time),
    ]
    by_id = {id(real): fake for real, fake in replaced}
    state: list[tuple[ModuleType, str, Callable[[], Any]]] = []
    try:
        for module in simulated_modules():
            for name, value in list(vars(module).items()):
                if id(value) in by_id:
                    patches.set(module, name, by_id[id(value)])
                elif is_state(name, value):
                    patches.set(module, name, value)
                    lock = isinstance(value, _LOCK_TYPES)
                    state.append((module, name, threads.threading.RLock if lock else type(value)))
            for function in _functions(module):
                _replace_defaults(patches, function, replaced)
        _replace_parts(patches, threads, calls, network)
        scheduler.on_process = _Switching(state)
        yield
    finally:
        scheduler.on_process = lambda _process: None
        patches.undo()


class _Switching:
    """Give each process its own values of the modules' changeable globals."""

    def __init__(self, state: list[tuple[ModuleType, str, Callable[[], Any]]]) -> None:
        self._state = state

    def __call__(self, process: SimulatedProcess) -> None:
        for module, name, make in self._state:
            key = (module, name)
            if key not in process.module_state:
                process.module_state[key] = make()
            setattr(module, name, process.module_state[key])


def _replace_parts(patches: Patches, threads: Threads, calls: FileCalls, network: Network) -> None:
    """Replace what reads pictures, runs models, watches folders and sends requests."""
    from es_imgsearch.elastic import client
    from es_imgsearch.elastic.leases import claim, holders
    from es_imgsearch.embed import context, index_encoder
    from es_imgsearch.manage import init
    from es_imgsearch.pipeline.engines import local as pipeline
    from es_imgsearch.read import file
    from es_imgsearch.watch import watcher
    from es_imgsearch.write import carried_fields

    # Its name in the package is that of the command.
    watch = importlib.import_module("es_imgsearch.cli.watch")

    def reader(on_event: Callable[[Any], None], _on_death: object = None) -> SimulatedReader:
        task = calls.scheduler.current
        assert task is not None

        def start(run: Callable[[], None]) -> Any:
            thread = threads.threading.Thread(target=run, name="inotify")
            thread.start()
            return thread

        return SimulatedReader(calls, start, on_event, task.process)

    patches.set(watcher, "InotifyReader", reader)
    # /proc shows no simulated process.
    for module in (claim, holders):
        patches.set(module, "process_of", lambda _number: None)
    patches.set(client, "HttpNode", node_class(network))
    patches.set(file, "decode", decode)
    patches.set(pipeline, "ReadWorkers", lambda plan, n: TaskWorkers(threads, plan, n))
    for module in (index_encoder, init):
        patches.set(module, "load_encoder", load_encoder)
    # No describers: a world is about files, not about what their pictures show.
    patches.set(init, "describer_mappings", list)
    patches.set(context, "mapped_describers", lambda *_: [])
    patches.set(pipeline, "vector_describers", lambda _names: [])
    patches.set(carried_fields, "load_describers", lambda _names: [])
    patches.set(carried_fields, "foreign_describers", set)
    patches.set(watch, "click", SimpleNamespace(echo=lambda *_, **__: None))
