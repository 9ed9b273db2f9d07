"""Detect what answers at an address, for es-up; standard library only.

    probe.py ADDRESS [SECONDS]
    probe.py ES_URL             the variable of that name, with ES_API_KEY and ES_CA_CERTS

Prints one line: state, version (or -) and the address without credentials. The states:

    absent         nothing listens
    elasticsearch  an Elasticsearch (version - if the credentials do not allow to ask for it)
    denied         wants credentials, or other ones
    other          something else, or something that cannot be spoken to this way

With SECONDS it waits that long for an Elasticsearch that is ready (yellow). Nothing is printed,
and the exit code is 1, if none becomes ready or the address is none. Credentials are read from
the environment, never from the command line, and never printed.
"""

import base64
import http.client
import json
import os
import socket
import ssl
import sys
import time
from urllib.parse import SplitResult, unquote, urlsplit


def address(target: str) -> SplitResult | None:
    """Parse an address; None if it is invalid.

    An unescaped "/" or "?" in a password ends the host's part of an address early: such an
    address is refused, not half understood, so that no password is ever shown as a host or path.
    """
    try:
        url = urlsplit(target)
        sound = url.scheme in {"http", "https"} and url.hostname and (url.port or 1)
    except ValueError:
        return None
    return url if sound and "@" not in url.path + url.query + url.fragment else None


def shown(url: SplitResult) -> str:
    """Format an address without user, password and parameters."""
    return f"{url.scheme}://{url.netloc.rpartition('@')[2]}{url.path}".rstrip("/")


def get(url: SplitResult, path: str) -> http.client.HTTPResponse:
    # Not urllib: it would send the request through the proxy of the environment.
    host = url.hostname or ""
    if url.scheme == "https":
        context = ssl.create_default_context(cafile=os.environ.get("ES_CA_CERTS") or None)
        connection: http.client.HTTPConnection = http.client.HTTPSConnection(
            host, url.port, timeout=5, context=context
        )
    else:
        connection = http.client.HTTPConnection(host, url.port, timeout=5)
    headers = {}
    if sys.argv[1] == "ES_URL" and os.environ.get("ES_API_KEY"):
        headers["Authorization"] = "ApiKey " + os.environ["ES_API_KEY"]
    elif url.username:
        pair = f"{unquote(url.username)}:{unquote(url.password or '')}"
        headers["Authorization"] = "Basic " + base64.b64encode(pair.encode()).decode()
    connection.request("GET", url.path.rstrip("/") + path, headers=headers)
    return connection.getresponse()


def probe(url: SplitResult) -> tuple[str, str]:
    port = url.port or (443 if url.scheme == "https" else 80)
    try:
        socket.create_connection((url.hostname, port), timeout=5).close()
    except OSError:
        return "absent", "-"
    try:
        answer = get(url, "/")
        body = answer.read(100_000)
    except (OSError, http.client.HTTPException):
        return "other", "-"  # no HTTP, TLS where none was expected, a certificate not trusted
    if answer.status == http.client.UNAUTHORIZED:
        return "denied", "-"  # Elasticsearch does not say what it is before one is let in
    if answer.getheader("X-elastic-product") != "Elasticsearch":
        return "other", "-"
    try:
        return "elasticsearch", str(json.loads(body)["version"]["number"])
    except (ValueError, KeyError, TypeError):
        return "elasticsearch", "-"


def ready(url: SplitResult) -> bool:
    try:
        return get(url, "/_cluster/health?wait_for_status=yellow&timeout=1s").status == 200
    except (OSError, http.client.HTTPException):
        return False


def main() -> int:
    target = os.environ.get("ES_URL", "") if sys.argv[1] == "ES_URL" else sys.argv[1]
    url = address(target)
    if url is None:
        return 1
    if len(sys.argv) > 2:
        until = time.monotonic() + float(sys.argv[2])
        while not ready(url):
            if time.monotonic() > until:
                return 1
            time.sleep(0.2)
    print(*probe(url), shown(url))
    return 0


if __name__ == "__main__":
    sys.exit(main())
