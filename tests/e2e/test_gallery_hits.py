"""A thousand hits in Chromium: more of them, large, by keys, selected."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from playwright.sync_api import Locator, Page, expect

from es_imgsearch import ImageSearch
from es_imgsearch.serve.app import create_app
from es_imgsearch.serve.service import SearchService
from es_imgsearch.serve.thumbnails import PictureFiles
from tests.support.gallery import (
    Gallery,
    address,
    broken_images,
    hit_paths,
    obstacles,
    scrolls_sideways,
    served,
)
from tests.support.house import House, house_of_module, until

pytestmark = [pytest.mark.es, pytest.mark.process]

COUNT: Final = 1030
RED: Final = "/?q=red"


@pytest.fixture(scope="module")
def house(es_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with house_of_module(es_url, tmp_path_factory.mktemp("hits")) as made:
        made.pictures(COUNT)
        made.synced()
        made.store.refresh()
        yield made


@pytest.fixture(scope="module")
def site(house: House) -> Iterator[str]:
    pictures = PictureFiles(house.store, house.settings, house.folder.parent / "cache")
    client = ImageSearch(settings=house.settings, encoder=house.encoder)
    service = SearchService(house.settings, client, originals=pictures)
    with served(create_app(pictures, service)) as each:
        yield each


def count(page: Page) -> int:
    return page.locator("#hits > .hit").count()


def load_more(page: Page, until: int) -> None:
    page.locator("#more").click()
    expect(page.locator("#hits > .hit")).to_have_count(until)


def focused(page: Page) -> int:
    """The number of the hit that has the focus, from 1 on."""
    return int(page.evaluate("document.activeElement.closest('.hit')?.dataset.n ?? 0"))


def test_more_are_loaded_to_a_thousand(gallery: Gallery) -> None:
    page = gallery.open(RED)
    before = address(page)
    for end in (*range(120, 1000, 60), 1000):
        load_more(page, end)
        # The first of them has the focus, so that the next key goes on from there.
        assert focused(page) == (end - 60 if end < 1000 else 960) + 1
    expect(page.locator("#more")).to_have_count(0)
    expect(page.locator(".hits-status")).to_have_text("1000 hits are shown, which are all.")
    assert len(set(hit_paths(page))) == 1000
    numbers = page.locator("#hits > .hit").evaluate_all("hits => hits.map(hit => hit.dataset.n)")
    assert numbers == [str(number) for number in range(1, 1001)]
    assert address(page) == before
    assert broken_images(page) == []
    page.locator("#hits > .hit").nth(700).scroll_into_view_if_needed()
    expect(page.locator("#hits > .hit").nth(700).locator("img")).to_have_js_property(
        "complete", True
    )


def test_back_leads_to_as_many_at_the_same_place(gallery: Gallery) -> None:
    page = gallery.open(RED)
    load_more(page, 120)
    load_more(page, 180)
    page.locator("#hits > .hit").nth(150).locator("a.similar").click()
    page.wait_for_url("**/?like=*")
    page.go_back()
    expect(page.locator("#hits > .hit")).to_have_count(180)
    expect(page.locator("#hits > .hit").nth(150)).to_be_in_viewport()
    assert address(page) == RED
    # A search anew begins at its first page.
    page.goto(gallery.site + RED)
    expect(page.locator("#hits > .hit")).to_have_count(60)


def test_pages_without_scripts(gallery: Gallery) -> None:
    page = gallery.open(RED, scripts=False)
    first = hit_paths(page)
    page.locator("#more").click()
    page.wait_for_url("**page=2*")
    second = hit_paths(page)
    assert len(first) == len(second) == 60
    assert not {*first} & {*second}
    page.get_by_role("link", name="Previous page").click()
    page.wait_for_url("**/?q=red")
    assert hit_paths(page) == first


def test_a_search_that_fails_meanwhile_is_told(gallery: Gallery) -> None:
    page = gallery.open(RED)
    page.locator("#more").evaluate("more => more.href = '/?q=red&page=99999'")
    page.locator("#more").click()
    expect(page.get_by_role("alert")).to_contain_text("no page")
    assert {"Failed to load resource" in each for each in gallery.complaints} == {True}
    gallery.complaints.clear()


def test_hits_are_shown_large(gallery: Gallery) -> None:
    page = gallery.open(RED)
    page.locator("#hits > .hit").nth(2).locator(".hit-link").click()
    dialog = page.get_by_role("dialog", name="Pictures, large")
    expect(dialog).to_be_visible()
    expect(dialog).to_have_attribute("aria-modal", "true")
    counter = dialog.get_by_role("status")
    expect(counter).to_have_text("3 of 60")
    expect(dialog.locator(".pswp__img:not(.pswp__img--placeholder)").first).to_be_visible()
    assert obstacles(page) == []
    # The pictures have 32 pixels; the buttons are those of PhotoSwipe, not the page's.
    box = dialog.locator(".pswp__item[aria-hidden=false] .pswp__img").last.bounding_box()
    assert box is not None
    assert box["width"] == pytest.approx(96, abs=1)
    following = dialog.get_by_role("button", name="Next")
    expect(following).to_have_css("background-color", "rgba(0, 0, 0, 0)")
    following.click()
    expect(counter).to_have_text("4 of 60")
    page.keyboard.press("ArrowRight")
    expect(counter).to_have_text("5 of 60")
    page.keyboard.press("ArrowLeft")
    expect(counter).to_have_text("4 of 60")
    details = dialog.get_by_role("link", name="Details")
    fourth = page.locator("#hits > .hit").nth(3)
    assert details.get_attribute("href") == fourth.locator(".hit-link").evaluate("a => a.href")
    # The focus stays inside, or leaves the page: then it comes back to this.
    stops = set()
    for _ in range(12):
        page.keyboard.press("Tab")
        stops.add(page.evaluate("document.activeElement.closest('.pswp, body').tagName"))
    assert stops == {"DIV", "BODY"}
    page.keyboard.press("Escape")
    expect(dialog).to_have_count(0)
    assert focused(page) == 4
    assert address(page) == RED
    # The numbers go on over what was loaded.
    load_more(page, 120)
    page.locator("#hits > .hit").nth(119).locator(".hit-link").click()
    expect(counter).to_have_text("120 of 180")


def test_large_opened_by_keys_and_closed_by_its_button(gallery: Gallery) -> None:
    page = gallery.open(RED)
    page.locator(".hit-link").first.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog", name="Pictures, large")
    expect(dialog.get_by_role("status")).to_have_text("2 of 60")
    # Keys of the page are not for what lies under it.
    page.keyboard.press("x")
    page.keyboard.press("/")
    assert page.locator(".hit-select:checked").count() == 0
    assert page.evaluate("Boolean(document.activeElement.closest('.pswp'))")
    dialog.get_by_role("button", name="Close").click()
    expect(dialog).to_have_count(0)
    assert focused(page) == 2


def test_arrows_move_among_the_hits(gallery: Gallery) -> None:
    page = gallery.open(RED)
    page.keyboard.press("/")
    expect(page.locator("#q")).to_be_focused()
    # Letters are letters there.
    page.keyboard.press("End")
    page.keyboard.type("sx?/-")
    expect(page.locator("#q")).to_have_value("redsx?/-")
    page.locator(".hit-link").first.focus()
    tops = page.locator("#hits > .hit").evaluate_all(
        "hits => hits.map(hit => Math.round(hit.getBoundingClientRect().top))"
    )
    columns = tops.count(tops[0])
    for key, number in (
        ("ArrowRight", 2),
        ("ArrowRight", 3),
        ("ArrowLeft", 2),
        ("ArrowDown", 2 + columns),
        ("ArrowUp", 2),
        ("ArrowUp", 2),
        ("End", 60),
        ("ArrowRight", 60),
        ("Home", 1),
        ("ArrowLeft", 1),
    ):
        page.keyboard.press(key)
        assert focused(page) == number, key
    # One stop of the Tab key: its controls, then what comes behind the list.
    stops = page.locator("#hits [tabindex='0']")
    assert stops.evaluate_all("all => new Set(all.map(e => e.closest('.hit'))).size") == 1
    page.keyboard.press("Shift+?")
    expect(page.get_by_role("dialog", name="Keys")).to_be_visible()
    assert obstacles(page) == []
    page.keyboard.press("Escape")
    assert focused(page) == 1


def saved(page: Page, button: str) -> tuple[str, str]:
    """Name and content of the file that a button saves."""
    with page.expect_download() as saving:
        page.get_by_role("button", name=button).click()
    return saving.value.suggested_filename, saving.value.path().read_text("utf-8")


def test_what_is_selected_is_copied_and_saved(gallery: Gallery, house: House) -> None:
    page = gallery.open(RED, permissions=["clipboard-read", "clipboard-write"])
    boxes = page.locator(".hit-select")
    chosen = page.locator("#selected-count")
    expect(page.get_by_role("button", name="CSV")).to_be_hidden()
    boxes.nth(1).check()
    boxes.nth(4).click(modifiers=["Shift"])
    expect(chosen).to_have_text("4 selected")
    boxes.nth(2).uncheck()
    expect(chosen).to_have_text("3 selected")
    paths = [hit_paths(page)[at] for at in (1, 3, 4)]
    assert all(Path(each).parent == house.folder for each in paths)
    page.get_by_role("button", name="Copy paths").click()
    expect(chosen).to_have_text("3 paths copied")
    assert page.evaluate("navigator.clipboard.readText()") == "\n".join([*paths, ""])
    name, content = saved(page, "CSV")
    rows = list(csv.DictReader(io.StringIO(content)))
    assert name == "pictures.csv"
    assert [each["path"] for each in rows] == paths
    assert {(each["width"], each["height"]) for each in rows} == {("32", "32")}
    name, content = saved(page, "JSON")
    records: list[dict[str, Any]] = json.loads(content)
    assert name == "pictures.json"
    assert [each["path"] for each in records] == paths
    assert [each["image_id"] for each in records] == [each["image_id"] for each in rows]
    assert {type(each["score"]) for each in records} <= {float, int}
    page.get_by_role("button", name="Select none").click()
    expect(chosen).to_have_text("")
    page.get_by_role("button", name="Select all").click()
    expect(chosen).to_have_text("60 selected")
    load_more(page, 120)
    expect(chosen).to_have_text("60 selected")


def test_like_all_that_are_selected(gallery: Gallery) -> None:
    page = gallery.open(RED)
    page.locator(".hit-link").first.focus()
    page.keyboard.press("x")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("x")
    expect(page.locator("#selected-count")).to_have_text("2 selected")
    ids = page.locator(".hit-select:checked").evaluate_all("all => all.map(each => each.value)")
    page.get_by_role("button", name="Like all of these").click()
    page.wait_for_url("**like=*")
    assert address(page) == f"/?like={ids[0]}&like={ids[1]}"
    assert count(page) == 60


def test_a_thousand_on_a_phone(gallery: Gallery) -> None:
    page = gallery.phone(RED)
    load_more(page, 120)
    assert not scrolls_sideways(page)
    page.locator("#hits > .hit").nth(70).locator(".hit-link").tap()
    dialog = page.get_by_role("dialog", name="Pictures, large")
    expect(dialog.get_by_role("status")).to_have_text("71 of 120")
    assert not scrolls_sideways(page)
    assert obstacles(page) == []


def large(page: Page) -> Locator:
    """The large view."""
    return page.get_by_role("dialog", name="Pictures, large")


def test_back_closes_the_large_view(gallery: Gallery) -> None:
    page = gallery.open("/status")
    page.goto(gallery.site + RED)
    page.locator("#hits > .hit").nth(40).locator(".hit-link").click()
    expect(large(page).get_by_role("status")).to_have_text("41 of 60")
    page.keyboard.press("ArrowRight")
    page.go_back()
    expect(large(page)).to_have_count(0)
    assert (address(page), focused(page)) == (RED, 42)
    expect(page.locator("#hits > .hit").nth(41)).to_be_in_viewport()
    # And forward opens it again, at the picture that was shown.
    page.go_forward()
    expect(large(page).get_by_role("status")).to_have_text("42 of 60")
    page.go_back()
    expect(large(page)).to_have_count(0)
    page.go_back()
    page.wait_for_url("**/status")


@pytest.mark.parametrize("way", ["Escape", "Close"])
def test_closing_the_large_view_leaves_no_step_behind(gallery: Gallery, way: str) -> None:
    page = gallery.open("/status")
    page.goto(gallery.site + RED)
    for number in (3, 5):
        page.locator("#hits > .hit").nth(number).locator(".hit-link").click()
        expect(large(page)).to_be_visible()
        if way == "Escape":
            page.keyboard.press("Escape")
        else:
            large(page).get_by_role("button", name="Close").click()
        expect(large(page)).to_have_count(0)
        until(lambda: page.evaluate("!history.state?.large"))
        assert (address(page), focused(page)) == (RED, number + 1)
    page.go_back()
    page.wait_for_url("**/status")


@pytest.mark.parametrize("way", ["Escape", "Back"])
def test_the_large_view_closes_as_soon_as_it_is_there(gallery: Gallery, way: str) -> None:
    page = gallery.open("/status")
    page.goto(gallery.site + RED)
    for number in (3, 5):
        page.locator("#hits > .hit").nth(number).locator(".hit-link").click()
        # At once, as `expect` would not: it looks again only after a while.
        page.locator(".pswp__counter").wait_for(state="attached")
        page.keyboard.press("Escape") if way == "Escape" else page.go_back()
        expect(large(page)).to_have_count(0)
        until(lambda: page.evaluate("!history.state?.large"))
        assert address(page) == RED


def test_the_large_view_names_the_file(gallery: Gallery) -> None:
    page = gallery.open(RED)
    hit = page.locator("#hits > .hit").first
    name = hit.locator("img").get_attribute("alt")
    hit.locator(".hit-link").click()
    expect(large(page).locator(".pswp__name")).to_have_text(name)
    # A transparent picture lies on white, as in the list.
    expect(large(page).locator(".pswp__img").last).to_have_css(
        "background-color", "rgb(255, 255, 255)"
    )


def test_the_right_arrow_begins_at_the_first_hit(gallery: Gallery) -> None:
    page = gallery.open(RED)
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press("ArrowRight")
    assert focused(page) == 1
    page.keyboard.press("ArrowRight")
    assert focused(page) == 2


def test_what_is_counted_follows_what_is_loaded(gallery: Gallery) -> None:
    page = gallery.open(RED)
    before = page.locator("#count").text_content()
    load_more(page, 120)
    expect(page.locator("#count")).not_to_have_text(before)
    expect(page.locator("#count")).to_contain_text("120")


def test_back_from_the_details_leads_to_the_large_view(gallery: Gallery) -> None:
    page = gallery.open("/status")
    page.goto(gallery.site + RED)
    load_more(page, 120)
    page.locator("#hits > .hit").nth(69).locator(".hit-link").click()
    large(page).get_by_role("link", name="Details").click()
    page.wait_for_url("**/pictures/**")
    page.go_back()
    expect(large(page).get_by_role("status")).to_have_text("70 of 120")
    page.keyboard.press("Escape")
    expect(large(page)).to_have_count(0)
    until(lambda: page.evaluate("!history.state?.large"))
    assert (address(page), focused(page)) == (RED, 70)
    page.go_back()
    page.wait_for_url("**/status")


def test_the_large_view_goes_on_where_the_loaded_hits_end(gallery: Gallery) -> None:
    page = gallery.open(RED)
    page.locator("#hits > .hit").nth(57).locator(".hit-link").click()
    counter = large(page).get_by_role("status")
    expect(counter).to_have_text("58 of 120")
    for number in (59, 60, 61, 62):
        page.keyboard.press("ArrowRight")
        expect(counter).to_have_text(f"{number} of 120")
    shown = large(page).locator(".pswp__item[aria-hidden=false] img").last
    expect(shown).to_have_attribute("alt", page.locator(".hit img").nth(61).get_attribute("alt"))
    page.keyboard.press("Escape")
    expect(large(page)).to_have_count(0)
    assert (focused(page), count(page)) == (62, 120)
    # To the very last.
    page.goto(gallery.site + f"{RED}&n=1000")
    page.locator("#hits > .hit").nth(999).locator(".hit-link").click()
    expect(counter).to_have_text("1000 of 1000")
    expect(large(page).get_by_role("button", name="Next")).to_be_hidden()


def test_the_large_view_stays_where_more_cannot_be_loaded(gallery: Gallery) -> None:
    page = gallery.open(RED)
    page.route("**page=2*", lambda route: route.fulfill(status=503, body="away"))
    page.locator("#hits > .hit").nth(59).locator(".hit-link").click()
    with page.expect_response("**page=2*"):
        pass
    page.keyboard.press("ArrowRight")
    expect(large(page).get_by_role("status")).to_have_text("60 of 60")
    assert address(page) == RED
    assert {"Failed to load resource" in each for each in gallery.complaints} == {True}
    gallery.complaints.clear()


@pytest.mark.parametrize("scripts", [True, False])
@pytest.mark.parametrize("search", [RED, "/?sort=folder"])
def test_back_to_the_search_leads_to_the_hit(gallery: Gallery, scripts: bool, search: str) -> None:
    page = gallery.open(search, scripts=scripts)
    if scripts:
        load_more(page, 120)
        load_more(page, 180)
    else:
        for number in (2, 3):
            page.locator("#more").click()
            page.wait_for_url(f"**page={number}*")
    hit = page.locator(".hit[data-n='151']")
    name, view = hit.get_attribute("data-id"), hit.locator(".hit-link").get_attribute("href")
    page.goto(gallery.site + str(view))
    page.get_by_role("link", name="Back to the search").click()
    page.wait_for_url("**/?*")
    assert count(page) == 180
    assert len(set(hit_paths(page))) == 180
    hit = page.locator(f".hit[data-id='{name}']")
    expect(hit).to_be_in_viewport(ratio=0.9)
    expect(hit.locator(".hit-link")).to_be_focused()
    page.locator("#more").click()
    if scripts:
        expect(page.locator("#hits > .hit")).to_have_count(240)
    else:
        page.wait_for_url("**page=4*")
        assert page.locator(".hit").first.get_attribute("data-n") == "181"


def test_relevant_ones_are_selected_without_the_others(gallery: Gallery) -> None:
    page = gallery.open("/?q=red&n=300")
    likely = page.locator("#hits > .hit").evaluate_all(
        "hits => hits.filter(hit => hit.dataset.relevance >= 0.5).map(hit => hit.dataset.id)"
    )
    assert 0 < len(likely) < count(page) == 300
    said = int(page.locator("#count").inner_text().split()[0])
    assert said == len(likely)
    page.get_by_role("button", name=f"Select {said} relevant", exact=True).click()
    chosen = page.locator(".hit-select:checked")
    assert chosen.evaluate_all("all => all.map(each => each.value)") == likely
    expect(page.locator("#selected-count")).to_have_text(f"{said} selected")
    page.get_by_role("button", name="Select all 300", exact=True).click()
    expect(page.locator("#selected-count")).to_have_text("300 selected")
    page.get_by_role("button", name="Select none").click()
    load_more(page, 360)
    expect(page.get_by_role("button", name="Select all 360", exact=True)).to_be_visible()
    # Without a search nothing is relevant.
    page.goto(gallery.site)
    expect(page.get_by_role("button", name="Select all 60", exact=True)).to_be_visible()
    expect(page.locator("[data-do=relevant]")).to_be_hidden()
