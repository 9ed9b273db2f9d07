"""A package of somebody else's that brings describers; installed by test_describers.py."""

MODULE = '''
import numpy as np


class Mood:
    name = "mood"
    mapping = {"mood": {"type": "keyword"}, "brightness": {"type": "float"}}

    def describe(self, image, exif, path):
        level = float(np.asarray(image.convert("L")).mean())
        return {"mood": "bright" if level > 127 else "dark", "brightness": level}


class Broken:
    name = "broken"
    mapping = {"never": {"type": "keyword"}}

    def describe(self, image, exif, path):
        raise RuntimeError("out of order")


class Heavy:
    """A word where its mapping wants a number."""

    name = "heavy"
    mapping = {"weight": {"type": "integer"}, "balance": {"type": "keyword"}}

    def describe(self, image, exif, path):
        return {"weight": "heavy", "balance": "[mood]"}


class Opened:
    """A part of an object that is not mapped."""

    name = "opened"
    mapping = {"opened": {"properties": {"at": {"type": "date"}}}}

    def describe(self, image, exif, path):
        return {"opened": {"by": "me"}}


class Stranger:
    """Values that no JSON holds, and one of a class that no other process knows."""

    name = "stranger"
    mapping = {
        "stranger": {"type": "keyword"},
        "strange_number": {"type": "long"},
        "strange_shares": {"type": "flattened"},
        "strange_vector": {"type": "dense_vector", "dims": 3},
    }

    def describe(self, image, exif, path):
        class Word(str):
            pass

        return {
            "stranger": [Word("known"), Word("half \\ud83d"), {1, 2}, None],
            "strange_number": 2**70,
            "strange_shares": {"good": np.float32(0.5), "bad": float("nan"), "a\\0b": 1, 5: 6},
            "strange_vector": np.zeros(3, np.float32),
            "unmapped": 1,
        }


class Wordy:
    """More than 32,766 bytes, which no keyword holds."""

    name = "wordy"
    mapping = {"word": {"type": "keyword"}}

    def describe(self, image, exif, path):
        return {"word": "w" * 40_000}


class Sign:
    """Of the vector: whether its first number is positive."""

    name = "sign"
    source = "vector"
    mapping = {"sign": {"type": "keyword"}, "dims_seen": {"type": "integer"}}

    def begin(self, space):
        self.seal = space.meta.seal

    def describe_vectors(self, vectors):
        assert vectors.shape[1] == self.seal.dims
        assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-4)
        return [
            {"sign": "plus" if vector[0] > 0 else "minus", "dims_seen": len(vector)}
            for vector in vectors
        ]


class Late:
    name = "late"
    source = "vector"
    mapping = {"late": {"type": "keyword"}}

    def begin(self, space):
        pass

    def describe_vectors(self, vectors):
        raise RuntimeError("too late")
'''

PROJECT = """[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "mood-describers"
version = "1.0"

[tool.hatch.build.targets.wheel]
include = ["mood_describers.py"]

[project.entry-points."es_imgsearch.describers"]
mood = "mood_describers:Mood"
broken = "mood_describers:Broken"
heavy = "mood_describers:Heavy"
opened = "mood_describers:Opened"
stranger = "mood_describers:Stranger"
wordy = "mood_describers:Wordy"
sign = "mood_describers:Sign"
late = "mood_describers:Late"
"""
