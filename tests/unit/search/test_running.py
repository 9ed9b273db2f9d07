"""A running `serve` is found by the file that it writes, with its own key only."""

from __future__ import annotations

from pathlib import Path

import pytest

from es_imgsearch.search.remote.running import announced, find_running
from es_imgsearch.settings import Settings, load_settings

KEY = "aWQ6c2VjcmV0"


def with_key(key: str | None) -> Settings:
    return load_settings({"es_api_key": key, "index": "t-running"}, environment={})


@pytest.mark.parametrize("key", [KEY, None])
@pytest.mark.parametrize("asked_with", [KEY, None, "aWQ6b3RoZXI="])
def test_it_is_found_with_the_same_key_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str | None, asked_with: str | None
):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    with announced(with_key(key), "127.0.0.1", 8080, needs_token=False):
        (file,) = (tmp_path / "es-imgsearch").glob("serve-*.json")
        for secret in (KEY, "secret"):
            assert secret not in file.read_text()
        found = find_running(with_key(asked_with))
    assert found == ("http://127.0.0.1:8080" if key == asked_with else None)
