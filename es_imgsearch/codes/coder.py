"""Binary codes of vectors: a few bits each, compared by Hamming distance.

The Hamming distance is the number of bits that differ.

    code = bits of [ matrix @ v > thresholds ],  v of unit length

Three ways to fit a coder, all for vectors of any encoder:

`sign`
    one bit a dim: whether it is above its mean over a sample.  Without the mean, features that
    are nearly all positive, as those of a CNN are, would have the same sign.
`lsh`
    on which side of random hyperplanes through the mean (Charikar 2002, STOC): the share of bits
    that differ tends to the angle between two vectors.
`learned`
    a layer of sigmoids between the vectors and a classifier, trained on labels; a bit is 1 if its
    sigmoid is above a half (Lin et al. 2015, Deep Learning of Binary Hash Codes for Fast Image
    Retrieval, CVPR Workshops).  In the paper the network of the features is trained along; here
    the features are stored vectors, so nothing is embedded again.

Searched coarse to fine: the nearest codes by Hamming distance, sorted by the full vectors
(`codes.queries`).  Pure NumPy; `codes.storage` stores a coder in `<index>-codes`.
"""

from __future__ import annotations

import binascii
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from es_imgsearch.codes.floats import float_bytes, floats_from_base64, floats_to_base64
from es_imgsearch.errors import IndexConflict
from es_imgsearch.records import unit

Floats = npt.NDArray[np.float32]
Method = Literal["sign", "lsh", "learned"]
DEFAULT_BITS: Final = 128
# Vectors to take the mean of: means of 5,000 are as good as means of all.
SAMPLE_SIZE: Final = 5_000

# Elasticsearch stores whole bytes, at most 4,096 bits.
BITS_A_BYTE = 8
MOST_BITS = 4_096


@dataclass(frozen=True, slots=True, eq=False)
class Coder:
    """A function from vectors to codes.

    `matrix` has the shape (bits, dims), or is None if each bit is one dim; `thresholds` has the
    shape (bits,).  `sample_size` is the number of vectors it was fitted on.
    """

    method: str
    matrix: Floats | None
    thresholds: Floats
    sample_size: int

    @property
    def bits(self) -> int:
        return len(self.thresholds)

    @property
    def dims(self) -> int:
        return self.bits if self.matrix is None else int(self.matrix.shape[1])

    @property
    def hash(self) -> str:
        """Hash of everything that changes a code."""
        digest = hashlib.blake2b(digest_size=16)
        digest.update(f"{self.bits} {self.dims}".encode())
        for each in (self.matrix, self.thresholds):
            digest.update(b"" if each is None else float_bytes(each))
        return digest.hexdigest()

    def pack(self, vectors: npt.ArrayLike) -> npt.NDArray[np.uint8]:
        """Return codes of shape (n, bits / 8) of vectors of shape (n, dims).

        The vectors may have any length.
        """
        rows = unit(vectors)
        projected = rows if self.matrix is None else rows @ self.matrix.T
        return np.packbits(projected > self.thresholds, axis=1)

    def codes(self, vectors: npt.ArrayLike) -> list[str]:
        """Return the codes of n vectors in hexadecimal digits, as the index takes them."""
        return [row.tobytes().hex() for row in self.pack(vectors)]

    def code(self, vector: npt.ArrayLike) -> str:
        """Return the code of one vector, of shape (dims,), in hexadecimal digits."""
        return self.codes(np.asarray(vector)[None])[0]

    def to_document(self) -> dict[str, Any]:
        """Return the document for `<index>-codes`; arrays are float32 in base64."""
        document = {
            "hash": self.hash,
            "method": self.method,
            "bits": self.bits,
            "dims": self.dims,
            "sample_size": self.sample_size,
            "thresholds": floats_to_base64(self.thresholds),
        }
        if self.matrix is not None:
            document["matrix"] = floats_to_base64(self.matrix)
        return document

    @classmethod
    def from_document(cls, document: Mapping[str, Any], expected_hash: str, index: str) -> Coder:
        """Read a stored document.

        Raises IndexConflict if its hash is not `expected_hash`.
        """
        try:
            bits, dims = int(document["bits"]), int(document["dims"])
            matrix = document.get("matrix")
            coder = cls(
                method=str(document["method"]),
                matrix=None if matrix is None else floats_from_base64(matrix, (bits, dims)),
                thresholds=floats_from_base64(document["thresholds"], (bits,)),
                sample_size=int(document["sample_size"]),
            )
        except (KeyError, TypeError, ValueError, binascii.Error):
            coder = None
        if coder is None or coder.hash != expected_hash:
            raise IndexConflict(
                f"The coder in {index}-codes is not the one that the codes of index {index!r} were"
                f" made with: train them anew with `es-imgsearch codes train --index {index}`."
            )
        return coder
