"""What of the artefacts that a party keeps has to go, and when: of terms, holds and a moment.

Guarantees: an artefact is due when the shortest term that covers its kind and purpose is over, and
never while a hold covers it. Time only goes forward: a clock that was put back brings nothing back,
and one that leaps ahead makes nothing due before a second run has found it there again.

Leaves to others: finding artefacts, deleting them and keeping the mark (`federation.retaining`).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Annotated, Final

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from compliance.errors import RetentionError
from compliance.records.leaf import Name, Sentence
from compliance.terms import Artefact, RetentionTerm

__all__ = ["LARGEST_STEP", "Hold", "Kept", "Mark", "Standing", "State", "assess"]

LARGEST_STEP: Final = timedelta(days=7)
"""By which a clock may be ahead of the mark and be believed at once."""


class _Closed(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


HoldName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")]
"""Lower-case letters, digits and hyphens: a file is called so."""


class Mark(_Closed):
    """The latest moment that is believed to have come.

    Attributes:
        moment: that moment, UTC; it never goes back.
        claimed: what the clock said when it had leapt ahead, until another run finds it there too.
    """

    moment: AwareDatetime
    claimed: AwareDatetime | None = None

    def advance(self, reading: datetime, *, largest_step: timedelta = LARGEST_STEP) -> "Mark":
        """Return the mark after the clock was read.

        1. A clock behind the mark changes nothing, and withdraws a claim.
        2. A clock ahead by at most `largest_step` is believed.
        3. So is one that has gone on by at most as much since it was found further ahead.
        4. Any other leap is a claim.
        """
        if reading <= self.moment:  # 1
            return Mark(moment=self.moment)
        if reading - self.moment <= largest_step:  # 2
            return Mark(moment=reading)
        if self.claimed is not None and timedelta(0) <= reading - self.claimed <= largest_step:  # 3
            return Mark(moment=reading)
        return Mark(moment=self.moment, claimed=reading)  # 4


class Hold(_Closed):
    """A reason to keep artefacts though their time has come.

    Attributes:
        hold: its name.
        artefact: the kind that is kept.
        name: which one of that kind; all of them where left out.
        reason: in words, such as whose order it is.
    """

    hold: HoldName
    artefact: Artefact
    name: Name | None = None
    reason: Sentence

    @classmethod
    def of(cls, hold: str, artefact: str, reason: str, *, name: str | None = None) -> "Hold":
        """Read a hold from plain values.

        Raises:
            RetentionError: one is malformed.
        """
        given = {"hold": hold, "artefact": artefact, "name": name, "reason": reason}
        try:
            return cls.model_validate(given)
        except ValidationError as error:
            raise RetentionError(_mistakes(error, given)) from error

    def covers(self, kept: "Kept") -> bool:
        """Tell whether an artefact is to be kept."""
        return self.artefact is kept.artefact and self.name in (None, kept.name)


_EXPECTED: Final[Mapping[str, str]] = {
    "hold": "1 to 63 lowercase letters, digits and dashes, no dash first, such as case-12",
    "artefact": f"one of {', '.join(Artefact)}",
    "name": "the name of a job",
    "reason": "one line of 1 to 300 characters that names nobody, without '@'",
}


def _mistakes(error: ValidationError, given: Mapping[str, str | None]) -> str:
    """Say what was expected in place of what is malformed, which may name a person."""
    fields = dict.fromkeys(str(problem["loc"][0]) for problem in error.errors())
    told = []
    for field in fields:
        size = len(given.get(field) or "")
        got = f"another text of {size} characters" if size else "nothing"
        told.append(f"{field}: expected {_EXPECTED[field]}, got {got}")
    return f"no hold was placed: {'; '.join(told)}: give it anew"


@dataclass(frozen=True)
class Kept:
    """Something that came of people's data.

    Attributes:
        artefact: its kind.
        name: of the job that made it.
        purpose: for which its people were used.
        created: when it was made, UTC.
    """

    artefact: Artefact
    name: str
    purpose: str
    created: datetime


class State(StrEnum):
    """Where an artefact stands."""

    UNLIMITED = "unlimited"
    """No term covers it."""
    KEPT = "kept"
    """Its time has not come."""
    HELD = "held"
    """Its time has come, and a hold keeps it."""
    DUE = "due"
    """It has to be deleted."""


@dataclass(frozen=True)
class Standing:
    """Where an artefact stands, and why.

    Attributes:
        kept: the artefact.
        state: where it stands.
        term: the shortest that covers it, if any does.
        due: when it has to go, under that term.
        holds: names of those that cover it, sorted.
    """

    kept: Kept
    state: State
    term: RetentionTerm | None
    due: datetime | None
    holds: tuple[str, ...]


def assess(
    terms: Sequence[RetentionTerm], artefacts: Iterable[Kept], holds: Sequence[Hold], now: datetime
) -> tuple[Standing, ...]:
    """Say where artefacts stand, in the order in which they have to go; those without term last.

    Args:
        terms: of the agreement. Each is a most: where several cover an artefact, the shortest
            decides.
        artefacts: what a party keeps.
        holds: those in force.
        now: the mark's moment.
    """
    found = (_standing(terms, kept, holds, now) for kept in artefacts)
    return tuple(
        sorted(
            found,
            key=lambda one: (
                one.due is None,
                one.due or one.kept.created,
                one.kept.artefact,
                one.kept.name,
            ),
        )
    )


def _standing(
    terms: Sequence[RetentionTerm], kept: Kept, holds: Sequence[Hold], now: datetime
) -> Standing:
    held_by = tuple(sorted(one.hold for one in holds if one.covers(kept)))
    covering = [
        one
        for one in terms
        if one.artefact is kept.artefact and one.purpose in (None, kept.purpose)
    ]
    if not covering:
        return Standing(kept, State.UNLIMITED, None, None, held_by)
    term = min(covering, key=lambda one: (one.days, one.purpose is None))
    due = kept.created + timedelta(days=term.days)
    if now < due:
        return Standing(kept, State.KEPT, term, due, held_by)
    return Standing(kept, State.HELD if held_by else State.DUE, term, due, held_by)
