"""The recipient's side: one request, from its acknowledgement to its completion.

```
acknowledged ─ a step for every place ─► executed ─ signed ─► completed
```

Guarantees: the same request gets the same acknowledgement and, once there is one, the same
completion, however often it comes; no place is forgotten, and none is dealt with in two ways; a
completion is of exactly the steps that were done.

Leaves to others: verifying the request (`wire`), keeping this before its answer leaves, and doing
what the steps say. They must be safe to do twice: a crash may come between a deletion and its note.
"""

import hashlib
from enum import StrEnum
from typing import Annotated, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from compliance.erasure.completion import Completion, Outcomes, Step
from compliance.errors import ErasureError

__all__ = ["Execution", "Standing"]


class Standing(StrEnum):
    """How far a request has come."""

    ACKNOWLEDGED = "acknowledged"
    EXECUTED = "executed"
    COMPLETED = "completed"


class Execution(BaseModel):
    """One request at its recipient.

    Attributes:
        request: names the request in all parties' logs.
        token_digest: hexadecimal SHA-256 of the request as it came.
        acknowledgement: the answer that it gets, each time.
        deadline: by when all must be done.
        nonce: 32 random bytes, hexadecimal, that hide the outcomes.
        targets: every place to be dealt with.
        steps: what was done so far, in the order of doing.
        completion: signed, once all is done (an envelope, JSON).
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    request: str
    token_digest: str
    acknowledgement: str
    deadline: AwareDatetime
    nonce: Annotated[str, Field(repr=False)]
    targets: Annotated[tuple[str, ...], Field(min_length=1)]
    steps: tuple[Step, ...] = ()
    completion: str | None = None

    @property
    def standing(self) -> Standing:
        """How far it has come."""
        if self.completion is not None:
            return Standing.COMPLETED
        return Standing.ACKNOWLEDGED if self.pending else Standing.EXECUTED

    @property
    def pending(self) -> tuple[str, ...]:
        """Places that have yet to be dealt with."""
        done = {step.target for step in self.steps}
        return tuple(target for target in self.targets if target not in done)

    def answer_to(self, token: str) -> str:
        """Return the acknowledgement of a request that came again.

        Raises:
            ErasureError: another request under the same name: it is a forgery, or a mistake.
        """
        if hashlib.sha256(token.encode()).hexdigest() != self.token_digest:
            raise ErasureError(
                f"request {self.request} is another than the one that came under this name"
            )
        return self.acknowledgement

    def renewed(self, token: str, acknowledgement: str) -> Self:
        """Return it once its requester asked anew, since the first answer was lost.

        The caller has made sure that the requester is the same, and so is the person.
        """
        digest = hashlib.sha256(token.encode()).hexdigest()
        return self.model_copy(update={"token_digest": digest, "acknowledgement": acknowledgement})

    def with_step(self, step: Step) -> Self:
        """Return it once a place was dealt with; a step that is known changes nothing.

        Raises:
            ErasureError: there is no such place, or it was dealt with in another way.
        """
        if step in self.steps:
            return self
        if step.target not in self.pending:
            raise ErasureError(
                f"request {self.request}: {step.target!r} is no place of it, or was dealt with in "
                "another way"
            )
        return self.model_copy(update={"steps": (*self.steps, step)})

    def outcomes(self, party: str) -> Outcomes:
        """Return what was done.

        Raises:
            ErasureError: something is still to be done.
        """
        if self.pending:
            raise ErasureError(
                f"request {self.request}: {len(self.pending)} of {len(self.targets)} places have "
                "yet to be dealt with"
            )
        return Outcomes(request=self.request, party=party, nonce=self.nonce, steps=self.steps)

    def completed(self, completion: Completion, signed: bytes) -> Self:
        """Return it once its completion is signed; it stays what was signed first.

        Raises:
            ErasureError: something is still to be done, or the completion is of other steps.
        """
        completion.check_outcomes(self.outcomes(completion.party))
        if self.completion is not None:
            return self
        return self.model_copy(update={"completion": signed.decode()})
