"""Settings: the command line, then the environment, then es-imgsearch.toml, then defaults."""

from __future__ import annotations

import logging
import os
import socket
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from es_imgsearch.errors import SettingsError

CONFIG_NAME = "es-imgsearch.toml"
ENVIRONMENT_PREFIX = "ES_IMGSEARCH_"

# Names other Elasticsearch tools use too; they win over our own prefix.
SHARED_VARIABLES = {
    "es_url": "ES_URL",
    "es_api_key": "ES_API_KEY",
    "es_ca_certs": "ES_CA_CERTS",
    "kibana_url": "KIBANA_URL",
    "kibana_api_key": "KIBANA_API_KEY",
}

# Read by the launcher of Elasticsearch that comes with the source.
_NOT_OURS = {f"{ENVIRONMENT_PREFIX}ES_HOME"}

logger = logging.getLogger(__name__)


def available_cores() -> int:
    """Cores this process may use, which in a container is fewer than the machine has."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def default_read_workers(cores: int) -> int:
    """Every core up to 8, then a third of them.

    A JPEG of 12 megapixels takes 59 ms of CPU to read and 88 ms to embed with ViT-B/32
    (benchmarks/pipeline_speed.py), and most pictures are smaller; on few cores readers and the
    encoder take turns.
    """
    return min(cores, max(8, cores // 3))


class Settings(BaseModel):
    """Every setting, one word each, unit in the name.

    In the environment a setting is `ES_IMGSEARCH_` and its name in capitals; `ES_URL`,
    `ES_API_KEY` and `ES_CA_CERTS` are shared with other Elasticsearch tools.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    es_url: str = Field(
        "http://127.0.0.1:9200",
        description="Address of Elasticsearch; may carry user:password@.",
    )
    es_api_key: SecretStr | None = Field(
        None,
        description="API key, as Kibana shows it (base64 of id:key).",
    )
    es_ca_certs: Path | None = Field(
        None,
        description="PEM file of the authority that signed Elasticsearch's certificate.",
    )
    request_timeout_seconds: float = Field(
        30.0, gt=0, description="How long one request to Elasticsearch may take."
    )
    index: str = Field(
        "images",
        description="Alias of the pictures' index; `<index>-failures` stands beside it.",
    )
    encoder: str | None = Field(
        None, description="Encoder for `init`; elsewhere the index says which one it needs."
    )
    host: str = Field(
        default_factory=socket.gethostname,
        min_length=1,
        description="Name of this machine in the index; set it where a container's changes.",
    )
    models_dir: Path | None = Field(
        None, description="Folder that holds downloaded models, one folder each."
    )
    originals: Path | None = Field(
        None,
        description="File of `export` (.h5) with whole vectors, by which hits of profile `reduced`"
        " are put in order again; by default what `init` or `import` was given.",
    )
    cache_dir: Path | None = Field(
        None,
        description="Folder for what can be made again: models exported for ONNX Runtime, and which"
        " way of running them was measured to be the fastest.",
    )
    device: str = Field("auto", description="Where models run: auto, cpu, cuda or mps.")
    backend: Literal["auto", "torch", "onnx"] = Field(
        "auto", description="What runs models: torch or ONNX Runtime; auto is as measured."
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16", "int8"] = Field(
        "auto",
        description="What models calculate in; int8 (quantised, ONNX Runtime only) is never chosen"
        " by itself.",
    )
    threads: int | None = Field(
        None, ge=1, description="Threads a model runs on; by default as measured."
    )
    exclude: tuple[str, ...] = Field(
        (), description="Globs of files and folders to leave out, besides the usual ones."
    )
    describers: tuple[str, ...] = Field(
        (),
        description="Describers to run: names (then only these), or names with a dash before them"
        " to leave out; by default all that are installed.",
    )
    settle_seconds: float = Field(
        1.0, ge=0, description="A file still open elsewhere is read when unchanged this long."
    )
    poll_seconds: float = Field(
        30.0, gt=0, description="How often folders without events are compared with the index."
    )
    reconcile_minutes: float = Field(
        10.0, gt=0, description="How often every folder is compared with the index."
    )
    max_delete_share: float = Field(
        0.2,
        ge=0,
        le=1,
        description="Deletions pause when more than this share of a folder's pictures is gone.",
    )
    workers: int = Field(
        1,
        ge=1,
        le=64,
        description="Processes that embed pictures; more than 1 pay on machines of many cores, and"
        " each loads the model.",
    )
    read_workers: int = Field(
        default_factory=lambda: default_read_workers(available_cores()),
        ge=1,
        description="Processes that read pictures.",
    )
    read_timeout_seconds: float = Field(
        30.0, gt=0, description="A file that takes longer to read becomes a failure."
    )
    read_memory_mb: int = Field(
        3072, ge=512, description="Address space one reading process may use."
    )
    max_pixels: int = Field(
        250_000_000, ge=1, description="Larger pictures become failures instead of being decoded."
    )
    batch_size: int | None = Field(
        None, ge=1, le=1024, description="Pictures embedded at once; by default as measured."
    )
    batch_wait_ms: float = Field(
        50.0, ge=0, description="How long an incomplete batch waits for more pictures."
    )
    queue_size: int = Field(256, ge=1, description="Files on their way at once.")
    queue_memory_mb: int = Field(
        64,
        ge=1,
        description="Memory for decoded pictures on their way; fewer files are on their way where"
        " they would need more.",
    )
    log_searches: bool = Field(
        False,
        description="Note every search in `<index>-searches`: its words, time and hits; `init`"
        " makes that index.",
    )
    kibana_url: str = Field(
        "http://127.0.0.1:5601",
        description="Address of Kibana; may carry user:password@.",
    )
    kibana_api_key: SecretStr | None = Field(
        None,
        description="API key for Kibana (base64 of id:key).  By default es_api_key.",
    )
    kibana_ca_certs: Path | None = Field(
        None,
        description="PEM file of the authority that signed Kibana's certificate.  By default"
        " es_ca_certs.",
    )
    service_url: str = Field(
        "http://127.0.0.1:8080",
        description="Where browsers reach `serve`, which gives Kibana its thumbnails.",
    )
    thumbnail_pixels: int = Field(
        320, ge=16, le=2048, description="Longer side of the thumbnails that `serve` gives."
    )
    thumbnail_cache_mb: int = Field(
        1024, ge=1, description="How much disk `serve` keeps thumbnails on."
    )
    metrics_port: int | None = Field(
        None, ge=0, le=65535, description="Serve /metrics and /healthz here."
    )
    metrics_address: str = Field(
        "127.0.0.1",
        description="Where metrics_port is listened on: 0.0.0.0 for whoever reaches this machine,"
        " without a password.",
    )
    log_format: Literal["text", "ecs"] = Field(
        "text", description="How `watch` logs: text, or JSON in the Elastic Common Schema."
    )
    shutdown_seconds: float = Field(
        20.0, gt=0, description="How long work in hand may take to finish after SIGTERM."
    )

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        for name, value in super().__repr_args__():
            yield name, _without_password(value) if name in {"es_url", "kibana_url"} else value

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
        forbidden = set(' "*+\\/|<>?,#:')
        if (
            not value
            or value != value.lower()
            or value[0] in "_-+."
            or forbidden & set(value)
            or len(value.encode()) > 200
        ):
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
            whose = {"es_url": "Elasticsearch", "kibana_url": "Kibana"}.get(
                field.field_name or "", "the service"
            )
            raise ValueError(f"the address of {whose} must begin with http:// or https://")
        return value

    @field_validator("es_api_key", "kibana_api_key", mode="before")
    @classmethod
    def _key(cls, value: Any) -> Any:
        # It becomes a header as it is; what the client says of a bad one would repeat it.
        if isinstance(value, SecretStr):
            value = value.get_secret_value()
        if not isinstance(value, str):
            return value
        value = value.strip()
        if not all("!" <= letter <= "~" for letter in value):
            raise ValueError("an API key is of printable ASCII characters, without spaces")
        return value or None

    @field_validator("exclude", mode="before")
    @classmethod
    def _globs(cls, value: Any) -> Any:
        # In the environment a list is written with the separator of PATH.
        return tuple(filter(None, value.split(os.pathsep))) if isinstance(value, str) else value

    @field_validator("describers", mode="before")
    @classmethod
    def _describer_names(cls, value: Any) -> Any:
        """Of one text with commas, or of several, each name."""
        texts = [value] if isinstance(value, str) else value
        if not isinstance(texts, (list, tuple)) or not all(isinstance(one, str) for one in texts):
            return value
        return tuple(name for text in texts for one in text.split(",") if (name := one.strip()))


def _without_password(url: str) -> str:
    """The address as it may be shown: what stands before the last @ left out."""
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}"


def load_settings(
    given: Mapping[str, Any] | None = None,
    *,
    config: Path | None = None,
    environment: Mapping[str, str] | None = None,
    given_by: str = "the command line",
) -> Settings:
    """Merge the four sources, the first that names a setting winning.

    `given` is the command line (None values are as good as absent), or what else errors call it by,
    `given_by`; `config` is a file that must exist; without it `es-imgsearch.toml` of the working
    folder is read if it is there.  Raises SettingsError in one line that names the source of the
    bad value, never the value of a secret.
    """
    sources: list[tuple[str, dict[str, Any]]] = [
        ("the settings file", _from_file(config)),
        ("the environment", _from_environment(os.environ if environment is None else environment)),
        (given_by, {k: v for k, v in (given or {}).items() if v is not None}),
    ]
    merged: dict[str, Any] = {}
    origin: dict[str, str] = {}
    for name, values in sources:
        merged.update(values)
        origin.update(dict.fromkeys(values, name))
    return _checked(merged, origin)


def changed_settings(settings: Settings, **update: Any) -> Settings:
    """The same settings but for these; None leaves one as it is.  Raises SettingsError."""
    given = {name: value for name, value in update.items() if value is not None}
    kept = {name: getattr(settings, name) for name in settings.model_fields_set}
    return _checked({**kept, **given}, dict.fromkeys(given, "the arguments"))


def _checked(values: Mapping[str, Any], origin: Mapping[str, str]) -> Settings:
    try:
        return Settings(**values)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        setting = str(first["loc"][0]) if first["loc"] else "settings"
        message = first["msg"].removeprefix("Value error, ")
        if first["type"] == "extra_forbidden":
            known = ", ".join(sorted(Settings.model_fields))
            message = f"no setting has that name; there are {known}"
        raise SettingsError(
            f"{setting} (from {origin.get(setting, 'the defaults')}): {message}."
        ) from None


def _from_environment(environment: Mapping[str, str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for setting in Settings.model_fields:
        for variable in (ENVIRONMENT_PREFIX + setting.upper(), SHARED_VARIABLES.get(setting)):
            if variable and environment.get(variable):
                found[setting] = environment[variable]
    known = {ENVIRONMENT_PREFIX + setting.upper() for setting in Settings.model_fields} | _NOT_OURS
    for variable in sorted(environment):
        if variable.startswith(ENVIRONMENT_PREFIX) and variable not in known:
            logger.warning("%s is no setting and has no effect.", variable)
    return found


def _from_file(config: Path | None) -> dict[str, Any]:
    path = config or Path(CONFIG_NAME)
    if config is None and not path.is_file():
        return {}
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SettingsError(f"The settings file {path} cannot be read: {error}.") from error
