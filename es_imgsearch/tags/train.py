"""`tags train` and `tags evaluate`: from a file of labels to a head, and what its tags are worth.

The vectors are those that the index holds; nothing is embedded but words.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from es_imgsearch.embed.context import open_encoder
from es_imgsearch.errors import FileInvalid, UsageError
from es_imgsearch.quality.labels import Labels, Places, vectors_of
from es_imgsearch.records import iso_timestamp
from es_imgsearch.search.relevance import Floats, load_background
from es_imgsearch.tags.classifier import Head
from es_imgsearch.tags.fitting import (
    LEAST_EXAMPLES,
    LabelledFacet,
    check_can_train,
    labelled_facets,
    train,
)
from es_imgsearch.tags.storage import Labelled, keep_head, kept_labelled, kept_tags, label_vectors
from es_imgsearch.tags.vocabulary import Facet, Vocabulary
from es_imgsearch.tags.zero_shot import Bools, FacetScores, ZeroShot

if TYPE_CHECKING:
    from es_imgsearch.elastic.store import Store
    from es_imgsearch.search.client import ImageSearch


ZERO_SHOT: Final = "zero-shot"
TRAINED: Final = "trained"
NONE_OF_THEM: Final = "(none)"


@dataclass(frozen=True, slots=True)
class TrainedHead:
    """What `train_tags` stored, and what it had to leave out.

    `missing` are the paths that the index does not hold, `too_few` the labels of fewer than five
    pictures, with how many there are.
    """

    head: Head
    missing: Sequence[str]
    too_few: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class LabelReport:
    """How well one label is told, one way.

    `average_precision` is that of ranking the facet's labelled pictures by the label's score (area
    under precision over recall as scikit-learn has it, by steps), `precision` and `recall` are
    those of the tags given; precision is None where none was.
    """

    label: str
    pictures: int
    average_precision: float
    precision: float | None
    recall: float


@dataclass(frozen=True, slots=True, eq=False)
class FacetReport:
    """One facet, one way (`zero-shot`, or `trained` in cross-validation).

    `confusion`, of shape (labels, labels + 1), counts for the pictures that have the label of a
    row which label they were given with the best score, none of them in the last column.
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
        """Plain values, as `tags evaluate --json` prints them."""
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
    """Every facet, each way; `too_few` and `missing` as in `TrainedHead`."""

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
) -> TrainedHead:
    """Fit a head on labels of stored pictures and keep it beside the index, in place of any before.

    Without labels it is trained again on those that the last one was trained on, which is what an
    index needs whose encoder has changed.  `facet` and `one_of`: see `labelled_facets`.

    Raises LibraryMissing without scikit-learn, FileInvalid for labels that cannot be used or are
    too few, UsageError where there are none and none are kept, GenerationSwitched where the index
    becomes another generation meanwhile.
    """
    check_can_train()
    store = search.store.pinned()
    with store.switching.while_serving("tags train"):
        return _trained_head(store, labels, facet, one_of)


def _trained_head(
    store: Store, labels: Labels | None, facet: str | None, one_of: Sequence[str]
) -> TrainedHead:
    meta = store.info().meta
    given = _given(store, labels, facet, one_of)
    trained = train(given.vectors, given.facets)
    # The head belongs to the index, whichever generation serves.
    store.switching.check_serving()
    head = Head(
        seal=meta.seal,
        reduction=meta.reduction.hash if meta.reduction else None,
        outputs=trained.outputs,
        pictures=len(given.vectors),
        trained_at=iso_timestamp(),
        inverse_penalty=trained.inverse_penalty,
    )
    keep_head(store, head, given.labelled)
    return TrainedHead(head, given.missing, given.too_few)


def evaluate_tags(
    search: ImageSearch,
    labels: Labels | None = None,
    *,
    facet: str | None = None,
    one_of: Sequence[str] = (),
) -> TagReport:
    """How well labelled pictures get their labels: zero-shot, and by a head in cross-validation.

    Both are told of the same labels, those of at least five pictures; a label that the vocabulary
    lacks is added to it for this.  The head is trained anew on four fifths of the pictures five
    times, and nothing is stored.  Without labels those are taken that the head was trained on.

    Raises what `train_tags` does.
    """
    check_can_train()
    given = _given(search.store, labels, facet, one_of)
    reports = []
    zero_shot = _zero_shot_scores(search, given)
    trained = train(given.vectors, given.facets)
    for n, each in enumerate(given.facets):
        if zero_shot is not None:
            reports.append(facet_report(each, ZERO_SHOT, *zero_shot[n]))
        held_out = trained.held_out[n]
        reports.append(facet_report(each, TRAINED, held_out.probabilities, held_out.holds))
    return TagReport(search.store.index, reports, given.missing, given.too_few)


def facet_report(facet: LabelledFacet, way: str, scores: Floats, holds: Bools) -> FacetReport:
    """What scores and tags, both of shape (pictures, labels), are worth."""
    from sklearn.metrics import average_precision_score

    known = facet.known
    right, scores, holds = facet.targets[known], scores[known], holds[known]
    reports = []
    for column, label in enumerate(facet.labels):
        has, given = right[:, column], holds[:, column]
        hits = int((has & given).sum())
        reports.append(
            LabelReport(
                label=label,
                pictures=int(has.sum()),
                average_precision=float(average_precision_score(has, scores[:, column])),
                precision=hits / int(given.sum()) if given.any() else None,
                recall=hits / int(has.sum()),
            )
        )
    best = np.where(holds, scores, -1.0).argmax(axis=1)
    best[~holds.any(axis=1)] = len(facet.labels)
    confusion = np.zeros((len(facet.labels), len(facet.labels) + 1), np.int64)
    for row, chosen in zip(right, best, strict=True):
        confusion[row, chosen] += 1
    return FacetReport(facet.facet, way, int(known.sum()), reports, confusion)


@dataclass(frozen=True, slots=True, eq=False)
class _Given:
    """Labels with the vectors of their pictures, of shape (n, dims)."""

    vectors: Floats
    facets: Sequence[LabelledFacet]
    vocabulary: Vocabulary
    labelled: Labelled
    missing: Sequence[str]
    too_few: Mapping[str, int]


def _given(store: Store, labels: Labels | None, facet: str | None, one_of: Sequence[str]) -> _Given:
    store.refresh()
    vocabulary = kept_tags(store.index, store.send).vocabulary
    if labels is None:
        kept = kept_labelled(store.index, store.send)
        if kept is None:
            raise UsageError(
                f"No head was trained for index {store.index!r} whose labels could be taken: give a"
                f" file of labels, es-imgsearch tags train LABELS --index {store.index}."
            )
        pictures = kept.pictures
        one_of = [*one_of, *kept.one_of]
    else:
        pictures = labels.pictures
    if not pictures:
        raise FileInvalid("Tags take labels of pictures (path,label), not queries.")
    places = Places(store, pictures)
    paths = [path for path in pictures if path in places.id_of]
    facets = labelled_facets(
        [pictures[path] for path in paths], vocabulary, facet=facet, one_of=tuple(set(one_of))
    )
    too_few = {
        label: int(count)
        for each in facets
        for label, count in zip(each.labels, each.targets.sum(axis=0), strict=True)
        if count < LEAST_EXAMPLES
    }
    enough = [left for each in facets if (left := each.enough()).labels]
    if not enough:
        raise FileInvalid(
            f"No label has {LEAST_EXAMPLES} pictures in the index, which is the least to train"
            f" from, and others of its facet without it: label more of those in {store.index!r}."
        )
    written = {
        places.id_of[path]: [f"{each.facet}:{each.labels[n]}" for each in facets
                             for n in np.flatnonzero(each.targets[row])]
        for row, path in enumerate(paths)
    }  # fmt: skip
    return _Given(
        vectors=vectors_of(store, [places.id_of[path] for path in paths]),
        facets=enough,
        vocabulary=vocabulary,
        labelled=Labelled(written, tuple(set(one_of))),
        missing=places.missing,
        too_few=too_few,
    )


def _zero_shot_scores(search: ImageSearch, given: _Given) -> list[tuple[Floats, Bools]] | None:
    """Scores and tags of the labelled facets; None for an encoder that knows pictures only."""
    info, store = search.info, search.store
    if not info.meta.seal.supports_text:
        return None
    encoder = open_encoder(store, info, search.settings, search.encoder)
    vocabulary = with_labels(given.vocabulary, given.facets)
    texts = label_vectors(encoder, info.meta, vocabulary.texts)
    background = load_background(store.index, info.meta, encoder.dims, store.send)
    model = ZeroShot.of(vocabulary, texts, background)
    if model is None:
        return None
    by_facet: dict[str, FacetScores] = {each.facet: each for each in model.scores(given.vectors)}
    found = []
    for facet in given.facets:
        of_all = by_facet[facet.facet]
        at = [of_all.labels.index(label) for label in facet.labels]
        found.append((of_all.scores[:, at], of_all.holds[:, at]))
    return found


def with_labels(vocabulary: Vocabulary, facets: Sequence[LabelledFacet]) -> Vocabulary:
    """The vocabulary with the labelled facets and labels that it lacks."""
    extended = {facet.name: facet for facet in vocabulary.facets}
    for each in facets:
        before = extended.get(each.facet, Facet(each.facet, each.answers, ()))
        labels = tuple(dict.fromkeys([*before.labels, *each.labels]))
        extended[each.facet] = Facet(each.facet, each.answers, labels, before.texts)
    return Vocabulary(tuple(extended.values()), vocabulary.source)
