"""Run the threads of several processes in one thread, in an order that a seed determines.

Each thread of the product is a greenlet.  At a switch point (a lock, a queue, a call of the file
system, a request) the scheduler draws the task that goes on.  Virtual time advances only when no
task can run, so a wait of ten minutes takes no time.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from math import ceil
from typing import Any

from greenlet import GreenletExit, getcurrent, greenlet

# 2026-01-01, in nanoseconds since 1970.
EPOCH_NS = 1_767_225_600_000_000_000
_SECOND_NS = 1_000_000_000

# A world that runs longer than this spins.
_MOST_SWITCHES = 500_000


class WorldStuck(BaseException):
    """No task can run although the world waits for one, or tasks run without end."""


class SimulatedProcess:
    """Tasks that end together.

    `module_state` has the values that the product's changeable module globals have in this process.
    """

    def __init__(self, scheduler: Scheduler, name: str, number: int, host: str) -> None:
        self.scheduler = scheduler
        self.name = name
        self.number = number
        self.host = host
        self.is_alive = True
        # Switch points after which it is killed, if it is to be.
        self.fuse: int | None = None
        self.module_state: dict[tuple[Any, str], Any] = {}
        self.on_end: list[Callable[[], None]] = []

    def kill(self) -> None:
        """End every task where it is, as SIGKILL does; files and servers stay."""
        if not self.is_alive:
            return
        self.is_alive = False
        for action in self.on_end:
            action()
        self.scheduler.drop(self)


class Task:
    """A thread; `wakes` counts its waits, so that an old deadline does not end a new one."""

    def __init__(self, scheduler: Scheduler, process: SimulatedProcess, name: str) -> None:
        self.scheduler = scheduler
        self.process = process
        self.name = name
        self.wakes = 0
        self.is_ready = False
        self.has_ended = False
        self.greenlet: greenlet | None = None
        self.locals: dict[int, dict[str, Any]] = {}


class Places:
    """Tasks that wait for the same thing."""

    __slots__ = ("tasks",)

    def __init__(self) -> None:
        self.tasks: list[Task] = []


class Scheduler:
    """Draw which task runs next; keep the virtual clock.

    `restlessness` is the probability that another task runs after a switch point.
    """

    def __init__(self, seed: int, restlessness: float = 0.3) -> None:
        self.random = random.Random(seed)
        self._draw = self.random.random
        self.restlessness = restlessness
        self.now_ns = 0
        self.switches = 0
        self.current: Task | None = None
        self.is_over = False
        self.on_process: Callable[[SimulatedProcess], None] = lambda _process: None
        self._hub = getcurrent()
        self._ready: list[Task] = []
        self._deadlines: list[tuple[int, int, int, Task]] = []
        self._order = 0
        self._tasks: list[Task] = []
        self._process: SimulatedProcess | None = None

    # -- the clock ------------------------------------------------------------------------------

    @property
    def seconds(self) -> float:
        """Virtual seconds since the world began."""
        return self.now_ns / _SECOND_NS

    def tick(self, nanoseconds: int = 1_000) -> int:
        """Let the clock advance a little, so that two calls have two times; return it."""
        self.now_ns += nanoseconds
        return EPOCH_NS + self.now_ns

    # -- tasks ----------------------------------------------------------------------------------

    def start(self, process: SimulatedProcess, name: str, work: Callable[[], None]) -> Task:
        """Start a task; nothing runs before the next switch point."""
        task = Task(self, process, name)

        def run() -> None:
            try:
                if process.is_alive and not self.is_over:
                    work()
            except GreenletExit:
                pass
            finally:
                task.has_ended = True

        task.greenlet = greenlet(run, self._hub)
        self._tasks.append(task)
        self.wake(task)
        return task

    def wake(self, task: Task) -> None:
        """Let a task run, unless it has ended."""
        if not task.is_ready and task.process.is_alive and not task.has_ended:
            task.is_ready = True
            self._ready.append(task)

    def wake_all(self, places: Places) -> None:
        """Let every task that waits there check what it waits for."""
        if places.tasks:
            waiting, places.tasks = places.tasks, []
            for task in waiting:
                self.wake(task)

    def switch(self) -> None:
        """Perhaps let another task run first."""
        task = self._running()
        process = task.process
        if process.fuse is not None:
            process.fuse -= 1
            if process.fuse <= 0:
                process.kill()
        if self._draw() >= self.restlessness:
            return
        self.wake(task)
        self._hub.switch()
        self._check(task)

    def wait(
        self, places: Places, is_met: Callable[[], bool], seconds: float | None = None
    ) -> bool:
        """Wait until `is_met`, for at most some seconds; return whether it is."""
        self.switch()
        if is_met():
            return True
        task = self._running()
        # Rounded up: a wait of less than a nanosecond must not take no time.
        deadline = None if seconds is None else self.now_ns + max(0, ceil(seconds * _SECOND_NS))
        while not is_met():
            if deadline is not None and self.now_ns >= deadline:
                return False
            places.tasks.append(task)
            self._suspend(task, deadline)
            if task in places.tasks:
                places.tasks.remove(task)
        return True

    def sleep(self, seconds: float) -> None:
        """Let virtual time pass."""
        self.wait(Places(), lambda: False, seconds)

    def _suspend(self, task: Task, deadline: int | None) -> None:
        task.wakes += 1
        if deadline is not None:
            self._order += 1
            heapq.heappush(self._deadlines, (deadline, self._order, task.wakes, task))
        self._hub.switch()
        task.wakes += 1
        self._check(task)

    def _running(self) -> Task:
        task = self.current
        if task is None:
            raise WorldStuck("the product was called outside of a task")
        if self.is_over or not task.process.is_alive:
            raise GreenletExit
        return task

    def _check(self, task: Task) -> None:
        if self.is_over or not task.process.is_alive:
            raise GreenletExit

    # -- the hub --------------------------------------------------------------------------------

    def run(self, is_done: Callable[[], bool]) -> None:
        """Run tasks until `is_done`.  Raises WorldStuck if no task can run before."""
        while not is_done():
            if not self._ready and not self._advance():
                raise WorldStuck(f"no task can run at {self.seconds:.3f} s")
            position = int(self.random.random() * len(self._ready))
            task = self._ready[position]
            self._ready[position] = self._ready[-1]
            self._ready.pop()
            task.is_ready = False
            if not task.process.is_alive:
                continue
            self.switches += 1
            if self.switches > _MOST_SWITCHES:
                raise WorldStuck(f"{task.process.name} spins: {_place(task)}")
            self._resume(task)

    def _resume(self, task: Task) -> None:
        if task.process is not self._process:
            self._process = task.process
            self.on_process(task.process)
        self.current = task
        try:
            assert task.greenlet is not None
            task.greenlet.switch()
        finally:
            self.current = None

    def _advance(self) -> bool:
        """Let time pass until the next deadline; False without one."""
        while self._deadlines:
            deadline, _, wakes, task = heapq.heappop(self._deadlines)
            if task.wakes == wakes and task.process.is_alive and not task.has_ended:
                self.now_ns = max(self.now_ns, deadline)
                self.wake(task)
                return True
        return False

    def drop(self, process: SimulatedProcess) -> None:
        """Forget the tasks of a process that was killed; ends the current one if it is of it."""
        self._ready = [task for task in self._ready if task.process is not process]
        if self.current is not None and self.current.process is process:
            raise GreenletExit

    def close(self) -> None:
        """End the greenlets of every task: their memory is freed."""
        self.is_over = True
        for task in self._tasks:
            if task.greenlet is not None and not task.greenlet.dead and task.greenlet:
                self.current = task
                task.greenlet.throw(GreenletExit)
        self.current = None
        self._tasks.clear()


def _place(task: Task) -> str:
    """Return the functions that a task is in, the innermost last."""
    names: list[str] = []
    frame = task.greenlet.gr_frame if task.greenlet is not None else None
    while frame is not None:
        names.append(f"{frame.f_code.co_qualname}:{frame.f_lineno}")
        frame = frame.f_back
    return " > ".join(reversed(names))
