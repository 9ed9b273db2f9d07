"""`help`: every topic is listed, says true things, and its examples can be typed."""

from __future__ import annotations

import re
import shlex
from itertools import takewhile

import pytest
from click.testing import CliRunner, Result

from es_imgsearch.cli import main
from es_imgsearch.cli.help import TOPICS, page
from es_imgsearch.elastic.mapping import load_json
from es_imgsearch.search.filters import filter_clauses, parse_filters

OPTIONS = {
    opt for command in main.commands.values() for each in command.params for opt in each.opts
}


def run_help(*words: str) -> Result:
    return CliRunner().invoke(main, ["help", *words])


def test_without_a_topic_all_are_listed_with_their_first_line() -> None:
    result = run_help()
    assert result.exit_code == 0
    assert [line.split()[0] for line in result.stdout.splitlines()] == [*TOPICS]
    assert all(name in (main.commands["help"].help or "") for name in TOPICS)


@pytest.mark.parametrize("name", TOPICS)
def test_a_topic_fits_a_screen_and_ends_with_an_example_that_its_command_accepts(name: str) -> None:
    shown = run_help(name).stdout
    assert len(shown.splitlines()) <= 30
    assert max(map(len, shown.splitlines())) <= 100
    example = shown.rstrip().splitlines()[-1]
    words = [*takewhile(lambda word: word != "|", shlex.split(example))]
    main.commands[words[1]].make_context(words[1], words[2:])


@pytest.mark.parametrize("name", TOPICS)
def test_a_topic_names_options_that_exist(name: str) -> None:
    named = set(re.findall(r"(?<!\w)--[a-z][a-z0-9-]*", page(name)))
    assert named <= OPTIONS | {"--help", "--config"}


def test_every_filter_of_the_pages_is_one() -> None:
    properties = load_json("mappings", "common.json")["mappings"]["properties"]
    texts = re.findall(r"--filter ([^\s;]+)", page("filters") + page("dates"))
    filters = [each for each in texts if "FIELD" not in each]
    assert len(filters) >= 11
    for text in filters:
        given = parse_filters([text])
        assert filter_clauses(given.filters, properties, without=given.without)


def test_every_date_of_the_page_is_one() -> None:
    for end, text in re.findall(r"--(since|until) ([0-9]\S*)", page("dates")):
        assert filter_clauses(None, {}, **{end: text})
    assert filter_clauses(None, {}, until="2024-12-24T18:30+01:00")


def test_the_help_of_a_command_is_what_its_option_prints() -> None:
    assert run_help("search").output == CliRunner().invoke(main, ["search", "--help"]).output
    assert "Usage: es-imgsearch tags train" in run_help("tags", "train").output.replace(
        "main", "es-imgsearch"
    )


@pytest.mark.parametrize(
    ("word", "meant"),
    [("filter", "filters"), ("Dates", "dates"), ("serach", "search"), ("patern", "patterns")],
)
def test_a_misspelt_topic_or_command_is_answered_with_the_nearest(word: str, meant: str) -> None:
    result = run_help(word)
    assert result.exit_code == 2
    assert f"Did you mean {meant!r}?" in result.stderr


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (["serach", "a"], "search"),
        (["search", "--fitler", "a=b"], "--filter"),
        (["stat"], "status"),
    ],
)
def test_a_misspelt_command_or_option_is_answered_with_the_nearest(
    words: list[str], meant: str
) -> None:
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 2
    assert f"Did you mean '{meant}'?" in result.stderr
