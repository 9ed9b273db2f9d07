"""Start Ray on this machine, or join a cluster by its address."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import logging
import os
import secrets
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from es_imgsearch.errors import LibraryMissing, SettingsError
from es_imgsearch.settings import available_cores

logger = logging.getLogger(__name__)

_CONNECT_SECONDS = 5.0
_END_SECONDS = 10.0

# Only messages pass through Ray: 80 MiB is the least that it takes.
_STORE_BYTES: Final = 80 * 2**20

# No message of Ray's own about accelerators that are not there.
_QUIET: Final = {"RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0", "RAY_SCHEDULER_EVENTS": "0"}


def check_ray(address: str | None) -> None:
    """Check at once that Ray is installed and that somebody answers at the address.

    Raises LibraryMissing or SettingsError.
    """
    if not _is_installed():
        raise LibraryMissing("--engine ray needs Ray: pip install 'es-imgsearch[ray]'.")
    if address is None:
        return
    host, port = _host_and_port(address)
    try:
        with socket.create_connection((host, port), _CONNECT_SECONDS) as connection:
            answer = _answer(connection)
    except (OSError, UnicodeError) as error:
        answer = _words_of(error)
    if answer is not None:
        raise SettingsError(
            f"No Ray answers at the address {address!r} ({answer}): give that of the"
            " cluster's head node, as Ray prints it when that is started."
        )


def _answer(connection: socket.socket) -> str | None:
    """Return what is wrong with who answers; None for one that may be Ray.

    `ray.init` would wait for minutes.  Ray speaks gRPC, which begins with an exchange of SETTINGS
    frames (type 4; RFC 9113, 3.4); over TLS it is not asked.
    """
    if os.environ.get("RAY_USE_TLS", "0") != "0":
        return None
    settings_frame = b"\0\0\0\4\0\0\0\0\0"
    connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + settings_frame)
    head = connection.recv(len(settings_frame))
    return None if head[3:4] == b"\4" else "something else does"


def _is_installed() -> bool:
    try:
        return importlib.util.find_spec("ray") is not None
    except ValueError:  # blocked by None in sys.modules
        return False


def _host_and_port(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    is_valid = host and port.isascii() and port.isdecimal() and 0 < int(port) < 65536
    # It may have a password.
    shown = "What was given" if "@" in address else repr(address)
    if "/" in address or "@" in address or address != address.strip() or not is_valid:
        raise SettingsError(
            f"{shown} is no address of a Ray cluster: it is HOST:PORT of its head node, such as"
            " 10.0.0.5:6379, as Ray prints it when that is started; for Ray on this machine leave"
            " it out."
        )
    return host, int(port)


def _words_of(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error).rstrip(".")


@contextmanager
def connected(address: str | None) -> Iterator[Any]:
    """Yield the module `ray`, connected; an own Ray is ended afterwards.

    If this process is connected already, as a program that uses the package may be, it stays so.
    Raises SettingsError.
    """
    with _environment(is_local=address is None):
        import ray

        if ray.is_initialized():
            yield ray
            return
        with contextlib.redirect_stdout(_Discarding()):
            try:
                _init(ray, address)
                yield ray
            finally:
                # A cluster that is gone may never answer.
                ending = threading.Thread(target=ray.shutdown, name="ray shutdown", daemon=True)
                ending.start()
                ending.join(_END_SECONDS)


def _init(ray: Any, address: str | None) -> None:
    given: dict[str, Any] = {}
    if address is None:
        given = {
            "num_cpus": available_cores(),
            "object_store_memory": _STORE_BYTES,
            "include_dashboard": False,
        }
    handlers = {each: signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)}
    try:
        ray.init(
            address=address or "local",
            configure_logging=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            **given,
        )
    except Exception as error:
        raise SettingsError(
            f"Ray cannot be {'started' if address is None else f'reached at {address!r}'}"
            f" ({_first_line(error)})."
        ) from error
    finally:
        # Ray replaces that of SIGTERM by one that ends without closing anything.
        if threading.current_thread() is threading.main_thread():
            for each, handler in handlers.items():
                signal.signal(each, handler)


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0].rstrip(".")


@contextmanager
def _environment(*, is_local: bool) -> Iterator[None]:
    """Set what Ray reads from the environment when it is imported or started.

    A Ray of our own listens on 127.0.0.1 only, and takes orders only with a token that only this
    process and its children know.
    """
    wanted = dict(_QUIET)
    if is_local:
        wanted |= {
            "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # "bind to the loopback address"
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_hex(32),
        }
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


class _Discarding(io.TextIOBase):
    """Take what Ray prints of actors that end; standard output is for results."""

    def write(self, text: str) -> int:
        if text.strip():
            logger.debug("Ray: %s", text.strip())
        return len(text)
