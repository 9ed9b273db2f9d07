"""Measure search quality with labels or queries, and compare two runs.

Everything runs through the client, as users search, with the tuning of the index.

In a file of labels every label is a query, or (`by="image"`) every labelled picture is, whose
right answers are the other pictures that share a label.  These searches are restricted to the
labelled pictures, since the content of others is unknown (condensed lists, Sakai 2007, SIGIR).
With a file of queries the whole index is searched, and pictures not named in the file are wrong.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, get_args

from es_imgsearch.errors import FileInvalid, UsageError
from es_imgsearch.quality import ranking
from es_imgsearch.quality.labelled_pictures import LabelledPictures
from es_imgsearch.quality.labels import Labels
from es_imgsearch.search.query import StoredPicture
from es_imgsearch.search.relevance import IMAGE, TEXT

if TYPE_CHECKING:
    from es_imgsearch.search.client import ImageSearch


Mode = Literal["auto", "vector", "text", "hybrid", "tags"]
By = Literal["text", "image"]
MODES: Final[tuple[Mode, ...]] = get_args(Mode)
KS: Final = (1, 5, 10)
PRECISION_AT: Final = 5


@dataclass(frozen=True, slots=True)
class QueryResult:
    """Number of right pictures of a query, and the ranks (from 1) of those found."""

    query: str
    right: int
    ranks: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class EvaluationReport:
    """Results of one run: one index, one mode, one set of queries.

    `missing` are the labelled pictures that the index does not hold; queries without a right
    picture in the index are left out.
    """

    index: str
    mode: str
    by: str
    answers: tuple[QueryResult, ...]
    ks: tuple[int, ...] = KS
    missing: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return f"{self.index} {self.mode}"

    def values(self) -> dict[str, list[float]]:
        """Return each metric for every query, in the order of `answers`; see `ranking`."""
        values: dict[str, list[float]] = {}
        for k in self.ks:
            values[f"recall@{k}"] = [
                ranking.recall_at(k, each.ranks, each.right) for each in self.answers
            ]
        for k in self.ks:
            values[f"hit@{k}"] = [ranking.hit_at(k, each.ranks) for each in self.answers]
        values["mrr"] = [ranking.reciprocal_rank(each.ranks) for each in self.answers]
        values[f"precision@{PRECISION_AT}"] = [
            ranking.precision_at(PRECISION_AT, each.ranks) for each in self.answers
        ]
        return values

    def metrics(self) -> dict[str, float]:
        """Return the mean of each metric over the queries."""
        return {name: sum(each) / len(each) for name, each in self.values().items()}

    def to_dict(self) -> dict[str, Any]:
        """Convert to plain values, as `evaluate --json` prints them."""
        return {
            "index": self.index,
            "mode": self.mode,
            "by": self.by,
            "queries": len(self.answers),
            "missing": list(self.missing),
            "metrics": self.metrics(),
            "answers": [asdict(each) for each in self.answers],
        }


def evaluate(
    search: ImageSearch,
    labels: Labels,
    *,
    mode: Mode = "vector",
    by: By | None = None,
    ks: Sequence[int] = KS,
    texts: Mapping[str, str] | None = None,
) -> EvaluationReport:
    """Search for every query of the labels; record the ranks of right pictures.

    `mode` is that of a search, or ``tags``: pictures with a tag equal to the query's text, best
    `tag_scores` first.  `texts` map the words of labels that name their facet to what is embedded
    for them in mode vector, as the vocabulary of tags does.  The number of hits is the largest of
    `ks` and 5; a right picture beyond them counts as not found.  `by` defaults to ``text``, and to
    ``image`` if the encoder embeds pictures only.

    Raises FileInvalid if the index holds none of the pictures.
    """
    if mode not in MODES:
        raise UsageError(f"There is no mode {mode!r}; choose one of {', '.join(MODES)}.")
    if not ks or min(ks) < 1:
        raise UsageError("k of recall@k must be 1 or more.")
    if by is None:
        no_text = mode == "vector" and not search.info.meta.seal.supports_text
        by = IMAGE if no_text and labels.pictures else TEXT
    if by == IMAGE and not (labels.pictures and mode == "vector"):
        raise UsageError("Searching by image needs labels of pictures and mode 'vector'.")
    paths = [path for query in labels.queries for path in query.relevant]
    places = LabelledPictures(search.store, paths)
    depth = max(*ks, PRECISION_AT)
    among = places.ids(labels.pictures) if labels.pictures else None
    answers = []
    for name, right, query in _answerable_queries(labels, places, by):
        # A label that names its facet is a tag; other labels are searched as users type them.
        if mode == "vector" and texts and isinstance(query, str) and query != name:
            query = texts.get(query, query)
        hits = _hit_ids(search, query, mode, depth, among)
        ranks = tuple(rank for rank, each in enumerate(hits, start=1) if each in right)
        answers.append(QueryResult(name, len(right), ranks))
    if not answers:
        raise FileInvalid("No two of the labelled pictures in the index share a label.")
    return EvaluationReport(search.store.index, mode, by, tuple(answers), tuple(ks), places.missing)


def compare_reports(
    first: EvaluationReport, second: EvaluationReport
) -> list[ranking.MetricDifference]:
    """Compare each metric of two runs query by query.

    Queries that are in one run only are left out.  Raises UsageError if none is left.
    """
    shared = {each.query for each in first.answers} & {each.query for each in second.answers}
    if not shared:
        raise UsageError("The two runs have no query in common, so they cannot be compared.")

    def values(report: EvaluationReport) -> dict[str, list[float]]:
        answers = sorted(
            (each for each in report.answers if each.query in shared), key=lambda each: each.query
        )
        return EvaluationReport(
            report.index, report.mode, report.by, tuple(answers), first.ks, report.missing
        ).values()

    ours, theirs = values(first), values(second)
    return [ranking.compare_metric(name, ours[name], theirs[name]) for name in ours]


def _answerable_queries(
    labels: Labels, places: LabelledPictures, by: By
) -> Iterator[tuple[str, set[str], str | Path | StoredPicture]]:
    """Yield name, right pictures and query, if the index holds right pictures."""
    if by == IMAGE and labels.pictures:
        ids_of_label = {each.name: set(places.ids(each.relevant)) for each in labels.queries}
        for path, names in labels.pictures.items():
            if (own := places.id_of.get(path)) is not None:
                right = set[str]().union(*(ids_of_label[name] for name in names)) - {own}
                if right:
                    yield path, right, StoredPicture(own)
        return
    for each in labels.queries:
        right = set(places.ids(each.relevant))
        query = each.text if each.text is not None else each.image
        if right and query is not None:
            yield each.name, right, query


def _hit_ids(
    search: ImageSearch,
    query: str | Path | StoredPicture,
    mode: Mode,
    depth: int,
    among: Sequence[str] | None,
) -> list[str]:
    """Return the ids of the hits, best first."""
    if mode != "tags":
        filters = None if among is None else {"image_id": among}
        hits = search.search([query], k=depth, mode=mode, filters=filters, fields=())
        return [hit.image_id for hit in hits]
    if not isinstance(query, str):
        raise UsageError("Mode 'tags' searches by text only, and the file has picture queries.")
    clauses: list[dict[str, Any]] = [{"term": {"tags": query}}]
    if among is not None:
        clauses.append({"terms": {"image_id": list(among)}})
    body = {
        "query": {"bool": {"filter": clauses}},
        "sort": [
            {f"tag_scores.{query}": {"order": "desc", "unmapped_type": "keyword"}},
            {"image_id": "asc"},
        ],
        "size": depth,
        "_source": False,
    }
    return [hit["_id"] for hit in search.store.searches.hits(body)]
