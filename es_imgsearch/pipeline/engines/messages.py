"""What the driver and its actors send each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from es_imgsearch.embed.protocol import Encoder
from es_imgsearch.errors import ImgSearchError, ReadError
from es_imgsearch.pipeline.engines.intake import Acknowledged
from es_imgsearch.pipeline.jobs import Job, Kept, Unembedded
from es_imgsearch.read.file import Skipped
from es_imgsearch.records import Change, FileState, Root
from es_imgsearch.settings import Settings
from es_imgsearch.write.activity import Costs
from es_imgsearch.write.field_memory import Copy


class FileRow(NamedTuple):
    """A file of a block; `state` is its size and what changes with it."""

    root: Root
    relative_path: str
    state: FileState
    detected_at: float

    @classmethod
    def of(cls, job: Job) -> FileRow:
        change = job.change
        return cls(change.root, change.relative_path, job.signature.state, change.detected_at)

    def change(self) -> Change:
        """Return the change that an actor submits; a URL is not asked once more."""
        listed = self.state if self.root.is_url else None
        return Change(self.root, self.relative_path, self.detected_at, listed=listed)


@dataclass(frozen=True, slots=True)
class SpreadPlan:
    """What an actor needs to run the local engine on its machine.

    `index` is the generation to write; `encoder` is None for one that is loaded by name.
    `environment` has variables of the driver with which URLs are opened.  It has secrets: never
    log or print it.
    """

    settings: Settings
    roots: Sequence[Root]
    index: str
    version: str
    encoder: Encoder | None = None
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)


class FileOutcome(NamedTuple):
    """What became of a file in an actor.

    `state` is that in which it was read.  `reason` is why there is no picture; `is_failure`: a
    failure was stored; `is_kept`: the picture that is stored stays, since the file may be as it
    says if `is_unknown`.
    """

    image_id: str
    state: FileState | None = None
    reason: ReadError | Skipped | None = None
    is_failure: bool = False
    is_kept: bool = False
    is_unknown: bool = False
    is_reused: bool = False
    moved_from: str | None = None

    @classmethod
    def of(cls, item: Acknowledged) -> FileOutcome:
        """Take what the acknowledgement of an item in this process says."""
        job = item.job
        image_id, state = job.change.image_id, job.signature.state
        if isinstance(item, Kept):
            return cls(image_id, state, item.error, is_kept=True, is_unknown=item.is_unknown)
        if isinstance(item, Unembedded):
            return cls(image_id, state, item.reason)
        if item.result is None:
            failure = item.write.failure or {}
            error = ReadError(failure.get("error_class", ""), failure.get("message", ""))
            return cls(image_id, state, error, is_failure=True)
        is_reused = item.result.embed_ms is None
        return cls(image_id, item.signature.state, is_reused=is_reused, moved_from=item.moved_from)


class News(NamedTuple):
    """What an actor says while it works on a block.

    `is_waiting`: Elasticsearch does not answer it.  `copies` are documents whose fields went to
    other documents.  `error` ends the run.  `process` is the actor's, with its machine.
    """

    outcomes: Sequence[FileOutcome] = ()
    costs: Mapping[str, Costs] | None = None
    copies: Sequence[Copy] = ()
    logged: Sequence[tuple[str, int, str]] = ()
    is_waiting: bool = False
    process: str = ""
    error: ImgSearchError | None = None
