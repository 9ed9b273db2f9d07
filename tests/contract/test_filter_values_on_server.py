"""Values of filters are met as people type them; what does not exist is said."""

from __future__ import annotations

import asyncio
import unicodedata
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from es_imgsearch import AsyncImageSearch, ImageSearch
from es_imgsearch.cli import main
from es_imgsearch.elastic.client import connect
from es_imgsearch.elastic.documents import Write
from es_imgsearch.elastic.mapping import new_meta
from es_imgsearch.elastic.store import Store
from es_imgsearch.embed.index_encoder import seal_of
from es_imgsearch.errors import FilterInvalid, UsageError
from es_imgsearch.settings import Settings, load_settings
from es_imgsearch.testing import FakeEncoder, remove_index


def nfd(text: str) -> str:
    return unicodedata.normalize("NFD", text)


DOCUMENTS: dict[str, dict[str, Any]] = {
    "canon": {"camera": "Canon EOS 5D", "format": "jpeg", "colours": ["grey", "blue"],
              "colour_shares": {"grey": 0.5, "blue": 0.5}, "tags": ["Straße", "Dog"],
              "folder": "Urlaub/Île de Ré", "root": "Fotos", "monochrome": True},
    "nikon": {"camera": "NIKON D750", "format": "tiff", "colours": ["black"], "tags": ["dog"],
              "folder": "urlaub/Österreich", "root": "Fotos", "creator": "Δημήτρης",
              "attributes": {"size": "Größe L"}},
    "phone": {"camera": "Apple iPhone 15", "format": "heif", "tags": ["Фото с дачи", "ΟΔΥΣΣΕΥΣ"],
              "folder": nfd("Фото/Йод"), "root": "fotos2", "title": "Ünder the sea",
              "product_id": "AB-12", "keywords": [nfd("Zoë"), "ｶﾞﾗｽ"]},
    "other": {"camera": "Canon EOS R6", "format": "jpeg2000", "colours": ["green"],
              "folder": ".", "root": "ç", "creator": "Long " * 150, "relative_path": nfd("é.jpg")},
    "upper": {"root": "Bilder", "product_id": "SKU-1A", "source_url": "http://a/Q", "folder": "Q",
              "camera": "X"},
    "lower": {"root": "bilder", "product_id": "sku-1a", "source_url": "http://a/q", "folder": "Q",
              "camera": "X"},
    "third": {"root": "BILDER", "product_id": "SKU-1a", "source_url": "HTTP://A/q", "folder": "Q",
              "camera": "X"},
}  # fmt: skip


@pytest.fixture(scope="module")
def settings_of_module(es_url: str) -> Settings:
    return load_settings(
        {"es_url": es_url, "index": f"t-filter-values-{uuid.uuid4().hex[:12]}"}, environment={}
    )


@pytest.fixture(scope="module")
def client(settings_of_module: Settings) -> Iterator[ImageSearch]:
    settings = settings_of_module
    store = Store(connect(settings), settings.index)
    remove_index(store)
    encoder = FakeEncoder()
    store.generations.create(new_meta(seal_of(encoder), "exact", "cosine"))
    vector = encoder.embed_texts(["red"])[0]
    writes = [
        Write(name, document={"image_id": name, "image_name": f"{name}.JPG",
                              "relative_path": name, "image_embedding": vector, **fields})
        for name, fields in DOCUMENTS.items()
    ]  # fmt: skip
    assert set(store.documents.write(writes).values()) == {None}
    store.refresh()
    yield ImageSearch(store.connection.client, settings=settings, encoder=encoder)
    remove_index(store)
    store.connection.client.close()


def on_filters(notes: Sequence[str]) -> list[str]:
    """Leave out the note that so few pictures give no percentages."""
    return [note for note in notes if "relevance needs" not in note]


def found(client: ImageSearch, **filters: Any) -> set[str]:
    return {hit.image_id for hit in client.search_text("red", filters=filters)}


MEANT = [
    *(("format", each, {"canon"}) for each in ("jpg", "JPG", ".jpg", "jpeg", "image/jpeg")),
    *(("format", each, {"nikon"}) for each in ("tif", "TIFF", ".TIF")),
    *(("format", each, {"phone"}) for each in ("heic", "HEIC", "heif", "hif")),
    *(("format", each, {"other"}) for each in ("jp2", "JPEG 2000", "j2k")),
    *(("colours", each, {"canon"}) for each in ("gray", "Grey", "GRAY", "Blue")),
    ("colour_shares.gray", "0.5", {"canon"}),
    *(("camera", each, {"canon"}) for each in ("canon eos 5d", "CANON EOS 5D", "Canon eos 5D")),
    *(("camera", each, {"canon", "other"}) for each in ("canon", "Canon", "canon EOS")),
    ("camera", "nikon", {"nikon"}),
    ("camera", "apple", {"phone"}),
    *(("tags", each, {"canon", "nikon"}) for each in ("dog", "DOG", "Dog")),
    *(("tags", each, {"canon"}) for each in ("straße", "STRASSE", "strasse", "STRAẞE")),
    *(("tags", each, {"phone"}) for each in ("фото с дачи", "ФОТО С ДАЧИ", "Фото С Дачи")),
    *(("tags", each, {"phone"}) for each in ("Οδυσσευς", "οδυσσευς")),
    *(("creator", each, {"nikon"}) for each in ("δημήτρης", "ΔΗΜΉΤΡΗΣ", nfd("Δημήτρης"))),
    *(("keywords", each, {"phone"}) for each in ("Zoë", "ZOË", "zoë", nfd("Zoë"))),
    *(("keywords", each, {"phone"}) for each in ("ガラス", nfd("ガラス"))),
    *(("folder", each, {"canon", "nikon"}) for each in ("Urlaub", "URLAUB", "urlaub/")),
    *(("folder", each, {"canon"}) for each in
      ("urlaub/île de ré", nfd("Urlaub/Île de Ré"), "/URLAUB/ÎLE DE RÉ/")),
    *(("folder", each, {"nikon"}) for each in ("urlaub/österreich", nfd("urlaub/ÖSTERREICH"))),
    *(("folder", each, {"phone"}) for each in ("Фото/Йод", "фото/йод", "ФОТО", nfd("фото"))),
    *(("root", each, {"canon", "nikon"}) for each in ("fotos", "FOTOS", "ｆｏｔｏｓ")),
    *(("root", each, {"other"}) for each in ("ç", "Ç", nfd("Ç"))),
    *(("title", each, {"phone"}) for each in ("ünder the sea", nfd("ÜNDER THE SEA"))),
    *(("image_name", each, {"canon"}) for each in ("canon.jpg", "CANON.JPG")),
    ("product_id", "ab-12", {"phone"}),
    ("product_id", "SKU-1A", {"upper"}),
    ("product_id", "sku-1a", {"lower"}),
    ("product_id", "sKu-1A", {"upper", "lower", "third"}),
    ("product_id", ["sku-1a", "SKU-1a", "x"], {"lower", "third"}),
    ("product_id", ["sku-1a", "AB-12"], {"lower", "phone"}),
    ("product_id", ["sku-1a", "ab-12"], {"lower", "phone"}),
    ("source_url", "http://a/q", {"lower"}),
    ("source_url", "HTTP://A/q", {"third"}),
    ("source_url", "http://A/Q", {"upper", "lower", "third"}),
    ("root", "Bilder", {"upper"}),
    ("root", "bilder", {"lower"}),
    ("root", "BILDER", {"third"}),
    ("root", "bILDER", {"upper", "lower", "third"}),
    ("root", ["Bilder", "bilder"], {"upper", "lower"}),
    ("root", ["Bilder", "fotos"], {"upper", "canon", "nikon"}),
    ("folder", "q", {"upper", "lower", "third"}),
    ("creator", "LONG " * 150, {"other"}),
    ("attributes.size", "GRÖSSE l", {"nikon"}),
    ("attributes.size", nfd("größe l"), {"nikon"}),
    *(("relative_path", each, {"other"}) for each in ("é.jpg", nfd("é.jpg"))),
    ("relative_path", "É.jpg", set()),
    *(("monochrome", each, {"canon"}) for each in ("True", "yes", "TRUE", True)),
    ("tags", ["STRASSE", "фото с дачи"], {"canon", "phone"}),
    ("format", ["tif", "jpg"], {"canon", "nikon"}),
    ("colours", {"gray", "black"}, {"canon", "nikon"}),
    ("camera", ["nikon d750", None], {"nikon"}),
]  # fmt: skip


@pytest.mark.parametrize(("field", "value", "expected"), MEANT)
def test_a_value_is_met_as_it_is_typed(client: ImageSearch, field: str, value: Any, expected):
    assert found(client, **{field: value}) == expected


@pytest.mark.parametrize(("field", "value", "expected"), MEANT)
def test_a_value_as_people_type_it_leaves_out_what_it_finds(
    client: ImageSearch, field: str, value: Any, expected: set[str]
):
    hits = client.search_text("red", without={field: value})
    assert {hit.image_id for hit in hits} == {*DOCUMENTS} - expected
    knn = client.knn_query("red", k=10, without={field: value})
    answer = client.store.connection.client.search(index=client.settings.index, knn=knn)
    assert {each["_id"] for each in answer["hits"]["hits"]} == {*DOCUMENTS} - expected


def test_values_that_nobody_has_are_noted_and_leave_nothing_out(client: ImageSearch):
    hits = client.search_text("red", filters={"tags": "dog"}, without={"format": ["pgn", "jpg"]})
    assert [hit.image_id for hit in hits] == ["nikon"]
    assert on_filters(hits.notes) == ["No picture has the format 'pgn'; near it are 'jpeg'."]
    with pytest.raises(FilterInvalid, match="Did you mean 'tags'"):
        client.search_text("red", without={"tgas": "dog"})
    with pytest.raises(UsageError, match="without is a dict, not a list"):
        client.search_text("red", without=["tags"])  # type: ignore[arg-type]


def test_both_clients_build_the_same_filtered_knn_query(client: ImageSearch):
    given: dict[str, Any] = {"filters": {"tags": "STRASSE"}, "without": {"root": ["BILDER", "x"]}}

    async def ask() -> dict[str, Any]:
        settings, encoder = client.settings, client.encoder
        async with AsyncImageSearch(settings=settings, encoder=encoder) as other:
            return await other.knn_query("red", **given)

    knn = client.knn_query("red", **given)
    assert knn == asyncio.run(ask())
    assert "Straße" in str(knn["filter"])
    assert len(knn["filter"]) == 2


@pytest.mark.parametrize(
    ("filters", "words"),
    [
        ({"tags": "dgo"}, "No picture has the tags 'dgo'; near it are 'Dog', 'dog'."),
        ({"tags": "strase"}, "near it are 'Straße'"),
        ({"camera": "kanon eos"}, "near it are 'Canon EOS R6', 'Canon EOS 5D'"),
        ({"camera": "canon"}, "As camera 'canon' were taken: 'Canon EOS 5D', 'Canon EOS R6'."),
        ({"colours": "violet"}, "No picture has the colours 'violet'; there are 'black', 'blue'"),
        ({"format": "xcf"}, "No picture has the format 'xcf'; there are "),
        ({"folder": "Urlaub/Ile de Re"}, "near it are 'Urlaub/Île de Ré'"),
        ({"folder": "nowhere"}, "No picture has the folder 'nowhere'; there are"),
        ({"root": "foto"}, "near it are 'Fotos'"),
        ({"lens": "50mm"}, "No picture has the lens '50mm'; no picture has a value there."),
        ({"title": "Under the se"}, "near it are 'Ünder the sea'"),
        ({"image_name": "cannon.jpg"}, "near it are 'canon.JPG'"),
        ({"attributes.size": "Größe"}, "near it are 'Größe L'"),
        ({"tags": ["dog", "katze"]}, "No picture has the tags 'katze'"),
        ({"relative_path": "none"}, "No picture has the relative_path 'none'."),
    ],
)
def test_what_does_not_exist_is_said_with_the_nearest(
    client: ImageSearch, settings_of_module: Settings, filters: dict[str, Any], words: str
):
    (note,) = on_filters(client.search_text("red", filters=filters).notes)
    assert words in note

    async def ask() -> Any:
        async with AsyncImageSearch(
            settings_of_module.es_url, settings_of_module.index, encoder=FakeEncoder()
        ) as search:
            return (await search.search_text("red", filters=filters)).notes

    assert on_filters(asyncio.run(ask())) == [note]


def test_what_exists_is_not_remarked_on(client: ImageSearch):
    for filters in ({"tags": "dog"}, {"tags": ["dog", "straße"]}, {"tags": "STRASSE"},
                    {"tags": "dog", "format": "heic"}, {"iso": 5}, {"folder": "urlaub"},
                    {"tags": None, "lens": [None]}, {"title": "ünder the sea"}):  # fmt: skip
        assert on_filters(client.search_text("red", filters=filters).notes) == [], filters
    for mode in ("text", "hybrid"):
        assert client.search_text("canon", mode=mode, filters={"format": "jpg"})


def test_the_command_line_says_what_does_not_exist(settings_of_module: Settings, client):
    where = ["--index", settings_of_module.index, "--es-url", settings_of_module.es_url]
    similar = ["similar", "canon", "--filter", "tags=dgo", *where]
    for arguments in (similar, [*similar, "--json"]):
        result = CliRunner().invoke(main, arguments)
        assert result.exit_code == 0, result.output
        assert "No picture has the tags 'dgo'; near it are 'Dog', 'dog'." in result.stderr
    result = CliRunner().invoke(main, ["similar", "canon", "--filter", "format=TIF", *where])
    assert "Fotos/nikon" in result.stdout


def test_an_export_meets_values_alike(settings_of_module: Settings, client, tmp_path: Path):
    where = ["--index", settings_of_module.index, "--es-url", settings_of_module.es_url]
    file = str(tmp_path / "out.h5")
    for value, words in (("STRASSE", "1 picture to"), ("dgo", "near it are 'Dog', 'dog'.")):
        result = CliRunner().invoke(main, ["export", file, "--filter", f"tags={value}", *where])
        assert result.exit_code == 0, result.output
        assert words in result.stderr


@pytest.mark.parametrize(("typed", "meant"), [("colors", "colours"), ("Camera", "camera"),
                                              ("tag", "tags"), ("formats", "format")])  # fmt: skip
def test_an_unknown_field_is_refused_with_the_nearest(client: ImageSearch, typed: str, meant: str):
    with pytest.raises(FilterInvalid, match=f"Did you mean '{meant}'"):
        found(client, **{typed: "x"})


@pytest.mark.parametrize("value", ["x" * 9000, "é" * 3000, "a\nb", ".*|[^a]", '"', "😀", "", " ",
                                   "\u200d", "-1", "?" * 300],
                         ids=lambda value: ascii(value)[:12])  # fmt: skip
@pytest.mark.parametrize(
    "field", ["tags", "folder", "camera", "title", "attributes.size", "format"]
)
def test_any_value_is_no_error(client: ImageSearch, field: str, value: str):
    hits = client.search_text("red", filters={field: value})
    assert len(hits) == 0 or (field, value) in {("folder", ""), ("folder", " ")}
    assert client.search_text("red", filters={field: [value] * 2 + ["none"]}) is not None


def test_fifty_values_of_other_scripts_are_few_enough_clauses(client: ImageSearch):
    values = [f"Ñandú Йод {n}" for n in range(49)]
    assert found(client, tags=[*values, "ДОГ"]) == set()
    assert found(client, tags=[*values, "dog"]) == {"canon", "nikon"}


@pytest.mark.parametrize(
    ("filters", "requests"),
    [
        ({"tags": "dog"}, 1),
        ({"root": "Bilder"}, 1),
        ({"tags": ["dog", "straße"]}, 1),
        ({"tags": ["DOG", "Фото с дачи"], "format": ["jpg", "tif", "heic"]}, 1),
        ({"root": ["Fotos", "bilder"]}, 1),
        ({"folder": ["urlaub", "фото"]}, 1),
        ({"image_id": ["canon", "nikon"]}, 1),
        ({"image_id": ["canon", "nobody"]}, 1),
        ({"content_id": ["x"], "image_id": ["canon"]}, 3),
        ({"relative_path": ["canon", "nikon"]}, 1),
        ({"product_id": ["AB-12", "SKU-1A"]}, 1),
        ({"tags": ["dog", "katze"]}, 3),
        ({"creator": ["Δημήτρης", "None"]}, 3),
        ({"creator": ["None", None]}, 3),
    ],
)
def test_only_what_was_not_found_is_asked_for(
    client: ImageSearch, monkeypatch: pytest.MonkeyPatch, filters: dict[str, Any], requests: int
):
    client.search_text("red")
    transport, sent = client.store.connection.client.transport, []
    send = transport.perform_request

    def count(method: str, target: str, **given: Any) -> Any:
        sent.append(target)
        return send(method, target, **given)

    monkeypatch.setattr(transport, "perform_request", count)
    client.search_text("red", mode="vector", filters=filters)
    assert len([each for each in sent if "_search" in each]) == requests, sent


def test_a_value_that_a_hit_has_by_chance_is_still_met(client: ImageSearch):
    """The hit of `dog` has Straße too, but STRASSE asks for another spelling."""
    assert found(client, tags=["Dog", "STRASSE"]) == {"canon", "nikon"}
    assert found(client, tags=["blue", "STRASSE"]) == {"canon"}
    assert found(client, root=["Bilder", "BILDER"], folder="q") == {"upper", "third"}
