"""What users, machines and networks do to a world, drawn by its seed.

Each operation is a method of `Operations` that returns words for the trace, or None where it has
nothing to work on.  A world enables some of the kinds only, so that rare ones meet each other.
"""

from __future__ import annotations

import errno
import posixpath
from typing import TYPE_CHECKING

from tests.simulation.ledger import Kind, PathRecord
from tests.simulation.pictures import picture_bytes

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
        known = self.world.ledger.pictures
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

    def _move(self, old: str, new: str) -> None:
        self.world.ledger.move(old, new, lambda: self.files.rename(old, new))

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

    def repair(self) -> str | None:
        if (path := self.existing(Kind.BROKEN)) is None:
            return None
        self.files.put(path, self.content())
        return f"repair {path}"

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
        self._move(old, new)
        return f"rename {old} to {new}"

    def rename_case(self) -> str | None:
        if (old := self.existing()) is None:
            return None
        folder, name = posixpath.split(old)
        self._move(old, f"{folder}/{name.swapcase()}")
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
        self._move(old, new)
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
