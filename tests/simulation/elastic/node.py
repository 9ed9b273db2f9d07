"""Transport of the Elasticsearch client to a simulated server, without a socket."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

import elastic_transport
from elastic_transport import ApiResponseMeta, HttpHeaders, TransportApiResponse
from elastic_transport.client_utils import DEFAULT, DefaultType

from tests.simulation.elastic.faults import NoAnswer, NoConnection

if TYPE_CHECKING:
    from tests.simulation.server import SimulatedElasticsearch


def node_class(server: SimulatedElasticsearch) -> type[elastic_transport.BaseNode]:
    """Make the class of the nodes of a client that sends its requests to this server.

    Use it as `new_client("http://simulated:9200", node_class=node_class(server))`.
    """
    return type("SimulatedNodeOfServer", (SimulatedNode,), {"server": server})


class SimulatedNode(elastic_transport.BaseNode):
    """Calls the server where other nodes send bytes."""

    server: SimulatedElasticsearch

    def perform_request(
        self,
        method: str,
        target: str,
        body: bytes | None = None,
        headers: HttpHeaders | None = None,
        request_timeout: DefaultType | float | None = DEFAULT,
    ) -> Any:
        """Send one request.  Raises the errors of elastic_transport."""
        path, _, query = target.partition("?")
        params = dict(parse_qsl(query, keep_blank_values=True))
        try:
            status, answered, content = self.server.handle(
                method, path, params, dict(headers or {}), body
            )
        except NoConnection as error:
            raise elastic_transport.ConnectionError(str(error), errors=(error,)) from error
        except NoAnswer as error:
            raise elastic_transport.ConnectionTimeout(str(error), errors=(error,)) from error
        meta = ApiResponseMeta(
            node=self.config,
            duration=0.0,
            http_version="1.1",
            status=status,
            headers=HttpHeaders(answered),
        )
        return TransportApiResponse(meta, content)

    def close(self) -> None:
        """Nothing is held open."""
