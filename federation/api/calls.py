"""One call of a client: who it is, whether it may, and its answer, once.

```
1 the key is a client's, and good         401
2 the client's bucket has a token         429
  its body is read, and is JSON           408, 413, 422
3 the key is for this                     403
4 what was answered is answered again     409, where the key was used otherwise
```

Guarantees: in this order, before anything is done. Who has no good key gets open paths alone, and
of each as much as its bucket, one for all of them, lets through; of `/health`, which costs nothing,
any number.

Leaves to others: that nobody passes unadmitted (`passage`), what is done (`application`).
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Final

from fastapi import Header, Request
from fastapi.params import Security
from fastapi.responses import Response
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from fastapi.security.utils import get_authorization_scheme_param
from pydantic import BaseModel

from federation.api import problems
from federation.api.answers import Answer, Answers
from federation.api.buckets import Buckets
from federation.api.clients import Client, Clients, UnauthenticatedError
from federation.api.problems import ProblemError
from federation.api.scopes import Scope
from federation.clock import Clock

__all__ = ["Call", "Calls"]

_JSON: Final = "application/json"
_STRANGERS: Final = ""  # share one bucket: no client is called so, nor as a path
_HEALTH: Final = "/health"
_bearer = HTTPBearer(auto_error=False, description="A client's key.")

IdempotencyKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=255,
        pattern=r"^[!-~]+$",
        description="The same key with the same request is done once, also over a restart.",
    ),
]


@dataclass(frozen=True)
class Call:
    """A call that may be made.

    Attributes:
        client: who calls.
        scopes: what else they may.
        key: under which it is made once; None if it names none.
        asked: what is asked: method, path, body.
        now: the time.
        answers: what was answered before.
    """

    client: str
    scopes: tuple[Scope, ...]
    key: str | None
    asked: bytes
    now: datetime
    answers: Answers

    def once(self, work: Callable[[datetime], BaseModel], *, status: int = 200) -> Response:
        """Do something once, and return its answer.

        Args:
            work: what is done, as of a moment.
            status: of the answer.

        Raises:
            KeyReusedError: the key was used for something else.
            StillAtWorkError: the same is at work.
        """
        if self.key is None:
            return _response(Answer(status, _spelt(work(self.now))))
        with self.answers.once(self.client, self.key, self.asked, now=self.now) as begun:
            if isinstance(begun, Answer):
                return _response(begun)
            answer = Answer(status, _spelt(work(begun)))
            self.answers.keep(self.client, self.key, answer)
        return _response(answer)


class Calls:
    """Who may call one party's API.

    Args:
        clients: its clients.
        buckets: how often each may ask.
        answers: what they were answered.
        clock: the time.
    """

    def __init__(
        self, clients: Clients, buckets: Buckets, answers: Answers, *, clock: Clock
    ) -> None:
        self._clients = clients
        self._buckets = buckets
        self._answers = answers
        self._clock = clock

    def admit(self, path: str, authorization: str, *, open_paths: Collection[str]) -> Client | None:
        """Let a request in, of which nothing but its head is read.

        Args:
            path: that it asks for.
            authorization: the header of that name; empty where there is none.
            open_paths: those that need no key.

        Returns:
            Whose request it is; None if it has no good key and needs none.

        Raises:
            UnauthenticatedError: it needs one.
            TooManyRequestsError: the bucket is empty.
            WorkspaceError: the file of clients is damaged.
        """
        if path == _HEALTH:
            return None
        scheme, shown = get_authorization_scheme_param(authorization)
        try:
            shown = shown if scheme.lower() == "bearer" else ""
            client = self._clients.authenticated(shown, now=self._clock())  # 1
        except UnauthenticatedError:
            is_open = path in open_paths
            self._buckets.take(path if is_open else _STRANGERS)
            if is_open:
                return None
            raise
        self._buckets.take(client.name)  # 2
        return client

    def now(self) -> datetime:
        """Return the time at which an open path is asked for."""
        return self._clock()

    def needing(self, scope: Scope) -> Callable[..., Call]:
        """Return the dependency of a route that needs a scope."""

        def call(
            request: Request,
            _: Annotated[HTTPAuthorizationCredentials | None, Security(_bearer)],
            key: IdempotencyKey = None,
        ) -> Call:
            client: Client | None = request.state.admitted
            if client is None:
                raise UnauthenticatedError("expected the key of a client of this API")
            if scope not in client.scopes:  # 3
                raise ProblemError(problems.FORBIDDEN, f"expected a key with scope {scope}")
            asked = f"{request.method} {request.url.path}\n".encode() + request.state.body
            return Call(client.name, client.scopes, key, asked, self._clock(), self._answers)

        return call


def _spelt(answer: BaseModel) -> bytes:
    return answer.model_dump_json(by_alias=True).encode()


def _response(answer: Answer) -> Response:
    return Response(answer.body, answer.status, media_type=_JSON)
