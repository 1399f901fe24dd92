"""The operator's interface to runs, over HTTP: an ASGI app without any authentication of its own.

```
GET  /runs              every run            GET  /runs/N/lines?after=M   what it told
GET  /runs/N            one run              POST /runs/N/cancel, /runs/N/resume?patience=SECONDS
POST /runs              queue one; body: an order
GET  /refused           how many calls were refused, by the reason
GET  /models            where the models stand that trainings left
POST /jobs/NAME/cancel  take a job out of the list
```

Guarantees: the answers are those of `LocalRuns`; an error answers with its kind and text, and no
traceback.

Leaves to others: who calls, whether they may, and how long a body may be
(`federation.apps.control_listener`), which puts an `Operator` into the request's state.
"""

from collections.abc import Callable, Mapping
from typing import Final

from pydantic import BaseModel, TypeAdapter, ValidationError
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from compliance.errors import ComplianceError, describe
from compliance.records import RefusedFor
from federation.errors import FederationError, RefusedError, RunStateError, WorkspaceError
from federation.model_standing import ModelStanding
from federation.operations.folder import CoordinatorFolder
from federation.operations.journal import Run
from federation.operations.runs import LocalRuns, Order, Runs
from federation.specification import Deadline

__all__ = ["Problem", "control_api"]


class Problem(BaseModel):
    """An error, on its way to an operator.

    Attributes:
        kind: name of its class.
        told: its text.
    """

    kind: str
    told: str


_SECONDS: Final = TypeAdapter(Deadline)
_RUNS: Final = TypeAdapter(tuple[Run, ...])
_MODELS: Final = TypeAdapter(tuple[ModelStanding, ...])
_REFUSED: Final = TypeAdapter(Mapping[RefusedFor, int])
_LONGEST_NUMBER: Final = 9
_STATUS: Final = {RunStateError: 409, WorkspaceError: 400, RefusedError: 403}


def control_api(folder: CoordinatorFolder) -> Starlette:
    """Return the app."""

    def answer(call: Callable[[Runs, Request], bytes]) -> Callable[[Request], Response]:
        def endpoint(request: Request) -> Response:
            runs = LocalRuns(folder, by=request.state.operator.name)
            return Response(call(runs, request), media_type="application/json")

        return endpoint

    async def submit(request: Request) -> Response:
        content = await request.body()
        try:
            order = Order.model_validate_json(content)
        except ValidationError as error:
            raise WorkspaceError(f"order: {describe(error)}") from error
        runs = LocalRuns(folder, by=request.state.operator.name)
        run = await run_in_threadpool(runs.submit, order)
        return Response(run.model_dump_json(), media_type="application/json")

    routes = [
        Route("/runs", submit, methods=["POST"]),
        Route("/runs", answer(lambda runs, _: _RUNS.dump_json(runs.all()))),
        Route("/refused", answer(lambda runs, _: _REFUSED.dump_json(runs.refused()))),
        Route("/models", answer(lambda runs, _: _MODELS.dump_json(runs.models()))),
        Route("/runs/{number}", answer(lambda runs, one: _dump(runs.run(_number(one))))),
        Route(
            "/runs/{number}/lines",
            answer(lambda runs, one: _dump(runs.lines(_number(one), after=_after(one)))),
        ),
        Route(
            "/runs/{number}/cancel",
            answer(lambda runs, one: _dump(runs.cancel(_number(one)))),
            methods=["POST"],
        ),
        Route(
            "/runs/{number}/resume",
            answer(
                lambda runs, one: _dump(runs.resume(_number(one), patience_seconds=_patience(one)))
            ),
            methods=["POST"],
        ),
        Route(
            "/jobs/{name}/cancel",
            answer(lambda runs, one: _dump(runs.drop(one.path_params["name"]))),
            methods=["POST"],
        ),
    ]
    problems = {FederationError: _problem, ComplianceError: _problem}
    return Starlette(routes=routes, exception_handlers=problems)


def _dump(model: BaseModel) -> bytes:
    return model.model_dump_json().encode()


def _number(request: Request) -> int:
    given = request.path_params["number"]
    if not given.isascii() or not given.isdigit() or len(given) > _LONGEST_NUMBER:
        raise RunStateError("there is no run of that number: `comity status` lists those there are")
    return int(given)


def _after(request: Request) -> int:
    given = request.query_params.get("after", "0")
    if not given.isascii() or not given.isdigit() or len(given) > 18:
        raise WorkspaceError("after: expected a number, as an earlier answer gave it")
    return int(given)


def _patience(request: Request) -> int | None:
    given = request.query_params.get("patience")
    try:
        return None if given is None else _SECONDS.validate_strings(given)
    except ValidationError as error:
        raise WorkspaceError(f"patience: {describe(error)}") from error


def _problem(_: Request, error: Exception) -> Response:
    problem = Problem(kind=type(error).__name__, told=str(error))
    status = _STATUS.get(type(error), 400)
    return Response(problem.model_dump_json(), status, media_type="application/json")
