"""Say in words why Elasticsearch takes no writes now, and what ends it."""

from __future__ import annotations

import re
from typing import Final

# "index [images-000001] blocked by: [TOO_MANY_REQUESTS/12/disk usage exceeded …];"
_BLOCKED: Final = re.compile(
    r"(?:index \[(?P<index>[^\]]+)\] )?blocked by: (?P<blocks>.*)", re.DOTALL
)
_NUMBER: Final = re.compile(r"\[[A-Z_]+/(\d+)/")
# Elasticsearch's words (or Lucene's, or the kernel's) where the watermarks are switched off.
_NO_SPACE: Final = ("No space left on device", "Disk quota exceeded")

_FULL: Final = (
    "A disk of Elasticsearch is full, so that {where} takes no writes: free space there or add a"
    " node, and Elasticsearch ends it by itself."
)
# By Elasticsearch's numbers of blocks; the settings that somebody set by hand.
_SET_ON_INDEX: Final = {"5": "read_only", "7": "read", "8": "write", "9": "metadata"}
_SET_ON_CLUSTER: Final = {"6": "read_only", "13": "read_only_allow_delete"}
_FLOOD_STAGE: Final = "12"


def words_of_block(message: str) -> str | None:
    """Translate the reason of a refusal; None if it is no block and no full disk."""
    if any(each in message for each in _NO_SPACE):
        return _FULL.format(where="it")
    if (found := _BLOCKED.search(message)) is None:
        return None
    index, numbers = found["index"], _NUMBER.findall(found["blocks"])
    for number in numbers:
        if setting := _SET_ON_CLUSTER.get(number):
            return (
                "Elasticsearch's whole cluster refuses this, as somebody set it: to end that, send"
                f' PUT /_cluster/settings {{"persistent": {{"cluster.blocks.{setting}": null}},'
                f' "transient": {{"cluster.blocks.{setting}": null}}}}'
            )
    if index is None:
        return None
    if _FLOOD_STAGE in numbers:
        return _FULL.format(where=index)
    for number in numbers:
        if setting := _SET_ON_INDEX.get(number):
            return (
                f"{index} refuses this, as somebody set it, or a reindex until it has switched:"
                f' to end that, send PUT /{index}/_settings {{"index.blocks.{setting}": null}}'
                if setting == "write"
                else f"{index} refuses this, as somebody set it: to end that, send"
                f' PUT /{index}/_settings {{"index.blocks.{setting}": null}}'
            )
    return None
