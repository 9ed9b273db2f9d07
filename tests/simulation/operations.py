"""What users, machines and networks do to a world, drawn by its seed.

Each operation is a method of `Operations` that returns words for the trace, or None where it has
nothing to work on.  A world enables some of the kinds only, so that rare ones meet each other.
"""

from __future__ import annotations

import errno
import posixpath
from collections.abc import Callable
from typing import TYPE_CHECKING

from tests.simulation.ledger import Kind, PathRecord
from tests.simulation.pictures import is_whole, picture_bytes
from tests.simulation.transport import CALM, STORM, Weather

if TYPE_CHECKING:
    from tests.simulation.world import World

_ERRORS = (errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.ETIMEDOUT, errno.EACCES)


class FileOperations:
    """Changes of files and folders by users."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.files = world.files
        self.random = world.scheduler.random
        self._numbers = 0
        self.labels = 0

    # -- helpers --------------------------------------------------------------------------------

    def content(self, mark: str = "") -> bytes:
        """Return a picture that was not there before, or now and then one that was."""
        known = [each for each in self.world.ledger.contents.values() if is_whole(each)]
        if not mark and known and self.random.random() < 0.15:
            return self.random.choice(known)
        self._numbers += 1
        length = self.random.choice((40, 40, 40, 56))
        return picture_bytes(self._numbers, mark=mark, length=length)

    def existing(self, *kinds: Kind) -> str | None:
        """Return the absolute path of a file of one of these kinds that can be seen."""
        chosen = kinds or (Kind.PICTURE, Kind.BROKEN, Kind.NONE)
        records = [
            each
            for each in self.world.ledger.records()
            if each.kind in chosen and each.is_seen and not each.path.startswith("link")
            if self.absolute(each) not in self.world.moving
        ]
        return self.absolute(self.random.choice(records)) if records else None

    def absolute(self, record: PathRecord) -> str:
        return f"{self.world.roots[record.root]}/{record.path}"

    def visible_folders(self, *, below_root: bool = False) -> list[str]:
        tops = list(self.world.roots.values())
        found = [each for top in tops for each in self._listed(top) if self._is_seen(each)]
        return [each for each in found if each not in tops] if below_root else found

    def _listed(self, top: str) -> list[str]:
        try:
            return list(self.files.folders(top))
        except OSError:
            return []

    def _is_seen(self, folder: str) -> bool:
        inode, is_seen = self.files.truth(folder)
        return is_seen and inode is not None

    def new_path(self, suffix: str = ".png") -> str | None:
        """Return a path in some folder, new or used before."""
        folders = self.visible_folders()
        if not folders:
            return None
        name = self.random.choice(("p", "q", "r", "s", "t", "u", "v", "w")) + suffix
        return f"{self.random.choice(folders)}/{name}"

    def write_steps(self, path: str, content: bytes, *, pause: float = 0.0) -> None:
        """Write in place in another task, in parts."""
        cut = self.random.randrange(1, len(content))
        parts = [content[:cut], content[cut:]]

        def work() -> None:
            try:
                self.files.write(path, parts, lambda: self._pause(pause))
            except (OSError, KeyError):
                return

        self.world.spawn("writer", work)

    def _pause(self, seconds: float) -> None:
        if seconds:
            self.world.scheduler.sleep(self.random.random() * seconds)
        else:
            self.world.scheduler.switch()

    # -- operations -----------------------------------------------------------------------------

    def create(self) -> str | None:
        if (path := self.new_path()) is None:
            return None
        self.write_steps(path, self.content())
        return f"write {path}"

    def arrive(self) -> str | None:
        """A whole file is moved in."""
        if (path := self.new_path()) is None:
            return None
        self.files.put(path, self.content())
        return f"move a new file to {path}"

    def overwrite(self) -> str | None:
        if (path := self.existing()) is None:
            return None
        self.write_steps(path, self.content())
        return f"overwrite {path}"

    def slow_write(self) -> str | None:
        if (path := self.new_path()) is None:
            return None
        self.write_steps(path, self.content(), pause=4.0)
        return f"write {path} slowly"

    def break_file(self) -> str | None:
        path = self.existing(Kind.PICTURE) or self.new_path()
        if path is None:
            return None
        self.files.put(path, self.content("BAD"))
        return f"replace {path} by a broken file"

    def text_file(self) -> str | None:
        path = self.new_path(".txt")
        if path is None:
            return None
        self.files.put(path, b"no picture")
        return f"move a text to {path}"

    def delete(self) -> str | None:
        if (path := self.existing()) is None:
            return None
        self.files.remove(path)
        return f"delete {path}"

    def rename(self) -> str | None:
        old, new = self.existing(), self.new_path()
        if old is None or new is None or old == new:
            return None
        before = self.world.ledger.find(old)
        self.files.rename(old, new)
        after = self.world.ledger.find(new)
        if before is not None and after is not None and before.root == after.root:
            after.label, before.label = before.label, None
        return f"rename {old} to {new}"

    def rename_case(self) -> str | None:
        if (old := self.existing()) is None:
            return None
        folder, name = posixpath.split(old)
        self.files.rename(old, f"{folder}/{name.swapcase()}")
        return f"rename {old} to {name.swapcase()}"

    def make_folder(self) -> str | None:
        folders = [each for each in self.visible_folders() if each.count("/") < 5]
        if not folders:
            return None
        path = f"{self.random.choice(folders)}/{self.random.choice('XYZ')}"
        self.files.make_folders(path)
        self.files.put(f"{path}/{self.random.choice('pqr')}.png", self.content())
        return f"make {path} with a file"

    def rename_folder(self) -> str | None:
        folders = self.plain_folders()
        if not folders:
            return None
        old = self.random.choice(folders)
        new = f"{posixpath.dirname(old)}/{self.random.choice('XYZU')}"
        if self.files.truth(new)[0] is not None:
            return None
        self.files.rename(old, new)
        return f"rename the folder {old} to {new}"

    def delete_folder(self) -> str | None:
        folders = self.plain_folders()
        if not folders:
            return None
        path = self.random.choice(folders)
        self.files.remove(path)
        return f"delete the folder {path}"

    def plain_folders(self) -> list[str]:
        """Return folders below the roots on which nothing is mounted."""
        return [
            each for each in self.visible_folders(below_root=True) if each not in self.world.mounts
        ]

    def touch(self) -> str | None:
        if (path := self.existing()) is None:
            return None
        self.files.touch(path)
        return f"touch {path}"

    def change_owner(self) -> str | None:
        if (path := self.existing()) is None:
            return None
        self.files.change_owner(path)
        return f"chown {path}"

    def replace_alike(self) -> str | None:
        """Replace by another content of the same size and time."""
        if (path := self.existing(Kind.PICTURE)) is None:
            return None
        inode = self.files.find(path)
        self._numbers += 1
        content = picture_bytes(self._numbers, length=len(inode.content))
        self.files.put(path, content, mtime_ns=inode.mtime_ns)
        return f"replace {path}, same size and time"


    def map_write(self) -> str | None:
        """A program writes through a memory map and closes the file later."""
        path = self.new_path()
        if path is None or self.world.ledger.find(path) in self.world.ledger.visible():
            return None
        self._numbers += 2
        first, second = (picture_bytes(self._numbers + each, mark="M") for each in (0, 1))
        self.files.open_mapped(path, first)

        def work() -> None:
            self.world.scheduler.sleep(1.0 + self.random.random() * 4)
            if (record := self.world.ledger.find(path)) is None or record.content != first:
                return
            self.files.poke(path, second)
            record.is_excused = True
            self._expect_noticed(record)

        self.world.spawn("mapper", work)
        return f"write {path} through a memory map"

    def _expect_noticed(self, record: PathRecord) -> None:
        """Expect what only an event shows from a daemon that had 20 quiet seconds for it."""
        world, content = self.world, record.content
        daemon, begun = world.watching(record.root), world.scheduler.seconds
        world.scheduler.sleep(20.0)
        is_steady = world.network.steady_since >= world.scheduler.seconds
        is_same = daemon is not None and daemon.is_running and record.content == content
        if is_same and is_steady and record.is_seen and record.since < begun:
            record.is_excused = False

    def camera(self) -> str | None:
        """A file is rewritten all the time, also in quiet, while the server is slow."""
        path = self.existing(Kind.PICTURE)
        if path is None or self.world.moving:
            return None
        self.world.moving.add(path)
        self.world.network.least_seconds = 0.3

        def work() -> None:
            while True:
                self.world.scheduler.sleep(0.5)
                try:
                    self.files.write(path, [self.content()], lambda: None)
                except (OSError, KeyError):
                    return

        self.world.spawn("camera", work)
        return f"rewrite {path} twice a second from now on"

    def label(self) -> str | None:
        """Store a field of a picture, and expect it to stay with the content."""
        records = [each for each in self.world.ledger.visible() if each.kind is Kind.PICTURE]
        if not records or self.world.network.is_troubled:
            return None
        record = self.random.choice(records)
        self.labels += 1
        text, content = f"label {self.labels}", record.content
        command = self.world.commands.label(record.key, text)

        def work() -> None:
            self.world.scheduler.sleep(12.0)
            stored = self.world.peek.pictures().get(record.key, {})
            is_same = record.content == content and record.kind is Kind.PICTURE
            if is_same and not command.is_running and stored.get("product_id") == text:
                record.label = text

        self.world.spawn("labeller", work)
        return f"store product_id of {self.absolute(record)}"

    def vanish(self) -> str | None:
        """Delete half of a big folder at once: the guard has to ask."""
        name = next(iter(self.world.big), None)
        if name is None or self.world.undo:
            return None
        records = [each for each in self.world.ledger.visible() if each.root == name]
        pictures = self.world.peek.pictures()
        if len(records) < 22 or not all(each.key in pictures for each in records):
            return None
        chosen = self.random.sample(records, len(records) // 2)
        for record in chosen:
            self.files.remove(self.absolute(record))
            record.is_protected = True
        return f"delete {len(chosen)} of {len(records)} files of {name}"


class TroubleOperations(FileOperations):
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
        if not self.world.is_mounted(root) or any(each.startswith(root) for each in self.world.mounts):
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
        self.world.network.set(Weather(half_bulk=0.7, lost_answer=0.1, crash=0.4))
        self._later(lambda: self.world.network.set(CALM), 20.0)
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
            record.label = None
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
    "text_file": 1, "make_folder": 3, "rename_folder": 1, "delete_folder": 1, "touch": 1,
    "slow_write": 1, "start": 2,
}  # fmt: skip
RARE = {
    "forbid": 3, "drop_mount": 3, "fail_device": 2, "outage": 2, "storm": 2, "half_bulks": 2,
    "kill": 4, "stop": 2, "sync": 3, "change_owner": 1, "replace_alike": 2,
    "rename_case": 2, "map_write": 2, "camera": 1, "label": 4, "vanish": 3, "wrong_disk": 3,
    "make_anew": 1, "reindex": 1,
}  # fmt: skip
