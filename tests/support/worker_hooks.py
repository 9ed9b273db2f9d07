"""A describer for tests of the reading workers: it does what the name of the file says.

Registered through an entry point in a folder on `sys.path`, as anybody's plug-in is.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
from collections.abc import Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, ClassVar

from PIL import Image


class Hook:
    name = "hook"
    mapping: ClassVar[Mapping[str, Mapping[str, Any]]] = {"attributes": {"type": "flattened"}}

    def describe(self, image: Image.Image, exif: Image.Exif, path: str) -> Mapping[str, Any]:
        if _is_first_time(path):
            _fail_once(path)
        _misbehave(path)
        match Path(path).stem:
            case "ended":
                os.kill(os.getpid(), signal.SIGTERM)
            case "hang":
                threading.Event().wait()
            case "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            case "segfault":
                ctypes.string_at(0)
            case "exits":
                os._exit(7)
            case "unmapped":
                return {"nobody_mapped_this": 1}
            case "gate":
                # Waits until the test has written to the pipe beside the picture.
                with open(f"{path}.gate", "rb") as gate:
                    gate.read(1)
        torch_like = {"torch", "transformers", "elasticsearch"} & sys.modules.keys()
        return {"attributes": {"pid": str(os.getpid()), "loaded": " ".join(sorted(torch_like))}}


def _misbehave(path: str) -> None:
    match Path(path).stem:
        case "unwritable":
            raise _UnwritableError
        case "leaves":
            sys.exit(3)
        case "speak":
            print("a describer speaks", file=sys.stderr)


class _UnwritableError(Exception):
    """An error without a text: asking for it raises one that JSON cannot hold."""

    def __str__(self) -> str:
        raise ValueError("caf\udce9")


def _is_first_time(path: str) -> bool:
    """Note beside a picture `...-once` that it was tried."""
    if not Path(path).stem.endswith("-once"):
        return False
    try:
        Path(f"{path}.tried").touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def _fail_once(path: str) -> None:
    match Path(path).stem:
        case "half-once":
            Connection._send = _send_half  # type: ignore[attr-defined]
        case "hang-once":
            threading.Event().wait()
        case "killed-once":
            os.kill(os.getpid(), signal.SIGKILL)


def _send_half(connection: Connection, content: bytes, write: object = None) -> None:
    """Die while the result is being sent, as by the system's killer of processes."""
    os.write(connection.fileno(), content[: len(content) // 2])
    os.kill(os.getpid(), signal.SIGKILL)


class Broken:
    def __init__(self) -> None:
        raise OSError("no such model")
