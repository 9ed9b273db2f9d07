"""Files of other projects that the page loads: those that npm has, all of them, with licences."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest

from tests.support import CHECKOUT

FOLDER = "es_imgsearch/serve/page/static/vendor"
VENDOR = CHECKOUT / FOLDER
PINNED: dict[str, Any] = json.loads((VENDOR / "VERSIONS.json").read_text("utf-8"))


def hash_of(content: bytes) -> str:
    return "sha512-" + base64.b64encode(hashlib.sha512(content).digest()).decode()


def test_the_files_are_those_that_were_taken():
    pinned = {
        f"{name}/{file}": each for name in PINNED for file, each in PINNED[name]["files"].items()
    }
    found = {
        path.relative_to(VENDOR).as_posix(): hash_of(path.read_bytes())
        for path in VENDOR.rglob("*")
        if path.is_file() and path.name != "VERSIONS.json"
    }
    assert found == pinned


@pytest.mark.parametrize("name", PINNED)
def test_version_integrity_and_licence_are_there(name: str):
    entry = PINNED[name]
    assert entry.keys() == {"version", "integrity", "files"}
    assert entry["integrity"].startswith("sha512-")
    assert "Permission is hereby granted, free of charge" in (VENDOR / name / "LICENSE").read_text()
    assert name in (CHECKOUT / "dev" / "vendor").read_text()


def test_they_ask_no_other_host():
    for path in VENDOR.rglob("*.*s"):
        # Comments and namespaces have addresses that nobody asks.
        text = re.sub(r"/\*.*?\*/", "", path.read_text("utf-8"), flags=re.DOTALL)
        assert "sourceMappingURL" not in text, path
        assert re.findall(r"https?://(?!www\.w3\.org/)", text) == [], path


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The script and the folder, elsewhere, and an npm that has other files."""
    shutil.copytree(VENDOR, tmp_path / FOLDER)
    (tmp_path / "dev").mkdir()
    shutil.copy(CHECKOUT / "dev" / "vendor", tmp_path / "dev")
    with tarfile.open(tmp_path / "other.tgz", "w:gz") as archive:
        for name in ("LICENSE", "dist/cropper.esm.min.js"):
            file = tarfile.TarInfo(f"package/{name}")
            file.size = 5
            archive.addfile(file, io.BytesIO(b"other"))
    npm = tmp_path / "bin" / "npm"
    npm.parent.mkdir()
    npm.write_text(f'#!/bin/sh\ncp "{tmp_path}/other.tgz" "$4/$5.tgz"\n')
    npm.chmod(0o755)
    return tmp_path


def vendor(checkout: Path, *words: str) -> subprocess.CompletedProcess[str]:
    path = f"{checkout / 'bin'}:{os.environ['PATH']}"
    return subprocess.run(
        [checkout / "dev" / "vendor", *words],
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.process
def test_a_tarball_that_is_not_the_pinned_one_is_refused(checkout: Path):
    done = vendor(checkout)
    assert done.returncode == 1
    assert f"pinned is {PINNED['cropperjs']['integrity']}" in done.stderr
    for path in VENDOR.rglob("*"):
        if path.is_file():
            assert (checkout / FOLDER / path.relative_to(VENDOR)).read_bytes() == path.read_bytes()


@pytest.mark.process
def test_another_version_is_pinned_with_its_hashes(checkout: Path):
    pinned = {"cropperjs": {"version": "2.2.0"}}
    (checkout / FOLDER / "VERSIONS.json").write_text(json.dumps(pinned))
    (checkout / FOLDER / "cropperjs" / "old.js").write_text("of the version before")
    done = vendor(checkout, "cropperjs@9.9.9")
    assert done.returncode == 0, done.stderr
    written = json.loads((checkout / FOLDER / "VERSIONS.json").read_text())
    other = hash_of(b"other")
    assert written["cropperjs"] == {
        "version": "9.9.9",
        "integrity": hash_of((checkout / "other.tgz").read_bytes()),
        "files": {"LICENSE": other, "cropper.esm.min.js": other},
    }
    assert not (checkout / FOLDER / "cropperjs" / "old.js").exists()


@pytest.mark.process
@pytest.mark.parametrize("words", ["cropperjs", "left-pad@1.0.0", "@1.0.0", ""])
def test_a_package_that_is_not_taken(checkout: Path, words: str):
    done = vendor(checkout, words)
    assert done.returncode == 1
    assert "NAME@VERSION" in done.stderr
