"""Make `tests/data/index_of_version_0_1`, an index of version 0.1 as a dump.

Run with the code at commit 90d6db5, not with any later one.  Copy this file,
`tests/e2e/version_0_1.py` and the encoders into a checkout of it that is installed in an
environment of its own, and run it there::

    git worktree add ../version-0.1 90d6db5
    cp dev/dump_version_0_1.py ../version-0.1/dev
    cp tests/e2e/version_0_1.py ../version-0.1/tests/e2e
    cp -r tests/data ../version-0.1/tests
    cd ../version-0.1 && ES_URL=http://127.0.0.1:9200 .venv/bin/python dev/dump_version_0_1.py

It takes a minute.  Everything is made by commands: two roots with files that cannot be read, what
`tune`, `calibrate`, `tags train` and `codes train` learn, a daemon that is killed, a root whose
deletions are paused, and a reindex that is killed in its middle.  `expected.json` holds what that
version answered; its indices are removed at the end.
"""

from __future__ import annotations

import csv
import gzip
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
from elasticsearch import Elasticsearch

from es_imgsearch import ImageSearch
from tests.support import version_0_1 as old

INDEX = "made-by-version-0-1"
COMMAND = str(Path(sys.executable).with_name("es-imgsearch"))
URL = os.environ.get("ES_URL", "http://127.0.0.1:9200")
CARRIED = 60
REGION_VECTOR = "regions.embedding"
# What a server sets itself.
OWN_SETTINGS = {"uuid", "version", "creation_date", "provided_name", "routing"}

environment = {
    **{name: value for name, value in os.environ.items() if not name.startswith("ES_IMGSEARCH_")},
    "ES_URL": URL,
    "ES_IMGSEARCH_INDEX": INDEX,
    "ES_IMGSEARCH_HOST": old.HOST,
    "ES_IMGSEARCH_DESCRIBERS": "-text_in_image",
    "ES_IMGSEARCH_READ_WORKERS": "1",
    "ES_IMGSEARCH_BATCH_SIZE": "10",
    "PYTHONPATH": str(old.PLUGIN),
}


def main() -> None:
    client = Elasticsearch(URL, request_timeout=60)
    old.remove(client, INDEX)
    try:
        with tempfile.TemporaryDirectory(prefix="home-of-version-0-1-") as home:
            make(Path(home).resolve())
            expected = answers(Path(home).resolve())
            dump(client, str(Path(home).resolve()))
        text = json.dumps(expected, indent=1, ensure_ascii=False)
        old.EXPECTED.write_text(text + "\n", encoding="utf-8")
    finally:
        old.remove(client, INDEX)


def run(*arguments: str, code: int = 0) -> str:
    done = subprocess.run([COMMAND, *arguments], env=environment, capture_output=True, text=True)
    print("$ es-imgsearch", *arguments, f"-> {done.returncode}", done.stderr[-400:], flush=True)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout


def make(home: Path) -> None:
    old.write_folders(home, removed=0)
    folders = [str(home / root) for root in old.ROOTS]
    run("init", "--encoder", "grid-48", "--regions")
    run("sync", *folders, code=1)
    labels = home / "labels.csv"
    with labels.open("w", newline="", encoding="utf-8") as file:
        rows = [(old.path_of(n), old.colour_of(n)) for n in range(old.ALBUM + old.TRAVELS)]
        csv.writer(file).writerows([("path", "label"), *rows])
    run("tune", "--no-texts", "--queries", "60")
    run("calibrate", str(labels))
    run("tags", "train", str(labels), "--facet", "colour", "--one-of", "colour")
    run("describe", "--only", "tags")
    run("codes", "train", "--bits", "64")
    watched_and_killed(folders)
    for path in old.removed_paths():
        (home / path).unlink()
    run("sync", str(home / "travels"), code=1)
    reindexed_and_killed()


def watched_and_killed(folders: list[str]) -> None:
    daemon = started("watch", *folders)
    wait_until(lambda: status()["roots"]["album"]["watched_by"])
    time.sleep(3)
    killed(daemon)


def reindexed_and_killed() -> None:
    process = started("reindex", "--encoder", "grid-24", EMBEDDING_SECONDS="0.5")
    wait_until(lambda: (status()["next"] or {"pictures": 0})["pictures"] >= CARRIED)
    killed(process)


def status() -> dict[str, Any]:
    done = subprocess.run([COMMAND, "status", "--json"], env=environment, capture_output=True)
    return json.loads(done.stdout)


def started(*arguments: str, **variables: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [COMMAND, *arguments], env={**environment, **variables}, start_new_session=True
    )


def killed(process: subprocess.Popen[bytes]) -> None:
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def wait_until(condition: Any) -> None:
    deadline = time.monotonic() + 90
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


# -- what is written -----------------------------------------------------------------------------


def answers(home: Path) -> dict[str, Any]:
    """Record what this version finds; later versions have to find the same."""
    sys.path.insert(0, str(old.PLUGIN))
    os.environ["ES_IMGSEARCH_HOST"] = old.HOST
    searches = []
    with ImageSearch(URL, index=INDEX) as client:
        texts = {f"text {text}": client.search_text(text, k=5) for text in old.COLOURS}
        pictures = {
            f"image {old.path_of(n)}": client.search_image(home / old.path_of(n), k=5)
            for n in (7, 33, 100, 187)
        }
        for question, hits in {**texts, **pictures}.items():
            found = [
                {
                    "path": f"{hit.root}/{hit.relative_path}",
                    "score": hit.score,
                    "relevance": hit.relevance,
                    "tags": sorted(hit.fields.get("tags", ())),
                }
                for hit in hits
            ]
            searches.append({"question": question, "hits": found})
    return placed(
        {
            "status": status(),
            "failures": json.loads(run("failures", "--json")),
            "searches": searches,
        },
        str(home),
    )


def dump(client: Elasticsearch, home: str) -> None:
    names = sorted(client.indices.get(index=f"{INDEX}*"))
    client.indices.refresh(index=f"{INDEX}*")
    lines: list[dict[str, Any]] = []
    for name in names:
        made = client.indices.get(index=name, flat_settings=False)[name]
        settings = made["settings"]["index"]
        lines.append(
            {
                "make": name,
                "body": {
                    "mappings": made["mappings"],
                    "settings": {k: v for k, v in settings.items() if k not in OWN_SETTINGS},
                    "aliases": made["aliases"],
                },
            }
        )
    templates = client.indices.get_index_template(name=f"{INDEX}*")["index_templates"]
    lines += [{"template": each["name"], "body": each["index_template"]} for each in templates]
    for name in names:
        lines += documents(client, name)
    old.DATA.mkdir(parents=True, exist_ok=True)
    text = "".join(
        json.dumps(placed(line, home), separators=(",", ":"), ensure_ascii=False) + "\n"
        for line in lines
    )
    assert INDEX not in text
    assert home not in text
    old.DUMP.write_bytes(gzip.compress(text.encode("utf-8"), 9, mtime=0))


def documents(client: Elasticsearch, name: str) -> Iterator[dict[str, Any]]:
    mappings = client.indices.get_mapping(index=name)[name]["mappings"]
    left_out = mappings.get("_source", {}).get("excludes", [])
    regions = {
        "nested": {
            "path": "regions",
            "query": {"match_all": {}},
            "inner_hits": {"size": 16, "_source": False, "docvalue_fields": [REGION_VECTOR]},
        }
    }
    answer = client.search(
        index=name,
        query={
            "bool": {
                "filter": [{"match_all": {}}],
                "should": [regions] if REGION_VECTOR in left_out else [],
            }
        },
        docvalue_fields=[each for each in left_out if each != REGION_VECTOR],
        seq_no_primary_term=True,
        size=1000,
    )
    hits = sorted(answer["hits"]["hits"], key=lambda hit: hit["_seq_no"])
    assert len(hits) == client.count(index=name)["count"]
    print(f"{name}: {len(hits)} documents", flush=True)
    for hit in hits:
        yield {"index": name, "seq_no": hit["_seq_no"], "id": hit["_id"], "source": whole(hit)}


def whole(hit: Mapping[str, Any]) -> dict[str, Any]:
    """Restore a document as written, with the vectors that `_source` leaves out."""
    document = {**hit["_source"]}
    for field, value in hit.get("fields", {}).items():
        document[field] = vector(value)
    inner = hit.get("inner_hits", {}).get("regions", {}).get("hits", {}).get("hits", [])
    for each in inner:
        region = document["regions"][each["_nested"]["offset"]]
        region["embedding"] = vector(each["fields"][REGION_VECTOR])
    assert all("embedding" in each for each in document.get("regions", ()))
    return document


def vector(value: Any) -> list[float]:
    """Round to the shortest decimals that give the same float32."""
    numbers = value[0] if isinstance(value[0], list) else value
    return [float(str(each)) for each in np.asarray(numbers, np.float32)]


def placed(value: Any, home: str) -> Any:
    text = json.dumps(value, ensure_ascii=False)
    return json.loads(text.replace(home, "{home}").replace(INDEX, "{index}"))


if __name__ == "__main__":
    main()
