"""What a party puts into a VOLE-based match, and reads out of it, bucket by bucket.

The protocol itself (Raghuraman and Rindal, "Blazing fast PSI from improved OKVS and subfield VOLE",
CCS 2022) is another program's. It is given tags in place of tokens, as many as the bucket's
capacity, in random order.

Guarantees: a tag is a pseudorandom function of a token under a key of this match alone, so that
what lies on a disk or in a log is no hash of an identifier; equal tokens have equal tags at both
sides; dummies hide how many tokens there are, are different in every run, and equal nobody's tag
but for a chance below 2^-80.

Leaves to others: the protocol, agreeing on the key, and drawing `Secret`s.
"""

import hmac

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from numpy.typing import NDArray

from privacy.errors import InvalidParameterError, PeerMessageError, WorkerError
from privacy.randomness import Secret, SecretStream, derive_secret

__all__ = ["TAG_BYTES", "found_tokens", "from_lines", "match_key", "padded_tags", "to_lines"]

TAG_BYTES = 16
_TOKEN_BYTES = 33
_LINE_BYTES = 2 * TAG_BYTES + 1
_WORDS = np.dtype([("high", "<u8"), ("low", "<u8")])


def match_key(shares: frozenset[Secret], label: str) -> Secret:
    """Return a key to which both sides gave a share; nobody who lacks one of them knows it.

    Args:
        shares: the two sides', 32 bytes each, in no order.
        label: names the match, the bucket and the run.

    Raises:
        PeerMessageError: both are the same.
    """
    if len(shares) != 2:
        raise PeerMessageError("both sides gave the same share of the key of tags")
    one, other = sorted(shares)
    return derive_secret(Secret(hmac.digest(one, other, "sha256")), label)


def padded_tags(
    tokens: NDArray[np.uint8], key: Secret, fresh: Secret, *, capacity: int
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return the tags of a bucket among dummies, in random order.

    A tag is the CBC-MAC under AES-256 of three blocks, the token's kind and its hash: a
    pseudorandom function, as all messages have one length (Bellare, Kilian and Rogaway, "The
    security of the cipher block chaining message authentication code", 1994, theorem 3.1).

    Args:
        tokens: shape (n, 33).
        key: both sides' (`match_key`).
        fresh: this side's, drawn for this run of this bucket; decides dummies and order.
        capacity: how many tags there are to be; at least one is a dummy, so n + 1 or more.

    Returns:
        Tags, shape (capacity, 16), and whose each is: a row of `tokens`, -1 of a dummy.

    Raises:
        InvalidParameterError: `tokens` has another shape, or more rows than there is room for.
    """
    if tokens.ndim != 2 or tokens.shape[1] != _TOKEN_BYTES or tokens.dtype != np.uint8:
        raise InvalidParameterError(f"expected tokens of shape (n, 33), got {tokens.shape}")
    if len(tokens) >= capacity:
        raise InvalidParameterError(f"{len(tokens)} tokens and a dummy do not fit into {capacity}")
    stream = SecretStream(fresh, "dummies and order of tags")
    dummies = np.frombuffer(stream.take((capacity - len(tokens)) * TAG_BYTES), dtype=np.uint8)
    tags = np.concatenate([_tags(tokens, key), dummies.reshape(-1, TAG_BYTES)])
    owners = np.full(capacity, -1, dtype=np.int64)
    owners[: len(tokens)] = np.arange(len(tokens))
    order = stream.permutation(capacity)
    return tags[order], owners[order]


def found_tokens(
    found: NDArray[np.uint8], tags: NDArray[np.uint8], owners: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Return which of the learner's tokens the protocol found, ascending.

    Args:
        found: tags that both sides have, as the program tells them, shape (m, 16).
        tags: what it was given, shape (n, 16).
        owners: of `tags`, as `padded_tags` returned them.

    Raises:
        WorkerError: the program tells a tag that it was not given, or twice, or a dummy.
    """
    wanted, given = _words(found), _words(tags)
    order = np.argsort(given, order=("high", "low"))
    given = given[order]
    places = np.minimum(np.searchsorted(given, wanted), len(given) - 1)
    rows = owners[order][places]
    if (given[places] != wanted).any() or (rows < 0).any() or len(np.unique(rows)) != len(rows):
        raise WorkerError(
            "the program that matches over a direct link told what cannot be: nothing of it was "
            "used; see that its environment is what docs/deploy.md says, then run again"
        )
    return np.sort(rows)


def to_lines(tags: NDArray[np.uint8]) -> bytes:
    """Return tags in hexadecimal, one a line."""
    lines = np.full((len(tags), _LINE_BYTES), ord("\n"), dtype=np.uint8)
    text = np.frombuffer(tags.tobytes().hex().encode(), dtype=np.uint8)
    lines[:, :-1] = text.reshape(len(tags), _LINE_BYTES - 1)
    return lines.tobytes()


def from_lines(content: bytes) -> NDArray[np.uint8]:
    """Return what `to_lines` wrote, shape (n, 16).

    Raises:
        WorkerError: it is something else.
    """
    try:
        raw = bytes.fromhex(content.decode("ascii"))
        return np.frombuffer(raw, dtype=np.uint8).reshape(len(content) // _LINE_BYTES, TAG_BYTES)
    except ValueError as error:
        raise WorkerError(
            f"{len(content)} bytes that are no tags came from the program that matches over a "
            "direct link: nothing of them was used; run again"
        ) from error


def _tags(tokens: NDArray[np.uint8], key: Secret) -> NDArray[np.uint8]:
    first = np.zeros((len(tokens), TAG_BYTES), dtype=np.uint8)
    first[:, 0] = tokens[:, 0]
    chained = np.zeros_like(first)
    for block in (first, tokens[:, 1:17], tokens[:, 17:33]):
        # The bare cipher, once a block of the chain: numpy chains all tokens side by side.
        cipher = Cipher(algorithms.AES256(key), modes.ECB()).encryptor()  # noqa: S305 -- see above
        mixed = cipher.update((chained ^ block).tobytes())
        chained = np.frombuffer(mixed, dtype=np.uint8).reshape(-1, TAG_BYTES)
    return chained


def _words(tags: NDArray[np.uint8]) -> NDArray[np.void]:
    return np.ascontiguousarray(tags).view(_WORDS).reshape(-1)
