"""One interleaving: a seed draws the roots, what happens to them, and who runs when."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress

from es_imgsearch.errors import AlreadyRunning
from tests.simulation.ledger import Ledger
from tests.simulation.machine.file_calls import FileCalls
from tests.simulation.machine.file_system import FileSystem
from tests.simulation.machine.scheduler import Scheduler, SimulatedProcess, WorldStuck
from tests.simulation.machine.threads import Threads
from tests.simulation.patches import simulated
from tests.simulation.processes import Command, Commands
from tests.simulation.servers import Peek, simulated_server
from tests.simulation.transport import CALM, Network, Server
from tests.simulation.troubles import COMMON, RARE, TroubleOperations

# Longer than a lease, a comparison and the collecting of deletions together.
_QUIET_SECONDS = 100.0
_SETTINGS = {
    "reconcile_minutes": 0.5,
    "poll_seconds": 10.0,
    "request_timeout_seconds": 10.0,
    "lease_seconds": 8.0,
}
_MOST_STARTS = 20
# In place of an operation: daemons of two hosts begin at the same time.
TWO_ROOTS = "two roots"
_MOST_PROBLEMS = 12


class PromiseBroken(AssertionError):
    """The index is not what the folder says; the message has the trace."""


class World:
    """Roots, processes, a server, and what is done to them."""

    def __init__(
        self,
        seed: int,
        server: Callable[[Scheduler], Server],
        index: str,
        emphasis: Sequence[str] = (),
    ) -> None:
        """`emphasis` names operations that happen often; by default two rare ones."""
        self.seed = seed
        self.scheduler = scheduler = Scheduler(seed)
        random = scheduler.random
        scheduler.restlessness = random.choice((0.05, 0.2, 0.5))
        self.trace: list[str] = []
        self.threads = Threads(scheduler)
        self.files = FileSystem(scheduler, ignores_case=random.random() < 0.15)
        self.network = Network(scheduler, server(scheduler))
        self.calls = FileCalls(scheduler, self.files)
        self.index = index
        self.peek = Peek(self.network.server, index)
        # Two rare kinds of operations that meet each other often in this world.
        self._emphasis = tuple(emphasis) or tuple(random.sample(list(RARE), 2))
        names = ("a", "b")[: 2 if TWO_ROOTS in self._emphasis else random.choice((1, 1, 2))]
        self.roots = {name: f"/simulated/{name}" for name in names}
        self.hosts = {name: f"host-{name}" for name in names}
        self.mounts: list[str] = []
        self.undo: list[Callable[[], None]] = []
        # Absolute paths that change all the time, also in quiet.
        self.moving: set[str] = set()
        self.was_remade = False
        self._is_supervised = False
        # Of daemons by the supervisor, by root.
        self._starts = dict.fromkeys(names, 0)
        # Roots of more pictures than the least for a share, on file systems of their own.
        self.big: list[str] = []
        self.ledger = Ledger(scheduler, self.files, self.network, self.roots)
        self.commands = Commands(scheduler, index, self.note, **_SETTINGS)
        self.operations = TroubleOperations(self)
        self._users = SimulatedProcess(scheduler, "users", 1, "host")

    # -- for operations -------------------------------------------------------------------------

    def note(self, words: str) -> None:
        self.trace.append(f"{self.scheduler.seconds:9.3f} {words}")

    def spawn(self, name: str, work: Callable[[], None]) -> None:
        """Do something beside everything else; what it needs may be gone meanwhile."""

        def tolerant() -> None:
            with suppress(OSError, KeyError):
                work()

        self.scheduler.start(self._users, name, tolerant)

    def watch(self, root: str) -> Command:
        return self.commands.watch(self.hosts[root], (f"{root}={self.roots[root]}",))

    def sync(self, root: str, *, allow_deletes: bool = False) -> Command:
        words = (f"{root}={self.roots[root]}",)
        return self.commands.sync(self.hosts[root], words, allow_deletes=allow_deletes)

    def watching(self, root: str) -> Command | None:
        """Return the daemon that has watched a root for at least 15 s, if there is one."""
        words = f"watch {root}="
        return next(
            (
                each
                for each in self.commands.running()
                if each.words.startswith(words)
                and each.daemon is not None
                and self.scheduler.seconds - each.began_at > 15
            ),
            None,
        )

    def is_mounted(self, path: str) -> bool:
        inode, is_seen = self.files.truth(path)
        return is_seen and inode is not None and inode in self.files.mounts.values()

    def end_unknown(self) -> None:
        """Make everything known again, latest first."""
        while self.undo:
            with suppress(OSError, KeyError):
                self.undo.pop()()

    # -- the course of a world ------------------------------------------------------------------

    def run(self) -> None:
        """Run the interleaving.  Raises PromiseBroken with the trace."""
        try:
            with simulated(self.scheduler, self.threads, self.calls, self.network):
                try:
                    self._run()
                finally:
                    self.scheduler.close()
        except PromiseBroken:
            raise
        except (Exception, WorldStuck) as error:
            raise PromiseBroken(self._report([f"{type(error).__name__}: {error}"])) from error

    def _run(self) -> None:
        self._make_folders()
        init = self.commands.init("one")
        self.scheduler.run(lambda: init.has_ended)
        assert init.error is None, init.error
        is_done = [False]

        def operate() -> None:
            self._operate()
            is_done[0] = True

        self.spawn("operations", operate)
        self.scheduler.run(lambda: is_done[0])
        if self.undo and self.scheduler.random.random() < 0.5:
            self._become_quiet()
            self._check("after a quiet period with unknown files")
        self.end_unknown()
        self._become_quiet()
        self._check("after a quiet period")
        if any(self.peek_paused()):
            self._allow_deletes()
            self._check("after deletions were allowed", allows_pause=False)

    def _make_folders(self) -> None:
        random = self.scheduler.random
        needs_big = not {"wrong_disk", "vanish"}.isdisjoint(self._emphasis)
        needs_mount = not {"drop_mount", "fail_device"}.isdisjoint(self._emphasis)
        for name, path in self.roots.items():
            self.files.make_folders(path)
            if needs_big or random.random() < 0.05:
                self._mount(path, 0)
                self.mounts.remove(path)
                self.big.append(name)
                for number in range(24):
                    self.files.put(f"{path}/big-{number}.png", self.operations.content("B"))
            for number in range(random.choice((0, 3, 6))):
                self.files.put(f"{path}/{'pqrstu'[number]}.png", self.operations.content())
            if name not in self.big and (needs_mount or random.random() < 0.5):
                self._mount(f"{path}/M", random.choice((1, 3)))
            if random.random() < (0.5 if needs_mount else 0.2):
                self._mount(f"/simulated/outside-{name}", 2)
                for each in "pq":
                    self.files.link(f"{path}/link-{each}.png", f"../outside-{name}/{each}.png")

    def _mount(self, path: str, pictures: int) -> None:
        """Mount a file system with pictures."""
        self.files.make_folders(path)
        self.files.mount(path, self.files.new_device())
        self.mounts.append(path)
        for number in range(pictures):
            self.files.put(f"{path}/{'pqr'[number]}.png", self.operations.content())

    def _operate(self) -> None:
        random = self.scheduler.random
        weights = {
            **COMMON,
            **{name: each for name, each in RARE.items() if random.random() < 0.25},
        }
        weights |= {name: 12 for name in self._emphasis if name != TWO_ROOTS}
        names = list(weights)
        silence = random.choice((0.0, 0.0, 0.3))
        for name in self.roots:
            if TWO_ROOTS in self._emphasis or random.random() < 0.8:
                self.watch(name)
        for _ in range(random.choice((5, 12, 25))):
            if random.random() < 0.6:
                self.scheduler.sleep(random.random() * random.choice((0.2, 3.0, 30.0)))
            (name,) = random.choices(names, [weights[each] for each in names])
            self.files.is_silent = random.random() < silence
            is_silent = " (without events)" if self.files.is_silent else ""
            try:
                words = getattr(self.operations, name)()
            except (OSError, KeyError) as error:
                words = f"{name} failed: {error!r}"
            finally:
                self.files.is_silent = False
            if words:
                self.note(f"{words}{is_silent}")

    def _become_quiet(self) -> None:
        self.note("quiet")
        self.network.set(CALM)
        for command in self.commands.running():
            command.process.fuse = None
        if self.peek.send("GET", f"/{self.index}")["status"] != 200:
            # What made the index anew was killed.
            init = self.commands.init("two")
            self.scheduler.run(lambda: init.has_ended)
        # While there was no index, none could run.
        self._starts = dict.fromkeys(self.roots, 0)
        self.supervise()
        reindexes = [each for each in self.commands.all if each.words.startswith("reindex")]
        if any(each.was_killed or each.error is not None for each in reindexes):
            self._continue_reindex()
        self._let_pass(_QUIET_SECONDS)

    def _continue_reindex(self) -> None:
        """Run an interrupted reindex again, as the manual says: it may block all writes."""
        for _ in range(_MOST_STARTS):
            reindex = self.commands.reindex("two")
            self.scheduler.run(lambda each=reindex: not each.is_running)  # type: ignore[misc]
            if not isinstance(reindex.error, AlreadyRunning):
                return
            self._let_pass(5.0)

    def _let_pass(self, seconds: float) -> None:
        end = self.scheduler.seconds + seconds
        self.scheduler.run(lambda: self.scheduler.seconds > end)

    def supervise(self) -> None:
        """Have a supervisor start daemons that have ended, from now on."""
        if not self._is_supervised:
            self._is_supervised = True
            self.spawn("supervisor", self._supervise)

    def _supervise(self) -> None:
        """Keep one daemon a root running."""
        while True:
            for name in self.roots:
                words = f"watch {name}={self.roots[name]} on {self.hosts[name]}"
                running = [each for each in self.commands.running() if each.words == words]
                if not running and self._starts[name] < _MOST_STARTS:
                    self._starts[name] += 1
                    self.watch(name)
            self.scheduler.sleep(5.0)

    def _allow_deletes(self) -> None:
        for record in self.ledger.records():
            record.is_protected = False
        for name in self.roots:
            self.sync(name, allow_deletes=True)
        self._let_pass(_QUIET_SECONDS)

    def peek_paused(self) -> list[str]:
        """Return the roots whose deletions are paused."""
        return self.ledger.paused(self.peek)

    def _check(self, when: str, *, allows_pause: bool = True) -> None:
        moving = frozenset(self.moving)
        problems = self.ledger.check(self.peek, moving=moving, allows_pause=allows_pause)
        for command in self.commands.running():
            if command.words.startswith("sync"):
                problems.append(f"{command.process.name} does not end")
        for process, thread, error in self.threads.crashes:
            problems.append(f"{process.name} {thread} crashed: {error!r}")
        for command in self.commands.all:
            if command.has_crashed:
                problems.append(f"{command.process.name} crashed: {command.error!r}")
        registered = self.peek.roots()
        for name in self.roots:
            if name not in registered:
                problems.append(f"the root {name} is not registered")
        if problems:
            self.note(when)
            raise PromiseBroken(self._report(problems))

    def _report(self, problems: list[str]) -> str:
        shown = problems[:_MOST_PROBLEMS]
        if len(problems) > len(shown):
            shown.append(f"and {len(problems) - len(shown)} more")
        lines = [f"seed {self.seed}:", *shown, "", "Trace:", *self.trace]
        return "\n".join(lines)


def run_seed(
    seed: int,
    server: Callable[[Scheduler], Server] = lambda _scheduler: simulated_server(),
    index: str = "images",
    emphasis: Sequence[str] = (),
) -> World:
    """Run one interleaving; raises PromiseBroken."""
    world = World(seed, server, index, emphasis)
    world.run()
    return world
