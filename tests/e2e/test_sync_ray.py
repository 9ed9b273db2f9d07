"""`sync --engine ray`: actors of a real Ray, a real Elasticsearch, real kills."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from es_imgsearch.cli import main
from es_imgsearch.elastic.client import connect
from es_imgsearch.elastic.mapping import VECTOR_FIELD
from es_imgsearch.elastic.store import Store
from es_imgsearch.errors import EngineStalled, SettingsError
from es_imgsearch.pipeline.engines.intake import Intake
from es_imgsearch.pipeline.indexer import Indexer
from es_imgsearch.pipeline.sync import sync
from es_imgsearch.settings import Settings
from es_imgsearch.testing import remove_index
from es_imgsearch.watch.given_roots import parse_roots
from tests.support.encoder_hooks import HANGS, KILLS
from tests.support.house import House, pixels, until
from tests.support.noting_encoder import NotingEncoder, digest
from tests.support.processes import gone
from tests.support.s3_server import Bucket, house_of, png

pytestmark = pytest.mark.process

COMMAND = str(Path(sys.executable).parent / "es-imgsearch")

# Fields that differ between two runs of the same engine.
OF_A_RUN = {"indexed_at", "ingest_lag_ms", "embed_ms", "failed_at"}


@pytest.fixture(scope="module")
def ray_here() -> Iterator[Any]:
    """Ray on this machine, for all tests of the module."""
    from es_imgsearch.pipeline.engines.cluster import connected

    with connected(None) as ray:
        yield ray


@pytest.fixture
def spread(real_store: Store, settings: Settings, tmp_path: Path) -> House:
    """A house whose encoder notes what it embeds."""
    house = House(real_store, settings, tmp_path)
    house.encoder = NotingEncoder(tmp_path / "noted")
    return house


@pytest.fixture
def other_store(settings: Settings) -> Iterator[Store]:
    """A second index, of the local engine."""
    given = settings.model_copy(update={"index": f"t-{uuid.uuid4().hex[:12]}"})
    store = Store(connect(given), given.index)
    yield store
    remove_index(store)
    store.connection.client.close()


def on_ray(house: House, actors: int = 2, **given) -> Indexer:
    """An indexer on Ray; several actors share a core, since a machine of CI has two."""
    from es_imgsearch.pipeline.engines.spread import SpreadPipeline

    roots = parse_roots([str(folder) for folder in house.folders])
    engine: Callable[..., Intake] = partial(SpreadPipeline, roots=roots, encoder=house.encoder)
    return house.indexer(engine=engine, **{"workers": actors, "ray_cpus": 0.5, **given})


def synced(house: House, actors: int = 2, **given) -> Indexer:
    indexer = on_ray(house, actors, **given)
    try:
        sync(indexer)
        return indexer
    finally:
        indexer.pipeline.close()


class Syncing:
    """A sync in a thread."""

    def __init__(self, indexer: Indexer) -> None:
        self.indexer = indexer
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            sync(self.indexer)
        except BaseException as error:  # noqa: BLE001 - raised by `join`
            self.error = error

    def join(self) -> None:
        self._thread.join(60)
        assert not self._thread.is_alive()
        self.indexer.pipeline.close()
        if self.error is not None:
            raise self.error


def everything(store: Store) -> tuple[dict[str, dict], dict[str, dict], dict[str, np.ndarray]]:
    """All documents, all failures, and the vectors, by id."""
    store.refresh()

    def of(name: str) -> dict[str, dict]:
        body = {"size": 10_000, "docvalue_fields": [VECTOR_FIELD]}
        hits = store.connection.request("POST", f"/{name}/_search", body)["hits"]["hits"]
        return {each["_id"]: each for each in hits}

    documents, failures = of(store.index), of(store.connection.failures)
    vectors = {name: np.ravel(each["fields"][VECTOR_FIELD]) for name, each in documents.items()}
    return _sources(documents), _sources(failures), vectors


def _sources(hits: dict[str, dict]) -> dict[str, dict]:
    return {
        name: {
            field: value
            for field, value in each["_source"].items()
            if field not in OF_A_RUN and field != VECTOR_FIELD
        }
        for name, each in hits.items()
    }


def embedded_of(house: House, seeds: Iterable[int]) -> Counter[str]:
    """How often each of these pictures was embedded, without the examples of a warm-up."""
    noted = house.encoder.noted()
    names = {digest(pixels(seed)) for seed in seeds}
    return Counter({name: number for name, number in noted.items() if name in names})


def solid(path: Path, colour: tuple[int, int, int]) -> None:
    Image.new("RGB", (32, 32), colour).save(path, format="png")


# -- as the local engine ---------------------------------------------------------------------


def mixed_tree(house: House) -> None:
    """Pictures of odd names, copies, broken files, sidecars, and what is no picture."""
    names = [
        "#1.png",
        "a b/100%.png",
        "a-b.png",
        "a/b.png",
        "ä/ö.png",
        "\U0001f408.png",
        "[x]*.png",
    ]
    names += ["line\nend.png", " blank .png", "-v.png", os.fsdecode(b"latin\xe9.png"), "no-suffix"]
    for seed, name in enumerate(names):
        house.picture(name, seed)
    house.pictures(30, "many")
    (house.folder / "copies").mkdir()
    for number in range(4):
        shutil.copy(house.folder / "many" / "003.png", house.folder / "copies" / f"{number}.png")
    whole = (house.folder / "a-b.png").read_bytes()
    (house.folder / "cut.png").write_bytes(whole[: len(whole) // 2])
    (house.folder / "empty.jpg").touch()
    (house.folder / "broken.jpg").write_bytes(b"\xff\xd8\xff no picture")
    (house.folder / "notes.txt").write_text("no picture")
    (house.folder / "text-named.png").write_text("no picture either")
    (house.folder / "many" / "004.json").write_text('{"title": "Four", "description": "of many"}')
    Image.new("RGB", (9, 5), "teal").save(house.folder / "tiny.gif")
    (house.folder / "link.png").symlink_to(house.folder / "a-b.png")


def changed_tree(house: House) -> None:
    """Move, change, touch, remove and add files."""
    many = house.folder / "many"
    (many / "001.png").rename(house.folder / "moved.png")
    (many / "002.png").rename(house.folder / "a" / "002.png")
    house.picture("many/005.png", 500)
    house.picture("many/003.png", 501)  # its copies keep its vector
    (many / "006.png").chmod(0o600)
    (many / "007.png").unlink()
    (house.folder / "empty.jpg").unlink()
    (house.folder / "broken.jpg").write_bytes((many / "008.png").read_bytes())
    (many / "009.png").write_bytes(b"broken since")
    (many / "004.json").write_text('{"title": "Four again"}')
    (many / "010.json").write_text('{"title": "Ten"}')
    # Two change places.
    (many / "011.png").rename(many / "x")
    (many / "012.png").rename(many / "011.png")
    (many / "x").rename(many / "012.png")
    house.pictures(3, "new")


def churn(house: House, seed: int) -> None:
    """Change files at random."""
    some = random.Random(seed)
    for number in range(12):
        there = sorted(path for path in house.folder.rglob("*.png") if path.is_file())
        path = some.choice(there)
        match some.randrange(5):
            case 0:
                path.rename(path.with_name(f"r{seed}-{number}.png"))
            case 1:
                shutil.copy(path, house.folder / f"c{seed}-{number}.png")
            case 2:
                path.write_bytes(path.read_bytes()[: some.randrange(60)])
            case 3:
                path.unlink()
            case _:
                house.picture(f"n{seed}-{number}.png", 1000 * seed + number)


@pytest.mark.slow
def test_ids_vectors_failures_and_fields_are_those_of_the_local_engine(
    ray_here: object, spread: House, other_store: Store, settings: Settings, tmp_path: Path
):
    local = House(other_store, settings.model_copy(update={"index": other_store.index}), tmp_path)
    steps: Sequence[Callable[[House], None]] = [mixed_tree, changed_tree, partial(churn, seed=1)]
    for step in steps:
        step(spread)
        here, there = local.synced(), synced(spread)
        assert_alike(local, spread)
        for name in ("failed", "deleted", "moved", "unreadable", "not_pictures", "stored"):
            assert getattr(here.counts, name) == getattr(there.counts, name), (step, name)
        assert there.last_comparisons["r"].left_out == here.last_comparisons["r"].left_out


def assert_alike(local: House, spread: House) -> None:
    documents, failures, vectors = everything(local.store)
    found, failed, found_vectors = everything(spread.store)
    assert len(documents) > 30
    assert found == documents
    assert failed == failures
    for name, vector in vectors.items():
        other = found_vectors[name]
        cosine = vector @ other / np.linalg.norm(vector) / np.linalg.norm(other)
        assert cosine >= 0.9999


@pytest.mark.slow
def test_four_actors_share_blocks_and_costs_are_added(ray_here: object, spread: House):
    spread.pictures(450)
    indexer = synced(spread, actors=4)
    assert indexer.counts.embedded == 450
    assert spread.differing() == []
    assert len(spread.encoder.processes()) == 4
    assert set(embedded_of(spread, range(450)).values()) == {1}
    costs = indexer.pipeline.activity.costs()
    assert (costs.pictures, costs.reading > 0, bool(costs.describers)) == (450, True, True)


@pytest.mark.slow
def test_a_prefix_of_a_bucket(ray_here: object, spread: House, bucket: Bucket):
    house_of(bucket, spread)
    for seed in range(20):
        bucket.put(f"r/{seed:02}.png", png(seed))
    bucket.put("r/copy.png", png(0))
    bucket.put("r/broken.png", b"no picture")
    indexer = synced(spread)
    assert (indexer.counts.stored, indexer.counts.failed) == (21, 1)
    assert len(spread.indexed()) == 21
    # One request for each: the listing has told their state.
    assert len(bucket.read()) == 22
    bucket.put("r/new/name.png", png(3))
    bucket.delete("r/03.png")
    again = synced(spread)
    assert (again.counts.embedded, again.counts.moved) == (0, 1)


# -- what ends on the way --------------------------------------------------------------------


@pytest.mark.slow
def test_an_actor_is_killed_and_nothing_that_was_acknowledged_is_embedded_again(
    ray_here: object, spread: House, tmp_path: Path
):
    spread.encoder = NotingEncoder(tmp_path / "noted", gate_after=24)
    spread.pictures(120)
    indexer = on_ray(spread)
    syncing = Syncing(indexer)
    until(lambda: indexer.counts.embedded >= 32 or syncing.error)
    before, acknowledged = spread.encoder.noted(), list(spread.indexed())
    assert len(acknowledged) >= 32
    killed = int(indexer.pipeline.actors.processes[0].split()[0])
    os.kill(killed, signal.SIGKILL)
    assert gone(killed)
    (tmp_path / "noted" / "go").touch()
    syncing.join()
    assert spread.differing() == []
    assert indexer.counts.stored == 120
    done = {int(path.removesuffix(".png")) for _, path in acknowledged}
    assert not embedded_of(spread, done) - before
    assert embedded_of(spread, range(120)).keys() >= {digest(pixels(seed)) for seed in range(120)}
    assert killed not in {int(each.split()[0]) for each in indexer.pipeline.actors.processes}


@pytest.mark.slow
def test_a_picture_that_ends_actors_becomes_a_failure_and_all_others_are_indexed(
    ray_here: object, spread: House
):
    spread.pictures(20)
    solid(spread.folder / "bad.png", KILLS)
    indexer = synced(spread, actors=1, batch_size=4)
    (failure,) = everything(spread.store)[1].values()
    assert (failure["relative_path"], failure["error_class"]) == ("bad.png", "embed_failed")
    # What an actor wrote just before it ended is not embedded again: its vector is stored.
    assert (indexer.counts.stored, indexer.counts.failed) == (20, 1)
    assert len(spread.indexed()) == 20
    # It is no picture to try again and again.
    assert synced(spread).pipeline.actors is None


@pytest.mark.slow
def test_reading_processes_of_actors_are_killed(ray_here: object, spread: House, tmp_path: Path):
    spread.encoder = NotingEncoder(tmp_path / "noted", gate_after=24)
    spread.pictures(80)
    indexer = on_ray(spread, actors=1)
    syncing = Syncing(indexer)
    until(lambda: indexer.counts.embedded >= 8 or syncing.error)
    readers = [
        reader
        for actor in indexer.pipeline.actors.processes
        for reader in children(int(actor.split()[0]))
        if b"spawn_main" in command_line(reader)
    ]
    assert readers
    for each in readers:
        os.kill(each, signal.SIGKILL)
    (tmp_path / "noted" / "go").touch()
    syncing.join()
    assert spread.differing() == []
    assert set(embedded_of(spread, range(80)).values()) == {1}


def children(pid: int) -> list[int]:
    """The processes that a process has started."""
    return [
        int(child)
        for task in Path(f"/proc/{pid}/task").iterdir()
        for child in (task / "children").read_text().split()
    ]


def descendants(pid: int) -> list[int]:
    return [each for child in children(pid) for each in (child, *descendants(child))]


@pytest.mark.slow
def test_actors_that_do_nothing_any_more_end_the_run_with_an_error(ray_here: object, spread: House):
    spread.pictures(3)
    solid(spread.folder / "hangs.png", HANGS)
    with pytest.raises(EngineStalled, match=r"Nothing was indexed for 0\.2 minutes"):
        synced(spread, actors=1, ray_stall_minutes=0.2, batch_size=1)


@pytest.mark.slow
def test_the_command_is_killed_and_the_next_run_embeds_only_what_is_missing(
    ray_here: object, settings: Settings, real_store: Store, tmp_path: Path
):
    """The whole command, with a Ray and a model of its own, and a password to hide."""
    folder, secret = tmp_path / "r", "s3cr3t-of-this-test"
    folder.mkdir()
    for seed in range(200):
        Image.fromarray(pixels(seed)).save(folder / f"{seed:03}.png")
    url = settings.es_url.replace("://", f"://elastic:{secret}@")
    environment = {**os.environ, "ES_URL": url, "ES_IMGSEARCH_INDEX": settings.index}
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_MODE"):
        environment.pop(name, None)
    command(environment, "init", "--encoder", "starter")
    arguments = ["sync", str(folder), "--engine", "ray", "--workers", "1"]
    running = subprocess.Popen(
        [COMMAND, *arguments], env=environment, stderr=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        until(lambda: stored(real_store) >= 8 or running.poll() is not None, 90)
        assert running.poll() is None
        own = descendants(running.pid)
        shown = b"".join(command_line(each) for each in [*own, running.pid])
    finally:
        running.kill()
        said = b"".join(running.communicate(timeout=30))
    assert secret.encode() not in shown + said
    # Ray's processes end with it.
    assert len(own) > 5
    assert [each for each in own if not gone(each)] == []
    acknowledged = stored(real_store)
    assert 8 <= acknowledged < 200
    result = command(environment, *arguments, "--json")
    assert f'"embedded": {200 - acknowledged},' in result
    assert stored(real_store) == 200


def command(environment: dict[str, str], *arguments: str) -> str:
    done = subprocess.run(
        [COMMAND, *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def stored(store: Store) -> int:
    store.refresh()
    return store.listings.count()


def command_line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


@pytest.mark.slow
@pytest.mark.parametrize("given", [{"ray_gpus": 1.0}, {"ray_cpus": 64.0}, {"workers": 60}])
def test_a_cluster_without_room_is_a_line(ray_here: object, spread: House, given: dict[str, Any]):
    spread.pictures(1)
    with pytest.raises(SettingsError, match="has room for"):
        synced(spread, **given)
    assert len(spread.indexed()) == 0


# -- what cannot be --------------------------------------------------------------------------


def refused(*arguments: str) -> Result:
    return CliRunner().invoke(main, [*arguments, "--es-url", "http://127.0.0.1:1"])


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("127.0.0.1:1", "No Ray answers"),
        ("nobody.invalid:6379", "No Ray answers"),
        ("[::1]:1", "No Ray answers"),
        ("." * 300 + ":1", "No Ray answers"),
        ("auto", "is no address"),
        ("local", "is no address"),
        ("127.0.0.1", "is no address"),
        ("127.0.0.1:0", "is no address"),
        ("127.0.0.1:65536", "is no address"),
        ("127.0.0.1:٣", "is no address"),
        ("ray://127.0.0.1:10001", "is no address"),
        ("user:password@host:1", "is no address"),
        (":6379", "is no address"),
        (" 127.0.0.1:6379", "is no address"),
        ("", "is no address"),
    ],
)
def test_an_address_of_nobody_is_a_line(address: str, words: str, tmp_path: Path):
    result = refused("sync", str(tmp_path), "--engine", "ray", "--ray-address", address)
    assert (result.exit_code, result.stdout) == (2, "")
    assert words in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert "password" not in result.stderr


def test_an_address_without_the_engine_is_a_line(tmp_path: Path):
    result = refused("sync", str(tmp_path), "--ray-address", "127.0.0.1:6379")
    assert result.exit_code == 2
    assert "add --engine ray" in result.stderr
    # As it says.
    result = refused("sync", str(tmp_path), "--ray-address", "127.0.0.1:1", "--engine", "ray")
    assert "No Ray answers" in result.stderr


@pytest.mark.parametrize("engine", ["ray", "local"])
def test_watch_runs_in_one_process(engine: str, tmp_path: Path):
    result = refused("watch", str(tmp_path), "--engine", engine, "--index", "x")
    assert result.exit_code == 2
    assert "sync --engine ray --index x" in result.stderr


def test_without_ray_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    result = refused("sync", str(tmp_path), "--engine", "ray")
    assert result.exit_code == 2
    assert result.stderr == "Error: --engine ray needs Ray: pip install 'es-imgsearch[ray]'.\n"


def test_a_server_that_is_not_ray_is_a_line(es_url: str, tmp_path: Path):
    """Ray itself would wait for minutes."""
    address = es_url.partition("://")[2]
    result = refused("sync", str(tmp_path), "--engine", "ray", "--ray-address", address)
    assert result.exit_code == 2
    assert "something else does" in result.stderr
