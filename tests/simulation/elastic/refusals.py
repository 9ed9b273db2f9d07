"""Errors of the server, as answers."""

from __future__ import annotations

from typing import Any


class Refusal(Exception):
    """An error that the server answers a request or an item of a bulk with."""

    def __init__(
        self,
        status: int,
        kind: str,
        reason: str,
        *,
        cause: tuple[str, str] | None = None,
        **details: Any,
    ) -> None:
        super().__init__(f"{kind}: {reason}")
        self.status = status
        self.error: dict[str, Any] = {"type": kind, "reason": reason, **details}
        if cause is not None:
            self.error["caused_by"] = {"type": cause[0], "reason": cause[1]}

    @property
    def nested(self) -> dict[str, Any]:
        """The error with its root cause, as the body of an answer has it."""
        root = {key: value for key, value in self.error.items() if key != "caused_by"}
        return {"root_cause": [root], **self.error}

    def body(self) -> dict[str, Any]:
        """Body of an answer."""
        return {"error": self.nested, "status": self.status}


def no_such_index(name: str, *, require_alias: bool = False, resource: bool = True) -> Refusal:
    """No index or alias has this name."""
    details: dict[str, Any] = {"index_uuid": "_na_", "index": name}
    reason = f"no such index [{name}]"
    if require_alias:
        reason += f" and [require_alias] request flag is [true] and [{name}] is not an alias"
    elif resource:
        details = {"resource.type": "index_or_alias", "resource.id": name, **details}
    return Refusal(404, "index_not_found_exception", reason, **details)


def illegal_argument(reason: str) -> Refusal:
    """The request makes no sense to the server."""
    return Refusal(400, "illegal_argument_exception", reason)


def unparsable(field: str, kind: str, document_id: str, cause: str) -> Refusal:
    """A value does not fit its field."""
    return Refusal(
        400,
        "document_parsing_exception",
        f"[1:1] failed to parse field [{field}] of type [{kind}] in document with id"
        f" '{document_id}'.",
        cause=("illegal_argument_exception", cause),
    )


def failed_search(kind: str, reason: str) -> Refusal:
    """The shards refuse a search."""
    cause = {"type": kind, "reason": reason}
    refusal = Refusal(400, "search_phase_execution_exception", "all shards failed")
    refusal.error |= {"root_cause": [cause], "caused_by": cause}
    return refusal
