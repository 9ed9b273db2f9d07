"""How well an index answers: figures from labels or queries, and two ways compared.

Everything runs through the client, as users search, with the tuning of the index.

Of a file of labels every label is a query, or (`by="image"`) every labelled picture is, whose
right answers are the others that share a label.  The searches are held to the labelled pictures,
since nobody has said of the others what is on them (condensed lists, Sakai 2007, SIGIR).  Of a
file of queries the whole index is searched, and what the file does not name is wrong.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, get_args

from es_imgsearch.errors import FileInvalid, UsageError
from es_imgsearch.quality import ranking
from es_imgsearch.quality.labels import Labels, Places
from es_imgsearch.search.query import StoredPicture
from es_imgsearch.search.relevance import IMAGE, TEXT

if TYPE_CHECKING:
    from es_imgsearch.search.client import ImageSearch


Mode = Literal["vector", "text", "hybrid", "tags"]
By = Literal["text", "image"]
MODES: Final[tuple[Mode, ...]] = get_args(Mode)
KS: Final = (1, 5, 10)
PRECISION_AT: Final = 5


@dataclass(frozen=True, slots=True)
class Answer:
    """One query's outcome: how many pictures are right, and at which ranks (from 1) they came."""

    query: str
    right: int
    ranks: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Report:
    """A run: one index, one mode, one set of queries.

    `missing` are the pictures that the labels name and the index does not hold; a query none
    of whose pictures are there was not asked.
    """

    index: str
    mode: str
    by: str
    answers: tuple[Answer, ...]
    ks: tuple[int, ...] = KS
    missing: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return f"{self.index} {self.mode}"

    def values(self) -> dict[str, list[float]]:
        """Every metric of every query, in the order of `answers`; see `ranking`."""
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
        """The mean of every metric over the queries."""
        return {name: sum(each) / len(each) for name, each in self.values().items()}

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as `evaluate --json` prints them."""
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
) -> Report:
    """Ask every question of the labels and say at which ranks the right pictures came.

    `mode` is that of a search, or ``tags``: pictures whose `tags` hold the question's very
    words, best `tag_scores` first.  As many hits are fetched as the largest of `ks` and of 5,
    and a right picture beyond them counts as not found.  `by` is ``text`` by default, ``image``
    where the encoder knows no texts.

    Raises FileInvalid where the index holds none of the pictures.
    """
    if mode not in MODES:
        raise UsageError(f"There is no mode {mode!r}; choose one of {', '.join(MODES)}.")
    if not ks or min(ks) < 1:
        raise UsageError("k of recall@k must be 1 or more.")
    if by is None:
        no_text = mode == "vector" and not search.info.meta.seal.supports_text
        by = IMAGE if no_text and labels.pictures else TEXT
    if by == IMAGE and not (labels.pictures and mode == "vector"):
        raise UsageError("Asking with the pictures themselves needs labels, and mode 'vector'.")
    places = Places(search.store, _paths(labels))
    depth = max(*ks, PRECISION_AT)
    among = places.ids(labels.pictures) if labels.pictures else None
    answers = []
    for question, right, query in _asked(labels, places, by):
        found = _found(search, query, mode, depth, among)
        ranks = tuple(rank for rank, each in enumerate(found, start=1) if each in right)
        answers.append(Answer(question, len(right), ranks))
    if not answers:
        raise FileInvalid("No two of the labelled pictures in the index share a label.")
    return Report(search.store.index, mode, by, tuple(answers), tuple(ks), places.missing)


def compare(first: Report, second: Report) -> list[ranking.Difference]:
    """Every metric of two runs over the same queries, query by query.

    Queries that only one of them could ask are left out.  Raises UsageError where none is left.
    """
    both = {each.query for each in first.answers} & {each.query for each in second.answers}
    if not both:
        raise UsageError("The two runs have no query in common, so they cannot be compared.")

    def values(report: Report) -> dict[str, list[float]]:
        kept = sorted(
            (each for each in report.answers if each.query in both), key=lambda each: each.query
        )
        return Report(
            report.index, report.mode, report.by, tuple(kept), first.ks, report.missing
        ).values()

    ours, theirs = values(first), values(second)
    return [ranking.difference(name, ours[name], theirs[name]) for name in ours]


def _paths(labels: Labels) -> list[str]:
    return [path for question in labels.questions for path in question.relevant]


def _asked(
    labels: Labels, places: Places, by: By
) -> Iterator[tuple[str, set[str], str | Path | StoredPicture]]:
    """Name, right pictures and query of every question that has an answer in the index."""
    if by == IMAGE and labels.pictures:
        having = {q.name: set(places.ids(q.relevant)) for q in labels.questions}
        for path, names in labels.pictures.items():
            if (own := places.id_of.get(path)) is not None:
                right = set[str]().union(*(having[name] for name in names)) - {own}
                if right:
                    yield path, right, StoredPicture(own)
        return
    for question in labels.questions:
        right = set(places.ids(question.relevant))
        query = question.text if question.text is not None else question.image
        if right and query is not None:
            yield question.name, right, query


def _found(
    search: ImageSearch,
    query: str | Path | StoredPicture,
    mode: Mode,
    depth: int,
    among: Sequence[str] | None,
) -> list[str]:
    """Ids of the hits, best first."""
    if mode != "tags":
        filters = None if among is None else {"image_id": among}
        hits = search.search([query], k=depth, mode=mode, filters=filters, fields=())
        return [hit.image_id for hit in hits]
    if not isinstance(query, str):
        raise UsageError("Mode 'tags' looks for words, and the file asks with a picture.")
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
