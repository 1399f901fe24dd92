"""What parties agree on so that their digests meet, and a fingerprint to compare it by.

Guarantees: a recipe is closed, checked and immutable. Two recipes with one fingerprint have equal
fields, and the software that computed them normalises every probe (`privacy.identifiers.probes`)
alike.

Leaves to others: agreeing on it (`compliance`), and comparing fingerprints before a job.
"""

import re
from dataclasses import dataclass
from enum import StrEnum

import phonenumbers

from privacy.errors import InvalidParameterError
from privacy.identifiers.emails import EmailRule
from privacy.identifiers.fields import FieldRule
from privacy.identifiers.kinds import IdentifierKind

__all__ = ["CompositeKey", "KeyField", "Recipe"]

_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}", re.ASCII)
_MOST_FIELDS = 16
_KEYS_OF_VERSION_1 = (IdentifierKind.EMAIL, IdentifierKind.PHONE)
_SINGLE = frozenset(IdentifierKind) - {IdentifierKind.COMPOSITE}


@dataclass(frozen=True)
class KeyField:
    """One field of a composite key.

    Attributes:
        name: what the parties call it; lower case letters, digits and underscores.
        rule: how its values are normalised.

    Raises:
        InvalidParameterError: for another name or rule.
    """

    name: str
    rule: FieldRule

    def __post_init__(self) -> None:
        _require_name("a field's name", self.name)
        _require_member(f"field {self.name!r}: rule", self.rule, FieldRule)


@dataclass(frozen=True)
class CompositeKey:
    """Fields that identify a person together, such as name, birth date and postcode.

    Its name and its fields' names and rules are hashed with the values: keys that differ in any of
    them never meet.

    Attributes:
        name: of the key, as `Recipe.order` calls it.
        fields: one to 16 of different names; their order matters.

    Raises:
        InvalidParameterError: for a name that is taken by a kind, or other fields.
    """

    name: str
    fields: tuple[KeyField, ...]

    def __post_init__(self) -> None:
        _require_name("a composite key's name", self.name)
        if self.name in frozenset(IdentifierKind):
            raise InvalidParameterError(
                f"composites: expected a name of its own, got {self.name!r}, which is a kind of "
                "identifier: call the key by its fields"
            )
        _require_tuple(f"composite key {self.name!r}: fields", self.fields, KeyField)
        names = tuple(field.name for field in self.fields)
        if not 1 <= len(names) <= _MOST_FIELDS or len(set(names)) != len(names):
            raise InvalidParameterError(
                f"composite key {self.name!r}: expected 1 to {_MOST_FIELDS} fields of different "
                f"names, got {names}"
            )


@dataclass(frozen=True)
class Recipe:
    """What parties must agree on so that their digests meet.

    Attributes:
        default_region: two-letter ISO 3166-1 code in which national phone numbers are read.
        email_rule: how far e-mail addresses are merged.
        version: of the rules. 1: e-mail and phone alone. 2: all kinds, placeholders rejected, more
            spellings of digests.
        composites: the composite keys; version 2 only.
        order: names of the keys to match by, the most telling first: kinds, and every composite
            key; version 2 only, and there at least one.

    Raises:
        InvalidParameterError: for a field outside its range, named with the remedy.
    """

    default_region: str
    email_rule: EmailRule
    version: int = 1
    composites: tuple[CompositeKey, ...] = ()
    order: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.default_region not in phonenumbers.SUPPORTED_REGIONS:
            raise InvalidParameterError(
                f"default_region: expected a two-letter region with phone numbers, such as 'US', "
                f"got {self.default_region!r}"
            )
        _require_member("email_rule", self.email_rule, EmailRule)
        if type(self.version) is not int or self.version not in {1, 2}:
            raise InvalidParameterError(
                f"version: expected recipe version 1 or 2, got {self.version!r}: "
                "update the software"
            )
        _require_tuple("composites", self.composites, CompositeKey)
        _require_tuple("order", self.order, str)
        if self.version == 1:
            self._require_fields_of_version_1()
        else:
            self._require_order()

    @property
    def keys(self) -> tuple[str, ...]:
        """Names of the keys to match by, the most telling first."""
        return self.order if self.version > 1 else tuple(map(str, _KEYS_OF_VERSION_1))

    def rank(self, key: str) -> int:
        """Return the place of a key in the order of matching, from 0.

        Raises:
            InvalidParameterError: the recipe has no such key.
        """
        if key not in self.keys:
            hint = "add it to order" if self.version > 1 else "use recipe version 2"
            raise InvalidParameterError(
                f"expected a key of the recipe, {', '.join(self.keys)}; got {str(key)!r}: {hint}"
            )
        return self.keys.index(key)

    def composite(self, name: str) -> CompositeKey:
        """Return the composite key of that name.

        Raises:
            InvalidParameterError: the recipe has no such composite key.
        """
        self.rank(name)
        for key in self.composites:
            if key.name == name:
                return key
        raise InvalidParameterError(f"expected a composite key, got the kind {str(name)!r}")

    def _require_fields_of_version_1(self) -> None:
        for field in ("composites", "order"):
            if getattr(self, field):
                raise InvalidParameterError(
                    f"{field}: recipe version 1 has none: leave it out, or use version=2"
                )

    def _require_order(self) -> None:
        composites = [key.name for key in self.composites]
        if len(set(composites)) != len(composites):
            raise InvalidParameterError(
                f"composites: expected different names, got {composites}: rename one"
            )
        allowed = [*sorted(_SINGLE), *composites]
        if not self.order or len(set(self.order)) != len(self.order):
            raise InvalidParameterError(
                f"order: expected at least one key, each once, got {self.order}: list keys out of "
                f"{', '.join(allowed)}, the most telling first"
            )
        if unknown := set(self.order) - set(allowed):
            raise InvalidParameterError(
                f"order: expected {', '.join(allowed)}; got {sorted(unknown)}: agree them as "
                "composites, or leave them out"
            )
        if unused := set(composites) - set(self.order):
            raise InvalidParameterError(
                f"order: the composite keys {sorted(unused)} are in no place: add or drop them"
            )


def _require_name(what: str, name: object) -> None:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise InvalidParameterError(
            f"expected {what} as 1 to 64 lower case letters, digits and underscores, a letter "
            f"first, got {name!r}"
        )


def _require_member(field: str, value: object, members: type[StrEnum]) -> None:
    if not isinstance(value, members):
        raise InvalidParameterError(
            f"{field}: expected {members.__name__}, one of {', '.join(members)}; got {value!r}"
        )


def _require_tuple(field: str, values: object, of: type) -> None:
    if not isinstance(values, tuple) or not all(isinstance(value, of) for value in values):
        raise InvalidParameterError(f"{field}: expected a tuple of {of.__name__}, got {values!r}")
