"""Node of the Elasticsearch client for plain HTTP by http.client.

It takes less CPU time.  The client's default node uses urllib3, which takes 0.3 ms more CPU time
per request than http.client, a tenth of a search (`benchmarks/client_overhead.py`).  TLS and
compression, where that matters less, stay with urllib3.
"""

from __future__ import annotations

import http.client
import re
import select
import time
from collections import deque
from contextlib import suppress
from typing import Any
from urllib.parse import quote

import elastic_transport
from elastic_transport import ApiResponseMeta, HttpHeaders, NodeConfig, TransportApiResponse
from elastic_transport.client_utils import DEFAULT, DefaultType

# Characters that a request line cannot contain; quoted as urllib3 does.
_UNSAFE = re.compile(r"[^\x21-\x7e]")
_QUOTED_ALREADY = "%/:=&?~#+!$,;'@()*[]"


class HttpNode(elastic_transport.Urllib3HttpNode):
    """Keeps one connection per thread alive; safe to share between threads."""

    def __init__(self, config: NodeConfig) -> None:
        super().__init__(config)
        self._idle: deque[http.client.HTTPConnection] = deque()
        self._is_plain = config.scheme == "http" and not config.http_compress

    def perform_request(
        self,
        method: str,
        target: str,
        body: bytes | None = None,
        headers: HttpHeaders | None = None,
        request_timeout: DefaultType | float | None = DEFAULT,
    ) -> Any:
        """Send one request.  Raises the errors of elastic_transport.

        The answer has the two members of a `NodeApiResponse`, which is not public.
        """
        if not self._is_plain:
            return super().perform_request(method, target, body, headers, request_timeout)
        if self.path_prefix:
            target = f"{self.path_prefix}{target}"
        if _UNSAFE.search(target):
            target = quote(target, safe=_QUOTED_ALREADY)
        timeout = request_timeout
        if isinstance(timeout, DefaultType):
            timeout = self.config.request_timeout
        sent = {**self._headers, **(headers or {})}
        started = time.time()
        connection = self._connection(timeout)
        try:
            # A server that refuses a large body may answer and close before it has all of it.
            with suppress(BrokenPipeError, ConnectionResetError):
                connection.request(method, target, body or None, sent)
            answer = connection.getresponse()
            content = answer.read()
        except TimeoutError as error:
            connection.close()
            raise elastic_transport.ConnectionTimeout(
                "Connection timed out during request", errors=(error,)
            ) from error
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            words = str(error) or type(error).__name__
            raise elastic_transport.ConnectionError(words, errors=(error,)) from error
        except BaseException:
            # Interrupted: the rest of this answer would be taken for the next one.
            connection.close()
            raise
        if answer.will_close:
            connection.close()
        elif len(self._idle) < self.config.connections_per_node:
            self._idle.append(connection)
        else:
            connection.close()
        meta = ApiResponseMeta(
            node=self.config,
            duration=time.time() - started,
            http_version="1.1",
            status=answer.status,
            headers=HttpHeaders(_joined(answer)),
        )
        return TransportApiResponse(meta, content)

    def close(self) -> None:
        """Close idle connections; a running request ends first."""
        super().close()
        while self._idle:
            self._idle.pop().close()

    def _connection(self, timeout: float | None) -> http.client.HTTPConnection:
        while True:
            try:
                connection = self._idle.pop()
            except IndexError:
                return http.client.HTTPConnection(
                    self.config.host, self.config.port, timeout=timeout
                )
            if connection.sock is not None and not _is_readable(connection.sock):
                connection.sock.settimeout(timeout)
                return connection
            connection.close()


def _is_readable(sock: Any) -> bool:
    """Return True if the peer closed the connection (or sent unrequested data)."""
    poll = select.poll()
    poll.register(sock, select.POLLIN | select.POLLHUP | select.POLLERR)
    return bool(poll.poll(0))


def _joined(answer: http.client.HTTPResponse) -> dict[str, str]:
    """Headers, with repeated ones (such as warnings) joined."""
    joined: dict[str, str] = {}
    for name, value in answer.getheaders():
        joined[name] = f"{joined[name]}, {value}" if name in joined else value
    return joined
