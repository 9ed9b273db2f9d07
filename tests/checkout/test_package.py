"""The wheel works from anywhere, and imports go one way."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.process

CHECKOUT = Path(__file__).resolve().parent.parent.parent
NEEDED = ["pyproject.toml", "README.md", "LICENSE", "es_imgsearch", "mappings", "kibana"]


def run(*command: str | Path, cwd: Path, **environment: str) -> str:
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, so that the build leaves nothing in the checkout."""
    folder = tmp_path_factory.mktemp("build")
    source, output = folder / "source", folder / "wheel"
    source.mkdir()
    for name in NEEDED:
        original = CHECKOUT / name
        if original.is_dir():
            shutil.copytree(
                original, source / name, ignore=shutil.ignore_patterns("__pycache__", "*.pyc")
            )
        elif original.exists():
            shutil.copy(original, source)
    run(
        sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", output,
        cwd=source,
    )  # fmt: skip
    (built,) = output.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with nothing but the wheel's content."""
    folder = tmp_path_factory.mktemp("installed")
    # All that an installer does with a pure wheel, and needs no pip in the environment.
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def python(installed: Path, folder: Path, *arguments: str) -> str:
    """Run in an unrelated folder; the installed package comes before the checkout's."""
    return run(sys.executable, *arguments, cwd=folder, PYTHONPATH=str(installed))


def test_the_wheel_holds_what_is_loaded_at_run_time(wheel: Path):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    mappings = {each.name for each in (CHECKOUT / "mappings").glob("*.json")}
    assert {"common.json", "failures.json", "balanced.json"} <= mappings
    assert "searches.json" in mappings
    assert {f"es_imgsearch/mappings/{name}" for name in mappings} <= names
    assert "es_imgsearch/kibana_objects/schemas/dashboard.json" in names
    assert {
        f"es_imgsearch/kibana_objects/{each.relative_to(CHECKOUT / 'kibana')}"
        for each in (CHECKOUT / "kibana").rglob("*")
        if each.is_file()
    } <= names
    page = CHECKOUT / "es_imgsearch" / "serve" / "page"
    of_page = {each.relative_to(CHECKOUT) for each in page.rglob("*") if each.suffix != ".pyc"}
    assert {str(each) for each in of_page if (CHECKOUT / each).is_file()} <= names
    assert "es_imgsearch/serve/page/static/vendor/photoswipe/LICENSE" in names
    assert "es_imgsearch/py.typed" in names
    assert not [name for name in names if name.startswith(("tests", "dev", "mappings", "kibana"))]
    modules = {each.relative_to(CHECKOUT) for each in (CHECKOUT / "es_imgsearch").rglob("*.py")}
    assert {str(each) for each in modules} <= names


def test_the_installed_package_is_the_one_that_runs(installed: Path, tmp_path: Path):
    where = python(installed, tmp_path, "-c", "import es_imgsearch; print(es_imgsearch.__file__)")
    assert Path(where.strip()).is_relative_to(installed)


def test_the_command_line_answers(installed: Path, tmp_path: Path):
    told = python(installed, tmp_path, "-m", "es_imgsearch.cli", "--help")
    for command in ("init", "watch", "sync", "search", "similar", "status"):
        assert command in told


def test_the_wheel_installs_its_command(wheel: Path, tmp_path: Path):
    """As docker/install does, but for the libraries, which are lent by this environment."""
    venv.create(tmp_path / "venv", with_pip=True)
    python_there = tmp_path / "venv" / "bin" / "python"
    run(python_there, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", wheel,
        cwd=tmp_path)  # fmt: skip
    show = "import sysconfig; print(sysconfig.get_path('purelib'))"
    there, here = (
        Path(run(each, "-c", show, cwd=tmp_path).strip()) for each in (python_there, sys.executable)
    )
    (there / "lent.pth").write_text(f"{here}\n")
    command = tmp_path / "venv" / "bin" / "es-imgsearch"
    assert run(command, "--version", cwd=tmp_path).startswith("es-imgsearch, version ")
    assert "--encoder" in run(command, "init", "--help", cwd=tmp_path)
    where = run(
        python_there, "-c", "import es_imgsearch; print(es_imgsearch.__file__)", cwd=tmp_path
    )
    assert Path(where.strip()).is_relative_to(tmp_path)


def test_an_index_body_is_composed_from_the_packaged_files(installed: Path, tmp_path: Path):
    code = """
import json
from es_imgsearch.elastic.mapping import (
    failures_body, folder, index_body, new_meta, profile_names)
from es_imgsearch.elastic.meta import Seal
seal = Seal(name="fake", revision="1", dims=128, fingerprint="f")
import numpy
from es_imgsearch.embed.reduction import fit
cut = fit(numpy.random.default_rng(0).normal(size=(300, 128)))
cuts = {"reduced": cut.entry()}
bodies = {name: index_body(new_meta(seal, name, "cosine", cuts.get(name)))
          for name in profile_names()}
print(json.dumps({"bodies": bodies, "failures": failures_body(),
                  "folders": [str(folder("mappings")), str(folder("kibana"))]}))
"""
    found = json.loads(python(installed, tmp_path, "-c", code))
    assert {"exact", "balanced", "compact", "binary", "reduced"} <= found["bodies"].keys()
    for name, body in found["bodies"].items():
        assert body["mappings"]["dynamic"] == "strict"
        dims = body["mappings"]["properties"]["image_embedding"]["dims"]
        assert dims == (96 if name == "reduced" else 128)
    for each in found["folders"]:
        assert Path(each).is_relative_to(installed)


def test_kibana_objects_are_built_and_checked_by_the_packaged_files(
    installed: Path, tmp_path: Path
):
    # Where nothing listens: fields are those of a new index.
    common = ["--es-url", "http://127.0.0.1:9"]
    command = ["-m", "es_imgsearch.cli", "kibana"]
    python(installed, tmp_path, *command, "build", "--no-searches", "--output", "k.ndjson", *common)
    assert (
        json.loads(python(installed, tmp_path, *command, "check", "k.ndjson", "--json", *common))
        == []
    )
    objects = [json.loads(line) for line in (tmp_path / "k.ndjson").read_text().splitlines()]
    dashboard = next(each for each in objects if each["type"] == "dashboard")
    # The schemas are there, too: an attribute that Kibana needs is missed.
    del dashboard["attributes"]["title"]
    (tmp_path / "k.ndjson").write_text("\n".join(map(json.dumps, objects)))
    command = [sys.executable, *command, "check", "k.ndjson", *common]
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 1
    assert "'title' is a required property" in done.stdout


def test_plug_ins_are_registered(wheel: Path):
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [each for each in archive.namelist() if each.endswith("entry_points.txt")]
        told = archive.read(name).decode()
    for line in ("[console_scripts]", "[es_imgsearch.describers]", "[es_imgsearch.encoders]",
                 "exif = es_imgsearch.describe.exif:Exif"):  # fmt: skip
        assert line in told


def test_imports_keep_to_the_ranks():
    assert "[tool.importlinter]" in (CHECKOUT / "pyproject.toml").read_text()
    linter = Path(sys.executable).parent / "lint-imports"
    assert "0 broken" in run(linter, "--no-cache", cwd=CHECKOUT)
