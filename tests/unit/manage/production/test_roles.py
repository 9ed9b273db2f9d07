"""Roles as data: the files of docker/, names of indices, the command line."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from es_imgsearch.cli.production.keys import keys
from es_imgsearch.manage.production.roles import LEAST_ROLE, ROLES, least_role, role_descriptor
from tests.support import CHECKOUT

FILES = sorted((CHECKOUT / "docker" / "setup" / "roles").glob("*.json"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_the_files_of_docker_are_the_roles_of_the_index_images(file: Path):
    assert json.loads(file.read_text("utf-8")) == role_descriptor(file.stem, "images")


def test_the_command_offers_the_roles():
    (role,) = (each for each in keys.commands["create"].params if each.name == "role")
    assert set(role.type.choices) == set(ROLES)  # type: ignore[attr-defined]
    assert set(LEAST_ROLE.values()) <= set(ROLES)


@pytest.mark.parametrize(
    "index",
    ["images", "a.b", "photos@home", "a&b", "a~b", "a(b)", "a[b]", "a{2}", "a.", "été"],
)
@pytest.mark.parametrize("role", ROLES)
def test_an_expression_is_of_this_index_alone(role: str, index: str):
    """Python reads what is escaped as Lucene does."""
    for grant in role_descriptor(role, index)["indices"]:
        for name in grant["names"]:
            if not name.startswith("/"):
                assert name.startswith(index)
                continue
            expression = re.compile(name[1:-1])
            others = ["x" + index, index + "x", re.sub(r"[^\w-]", "x", index) + "z"]
            for each in [index, *others]:
                for tail in ("", "-000001", "-000001-5f0c4e1b", "-000001-5f0c4e1b-pinned"):
                    if expression.fullmatch(each + tail):
                        assert each == index


@pytest.mark.parametrize(
    ("command", "role"),
    [
        ("search", "read"), ("failures", "read"), ("failures list", "read"),
        ("failures retry", "watch"), ("tags list", "read"), ("tags train", "admin"),
        ("codes apply", "watch"), ("kibana build", "read"), ("keys list", None), ("help", None),
    ],
)  # fmt: skip
def test_the_least_role(command: str, role: str | None):
    assert least_role(command) == role
