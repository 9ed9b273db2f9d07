"""Look at the folders of roots, with their known mount points and disks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

from es_imgsearch.elastic.store import Store
from es_imgsearch.records import Root, disk_path
from es_imgsearch.watch.excludes import Excludes
from es_imgsearch.watch.mounts import KnownMounts, without_unlinked
from es_imgsearch.watch.places import FileOnDisk, Unknown
from es_imgsearch.watch.presence import RootFiles
from es_imgsearch.watch.root_disk import RootDisk, RootDisks
from es_imgsearch.watch.sources.listing import list_root
from es_imgsearch.watch.walk import walk


class RootFolders:
    """The folders of a process's roots."""

    def __init__(
        self,
        store: Store,
        roots: Sequence[Root],
        excludes: Mapping[str, Excludes],
        *,
        forget_mounts: bool,
    ) -> None:
        """`excludes` are by the root's name.

        With `forget_mounts` known mount points are permitted to be gone."""
        self.disks = RootDisks()
        self.mounts = KnownMounts(store.state)
        self._excludes = excludes
        self._forget_mounts = {root.name for root in roots} if forget_mounts else set()

    def files(self, root: Root) -> RootFiles:
        """Return the files of a root, to look at those of one batch of paths."""
        mounts = self.mounts.of(root)
        return RootFiles(root, self._excludes[root.name].prunes, mounts, self.disks.of(root))

    def walk(
        self,
        root: Root,
        folder: str,
        on_left_out: Callable[[str], None],
        concerns: Callable[[Root, str], bool] = lambda _root, _path: True,
    ) -> Iterator[FileOnDisk | Unknown]:
        """Walk a folder of a root, see `walk.walk`; keep its mount points.

        Files that do not concern this process are passed over, without a look at them.
        """
        if root.is_url:
            left_out = self._excludes[root.name].left_out
            listed = list_root(root, left_out, folder, on_left_out)
            for seen in _timed(listed, self.disks.of(root)):
                if isinstance(seen, Unknown) or concerns(root, disk_path(seen.stored_path)):
                    yield seen
            return
        if root.name in self._forget_mounts:
            self.mounts.forget(root)
            self._forget_mounts.discard(root.name)
        found: list[str] = []
        disk = self.disks.of(root)
        known = self.mounts.load(root)
        with disk.calling():
            known = without_unlinked(root, known)
        self.mounts.keep(root, known)
        walked = walk(
            root,
            self._excludes[root.name].left_out,
            folder,
            mounts=known,
            on_mount=found.append,
            on_left_out=on_left_out,
            concerns=None if root.partition is None else partial(concerns, root),
        )
        while True:
            with disk.calling():
                each = next(walked, None)
            while found:
                self.mounts.add(root, found.pop())
            if each is None:
                return
            yield each


def _timed(
    listed: Iterator[FileOnDisk | Unknown], disk: RootDisk
) -> Iterator[FileOnDisk | Unknown]:
    """Yield what is listed; each step counts as a call of the root's disk."""
    while True:
        with disk.calling():
            each = next(listed, None)
        if each is None:
            return
        yield each
