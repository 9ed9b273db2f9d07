"""A network of its own without a way out, in which a resolver and a device note what is tried.

    with NoWayOut(folder, elasticsearch_url) as network:
        network.run("es-imgsearch", "search", "a cat")
        network.asked, network.sent       # names looked up, addresses that packets were sent to

Elasticsearch is http://elasticsearch.example:9200 there, the only name that is known.  Run as a
program, this module is what stays in the namespaces.  It needs root, `unshare`, `ip` and
/dev/net/tun.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

NAME = "elasticsearch.example"
URL = f"http://{NAME}:9200"
_SETUP_SECONDS = 20.0
_TUNSETIFF, _IFF_TUN_WITHOUT_HEADER = 0x400454CA, 0x1001


class NoWayOut:
    """Two namespaces, of networks and of mounts, held by a process until the end."""

    def __init__(self, folder: Path, elasticsearch_url: str) -> None:
        folder.mkdir()
        self._folder = folder
        address = urlsplit(elasticsearch_url)
        self._bridge = socket.socket(socket.AF_UNIX)
        self._bridge.bind(str(folder / "bridge"))
        self._bridge.listen()
        _forward(
            self._bridge,
            lambda: socket.create_connection((address.hostname or "", address.port or 9200)),
        )
        self._holder = subprocess.Popen(
            ["unshare", "--net", "--mount", sys.executable, __file__, str(folder)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def __enter__(self) -> Self:
        assert self._holder.stdout is not None
        if self._holder.stdout.readline() != "ready\n":
            assert self._holder.stderr is not None
            self._holder.kill()
            raise PermissionError(self._holder.stderr.read().strip()[-300:])
        return self

    def __exit__(self, *_: object) -> None:
        assert self._holder.stdin is not None
        self._holder.stdin.close()
        self._holder.wait(_SETUP_SECONDS)
        self._bridge.close()

    def command(self, *command: str) -> list[str]:
        """The command that runs another one there."""
        return ["nsenter", f"--target={self._holder.pid}", "--net", "--mount", "--", *command]

    def run(self, *command: str, environment: Mapping[str, str], cwd: Path) -> str:
        """Run a command that has to end with 0, and return its standard output."""
        done = subprocess.run(
            self.command(*command), env=environment, cwd=cwd, capture_output=True, text=True,
            timeout=100,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    @property
    def asked(self) -> set[str]:
        return set((self._folder / "asked").read_text("utf-8").splitlines())

    @property
    def sent(self) -> set[str]:
        return set((self._folder / "sent").read_text("utf-8").splitlines())


def _forward(listening: socket.socket, connect: Callable[[], socket.socket]) -> None:
    """Pass on what comes over the connections to one socket, in threads."""

    def copy(source: socket.socket, target: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)
        except OSError:
            source.close()
            target.close()

    def accept() -> None:
        while True:
            try:
                near = listening.accept()[0]
                far = connect()
            except OSError:
                return
            for pair in ((near, far), (far, near)):
                threading.Thread(target=copy, args=pair, daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()


def _resolve(server: socket.socket, note: Callable[[str], Any]) -> None:
    """Answer A of NAME with 127.0.0.1, and say of every other name that there is none."""
    while True:
        request, client = server.recvfrom(4096)
        labels, at = [], 12
        while size := request[at]:
            labels.append(request[at + 1 : at + 1 + size].decode("ascii", "replace"))
            at += 1 + size
        name = ".".join(labels).lower()
        note(name)
        question = request[12 : at + 5]
        is_known = name == NAME
        is_address = is_known and question[-4:-2] == b"\0\1"
        header = struct.pack(
            "!2sHHHHH", request[:2], 0x8180 | (0 if is_known else 3), 1, int(is_address), 0, 0
        )
        answer = b"\xc0\x0c\0\1\0\1\0\0\0\x3c\0\4\x7f\0\0\1" if is_address else b""
        server.sendto(header + question + answer, client)


def _watch_packets(device: int, note: Callable[[str], Any]) -> None:
    while True:
        packet = os.read(device, 65536)
        version = packet[0] >> 4
        if version == 4:
            note(socket.inet_ntop(socket.AF_INET, packet[16:20]))
        else:
            note(socket.inet_ntop(socket.AF_INET6, packet[24:40]))


def _noting(file: Path) -> Callable[[str], Any]:
    stream = file.open("a", encoding="utf-8")
    return lambda line: print(line, file=stream, flush=True)


def _hold(folder: Path) -> None:
    def ip(arguments: str) -> None:
        subprocess.run(["ip", *arguments.split()], check=True)

    (folder / "resolv.conf").write_text("nameserver 127.0.0.1\n", encoding="utf-8")
    subprocess.run(
        ["mount", "--bind", folder / "resolv.conf", os.path.realpath("/etc/resolv.conf")],
        check=True,
    )
    ip("link set lo up")
    device = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(device, _TUNSETIFF, struct.pack("16sH22x", b"out", _IFF_TUN_WITHOUT_HEADER))
    # Neighbours are looked for in IPv6 by the kernel itself.
    Path("/proc/sys/net/ipv6/conf/out/disable_ipv6").write_text("1")
    ip("addr add 10.99.0.1/24 dev out")
    ip("link set out up")
    ip("route add default via 10.99.0.2")
    threading.Thread(
        target=_watch_packets, args=(device, _noting(folder / "sent")), daemon=True
    ).start()
    resolver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    resolver.bind(("127.0.0.1", 53))
    threading.Thread(
        target=_resolve, args=(resolver, _noting(folder / "asked")), daemon=True
    ).start()

    def bridge() -> socket.socket:
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(str(folder / "bridge"))
        return connection

    _forward(socket.create_server(("127.0.0.1", 9200)), bridge)
    print("ready", flush=True)
    sys.stdin.read()


def missing() -> str | None:
    """Why there can be no such network here; None if there can."""
    if os.geteuid() != 0:
        return "only root makes a network of its own"
    for tool in ("unshare", "nsenter", "ip", "mount"):
        if shutil.which(tool) is None:
            return f"there is no {tool}"
    return None if Path("/dev/net/tun").exists() else "there is no /dev/net/tun"


if __name__ == "__main__":
    _hold(Path(sys.argv[1]))
