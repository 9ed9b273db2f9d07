"""Taking saved objects into a Kibana that runs: wait for it, post them, read what it says.

The API is `POST /api/saved_objects/_import` of Kibana 8.  It answers 200 even where nothing was
written, so only `success` counts; one conflict or missing reference leaves out every object.
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

_LOOK_SECONDS: Final = 1.0
# Older ones refuse the shapes that are written here; 8.8 is the oldest with all of them.
_OLDEST: Final = (8, 8)
_SPACE: Final = re.compile(r"[a-z0-9_-]+")
# More than a person reads; the rest is counted.
_MOST_TOLD: Final = 10

Sleep = Callable[[float], None]


@dataclass(frozen=True, slots=True)
class UploadResult:
    """How many objects were written, and how many of them took the place of others."""

    written: int
    replaced: int


class Kibana:
    """One Kibana, and a space of it.  Raises SettingsError for an address that is none."""

    def __init__(self, settings: Settings, space: str | None = None) -> None:
        if space is not None and not _SPACE.fullmatch(space):
            raise SettingsError(
                f"{space!r} cannot be a space: its identifier has lower-case letters, digits, '-'"
                " and '_' (it stands in the address of the space, after /s/)."
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
        """Until it says that it is available; its version, None where it does not tell that.

        Raises KibanaUnreachable when the time is over, KibanaError for a version too old.
        """
        deadline = time.monotonic() + seconds
        while True:
            said = self._status()
            if said["level"] == "available":
                break
            if time.monotonic() + _LOOK_SECONDS > deadline:
                raise KibanaUnreachable(
                    f"Kibana at {self.address} is not ready after {seconds:g} s"
                    f" ({said['level']}): look at its log, or wait longer with --wait-seconds."
                )
            sleep(_LOOK_SECONDS)
        version: str | None = said["version"]
        if version is not None and _numbers(version) < _OLDEST:
            raise KibanaError(
                f"Kibana at {self.address} is {version}; these objects need 8.8 or newer"
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
        level = answer.get("status", {}).get("overall", {}).get("level", "no level told")
        # Who did not log in gets the level alone.
        return {"level": level, "version": answer.get("version", {}).get("number")}

    def import_objects(self, content: bytes, *, overwrite: bool) -> UploadResult:
        """Write the objects of an NDJSON file.

        Raises KibanaError where some exist and may not be replaced, or where Kibana refuses them;
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

    def _request(self, method: str, url: str, **given: Any) -> tuple[int, Any]:
        try:
            answer = self._http.request(method, url, headers=self._headers, **given)
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
        said = answer.get("message", "") if isinstance(answer, dict) else str(answer)
        told = f": {said[:400]}" if said else ""
        if code == 401:
            return KibanaDenied(
                f"Kibana at {self.address} wants other credentials (401): set kibana_api_key, or"
                " put user:password@ into kibana_url."
            )
        if code == 403:
            return KibanaDenied(
                f"Kibana at {self.address} does not let these credentials import (403){told}. They"
                " need the privilege 'all' on Saved Objects Management, Discover, Dashboards and"
                " Visualize Library of that space."
            )
        if code == 404:
            return KibanaError(f"Kibana at {self.address} has no such space or API (404){told}.")
        if code == 413:
            return KibanaError(
                f"The file is larger than Kibana takes (413){told}: raise"
                " savedObjects.maxImportPayloadBytes."
            )
        if code == 422 or "more recent version" in said:
            return KibanaError(
                f"Kibana at {self.address} is older than these objects ({code}){told}."
            )
        if code >= 500 or code == 429:
            return KibanaUnreachable(f"Kibana at {self.address} cannot now ({code}){told}.")
        return KibanaError(f"Kibana at {self.address} refused the file ({code}){told}.")


def _failure(errors: list[Mapping[str, Any]]) -> KibanaError:
    told = [_words(each) for each in errors[:_MOST_TOLD]]
    if len(errors) > _MOST_TOLD:
        told.append(f"and {len(errors) - _MOST_TOLD} more")
    kinds = {each["error"]["type"] for each in errors}
    text = "; ".join(told)
    if kinds and kinds <= {"conflict", "ambiguous_conflict"}:
        return KibanaError(
            f"Nothing was written, since some objects are there already: {text}. --overwrite"
            " replaces them."
        )
    advice = ""
    if "missing_references" in kinds:
        advice = " Import everything first: `es-imgsearch kibana import` without a file."
    return KibanaError(f"Kibana did not write everything: {text or 'it gives no reason'}.{advice}")


def _words(failed: Mapping[str, Any]) -> str:
    error = failed["error"]
    name = f"{failed['type']}/{failed['id']}"
    kind = error["type"]
    if kind == "conflict":
        return f"{name} exists"
    if kind == "ambiguous_conflict":
        there = ", ".join(each["id"] for each in error.get("destinations", []))
        return f"{name} exists more than once ({there})"
    if kind == "missing_references":
        # A dashboard names its data view once for each of its controls.
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
    # urllib3 begins with the object's address in memory.
    return str(reason).rpartition(": ")[2] or type(error).__name__


def _numbers(version: str) -> tuple[int, int]:
    major, minor = re.findall(r"\d+", version)[:2]
    return int(major), int(minor)


def _without_credentials(url: str) -> tuple[str, str | None]:
    parts = urlsplit(url)
    place = parts.netloc.rpartition("@")[2]
    credentials = None
    if parts.username is not None:
        credentials = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return urlunsplit((parts.scheme, place, parts.path.rstrip("/"), "", "")), credentials


def _authorization(settings: Settings, credentials: str | None) -> dict[str, str]:
    """An API key of Kibana's own before credentials in the address; Elasticsearch's key last."""
    if settings.kibana_api_key is not None:
        return {"Authorization": f"ApiKey {settings.kibana_api_key.get_secret_value()}"}
    if credentials is not None:
        return {"Authorization": f"Basic {b64encode(credentials.encode()).decode()}"}
    if settings.es_api_key is not None:
        return {"Authorization": f"ApiKey {settings.es_api_key.get_secret_value()}"}
    return {}
