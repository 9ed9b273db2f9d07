"""Many requests at a service: limits, metrics, the access log, a reverse proxy."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from html import unescape
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import CliRunner
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from es_imgsearch.cli import main
from es_imgsearch.cli.serving.serve import _networks
from es_imgsearch.records import image_id
from es_imgsearch.serve.app import create_app
from es_imgsearch.serve.thumbnails import PictureFiles
from es_imgsearch.serve.tokens import new_token, read_hashes
from es_imgsearch.serve.traffic.access_log import AccessLog
from es_imgsearch.serve.traffic.served_search import ServedSearch
from es_imgsearch.testing import FakeEncoder
from tests.support.house import House, house_of_module, until
from tests.support.serving import ADDRESS, OTHER, problem, served

pytestmark = [pytest.mark.es, pytest.mark.process]

PATIENCE_SECONDS = 40


class SlowEncoder(FakeEncoder):
    """Waits for a gate."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = threading.Event()
        self.gate.set()
        self.calls: list[int] = []

    def embed_texts(self, texts: Sequence[str]) -> Any:
        assert self.gate.wait(PATIENCE_SECONDS)
        self.calls.append(len(texts))
        return super().embed_texts(texts)


@pytest.fixture(scope="module")
def house(es_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with house_of_module(es_url, tmp_path_factory.mktemp("traffic")) as house:
        house.pictures(3)
        house.synced()
        house.store.refresh()
        yield house


@pytest.fixture
def encoder() -> SlowEncoder:
    return SlowEncoder()


def test_searches_at_once_are_few_calls_and_too_many_are_refused(
    house: House, encoder: SlowEncoder, tmp_path: Path
) -> None:
    search = ServedSearch(house.settings, encoder)
    with (
        served(house, encoder, tmp_path, search=search, rate_limit="none") as client,
        ThreadPoolExecutor(66) as threads,
    ):
        encoder.gate.clear()
        encoder.calls.clear()

        def ask(number: int) -> httpx.Response:
            return client.get("/api/v1/search", params={"q": f"rgb({number}, 2, 3)", "k": 1})

        first = threads.submit(ask, 0)
        until(lambda: search.shared._is_encoding)
        asked = [threads.submit(ask, n) for n in range(1, 65)]
        until(lambda: search.shared.waiting == 64)
        refused = ask(65)
        assert "64 queries wait for the model already" in problem(refused, 503)
        assert int(refused.headers["retry-after"]) > 0
        assert client.get("/healthz").status_code == 200
        encoder.gate.set()
        assert {each.result().status_code for each in (first, *asked)} == {200}
        assert encoder.calls == [1, 64]
        assert ask(65).status_code == 200
        # Asked again, it is found.
        ask(65)
        assert encoder.calls == [1, 64, 1]


# -- Rate limit


def test_an_address_that_asks_too_often(house: House, encoder: SlowEncoder, tmp_path: Path) -> None:
    picture = image_id("r", "000.png")
    with served(house, encoder, tmp_path, rate_limit="3/hour") as client:
        for _ in range(3):
            assert client.get("/api/v1/search?q=red").status_code == 200
        for method, path in (
            ("GET", "/api/v1/search?q=red"), ("HEAD", "/api/v1/search?q=red"),
            ("POST", "/api/v1/encode"), ("GET", "/api/v1/status"), ("GET", "/nothing"),
            ("GET", "/openapi.json"),
        ):  # fmt: skip
            answer = client.request(method, path)
            assert answer.status_code == 429, path
            assert 0 < int(answer.headers["retry-after"]) <= 3600
        assert "3 per 1 hour" in problem(client.get("/api/v1/search?q=red"), 429)
        assert answer.headers["x-content-type-options"] == "nosniff"
        # What a monitor asks for; and pictures, which are counted apart, 60 times as many.
        for path in ("/healthz", "/readyz", "/metrics"):
            assert client.get(path).status_code == 200
        statuses = [client.get(f"/thumbnails/{picture}").status_code for _ in range(181)]
        assert statuses == [200] * 180 + [429]


def test_each_token_is_counted_wherever_it_is_sent_from(
    house: House, encoder: SlowEncoder, tmp_path: Path
) -> None:
    tokens = [new_token(tmp_path / "tokens") for _ in range(2)]
    hashes = read_hashes(tmp_path / "tokens")
    with served(house, encoder, tmp_path, rate_limit="2/hour", token_hashes=hashes) as client:
        for token in tokens:
            headers = {"authorization": f"Bearer {token}"}
            statuses = [client.get("/api/v1/status", headers=headers).status_code for _ in range(3)]
            assert statuses == [200, 200, 429]
        assert client.get("/api/v1/status").status_code == 401


@pytest.mark.parametrize(
    ("forwarded", "status"),
    [
        (["198.51.100.1", "198.51.100.1"], 429),
        (["198.51.100.1", "198.51.100.2"], 200),
        (["2001:db8::1", "2001:db8::2"], 429),
        (["2001:db8:0:1::1", "2001:db8:0:2::1"], 200),
        (["::ffff:198.51.100.1", "::ffff:198.51.100.2"], 200),
        (["::ffff:198.51.100.1", "198.51.100.1"], 429),
        (["no address", "no address"], 429),
        (["a", "b"], 200),
    ],
)
@pytest.mark.parametrize("is_trusted", [True, False])
def test_who_is_counted_together(
    house: House,
    encoder: SlowEncoder,
    tmp_path: Path,
    forwarded: Sequence[str],
    status: int,
    is_trusted: bool,
) -> None:
    app: Any = create_app(PictureFiles(house.store, house.settings, tmp_path), rate_limit="1/hour")
    # As uvicorn does with --trust-proxy.
    app = ProxyHeadersMiddleware(app, [OTHER[0]]) if is_trusted else app
    with TestClient(app, base_url=ADDRESS, client=OTHER) as client:
        first, second = (
            client.get("/openapi.json", headers={"x-forwarded-for": each}) for each in forwarded
        )
    assert first.status_code == 200
    assert second.status_code == (status if is_trusted else 429)


@pytest.mark.parametrize(
    ("address", "rate", "last"),
    [
        ("127.0.0.1", None, 200), ("::1", None, 200), ("::ffff:127.0.0.1", None, 200),
        ("192.0.2.1", None, 429), ("192.0.2.1", "none", 200), ("192.0.2.1", "0", 200),
        ("192.0.2.1", "0/minute", 200), ("127.0.0.1", "5/minute", 429),
        ("192.0.2.1", "5/second; 600/minute", 429), ("192.0.2.1", "1000/minute", 200),
    ],
)  # fmt: skip
def test_the_default_leaves_this_machine_alone(
    house: House, tmp_path: Path, address: str, rate: str | None, last: int
) -> None:
    app = create_app(PictureFiles(house.store, house.settings, tmp_path), rate_limit=rate)
    with TestClient(app, base_url=ADDRESS, client=(address, 1)) as client:
        statuses = {client.get("/none").status_code for _ in range(601)}
    assert statuses == {404} if last == 200 else {404, 429}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--rate-limit", "many"], "--rate-limit cannot be 'many': write a number"),
        (["--rate-limit", "600"], "--rate-limit cannot be '600'"),
        (["--rate-limit", "-1/minute"], "--rate-limit cannot be '-1/minute'"),
        (["--rate-limit", "1/fortnight"], "--rate-limit cannot be '1/fortnight'"),
        (["--trust-proxy", "proxy"], "--trust-proxy cannot be 'proxy'"),
        (["--trust-proxy", "*"], "--trust-proxy cannot be '*'"),
        (["--trust-proxy", "10.0.0.1/24"], "has host bits set"),
        (["--trust-proxy", "0.0.0.0/0"], "--trust-proxy cannot be '0.0.0.0/0': everyone in it"),
        (["--trust-proxy", "::/0"], "--trust-proxy cannot be '::/0': everyone in it"),
        (["--trust-proxy", "0::0/0"], "everyone in it"),
        (["--trust-proxy", "0.0.0.0/0.0.0.0"], "everyone in it"),
        (["--trust-proxy", "0.0.0.0/1"], "everyone in it"),
        (["--trust-proxy", "128.0.0.0/1"], "everyone in it"),
        (["--trust-proxy", "8000::/1"], "everyone in it"),
        (["--trust-proxy", "::ffff:0:0/96"], "everyone in it"),
        (["--trust-proxy", "::/8"], "everyone in it"),
        (["--trust-proxy", "127.0.0.1", "--trust-proxy", "0.0.0.0/0"], "everyone in it"),
        (["--root-path", "pictures"], "--root-path cannot be 'pictures'"),
        (["--root-path", "/a?b"], "--root-path cannot be '/a?b'"),
        (["--root-path", "/a//b"], "--root-path cannot be '/a//b'"),
        (["--root-path", "/a/../b"], "--root-path cannot be '/a/../b'"),
        (["--root-path", "/a/."], "--root-path cannot be '/a/.'"),
        (["--root-path", "/ä"], "--root-path cannot be '/ä'"),
        (["--root-path", "https://x.example/a"], "--root-path cannot be 'https://x.example/a'"),
        (["--root-path", "/api/v1"], "--root-path cannot be '/api/v1': /api/v1/"),
        (["--access-log=all"], "'all' is not one of 'plain', 'full'"),
    ],
)
def test_options_that_cannot_be(house: House, given: Sequence[str], said: str) -> None:
    words = ["serve", "--port", "0", "--index", house.settings.index]
    done = CliRunner(env={"ES_URL": house.settings.es_url}).invoke(main, [*words, *given])
    assert done.exit_code == 2, done.output
    assert said in done.stderr


@pytest.mark.parametrize(
    "proxy", ["10.0.0.2", "10.0.0.0/24", "10.0.0.0/8", "::1", "fd00::/8", "192.168.0.0/16"]
)
def test_proxies_that_can_be(proxy: str) -> None:
    assert _networks((proxy,)) == [proxy]


# -- Metrics


def samples(client: TestClient, **headers: str) -> Mapping[tuple[str, ...], float]:
    """Values by name and the values of labels."""
    answer = client.get("/metrics", headers=headers)
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain")
    return {
        (each.name, *each.labels.values()): each.value
        for family in text_string_to_metric_families(answer.text)
        for each in family.samples
    }


def test_metrics_by_route_and_stage(house: House, encoder: SlowEncoder, tmp_path: Path) -> None:
    with served(house, encoder, tmp_path) as client:
        picture = image_id("r", "000.png")
        for path in (
            "/api/v1/search?q=red", "/api/v1/search?q=red", f"/api/v1/images/{picture}",
            f"/thumbnails/{picture}", "/api/v1/search?k=0", "/nothing/here", "/nothing/there",
        ):  # fmt: skip
            client.get(path)
        with (house.folder / "000.png").open("rb") as stream:
            client.post("/api/v1/search", files={"image": stream})
        client.request("BREW", "/api/v1/search")
        found = samples(client)
        counted = {
            (route, method, status): found[name, method, route, status]
            for name, method, route, status in (key for key in found if len(key) == 4)
            if name == "es_imgsearch_http_request_seconds_count" and route != "/readyz"
        }
        assert counted == {
            ("/api/v1/search", "GET", "200"): 2, ("/api/v1/search", "GET", "422"): 1,
            ("/api/v1/search", "POST", "200"): 1, ("/api/v1/search", "other", "405"): 1,
            ("/api/v1/images/{image_id}", "GET", "200"): 1,
            ("/thumbnails/{image_id}", "GET", "200"): 1, ("none", "GET", "404"): 2,
        }  # fmt: skip
        stage = "es_imgsearch_search_stage_seconds"
        assert found[f"{stage}_count", "encode"] == 3
        assert found[f"{stage}_count", "decode"] == 1
        assert found[f"{stage}_count", "elasticsearch"] == found[f"{stage}_count", "total"] == 4
        parts = [found[f"{stage}_sum", each] for each in ("encode", "decode", "elasticsearch")]
        assert all(each > 0 for each in parts)
        assert sum(parts) < found[f"{stage}_sum", "total"]
        # "a picture" of the beginning, red, and the picture.
        assert found["es_imgsearch_encoded_queries_total", "encoded"] == 3
        assert found["es_imgsearch_encoded_queries_total", "kept"] == 1
        assert found["es_imgsearch_model_calls_total",] == 3
        assert found["es_imgsearch_queued_encodings",] == 0


def test_metrics_need_the_token_like_the_rest(
    house: House, encoder: SlowEncoder, tmp_path: Path
) -> None:
    token = new_token(tmp_path / "tokens")
    hashes = read_hashes(tmp_path / "tokens")
    with served(house, encoder, tmp_path, token_hashes=hashes) as client:
        problem(client.get("/metrics"), 401)
        assert samples(client, authorization=f"Bearer {token}")
    # Without tokens other machines may only look at pictures.
    app = create_app(PictureFiles(house.store, house.settings, tmp_path))
    with TestClient(app, base_url=ADDRESS) as client:
        problem(client.get("/metrics"), 404)


# -- Access log

LINE = re.compile(
    r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z (?P<client>\S+) (?P<method>\S+) (?P<target>\S+)"
    r" (?P<status>\d{3}) \d+\.\d ms (?P<bytes>\d+) bytes"
)


def test_a_line_for_each_request_without_what_was_searched(
    house: House, encoder: SlowEncoder, tmp_path: Path
) -> None:
    token = new_token(tmp_path / "tokens")
    hashes = read_hashes(tmp_path / "tokens")
    headers = {"authorization": f"Bearer {token}"}
    lines: dict[str, list[str]] = {}
    requests = [
        ("GET", "/api/v1/search?q=a+secret+cat&k=1", 200),
        ("HEAD", "/api/v1/search?q=a+secret+cat", 200),
        ("GET", f"/thumbnails/{image_id('r', '001.png')}?token={token}&Api_Key=hidden", 200),
        ("GET", "/a%20b%0d%0aforged%20line?q=%22%0a%ff", 404),
        ("DELETE", "/api/v1/search", 405),
        ("GET", "/healthz?", 200),
    ]
    for detail in ("plain", "full"):
        written = lines[detail] = []
        log = AccessLog(written.append, detail)  # type: ignore[arg-type]
        with served(house, encoder, tmp_path, access_log=log, token_hashes=hashes) as client:
            written.clear()
            for method, path, status in requests:
                assert client.request(method, path, headers=headers).status_code == status
        assert len(written) == len(requests)
        for line, (method, path, status) in zip(written, requests, strict=True):
            found = LINE.fullmatch(line)
            assert found is not None, line
            assert (found["client"], found["method"]) == (OTHER[0], method)
            assert found["status"] == str(status)
            assert found["target"].partition("?")[0] == path.partition("?")[0].replace(
                "%0d%0a", "%0D%0A"
            )
            assert token not in line
            assert "hidden" not in line
        assert int(LINE.fullmatch(written[0])["bytes"]) > 100  # type: ignore[index]
        assert LINE.fullmatch(written[1])["bytes"] == "0"  # type: ignore[index]
    assert "secret" not in "".join(lines["plain"])
    assert "?" not in "".join(lines["plain"])
    assert "?q=a+secret+cat&k=1 200" in lines["full"][0]
    assert "?token=...&Api_Key=... 200" in lines["full"][2]


# -- Behind a reverse proxy


class StrippingProxy(httpx.BaseTransport):
    """A reverse proxy that serves the application under a path, which it strips or not."""

    def __init__(self, client: TestClient, path: str, *, strips: bool) -> None:
        self._client, self._path, self._strips = client, path, strips

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        target = request.url.raw_path.decode()
        assert target.startswith(self._path), f"{target} is another site's"
        if self._strips:
            target = "/" + target.removeprefix(self._path).lstrip("/")
        headers = {**request.headers}
        answer = self._client.request(
            request.method, target, headers=headers, content=request.read(), follow_redirects=False
        )
        return httpx.Response(answer.status_code, headers=answer.headers, content=answer.content)


@pytest.mark.parametrize("strips", [True, False])
@pytest.mark.parametrize(
    "path", ["/pictures", "/images", "/api", "/api/v2", "/photos/all", "/a-b.c~d"]
)
def test_under_a_path_of_a_proxy(
    house: House, encoder: SlowEncoder, tmp_path: Path, path: str, strips: bool
) -> None:
    picture = image_id("r", "000.png")
    token = new_token(tmp_path / "tokens")
    hashes = read_hashes(tmp_path / "tokens")
    written: list[str] = []
    with served(
        house, encoder, tmp_path, root_path=f"{path}/", token_hashes=hashes,
        access_log=AccessLog(written.append),
    ) as direct:  # fmt: skip
        transport = StrippingProxy(direct, path, strips=strips)
        with httpx.Client(base_url=f"http://localhost{path}", transport=transport) as browser:
            assert browser.get("/healthz").status_code == 200
            assert browser.get("/images/" + picture).status_code == 401
            browser.headers["authorization"] = f"Bearer {token}"
            assert len(browser.get("/api/v1/search?q=red&k=2").json()["hits"]) == 2
            assert browser.get(f"/thumbnails/{picture}").status_code == 200
            assert browser.get(f"/images/{picture}").status_code == 200
            described = browser.get("/openapi.json").json()
            assert described["servers"] == [{"url": path}]
            # What follows the slash that is too much is under the path, too.
            redirected = browser.get("/api/v1/status/", follow_redirects=True)
            assert redirected.status_code == 200
            assert redirected.url.path == f"{path}/api/v1/status"
            assert "There is nothing at" in problem(browser.get("/nothing/here/at/all"), 404)
            page = browser.get("/?q=red")
            assert page.status_code == 200
            links = [
                unescape(each) for each in re.findall(r'(?:href|src|action)="([^"#]+)', page.text)
            ]
            assert len(links) > 10
            assert [each for each in links if not each.startswith(f"{path}/")] == []
            for each in links:
                if "/static/" in each or "/thumbnails/" in each or "like=" in each:
                    assert browser.get(f"http://localhost{each}").status_code == 200, each
            # A form that sent empty fields, and who has no token, are sent on.
            assert browser.get("/?q=red&not=").headers["location"] == f"{path}/?q=red"
            html = {"accept": "text/html", "authorization": ""}
            assert (
                browser.get("/?q=a", headers=html)
                .headers["location"]
                .startswith(f"{path}/login?next=")
            )
            # Routes are the same, whatever they are under.
            assert 'route="/images/{image_id}"' in browser.get("/metrics").text
    assert any(f" GET /images/{picture} 200" in line for line in written)


def test_without_a_root_path_nothing_is_under_one(
    house: House, encoder: SlowEncoder, tmp_path: Path
) -> None:
    with served(house, encoder, tmp_path) as client:
        assert client.get("/pictures/api/v1/status").status_code == 404
        assert "servers" not in client.get("/openapi.json").json()
