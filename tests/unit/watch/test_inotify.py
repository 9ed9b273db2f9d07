"""The kernel's limits and refusals, each in a user namespace of its own; and what of watchdog
is relied on."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
import tempfile
import textwrap
import threading
from pathlib import Path
from typing import Any

import pytest

from es_imgsearch.records import Root
from es_imgsearch.watch import inotify

pytestmark = [
    pytest.mark.skipif(
        sys.platform != "linux" or shutil.which("unshare") is None,
        reason="inotify and namespaces are Linux's",
    ),
    pytest.mark.process,
]

DEADLINE_SECONDS = 30.0


@pytest.fixture
def root(tmp_path: Path) -> Root:
    folder = tmp_path / "photos"
    folder.mkdir()
    return Root("photos", folder)


PRELUDE = """
import json, logging, os, sys, threading
from pathlib import Path
from es_imgsearch.watch.excludes import Excludes
from es_imgsearch.records import Root
from es_imgsearch.watch.watcher import HintKind, Watcher

logging.basicConfig(stream=sys.stderr, level=logging.INFO)
root = Root("photos", Path(sys.argv[1]))
hints, changed = [], threading.Condition()

def on_hint(hint):
    with changed:
        hints.append((hint.relative_path, hint.kind))
        changed.notify_all()

def wait_for(path, kind):
    with changed:
        assert changed.wait_for(lambda: (path, kind) in hints, 30), hints

watcher = Watcher((root,), Excludes(()), on_hint)
"""


def isolated(root: Root, script: str, *options: str, setup: str = "true") -> tuple[Any, str]:
    """Run `script`, which sets `answer`, in new namespaces; the answer and the log.

    Skips where `unshare` with these `options`, or `setup` (shell), is refused.
    """
    probe = subprocess.run(
        ["unshare", *options, "sh", "-c", setup], capture_output=True, text=True, timeout=60
    )
    if probe.returncode:
        pytest.skip(f"no such namespaces here: {probe.stderr.strip()}")
    code = PRELUDE + textwrap.dedent(script) + "\nwatcher.stop()\nprint(json.dumps(answer))\n"
    shell = ["unshare", *options, "sh", "-c", f'{setup}; exec "$0" "$@"']
    done = subprocess.run(
        [*shell, sys.executable, "-c", code, str(root.path)],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), done.stderr


def test_a_quota_used_up_is_told_and_the_rest_is_polled(root: Root) -> None:
    for number in range(60):
        (root.path / f"d{number}").mkdir()
    answer, log = isolated(
        root,
        """
        watcher.start()
        first = sorted(watcher.refused(root))
        (root.path / "late/deeper").mkdir(parents=True)
        wait_for("late", HintKind.SUBTREE)
        late = sorted(watcher.refused(root) - set(first))
        (root.path / first[0]).rename(root.path / "renamed")
        wait_for("renamed", HintKind.SUBTREE)
        renamed = "renamed" in watcher.refused(root) and first[0] not in watcher.refused(root)
        count = watcher.watch_count
        Path("/proc/sys/user/max_inotify_watches").write_text("1000")
        rearmed = watcher.rearm(root)
        answer = dict(first=first, late=late, renamed=renamed, count=count, rearmed=rearmed,
                      after=sorted(watcher.refused(root)), count_after=watcher.watch_count)
        """,
        "-Ur",
        setup="echo 20 > /proc/sys/user/max_inotify_watches",
    )
    assert answer["count"] == 20
    assert len(answer["first"]) == 60 - 19
    assert answer["late"] == ["late"]
    assert answer["renamed"]
    assert answer["rearmed"]
    assert answer["after"] == []
    assert answer["count_after"] == 63
    assert log.count("polled, not watched") == 1
    assert "41 folders of photos" in log
    assert "user.max_inotify_watches = 20 is used up, 20 of them held here" in log
    assert "sudo sysctl user.max_inotify_watches=524288" in log


def test_a_quota_used_up_at_the_root_itself(root: Root) -> None:
    answer, log = isolated(
        root,
        "watcher.start(); answer = sorted(watcher.refused(root))",
        "-Ur",
        setup="echo 0 > /proc/sys/user/max_inotify_watches",
    )
    assert answer == [""]
    assert log.count("max_inotify_watches = 0 is used up") == 1


def test_no_instance_left(root: Root) -> None:
    answer, log = isolated(
        root,
        """
        watcher.start()
        first = sorted(watcher.refused(root))
        again = watcher.rearm(root)
        Path("/proc/sys/user/max_inotify_instances").write_text("10")
        answer = dict(first=first, again=again, later=watcher.rearm(root))
        """,
        "-Ur",
        setup="echo 0 > /proc/sys/user/max_inotify_instances",
    )
    assert answer == {"first": [""], "again": False, "later": True}
    assert log.count("max_inotify_instances = 0 is used up") == 1


def test_no_file_descriptor_left(root: Root) -> None:
    answer, log = isolated(
        root,
        """
        import resource
        import watchdog.observers.inotify_c
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        free = os.dup(0)
        os.close(free)
        resource.setrlimit(resource.RLIMIT_NOFILE, (free + 2, hard))
        watcher.start()
        first = sorted(watcher.refused(root))
        resource.setrlimit(resource.RLIMIT_NOFILE, (free + 50, hard))
        answer = dict(first=first, free=free, later=watcher.rearm(root), fd=watcher._reader._fd)
        """,
        "-Ur",
    )
    assert answer["first"] == [""]
    assert answer["later"]
    assert answer["fd"] == answer["free"]  # nothing was left open by the first try
    assert "no file descriptors left" in log


def test_a_folder_without_permission(root: Root) -> None:
    (root.path / "closed/deep").mkdir(parents=True)
    (root.path / "open").mkdir()
    (root.path / "closed").chmod(0)
    try:
        answer, log = isolated(  # without a user mapped not even root may do everything
            root,
            """
            watcher.start()
            first, count = sorted(watcher.refused(root)), watcher.watch_count
            (root.path / "closed").chmod(0o755)
            wait_for("closed", HintKind.SUBTREE)
            answer = dict(first=first, count=count, later=sorted(watcher.refused(root)),
                          count_later=watcher.watch_count)
            """,
            "-U",
        )
    finally:
        (root.path / "closed").chmod(0o755)
    assert answer == {"first": ["closed"], "count": 2, "later": [], "count_later": 4}
    assert "Permission denied" in log


MOUNTS = "mount -t tmpfs none '{0}' && umount '{0}'"


def test_an_unmounted_root_is_gone_until_it_is_back(root: Root) -> None:
    answer, _ = isolated(
        root,
        """
        import subprocess
        mount = ["mount", "-t", "tmpfs", "none", str(root.path)]
        subprocess.run(mount, check=True)
        (root.path / "a/b").mkdir(parents=True)
        watcher.start()
        subprocess.run(["umount", str(root.path)], check=True)
        wait_for("", HintKind.ROOT_GONE)
        gone = sorted(watcher.refused(root))
        subprocess.run(mount, check=True)
        rearmed = watcher.rearm(root)
        (root.path / "x.jpg").write_bytes(b"x")
        wait_for("x.jpg", HintKind.WRITTEN)
        answer = dict(gone=gone, rearmed=rearmed, count=watcher.watch_count,
                      times=hints.count(("", HintKind.ROOT_GONE)))
        """,
        "-Urm",
        setup=MOUNTS.format(root.path),
    )
    assert answer == {"gone": [""], "rearmed": True, "count": 1, "times": 1}


def test_a_folder_unmounted_below_the_root(root: Root) -> None:
    (root.path / "disk/beneath").mkdir(parents=True)
    answer, _ = isolated(
        root,
        """
        import subprocess
        disk = root.path / "disk"
        subprocess.run(["mount", "-t", "tmpfs", "none", str(disk)], check=True)
        (disk / "a/b").mkdir(parents=True)
        watcher.start()
        before = watcher.watch_count
        subprocess.run(["umount", str(disk)], check=True)
        wait_for("disk", HintKind.SUBTREE)
        (disk / "beneath/x.jpg").write_bytes(b"x")
        wait_for("disk/beneath/x.jpg", HintKind.WRITTEN)
        answer = dict(before=before, after=watcher.watch_count)
        """,
        "-Urm",
        setup=MOUNTS.format(root.path),
    )
    assert answer == {"before": 4, "after": 3}


def test_a_folder_mounted_at_two_places_is_polled_at_one(root: Root) -> None:
    """One inode has one watch, so it can have one path only."""
    (root.path / "a/b").mkdir(parents=True)
    (root.path / "z").mkdir()
    answer, log = isolated(
        root,
        """
        import subprocess
        subprocess.run(["mount", "--bind", str(root.path / "a"), str(root.path / "z")], check=True)
        subprocess.run(["mount", "--bind", str(root.path), str(root.path / "a/b")], check=True)
        watcher.start()
        refused = sorted(watcher.refused(root))
        watched = "z" if "a" in refused else "a"
        (root.path / watched / "x.jpg").write_bytes(b"x")
        wait_for(watched + "/x.jpg", HintKind.WRITTEN)
        answer = dict(refused=refused, count=watcher.watch_count)
        """,
        "-Urm",
        setup=MOUNTS.format(root.path),
    )
    assert answer["refused"] in (["a"], ["a/b", "z"], ["a", "z/b"])
    assert "bind mount" in log


def test_the_limit_of_the_machine_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inotify, "_PROC", tmp_path)
    for name, value in {
        "fs/inotify/max_user_watches": "600000",
        "fs/inotify/max_user_instances": "128",
        "user/max_inotify_watches": "600000",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(value + "\n")
    watches = inotify.limit_message(errno.ENOSPC, used=7)
    assert "fs.inotify.max_user_watches = 600000 is used up, 7 of them" in watches
    assert "sudo sysctl fs.inotify.max_user_watches=1200000" in watches
    instances = inotify.limit_message(errno.EMFILE, used=0)
    assert "fs.inotify.max_user_instances = 128 is used up; " in instances
    assert "sudo sysctl fs.inotify.max_user_instances=1024" in instances
    shutil.rmtree(tmp_path / "fs")
    assert "user.max_inotify_watches = 600000" in inotify.limit_message(errno.ENOSPC, used=0)


def test_a_child_process_does_not_inherit_the_instance() -> None:
    reader = inotify.InotifyReader(lambda event: None)
    try:
        assert not os.get_inheritable(reader._fd)
    finally:
        reader.stop()
        reader.join()


def test_stopped_before_its_first_read_it_closes_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from watchdog.observers import inotify_c

    stopped = threading.Event()
    monkeypatch.setattr(inotify_c.InotifyFD, "run", lambda self: stopped.wait(DEADLINE_SECONDS))
    before = set(os.listdir("/proc/self/fd"))
    reader = inotify.InotifyReader(lambda event: None)
    reader.stop()
    stopped.set()
    reader.join()
    assert set(os.listdir("/proc/self/fd")) == before


# -- upstream ---------------------------------------------------------------------------------


def test_what_is_relied_on_of_watchdog_is_there() -> None:
    """All of it is private: this fails first when an upgrade changes it."""
    from watchdog.observers import inotify_c
    from watchdog.utils import BaseThread

    assert callable(inotify_c.inotify_add_watch)
    assert callable(inotify_c.inotify_rm_watch)
    assert {"wd", "mask", "name"} <= set(inotify_c.InotifyEvent.__dataclass_fields__)
    assert inotify_c.InotifyEvent(-1, 0x4000, 0, b"").is_queue_overflow
    assert issubclass(inotify_c.InotifyFD, BaseThread)
    constants = {name: value for name, value in vars(inotify).items() if name.startswith("IN_")}
    assert len(constants) == 16
    for name, value in constants.items():
        assert getattr(inotify_c.InotifyConstants, name) == value

    events: list[Any] = []
    arrived = threading.Event()

    def record(event: Any) -> None:
        events.append(event)
        arrived.set()

    with tempfile.TemporaryDirectory() as place:
        thread = inotify_c.InotifyFD()
        for name in ("run", "handle_event", "read_events", "stop", "close", "_close_resources"):
            assert callable(getattr(thread, name))
        assert isinstance(thread._inotify_fd, int)
        assert thread._is_reading is True
        assert thread._watch_for_wd == {}
        # An instance attribute is what `run` calls, also for a watch it does not know.
        thread.handle_event = record
        thread.start()
        wd = inotify_c.inotify_add_watch(thread._inotify_fd, os.fsencode(place), 0x100)
        Path(place, "a").mkdir()
        assert arrived.wait(DEADLINE_SECONDS)
        thread.stop()
        thread.join(DEADLINE_SECONDS)
        assert not thread.is_alive()
    assert (events[0].wd, events[0].name) == (wd, b"a")
