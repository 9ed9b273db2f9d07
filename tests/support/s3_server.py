"""An S3 server of moto in a process of its own, with a bucket for each test."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

from PIL import Image
from port_for import get_port

from es_imgsearch.records import path_of
from tests.support.house import House, pixels, until

KEY = "AKIATESTONLY"
SECRET = "s3cr3t-of-the-test-server"
START_SECONDS = 60.0


def png(seed: int) -> bytes:
    """A small picture, another one for each seed."""
    stream = io.BytesIO()
    Image.fromarray(pixels(seed)).save(stream, format="png")
    return stream.getvalue()


class S3Server:
    """The server's address and environment; `bucket` makes one."""

    def __init__(self, port: int, log: Path) -> None:
        # 0.4 s, for the tests that need it.
        import boto3
        from botocore.config import Config

        self.url = f"http://127.0.0.1:{port}"
        self._log = log
        self.environment: Mapping[str, str] = {
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": self.url,
            "AWS_MAX_ATTEMPTS": "1",
        }
        self.client: Any = boto3.client(
            "s3",
            endpoint_url=self.url,
            aws_access_key_id=KEY,
            aws_secret_access_key=SECRET,
            region_name="us-east-1",
            config=Config(retries={"max_attempts": 2}),
        )

    def bucket(self) -> Bucket:
        bucket = Bucket(self, f"pictures-{uuid.uuid4().hex[:8]}")
        self.client.create_bucket(Bucket=bucket.name)
        return bucket

    def requests(self, what: str) -> list[str]:
        """The lines of the log of all requests with a text in them, such as `GET /bucket/key`."""
        return [line for line in self._log.read_text("utf-8").splitlines() if what in line]

    @contextmanager
    def refusing(self) -> Iterator[None]:
        """Take no credentials meanwhile."""
        self._let_pass(0)
        try:
            yield
        finally:
            self._let_pass(1_000_000_000)

    def is_up(self) -> bool:
        try:
            with urlopen(f"{self.url}/moto-api/", timeout=1) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def _let_pass(self, number: int) -> None:
        """Have the server check the credentials after so many requests."""
        address, body = f"{self.url}/moto-api/reset-auth", str(number).encode()
        urlopen(Request(address, body, {"content-type": "text/plain"}), timeout=10).close()


class Bucket:
    """A bucket that tests put pictures into and take them from."""

    def __init__(self, server: S3Server, name: str) -> None:
        self.server = server
        self.name = name
        self.client = server.client

    def put(self, key: str, content: bytes) -> None:
        self.client.put_object(Bucket=self.name, Key=key, Body=content)

    def put_files(self, files: Mapping[str, Path]) -> None:
        for key, path in files.items():
            self.put(key, path.read_bytes())

    def get(self, key: str) -> bytes:
        content: bytes = self.client.get_object(Bucket=self.name, Key=key)["Body"].read()
        return content

    def all_keys(self) -> list[str]:
        listed = self.client.list_objects_v2(Bucket=self.name)
        return [each["Key"] for each in listed.get("Contents", [])]

    def delete(self, *keys: str) -> None:
        for key in keys:
            self.client.delete_object(Bucket=self.name, Key=key)

    def read(self) -> list[str]:
        """The requests for what is in its objects, not for a listing."""
        return self.server.requests(f"GET /{self.name}/")

    def remove(self) -> None:
        """Remove the bucket with all that is in it."""
        self.delete(*self.all_keys())
        self.client.delete_bucket(Bucket=self.name)

    def url(self, key: str = "") -> str:
        return f"s3://{self.name}/{key}" if key else f"s3://{self.name}"


def house_of(bucket: Bucket, house: House, prefix: str = "r") -> House:
    """Give a house a prefix of the bucket in place of its folder."""
    house.folder = path_of(bucket.url(prefix))
    house.folders = [house.folder]
    return house


@contextmanager
def s3_server(folder: Path) -> Iterator[S3Server]:
    """Run a server on a free port of this machine; its requests are in `s3.log` of the folder."""
    port = get_port(None)
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with (folder / "s3.log").open("wb") as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=log, env={**os.environ, "PYTHONUNBUFFERED": "1"}
        )
    try:
        server = S3Server(port, folder / "s3.log")
        until(server.is_up, START_SECONDS)
        yield server
    finally:
        process.terminate()
        process.wait(30)
