"""Compiles panels.yaml with kb-dashboard-core, which needs Python 3.12, into compiled.json.

    uv run --no-project --python 3.12 --with kb-dashboard-core==0.4.1 \\
        tests/unit/second_opinion/compile.py
"""

from __future__ import annotations

import json
from pathlib import Path

import yaml
from kb_dashboard_core.dashboard.config import Dashboard
from kb_dashboard_core.dashboard_compiler import render

FOLDER = Path(__file__).parent


def main() -> None:
    panels = [
        {
            "title": each["ours"]["title"],
            "id": f"panel{n}",
            "lens": each["theirs"],
            "size": {"w": 12, "h": 8},
            "position": {"x": 12 * (n % 4), "y": 8 * (n // 4)},
        }
        for n, each in enumerate(yaml.safe_load((FOLDER / "panels.yaml").read_text()))
    ]
    panels.append(
        {
            "title": "Links",
            "id": "links",
            "size": {"w": 48, "h": 4},
            "position": {"x": 0, "y": 32},
            "links": {
                "layout": "horizontal",
                "items": [
                    {
                        "id": "other",
                        "label": "Other",
                        "dashboard": "board",
                        "new_tab": False,
                        "with_time": False,
                        "with_filters": False,
                    }
                ],
            },
        }
    )
    config = {
        "name": "Board",
        "id": "board",
        "description": "All of them.",
        "panels": panels,
        "time_range": {"from": "now-50y", "to": "now"},
        "settings": {"sync": {"colors": True}},
        "controls": [
            {
                "id": "tags",
                "type": "options",
                "field": "tags",
                "label": "Tags",
                "data_view": "view",
                "width": "medium",
                "fill_width": True,
            },
            {"id": "time", "type": "time"},
        ],
    }
    compiled = render(Dashboard.model_validate(config)).model_dump(by_alias=True)
    (FOLDER / "compiled.json").write_text(json.dumps(compiled, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
