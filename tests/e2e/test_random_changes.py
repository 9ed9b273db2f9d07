"""Random changes to a folder under a running daemon; in the end the index is like the folder.

A longer run: IMGSEARCH_TEST_EXAMPLES=200 IMGSEARCH_TEST_STEPS=60 IMGSEARCH_TEST_SEED=1
pytest tests/e2e/test_random_changes.py
"""

from __future__ import annotations

import itertools
import os
import shutil
import threading
import uuid
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test

from es_imgsearch.elastic.store import Store
from es_imgsearch.settings import Settings
from es_imgsearch.testing import remove_index
from tests.support.house import House, Running, paint

EXAMPLES = int(os.environ.get("IMGSEARCH_TEST_EXAMPLES", "5"))
STEPS = int(os.environ.get("IMGSEARCH_TEST_STEPS", "20"))
SEED = int(os.environ.get("IMGSEARCH_TEST_SEED", "0"))

NAMES = ["a", "b", "c", "d"]
folders = st.lists(st.sampled_from(NAMES[:3]), max_size=2).map("/".join)
files = st.builds(lambda *parts: "/".join(filter(None, parts)), folders,
                  st.sampled_from([f"{name}.png" for name in NAMES]))  # fmt: skip
contents = st.integers(0, 12)


class Changes(RuleBasedStateMachine):
    """One folder, one daemon; every rule does what it can, and nothing where it cannot."""

    store: Store
    settings: Settings
    home: Path

    def __init__(self) -> None:
        super().__init__()
        home = self.home / uuid.uuid4().hex
        home.mkdir()
        self.outside = home / "outside"
        self.outside.mkdir()
        self.new = itertools.count(1000)
        store = Store(self.store.connection.client, f"{self.store.index}-{home.name[:8]}")
        given = {"index": store.index, "max_delete_share": 1.0, "poll_seconds": 0.3}
        self.house = House(store, self.settings.model_copy(update=given), home)
        self.house.picture("always.png", 99)  # an empty root deletes nothing
        self.running = Running(self.house.indexer())
        self.running.wait_ready()

    def teardown(self) -> None:
        try:
            self.house.settle()
            self.running.stop()
        finally:
            self.running.daemon.stop()
            remove_index(self.house.store)

    def _path(self, name: str) -> Path | None:
        """The path, if its folder can be made."""
        path = self.house.folder / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError:
            return None
        return None if path.is_dir() else path

    @rule(name=files, content=contents)
    def write(self, name: str, content: int) -> None:
        if (path := self._path(name)) is not None:
            paint(path, content)

    @rule(name=files, content=contents)
    def replace(self, name: str, content: int) -> None:
        if (path := self._path(name)) is not None:
            paint(path.with_suffix(".tmp"), content)
            path.with_suffix(".tmp").rename(path)

    @rule(name=files)
    def spoil(self, name: str) -> None:
        if (path := self._path(name)) is not None:
            path.write_bytes(b"\x89PNG\r\n\x1a\n no more %d" % next(self.new))

    @rule(name=files)
    def delete(self, name: str) -> None:
        path = self.house.folder / name
        if path.is_file():
            path.unlink()

    @rule(name=files, other=files)
    def rename(self, name: str, other: str) -> None:
        source, target = self.house.folder / name, self._path(other)
        if source.is_file() and target is not None:
            source.rename(target)

    @rule(name=files, other=files)
    def copy(self, name: str, other: str) -> None:
        source, target = self.house.folder / name, self._path(other)
        if source.is_file() and target is not None and source != target:
            shutil.copyfile(source, target)

    @rule(name=files, other=files)
    def link(self, name: str, other: str) -> None:
        source, target = self.house.folder / name, self._path(other)
        if source.is_file() and target is not None and not target.exists():
            os.link(source, target)

    @rule(name=folders)
    def make_folder(self, name: str) -> None:
        (self.house.folder / name).mkdir(parents=True, exist_ok=True)

    @rule(name=folders, other=folders)
    def rename_folder(self, name: str, other: str) -> None:
        source, target = self.house.folder / name, self.house.folder / other
        is_free = not target.exists() and target.parent.is_dir()
        if name and source.is_dir() and is_free and source not in target.parents:
            source.rename(target)

    @rule(name=folders)
    def delete_folder(self, name: str) -> None:
        if name:
            shutil.rmtree(self.house.folder / name, ignore_errors=True)

    @rule(name=folders)
    def move_out(self, name: str) -> None:
        if name and (self.house.folder / name).is_dir():
            (self.house.folder / name).rename(self.outside / uuid.uuid4().hex)

    @rule(name=folders)
    def move_in(self, name: str) -> None:
        target = self.house.folder / name
        if not target.exists() and target.parent.is_dir():
            for tree in self.outside.iterdir():
                tree.rename(target)
                return

    @rule(seconds=st.sampled_from([0.01, 0.1, 0.3]))
    def wait(self, seconds: float) -> None:
        threading.Event().wait(seconds)

    @rule()
    def restart(self) -> None:
        self.running.stop()
        self.running = Running(self.house.indexer())

    @rule()
    def quiet(self) -> None:
        self.house.settle()


def test_after_random_changes_the_index_is_like_the_folder(
    real_store: Store, settings_of_test: Settings, tmp_path: Path
):
    Changes.store, Changes.settings, Changes.home = real_store, settings_of_test, tmp_path
    run_state_machine_as_test(
        seed(SEED)(Changes),
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=STEPS,
            deadline=None,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        ),
    )


@pytest.fixture
def settings_of_test(request: pytest.FixtureRequest) -> Settings:
    found: Settings = request.getfixturevalue("settings")
    return found
