"""Rare things that users and programs do to files."""

from __future__ import annotations

from collections import Counter

from tests.simulation.ledger import Kind, PathRecord
from tests.simulation.machine.scheduler import EPOCH_NS
from tests.simulation.operations import FileOperations
from tests.simulation.pictures import content_id, picture_bytes


class RareOperations(FileOperations):
    """Memory maps, a camera, fields from elsewhere, and files that leave a folder."""

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
            is_noticed = self.files.poke(path, second)
            record.is_excused = True
            if is_noticed:
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
        if record.labels:
            record.labels |= {text}

        def work() -> None:
            self.world.scheduler.sleep(12.0)
            stored = self.world.peek.pictures().get(record.key, {})
            is_same = record.content == content and stored.get("content_id") == content_id(content)
            is_stored = is_same and stored.get("product_id") == text
            if is_stored and not command.is_running and record.kind is Kind.PICTURE:
                record.labels = frozenset({text})

        self.world.spawn("labeller", work)
        return f"store product_id of {self.absolute(record)}"

    def wander(self) -> str | None:
        """A picture with a field leaves the folders, and comes back at another path later."""
        records = self.world.ledger.visible()
        of_content = Counter(each.content for each in records)
        labelled = [
            each
            for each in records
            if each.labels and each.kind is Kind.PICTURE and of_content[each.content] == 1
            if self.absolute(each) not in self.world.moving
        ]
        if not labelled or self.world.was_remade:
            return None
        record = self.random.choice(labelled)
        path, labels, content = self.absolute(record), record.labels, record.content
        self._numbers += 1
        away = f"/simulated/away-{self._numbers}.png"
        self.files.rename(path, away)

        def work() -> None:
            self.world.scheduler.sleep(self.random.random() * 40)
            if (back := self.new_path()) is None:
                return
            self.files.rename(away, back)
            found = self.world.ledger.find(back)
            if found is not None and found.content == content and not self.world.was_remade:
                found.labels = labels
            self.world.note(f"move {away} to {back}")

        self.world.spawn("wanderer", work)
        return f"move {path} to {away}"

    def _touched_at(self, record: PathRecord) -> float:
        inode = self.files.find(self.absolute(record))
        return (inode.ctime_ns - EPOCH_NS) / 1e9

    def vanish(self) -> str | None:
        """Delete half of a big folder at once: the guard has to ask."""
        name = next(iter(self.world.big), None)
        if name is None or self.world.undo:
            return None
        records = [each for each in self.world.ledger.visible() if each.root == name]
        pictures = self.world.peek.pictures()
        if len(records) < 22 or not all(each.key in pictures for each in records):
            return None
        # One that was deleted, replaced or touched a moment before goes alone: a `sync` that reads
        # it finds it gone, and does not look at the others again.
        steady = self.world.scheduler.seconds - 30
        old = [
            each
            for each in records
            if each.kind is Kind.PICTURE and max(each.since, self._touched_at(each)) < steady
        ]
        if len(old) < len(records) // 2:
            return None
        chosen = self.random.sample(old, len(records) // 2)
        for record in chosen:
            self.files.remove(self.absolute(record))
            record.is_protected = True
        return f"delete {len(chosen)} of {len(records)} files of {name}"
