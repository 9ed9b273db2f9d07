"""The parts of `threading` and `queue` that the product uses, on the scheduler."""

from __future__ import annotations

import queue
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

from greenlet import GreenletExit

from tests.simulation.machine.scheduler import Places, Scheduler, SimulatedProcess, Task


class SimulatedLock:
    """A lock; reentrant for its own task if `reentrant`."""

    def __init__(self, scheduler: Scheduler, *, reentrant: bool = False) -> None:
        self._scheduler = scheduler
        self._reentrant = reentrant
        self._owner: Task | None = None
        self._depth = 0
        self._places = Places()

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        scheduler = self._scheduler
        task = scheduler.current
        if self._reentrant and self._owner is task:
            self._depth += 1
            return True
        scheduler.switch()
        if self._owner is not None:
            seconds = 0.0 if not blocking else None if timeout < 0 else timeout
            if not scheduler.wait(self._places, lambda: self._owner is None, seconds):
                return False
        self._owner = scheduler.current
        self._depth = 1
        return True

    def release(self) -> None:
        self._depth -= 1
        if not self._depth:
            self._owner = None
            self._scheduler.wake_all(self._places)

    def locked(self) -> bool:
        return self._owner is not None

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()


class SimulatedCondition:
    """A condition; `notify` wakes every task that waits, as spurious wake-ups may."""

    def __init__(self, scheduler: Scheduler, lock: SimulatedLock | None = None) -> None:
        self._scheduler = scheduler
        self._lock = lock or SimulatedLock(scheduler, reentrant=True)
        self._places = Places()
        self._notified = 0
        self.acquire, self.release = self._lock.acquire, self._lock.release

    def wait(self, timeout: float | None = None) -> bool:
        before = self._notified
        self._lock.release()
        try:
            return self._scheduler.wait(self._places, lambda: self._notified > before, timeout)
        finally:
            self._lock.acquire()

    def wait_for(self, predicate: Callable[[], bool], timeout: float | None = None) -> bool:
        end = None if timeout is None else self._scheduler.seconds + timeout
        while not (met := predicate()):
            left = None if end is None else end - self._scheduler.seconds
            if left is not None and left <= 0:
                return met
            self.wait(left)
        return met

    def notify(self, count: int = 1) -> None:
        _ = count
        self.notify_all()

    def notify_all(self) -> None:
        self._notified += 1
        self._scheduler.wake_all(self._places)

    def __enter__(self) -> bool:
        return self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()


class SimulatedEvent:
    """An event."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._is_set = False
        self._places = Places()

    def is_set(self) -> bool:
        return self._is_set

    def set(self) -> None:
        self._is_set = True
        self._scheduler.wake_all(self._places)

    def clear(self) -> None:
        self._is_set = False

    def wait(self, timeout: float | None = None) -> bool:
        return self._scheduler.wait(self._places, lambda: self._is_set, timeout)


class SimulatedSemaphore:
    """A bounded semaphore."""

    def __init__(self, scheduler: Scheduler, value: int = 1) -> None:
        self._scheduler = scheduler
        self._free = self._limit = value
        self._places = Places()

    def acquire(self, blocking: bool = True, timeout: float | None = None) -> bool:
        seconds = timeout if blocking else 0.0
        if not self._scheduler.wait(self._places, lambda: self._free > 0, seconds):
            return False
        self._free -= 1
        return True

    def release(self, n: int = 1) -> None:
        if self._free + n > self._limit:
            raise ValueError("Semaphore released too many times")
        self._free += n
        self._scheduler.wake_all(self._places)

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()


class SimulatedQueue:
    """A `SimpleQueue`, or a `Queue` with a size."""

    def __init__(self, scheduler: Scheduler, maxsize: int = 0) -> None:
        self._scheduler = scheduler
        self._size = maxsize
        self._items: deque[Any] = deque()
        self._places = Places()

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        if self._size:
            seconds = timeout if block else 0.0
            if not self._scheduler.wait(self._places, self._has_room, seconds):
                raise queue.Full
        self._items.append(item)
        self._scheduler.wake_all(self._places)

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        seconds = timeout if block else 0.0
        if not self._scheduler.wait(self._places, lambda: bool(self._items), seconds):
            raise queue.Empty
        item = self._items.popleft()
        self._scheduler.wake_all(self._places)
        return item

    def put_nowait(self, item: Any) -> None:
        self.put(item, block=False)

    def get_nowait(self) -> Any:
        return self.get(block=False)

    def empty(self) -> bool:
        return not self._items

    def qsize(self) -> int:
        return len(self._items)

    def _has_room(self) -> bool:
        return len(self._items) < self._size


class SimulatedThread:
    """A thread of the process that makes it; what it raises is kept in `crashes`."""

    def __init__(
        self,
        threads: Threads,
        target: Callable[..., object],
        name: str,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> None:
        self._threads = threads
        self._target = target
        self._args, self._kwargs = args, kwargs or {}
        self.name = name
        self.daemon = True
        self.ident: int | None = None
        self._ended = SimulatedEvent(threads.scheduler)

    def start(self) -> None:
        scheduler = self._threads.scheduler
        process = scheduler.current.process if scheduler.current else None
        assert process is not None
        task = scheduler.start(process, self.name, self._run)
        self.ident = id(task)
        self._threads.by_task[id(task)] = self
        scheduler.switch()

    def _run(self) -> None:
        try:
            self._target(*self._args, **self._kwargs)
        except GreenletExit:
            raise
        except BaseException as error:  # noqa: BLE001 - as threading.excepthook does
            task = self._threads.scheduler.current
            assert task is not None
            self._threads.crashes.append((task.process, self.name, error))
        self._ended.set()

    def join(self, timeout: float | None = None) -> None:
        if self.ident is not None:
            self._ended.wait(timeout)

    def is_alive(self) -> bool:
        return self.ident is not None and not self._ended.is_set()


class Threads:
    """Stand-ins for the modules `threading` and `queue`."""

    def __init__(self, scheduler: Scheduler) -> None:
        self.scheduler = scheduler
        self.crashes: list[tuple[SimulatedProcess, str, BaseException]] = []
        self.by_task: dict[int, SimulatedThread] = {}
        self.threading = SimpleNamespace(
            Thread=self._thread,
            Lock=lambda: SimulatedLock(scheduler),
            RLock=lambda: SimulatedLock(scheduler, reentrant=True),
            Condition=lambda lock=None: SimulatedCondition(scheduler, lock),
            Event=lambda: SimulatedEvent(scheduler),
            BoundedSemaphore=lambda value=1: SimulatedSemaphore(scheduler, value),
            Semaphore=lambda value=1: SimulatedSemaphore(scheduler, value),
            current_thread=self._current_thread,
            get_ident=lambda: id(scheduler.current),
            local=SimpleNamespace,
        )
        self.queue = SimpleNamespace(
            SimpleQueue=lambda: SimulatedQueue(scheduler),
            Queue=lambda maxsize=0: SimulatedQueue(scheduler, maxsize),
            Empty=queue.Empty,
            Full=queue.Full,
        )

    def _thread(
        self,
        group: None = None,
        target: Callable[..., object] = lambda: None,
        name: str = "thread",
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        *,
        daemon: bool | None = None,
    ) -> SimulatedThread:
        _ = group, daemon
        return SimulatedThread(self, target, name, args, kwargs)

    def _current_thread(self) -> Any:
        task = self.scheduler.current
        assert task is not None
        return self.by_task.get(id(task)) or SimpleNamespace(name=task.name, ident=id(task))
