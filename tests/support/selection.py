"""Which tests need what: markers, their order, their timeouts, and what a skipped one means.

`es`, `browser` and the tests of folders that always need a process are marked here, by the
fixtures and folders of a test; `process` and `slow` stand in the files otherwise.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator

import pytest

from tests.support import CHECKOUT

# What a test needs, by the fixture that brings it.
_BY_FIXTURE = {
    "es_url": "es", "browser": "browser", "chromium": "browser", "query_builder": "browser"
}  # fmt: skip
# Begins the reason of tests that root skips.
FOR_USERS_ONLY = "root may"
# Begins the reason of tests that compare the simulated server with a server of another version.
OF_ANOTHER_LINE = "the simulated server is an 8.19"
ENGINES = ("es", "process", "browser", "slow")
# Longest first: with `--dist loadfile` the last files decide when the last worker ends.
_FOLDERS = ("tests/e2e", "tests/checkout", "tests/contract", "tests/unit/embed")
# Three times and more what the slowest of each takes on two busy cores; pyproject.toml has the
# time of all others.
_TIMEOUT_SECONDS = {"slow": 900, "es": 300, "process": 300, "browser": 300}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        for name in _needed_by(item):
            item.add_marker(name)
        if item.get_closest_marker("timeout") is None:
            longest = [
                seconds
                for name, seconds in _TIMEOUT_SECONDS.items()
                if item.get_closest_marker(name) is not None
            ]
            if longest:
                item.add_marker(pytest.mark.timeout(max(longest)))
    items.sort(key=_place)


def _needed_by(item: pytest.Item) -> Iterator[str]:
    fixtures = getattr(item, "fixturenames", ())
    for fixture, marker in _BY_FIXTURE.items():
        if fixture in fixtures:
            yield marker
    callspec = getattr(item, "callspec", None)
    if callspec is not None and callspec.params.get("any_store") == "elasticsearch":
        yield "es"


def _place(item: pytest.Item) -> int:
    folder = item.path.parent.relative_to(CHECKOUT).as_posix()
    return _FOLDERS.index(folder) if folder in _FOLDERS else len(_FOLDERS)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """With IMGSEARCH_REQUIRE_ENGINES set, as in CI, a test whose engine is missing fails."""
    report = yield
    needed = [name for name in ENGINES if item.get_closest_marker(name) is not None]
    if report.skipped and not hasattr(report, "wasxfail") and needed:
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        # File modes do not apply to root: no engine is missing then.
        if any(each in str(reason) for each in (FOR_USERS_ONLY, OF_ANOTHER_LINE)):
            return report
        report.user_properties.append(("skipped", needed))
        if os.environ.get("IMGSEARCH_REQUIRE_ENGINES"):
            report.outcome = "failed"
            report.longrepr = f"its engine ({', '.join(needed)}) should be here: {reason}"
    return report


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Print the markers that were skipped, and those that `-m` left out."""
    skipped = Counter(
        name
        for report in terminalreporter.stats.get("skipped", ())
        for key, names in getattr(report, "user_properties", ())
        if key == "skipped"
        for name in names
    )
    for name, count in skipped.items():
        terminalreporter.line(f"marker {name}: {count} tests skipped, their engine is missing")
    if expression := config.option.markexpr:
        terminalreporter.line(f"markers: run were the tests of -m {expression!r} only")
