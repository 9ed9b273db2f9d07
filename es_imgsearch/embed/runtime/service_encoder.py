"""An encoder whose model runs in a `serve`: no model and no torch in this process."""

from __future__ import annotations

import io
import threading
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from PIL import Image

from es_imgsearch.embed.protocol import Pixels, Vectors
from es_imgsearch.embed.runtime.service import ServiceConnection
from es_imgsearch.errors import ServiceUnsuitable
from es_imgsearch.read.preparation import Preparation
from es_imgsearch.records import unit

# Of one request.  The service takes 256 texts, which take a large model longer than a request may.
_TEXTS: Final = 64
_PICTURES: Final = 16
# A service shrinks larger pictures than this.
WHOLE: Final = Preparation(1600, 1600, mode="fit", resampling="lanczos")


class ServiceEncoder:
    """The encoder of the index of a service; implements `embed.protocol.Encoder`.

    Pictures are prepared here and sent as PNG, without loss: what arrives at the model are the
    pixels that a model in this process would get.  Vectors come with 6 digits, which changes the
    cosine of a vector by less than 1e-6.  Raises as `ServiceConnection.post`.
    """

    similarity = "cosine"
    batch_size = _PICTURES

    def __init__(self, service: ServiceConnection) -> None:
        """Ask the service for its encoder."""
        self._service = service
        described = service.get("/api/v1/encoder")
        try:
            self.name = str(described["name"])
            self.revision = str(described["revision"])
            self.dims = int(described["dims"])
            self.fingerprint = str(described["fingerprint"])
            self.supports_text = bool(described["supports_text"])
            self.preparation = read_preparation(described)
        except (KeyError, TypeError, ValueError) as error:
            raise ServiceUnsuitable(
                f"The service at {service.url} describes no encoder: install the same version"
                " here and there."
            ) from error
        self._lock = threading.Lock()
        self._truncated: dict[str, bool] = {}

    def embed_texts(self, texts: Sequence[str]) -> Vectors:
        """Return unit vectors of shape (n, dims)."""
        rows: list[Any] = []
        truncated: dict[str, bool] = {}
        for start in range(0, len(texts), _TEXTS):
            part = list(texts[start : start + _TEXTS])
            answer = self._service.post("/api/v1/encode", {"texts": part})
            rows += self._vectors(answer, len(part))
            truncated |= zip(part, answer.get("truncated", ()), strict=False)
        with self._lock:
            self._truncated = truncated
        return unit(np.asarray(rows, np.float32).reshape(len(texts), self.dims))

    def truncated(self, texts: Sequence[str]) -> list[bool]:
        """Return for each text of the last call if it is longer than the model reads."""
        with self._lock:
            return [self._truncated.get(each, False) for each in texts]

    def embed_images(self, pictures: Pixels) -> Vectors:
        """Return unit vectors of shape (n, dims) of pictures (n, height, width, 3)."""
        rows: list[Any] = []
        for start in range(0, len(pictures), _PICTURES):
            part = [to_send(each, self.preparation) for each in pictures[start : start + _PICTURES]]
            rows += self._vectors(self._service.post("/api/v1/encode", {}, part), len(part))
        return unit(np.asarray(rows, np.float32).reshape(len(pictures), self.dims))

    def _vectors(self, answer: Mapping[str, Any], count: int) -> list[Any]:
        vectors = answer.get("vectors")
        if not isinstance(vectors, list) or len(vectors) != count:
            raise ServiceUnsuitable(
                f"The service at {self._service.url} gave no vector for each query: install the"
                " same version here and there."
            )
        return vectors


def read_preparation(described: Mapping[str, Any]) -> Preparation:
    """Read the preparation of a described encoder.

    One of its own kind cannot be described; its pictures are sent as they are, up to 1600 pixels.
    """
    given = described["preparation"]
    return WHOLE if given is None else Preparation(**given)


def prepared(image: Image.Image, preparation: Preparation) -> bytes:
    """Prepare an upright RGB picture, and encode it to be sent."""
    return to_send(preparation.apply(image), preparation)


def to_send(pixels: Pixels, preparation: Preparation) -> bytes:
    """Encode prepared pixels as PNG so that preparing them again changes nothing.

    Where the preparation cuts out the middle, what it cuts off is added in black.
    """
    image = Image.fromarray(pixels)
    if preparation.mode == "crop":
        side = preparation.resize
        whole = Image.new("RGB", (side, side))
        left, top = (round((side - each) / 2) for each in image.size)
        whole.paste(image, (left, top))
        image = whole
    stream = io.BytesIO()
    image.save(stream, "PNG", compress_level=1)
    return stream.getvalue()
