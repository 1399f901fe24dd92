"""What the parties promise each other, in full, in one spelling.

Guarantees: an `Agreement` that exists is whole and free of contradictions, and has exactly one
spelling in bytes, hence one digest.

Leaves to others: single terms (`compliance.terms`), and signatures (`signed`).

Source: RFC 8785 (canonical JSON).
"""

import hashlib
from collections.abc import Iterator, Mapping
from functools import cached_property, lru_cache
from typing import Any, Self

import rfc8785
from pydantic import ValidationError

from compliance.agreement.contents import AgreementTerms
from compliance.agreement.contradictions import contradictions
from compliance.errors import AlteredAgreementError, InvalidAgreementError, describe

__all__ = ["Agreement"]


class Agreement(AgreementTerms):
    """An agreement that is free of contradictions."""

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

    def __hash__(self) -> int:
        """Return what its spelling says, worked out once; that of all fields takes milliseconds."""
        return hash(self.digest)

    @property
    def lineage(self) -> str:
        """Digest of the first version: what budget and history are kept under."""
        return self.digest if self.amends is None else self.amends.first

    def _mistakes(self) -> Iterator[str]:
        yield from contradictions(self)


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
