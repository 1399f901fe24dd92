"""Normalise and hash the identifiers by which two parties recognise one person.

Guarantees: two spellings that the rules call equal give the same SHA-256 digest at every party
with the same `Recipe` and fingerprint; a value that already is such a digest is recognised and
never hashed twice; tokens of different kinds never meet. Normalising twice changes nothing.

The rules stand where their kind does: `emails`, `phones`, `devices` (advertising ids), `codes`
(member ids) and `fields` (of composite keys). `columns` works on whole columns, `tokens` on whole
tables.

Leaves to others: where values come from; secrecy (`privacy.psi`); and who is whose match when
several keys disagree (`privacy.linkage`).
"""

from privacy.identifiers.chunks import Progress, Values
from privacy.identifiers.codes import normalise_code
from privacy.identifiers.columns import HashedColumn, hash_column, hash_composite
from privacy.identifiers.devices import normalise_advertising_id
from privacy.identifiers.digests import DIGEST_BYTES
from privacy.identifiers.emails import EmailRule, normalise_email
from privacy.identifiers.fields import (
    FieldRule,
    normalise_date,
    normalise_digits,
    normalise_name,
    normalise_postcode,
    normalise_text,
)
from privacy.identifiers.kinds import IdentifierKind, RejectionReason
from privacy.identifiers.phones import normalise_phone
from privacy.identifiers.probes import recipe_fingerprint
from privacy.identifiers.recipe import CompositeKey, KeyField, Recipe
from privacy.identifiers.tokens import KeyColumns, Tokens, psi_tokens, tokens_of

__all__ = [
    "DIGEST_BYTES",
    "CompositeKey",
    "EmailRule",
    "FieldRule",
    "HashedColumn",
    "IdentifierKind",
    "KeyColumns",
    "KeyField",
    "Progress",
    "Recipe",
    "RejectionReason",
    "Tokens",
    "Values",
    "hash_column",
    "hash_composite",
    "normalise_advertising_id",
    "normalise_code",
    "normalise_date",
    "normalise_digits",
    "normalise_email",
    "normalise_name",
    "normalise_phone",
    "normalise_postcode",
    "normalise_text",
    "psi_tokens",
    "recipe_fingerprint",
    "tokens_of",
]
