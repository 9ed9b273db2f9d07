"""The documentation is right: its code runs, links resolve, the reference is current."""

from __future__ import annotations

import os
import pkgutil
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
from PIL import Image, ImageFilter

from es_imgsearch.cli import main
from es_imgsearch.describe.fields import VectorDescribers
from es_imgsearch.describe.registry import VectorSpace
from es_imgsearch.elastic.mapping import new_meta
from es_imgsearch.elastic.meta import Seal
from es_imgsearch.elastic.store import Store
from es_imgsearch.testing import FakeEncoder

CHECKOUT = Path(__file__).resolve().parents[2]
PAGES = sorted([*CHECKOUT.glob("*.md"), *CHECKOUT.glob("docs/**/*.md")])


def blocks(page: Path, language: str) -> list[str]:
    text = page.read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)


def test_the_reference_is_what_the_code_says():
    command = [sys.executable, "dev/reference.py", "--check"]
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_every_command_is_in_the_reference():
    page = (CHECKOUT / "docs" / "reference" / "commands.md").read_text(encoding="utf-8")
    for name in main.commands:
        assert f"## {name}\n" in page


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(CHECKOUT)))
def test_links_lead_to_files_that_are_there(page: Path):
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text(encoding="utf-8"))
    for link in links:
        if not link.startswith("http"):
            assert (page.parent / link).exists(), link


def test_the_site_builds_without_a_warning_and_loads_nothing_from_other_hosts(tmp_path: Path):
    """Sphinx warns of links, anchors and pages that lead nowhere; `make docs` installs it."""
    pytest.importorskip("sphinx", reason="dev/setup docs")
    command = [sys.executable, "-m", "sphinx", "--nitpicky", "--fail-on-warning", "--quiet"]
    done = subprocess.run(
        [*command, "docs", str(tmp_path)], cwd=CHECKOUT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    search_index = (tmp_path / "searchindex.js").read_text(encoding="utf-8")
    for page in CHECKOUT.glob("docs/**/*.md"):
        name = page.relative_to(CHECKOUT / "docs").with_suffix("")
        assert (tmp_path / f"{name}.html").exists()
        assert f'"{name}"' in search_index
    for page in tmp_path.rglob("*.html"):
        loaded = r"<(?:script|img|iframe|link)\b[^>]*\b(?:src|href)=[\"']?(?:https?:)?//[^>]*>"
        assert re.findall(loaded, page.read_text(encoding="utf-8")) == []


def test_every_test_that_a_page_names_exists():
    named = {
        tuple(name.split("::"))
        for page in PAGES
        for name in re.findall(r"tests/[\w/]+\.py::\w+", page.read_text(encoding="utf-8"))
    }
    assert len(named) >= 50
    missing = [
        (file, test)
        for file, test in sorted(named)
        if not (CHECKOUT / file).exists()
        or not re.search(rf"^ *(async )?def {test}\(", (CHECKOUT / file).read_text(), re.MULTILINE)
    ]
    assert missing == []


def test_every_file_that_contributing_names_exists():
    page = (CHECKOUT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    names = set(re.findall(r"`([\w./-]+/(?:[\w.-]+)?|[\w-]+\.(?:md|toml|py|txt))`", page))
    assert len(names) >= 30
    missing = sorted(name for name in names if not (CHECKOUT / name).exists())
    assert missing == []


def test_every_file_that_a_page_names_exists():
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for name in re.findall(r"\b(?:tests|benchmarks|dev|docker)/[\w./-]+\w", text):
            if name != "docker/.env":
                assert (CHECKOUT / name).exists(), f"{page.name}: {name}"


def test_every_import_and_dotted_name_in_the_pages_resolves():
    entry_point_groups = {f"es_imgsearch.{each}" for each in ("encoders", "describers", "sources")}
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for line in re.findall(r"^from es_imgsearch\S* import .*", text, flags=re.MULTILINE):
            exec(line, {})
        for name in set(re.findall(r"`(es_imgsearch(?:\.\w+)+)", text)) - entry_point_groups:
            pkgutil.resolve_name(name)


def test_the_python_of_the_readme_runs(
    es_url: str, real_store: Store, photographs: Path, tmp_path: Path
):
    """As somebody would run it after `make demo`, here on the tests' own server and index."""
    (code,) = blocks(CHECKOUT / "README.md", "python")
    folder = tmp_path / ".demo" / "photos"
    folder.mkdir(parents=True)
    for name in ("chelsea.png", "motorcycle_left.png", "coffee.png"):
        (folder / name).write_bytes((photographs / name).read_bytes())
    environment = {**os.environ, "ES_URL": es_url}
    command = Path(sys.executable).with_name("es-imgsearch")
    for arguments in (["init", "--encoder", "starter"], ["sync", f"photos={folder}"]):
        run = [command, *arguments, "--index", real_store.index]
        subprocess.run(run, env=environment, check=True, capture_output=True)
    assert '"http://127.0.0.1:9200", index="demo"' in code
    code = code.replace("http://127.0.0.1:9200", es_url).replace('"demo"', f'"{real_store.index}"')
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[1] == "chelsea.png"
    assert (tmp_path / "sheet.png").stat().st_size > 10_000


def test_the_describers_of_the_how_to_work(photographs: Path):
    code = blocks(CHECKOUT / "docs" / "how-to" / "describe-pictures.md", "python")
    names: dict[str, Any] = {}
    for block in code:
        exec(block, names)
    with Image.open(photographs / "chelsea.png") as opened:
        sharp = opened.convert("RGB")
    describer = names["Sharpness"]()
    blurred = sharp.filter(ImageFilter.GaussianBlur(3))
    found = [describer.describe(each, Image.Exif(), "a.png") for each in (sharp, blurred)]
    assert found[0].keys() == describer.mapping.keys()
    assert found[0]["sharpness"] > 2 * found[1]["sharpness"]
    by_vector = VectorDescribers([names["Centre"]()])
    seal = Seal("fake", "1", 2, "f")
    meta = new_meta(seal, "exact", "cosine")
    by_vector.begin(VectorSpace("images", meta, FakeEncoder(), lambda _request: None))
    assert by_vector.describe(np.array([[3.0, 4.0]], np.float32)) == [
        {"centre": {"first_number": pytest.approx(0.6)}}
    ]


def test_the_python_of_the_page_on_encoders_runs(capsys: pytest.CaptureFixture[str]):
    (code,) = blocks(CHECKOUT / "docs" / "how-to" / "choose-an-encoder.md", "python")
    exec(code, {})
    assert "pictures/s" in capsys.readouterr().out


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(CHECKOUT)))
def test_commands_in_the_pages_exist(page: Path):
    for block in blocks(page, "sh"):
        for name in re.findall(r"^(?:\S*/)?es-imgsearch ([a-z-]+)", block, flags=re.MULTILINE):
            assert name in main.commands, name
        for target in re.findall(r"^make ([a-z-]+)", block, flags=re.MULTILINE):
            makefile = (CHECKOUT / "Makefile").read_text(encoding="utf-8")
            assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target


def test_the_options_in_the_pages_exist():
    for page in PAGES:
        for block in blocks(page, "sh"):
            for line in block.splitlines():
                if (found := re.match(r"es-imgsearch ([a-z-]+) (.*)", line)) is None:
                    continue
                command = main.commands[found[1]]
                if isinstance(command, click.Group):
                    command = command.commands[found[2].split()[0]]
                options = {o for p in command.params for o in p.opts}
                for option in re.findall(r"(?<!\S)--?[a-z][a-z-]*", found[2].split("#")[0]):
                    assert option in options, f"{page.name}: {line}"
