"""`timm:NAME`: torchvision's preprocessing and features, on seeded weights; and real ones."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import skimage
import torch
from PIL import Image

from es_imgsearch.elastic.mapping import new_meta
from es_imgsearch.embed.index_encoder import seal_of, sealed_encoder
from es_imgsearch.embed.protocol import Encoder
from es_imgsearch.embed.registry import load_encoder
from es_imgsearch.errors import EncoderMismatch, EncoderUnknown, ModelUnavailable, TextUnsupported
from es_imgsearch.read.preparation import Preparation
from es_imgsearch.records import unit

if TYPE_CHECKING:
    from collections.abc import Callable

    from es_imgsearch.elastic.store import Store
    from es_imgsearch.embed.protocol import Pixels
    from es_imgsearch.settings import Settings

timm = pytest.importorskip("timm")
torchvision = pytest.importorskip("torchvision")

PHOTOGRAPHS = Path(skimage.__file__).parent / "data"
TORCHVISIONS = Preparation(width=224, height=224, resize=256, resampling="bilinear")


pytestmark = pytest.mark.usefixtures("no_hub")


@pytest.fixture(scope="module")
def images() -> list[Image.Image]:
    names = ("chelsea.png", "coffee.png", "rocket.jpg", "motorcycle_left.png")
    return [Image.open(PHOTOGRAPHS / name).convert("RGB") for name in names]


def prepared(encoder: Encoder, images: list[Image.Image]) -> Pixels:
    return np.stack([encoder.preparation.apply(image) for image in images])


def seeded(model: Any) -> Any:
    """The model with batch norms as after training, whose means are 0 and deviations 1 before."""
    torch.manual_seed(5)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    return model.eval()


@pytest.fixture(scope="module")
def resnet18() -> Any:
    torch.manual_seed(4)
    return seeded(torchvision.models.resnet18())


@pytest.fixture(scope="module")
def models_dir(tmp_path_factory: pytest.TempPathFactory, resnet18: Any) -> Path:
    folder = tmp_path_factory.mktemp("weights")
    torch.save(resnet18.state_dict(), folder / "resnet18.pth")
    return folder


def of_torchvision(model: Any, weights: Any, images: list[Image.Image]) -> Any:
    """Unit vectors of the model's output with torchvision's own preprocessing."""
    transform = weights.transforms()
    with torch.inference_mode():
        return unit(model(torch.stack([transform(image) for image in images])).numpy())


# --- preprocessing and features ---------------------------------------------------------------


def test_resnet18_gives_torchvisions_features(
    images: list[Image.Image], resnet18: Any, models_dir: Path
) -> None:
    encoder = load_encoder("timm:resnet18@resnet18.pth", models_dir=models_dir, device="cpu")
    assert isinstance(encoder, Encoder)
    assert (encoder.name, encoder.dims) == ("timm:resnet18.tv_in1k@resnet18.pth", 512)
    assert encoder.preparation == TORCHVISIONS

    vectors = encoder.embed_images(prepared(encoder, images))

    pooled = torch.nn.Sequential(*list(resnet18.children())[:-1], torch.nn.Flatten())
    weights = torchvision.models.ResNet18_Weights.IMAGENET1K_V1
    expected = of_torchvision(pooled, weights, images)
    assert vectors.dtype == np.float32
    # Features of random weights are alike; an allowance of 1e-3 is a tenth of what differs.
    assert np.abs(vectors[0] - vectors[1]).max() > 0.01
    assert np.allclose(vectors, expected, atol=1e-3)
    assert np.sum(vectors * expected, axis=1).min() >= 0.999


def test_resnet18_gives_torchvisions_logits(
    images: list[Image.Image], resnet18: Any, models_dir: Path
) -> None:
    encoder = load_encoder("timm:resnet18/logits@resnet18.pth", models_dir=models_dir, device="cpu")
    assert encoder.name == "timm:resnet18.tv_in1k/logits@resnet18.pth"
    vectors = encoder.embed_images(prepared(encoder, images))
    weights = torchvision.models.ResNet18_Weights.IMAGENET1K_V1
    expected = of_torchvision(resnet18, weights, images)
    assert vectors.shape == (4, encoder.dims) == (4, 1000)
    assert np.sum(vectors * expected, axis=1).min() >= 0.999


def test_vgg16_gives_its_last_convolution_pooled(images: list[Image.Image], tmp_path: Path) -> None:
    torch.manual_seed(6)
    features = torchvision.models.vgg16(init_weights=False).features.eval()
    with torch.device("meta"):
        shapes = torchvision.models.vgg16(init_weights=False).state_dict()
    # The dense layers are not looked at: one stored number each instead of 495 MB.
    dense = {
        name: torch.zeros(1).expand(tensor.shape)
        for name, tensor in shapes.items()
        if name.startswith("classifier")
    }
    convolutions = {f"features.{name}": each for name, each in features.state_dict().items()}
    torch.save(convolutions | dense, tmp_path / "vgg16.pth")

    encoder = load_encoder(f"timm:vgg16@{tmp_path / 'vgg16.pth'}", device="cpu")
    assert (encoder.dims, encoder.preparation) == (512, TORCHVISIONS)
    vectors = encoder.embed_images(prepared(encoder, images[:2]))

    pooled = torch.nn.Sequential(features, torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
    weights = torchvision.models.VGG16_Weights.IMAGENET1K_V1
    expected = of_torchvision(pooled, weights, images[:2])
    assert np.allclose(vectors, expected, atol=1e-3)
    assert np.sum(vectors * expected, axis=1).min() >= 0.999


def test_inception_gives_torchvisions_features(
    images: list[Image.Image], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """torchvision normalises as for ImageNet, then undoes it inside the model: the same pixels.

    Nothing is logged of the weights that serve training only.
    """
    caplog.set_level(logging.INFO)
    torch.manual_seed(7)
    model = torchvision.models.inception_v3(init_weights=False, transform_input=True)
    torch.save(seeded(model).state_dict(), tmp_path / "inception.pth")
    model.fc = torch.nn.Identity()

    encoder = load_encoder(f"timm:inception_v3@{tmp_path / 'inception.pth'}", device="cpu")
    assert encoder.dims == 2048
    assert encoder.preparation == Preparation(299, 299, resize=342, resampling="bilinear")
    vectors = encoder.embed_images(prepared(encoder, images[:2]))

    weights = torchvision.models.Inception_V3_Weights.IMAGENET1K_V1
    expected = of_torchvision(model, weights, images[:2])
    assert np.allclose(vectors, expected, atol=1e-3)
    assert np.sum(vectors * expected, axis=1).min() >= 0.999
    assert [each for each in caplog.records if each.name.startswith("timm")] == []


@pytest.mark.parametrize(
    ("name", "dims", "preparation"),
    [
        ("resnet50", 2048, TORCHVISIONS),
        ("densenet121", 1024, TORCHVISIONS),
        ("efficientnet_b0", 1280, Preparation(resize=256)),
        # Of its own choice: another training, with another recipe.
        ("resnet50.a1_in1k", 2048, Preparation(resize=235)),
        ("vit_base_patch16_224", 768, Preparation(resize=248)),
    ],
)
def test_what_is_known_of_a_model_without_its_weights(
    tmp_path: Path, name: str, dims: int, preparation: Preparation
) -> None:
    (tmp_path / "any.pth").write_bytes(b"never read")
    encoder = load_encoder(f"timm:{name}@any.pth", models_dir=tmp_path)
    assert (encoder.dims, encoder.preparation) == (dims, preparation)
    assert encoder.name.startswith(f"timm:{name}")
    assert len(encoder.revision) == len(encoder.fingerprint) == 16


def test_torchvisions_recipe_is_what_its_transforms_do() -> None:
    transform = torchvision.models.ResNet50_Weights.IMAGENET1K_V1.transforms()
    assert (transform.resize_size, transform.crop_size) == ([256], [224])
    assert transform.interpolation == torchvision.transforms.InterpolationMode.BILINEAR


# --- real weights -----------------------------------------------------------------------------


def test_real_weights_find_the_other_picture_of_the_same_thing(lite0: Path) -> None:
    encoder = load_encoder(f"timm:tf_efficientnet_lite0@{lite0}", device="cpu")
    files = sorted(PHOTOGRAPHS.glob("*.png")) + sorted(PHOTOGRAPHS.glob("*.jpg"))
    names = [file.name for file in files]
    vectors = encoder.embed_images(
        prepared(encoder, [Image.open(file).convert("RGB") for file in files])
    )
    scores = vectors @ vectors[names.index("motorcycle_left.png")]
    nearest = [names[at] for at in np.argsort(-scores)[:2]]
    assert nearest == ["motorcycle_left.png", "motorcycle_right.png"]


def test_real_weights_know_a_cat(lite0: Path, images: list[Image.Image]) -> None:
    from timm.data import ImageNetInfo

    encoder = load_encoder(f"timm:tf_efficientnet_lite0/logits@{lite0}", device="cpu")
    logits = encoder.embed_images(prepared(encoder, images))
    describe = ImageNetInfo("imagenet-1k").index_to_description
    assert "cat" in describe(int(np.argmax(logits[0])))
    assert "espresso" in describe(int(np.argmax(logits[1])))


# --- an encoder like the others ---------------------------------------------------------------


def test_vectors_do_not_depend_on_the_batch(lite0: Path, images: list[Image.Image]) -> None:
    encoder = load_encoder(f"timm:tf_efficientnet_lite0@{lite0}", device="cpu")
    pixels = prepared(encoder, images * 5)  # more than one forward pass
    together = encoder.embed_images(pixels)
    assert np.allclose(np.linalg.norm(together, axis=1), 1, atol=1e-5)
    alone = np.concatenate([encoder.embed_images(one[None]) for one in pixels[:4]])
    assert np.sum(alone * together[:4], axis=1).min() >= 0.99999
    assert encoder.embed_images(pixels[:0]).shape == (0, 1280)


def test_texts_are_refused(models_dir: Path) -> None:
    encoder = load_encoder("timm:resnet18@resnet18.pth", models_dir=models_dir)
    assert not encoder.supports_text
    with pytest.raises(TextUnsupported, match=r"resnet18.* pictures only"):
        encoder.embed_texts(["a cat"])


def test_a_model_trained_further_on_other_classes_gives_features(
    images: list[Image.Image], resnet18: Any, models_dir: Path, tmp_path: Path
) -> None:
    tuned = resnet18.state_dict() | {"fc.weight": torch.zeros(7, 512), "fc.bias": torch.zeros(7)}
    torch.save(tuned, tmp_path / "tuned.pth")
    encoder = load_encoder(f"timm:resnet18@{tmp_path / 'tuned.pth'}", device="cpu")
    before = load_encoder("timm:resnet18@resnet18.pth", models_dir=models_dir, device="cpu")
    pixels = prepared(encoder, images[:1])
    assert np.array_equal(encoder.embed_images(pixels), before.embed_images(pixels))
    assert encoder.revision != before.revision
    assert seal_of(encoder).spec == f"timm:resnet18.tv_in1k@{tmp_path / 'tuned.pth'}"
    assert seal_of(before).spec is None
    # As in the hub's cache, where the file that a link leads to has no suffix.
    (tmp_path / "blob").write_bytes((tmp_path / "tuned.pth").read_bytes())
    (tmp_path / "link.pth").symlink_to(tmp_path / "blob")
    linked = load_encoder(f"timm:resnet18@{tmp_path / 'link.pth'}", device="cpu")
    assert seal_of(linked).spec == f"timm:resnet18.tv_in1k@{tmp_path / 'link.pth'}"

    logits = load_encoder(f"timm:resnet18/logits@{tmp_path / 'tuned.pth'}", device="cpu")
    with pytest.raises(ModelUnavailable, match=r"tuned.pth do not fit resnet18"):
        logits.embed_images(pixels)


def test_weights_of_another_architecture_are_refused(models_dir: Path) -> None:
    encoder = load_encoder("timm:resnet34@resnet18.pth", models_dir=models_dir, device="cpu")
    with pytest.raises(ModelUnavailable, match=r"resnet18.pth do not fit resnet34"):
        encoder.embed_images(np.zeros((1, 224, 224, 3), np.uint8))


def test_the_fingerprint_depends_on_the_output_of_the_same_weights(models_dir: Path) -> None:
    specs = ["resnet18", "resnet18/logits", "resnet18.a1_in1k", "resnet34"]
    made = [load_encoder(f"timm:{each}@resnet18.pth", models_dir=models_dir) for each in specs]
    assert len({each.revision for each in made}) == 1
    assert len({each.fingerprint for each in made}) == 4


# --- what cannot be had -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("timm", "is not timm:NAME"),
        ("timm:/logits", "is not timm:NAME"),
        ("timm:resnet18/features", "is not timm:NAME"),
        ("timm:resnet18@", "is not timm:NAME"),
        ("timm:resnet_18", "no model 'resnet_18'"),
        ("timm:resnet18.nonesuch", r"no model 'resnet18.nonesuch'; near it are resnet18.a1_in1k"),
    ],
)
def test_a_name_that_timm_does_not_know(spec: str, message: str) -> None:
    with pytest.raises(EncoderUnknown, match=message):
        load_encoder(spec)


def test_too_many_dimensions_for_elasticsearch(tmp_path: Path) -> None:
    (tmp_path / "any.pth").write_bytes(b"never read")
    spec = "timm:vit_base_patch16_224.augreg_in21k/logits@any.pth"
    with pytest.raises(EncoderUnknown, match="21843 dimensions, more than the 4096"):
        load_encoder(spec, models_dir=tmp_path)


def test_weights_that_are_not_here(tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailable, match=r"no file of weights at there.pth"):
        load_encoder("timm:resnet18@there.pth", models_dir=tmp_path)
    with pytest.raises(ModelUnavailable, match=r"timm:resnet18.tv_in1k@FILE.*--encoder starter"):
        load_encoder("timm:resnet18", models_dir=tmp_path)
    with pytest.raises(ModelUnavailable, match=r"no weights of efficientnet_lite1"):
        load_encoder("timm:efficientnet_lite1", models_dir=tmp_path)


def test_a_folder_of_the_hubs_layout_is_found_by_name(models_dir: Path, tmp_path: Path) -> None:
    folder = tmp_path / "resnet18.tv_in1k"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "pytorch_model.bin").write_bytes((models_dir / "resnet18.pth").read_bytes())
    encoder = load_encoder("timm:resnet18", models_dir=tmp_path)
    same = load_encoder("timm:resnet18@resnet18.pth", models_dir=models_dir)
    assert encoder.name == "timm:resnet18.tv_in1k"
    assert (encoder.revision, encoder.fingerprint) == (same.revision, same.fingerprint)


# --- an index ---------------------------------------------------------------------------------


@pytest.fixture
def in_models_dir(settings: Settings, models_dir: Path) -> Callable[[str], Settings]:
    def made(encoder: str) -> Settings:
        return settings.model_copy(update={"models_dir": models_dir, "encoder": encoder})

    return made


def test_an_index_refuses_a_changed_model(
    real_store: Store,
    in_models_dir: Callable[[str], Settings],
    resnet18: Any,
    models_dir: Path,
) -> None:
    encoder = load_encoder("timm:resnet18@resnet18.pth", models_dir=models_dir)
    real_store.generations.create(new_meta(seal_of(encoder), "exact", "cosine"))
    info, index = real_store.info(), real_store.index
    assert sealed_encoder(info, index, in_models_dir("")).name == encoder.name

    trained = {name: tensor + 1 for name, tensor in resnet18.state_dict().items()}
    torch.save(trained, models_dir / "other.pth")
    for other in ("timm:resnet18@other.pth", "timm:resnet18.a1_in1k@resnet18.pth"):
        with pytest.raises(EncoderMismatch):
            sealed_encoder(info, index, in_models_dir(other))
