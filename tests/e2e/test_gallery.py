"""The gallery's main job in Chromium: with the mouse, by keys alone, and without JavaScript."""

from __future__ import annotations

import base64
import re
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest
from click.testing import CliRunner
from playwright.sync_api import Locator, Page, expect

from es_imgsearch.cli import main
from es_imgsearch.elastic.client import connect
from es_imgsearch.elastic.store import Store
from es_imgsearch.records import image_id
from es_imgsearch.serve.app import create_app
from es_imgsearch.serve.service import SearchService
from es_imgsearch.serve.thumbnails import PictureFiles
from es_imgsearch.settings import load_settings
from es_imgsearch.testing import remove_index
from tests.support.gallery import (
    Gallery,
    address,
    broken_images,
    drop,
    hit_names,
    hit_paths,
    obstacles,
    paste,
    scrolls_sideways,
    served,
)
from tests.support.house import paint

pytestmark = [pytest.mark.es, pytest.mark.process]

ROAD: Final = {"motorcycle_left.png", "motorcycle_right.png"}
CAT: Final = image_id("photos", "chelsea.png")
# Of a motorcycle, whose pictures have 741 x 500 pixels.
PART: Final = ("150", "100", "500", "350")


@pytest.fixture(scope="module")
def site(es_url: str, photographs: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """scikit-image's photographs, indexed by `starter` and served."""
    home = tmp_path_factory.mktemp("gallery")
    (home / "photos" / "road").mkdir(parents=True)
    for picture in photographs.iterdir():
        if picture.suffix in {".png", ".jpg"}:
            folder = home / "photos" / ("road" if picture.name in ROAD else ".")
            shutil.copyfile(picture, folder / picture.name)
    # Relevance is known from 30 pictures on.
    for number in range(10):
        paint(home / "photos" / f"grid-{number}.png", number)
    index = f"gallery-{uuid.uuid4().hex[:12]}"
    run = CliRunner(env={"ES_URL": es_url, "ES_IMGSEARCH_INDEX": index}).invoke
    assert run(main, ["init", "--encoder", "starter"]).exit_code == 0
    assert run(main, ["sync", str(home / "photos")]).exit_code == 0
    settings = load_settings({"es_url": es_url, "index": index, "read_workers": 1})
    store = Store(connect(settings), index)
    try:
        pictures = PictureFiles(store, settings, home / "cache")
        service = SearchService(settings, originals=pictures)
        with served(create_app(pictures, service)) as each:
            yield each
    finally:
        remove_index(store)


def hit(page: Page, name: str) -> Locator:
    return page.locator("#hits > .hit").filter(has=page.get_by_alt_text(name, exact=True))


def shared(gallery: Gallery, page: Page) -> None:
    """The address shows the same in a fresh browser, with and without scripts."""
    for scripts in (True, False):
        other = gallery.open(address(page), scripts=scripts)
        assert address(other) == address(page)
        assert hit_paths(other) == hit_paths(page)
        assert other.locator("#count").inner_text() == page.locator("#count").inner_text()
        assert other.locator(".chips").inner_text() == page.locator(".chips").inner_text()


@contextmanager
def leading_to(page: Page, part: str) -> Iterator[None]:
    """What is done meanwhile goes on to an address that has this part."""
    with page.expect_navigation(url=lambda url: part in url):
        yield


def fields(page: Page) -> tuple[str, ...]:
    return tuple(page.locator(f"[name=box_{each}]").input_value() for each in "xywh")


def drag(page: Page, *points: tuple[float, float]) -> None:
    """Press, move and release the mouse over the query picture, in pixels of the original."""
    picture = page.locator("#query-picture img")
    picture.scroll_into_view_if_needed()
    place = picture.bounding_box()
    assert place is not None
    scale = place["width"] / float(picture.get_attribute("data-width") or 0)
    for number, (x, y) in enumerate(points):
        page.mouse.move(place["x"] + x * scale, place["y"] + y * scale)
        if number == 0:
            page.mouse.down()
    page.mouse.up()


def test_the_main_job_with_the_mouse(gallery: Gallery) -> None:
    page = gallery.open()
    page.locator("#q").fill("a motorcycle")
    with leading_to(page, "/?q=a+motorcycle"):
        page.get_by_role("button", name="Search", exact=True).click()
    left, right = hit_names(page)[:2]
    assert {left, right} == ROAD
    with leading_to(page, "part=1"):
        hit(page, left).get_by_role("link", name="part").click()
    page.get_by_role("button", name="Draw a box").click()
    expect(page.locator("cropper-selection")).to_be_attached()
    drag(page, (150, 100), (300, 200), (650, 450))
    assert [int(each) for each in fields(page)] == pytest.approx([150, 100, 500, 350], abs=3)
    with leading_to(page, "box="):
        page.get_by_role("button", name="Search the part").click()
    assert hit_names(page)[0] == right
    # The box of the address is drawn again.
    expect(page.locator("cropper-selection")).to_be_visible()
    with leading_to(page, "/?like="):
        hit(page, "coffee.png").get_by_role("link", name="similar").click()
    assert "box" not in address(page)
    best = hit_names(page)[0]
    with leading_to(page, "unlike="):
        hit(page, best).get_by_role("link", name="Less like").click()
    assert hit_names(page)[0] != best
    page.locator(".facets").get_by_text("Format").click()
    with leading_to(page, "filter=format:png"):
        page.locator(".facets").get_by_role("link", name="png", exact=True).click()
    assert {each.rsplit(".", 1)[1] for each in hit_names(page)} == {"png"}
    shared(gallery, page)
    with leading_to(page, "unlike="):
        page.go_back()
    with leading_to(page, "/?like="):
        page.get_by_role("link", name=f"Remove not like {best}").click()
    assert hit_names(page)[0] == best


def tab_to(page: Page, selector: str, most: int = 80, key: str = "Tab") -> None:
    """Press Tab until the focus is on an element; it must be visible there."""
    for _ in range(most):
        page.keyboard.press(key)
        if page.evaluate("selector => document.activeElement.matches(selector)", selector):
            expect(page.locator(":focus")).to_be_in_viewport()
            return
    pytest.fail(f"{selector} is reached by no {most} presses of {key}")


def focused_hit(page: Page) -> str:
    return str(page.evaluate("document.activeElement.closest('.hit')?.querySelector('img').alt"))


def go(page: Page, key: str, name: str) -> None:
    """Press an arrow until the hit has the focus."""
    for _ in range(60):
        if focused_hit(page) == name:
            return
        page.keyboard.press(key)
    pytest.fail(f"{name} is reached by no {key}")


def test_the_main_job_by_keys_alone(gallery: Gallery) -> None:
    page = gallery.open()
    page.keyboard.press("/")
    page.keyboard.type("a motorcycle")
    with leading_to(page, "/?q=a+motorcycle"):
        page.keyboard.press("Enter")
    left, right = hit_names(page)[:2]
    tab_to(page, "#hits .hit-link")
    assert focused_hit(page) == left
    tab_to(page, ".actions a:last-child", most=8)
    with leading_to(page, "part=1"):
        page.keyboard.press("Enter")
    tab_to(page, "[name=box_x]")
    for number in PART:
        page.keyboard.type(number)
        page.keyboard.press("Tab")
    assert fields(page) == PART
    with leading_to(page, "box=150,100,500,350"):
        page.keyboard.press("Enter")
    assert hit_names(page)[0] == right
    tab_to(page, "#hits .hit-link")
    go(page, "ArrowRight", "coffee.png")
    with leading_to(page, "/?like="):
        page.keyboard.press("s")
    assert "box" not in address(page)
    best = hit_names(page)[0]
    tab_to(page, "#hits .hit-link")
    assert focused_hit(page) == best
    with leading_to(page, "unlike="):
        page.keyboard.press("-")
    assert hit_names(page)[0] != best
    # The filters stand behind the pictures, which are one stop.
    tab_to(page, ".facet:has(a[href*='filter=format:png']) > summary", most=150)
    page.keyboard.press("Enter")
    tab_to(page, ".facets a[href*='filter=format:png']")
    with leading_to(page, "filter=format:png"):
        page.keyboard.press("Enter")
    shared(gallery, page)


def test_the_main_job_without_scripts(gallery: Gallery, photographs: Path) -> None:
    page = gallery.open(scripts=False)
    page.locator("#q").fill("a motorcycle")
    with leading_to(page, "/?q=a+motorcycle"):
        page.get_by_role("button", name="Search", exact=True).click()
    left, right = hit_names(page)[:2]
    with leading_to(page, "part=1"):
        hit(page, left).get_by_role("link", name="part").click()
    for name, number in zip("xywh", PART, strict=True):
        page.locator(f"[name=box_{name}]").fill(number)
    with leading_to(page, "box=150,100,500,350"):
        page.get_by_role("button", name="Search the part").click()
    assert fields(page) == PART
    assert hit_names(page)[0] == right
    with leading_to(page, "/?like="):
        hit(page, "coffee.png").get_by_role("link", name="similar").click()
    best = hit_names(page)[0]
    with leading_to(page, "unlike="):
        hit(page, best).get_by_role("link", name="Less like").click()
    assert hit_names(page)[0] != best
    page.locator(".facets").get_by_text("Format").click()
    with leading_to(page, "filter=format:png"):
        page.locator(".facets").get_by_role("link", name="png", exact=True).click()
    shared(gallery, page)
    page.locator("#hits .hit-select").nth(0).check()
    page.locator("#hits .hit-select").nth(2).check()
    with leading_to(page, "/?like="):
        page.get_by_role("button", name="Like all of these").click()
    assert address(page).count("like=") == 2


def test_a_picture_is_sent_without_scripts(gallery: Gallery, photographs: Path) -> None:
    page = gallery.open("/?filter=format:png", scripts=False)
    page.locator("input[type=file]").set_input_files(photographs / "chelsea.png")
    with leading_to(page, "image="):
        page.get_by_role("button", name="Search with it").click()
    assert hit_names(page)[0] == "chelsea.png"
    for name, number in zip("xywh", ("100", "20", "250", "250"), strict=True):
        page.locator(f"[name=box_{name}]").fill(number)
    with leading_to(page, "box=100,20,250,250"):
        page.get_by_role("button", name="Search the part").click()
    assert hit_names(page)[0] == "chelsea.png"
    assert "filter=format:png" in address(page)


@pytest.mark.parametrize("way", ["drop", "paste", "choose", "paste into the words"])
def test_a_picture_is_dropped_pasted_or_chosen(
    gallery: Gallery, photographs: Path, way: str
) -> None:
    page = gallery.open("/?filter=format:png")
    picture = photographs / "chelsea.png"
    ways: dict[str, Callable[[], None]] = {
        "drop": lambda: drop(page, "#hits", picture),
        "paste": lambda: paste(page, picture),
        "choose": lambda: page.locator("input[type=file]").set_input_files(picture),
        "paste into the words": lambda: (page.locator("#q").focus(), paste(page, picture))[1],
    }
    with leading_to(page, "image="):
        ways[way]()
    assert "filter=format:png" in address(page)
    assert hit_names(page)[0] == "chelsea.png"
    picture_shown = page.locator("#query-picture img")
    assert picture_shown.get_attribute("data-width") == "451"
    expect(picture_shown).to_be_visible()
    assert broken_images(page) == []
    page.go_back()
    expect(page.locator("input[type=file]")).to_have_value("")


NO_PICTURES: Final = {
    "notes.txt": ("text/plain", b"no picture"),
    "notes.png": ("image/png", b"no picture"),
    "cut.png": ("image/png", b"\x89PNG\r\n\x1a\n"),
    "table.csv": ("text/csv", b"a,b"),
    "report.pdf": ("application/pdf", b"%PDF-1.4"),
    "film.mp4": ("video/mp4", b"\x00\x00\x00\x18ftypmp42"),
    "empty.jpg": ("image/jpeg", b""),
    "nameless": ("", b"\x00" * 64),
    "bundle.zip": ("application/zip", b"PK\x03\x04"),
}


@pytest.mark.parametrize("name", NO_PICTURES)
def test_a_file_that_is_no_picture_is_told_on_the_page(
    gallery: Gallery, tmp_path: Path, name: str
) -> None:
    kind, content = NO_PICTURES[name]
    (tmp_path / name).write_bytes(content)
    page = gallery.open("/?q=a+cat&filter=format:png")
    page.locator("#q").fill("a cat that is typed")
    drop(page, "#hits", tmp_path / name, kind)
    status = page.locator("#upload-status")
    expect(status).to_contain_text(name)
    expect(status).not_to_contain_text("Searching")
    expect(status).to_be_in_viewport()
    assert address(page) == "/?q=a+cat&filter=format:png"
    expect(page.locator("#q")).to_have_value("a cat that is typed")
    expect(page.locator("input[type=file]")).to_have_value("")
    assert obstacles(page) == []
    assert {"Failed to load resource" in each for each in gallery.complaints} <= {True}
    gallery.complaints.clear()


def test_of_several_files_the_picture_is_taken(gallery: Gallery, photographs: Path) -> None:
    page = gallery.open()
    picture = base64.b64encode((photographs / "chelsea.png").read_bytes()).decode()
    with leading_to(page, "image="):
        page.evaluate(
            """picture => {
              const transfer = new DataTransfer();
              transfer.items.add(new File(["words"], "a.txt", {type: "text/plain"}));
              const content = Uint8Array.from(atob(picture), each => each.charCodeAt(0));
              transfer.items.add(new File([content], "b.png", {type: "image/png"}));
              document.body.dispatchEvent(new DragEvent("drop",
                {bubbles: true, cancelable: true, dataTransfer: transfer}));
            }""",
            picture,
        )
    assert hit_names(page)[0] == "chelsea.png"


def test_a_file_that_is_no_picture_is_told_without_scripts(
    gallery: Gallery, tmp_path: Path
) -> None:
    (tmp_path / "notes.txt").write_text("no picture")
    page = gallery.open("/?q=a+cat&filter=format:png", scripts=False)
    page.locator("input[type=file]").set_input_files(tmp_path / "notes.txt")
    page.get_by_role("button", name="Search with it").click()
    expect(page.get_by_role("alert")).to_contain_text("picture")
    expect(page.locator("[name=q]")).to_have_value("a cat")
    page.get_by_role("link", name="Back to the search").click()
    assert address(page) == "/?q=a+cat&filter=format:png"
    assert {"Failed to load resource" in each for each in gallery.complaints} == {True}
    gallery.complaints.clear()


def test_a_picture_that_is_too_large_is_not_sent(gallery: Gallery, tmp_path: Path) -> None:
    with (tmp_path / "huge.png").open("wb") as file:
        file.truncate(20_000_000)
    page = gallery.open()
    sent: list[str] = []
    page.on("request", lambda each: sent.append(each.method))
    page.locator("input[type=file]").set_input_files(tmp_path / "huge.png")
    expect(page.locator("#upload-status")).to_have_text(
        "huge.png has more than 20 MB: choose a smaller picture."
    )
    assert "POST" not in sent
    expect(page.locator("input[type=file]")).to_have_value("")


@pytest.mark.parametrize(
    ("act", "heard"),
    [
        ("new Image().src = 'http://192.0.2.1/a.png'", "img-src"),
        ("fetch('http://192.0.2.1/').catch(() => null)", "connect-src"),
        ("document.body.setAttribute('style', 'color: red')", "style-src"),
        ("document.createElement('p').innerHTML = '<img src=/ onerror=alert()>'", "script-src"),
        ("setTimeout(() => { throw new Error('oh') })", "oh"),
        ("new Image().src = '/images/none'", "Failed to load"),
        ("console.error('odd')", "odd"),
    ],
)  # fmt: skip
def test_what_the_browser_complains_of_is_heard(gallery: Gallery, act: str, heard: str) -> None:
    page = gallery.open()
    page.evaluate(act)
    expect(page.locator("body")).to_be_visible()
    page.wait_for_load_state("networkidle")
    assert any(heard in each for each in gallery.complaints), gallery.complaints
    gallery.complaints.clear()


def test_a_hit_that_is_dragged_by_accident_is_not_searched_with(
    gallery: Gallery, photographs: Path
) -> None:
    """A browser may hand over a file of a picture that is dragged within the page."""
    page = gallery.open("/?q=a+cat")
    sent: list[str] = []
    page.on("request", lambda each: sent.append(each.method))
    hit(page, "chelsea.png").locator("img").dispatch_event("dragstart")
    drop(page, "#count", photographs / "coffee.png")
    page.wait_for_load_state("networkidle")
    assert "POST" not in sent
    assert address(page) == "/?q=a+cat"
    expect(page.locator("html")).not_to_have_class("dropping")
    expect(page.locator("#upload-status")).to_have_text("")
    hit(page, "chelsea.png").locator("img").dispatch_event("dragend")
    with leading_to(page, "image="):
        drop(page, "#count", photographs / "coffee.png")


def test_words_are_pasted_as_words(gallery: Gallery) -> None:
    page = gallery.open()
    page.locator("#q").focus()
    page.keyboard.insert_text("a cat")
    page.evaluate("""document.activeElement.dispatchEvent(new ClipboardEvent("paste",
        {bubbles: true, cancelable: true, clipboardData: new DataTransfer()}))""")
    assert address(page) == "/"
    expect(page.locator("#q")).to_have_value("a cat")


VIEWS: Final = {
    "newest": "/",
    "words": "/?q=a+cat",
    "a part": f"/?like={CAT}&box=100,20,250,250",
    "nothing": "/?q=a+cat&filter=folder:none",
    "chips": f"/?q=a+cat&not=a+dog&unlike={CAT}&filter=format:png&since=2001&min_relevance=0.05",
    "newest first": "/?q=a+cat&sort=newest",
    "folder": "/?filter=root:photos&filter=folder:road",
}


@pytest.mark.parametrize("name", VIEWS)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_stands_in_the_way(gallery: Gallery, name: str, scheme: str) -> None:
    page = gallery.open(VIEWS[name], color_scheme=scheme)
    assert obstacles(page) == []
    assert broken_images(page) == []
    colours = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", colours)[:3])) > 384) is (scheme == "light")


@pytest.mark.parametrize("name", VIEWS)
def test_on_a_phone_nothing_is_wider_than_the_window(gallery: Gallery, name: str) -> None:
    page = gallery.phone(VIEWS[name])
    assert not scrolls_sideways(page)
    assert obstacles(page) == []
    narrow = gallery.open(VIEWS[name], viewport={"width": 320, "height": 640})
    assert not scrolls_sideways(narrow)


def touch(page: Page) -> None:
    """Move a finger over the query picture, from a fifth to three fifths of it."""
    picture = page.locator("#query-picture img")
    picture.scroll_into_view_if_needed()
    place = picture.bounding_box()
    assert place is not None
    session = page.context.new_cdp_session(page)
    for kind, at in (("touchStart", 0.2), ("touchMove", 0.4), ("touchMove", 0.6), ("touchEnd", 0)):
        point = {"x": place["x"] + at * place["width"], "y": place["y"] + at * place["height"]}
        points = [point] if at else []
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})


def test_a_box_is_drawn_by_touch(gallery: Gallery) -> None:
    page = gallery.phone(f"/?like={CAT}&part=1")
    page.get_by_role("button", name="Draw a box").tap()
    expect(page.locator("cropper-selection")).to_be_attached()
    touch(page)
    drawn = [int(each) for each in fields(page)]
    assert drawn == pytest.approx([90, 60, 180, 120], abs=4)


@pytest.mark.parametrize(
    ("points", "box"),
    [
        # Past the edges: what is outside is no part of it.
        ([(300, 200), (400, 250), (600, 500)], (300, 200, 151, 100)),
        # From the lower right to the upper left.
        ([(200, 150), (150, 100), (100, 50)], (100, 50, 100, 100)),
        # A click.
        ([(200, 150), (201, 150)], None),
    ],
)
def test_a_box_is_drawn_in_step_with_the_fields(
    gallery: Gallery, points: list[tuple[float, float]], box: tuple[int, ...] | None
) -> None:
    page = gallery.open(f"/?like={CAT}&part=1")
    page.get_by_role("button", name="Draw a box").click()
    expect(page.locator("cropper-selection")).to_be_attached()
    drag(page, *points)
    if box is None:
        assert fields(page) == ("", "", "", "")
        return
    assert [int(each) for each in fields(page)] == pytest.approx(box, abs=2)
    # From the fields to the picture, and by dragging what is there.
    for name, number in zip("xywh", (10, 20, 200, 100), strict=True):
        page.locator(f"[name=box_{name}]").fill(str(number))
    drag(page, (110, 70), (150, 80), (210, 90))
    assert [int(each) for each in fields(page)] == pytest.approx([110, 40, 200, 100], abs=2)
    drag(page, (210, 90), (400, 200), (900, 900))
    assert [int(each) for each in fields(page)] == pytest.approx([251, 200, 200, 100], abs=2)
    page.get_by_role("button", name="Clear the box").click()
    assert fields(page) == ("", "", "", "")
    expect(page.locator("cropper-selection")).to_be_hidden()


def test_the_slider_shows_its_value(gallery: Gallery) -> None:
    page = gallery.open("/?q=a+cat&min_relevance=0.3")
    shown = page.locator("output[for=min_relevance]")
    expect(shown).to_have_text("30%")
    page.locator("#min_relevance").focus()
    page.keyboard.press("ArrowRight")
    expect(shown).to_have_text("35%")


def test_a_mouse_draws_a_box_at_once(gallery: Gallery) -> None:
    page = gallery.open(f"/?like={CAT}&part=1")
    expect(page.locator("cropper-canvas")).to_be_attached()
    drag(page, (100, 50), (150, 80), (200, 150))
    assert [int(each) for each in fields(page)] == pytest.approx([100, 50, 100, 100], abs=2)
    # And another one, beside it.
    drag(page, (250, 150), (300, 200), (350, 250))
    assert [int(each) for each in fields(page)] == pytest.approx([250, 150, 100, 100], abs=2)
    page.get_by_role("button", name="Clear the box").click()
    assert fields(page) == ("", "", "", "")
    expect(page.get_by_role("button", name="Draw a box")).to_be_enabled()


@pytest.mark.parametrize("box", ["", "&box=100,20,250,250"])
def test_a_finger_on_the_picture_is_left_to_the_page(gallery: Gallery, box: str) -> None:
    page = gallery.phone(f"/?like={CAT}&part=1{box}")
    if box:
        expect(page.locator("cropper-selection")).to_be_visible()
    before = fields(page)
    touch(page)
    assert fields(page) == before
    # The browser may scroll by it.
    actions = page.locator(".box-frame, .box-frame *").evaluate_all(
        "all => all.map(each => getComputedStyle(each).touchAction)"
    )
    assert {*actions} == {"auto"}
    page.get_by_role("button", name="Draw a box").tap()
    expect(page.locator(".box-frame")).to_have_class("box-frame armed")
    touch(page)
    assert fields(page) != before


@pytest.mark.parametrize("scripts", [True, False])
@pytest.mark.parametrize("words", ["", "q=a+cat", "filter=format:png"])
def test_the_first_hits_are_on_a_phones_screen(
    gallery: Gallery, photographs: Path, scripts: bool, words: str
) -> None:
    page = gallery.phone(f"/?{words}", scripts=scripts)
    with leading_to(page, "image="):
        page.locator("input[type=file]").set_input_files(photographs / "chelsea.png")
        if not scripts:
            page.get_by_role("button", name="Search with it").click()
    # With what is under it.
    expect(page.locator("#hits > .hit").first).to_be_in_viewport(ratio=1)
    expect(page.locator("#query-picture img")).to_be_in_viewport(ratio=1)
    assert not scrolls_sideways(page)
    if scripts:
        assert obstacles(page) == []
    # A part of it is two steps away.
    expect(page.locator("[name=box_x]")).to_be_hidden()
    page.get_by_role("link", name="Only a part of it").tap()
    expect(page.locator("#query-picture img")).to_be_in_viewport(ratio=0.9)
    for name, number in zip("xywh", ("100", "20", "250", "250"), strict=True):
        page.locator(f"[name=box_{name}]").fill(number)
    with leading_to(page, "box=100,20,250,250"):
        page.get_by_role("button", name="Search the part").tap()
    expect(page.locator("#hits .hit-link").first).to_be_in_viewport(ratio=1)
