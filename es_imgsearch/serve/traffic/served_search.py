"""The client of the service: encodes queries together, and times its stages."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from es_imgsearch.search.client import ImageSearch
from es_imgsearch.search.operations import Operations
from es_imgsearch.search.reduced import open_originals
from es_imgsearch.serve.traffic.shared_encoder import SharedQueryEncoder
from es_imgsearch.serve.traffic.stages import timed
from es_imgsearch.settings import Settings

if TYPE_CHECKING:
    from es_imgsearch.elastic.requests import Request
    from es_imgsearch.embed.protocol import Encoder


class ServedSearch(ImageSearch):
    """An `ImageSearch` for the threads of a service."""

    def __init__(self, settings: Settings, encoder: Encoder | None = None) -> None:
        super().__init__(settings=settings, encoder=encoder)
        self.shared = SharedQueryEncoder(self.model)
        self._operations = Operations(
            settings.index,
            settings,
            self.shared,
            partial(open_originals, settings=settings, index=settings.index),
        )

    def _send(self, request: Request) -> Any:
        with timed("elasticsearch"):
            return super()._send(request)
