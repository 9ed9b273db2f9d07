"""An FTP server of a folder, in a thread; `requests` are the files that were fetched."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

USER, PASSWORD = "reader", "s3cr3t-of-ftp"


class FtpServer:
    def __init__(self, url: str) -> None:
        self.url = url
        self.fetched: list[str] = []


@contextmanager
def ftp_server(folder: Path, port: int = 0) -> Iterator[FtpServer]:
    """Serve a folder to anybody, and to a user with a password."""
    with warnings.catch_warnings():
        # Python 3.11 warns of asyncore; for later ones there is a package of that name.
        warnings.simplefilter("ignore", DeprecationWarning)
        from pyftpdlib.authorizers import DummyAuthorizer
        from pyftpdlib.handlers import FTPHandler
        from pyftpdlib.ioloop import IOLoop
        from pyftpdlib.servers import FTPServer

    authorizer = DummyAuthorizer()
    authorizer.add_anonymous(str(folder))
    authorizer.add_user(USER, PASSWORD, str(folder))

    class Handler(FTPHandler):
        def on_file_sent(self, file: str) -> None:
            served.fetched.append(file)

    Handler.authorizer = authorizer
    loop = IOLoop()
    server = FTPServer(("127.0.0.1", port), Handler, ioloop=loop)
    served = FtpServer(f"ftp://127.0.0.1:{server.address[1]}")
    ending = threading.Event()

    def run() -> None:
        while not ending.is_set():
            server.serve_forever(timeout=0.05, blocking=False)

    thread = threading.Thread(target=run, name="ftp", daemon=True)
    thread.start()
    try:
        yield served
    finally:
        ending.set()
        thread.join()
        server.close_all()
