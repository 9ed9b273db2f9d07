"""What makes files unknown, processes end and servers fail; and how often anything happens."""

from __future__ import annotations

import errno
from collections.abc import Callable

from es_imgsearch.write.deletion_history import SHARE_COUNTS_FROM
from tests.simulation.rare_operations import RareOperations
from tests.simulation.transport import CALM, STORM, Weather

_ERRORS = (errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.ETIMEDOUT, errno.EACCES)


class TroubleOperations(RareOperations):
    """What makes files unknown, processes end and servers fail; quiet ends all of it."""

    def forbid(self) -> str | None:
        paths = [each for each in (self.existing(), *self.plain_folders()[:2]) if each]
        if not paths:
            return None
        path = self.random.choice(paths)
        self.files.permit(path, False)
        self.world.undo.append(lambda: self.files.permit(path, True))
        return f"chmod 000 {path}"

    def drop_mount(self) -> str | None:
        mounted = [each for each in self.world.mounts if self.world.is_mounted(each)]
        if not mounted:
            return None
        path = self.random.choice(mounted)
        top = self.files.drop(path)
        self.world.undo.append(lambda: self.files.mount(path, top))
        return f"unmount {path}"

    def wrong_disk(self) -> str | None:
        """Mount another disk of many pictures on a big folder; `sync` runs by cron."""
        name = next(iter(self.world.big), None)
        if name is None:
            return None
        root = self.world.roots[name]
        if not self.world.is_mounted(root) or any(
            each.startswith(root) for each in self.world.mounts
        ):
            return None
        stored = [each for each in self.world.peek.pictures().values() if each["root"] == name]
        if len(stored) < SHARE_COUNTS_FROM:
            # Of fewer documents no share counts: what is gone is deleted, as the manual says.
            return None
        top = self.files.drop(root)
        self.files.mount(root, self.files.new_device())
        for number in range(120):
            self.files.put(f"{root}/other-{number}.png", self.content("O"))
        self.world.undo.append(lambda: self.files.mount(root, top))
        self.world.sync(name)
        return f"mount another disk on {root}"

    def fail_device(self) -> str | None:
        mounted = [each for each in self.world.mounts if self.world.is_mounted(each)]
        if not mounted:
            return None
        path = self.random.choice(mounted)
        number = self.random.choice(_ERRORS)
        self.files.fail(path, number)
        self.world.undo.append(lambda: self.files.fail(path, 0))
        return f"{errno.errorcode[number]} for all of {path}"

    def end_trouble(self) -> str | None:
        """End what is unknown, latest first, or the trouble of the network."""
        if self.world.network.is_troubled and self.random.random() < 0.5:
            self.world.network.set(CALM)
            return "the server works again"
        if not self.world.undo:
            return None
        self.world.end_unknown()
        return "all files can be seen again"

    def outage(self) -> str:
        self.world.network.set(CALM, is_down=True)
        self._later(lambda: self.world.network.set(CALM), 40.0)
        return "the server is down"

    def storm(self) -> str:
        self.world.network.set(STORM)
        self._later(lambda: self.world.network.set(CALM), 20.0)
        return "requests and answers are lost"

    def half_bulks(self) -> str:
        self.world.supervise()
        self.world.network.set(Weather(half_bulk=0.8, lost_answer=0.05, crash=0.8))
        self._later(lambda: self.world.network.set(CALM), 200.0)
        return "bulks are applied in part"

    def kill(self) -> str | None:
        running = self.world.commands.running()
        if not running:
            return None
        command = self.random.choice(running)
        command.process.fuse = self.random.choice((1, 10, 40, 150, 400))
        return f"kill -9 {command.process.name} after {command.process.fuse} steps"

    def stop(self) -> str | None:
        daemons = [each for each in self.world.commands.running() if each.daemon is not None]
        if not daemons:
            return None
        command = self.random.choice(daemons)
        self.world.spawn("signal", command.daemon.stop)
        return f"SIGTERM {command.process.name}"

    def start(self) -> str:
        name = self.random.choice(list(self.world.roots))
        return self.world.watch(name).words

    def sync(self) -> str:
        name = self.random.choice(list(self.world.roots))
        return self.world.sync(name).words

    def make_anew(self) -> str | None:
        """Delete the index and make it again under the same name for another encoder."""
        if self.world.was_remade:
            return None
        self.world.was_remade = True
        for record in self.world.ledger.records():
            record.labels = frozenset()
        keeps_state = self.random.random() < 0.5
        return self.world.commands.make_anew("two", keeps_state=keeps_state).words

    def reindex(self) -> str | None:
        if self.world.was_remade:
            return None
        self.world.was_remade = True
        return self.world.commands.reindex("two").words

    def _later(self, action: Callable[[], None], seconds: float) -> None:
        pause = self.random.random() * seconds

        def work() -> None:
            self.world.scheduler.sleep(pause)
            action()

        self.world.spawn("later", work)


# Weights of the operations; a world takes some of each group.
COMMON = {
    "create": 6, "arrive": 3, "overwrite": 4, "delete": 4, "rename": 4, "break_file": 2,
    "repair": 1, "text_file": 1, "make_folder": 3, "rename_folder": 1, "delete_folder": 1,
    "touch": 1, "slow_write": 1, "start": 2,
}  # fmt: skip
RARE = {
    "forbid": 3, "drop_mount": 3, "fail_device": 2, "outage": 2, "storm": 2, "half_bulks": 2,
    "kill": 4, "stop": 2, "sync": 3, "change_owner": 1, "replace_alike": 2,
    "rename_case": 2, "map_write": 2, "camera": 1, "label": 4, "wander": 3, "vanish": 3,
    "wrong_disk": 3,
    "make_anew": 1, "reindex": 1,
}  # fmt: skip
