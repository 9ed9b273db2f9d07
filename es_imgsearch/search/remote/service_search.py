"""The methods of the client, answered by a running `serve`."""

from __future__ import annotations

import re
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, Unpack

from es_imgsearch.embed.runtime.service import ServiceConnection
from es_imgsearch.errors import ImageMissing, UsageError
from es_imgsearch.search.remote.bodies import example_terms, plain_texts, read_hits, search_body

if TYPE_CHECKING:
    from PIL import Image

    from es_imgsearch.embed.runtime.service_encoder import ServiceEncoder
    from es_imgsearch.search.hits import Hits
    from es_imgsearch.search.options import SearchOptions
    from es_imgsearch.search.query import Queries, Query, QueryBox, Vector
    from es_imgsearch.settings import Settings

_IMAGE_ID: Final = re.compile(r"[0-9a-f]{32}")


class ServiceSearch:
    """Search through a service.  Thread-safe.

    Pictures are opened, cut and prepared for the service's encoder here, so what is sent is a PNG
    of a few hundred pixels, never a file.  With `weights`, for which colours are compared as well,
    it is the picture itself, with at most 1600 pixels a side.

    `index` is refused by a service that searches another; None asks any.  Every method raises the
    errors of `ImageSearch`, ServiceUnreachable if the service does not answer, and
    ServiceUnsuitable if it is none of ours, refuses the token or cannot do what is asked.
    """

    def __init__(self, service: ServiceConnection, settings: Settings, index: str | None) -> None:
        self.service = service
        self._settings = settings
        self._index = index
        self._encoder: ServiceEncoder | None = None
        self._lock = threading.Lock()

    def search(
        self,
        positive: Queries,
        negative: Queries = (),
        k: int = 10,
        *,
        box: QueryBox | None = None,
        **options: Unpack[SearchOptions],
    ) -> Hits:
        """Search by examples; see `ImageSearch.search`."""
        terms = None if box is not None else plain_texts(positive, negative)
        if terms is None:
            limit = self._settings.max_pixels
            terms = example_terms(positive, negative, box, max_pixels=limit)
        is_whole = options.get("weights") is not None
        pictures = [self._sent(each, is_whole=is_whole) for each in terms.pictures]
        body = search_body(terms, k, options, index=self._index, host=self._settings.host)
        answer = self.service.post("/api/v1/search-by-examples", body, pictures)
        return read_hits(answer, terms.shown, self.service.url)

    def similar(self, image_id: str, k: int = 10, **options: Unpack[SearchOptions]) -> Hits:
        """Search by a picture of the index; see `ImageSearch.similar`."""
        terms = plain_texts([image_id] if isinstance(image_id, str) else "", ())
        if terms is None:
            raise ImageMissing(f"No picture has the image_id {image_id!r}.")
        terms.positive, terms.shown = [{"image_id": image_id}], []
        body = search_body(terms, k, options, index=self._index, host=self._settings.host)
        answer = self.service.post("/api/v1/search-by-examples", body)
        return read_hits(answer, terms.shown, self.service.url)

    def get(self, image_id: str) -> Mapping[str, Any]:
        """Read one picture's document; see `ImageSearch.get`."""
        if not isinstance(image_id, str) or not _IMAGE_ID.fullmatch(image_id):
            raise ImageMissing(f"No picture has the image_id {image_id!r}.")
        document: Mapping[str, Any] = self.service.get(f"/api/v1/images/{image_id}")
        return document

    def embed(self, query: Query, box: QueryBox | None = None) -> Vector:
        """Compute the vector of words, a picture or a vector; see `ImageSearch.embed`."""
        from es_imgsearch.records import unit

        terms = example_terms([query], (), box, max_pixels=self._settings.max_pixels)
        (plain,) = terms.positive
        if "image_id" in plain:
            raise needs_elasticsearch("vectors of stored pictures")
        if "vector" in plain:
            return unit(plain["vector"])
        body = {} if terms.pictures else {"texts": [plain["text"].strip()]}
        pictures = [self._sent(each) for each in terms.pictures]
        answer = self.service.post("/api/v1/encode", body, pictures)
        return unit(answer["vectors"][0])

    def encoder(self) -> ServiceEncoder:
        """Return the service's encoder, which embeds there; described once."""
        from es_imgsearch.embed.runtime.service_encoder import ServiceEncoder

        with self._lock:
            if self._encoder is None:
                self._encoder = ServiceEncoder(self.service)
            return self._encoder

    def forget(self) -> None:
        """Ask for the encoder again before the next picture."""
        with self._lock:
            self._encoder = None

    def close(self) -> None:
        """Close the connections."""
        self.service.close()

    def _sent(self, picture: Image.Image, *, is_whole: bool = False) -> bytes:
        from es_imgsearch.embed.runtime.service_encoder import WHOLE, prepared

        return prepared(picture, WHOLE if is_whole else self.encoder().preparation)


def open_service(url: str, settings: Settings) -> ServiceSearch:
    """Open a service, asked about the index that the settings name, if they name one.

    Raises SettingsError for what is no address.
    """
    return ServiceSearch(
        ServiceConnection(
            url,
            token_of(settings),
            timeout_seconds=settings.request_timeout_seconds,
        ),
        settings,
        settings.index if "index" in settings.model_fields_set else None,
    )


def check_place(
    elasticsearch: Any, encoder: object, service: str | None, encoder_url: str | None
) -> None:
    """Raise UsageError for arguments of which one leaves nothing to do for another."""
    if service is not None and not (elasticsearch is None and encoder is encoder_url is None):
        raise UsageError(
            "service= is asked in place of Elasticsearch and a model: leave the address, encoder="
            " and encoder_url= out, or service=."
        )
    if encoder is not None and encoder_url is not None:
        raise UsageError("encoder= and encoder_url= both embed: give one of them.")


def token_of(settings: Settings) -> str | None:
    """Return the token that services are sent."""
    return None if (token := settings.service_token) is None else token.get_secret_value()


def needs_elasticsearch(what: str) -> UsageError:
    """Build the error of what the API does not have."""
    return UsageError(
        f"A service gives no {what}: use ImageSearch with the address of Elasticsearch for that."
    )
