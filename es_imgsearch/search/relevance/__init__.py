"""`relevance`: the probability that a hit is right.

model          cosine and background → probability, by a curve
background     the sample of the index that cosines are compared with
unlabelled     curves without labels, for any encoder
text_vectors   vectors of fixed texts, cached on this machine
named          hits whose name, title or tags hold the words
"""

from es_imgsearch.search.relevance.background import (
    BACKGROUND_SIZE,
    MIN_BACKGROUND,
    BackgroundSample,
    average_cut_off,
    draw_sample,
    load_background,
    read_background,
    sample_background,
    store_background,
)
from es_imgsearch.search.relevance.model import (
    IMAGE,
    TEXT,
    Floats,
    QueryRelevance,
    background_moments,
    z_scores,
)
from es_imgsearch.search.relevance.named import NAMED_RELEVANCE, named_relevance
from es_imgsearch.search.relevance.text_vectors import load_text_vectors
from es_imgsearch.search.relevance.unlabelled import (
    RelevanceModel,
    derived_curve,
    null_moments,
    unrelated_texts,
)

__all__ = [
    "BACKGROUND_SIZE",
    "IMAGE",
    "MIN_BACKGROUND",
    "NAMED_RELEVANCE",
    "TEXT",
    "BackgroundSample",
    "Floats",
    "QueryRelevance",
    "RelevanceModel",
    "average_cut_off",
    "background_moments",
    "derived_curve",
    "draw_sample",
    "load_background",
    "load_text_vectors",
    "named_relevance",
    "null_moments",
    "read_background",
    "sample_background",
    "store_background",
    "unrelated_texts",
    "z_scores",
]
