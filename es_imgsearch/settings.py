"""Settings from the command line, the environment, es-imgsearch.toml, defaults."""

from __future__ import annotations

import logging
import os
import re
import socket
import tomllib
from collections import ChainMap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import (
    AliasChoices,
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic_settings import BaseSettings, EnvSettingsSource, SettingsConfigDict

from es_imgsearch.errors import SettingsError, did_you_mean, value_problem

CONFIG_NAME = "es-imgsearch.toml"
ENVIRONMENT_PREFIX = "ES_IMGSEARCH_"

_NOT_OURS = {f"{ENVIRONMENT_PREFIX}ES_HOME"}  # of dev/elasticsearch
_ADDRESSES = {"es_url", "kibana_url", "service", "encoder_url"}
_INDEX_NAME = re.compile(r"""(?![_.+-])[^ "*+\\/|<>?,#:]+""")

logger = logging.getLogger(__name__)


def available_cores() -> int:
    """Count the cores this process may use, in a container fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def default_read_workers(cores: int) -> int:
    """Use every core up to 8, of more a third: embedding takes longer than reading."""
    return min(cores, max(8, cores // 3))


def _shared(name: str) -> AliasChoices:
    """Let a variable without our prefix, which other tools read too, win over ours."""
    return AliasChoices(name, ENVIRONMENT_PREFIX + name)


class Settings(BaseSettings):
    """All settings, each with its description under it; units are in their names.

    In the environment a setting is `ES_IMGSEARCH_` and its name in capitals; `ES_URL`,
    `ES_API_KEY` and `ES_CA_CERTS` are shared with other Elasticsearch tools. `Settings(...)` uses
    its arguments and the defaults only; `load_settings` reads the other sources.
    """

    model_config = SettingsConfigDict(
        frozen=True,
        hide_input_in_errors=True,
        validate_default=False,
        env_prefix=ENVIRONMENT_PREFIX,
        enable_decoding=False,
    )

    es_url: str = Field("http://127.0.0.1:9200", validation_alias=_shared("es_url"))
    """Addresses of Elasticsearch's nodes, with commas between; may carry user:password@."""
    es_api_key: SecretStr | None = Field(None, validation_alias=_shared("es_api_key"))
    """API key, as Kibana shows it (base64 of id:key)."""
    es_ca_certs: Path | None = Field(None, validation_alias=_shared("es_ca_certs"))
    """PEM file of the authority that signed Elasticsearch's certificate."""
    request_timeout_seconds: float = Field(30.0, gt=0)
    """How long one request to Elasticsearch may take."""
    index: str = "images"
    """Alias of the pictures' index; failures are in `<index>-failures`."""
    encoder: str | None = None
    """Encoder for `init`; elsewhere the index says which one it needs."""
    encoder_url: str | None = None
    """Address of a running `serve` whose model embeds, in place of one here."""
    service: str = "auto"
    """The `serve` that `search` asks: its address, none, or auto for one of the same user, index
    and Elasticsearch on this machine."""
    service_token: SecretStr | None = None
    """Token for them, if they need one."""
    host: str = Field(default_factory=socket.gethostname, min_length=1)
    """Name of this machine in the index; set it where a container's changes."""
    models_dir: Path | None = None
    """Folder that holds downloaded models, one folder each."""
    originals: Path | None = None
    """File of `export` (.h5) with whole vectors, by which hits of profile `reduced` are put in
    order again; by default what `init` or `import` was given."""
    cache_dir: Path | None = None
    """Folder for what can be made again: exported models, how fast they run, thumbnails."""
    device: str = "auto"
    """Where models run: auto, cpu, cuda or mps."""
    backend: Literal["auto", "torch", "onnx"] = "auto"
    """What runs models: torch or ONNX Runtime; auto follows a rule, or what `encoder` measured."""
    dtype: Literal["auto", "float32", "bfloat16", "float16", "int8"] = "auto"
    """What models calculate in; int8 (quantised, ONNX Runtime only) is never chosen by itself."""
    threads: int | None = Field(None, ge=1)
    """Threads a model runs on; by default all, or half for a light one."""
    exclude: tuple[str, ...] = ()
    """Patterns of files and folders to leave out, besides the usual ones, as in a .gitignore: the
    last that matches decides, and one with `!` before it takes back in."""
    follow_links: bool = False
    """Index what links to folders lead to, too, but for folders that are watched anyway."""
    describers: tuple[str, ...] = ()
    """Describers to run: names (then only these), or with a dash to leave out.  [default: all]"""
    settle_seconds: float = Field(1.0, ge=0)
    """A file still open elsewhere is read when unchanged this long."""
    poll_seconds: float = Field(30.0, gt=0)
    """How often folders without events, and URLs, are compared with the index."""
    reconcile_minutes: float = Field(10.0, gt=0)
    """How often every folder is compared with the index."""
    compare_ctime: bool = True
    """Read stored files again if their ctime alone changed, such as by chmod or by a change behind
    an equal size and time; switch it off where ctime means nothing, as on some network shares."""
    max_delete_share: float = Field(0.2, ge=0, le=1)
    """Deletions pause when more than this share of the pictures that a folder held when it was last
    compared whole is gone, together with what was deleted within 48 hours."""
    workers: int = Field(1, ge=1, le=64)
    """Processes that embed pictures; more than 1 pay on machines of many cores, and each loads the
    model."""
    ray_address: str | None = None
    """Head node of a Ray cluster, HOST:PORT; by default `sync --engine ray` starts Ray here."""
    ray_cpus: float = Field(1.0, gt=0)
    """Cores that Ray counts for each of its actors, whose readers and model use as many."""
    ray_gpus: float = Field(0.0, ge=0)
    """GPUs of each actor of Ray, such as 1, or 0.5 for two actors on one."""
    ray_stall_minutes: float = Field(10.0, gt=0)
    """`sync --engine ray` ends with an error when nothing was indexed for so long."""
    read_workers: int = Field(default_factory=lambda: default_read_workers(available_cores()), ge=1)
    """Processes that read pictures."""
    read_timeout_seconds: float = Field(30.0, gt=0)
    """A file that takes longer to read becomes a failure."""
    read_memory_mb: int = Field(3072, ge=512)
    """Address space one reading process may use."""
    max_pixels: int = Field(250_000_000, ge=1)
    """Larger pictures become failures instead of being decoded."""
    batch_size: int | None = Field(None, ge=1, le=1024)
    """Pictures embedded at once; by default 8, or 64 on a GPU."""
    batch_wait_ms: float = Field(50.0, ge=0)
    """How long an incomplete batch waits for more pictures."""
    queue_size: int = Field(256, ge=1)
    """Files on their way at once."""
    queue_memory_mb: int = Field(64, ge=1)
    """Memory for decoded pictures on their way, to which their number is reduced."""
    lease_seconds: float = Field(20.0, gt=0)
    """How long after a killed daemon or reindex another may take its work over."""
    log_searches: bool = False
    """Note words, time and hits of each search in `<index>-searches`, which `init` makes."""
    kibana_url: str = Field("http://127.0.0.1:5601", validation_alias=_shared("kibana_url"))
    """Address of Kibana; may carry user:password@."""
    kibana_api_key: SecretStr | None = Field(None, validation_alias=_shared("kibana_api_key"))
    """API key for Kibana (base64 of id:key).  By default es_api_key."""
    kibana_ca_certs: Path | None = None
    """PEM file of the authority that signed Kibana's certificate.  By default es_ca_certs."""
    service_url: str = "http://127.0.0.1:8080"
    """Where browsers reach `serve`, which gives Kibana its thumbnails."""
    thumbnail_pixels: int = Field(320, ge=16, le=2048)
    """Longer side of the thumbnails that `serve` gives."""
    thumbnail_cache_mb: int = Field(1024, ge=1)
    """How much disk `serve` keeps thumbnails and previews on."""
    metrics_port: int | None = Field(None, ge=0, le=65535)
    """Serve /metrics and /healthz here."""
    metrics_address: str = "127.0.0.1"
    """Address that metrics_port listens on; 0.0.0.0 is for every machine, without a password."""
    log_format: Literal["text", "ecs"] = "text"
    """How `watch` logs: text, or JSON in the Elastic Common Schema."""
    shutdown_seconds: float = Field(20.0, gt=0)
    """How long work in hand may take to finish after SIGTERM."""

    @classmethod
    def settings_customise_sources(cls, *_: Any, **sources: Any) -> tuple[Any, ...]:
        """Take the arguments only; `load_settings` merges the sources."""
        return (sources["init_settings"],)

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        for name, value in super().__repr_args__():
            has_password = name in _ADDRESSES and "@" in (value or "")
            yield name, without_password(value) if has_password else value

    @field_validator("*", mode="before")
    @classmethod
    def _no_bool(cls, value: Any, field: ValidationInfo) -> Any:
        # `max_delete_share = true` of a file would be 1, and deletions would never pause.
        wanted = cls.model_fields[field.field_name or ""].annotation
        if isinstance(value, bool) and wanted is not bool:
            raise ValueError("it takes neither true nor false")
        return value

    @field_validator("index")
    @classmethod
    def _index_name(cls, value: str) -> str:
        if not _INDEX_NAME.fullmatch(value) or value != value.lower() or len(value.encode()) > 200:
            raise ValueError(
                f"{value!r} cannot name an index: use lower-case letters, digits, '-' and '_',"
                " begin with a letter or digit, and use no more than 200 bytes"
            )
        return value

    @field_validator("es_url", "kibana_url", "service_url")
    @classmethod
    def _address(cls, value: str, field: ValidationInfo) -> str:
        if not value.startswith(("http://", "https://")):
            # The value itself may hold a password.
            names = {"es_url": "Elasticsearch", "kibana_url": "Kibana"}
            whose = names.get(field.field_name or "", "the service")
            raise ValueError(f"the address of {whose} must begin with http:// or https://")
        parts = addresses_of(value) if field.field_name == "es_url" else [value]
        if not all(map(_may_be_host, parts)):
            # Not repeated: what is taken for the host may be of a password.
            raise ValueError(
                "no host has the name in this address: what stands between two dots must have 1 to"
                " 63 letters, as in http://elastic.example.com:9200"
            )
        return value

    @field_validator("es_api_key", "kibana_api_key", "service_token", mode="before")
    @classmethod
    def _key(cls, value: Any, field: ValidationInfo) -> Any:
        # It becomes a header unchanged; the client's error about a bad one would repeat it.
        if isinstance(value, SecretStr):
            value = value.get_secret_value()
        if not isinstance(value, str):
            return value
        value = value.strip()
        if not all("!" <= letter <= "~" for letter in value):
            what = "a token" if field.field_name == "service_token" else "an API key"
            raise ValueError(f"{what} is of printable ASCII characters, without spaces")
        return value or None

    @field_validator("exclude", mode="before")
    @classmethod
    def _globs(cls, value: Any) -> Any:
        # In the environment a list is written with the separator of PATH.
        return tuple(filter(None, value.split(os.pathsep))) if isinstance(value, str) else value

    @field_validator("describers", mode="before")
    @classmethod
    def _describer_names(cls, value: Any) -> Any:
        texts = [value] if isinstance(value, str) else value
        if not isinstance(texts, (list, tuple)) or not all(isinstance(one, str) for one in texts):
            return value
        return tuple(name for text in texts for one in text.split(",") if (name := one.strip()))


def _may_be_host(url: str) -> bool:
    """Return False if no resolver takes the host; other faults are found elsewhere."""
    try:
        (urlsplit(url).hostname or "").encode("idna")
    except ValueError as error:
        return not isinstance(error, UnicodeError)
    return True


def addresses_of(url: str) -> list[str]:
    """Split addresses with commas between; a password may have commas, too."""
    return re.split(r",\s*(?=https?://)", url)


def without_password(url: str) -> str:
    """Return the addresses without everything before the last @ of each."""
    parts = addresses_of(url)
    if any("@" not in each for each in parts[: url.count("@")]):
        parts = [url]  # a password may look like two addresses
    split = (each.partition("://") for each in parts)
    return ",".join(f"{scheme}://{rest.rpartition('@')[2]}" for scheme, _, rest in split)


def load_settings(
    given: Mapping[str, Any] | None = None,
    *,
    config: Path | None = None,
    environment: Mapping[str, str] | None = None,
    given_by: str = "the command line",
) -> Settings:
    """Merge the four sources, the first that names a setting winning.

    `given` is the command line, in which None counts as absent; errors call it `given_by`.
    `config` is a file that must exist; without it `es-imgsearch.toml` of the working folder is read
    if it is there.  Raises SettingsError in one line that names the source of the bad value, never
    the value of a secret.
    """
    return _checked(
        {
            given_by: {k: v for k, v in (given or {}).items() if v is not None},
            "the environment": _from_environment(
                os.environ if environment is None else environment
            ),
            "the settings file": _from_file(config),
        }
    )


def changed_settings(settings: Settings, **update: Any) -> Settings:
    """Settings with some replaced; None leaves one as it is.  Raises SettingsError."""
    return _checked(
        {
            "the arguments": {k: v for k, v in update.items() if v is not None},
            "the settings before": {k: getattr(settings, k) for k in settings.model_fields_set},
        }
    )


def _checked(sources: Mapping[str, dict[str, Any]]) -> Settings:
    """Merge sources, given by their names in errors; the first that has a value wins."""
    values = ChainMap(*sources.values())
    for name in values:
        if name not in Settings.model_fields:
            known = (
                f"no setting has that name; there are {', '.join(sorted(Settings.model_fields))}"
            )
            meant = did_you_mean(name, Settings.model_fields)
            raise SettingsError(f"{_named(name, sources)}: {known}.{meant}")
    try:
        return Settings(**values)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        named = _named(str(first["loc"][0]), sources)
        raise SettingsError(f"{named}: {value_problem(first)}") from None


def _named(setting: str, sources: Mapping[str, Any]) -> str:
    return f"{setting} (from {next(name for name in sources if setting in sources[name])})"


def _from_environment(environment: Mapping[str, str]) -> dict[str, Any]:
    known = {ENVIRONMENT_PREFIX + setting.upper() for setting in Settings.model_fields} | _NOT_OURS
    for variable in sorted(environment):
        if variable.startswith(ENVIRONMENT_PREFIX) and variable not in known:
            meant = did_you_mean(variable, known)
            logger.warning("%s is no setting and has no effect.%s", variable, meant)
    source = EnvSettingsSource(Settings)
    # pydantic-settings looks variables up in lower case; only those in capitals are settings.
    source.env_vars = {k.lower(): v for k, v in environment.items() if v and k.isupper()}
    return source()


def _from_file(config: Path | None) -> dict[str, Any]:
    path = config or Path(CONFIG_NAME)
    if config is None and not path.is_file():
        return {}
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SettingsError(f"The settings file {path} cannot be read: {error}.") from error
