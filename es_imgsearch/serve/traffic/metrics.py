"""Metrics of the service in Prometheus' format, in the style of the daemon's."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Gauge,
    Histogram,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from starlette.responses import Response

from es_imgsearch.serve.traffic.observe import Observed
from es_imgsearch.serve.traffic.shared_encoder import SharedQueryEncoder

_PREFIX: Final = "es_imgsearch"
_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
# Whatever else is sent as a method would be a series of its own.
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class ServiceMetrics:
    """Count what `Observe` measured, and what the shared encoder counted."""

    def __init__(self, encoder: SharedQueryEncoder | None = None) -> None:
        self._encoder = encoder
        self._registry = CollectorRegistry()
        self._requests = Histogram(
            f"{_PREFIX}_http_request_seconds",
            "Time of a request, by the template of its path",
            ["route", "method", "status"],
            buckets=_SECONDS,
            registry=self._registry,
        )
        self.in_progress = Gauge(
            f"{_PREFIX}_http_requests_in_progress",
            "Requests that are being answered, with that for these metrics",
            registry=self._registry,
        )
        self._stages = Histogram(
            f"{_PREFIX}_search_stage_seconds",
            "Time that a request with a search spent in each stage, and in total",
            ["stage"],
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._registry.register(self)

    def observe(self, observed: Observed) -> None:
        """Count a request."""
        method = observed.method if observed.method in _METHODS else "other"
        labels = (observed.route or "none", method, str(observed.status))
        self._requests.labels(*labels).observe(observed.seconds)
        for stage, seconds in observed.stages.items():
            self._stages.labels(stage).observe(seconds)
        if observed.stages:
            self._stages.labels("total").observe(observed.seconds)

    def answer(self) -> Response:
        """Return counts and times since the start, for Prometheus."""
        return Response(generate_latest(self._registry), media_type=CONTENT_TYPE_LATEST)

    def collect(self) -> Iterator[Metric]:
        """Read the counts of the shared encoder; the registry calls it."""
        if (encoder := self._encoder) is None:
            return
        yield GaugeMetricFamily(
            f"{_PREFIX}_queued_encodings", "Queries that wait for the model", encoder.waiting
        )
        queries = CounterMetricFamily(
            f"{_PREFIX}_encoded_queries",
            "Texts and pictures searched with: encoded, or texts whose vector was kept",
            labels=["outcome"],
        )
        queries.add_metric(["encoded"], encoder.encoded)
        queries.add_metric(["kept"], encoder.hits)
        yield queries
        yield CounterMetricFamily(
            f"{_PREFIX}_model_calls", "Calls of the model, each for a batch", encoder.calls
        )
