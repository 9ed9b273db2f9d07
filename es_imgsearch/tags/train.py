"""`tags train` and `tags evaluate`: train a classifier, measure tags.

Vectors of pictures come from the index; only labels are embedded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from es_imgsearch.embed.index_encoder import writing_encoder
from es_imgsearch.errors import FileInvalid, UsageError
from es_imgsearch.quality.labelled_pictures import LabelledPictures, load_unit_vectors
from es_imgsearch.quality.labels import Labels
from es_imgsearch.records import iso_timestamp
from es_imgsearch.search.relevance import Floats, load_background
from es_imgsearch.tags.classifier import TagClassifier
from es_imgsearch.tags.fitting import (
    MIN_EXAMPLES,
    LabelledFacet,
    check_can_train,
    group_by_facet,
    train_facets,
)
from es_imgsearch.tags.label_vectors import load_label_vectors
from es_imgsearch.tags.storage import (
    TrainingLabels,
    load_tags,
    load_training_labels,
    store_classifier,
)
from es_imgsearch.tags.vocabulary import Facet, Vocabulary
from es_imgsearch.tags.zero_shot import Bools, FacetScores, ZeroShot

if TYPE_CHECKING:
    from es_imgsearch.elastic.store import Store
    from es_imgsearch.search.client import ImageSearch


ZERO_SHOT: Final = "zero-shot"
TRAINED: Final = "trained"
NONE_OF_THEM: Final = "(none)"


@dataclass(frozen=True, slots=True)
class TagTraining:
    """The stored classifier, and the labels and pictures that were left out.

    `missing` are the paths that the index does not hold, `too_few` the labels of fewer than five
    pictures, with their number of pictures.
    """

    classifier: TagClassifier
    missing: Sequence[str]
    too_few: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class LabelReport:
    """Quality of one label, by one method.

    `average_precision` is for the facet's labelled pictures ranked by the label's score (area
    under precision over recall by steps, as scikit-learn computes it); `precision` and `recall`
    are for the predicted tags; precision is None if no picture was tagged.
    """

    label: str
    pictures: int
    average_precision: float
    precision: float | None
    recall: float


@dataclass(frozen=True, slots=True, eq=False)
class FacetReport:
    """Quality of one facet by one method (`way`): `zero-shot`, or `trained` held out.

    `confusion`, of shape (labels, labels + 1), counts the pictures with the label of the row by
    their best predicted label, in the last column if they have no tag.
    """

    facet: str
    way: str
    pictures: int
    labels: Sequence[LabelReport]
    confusion: npt.NDArray[np.int64]

    @property
    def mean_average_precision(self) -> float:
        return float(np.mean([each.average_precision for each in self.labels]))

    def to_dict(self) -> dict[str, Any]:
        """Convert to plain values, as `tags evaluate --json` prints them."""
        return {
            "facet": self.facet,
            "way": self.way,
            "pictures": self.pictures,
            "mean_average_precision": self.mean_average_precision,
            "labels": [asdict(each) for each in self.labels],
            "confusion": {
                "right": [each.label for each in self.labels],
                "given": [*(each.label for each in self.labels), NONE_OF_THEM],
                "pictures": self.confusion.tolist(),
            },
        }


@dataclass(frozen=True, slots=True)
class TagReport:
    """Quality of all facets by each method; `too_few`, `missing` as in `TagTraining`."""

    index: str
    facets: Sequence[FacetReport]
    missing: Sequence[str]
    too_few: Mapping[str, int]

    def to_dict(self) -> dict[str, Any]:
        return {
            "index": self.index,
            "facets": [each.to_dict() for each in self.facets],
            "missing": list(self.missing),
            "too_few": dict(self.too_few),
        }


def train_tags(
    search: ImageSearch,
    labels: Labels | None = None,
    *,
    facet: str | None = None,
    one_of: Sequence[str] = (),
) -> TagTraining:
    """Train a classifier on labels of stored pictures; replace the one before.

    Without labels, train it again on the labels of the last training, as needed after a change of
    the encoder.  For `facet` and `one_of` see `group_by_facet`.

    Raises LibraryMissing without scikit-learn, FileInvalid for unusable or too few labels,
    UsageError without labels and stored ones, GenerationSwitched if the index becomes another
    generation meanwhile.
    """
    check_can_train()
    store = search.store.pinned()
    with store.switching.while_serving("tags train"):
        return _train(store, labels, facet, one_of)


def _train(
    store: Store, labels: Labels | None, facet: str | None, one_of: Sequence[str]
) -> TagTraining:
    meta = store.info().meta
    data = _load_training_data(store, labels, facet, one_of)
    trained = train_facets(data.vectors, data.facets)
    # The classifier is shared by all generations of the index.
    store.switching.check_serving()
    classifier = TagClassifier(
        seal=meta.seal,
        reduction=meta.reduction.hash if meta.reduction else None,
        facets=trained.classifiers,
        pictures=len(data.vectors),
        trained_at=iso_timestamp(),
        inverse_penalty=trained.inverse_penalty,
    )
    store_classifier(store, classifier, data.training_labels)
    return TagTraining(classifier, data.missing, data.too_few)


def evaluate_tags(
    search: ImageSearch,
    labels: Labels | None = None,
    *,
    facet: str | None = None,
    one_of: Sequence[str] = (),
) -> TagReport:
    """Measure zero-shot tags, and those of a classifier in cross-validation.

    Both use the same labels, those of at least five pictures; labels that the vocabulary lacks are
    added to it for the measurement.  The classifier is trained five times on four fifths of the
    pictures, and nothing is stored.  Without labels, uses those of the last training.

    Raises the same errors as `train_tags`.
    """
    check_can_train()
    data = _load_training_data(search.store, labels, facet, one_of)
    reports = []
    zero_shot = _zero_shot_scores(search, data)
    trained = train_facets(data.vectors, data.facets)
    for n, each in enumerate(data.facets):
        if zero_shot is not None:
            reports.append(measure_facet(each, ZERO_SHOT, *zero_shot[n]))
        held_out = trained.held_out[n]
        reports.append(measure_facet(each, TRAINED, held_out.probabilities, held_out.holds))
    return TagReport(search.store.index, reports, data.missing, data.too_few)


def measure_facet(facet: LabelledFacet, way: str, scores: Floats, holds: Bools) -> FacetReport:
    """Measure scores and tags, both of shape (pictures, labels)."""
    from sklearn.metrics import average_precision_score

    known = facet.known
    right, scores, holds = facet.targets[known], scores[known], holds[known]
    reports = []
    for column, label in enumerate(facet.labels):
        has_label, is_tagged = right[:, column], holds[:, column]
        hits = int((has_label & is_tagged).sum())
        reports.append(
            LabelReport(
                label=label,
                pictures=int(has_label.sum()),
                average_precision=float(average_precision_score(has_label, scores[:, column])),
                precision=hits / int(is_tagged.sum()) if is_tagged.any() else None,
                recall=hits / int(has_label.sum()),
            )
        )
    best = np.where(holds, scores, -1.0).argmax(axis=1)
    best[~holds.any(axis=1)] = len(facet.labels)
    confusion = np.zeros((len(facet.labels), len(facet.labels) + 1), np.int64)
    for row, chosen in zip(right, best, strict=True):
        confusion[row, chosen] += 1
    return FacetReport(facet.facet, way, int(known.sum()), reports, confusion)


@dataclass(frozen=True, slots=True, eq=False)
class _TrainingData:
    """Labels, and the vectors of their pictures, of shape (n, dims)."""

    vectors: Floats
    facets: Sequence[LabelledFacet]
    vocabulary: Vocabulary
    training_labels: TrainingLabels
    missing: Sequence[str]
    too_few: Mapping[str, int]


def _load_training_data(
    store: Store, labels: Labels | None, facet: str | None, one_of: Sequence[str]
) -> _TrainingData:
    store.refresh()
    vocabulary = load_tags(store.index, store.send).vocabulary
    if labels is None:
        stored = load_training_labels(store.index, store.send)
        if stored is None:
            raise UsageError(
                f"Index {store.index!r} has no labels of an earlier training: give a file of"
                f" labels, es-imgsearch tags train LABELS --index {store.index}."
            )
        pictures = stored.pictures
        one_of = [*one_of, *stored.one_of]
    else:
        pictures = labels.pictures
    if not pictures:
        raise FileInvalid("Tags take labels of pictures (path,label), not queries.")
    documents = LabelledPictures(store, pictures)
    paths = [path for path in pictures if path in documents.id_of]
    facets = group_by_facet(
        [pictures[path] for path in paths], vocabulary, facet=facet, one_of=tuple(set(one_of))
    )
    too_few = {
        label: int(count)
        for each in facets
        for label, count in zip(each.labels, each.targets.sum(axis=0), strict=True)
        if count < MIN_EXAMPLES
    }
    trainable = [reduced for each in facets if (reduced := each.trainable()).labels]
    if not trainable:
        raise FileInvalid(
            f"No label of index {store.index!r} has the {MIN_EXAMPLES} pictures that training"
            " needs, and pictures of its facet without it: label more pictures."
        )
    written = {
        documents.id_of[path]: [f"{each.facet}:{each.labels[n]}" for each in facets
                             for n in np.flatnonzero(each.targets[row])]
        for row, path in enumerate(paths)
    }  # fmt: skip
    return _TrainingData(
        vectors=load_unit_vectors(store, [documents.id_of[path] for path in paths]),
        facets=trainable,
        vocabulary=vocabulary,
        training_labels=TrainingLabels(written, tuple(set(one_of))),
        missing=documents.missing,
        too_few=too_few,
    )


def _zero_shot_scores(
    search: ImageSearch, data: _TrainingData
) -> list[tuple[Floats, Bools]] | None:
    """Return zero-shot scores and tags by facet; None for an encoder of pictures only."""
    info, store = search.info, search.store
    if not info.meta.seal.supports_text:
        return None
    encoder = writing_encoder(store, info, search.settings, search.encoder)
    vocabulary = extend_vocabulary(data.vocabulary, data.facets)
    texts = load_label_vectors(encoder, info.meta, vocabulary.texts)
    background = load_background(store.index, info.meta, encoder.dims, store.send)
    model = ZeroShot.of(vocabulary, texts, background)
    if model is None:
        return None
    by_facet: dict[str, FacetScores] = {each.facet: each for each in model.scores(data.vectors)}
    scores = []
    for facet in data.facets:
        full = by_facet[facet.facet]
        columns = [full.labels.index(label) for label in facet.labels]
        scores.append((full.scores[:, columns], full.holds[:, columns]))
    return scores


def extend_vocabulary(vocabulary: Vocabulary, facets: Sequence[LabelledFacet]) -> Vocabulary:
    """Add the labelled facets and labels that the vocabulary lacks."""
    extended = {facet.name: facet for facet in vocabulary.facets}
    for each in facets:
        before = extended.get(each.facet, Facet(each.facet, each.answers, ()))
        labels = tuple(dict.fromkeys([*before.labels, *each.labels]))
        extended[each.facet] = Facet(each.facet, each.answers, labels, before.texts)
    return Vocabulary(tuple(extended.values()), vocabulary.source)
