"""`find` from nothing, and the forms in which hits are printed."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from PIL import Image

from es_imgsearch.cli import main
from es_imgsearch.elastic.client import connect
from es_imgsearch.elastic.store import Store
from es_imgsearch.records import image_id
from es_imgsearch.settings import load_settings
from es_imgsearch.testing import remove_index
from tests.support.house import until

Run = Callable[..., Result]


def command(index: str, es_url: str, home: Path) -> Run:
    environment = {
        "ES_URL": es_url,
        "ES_IMGSEARCH_INDEX": index,
        "ES_IMGSEARCH_MODELS_DIR": str(home / "models"),
        "ES_IMGSEARCH_READ_WORKERS": "1",
        "ES_IMGSEARCH_DESCRIBERS": "-text_in_image",
        "ES_IMGSEARCH_SETTLE_SECONDS": "0.1",
        "HF_HUB_CACHE": str(home / "hub"),
    }

    def invoke(*arguments: str | Path, stdin: bytes | None = None, **more: str) -> Result:
        texts = [os.fspath(each) for each in arguments]
        return CliRunner(env={**environment, **more}).invoke(main, texts, input=stdin)

    return invoke


def copied(folder: Path, photographs: Path) -> Path:
    (folder / "sub").mkdir(parents=True)
    for name in ("chelsea.png", "coffee.png"):
        shutil.copy(photographs / name, folder)
    shutil.copy(photographs / "motorcycle_left.png", folder / "sub")
    return folder


@pytest.fixture
def run(real_store: Store, es_url: str, tmp_path: Path) -> Run:
    """A command on an index that does not exist yet."""
    return command(real_store.index, es_url, tmp_path)


@pytest.fixture
def photos(tmp_path: Path, photographs: Path) -> Path:
    return copied(tmp_path / "photos", photographs)


def shown(result: Result) -> list[str]:
    """Paths of the printed hits."""
    assert result.exit_code == 0, result.output
    return [line.split(maxsplit=1)[1] for line in result.stdout.splitlines()]


def test_one_command_makes_the_index_and_finds(run: Run, photos: Path):
    found = run("find", "a cat", photos)
    assert shown(found)[0] == str(photos / "chelsea.png")
    assert "encoder starter" in found.stderr
    assert "1,000 kinds of things" in found.stderr
    again = run("find", "a cat", photos)
    assert shown(again) == shown(found)
    assert re.fullmatch(
        r"Index 't-\w+' holds \d different pictures; .* no percentage.\n", again.stderr
    )


def test_a_new_file_is_found_at_once(run: Run, photos: Path, photographs: Path):
    run("find", "a cat", photos)
    shutil.copy(photographs / "rocket.jpg", photos)
    assert shown(run("find", "a rocket", photos, "-k", "1")) == [str(photos / "rocket.jpg")]


def test_text_in_pictures_is_read_on_request(
    run: Run, real_store: Store, tmp_path: Path, photographs: Path
):
    """It costs more than everything else; once the index holds some, it is kept up to date."""

    def texts() -> dict[str, str]:
        real_store.refresh()
        found = real_store.listings.stored("scans")
        ids = {image_id("scans", each.stored_path): each.stored_path for each in found}
        fields = real_store.documents.stored_fields(list(ids), ["text_in_image"])
        return {ids[each]: found["text_in_image"] for each, found in fields.items() if found}

    scans = tmp_path / "scans"
    scans.mkdir()
    shutil.copy(photographs / "text.png", scans / "one.png")
    default = {"ES_IMGSEARCH_DESCRIBERS": ""}
    found = run("find", "words", scans, **default)
    assert texts() == {}
    (advised,) = re.findall(r"`es-imgsearch (describe --only .*?)`", found.stderr)
    assert run(*advised.split(), **default).exit_code == 0
    assert texts().keys() == {"one.png"}
    # A run without it keeps what is stored with the same content.
    os.utime(scans / "one.png")
    Image.open(scans / "one.png").crop((0, 0, 300, 100)).save(scans / "two.png")
    assert run("sync", scans).exit_code == 0
    assert texts().keys() == {"one.png"}
    Image.open(scans / "one.png").convert("L").save(scans / "three.png")
    assert run("sync", scans, **default).exit_code == 0
    assert texts().keys() == {"one.png", "three.png"}


def test_a_file_that_cannot_be_read_is_a_note(run: Run, photos: Path):
    (photos / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nno more")
    found = run("find", "a cat", photos)
    assert len(shown(found)) == 3
    assert "1 file could not be read" in found.stderr
    assert "broken.png" in run("failures").output


def test_hits_are_of_the_folders_given(run: Run, photos: Path, tmp_path: Path, photographs: Path):
    other = tmp_path / "other" / "photos"
    other.mkdir(parents=True)
    shutil.copy(photographs / "coins.png", other)
    inside = photos / "sub" / "motorcycle_left.png"
    assert len(shown(run("find", "a cat", photos))) == 3
    # A second folder of the same name gets a name of its own.
    assert shown(run("find", "a cat", other)) == [str(other / "coins.png")]
    assert shown(run("find", "a cat", photos / "sub")) == [str(inside)]
    both = run("find", "a motorcycle", photos / "sub", other, photos / "sub")
    assert shown(both) == [str(inside), str(other / "coins.png")]
    assert len(shown(run("find", "a cat", photos, photos / "sub", other))) == 4
    assert len(shown(run("find", "a cat", photos, other, "-k", "2"))) == 2


def test_the_folder_above_is_searched_after_what_the_message_says(run: Run, photos: Path):
    run("find", "a cat", photos / "sub")
    refused = run("find", "a cat", photos)
    assert refused.exit_code == 2
    (command,) = re.findall(r"`es-imgsearch (.*?)` once, which takes that one in", refused.output)
    done = run(*shlex.split(command))
    assert "'sub' is taken in: its 1 picture in the index" in done.stderr
    assert len(shown(run("find", "a cat", photos))) == 3
    assert len(shown(run("find", "a cat", photos / "sub"))) == 1


def test_a_renamed_folder_is_noted_before_it_is_indexed(
    run: Run, photos: Path, caplog: pytest.LogCaptureFixture
):
    run("find", "a cat", photos)
    renamed = photos.rename(photos.with_name("Bilder"))
    run("find", "a cat", renamed)
    (command,) = re.findall(r"`es-imgsearch (sync .*?)` continues it", caplog.text)
    run(*shlex.split(command))
    assert len(shown(run("find", "a cat", renamed))) == 3
    paths = [line.split(maxsplit=1)[1] for line in run("search", "a cat").stdout.splitlines()]
    assert len(paths) == 3
    assert all(path.startswith(f"{renamed}/") for path in paths)


def test_a_folder_whose_name_is_not_utf_8(run: Run, photos: Path):
    odd = Path(f"{photos.parent}/caf\udce9=x")
    photos.rename(odd)
    for folders in ([odd], [odd], [odd / "sub", odd]):
        done = run("find", "a cat", *folders, "-k", "1", "--paths")
        assert done.exit_code == 0, done.output
        assert done.stdout_bytes == os.fsencode(odd / "chelsea.png") + b"\n"


def test_a_picture_is_searched_with(run: Run, photos: Path):
    found = run("find", photos / "coffee.png", photos, "-k", "1")
    assert shown(found) == [str(photos / "coffee.png")]


def test_clip_is_taken_where_its_weights_are(run: Run, photos: Path, tmp_path: Path):
    from es_imgsearch.embed.sentence_transformers import CLIP_PICTURES, CLIP_TEXTS, has_clip

    models = tmp_path / "models"
    assert not has_clip(models)
    for number, name in enumerate((CLIP_PICTURES, CLIP_TEXTS)):
        (models / name).mkdir(parents=True)
        (models / name / "config.json").write_text("{}")
        assert not has_clip(models)
        (models / name / "model.safetensors").write_bytes(b"weights")
        assert has_clip(models) == bool(number)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["a cat"], "Name the folders"),
        (["a", "cat", "."], "Words to search for go in quotes"),
        (["a cat", "/no/such"], "does not exist"),
        (["a cat", ".", "--json", "--paths"], "--json or --paths, not both"),
        (["a cat", ".", "--index", "A"], "index"),
    ],
)
def test_wrong_use_is_said_in_words(run: Run, arguments: list[str], words: str):
    done = run("find", *arguments)
    assert done.exit_code == 2
    assert words in done.stderr


def test_without_elasticsearch_it_says_how_to_have_one(run: Run, photos: Path):
    done = run("find", "a cat", photos, ES_URL="http://127.0.0.1:1")
    assert done.exit_code == 3
    for words in ("its address with ES_URL", "make es-up", "make up"):
        assert words in done.stderr


# -- what is printed -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory, photographs: Path) -> Path:
    folder = copied(tmp_path_factory.mktemp("found") / "photos", photographs)
    # A name that is not UTF-8.
    Image.new("RGB", (40, 30), "red").save(os.fsencode(folder / "sub") + b"/\xff.png", "PNG")
    return folder


@pytest.fixture(scope="module")
def indexed(es_url: str, found: Path) -> Iterator[Run]:
    """A command on the index of `found`, which no test changes."""
    settings = load_settings(
        {"es_url": es_url, "index": f"t-{uuid.uuid4().hex[:12]}"}, environment={}
    )
    run = command(settings.index, es_url, found.parent)
    assert run("find", "a cat", found).exit_code == 0
    yield run
    store = Store(connect(settings), settings.index)
    remove_index(store)
    store.connection.client.close()


def test_json_is_an_object_with_paths(indexed: Run, found: Path):
    done = indexed("search", "a cat", "--json", "--facets", "format")
    answer = json.loads(done.stdout)
    assert answer.keys() == {"hits", "facets", "notes", "took_ms", "relevant"}
    assert answer["facets"] == {"format": {"png": 4}}
    assert answer["hits"][0]["path"] == str(found / "chelsea.png")
    assert {"image_id", "root", "relative_path", "score", "relevance"} <= answer["hits"][0].keys()
    assert f"{found}/sub/\\xff.png" in [hit["path"] for hit in answer["hits"]]
    hits = json.loads(indexed("search", "a cat", "--json-hits").stdout)
    assert hits == answer["hits"]


def test_paths_are_bytes_for_other_programs(indexed: Run, found: Path):
    ended = indexed("search", "a cat", "-0").stdout_bytes
    paths = ended.split(b"\0")
    assert paths.pop() == b""
    assert sorted(paths) == sorted(
        os.path.join(os.fsencode(folder), name)
        for folder, _, names in os.walk(found)
        for name in map(os.fsencode, names)
    )
    assert all(os.path.exists(each) for each in paths)
    assert indexed("search", "a cat", "--paths").stdout_bytes == ended.replace(b"\0", b"\n")


def test_paths_of_another_host_are_left_out(indexed: Run):
    done = indexed("search", "a cat", "--paths", ES_IMGSEARCH_HOST="elsewhere")
    assert done.stdout == ""
    assert "4 hits are on another host and left out.\n" in done.stderr
    done = indexed("search", "a cat", "-k", "1", ES_IMGSEARCH_HOST="elsewhere")
    assert done.stdout.endswith("  photos/chelsea.png\n")
    done = indexed("search", "a cat", "--open", ES_IMGSEARCH_HOST="elsewhere")
    assert "cannot be opened here" in done.stderr


def test_ids_are_printed_on_request(indexed: Run):
    line = indexed("search", "a cat", "-k", "1", "--ids").stdout
    image_id = line.split()[1]
    like_it = indexed("similar", image_id)
    assert len(shown(like_it)) == 3
    assert "chelsea" not in like_it.stdout


def test_similar_takes_a_file(indexed: Run, found: Path, photographs: Path):
    of_stored = indexed("similar", found / "chelsea.png", "--json-hits")
    image_id = indexed("search", "a cat", "-k", "1", "--ids").stdout.split()[1]
    assert of_stored.stdout == indexed("similar", image_id, "--json-hits").stdout
    # Of a file that is not stored, the same picture comes first.
    other = indexed("similar", photographs / "chelsea.png", "-k", "1")
    assert shown(other) == [str(found / "chelsea.png")]
    new = found / "new.png"
    shutil.copy(photographs / "coffee.png", new)
    assert shown(indexed("similar", new, "-k", "1")) == [str(found / "coffee.png")]
    new.unlink()
    missing = indexed("similar", "none.png")
    assert missing.exit_code == 2
    assert "no file of that name" in missing.stderr


def test_a_file_among_words_is_searched_with(indexed: Run, found: Path):
    done = indexed("search", found / "coffee.png", "-k", "1")
    assert shown(done) == [str(found / "coffee.png")]


def test_words_like_a_path_are_noted(indexed: Run):
    done = indexed("search", "holiday.jpg", "-k", "1")
    assert done.exit_code == 0
    assert "There is no file 'holiday.jpg'. Searching for these words." in done.stderr


def test_a_picture_comes_from_standard_input(indexed: Run, found: Path):
    content = (found / "coffee.png").read_bytes()
    done = indexed("search", "--image", "-", "-k", "1", stdin=content)
    assert shown(done) == [str(found / "coffee.png")]


def test_pictures_are_not_drawn_into_a_pipe(indexed: Run):
    done = indexed("search", "a cat", "--preview")
    assert (done.exit_code, done.stdout) == (2, "")
    assert "write a --sheet" in done.stderr
    assert "between lines" in indexed("search", "a cat", "--preview", "--json").stderr


def test_the_best_hit_is_opened(indexed: Run, found: Path, tmp_path: Path):
    viewer = tmp_path / "bin" / "xdg-open"
    viewer.parent.mkdir()
    opened = tmp_path / "opened"
    viewer.write_text(f'#!/bin/sh\nprintf "%s" "$1" > {opened}\n')
    viewer.chmod(0o755)
    path = f"{viewer.parent}:{os.environ['PATH']}"
    assert indexed("search", "a cat", "--open", PATH=path).exit_code == 0
    until(lambda: opened.exists() and opened.read_text() == str(found / "chelsea.png"))
    sheet = tmp_path / "sheet.png"
    assert indexed("search", "x", "--sheet", sheet, "--open", PATH=path).exit_code == 0
    until(lambda: opened.read_text() == str(sheet))
    viewer.write_text("#!/bin/sh\necho xdg-open: no method available >&2\nexit 3\n")
    done = indexed("search", "a cat", "--open", PATH=path)
    assert (done.exit_code, "xdg-utils" in done.stderr) == (1, True)
    assert "no method" not in done.stderr
    done = indexed("search", "a cat", "--open", PATH="/nothing/here")
    assert (done.exit_code, "xdg-utils" in done.stderr) == (1, True)


def test_what_a_search_should_be_unlike_counts_in_the_default_mode(indexed: Run, found: Path):
    """Names that have the words ranked the unwanted pictures first."""
    by_vectors = shown(indexed("search", "coffee", "--not", "coffee cup", "--mode", "vector"))
    assert shown(indexed("search", "coffee", "--not", "coffee cup")) == by_vectors


def test_find_takes_filters_and_dates(run: Run, photos: Path):
    run("find", "a cat", photos)
    assert shown(run("find", "a photo", photos, "--filter", "width=451")) == [
        str(photos / "chelsea.png")
    ]
    assert shown(run("find", "a photo", photos, "--until", "1999")) == []
    refused = run("find", "a photo", photos, "--filter", "folder=sub")
    assert (refused.exit_code, "leave that filter out" in refused.stderr) == (2, True)


def test_folders_without_pictures_are_no_error(run: Run, tmp_path: Path, photos: Path):
    (tmp_path / "empty").mkdir()
    (photos / "later").mkdir()
    for folder in (tmp_path / "empty", photos / "later"):
        run("find", "a cat", photos)
        found = run("find", "a cat", folder)
        assert (found.exit_code, found.stdout) == (0, "")
        assert "no pictures in these folders" in found.stderr
    both = run("find", "a cat", photos / "later", photos / "sub")
    assert shown(both) == [str(photos / "sub" / "motorcycle_left.png")]


def test_words_and_pictures_together(indexed: Run, found: Path):
    both = shown(indexed("search", found / "coffee.png", "a", "cat", "-k", "2"))
    assert {*both} == {str(found / "coffee.png"), str(found / "chelsea.png")}
    two = shown(indexed("search", found / "coffee.png", found / "chelsea.png", "-k", "2"))
    assert {*two} == {*both}
    done = indexed("search", found / "coffee.png", found / "chelsea.png", "--box", "0,0,9,9")
    assert (done.exit_code, "one picture" in done.stderr) == (2, True)


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (["a cat", "format=png"], "--filter 'format=png'"),
        (["a", "--since", "2024", "--until", "2023"], "2024 is later than 2023"),
        (["a", "--since", "2023-02-30"], "There is no date 2023-02-30."),
        (["a", "--filter", "taken_at=2024..2023-05"], "2024 is later than 2023-05"),
        (["a", "--filter", "width=600-700"], "A range is written 600..700."),
        (["a", "--filter", "width=700..600"], "700 is more than 600"),
        (["a", "--sheet", "cats"], "end it in .png"),
        (["a", "--sheet", "none/cats.png"], "there is no folder"),
    ],
)
def test_what_cannot_be_meant_is_answered(indexed: Run, words: list[str], answer: str):
    done = indexed("search", *words)
    assert (done.exit_code, done.stdout) == (2, "")
    assert answer in done.stderr


def test_folders_of_one_name_in_several_roots_are_told_apart(
    run: Run, tmp_path: Path, photographs: Path
):
    for root, names in (("a", ("chelsea", "coffee")), ("b", ("motorcycle_left", "astronaut"))):
        for folder, name in zip(("x", "y"), names, strict=True):
            (tmp_path / root / folder).mkdir(parents=True)
            shutil.copy(photographs / f"{name}.png", tmp_path / root / folder)
    for root in ("a", "b"):
        run("find", "a cat", tmp_path / root)
    found = shown(run("find", "a cat", tmp_path / "a" / "x", tmp_path / "b" / "y"))
    assert {Path(each).name for each in found} == {"chelsea.png", "astronaut.png"}
    (best,) = shown(run("find", "a cup", tmp_path / "a", tmp_path / "b" / "y", "-k", "1"))
    assert best == str(tmp_path / "a" / "y" / "coffee.png")
