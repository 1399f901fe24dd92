"""The vocabulary of a contract: its roles, enumerations, and the terms of each computation.

Guarantees: a term that exists is well-formed and does not contradict itself; its text holds no
control, invisible or reordering characters that would show a reader something else.

Leaves to others: what terms mean together (`compliance.agreement`), and obeying them.
"""

import hashlib
import math
from collections import Counter
from collections.abc import Hashable, Iterable, Iterator
from datetime import UTC, datetime
from enum import StrEnum
from itertools import pairwise
from typing import Annotated, Final, Literal, Self, TypeVar

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from compliance.errors import SignatureError
from compliance.log.cosignature import Algorithm, CosignerKey
from compliance.log.note import NoteKey
from compliance.signing import PARTY_NAME_PATTERN, VerifyingKey, decode_base64

__all__ = [
    "DATA_ROLES",
    "AlignmentTerms",
    "BudgetTerms",
    "Classification",
    "ColumnTerm",
    "ColumnType",
    "CompositeTerm",
    "Count",
    "CountNoise",
    "DatasetTerm",
    "EmailRule",
    "ExpandTerms",
    "FieldRule",
    "FieldTerm",
    "HeldColumnTerm",
    "IdentifierKind",
    "KeyName",
    "Labels",
    "Line",
    "Linkage",
    "MatchProtocol",
    "MatchTerms",
    "MeasureTerms",
    "MeasuredColumn",
    "ModelFamily",
    "Moment",
    "Name",
    "NoiseSource",
    "PartyTerm",
    "Purpose",
    "Reveal",
    "Role",
    "Scale",
    "Terms",
    "Text",
    "TrainTerms",
    "VerticalTerms",
    "repeated",
    "unique",
]

_LARGEST_INTEGER: Final = 2**53 - 1  # RFC 8785 numbers are IEEE 754 doubles

_ENCRYPTION_KEY_BYTES: Final = 1184 + 32  # ML-KEM-768 and X25519

_String = TypeVar("_String", bound=str)
_Item = TypeVar("_Item", bound=Hashable)


class Role(StrEnum):
    """What a party is there for."""

    BRAND = "brand"
    PARTNER = "partner"
    COORDINATOR = "coordinator"
    AUDITOR = "auditor"


DATA_ROLES: Final = frozenset({Role.BRAND, Role.PARTNER})
"""Who brings people, and may be sent what only they may read."""


class IdentifierKind(StrEnum):
    """What people can be matched by, besides composite keys."""

    EMAIL = "email"
    PHONE = "phone"
    ADVERTISING_ID = "advertising_id"
    MEMBER_ID = "member_id"


class FieldRule(StrEnum):
    """How a field of a composite key is normalised."""

    NAME = "name"
    DATE = "date"
    DATE_DAY_FIRST = "date_day_first"
    DATE_MONTH_FIRST = "date_month_first"
    POSTCODE = "postcode"
    CODE = "code"
    DIGITS = "digits"
    TEXT = "text"
    EMAIL = "email"
    PHONE = "phone"


class EmailRule(StrEnum):
    """How e-mail addresses are normalised before they are hashed."""

    AS_WRITTEN = "as_written"
    PROVIDER_RULES = "provider_rules"


class Reveal(StrEnum):
    """Who learns the outcome of a match."""

    PARTNER_LEARNS_MEMBERS = "partner-learns-members"
    BRAND_LEARNS_MEMBERS = "brand-learns-members"
    BOTH_LEARN_MEMBERS = "both-learn-members"
    SIZE_ONLY = "size-only"
    """Nobody learns who; both learn how many, with noise."""


class Linkage(StrEnum):
    """When two records count as one person."""

    ANY_KEY = "any-key"
    """They share a key. A record may match several."""
    ONE_TO_ONE = "one-to-one"
    """They share keys, and each matches no other: the number of shared keys decides, or where
    `reveal_keys` is agreed, the first of them."""


class MatchProtocol(StrEnum):
    """How a match is computed."""

    ECDH = "ecdh"
    """By Diffie-Hellman on Curve25519, in messages that the coordinator carries."""
    RR22 = "rr22"
    """By vector oblivious linear evaluation, over a direct link between the two parties."""


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


def _cosigning_key(text: str) -> str:
    try:
        key = CosignerKey.from_string(text)
    except SignatureError as error:
        raise ValueError(str(error)) from error
    if key.algorithm is not Algorithm.ML_DSA_44:
        raise ValueError("a cosigning key is of type 6, ML-DSA-44")
    return text


def _encryption_key(text: str) -> str:
    if (size := len(decode_base64(text))) != _ENCRYPTION_KEY_BYTES:
        raise ValueError(f"an encryption key has {_ENCRYPTION_KEY_BYTES} bytes, got {size}")
    return text


def _utc(moment: datetime) -> datetime:
    return moment.astimezone(UTC)


def unique(values: tuple[_String, ...]) -> tuple[_String, ...]:
    """Refuse a tuple that holds an entry twice."""
    if again := repeated(values):
        raise ValueError(f"expected each entry once, got again: {', '.join(again)}")
    return values


def repeated(values: Iterable[_Item]) -> list[_Item]:
    """Return what occurs more than once, each once."""
    return [value for value, count in Counter(values).items() if count > 1]


Name = Annotated[
    str,
    Field(
        pattern=PARTY_NAME_PATTERN,
        description="up to 63 lower-case letters, digits and hyphens, a letter first",
    ),
]
KeyName = Annotated[
    str,
    Field(
        pattern=r"^[a-z][a-z0-9_]{0,63}$",
        description="up to 64 lower-case letters, digits and underscores, a letter first",
    ),
]
Purpose = Annotated[
    str,
    Field(
        pattern=r"^[a-z][a-z0-9._:/-]{0,126}$",
        description="up to 127 lower-case letters, digits and ._:/-, a letter first",
    ),
]
ColumnName = Annotated[
    str,
    Field(
        pattern=r"^[A-Za-z][A-Za-z0-9_.-]{0,62}$",
        description="up to 63 letters, digits and _.-, a letter first",
    ),
]
Line = Annotated[
    str,
    Field(
        min_length=1,
        max_length=200,
        pattern=r"^[^\p{Cc}\p{Cf}\p{Zl}\p{Zp}]*$",
        description="one line of 1 to 200 visible characters",
    ),
]
"""Text that shows what it says: no line breaks, control, invisible or reordering characters."""
Text = Annotated[
    str,
    Field(
        max_length=100_000,
        pattern=r"^(?:[^\p{Cc}\p{Cf}\p{Zl}\p{Zp}]|[\n\t])*$",
        description="text of up to 100,000 visible characters",
    ),
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


class Terms(BaseModel):
    """A closed, frozen part of a contract that reports all its contradictions at once."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    @model_validator(mode="after")
    def _without_mistakes(self) -> Self:
        if mistakes := tuple(self._mistakes()):
            raise PydanticCustomError("terms", "{mistakes}", {"mistakes": "; ".join(mistakes)})
        return self

    def _mistakes(self) -> Iterator[str]:
        """Yield what contradicts itself between fields that are well-formed one by one."""
        yield from ()


class PartyTerm(Terms):
    """An organisation that the agreement binds.

    Attributes:
        name: lower-case letters, digits and hyphens, at most 63.
        role: what it is there for.
        identity_key: base64 of the Ed25519 key that signs the agreement and its messages.
        log_key: verifier key of its log, `origin+id+base64` (C2SP signed-note).
        encryption_key: base64 of the ML-KEM-768 and X25519 keys to which other parties encrypt
            what only it may read, 1,216 bytes; for the brand and partners, and for them alone.
        cosigning_key: verifier key, ML-DSA-44, in the name of its log (C2SP tlog-cosignature):
            signs its own log beside `log_key`, and cosigns the other parties' logs. Without one it
            witnesses nobody.
    """

    name: Name
    role: Role
    identity_key: Annotated[str, AfterValidator(_identity_key)]
    log_key: Annotated[Line, AfterValidator(_log_key)]
    encryption_key: Annotated[str, AfterValidator(_encryption_key)] | None = None
    cosigning_key: (
        Annotated[str, Field(max_length=4_096), AfterValidator(_cosigning_key)] | None
    ) = None

    @property
    def verifying_key(self) -> VerifyingKey:
        """The key that `identity_key` spells."""
        return VerifyingKey.from_base64(self.identity_key)

    @property
    def cosigner(self) -> CosignerKey | None:
        """The key that `cosigning_key` spells."""
        return None if self.cosigning_key is None else CosignerKey.from_string(self.cosigning_key)

    @property
    def encryption_fingerprint(self) -> str | None:
        """Sixteen hexadecimal digits to compare by eye: the start of SHA-256 of the raw key."""
        if self.encryption_key is None:
            return None
        return hashlib.sha256(decode_base64(self.encryption_key)).hexdigest()[:16]

    def _mistakes(self) -> Iterator[str]:
        if self.role in DATA_ROLES and self.encryption_key is None:
            yield f"{self.role} {self.name!r} needs an encryption_key: matches are encrypted to it"
        if self.role not in DATA_ROLES and self.encryption_key is not None:
            yield f"{self.role} {self.name!r} can have no encryption_key: nothing needs it"
        if self.cosigning_key is not None:
            named, log = (text.partition("+")[0] for text in (self.cosigning_key, self.log_key))
            if named != log:
                yield f"{self.name!r}: cosigning_key is named {named!r}, and its log {log!r}"


class ColumnTerm(Terms):
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
    categories: Annotated[tuple[Line, ...], Field(max_length=1_000), AfterValidator(unique)] = ()
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


class HeldColumnTerm(ColumnTerm):
    """A column that one party alone brings to training over parties' columns.

    Attributes:
        party: the brand, or a partner.
    """

    party: Name


class DatasetTerm(Terms):
    """The people that a party brings.

    Attributes:
        party: who brings them.
        declared_rows: a public round figure; denominators use it so that no true count leaves, and
            no match may bring more identifiers than so many people have.
        identifiers: the keys by which its people can be matched.
        identifiers_per_person: how many of them a person has at most.
    """

    party: Name
    declared_rows: Count
    identifiers: Annotated[tuple[KeyName, ...], Field(min_length=1), AfterValidator(unique)]
    identifiers_per_person: Annotated[int, Field(ge=1, le=256)]


class FieldTerm(Terms):
    """A field of a composite key: what the parties call it, and how it is normalised."""

    name: KeyName
    rule: FieldRule


class CompositeTerm(Terms):
    """Fields that identify a person together, such as name, birth date and postcode.

    Attributes:
        name: of the key, as `keys` lists it.
        fields: one to 16.
    """

    name: KeyName
    fields: Annotated[tuple[FieldTerm, ...], Field(min_length=1, max_length=16)]

    def _mistakes(self) -> Iterator[str]:
        for name in repeated(field.name for field in self.fields):
            yield f"composite key {self.name!r} has two fields {name!r}"
        if self.name in frozenset(IdentifierKind):
            yield f"composite key {self.name!r} is called like a kind of identifier"


class AlignmentTerms(Terms):
    """How all data parties find the people whom every one of them knows.

    Attributes:
        key: what people are aligned by, one of the keys of the match.
        epsilon: privacy loss per person of what the coordinator can count.
        delta: what cutting that noise adds to the δ of an alignment.
    """

    key: KeyName
    epsilon: Annotated[Epsilon, Field(ge=1e-3, le=10)]
    delta: Delta = 1e-12


class MatchTerms(Terms):
    """How people are matched.

    Attributes:
        purpose: for which each of them must have consented.
        default_region: ISO 3166-1 alpha-2; the country of phone numbers written without one.
        email_rule: how e-mail addresses are normalised.
        recipe_version: version of the rules by which identifiers are normalised.
        keys: what people are matched by, the most telling first: kinds of identifier, and names of
            composite keys.
        composites: the composite keys.
        linkage: when two records count as one person.
        protocols: by which a match may be computed.
        reveal: who learns the outcome.
        reveal_keys: whether the party that learns members may see by which of the keys each
            matched, and how many identifiers each record of the other bears. Without it, it sees
            how many they share.
        minimum_match: matches below which nothing is used, and nothing of them kept.
        set_size_bucket: sets are padded to a multiple of this, which alone shows on the wire.
        size_epsilon: privacy loss of a size; with it, whoever may not know the members is told how
            many of the other's people it shares anything with, with noise. Left out: nobody is
            told a size.
        size_delta: what cutting the noise on a size adds to the δ of a match; with `size-only`.
        maximum_matches: matches of a party with another in `period_days`.
        period_days: see there.
        maximum_change: share of a party's set that may come or go between two matches, in (0, 1].
        alignment: how all data parties may find whom all of them know, and all learn it, whatever
            `reveal` says of pairs; they may not where it is left out.
    """

    purpose: Purpose
    default_region: Annotated[
        str, Field(pattern=r"^[A-Z]{2}$", description="two capital letters, such as 'US'")
    ]
    email_rule: EmailRule
    recipe_version: Literal[2] = 2
    keys: Annotated[
        tuple[KeyName, ...], Field(min_length=1, max_length=64), AfterValidator(unique)
    ] = (IdentifierKind.EMAIL.value, IdentifierKind.PHONE.value)
    composites: Annotated[tuple[CompositeTerm, ...], Field(max_length=64)] = ()
    linkage: Linkage = Linkage.ONE_TO_ONE
    protocols: Annotated[
        tuple[MatchProtocol, ...], Field(min_length=1, max_length=2), AfterValidator(unique)
    ] = (MatchProtocol.ECDH,)
    reveal: Reveal
    reveal_keys: Annotated[bool, Field(strict=True)] = False
    minimum_match: Count
    set_size_bucket: Count
    size_epsilon: Annotated[Epsilon, Field(ge=1e-3, le=100)] | None = None
    size_delta: Delta = 1e-12
    maximum_matches: Count = 12
    period_days: Annotated[int, Field(ge=1, le=3_650)] = 30
    maximum_change: Annotated[Finite, Field(gt=0, le=1)] = 0.5
    alignment: AlignmentTerms | None = None

    def _mistakes(self) -> Iterator[str]:
        composites = [key.name for key in self.composites]
        for name in repeated(composites):
            yield f"two composite keys are called {name!r}"
        known = {*IdentifierKind, *composites}
        for name in self.keys:
            if name not in known:
                allowed = ", ".join(map(repr, [*map(str, IdentifierKind), *composites]))
                yield f"key {name!r} is none of {allowed}: describe it in composites"
        for name in composites:
            if name not in self.keys:
                yield f"composite key {name!r} is not among the keys: list it there"
        if self.alignment is not None and self.alignment.key not in self.keys:
            allowed = ", ".join(map(repr, self.keys))
            yield f"alignment.key {self.alignment.key!r} is none of the keys, {allowed}"
        yield from self._unrevealable()

    def _unrevealable(self) -> Iterator[str]:
        """Yield what stands against the outcome that is to be revealed."""
        if self.reveal is Reveal.SIZE_ONLY:
            if self.size_epsilon is None:
                yield f"reveal {self.reveal.value!r} needs a size_epsilon: sizes leave with noise"
            if len(self.keys) != 1:
                yield f"reveal {self.reveal.value!r} needs exactly one key, to count people by"
        if self.reveal is Reveal.BOTH_LEARN_MEMBERS and self.linkage is not Linkage.ONE_TO_ONE:
            yield (
                f"reveal {self.reveal.value!r} needs linkage {Linkage.ONE_TO_ONE.value!r}: by any "
                "key a person may match several, and the two lists would not be of the same pairs; "
                "link one to one, or let one side learn"
            )


class NoiseSource(StrEnum):
    """Who makes a trained model private."""

    LOCAL = "local"
    """Each partner adds all the noise to its own model: nobody is trusted."""
    DISTRIBUTED = "distributed"
    """Partners add shares of the noise; only sums over partners are revealed, by secure sums."""
    UNSAFE_NONE = "unsafe-none"
    """Nobody: secure sums hide the partners from each other, and protect no person."""


class ModelFamily(StrEnum):
    """How a model is built."""

    LOGISTIC_REGRESSION = "logistic-regression"
    RIDGE_REGRESSION = "ridge-regression"
    """Least squares of the label, 1 or 0, with a penalty on the weights."""
    NETWORK = "network"
    """A small feed-forward network, described by numbers."""
    BOOSTED_TREES = "boosted-trees"
    """Gradient boosting on histograms that are summed over partners."""


class Labels(StrEnum):
    """What it means that somebody is no seed."""

    COMPLETE = "complete"
    """Not a positive: the seeds are all of them."""
    SEEDS_ONLY = "seeds-only"
    """Nothing: seeds are some of the positives, everybody else is unlabelled."""


class TrainTerms(Terms):
    """How models are trained.

    Attributes:
        purpose: for which each person must have consented.
        models: families that a model may be of.
        epsilon: privacy loss per person that a single job may ask for at most.
        delta: its failure probability, likewise.
        max_parties_per_person: partners that may hold the same person; the loss adds up over them.
        clipping_norm: bound of one person's gradient in the Euclidean norm.
        max_steps: gradient steps of a job at each partner, where it adds the noise itself.
        max_rounds: averagings, or secure sums, of a job.
        noise: who may add the noise.
        colluding_partners: of secure sums: partners that may join forces, the coordinator with
            them, without a loss of privacy. Whoever reads the model knows its own share of the
            noise, so that 0 holds against the coordinator alone.
        absent_partners: of secure sums with noise: partners that may be missing from one, for
            whatever reason.
        hidden_share_epsilon: privacy loss per person, over all partners, of estimating in one job
            of `seeds-only` labels how many people who are no seeds are positives. Left out: nobody
            estimates it.
    """

    purpose: Purpose
    models: Annotated[tuple[ModelFamily, ...], Field(min_length=1), AfterValidator(unique)] = (
        ModelFamily.LOGISTIC_REGRESSION,
    )
    epsilon: Epsilon
    delta: Delta
    max_parties_per_person: Count
    clipping_norm: Annotated[Finite, Field(gt=0)]
    max_steps: Count
    max_rounds: Count
    noise: Annotated[tuple[NoiseSource, ...], Field(min_length=1), AfterValidator(unique)] = (
        NoiseSource.LOCAL,
    )
    colluding_partners: Annotated[int, Field(ge=0, lt=1_000)] = 1
    absent_partners: Annotated[int, Field(ge=0, lt=1_000)] = 0
    hidden_share_epsilon: Annotated[Epsilon, Field(ge=1e-3, le=100)] | None = None

    def colluding_in_sums(self, partners: int, noise: NoiseSource) -> int:
        """Return how many colluding partners a secure sum over `partners` has to withstand.

        None where one partner alone is counted on and noise is added: its noise is whole, and needs
        no sum to hide in.
        """
        counted_on = partners - self.colluding_partners - self.absent_in_sums(noise)
        whole = noise is NoiseSource.DISTRIBUTED and counted_on < 2
        return 0 if whole else self.colluding_partners

    def absent_in_sums(self, noise: NoiseSource) -> int:
        """Return how many partners may be missing from a secure sum.

        None where no noise is added: of two exact sums, one with a partner and one without, the
        difference is what that partner computed.
        """
        return self.absent_partners if noise is NoiseSource.DISTRIBUTED else 0


class VerticalTerms(Terms):
    """How models are trained over what several parties know of the same people.

    Attributes:
        purpose: for which each person must have consented.
        columns: what each party brings.
        label_epsilon: privacy loss of a person's label that a job may ask for at most; noised
            labels are not allowed where it is left out.
        unsafe_labels: whether a job may use labels as they are: partners then learn all of them.
        max_rounds: exchanges with each partner, at most 15.
        minimum_people: people who may be used, below which nothing leaves a party.
    """

    purpose: Purpose
    columns: Annotated[tuple[HeldColumnTerm, ...], Field(min_length=2, max_length=2_000)]
    label_epsilon: Annotated[Epsilon, Field(le=10)] | None = None
    unsafe_labels: Annotated[bool, Field(strict=True)] = False
    max_rounds: Annotated[int, Field(ge=1, le=15)] = 10
    minimum_people: Count

    def held_by(self, party: str) -> tuple[HeldColumnTerm, ...]:
        """Return what a party brings, in the agreed order."""
        return tuple(column for column in self.columns if column.party == party)

    def _mistakes(self) -> Iterator[str]:
        for party, name in repeated((column.party, column.name) for column in self.columns):
            yield f"columns: {party!r} has two called {name!r}"
        if self.label_epsilon is None and not self.unsafe_labels:
            yield "agree on a label_epsilon, or on unsafe_labels: no job could use a label"


class ExpandTerms(Terms):
    """How an audience is expanded.

    Attributes:
        purpose: for which each person must have consented.
        maximum_share: largest share of a partner's people in a segment, in (0, 1].
        minimum_segment: people in the smallest segment; a smaller share gives this many, and none
            is written where `maximum_share` would not reach it.
        count_epsilon: privacy loss per person, over all partners, of counting their people in one
            job; with it, each partner tells how many it has, with noise. Left out: no count leaves.
        fairness_groups: categorical features by whose values a model's card compares how many are
            chosen.
    """

    purpose: Purpose
    maximum_share: Annotated[Finite, Field(gt=0, le=1)]
    minimum_segment: Count
    count_epsilon: Annotated[Epsilon, Field(ge=1e-3, le=100)] | None = None
    fairness_groups: Annotated[
        tuple[ColumnName, ...], Field(max_length=64), AfterValidator(unique)
    ] = ()


class CountNoise(StrEnum):
    """What blurs a count."""

    DISCRETE_LAPLACE = "discrete-laplace"
    """For pure ε: best for a person at few partners."""
    DISCRETE_GAUSSIAN = "discrete-gaussian"
    """For ε and δ: best for a person at many."""


class MeasuredColumn(Terms):
    """A feature by which people may be counted.

    Attributes:
        name: of an agreed feature.
        edges: where a numeric feature is cut, rising, up to 100; none of a categorical one.
    """

    name: ColumnName
    edges: Annotated[tuple[Finite, ...], Field(max_length=100)] = ()

    def _mistakes(self) -> Iterator[str]:
        if any(low >= high for low, high in pairwise(self.edges)):
            yield f"measured column {self.name!r} needs edges that rise"


class MeasureTerms(Terms):
    """How people are counted.

    Attributes:
        purpose: for which each person must have consented.
        columns: features by which they may be counted.
        noise: what may blur a count.
        epsilon: privacy loss per person that a single job may ask for at most.
        delta: its failure probability, likewise; needed for discrete Gaussian noise.
        minimum_cell: a count that is smaller, noise included, is not told.
    """

    purpose: Purpose
    columns: Annotated[tuple[MeasuredColumn, ...], Field(min_length=1, max_length=1_000)]
    noise: Annotated[tuple[CountNoise, ...], Field(min_length=1), AfterValidator(unique)] = (
        CountNoise.DISCRETE_LAPLACE,
    )
    epsilon: Epsilon
    delta: Delta | None = None
    minimum_cell: Count

    def _mistakes(self) -> Iterator[str]:
        for name in repeated(column.name for column in self.columns):
            yield f"two measured columns are called {name!r}"
        if self.delta is None and CountNoise.DISCRETE_GAUSSIAN in self.noise:
            yield f"noise {CountNoise.DISCRETE_GAUSSIAN.value!r} needs a delta"


class BudgetTerms(Terms):
    """The privacy loss that no person may pass, over everything, while the agreement lasts.

    Attributes:
        epsilon: of (ε, δ)-differential privacy, per person, add-or-remove-one.
        delta: its failure probability.
    """

    epsilon: Epsilon
    delta: Delta
