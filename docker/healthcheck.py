#!/usr/bin/env python3
"""Ends with 0 if what runs in this container does its work.

    healthcheck PORT...

Asks the first of these ports of 127.0.0.1 on which something listens for /healthz.  `watch` says
there whether its work goes on and Elasticsearch has not been away for ten seconds, `serve` that it
answers.
"""

import http.client
import sys

_SECONDS = 4.0


def main(ports: list[str]) -> None:
    for port in ports:
        connection = http.client.HTTPConnection("127.0.0.1", int(port), timeout=_SECONDS)
        try:
            connection.request("GET", "/healthz")
            answer = connection.getresponse()
            answer_text = answer.read(1000).decode("utf-8", "replace")
        except ConnectionRefusedError:
            continue
        except (OSError, http.client.HTTPException) as error:
            sys.exit(f"Port {port} does not answer: {error}")
        print(answer_text)
        sys.exit(answer.status != 200)
    sys.exit(f"Nothing listens on {' or '.join(ports)}.")


if __name__ == "__main__":
    main(sys.argv[1:])
