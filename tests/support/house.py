"""A folder, an index and daemons on it; and whether the index is like the folder."""

from __future__ import annotations

import hashlib
import os
import select
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from es_imgsearch.describe.registry import load_describers
from es_imgsearch.elastic.client import connect
from es_imgsearch.elastic.mapping import VECTOR_FIELD, new_meta
from es_imgsearch.elastic.state import pause_id
from es_imgsearch.elastic.store import Store
from es_imgsearch.embed.context import open_context
from es_imgsearch.embed.index_encoder import seal_of
from es_imgsearch.pipeline.daemon import Daemon
from es_imgsearch.pipeline.engines.intake import Intake
from es_imgsearch.pipeline.engines.local import Pipeline
from es_imgsearch.pipeline.indexer import Indexer
from es_imgsearch.pipeline.sync import sync
from es_imgsearch.records import stored_path
from es_imgsearch.settings import Settings, load_settings
from es_imgsearch.testing import FakeEncoder, remove_index
from es_imgsearch.watch.roots import parse_roots, register_roots
from es_imgsearch.write.deletion_pauses import active_pause

PATIENCE_SECONDS = 40.0

_HIDDEN = (".", "@eaDir")
_UNFINISHED = (".part", ".tmp", "~")


def described() -> list[Mapping[str, Any]]:
    """The mappings of the fields that describers bring, as `init` takes them."""
    return [describer.mapping for describer in load_describers()]


def until(condition: Callable[[], object], seconds: float = PATIENCE_SECONDS) -> None:
    """Wait for the condition; AssertionError with its last value when the time is over."""
    deadline = time.monotonic() + seconds
    while not (last := condition()):
        assert time.monotonic() < deadline, f"still {last!r} after {seconds:g} s"
        time.sleep(0.05)


def pixels(seed: int) -> np.ndarray:
    """32 x 32 pixels, a 4 x 4 grid of colours of which no two seeds have the same."""
    colours = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), np.uint8)
    return colours.repeat(8, axis=0).repeat(8, axis=1)


def paint(path: Path | bytes, seed: int, suffix: str = "png") -> None:
    """Write a small picture, an uncompressed one if `suffix` is bmp."""
    with open(path, "wb") as file:
        Image.fromarray(pixels(seed)).save(file, format=suffix)


@contextmanager
def house_of_module(es_url: str, home: Path, *roots: str) -> Iterator[House]:
    """A house for all tests of a module, with an index of its own that is removed afterwards."""
    given = {"es_url": es_url, "index": f"t-{uuid.uuid4().hex[:12]}", "read_workers": 1}
    settings = load_settings(given, environment={})
    store = Store(connect(settings), settings.index)
    try:
        yield House(store, settings, home, *roots)
    finally:
        remove_index(store)
        store.connection.client.close()


class House:
    """Roots in `home`, an index on the real server, and the daemons that watch."""

    def __init__(self, store: Store, settings: Settings, home: Path, *roots: str) -> None:
        self.store = store
        self.settings = settings
        self.folders = [home / name for name in roots or ("r",)]
        self.folder = self.folders[0]
        for folder in self.folders:
            folder.mkdir(exist_ok=True)
        self.encoder = FakeEncoder()
        store.generations.create(new_meta(seal_of(self.encoder), "exact", "cosine"), described())
        self._expected: dict[bytes, tuple[tuple[int, ...], object]] = {}

    def picture(self, name: str, seed: int) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        paint(path, seed)
        return path

    def pictures(self, number: int, folder: str = "") -> list[Path]:
        return [self.picture(os.path.join(folder, f"{n:03}.png"), n) for n in range(number)]

    # -- daemons ---------------------------------------------------------------------------

    def indexer(
        self,
        *,
        url: str | None = None,
        allow_deletes: bool = False,
        engine: Callable[..., Intake] = Pipeline,
        **given,
    ) -> Indexer:
        settings = self.settings.model_copy(update=given)
        if url is not None:
            settings = settings.model_copy(update={"es_url": url})
        folders = [str(folder) for folder in self.folders]
        roots = parse_roots(folders, may_come=True, follow_links=settings.follow_links)
        store = Store(connect(settings), settings.index).pinned()
        # Tests fill indices by hand, too: documents of a root that no folder was registered for.
        register_roots(self.store, roots, settings.host, replace_gone=True)
        # `url` may be a server that is away.
        context = open_context(self.store.pinned(), settings, self.encoder)
        return Indexer(
            replace(context, store=store), roots, settings,
            allow_deletes=allow_deletes, engine=engine,
        )  # fmt: skip

    def synced(self, **given) -> Indexer:
        """The indexer of a `sync` that has ended, as cron starts it."""
        indexer = self.indexer(**given)
        try:
            sync(indexer)
            return indexer
        finally:
            indexer.pipeline.close()

    @contextmanager
    def watched(self, **given) -> Iterator[Running]:
        """A daemon that is ready when this begins and has ended when it ends."""
        running = Running(self.indexer(**given))
        try:
            running.wait_ready()
            yield running
        finally:
            running.stop()

    # -- comparing -------------------------------------------------------------------------

    def settle(self, seconds: float = PATIENCE_SECONDS) -> None:
        """Wait until the index holds exactly what the folders hold."""
        deadline = time.monotonic() + seconds
        while differing := self.differing():
            assert time.monotonic() < deadline, differing
            time.sleep(0.1)

    def differing(self) -> list[str]:
        """What is wrong with the index; empty when it is like the folders."""
        wanted, wanted_failures = self._on_disk()
        found, failures = self.indexed(), self.failed()
        wrong = [f"missing {key}" for key in wanted.keys() - found.keys()]
        wrong += [f"left over {key}" for key in found.keys() - wanted.keys()]
        for key in wanted.keys() & found.keys():
            *plain, vector = wanted[key]
            *plain_found, vector_found = found[key]
            if plain != plain_found:
                wrong.append(f"{key}: {plain_found} instead of {plain}")
            elif not np.allclose(vector, vector_found, atol=1e-6):
                wrong.append(f"{key}: the vector of something else")
        wrong += [f"failure {key}" for key in failures.items() ^ wanted_failures.items()]
        return sorted(wrong)

    def indexed(self) -> dict[tuple[str, str], tuple]:
        fields = ["size_bytes", "mtime_ns", "content_id", VECTOR_FIELD]
        return {
            key: (*(each[name][0] for name in fields[:3]), np.ravel(each[VECTOR_FIELD]))
            for key, each in self._all(self.store.index, fields)
        }

    def failed(self) -> dict[tuple[str, str], tuple]:
        fields = ["size_bytes", "mtime_ns"]
        return {
            key: tuple(each[name][0] for name in fields)
            for key, each in self._all(self.store.connection.failures, fields)
        }

    def paused(self, root: str = "r") -> dict | None:
        read = self.store.state.read(pause_id(root))
        return active_pause(read and read.document)

    def _all(self, name: str, fields: list[str]) -> Iterator[tuple[tuple[str, str], dict]]:
        self.store.refresh()
        body = {
            "size": 10_000,
            "_source": False,
            "docvalue_fields": ["root", "relative_path", *fields],
        }
        answer = self.store.connection.request("POST", f"/{name}/_search", body)
        for hit in answer["hits"]["hits"]:
            each = hit["fields"]
            yield (each["root"][0], each["relative_path"][0]), each

    def _on_disk(self) -> tuple[dict, dict]:
        pictures, failures = {}, {}
        for top in self.folders:
            for folder, folders, names in os.walk(top):
                folders[:] = [each for each in folders if not each.startswith(_HIDDEN)]
                for name in names:
                    if name.startswith(_HIDDEN) or name.endswith((".txt", *_UNFINISHED)):
                        continue
                    path = os.path.join(folder, name)
                    try:
                        status = os.stat(path)
                    except OSError:
                        continue  # vanished, or a link to nothing
                    if os.path.isdir(path):
                        continue  # a link to a folder
                    key = (top.name, stored_path(os.path.relpath(path, top)))
                    state = (status.st_size, status.st_mtime_ns)
                    content = self._content(path, status)
                    if content is None:
                        failures[key] = state
                    else:
                        pictures[key] = (*state, *content)
        return pictures, failures

    def _content(self, path: str, status: os.stat_result) -> tuple | None:
        sign = (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
        known = self._expected.get(os.fsencode(path))
        if known is None or known[0] != sign:
            known = self._expected[os.fsencode(path)] = (sign, _content(path))
        return known[1]


def _content(path: str) -> tuple | None:
    try:
        raw = Path(path).read_bytes()
        with Image.open(path) as image:
            array = np.asarray(image.convert("RGB"))
    except (OSError, SyntaxError):
        return None
    return hashlib.blake2b(raw, digest_size=16).hexdigest(), FakeEncoder()._vectors(array[None])[0]


class Running:
    """A daemon in a thread."""

    def __init__(self, indexer: Indexer) -> None:
        self.indexer = indexer
        self.ready = threading.Event()
        self.error: BaseException | None = None
        self.drained: bool | None = None
        self.daemon = Daemon(indexer, indexer._settings, on_ready=self.ready.set)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self.drained = self.daemon.run()
        except BaseException as error:
            self.error = error
            raise

    def turn(self) -> None:
        """Wait until the daemon's loop has gone round once, with all that it does in one."""
        for wake in (self.daemon._wake, *(each.wake for each in self.daemon._watched)):
            for _ in range(2):
                wake.set()
                until(lambda wake=wake: not wake.is_set())  # type: ignore[misc]

    def wait_ready(self) -> None:
        until(lambda: self.ready.is_set() or self.error)
        assert self.error is None

    def stop(self, seconds: float = PATIENCE_SECONDS) -> bool:
        """Stop it; whether nothing was left in flight."""
        self.daemon.stop()
        self._thread.join(seconds)
        assert not self._thread.is_alive()
        if self.error is not None:
            raise self.error
        return bool(self.drained)


def compare_again(running: Running) -> None:
    """Have every root compared, as after `reconcile_minutes`, and wait until that has ended."""
    for root in running.daemon._watched:
        root.request_comparison()
    requested = running.indexer.progress.comparisons.begun
    until(lambda: running.indexer.progress.comparisons.ended_until >= requested)


class Proxy:
    """Stands between a daemon and Elasticsearch: lets through, refuses, or holds."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._flowing = threading.Event()
        self._flowing.set()
        self._sockets: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._serve(self._listener)

    def refuse(self) -> None:
        _end(self._listener)
        for each in self._sockets:
            _end(each)
        self._sockets.clear()

    def accept_again(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", self.port))
        self._serve(self._listener)

    def hold(self) -> None:
        """Connections stay open and nothing goes through."""
        self._flowing.clear()

    def let_go(self) -> None:
        self._flowing.set()

    def close(self) -> None:
        self.refuse()
        self._flowing.set()

    def _serve(self, listener: socket.socket) -> None:
        threading.Thread(target=self._accept, args=(listener,), daemon=True).start()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                near, _ = listener.accept()
            except OSError:
                return
            far = socket.create_connection(("127.0.0.1", self._target))
            self._sockets += [near, far]
            threading.Thread(target=self._pump, args=(near, far), daemon=True).start()

    def _pump(self, near: socket.socket, far: socket.socket) -> None:
        try:
            while True:
                for source in select.select([near, far], [], [])[0]:
                    data = source.recv(65536)
                    if not data:
                        return
                    self._flowing.wait()
                    (far if source is near else near).sendall(data)
        except (OSError, ValueError):
            return
        finally:
            _end(near)
            _end(far)


def _end(each: socket.socket) -> None:
    with suppress(OSError):
        each.shutdown(socket.SHUT_RDWR)
    each.close()
