"""Names and words of all writing systems, composed or not, on the real server."""

from __future__ import annotations

import csv
import unicodedata

import pytest

from es_imgsearch.search.client import ImageSearch
from tests.support.house import House

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
