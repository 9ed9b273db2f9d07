"""Configuration of Sphinx for `make docs`; nothing is loaded from other hosts."""

from __future__ import annotations

import importlib.metadata

project = "es_imgsearch"
release = importlib.metadata.version("es-imgsearch")
html_title = f"es_imgsearch {release}"
extensions = ["myst_parser"]
exclude_patterns = ["_build"]

# Links to headings are checked, with the anchors that GitHub gives them.
myst_heading_anchors = 3

html_theme = "furo"
html_copy_source = False
html_show_sourcelink = False
html_use_index = False
html_show_copyright = False
