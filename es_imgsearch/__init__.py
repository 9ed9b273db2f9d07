"""Search pictures by text, by picture or by part of a picture, on Elasticsearch.

from es_imgsearch import ImageSearch

search = ImageSearch("http://127.0.0.1:9200")
for hit in search.search_text("a cat on a sofa"):
    print(hit.score, hit.relative_path)
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from es_imgsearch.search import AsyncImageSearch, Hit, Hits, ImageSearch, StoredPicture


__version__ = "0.1.0"
__all__ = ["AsyncImageSearch", "Hit", "Hits", "ImageSearch", "StoredPicture", "__version__"]


# Pictures are private: the telemetry of every library is off.  Libraries read these
# when they are imported, and every process that imports one has imported this module before.
# docs/explanation/privacy.md says what each would do.
TELLING_NOBODY: Final = {
    "ORT_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_UPDATE_CHECK": "1",
    "HF_XET_TELEMETRY_ENABLED": "0",
    "DISABLE_SAFETENSORS_CONVERSION": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "DO_NOT_TRACK": "1",
}
for _name, _value in TELLING_NOBODY.items():
    # What somebody has set stays.
    os.environ[_name] = os.environ.get(_name) or _value
# If it was imported earlier it has left its files, and from here on it sends nothing.  The entry
# may be None or a stub (to block it), or a module that is being imported.
if _disable := getattr(sys.modules.get("onnxruntime"), "disable_telemetry_events", None):
    _disable()


def __getattr__(name: str) -> Any:
    # Importing the Elasticsearch client takes 0.3 s, which a program that needs only the version
    # or an encoder does not pay.
    if name in __all__:
        from es_imgsearch import search

        return getattr(search, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
