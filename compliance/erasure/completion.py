"""What a party signs once it has erased a person wherever it had to.

```
completion   request · party · time · SHA-256 of the outcomes     signed; others see it
outcomes     request · party · 32 random bytes · each place and what was done there
```

Guarantees: a completion tells nobody whether the person was held: it binds its party to the
outcomes and hides them, whatever they are. Who is shown the outcomes (an auditor, the person) can
hold them against it.

Leaves to others: keeping the outcomes, and whether what they say was done (connectors, logs).
"""

import hashlib
from datetime import UTC, datetime
from typing import Annotated, Final, Literal, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError, model_validator

from compliance.canonical import canonical_json
from compliance.errors import ErasureError, SignatureError, describe
from compliance.records import ErasureOutcome
from compliance.signing import PARTY_NAME_PATTERN, Envelope, SigningKey, VerifyingKey

__all__ = ["COMPLETION_TYPE", "Completion", "Outcomes", "Step", "read_completion"]

COMPLETION_TYPE: Final = "application/vnd.comity.erasure-completion+json"

Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Request = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")]
PartyName = Annotated[str, Field(pattern=PARTY_NAME_PATTERN)]
Target = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/ -]{0,127}$")]


class _Closed(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="forbid", hide_input_in_errors=True, allow_inf_nan=False
    )


class Step(_Closed):
    """What was done in one place.

    Attributes:
        target: the place, such as `source`, `segment look-alikes`, `cache march`, `backup 2026-11`
            or `model march`.
        outcome: what was done.
        epsilon: that justifies `tolerated_dp`, and there alone.
        due: until when a model is trained again, with `retrain` alone.
    """

    target: Target
    outcome: ErasureOutcome
    epsilon: Annotated[float, Field(ge=0)] | None = None
    due: AwareDatetime | None = None

    def committed(self, request: str, nonce: str) -> str:
        """Return what a log says of it: SHA-256 with the outcomes' nonce, hexadecimal.

        Without the nonce it cannot be told from that of any other outcome.
        """
        told: dict[str, object] = {
            "nonce": nonce,
            "request": request,
            "step": self.model_dump(mode="json"),
        }
        return hashlib.sha256(canonical_json(told)).hexdigest()

    @model_validator(mode="after")
    def _justified(self) -> Self:
        if (self.epsilon is not None) != (self.outcome is ErasureOutcome.TOLERATED_DP):
            raise ValueError("epsilon is told with tolerated_dp, and with nothing else")
        if (self.due is not None) != (self.outcome is ErasureOutcome.RETRAIN):
            raise ValueError("due is told with retrain, and with nothing else")
        return self


class Outcomes(_Closed):
    """What was done in every place; it stays at the party.

    Attributes:
        nonce: 32 random bytes, hexadecimal: without them outcomes could be guessed.
    """

    request: Request
    party: PartyName
    nonce: Digest
    steps: Annotated[tuple[Step, ...], Field(min_length=1, max_length=10_000)]

    @model_validator(mode="after")
    def _each_once(self) -> Self:
        if len({step.target for step in self.steps}) != len(self.steps):
            raise ValueError("expected each target once")
        return self

    @property
    def digest(self) -> str:
        """SHA-256 of the canonical bytes, hexadecimal."""
        return hashlib.sha256(canonical_json(self.model_dump(mode="json"))).hexdigest()


class Completion(_Closed):
    """What others see of a request that was carried out."""

    version: Literal[1] = 1
    request: Request
    party: PartyName
    completed: AwareDatetime
    outcomes_digest: Digest

    @classmethod
    def of(cls, outcomes: Outcomes, *, completed: datetime) -> Self:
        """Return the completion that binds a party to its outcomes."""
        return cls(
            request=outcomes.request,
            party=outcomes.party,
            completed=completed.astimezone(UTC),
            outcomes_digest=outcomes.digest,
        )

    def sign(self, key: SigningKey) -> bytes:
        """Return it in a signed envelope, as JSON."""
        payload = canonical_json(self.model_dump(mode="json"))
        return Envelope.sign(COMPLETION_TYPE, payload, {self.party: key}).to_json()

    def check_outcomes(self, outcomes: Outcomes) -> None:
        """Return only if these are the outcomes that were signed for.

        Raises:
            ErasureError: they are others.
        """
        if (outcomes.request, outcomes.party) != (self.request, self.party) or (
            outcomes.digest != self.outcomes_digest
        ):
            raise ErasureError(
                f"request {self.request}: {self.party} signed for other outcomes than these"
            )


def read_completion(content: bytes, *, request: str, party: str, key: VerifyingKey) -> Completion:
    """Read a party's signed completion of one request.

    Raises:
        ErasureError: malformed, not signed by that party, or of another request.
    """
    try:
        envelope = Envelope.from_json(content)
        envelope.verify_by(party, key)
        completion = Completion.model_validate_json(envelope.payload_bytes)
    except SignatureError as error:
        raise ErasureError(f"completion of {party}: {error}") from error
    except ValidationError as error:
        raise ErasureError(f"completion of {party}: {describe(error)}") from error
    told = (envelope.payload_type, completion.request, completion.party)
    if told != (COMPLETION_TYPE, request, party):
        raise ErasureError(f"expected {party}'s completion of request {request}, got another")
    return completion
