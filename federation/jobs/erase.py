"""Whom a request to erase is about: told to those who hold the person, and to nobody else.

```
 recipient ─ its people, blinded ─► origin      1
 recipient ◄─ tags, and a batch of persons, blinded ─ origin      2
 recipient finds which place of the batch is which of its people      3
```

The two-party protocol of `privacy.psi`, the wrong way round: who holds the people learns the
outcome. A batch has `BATCH_PLACES` places, filled up with dummies and shuffled; a request travels
as the number of its place (`BLINDED`). People are shown in `Parts`, each under a secret of its own,
and compared with the same batch each time.

Guarantees, against parties that follow the protocol: a recipient learns which of its own people are
to be erased, and nothing of anybody else, whatever lists of candidates it has; the origin learns
nothing but that the recipient took part, so not who holds the person. The points tell nobody how
many requests a batch has; a recipient sees that by the requests that come with them.

Leaves to others: a fresh secret for each batch and recipient; how many points a recipient may bring
(who adds candidates to its own set learns whether these are to be erased: the agreement declares
its rows), that a part is answered for the same points each time (`asking`), how often it is asked
(`showing`), and carrying the points (`jobs.spread`). Learning takes one pass over the recipient's
people: so requests wait for a batch.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from compliance.erasure.wire import Identifier
from compliance.errors import ErasureError
from privacy.errors import InvalidParameterError
from privacy.identifiers import IdentifierKind, Recipe, hash_column, psi_tokens
from privacy.psi import (
    CurveEngine,
    Points,
    SenderReply,
    receiver_blind,
    receiver_intersect,
    sender_places,
    sender_reply,
)
from privacy.randomness import Secret, derive_secret

__all__ = [
    "BATCH_PLACES",
    "BLINDED",
    "PART_POINTS",
    "Batch",
    "Parts",
    "blinded_identifier",
    "make_batch",
    "place_of",
    "request_tokens",
    "rows_asked",
    "show_people",
]

BATCH_PLACES: Final = 64
"""Identifiers that stand in a batch, dummies among them."""

PART_POINTS: Final = 1 << 18
"""Points of a part, 8 MiB: memory depends on it, and it is the same at both sides."""

BLINDED: Final = ("comity-place", "psi-1")
"""Type and format of an identifier that is told as its place in a batch."""

KINDS: Final[Mapping[str, IdentifierKind]] = {
    "email": IdentifierKind.EMAIL,
    "phone": IdentifierKind.PHONE,
}
"""What people say who they are by, and what it is here."""


@dataclass(frozen=True)
class Parts:
    """How the points that stand for a recipient's people are cut: all parts full but the last.

    Attributes:
        points: of all parts, 1 or more.
    """

    points: int

    @property
    def count(self) -> int:
        """How many parts there are."""
        return -(-self.points // PART_POINTS)

    @property
    def last(self) -> int:
        """Number of the last one."""
        return self.count - 1

    def size(self, part: int) -> int:
        """Return how many points a part has, the first being part 0."""
        return min(PART_POINTS, self.points - part * PART_POINTS)


@dataclass(frozen=True)
class Batch:
    """What the origin answers a recipient with.

    Attributes:
        reply: tags of the recipient's points, and the batch's own.
        places: where each token stands among the batch's points, (tokens,).
    """

    reply: SenderReply
    places: NDArray[np.int64]


def request_tokens(kind: str, value: str, recipe: Recipe) -> NDArray[np.uint8]:
    """Return the token of an identifier that somebody named, shape (1, 33).

    Raises:
        ErasureError: another kind, or it normalises to nothing: nobody could be found by it.
    """
    if kind not in KINDS:
        raise ErasureError(f"expected one of {', '.join(KINDS)} to erase by, got another kind")
    hashed = hash_column([value], KINDS[kind], recipe)
    if not hashed.present[0]:
        raise ErasureError(
            f"this {kind} normalises to nothing that could be found: ask the person for another"
        )
    return psi_tokens(KINDS[kind], hashed.digests)


def show_people(
    tokens: NDArray[np.uint8], secret: Secret, part: int, *, engine: CurveEngine, capacity: int
) -> Points:
    """Step 1, at the recipient: blind the tokens of a part of its people; see `receiver_blind`.

    Args:
        tokens: (n, 33) distinct tokens, in no other part.
        secret: of the showing.
        part: which one.
        engine: the curve's arithmetic.
        capacity: points of the part.
    """
    return receiver_blind(tokens, _secret_of(secret, part), engine=engine, capacity=capacity)


def make_batch(
    tokens: NDArray[np.uint8],
    shown: Points,
    secret: Secret,
    *,
    engine: CurveEngine,
    capacity: int,
) -> Batch:
    """Step 2, at the origin: blind the persons of a batch for a part of one recipient's people.

    Their points are the same for every part: so are the persons that a place stands for.

    Args:
        tokens: (n, 33) distinct tokens, at most `BATCH_PLACES`.
        shown: the part that the recipient sent.
        secret: for this batch and showing only.
        engine: the curve's arithmetic.
        capacity: points of the part.

    Raises:
        ErasureError: too many tokens.
        PeerMessageError: `shown` breaks the protocol.
    """
    try:
        reply = sender_reply(
            tokens,
            shown,
            secret,
            engine=engine,
            capacity=BATCH_PLACES,
            receiver_capacity=capacity,
        )
    except InvalidParameterError as error:
        raise ErasureError(
            f"expected up to {BATCH_PLACES} different identifiers in a batch, got {len(tokens)}"
        ) from error
    return Batch(reply, sender_places(len(tokens), secret, capacity=BATCH_PLACES))


def rows_asked(
    count: int,
    secret: Secret,
    part: int,
    reply: SenderReply,
    *,
    engine: CurveEngine,
    capacity: int,
) -> NDArray[np.int64]:
    """Step 3, at the recipient: the place in the batch of each token of a part, (count,), or -1.

    Args:
        count: how many tokens the part has.
        secret: of the showing.
        part: which one.
        reply: to it.
        engine: the curve's arithmetic.
        capacity: points of the part.

    Raises:
        PeerMessageError: the reply breaks the protocol.
    """
    return receiver_intersect(
        count,
        _secret_of(secret, part),
        reply,
        engine=engine,
        capacity=capacity,
        sender_capacity=BATCH_PLACES,
    )


def _secret_of(secret: Secret, part: int) -> Secret:
    """Return the secret of a part: two of one secret would have the same dummies."""
    return derive_secret(secret, f"part {part}")


def blinded_identifier(place: int) -> Identifier:
    """Return what a request names in place of the person."""
    kind, form = BLINDED
    return Identifier(value=str(place), type=kind, format=form)


def place_of(identifier: Identifier) -> int:
    """Return the place that a request names.

    Raises:
        ErasureError: it names none.
    """
    value = identifier.value
    if (identifier.type, identifier.format) != BLINDED or not (
        value.isascii() and value.isdecimal() and len(value) <= 2 and int(value) < BATCH_PLACES
    ):
        raise ErasureError(f"expected a place from 0 to {BATCH_PLACES - 1} in a batch")
    return int(value)
