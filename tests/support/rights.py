"""Commands run with keys of a role, or of a role that lacks a right, on a secured server."""

from __future__ import annotations

import copy
import json
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from click.testing import CliRunner, Result

from es_imgsearch.cli import main
from es_imgsearch.elastic.client import connect
from es_imgsearch.elastic.store import Store
from es_imgsearch.manage.production.roles import role_descriptor
from es_imgsearch.settings import load_settings
from tests.support.house import paint
from tests.support.other_encoders import LOADERS, encoders_by_name
from tests.support.secured import PASSWORD, Secured

Right = tuple[str, str, str]


def rights_of(descriptor: Mapping[str, Any]) -> Iterator[Right]:
    """Each right of a role, as (`cluster`, index names or `kibana`; the names; the privilege)."""
    for privilege in descriptor["cluster"]:
        yield "cluster", "", privilege
    for grant in descriptor["indices"]:
        for name in grant["names"]:
            for privilege in grant["privileges"]:
                yield "index", name, privilege
    for grant in descriptor.get("applications", ()):
        for privilege in grant["privileges"]:
            yield "kibana", "", privilege


def without(descriptor: Mapping[str, Any], *rights: Right) -> dict[str, Any]:
    """The same role with one right less, of one name only."""
    lacking = set(rights)
    left = copy.deepcopy(dict(descriptor))
    left["cluster"] = [each for each in left["cluster"] if ("cluster", "", each) not in lacking]
    left["indices"] = [
        {"names": [name], "privileges": kept}
        for grant in descriptor["indices"]
        for name in grant["names"]
        if (kept := [one for one in grant["privileges"] if ("index", name, one) not in lacking])
    ]
    return left


@contextmanager
def encoders_in_commands() -> Iterator[None]:
    """Let commands of this process find the tests' encoders by their names."""
    encoders = encoders_by_name()
    with pytest.MonkeyPatch.context() as patch:
        for module in LOADERS:
            patch.setattr(f"es_imgsearch.{module}.load_encoder", lambda name, **_: encoders[name])
        yield


class Office:
    """An index of a few pictures on a secured server, and keys for it."""

    def __init__(self, server: Secured, folder: Path) -> None:
        self.server, self.folder = server, folder
        self.index = f"r-{uuid.uuid4().hex[:8]}"
        self.photos = folder / "photos"
        self.photos.mkdir(parents=True)
        for number in range(4):
            paint(self.photos / f"{number}.png", number)
        self._numbers = count(100)
        self.elastic_url = server.url.replace(
            "https://", f"https://elastic:{quote(PASSWORD, safe='')}@"
        )

    def change(self, command: str) -> None:
        """Give a command that writes what has changed something to write."""
        name = command.split()[0]
        if name in {"sync", "find"}:
            gone = self.photos / "gone.png"
            paint(gone, next(self._numbers))
            assert self.run("sync", f"photos={self.photos}").exit_code == 0
            gone.unlink()
            paint(self.photos / "come.png", next(self._numbers))
        elif name == "describe":
            self.done("tags", "train", self.file("labels.csv"))
            self.done("describe", "--only", "tags")
            self.done("tags", "forget")

    def run(self, *arguments: str, key: str | None = None, **environment: str) -> Result:
        """A command with a key, without one as `elastic`; in this process."""
        given = {
            "ES_URL": self.server.url if key else self.elastic_url,
            "ES_API_KEY": key or "",
            "ES_CA_CERTS": str(self.server.ca),
            "ES_IMGSEARCH_INDEX": self.index,
            "ES_IMGSEARCH_READ_WORKERS": "1",
            "ES_IMGSEARCH_SERVICE": "none",
            **environment,
        }
        return CliRunner(env=given).invoke(main, arguments)

    def done(self, *arguments: str, key: str | None = None, **environment: str) -> str:
        """Standard output of a command that has to succeed."""
        ran = self.run(*arguments, key=key, **environment)
        assert ran.exit_code == 0, ran.output
        return ran.stdout

    def key(self, role: str) -> str:
        return self.done("keys", "create", "--role", role, "--expires", "1h").strip()

    def key_without(self, role: str, *rights: Right) -> str:
        return self.server.api_key(role, without(role_descriptor(role, self.index), *rights))

    def store(self, key: str | None = None) -> Store:
        settings = load_settings(
            {
                "es_url": self.server.url if key else self.elastic_url,
                "es_ca_certs": self.server.ca,
                **({"es_api_key": key} if key else {}),
            },
            environment={},
        )
        return Store(connect(settings), self.index)

    def picture(self) -> str:
        (hit, *_) = json.loads(self.done("search", "red", "--json-hits"))
        return str(hit["image_id"])

    def file(self, name: str) -> str:
        return str(self.folder / name)

    def write(self, name: str, *lines: str) -> None:
        (self.folder / name).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")

    def filled(self, command: str) -> list[str]:
        """The words of a command, with this office's folder, photos and a picture."""
        given = {"folder": self.folder, "photos": self.photos}
        return [
            word.format(**given, picture=self.picture() if "{picture}" in word else "")
            for word in command.split()
        ]
