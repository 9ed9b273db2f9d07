"""Import saved objects into a running Kibana through its HTTP API.

The API is `POST /api/saved_objects/_import` of Kibana 8.  It answers 200 even if nothing was
written, so only `success` counts; one conflict or missing reference rejects every object.
"""

from __future__ import annotations

import re
import time
from base64 import b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import unquote, urlsplit, urlunsplit

import orjson
import urllib3

from es_imgsearch.errors import KibanaDenied, KibanaError, KibanaUnreachable, SettingsError
from es_imgsearch.settings import Settings

_POLL_SECONDS: Final = 1.0
# Kibana before 8.9 refuses some of the object versions written here (`TYPE_VERSIONS`).
_OLDEST_VERSION: Final = (8, 9)
_SPACE: Final = re.compile(r"[a-z0-9_-]+")
# Errors listed in a message; the rest is counted.
_MAX_LISTED: Final = 10

Sleep = Callable[[float], None]


@dataclass(frozen=True, slots=True)
class UploadResult:
    """Numbers of objects that were written, and that replaced others."""

    written: int
    replaced: int


class Kibana:
    """Client of one space of a Kibana; raise SettingsError for unusable settings."""

    def __init__(self, settings: Settings, space: str | None = None) -> None:
        if space is not None and not _SPACE.fullmatch(space):
            raise SettingsError(
                f"{space!r} cannot be a space: its identifier has lower-case letters, digits, '-'"
                " and '_': copy it from the space's address, after /s/."
            )
        self.address, credentials = _without_credentials(settings.kibana_url)
        self._base = self.address + ("" if space in {None, "default"} else f"/s/{space}")
        self._headers = {"kbn-xsrf": "es-imgsearch", **_authorization(settings, credentials)}
        certificates = settings.kibana_ca_certs or settings.es_ca_certs
        if certificates is not None and not certificates.is_file():
            raise SettingsError(f"There is no file {str(certificates)!r} with certificates.")
        self._http = urllib3.PoolManager(
            timeout=settings.request_timeout_seconds,
            retries=False,
            ca_certs=None if certificates is None else str(certificates),
        )

    def wait(self, seconds: float, sleep: Sleep = time.sleep) -> str | None:
        """Wait until Kibana is available; return its version, None if it hides that.

        Raises KibanaUnreachable on timeout, KibanaError for a version that is too old.
        """
        deadline = time.monotonic() + seconds
        while True:
            status = self._status()
            if status["level"] == "available":
                break
            if time.monotonic() + _POLL_SECONDS > deadline:
                raise KibanaUnreachable(
                    f"Kibana at {self.address} is not ready after {seconds:g} s"
                    f" ({status['level']}): look at its log, or wait longer with --wait-seconds."
                )
            sleep(_POLL_SECONDS)
        version: str | None = status["version"]
        if version is not None and _numbers(version) < _OLDEST_VERSION:
            raise KibanaError(
                f"Kibana at {self.address} is {version}; these objects need 8.9 or newer"
                " (they are made for 8.19)."
            )
        return version

    def _status(self) -> Mapping[str, Any]:
        try:
            code, answer = self._request("GET", f"{self.address}/api/status")
        except KibanaUnreachable as error:
            return {"level": str(error), "version": None}
        if code not in {200, 503} or not isinstance(answer, dict):
            return {"level": f"its status page answers {code}", "version": None}
        level = answer.get("status", {}).get("overall", {}).get("level", "no level given")
        # Without credentials Kibana returns only the level.
        return {"level": level, "version": answer.get("version", {}).get("number")}

    def import_objects(self, content: bytes, *, overwrite: bool) -> UploadResult:
        """Write the objects of an NDJSON file.

        Raises KibanaError if some exist and may not be replaced or if Kibana refuses them,
        KibanaDenied, KibanaUnreachable.
        """
        code, answer = self._request(
            "POST",
            f"{self._base}/api/saved_objects/_import?overwrite={str(overwrite).lower()}",
            fields={"file": ("es-imgsearch.ndjson", content, "application/ndjson")},
        )
        if code != 200 or not isinstance(answer, dict):
            raise self._refusal(code, answer)
        if not answer.get("success"):
            raise _failure(answer.get("errors", []))
        results = answer.get("successResults", [])
        return UploadResult(
            answer["successCount"], sum(bool(each.get("overwrite")) for each in results)
        )

    def _request(self, method: str, url: str, **options: Any) -> tuple[int, Any]:
        try:
            answer = self._http.request(method, url, headers=self._headers, **options)
        except urllib3.exceptions.SSLError as error:
            raise KibanaUnreachable(
                f"The certificate of Kibana at {self.address} is not trusted"
                f" ({_reason(error)}): set kibana_ca_certs to the authority that signed it."
            ) from error
        except urllib3.exceptions.HTTPError as error:
            raise KibanaUnreachable(
                f"Kibana at {self.address} does not answer ({_reason(error)}): is it running, and"
                " is kibana_url right?"
            ) from error
        try:
            return answer.status, orjson.loads(answer.data)
        except orjson.JSONDecodeError:
            return answer.status, answer.data[:200].decode(errors="replace")

    def _refusal(self, code: int, answer: Any) -> KibanaError:
        message = answer.get("message", "") if isinstance(answer, dict) else str(answer)
        detail = f": {message[:400]}" if message else ""
        if code == 401:
            return KibanaDenied(
                f"Kibana at {self.address} rejected the credentials (401): set kibana_api_key, or"
                " put user:password@ into kibana_url."
            )
        if code == 403:
            return KibanaDenied(
                f"Kibana at {self.address} does not allow these credentials to import"
                f" (403){detail}. They need the privilege 'all' on Saved Objects Management,"
                " Discover, Dashboards and Visualize Library of that space."
            )
        if code == 404:
            return KibanaError(f"Kibana at {self.address} has no such space or API (404){detail}.")
        if code == 413:
            return KibanaError(
                f"The file is larger than Kibana accepts (413){detail}: raise"
                " savedObjects.maxImportPayloadBytes."
            )
        if code == 422 or "more recent version" in message:
            return KibanaError(
                f"Kibana at {self.address} is older than these objects ({code}){detail}."
            )
        if code >= 500 or code == 429:
            return KibanaUnreachable(
                f"Kibana at {self.address} cannot answer now ({code}){detail}. Try again later."
            )
        return KibanaError(f"Kibana at {self.address} refused the file ({code}){detail}.")


def _failure(errors: list[Mapping[str, Any]]) -> KibanaError:
    reasons = [_describe_error(each) for each in errors[:_MAX_LISTED]]
    if len(errors) > _MAX_LISTED:
        reasons.append(f"and {len(errors) - _MAX_LISTED} more")
    kinds = {each["error"]["type"] for each in errors}
    text = "; ".join(reasons)
    if kinds and kinds <= {"conflict", "ambiguous_conflict"}:
        return KibanaError(
            f"Nothing was written, since some objects exist already: {text}. Give --overwrite to"
            " replace them."
        )
    advice = ""
    if "missing_references" in kinds:
        advice = " Import everything first: `es-imgsearch kibana import` without a file."
    return KibanaError(f"Kibana did not write everything: {text or 'it gives no reason'}.{advice}")


def _describe_error(failed: Mapping[str, Any]) -> str:
    error = failed["error"]
    name = f"{failed['type']}/{failed['id']}"
    kind = error["type"]
    if kind == "conflict":
        return f"{name} exists"
    if kind == "ambiguous_conflict":
        ids = ", ".join(each["id"] for each in error.get("destinations", []))
        return f"{name} exists more than once ({ids})"
    if kind == "missing_references":
        # A dashboard names its data view once per control.
        names = dict.fromkeys(f"{each['type']}/{each['id']}" for each in error["references"])
        missing = ", ".join(names)
        return f"{name} refers to {missing}, which Kibana does not have"
    if kind == "unsupported_type":
        return f"{name} is of a type that this Kibana does not know"
    reason = error.get("message", kind)
    code = f" ({error['statusCode']})" if "statusCode" in error else ""
    return f"{name}: {reason}{code}"


def _reason(error: Exception) -> str:
    reason = getattr(error, "reason", None) or error
    # urllib3 messages begin with the object's address in memory.
    return str(reason).rpartition(": ")[2] or type(error).__name__


def _numbers(version: str) -> tuple[int, int]:
    major, minor = re.findall(r"\d+", version)[:2]
    return int(major), int(minor)


def _without_credentials(url: str) -> tuple[str, str | None]:
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    credentials = None
    if parts.username is not None:
        credentials = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return urlunsplit((parts.scheme, host, parts.path.rstrip("/"), "", "")), credentials


def _authorization(settings: Settings, credentials: str | None) -> dict[str, str]:
    """Choose Kibana's API key, else the address's credentials, else es_api_key."""
    if settings.kibana_api_key is not None:
        return {"Authorization": f"ApiKey {settings.kibana_api_key.get_secret_value()}"}
    if credentials is not None:
        return {"Authorization": f"Basic {b64encode(credentials.encode()).decode()}"}
    if settings.es_api_key is not None:
        return {"Authorization": f"ApiKey {settings.es_api_key.get_secret_value()}"}
    return {}
