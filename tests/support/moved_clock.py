"""A daemon whose clock of the day jumps: `python -m tests.support.moved_clock FILE FOLDER`.

The file holds the seconds by which `time.time` and `datetime.now` are ahead; the monotonic clock
goes on as it is, as the kernel's does.
"""

from __future__ import annotations

import datetime
import sys
import time
from pathlib import Path

_file = Path(sys.argv[1])
_time, _time_ns, _datetime = time.time, time.time_ns, datetime.datetime


def ahead() -> float:
    return float(_file.read_text() or 0)


class _Datetime(_datetime):
    @classmethod
    def now(cls, tz: datetime.tzinfo | None = None) -> _Datetime:
        return cls.fromtimestamp(_time() + ahead(), tz)


if __name__ == "__main__":
    time.time = lambda: _time() + ahead()
    time.time_ns = lambda: _time_ns() + int(ahead() * 1e9)
    datetime.datetime = _Datetime  # type: ignore[misc]
    from tests.support.watching import main

    main(sys.argv[2])
