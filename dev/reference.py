"""Writes docs/reference from the code; `--check` only says whether it is up to date."""

from __future__ import annotations

import argparse
import ast
import inspect
import sys
from itertools import pairwise
from pathlib import Path
from typing import cast

import click
from pydantic_core import PydanticUndefined

from es_imgsearch import AsyncImageSearch, ImageSearch, errors
from es_imgsearch.cli import main as command_line
from es_imgsearch.elastic.mapping import load_json, load_profile, profile_names
from es_imgsearch.read import file as read
from es_imgsearch.search import client as search
from es_imgsearch.settings import ENVIRONMENT_PREFIX, Settings

REFERENCE = Path(__file__).resolve().parent.parent / "docs" / "reference"
NOTE = "<!-- Written by `make docs` from the code; changes here are lost. -->\n\n"
EXIT_CODES = f"""\
## Exit codes

| code | meaning |
|---|---|
| {errors.EXIT_DONE} | done |
| {errors.EXIT_DIFFERENCE} | a difference or a failure was found |
| {errors.EXIT_USAGE} | wrong use; the one line on standard error says what to do |
| {errors.EXIT_UNREACHABLE} | Elasticsearch does not answer |
"""
SOURCES = """\
The command line wins over the environment, the environment over `es-imgsearch.toml` in the working
folder (or the file given with `--config`), the file over the defaults.
"""
COMPUTED = {
    "host": "the machine's name",
    "read_workers": "the cores up to 8, then a third of them",
}
FIELDS = """\
One document a picture, behind the alias (`images` by default). Mappings are `dynamic: strict`; the
vector is left out of `_source`.
"""
REGIONS = """\
| `regions` | nested, only of `init --regions`: `box` (x, y, width, height), and `embedding`, \
mapped like `image_embedding` |
"""
CODES = "| `image_code` | dense_vector of bits, only after `codes train` |"
PROFILES = """\
`es-imgsearch init --profile NAME`. By hand, in a console: `mappings/common.json`, as it is, is the
body of `PUT my-index`; a profile's file, with your `dims` and `similarity`, that of
`PUT my-index/_mapping`.
"""


def commands() -> str:
    parts = ["# Commands\n"]
    for name, command in sorted(command_line.commands.items()):
        parts.append(f"## {name}\n\n{help_of(command, name)}")
        for part, each in getattr(command, "commands", {}).items():
            parts.append(f"### {name} {part}\n\n{help_of(each, f'{name} {part}')}")
    parts.append(EXIT_CODES)
    return "\n".join(parts)


def help_of(command: click.Command, name: str) -> str:
    context = click.Context(command, info_name=f"es-imgsearch {name}", max_content_width=95)
    return f"```text\n{command.get_help(context)}\n```\n"


def settings() -> str:
    lines = [
        "# Settings\n",
        SOURCES,
        "| setting | environment | default | meaning |",
        "|---|---|---|---|",
    ]
    described = descriptions(Settings)
    for name, field in Settings.model_fields.items():
        default = "" if field.default is PydanticUndefined else repr(field.default)
        if field.default is PydanticUndefined:
            default = COMPUTED[name]
        variable = ("" if field.validation_alias else ENVIRONMENT_PREFIX) + name.upper()
        lines.append(f"| `{name}` | `{variable}` | {default} | {described[name]} |")
    lines.append("\nIn the environment a list (`exclude`) is separated by colons, as in `PATH`.\n")
    return "\n".join(lines)


def descriptions(model: type[Settings]) -> dict[str, str]:
    """Return the text under each field of a class.

    pydantic could read it, with `use_attribute_docstrings`, in 33 ms of every start.
    """
    [body] = ast.parse(inspect.getsource(model)).body
    found = {}
    for field, text in pairwise(cast(ast.ClassDef, body).body):
        match field, text:
            case (
                ast.AnnAssign(target=ast.Name(id=name)),
                ast.Expr(value=ast.Constant(value=str(words))),
            ):
                found[name] = " ".join(words.split())
    return found


def fields() -> str:
    parts = [
        "# Fields and profiles\n",
        FIELDS,
        table(load_json("mappings", "common.json")["mappings"]["properties"]),
        "| `image_embedding` | dense_vector; dims of the encoder, see the profiles below |",
        REGIONS.rstrip(),
        CODES,
        "",
        "## Failures (`<index>-failures`)\n",
        table(load_json("mappings", "failures.json")["mappings"]["properties"]),
        "",
        "## Background (`<index>-background`)\n",
        "A sample of the index's own pictures, which `relevance` compares with.\n",
        table(load_json("mappings", "background.json")["mappings"]["properties"]),
        "",
        "## Tags (`<index>-tags`)\n",
        "The vocabulary, the trained head, and the labels it was trained on; made by `tags`.\n",
        table(load_json("mappings", "tags.json")["mappings"]["properties"]),
        "",
        "## Searches (`<index>-searches`)\n",
        "What was searched for and how it went, where `log_searches` is on.\n",
        table(load_json("mappings", "searches.json")["mappings"]["properties"]),
        "",
        "## Profiles\n",
        PROFILES,
        "| profile | index type | oversample | what for |",
        "|---|---|---|---|",
    ]
    for name in profile_names():
        profile = load_profile(name)
        kind = profile["properties"]["image_embedding"]["index_options"]["type"]
        meta = profile["_meta"]
        parts.append(f"| `{name}` | {kind} | {meta['tuning']['oversample']} | {meta['about']} |")
    return "\n".join(parts) + "\n"


def table(properties: dict) -> str:
    lines = ["| field | type |", "|---|---|"]
    for name, mapping in properties.items():
        subfields = ", ".join(f"`{name}.{sub}`" for sub in mapping.get("fields", {}))
        also = f"; also {subfields}" if subfields else ""
        lines.append(f"| `{name}` | {mapping['type']}{also} |")
    return "\n".join(lines)


def errors_page() -> str:
    tree = inspect.getdoc(errors) or ""
    classes = (inspect.getdoc(read) or "").split("carry:\n", 1)[1]
    return (
        f"# Errors\n\n```text\n{tree}\n```\n\n"
        "## Classes of failures\n\nThe field `error_class` of the documents in"
        f" `<index>-failures`:\n\n```text\n{classes.strip(chr(10))}\n```\n"
    )


def client() -> str:
    parts = ["# The Python client\n"]
    for described in (ImageSearch, AsyncImageSearch, search.SearchOptions, search.StoredPicture):
        text = inspect.getdoc(described) or ""
        parts.append(f"## {described.__name__}\n\n```text\n{text}\n```\n")
    parts.append("# Methods\n\nThose of `AsyncImageSearch` are the same, awaited.\n")
    methods = "search_text search_image search similar similarity get embed knn_query reload close"
    for owner, names in (
        (ImageSearch, methods.split()),
        (search.Hits, ["to_pandas", "sheet"]),
        (search.Hit, ["to_dict"]),
    ):
        parts.append(f"## {owner.__name__}\n")
        for name in names:
            method = getattr(owner, name)
            signature = str(inspect.signature(method)).replace("'", "")
            text = f"{name}{signature}\n\n{inspect.getdoc(method)}"
            parts.append(f"### {name}\n\n```text\n{text}\n```\n")
    return "\n".join(parts)


PAGES = {
    "commands.md": commands,
    "settings.md": settings,
    "fields.md": fields,
    "errors.md": errors_page,
    "client.md": client,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    stale = []
    REFERENCE.mkdir(parents=True, exist_ok=True)
    for name, page in PAGES.items():
        text = NOTE + "\n".join(line.rstrip() for line in page().rstrip().splitlines()) + "\n"
        path = REFERENCE / name
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            stale.append(name)
            if not check:
                path.write_text(text, encoding="utf-8")
    if check and stale:
        print(f"docs/reference is out of date ({', '.join(stale)}): make docs", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
