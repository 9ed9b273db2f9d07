"""A service under attack and in trouble: probes, tokens, costs, uploads that wait."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from html import unescape
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import httpx
import pytest
from fastapi.testclient import TestClient
from PIL import Image
from playwright.sync_api import Browser, sync_playwright

from es_imgsearch.records import image_id
from es_imgsearch.serve.app import create_app
from es_imgsearch.serve.query_pictures import QueryPictures, _Turns
from es_imgsearch.serve.service import SearchService
from es_imgsearch.serve.thumbnails import PictureFiles
from es_imgsearch.serve.tokens import COOKIE, KnownTokens, new_token
from es_imgsearch.serve.traffic.rate_limit import RefusedTokens
from es_imgsearch.serve.traffic.served_search import ServedSearch
from es_imgsearch.testing import FakeEncoder
from tests.support import serving
from tests.support.browser import chromium_path
from tests.support.gallery import served as running
from tests.support.house import House, Proxy, house_of_module, until
from tests.support.serving import ADDRESS, problem

pytestmark = [pytest.mark.es, pytest.mark.process]


@pytest.fixture(scope="module")
def house(es_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with house_of_module(es_url, tmp_path_factory.mktemp("guarded")) as house:
        house.pictures(3)
        house.synced()
        house.store.refresh()
        yield house


def served(house: House, tmp_path: Path, **options: Any) -> AbstractContextManager[TestClient]:
    """The service, whose redirects are not followed."""
    return serving.served(house, FakeEncoder(), tmp_path, follow_redirects=False, **options)


# -- Probes


def test_probes_of_a_hung_elasticsearch_take_no_thread_of_searches(
    house: House, tmp_path: Path, proxy: Proxy
) -> None:
    """120 probes held all 100 threads, and no search was answered."""
    settings = house.settings.model_copy(
        update={"es_url": f"http://127.0.0.1:{proxy.port}", "request_timeout_seconds": 20.0}
    )
    near = ServedSearch(house.settings, FakeEncoder())
    service = SearchService(house.settings, near)
    away = SearchService(settings, ServedSearch(settings, FakeEncoder()))
    service.is_ready = away.is_ready  # type: ignore[method-assign]
    app = create_app(PictureFiles(house.store, house.settings, tmp_path), service)
    with (
        TestClient(app, base_url=ADDRESS, raise_server_exceptions=False) as client,
        ThreadPoolExecutor(121) as threads,
    ):
        client.get("/readyz")
        proxy.hold()
        probes = [threads.submit(client.get, "/readyz") for _ in range(120)]
        search = threads.submit(client.get, "/api/v1/search?q=red&k=1")
        until(lambda: search.done(), 15)
        assert search.result().status_code == 200
        # Before the request to Elasticsearch itself is given up.
        for each in probes:
            answer = each.result(15)
            assert "Elasticsearch has not answered for 5 s" in problem(answer, 503)
            assert int(answer.headers["retry-after"]) > 0
        proxy.let_go()
        until(lambda: client.get("/readyz").status_code == 200)
    away.close()


# -- Tokens


def statuses(client: TestClient, *tokens: str) -> list[int]:
    """Of the API with each token, by header and by cookie, which must be the same."""
    found = []
    for each in tokens:
        by_header = client.get("/api/v1/status", headers={"authorization": f"Bearer {each}"})
        by_cookie = client.get("/api/v1/status", headers={"cookie": f"{COOKIE}_8080={each}"})
        assert by_header.status_code == by_cookie.status_code
        found.append(by_header.status_code)
    return found


def replaced(file: Path, text: str) -> None:
    """As editors and configuration management write it."""
    other = file.with_suffix(".new")
    other.write_text(text)
    other.replace(file)


def test_tokens_are_those_of_the_file_as_it_is_now(
    house: House, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "tokens"
    first, second = new_token(file), new_token(file)
    lines = file.read_text().splitlines(keepends=True)
    monkeypatch.setattr("es_imgsearch.serve.tokens._LOOKED_AT_SECONDS", 0.0)
    with served(house, tmp_path / "cache", token_file=file) as client:
        assert statuses(client, first, second) == [200, 200]
        replaced(file, lines[1])
        assert statuses(client, first, second) == [401, 200]
        third = new_token(file)
        assert statuses(client, first, second, third) == [401, 200, 200]
        # Of the same size, and with the mtime of before.
        before = file.stat()
        file.write_text(lines[0] + file.read_text().splitlines(keepends=True)[1])
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
        assert statuses(client, first, second, third) == [200, 401, 200]
        for broken in (b"sha256:12", b"\xff\xfe", first.encode(), None):
            caplog.clear()
            if broken is None:
                file.unlink()
            else:
                file.write_bytes(broken)
            assert statuses(client, first, second, third) == [200, 401, 200]
            (said,) = caplog.messages
            assert said.startswith("The tokens of before stay in use: ")
            assert str(file) in said
            assert first not in said
        caplog.clear()
        # The last one was taken out.
        for emptied in ("", "\n# nobody\n"):
            file.write_text(emptied)
            assert statuses(client, first, second, third) == [401, 401, 401]
        (said,) = caplog.messages
        assert said.startswith("Nobody is let in: ")
        file.write_text("".join(lines))
        assert statuses(client, first, second, third) == [200, 200, 401]


def test_the_file_is_looked_at_once_a_second(tmp_path: Path) -> None:
    now = 0.0
    first = new_token(tmp_path / "tokens")
    tokens = KnownTokens(file=tmp_path / "tokens", clock=lambda: now)
    second = new_token(tmp_path / "tokens")
    assert [tokens.has(each) for each in (first, second)] == [True, False]
    now = 0.99
    assert not tokens.has(second)
    now = 1.0
    assert tokens.has(second)


@pytest.mark.parametrize("asked", [
    {"authorization": "Bearer wrong"}, {"authorization": "Basic wrong"}, {},
    {"cookie": f"{COOKIE}_8080=wrong"}, {"cookie": f"{COOKIE}=wrong"},
    {"cookie": f"{COOKIE}_8080=wrong", "accept": "text/html"}, {"authorization": "Bearer "},
])  # fmt: skip
def test_an_address_that_sends_many_wrong_tokens(
    house: House, tmp_path: Path, asked: dict[str, str]
) -> None:
    token = new_token(tmp_path / "tokens")
    with served(
        house, tmp_path / "cache", token_file=tmp_path / "tokens", rate_limit="none"
    ) as client:
        client.headers.update({"accept": "*/*"})
        found = [client.get("/api/v1/status", headers=asked) for _ in range(102)]
        assert {each.status_code for each in found[:100]} == {303 if "accept" in asked else 401}
        for each in found[100:]:
            assert "100 per 1 minute came without a token" in problem(each, 429)
            assert 0 < int(each.headers["retry-after"]) <= 60
        # What is right, is let in; signing in is possible, and guessing there is not.
        right = {"authorization": f"Bearer {token}"}
        assert client.get("/api/v1/status", headers=right).status_code == 200
        assert client.post("/login", data={"token": token}).status_code == 303
        client.cookies.clear()
        refused = client.post("/login", data={"token": "wrong"})
        assert refused.status_code == 429
        assert int(refused.headers["retry-after"]) > 0
        assert client.get("/healthz").status_code == 200
        assert client.get("/login").status_code == 200
        other = TestClient(client.app, base_url=ADDRESS, client=("192.0.2.8", 1))
        assert other.get("/api/v1/status", headers=asked).status_code in {200, 401}
        assert other.get("/api/v1/status", headers=right).status_code == 200


@pytest.mark.parametrize(
    ("one", "other", "together"),
    [
        ("2001:db8::1", "2001:db8::2", True), ("2001:db8:0:1::1", "2001:db8:0:2::1", False),
        ("::ffff:192.0.2.1", "192.0.2.1", True), ("192.0.2.1", "192.0.2.2", False),
        ("127.0.0.1", "::1", True),
    ],
)  # fmt: skip
def test_wrong_tokens_are_counted_by_address(one: str, other: str, together: bool) -> None:
    refused = RefusedTokens()
    assert not any(refused.count({"client": (one, n)}) for n in range(100))
    assert (refused.count({"client": (other, 1)}) is not None) == together


# -- The cookie


@pytest.mark.parametrize(
    ("host", "root_path", "name"),
    [
        ("photos.example", "", COOKIE), ("photos.example:8080", "", f"{COOKIE}_8080"),
        ("photos.example:8081", "", f"{COOKIE}_8081"), ("[::1]:8080", "", f"{COOKIE}_8080"),
        ("[::1]", "", COOKIE), ("127.0.0.1:80", "/a", f"{COOKIE}_80!a"),
        ("photos.example", "/pictures", f"{COOKIE}!pictures"),
        ("photos.example", "/pictures/all", f"{COOKIE}!pictures!all"),
        ("photos.example:8080", "/a-b.c~d", f"{COOKIE}_8080!a-b.c~d"),
        ("photos.example:x", "", COOKIE),
    ],
)  # fmt: skip
def test_the_name_of_the_cookie(
    house: House, tmp_path: Path, host: str, root_path: str, name: str
) -> None:
    token = new_token(tmp_path / "tokens")
    files = PictureFiles(house.store, house.settings, tmp_path / "cache")
    service = SearchService(house.settings, ServedSearch(house.settings, FakeEncoder()))
    app = create_app(
        files, service, token_file=tmp_path / "tokens", root_path=root_path,
        hosts=["photos.example"],
    )  # fmt: skip
    headers = {"host": host}
    with TestClient(app, base_url=ADDRESS, follow_redirects=False) as client:
        answer = client.post(f"{root_path}/login", data={"token": token}, headers=headers)
        given, *rest = answer.headers["set-cookie"].split("; ")
        assert given == f"{name}={token}"
        assert f"Path={root_path or '/'}" in rest
        client.cookies.clear()
        headers["cookie"] = f"{given}; {COOKIE}_1=wrong; {COOKIE}!b=wrong"
        assert client.get(f"{root_path}/api/v1/status", headers=headers).status_code == 200
        # That of another service on the host, and of the one before this version.
        headers["cookie"] = f"{COOKIE}_9999={token}"
        assert client.get(f"{root_path}/api/v1/status", headers=headers).status_code == 401
        headers["cookie"] = f"{COOKIE}={token}; {name}x=wrong"
        assert client.get(f"{root_path}/api/v1/status", headers=headers).status_code == 200
        out = client.post(f"{root_path}/logout", headers=headers).headers.get_list("set-cookie")
        assert {each.partition("=")[0] for each in out} == {name, COOKIE}


def test_two_services_on_one_host_do_not_sign_each_other_out(house: House, tmp_path: Path) -> None:
    # A browser keeps cookies of a host, whatever the port.
    kept: dict[str, str] = {}

    def ask(client: TestClient, method: str, path: str, **given: Any) -> int:
        cookie = "; ".join(f"{name}={value}" for name, value in kept.items())
        answer = client.request(method, path, headers={"cookie": cookie}, **given)
        client.cookies.clear()
        for each in answer.headers.get_list("set-cookie"):
            name, _, value = each.partition(";")[0].partition("=")
            kept.pop(name, None)
            kept.update({} if "Max-Age=0" in each else {name: value})
        return answer.status_code

    made = []
    for port in (8080, 8081):
        token = new_token(tmp_path / f"tokens{port}")
        files = PictureFiles(house.store, house.settings, tmp_path / "cache")
        service = SearchService(house.settings, ServedSearch(house.settings, FakeEncoder()))
        app = create_app(files, service, token_file=tmp_path / f"tokens{port}")
        client = TestClient(app, base_url=f"http://127.0.0.1:{port}", follow_redirects=False)
        assert ask(client, "POST", "/login", data={"token": token}) == 303
        made.append(client)
    assert [ask(each, "GET", "/api/v1/status") for each in made] == [200, 200]
    ask(made[1], "POST", "/logout")
    assert [ask(each, "GET", "/api/v1/status") for each in made] == [200, 401]


# -- A link of another site


def refreshed(answer: httpx.Response) -> str:
    """Where the page has the browser go at once, or ""."""
    found = re.search(r'<meta http-equiv="refresh" content="0; url=([^"]*)"', answer.text)
    return unescape(found[1]) if found else ""


HTML = {"accept": "text/html", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}


@pytest.mark.parametrize("site", ["cross-site", "odd", None])
@pytest.mark.parametrize("path", ["/?q=a+cat&filter=folder:x", "/status", f"/pictures/{'0' * 32}"])
def test_a_link_of_another_site_needs_no_second_sign_in(
    house: House, tmp_path: Path, site: str | None, path: str
) -> None:
    token = new_token(tmp_path / "tokens")
    with served(house, tmp_path / "cache", token_file=tmp_path / "tokens") as client:
        sent = HTML | ({} if site is None else {"sec-fetch-site": site})
        answer = client.get(path, headers=sent)
        assert answer.status_code == 303
        # Neither is the cookie sent along a redirect of that navigation.
        answer = client.get(answer.headers["location"], headers=sent)
        again = refreshed(answer)
        assert (answer.status_code, again[:7]) == (200, "/login?")
        assert 'name="token"' in answer.text
        own = HTML | ({} if site is None else {"sec-fetch-site": "same-origin"})
        # Whoever is not signed in is asked for the token, and no page has itself loaded again.
        answer = client.get(again, headers=own)
        assert answer.status_code == 200
        assert 'name="token"' in answer.text
        assert refreshed(answer) == ""
        wrong = client.get(again, headers=own | {"cookie": f"{COOKIE}_8080=wrong"})
        assert (wrong.status_code, refreshed(wrong)) == (200, "")
        # Who is signed in goes on.
        signed_in = own | {"cookie": f"{COOKIE}_8080={token}"}
        answer = client.get(again, headers=signed_in)
        assert (answer.status_code, answer.headers["location"]) == (303, path)


@pytest.mark.parametrize("site", ["none", "same-origin", "same-site"])
def test_who_comes_by_no_link_is_asked_at_once(house: House, tmp_path: Path, site: str) -> None:
    new_token(tmp_path / "tokens")
    with served(house, tmp_path / "cache", token_file=tmp_path / "tokens") as client:
        answer = client.get("/login?next=/status", headers=HTML | {"sec-fetch-site": site})
        assert 'name="token"' in answer.text
        assert refreshed(answer) == ""


@pytest.mark.parametrize("after", ["//evil.example", "/\\evil.example", "https://evil.example",
                                   "javascript:alert(1)", "\"><script>", "\ud800"])  # fmt: skip
def test_asking_again_leads_to_no_other_site(house: House, tmp_path: Path, after: str) -> None:
    token = new_token(tmp_path / "tokens")
    with served(house, tmp_path / "cache", token_file=tmp_path / "tokens") as client:
        path = f"/login?{urlencode({'next': after}, errors='surrogatepass')}"
        answer = client.get(path, headers=HTML | {"sec-fetch-site": "cross-site"})
        again = refreshed(answer)
        assert again.startswith("/login?next=")
        assert "<script>" not in answer.text
        answer = client.get(again, headers=HTML | {"cookie": f"{COOKIE}_8080={token}"})
        where = httpx.URL(ADDRESS).join(answer.headers["location"].replace("\\", "/"))
        assert (where.host, where.scheme) == ("127.0.0.1", "http")


@pytest.fixture
def browser() -> Iterator[Browser]:
    if chromium_path() is None:
        pytest.skip("Chromium is missing (Debian and Ubuntu: apt install chromium)")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium_path())
        yield browser
        browser.close()


def test_a_link_of_another_site_in_a_browser(
    house: House, tmp_path: Path, browser: Browser
) -> None:
    token = new_token(tmp_path / "tokens")
    files = PictureFiles(house.store, house.settings, tmp_path / "cache")
    service = SearchService(house.settings, ServedSearch(house.settings, FakeEncoder()))
    with running(create_app(files, service, token_file=tmp_path / "tokens")) as site:
        context = browser.new_context(java_script_enabled=False)
        page = context.new_page()
        page.goto(f"{site}/login")
        page.fill("input[name=token]", token)
        page.click("main button")
        page.wait_for_selector("#hits")
        # Another site, as localhost is one beside 127.0.0.1.
        page.route("http://localhost:1/", lambda route: route.fulfill(
            content_type="text/html", body=f'<a href="{site}/?q=red">Pictures</a>'))  # fmt: skip
        page.goto("http://localhost:1/")
        page.click("a")
        page.wait_for_selector("#hits")
        assert page.url == f"{site}/?q=red"
        context.clear_cookies()
        page.goto("http://localhost:1/")
        page.click("a")
        page.wait_for_url(re.compile("again=1"))
        assert page.locator("input[name=token]").count() == 1
        context.close()


# -- What a request costs


def searches(number: int) -> dict[str, Any]:
    return {"json": {"searches": [{"q": "red", "k": 1}] * number}}


def texts(number: int) -> dict[str, Any]:
    return {"json": {"texts": ["red"] * number}}


def pictures(number: int) -> dict[str, Any]:
    stream = io.BytesIO()
    Image.new("RGB", (32, 32), "red").save(stream, "PNG")
    return {"files": [("image", ("a.png", stream.getvalue()))] * number}


@pytest.mark.parametrize(
    ("path", "body", "rate", "sizes", "expected"),
    [
        ("/api/v1/searches", searches, "10/hour", [5, 5, 1], [200, 200, 429]),
        ("/api/v1/searches", searches, "10/hour", [10, 1], [200, 429]),
        # A batch that is refused takes one request, and the others stay.
        ("/api/v1/searches", searches, "10/hour", [6, 5, 3, 1], [200, 429, 200, 429]),
        ("/api/v1/searches", searches, "10/hour", [11, 9, 1], [429, 200, 429]),
        ("/api/v1/searches", searches, "100/hour; 4/minute", [3, 1, 1], [200, 200, 429]),
        ("/api/v1/searches", searches, "none", [100, 100], [200, 200]),
        ("/api/v1/encode", texts, "10/hour", [10, 1], [200, 429]),
        ("/api/v1/encode", texts, "600/hour", [256, 256, 88, 1], [200, 200, 200, 429]),
        ("/api/v1/encode", pictures, "5/hour", [4, 2, 1], [200, 429, 429]),
        ("/api/v1/encode", pictures, "5/hour", [5, 1], [200, 429]),
    ],
)  # fmt: skip
def test_a_request_costs_as_many_as_it_has_queries(
    house: House, tmp_path: Path, path: str, body: Any, rate: str, sizes: list[int],
    expected: list[int],
) -> None:  # fmt: skip
    with served(house, tmp_path, rate_limit=rate) as client:
        answers = [client.post(path, **body(size)) for size in sizes]
        assert [each.status_code for each in answers] == expected
        for each in answers:
            if each.status_code == 429:
                assert 0 < int(each.headers["retry-after"]) <= 3600


def test_a_batch_that_is_too_expensive_says_what_to_send(house: House, tmp_path: Path) -> None:
    with served(house, tmp_path, rate_limit="10/hour") as client:
        said = problem(client.post("/api/v1/searches", **searches(11)), 429)
        assert said.endswith("(10 per 1 hour): send at most 10 in a request.")
        said = problem(client.post("/api/v1/searches", **searches(10)), 429)
        assert "10 queries of this request are more than are left of 10 per 1 hour" in said
    # Programs of this machine are not counted by default.
    with served(house, tmp_path, client=("127.0.0.1", 1)) as client:
        answers = [client.post("/api/v1/searches", **searches(100)) for _ in range(7)]
        assert {each.status_code for each in answers} == {200}


# -- Pictures that wait to be decoded

ROUTES = {
    "search": ("/api/v1/search", {}), "encode": ("/api/v1/encode", {}),
    "examples": ("/api/v1/search-by-examples", {"asked": '{"positive": [{"picture": 0}]}'}),
    "page": ("/queries", {}), "part": ("", {}),
}  # fmt: skip


@contextmanager
def decoding(
    house: House, tmp_path: Path, **bounds: Any
) -> Iterator[tuple[TestClient, QueryPictures]]:
    files = PictureFiles(house.store, house.settings, tmp_path)
    search = ServedSearch(house.settings, FakeEncoder())
    service = SearchService(house.settings, search, originals=files)
    service._pictures = pictures = QueryPictures(house.settings, **bounds)
    with TestClient(
        create_app(files, service), base_url=ADDRESS, follow_redirects=False,
        raise_server_exceptions=False,
    ) as client:  # fmt: skip
        yield client, pictures


def sent(client: TestClient, route: str, number: int = 0) -> httpx.Response:
    """A picture of its own, on one of the routes that decode some."""
    path, fields = ROUTES[route]
    if not path:
        part = {"like": image_id("r", "000.png"), "box": "0,0,9,9"}
        return client.get("/api/v1/search", params=part)
    stream = io.BytesIO()
    Image.new("RGB", (32, 32), (number, 0, 0)).save(stream, "PNG")
    return client.post(path, data=fields, files={"image": ("a.png", stream.getvalue())})


def test_few_pictures_wait_to_be_decoded_and_not_for_long(house: House, tmp_path: Path) -> None:
    with (
        decoding(house, tmp_path, most_waiting=3) as (client, pictures),
        ThreadPoolExecutor(3) as threads,
    ):
        with pictures._turns.taken():
            waiting = [threads.submit(sent, client, "search", n) for n in range(1, 4)]
            until(lambda: pictures._turns._places._value == 0)
            for route in ROUTES:
                refused = sent(client, route)
                assert refused.status_code == 503, route
                assert "Too many pictures wait to be decoded" in refused.text
                assert int(refused.headers["retry-after"]) > 0
            # Words need no decoding.
            assert client.get("/api/v1/search?q=red").status_code == 200
        assert [each.result().status_code for each in waiting] == [200] * 3
        pictures._turns = _Turns(3, wait_seconds=0.1)
        with pictures._turns.taken():
            for route in ROUTES:
                late = sent(client, route)
                assert late.status_code == 503, route
                assert "waited 0.1 s for others to be decoded: send it" in late.text
                assert int(late.headers["retry-after"]) > 0
        for route in ROUTES:
            assert sent(client, route).status_code in {200, 303}, route
        # One that is broken gives its turn back.
        for content in (b"", b"no picture", b"\x89PNG\r\n\x1a\n") * 2:
            answer = client.post("/api/v1/search", files={"image": ("a.png", content)})
            assert answer.status_code == 422
        assert sent(client, "search", 9).status_code == 200
