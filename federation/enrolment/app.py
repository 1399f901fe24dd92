"""The coordinator's door for parties that join: one route of its public listener.

```
POST /requests    a registration or a signature (JSON) → 200 and the party's standing,
                  400 malformed, 403 refused, 413 too long, 503 nobody was invited here, or busy
```

Guarantees: it needs no key; a body is bounded before it is read into memory; whoever has no
invitation learns nothing but that; what is logged names nobody. It has a few threads of its own:
however many ask, what else the process serves keeps its threads.

Leaves to others: TLS (the listener), what is admitted (`register`).
"""

import asyncio
import logging
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path
from typing import Final

from anyio import CapacityLimiter, to_thread
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from compliance.errors import ComplianceError
from federation.clock import Clock, utc_now
from federation.enrolment.request import REQUEST_LIMIT
from federation.enrolment.store import EnrolmentStore
from federation.errors import EnrolmentError, WorkspaceError

__all__ = ["enrolment_app"]

_logger = logging.getLogger("comity.enrolment")

_THREADS: Final = 4
_PLAIN: Final = "text/plain; charset=utf-8"


class _TooLongError(Exception):
    """A body passes the limit."""


def enrolment_app(folder: Path, *, clock: Clock = utc_now) -> Starlette:
    """Return the application that answers parties which join, for a mount of the listener.

    Args:
        folder: the coordinator's state folder.
        clock: the present moment.
    """
    store = EnrolmentStore(folder, clock=clock)
    free, threads = asyncio.Semaphore(_THREADS), CapacityLimiter(_THREADS)

    async def requests(request: Request) -> Response:
        try:
            body = await _read(request)
        except _TooLongError:
            return _refusal(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"at most {REQUEST_LIMIT} bytes")
        if free.locked():
            return _refusal(HTTPStatus.SERVICE_UNAVAILABLE, "too many ask at once: ask again")
        async with free:
            return await to_thread.run_sync(_answer, store.answer, body, limiter=threads)

    return Starlette(routes=[Route("/requests", requests, methods=["POST"])])


async def _read(request: Request) -> bytes:
    parts, length = [], 0
    async for part in request.stream():
        length += len(part)
        if length > REQUEST_LIMIT:
            raise _TooLongError
        parts.append(part)
    return b"".join(parts)


def _answer(answer: Callable[[bytes], bytes], body: bytes) -> Response:
    try:
        return Response(answer(body), media_type="application/json")
    except EnrolmentError as error:
        return _refusal(HTTPStatus.FORBIDDEN, str(error))
    except WorkspaceError:
        return _refusal(HTTPStatus.SERVICE_UNAVAILABLE, "nobody can join here at present")
    except ComplianceError:
        return _refusal(HTTPStatus.BAD_REQUEST, "a key or a signature in it is malformed")


def _refusal(status: HTTPStatus, told: str) -> Response:
    _logger.warning("a request to join was refused with HTTP %d", status)
    headers = {"Connection": "close"} if status is HTTPStatus.REQUEST_ENTITY_TOO_LARGE else {}
    return Response(f"{told}\n", status, headers, _PLAIN)
