"""Every error es_imgsearch raises on purpose.

    ImgSearchError
     ├── UsageError                what was asked for cannot be done as asked (exit code 2)
     │    ├── SettingsError
     │    ├── RootError
     │    ├── ProfileUnknown
     │    ├── EncoderUnknown
     │    ├── EncoderMismatch
     │    ├── ModelUnavailable
     │    ├── TextUnsupported
     │    ├── QueryPictureInvalid
     │    ├── FilterInvalid
     │    ├── IndexMissing
     │    ├── AlreadyRunning
     │    ├── IndexConflict
     │    ├── ImageMissing
     │    ├── LabelsInvalid
     │    ├── NotCalibrated
     │    ├── VocabularyInvalid
     │    ├── HeadMissing
     │    ├── HeadMismatch
     │    ├── ExchangeFileInvalid
     │    ├── LibraryMissing
     │    ├── KibanaSourceInvalid
     │    ├── KibanaFileInvalid
     │    └── RenderingUnavailable
     ├── GenerationSwitched        the index is another one now (begin again with it)
     ├── RowInvalid                one row of an imported file cannot be stored
     ├── ReadError                 one file could not become a picture (a failure document)
     │    └── ReadersFailed        no file can be read; none of them is at fault
     ├── EmbedFailed               an encoder raised, or gave no vectors of its dims
     ├── EncodersFailed            no picture can be embedded; none of them is at fault
     ├── KibanaError               Kibana said no, or nothing
     │    ├── KibanaUnreachable    transient (exit code 3)
     │    ├── KibanaDenied
     │    ├── KibanaConflict
     │    └── KibanaRejected
     └── StoreError                Elasticsearch said no, or nothing
          ├── StoreUnreachable     transient (exit code 3)
          ├── StoreBusy            transient
          ├── StoreDenied
          ├── StoreRejected
          └── StoreTooLarge

`transient` decides whether the same call may be tried again; `exit_code` is what the
command line ends with.  Messages are one sentence or two: what is wrong and what to do.
"""

from __future__ import annotations

from typing import ClassVar, Final

EXIT_DONE: Final = 0
EXIT_DIFFERENCE: Final = 1
EXIT_USAGE: Final = 2
EXIT_UNREACHABLE: Final = 3


class ImgSearchError(Exception):
    """Base of the tree."""

    transient: ClassVar[bool] = False
    exit_code: ClassVar[int] = EXIT_DIFFERENCE


class UsageError(ImgSearchError):
    """The request itself has to change before it can work."""

    exit_code = EXIT_USAGE


class SettingsError(UsageError):
    """A setting has a value that cannot be used, or a settings file cannot be read."""


class RootError(UsageError):
    """A watched folder does not exist, overlaps another, or its name is taken."""


class ProfileUnknown(UsageError):
    """No vector profile has that name."""


class EncoderUnknown(UsageError):
    """No encoder plug-in answers to that name."""


class EncoderMismatch(UsageError):
    """The index is sealed to another encoder."""


class ModelUnavailable(UsageError):
    """The encoder's weights or libraries are not on this machine and cannot be fetched."""


class TextUnsupported(UsageError):
    """The encoder embeds pictures only."""


class QueryPictureInvalid(UsageError):
    """What was given as a query picture is not one."""


class FilterInvalid(UsageError):
    """A filter names a field that cannot be filtered, or a value of the wrong kind."""


class IndexMissing(UsageError):
    """There is no index behind that alias."""


class AlreadyRunning(UsageError):
    """Another process is at the same work, and two of them would undo what the other does."""


class IndexConflict(UsageError):
    """An index, alias or schema of that name exists and is not what was asked for."""


class ImageMissing(UsageError):
    """No stored picture has that image_id."""


class LabelsInvalid(UsageError):
    """A file of labels or queries cannot be used; the message names the line."""


class NotCalibrated(UsageError):
    """Relevance was asked for of an index, or by a kind of query, that has no curve."""


class VocabularyInvalid(UsageError):
    """A file of words to tag with cannot be used; the message names the facet."""


class HeadMissing(UsageError):
    """No head was trained for the index, and what was asked for needs one."""


class HeadMismatch(UsageError):
    """The trained head belongs to another encoder than the index's."""


class ExchangeFileInvalid(UsageError):
    """A file to import is not there, cannot be read, or lacks what every row needs."""


class KibanaSourceInvalid(UsageError):
    """A file that saved objects are built from does not parse, or names what is not there."""


class KibanaFileInvalid(UsageError):
    """A file of saved objects cannot be read."""


class LibraryMissing(UsageError):
    """What was asked for needs an optional library that is not installed."""


class RenderingUnavailable(UsageError):
    """An optional library for showing results is not installed."""


class GenerationSwitched(ImgSearchError):
    """The index was switched to another generation, perhaps of another encoder, meanwhile.

    What was begun with the one before has to be begun again; clients, `watch` and `sync` do so by
    themselves.
    """


class RowInvalid(ImgSearchError):
    """One row of an imported file cannot be stored, and the import was to stop there."""


class ReadError(ImgSearchError):
    """A file could not become a picture.

    `error_class` is one of a small, stable set of names (see `es_imgsearch.read.file`), stored in
    the failure document and counted in Kibana.
    """

    def __init__(self, error_class: str, message: str) -> None:
        super().__init__(message)
        self.error_class = error_class
        self.message = message

    def __reduce__(self) -> tuple[type[ReadError], tuple[str, str]]:
        return type(self), (self.error_class, self.message)


class ReadersFailed(ReadError):
    """The processes that read files end again and again, whatever they are given."""


class EmbedFailed(ImgSearchError):
    """An encoder raised something, or gave what are no vectors of its dims."""


class EncodersFailed(ImgSearchError):
    """The encoder embeds nothing: its model cannot be loaded, or whatever it is given fails."""


class KibanaError(ImgSearchError):
    """Kibana could not do what was asked."""


class KibanaUnreachable(KibanaError):
    """No answer, or not yet: refused, timed out, still starting."""

    transient = True
    exit_code = EXIT_UNREACHABLE


class KibanaDenied(KibanaError):
    """Wrong or missing credentials, or too few privileges."""

    exit_code = EXIT_USAGE


class KibanaConflict(KibanaError):
    """Some saved objects are there already; none was replaced."""


class KibanaRejected(KibanaError):
    """Kibana refused the objects; trying again cannot help."""


class StoreError(ImgSearchError):
    """Elasticsearch could not do what was asked."""


class StoreUnreachable(StoreError):
    """No answer: refused, timed out, or the name does not resolve."""

    transient = True
    exit_code = EXIT_UNREACHABLE


class StoreBusy(StoreError):
    """Elasticsearch answered that it cannot now (429, 503, a read-only block)."""

    transient = True
    exit_code = EXIT_UNREACHABLE


class StoreDenied(StoreError):
    """Wrong or missing credentials, or too few privileges."""

    exit_code = EXIT_USAGE


class StoreRejected(StoreError):
    """Elasticsearch refused this very request or document; trying again cannot help."""


class StoreTooLarge(StoreError):
    """The request as a whole is larger than the server or a proxy takes; halves may pass."""
