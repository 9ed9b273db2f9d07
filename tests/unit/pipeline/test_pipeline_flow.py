"""What a stage may reference, and the way of one picture as the docstring lists it."""

from __future__ import annotations

import re
import sys
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import FrameType, FunctionType, MethodType
from typing import Any

import pytest
from PIL import Image

from es_imgsearch import pipeline
from es_imgsearch.elastic.mapping import new_meta
from es_imgsearch.elastic.store import Store
from es_imgsearch.embed import in_process
from es_imgsearch.embed.context import IndexContext, open_context
from es_imgsearch.embed.index_encoder import seal_of
from es_imgsearch.pipeline import (
    acknowledge_stage,
    describe_stage,
    embed_stage,
    in_flight,
    read_stage,
    vector_source,
    write_stage,
)
from es_imgsearch.pipeline.acknowledge_stage import AcknowledgeStage
from es_imgsearch.pipeline.describe_stage import DescribeStage
from es_imgsearch.pipeline.embed_stage import EmbedStage
from es_imgsearch.pipeline.engines import intake
from es_imgsearch.pipeline.engines import local as pipeline_module
from es_imgsearch.pipeline.engines.local import Pipeline
from es_imgsearch.pipeline.indexer import Indexer
from es_imgsearch.pipeline.read_stage import ReadStage
from es_imgsearch.pipeline.write_stage import WriteStage
from es_imgsearch.read import workers
from es_imgsearch.records import Change, Root
from es_imgsearch.settings import Settings
from es_imgsearch.testing import FakeEncoder

STAGES = (ReadStage, EmbedStage, DescribeStage, WriteStage, AcknowledgeStage)
PATIENCE_SECONDS = 30.0


@pytest.fixture
def context(real_store: Store, settings: Settings) -> IndexContext:
    encoder = FakeEncoder()
    real_store.generations.create(new_meta(seal_of(encoder), "exact", "cosine"))
    return open_context(real_store, settings, encoder)


@pytest.fixture
def root(tmp_path: Path) -> Root:
    folder = tmp_path / "photos"
    folder.mkdir()
    Image.new("RGB", (64, 48), "red").save(folder / "red.png")
    return Root("photos", folder)


@pytest.fixture
def indexer(context: IndexContext, root: Root, settings: Settings) -> Iterator[Indexer]:
    indexer = Indexer(context, [root], settings)
    yield indexer
    indexer.pipeline.close()


def referents(value: Any) -> Iterator[Any]:
    """What an object holds: attributes, entries, and what a callback is bound to.

    Not its class, and not the globals of a function.
    """
    if isinstance(value, MethodType):
        yield value.__self__
        yield value.__func__
    elif isinstance(value, FunctionType):
        yield from (cell.cell_contents for cell in value.__closure__ or ())
        yield from value.__defaults__ or ()
    elif isinstance(value, partial):
        yield from (value.func, *value.args, *value.keywords.values())
    elif isinstance(value, dict):
        yield from value.keys()
        yield from value.values()
    elif isinstance(value, list | tuple | set | frozenset):
        yield from value
    elif type(value).__module__.startswith(("es_imgsearch", "test")):
        yield from vars(value).values() if hasattr(value, "__dict__") else ()
        for each in type(value).__mro__:
            for name in getattr(each, "__slots__", ()):
                yield getattr(value, name, None)


def reachable(start: Any) -> dict[int, Any]:
    """Everything that an object holds, by id; itself is no part of it."""
    seen: dict[int, Any] = {}
    left = list(referents(start))
    while left:
        value = left.pop()
        if id(value) not in seen and value is not start:
            seen[id(value)] = value
            left += referents(value)
    return seen


def test_a_stage_holds_the_next_one_and_neither_an_earlier_one_nor_what_runs_it(indexer: Indexer):
    kinds = (*STAGES, Pipeline, Indexer)
    first = indexer.pipeline._reading
    held = [each for each in reachable(first).values() if isinstance(each, STAGES)]
    by_kind = {type(each): each for each in (first, *held)}
    assert len(held) == len(STAGES) - 1
    for number, kind in enumerate(STAGES):
        found = {type(each) for each in reachable(by_kind[kind]).values()} & set(kinds)
        assert found == set(STAGES[number + 1 :])
        # One successor: the only stage among the attributes' own callbacks.
        bound = [getattr(each, "__self__", None) for each in vars(by_kind[kind]).values()]
        next_ones = [type(each) for each in bound if isinstance(each, STAGES)]
        assert next_ones == list(STAGES[number + 1 : number + 2])


def test_the_walk_finds_what_a_callback_is_bound_to(indexer: Indexer):
    """The test above would see a stage that holds the pipeline, in whichever way."""
    pipeline = indexer.pipeline
    for callback in (pipeline.submit, lambda: pipeline, partial(print, pipeline), [{1: pipeline}]):
        assert id(pipeline) in reachable([callback])
    assert id(pipeline) in reachable(indexer)


# -- the page ------------------------------------------------------------------------------------


def page() -> list[str]:
    """Return the functions that the package's docstring lists, in order."""
    text = pipeline.__doc__ or ""
    return re.findall(r"^    ([A-Za-z_]+(?:\.[a-z_]+)?)  +[a-z]", text, re.MULTILINE)


FLOW_FILES = {
    str(module.__file__)
    for module in (
        pipeline_module, intake, in_flight, read_stage, workers, embed_stage, vector_source,
        in_process, describe_stage, write_stage, acknowledge_stage,
    )
} | {
    str(sys.modules[f"es_imgsearch.write.{name}"].__file__)
    for name in ("carried_fields", "documents")
}  # fmt: skip

# Public functions that the listed functions call only to look something up.
HELPERS = re.compile(
    r"InFlight\.(acquire_slot|mark_\w+|wait_idle|is_all_read|wake|jobs_to_read)"
    r"|VectorSource\.recent|Intake\.(fatal|wait_idle)|DescribeStage\.prepare"
    r"|InProcessEncoder\.embed_texts|vector_fields|region_fields|PromptRefresh\.is_due"
)


def test_one_picture_goes_the_way_that_the_page_says(
    context: IndexContext, root: Root, settings: Settings
):
    entered: list[str] = []
    lock = threading.Lock()

    def note(frame: FrameType, event: str, _argument: object) -> None:
        code = frame.f_code
        if event != "call" or code.co_filename not in FLOW_FILES:
            return
        name = code.co_qualname
        is_private = any(part.startswith(("_", "<")) for part in name.split("."))
        if not is_private and not HELPERS.fullmatch(name):
            with lock:
                entered.append(name)

    # Of threads that begin from now on.
    threading.setprofile(note)
    try:
        traced = Indexer(context, [root], settings)
        try:
            time.sleep(0.5)  # its threads wait in their queues
            sys.setprofile(note)
            entered.clear()
            traced.pipeline.submit(Change(root, "red.png", time.time()))
            assert traced.pipeline.wait_idle(PATIENCE_SECONDS)
            found = list(entered)
        finally:
            sys.setprofile(None)
            traced.pipeline.close()
    finally:
        threading.setprofile(None)  # type: ignore[arg-type]
    assert list(dict.fromkeys(found)) == page()
    assert traced.counts.embedded == 1
    assert len(page()) == 18
