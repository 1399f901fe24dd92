"""Normalise and hash whole columns.

Guarantees: each distinct value is looked at once; a value that already is a digest is never hashed
twice; every row has a digest or a reason, and reasons are counted, never shown. Results do not
depend on the executor or on how the work is cut.

Leaves to others: secrecy. A SHA-256 of an e-mail address or phone number is a pseudonym that
anybody can guess by hashing candidates, so digests leave a party only through `privacy.psi`.
Values that arrive hashed were normalised by somebody else's rules; their number is reported
because nobody can check them.
"""

import hashlib
from collections.abc import Iterable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from json import JSONEncoder

import numpy as np
from numpy.typing import NDArray

from privacy.errors import InvalidParameterError
from privacy.identifiers.chunks import Progress, Values, distinct, work
from privacy.identifiers.digests import DIGEST_BYTES, recognise_digest, sha256
from privacy.identifiers.fields import FieldRule
from privacy.identifiers.kinds import IdentifierKind, RejectionReason
from privacy.identifiers.placeholders import DIGESTS_OF_NOTHING, DIGESTS_OF_PLACEHOLDERS
from privacy.identifiers.plain import plain_emails
from privacy.identifiers.readers import Reader, reader_of
from privacy.identifiers.recipe import CompositeKey, Recipe

__all__ = ["HashedColumn", "hash_column", "hash_composite"]

_PRESENT, _ALREADY_HASHED = 0, 1
_REASONS = tuple(reversed(RejectionReason))  # the first of the enumeration weighs most
_OUTCOME = {reason: 2 + weight for weight, reason in enumerate(_REASONS)}
_NO_DIGEST = bytes(DIGEST_BYTES)
_DIGEST_OF_EMPTY = sha256("")
_HEADING = "comity composite key, version 2"
_json = JSONEncoder(separators=(",", ":")).encode


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


def hash_column(
    values: Values,
    kind: IdentifierKind,
    recipe: Recipe,
    *,
    executor: Executor | None = None,
    progress: Progress | None = None,
) -> HashedColumn:
    """Normalise and hash a column of one kind.

    Args:
        values: n values as text.
        kind: what the values are; any but `COMPOSITE`.
        recipe: the rules the parties agreed on.
        executor: where chunks of the column are worked on; here, if None.
        progress: is told how many distinct values are done, and of how many.

    Raises:
        InvalidParameterError: if a value is neither text nor missing, or the recipe does not match
            by that kind.
    """
    if kind is IdentifierKind.COMPOSITE:
        raise InvalidParameterError("expected a single kind, got composite: use hash_composite")
    recipe.rank(kind)
    codes, texts = distinct(values)
    task = partial(_hash_chunk, kind=kind, recipe=recipe)
    (chunks,) = work([(task, texts)], executor, progress)
    digests = _bytes(digests for digests, _ in chunks).reshape(-1, DIGEST_BYTES)
    return _hashed(digests[codes], _bytes(outcomes for _, outcomes in chunks)[codes])


def hash_composite(
    columns: Sequence[Values],
    key: CompositeKey,
    recipe: Recipe,
    *,
    executor: Executor | None = None,
    progress: Progress | None = None,
) -> HashedColumn:
    """Normalise the fields of a composite key and hash them together, row by row.

    Hashed is a JSON array, in ASCII and without blanks, of the text "comity composite key, version
    2", the key's name, its fields as pairs of name and rule, and their normal forms: no two keys,
    and no two rows of normal forms, give one text. A row of which a field is missing or rejected
    has no digest.

    Args:
        columns: a column of n values for each field of the key, in its order.
        key: one of the recipe's.
        recipe: the rules the parties agreed on.
        executor: where chunks of the columns are worked on; here, if None.
        progress: is told how many distinct values, of all fields, are done, and of how many.

    Raises:
        InvalidParameterError: if a value is neither text nor missing, the columns are not as many
            as the fields or of different lengths, or the recipe has another key of that name or
            none.
    """
    if recipe.composite(key.name) != key:
        raise InvalidParameterError(
            f"composite key {key.name!r}: the recipe agrees on other fields: use recipe.composite"
        )
    if len(columns) != len(key.fields) or len({len(values) for values in columns}) != 1:
        raise InvalidParameterError(
            f"composite key {key.name!r}: expected {len(key.fields)} columns of one length, got "
            f"columns of {[len(values) for values in columns]} values"
        )
    split = [distinct(values) for values in columns]
    tasks = [
        (partial(_normalise_chunk, rule=field.rule, recipe=recipe), texts)
        for field, (_, texts) in zip(key.fields, split, strict=True)
    ]
    parts: list[NDArray[np.object_]] = []
    outcome = np.zeros(len(columns[0]), dtype=np.uint8)
    for (codes, _), chunks in zip(split, work(tasks, executor, progress), strict=True):
        normals = np.array([text for texts, _ in chunks for text in texts], dtype=object)
        parts.append(normals[codes])
        np.maximum(outcome, _bytes(outcomes for _, outcomes in chunks)[codes], out=outcome)
    complete = outcome == _PRESENT
    heading = _json([_HEADING, key.name, [[field.name, field.rule] for field in key.fields]])[:-1]
    rows = zip(*(part[complete].tolist() for part in parts), strict=True)
    hashed = _bytes(sha256(f"{heading},[{','.join(row)}]]") for row in rows)
    digests = np.zeros((len(outcome), DIGEST_BYTES), dtype=np.uint8)
    digests[complete] = hashed.reshape(-1, DIGEST_BYTES)
    return _hashed(digests, outcome)


def _hash_chunk(texts: list[str], kind: IdentifierKind, recipe: Recipe) -> tuple[bytes, bytes]:
    """Return the texts' digests, one after the other, and a byte each for their outcomes."""
    digests = np.zeros((len(texts), DIGEST_BYTES), dtype=np.uint8)
    outcomes = np.full(len(texts), _PRESENT, dtype=np.uint8)
    others = np.arange(len(texts))
    if kind is IdentifierKind.EMAIL:
        plain, normals = plain_emails(texts, recipe.email_rule)
        hashed = _bytes(hashlib.sha256(normal).digest() for normal in normals)
        digests[plain] = hashed.reshape(-1, DIGEST_BYTES)
        others = np.flatnonzero(~plain)
    reader = reader_of(kind, recipe)
    read = [_hash_text(texts[place], reader, recipe.version) for place in others.tolist()]
    digests[others] = _bytes(digest for digest, _ in read).reshape(-1, DIGEST_BYTES)
    outcomes[others] = [outcome for _, outcome in read]
    return digests.tobytes(), outcomes.tobytes()


def _hash_text(text: str, reader: Reader, version: int) -> tuple[bytes, int]:
    digest = recognise_digest(text, version)
    if digest is None:
        normal, outcome = _read(text, reader)
        digest = _NO_DIGEST if outcome else sha256(normal)
    else:
        outcome = _outcome_of_digest(digest, version)
    return _NO_DIGEST if outcome > _ALREADY_HASHED else digest, outcome


def _normalise_chunk(texts: list[str], rule: FieldRule, recipe: Recipe) -> tuple[list[str], bytes]:
    """Return the texts' normal forms in JSON, empty if rejected, and a byte each for outcomes."""
    reader = reader_of(rule, recipe)
    normals: list[str] = []
    outcomes = bytearray()
    for text in texts:
        if recognise_digest(text, recipe.version) is not None:
            normal, outcome = "", _OUTCOME[RejectionReason.HASHED_FIELD]
        else:
            normal, outcome = _read(text, reader)
        normals.append(_json(normal))
        outcomes.append(outcome)
    return normals, bytes(outcomes)


def _read(text: str, reader: Reader) -> tuple[str, int]:
    if not text:
        return "", _OUTCOME[RejectionReason.MISSING]
    normal = reader.normalise(text)
    if normal is None:
        return "", _OUTCOME[reader.reject(text)]
    if reader.is_placeholder(text, normal):
        return "", _OUTCOME[RejectionReason.PLACEHOLDER]
    return normal, _PRESENT


def _outcome_of_digest(digest: bytes, version: int) -> int:
    if digest == _DIGEST_OF_EMPTY or (version > 1 and digest in DIGESTS_OF_NOTHING):
        return _OUTCOME[RejectionReason.MISSING]
    if version > 1 and digest in DIGESTS_OF_PLACEHOLDERS:
        return _OUTCOME[RejectionReason.PLACEHOLDER]
    return _ALREADY_HASHED


def _bytes(parts: Iterable[bytes]) -> NDArray[np.uint8]:
    return np.frombuffer(b"".join(parts), dtype=np.uint8)


def _hashed(digests: NDArray[np.uint8], outcomes: NDArray[np.uint8]) -> HashedColumn:
    counts = np.bincount(outcomes, minlength=2 + len(_REASONS)).tolist()
    return HashedColumn(
        digests=digests,
        present=outcomes <= _ALREADY_HASHED,
        already_hashed=counts[_ALREADY_HASHED],
        rejected={reason: counts[_OUTCOME[reason]] for reason in RejectionReason},
    )
