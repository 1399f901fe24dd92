"""What jobs did, and what they made."""

from typing import Annotated, Literal

from pydantic import (
    Field,
    model_validator,
)

from compliance.records.leaf import (
    Count,
    Delta,
    Digest,
    Epsilon,
    Leaf,
    Missing,
    Name,
    Parties,
    Share,
)

__all__ = [
    "JobEnded",
    "JobStarted",
    "LinkOpened",
    "MatchBound",
    "MeasurementMade",
    "ModelTrained",
    "SegmentWritten",
]


class ModelTrained(Leaf):
    """A model was finished, with the privacy that it holds for each person.

    Attributes:
        model_digest: hexadecimal SHA-256 of the model file.
        rounds: of training.
        parties: whose rows it was trained on.
        missing: partners that were missing, at the beginning or later on.
        epsilon: of the whole training per person; None with `delta` if there is no guarantee.
        delta: that goes with `epsilon`.
    """

    kind: Literal["model.trained"] = "model.trained"
    model_digest: Digest
    rounds: Count
    parties: Parties
    missing: Missing = ()
    epsilon: Epsilon | None
    delta: Delta | None

    @model_validator(mode="after")
    def _check_guarantee(self) -> "ModelTrained":
        if (self.epsilon is None) != (self.delta is None):
            raise ValueError("expected epsilon and delta together, or neither")
        return self


class MeasurementMade(Leaf):
    """Counts were collected, with the privacy that they hold for each person.

    Attributes:
        measurement_digest: hexadecimal SHA-256 of the file that holds them.
        parties: whose people were counted.
        missing: partners whose people were not.
        epsilon: of all counts per person.
        delta: that goes with it; None for pure ε.
    """

    kind: Literal["measurement.made"] = "measurement.made"
    measurement_digest: Digest
    parties: Parties
    missing: Missing = ()
    epsilon: Epsilon
    delta: Delta | None


class SegmentWritten(Leaf):
    """A segment was written at its owner.

    Attributes:
        segment: its name.
        share: of people that was asked for; or
        size: that was asked for.
        rows: people in it.
    """

    kind: Literal["segment.written"] = "segment.written"
    segment: Name
    share: Share | None = None
    size: Count | None = None
    rows: Count

    @model_validator(mode="after")
    def _check_asked(self) -> "SegmentWritten":
        if (self.share is None) == (self.size is None):
            raise ValueError("expected either share or size")
        return self


class MatchBound(Leaf):
    """A match with another party is bound to the two sets that it began with.

    A commitment is an HMAC under a random key: it tells nothing of a set, and whoever made it can
    open it to an auditor, who finds the same one in the other party's log.
    """

    kind: Literal["match.bound"] = "match.bound"
    peer: Name
    own_commitment: Digest
    peer_commitment: Digest


class LinkOpened(Leaf):
    """The party opens a direct link to another, to match one bucket of their sets.

    What travels over it is not in the log; the certificates tell who held the ends.
    """

    kind: Literal["link.opened"] = "link.opened"
    peer: Name
    protocol: Name
    bucket: Annotated[int, Field(strict=True, ge=0, le=2**53 - 1)]
    own_certificate: Digest
    peer_certificate: Digest


class JobStarted(Leaf):
    """The party takes part in a job."""

    kind: Literal["job.started"] = "job.started"
    computation: Name


class JobEnded(Leaf):
    """The party's part in a job is over, and how.

    Attributes:
        computation: what it did.
        outcome: how it ended.
        missing: partners that it went on without, where the party knows.
        of_another_version: those of them whose nodes ran another version, where the party knows.
    """

    kind: Literal["job.ended"] = "job.ended"
    computation: Name
    outcome: Name
    missing: Missing = ()
    of_another_version: Missing = ()
