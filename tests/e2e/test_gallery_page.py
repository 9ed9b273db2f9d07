"""The page `/` without a browser: what its links and forms lead to, and who may see it."""

from __future__ import annotations

import io
import re
import uuid
from collections.abc import Iterator
from html import unescape
from pathlib import Path

import numpy as np
import pytest
from fastapi.testclient import TestClient
from httpx import Response
from PIL import Image

from es_imgsearch.elastic.client import connect
from es_imgsearch.elastic.documents import Write
from es_imgsearch.elastic.mapping import new_meta
from es_imgsearch.elastic.store import Store
from es_imgsearch.embed.index_encoder import seal_of
from es_imgsearch.search.client import ImageSearch
from es_imgsearch.serve.app import create_app
from es_imgsearch.serve.page import search_page
from es_imgsearch.serve.page.address import Address
from es_imgsearch.serve.service import SearchService
from es_imgsearch.serve.thumbnails import PictureFiles
from es_imgsearch.serve.tokens import new_token, read_hashes
from es_imgsearch.settings import Settings, load_settings
from es_imgsearch.testing import FakeEncoder, remove_index

pytestmark = [pytest.mark.es, pytest.mark.process]

ADDRESS = "http://127.0.0.1:8080"
COUNT = 130


@pytest.fixture(scope="module")
def settings(es_url: str) -> Iterator[Settings]:
    """130 pictures, of which every tenth has a hostile name."""
    made = load_settings(
        {"es_url": es_url, "index": f"page-{uuid.uuid4().hex[:12]}", "read_workers": 1},
        environment={},
    )
    store = Store(connect(made), made.index)
    encoder = FakeEncoder()
    store.generations.create(new_meta(seal_of(encoder), "exact", "cosine"))
    pictures = np.random.default_rng(5).integers(0, 256, (COUNT, 8, 8, 3), np.uint8)
    writes = []
    for n, vector in enumerate(encoder.embed_images(pictures)):
        name = f"<b>&\"'{n:03}.png" if n % 10 == 0 else f"{n:03}.png"
        fields = {
            "image_id": f"{n:032x}", "image_name": name, "relative_path": f"deep/{n % 2}/{name}",
            "root": "r", "folder": f"deep/{n % 2}", "content_id": f"{n // 2:064x}", "width": 40,
            "height": 30, "format": "png", "tags": ["odd" if n % 2 else "even", "<i>"],
            "taken_local": f"2024-0{1 + n % 9}-01T10:00:00", "image_embedding": vector,
        }  # fmt: skip
        writes.append(Write(f"{n:032x}", document=fields))
    assert set(store.documents.write(writes).values()) == {None}
    store.refresh()
    yield made
    remove_index(store)


def service_of(settings: Settings) -> SearchService:
    return SearchService(settings, ImageSearch(settings=settings, encoder=FakeEncoder()))


@pytest.fixture(scope="module")
def files(settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> PictureFiles:
    store = Store(connect(settings), settings.index)
    return PictureFiles(store, settings, tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def client(settings: Settings, files: PictureFiles) -> Iterator[TestClient]:
    app = create_app(files, service_of(settings), max_body_mb=1)
    with TestClient(app, base_url=ADDRESS, follow_redirects=False) as each:
        yield each


def ids(response: Response) -> list[str]:
    assert response.status_code == 200, response.text
    return re.findall(r'data-id="([0-9a-f]{32})"', response.text)


def links(response: Response) -> list[str]:
    return [unescape(each) for each in re.findall(r'href="(/[^"]*)"', response.text)]


def link(response: Response, label: str) -> str:
    found = re.search(rf'href="([^"]*)"[^>]*(?:aria-label="{label}|>{label}<)', response.text)
    assert found is not None, label
    return unescape(found[1])


def test_the_newest_pictures_come_without_a_question(client: TestClient):
    pages = [client.get("/"), client.get("/?page=2"), client.get("/?page=3")]
    shown = [ids(each) for each in pages]
    assert [len(each) for each in shown] == [60, 60, 10]
    assert len({each for page in shown for each in page}) == COUNT
    assert "2024-09" in client.get("/?sort=newest").text
    assert 'id="more"' in pages[1].text
    assert 'id="more"' not in pages[2].text


def test_words_find_what_the_client_finds(client: TestClient, settings: Settings):
    with ImageSearch(settings=settings, encoder=FakeEncoder()) as search:
        expected = [each.image_id for each in search.search_text("red", k=300, collapse=True)]
    first, second = client.get("/?q=red"), client.get("/?q=red&page=2")
    assert ids(first) + ids(second) == expected
    assert len(expected) == COUNT // 2
    assert ">+1<" in first.text
    assert len(ids(client.get("/?q=red&copies=1"))) == 60
    assert ">+1<" not in client.get("/?q=red&copies=1").text


def test_every_link_of_a_page_leads_somewhere(client: TestClient):
    page = client.get("/?q=red&filter=tags:odd&not=blue")
    own = {each for each in links(page) if each.startswith("/?")}
    assert len(own) > 100
    for each in sorted(own)[:80]:
        assert client.get(each).status_code == 200, each


def test_a_filter_is_added_and_removed_by_links(client: TestClient):
    page = client.get("/?q=red")
    narrowed = client.get(link(page, "odd"))
    assert ids(narrowed)
    assert all(int(each, 16) % 2 for each in ids(narrowed))
    without = client.get(link(page, "not odd"))
    assert all(int(each, 16) % 2 == 0 for each in ids(without))
    assert link(narrowed, "Remove  tags: odd") == "/?q=red"
    crumbs = client.get("/?q=red&filter=root:r&filter=folder:deep/1")
    assert link(crumbs, "deep") == "/?q=red&filter=root:r&filter=folder:deep"
    assert all(int(each, 16) % 2 for each in ids(crumbs))


def test_a_second_value_never_widens_the_search(client: TestClient):
    inside = client.get("/?q=red&filter=folder:deep")
    assert "/?q=red&filter=folder:deep/1" in links(inside)
    assert "/?q=red&filter=folder:deep&filter=folder:deep/1" not in links(inside)
    odd = client.get("/?q=red&filter=tags:odd")
    assert not any("filter=tags:odd&filter=tags:" in each for each in links(odd))
    # What is left out narrows it further.
    assert any("filter=tags:odd&filter=-tags:" in each for each in links(odd))


def test_what_is_sorted_is_as_relevant_as_was_asked(client: TestClient):
    least = "/?q=red&mode=vector&min_relevance=0.01"
    best_first = {*ids(client.get(least)), *ids(client.get(f"{least}&page=2"))}
    newest = {
        *ids(client.get(f"{least}&sort=newest")), *ids(client.get(f"{least}&sort=newest&page=2"))
    }  # fmt: skip
    assert best_first == newest
    assert best_first


def test_pictures_like_all_of_a_page(client: TestClient):
    shown = ids(client.get("/"))
    assert len(shown) == 60
    answer = client.get("/", params=[("like", each) for each in shown])
    assert ids(answer)
    assert answer.text.count("<b>like</b>") == 60


def test_scores_are_shown_on_demand(client: TestClient):
    assert "score 0." not in re.sub(r'title="[^"]*"', "", client.get("/?q=red").text)
    assert len(re.findall(r">score -?\d[.]\d{3}<", client.get("/?q=red&scores=1").text)) == 60


def test_dates_in_words_are_shown_as_what_they_became(client: TestClient):
    page = client.get("/?q=red&when=march+2024")
    assert "(2024-03-01 to 2024-03-31)" in page.text
    assert ids(page)
    assert all(int(each, 16) % 9 == 2 for each in ids(page))


def test_what_a_form_sends_becomes_a_short_address(client: TestClient):
    sent = client.get("/?q=red&not=&filter=&mode=auto&sort=relevance&since=&min_relevance=0")
    assert (sent.status_code, sent.headers["location"]) == (303, "/?q=red")


def test_more_and_less_like_a_picture(client: TestClient):
    page = client.get("/?q=red")
    first = ids(page)[0]
    assert f"/?q=red&like={first}" in links(page)
    assert f"/?q=red&unlike={first}" in links(page)
    similar = ids(client.get(f"/?like={first}"))
    assert similar
    assert first not in similar
    answer = client.get(f"/?unlike={first}")
    assert answer.status_code == 400
    assert "what pictures should be like" in answer.text


def test_names_are_text_wherever_they_stand(client: TestClient):
    for address in ("/", "/?q=red", f"/?like={0:032x}&filter=tags:<i>"):
        text = client.get(address).text
        assert "<b>&" not in text
        assert "<i>" not in text
    assert "&lt;b&gt;&amp;&#34;&#39;" in client.get("/").text


@pytest.mark.parametrize(
    ("address", "status", "words"),
    [
        ("/?mode=best", 400, "mode"),
        ("/?q=red&page=0", 400, "Pages are numbered from 1"),
        ("/?q=red&page=x", 400, "Pages are numbered from 1"),
        ("/?q=red&filter=nonsense", 400, "A filter is written"),
        ("/?q=red&filter=nofield:1", 400, "There is no field"),
        ("/?q=red&since=never", 400, "never"),
        ("/?colour=red", 400, "colour"),
        ("/?image=ffffffff", 404, "send it again"),
        (f"/?like={'f' * 32}", 404, "f" * 32),
        ("/?q=red&min_relevance=7", 400, "min_relevance"),
    ],
)
def test_what_cannot_be_shown_is_a_page_that_says_why(
    client: TestClient, address: str, status: int, words: str
):
    answer = client.get(address)
    assert (answer.status_code, answer.headers["content-type"]) == (
        status, "text/html; charset=utf-8"
    )  # fmt: skip
    assert words in answer.text


def test_a_picture_that_is_sent_has_an_address(client: TestClient):
    stream = io.BytesIO()
    Image.new("RGB", (60, 40), "red").save(stream, "PNG")
    files = {"image": ("x.png", stream.getvalue(), "image/png")}
    sent = client.post("/queries", files=files, data={"filter": "tags:odd", "page": "2"})
    assert sent.status_code == 303
    where = sent.headers["location"]
    assert re.fullmatch(r"/\?filter=tags:odd&image=[0-9a-f]{32}", where)
    page = client.get(where)
    assert all(int(each, 16) % 2 for each in ids(page))
    (shown,) = re.findall(r'src="(/queries/[0-9a-f]{32})" width="60" height="40"', page.text)
    assert Image.open(io.BytesIO(client.get(shown).content)).size == (60, 40)
    box = client.get(f"{where}&box_x=1&box_y=2&box_w=30&box_h=20")
    assert box.headers["location"] == f"{where}&box=1,2,30,20"
    assert ids(client.get(box.headers["location"]))
    assert client.get(f"{where}&box=50,50,30,20").status_code == 422
    half = client.get(f"{where}&box_x=1&box_y=2&box_w=&box_h=", follow_redirects=True)
    assert half.status_code == 400
    assert "fill in all four, or none" in half.text


@pytest.mark.parametrize("content", [b"", b"no picture"])
def test_what_is_no_picture_is_refused_on_a_page(client: TestClient, content: bytes):
    answer = client.post("/queries", files={"image": ("x.png", content, "image/png")})
    assert answer.status_code in {400, 422}
    assert '<p role="alert">' in answer.text
    assert client.post("/queries", data={"q": "x"}).status_code == 400


def test_a_form_of_another_character_set(client: TestClient, tmp_path: Path):
    body = (
        b'--x\r\ncontent-disposition: form-data; name="q"\r\n\r\n+2AA-\r\n'
        b'--x\r\ncontent-disposition: form-data; name="image"; filename="x.png"\r\n\r\n'
        b"no\r\n--x--\r\n"
    )
    kind = "multipart/form-data; boundary=x; charset=utf-7"
    assert client.post("/queries", content=body, headers={"content-type": kind}).status_code == 400


def test_a_page_allows_only_what_comes_from_here(client: TestClient):
    page = client.get("/")
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert not re.search(r"<[^>]*\s(style|on\w+)=", page.text)
    assert not re.search(r"<script(?![^>]*\ssrc=)", page.text)
    assert not re.search(r'(src|href|action)="(?:https?:)?//', page.text)
    (sheet,) = re.findall(r'rel="stylesheet" href="([^"]*style.css)"', page.text)
    assert "immutable" in client.get(sheet).headers["cache-control"]
    assert client.head("/").status_code == 200


def test_a_browser_signs_in_with_a_token(settings: Settings, files: PictureFiles, tmp_path: Path):
    token = new_token(tmp_path / "tokens")
    app = create_app(files, service_of(settings), token_hashes=read_hashes(tmp_path / "tokens"))
    with TestClient(app, base_url=ADDRESS, follow_redirects=False) as client:
        asked = client.get("/?q=red", headers={"accept": "text/html"})
        assert asked.headers["location"] == "/login?next=%2F%3Fq%3Dred"
        assert client.get("/api/v1/status").status_code == 401
        mistaken = client.get("/?q=red&token=abc123", headers={"accept": "text/html"})
        assert "abc123" not in mistaken.headers["location"]
        form = client.get(asked.headers["location"])
        assert form.status_code == 200
        assert client.get(re.findall(r'href="([^"]*style.css)"', form.text)[0]).status_code == 200
        wrong = client.post("/login", data={"token": "x", "next": "/?q=red"})
        assert (wrong.status_code, "set-cookie" in wrong.headers) == (401, False)
        signed = client.post("/login", data={"token": token, "next": "/?q=red"})
        assert (signed.status_code, signed.headers["location"]) == (303, "/?q=red")
        cookie = signed.headers["set-cookie"]
        assert "HttpOnly" in cookie
        assert "SameSite=strict" in cookie
        assert ids(client.get("/?q=red"))
        assert client.get("/api/v1/status").status_code == 200
        for elsewhere in ("//evil.example/", "/\\evil.example", "https://evil.example", "x"):
            sent = client.post("/login", data={"token": token, "next": elsewhere})
            assert sent.headers["location"] == "/"
        assert 'action="/logout"' in client.get("/").text
        client.post("/logout")
        assert client.get("/api/v1/status").status_code == 401


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("tags=odd", "tags:odd"),
        ("tags!=odd", "-tags:odd"),
        ("folder=deep/1", "folder:deep/1"),
        (" tags != odd", "-tags:odd"),
        ("width=30..50", "width:30..50"),
        ("image_name=a:b.png", "image_name:a:b.png"),
        ("image_name:a=b.png", "image_name:a=b.png"),
        ("taken_local=2024-01-01T10:00:00", "taken_local:2024-01-01T10:00:00"),
        ("-tags=odd", "-tags:odd"),
    ],
)
def test_a_filter_is_written_as_on_the_command_line_or_in_the_address(
    client: TestClient, written: str, meant: str
):
    sent = client.get("/", params={"q": "red", "filter": written})
    page = client.get(sent.headers.get("location", sent.url))
    # The chip, the facets and the folder's path know the filter.
    assert ids(page) == ids(client.get("/", params={"q": "red", "filter": meant}))
    name, value = meant.removeprefix("-").split(":", 1)
    assert f"{name}: {value}" in unescape(page.text)
    answers = [
        client.get("/api/v1/search", params={"q": "red", "filter": each, "k": 100}).json()
        for each in (written, meant)
    ]
    assert answers[0]["hits"] == answers[1]["hits"]
    posted = client.post("/api/v1/search", json={"q": "red", "filter": [written], "k": 100})
    assert posted.json()["hits"] == answers[0]["hits"]


def test_words_that_a_picture_is_searched_with_can_be_removed(client: TestClient):
    stream = io.BytesIO()
    Image.new("RGB", (60, 40), "red").save(stream, "PNG")
    sent = client.post(
        "/queries", files={"image": ("x.png", stream.getvalue(), "image/png")}, data={"q": "cat"}
    )
    page = client.get(sent.headers["location"])
    assert "Searched for with the picture: the words “cat”." in page.text
    assert re.search(r"<b>words</b> cat <a", page.text)
    alone = link(page, "Remove words cat")
    assert re.fullmatch(r"/\?image=[0-9a-f]{32}", alone)
    assert "Searched for with" not in client.get(alone).text
    assert "<b>words</b>" not in client.get("/?q=cat").text


@pytest.mark.parametrize("content", [b"", b"words", b"%PDF-1.4", b"PK\x03\x04", b"\x89PNG\r\n"])
def test_a_page_that_sends_a_file_is_told_what_is_wrong(client: TestClient, content: bytes):
    answer = client.post(
        "/queries",
        files={"image": ("x.png", content, "image/png")},
        data={"q": "red"},
        headers={"accept": "application/json"},
    )
    assert answer.status_code in {400, 422}
    assert answer.headers["content-type"] == "application/problem+json"
    assert "picture" in answer.json()["detail"] or "searched with" in answer.json()["detail"]


def test_a_page_that_sends_a_picture_is_told_its_search(client: TestClient):
    stream = io.BytesIO()
    Image.new("RGB", (60, 40), "red").save(stream, "PNG")
    answer = client.post(
        "/queries",
        files={"image": ("x.png", stream.getvalue(), "image/png")},
        data={"q": "red"},
        headers={"accept": "application/json"},
    )
    assert answer.status_code == 201
    assert answer.json()["location"] == answer.headers["location"]
    assert ids(client.get(answer.json()["location"]))


def test_a_file_that_is_no_picture_leaves_the_search_in_reach(client: TestClient):
    stream = io.BytesIO()
    Image.new("RGB", (60, 40), "red").save(stream, "PNG")
    picture = client.post("/queries", files={"image": ("x.png", stream.getvalue(), "image/png")})
    key = picture.headers["location"].partition("image=")[2]
    sent = {"q": "a cat", "not": "dog", "filter": "tags:odd", "image": key, "box": "1,2,30,20"}
    answer = client.post("/queries", files={"image": ("notes.txt", b"no", "text/plain")}, data=sent)
    assert answer.status_code == 422
    assert 'name="q" value="a cat"' in answer.text
    back = link(answer, "Back to the search")
    assert back == f"/?q=a+cat&not=dog&filter=tags:odd&image={key}&box=1,2,30,20"
    # The form of that page sends the same again, and another picture takes the place of this one.
    page = client.get(back)
    form = page.text.partition('id="upload"')[2].partition("</form>")[0]
    fields = re.findall(r'type="hidden" name="([^"]*)" value="([^"]*)"', form)
    assert dict(fields) == sent
    other = io.BytesIO()
    Image.new("RGB", (50, 50), "blue").save(other, "PNG")
    moved = client.post(
        "/queries", files={"image": ("y.png", other.getvalue(), "image/png")}, data=dict(fields)
    )
    assert re.fullmatch(
        r"/\?q=a\+cat&not=dog&filter=tags:odd&image=[0-9a-f]{32}", moved.headers["location"]
    )
    assert key not in moved.headers["location"]


BROWSER = {"accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/nothing", 404),
        ("/picture/1", 404),
        ("/index.html", 404),
        ("/<b>&q=%22", 404),
        (f"/images/{'f' * 32}", 404),
        (f"/thumbnails/{'f' * 32}", 404),
        ("/images/nothing", 422),
        ("/previews/x", 422),
        ("/queries", 405),
        ("/queries/ffff", 404),
        ("/static/nothing.css", 404),
    ],
)
def test_an_address_that_leads_nowhere_is_a_page_for_people(
    client: TestClient, path: str, status: int
):
    shown = client.get(path, headers=BROWSER)
    assert (shown.status_code, shown.headers["content-type"]) == (
        status, "text/html; charset=utf-8"
    )  # fmt: skip
    assert '<p role="alert">' in shown.text
    assert "/api/v1" not in shown.text
    assert "<b>&q" not in shown.text
    assert "/" in links(shown)
    assert "default-src 'none'" in shown.headers["content-security-policy"]
    for accept in ("application/json", "*/*", "image/avif,image/webp,*/*;q=0.8"):
        told = client.get(path, headers={"accept": accept})
        assert (told.status_code, told.headers["content-type"]) == (
            status, "application/problem+json"
        )  # fmt: skip
    assert told.headers.get("allow") == shown.headers.get("allow")


def test_a_refused_search_is_corrected_under_the_names_that_the_form_has(client: TestClient):
    shown = client.get("/?q=cat&when=never&min_relevance=0.5", headers=BROWSER)
    assert shown.status_code == 400
    for label, name, value in (
        ("Words", "q", "cat"),
        ("When", "when", "never"),
        ("Relevance at least", "min_relevance", 0.5),
    ):
        assert f'<label>{label} <input name="{name}" value="{value}"></label>' in shown.text


@pytest.mark.parametrize("path", ["/api/v1/nothing", "/api/v1/search?q=", "/api/v1/images/x"])
def test_the_api_answers_browsers_as_any_client(client: TestClient, path: str):
    told = client.get(path, headers=BROWSER)
    assert told.headers["content-type"] == "application/problem+json"


def test_less_like_a_picture_weighs_less_than_more(client: TestClient):
    def weights(*given: str) -> list[str]:
        address = Address("/", (("q", "red"), *(("unlike", each) for each in given)))
        return search_page.parse_request(address).unlike

    assert weights("a") == ["a^0.2"]
    assert weights("a", "b") == ["a^0.2", "b^0.2"]
    # Together no more than two.
    assert weights("a", "b", "c", "d") == ["a^0.1", "b^0.1", "c^0.1", "d^0.1"]
    assert weights("a^1", "b^0.05", "c") == ["a^1", "b^0.05", "c^0.2"]
    page = client.get("/?q=red")
    first = ids(page)[0]
    less = client.get(link(page, "Less like"))
    assert first not in ids(less)
    # What the words find remains.
    assert {*ids(less)} & {*ids(page)}
    assert ids(client.get(f"/?like={first}&unlike={first}"))


@pytest.mark.parametrize(
    ("question", "suggested"),
    [
        ("filter=tags:none", {"Without tags: none": ("/", 130)}),
        ("q=red&filter=tags:none", {"Without tags: none": ("/?q=red", 130)}),
        (
            "q=red&filter=tags:odd&filter=folder:deep/0",
            {
                "Without tags: odd": ("/?q=red&filter=folder:deep/0", 65),
                "Without folder: deep/0": ("/?q=red&filter=tags:odd", 65),
            },
        ),
        ("since=2030", {"Without since 2030": ("/", 130)}),
        ("filter=-tags:odd&filter=-tags:even",
         {"Also with tags: odd": ("/?filter=-tags:even", 65),
          "Also with tags: even": ("/?filter=-tags:odd", 65)}),
        # Nothing helps alone.
        ("filter=tags:none&since=2030", {"Without all of these": ("/", 130)}),
        ("q=red&filter=tags:none&filter=format:gif&when=march+1999",
         {"Without all of these": ("/?q=red", 130)}),
        ("q=red", {}),
    ],
)  # fmt: skip
def test_where_no_picture_meets_the_filters_each_is_a_link_that_drops_it(
    client: TestClient, question: str, suggested: dict[str, tuple[str, int]]
):
    page = client.get(f"/?{question}")
    part = page.text.partition('class="suggestions"')[2].partition("</ul>")[0]
    found = re.findall(r'<a href="([^"]*)">([^<]*)</a> <span class="count">(\d+)</span>', part)
    assert {unescape(label): (unescape(href), int(count)) for href, label, count in found} == (
        suggested
    )
    for href, _ in suggested.values():
        assert ids(client.get(href))
    assert ("No picture meets this." in page.text) is bool(suggested)
