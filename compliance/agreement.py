"""The contract: who may compute what, with which data, for which purpose, at which price.

Guarantees: an `Agreement` that exists is whole and free of contradictions, and has exactly one
spelling in bytes, hence one digest; its text holds no control, invisible or reordering characters
that would show a reader something else. `SignedAgreement.verify` returns an agreement only if
every party named in it signed these very bytes.

Leaves to others: obeying the terms (`federation.gate`), entropy and key files, and the question
whose key is whose: the agreement carries its own keys, so a party finds its own key in it before
it signs and compares the others' fingerprints (`render` shows them) over another channel.

Sources: RFC 8785 (canonical JSON), DSSE v1.0 (through `compliance.signing`), RFC 8032 (Ed25519).
"""

import hashlib
import json
import math
import re
from collections import Counter
from collections.abc import Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Final, Literal, Self, TypeVar

import rfc8785
from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)
from pydantic_core import PydanticCustomError

from compliance.errors import (
    AlteredAgreementError,
    InvalidAgreementError,
    SignatureError,
    UnsignedAgreementError,
    describe,
)
from compliance.log.note import NoteKey
from compliance.signing import PARTY_NAME_PATTERN, Envelope, SigningKey, VerifyingKey

__all__ = [
    "PAYLOAD_TYPE",
    "Agreement",
    "BudgetTerms",
    "Classification",
    "ColumnTerm",
    "ColumnType",
    "Computation",
    "DatasetTerm",
    "EmailRule",
    "ExpandTerms",
    "IdentifierKind",
    "MatchTerms",
    "PartyTerm",
    "Reveal",
    "Role",
    "Scale",
    "SignedAgreement",
    "TrainTerms",
    "render",
]

PAYLOAD_TYPE: Final = "application/vnd.comity.agreement+json"
"""DSSE payload type of a signed agreement."""

_LARGEST_INTEGER: Final = 2**53 - 1  # RFC 8785 numbers are IEEE 754 doubles

_String = TypeVar("_String", bound=str)
_Item = TypeVar("_Item", bound=Hashable)


class Role(StrEnum):
    """What a party is there for."""

    BRAND = "brand"
    PARTNER = "partner"
    COORDINATOR = "coordinator"
    AUDITOR = "auditor"


class IdentifierKind(StrEnum):
    """What people can be matched by."""

    EMAIL = "email"
    PHONE = "phone"


class EmailRule(StrEnum):
    """How e-mail addresses are normalised before they are hashed."""

    AS_WRITTEN = "as_written"
    PROVIDER_RULES = "provider_rules"


class Reveal(StrEnum):
    """Who learns the outcome of a match."""

    PARTNER_LEARNS_MEMBERS = "partner-learns-members"


class ColumnType(StrEnum):
    """What a feature's values are."""

    NUMERIC = "numeric"
    CATEGORICAL = "categorical"


class Scale(StrEnum):
    """How a numeric feature is spread between its bounds."""

    LINEAR = "linear"
    LOG = "log"


class Classification(StrEnum):
    """How much a column can harm whom it is about, least first."""

    PUBLIC = "public"
    INTERNAL = "internal"
    PERSONAL = "personal"
    SENSITIVE = "sensitive"


class Computation(StrEnum):
    """What may be computed under an agreement."""

    MATCH = "match"
    TRAIN = "train"
    EXPAND = "expand"


def _identity_key(text: str) -> str:
    try:
        VerifyingKey.from_base64(text)
    except SignatureError as error:
        raise ValueError(str(error)) from error
    return text


def _log_key(text: str) -> str:
    try:
        NoteKey.from_string(text)
    except SignatureError as error:
        raise ValueError(str(error)) from error
    return text


def _utc(moment: datetime) -> datetime:
    return moment.astimezone(UTC)


def _unique(values: tuple[_String, ...]) -> tuple[_String, ...]:
    if repeated := _repeated(values):
        raise ValueError(f"expected each entry once, got again: {', '.join(repeated)}")
    return values


def _repeated(values: Iterable[_Item]) -> list[_Item]:
    return [value for value, count in Counter(values).items() if count > 1]


Name = Annotated[str, Field(pattern=PARTY_NAME_PATTERN)]
Purpose = Annotated[str, Field(pattern=r"^[a-z][a-z0-9._:/-]{0,126}$")]
ColumnName = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_.-]{0,62}$")]
Line = Annotated[
    str, Field(min_length=1, max_length=200, pattern=r"^[^\p{Cc}\p{Cf}\p{Zl}\p{Zp}]*$")
]
"""Text that shows what it says: no line breaks, control, invisible or reordering characters."""
Text = Annotated[
    str, Field(max_length=100_000, pattern=r"^(?:[^\p{Cc}\p{Cf}\p{Zl}\p{Zp}]|[\n\t])*$")
]
Moment = Annotated[
    AwareDatetime,
    Field(ge=datetime(2000, 1, 1, tzinfo=UTC), lt=datetime(2200, 1, 1, tzinfo=UTC)),
    AfterValidator(_utc),
]
Count = Annotated[int, Field(strict=True, ge=1, le=_LARGEST_INTEGER)]
Finite = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Epsilon = Annotated[Finite, Field(gt=0)]
Delta = Annotated[Finite, Field(gt=0, lt=1)]


class _Terms(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    @model_validator(mode="after")
    def _without_mistakes(self) -> Self:
        if mistakes := tuple(self._mistakes()):
            raise PydanticCustomError("terms", "{mistakes}", {"mistakes": "; ".join(mistakes)})
        return self

    def _mistakes(self) -> Iterator[str]:
        """Yield what contradicts itself between fields that are well-formed one by one."""
        yield from ()


class PartyTerm(_Terms):
    """An organisation that the agreement binds.

    Attributes:
        name: lower-case letters, digits and hyphens, at most 63.
        role: what it is there for.
        identity_key: base64 of the Ed25519 key that signs the agreement and its messages.
        log_key: verifier key of its log, `origin+id+base64` (C2SP signed-note).
    """

    name: Name
    role: Role
    identity_key: Annotated[str, AfterValidator(_identity_key)]
    log_key: Annotated[Line, AfterValidator(_log_key)]

    @property
    def verifying_key(self) -> VerifyingKey:
        """The key that `identity_key` spells."""
        return VerifyingKey.from_base64(self.identity_key)


class ColumnTerm(_Terms):
    """A feature that every partner brings, under this name and with these public bounds.

    Bounds and categories are agreed, never taken from the data: looking would already tell.

    Attributes:
        name: the feature's common name.
        type: numeric or categorical.
        minimum: smallest value, numeric only; values below count as this one.
        maximum: largest value, numeric only; values above count as this one.
        scale: how a numeric feature is spread between its bounds; `log` needs `minimum` ≥ 0.
        categories: the values of a categorical feature, two to 1,000.
        unit: of a numeric feature, as a reader would write it.
        classification: how much the column can harm whom it is about.
    """

    name: ColumnName
    type: ColumnType
    minimum: Finite | None = None
    maximum: Finite | None = None
    scale: Scale = Scale.LINEAR
    categories: Annotated[tuple[Line, ...], Field(max_length=1_000), AfterValidator(_unique)] = ()
    unit: Line | None = None
    classification: Classification = Classification.PERSONAL

    def _mistakes(self) -> Iterator[str]:
        if self.type is ColumnType.CATEGORICAL:
            if len(self.categories) < 2:
                yield f"categorical {self.name!r} needs at least two categories"
            if (self.minimum, self.maximum, self.unit) != (None, None, None):
                yield f"categorical {self.name!r} can have neither bounds nor a unit"
            if self.scale is not Scale.LINEAR:
                yield f"categorical {self.name!r} can have no scale"
            return
        if self.categories:
            yield f"numeric {self.name!r} can have no categories"
        if self.minimum is None or self.maximum is None:
            yield f"numeric {self.name!r} needs a minimum and a maximum"
        elif not (self.minimum < self.maximum and math.isfinite(self.maximum - self.minimum)):
            yield f"numeric {self.name!r} needs a minimum below its maximum, both of sane size"
        if self.scale is Scale.LOG and self.minimum is not None and self.minimum < 0:
            yield f"numeric {self.name!r} on a log scale needs a minimum of 0 or more"


class DatasetTerm(_Terms):
    """The people that a party brings.

    Attributes:
        party: who brings them.
        declared_rows: a public round figure; denominators use it so that no true count leaves.
        identifiers: what its people can be matched by.
    """

    party: Name
    declared_rows: Count
    identifiers: Annotated[tuple[IdentifierKind, ...], Field(min_length=1), AfterValidator(_unique)]


class MatchTerms(_Terms):
    """How people are matched.

    Attributes:
        purpose: for which each of them must have consented.
        default_region: ISO 3166-1 alpha-2; the country of phone numbers written without one.
        email_rule: how e-mail addresses are normalised.
        reveal: who learns the outcome.
        minimum_match: matches below which nothing is used.
        set_size_bucket: sets are padded to a multiple of this, which alone shows on the wire.
    """

    purpose: Purpose
    default_region: Annotated[str, Field(pattern=r"^[A-Z]{2}$")]
    email_rule: EmailRule
    reveal: Reveal
    minimum_match: Count
    set_size_bucket: Count


class TrainTerms(_Terms):
    """How models are trained.

    Attributes:
        purpose: for which each person must have consented.
        model: the one family of models allowed.
        epsilon: privacy loss per person that a single job may ask for at most.
        delta: its failure probability, likewise.
        max_parties_per_person: partners that may hold the same person; the loss adds up over them.
        clipping_norm: bound of one person's gradient in the Euclidean norm.
        max_steps: gradient steps of a job at each partner.
        max_rounds: averagings of a job.
    """

    purpose: Purpose
    model: Literal["logistic-regression"]
    epsilon: Epsilon
    delta: Delta
    max_parties_per_person: Count
    clipping_norm: Annotated[Finite, Field(gt=0)]
    max_steps: Count
    max_rounds: Count


class ExpandTerms(_Terms):
    """How an audience is expanded.

    Attributes:
        purpose: for which each person must have consented.
        maximum_share: largest share of a partner's people in a segment, in (0, 1].
        minimum_segment: people below which no segment is written.
    """

    purpose: Purpose
    maximum_share: Annotated[Finite, Field(gt=0, le=1)]
    minimum_segment: Count


class BudgetTerms(_Terms):
    """The privacy loss that no person may pass, over everything, while the agreement lasts.

    Attributes:
        epsilon: of (ε, δ)-differential privacy, per person, add-or-remove-one.
        delta: its failure probability.
    """

    epsilon: Epsilon
    delta: Delta


class Agreement(_Terms):
    """What the parties promise each other, in full.

    Attributes:
        version: of this format.
        name: short name of the collaboration.
        title: what people call it.
        purposes: everything that people's data may be used for; consents name these.
        parties: exactly one brand and one coordinator, at least one partner, any auditors.
        datasets: one of the brand and one of each partner.
        features: columns that every partner brings to training.
        match, train, expand: terms of the three computations.
        budget: privacy loss per person over all of them.
        valid_from: first moment of validity, UTC.
        valid_until: first moment after it, UTC.
        terms_text: whatever else is agreed, in Markdown.
    """

    version: Literal[1]
    name: Name
    title: Line
    purposes: Annotated[
        tuple[Purpose, ...], Field(min_length=1, max_length=64), AfterValidator(_unique)
    ]
    parties: Annotated[tuple[PartyTerm, ...], Field(max_length=64)]
    datasets: Annotated[tuple[DatasetTerm, ...], Field(max_length=64)]
    features: Annotated[tuple[ColumnTerm, ...], Field(min_length=1, max_length=1_000)]
    match: MatchTerms
    train: TrainTerms
    expand: ExpandTerms
    budget: BudgetTerms
    valid_from: Moment
    valid_until: Moment
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

    @classmethod
    def from_canonical_bytes(cls, data: bytes) -> Self:
        """Read back what `canonical_bytes` wrote, and nothing else.

        Raises:
            InvalidAgreementError: not an agreement of this version, or contradictory.
            AlteredAgreementError: an agreement in another spelling.
        """
        try:
            agreement = cls.model_validate_json(data)
        except ValidationError as error:
            raise InvalidAgreementError(f"agreement: {describe(error)}") from error
        if agreement.canonical_bytes != data:
            raise AlteredAgreementError(
                "the agreement is not in canonical JSON (RFC 8785): ask its author for the original"
            )
        return agreement

    @property
    def canonical_bytes(self) -> bytes:
        """The agreement's one spelling in bytes (RFC 8785)."""
        return rfc8785.dumps(self.model_dump(mode="json"))

    @property
    def digest(self) -> str:
        """SHA-256 of `canonical_bytes`, 64 hexadecimal digits: what every record refers to."""
        return hashlib.sha256(self.canonical_bytes).hexdigest()

    def party(self, name: str) -> PartyTerm:
        """Return the party of that name.

        Raises:
            InvalidAgreementError: no party is called so.
        """
        for party in self.parties:
            if party.name == name:
                return party
        raise InvalidAgreementError(
            f"agreement {self.name!r} has no party {name!r}, only {_names(self.parties)}"
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

    def check_time(self, now: datetime) -> None:
        """Return only if the agreement is in force at `now`, which has a time zone.

        Raises:
            InvalidAgreementError: it is not yet, or no longer, in force.
        """
        if not self.valid_from <= now < self.valid_until:
            raise InvalidAgreementError(
                f"agreement {self.name!r} is in force from {_iso(self.valid_from)} to before "
                f"{_iso(self.valid_until)}, and now is {_iso(now.astimezone(UTC))}: sign one that "
                "covers today"
            )

    def _mistakes(self) -> Iterator[str]:
        yield from self._party_mistakes()
        yield from self._dataset_mistakes()
        yield from self._term_mistakes()

    def _party_mistakes(self) -> Iterator[str]:
        for name in _repeated(party.name for party in self.parties):
            yield f"parties: two are called {name!r}"
        holders = [
            (key, party.name)
            for party in self.parties
            for key in (party.verifying_key, NoteKey.from_string(party.log_key).key)
        ]
        for shared in _repeated(key for key, _ in holders):
            among = ", ".join(name for key, name in holders if key == shared)
            yield f"parties: one key stands twice (at {among}): each needs keys of its own"
        for role, most in ((Role.BRAND, 1), (Role.COORDINATOR, 1), (Role.PARTNER, None)):
            found = self.by_role(role)
            if not found or (most and len(found) > most):
                expected = "exactly" if most else "at least"
                yield f"parties: expected {expected} one {role}, got {_names(found) or 'none'}"

    def _dataset_mistakes(self) -> Iterator[str]:
        owners = {dataset.party: set(dataset.identifiers) for dataset in self.datasets}
        bringing = (*self.by_role(Role.BRAND), *self.by_role(Role.PARTNER))
        for name in _repeated(dataset.party for dataset in self.datasets):
            yield f"datasets: {name!r} has two: merge them"
        for name in owners:
            if name not in {party.name for party in bringing}:
                yield f"datasets: {name!r}, which has one, is neither the brand nor a partner"
        for party in bringing:
            if party.name not in owners:
                yield f"datasets: {party.name!r} has none: declare one"
        for brand in self.by_role(Role.BRAND):
            for partner in self.by_role(Role.PARTNER):
                pair = owners.get(brand.name), owners.get(partner.name)
                if pair[0] and pair[1] and pair[0].isdisjoint(pair[1]):
                    yield f"datasets: {brand.name!r} and {partner.name!r} share no identifier kind"

    def _term_mistakes(self) -> Iterator[str]:
        for name in _repeated(column.name for column in self.features):
            yield f"features: two are called {name!r}"
        used = (("match", self.match), ("train", self.train), ("expand", self.expand))
        for computation, terms in used:
            if terms.purpose not in self.purposes:
                yield f"{computation}.purpose: {terms.purpose!r} is not among the purposes"
        if not self.valid_from < self.valid_until:
            yield f"valid_until: {_iso(self.valid_until)} is not after {_iso(self.valid_from)}"
        limits = (
            ("max_parties_per_person", "number of partners", len(self.by_role(Role.PARTNER))),
            ("epsilon", "budget's epsilon", self.budget.epsilon),
            ("delta", "budget's delta", self.budget.delta),
        )
        for field, limit, most in limits:
            if (asked := getattr(self.train, field)) > most:
                yield f"train.{field}: {asked} passes the {limit}, {most}"


@dataclass(frozen=True)
class SignedAgreement:
    """An agreement on its way round the parties, or back with all their signatures.

    Nothing in it is to be believed until `verify` returned; `unverified` is for reading before
    signing.
    """

    envelope: Envelope

    @classmethod
    def draft(cls, agreement: Agreement) -> Self:
        """Wrap an agreement that nobody has signed yet.

        Raises:
            InvalidAgreementError: it was altered past its own checks, or is over 750,000 bytes.
        """
        payload = agreement.canonical_bytes
        Agreement.from_canonical_bytes(payload)
        try:
            return cls(Envelope.sign(PAYLOAD_TYPE, payload, {}))
        except SignatureError as error:
            raise InvalidAgreementError(f"agreement {agreement.name!r}: {error}") from error

    @classmethod
    def from_json(cls, data: bytes) -> Self:
        """Read a file that `to_json` wrote; signatures are not verified yet.

        Raises:
            InvalidAgreementError: it is no envelope, or holds no agreement.
            AlteredAgreementError: its agreement is not in canonical JSON.
        """
        try:
            signed = cls(Envelope.from_json(data))
        except SignatureError as error:
            raise InvalidAgreementError(f"no signed agreement: {error}") from error
        signed.unverified()
        return signed

    def to_json(self) -> bytes:
        """Write the DSSE envelope as JSON."""
        return self.envelope.to_json()

    def unverified(self) -> Agreement:
        """Return the agreement whatever its signatures say: to read, to sign, never to obey.

        Raises:
            InvalidAgreementError: the envelope holds something else.
            AlteredAgreementError: the agreement is not in canonical JSON.
        """
        if self.envelope.payload_type != PAYLOAD_TYPE:
            raise InvalidAgreementError(
                f"no signed agreement: expected payload type {PAYLOAD_TYPE}, got another"
            )
        return Agreement.from_canonical_bytes(self.envelope.payload_bytes)

    @property
    def signed_by(self) -> tuple[str, ...]:
        """Names of the parties whose valid signature it bears, in the order of signing.

        Raises:
            AlteredAgreementError: a signature does not cover this agreement, or is a stranger's.
        """
        agreement = self.unverified()
        names = {party.name for party in agreement.parties}
        for signer in self.envelope.signers:
            if signer not in names:
                raise AlteredAgreementError(
                    f"agreement {agreement.name!r} bears a signature of somebody who is no party "
                    f"of it ({_names(agreement.parties)}): ask its author for the original"
                )
            try:
                self.envelope.verify_by(signer, agreement.party(signer).verifying_key)
            except SignatureError as error:
                raise AlteredAgreementError(
                    f"agreement {agreement.name!r} is not what {signer!r} signed: {error}"
                ) from error
        return self.envelope.signers

    def sign(self, party: str, key: SigningKey) -> Self:
        """Return the agreement with one signature more; signing again changes nothing.

        Args:
            party: who signs, by its name in the agreement.
            key: its identity key, the one that the agreement names.

        Raises:
            InvalidAgreementError: the agreement has no such party.
            SignatureError: the agreement names another key for it.
            AlteredAgreementError: a signature that is there already is not valid.
        """
        agreement = self.unverified()
        expected = agreement.party(party).verifying_key
        if key.public != expected:
            raise SignatureError(
                f"agreement {agreement.name!r} names key {expected.fingerprint} for {party!r}, got "
                f"{key.public.fingerprint}: sign with that key, or have the agreement amended"
            )
        if party in self.signed_by:
            return self
        return type(self)(self.envelope.add_signature(party, key))

    def verify(self) -> Agreement:
        """Return the agreement, signed by every party in it.

        1. The payload is an agreement, by type, form and canonical spelling.
        2. Every signature is a party's and valid.
        3. Every party has signed.

        Raises:
            InvalidAgreementError: step 1 fails.
            AlteredAgreementError: step 1 fails by the spelling, or step 2 fails.
            UnsignedAgreementError: step 3 fails; names who is missing.
        """
        agreement = self.unverified()  # 1
        signed_by = self.signed_by  # 2
        missing = [party for party in agreement.parties if party.name not in signed_by]
        if missing:  # 3
            raise UnsignedAgreementError(
                f"agreement {agreement.name!r} is not signed by {_names(missing)}: each of them "
                "runs `comity agreement sign`"
            )
        return agreement


def render(agreement: Agreement, signed_by: Collection[str] = ()) -> str:
    """Write the agreement as Markdown for the people who have to sign it.

    Every term is in it, identity keys by their fingerprints. Text that the parties chose is escaped
    or quoted, so that none of it can pass for a term.

    Args:
        agreement: what to show.
        signed_by: names of the parties that have signed.
    """
    parties = [
        (
            party.name,
            party.role,
            party.verifying_key.fingerprint,
            party.log_key,
            "yes" if party.name in signed_by else "no",
        )
        for party in agreement.parties
    ]
    datasets = [
        (dataset.party, f"about {dataset.declared_rows:,}", ", ".join(dataset.identifiers))
        for dataset in agreement.datasets
    ]
    features = [
        (column.name, column.type, _values(column), column.classification)
        for column in agreement.features
    ]
    sections = [
        f"# {_escape(agreement.title)}",
        f"Agreement `{agreement.name}`, digest `{agreement.digest}`.",
        f"In force from {_iso(agreement.valid_from)} to before {_iso(agreement.valid_until)}.",
        f"Purposes: {', '.join(f'`{purpose}`' for purpose in agreement.purposes)}.",
        "## Parties",
        _table(("party", "role", "key fingerprint", "log key", "signed"), parties),
        "## People",
        _table(("party", "rows", "matched by"), datasets),
        "## Features",
        _table(("feature", "type", "values", "classification"), features),
        *(
            section
            for title in ("match", "train", "expand", "budget")
            for section in (f"## {title.capitalize()}", _term_list(getattr(agreement, title)))
        ),
    ]
    if agreement.terms_text:
        quoted = agreement.terms_text.replace("&", "&amp;").replace("<", "&lt;").split("\n")
        sections += ["## Further terms", "\n".join(f"> {line}".rstrip() for line in quoted)]
    return "\n\n".join(sections) + "\n"


def _values(column: ColumnTerm) -> str:
    if column.type is ColumnType.CATEGORICAL:
        return ", ".join(json.dumps(category, ensure_ascii=False) for category in column.categories)
    bounds = " to ".join(
        rfc8785.dumps(bound).decode() for bound in (column.minimum, column.maximum)
    )
    unit = "" if column.unit is None else f", in {json.dumps(column.unit, ensure_ascii=False)}"
    return f"{bounds}, {column.scale} scale{unit}"


def _term_list(terms: _Terms) -> str:
    return "\n".join(
        f"- {field.replace('_', ' ')}: `{value}`" for field, value in terms.model_dump().items()
    )


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *(list(map(_escape, row)) for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _escape(text: str) -> str:
    """Take from Markdown every character that it might read as more than itself."""
    return re.sub(r"([\\`*_{}\[\]<>()#+|!~&])", r"\\\1", text)


def _iso(moment: datetime) -> str:
    return moment.isoformat().replace("+00:00", "Z")


def _names(parties: Iterable[PartyTerm]) -> str:
    return ", ".join(party.name for party in parties)
