"""What is let through to an ASGI app, how much of it, and a line for everything that was not.

Guarantees: a body says its length beforehand and keeps to a limit, or nothing of it is read; every
answer that refuses a call is counted for its reason, and leaves one line, with no body, no header
and no token in it; that which only has a node say again who it is, refuses none. The lines stay
within 40 MB, whoever calls how often: the oldest go first.

Leaves to others: which calls there are (`public_listener`, `control_listener`), what becomes of the
count (`federation.operations.refused_calls`).
"""

import json
import logging
from collections.abc import Callable, Mapping
from http import HTTPStatus
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Final

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from compliance.records import RefusedFor
from federation.clock import Clock, utc_now

__all__ = ["AuditFile", "Bounded", "Count", "Refusals", "refuse"]

Count = Callable[[RefusedFor], None]
"""Counts one refusal."""

_REFUSING: Final = range(400, 500)
_LONGEST_PATH: Final = 120
_FILE_BYTES: Final = 8_000_000
_FILES: Final = 4
_REASON: Final = "refused_for"
_FLEET: Final = "/v1/fleet/"
_REASONS: Final = (
    ("/v1/runtime/", RefusedFor.EXECUTOR),
    (_FLEET, RefusedFor.NODE),
    ("/v1/enrolment", RefusedFor.ENROLMENT),
)
"""Of whatever is refused further on, by the beginning of its path."""


class AuditFile:
    """Lines of JSON about calls that were refused, in a file and its predecessors.

    Args:
        path: the file; its predecessors end in .1, .2 and so on.
        clock: when it is.
    """

    def __init__(self, path: Path, *, clock: Clock = utc_now) -> None:
        self._clock = clock
        path.touch(mode=0o600, exist_ok=True)
        self._handler = RotatingFileHandler(
            path, maxBytes=_FILE_BYTES, backupCount=_FILES, encoding="utf-8"
        )
        self._handler.setFormatter(logging.Formatter("%(message)s"))

    def write(self, line: Mapping[str, object]) -> None:
        """Add one line; the time is put in here."""
        at = self._clock().isoformat(timespec="milliseconds")
        text = json.dumps({"at": at, **line})
        self._handler.handle(logging.LogRecord("audit", logging.INFO, "", 0, text, None, None))
        self._handler.flush()


class Refusals:
    """An app whose refusals leave a line each.

    Args:
        app: whose answers are looked at.
        listener: what the lines call it.
        audit: where they go.
        count: told why, of each.
        is_returning: tells of a call that was not known (401) whether it is of a node that is
            taken, and has only to say again who it is: that refuses nobody.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        listener: str,
        audit: AuditFile,
        count: Count,
        is_returning: Callable[[Scope], bool] = lambda _: False,
    ) -> None:
        self._app = app
        self._listener = listener
        self._audit = audit
        self._count = count
        self._is_returning = is_returning

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand a call on, and look at the answer's status."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path = scope["path"][:_LONGEST_PATH]

        async def looked_at(message: Message) -> None:
            if message["type"] == "http.response.start" and self._refuses(scope, message["status"]):
                state = scope.get("state", {})
                operator = state.get("operator")
                reason = state.get(_REASON) or _reason_of(path)
                self._count(reason)
                self._audit.write(
                    {
                        "listener": self._listener,
                        "from": scope["client"][0] if scope.get("client") else None,
                        "operator": operator.name if operator is not None else None,
                        "method": scope["method"],
                        "path": path,
                        "status": message["status"],
                        "reason": reason,
                    }
                )
            await send(message)

        await self._app(scope, receive, looked_at)

    def _refuses(self, scope: Scope, status: int) -> bool:
        if status == HTTPStatus.UNAUTHORIZED and scope["path"].startswith(_FLEET):
            return not self._is_returning(scope)
        return status in _REFUSING


class Bounded:
    """An app that gets no body which does not say its length, or is longer than a limit.

    Args:
        app: what gets the others.
        limit: bytes, by the path of a call.
    """

    def __init__(self, app: ASGIApp, *, limit: Callable[[str], int]) -> None:
        self._app = app
        self._limit = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand a call on, or refuse it by its head; the server holds a body to its length."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        if "transfer-encoding" in headers:
            told = "expected a Content-Length"
            await refuse(scope, send, RefusedFor.BODY, HTTPStatus.LENGTH_REQUIRED, told)
            return
        length, limit = headers.get("content-length", "0"), self._limit(scope["path"])
        if not length.isascii() or not length.isdigit() or len(length) > 18 or int(length) > limit:
            told = f"expected a body of at most {limit} bytes"
            await refuse(scope, send, RefusedFor.BODY, HTTPStatus.REQUEST_ENTITY_TOO_LARGE, told)
            return
        await self._app(scope, receive, send)


async def refuse(
    scope: Scope, send: Send, reason: RefusedFor, status: HTTPStatus, told: str
) -> None:
    """Answer a call with a status, and a sentence in JSON, for a reason."""
    scope.setdefault("state", {})[_REASON] = reason
    body = json.dumps({"kind": "Refused", "told": told}).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"cache-control", b"no-store"),
        (b"connection", b"close"),
    ]
    if status is HTTPStatus.UNAUTHORIZED:
        headers.append((b"www-authenticate", b"Bearer"))
    await send({"type": "http.response.start", "status": int(status), "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _reason_of(path: str) -> RefusedFor:
    return next((why for begin, why in _REASONS if path.startswith(begin)), RefusedFor.REQUEST)
