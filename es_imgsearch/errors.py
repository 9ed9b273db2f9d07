"""Every error that es_imgsearch raises on purpose.

    ImgSearchError
     ├── UsageError                the call has to change before it can work (exit code 2)
     │    ├── SettingsError
     │    ├── RootError
     │    ├── EncoderUnknown
     │    ├── EncoderMismatch
     │    ├── ModelUnavailable
     │    ├── TextUnsupported
     │    ├── QueryPictureInvalid
     │    ├── FilterInvalid
     │    ├── FileInvalid
     │    ├── IndexMissing
     │    ├── IndexConflict
     │    ├── IndexReplaced
     │    ├── ImageMissing
     │    ├── AlreadyRunning
     │    ├── NotCalibrated
     │    ├── ServiceUnsuitable    a `serve` cannot do what is asked of it
     │    └── LibraryMissing
     ├── GenerationSwitched        the alias points to another generation now (start again)
     ├── RowInvalid                one row of an imported file cannot be stored
     ├── ReadError                 one file cannot be read as a picture (a failure document)
     │    └── ReadersFailed        no file can be read; no file is the cause
     ├── EmbedFailed               an encoder raised, or returned no vectors of its dims
     ├── EncodersFailed            no picture can be embedded; no picture is the cause
     ├── EngineStalled             actors of another engine work on nothing any more
     ├── KibanaError               Kibana refused the request
     │    ├── KibanaUnreachable    no answer; transient (exit code 3)
     │    └── KibanaDenied         credentials or privileges (exit code 2)
     └── StoreError                Elasticsearch failed or refused the request
          ├── StoreUnreachable     no answer; transient (exit code 3)
          │    └── ServiceUnreachable   no answer of a `serve`
          ├── StoreBusy            cannot answer now; transient (exit code 3)
          │    └── ShardsMoving     nodes go or come; works a moment later
          ├── StoreDenied          credentials or privileges (exit code 2)
          └── StoreRejected        this request or document is refused

`transient` decides whether the same call may be retried; `exit_code` is the exit code of the
command line.  A message has one or two sentences: what is wrong, and what to do.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any, ClassVar, Final

# Unicode categories to escape.  `str.isprintable` would also escape U+202F of macOS, U+3000 of
# Japanese and U+200D of emoji.
_ESCAPED_CATEGORIES: Final = {"Cc", "Cs", "Zl", "Zp"}
# Bidi_Control of Unicode: they show a name in another order than it is written.
_BIDI_CONTROLS: Final = frozenset(
    "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
)

EXIT_DONE: Final = 0
EXIT_DIFFERENCE: Final = 1
EXIT_USAGE: Final = 2
EXIT_UNREACHABLE: Final = 3


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """Format a number of things in a message: "1 file", "12,345 files"."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def escaped(text: str) -> str:
    """Write line ends, control characters and bidirectional controls as escapes."""
    return "".join(
        letter.encode("unicode_escape").decode()
        if letter in _BIDI_CONTROLS or unicodedata.category(letter) in _ESCAPED_CATEGORIES
        else letter
        for letter in text
    )


def readable_bytes(number: float) -> str:
    """Format a number of bytes with the largest unit that fits."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if number < 1000:
            return f"{number:.0f} {unit}" if unit == "bytes" else f"{number:.1f} {unit}"
        number /= 1000
    return f"{number:.1f} TB"


class ImgSearchError(Exception):
    """Base of every error here."""

    transient: ClassVar[bool] = False
    exit_code: ClassVar[int] = EXIT_DIFFERENCE


class UsageError(ImgSearchError):
    """The call cannot work as given; it has to change first."""

    exit_code = EXIT_USAGE


class SettingsError(UsageError):
    """A setting has a value that cannot be used, or a settings file cannot be read."""


class RootError(UsageError):
    """A watched folder does not exist, overlaps another, or its name is taken."""


class EncoderUnknown(UsageError):
    """No encoder has that name, or the plug-in of that name is broken."""


class EncoderMismatch(UsageError):
    """Vectors, or a trained classifier, belong to another encoder than the index's."""


class ModelUnavailable(UsageError):
    """The encoder's weights or libraries are not on this machine.

    They cannot be fetched either.
    """


class TextUnsupported(UsageError):
    """The encoder embeds pictures only."""


class QueryPictureInvalid(UsageError):
    """The query picture cannot be read as a picture."""


class FilterInvalid(UsageError):
    """A filter names a field that cannot be filtered, or a value of the wrong kind."""


class FileInvalid(UsageError):
    """A given file is missing or cannot be used.

    Such files are labels, vocabularies, vectors and saved objects.  The message names the file, and
    the line, column or part where there is one.
    """


class IndexMissing(UsageError):
    """The alias points to no index."""


class AlreadyRunning(UsageError):
    """Another process does the same work; two at once would undo each other's."""


class IndexConflict(UsageError):
    """An index, alias or schema of that name exists and differs from the wanted one."""


class IndexReplaced(UsageError):
    """The index was deleted and made again under its name while this ran.

    The new one may be of another encoder, for other pictures.
    """


class ImageMissing(UsageError):
    """No stored picture has that image_id."""


class NotCalibrated(UsageError):
    """The index, or this kind of query, has no calibration curve for relevance."""


class ServiceUnsuitable(UsageError):
    """What answers is no `serve` of this project, or refuses what is asked."""


class LibraryMissing(UsageError):
    """An optional library that this call needs is not installed."""


class GenerationSwitched(ImgSearchError):
    """The alias was switched to another generation meanwhile.

    The other generation may be of another encoder.  Work on the previous generation has to start
    again; clients, `watch` and `sync` do this themselves.
    """


class RowInvalid(ImgSearchError):
    """One row of an imported file cannot be stored, and bad rows are not skipped."""


class ReadError(ImgSearchError):
    """A file cannot be read as a picture.

    `error_class` is one of a small, stable set of names (see `es_imgsearch.read.file`); the failure
    document stores it and Kibana counts it.
    """

    def __init__(self, error_class: str, message: str) -> None:
        super().__init__(message)
        self.error_class = error_class
        self.message = message

    def __reduce__(self) -> tuple[type[ReadError], tuple[str, str]]:
        return type(self), (self.error_class, self.message)


class ReadersFailed(ReadError):
    """The reading processes end repeatedly, with any file."""


class EmbedFailed(ImgSearchError):
    """An encoder raised, or returned something other than vectors of its dims."""


class EncodersFailed(ImgSearchError):
    """The encoder embeds nothing: its model cannot be loaded, or every picture fails."""


class EngineStalled(ImgSearchError):
    """Nothing was indexed for a long time, though there is something to index."""


class KibanaError(ImgSearchError):
    """Kibana refused the request or the saved objects."""


class KibanaUnreachable(KibanaError):
    """No answer, or not yet: refused, timed out, still starting."""

    transient = True
    exit_code = EXIT_UNREACHABLE


class KibanaDenied(KibanaError):
    """Wrong or missing credentials, or too few privileges."""

    exit_code = EXIT_USAGE


class StoreError(ImgSearchError):
    """Elasticsearch could not carry out the request."""


class StoreUnreachable(StoreError):
    """No answer: refused, timed out, or the name does not resolve."""

    transient = True
    exit_code = EXIT_UNREACHABLE


class ServiceUnreachable(StoreUnreachable):
    """No answer of a `serve` that was asked in place of Elasticsearch or of a model."""


class StoreBusy(StoreError):
    """Elasticsearch answered that it cannot do this now (429, 503, a read-only block)."""

    transient = True
    exit_code = EXIT_UNREACHABLE


class ShardsMoving(StoreBusy):
    """A node has gone, and others take over; the same request works a moment later."""


class StoreDenied(StoreError):
    """Wrong or missing credentials, or too few privileges."""

    exit_code = EXIT_USAGE


class StoreRejected(StoreError):
    """Elasticsearch refused this request or document, or it is too large (413).

    A retry cannot help; of a bulk request, halves may pass.
    """


# Parts of messages.

_LONGEST_SHOWN: Final = 60
# What a value should be, by the begin of pydantic's kind of the error.
_EXPECTED: Final = {
    "int": "a whole number",
    "float": "a number",
    "finite": "a finite number",
    "decimal": "a number",
    "bool": "true or false",
    "string": "a text",
    "bytes": "a text",
    "path": "a path",
    "date": "a date such as 2024-05-31",
    "datetime": "a date and time such as 2024-05-31T12:00:00",
    "list": "a list",
    "tuple": "a list",
    "set": "a list",
    "dict": "an object",
    "model": "an object",
}
_LIMITS: Final = {
    "ge": "{}, at least {}",
    "gt": "{} above {}",
    "le": "{} of at most {}",
    "lt": "{} below {}",
    "min_length": "a text or list at least {} long",
    "max_length": "a text or list at most {} long",
    "expected": "one of {}",
}


def shown_value(value: object) -> str:
    """Quote a value as a message shows it; a long one is cut."""
    try:
        text = repr(value)
    except RecursionError:
        return "a deeply nested value"
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}…"


def expected_value(kind: str, limits: Mapping[str, Any]) -> str:
    """Name what a value should be, by pydantic's kind of an error and its limits."""
    for limit, words in _LIMITS.items():
        if limit in limits:
            bound = limits[limit]
            number = "a whole number" if isinstance(bound, int) else "a number"
            if words.count("{}") == 2:
                return words.format(number, f"{bound:g}")
            return words.format(bound)
    return _EXPECTED.get(kind.partition("_")[0], "another kind of value")


def value_problem(error: Mapping[str, Any]) -> str:
    """Return a sentence on one of pydantic's errors, without what may hold a secret."""
    limits, value = error.get("ctx", {}), error.get("input")
    if error["type"] == "value_error":
        return f"{limits['error']}."
    expected = expected_value(error["type"], limits)
    is_secret = any(each in str(error["loc"][0]) for each in ("key", "url", "token"))
    given = "" if is_secret else f", not {shown_value(value)}"
    quoted = str(limits.get("expected", "")).split("'")[1::2]
    return f"it is {expected}{given}.{did_you_mean(value, quoted)}"


def did_you_mean(word: object, known: Iterable[str]) -> str:
    """Return a sentence that names the nearest of the known words; "" if none is near."""
    by_folded = {each.casefold(): each for each in known}
    folded = word.casefold() if isinstance(word, str) else ""
    near = get_close_matches(folded, by_folded, n=1, cutoff=0.6)
    return f" Did you mean {by_folded[near[0]]!r}?" if near else ""
