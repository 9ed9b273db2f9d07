"""A node of the Elasticsearch client that costs less: plain HTTP by http.client.

The client's own node sends through urllib3, which takes 0.3 ms of CPU a request more than
http.client does, a tenth of a search (`benchmarks/client_overhead.py`).  TLS and compression, where
it matters less, stay with urllib3.
"""

from __future__ import annotations

import http.client
import re
import select
import time
from collections import deque
from typing import Any
from urllib.parse import quote

import elastic_transport
from elastic_transport import ApiResponseMeta, HttpHeaders, NodeConfig, TransportApiResponse
from elastic_transport.client_utils import DEFAULT, DefaultType

# What a request line cannot hold; urllib3 quotes it, so we do.
_UNSAFE = re.compile(r"[^\x21-\x7e]")
_QUOTED_ALREADY = "%/:=&?~#+!$,;'@()*[]"


class HttpNode(elastic_transport.Urllib3HttpNode):
    """Keeps connections alive, as many as there are threads; safe to share between them."""

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
        """One request; raises elastic_transport's errors.

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
            # Interrupted: what is still to come would be taken for the next answer.
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
        """Close what is idle; a request under way ends first."""
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
    """Whether the other side hung up (or sent what nobody asked for)."""
    poll = select.poll()
    poll.register(sock, select.POLLIN | select.POLLHUP | select.POLLERR)
    return bool(poll.poll(0))


def _joined(answer: http.client.HTTPResponse) -> dict[str, str]:
    """Headers, those that come several times (such as warnings) in one."""
    joined: dict[str, str] = {}
    for name, value in answer.getheaders():
        joined[name] = f"{joined[name]}, {value}" if name in joined else value
    return joined
