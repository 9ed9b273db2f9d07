"""Names and words of all writing systems, composed or not, on the real server."""

from __future__ import annotations

import csv
import unicodedata
from typing import Any

import pytest

from es_imgsearch.elastic.documents import Write
from es_imgsearch.errors import UsageError
from es_imgsearch.manage.reindex import drop_before
from es_imgsearch.manage.status import index_status
from es_imgsearch.quality.labelled_pictures import LabelledPictures
from es_imgsearch.records import image_id
from es_imgsearch.search.client import ImageSearch
from tests.support.house import House, described
from tests.support.reindexing import run, to

WORDS = {
    "Latin": "Café Zoë",
    "Vietnamese": "Nguyễn Đắc",
    "Polish": "Żółw",
    "Greek": "Οδυσσεύς",
    "Cyrillic": "Йод",
    "Korean": "한국 서울",
    "Japanese": "ガラス",
    "Arabic": "آثار",
    "Hebrew": "שָׁלוֹם",
    "Devanagari": "हिन्दी क़लम",
    "Bengali": "বাংলা",
    "Tamil": "தமிழ்",
    "Thai": "ที่รัก",
    "Burmese": "မြန်မာ",
    "Tibetan": "བོད་སྐད",
}
SCRIPTS = list(WORDS)


def nfd(text: str) -> str:
    return unicodedata.normalize("NFD", text)


def client_of(house: House) -> ImageSearch:
    return ImageSearch(
        house.store.connection.client, settings=house.settings, encoder=house.encoder
    )


def names_found(client: ImageSearch, words: str, **options) -> set[str]:
    hits = client.search_text(words, k=100, mode="text", **options)
    return {hit.relative_path for hit in hits}


@pytest.fixture
def mac(house: House) -> House:
    """Pictures whose names and folders are decomposed, as a Mac writes them."""
    for seed, (script, words) in enumerate(WORDS.items()):
        house.picture(nfd(f"{words}/{script} in.png"), 2 * seed)
        house.picture(nfd(f"{script}/{words} 1.png"), 2 * seed + 1)
    house.synced()
    house.store.refresh()
    return house


def test_words_meet_decomposed_names(mac: House):
    client = client_of(mac)
    for script, words in WORDS.items():
        expected = {nfd(f"{words}/{script} in.png"), nfd(f"{script}/{words} 1.png")}
        for form in ("NFC", "NFD", "NFKC", "NFKD"):
            typed = unicodedata.normalize(form, words)
            assert names_found(client, typed) == expected, (script, form)
            assert names_found(client, typed.upper()) == expected, (script, form)


def test_folders_are_met_in_any_form(mac: House):
    client = client_of(mac)
    for script, words in WORDS.items():
        expected = {nfd(f"{words}/{script} in.png")}
        for form in ("NFC", "NFD"):
            typed = unicodedata.normalize(form, words)
            hits = client.search_text("red", k=100, filters={"folder": typed})
            assert {hit.relative_path for hit in hits} == expected, (script, form)


def test_names_stay_the_names_of_the_files(mac: House):
    for hit in client_of(mac).search_text("red", k=100):
        assert hit.path.exists()
        assert hit.fields["image_name"] == unicodedata.normalize("NFC", hit.path.name)


def test_excludes_meet_decomposed_names(house: House):
    for seed, words in enumerate(WORDS.values()):
        house.picture(nfd(f"{words}/a.png"), seed)
    house.picture("b.png", 100)
    house.synced(exclude=tuple(WORDS.values()))
    assert {path for _, path in house.indexed()} == {"b.png"}


def test_rows_of_a_table_meet_decomposed_names(house: House):
    rows = [["file_name", "title"]]
    for seed, (script, words) in enumerate(WORDS.items()):
        house.picture(nfd(f"{words}.png"), seed)
        rows.append([f"{words}.png", f"titled {script}"])
    with (house.folder / "metadata.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(rows)
    house.synced()
    house.store.refresh()
    client = client_of(house)
    for script, words in WORDS.items():
        assert names_found(client, f"{script}") == {nfd(f"{words}.png")}


def test_e_with_two_dots_is_met_without_them_and_short_i_is_a_letter_of_its_own(house: House):
    named = {"Ёлка": 1, "ёж королёв": 2, "елка": 3, "чай": 4, "чаи": 5, "за\u0301мок": 6}
    for words, seed in named.items():
        house.picture(f"{words}.png", seed)
    house.picture(nfd("Ёлочка.png"), 7)
    house.synced()
    house.store.refresh()
    client = client_of(house)
    for typed, expected in (
        ("елка", {"Ёлка", "елка"}), ("ёлка", {"Ёлка", "елка"}), ("ЁЛКА", {"Ёлка", "елка"}),
        (nfd("ёлка"), {"Ёлка", "елка"}), ("еж", {"ёж королёв"}), ("Королев", {"ёж королёв"}),
        ("чай", {"чай"}), (nfd("чай"), {"чай"}), ("чаи", {"чаи"}), ("замок", {"за\u0301мок"}),
        ("елочка", {nfd("Ёлочка")}), ("ЕЛОЧКА", {nfd("Ёлочка")}),
    ):  # fmt: skip
        assert names_found(client, typed) == {f"{words}.png" for words in expected}, typed


def test_labels_name_decomposed_pictures(mac: House):
    paths = [f"{words}/{script} in.png" for script, words in WORDS.items()]
    found = LabelledPictures(mac.store, [*paths, *(f"r/{each}" for each in paths), "none"])
    assert found.missing == ("none",)
    assert {found.id_of[each] for each in paths} == {image_id("r", nfd(each)) for each in paths}
    assert found.ids(paths) == found.ids(f"r/{each}" for each in paths)


WRITTEN = {
    "title": "Café Müller",
    "description": "Café Müller",
    "creator": "Café Müller",
    "keywords": ["Café Müller"],
    "caption": "Café Müller",
    "tags": ["Café Müller"],
    "text_in_image": "Café Müller",
    "folder": "Café Müller",
    "image_name": "Café Müller",
}


@pytest.mark.parametrize("field", WRITTEN)
def test_each_field_of_words_folds_alike(house: House, field: str):
    vector = house.encoder.embed_texts(["red"])[0].tolist()
    values = {"1": nfd("Café Müller"), "2": "CAFÉ MÜLLER", "3": "cafe muller", "4": "Café_Müller"}
    for name, value in values.items():
        stored = [value] if isinstance(WRITTEN[field], list) else value
        house.store.connection.client.index(
            index=house.store.index,
            id=name,
            document={"image_id": name, "root": "r", "relative_path": name, field: stored,
                      "image_embedding": vector},
        )  # fmt: skip
    house.store.refresh()
    client = client_of(house)
    for typed in ("Café Müller", "café müller", "CAFE MULLER", nfd("Müller"), "muller"):
        assert names_found(client, typed) == {"1", "2", "3", "4"}, typed


# -- an index of an earlier version

OLD_ANALYSIS = {
    "tokenizer": {
        "folders": {"type": "path_hierarchy", "delimiter": "/"},
        "name_parts": {
            "type": "pattern",
            "pattern": r"[^\p{L}\p{N}]+|(?<=\p{Ll})(?=\p{Lu})|(?<=\p{L})(?=\p{N})"
            r"|(?<=\p{N})(?=\p{L})",
        },
    },
    "analyzer": {
        "folder_tree": {"type": "custom", "tokenizer": "folders"},
        "file_name": {
            "type": "custom",
            "tokenizer": "name_parts",
            "filter": ["lowercase", "asciifolding"],
        },
    },
}


def with_old_analysers(name: str, mapping: dict[str, Any]) -> dict[str, Any]:
    old = dict(mapping)
    if "fields" in old:
        old["fields"] = {key: each for key, each in old["fields"].items() if key != "stems"}
    if name == "product_id":
        del old["fields"]
    if old.get("analyzer") == "words":
        del old["analyzer"], old["search_analyzer"]
        if name in {"image_name", "folder"}:
            old["analyzer"] = "file_name"
    if "fields" in old:
        old["fields"] = {key: with_old_analysers(name, each) for key, each in old["fields"].items()}
    return old


@pytest.fixture
def old(mac: House) -> House:
    """The index as an earlier version made and filled it: its analysers, and raw names."""
    name = mac.store.info().name
    request = mac.store.connection.request
    documents = [hit["_source"] for hit in mac.store.searches.hits({"size": 100})]
    vectors = {each["image_id"]: mac.store.documents.vector(each["image_id"]) for each in documents}
    info = request("GET", f"/{name}")[name]
    request("DELETE", f"/{name}")
    # It would add the fields and analysers of this version.
    request("DELETE", f"/_index_template/{mac.store.index}")
    properties = info["mappings"]["properties"]
    del properties["text_in_image"]
    info["mappings"]["properties"] = {
        key: with_old_analysers(key, each) for key, each in properties.items()
    }
    settings = {"index": {"refresh_interval": "1s", "analysis": OLD_ANALYSIS}}
    body = {"aliases": info["aliases"], "mappings": info["mappings"], "settings": settings}
    request("PUT", f"/{name}", body)
    writes = []
    for each in documents:
        folder, _, file = each["relative_path"].rpartition("/")
        each |= {"image_name": file, "folder": folder}
        each |= {"title": "Élan vital", "image_embedding": vectors[each["image_id"]]}
        writes.append(Write(each["image_id"], each))
    assert set(mac.store.documents.write(writes).values()) == {None}
    mac.store.refresh()
    return mac


def test_an_index_of_before_is_searched_says_so_and_is_renewed_by_reindex(old: House):
    client = client_of(old)
    latin = {nfd("Café Zoë/Latin in.png"), nfd("Latin/Café Zoë 1.png")}
    assert names_found(client, "Latin in") >= latin
    for mode in ("auto", "vector", "hybrid", "text"):
        assert client.search_text("Café Οδυσσεύς 서울 東京", mode=mode) is not None
    # Values of filters are met all the same.
    for words in WORDS.values():
        for typed in (words, nfd(words)):
            (hit,) = client.search_text("red", filters={"folder": typed})
            assert hit.relative_path.startswith(nfd(words))
    # Fields that the index lacks are analysed as its others are.
    assert old.store.generations.add_fields(old.store.info(), described()) == [
        "product_id", "text_in_image",
    ]  # fmt: skip
    assert old.store.generations.add_fields(old.store.info(), described()) == []
    assert index_status(old.store)["analysers_outdated"]
    advice = f"`es-imgsearch reindex --index {old.store.index}` renews that"
    assert advice in run(old, "status").stdout
    told = run(old, "init").stderr
    assert "Its words are analysed as by an earlier version" in told
    assert advice in told

    result = to(old)
    assert (result.switched, result.embedded) == (True, 0)
    assert not index_status(old.store)["analysers_outdated"]
    assert advice not in run(old, "status").stdout
    old.store.refresh()
    client = client_of(old)
    for script, words in WORDS.items():
        expected = {nfd(f"{words}/{script} in.png"), nfd(f"{script}/{words} 1.png")}
        assert names_found(client, words) == expected, script
    assert len(names_found(client, "elan")) == 2 * len(WORDS)
    assert {path for _, path in old.indexed()} == {
        str(path.relative_to(old.folder)) for path in old.folder.rglob("*.png")
    }
    drop_before(old.store)
    with pytest.raises(UsageError, match="already"):
        to(old)


# What an index of an earlier version, of the same names of analysers, did not have.
EARLIER = {
    "one word with yo": ("cyrillic_yo", "ёлка", "елка"),
    "characters of one script": ("letters", "圖片", "图片"),
    "capitals of two words": ("capitals", "NASAPhoto", "nasa"),
}


@pytest.mark.parametrize("change", EARLIER)
def test_an_index_made_before_a_change_of_its_analysers_says_so_until_reindex(
    house: House, change: str
):
    char_filter, named, typed = EARLIER[change]
    name, request = house.store.info().name, house.store.connection.request
    assert not index_status(house.store)["analysers_outdated"]
    assert "analysed" not in run(house, "init").stderr
    info = request("GET", f"/{name}")[name]
    request("DELETE", f"/{name}")
    analysis = info["settings"]["index"]["analysis"]
    for each in analysis["analyzer"].values():
        if char_filter in each.get("char_filter", ()):
            each["char_filter"].remove(char_filter)
    settings = {"index": {"refresh_interval": "1s", "analysis": analysis}}
    body = {"aliases": info["aliases"], "mappings": info["mappings"], "settings": settings}
    request("PUT", f"/{name}", body)
    house.picture(f"{named}.png", 1)
    house.synced()
    house.store.refresh()
    assert names_found(client_of(house), typed) == set()
    assert index_status(house.store)["analysers_outdated"]
    assert "renews that" in run(house, "status").stdout
    assert "renews that" in run(house, "init").stderr
    result = to(house)
    assert (result.switched, result.embedded) == (True, 0)
    house.store.refresh()
    assert names_found(client_of(house), typed) == {f"{named}.png"}
    assert not index_status(house.store)["analysers_outdated"]
