"""The commands of the product that run in a world: init, watch, sync."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from es_imgsearch.errors import ImgSearchError, StoreUnreachable
from es_imgsearch.settings import Settings
from tests.simulation.machine.scheduler import Scheduler, SimulatedProcess

logger = logging.getLogger(__name__)


@dataclass
class Command:
    """A running or ended command; `error` is what it ended with."""

    words: str
    process: SimulatedProcess
    daemon: Any = None
    result: Any = None
    error: BaseException | None = None
    has_ended: bool = False
    began_at: float = 0.0

    @property
    def has_crashed(self) -> bool:
        """Whether it ended with an error that is none of the product's."""
        return self.error is not None and not isinstance(self.error, ImgSearchError)

    @property
    def was_killed(self) -> bool:
        return not self.process.is_alive and not self.has_ended

    @property
    def is_running(self) -> bool:
        return self.process.is_alive and not self.has_ended


class Commands:
    """Start commands as processes of hosts."""

    def __init__(
        self, scheduler: Scheduler, index: str, note: Callable[[str], None], **settings: Any
    ) -> None:
        self._scheduler = scheduler
        self._settings = Settings(
            es_url="http://simulated:9200",
            index=index,
            host="host",
            read_workers=2,
            **settings,
        )
        self._note = note
        self.all: list[Command] = []

    def running(self) -> list[Command]:
        return [each for each in self.all if each.is_running]

    def init(self, encoder: str) -> Command:
        from es_imgsearch.cli.options import open_store
        from es_imgsearch.manage.init import create_index

        settings = self._settings.model_copy(update={"encoder": encoder})
        return self._start(
            f"init --encoder {encoder}",
            "host",
            lambda _command: create_index(open_store(settings), settings),
        )

    def watch(self, host: str, roots: tuple[str, ...], *, allow_deletes: bool = False) -> Command:
        watch = import_module("es_imgsearch.cli.watch")
        from es_imgsearch.pipeline.daemon import Daemon

        settings = self._settings.model_copy(update={"host": host})

        def run(command: Command) -> None:
            def once() -> None:
                with watch.open_indexer(settings, roots, allow_deletes, warm_up=True) as indexer:
                    command.daemon = Daemon(indexer, settings)
                    command.daemon.run()

            watch.in_each_generation(settings, once)

        return self._start(f"watch {' '.join(roots)} on {host}", host, run)

    def sync(self, host: str, roots: tuple[str, ...], *, allow_deletes: bool = False) -> Command:
        watch = import_module("es_imgsearch.cli.watch")
        from es_imgsearch.pipeline.sync import sync

        settings = self._settings.model_copy(update={"host": host})

        def run(command: Command) -> None:
            def once() -> bool:
                with watch.open_indexer(settings, roots, allow_deletes) as indexer:
                    sync(indexer)
                    indexer.pipeline.close()
                    return not (indexer.counts.failed or indexer.paused)

            command.result = watch.in_each_generation(settings, once)

        options = " --allow-deletes" if allow_deletes else ""
        return self._start(f"sync {' '.join(roots)} on {host}{options}", host, run)

    def make_anew(self, encoder: str, *, keeps_state: bool) -> Command:
        """Delete the index and make it again under the same name for another encoder."""
        from es_imgsearch.cli.options import open_store
        from es_imgsearch.manage.init import create_index

        settings = self._settings.model_copy(update={"encoder": encoder})
        index = settings.index

        def make() -> None:
            store = open_store(settings)
            kinds = ["", "-failures"] if keeps_state else ["", "-failures", "-state"]
            for kind in kinds:
                request = store.connection.request
                for name in list(request("GET", f"/{index}{kind}-0*")):
                    request("DELETE", f"/{name}")
            create_index(store, settings)

        def run(_command: Command) -> None:
            # Who was told that Elasticsearch did not answer does it again: else there is no index.
            while True:
                try:
                    return make()
                except StoreUnreachable:
                    self._scheduler.sleep(1.0)

        return self._start(f"delete {index}, init --encoder {encoder}", "host", run)

    def reindex(self, encoder: str) -> Command:
        from es_imgsearch.cli.options import open_store
        from es_imgsearch.manage.reindex import reindex

        settings = self._settings.model_copy(update={"encoder": encoder})
        return self._start(
            f"reindex --encoder {encoder}",
            "host",
            lambda _command: reindex(open_store(settings), settings),
        )

    def label(self, image_id: str, text: str) -> Command:
        """Store a field that no describer or encoder owns."""
        from es_imgsearch.cli.options import open_store

        def run(_command: Command) -> None:
            rewrites = open_store(self._settings).rewrites
            rewrites.rewrite([image_id], lambda document: {**document, "product_id": text})

        return self._start(f"rewrite product_id={text}", "host", run)

    def _start(self, words: str, host: str, run: Callable[[Command], Any]) -> Command:
        number = 1000 + len(self.all)
        process = SimulatedProcess(self._scheduler, f"{words.split()[0]}-{number}", number, host)
        command = Command(words, process, began_at=self._scheduler.seconds)
        self.all.append(command)

        def work() -> None:
            try:
                run(command)
            except ImgSearchError as error:
                command.error = error
                self._note(f"{process.name} ended: {type(error).__name__}: {error}")
            except Exception as error:
                command.error = error
                self._note(f"{process.name} CRASHED: {type(error).__name__}: {error}")
                logger.exception("%s crashed", process.name)
            else:
                self._note(f"{process.name} ended")
            command.has_ended = True
            # Its other threads are daemon threads: they end with it.
            process.kill()

        self._scheduler.start(process, "main", work)
        self._note(f"{process.name}: {words}")
        return command
