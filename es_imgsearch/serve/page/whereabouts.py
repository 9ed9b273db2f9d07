"""Say whether the original of a picture can be shown here, and if not, what to do."""

from __future__ import annotations

import os
from dataclasses import dataclass

from es_imgsearch.elastic.store import Store
from es_imgsearch.errors import ImageMissing, ReadError
from es_imgsearch.records import FileState, Root, disk_path, path_of
from es_imgsearch.serve.originals import state_of
from es_imgsearch.serve.thumbnails import PictureFiles
from es_imgsearch.watch.bounded_looks import found_at
from es_imgsearch.watch.commands import sync_command
from es_imgsearch.watch.mounts import KnownMounts, is_mounted, without_unlinked


@dataclass(frozen=True, slots=True)
class Whereabouts:
    """Whether an original is here, and what is wrong with it; "" if nothing is."""

    is_here: bool
    text: str = ""


def whereabouts(pictures: PictureFiles, store: Store, image_id: str) -> Whereabouts:
    """Look at the original of a stored picture."""
    try:
        original = pictures.original(image_id)
    except ImageMissing as error:
        return Whereabouts(is_here=False, text=str(error))
    meta, fields = store.info().meta, store.documents.get(image_id)
    entry = meta.roots[fields["root"]]
    root = Root(fields["root"], path_of(disk_path(entry["path"])))
    hung = Whereabouts(
        is_here=False,
        text=f"The disk of {os.fspath(root.path)!r} does not answer: check it, or the share that is"
        " mounted there, then load this page again.",
    )

    def look() -> Whereabouts:
        try:
            state = state_of(original.path, image_id)
        except (ImageMissing, ReadError) as error:
            folder = _unmounted(store, root, fields["relative_path"])
            return Whereabouts(
                is_here=False, text=str(error) if folder is None else _not_there(folder)
            )
        if original.is_current(FileState.of(state)):
            return Whereabouts(is_here=True)
        return Whereabouts(
            is_here=True,
            text="The file has changed since it was indexed, so it may show something else than"
            f" what is listed here. To index it anew: {sync_command(root, store.index)}",
        )

    return found_at(os.fspath(root.path), look, hung)


def _unmounted(store: Store, root: Root, relative_path: str) -> str | None:
    """Return the folder above a missing file whose disk is surely not mounted."""
    if root.is_url:
        return None
    try:
        if not os.listdir(root.path):
            return os.fspath(root.path)
    except OSError:
        return os.fspath(root.path)
    mounts = without_unlinked(root, KnownMounts(store.state).load(root))
    path = disk_path(relative_path)
    for folder, point in mounts.items():
        at = point or root.absolute(folder)
        if path.startswith(f"{folder}/") and not is_mounted(at):
            return at
    return None


def _not_there(folder: str) -> str:
    return (
        f"The folder {folder!r} is not there, or is empty: its disk may not be mounted. Mount it or"
        " bring the folder back, then load this page again; what is stored of the picture stays."
    )
