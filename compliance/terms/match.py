"""How people are matched, and who learns the outcome.

Guarantees: the keys are known, and the outcome can be revealed as agreed.

Leaves to others: matching (`privacy.psi`), and how identifiers are normalised
(`privacy.identifiers`).
"""

from collections.abc import Iterator
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from compliance.terms.vocabulary import (
    Count,
    Delta,
    Epsilon,
    Finite,
    KeyName,
    Purpose,
    Terms,
    repeated,
    unique,
)

__all__ = [
    "AlignmentTerms",
    "CompositeTerm",
    "EmailRule",
    "FieldRule",
    "FieldTerm",
    "IdentifierKind",
    "Linkage",
    "MatchProtocol",
    "MatchTerms",
    "Reveal",
]


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
