"""Print the figures of a benchmark: a table for people, JSON for programs."""

from __future__ import annotations

import argparse
import json
import os
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def arguments(description: str | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here too")
    return parser


def report(title: str, rows: Sequence[Mapping[str, Any]], file: Path | None) -> None:
    print(f"\n{title}")
    columns = list(rows[0])
    cells = [[_text(row[name]) for name in columns] for row in rows]
    widths = [max(len(name), *(len(line[n]) for line in cells)) for n, name in enumerate(columns)]
    for line in (columns, ["-" * width for width in widths], *cells):
        print("  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)))
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        machine = {"cores": os.cpu_count(), "python": platform.python_version()}
        body = {"title": title, "machine": machine, "rows": list(rows)}
        file.write_text(json.dumps(body, indent=2) + "\n", encoding="utf-8")


def _text(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
