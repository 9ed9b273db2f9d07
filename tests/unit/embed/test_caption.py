"""`caption`: a tiny captioning model, the real MiniLM, and what the index keeps of both."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from es_imgsearch.elastic.mapping import new_meta
from es_imgsearch.embed.context import open_context
from es_imgsearch.embed.index_encoder import seal_of, sealed_encoder
from es_imgsearch.embed.minilm import MiniLM
from es_imgsearch.embed.protocol import Encoder, FieldEncoder
from es_imgsearch.embed.registry import load_encoder, spec_of
from es_imgsearch.embed.starter import sentences_folder
from es_imgsearch.errors import EncoderMismatch, EncoderUnknown, ModelUnavailable
from es_imgsearch.pipeline.indexer import Indexer
from es_imgsearch.read.preparation import Preparation
from es_imgsearch.records import Root, image_id, unit
from tests.support.tiny_models import make_captioner, make_clip, make_text_model

if TYPE_CHECKING:
    from es_imgsearch.elastic.store import Store
    from es_imgsearch.embed.protocol import Pixels
    from es_imgsearch.settings import Settings

pytestmark = pytest.mark.usefixtures("no_hub")


@pytest.fixture(scope="module")
def models_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    make_captioner(folder / "vit-gpt2-image-captioning")
    return folder


@pytest.fixture(scope="module")
def caption(models_dir: Path) -> Any:
    return load_encoder("caption", models_dir=models_dir, device="cpu")


@pytest.fixture(scope="module")
def three(models_dir: Path) -> Any:
    return load_encoder("caption:#3", models_dir=models_dir, device="cpu")


def blocks(count: int) -> list[Image.Image]:
    rng = np.random.default_rng(3)
    small = rng.integers(0, 256, (count, 4, 4, 3), dtype=np.uint8)
    return [Image.fromarray(each).resize((90, 70), Image.Resampling.NEAREST) for each in small]


def prepared(encoder: Encoder, images: list[Image.Image]) -> Pixels:
    return np.stack([encoder.preparation.apply(image) for image in images])


def cosines(left: Any, right: Any) -> Any:
    return np.sum(left * right, axis=1)


def test_it_is_an_encoder_that_gives_fields(caption: Any) -> None:
    assert isinstance(caption, Encoder)
    assert isinstance(caption, FieldEncoder)
    assert (caption.name, caption.dims) == ("caption:nlpconnect/vit-gpt2-image-captioning", 384)
    assert (caption.supports_text, list(caption.fields)) == (True, ["caption"])
    assert caption.preparation == Preparation(64, 64, mode="squash", resampling="bilinear")


def test_captions_are_those_of_the_models_own_processor(caption: Any, models_dir: Path) -> None:
    """Beam search by hand, on pixels that transformers prepared."""
    import torch
    from transformers import AutoImageProcessor, AutoTokenizer, VisionEncoderDecoderModel

    folder = models_dir / "vit-gpt2-image-captioning"
    images = blocks(4)
    pixels = AutoImageProcessor.from_pretrained(folder)(images, return_tensors="pt").pixel_values
    model = VisionEncoderDecoderModel.from_pretrained(folder).eval()
    with torch.inference_mode():
        ids = model.generate(pixel_values=pixels, num_beams=4, do_sample=False, max_new_tokens=30)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    expected = [text.strip() for text in tokenizer.batch_decode(ids, skip_special_tokens=True)]

    written = caption.captions(prepared(caption, images))

    assert [texts[0] for texts in written] == expected
    assert len(set(expected)) > 1, "what is written depends on the picture"


def test_a_pictures_vector_is_that_of_its_caption(caption: Any) -> None:
    pixels = prepared(caption, blocks(3))
    vectors, fields = caption.embed_with_fields(pixels)
    assert vectors.shape == (3, 384)
    assert np.array_equal(vectors, caption.embed_images(pixels))
    sentences = MiniLM(sentences_folder())
    expected = sentences.encode([each["caption"][0] for each in fields])
    assert cosines(vectors, expected).min() > 0.99999
    # Text and picture meet: somebody who asks for what was written finds the picture.
    for number, each in enumerate(fields):
        scores = vectors @ caption.embed_texts(each["caption"])[0]
        assert scores[number] == pytest.approx(1, abs=1e-5)
        assert scores.max() == pytest.approx(scores[number], abs=1e-5)


def test_several_captions_a_picture(three: Any, caption: Any) -> None:
    pixels = prepared(three, blocks(3))
    vectors, fields = three.embed_with_fields(pixels)
    for each, vector in zip(fields, vectors, strict=True):
        assert 1 < len(each["caption"]) <= 3
        assert len(set(each["caption"])) == len(each["caption"])
        mean = unit(MiniLM(sentences_folder()).encode(each["caption"]).mean(axis=0))
        assert vector @ mean > 0.99999
    likeliest = [each[0] for each in caption.captions(pixels)]
    assert [each["caption"][0] for each in fields] == likeliest
    assert three.fingerprint != caption.fingerprint
    assert three.name.endswith("#3")


def test_an_empty_caption_is_no_field(caption: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(caption, "_written", lambda _pixels: [" ", "a  cat "])
    vectors, fields = caption.embed_with_fields(prepared(caption, blocks(2)))
    assert fields == [{}, {"caption": ["a cat"]}]
    assert cosines(vectors, caption.embed_texts(["", "a cat"])).min() > 0.99999


def test_batches_equal_single_calls(three: Any) -> None:
    pixels = prepared(three, blocks(10))  # more than one forward pass
    together, fields = three.embed_with_fields(pixels)
    alone = [three.embed_with_fields(one[None]) for one in pixels]
    assert [each[1][0] for each in alone] == list(fields)
    assert cosines(np.concatenate([each[0] for each in alone]), together).min() > 0.99999
    nothing, no_fields = three.embed_with_fields(pixels[:0])
    assert (nothing.shape, list(no_fields)) == ((0, 384), [])
    assert three.embed_texts([]).shape == (0, 384)


def test_any_sentence_encoder(models_dir: Path, tmp_path: Path) -> None:
    make_text_model(tmp_path / "sentences")
    captioner = models_dir / "vit-gpt2-image-captioning"
    encoder = load_encoder(f"caption:{captioner}+{tmp_path / 'sentences'}", device="cpu")
    assert encoder.name == "caption:vit-gpt2-image-captioning+sentences"
    assert spec_of(encoder) == f"caption:{captioner}+{tmp_path / 'sentences'}"
    (tmp_path / "#1+").symlink_to(models_dir)
    placed = f"caption:{tmp_path / '#1+' / captioner.name}"
    assert spec_of(load_encoder(placed, device="cpu")) == placed
    assert spec_of(load_encoder(f"{placed}#2", device="cpu")) == f"{placed}#2"
    assert encoder.dims == 16
    pixels = prepared(encoder, blocks(2))
    vectors, fields = encoder.embed_with_fields(pixels)  # type: ignore[attr-defined]
    written = [each["caption"][0] for each in fields]
    assert cosines(vectors, encoder.embed_texts(written)).min() > 0.99999
    assert encoder.truncated(["a cat", "cat dog " * 60]) == [False, True]  # type: ignore[attr-defined]


@pytest.mark.parametrize("count", ["0", "11", "-1", "many", ""])
def test_a_count_of_captions_that_is_none(models_dir: Path, count: str) -> None:
    with pytest.raises(EncoderUnknown, match="from 1 to 10"):
        load_encoder(f"caption:#{count}", models_dir=models_dir)


def test_models_that_are_not_here_or_write_nothing(models_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailable, match="--encoder starter"):
        load_encoder("caption", models_dir=tmp_path)
    make_clip(tmp_path / "clip")
    clip = load_encoder(f"caption:{tmp_path / 'clip'}", device="cpu")
    with pytest.raises(ModelUnavailable, match="cannot be loaded to write captions"):
        clip.embed_images(np.zeros((1, 64, 64, 3), np.uint8))
    make_text_model(tmp_path / "words")
    with pytest.raises(ModelUnavailable, match="takes no pictures"):
        load_encoder(f"caption:{tmp_path / 'words'}")


def test_an_index_refuses_a_changed_model(
    real_store: Store, settings: Settings, caption: Any, models_dir: Path, tmp_path: Path
) -> None:
    real_store.generations.create(new_meta(seal_of(caption), "exact", "cosine"))
    info, index = real_store.info(), real_store.index
    here = settings.model_copy(update={"models_dir": models_dir})
    assert sealed_encoder(info, index, here).name == caption.name

    make_captioner(tmp_path / "vit-gpt2-image-captioning", seed=9)
    elsewhere = settings.model_copy(update={"models_dir": tmp_path})
    with pytest.raises(EncoderMismatch):
        sealed_encoder(info, index, elsewhere)
    with pytest.raises(EncoderMismatch):
        sealed_encoder(info, index, here.model_copy(update={"encoder": "caption:#2"}))


def test_captions_are_stored_and_go_with_the_vector_to_copies(
    real_store: Store, settings: Settings, three: Any, tmp_path: Path
) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    images = blocks(2)
    for number, image in enumerate(images):
        image.save(folder / f"{number}.png")
        # Long settled: nobody waits for another write.
        os.utime(folder / f"{number}.png", (1e9, 1e9))
    root = Root("photos", folder)
    real_store.generations.create(new_meta(seal_of(three), "exact", "cosine"))

    context = open_context(real_store, settings, three)

    def sync() -> tuple[int, int]:
        indexer = Indexer(replace(context, describers=()), [root], settings)
        try:
            indexer.reconcile(root)
            assert indexer.pipeline.wait_idle(60)
            real_store.refresh()
            return indexer.counts.embedded, indexer.counts.reused
        finally:
            indexer.pipeline.close()

    assert sync() == (2, 0)
    # Another process, so that what it knows of the copy comes from the index.
    shutil.copy2(folder / "0.png", folder / "copy.png")
    assert sync() == (0, 1)

    vectors, fields = three.embed_with_fields(prepared(three, images))
    for name, number in (("0.png", 0), ("1.png", 1), ("copy.png", 0)):
        stored = real_store.documents.get(image_id("photos", name))
        assert stored["caption"] == fields[number]["caption"]
        found = real_store.documents.vector(image_id("photos", name))
        assert np.allclose(found, vectors[number], atol=1e-6)
