"""Metrics against values worked out by hand and by force; files of labels, good and bad."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from es_imgsearch.errors import FileInvalid, UsageError
from es_imgsearch.quality import ranking
from es_imgsearch.quality.evaluate import EvaluationReport, QueryResult, compare_reports
from es_imgsearch.quality.labels import LabelledQuery, queries_by_label, read_labels


def report(*answers: QueryResult, mode: str = "vector") -> EvaluationReport:
    return EvaluationReport("images", mode, "text", answers)


def test_metrics_by_hand():
    # Right pictures at ranks 2 and 4 of 4 there are; at 1, of 1; none found of 2.
    found = report(
        QueryResult("a", 4, (2, 4)), QueryResult("b", 1, (1,)), QueryResult("c", 2, ())
    ).metrics()
    assert found == pytest.approx(
        {
            "recall@1": (0 + 1 + 0) / 3,
            "recall@5": (2 / 4 + 1 + 0) / 3,
            "recall@10": (2 / 4 + 1 + 0) / 3,
            "hit@1": 1 / 3,
            "hit@5": 2 / 3,
            "hit@10": 2 / 3,
            "mrr": (1 / 2 + 1 + 0) / 3,
            "precision@5": (2 / 5 + 1 / 5 + 0) / 3,
        }
    )


def test_metrics_by_force():
    generator = np.random.default_rng(0)
    answers, wanted = [], []
    for number in range(50):
        ranking_of = list(generator.permutation(40))
        right = set(generator.choice(40, generator.integers(1, 15), replace=False).tolist())
        shown = ranking_of[:10]
        ranks = tuple(place for place, each in enumerate(shown, start=1) if each in right)
        answers.append(QueryResult(str(number), len(right), ranks))
        first = [place for place, each in enumerate(shown) if each in right]
        wanted.append(
            (
                len(set(shown[:5]) & right) / len(right),
                bool(set(shown[:5]) & right),
                len(set(shown[:5]) & right) / 5,
                1 / (first[0] + 1) if first else 0,
            )
        )
    found = report(*answers).metrics()
    names = ("recall@5", "hit@5", "precision@5", "mrr")
    assert [found[name] for name in names] == pytest.approx(np.mean(wanted, axis=0))


def test_the_sign_test_equals_scipy():
    from scipy.stats import binomtest

    for better, worse in [(0, 0), (1, 0), (9, 1), (5, 5), (30, 12), (700, 600)]:
        wanted = binomtest(better, better + worse).pvalue if better + worse else 1.0
        assert ranking.sign_test(better, worse) == pytest.approx(wanted)


def test_the_interval_of_a_difference_equals_the_normal_approximation():
    generator = np.random.default_rng(1)
    first = generator.random(400)
    second = first + generator.normal(0.05, 0.2, 400)
    found = ranking.compare_metric("mrr", first.tolist(), second.tolist())
    change = second - first
    assert found.mean == pytest.approx(change.mean())
    # Of so many queries the mean is normally distributed.
    error = change.std() / np.sqrt(400)
    assert found.low == pytest.approx(change.mean() - 1.96 * error, abs=error / 5)
    assert found.high == pytest.approx(change.mean() + 1.96 * error, abs=error / 5)
    assert (found.better, found.worse) == ((change > 0).sum(), (change < 0).sum())


def test_runs_are_compared_over_the_queries_they_share():
    one = report(
        QueryResult("a", 1, (1,)), QueryResult("b", 1, ()), QueryResult("only here", 1, (1,))
    )
    other = report(QueryResult("b", 1, (2,)), QueryResult("a", 1, (1,)), mode="text")
    found = {each.metric: each for each in compare_reports(one, other)}
    assert (found["mrr"].first, found["mrr"].second) == (0.5, 0.75)
    assert (found["mrr"].better, found["mrr"].worse) == (1, 0)
    assert found["hit@1"].mean == 0
    with pytest.raises(UsageError, match="no query in common"):
        compare_reports(one, report(QueryResult("z", 1, (1,))))


# -- files -----------------------------------------------------------------------------------


def written(folder: Path, name: str, text: str) -> Path:
    file = folder / name
    file.write_text(text, encoding="utf-8")
    return file


def test_labels_of_pictures_in_csv_and_json(tmp_path: Path):
    csv = written(
        tmp_path,
        "a.csv",
        '\ufeffPath,label,more\n\npets/tom.jpg,cat,animal\n"a, b.jpg",dog\npets/tom.jpg,tom\n',
    )
    lines = '{"path": "pets/tom.jpg", "labels": ["cat", "animal", "tom"]}\n\n'
    lines += '{"path": "a, b.jpg", "label": "dog"}\n'
    for found in (read_labels(csv), read_labels(written(tmp_path, "a.jsonl", lines))):
        assert found.pictures == {"pets/tom.jpg": ("cat", "animal", "tom"), "a, b.jpg": ("dog",)}
        assert found.queries[0] == LabelledQuery(("pets/tom.jpg",), "animal")
        assert [each.text for each in found.queries] == ["animal", "cat", "dog", "tom"]


def test_queries_in_csv_and_json(tmp_path: Path):
    csv = written(tmp_path, "q.csv", "query,path\na cat,1.jpg,2.jpg\na cat,3.jpg\na dog,4.jpg\n")
    found = read_labels(csv)
    assert found.pictures == {}
    assert found.queries == (
        LabelledQuery(("1.jpg", "2.jpg", "3.jpg"), "a cat"),
        LabelledQuery(("4.jpg",), "a dog"),
    )
    lines = '{"query": "a cat", "relevant": "1.jpg"}\n{"image": "q/1.jpg", "relevant": ["2.jpg"]}'
    assert read_labels(written(tmp_path, "q.jsonl", lines)).queries == (
        LabelledQuery(("1.jpg",), "a cat"),
        LabelledQuery(("2.jpg",), image=tmp_path / "q" / "1.jpg"),
    )


def test_captions_of_pictures_in_several_languages(tmp_path: Path):
    (tmp_path / "birds").mkdir()
    for name in ("birds/crow.png", "frog.png", "toad.png", "bare.png"):
        (tmp_path / name).write_bytes(b"")
    written(tmp_path, "birds/crow.txt", "A crow.\nde.utf8=Eine Krähe.\nsr@latin.utf8=Vrana.\n")
    written(tmp_path, "frog.txt", "A frog.\nde.utf8=Ein Frosch.\n")
    written(tmp_path, "toad.txt", "A frog.\n")
    assert read_labels(tmp_path).queries == (
        LabelledQuery(("birds/crow.png",), "A crow."),
        LabelledQuery(("frog.png", "toad.png"), "A frog."),
    )
    german = read_labels(tmp_path, "de").queries
    assert [each.text for each in german] == ["Eine Krähe.", "Ein Frosch."]
    assert [each.text for each in read_labels(tmp_path, "sr@latin").queries] == ["Vrana."]
    with pytest.raises(FileInvalid, match="'xx'"):
        read_labels(tmp_path, "xx")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("l.csv", "file,class\na,b\n", r"l.csv, line 1: the first line names the columns"),
        ("l.csv", "path,label\na.jpg,cat\nb.jpg\n", r"l.csv, line 3: 'b.jpg' has no label"),
        ("l.csv", "path,label\n,cat\n", r"l.csv, line 2: the path is empty"),
        ("l.csv", 'path,label\n"a.jpg"x,cat\n', r"l.csv, line 2: "),
        ("l.csv", "query,path\na cat,\n", r"line 2: 'a cat' has no right picture"),
        ("l.csv", "path,label\n", "holds no labels"),
        ("l.csv", "", "holds no labels"),
        ("l.jsonl", '{"path": "a", "label": "b"}\n{"path": \n', r"l.jsonl, line 2: not JSON"),
        ("l.jsonl", '["path"]\n', r"line 1: a line is an object"),
        ("l.jsonl", "3\n", r"line 1: a line is an object"),
        ("l.jsonl", '{"path": "a", "query": "b"}\n', r"line 1: a line is an object"),
        ("l.jsonl", '{"path": "a", "labels": [1]}\n', r"line 1: `path` is a text"),
        ("l.jsonl", '{"path": "a", "labels": {"x": 1}}\n', r"line 1: `path` is a text"),
        (
            "l.jsonl",
            '{"path": "a", "label": "x"}\n{"query": "q", "relevant": "a"}',
            "line 2: .*mix",
        ),
        ("l.xlsx", "", r"a \.csv or a \.jsonl file"),
    ],
)
def test_invalid_files_raise_with_the_line_number(
    tmp_path: Path, name: str, text: str, message: str
):
    with pytest.raises(FileInvalid, match=message):
        read_labels(written(tmp_path, name, text))


def test_unreadable_files_raise(tmp_path: Path):
    with pytest.raises(FileInvalid, match="No such file"):
        read_labels(tmp_path / "none.csv")
    (tmp_path / "l.csv").write_bytes(b"path,label\n\xff,cat\n")
    with pytest.raises(FileInvalid, match="not UTF-8"):
        read_labels(tmp_path / "l.csv")


@pytest.mark.parametrize(
    ("label", "words"),
    [
        ("kind:animals", "animals"),
        ("scene: old town", "old town"),
        ("Tier-Art:Ente", "Ente"),
        ("种类:鸭子", "鸭子"),
        ("kind:a:b", "a:b"),
        ("animals", "animals"),
        ("12:30", "12:30"),
        ("https://example.org", "https://example.org"),
        ("Star Wars: A New Hope", "Star Wars: A New Hope"),
        ("kind:", "kind:"),
        (":animals", ":animals"),
    ],
)
def test_the_words_of_a_label_lack_its_facet(label: str, words: str):
    (query,) = queries_by_label({"a.jpg": (label,)})
    assert (query.text, query.name) == (words, label)
