"""Read when a picture was taken, from texts of cameras, people and programs.

A date is the camera's own: what its clock showed, and how far that was from UTC if it says so.
Forms as in CIPA DC-008 (Exif 2.32), ISO 8601 and the IPTC standards, and what cameras and editors
make of them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final

EARLIEST_YEAR = 1826  # the first photograph that is left
_LARGEST_OFFSET = timedelta(hours=14)  # of the world's time zones; Elasticsearch takes 18
# Clocks of travellers are ahead of ours by at most this.
_LATEST_AHEAD = timedelta(days=1)
_SHOWN = 40  # characters of a text in a note
# Of a date or an offset: matching a much longer text of blanks takes minutes.
_MOST_CHARACTERS = 64

TAKEN_MAPPING: Final[dict[str, dict[str, Any]]] = {
    "taken_at": {"type": "date"},
    "taken_local": {"type": "date"},
    "taken_from": {"type": "keyword"},
}


@dataclass(frozen=True, slots=True)
class Taken:
    """The date and time on a camera's clock, its offset, and where it is said.

    `source` is exif, xmp, iptc, gps, sidecar, takeout or name; an imported date has import.
    """

    local: datetime
    offset: timedelta | None = None
    source: str = ""

    def fields(self) -> dict[str, str]:
        """Return taken_at, taken_local, taken_from; with milliseconds if there are any."""
        precision = "milliseconds" if self.local.microsecond >= 1000 else "seconds"
        local = self.local.isoformat(timespec=precision)
        return {
            "taken_at": local + _offset_text(self.offset),
            "taken_local": local,
            "taken_from": self.source,
        }

    def refined(self, other: Taken | None) -> Taken:
        """Add offset and fraction of another source that says the same second."""
        if other is None or other.local.replace(microsecond=0) != self.local.replace(microsecond=0):
            return self
        return replace(
            self,
            local=max(self.local, other.local),
            offset=other.offset if self.offset is None else self.offset,
        )


# Between the parts stand colons, dashes, slashes, dots or nothing; single digits are padded with
# blanks or not at all.
_GAP = r"\s*[-:/._]\s*"
_TWO = r"\s?[0-9]{1,2}"
_TIME = re.compile(
    rf"[\sT,;_-]+(?:(?P<hour>{_TWO})\s*(?P<gap>[:.h-])\s*(?P<minute>{_TWO})"
    rf"(?:\s*(?:(?P=gap)|m)\s*(?P<second>{_TWO})s?)?"
    r"|(?P<hour2>[0-9]{2})(?P<minute2>[0-9]{2})(?P<second2>[0-9]{2})(?![0-9])"
    # Fewer digits only behind a T: in 2016-02-03-2017 is no time.
    r"|(?<=T)(?P<hour3>[0-9]{2})(?P<minute3>[0-9]{2})?(?![0-9]))"
    r"(?:[.,](?P<fraction>[0-9]+))?"
    r"(?:\s*(?P<half>[AaPp])\.?[Mm]\b\.?)?"
    r"\s*(?P<offset>(?:Z|UTC|GMT)?\s*(?:[+\u2212-]\s*[0-9]{1,2}(?::?[0-9]{2})?)?)"
)
_SECONDS = ("second", "second2")
_DATE = re.compile(
    r"(?P<year>[0-9]{4})(?:"
    rf"{_GAP}(?P<month>{_TWO}){_GAP}(?P<day>{_TWO})(?![0-9])"
    r"|(?P<month2>[0-9]{2})(?P<day2>[0-9]{2})(?=$|[^0-9]|[0-9]{4}(?:[0-9]{2})?(?![0-9])))"
)
# Only the year, or year and month, are known.  More text would make it something else, such as
# 1920x1080, 2024-W22 or "2024 Ford".
_LONE_DATE = re.compile(rf"(?P<year>[0-9]{{4}})(?:{_GAP}(?P<month>{_TWO}))?")
_OFFSET = re.compile(
    r"(?:UTC|GMT)?\s*(?P<sign>[+\u2212-]?)\s*(?P<hours>[0-9]{1,2})(?::?(?P<minutes>[0-9]{2}))?"
    r"(?::?00)?"
)
# Blanks and zeros for what a clock does not know.
_UNKNOWN = re.compile(r"[\s:./_T-]*")
_ZERO_OFFSETS = {"Z", "UTC", "GMT"}


def read_date(text: str, *, offset: str = "", fraction: str = "") -> Taken | None:
    """Read a date in any of these forms; None for one of a clock never set.

    `offset` and `fraction` (digits of a second) count where the text itself has none.  Raises
    ValueError with the reason for a text that is no date, or a date that cannot be.
    """
    text = text.partition("\0")[0].strip()
    if not re.search(r"[1-9]|[^\W\d_]|[^\x00-\x7f]", text):
        return None
    if len(text) > _MOST_CHARACTERS:
        raise ValueError(f"{text[:_SHOWN]!r} is no date")
    try:
        read = _read_english(text) or _read(text)
    except (ValueError, OverflowError):
        raise ValueError(f"{text[:_SHOWN]!r} is no date") from None
    if read is None:
        return None
    if read.offset is None:
        read = replace(read, offset=read_offset(offset))
    if not read.local.microsecond and (digits := re.match("[0-9]+", fraction.strip())):
        read = replace(read, local=read.local.replace(microsecond=_microseconds(digits[0])))
    if read.local.year < EARLIEST_YEAR:
        raise ValueError(f"{text[:_SHOWN]!r} is before the first photograph")
    if read.local > datetime.now(tz=UTC).replace(tzinfo=None) + _LATEST_AHEAD:
        raise ValueError(f"{text[:_SHOWN]!r} is in the future")
    return read


def from_timestamp(seconds: Any) -> Taken:
    """Read seconds since 1970, in UTC.  Raises ValueError for what is no such number."""
    try:
        local = datetime(1970, 1, 1) + timedelta(seconds=int(seconds))  # noqa: DTZ001
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"{str(seconds)[:_SHOWN]!r} is no timestamp") from None
    read = read_date(local.isoformat(), offset="Z")
    if read is None:
        raise ValueError(f"{str(seconds)[:_SHOWN]!r} is no timestamp")
    return read


def read_offset(text: str) -> timedelta | None:
    """Read an offset from UTC, such as +09:00, -0330, +9 or Z; None for anything else."""
    text = text.partition("\0")[0].strip()
    if text.upper() in _ZERO_OFFSETS:
        return timedelta(0)
    found = _OFFSET.fullmatch(text) if len(text) <= _MOST_CHARACTERS else None
    if found is None or int(found["minutes"] or 0) > 59:
        return None
    offset = timedelta(hours=int(found["hours"]), minutes=int(found["minutes"] or 0))
    if offset > _LARGEST_OFFSET:
        return None
    return -offset if found["sign"] in {"-", "\u2212"} else offset


def local_of(taken_at: Any) -> str | None:
    """Return `taken_local` of a stored `taken_at`; None if it is no date.

    Of several dates it is that of the first.  It is what the text shows in front of the offset.
    Numbers are milliseconds since 1970, in UTC; those of four digits are a year.  Years are those
    from 1 to 9999.
    """
    if isinstance(taken_at, list):
        return next(filter(None, map(local_of, taken_at)), None)
    text = str(taken_at)
    try:
        if _MILLISECONDS.fullmatch(text):
            local = datetime(1970, 1, 1) + timedelta(milliseconds=int(text.partition(".")[0]))  # noqa: DTZ001
        else:
            # Nor does Python read a bare T.
            local = datetime.fromisoformat(whole_day(text.removesuffix("T")))
    except (ValueError, OverflowError):
        return None
    return Taken(local.replace(tzinfo=None)).fields()["taken_local"]


def whole_day(text: str) -> str:
    """Complete 2024 or 2024-05 to its first day; leave other texts alone."""
    return text + "-01-01"[len(text) - 4 :] if len(text) in {4, 7} else text


# Elasticsearch reads four digits as a year.
_MILLISECONDS = re.compile(r"-?(?![0-9]{4}$)[0-9]+(?:\.[0-9]*)?")


def _read(text: str) -> Taken | None:
    if lone := _LONE_DATE.fullmatch(text.rstrip(" :")):
        year = int(lone["year"])
        return Taken(datetime(year, int(lone["month"] or 1) or 1, 1)) if year else None  # noqa: DTZ001
    found = _DATE.match(text)
    if found is None:
        raise ValueError(text)
    year = int(found["year"])
    month, day = (int(found[name] or found[f"{name}2"] or 0) for name in ("month", "day"))
    if not year:
        # The clock was never set.
        return None
    if not day:
        # As 1954:00:00.
        day, month = 1, month or 1
    local = datetime(year, month, day)  # noqa: DTZ001
    rest = text[found.end() :]
    if rest[:1].isdigit():
        rest = f"T{rest}"  # 20240531180005
    if _UNKNOWN.fullmatch(rest):
        return Taken(local)
    # The whole text is understood, or nothing of it: 2016-02-03-2017-01-01 is no moment.
    time = _TIME.fullmatch(rest)
    if time is None or (found["day"] or found["day2"]) is None:
        raise ValueError(text)
    return _with_time(local, time)


def _with_time(local: datetime, time: re.Match[str]) -> Taken:
    hour, minute, second = (
        int(next((time[part] for part in parts if time[part]), 0))
        for parts in (("hour", "hour2", "hour3"), ("minute", "minute2", "minute3"), _SECONDS)
    )
    if time["half"]:
        if not 1 <= hour <= 12:
            raise ValueError(hour)
        hour = hour % 12 + (12 if time["half"] in "Pp" else 0)
    # ISO 8601 has an hour 24, and clocks have leap seconds.
    is_midnight = (hour, minute, second) == (24, 0, 0)
    if (hour > 23 and not is_midnight) or minute > 59 or second > 60:
        raise ValueError(hour)
    local += timedelta(hours=hour, minutes=minute, seconds=second)
    local = local.replace(microsecond=_microseconds(time["fraction"] or ""))
    offset = read_offset(time["offset"])
    if offset is None and time["offset"].strip():
        raise ValueError(time["offset"])
    return Taken(local, offset)


def _read_english(text: str) -> Taken | None:
    """Read the form of C's `ctime`, such as Fri May 31 18:00:05 2024."""
    if not text[:1].isalpha():
        return None
    return Taken(datetime.strptime(text, "%a %b %d %H:%M:%S %Y"))  # noqa: DTZ007


def _microseconds(digits: str) -> int:
    # Elasticsearch keeps milliseconds of a date.
    return int(digits[:3].ljust(3, "0")) * 1000 if digits else 0


def _offset_text(offset: timedelta | None) -> str:
    if offset is None:
        return ""
    minutes = round(offset.total_seconds() / 60)
    return f"{'-' if minutes < 0 else '+'}{abs(minutes) // 60:02}:{abs(minutes) % 60:02}"


# -- Names of files

# 20240101, 2024-01-01, 2024_01_01 or 2024.01.01, with a time of the same kinds or without; or 14
# digits, and 3 more of thousandths.
_NAME = re.compile(
    r"(?<![0-9])(?<![0-9][A-Za-z])(?P<year>1[89][0-9]{2}|20[0-9]{2})(?P<gap>[-_.]?)"
    r"(?P<month>[0-9]{2})(?P=gap)(?P<day>[0-9]{2})"
    r"(?:(?:[-_. T]|,? (?:at|um|om|kl\.|à|a las|alle|às|o) )"
    r"(?P<hour>[0-9]{1,2})(?P<colon>[-_.:]?)(?P<minute>[0-9]{2})(?P=colon)(?P<second>[0-9]{2})"
    r"(?:[-_.]?(?P<fraction>[0-9]{3}))?(?![0-9])(?P<utc>Z(?![0-9A-Za-z]))?"
    r"(?:[ \u202f](?P<half>[AaPp])[Mm]\b)?"
    r"|(?<=[0-9]{8})(?P<digits>[0-9]{6})(?P<thousandths>[0-9]{3})?(?![0-9A-Za-z])|(?![0-9A-Za-z]))"
)
_EARLIEST_DIGITS = 1990  # a name of eight digits alone is the date of no earlier picture
_UTC_NAMES = ("PXL_",)  # of Google's cameras


def date_in_name(name: str) -> Taken | None:
    """Read the date in a file's name, as phones give them; None without one."""
    for found in _NAME.finditer(name):
        day = "-".join(found[part] for part in ("year", "month", "day"))
        if not found["gap"] and int(found["year"]) < _EARLIEST_DIGITS:
            continue
        time = ""
        if found["hour"]:
            half = f" {found['half']}M" if found["half"] else ""
            time = "T" + ":".join(found[part] for part in ("hour", "minute", "second"))
            time += f".{found['fraction']}" * bool(found["fraction"]) + half
        if digits := found["digits"]:
            # One number: if its end is no time, its beginning is no date.
            time = f"T{digits[:2]}:{digits[2:4]}:{digits[4:]}.{found['thousandths'] or 0}"
        offset = "Z" if time and (found["utc"] or name.startswith(_UTC_NAMES)) else ""
        for text in filter(None, (time and day + time, "" if digits else day)):
            try:
                read = read_date(text, offset=offset)
            except ValueError:
                continue
            if read is not None:
                return replace(read, source="name")
    return None
