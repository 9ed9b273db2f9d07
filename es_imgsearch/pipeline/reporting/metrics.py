"""Serve Prometheus metrics and /healthz of a running daemon (`--metrics-port`)."""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from socketserver import ThreadingMixIn
from typing import Any, Protocol
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import orjson
from prometheus_client import CollectorRegistry, make_wsgi_app
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from es_imgsearch.elastic.retry import Outage
from es_imgsearch.embed.context import IndexContext
from es_imgsearch.errors import ImgSearchError, SettingsError
from es_imgsearch.pipeline.jobs import Counts
from es_imgsearch.records import Root
from es_imgsearch.write.deletion_pauses import Pause

logger = logging.getLogger(__name__)

_PREFIX = "es_imgsearch"
# A merge or a collection of garbage keeps a small server from answering for some seconds.
_UNHEALTHY_SECONDS = 10.0
# How often Elasticsearch is asked.  Nothing else may ask it for `poll_seconds`, and a request of a
# picture waits for an answer for `request_timeout_seconds`, twice.
_PROBE_SECONDS = 2.0

StartResponse = Callable[[str, list[tuple[str, str]]], Any]


class InFlightFiles(Protocol):
    """What is shown of a pipeline."""

    @property
    def in_flight(self) -> int: ...
    @property
    def fatal(self) -> BaseException | None: ...


class Watched(Protocol):
    """What is shown of a daemon (an `Indexer`), or of all daemons of a worker.

    `partitions` are empty but for a worker: whether it works on each.
    """

    @property
    def context(self) -> IndexContext: ...
    @property
    def roots(self) -> Sequence[Root]: ...
    @property
    def partitions(self) -> Mapping[str, bool]: ...
    @property
    def counts(self) -> Counts: ...
    @property
    def pipeline(self) -> InFlightFiles: ...
    @property
    def settler(self) -> Sized: ...
    @property
    def outage(self) -> Outage: ...
    @property
    def paused(self) -> Mapping[str, Pause]: ...
    def encoder_plan(self) -> Mapping[str, Any] | None: ...


class _Probe:
    """Ask Elasticsearch regularly; measure for how long it is away."""

    def __init__(self, indexer: Watched) -> None:
        self._indexer = indexer
        self._answered_at = time.monotonic()
        self._is_away = False
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="probe", daemon=True)
        self._thread.start()

    @property
    def away_seconds(self) -> float:
        """Seconds since the last answer, or of the outage that a picture met."""
        silent_seconds = time.monotonic() - self._answered_at
        is_away = self._is_away or silent_seconds > 2 * _PROBE_SECONDS
        return max(self._indexer.outage.seconds, silent_seconds if is_away else 0.0)

    def close(self) -> None:
        """End, without waiting for an answer."""
        self._closing.set()

    def _loop(self) -> None:
        while not self._closing.wait(_PROBE_SECONDS):
            try:
                self._indexer.context.store.check_reachable(within_seconds=_UNHEALTHY_SECONDS)
            except ImgSearchError as error:
                # What is wrong with an answer is found by what needs it.
                self._is_away = error.transient
            else:
                self._is_away = False
            if not self._is_away:
                self._answered_at = time.monotonic()


class _Collector:
    """Export the indexer's own counters on every scrape."""

    def __init__(self, indexer: Watched, probe: _Probe) -> None:
        self._indexer = indexer
        self._probe = probe

    def collect(self) -> Iterator[Metric]:
        counts = self._indexer.counts
        pictures = CounterMetricFamily(
            f"{_PREFIX}_pictures", "Files handled since the start", labels=["outcome"]
        )
        for outcome in ("embedded", "reused", "failed", "deleted", "not_pictures"):
            pictures.add_metric([outcome], getattr(counts, outcome))
        yield pictures
        yield GaugeMetricFamily(
            f"{_PREFIX}_queue_files", "Files in flight", self._indexer.pipeline.in_flight
        )
        yield GaugeMetricFamily(
            f"{_PREFIX}_settling_files", "Files still being written", len(self._indexer.settler)
        )
        yield GaugeMetricFamily(
            f"{_PREFIX}_outage_seconds",
            "How long Elasticsearch has not worked; 0 when it does",
            self._probe.away_seconds,
        )
        paused = GaugeMetricFamily(
            f"{_PREFIX}_deletions_paused", "1 while a root's deletions wait", labels=["root"]
        )
        for root in self._indexer.roots:
            paused.add_metric([root.name], float(root.name in self._indexer.paused))
        yield paused
        held = GaugeMetricFamily(
            f"{_PREFIX}_partition_held",
            "1 while this worker works on a partition",
            labels=["root", "partition"],
        )
        for partition, is_held in self._indexer.partitions.items():
            held.add_metric([self._indexer.roots[0].name, partition], float(is_held))
        if held.samples:
            yield held
        if plan := self._indexer.encoder_plan():
            labels = ("backend", "device", "dtype")
            info = GaugeMetricFamily(
                f"{_PREFIX}_encoder_info", "1, labelled by how the encoder runs", labels=labels
            )
            info.add_metric([plan[label] for label in labels], 1.0)
            yield info


def health(indexer: Watched, outage_seconds: float) -> tuple[bool, Mapping[str, Any]]:
    """Return True if the daemon works, and the body of /healthz."""
    fatal = indexer.pipeline.fatal
    is_healthy = fatal is None and outage_seconds < _UNHEALTHY_SECONDS
    return is_healthy, {
        "status": "ok" if is_healthy else "failing",
        "queue": indexer.pipeline.in_flight,
        "outage_seconds": round(outage_seconds, 1),
        "deletions_paused": sorted(indexer.paused),
    }


class _Server(ThreadingMixIn, WSGIServer):
    """A server with a thread per request: a silent client must not block the others."""

    daemon_threads = True
    block_on_close = False

    def handle_error(self, request: Any, client_address: Any) -> None:
        _ = request
        logger.debug("A request for metrics from %s failed.", client_address)


class _ServerIPv6(_Server):
    address_family = socket.AF_INET6


def _server_for(address: str) -> type[_Server]:
    """Return a server class for the address's family, IPv4 or IPv6."""
    family = socket.getaddrinfo(address, None, type=socket.SOCK_STREAM)[0][0]
    return _ServerIPv6 if family == socket.AF_INET6 else _Server


class _QuietHandler(WSGIRequestHandler):
    timeout = 5.0

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        """Log nothing: a scrape comes every few seconds."""


class MetricsServer:
    """Serve /metrics and /healthz without authentication, from a thread of its own.

    Raises SettingsError if it cannot listen.
    """

    def __init__(self, indexer: Watched, port: int, address: str = "127.0.0.1") -> None:
        self._probe = probe = _Probe(indexer)
        registry = CollectorRegistry()
        registry.register(_Collector(indexer, probe))
        metrics = make_wsgi_app(registry)

        def answer(environment: dict[str, Any], start: StartResponse) -> Iterable[bytes]:
            path = environment["PATH_INFO"]
            if path == "/metrics":
                result: Iterable[bytes] = metrics(environment, start)
                return result
            if path != "/healthz":
                start("404 Not Found", [("Content-Type", "text/plain")])
                return [b"There are /metrics and /healthz.\n"]
            is_healthy, body = health(indexer, probe.away_seconds)
            status = "200 OK" if is_healthy else "503 Service Unavailable"
            start(status, [("Content-Type", "application/json")])
            return [orjson.dumps(body)]

        try:
            self._server: WSGIServer = make_server(
                address,
                port,
                answer,
                server_class=_server_for(address),
                handler_class=_QuietHandler,
            )
        except (OSError, UnicodeError) as error:
            probe.close()
            # UnicodeError: the IDNA codec refuses the name.
            why = getattr(error, "strerror", None) or error
            raise SettingsError(
                f"Metrics cannot be served on {address}, port {port} ({why}): choose"
                " another --metrics-port or --metrics-address."
            ) from error
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        return self._server.server_port

    def close(self) -> None:
        self._probe.close()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
