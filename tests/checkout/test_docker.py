"""docker/: the files keep to their specifications, and the scripts do what they say.

No Docker engine is needed, and none is used: `docker` is a script that writes down what it was
called with.
"""

from __future__ import annotations

import http.server
import importlib.util
import json
import os
import re
import shutil
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import jsonschema
import pytest
import yaml

pytestmark = pytest.mark.process

CHECKOUT = Path(__file__).resolve().parents[2]
DOCKER = CHECKOUT / "docker"
TOOLS = Path(sys.executable).parent
SCRIPTS = [
    "docker/entrypoint", "docker/install", "docker/setup/access", "docker/setup/certificates",
    "docker/stack", "dev/elasticsearch", "dev/es-common", "dev/es-down", "dev/es-up", "dev/setup",
    ".ci/run",
]  # fmt: skip

# As compose.yaml asks for them: those that have to be there (with ? after the name), and others.
VARIABLE = re.compile(r"\$\{([A-Z_]+)(:[-?])?")


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((DOCKER / "compose.yaml").read_text("utf-8"))
    return loaded


def dockerfile() -> list[tuple[str, str]]:
    """Instructions and what follows them, lines joined, without comments."""
    text = (DOCKER / "Dockerfile").read_text("utf-8")
    lines = [line for line in text.splitlines() if line and not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines)).splitlines()
    return [(line.split()[0], line.split(maxsplit=1)[1]) for line in joined]


# -- compose ---------------------------------------------------------------------------------


def specification() -> Any:
    """The schema of the compose specification, as check-jsonschema brings it."""
    found = importlib.util.find_spec("check_jsonschema")
    assert found is not None
    assert found.origin is not None
    file = Path(found.origin).parent / "builtin_schemas" / "vendor" / "compose-spec.json"
    return json.loads(file.read_text("utf-8"))


def test_compose_keeps_to_the_specification(compose: dict[str, Any]):
    jsonschema.validate(compose, specification())
    wrong = {**compose, "services": {"watch": {**compose["services"]["watch"], "restarts": "no"}}}
    with pytest.raises(jsonschema.ValidationError, match="restarts"):
        jsonschema.validate(wrong, specification())


def test_services_keep_to_themselves(compose: dict[str, Any]):
    services = compose["services"]
    for name, service in services.items():
        image, _, version = service["image"].partition(":")
        assert image in {"elasticsearch", "kibana", "es-imgsearch"}, name
        assert version == "8.19.13" or image == "es-imgsearch", name
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", [])), name
        if service["restart"] != "no":
            assert service["restart"] == "unless-stopped"
            assert "mem_limit" in service, name
        if image == "es-imgsearch":
            assert service["user"] == "${SERVICE_UID:-10001}:${SERVICE_GID:-10001}"
            assert service["group_add"] == ["${PICTURES_GID:-10001}"]
            assert service["read_only"] is True
            assert service["cap_drop"] == ["ALL"]
            assert service["security_opt"] == ["no-new-privileges:true"]
            (pictures,) = [each for each in service["volumes"] if isinstance(each, dict)]
            assert pictures["read_only"] is True
            assert pictures["bind"] == {"create_host_path": False}


def test_metrics_of_the_daemon_are_seen_from_outside_its_container(compose: dict[str, Any]):
    watch = compose["services"]["watch"]
    assert watch["command"][-2:] == ["--metrics-address", "0.0.0.0"]
    (port,) = watch["ports"]
    dockerfile = (CHECKOUT / "docker" / "Dockerfile").read_text("utf-8")
    assert f"ES_IMGSEARCH_METRICS_PORT={port.rpartition(':')[2]} " in dockerfile


def test_a_key_is_seen_by_one_service_and_the_authority_by_elasticsearch(compose: dict[str, Any]):
    services = compose["services"]
    seen: dict[str, set[str]] = {}
    for name, service in services.items():
        for volume in service["volumes"]:
            if isinstance(volume, str):
                seen.setdefault(volume.split(":")[0], set()).add(name)
    assert seen["watch-key"] == {"access", "watch"}
    assert seen["read-key"] == {"access", "serve"}
    assert seen["admin-key"] == {"access", "init"}
    assert seen["kibana-config"] == {"access", "kibana"}
    assert seen["certs"] == {"certificates", "elasticsearch"}
    assert seen.keys() - {"./setup"} == compose["volumes"].keys()
    with_password = {
        name
        for name, service in services.items()
        if "ELASTIC_PASSWORD" in service.get("environment", {})
    }
    assert with_password == {"elasticsearch", "access"}


def test_an_image_is_built_once_and_not_pulled(compose: dict[str, Any]):
    ours = {
        name: service
        for name, service in compose["services"].items()
        if service["image"].startswith("es-imgsearch:")
    }
    assert len({service["image"] for service in ours.values()}) == 1
    assert [name for name, service in compose["services"].items() if "build" in service] == ["init"]
    for name in ours.keys() - {"init"}:
        assert ours[name]["pull_policy"] == "never"
        assert "init" in ours[name]["depends_on"]


def test_kibana_has_its_secrets_in_a_file(compose: dict[str, Any]):
    """Its image makes arguments of the environment, which everybody on the host sees."""
    services = compose["services"]
    kibana = services["kibana"]
    secret = re.compile("PASSWORD|ENCRYPTION")
    assert not [each for each in kibana["environment"].items() if secret.search(" ".join(each))]
    own, made = kibana["environment"]["KBN_CONFIG_PATHS"].split(",")
    assert own == "/usr/share/kibana/config/kibana.yml"
    assert f"kibana-config:{Path(made).parent}:ro" in kibana["volumes"]
    access = services["access"]
    assert f"kibana-config:{access['environment']['KIBANA_CONFIG']}" in access["volumes"]
    assert Path(made).name == "kibana.yml"


def test_services_wait_for_what_they_need(compose: dict[str, Any]):
    services = compose["services"]
    order: list[str] = []

    def start(name: str, *above: str) -> None:
        assert name not in above
        for other, condition in services[name].get("depends_on", {}).items():
            start(other, *above, name)
            once = services[other]["restart"] == "no"
            wanted = "service_completed_successfully" if once else "service_healthy"
            assert condition == {"condition": wanted}
        if name not in order:
            order.append(name)

    for name in ("watch", "serve"):
        start(name)
    assert order == ["certificates", "elasticsearch", "access", "init", "watch", "serve"]


def test_a_daemon_is_given_the_time_it_takes_to_stop(compose: dict[str, Any]):
    from es_imgsearch.settings import Settings

    assert compose["services"]["watch"]["stop_grace_period"] == "1m"
    assert Settings().shutdown_seconds < 60


# -- image -----------------------------------------------------------------------------------


def test_hadolint_has_nothing_to_say():
    done = subprocess.run(
        [TOOLS / "hadolint", DOCKER / "Dockerfile"], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (0, "")


def test_the_image_runs_as_nobody_special_and_says_how_it_is():
    instructions = dockerfile()
    last = max(at for at, (word, _) in enumerate(instructions) if word == "FROM")
    final = dict(instructions[last:])
    assert final["USER"] == "10001:10001"
    assert final["STOPSIGNAL"] == "SIGTERM"
    assert json.loads(final["ENTRYPOINT"]) == ["tini", "--", "entrypoint"]
    assert 'CMD ["healthcheck", "9464", "8080"]' in final["HEALTHCHECK"]
    assert "ADD" not in {word for word, _ in instructions}
    bases = {rest.split()[0] for word, rest in instructions if word == "FROM"}
    assert bases - {"build"} == {"python:3.12-slim"}


def test_what_the_image_runs_as_nobody_does_not_depend_on_the_checkout():
    """With umask 077 a checkout's files are readable by its owner alone."""
    instructions = dockerfile()
    last = max(at for at, (word, _) in enumerate(instructions) if word == "FROM")
    for word, rest in instructions[last:]:
        if word == "COPY":
            assert rest.startswith(("--from=", "--chmod=755 "))


def copied() -> list[str]:
    """What the Dockerfile takes out of the checkout."""
    return [
        source
        for word, rest in dockerfile()
        if word == "COPY" and not rest.startswith("--from")
        for source in rest.split()[:-1]
        if not source.startswith("--")
    ]


def test_the_image_is_given_what_it_is_built_from_and_nothing_else():
    ignored = (CHECKOUT / ".dockerignore").read_text("utf-8").splitlines()
    given = {line[1:] for line in ignored if line.startswith("!")}
    assert "*" in ignored
    assert given == set(copied())
    assert all((CHECKOUT / each).exists() for each in given)
    # What the wheel is built from, see test_package.py.
    assert {"pyproject.toml", "README.md", "LICENSE", "es_imgsearch", "mappings", "kibana"} <= given


def test_what_is_left_out_without_torch_is_something_that_we_need():
    left_out = [
        line
        for line in (DOCKER / "without-torch.txt").read_text("utf-8").splitlines()
        if not line.startswith("#")
    ]
    needed = (CHECKOUT / "pyproject.toml").read_text("utf-8")
    for name in left_out:
        assert re.search(rf'^    "{name}>=', needed, flags=re.MULTILINE), name


def test_libraries_in_the_image_tell_nobody_that_they_run():
    from es_imgsearch import TELLING_NOBODY

    instructions = dockerfile()
    last = max(at for at, (word, _) in enumerate(instructions) if word == "FROM")
    set_there = dict(
        word.split("=", 1)
        for instruction, rest in instructions[last:]
        if instruction == "ENV"
        for word in rest.split()
    )
    assert {name: set_there.get(name) for name in TELLING_NOBODY} == dict(TELLING_NOBODY)


def test_elastic_is_told_nothing(compose: dict[str, Any]):
    kibana = compose["services"]["kibana"]["environment"]
    assert (kibana["TELEMETRY_OPTIN"], kibana["NEWSFEED_ENABLED"]) == ("false", "false")


def test_the_torch_that_exports_is_chosen(compose: dict[str, Any]):
    arguments = [rest for word, rest in dockerfile() if word == "ARG"]
    assert "EXPORT_TORCH=cpu" in arguments
    assert compose["services"]["init"]["build"]["args"]["EXPORT_TORCH"] == "${EXPORT_TORCH:-cpu}"
    (made,) = [rest for word, rest in dockerfile() if word == "RUN" and "export_starter" in rest]
    assert 'TORCH="$EXPORT_TORCH"' in made


@pytest.mark.parametrize(
    ("torch", "wanted"),
    [("none", "--excludes"), ("pypi", ""), ("cpu", "--torch-backend cpu"),
     ("cu128", "--torch-backend cu128")],
)  # fmt: skip
def test_what_is_installed(tmp_path: Path, torch: str, wanted: str):
    script(tmp_path / "bin" / "uv", f'echo "$@" >>{tmp_path}/called')
    (tmp_path / "a.whl").touch()
    done = subprocess.run(
        [DOCKER / "install", tmp_path / "to", tmp_path], capture_output=True, text=True,
        env={"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "TORCH": torch, "EXTRAS": "serve"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    installed = (tmp_path / "called").read_text().splitlines()[-1]
    assert wanted in installed
    assert ("--torch-backend" in installed) == wanted.startswith("--torch-backend")
    assert ("--excludes" in installed) == wanted.startswith("--excludes")


@pytest.mark.parametrize("script", SCRIPTS)
def test_shellcheck_has_nothing_to_say(script: str):
    done = subprocess.run(
        [TOOLS / "shellcheck", "--external-sources", script],
        cwd=CHECKOUT, capture_output=True, text=True,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "")


def test_every_script_is_checked():
    found = {
        str(file.relative_to(CHECKOUT))
        for folder in ("docker", "docker/setup", "dev", ".ci")
        for file in (CHECKOUT / folder).iterdir()
        if file.is_file() and re.match(r"#!.*sh\n", file.read_text("utf-8"))
    }
    assert found <= set(SCRIPTS)


# -- inside the container --------------------------------------------------------------------


@pytest.fixture
def container(tmp_path: Path) -> dict[str, str]:
    """An environment in which es-imgsearch says only what it was called with."""
    script(tmp_path / "bin" / "es-imgsearch", 'echo "$@"')
    (tmp_path / "exports" / "onnx" / "abc").mkdir(parents=True)
    return {
        "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
        "EXPORTS": str(tmp_path / "exports"),
        "ES_IMGSEARCH_CACHE_DIR": str(tmp_path / "cache"),
    }


def script(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
    path.chmod(0o755)


def enter(environment: Mapping[str, str], *arguments: str) -> str:
    done = subprocess.run(
        [DOCKER / "entrypoint", *arguments], env=environment, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_exports_of_the_image_are_found_in_the_cache(container: dict[str, str], tmp_path: Path):
    link = tmp_path / "cache" / "onnx" / "abc"
    for _ in range(2):
        assert enter(container, "watch", "photos=/my photos") == "watch photos=/my photos\n"
        assert link.resolve() == tmp_path / "exports" / "onnx" / "abc"
    # The volume is older than the image.
    link.unlink()
    link.symlink_to(tmp_path / "gone")
    enter(container, "search", "a cat")
    assert link.resolve() == tmp_path / "exports" / "onnx" / "abc"
    # One that was made here is kept.
    link.unlink()
    link.mkdir()
    enter(container, "search", "a cat")
    assert not link.is_symlink()
    assert list(link.iterdir()) == []


def test_an_image_without_exports(container: dict[str, str], tmp_path: Path):
    shutil.rmtree(tmp_path / "exports" / "onnx" / "abc")
    assert enter(container, "search", "a cat") == "search a cat\n"
    assert list((tmp_path / "cache" / "onnx").iterdir()) == []


def test_a_cache_that_cannot_be_written_costs_no_search(container: dict[str, str], tmp_path: Path):
    (tmp_path / "cache").write_text("no folder")
    assert enter(container, "search", "a cat") == "search a cat\n"


class _Health(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        well = self.path == "/healthz" and getattr(self.server, "well", False)
        self.send_response(200 if well else 503)
        self.end_headers()
        self.wfile.write(b'{"status": "..."}')

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def service() -> Iterator[http.server.HTTPServer]:
    server = http.server.HTTPServer(("127.0.0.1", 0), _Health)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def test_the_health_check_repeats_what_the_service_says(service: http.server.HTTPServer):
    with socket.socket() as unused:
        # Bound and not listening: connections are refused, and nobody else takes it.
        unused.bind(("127.0.0.1", 0))
        nothing, port = (str(each) for each in (unused.getsockname()[1], service.server_port))

        def ends_with(*ports: str) -> int:
            command = [sys.executable, DOCKER / "healthcheck.py", *ports]
            return subprocess.run(command, capture_output=True).returncode

        assert ends_with(nothing, port) == 1
        service.well = True  # type: ignore[attr-defined]
        assert ends_with(port, nothing) == ends_with(nothing, port) == 0
        assert ends_with(nothing) == 1


class _Starting(http.server.BaseHTTPRequestHandler):
    """An Elasticsearch where what is written is refused at first."""

    refused: ClassVar[set[str]] = set()
    written: ClassVar[list[tuple[str, Any]]] = []

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        ready = not body or self.path in self.refused
        self.refused.add(self.path)
        if body and ready:
            self.written.append((self.path, json.loads(body)))
        self.send_response(200 if ready else 503)
        self.end_headers()
        self.wfile.write(b"{}")

    do_POST = do_PUT = do_GET  # noqa: N815 - http.server calls them so

    def log_message(self, *_: Any) -> None:
        pass


def test_access_insists_and_leaves_a_cache_in_use_alone(tmp_path: Path):
    for name in ("chown", "sleep"):
        script(tmp_path / "bin" / name, f'echo "{name} $*" >>{tmp_path}/called')
    (tmp_path / "cache").mkdir()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Starting)
    threading.Thread(target=server.serve_forever, daemon=True).start()

    def access(owner: int) -> None:
        done = subprocess.run(
            [DOCKER / "setup" / "access"],
            env={
                "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
                "ES_URL": f"http://127.0.0.1:{server.server_port}",
                "ELASTIC_PASSWORD": "elastic", "KIBANA_PASSWORD": "kibana",
                "KEYS": str(tmp_path / "keys"), "CACHE": str(tmp_path / "cache"),
                "SERVICE_UID": str(owner), "SERVICE_GID": str(os.getgid()),
            },
            capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr

    try:
        access(os.getuid())
        roles = {
            f"/_security/role/es-imgsearch-{file.stem}": json.loads(file.read_text("utf-8"))
            for file in (DOCKER / "setup" / "roles").iterdir()
        }
        written = {"/_security/user/kibana_system/_password": {"password": "kibana"}, **roles}
        assert dict(_Starting.written) == written
        assert len(_Starting.written) == len(written)
        assert (tmp_path / "called").read_text() == "sleep 1\n" * len(written)
        access(os.getuid() + 1)
        last = (tmp_path / "called").read_text().splitlines()[-1]
        assert last == f"chown -R {os.getuid() + 1}:{os.getgid()} {tmp_path / 'cache'}"
    finally:
        server.shutdown()
        server.server_close()


# -- make up ---------------------------------------------------------------------------------


@pytest.fixture
def stack(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """A copy of docker/, whose `docker` notes its arguments, and the command that runs it."""
    shutil.copytree(
        DOCKER, tmp_path / "docker", ignore=shutil.ignore_patterns(".env*", "__pycache__")
    )
    note = f'echo "$* ${{IMAGES_DIR-}}" >>{tmp_path}/called; [ "$1" != "$REFUSED" ]'
    script(tmp_path / "bin" / "docker", note)
    (tmp_path / "my pictures").mkdir()

    def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        path = environment.pop("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
        return subprocess.run(
            [tmp_path / "docker" / "stack", *arguments],
            env={"PATH": path, "HOME": str(tmp_path), "REFUSED": "none", **environment},
            cwd=tmp_path, capture_output=True, text=True,
        )  # fmt: skip

    return run


def test_up_makes_the_secrets_once_and_tells_nobody(stack: Any, tmp_path: Path):
    first = stack("up", IMAGES_DIR="my pictures", ENCODER="clip", TORCH="cpu")
    assert first.returncode == 0, first.stderr
    file = tmp_path / "docker" / ".env"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    lines = dict(line.split("=", 1) for line in file.read_text().splitlines()[1:])
    values = {name: value.strip("'") for name, value in lines.items()}
    assert values["IMAGES_DIR"] == str(tmp_path / "my pictures")
    assert (values["ENCODER"], values["TORCH"]) == ("clip", "cpu")
    secrets = {name: value for name, value in values.items() if re.search("PASSWORD|KEY$", name)}
    assert secrets.keys() == {"ELASTIC_PASSWORD", "KIBANA_PASSWORD", "KIBANA_ENCRYPTION_KEY"}
    assert len(set(secrets.values())) == 3
    # Kibana wants at least 32 characters; and nothing that a shell, a URL or JSON would change.
    assert all(re.fullmatch(r"[0-9a-f]{48}", value) for value in secrets.values())

    again = stack("up", SERVE_PORT="8081")
    assert again.returncode == 0, again.stderr
    assert "http://127.0.0.1:8081" in again.stdout
    assert file.read_text().splitlines()[1:] == [
        *(f"{name}={value}" for name, value in lines.items()), "SERVE_PORT='8081'"
    ]  # fmt: skip
    called = (tmp_path / "called").read_text()
    said = first.stdout + first.stderr + again.stdout + again.stderr + called
    assert not [name for name, value in secrets.items() if value in said]

    # compose would take a folder's name as it is, below docker/, from the environment.
    assert called.count("build init \n") == called.count("up --detach --no-build \n") == 2
    assert called.index("build init") < called.index("up --detach")

    # What compose.yaml cannot do without is there.
    text = (DOCKER / "compose.yaml").read_text("utf-8")
    assert {name for name, how in VARIABLE.findall(text) if how == ":?"} <= values.keys()
    assert not [name for name, how in VARIABLE.findall(text) if not how]


def test_the_group_of_the_pictures_is_given_to_who_is_in_it(stack: Any, tmp_path: Path):
    script(tmp_path / "bin" / "stat", "case $3 in *shared) echo 2000 ;; *) echo 3000 ;; esac")
    script(
        tmp_path / "bin" / "id",
        "case $1 in -u) echo ${USER_ID-1000} ;; -g) echo 1000 ;; -G) echo 1000 2000 ;; esac",
    )
    (tmp_path / "shared").mkdir()

    def group(**environment: str) -> str:
        done = stack("up", **environment)
        assert done.returncode == 0, done.stderr
        (line,) = re.findall(
            "^PICTURES_GID='(.*)'$", (tmp_path / "docker" / ".env").read_text(), re.MULTILINE
        )
        return str(line)

    assert group(IMAGES_DIR="shared") == "2000"
    assert group(IMAGES_DIR="my pictures") == "1000"
    assert group(PICTURES_GID="4000") == group(IMAGES_DIR="my pictures") == "4000"
    assert group(IMAGES_DIR="shared") == "2000"
    # Root is in no group that it would have to pass on.
    (tmp_path / "docker" / ".env").unlink()
    assert group(IMAGES_DIR="shared", USER_ID="0") == "10001"


def test_an_export_made_elsewhere_is_built_with(stack: Any, tmp_path: Path):
    (tmp_path / "made" / "exports").mkdir(parents=True)
    refused = stack("up", IMAGES_DIR="my pictures", EXPORTS="made")
    assert refused.returncode == 1
    assert "python docker/export_starter.py made/exports" in refused.stderr
    (tmp_path / "made" / "exports" / "onnx").mkdir()
    assert stack("up", IMAGES_DIR="my pictures", EXPORTS="made").returncode == 0
    assert f"EXPORTS='{tmp_path / 'made'}'" in (tmp_path / "docker" / ".env").read_text()
    # Also later, when it is not said again.
    (tmp_path / "called").unlink()
    assert stack("up").returncode == 0
    called = (tmp_path / "called").read_text()
    assert called.count("/docker/exports.yaml --env-file") == called.count("/docker/compose.yaml")
    file = yaml.safe_load((DOCKER / "exports.yaml").read_text("utf-8"))
    jsonschema.validate(file, specification())


REFUSED = (
    "failed to create task for container: error setting rlimits for ready process: error setting"
    " rlimit type 8: operation not permitted"
)


@pytest.mark.parametrize(
    ("state", "wanted", "unwanted"),
    [
        (f"elasticsearch|created|128|{REFUSED}", f"did not start elasticsearch: {REFUSED}", "said"),
        ("serve|created|0|driver failed: port is already allocated", "already allocated", "said"),
        ("access|exited|1|", "access ended with 1; the end of what it said:\nno pass", "engine"),
        ("init|exited|0|", "see above", "init"), ("watch|running|0|", "see above", "watch"),
        ("kibana|exited|137|", "kibana ended with 137", "engine"),
        ("elasticsearch|restarting|78|", "elasticsearch ended with 78", "engine"),
        ("elasticsearch|running|0||unhealthy", "elasticsearch is unhealthy; the end", "engine"),
        ("watch|running|0||starting", "see above", "watch"),
    ],
)  # fmt: skip
def test_up_repeats_what_the_engine_says(
    stack: Any, tmp_path: Path, state: str, wanted: str, unwanted: str
):
    script(
        tmp_path / "bin" / "docker",
        f"""case "$*" in
*" up "*) exit 1 ;;
*" ps --all --quiet") echo abc ;;
inspect*) echo '{state}' ;;
logs*abc) echo no password ;;
esac""",
    )
    done = stack("up", IMAGES_DIR="my pictures")
    assert done.returncode == 1
    assert wanted in done.stderr
    assert unwanted not in done.stderr
    assert "make up again" in done.stderr


def test_commands_of_the_documentation_start_nothing_else():
    for file in (*CHECKOUT.glob("docs/**/*.md"), CHECKOUT / "README.md", DOCKER / "compose.yaml"):
        text = file.read_text("utf-8")
        assert not re.findall("compose run --rm (?!--no-deps)", text), file


def test_up_wants_to_know_where_the_pictures_are(stack: Any):
    assert "make up IMAGES_DIR=/your/pictures" in stack("up").stderr
    assert "no folder nowhere" in stack("up", IMAGES_DIR="nowhere").stderr
    assert "has started nothing" in stack("down").stderr


def test_what_is_missing_is_told(stack: Any, tmp_path: Path):
    bare = tmp_path / "bare"
    bare.mkdir()
    for name in ("bash", "dirname", "readlink", "env"):
        (bare / name).symlink_to(shutil.which(name) or "")
    for command in ("up", "down", "kibana"):
        done = stack(command, PATH=str(bare))
        assert done.returncode == 1
        assert "there is no docker here" in done.stderr
    assert "no compose plugin" in stack("up", REFUSED="compose").stderr
    assert "no Docker engine answers" in stack("up", REFUSED="info").stderr
    assert "has started nothing" in stack("down").stderr
    assert stack("runs").returncode == 1


def test_down_keeps_the_volumes_and_says_how_to_remove_them(stack: Any, tmp_path: Path):
    stack("up", IMAGES_DIR="my pictures")
    (tmp_path / "called").unlink()
    done = stack("down")
    assert done.returncode == 0, done.stderr
    assert "--volumes" not in (tmp_path / "called").read_text()
    assert "down --volumes" in done.stdout


def test_kibana_imports_with_the_key_of_init(stack: Any, tmp_path: Path):
    stack("up", IMAGES_DIR="my pictures")
    assert stack("kibana", "--space", "photos").returncode == 0
    last = (tmp_path / "called").read_text().splitlines()[-1]
    assert "run --rm --no-deps init kibana import --kibana-url http://kibana:5601" in last
    assert last.rstrip().endswith("--space photos")
