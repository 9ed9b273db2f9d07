"""Keep actors of Ray busy with blocks, and replace those that end.

A block whose actor ended is divided, and its halves go to other actors, until the file that ends
actors is alone: at the second time it becomes a failure, as one that ends encoder processes does.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from es_imgsearch.errors import EncodersFailed, EngineStalled, ReadError, SettingsError, counted
from es_imgsearch.pipeline.engines.blocks import FILES_AN_ACTOR, WaitingFiles
from es_imgsearch.pipeline.engines.messages import FileOutcome, FileRow, News, SpreadPlan
from es_imgsearch.pipeline.engines.worker import BlockWorker
from es_imgsearch.pipeline.jobs import Job
from es_imgsearch.settings import Settings

logger = logging.getLogger(__name__)

_WAIT_SECONDS = 0.1
_STARTS_IN_A_ROW = 3
# A file that was alone in so many actors that ended is at fault.
_ENDED_ACTORS = 2


@dataclass(eq=False)
class _Actor:
    """An actor: opening its index, working on the jobs of a block (by id), or idle."""

    handle: Any
    opening: Any
    news: Any = None
    jobs: dict[str, Job] = field(default_factory=dict)
    process: str = ""
    is_waiting: bool = False


class Actors:
    """Give blocks to actors, and take what became of their files.

    `take` gets each job that ended, `fail` those that end actors.
    """

    def __init__(
        self,
        ray: Any,
        plan: SpreadPlan,
        settings: Settings,
        waiting: WaitingFiles,
        *,
        take: Callable[[Job, FileOutcome], None],
        take_news: Callable[[News], None],
        fail: Callable[[Job, ReadError], None],
        stopping: threading.Event,
    ) -> None:
        """Raises SettingsError if no machine of the cluster has what an actor needs."""
        self._ray = ray
        self._plan = plan
        self._settings = settings
        self._waiting = waiting
        self._take_outcome = take
        self._take_news = take_news
        self._fail = fail
        self._stopping = stopping
        self.most = _most_actors(ray, settings)
        self._class = ray.remote(
            num_cpus=settings.ray_cpus, num_gpus=settings.ray_gpus, max_restarts=0
        )(BlockWorker)
        self._actors: list[_Actor] = []
        self._again: deque[list[Job]] = deque()
        self._ended: dict[str, int] = {}
        self._starts_in_a_row = 0
        self._progress_at = time.monotonic()

    @property
    def processes(self) -> list[str]:
        """The processes of the actors that have begun, each with its machine."""
        return [each.process for each in list(self._actors) if each.process]

    # -- the loop ------------------------------------------------------------------------------

    def run(self) -> None:
        """Give blocks to actors and take their news until `stopping`.

        Raises what ends an actor's pipeline, and EncodersFailed.
        """
        while not self._stopping.is_set():
            self._dispatch()
            refs = {each.news or each.opening: each for each in self._actors if _is_busy(each)}
            if not refs:
                self._stopping.wait(_WAIT_SECONDS)
                continue
            ready, _ = self._ray.wait(list(refs), num_returns=1, timeout=_WAIT_SECONDS)
            for ref in ready:
                self._take(refs[ref])

    def watch(self) -> None:
        """Raise EngineStalled if nothing is acknowledged for `ray_stall_minutes`."""
        limit_seconds = self._settings.ray_stall_minutes * 60
        while not self._stopping.wait(min(1.0, limit_seconds / 4)):
            actors = list(self._actors)
            has_work = len(self._waiting) or self._again or any(map(_is_busy, actors))
            if not has_work or any(each.is_waiting for each in actors):
                # Nothing to do, or Elasticsearch is away, for which the local engine waits, too.
                self._progress_at = time.monotonic()
            elif time.monotonic() - self._progress_at >= limit_seconds:
                raise EngineStalled(self._stalled(actors))

    def _stalled(self, actors: Sequence[_Actor]) -> str:
        minutes = f"{self._settings.ray_stall_minutes:g} minutes"
        begun = [each for each in actors if each.news is not None]
        jobs = [job for each in begun for job in list(each.jobs.values())]
        if jobs:
            change = jobs[0].change
            where = f"of {counted(len(jobs), 'file')} that actors have, the first is"
            what = f"{where} {change.root.absolute(change.relative_path)}"
        else:
            what = f"{counted(len(actors), 'actor')} of Ray could not begin"
        return (
            f"Nothing was indexed for {minutes} (ray_stall_minutes): {what}. What was acknowledged"
            " stays; the same command goes on from there."
        )

    def _dispatch(self) -> None:
        work = len(self._waiting) + sum(map(len, self._again))
        busy = sum(map(_is_busy, self._actors))
        wanted = min(self.most, busy + math.ceil(work / FILES_AN_ACTOR))
        while len(self._actors) < wanted:
            self._actors.append(self._new_actor())
        for actor in self._actors:
            if _is_busy(actor):
                continue
            jobs = self._again.popleft() if self._again else self._waiting.take(len(self._actors))
            if not jobs:
                return
            actor.jobs = {job.change.image_id: job for job in jobs}
            rows = [FileRow.of(job) for job in jobs]
            actor.news = actor.handle.run.options(num_returns="streaming").remote(rows)

    def _new_actor(self) -> _Actor:
        handle = self._class.remote()
        return _Actor(handle, handle.open.remote(self._plan))

    # -- news ----------------------------------------------------------------------------------

    def _take(self, actor: _Actor) -> None:
        errors = self._ray.exceptions
        try:
            if actor.opening is not None:
                news = self._ray.get(actor.opening)
                actor.opening, actor.process = None, news.process
                self._progress_at = time.monotonic()
            else:
                news = self._ray.get(next(actor.news))
        except StopIteration:
            self._end_block(actor)
            return
        except (errors.RayActorError, errors.WorkerCrashedError, errors.ObjectLostError) as error:
            self._replace(actor, error)
            return
        except errors.RayTaskError as error:
            raise EncodersFailed(f"An actor failed ({_last_line(error)}).") from error
        for name, level, words in news.logged:
            logging.getLogger(name).log(level, "%s", words)
        actor.is_waiting = news.is_waiting
        self._take_news(news)
        for outcome in news.outcomes:
            # A file that changed meanwhile is read again, and has two.
            if (job := actor.jobs.pop(outcome.image_id, None)) is not None:
                self._note_progress(job)
                self._take_outcome(job, outcome)
        if news.error is not None:
            raise news.error

    def _end_block(self, actor: _Actor) -> None:
        actor.news = None
        jobs, actor.jobs = actor.jobs, {}
        for image_id, job in jobs.items():
            # It could not be examined there.
            self._note_progress(job)
            self._take_outcome(job, FileOutcome(image_id))

    def _note_progress(self, job: Job) -> None:
        self._progress_at = time.monotonic()
        self._starts_in_a_row = 0
        self._ended.pop(job.change.image_id, None)

    def _replace(self, actor: _Actor, error: Exception) -> None:
        """Replace an actor that ended; its files go to others."""
        self._actors.remove(actor)
        self._kill(actor)
        self._starts_in_a_row += 1
        jobs = list(actor.jobs.values())
        if not jobs and self._starts_in_a_row >= _STARTS_IN_A_ROW:
            raise EncodersFailed(
                "Actors of Ray end before they have loaded the model"
                f" ({_last_line(error)}): is there memory enough for so many, and is this"
                " package installed on each machine?"
            )
        logger.warning(
            "An actor of Ray ended (process %s); %s of it %s to another one.",
            actor.process or "not begun", counted(len(jobs), "file"),
            "goes" if len(jobs) == 1 else "go",
        )  # fmt: skip
        if len(jobs) == 1:
            self._blame(jobs[0])
            return
        middle = len(jobs) // 2
        self._again += [half for half in (jobs[:middle], jobs[middle:]) if half]

    def _blame(self, job: Job) -> None:
        image_id = job.change.image_id
        self._ended[image_id] = self._ended.get(image_id, 0) + 1
        if self._ended[image_id] < _ENDED_ACTORS:
            self._again.append([job])
            return
        self._note_progress(job)
        # In the words of `EncoderProcess`.
        self._fail(
            job,
            ReadError(
                "embed_failed",
                "EncoderEnded: The process that embedded it ended, and so did the next one.",
            ),
        )

    def close(self) -> None:
        """End the actors at once."""
        for actor in list(self._actors):
            self._kill(actor)

    def _kill(self, actor: _Actor) -> None:
        self._ray.kill(actor.handle, no_restart=True)


def _is_busy(actor: _Actor) -> bool:
    return actor.opening is not None or actor.news is not None


def _most_actors(ray: Any, settings: Settings) -> int:
    """Return the number of actors: `workers`, or what the cluster has room for."""
    needs = {"CPU": settings.ray_cpus, "GPU": settings.ray_gpus}
    room: float = 0
    for node in ray.nodes():
        if node["Alive"]:
            has = node["Resources"]
            room += min(has.get(name, 0) // each for name, each in needs.items() if each)
    wanted = settings.workers if "workers" in settings.model_fields_set else None
    if room < 1 or (wanted is not None and wanted > room):
        raise SettingsError(
            f"The Ray cluster has room for {counted(int(room), 'actor')} of ray_cpus ="
            f" {settings.ray_cpus:g} and ray_gpus = {settings.ray_gpus:g}, which is less than"
            f" the {wanted or 1} that workers asks for."
        )
    return wanted or int(room)


def _last_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[-1] if lines else type(error).__name__)[:300].rstrip(".")
