"""What the parties promise each other, in full.

Guarantees: an `Agreement` that exists is whole and free of contradictions, and has exactly one
spelling in bytes, hence one digest.

Leaves to others: single terms (`compliance.terms`), and signatures (`signed`).

Source: RFC 8785 (canonical JSON).
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from functools import cached_property, lru_cache
from typing import Annotated, Any, Final, Literal, Self

import rfc8785
from pydantic import AfterValidator, Field, ValidationError

from compliance.errors import AlteredAgreementError, InvalidAgreementError, describe
from compliance.log.note import NoteKey
from compliance.terms import (
    DATA_ROLES,
    MOST_WITNESSES,
    RELEASES_ROWS,
    AmendmentTerms,
    ApprovalTerms,
    BudgetTerms,
    ColumnTerm,
    ColumnType,
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
    NoiseSource,
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
    approver_mistakes,
    drawn_witnesses,
    region_mistakes,
    repeated,
    unique,
)

__all__ = ["ALIGNED_PARTIES", "CUT_SHARE", "MOST_PARTIES", "Agreement", "iso", "names_of"]

MOST_PARTIES: Final = 128
"""Parties of one agreement: the first leaf of a log names all, and all sign one envelope."""

ALIGNED_PARTIES: Final = (3, 8)
"""Fewest and most data parties that can be aligned: two match by themselves, and what hides the
counts of groups doubles with every party."""

CUT_SHARE: Final = 0.1
"""Share of the budget's δ that cutting noise may take, over all matches that are allowed."""


class Agreement(Terms):
    """What the parties promise each other, in full.

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

    @classmethod
    def from_terms(cls, terms: Mapping[str, object], *, source: str = "agreement") -> Self:
        """Read an agreement from plain values, such as a parsed TOML table.

        Args:
            terms: field name → value; lists and strings where the model has tuples and enums.
            source: what to call it in errors, such as the file's name.

        Raises:
            InvalidAgreementError: all mistakes at once; contradictions between fields are only
                looked for when each field is well-formed.
        """
        try:
            return cls.model_validate(terms)
        except ValidationError as error:
            raise InvalidAgreementError(f"{source}: {describe(error)}") from error

    @staticmethod
    def from_canonical_bytes(data: bytes) -> "Agreement":
        """Read back what `canonical_bytes` wrote, and nothing else.

        Raises:
            InvalidAgreementError: not an agreement of this version, or contradictory.
            AlteredAgreementError: an agreement in another spelling.
        """
        return _read(data)

    @cached_property
    def canonical_bytes(self) -> bytes:
        """The agreement's one spelling in bytes (RFC 8785)."""
        return rfc8785.dumps(self.model_dump(mode="json"))

    @cached_property
    def digest(self) -> str:
        """SHA-256 of `canonical_bytes`, 64 hexadecimal digits: what every record refers to."""
        return hashlib.sha256(self.canonical_bytes).hexdigest()

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Return a copy, unchecked, whose spelling and digest are its own."""
        copied = super().model_copy(update=update, deep=deep)
        for name in ("canonical_bytes", "digest"):
            copied.__dict__.pop(name, None)
        return copied

    @property
    def number(self) -> int:
        """Which version it is; the first is 1."""
        return 1 if self.amends is None else self.amends.number

    @property
    def supersedes(self) -> str | None:
        """Digest of the version that it takes the place of, if any."""
        return None if self.amends is None else self.amends.supersedes

    @property
    def lineage(self) -> str:
        """Digest of the first version: what budget and history are kept under."""
        return self.digest if self.amends is None else self.amends.first

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
        return before + self._most_matches(moment) * one

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

    def _most_matches(self, until: datetime) -> int:
        """Matches of a party with another from the agreement's first moment to another."""
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

    def _mistakes(self) -> Iterator[str]:
        yield from self._party_mistakes()
        yield from self._dataset_mistakes()
        yield from self._term_mistakes()
        yield from self._quorum_mistakes()
        yield from region_mistakes(self.regions, self.parties)
        if self.approval is not None:
            yield from approver_mistakes(self.approval, self.parties)

    def _quorum_mistakes(self) -> Iterator[str]:
        if self.witness_quorum is None:
            return
        others = [len(self.witnesses_of(party.name)) for party in self.parties]
        least, most = max(others) // 2 + 1, min(others)
        if not least <= self.witness_quorum <= most:
            expected = f"expected {least} to {most}" if least <= most else "no number will do"
            yield (
                f"witness_quorum: got {self.witness_quorum}, {expected}: it must be more than half "
                f"of the {max(others)} other parties with a cosigning key that witness a log, lest "
                "two heads that contradict each other both be public: raise it, leave it out (all "
                "of them but auditors), or leave out auditors' cosigning keys"
            )

    def _party_mistakes(self) -> Iterator[str]:
        for name in repeated(party.name for party in self.parties):
            yield f"parties: two are called {name!r}"
        holders = [
            (key, party.name)
            for party in self.parties
            for key in (
                party.verifying_key,
                NoteKey.from_string(party.log_key).key,
                party.encryption_key,
                party.cosigner and party.cosigner.raw,
            )
            if key is not None
        ]
        for shared in repeated(key for key, _ in holders):
            among = ", ".join(name for key, name in holders if key == shared)
            yield f"parties: one key stands twice (at {among}): each needs keys of its own"
        for role, most in ((Role.BRAND, 1), (Role.COORDINATOR, 1), (Role.PARTNER, None)):
            found = self.by_role(role)
            if not found or (most and len(found) > most):
                expected = "exactly" if most else "at least"
                yield f"parties: expected {expected} one {role}, got {names_of(found) or 'none'}"

    def _dataset_mistakes(self) -> Iterator[str]:
        owners = {dataset.party: set(dataset.identifiers) for dataset in self.datasets}
        bringing = (*self.by_role(Role.BRAND), *self.by_role(Role.PARTNER))
        for name in repeated(dataset.party for dataset in self.datasets):
            yield f"datasets: {name!r} has two: merge them"
        for name in owners:
            if name not in {party.name for party in bringing}:
                yield f"datasets: {name!r}, which has one, is neither the brand nor a partner"
        for party in bringing:
            if party.name not in owners:
                yield f"datasets: {party.name!r} has none: declare one"
        for name, keys in owners.items():
            if strange := sorted(keys.difference(self.match.keys)):
                yield f"datasets: {name!r} brings {', '.join(strange)}, which match.keys lacks"
        yield from self._unmatchable(owners)
        yield from self._unalignable(owners)

    def _unmatchable(self, owners: Mapping[str, set[str]]) -> Iterator[str]:
        for brand in self.by_role(Role.BRAND):
            for partner in self.by_role(Role.PARTNER):
                pair = owners.get(brand.name), owners.get(partner.name)
                if pair[0] and pair[1] and pair[0].isdisjoint(pair[1]):
                    yield f"datasets: {brand.name!r} and {partner.name!r} share no key to match by"

    def _unalignable(self, owners: Mapping[str, set[str]]) -> Iterator[str]:
        terms = self.match.alignment
        if terms is None:
            return
        fewest, most = ALIGNED_PARTIES
        if not fewest <= len(owners) <= most:
            yield (
                f"match.alignment: expected {fewest} to {most} parties with data sets, got "
                f"{len(owners)}"
            )
        for name, keys in owners.items():
            if terms.key not in keys:
                yield f"datasets: {name!r} lacks {terms.key}, the key of match.alignment"

    def _term_mistakes(self) -> Iterator[str]:
        for name in repeated(column.name for column in self.features):
            yield f"features: two are called {name!r}"
        yield from self._group_mistakes()
        yield from self._vertical_mistakes()
        used = (
            *(("match", self.match), ("train", self.train), ("expand", self.expand)),
            ("measure", self.measure),
        )
        for computation, terms in used:
            if terms is not None and terms.purpose not in self.purposes:
                yield f"{computation}.purpose: {terms.purpose!r} is not among the purposes"
        yield from self._period_mistakes()
        yield from self._measure_mistakes()
        yield from self._retention_mistakes()
        if not self.valid_from < self.valid_until:
            yield f"valid_until: {iso(self.valid_until)} is not after {iso(self.valid_from)}"
        if self.cut_delta > CUT_SHARE * self.budget.delta:
            yield (
                f"match: cutting noise may add {self.cut_delta:.2g} to the δ of a person in the "
                f"{self._most_matches(self.valid_until)} matches of a party with another that are "
                f"allowed, more than {CUT_SHARE:.0%} of the budget's delta, "
                f"{self.budget.delta:g}: agree on a smaller size_delta or alignment.delta, or on "
                "fewer matches"
            )
        limits = (
            ("max_parties_per_person", "number of partners", len(self.by_role(Role.PARTNER))),
            ("epsilon", "budget's epsilon", self.budget.epsilon),
            ("delta", "budget's delta", self.budget.delta),
        )
        for field, limit, most in limits:
            if (asked := getattr(self.train, field)) > most:
                yield f"train.{field}: {asked} passes the {limit}, {most}"
        for noise in self.train.noise:
            if noise is not NoiseSource.LOCAL:
                yield from self._sum_mistakes(noise)

    def _period_mistakes(self) -> Iterator[str]:
        period = self.budget.period
        if period is not None and self.cut_delta > CUT_SHARE * period.delta:
            yield (
                f"budget.period.delta: {period.delta:g} is less than {1 / CUT_SHARE:.0f} times "
                f"what cutting noise may add, {self.cut_delta:.2g}: agree on a larger one"
            )

    def _measure_mistakes(self) -> Iterator[str]:
        if (terms := self.measure) is None:
            return
        features = {column.name: column for column in self.features}
        for column in terms.columns:
            feature = features.get(column.name)
            if feature is None:
                yield f"measure.columns: {column.name!r} is none of the features"
            elif bool(column.edges) is bool(feature.categories):
                what = "no" if feature.categories else "some"
                yield f"measure.columns: {feature.type} {column.name!r} needs {what} edges"
        for field, most in (("epsilon", self.budget.epsilon), ("delta", self.budget.delta)):
            asked = getattr(terms, field)
            if asked is not None and asked > most:
                yield f"measure.{field}: {asked} passes the budget's {field}, {most}"

    def _retention_mistakes(self) -> Iterator[str]:
        for artefact, purpose in repeated((one.artefact, one.purpose) for one in self.retention):
            yield f"retention: {artefact.value!r} stands twice for {purpose or 'any purpose'}"
        for one in self.retention:
            if one.purpose is not None and one.purpose not in self.purposes:
                yield f"retention: {one.purpose!r} is not among the purposes"

    def _group_mistakes(self) -> Iterator[str]:
        grouped = {one.name for one in self.features if one.type is ColumnType.CATEGORICAL}
        for name in self.expand.fairness_groups:
            if name not in grouped:
                yield f"expand.fairness_groups: {name!r} is no categorical feature: describe it"

    def _vertical_mistakes(self) -> Iterator[str]:
        terms = self.vertical
        if terms is None:
            if not self.features:
                yield "features: expected one or more, or terms of vertical training"
            return
        if terms.purpose not in self.purposes:
            yield f"vertical.purpose: {terms.purpose!r} is not among the purposes"
        if self.match.alignment is None:
            yield "vertical: needs match.alignment, by which rows are brought into one order"
        people = {party.name for role in DATA_ROLES for party in self.by_role(role)}
        holders = {column.party for column in terms.columns}
        for name in sorted(holders - people):
            yield f"vertical.columns: {name!r} is neither the brand nor a partner"
        for name in sorted(people - holders):
            yield f"vertical.columns: {name!r} brings none: it could add nothing"
        if (terms.label_epsilon or 0.0) > self.budget.epsilon:
            yield (
                f"vertical.label_epsilon: {terms.label_epsilon} passes the budget's epsilon, "
                f"{self.budget.epsilon}"
            )

    def _sum_mistakes(self, noise: NoiseSource) -> Iterator[str]:
        """Say why no secure sum could be: see `privacy.secagg.Plan` for the limits."""
        partners = len(self.by_role(Role.PARTNER))
        colluding, absent = self.train.colluding_partners, self.train.absent_in_sums(noise)
        counted_on = partners - colluding - absent
        if partners < 2:
            yield (
                f"train.noise: {noise.value!r} needs 2 partners or more for its secure sums, got "
                f"{partners}: add a partner, or agree on {NoiseSource.LOCAL.value!r} alone"
            )
        elif counted_on < 1:
            yield (
                f"train.colluding_partners and absent_partners: {colluding} and {absent} of "
                f"{partners} partners leave nobody to count on: agree on at most {partners - 1} in "
                "all"
            )
        elif noise is NoiseSource.UNSAFE_NONE and counted_on < 2:
            yield (
                f"train.colluding_partners: {colluding} of {partners} partners leave one, whose "
                "part of an exact sum they could read: without noise, agree on at most "
                f"{partners - 2}"
            )
        elif 2 * absent + self.train.colluding_in_sums(partners, noise) >= partners:
            yield (
                f"train.absent_partners: of {partners} partners, {colluding} of them colluding, "
                f"{absent} may not be missing: a coordinator that lies could have two sums of one "
                "round"
            )


@lru_cache(maxsize=4)
def _read(data: bytes) -> Agreement:
    """Read an agreement once, however often a process asks for it: it never changes."""
    try:
        agreement = Agreement.model_validate_json(data)
    except ValidationError as error:
        raise InvalidAgreementError(f"agreement: {describe(error)}") from error
    if agreement.canonical_bytes != data:
        raise AlteredAgreementError(
            "the agreement is not in canonical JSON (RFC 8785): ask its author for the original"
        )
    return agreement


def iso(moment: datetime) -> str:
    """Write a moment in UTC as RFC 3339 with Z."""
    return moment.isoformat().replace("+00:00", "Z")


def names_of(parties: Iterable[PartyTerm]) -> str:
    """Return the parties' names in one line."""
    return ", ".join(party.name for party in parties)
