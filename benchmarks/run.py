"""Run every benchmark that needs nothing but this checkout: `make bench`.

Each writes JSON to benchmarks/results.  starter_quality, relevance and regions are run with the
pictures of a Debian package, where STAMPS names their folder.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
BENCHMARKS = [
    "knn_settings",
    "profiles",
    "tuned_against_libraries",
    "methods",
    "growth",
    "client_overhead",
    "encoder_speed",
    "start_time",
    "bytecode",
    "sidecars",
    "ingest_lag",
    "bulk_import",
    "pipeline_speed",
]


def main() -> int:
    subprocess.run([HERE.parent / "dev" / "es-up"], check=True)
    os.environ.setdefault("ES_URL", f"http://127.0.0.1:{os.environ.get('ES_PORT', '9200')}")
    failed = []
    for name in BENCHMARKS:
        failed += [name] * run(name)
    if stamps := os.environ.get("STAMPS"):
        failed += ["starter_quality"] * run("starter_quality", stamps)
        failed += ["duplicates"] * run("duplicates", stamps)
        failed += ["same_picture"] * run("same_picture", stamps)
        failed += ["relevance"] * run("relevance", stamps)
        failed += ["regions"] * run("regions", stamps)
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return len(failed)


def run(name: str, *arguments: str) -> bool:
    result = HERE / "results" / f"{name}.json"
    command = [sys.executable, HERE / f"{name}.py", *arguments, "--json", result]
    return subprocess.run(command, check=False).returncode != 0


if __name__ == "__main__":
    sys.exit(main())
