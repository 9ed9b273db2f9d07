"""Importing, against a server that answers as Kibana does."""

from __future__ import annotations

import json
import re
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme
from click.testing import CliRunner, Result

from es_imgsearch.cli import main
from es_imgsearch.errors import KibanaDenied, KibanaError, KibanaUnreachable, SettingsError
from es_imgsearch.kibana.build import create_builder
from es_imgsearch.kibana.objects import to_ndjson
from es_imgsearch.kibana.upload import Kibana, UploadResult
from es_imgsearch.settings import Settings, load_settings
from tests.support.fake_kibana import FakeKibana


@pytest.fixture
def fake() -> Iterator[FakeKibana]:
    server = FakeKibana()
    yield server
    server.close()


@pytest.fixture
def settings(fake: FakeKibana) -> Settings:
    return load_settings({"kibana_url": fake.url})


@pytest.fixture(scope="module")
def content() -> bytes:
    return to_ndjson(create_builder(load_settings()).build_all())


def test_everything_is_written_once_and_replaced_when_asked(
    fake: FakeKibana, settings: Settings, content: bytes
):
    count = content.count(b"\n") - 1
    kibana = Kibana(settings)
    assert kibana.import_objects(content, overwrite=False) == UploadResult(count, 0)
    assert len(fake.objects) == count
    with pytest.raises(KibanaError, match=r"exists.*--overwrite") as message:
        kibana.import_objects(content, overwrite=False)
    assert f"and {count - 10} more" in str(message.value)
    assert kibana.import_objects(content, overwrite=True) == UploadResult(count, count)


def test_an_import_into_a_space(fake: FakeKibana, settings: Settings, content: bytes):
    Kibana(settings, "photos").import_objects(content, overwrite=False)
    Kibana(settings, "default").import_objects(content, overwrite=False)
    assert {space for space, _, _ in fake.objects} == {"photos", "default"}
    with pytest.raises(SettingsError, match="cannot be a space"):
        Kibana(settings, "../default")


def test_a_file_with_parts_missing(fake: FakeKibana, settings: Settings, content: bytes):
    lines = [
        line
        for line in content.splitlines(keepends=True)
        if json.loads(line).get("type") != "index-pattern"
    ]
    with pytest.raises(KibanaError, match=r"refers to index-pattern/.* does not have") as message:
        Kibana(settings).import_objects(b"".join(lines), overwrite=False)
    assert "`es-imgsearch kibana import`" in str(message.value)
    # Each once, however often an object refers to it.
    for each in str(message.value).split("; "):
        names = re.findall(r"index-pattern/[\w-]+", each)
        assert len(names) == len(set(names))
    assert not fake.objects


def failed(error: dict[str, Any]) -> tuple[int, Any]:
    entry = {"type": "lens", "id": "a", "meta": {"title": "A"}, "error": error}
    return 200, {"success": False, "successCount": 3, "warnings": [], "errors": [entry]}


REFUSALS: list[tuple[tuple[int, Any], type[KibanaError], str]] = [
    (failed({"type": "conflict", "destinationId": "b"}), KibanaError, "lens/a exists"),
    (
        failed({"type": "ambiguous_conflict", "destinations": [{"id": "b"}, {"id": "c"}]}),
        KibanaError,
        r"more than once \(b, c\)",
    ),
    (failed({"type": "unsupported_type"}), KibanaError, "does not know"),
    (
        failed({"type": "unknown", "message": "[title]: missing", "statusCode": 400}),
        KibanaError,
        r"lens/a: \[title\]: missing \(400\)",
    ),
    ((200, {"success": False, "successCount": 0}), KibanaError, "gives no reason"),
    ((400, {"message": "Unexpected token"}), KibanaError, r"\(400\): Unexpected token"),
    ((403, {"message": "Forbidden"}), KibanaDenied, "does not allow these credentials"),
    ((404, {"message": "Not Found"}), KibanaError, "no such space"),
    ((413, {"message": "too large"}), KibanaError, "maxImportPayloadBytes"),
    (
        (422, {"message": 'Document "x" belongs to a more recent version of Kibana [9.0.0]'}),
        KibanaError,
        "older than these objects",
    ),
    ((429, {"message": "slow"}), KibanaUnreachable, "cannot answer now"),
    ((502, "<html>Bad gateway</html>"), KibanaUnreachable, "Bad gateway"),
    ((200, "<html>a login page</html>"), KibanaError, "a login page"),
]


@pytest.mark.parametrize(
    ("answer", "error", "message"), REFUSALS, ids=[each[2][:30] for each in REFUSALS]
)
def test_refusals_are_explained(
    fake: FakeKibana,
    settings: Settings,
    answer: tuple[int, Any],
    error: type[KibanaError],
    message: str,
):
    fake.scripted = [answer]
    with pytest.raises(KibanaError, match=message) as raised:
        Kibana(settings).import_objects(b"{}\n", overwrite=False)
    assert type(raised.value) is error
    assert error.transient is (error is KibanaUnreachable)


def test_credentials(fake: FakeKibana, content: bytes):
    fake.allow("anna", "s3cret:pass")
    bare = load_settings({"kibana_url": fake.url})
    with pytest.raises(KibanaDenied, match="kibana_api_key"):
        Kibana(bare).import_objects(content, overwrite=False)
    with_user = fake.url.replace("//", "//anna:s3cret%3Apass@")
    kibana = Kibana(load_settings({"kibana_url": with_user}))
    assert kibana.import_objects(content, overwrite=False).written
    assert "s3cret" not in kibana.address
    fake.credentials = {"ApiKey abc="}
    for key in ("kibana_api_key", "es_api_key"):
        settings = load_settings({"kibana_url": fake.url, key: "abc="})
        assert Kibana(settings).import_objects(content, overwrite=True).written


def test_wait_until_kibana_is_ready(fake: FakeKibana, settings: Settings):
    fake.levels = ["unavailable", "degraded", "available"]
    slept: list[float] = []
    assert Kibana(settings).wait(60, slept.append) == "8.19.4"
    assert len(slept) == 2
    fake.levels = ["critical"]
    with pytest.raises(KibanaUnreachable, match="not ready after 0 s"):
        Kibana(settings).wait(0, slept.append)
    fake.levels, fake.version = ["available"], None
    assert Kibana(settings).wait(0) is None


@pytest.mark.parametrize("version", ["7.17.9", "8.0.1", "8.8.2"])
def test_an_old_kibana_is_refused(fake: FakeKibana, settings: Settings, version: str):
    fake.version = version
    with pytest.raises(KibanaError, match=rf"is {re.escape(version)}; these objects need 8\.9"):
        Kibana(settings).wait(0)


@pytest.mark.parametrize("version", ["8.9.0", "8.10.4", "8.19.13", "9.1.0"])
def test_a_kibana_that_knows_the_versions_of_all_objects_is_accepted(
    fake: FakeKibana, settings: Settings, content: bytes, version: str
):
    fake.version = version
    assert Kibana(settings).wait(0) == version
    kinds = [json.loads(line) for line in content.splitlines()[:-1]]
    # Versions that begin with 10 count the changes of a type and name no release.
    for each in kinds:
        written = [int(part) for part in each["typeMigrationVersion"].split(".")]
        assert written <= [8, 9, 0], each["id"]


def test_an_unreachable_kibana(fake: FakeKibana, settings: Settings, content: bytes):
    fake.close()
    with pytest.raises(KibanaUnreachable, match="is it running, and is kibana_url right"):
        Kibana(settings).import_objects(content, overwrite=False)


def test_tls_with_a_private_authority(content: bytes, tmp_path: Path):
    authority, authority_file = trustme.CA(), tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(authority_file)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(tls)
    fake = FakeKibana(tls)
    try:
        trusting = load_settings({"kibana_url": fake.url, "kibana_ca_certs": str(authority_file)})
        kibana = Kibana(trusting)
        assert kibana.wait(0) == "8.19.4"
        assert kibana.import_objects(content, overwrite=False).written
        strange = Kibana(load_settings({"kibana_url": fake.url}))
        with pytest.raises(KibanaUnreachable, match=r"is not trusted .*: set kibana_ca_certs"):
            strange.import_objects(content, overwrite=False)
        with pytest.raises(KibanaUnreachable, match="not trusted"):
            strange.wait(0)
    finally:
        fake.close()


def test_missing_certificates_are_refused(tmp_path: Path):
    settings = load_settings({"kibana_ca_certs": str(tmp_path / "ca.pem")})
    with pytest.raises(SettingsError, match="no file"):
        Kibana(settings)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["kibana", "import", *arguments])


def test_the_command(fake: FakeKibana, content: bytes, tmp_path: Path):
    file = tmp_path / "objects.ndjson"
    file.write_bytes(content)
    arguments = [str(file), "--kibana-url", fake.url]
    first = run(*arguments)
    assert (first.exit_code, "0 of them replaced" in first.stderr) == (0, True), first.stderr
    assert run(*arguments).exit_code == 1
    assert run(*arguments, "--overwrite", "--space", "default").exit_code == 0
    missing = run(str(tmp_path / "no.ndjson"), "--kibana-url", fake.url)
    assert missing.exit_code == 2
    assert "cannot be read" in missing.stderr
    fake.close()
    unreachable = run(*arguments, "--wait-seconds", "0")
    assert unreachable.exit_code == 3
    assert "is it running" in unreachable.stderr
