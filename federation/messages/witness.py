"""What is said when parties witness each other's logs."""

from typing import Literal

from pydantic import Field

from federation.messages.vocabulary import Closed

__all__ = ["WitnessAsk", "WitnessSaid", "WitnessShow", "WitnessShown", "WitnessTell"]


class WitnessShow(Closed):
    """Coordinator to a data party: show your log's head to the other parties (payload: a nonce).

    Attributes:
        round: 1, or 2 for those whose witnesses had seen another size.
    """

    kind: Literal["witness.show"] = "witness.show"
    round: int = Field(ge=1, le=2)


class WitnessShown(Closed):
    """Data party to coordinator: a request to each other party to cosign (payload: `Requests`)."""

    kind: Literal["witness.shown"] = "witness.shown"
    round: int = Field(ge=1, le=2)


class WitnessAsk(Closed):
    """Coordinator to a data party: cosign these heads of others' logs (payload: `Requests`)."""

    kind: Literal["witness.ask"] = "witness.ask"
    round: int = Field(ge=1, le=2)


class WitnessSaid(Closed):
    """Data party to coordinator: cosignatures, or what it has seen last (payload: `Answers`)."""

    kind: Literal["witness.said"] = "witness.said"
    round: int = Field(ge=1, le=2)


class WitnessTell(Closed):
    """Coordinator to a data party: what the others said of its head (payload: `Answers`)."""

    kind: Literal["witness.tell"] = "witness.tell"
    round: int = Field(ge=1, le=2)
