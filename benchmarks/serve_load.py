"""Measure the service under load: its API beside the bare kNN request, its page beside its API.

    python benchmarks/serve_load.py [--pictures N] [--rounds N] [--requests N] [--json FILE]

Keep-alive clients are threads with http.client, which read the answer and do not parse it; the
service is a process of its own.  Bare is the very search body that the service sends for the same
words in mode vector, sent straight to Elasticsearch.  Each round runs every way once, in turn; a
ratio is the median over the rounds, each with its own bare requests.  "One model call a request" is
a second service whose client does not share the model.  Texts are cached, or new with each request.
Needs an Elasticsearch (`make es-up`, or ES_URL); the index it makes is removed.

Aims: with cached text p95 at 16 clients at most 3 times the bare one; with new texts at least 3
times the searches/s of one model call a request; the page's first byte at most 1.5 times that of
the API's answer to the same search.
"""

from __future__ import annotations

import http.client
import itertools
import statistics
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple
from urllib.parse import urlencode, urlsplit

import numpy as np
from client_overhead import fill_documents, unit_vectors
from report import arguments, report

from es_imgsearch import ImageSearch
from es_imgsearch.elastic.client import connect
from es_imgsearch.elastic.requests import Request
from es_imgsearch.elastic.store import Store
from es_imgsearch.manage.init import create_index
from es_imgsearch.settings import Settings, load_settings
from es_imgsearch.testing import remove_index

K = 60
WORDS = ("a cat on a sofa", "boats in a harbour", "people at a table", "a mountain in winter")
# Texts that no request before had.
_numbers = itertools.count()
# Path and query, or method, path, headers and body.
Send = Callable[[http.client.HTTPConnection], None]


class Load(NamedTuple):
    """Times of requests of several clients, ms, and how long all took together."""

    times_ms: list[float]
    seconds: float
    errors: int

    @property
    def p95_ms(self) -> float:
        return float(np.percentile(self.times_ms, 95))

    @property
    def p50_ms(self) -> float:
        return statistics.median(self.times_ms)

    @property
    def per_second(self) -> float:
        return len(self.times_ms) / self.seconds


def ask(path: Callable[[], str]) -> Send:
    """GET a path."""

    def send(connection: http.client.HTTPConnection) -> None:
        connection.request("GET", path())

    return send


def load(url: str, send: Send, clients: int, requests: int, *, first_byte: bool = False) -> Load:
    """Send this many requests by all clients together; time the whole answer or its first byte."""
    address = urlsplit(url)
    times: list[list[float]] = [[] for _ in range(clients)]
    errors = [0] * clients
    start = threading.Barrier(clients + 1)

    def client(number: int) -> None:
        connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=900)
        connection.connect()
        start.wait()
        for _ in range(requests // clients):
            began = time.perf_counter()
            send(connection)
            answer = connection.getresponse()
            first = time.perf_counter()
            answer.read()
            ended = first if first_byte else time.perf_counter()
            times[number].append(1000 * (ended - began))
            errors[number] += answer.status != 200
        connection.close()

    threads = [threading.Thread(target=client, args=(n,)) for n in range(clients)]
    for each in threads:
        each.start()
    start.wait()
    began = time.perf_counter()
    for each in threads:
        each.join()
    return Load(list(itertools.chain(*times)), time.perf_counter() - began, sum(errors))


class _Recording(ImageSearch):
    """Keeps the last search that it sent."""

    def _send(self, request: Request) -> Any:
        self.last = request
        return super()._send(request)


def bare_request(settings: Settings) -> Send:
    """Send the body of a search as the service sends it in mode vector."""
    with _Recording(settings=settings) as search:
        search.search(WORDS[0], k=K, mode="vector")
        last = search.last

    def send(connection: http.client.HTTPConnection) -> None:
        connection.request(last.method, last.path, last.body, dict(last.headers))

    return send


def serve(index: str, *, shares_model: bool) -> None:
    """Serve as the command does; print the port."""
    import uvicorn

    from es_imgsearch.cli.serving.serve import _listening
    from es_imgsearch.serve.app import create_app
    from es_imgsearch.serve.service import SearchService
    from es_imgsearch.serve.thumbnails import PictureFiles

    settings = load_settings({"index": index, "read_workers": 1})
    pictures = PictureFiles(Store(connect(settings), index), settings)
    client = None if shares_model else ImageSearch(settings=settings)
    app = create_app(pictures, SearchService(settings, client), rate_limit="none")
    with _listening("127.0.0.1", 0) as listening:
        print(listening.getsockname()[1], flush=True)
        config = uvicorn.Config(app, log_level="warning", server_header=False, proxy_headers=False)
        uvicorn.Server(config).run(sockets=[listening])


@contextmanager
def served(index: str, *, shares_model: bool) -> Iterator[str]:
    """Run a service in a process of its own; the model is loaded."""
    command = [sys.executable, __file__, "--serve", index, *([] if shares_model else ["--alone"])]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        url = f"http://127.0.0.1:{int(process.stdout.readline())}"
        while load(url, ask(lambda: "/readyz"), 1, 1).errors:
            time.sleep(0.2)
        yield url
    finally:
        process.terminate()
        process.wait()


def search_path(text: str, **options: str) -> str:
    return f"/api/v1/search?{urlencode({'q': text, 'k': K, **options})}"


def new_text() -> str:
    return f"{WORDS[next(_numbers) % 4]} number {next(_numbers)}"


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--pictures", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--requests", type=int, default=640, help="of each way in each round")
    parser.add_argument("--serve", metavar="INDEX", help="(used by itself)")
    parser.add_argument("--alone", action="store_true", help="(used by itself)")
    given = parser.parse_args()
    if given.serve:
        serve(given.serve, shares_model=not given.alone)
        return
    settings = load_settings({"index": f"bench-{uuid.uuid4().hex[:8]}", "encoder": "starter"})
    store = Store(connect(settings), settings.index)
    try:
        create_index(store, settings)
        dims = store.info().meta.seal.dims
        fill_documents(store, unit_vectors(given.pictures, dims, seed=1))
        with ExitStack() as services:
            shared = services.enter_context(served(settings.index, shares_model=True))
            alone = services.enter_context(served(settings.index, shares_model=False))
            rows = measure(settings, shared, alone, given.rounds, given.requests)
    finally:
        remove_index(store)
    title = f"{given.pictures} pictures, {dims} dims, k = {K}, {given.rounds} rounds"
    report(f"{title} of {given.requests} requests", rows, given.json)


def measure(
    settings: Settings, shared: str, alone: str, rounds: int, requests: int
) -> list[dict[str, Any]]:
    cached = ask(lambda: search_path(WORDS[0], mode="vector"))
    by_default = ask(lambda: search_path(WORDS[0]))
    new = ask(lambda: search_path(new_text(), mode="vector"))
    # As the page asks: files of the same content count as one.
    folded = ask(lambda: search_path(WORDS[0], collapse="true"))
    folded_vector = ask(lambda: search_path(WORDS[0], mode="vector", collapse="true"))
    page = ask(lambda: "/?" + urlencode({"q": WORDS[0]}))
    page_vector = ask(lambda: "/?" + urlencode({"q": WORDS[0], "mode": "vector"}))
    ways: dict[str, Callable[[], Load]] = {
        "bare kNN, 16 clients": lambda: load(settings.es_url, bare, 16, requests),
        "API, cached text": lambda: load(shared, cached, 16, requests),
        "API, cached text, mode auto": lambda: load(shared, by_default, 16, requests // 4),
        "API, new texts": lambda: load(shared, new, 16, requests // 2),
        "API, new texts, a model call each": lambda: load(alone, new, 16, requests // 2),
        "API, 50 clients": lambda: load(shared, cached, 50, requests),
        "API, first byte, mode vector": lambda: load(shared, folded_vector, 1, 50, first_byte=True),
        "page, first byte, mode vector": lambda: load(shared, page_vector, 1, 50, first_byte=True),
        "API, first byte, mode auto": lambda: load(shared, folded, 1, 50, first_byte=True),
        "page, first byte, mode auto": lambda: load(shared, page, 1, 50, first_byte=True),
    }
    bare = bare_request(settings)
    for way in ways.values():
        way()
    loads: dict[str, list[Load]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            loads[name].append(way())
    p95s = {name: [each.p95_ms for each in of_way] for name, of_way in loads.items()}
    rates = {name: [each.per_second for each in of_way] for name, of_way in loads.items()}
    p50s = {name: [each.p50_ms for each in of_way] for name, of_way in loads.items()}
    compared = {
        "API, cached text": _ratio(p95s, "API, cached text", "bare kNN, 16 clients"),
        "API, cached text, mode auto": _ratio(
            p95s, "API, cached text, mode auto", "bare kNN, 16 clients"
        ),
        "API, new texts": _ratio(rates, "API, new texts", "API, new texts, a model call each"),
        **{
            f"page, first byte, mode {mode}": _ratio(
                p50s, f"page, first byte, mode {mode}", f"API, first byte, mode {mode}"
            )
            for mode in ("vector", "auto")
        },
    }
    return [
        {
            "way": name,
            "p50 ms": statistics.median(p50s[name]),
            "p95 ms": statistics.median(p95s[name]),
            "per second": statistics.median(rates[name]),
            "errors": sum(each.errors for each in of_way),
            "ratio": compared.get(name, ""),
        }
        for name, of_way in loads.items()
    ]


def _ratio(of: dict[str, list[float]], way: str, other: str) -> float:
    """Median over the rounds."""
    return statistics.median(a / b for a, b in zip(of[way], of[other], strict=True))


if __name__ == "__main__":
    main()
