"""A server that answers as Kibana's status and import do, over real HTTP.

It reads the multipart body as a server has to, keeps what was imported, and finds conflicts and
missing references by the rules of Kibana's importer.
"""

from __future__ import annotations

import json
import ssl
import threading
from base64 import b64encode
from email.parser import BytesParser
from email.policy import HTTP
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

CHECKED = {"index-pattern", "search"}


class FakeKibana:
    """`scripted` answers (code, body) the next imports get instead of the real ones."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.objects: dict[tuple[str, str, str], dict[str, Any]] = {}
        self.levels = ["available"]
        self.version: str | None = "8.19.4"
        self.credentials: set[str] | None = None
        self.scripted: list[tuple[int, Any]] = []
        self.requests: list[str] = []
        kibana = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: Any) -> None:
                pass

            def do_GET(self) -> None:
                kibana.requests.append(self.path)
                level = kibana.levels.pop(0) if len(kibana.levels) > 1 else kibana.levels[0]
                body: dict[str, Any] = {"status": {"overall": {"level": level}}}
                if kibana.version is not None:
                    body["version"] = {"number": kibana.version}
                self.answer(200 if level == "available" else 503, body)

            def do_POST(self) -> None:
                kibana.requests.append(self.path)
                content = self.rfile.read(int(self.headers["content-length"]))
                self.answer(*kibana.imported(self.path, self.headers, content))

            def answer(self, code: int, body: Any) -> None:
                content = body.encode() if isinstance(body, str) else json.dumps(body).encode()
                self.send_response(code)
                self.send_header("content-length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        scheme = "http" if tls is None else "https"
        self.url = f"{scheme}://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def allow(self, user: str, password: str) -> None:
        given = b64encode(f"{user}:{password}".encode()).decode()
        self.credentials = {f"Basic {given}"}

    def imported(self, path: str, headers: Any, content: bytes) -> tuple[int, Any]:
        if self.credentials is not None and headers.get("authorization") not in self.credentials:
            return 401, {"statusCode": 401, "error": "Unauthorized", "message": "Unauthorized"}
        if "kbn-xsrf" not in headers:
            return 400, {"statusCode": 400, "message": "Request must contain a kbn-xsrf header."}
        if self.scripted:
            return self.scripted.pop(0)
        parts = urlsplit(path)
        space = "default"
        if parts.path.startswith("/s/"):
            space = parts.path.split("/")[2]
        if not parts.path.endswith("/api/saved_objects/_import"):
            return 404, {"statusCode": 404, "message": "Not Found"}
        head = f"Content-Type: {headers['content-type']}\r\n\r\n".encode()
        (part,) = BytesParser(policy=HTTP).parsebytes(head + content).iter_parts()
        if not part.get_filename("").endswith(".ndjson"):
            return 400, {"statusCode": 400, "message": "Invalid file extension ."}
        lines = [json.loads(line) for line in part.get_payload(decode=True).splitlines() if line]
        objects = [each for each in lines if "exportedCount" not in each]
        overwrite = parse_qs(parts.query).get("overwrite") == ["true"]
        return 200, self._written(space, objects, overwrite)

    def _written(
        self, space: str, objects: list[dict[str, Any]], overwrite: bool
    ) -> dict[str, Any]:
        here = {(each["type"], each["id"]) for each in objects}
        there = {key[1:] for key in self.objects if key[0] == space}
        errors = []
        for each in objects:
            key = (each["type"], each["id"])
            missing = [
                {"type": to["type"], "id": to["id"]}
                for to in each["references"]
                if to["type"] in CHECKED and (to["type"], to["id"]) not in here | there
            ]
            error: dict[str, Any] | None = None
            if missing:
                error = {"type": "missing_references", "references": missing}
            elif key in there and not overwrite:
                error = {"type": "conflict"}
            if error is not None:
                errors.append({"type": key[0], "id": key[1], "meta": {}, "error": error})
        if errors:
            # Nothing is written then, whatever successCount says.
            count = len(objects) - len(errors)
            return {"success": False, "successCount": count, "warnings": [], "errors": errors}
        results = []
        for each in objects:
            key = (each["type"], each["id"])
            result = {"type": key[0], "id": key[1], "meta": {}, "managed": False}
            results.append(result | ({"overwrite": True} if key in there else {}))
            self.objects[(space, *key)] = each
        return {
            "success": True,
            "successCount": len(objects),
            "warnings": [],
            "successResults": results,
        }
