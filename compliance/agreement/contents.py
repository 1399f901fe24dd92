"""What an agreement says, and what follows from one term or another of it.

Leaves to others: whether its terms fit together (`contradictions`), its spelling (`contract`).
"""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, Field

from compliance.errors import InvalidAgreementError
from compliance.terms import (
    MOST_WITNESSES,
    RELEASES_ROWS,
    AmendmentTerms,
    ApprovalTerms,
    BudgetTerms,
    ColumnTerm,
    Computation,
    ConsentTerms,
    DatasetTerm,
    Digest,
    EarlierParty,
    ErasureTerms,
    ExpandTerms,
    Line,
    MatchTerms,
    MeasureTerms,
    Moment,
    Name,
    PartyTerm,
    Purpose,
    RegionTerm,
    RetentionTerm,
    Reveal,
    Role,
    TerminationTerms,
    Terms,
    Text,
    TrainTerms,
    VerticalTerms,
    drawn_witnesses,
    unique,
)

__all__ = ["MOST_PARTIES", "AgreementTerms", "iso", "names_of"]

MOST_PARTIES: Final = 128
"""Parties of one agreement: the first leaf of a log names all, and all sign one envelope."""


class AgreementTerms(Terms):
    """What the parties promise each other, in full; only an `Agreement` is free of contradictions.

    Attributes:
        version: of this format.
        name: short name of the collaboration.
        title: what people call it.
        purposes: everything that people's data may be used for; consents name these.
        parties: exactly one brand and one coordinator, at least one partner, any auditors; at most
            `MOST_PARTIES`.
        datasets: one of the brand and one of each partner.
        features: columns that every partner brings to training over rows; none where all training
            is over columns.
        match, train, expand: terms of the three computations.
        measure: terms of counting; nothing is counted where they are left out.
        erasure: what is owed to who asks to be erased; 30 days, and no model that saw them goes on,
            where it is left out.
        vertical: terms of training over columns; there is none where it is left out.
        consent: what a use of people needs besides a consent to its purpose.
        budget: privacy loss per person over all of them.
        valid_from: first moment of validity, UTC.
        valid_until: first moment after it, UTC.
        witness_quorum: other parties that must have cosigned a head of a party's log before it
            counts as public, more than half of those with a cosigning key, so that any two quorums
            share a witness; where left out, all of them but auditors, who then do not count.
        amends: the version that this one takes the place of; a first agreement amends none.
        retention: how long what came of people's data may be kept.
        termination: how a party ends it by notice; none can where it is left out.
        dispute: what is agreed about disputes, in Markdown.
        regions: where each party but auditors keeps data and results, and how far what it lets out
            may go; anywhere where left out.
        code_digests: SHA-256, in hex, of the code that may run at parties; any where left out.
        approval: whose people must approve a job; nobody's where left out.
        terms_text: whatever else is agreed, in Markdown.
    """

    version: Literal[1]
    name: Name
    title: Line
    purposes: Annotated[
        tuple[Purpose, ...], Field(min_length=1, max_length=64), AfterValidator(unique)
    ]
    parties: Annotated[tuple[PartyTerm, ...], Field(max_length=MOST_PARTIES)]
    datasets: Annotated[tuple[DatasetTerm, ...], Field(max_length=MOST_PARTIES)]
    features: Annotated[tuple[ColumnTerm, ...], Field(max_length=1_000)]
    match: MatchTerms
    train: TrainTerms
    expand: ExpandTerms
    measure: MeasureTerms | None = None
    erasure: ErasureTerms | None = None
    vertical: VerticalTerms | None = None
    consent: ConsentTerms | None = None
    budget: BudgetTerms
    valid_from: Moment
    valid_until: Moment
    witness_quorum: Annotated[int, Field(strict=True, ge=1, le=MOST_WITNESSES)] | None = None
    amends: AmendmentTerms | None = None
    retention: Annotated[tuple[RetentionTerm, ...], Field(max_length=64)] = ()
    termination: TerminationTerms | None = None
    dispute: Text = ""
    regions: Annotated[tuple[RegionTerm, ...], Field(max_length=MOST_PARTIES)] = ()
    code_digests: Annotated[tuple[Digest, ...], Field(max_length=64), AfterValidator(unique)] = ()
    approval: ApprovalTerms | None = None
    terms_text: Text = ""

    @property
    def number(self) -> int:
        """Which version it is; the first is 1."""
        return 1 if self.amends is None else self.amends.number

    @property
    def supersedes(self) -> str | None:
        """Digest of the version that it takes the place of, if any."""
        return None if self.amends is None else self.amends.supersedes

    @property
    def earlier(self) -> tuple[EarlierParty, ...]:
        """Every party of every version before this one, by name."""
        return () if self.amends is None else self.amends.earlier

    @property
    def cut_delta(self) -> float:
        """What cutting noise may add to a person's δ, over all matches that are allowed.

        Earlier versions' matches count too.

        Noise that is made of dummies has bounds, and what lies beyond is cut off. Of the matches
        that a party may have with each other one, each with a partner costs `match.size_delta`
        where sizes alone are revealed; an alignment is one with every party, and costs its `delta`.
        """
        return self.cut_delta_until(self.valid_until)

    def cut_delta_until(self, moment: datetime) -> float:
        """Return what cutting noise may have added to a person's δ before a moment in force."""
        sizes = self.match.size_delta if self.match.reveal is Reveal.SIZE_ONLY else 0.0
        alignment = self.match.alignment.delta if self.match.alignment is not None else 0.0
        before = 0.0 if self.amends is None else self.amends.cut_delta
        one = max(len(self.by_role(Role.PARTNER)) * sizes, alignment)
        return before + self.most_matches(moment) * one

    @property
    def accounted_delta(self) -> float:
        """The δ at which all charges are priced: what cuts of noise leave of the budget's."""
        return self.budget.delta - self.cut_delta

    @property
    def accounted_period_delta(self) -> float | None:
        """The δ at which a period's charges are priced; None where no period is agreed.

        What all cuts could add while the agreement lasts is taken off, though not all of them fall
        into one period.
        """
        period = self.budget.period
        return None if period is None else period.delta - self.cut_delta

    def most_matches(self, until: datetime) -> int:
        """Return how often a party may match with another from the first moment to `until`."""
        period = timedelta(days=self.match.period_days)
        return self.match.maximum_matches * -((self.valid_from - until) // period)

    def party(self, name: str) -> PartyTerm:
        """Return the party of that name.

        Raises:
            InvalidAgreementError: no party is called so.
        """
        for party in self.parties:
            if party.name == name:
                return party
        raise InvalidAgreementError(
            f"agreement {self.name!r} has no party {name!r}, only {names_of(self.parties)}"
        )

    def dataset(self, party: str) -> DatasetTerm:
        """Return what `party` brings.

        Raises:
            InvalidAgreementError: it brings nothing.
        """
        for dataset in self.datasets:
            if dataset.party == party:
                return dataset
        raise InvalidAgreementError(f"agreement {self.name!r} has no data set of {party!r}")

    def by_role(self, role: Role) -> tuple[PartyTerm, ...]:
        """Return the parties of that role, in the agreement's order."""
        return tuple(party for party in self.parties if party.role is role)

    def witnesses_of(self, name: str) -> tuple[str, ...]:
        """Return whose cosignatures make a head of a party's log public, in the agreement's order.

        Others with a cosigning key, of whom `MOST_WITNESSES` at most are drawn for each log;
        auditors are among them where the agreement says how many must cosign.
        """
        others = [
            party.name
            for party in self.parties
            if party.name != name
            and party.cosigning_key is not None
            and (self.witness_quorum is not None or party.role is not Role.AUDITOR)
        ]
        return drawn_witnesses(name, others)

    def needs_approval(self, computation: Computation) -> bool:
        """Tell whether a job of that kind needs people's approvals."""
        if self.approval is None:
            return False
        if computation is Computation.MATCH and self.match.reveal is Reveal.SIZE_ONLY:
            return computation in self.approval.also
        return computation in RELEASES_ROWS or computation in self.approval.also

    def check_time(self, now: datetime) -> None:
        """Return only if the agreement is in force at `now`, which has a time zone.

        Raises:
            InvalidAgreementError: it is not yet, or no longer, in force.
        """
        if not self.valid_from <= now < self.valid_until:
            raise InvalidAgreementError(
                f"agreement {self.name!r} is in force from {iso(self.valid_from)} to before "
                f"{iso(self.valid_until)}, and now is {iso(now.astimezone(UTC))}: sign one that "
                "covers today"
            )


def iso(moment: datetime) -> str:
    """Write a moment in UTC as RFC 3339 with Z."""
    return moment.isoformat().replace("+00:00", "Z")


def names_of(parties: Iterable[PartyTerm]) -> str:
    """Return the parties' names in one line."""
    return ", ".join(party.name for party in parties)
