"""Normalise and hash the identifiers by which two parties recognise one person.

Guarantees: two spellings that the rules below call equal give the same SHA-256 digest at every
party; a value that already is such a digest is recognised and never hashed twice; an e-mail token
never equals a phone token. Normalising twice changes nothing.

Rules, as ad platforms publish them (Unified ID 2.0, "Normalization and Encoding"; Google Data
Manager API, "Format user data"):

- E-mail: surrounding blanks off, Unicode NFC (RFC 6532 section 3.1), lower case, domain in its
  ASCII form (UTS 46). `provider_rules` then treats Gmail alone: dots and a +tag leave the local
  part, and googlemail.com becomes gmail.com, the same mailbox. Dots and +tags of other providers
  stay, since nobody but the provider knows what they mean there.
- Phone: E.164 with the plus sign; numbers written nationally are read in the default region;
  extensions are dropped. Only numbers of a valid numbering plan pass.

Leaves to others: where values come from, and secrecy: a SHA-256 of an e-mail or phone is a
pseudonym that anybody can guess by hashing candidates, so digests leave a party only through
`privacy.psi`. Values that arrive hashed were normalised by somebody else's rules; their number is
reported because nobody can check them.
"""

import base64
import binascii
import hashlib
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache

import numpy as np
import phonenumbers
from email_validator import validate_email
from numpy.typing import NDArray

from privacy.errors import InvalidParameterError

__all__ = [
    "DIGEST_BYTES",
    "EmailRule",
    "HashedColumn",
    "IdentifierKind",
    "Recipe",
    "RejectionReason",
    "hash_column",
    "normalise_email",
    "normalise_phone",
    "psi_tokens",
]

DIGEST_BYTES = 32
"""Length of a SHA-256 digest, in bytes."""

_BLANKS = " \t\n\r\v\f\u00a0\u200b\u200c\u200d\u2060\u3000\ufeff"
_PLAIN_LOCAL_PART = re.compile(r"[a-z0-9_+-]+(?:\.[a-z0-9_+-]+)*")
_LONGEST_ADDRESS = 254  # RFC 5321 section 4.5.3.1.3, less the angle brackets
_GMAIL_DOMAINS = frozenset({"gmail.com", "googlemail.com"})
_DIGEST_OF_NOTHING = hashlib.sha256(b"").digest()


class IdentifierKind(StrEnum):
    """What a column of identifiers holds."""

    EMAIL = "email"
    PHONE = "phone"


class EmailRule(StrEnum):
    """How far e-mail addresses are merged."""

    AS_WRITTEN = "as_written"
    """Blanks, case and Unicode form only."""
    PROVIDER_RULES = "provider_rules"
    """Also Gmail's own: dots, +tags and googlemail.com name the same mailbox."""


class RejectionReason(StrEnum):
    """Why a value has no digest."""

    MISSING = "missing"
    """None, NaN, blank, or the digest of an empty string."""
    MALFORMED = "malformed"
    """Not an address or number that could be reached."""


@dataclass(frozen=True)
class Recipe:
    """What parties must agree on so that their digests meet.

    Attributes:
        default_region: two-letter ISO 3166-1 code in which national phone numbers are read.
        email_rule: how far e-mail addresses are merged.
        version: of this module's rules; 1 is the only one.

    Raises:
        InvalidParameterError: for an unknown region or version.
    """

    default_region: str
    email_rule: EmailRule
    version: int = 1

    def __post_init__(self) -> None:
        if self.default_region not in phonenumbers.SUPPORTED_REGIONS:
            raise InvalidParameterError(
                f"expected a two-letter region with phone numbers, such as 'US', "
                f"got {self.default_region!r}"
            )
        if self.version != 1:
            raise InvalidParameterError(
                f"expected recipe version 1, got {self.version}: update the software"
            )


@dataclass(frozen=True)
class HashedColumn:
    """The digests of a column, row by row, and what became of its values.

    Attributes:
        digests: (n, 32) SHA-256 digests; all zero where `present` is false.
        present: (n,) whether the row has a digest.
        already_hashed: rows that arrived as SHA-256 in hexadecimal or base64.
        rejected: rows without a digest, by reason; every reason is a key.
    """

    digests: NDArray[np.uint8]
    present: NDArray[np.bool_]
    already_hashed: int
    rejected: dict[RejectionReason, int]


def normalise_email(value: str, rule: EmailRule) -> str | None:
    """Return the address in the one spelling that is hashed, or None if it is malformed.

    Syntax only (RFC 5321, RFC 6531, through email-validator): nothing is looked up. Quoted local
    parts, address literals and special-use domains such as `.test` are malformed.
    """
    address = unicodedata.normalize("NFC", value.strip(_BLANKS)).lower()
    local, _, written_domain = address.rpartition("@")
    domain = _ascii_domain(written_domain)
    if domain is None:
        return None
    if not _PLAIN_LOCAL_PART.fullmatch(local):
        try:
            local = validate_email(f"{local}@{domain}", check_deliverability=False).local_part
        except ValueError:
            return None
    if rule is EmailRule.PROVIDER_RULES and domain in _GMAIL_DOMAINS:
        local = local.partition("+")[0].replace(".", "")
        domain = "gmail.com"
    if not local or len(local) + 1 + len(domain) > _LONGEST_ADDRESS:
        return None
    return f"{local}@{domain}"


@lru_cache(maxsize=65_536)
def _ascii_domain(domain: str) -> str | None:
    """Return the domain's ASCII form, or None if no mail could reach it."""
    try:
        return validate_email(f"x@{domain}", check_deliverability=False).ascii_domain
    except ValueError:
        return None


def normalise_phone(value: str, default_region: str) -> str | None:
    """Return the number in E.164 (`+` and up to 15 digits), or None if it is malformed.

    Args:
        value: a number in national or international spelling.
        default_region: two-letter region in which a national spelling is read.
    """
    try:
        number = phonenumbers.parse(value, default_region)
    except phonenumbers.NumberParseException:
        return None
    if not phonenumbers.is_valid_number(number):
        return None
    return str(phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164))


def hash_column(values: Sequence[str | None], kind: IdentifierKind, recipe: Recipe) -> HashedColumn:
    """Normalise and hash a column; each distinct value is looked at once.

    Args:
        values: n values as text; None and NaN are missing.
        kind: what the values are.
        recipe: the rules the parties agreed on.

    Raises:
        InvalidParameterError: if a value is neither text nor missing.
    """
    position: dict[str | None, int] = {}
    codes = np.fromiter(
        (position.setdefault(value, len(position)) for value in values),
        dtype=np.intp,
        count=len(values),
    )
    digests = np.zeros((len(position), DIGEST_BYTES), dtype=np.uint8)
    already_hashed = np.zeros(len(position), dtype=np.bool_)
    reasons = {reason: np.zeros(len(position), dtype=np.bool_) for reason in RejectionReason}
    for index, value in enumerate(position):
        text = _text_of(value)
        digest = _recognise_digest(text)
        if digest is not None:
            already_hashed[index] = digest != _DIGEST_OF_NOTHING
        elif text and (normalised := _normalise(text, kind, recipe)) is not None:
            digest = hashlib.sha256(normalised.encode()).digest()
        if not text or digest == _DIGEST_OF_NOTHING:
            reasons[RejectionReason.MISSING][index] = True
        elif digest is None:
            reasons[RejectionReason.MALFORMED][index] = True
        else:
            digests[index] = np.frombuffer(digest, dtype=np.uint8)
    rejected = np.logical_or.reduce(list(reasons.values()))
    return HashedColumn(
        digests=digests[codes],
        present=~rejected[codes],
        already_hashed=int(already_hashed[codes].sum()),
        rejected={reason: int(flags[codes].sum()) for reason, flags in reasons.items()},
    )


def _text_of(value: object) -> str:
    """Return the value without surrounding blanks; empty if it is missing."""
    if isinstance(value, str):
        return value.strip(_BLANKS)
    if value is None or (isinstance(value, float) and np.isnan(value)):
        return ""
    raise InvalidParameterError(
        f"expected identifiers as text, got a {type(value).__name__}: read the column as text, so "
        "that leading zeros and plus signs survive"
    )


def _normalise(text: str, kind: IdentifierKind, recipe: Recipe) -> str | None:
    if kind is IdentifierKind.EMAIL:
        return normalise_email(text, recipe.email_rule)
    return normalise_phone(text, recipe.default_region)


def _recognise_digest(text: str) -> bytes | None:
    """Return the bytes of a SHA-256 in hexadecimal or canonical base64; None for other text."""
    try:
        if len(text) == 64:
            return binascii.unhexlify(text)
        if len(text) == 44:
            digest = base64.b64decode(text, validate=True)
            canonical = len(digest) == DIGEST_BYTES and base64.b64encode(digest) == text.encode()
            return digest if canonical else None
    except ValueError:
        pass
    return None


_KIND_BYTE = {IdentifierKind.EMAIL: 1, IdentifierKind.PHONE: 2}


def psi_tokens(kind: IdentifierKind, digests: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return (n, 33) tokens for matching: a byte for the kind, then the digest.

    Args:
        kind: what was hashed.
        digests: (n, 32) digests of values that are present.

    Raises:
        InvalidParameterError: if `digests` has another shape or type.
    """
    if digests.dtype != np.uint8 or digests.ndim != 2 or digests.shape[1] != DIGEST_BYTES:
        raise InvalidParameterError(
            f"expected digests as uint8 of shape (n, {DIGEST_BYTES}), "
            f"got {digests.dtype} of shape {digests.shape}"
        )
    return np.insert(digests, 0, _KIND_BYTE[kind], axis=1)
