"""dev/: the launcher with a fake JDK, Maven and distribution, and es-up and es-down.

`TestRealServer` at the end starts the real Elasticsearch, twice in all (10 to 20 s each). It needs
Java and either an unpacked distribution or Maven, and is skipped where they are missing, unless
CI is set.
"""

import contextlib
import http.server
import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

pytestmark = pytest.mark.process

DEV = Path(__file__).resolve().parents[2] / "dev"
LAUNCHER = DEV / "elasticsearch"
POM = (DEV / "pom.xml").read_text(encoding="utf-8")
RELEASE, RELEASE_9 = (
    "sonarqube-" + re.findall(rf"<{re.escape(name)}>(.*)</", POM)[0]
    for name in ("sonarqube.version", "sonarqube.version.9")
)
WHOLE = 'MODULES="java.base jdk.jdi java.logging"\n'
TRIMMED = 'MODULES="java.base java.logging"\n'
# What the scripts need of the system; a PATH of only these hides the machine's Java and Maven.
TOOLS = """
    basename bash cat chmod cksum cp cut dirname env expr flock grep id ls mkdir mv readlink rm sed
    setpriv setsid sh sleep stat tail touch tr true unshare
"""

Run = Callable[..., subprocess.CompletedProcess[str]]


def script(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/sh\n" + text, encoding="utf-8")
    path.chmod(0o755)
    return path


def fake_jdk(home: Path, version: str | None, modules: str = WHOLE) -> Path:
    """A JDK whose java writes down its home and arguments, one a line, and exits with $FAKE_RC."""
    script(
        home / "bin" / "java",
        'home=${0%/bin/java}\n{ echo "$home"; printf "%s\\n" "$@"; } >>"$FAKE_LOG"\n'
        'echo "Version: 8.0.0"\nexit "${FAKE_RC:-0}"\n',
    )
    if version is not None:
        (home / "release").write_text(f'JAVA_VERSION="{version}"\n{modules}', encoding="utf-8")
    return home


def fake_distribution(folder: Path) -> None:
    """elasticsearch-cli hands everything to java, as Elastic's does."""
    es = folder / RELEASE / "elasticsearch"
    script(
        es / "bin" / "elasticsearch-cli",
        'echo "$CLI_NAME $CLI_LIBS ${0##*/}" >>"$FAKE_LOG.cli"\n'
        'exec "$ES_JAVA_HOME/bin/java" "$@"\n',
    )
    (es / "bin" / "elasticsearch-keystore.bat").write_bytes(b"set CLI_LIBS=lib/tools/x\r\n")
    (es / "config").mkdir()
    (es / "config" / "log4j2.properties").write_text("a=b\n", encoding="utf-8")


def fake_distribution_9(folder: Path) -> Path:
    """The server of 9.4 is started by a program of its own, of which elasticsearch-env is part."""
    es = folder / RELEASE_9 / "elasticsearch"
    fake_distribution(folder)
    (folder / RELEASE).rename(folder / RELEASE_9)
    (es / "lib" / "tools" / "server-launcher").mkdir(parents=True)
    script(
        es / "bin" / "elasticsearch-env",
        'ES_HOME="${0%/bin/*}"\nES_DISTRIBUTION_TYPE=zip\nJAVA_TYPE=ES_JAVA_HOME\n'
        "JAVA=$ES_JAVA_HOME/bin/java\n",
    )
    return es


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home of elasticsearch"  # with spaces


@pytest.fixture
def environment(tmp_path: Path, home: Path) -> dict[str, str]:
    """No Java, no Maven, and a distribution."""
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in TOOLS.split():
        if found := shutil.which(name):
            (tools / name).symlink_to(found)
    script(tools / "python3", f'exec "{sys.executable}" "$@"\n')
    fake_distribution(home / "dist")
    return {
        "PATH": str(tools),
        "HOME": str(tmp_path),
        "FAKE_LOG": str(tmp_path / "log"),
        "ES_IMGSEARCH_ES_HOME": str(home),
        "ES_IMGSEARCH_JVM_DIRS": str(tmp_path / "jvm"),
    }


@pytest.fixture
def launch(environment: dict[str, str]) -> Run:
    def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [LAUNCHER, *arguments],
            env=environment | variables,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    return run


@pytest.fixture
def log(environment: dict[str, str]) -> Callable[[], list[str]]:
    """What the last java was called with: home and arguments."""

    def read() -> list[str]:
        lines = Path(environment["FAKE_LOG"]).read_text(encoding="utf-8").splitlines()
        return lines[max(i for i, line in enumerate(lines) if line.startswith("/")) :]

    return read


class TestJava:
    @pytest.mark.parametrize(
        ("versions", "chosen"),
        [
            (["17.0.15", "25.0.3", "21.0.1"], "25.0.3"),
            (["9.0.1", "17.0.1", "1.8.0_402", "11.0.2"], "17.0.1"),
            (["17", "21-ea"], "21-ea"),
            (["17.0.1", "100.0.1"], "100.0.1"),
        ],
    )
    def test_the_newest_is_chosen(
        self,
        tmp_path: Path,
        launch: Run,
        log: Callable[[], list[str]],
        versions: list[str],
        chosen: str,
    ) -> None:
        for version in versions:
            fake_jdk(tmp_path / "jvm" / version, version)
        assert launch("x").returncode == 0
        assert log() == [str(tmp_path / "jvm" / chosen), "x"]

    def test_java_home_and_path_are_considered(
        self,
        tmp_path: Path,
        launch: Run,
        environment: dict[str, str],
        log: Callable[[], list[str]],
    ) -> None:
        fake_jdk(tmp_path / "jvm" / "a", "17.0.1")
        by_path = fake_jdk(tmp_path / "on path", "21.0.1")
        path = f"{environment['PATH']}:{by_path / 'bin'}"
        launch("x", PATH=path)
        assert log()[0] == str(by_path)
        by_home = fake_jdk(tmp_path / "java home", "24.0.1")
        launch("x", PATH=path, JAVA_HOME=str(by_home))
        assert log()[0] == str(by_home)

    def test_es_java_home_wins(
        self, tmp_path: Path, launch: Run, log: Callable[[], list[str]]
    ) -> None:
        fake_jdk(tmp_path / "jvm" / "a", "25.0.1")
        mine = fake_jdk(tmp_path / "mine", "17.0.1")
        launch("x", ES_JAVA_HOME=str(mine))
        assert log()[0] == str(mine)

    def test_a_trimmed_one_is_passed_over(
        self, tmp_path: Path, launch: Run, log: Callable[[], list[str]]
    ) -> None:
        fake_jdk(tmp_path / "jvm" / "a", "25.0.1", TRIMMED)
        whole = fake_jdk(tmp_path / "jvm" / "b", "17.0.1")
        launch("x")
        assert log()[0] == str(whole)

    @pytest.mark.parametrize(
        ("version", "modules", "message"),
        [
            (None, "", "no Java found"),
            ("11.0.2", WHOLE, "found only Java 11 in"),
            ("21.0.2", TRIMMED, "without the module jdk.jdi"),
        ],
    )
    def test_one_line_says_what_to_install(
        self, tmp_path: Path, launch: Run, version: str | None, modules: str, message: str
    ) -> None:
        if version:
            fake_jdk(tmp_path / "jvm" / "a", version, modules)
        done = launch("-V")
        assert done.returncode == 1
        assert done.stdout == ""
        assert message in done.stderr
        assert "install a JDK" in done.stderr
        assert done.stderr.count("\n") == 1

    @pytest.mark.parametrize(
        ("version", "modules", "message"),
        [
            ("11.0.2", WHOLE, "is Java 11"),
            ("21.0.2", TRIMMED, "jdk.jdi"),
            (None, "", "there is no Java"),
        ],
    )
    def test_an_unfit_es_java_home_is_an_error(
        self, tmp_path: Path, launch: Run, version: str | None, modules: str, message: str
    ) -> None:
        fake_jdk(tmp_path / "jvm" / "a", "25.0.1")
        if version:
            fake_jdk(tmp_path / "mine", version, modules)
        done = launch("-V", ES_JAVA_HOME=str(tmp_path / "mine"))
        assert done.returncode == 1
        assert message in done.stderr
        assert "ES_JAVA_HOME" in done.stderr


class TestLauncher:
    @pytest.fixture(autouse=True)
    def jdk(self, tmp_path: Path) -> Path:
        return fake_jdk(tmp_path / "jvm" / "a", "21.0.1")

    def test_arguments_go_through_untouched(
        self, launch: Run, log: Callable[[], list[str]]
    ) -> None:
        arguments = ["-E", "a=b c", "-p", "x*", "-d", "-Vv", "$HOME", '"', ""]
        launch(*arguments)
        assert log()[1:] == arguments

    def test_only_the_programs_output_is_on_stdout(self, launch: Run) -> None:
        assert launch("-Vv").stdout == "Version: 8.0.0\n"  # and the keystore was made, too

    @pytest.mark.parametrize("code", [0, 1, 64, 143])
    def test_exit_codes(self, launch: Run, code: int) -> None:
        assert launch("x").returncode == 0  # writes the configuration
        assert launch("x", FAKE_RC=str(code)).returncode == code

    def test_signals_reach_the_program(
        self, tmp_path: Path, launch: Run, environment: dict[str, str]
    ) -> None:
        launch("x")
        script(tmp_path / "jvm" / "a" / "bin" / "java", "echo $$\nexec sleep 60\n")
        with subprocess.Popen(
            [LAUNCHER], env=environment, stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout
            assert int(process.stdout.readline()) == process.pid  # exec, all the way
            process.terminate()
            assert process.wait(10) == -signal.SIGTERM

    @pytest.mark.skipif(os.geteuid() != 0, reason="only as root")
    @pytest.mark.parametrize("namespaces", [True, False])
    def test_root_becomes_somebody_else_who_can_use_roots_folders(
        self, tmp_path: Path, launch: Run, environment: dict[str, str], namespaces: bool
    ) -> None:
        if not namespaces:
            (Path(environment["PATH"]) / "unshare").unlink()
            script(Path(environment["PATH"]) / "unshare", "exit 1\n")
        private = tmp_path / "private"
        private.mkdir(mode=0o700)
        launch("x")
        script(tmp_path / "jvm" / "a" / "bin" / "java", 'id -u; echo hello >"$1"\n')
        done = launch(str(private / "file"))
        assert done.stdout.strip() not in {"", "0"}, done.stderr
        assert (private / "file").read_text(encoding="utf-8") == "hello\n"

    @pytest.mark.parametrize("module", [True, False])
    def test_line_9_has_a_folder_and_a_start_of_its_own(
        self, launch: Run, tmp_path: Path, home: Path, module: bool
    ) -> None:
        es = fake_distribution_9(home / "9" / "dist")
        if module:
            (es / "modules" / "x-pack-otel-data").mkdir(parents=True)
        launch("x", ES_LINE="9")
        script(
            tmp_path / "jvm" / "a" / "bin" / "java",
            'printf "%s\\n" "$@" "$ES_HOME" "$ES_PATH_CONF" "$ES_DISTRIBUTION_TYPE" "$JAVA_TYPE"\n',
        )
        done = launch("-E", "a=b c", "-d", ES_LINE="9", CLI_JAVA_OPTS="-Dx=y")
        (configuration,) = (home / "9" / "config").iterdir()
        assert done.stdout.splitlines()[3:] == [
            "-Dx=y", "-cp", f"{es}/lib/tools/server-launcher/*",
            "org.elasticsearch.server.launcher.ServerLauncher", "-E", "a=b c", "-d",
            str(es), str(configuration), "zip", "ES_JAVA_HOME",
        ]  # fmt: skip
        written = (configuration / "elasticsearch.yml").read_text("utf-8")
        # A setting that no module knows ends the start.
        assert "xpack.apm_data" not in written
        assert ("xpack.otel_data" in written) == module
        assert not (home / "config").exists()

    @pytest.mark.parametrize("line", ["7", "10", "8.19", "9.4", "x", "../9"])
    def test_a_line_that_there_is_not(self, launch: Run, home: Path, line: str) -> None:
        done = launch("-V", ES_LINE=line)
        assert (done.returncode, done.stderr.count("\n")) == (1, 1)
        assert f"ES_LINE is 8 or 9, not {line}" in done.stderr

    def test_tools(
        self, launch: Run, environment: dict[str, str], log: Callable[[], list[str]]
    ) -> None:
        launch("a")
        launch("list", ES_TOOL="keystore")
        assert log()[1:] == ["list"]
        calls = Path(environment["FAKE_LOG"] + ".cli").read_text(encoding="utf-8").splitlines()
        assert calls[-2:] == [
            "server lib/tools/server-cli elasticsearch",
            " lib/tools/x elasticsearch-keystore",
        ]
        done = launch(ES_TOOL="nothing")
        assert done.returncode == 1
        assert "no tool called nothing" in done.stderr

    def test_the_configuration_is_written_once_and_shared(self, launch: Run, home: Path) -> None:
        launch("x")
        (folder,) = (home / "config").iterdir()
        written = (folder / "elasticsearch.yml").stat()
        assert (folder / "elasticsearch.yml").read_bytes() == (
            DEV / "elasticsearch.yml"
        ).read_bytes()
        options = (folder / "jvm.options.d" / "development.options").read_text(encoding="utf-8")
        assert {"-Xmx1g", "-Xmx2g"} & set(options.splitlines())
        launch("x")
        assert list((home / "config").iterdir()) == [folder]
        assert (folder / "elasticsearch.yml").stat().st_ino == written.st_ino
        assert not list(home.glob("new.*"))

    def test_a_configuration_folder_of_ones_own(self, tmp_path: Path, launch: Run) -> None:
        """Filled if it is empty, otherwise left as it is."""
        full = tmp_path / "full"
        full.mkdir()
        (full / "elasticsearch.yml").write_text("mine", encoding="utf-8")
        launch("x", ES_PATH_CONF=str(full))
        assert [file.name for file in full.iterdir()] == ["elasticsearch.yml"]
        empty = tmp_path / "empty"
        empty.mkdir()
        for folder in (empty, tmp_path / "absent" / "too"):
            launch("x", ES_PATH_CONF=str(folder))
            assert (folder / "jvm.options.d").is_dir()

    def test_half_a_heap_size_gets_its_other_half(self, tmp_path: Path, launch: Run) -> None:
        launch("x")
        script(tmp_path / "jvm" / "a" / "bin" / "java", 'echo "$ES_JAVA_OPTS"\n')
        assert launch(ES_JAVA_OPTS="-Da=b -Xmx512m").stdout == "-Da=b -Xmx512m -Xms512m\n"
        assert launch(ES_JAVA_OPTS="-Xms1g -Xmx512m").stdout == "-Xms1g -Xmx512m\n"
        assert launch().stdout == "\n"

    def test_nobody_reads_the_pipe(self, tmp_path: Path, launch: Run) -> None:
        """pytest-elasticsearch never does: once it is full the server would stand still."""
        launch("x")
        script(tmp_path / "jvm" / "a" / "bin" / "java", 'echo "$ES_CONSOLE_LEVEL"\n')
        assert launch().stdout == "error\n"
        assert launch(ES_CONSOLE_LEVEL="warn").stdout == "warn\n"

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
    def test_a_home_that_cannot_be_written(self, launch: Run, home: Path) -> None:
        home.chmod(stat.S_IRUSR | stat.S_IXUSR)
        done = launch("x")
        home.chmod(stat.S_IRWXU)
        assert done.returncode == 1
        assert "ES_IMGSEARCH_ES_HOME" in done.stderr


class TestUnpacking:
    @pytest.fixture(autouse=True)
    def prepared(self, tmp_path: Path, home: Path, environment: dict[str, str]) -> Path:
        """Nothing unpacked; returns what a mvn would unpack."""
        fake_jdk(tmp_path / "jvm" / "a", "21.0.1")
        (home / "dist").rename(tmp_path / "archive")
        return Path(environment["PATH"]) / "mvn"

    MVN = (
        'echo called >>"$FAKE_LOG.mvn"; echo noise\n'
        "for a; do case $a in -Dunpack.to=*) to=${a#*=} ;; esac; done\n"
        'mkdir -p "$to/target"; sleep 1; cp -R "$HOME/archive/." "$to"\n'
    )

    def test_without_maven_one_line_says_what_to_install(self, launch: Run) -> None:
        done = launch("-V")
        assert (done.returncode, done.stdout) == (1, "")
        assert "apt install maven" in done.stderr
        assert done.stderr.count("\n") == 1

    def test_two_first_ones_at_once_unpack_once(
        self, prepared: Path, home: Path, environment: dict[str, str]
    ) -> None:
        script(prepared, self.MVN)
        both = [
            subprocess.Popen([LAUNCHER, "-Vv"], env=environment, stdout=-1, stderr=-1, text=True)
            for _ in range(2)
        ]
        results = [process.communicate(timeout=60) for process in both]
        assert [process.returncode for process in both] == [0, 0], results
        assert [out for out, _ in results] == ["Version: 8.0.0\n"] * 2
        assert Path(environment["FAKE_LOG"] + ".mvn").read_text("utf-8") == "called\n"
        assert [folder.name for folder in (home / "dist").iterdir()] == [RELEASE]
        assert not list(home.glob("new.*"))

    def test_line_9_is_unpacked_beside_the_other(
        self, prepared: Path, tmp_path: Path, home: Path, launch: Run
    ) -> None:
        shutil.rmtree(tmp_path / "archive")
        fake_distribution_9(tmp_path / "archive")
        script(prepared, 'echo "$@" >>"$FAKE_LOG.mvn"\n' + self.MVN)
        assert launch("-V", ES_LINE="9").returncode == 0
        assert [folder.name for folder in (home / "9" / "dist").iterdir()] == [RELEASE_9]
        assert not (home / "dist").exists()
        wanted = RELEASE_9.removeprefix("sonarqube-")
        assert f"-Dsonarqube.version={wanted} " in Path(tmp_path / "log.mvn").read_text("utf-8")

    def test_nothing_half_unpacked_is_used(self, prepared: Path, home: Path, launch: Run) -> None:
        script(
            prepared, 'for a; do case $a in -Dunpack.to=*) mkdir -p "${a#*=}/x"; esac; done; exit 1'
        )
        done = launch("-V")
        assert done.returncode == 1
        assert "Maven could not fetch" in done.stderr
        assert not (home / "dist").exists()
        script(prepared, self.MVN)
        assert launch("-V").returncode == 0


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@contextlib.contextmanager
def answering(headers: Mapping[str, str], body: str, status: int = 200) -> Iterator[int]:
    """Some HTTP server; gives its port."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


ELASTIC = {"X-elastic-product": "Elasticsearch"}
EIGHT = '{"version": {"number": "8.19.1"}}'
NINE = '{"version": {"number": "9.1.0"}}'
NINETY = '{"version": {"number": "90.1.0"}}'


@pytest.fixture
def es(environment: dict[str, str]) -> Run:
    def run(name: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [DEV / name],
            env=environment | variables,
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
        )

    return run


class TestUpAndDownWithoutAServer:
    """There is no Java in this environment: whatever tried to start a server would fail."""

    @pytest.mark.parametrize(
        ("headers", "body", "status", "code", "message"),
        [
            (ELASTIC, EIGHT, 200, 0, "Elasticsearch 8.19.1, not started by es-up"),
            (ELASTIC, NINE, 200, 0, "Elasticsearch 9.1.0, not started by es-up"),
            (ELASTIC, '{"version": {"number": "7.17.0"}}', 200, 1, "no Elasticsearch 8 or 9"),
            (ELASTIC, NINETY, 200, 1, "no Elasticsearch 8 or 9"),
            ({}, EIGHT, 200, 1, "no Elasticsearch 8"),  # OpenSearch, for one
            ({}, "hello", 200, 1, "no Elasticsearch 8"),
            ({}, "", 401, 1, "asks for credentials"),
        ],
    )
    def test_the_port_is_held_by_another(
        self, es: Run, headers: dict[str, str], body: str, status: int, code: int, message: str
    ) -> None:
        with answering(headers, body, status) as port:
            done = es("es-up", ES_PORT=str(port))
            assert done.returncode == code
            assert message in done.stdout + done.stderr
            assert str(port) in done.stdout + done.stderr
            if code:
                assert "ES_PORT=" in done.stderr
            down = es("es-down")
            assert (down.returncode, "nothing to stop" in down.stdout) == (0, True)

    @pytest.mark.parametrize(
        ("headers", "body", "status", "code", "message"),
        [
            (ELASTIC, EIGHT, 200, 0, "Elasticsearch 8.19.1 answers at"),
            (ELASTIC, "{}", 403, 0, "an Elasticsearch answers at"),
            (ELASTIC, NINE, 200, 0, "Elasticsearch 9.1.0 answers at"),
            (ELASTIC, NINETY, 200, 1, "version 8 or 9 is needed"),
            ({}, "", 401, 1, "does not accept the credentials"),
            ({}, "", 200, 1, "is no Elasticsearch"),
        ],
    )
    def test_es_url_is_used_and_credentials_never_shown(
        self, es: Run, headers: dict[str, str], body: str, status: int, code: int, message: str
    ) -> None:
        with answering(headers, body, status) as port:
            done = es(
                "es-up", ES_URL=f"http://user:geheim@localhost:{port}", ES_API_KEY="schluessel"
            )
        output = done.stdout + done.stderr
        assert done.returncode == code
        assert message in output
        assert f"http://localhost:{port}" in output
        assert not re.search("user|geheim|schluessel", output)

    @pytest.mark.parametrize(
        ("line", "body", "code", "message"),
        [
            ("8", EIGHT, 0, "8.19.1"),
            ("8", NINE, 1, "Elasticsearch 8"),
            ("9", NINE, 0, "9.1.0"),
            ("9", EIGHT, 1, "Elasticsearch 9"),
            ("9", NINETY, 1, "Elasticsearch 9"),
            ("10", NINE, 1, "ES_LINE is 8 or 9"),
        ],
    )
    def test_who_asks_for_a_line_gets_no_other(
        self, es: Run, line: str, body: str, code: int, message: str
    ) -> None:
        with answering(ELASTIC, body) as port:
            done = es("es-up", ES_PORT=str(port), ES_LINE=line)
            assert done.returncode == code, done.stderr
            assert message in done.stdout + done.stderr
            done = es("es-up", ES_URL=f"http://127.0.0.1:{port}", ES_LINE=line)
            assert done.returncode == code, done.stderr

    @pytest.mark.parametrize(
        "url",
        [
            "http://user:geheim@127.0.0.1:{port}",
            "http://user:ge/heim@127.0.0.1:{port}",
            "http://user:1/geheim@127.0.0.1:{port}",
            "http://user:1?geheim@127.0.0.1:{port}",
            "user:geheim@127.0.0.1:{port}",
            "https://user:geheim@[127.0.0.1:{port}",
        ],
    )
    def test_an_es_url_that_does_not_answer(self, es: Run, url: str) -> None:
        done = es("es-up", ES_URL=url.format(port=free_port()))
        assert (done.returncode, done.stdout) == (1, "")
        assert "ES_URL" in done.stderr
        assert "heim" not in done.stderr
        assert done.stderr.count("\n") == 1

    @pytest.mark.parametrize("url", [None, "http://127.0.0.1:{port}", "http://localhost:{port}/"])
    def test_why_there_was_no_start_is_said(self, es: Run, url: str | None) -> None:
        port = free_port()
        variables = {"ES_URL": url.format(port=port)} if url else {}
        done = es("es-up", ES_PORT=str(port), **variables)
        assert done.returncode == 1
        assert "no Java found" in done.stderr

    def test_a_server_that_dies_has_its_last_words_printed(
        self, tmp_path: Path, home: Path, es: Run, launch: Run
    ) -> None:
        fake_jdk(tmp_path / "jvm" / "a", "21.0.1")
        launch("x")
        script(tmp_path / "jvm" / "a" / "bin" / "java", "echo last words; exit 3\n")
        done = es("es-up", ES_PORT=str(free_port()))
        assert done.returncode == 1
        assert "last words" in done.stderr
        assert str(home / "es-up" / "start.log") in done.stderr

    def test_a_pid_that_is_somebody_elses_now_is_left_alone(self, home: Path, es: Run) -> None:
        with subprocess.Popen(["sleep", "60"]) as other:
            (home / "es-up").mkdir(parents=True)
            (home / "es-up" / "pid").write_text(f"{other.pid}\n", encoding="utf-8")
            done = es("es-down")
            assert (done.returncode, "nothing to stop" in done.stdout) == (0, True)
            assert other.poll() is None
            other.kill()

    def test_a_port_that_is_none(self, es: Run) -> None:
        done = es("es-up", ES_PORT="92oo")
        assert done.returncode == 1
        assert "ES_PORT" in done.stderr


def pid_of(home: Path) -> int:
    return int((home / "es-up" / "pid").read_text(encoding="utf-8"))


def alive(pid: int) -> bool:
    """A zombie is not: in a container nobody may wait for it."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


@pytest.mark.slow
class TestRealServer:
    @pytest.fixture(params=["8", "9"])
    def line(self, request: pytest.FixtureRequest) -> str:
        return str(request.param)

    @pytest.fixture
    def real(self, tmp_path: Path, line: str) -> Iterator[dict[str, str]]:
        """The real distribution in a home of its own."""
        environment = {k: v for k, v in os.environ.items() if not k.startswith("ES_")}
        environment["ES_LINE"] = line
        # What the checkout has is found, or fetched there: fetching it for each test is too much.
        found = Path(os.environ.get("ES_IMGSEARCH_ES_HOME", DEV.parent / ".elasticsearch"))
        ready = subprocess.run(
            [LAUNCHER, "-V"],
            env=environment | {"ES_IMGSEARCH_ES_HOME": str(found)},
            capture_output=True,
            text=True,
            check=False,
        )
        if ready.returncode != 0 and "CI" not in os.environ:
            pytest.skip(ready.stderr.strip())
        assert ready.returncode == 0, ready.stderr
        home = tmp_path / "home of elasticsearch"
        own = Path("9" if line == "9" else "")
        (home / own).mkdir(parents=True)
        (home / own / "dist").symlink_to(found.resolve() / own / "dist")
        environment |= {
            "ES_IMGSEARCH_ES_HOME": str(home),
            "ES_PORT": str(free_port()),
            "ES_JAVA_OPTS": "-Xms512m -Xmx512m",
        }
        yield environment
        subprocess.run([DEV / "es-down"], env=environment, check=True, capture_output=True)

    @staticmethod
    def home_of(real: Mapping[str, str]) -> Path:
        return Path(real["ES_IMGSEARCH_ES_HOME"]) / ("9" if real["ES_LINE"] == "9" else "")

    @staticmethod
    def call(name: str, environment: Mapping[str, str]) -> str:
        """stdout; returns only when nobody holds the pipe any more, as `make es-up | tail`."""
        return subprocess.run(
            [DEV / name], env=environment, stdout=-1, stderr=-1, text=True, timeout=240, check=True
        ).stdout

    def test_up_and_down(self, real: dict[str, str]) -> None:
        home, port = self.home_of(real), real["ES_PORT"]
        reading, writing = os.pipe()
        started = subprocess.run(
            [DEV / "es-up"],
            env=real,
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
            pass_fds=[writing],
        )
        os.close(writing)
        assert started.returncode == 0, started.stderr
        assert re.fullmatch(
            rf"Elasticsearch {real['ES_LINE']}\.\d+\.\d+ is ready at http://127\.0\.0\.1:{port} "
            r"\(started in \d+ s\)\n",
            started.stdout,
        )
        assert os.read(reading, 1) == b""  # the end: the server holds nothing of ours
        os.close(reading)

        pid = pid_of(home)
        assert os.getsid(pid) != os.getsid(0)
        assert "already running" in self.call("es-up", real)
        assert pid_of(home) == pid

        elsewhere = real | {"ES_PORT": str(free_port())}
        other_port = subprocess.run(
            [DEV / "es-up"], env=elsewhere, capture_output=True, text=True, check=False
        )
        assert other_port.returncode == 1
        assert f"ES_PORT={port}" in other_port.stderr

        # The same server, seen from another checkout, is not its to stop.
        other = real | {"ES_IMGSEARCH_ES_HOME": str(home / "other")}
        assert "not started by es-up" in self.call("es-up", other)
        assert "nothing to stop" in self.call("es-down", other)
        assert "already running" in self.call("es-up", real)

        assert self.call("es-down", real) == "Elasticsearch stopped\n"
        assert not alive(pid)
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", int(port)))
        assert "nothing to stop" in self.call("es-down", real)

    def test_an_interrupted_start_leaves_nothing(self, real: dict[str, str]) -> None:
        home = self.home_of(real)
        with subprocess.Popen([DEV / "es-up"], env=real, stdout=-1, stderr=-1) as process:
            deadline = time.monotonic() + 120
            while not (home / "es-up" / "pid").exists():
                assert time.monotonic() < deadline
                time.sleep(0.1)
            time.sleep(1)
            pid = pid_of(home)
            process.terminate()
            assert process.wait(60) == 130
        assert not alive(pid)
