"""The routes of a party's API, described in OpenAPI 3.1 at `/v1/openapi.json`.

Guarantees: an identifier is asked for in bodies alone; each route names its scope, and what it
answers when it cannot.

Leaves to others: what is done (`consents`, `requests`, `deletions`), who may (`calls`).
"""

import time
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.routing import Route

from compliance.consent.record import ConsentReceipt
from federation.api import bodies, problems
from federation.api.answers import Answers
from federation.api.buckets import Buckets
from federation.api.calls import Call, Calls
from federation.api.clients import Clients
from federation.api.configuration import ApiConfig
from federation.api.consents import Consents
from federation.api.deletions import Deletions
from federation.api.passage import PROBLEM_TYPE, Passage
from federation.api.problems import Kind, Mistake, Problem, ProblemError, problem_of
from federation.api.requests import Requests
from federation.api.scopes import Scope
from federation.clock import Clock, utc_now
from federation.consent_intake import ConsentIntake
from federation.party import PartyFolder

__all__ = ["create_application"]

_TITLE: Final = "Comity: what people say to a party"
_DESCRIPTION: Final = "/v1/openapi.json"
_ALWAYS: Final = (
    *(problems.MALFORMED, problems.UNAUTHENTICATED, problems.FORBIDDEN, problems.NOT_FOUND),
    *(problems.NOT_ALLOWED, problems.TOO_SLOW, problems.CONFLICT, problems.TOO_LARGE),
    *(problems.INVALID, problems.TOO_MANY, problems.OURS, problems.TROUBLE),
)


def create_application(
    directory: Path,
    config: ApiConfig,
    *,
    said: Callable[[], None] = lambda: None,
    clock: Clock = utc_now,
    seconds: Callable[[], float] = time.monotonic,
) -> FastAPI:
    """Return the application of one party's API.

    Args:
        directory: the party's folder.
        config: what its operator set.
        said: called when something was recorded that the log is to be told.
        clock: the time.
        seconds: a clock that never goes back.

    Raises:
        WorkspaceError, ComplianceError: folder or configuration are not as they must be.
    """
    folder = PartyFolder(directory)
    folder.agreement()
    buckets = Buckets(rate=config.requests_per_second, burst=config.burst, seconds=seconds)
    answers = Answers(folder.path, safe=folder.safe)
    calls = Calls(Clients(directory), buckets, answers, clock=clock)
    consents = Consents(directory, config.read_notices(), config.consent_strings)
    requests = Requests(directory, patience=config.patience_seconds, clock=clock)
    deletions = Deletions(directory, config.deletion, config.read_keys(), requests.erase)
    app = FastAPI(
        title=_TITLE,
        version="1",
        openapi_url=_DESCRIPTION,
        docs_url=None,
        redoc_url=None,
        responses=_responses(),
        redirect_slashes=False,
    )
    open_ = _open_routes(directory, deletions, calls)
    for router in (
        _consent_routes(consents, calls, said, config.most_events),
        _request_routes(requests, calls),
        open_,
    ):
        app.include_router(router)
    open_paths = {_DESCRIPTION} | {route.path for route in open_.routes if isinstance(route, Route)}
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_middleware(_Problems)
    admit = partial(calls.admit, open_paths=open_paths)
    app.add_middleware(Passage, admit=admit, most_bytes=config.most_body_bytes)
    return app


def _consent_routes(
    consents: Consents, calls: Calls, said: Callable[[], None], most: int
) -> APIRouter:
    router = APIRouter(prefix="/v1", tags=["consent"])
    events = _recording(bodies.Recorded)
    Writing = Annotated[Call, Depends(calls.needing(Scope.CONSENT_WRITE))]  # noqa: N806
    Reading = Annotated[Call, Depends(calls.needing(Scope.CONSENT_READ))]  # noqa: N806

    def recorded(call: Call, work: Callable[[datetime, bool], Any]) -> Response:
        seeing = Scope.CONSENT_READ in call.scopes
        status = HTTPStatus.CREATED if seeing else HTTPStatus.ACCEPTED
        answer = call.once(lambda now: work(now, seeing), status=status)
        said()
        return answer

    @router.post("/consents", **events)
    def record(event: bodies.Event, call: Writing) -> Response:
        """Record what a person says about a purpose; it is heard at the next use."""
        return recorded(call, lambda now, seeing: consents.record([event], now, seeing=seeing))

    @router.post("/consents/batch", **events)
    def record_all(batch: bodies.Events, call: Writing) -> Response:
        """Record several events: all of them, or none."""
        if len(batch.events) > most:
            raise ProblemError(problems.TOO_LARGE, f"expected at most {most} events")
        return recorded(call, lambda now, seeing: consents.record(batch.events, now, seeing=seeing))

    @router.post("/consents/withdraw", **events)
    def withdraw(withdrawal: bodies.Withdrawal, call: Writing) -> Response:
        """Record that a person withdraws: from a purpose, or from all where none is named."""
        return recorded(call, lambda now, seeing: consents.withdraw(withdrawal, now, seeing=seeing))

    @router.post("/consents/strings", **_recording(bodies.StringOutcome))
    def take_string(string: bodies.StringIntake, call: Writing) -> Response:
        """Record what a TC or GPP string says; one that cannot be read gives nothing."""
        return recorded(call, lambda now, seeing: consents.take_string(string, now, seeing=seeing))

    @router.post("/consents/state")
    def state(asked: bodies.PersonAndPurpose, call: Reading) -> tuple[bodies.Decision, ...]:
        """Say whether a person may be used now, and if not, why."""
        return consents.decide(asked, call.now)

    @router.post("/consents/receipt", responses={200: {"model": ConsentReceipt | dict[str, Any]}})
    def receipt(asked: bodies.ReceiptRequest, call: Reading) -> JSONResponse:
        """Return what a person was told and said, for them to keep."""
        return JSONResponse(consents.receipt(asked, call.now))

    @router.get("/notices")
    def notices(
        call: Reading, purpose: Annotated[str | None, Query(max_length=128)] = None
    ) -> bodies.Notices:
        """Return what people are told in plain words, about one purpose or all."""
        del call
        return consents.notices(purpose)

    return router


def _request_routes(requests: Requests, calls: Calls) -> APIRouter:
    router = APIRouter(prefix="/v1", tags=["requests"], responses=_responses(problems.BUSY))
    Asking = Annotated[Call, Depends(calls.needing(Scope.ERASURE_WRITE))]  # noqa: N806
    Following = Annotated[Call, Depends(calls.needing(Scope.ERASURE_READ))]  # noqa: N806
    Seeing = Annotated[Call, Depends(calls.needing(Scope.SUBJECT_READ))]  # noqa: N806
    Correcting = Annotated[Call, Depends(calls.needing(Scope.SUBJECT_WRITE))]  # noqa: N806

    @router.post("/erasures", status_code=202, response_model=bodies.Erasure)
    def erase(subject: bodies.Identifier, call: Asking) -> Response:
        """Ask for somebody to be erased; from here on no job uses them."""
        return call.once(lambda _: requests.erase(subject), status=HTTPStatus.ACCEPTED)

    @router.get("/erasures/{request}")
    def erasure(request: str, call: Following) -> bodies.Erasure:
        """Say how far a request to erase has come."""
        del call
        return requests.erasure(request)

    @router.get("/erasures/{request}/receipt")
    def erasure_receipt(request: str, call: Following) -> bodies.ErasureReceipt:
        """Return the signed completion of a request, which tells nobody who it is about."""
        del call
        return requests.erasure_receipt(request)

    @router.post("/subjects/show")
    def show(subject: bodies.Named, call: Seeing) -> bodies.Rows:
        """Return what the party's table holds about somebody."""
        del call
        return requests.show(subject)

    @router.post(
        "/subjects/export",
        response_class=PlainTextResponse,
        responses={200: {"content": {"text/csv": {"schema": {"type": "string"}}}}},
    )
    def export(subject: bodies.Named, call: Seeing) -> Response:
        """Return the same as CSV, to be taken along."""
        del call
        return Response(requests.export(subject), media_type="text/csv")

    @router.post("/subjects/correct", response_model=bodies.Request)
    def correct(correction: bodies.Correction, call: Correcting) -> Response:
        """Write other values into some of the table's columns."""
        return call.once(lambda _: requests.correct(correction))

    return router


def _open_routes(directory: Path, deletions: Deletions, calls: Calls) -> APIRouter:
    router = APIRouter(tags=["open"], responses=_responses(problems.BUSY))
    Now = Annotated[datetime, Depends(calls.now)]  # noqa: N806

    @router.get("/dsrdelete.json")
    def discovery() -> Response:
        """Say which requests to delete are taken, and whose keys sign their acknowledgements."""
        return Response(deletions.discovery(), media_type="application/json")

    @router.post("/v1/deletion-requests")
    def delete(request: bodies.DeletionRequest, now: Now) -> bodies.Acknowledgement:
        """Take a request of the Data Deletion Request Framework, and acknowledge it."""
        return bodies.Acknowledgement(token=deletions.take(request.token, now))

    @router.get("/health")
    async def health() -> bodies.Health:
        """Say that the API is there."""
        return bodies.Health()

    @router.get("/ready")
    def ready() -> bodies.Health:
        """Say that what people say can be recorded."""
        folder = PartyFolder(directory)
        intake = ConsentIntake(folder, folder.agreement())
        if intake.journal_file is None:
            raise ProblemError(problems.UNAVAILABLE, "expected a journal: `comity consent import`")
        return bodies.Health()

    return router


def _responses(*kinds: Kind) -> dict[int | str, dict[str, Any]]:
    content = {PROBLEM_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {
        kind.status.value: {"model": Problem, "description": kind.title, "content": content}
        for kind in (*_ALWAYS, *kinds)
    }


def _recording(model: type[BaseModel]) -> dict[str, Any]:
    """Return how a route answers that records what people say."""
    unseen = {"model": model, "description": "Taken; a key without consent:read is told no more"}
    return {"status_code": 201, "response_model": model, "responses": {202: unseen}}


class _Problems:
    """Answers whatever was raised, inside of the application: by a problem (ASGI)."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Pass one request."""
        try:
            await self._app(scope, receive, send)
        except Exception as error:  # noqa: BLE001 -- the one handler; no answer has begun
            problem, headers = problem_of(error)
            await _answered(problem, headers)(scope, receive, send)


def _answered(problem: Problem, headers: dict[str, str] | None = None) -> Response:
    return Response(
        problem.model_dump_json(), problem.status, headers=headers, media_type=PROBLEM_TYPE
    )


async def _http(_: Request, error: Exception) -> Response:
    status = getattr(error, "status_code", HTTPStatus.INTERNAL_SERVER_ERROR)
    kinds = {kind.status: kind for kind in (problems.NOT_FOUND, problems.NOT_ALLOWED)}
    headers = getattr(error, "headers", None)
    return _answered(Problem.of(kinds.get(status, problems.MALFORMED)), headers)


async def _invalid(_: Request, error: Exception) -> Response:
    found = error.errors() if isinstance(error, RequestValidationError) else []
    told = ((_pointer(loc), detail) for loc, detail in _mistakes(found))
    mistakes = tuple(Mistake(pointer=at, detail=detail) for at, detail in dict.fromkeys(told))
    return _answered(Problem.of(problems.INVALID, errors=mistakes[:_MOST_MISTAKES]))


_Place = tuple[int | str, ...]


def _mistakes(found: Sequence[dict[str, Any]]) -> Iterator[tuple[_Place, str]]:
    """Tell of each mistake once, not for each way in which a person may be named."""
    split = [(one, _way(one["loc"])) for one in found]
    meant = {one["loc"][:at] for one, at in split if at is not None and one["type"] not in _OTHER}
    for one, at in split:
        loc = one["loc"]
        if at is None:
            yield loc, _detail(one)
        elif one["type"] not in _OTHER:
            yield (*loc[:at], *loc[at + 1 :]), _detail(one)
        elif loc[:at] not in meant:
            ways = dict.fromkeys(_WAYS[str(each["loc"][at])] for each, i in split if i == at)
            yield loc[:at], f"expected one of {', '.join(ways)}"


def _way(loc: _Place) -> int | None:
    """Return where in a place it says in which way a person was taken to be named."""
    return next((index for index, part in enumerate(loc) if part in _WAYS), None)


_WAYS: Final = {
    bodies.NamedByReference.__name__: "reference",
    bodies.NamedByEmail.__name__: "email",
    bodies.NamedByPhone.__name__: "phone",
}
_OTHER: Final = frozenset({"missing", "extra_forbidden", "model_type", "model_attributes_type"})
"""Mistakes by which a person is named in another way, or in none."""


_MOST_MISTAKES: Final = 20
_KNOWN: Final = frozenset(
    name
    for model in (getattr(bodies, name) for name in bodies.__all__)
    if isinstance(model, type) and hasattr(model, "model_fields")
    for field, info in model.model_fields.items()
    for name in (field, info.alias or field)
) | {"body", "query", "path", "header", "Idempotency-Key"}


def _pointer(loc: tuple[int | str, ...]) -> str:
    """Return where a mistake is; what the caller chose as a name is not repeated."""
    parts = (str(one) if isinstance(one, int) or one in _KNOWN else "…" for one in loc)
    return "".join(f"/{part}" for part in parts)


def _detail(mistake: dict[str, Any]) -> str:
    return "expected JSON" if mistake["type"] == "json_invalid" else str(mistake["msg"])
