"""Three or more parties find what all of them know, through somebody who holds no key.

Guarantees, against parties that follow the protocol (semi-honest) and a comparer that colludes
with none of them, under decisional Diffie-Hellman on Curve25519 and SHA-512 as a random oracle: a
party learns which of its tokens all others have, and a number for each that is the same at all of
them; it learns nothing of what only some share. The comparer learns, for every group of parties,
how many tokens just they share, with two-sided geometric noise: (ε, δ)-private for every person
that comes to a party or goes from it.

Leaves to others: a fresh secret for every run, the agreed capacities, charging the noise and its
cut, one token per person (with k, a person changes counts by k), and a comparer that keeps what it
computes to itself. One party that colludes with the comparer learns which of its tokens each other
party has. One party that leaves its dummies out takes the noise from the counts of every group that
it belongs to, for all of the group: the others paid for it, and cannot see that it is gone.

Source: Meadows, IEEE S&P 1986, taken round a ring; noise by dummies that several parties share,
as in He, Machanavajjhala, Flynn and Srivastava, "Composing differential privacy and secure
computation", CCS 2017, section 4.
"""

# The protocol, for parties 1 … n. H hashes to the curve; s_i is party i's secret scalar; seed is
# known to the parties and not to the comparer.
#
#   1. party i -> i+1       shuffle(s_i·H(x)) for its tokens x, dummies common with others, padding
#   2. party j -> j+1       multiplies what it gets by s_j, in order; n - 1 times for each set
#      ... -> comparer      the last one cuts the products to tags
#   3. comparer -> party i  the places of tags that all n sets hold, in one order for all
#   4. party i              takes its tokens at those places; the rest are dummies
#
# A group's dummies blur the count of what just that group shares; those of all parties blur the
# count of the result, and fall away in 4.

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from privacy.accounting.events import DiscreteLaplaceEvent
from privacy.errors import InvalidParameterError, PeerMessageError
from privacy.mechanisms import noised_count
from privacy.psi.blinding import (
    Tags,
    blind,
    check_capacity,
    common_rows,
    multiply_distinct,
    places,
    scalar,
    tags_of,
    validate_tags,
)
from privacy.psi.engine import CurveEngine, Points, validate_points
from privacy.randomness import Secret, SecretStream

__all__ = ["MAXIMUM_PARTIES", "Ring", "common_places"]

MAXIMUM_PARTIES = 8
"""Groups, and with them dummies, double with every party."""

_ROLE = "ring"
_DUMMY_KIND = 0  # no identifier has it


@dataclass(frozen=True)
class Ring:
    """What the parties of one ring share.

    The noise is the parties' in common: it is there if every member of a group brings the group's
    dummies, as all do that follow the protocol.

    Attributes:
        capacities: points that stand for each party's set, common dummies included; 3 to
            `MAXIMUM_PARTIES` of them.
        mechanism: noise on what the comparer can count; a person who enters or leaves one party
            changes two of its counts by one, so that the sensitivity is 2 or more.
        delta: what cutting the noise adds to the δ of a run, at most, in (0, 1).

    Raises:
        InvalidParameterError: if a field is out of range, or dummies may fill a capacity.
    """

    capacities: tuple[int, ...]
    mechanism: DiscreteLaplaceEvent
    delta: float

    def __post_init__(self) -> None:
        if not 3 <= self.parties <= MAXIMUM_PARTIES:
            raise InvalidParameterError(
                f"expected 3 to {MAXIMUM_PARTIES} parties in a ring, got {self.parties}: two match "
                "by themselves"
            )
        if not 0.0 < self.delta < 1.0:
            raise InvalidParameterError(f"expected a delta between 0 and 1, got {self.delta}")
        if self.mechanism.sensitivity < 2:
            raise InvalidParameterError("expected a sensitivity of 2 or more, got 1")
        if min(self.capacities) <= self.most_dummies:
            raise InvalidParameterError(
                f"expected capacities of more than {self.most_dummies} points, which common "
                f"dummies may take, got {self.capacities}: agree on more, or on less noise"
            )

    @property
    def parties(self) -> int:
        """How many there are."""
        return len(self.capacities)

    @property
    def most_dummies(self) -> int:
        """Common dummies that a party's set may hold."""
        return sum(2 * self._middle for group in self._groups() if 0 in group)

    def blind(
        self,
        tokens: NDArray[np.uint8],
        party: int,
        secret: Secret,
        seed: Secret,
        *,
        engine: CurveEngine,
    ) -> Points:
        """Step 1: blind a party's own set.

        Args:
            tokens: (n, k) distinct tokens, k >= 2, none beginning with 0.
            party: whose they are, 0 to parties - 1.
            secret: the party's, for this run only.
            seed: the parties', for this run only; the comparer must not know it.
            engine: the curve's arithmetic.

        Returns:
            (capacity, 32) points: as many as stand for the party's set.

        Raises:
            InvalidParameterError: if tokens repeat, are too many, or have another type or shape;
                or there is no such party.
        """
        capacity = self._capacity(party)
        if tokens.ndim != 2 or tokens.shape[1] < 2 or (tokens[:, 0] == _DUMMY_KIND).any():
            raise InvalidParameterError("expected tokens of shape (n, 2 or more) without kind 0")
        dummies = [
            self._dummies(group, seed, tokens.shape[1])
            for group in self._groups()
            if party in group
        ]
        everything = np.concatenate([tokens, *dummies])
        return blind(everything, secret, _ROLE, engine=engine, capacity=capacity)

    def pass_on(self, points: Points, party: int, secret: Secret, *, engine: CurveEngine) -> Points:
        """Step 2: multiply another party's set, keeping its order.

        Args:
            points: the set.
            party: whose it is.
            secret: of the party that multiplies, the same as in step 1.
            engine: the curve's arithmetic.

        Raises:
            PeerMessageError: if `points` break the protocol; also if two of them differ by a point
                of low order alone, so that their products are one.
            InvalidParameterError: if there is no such party.
        """
        validate_points(points, self._capacity(party), engine=engine)
        return multiply_distinct(points, scalar(secret, _ROLE), engine=engine)

    def tags(self, points: Points, party: int, secret: Secret, *, engine: CurveEngine) -> Tags:
        """Step 2, at the last party: multiply and cut to what the comparer gets, (capacity, 12).

        Raises:
            PeerMessageError, InvalidParameterError: as `pass_on` does.
        """
        return tags_of(self.pass_on(points, party, secret, engine=engine))

    def matched(
        self, token_count: int, party: int, secret: Secret, common: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """Step 4: find the party's own tokens at the places that the comparer names.

        Args:
            token_count: how many tokens step 1 was given.
            party: the same as in step 1.
            secret: the same as in step 1.
            common: (m,) places, the party's own from `common_places`.

        Returns:
            (m,) index of the token at each place, or -1 where a dummy stands: at every party.

        Raises:
            InvalidParameterError: if there are more tokens than the capacity, or no such party.
            PeerMessageError: if places are too many, repeat or are out of range.
        """
        capacity = self._capacity(party)
        check_capacity(token_count, capacity)
        _validate_places(common, capacity)
        owner = np.full(capacity, -1, dtype=np.int64)
        owner[places(secret, _ROLE, capacity)[:token_count]] = np.arange(token_count)
        return owner[common]

    @property
    def _middle(self) -> int:
        """Mean number of dummies of a group.

        So large that the cut adds at most `delta` to a run's δ. One person changes two counts, and
        of each the cut adds at most 2·q^m / (1 + q) ≤ q^(m - 1), with q = exp(-1 / scale) and m the
        mean: the mass at both ends, where the neighbour has less, or none.
        """
        return math.ceil(self.mechanism.scale * math.log(2.0 / self.delta)) + 1

    def _capacity(self, party: int) -> int:
        if not 0 <= party < self.parties:
            raise InvalidParameterError(
                f"expected a party from 0 to {self.parties - 1}, got {party}"
            )
        return self.capacities[party]

    def _groups(self) -> Iterator[tuple[int, ...]]:
        for size in range(2, self.parties + 1):
            yield from itertools.combinations(range(self.parties), size)

    def _dummies(self, group: tuple[int, ...], seed: Secret, width: int) -> NDArray[np.uint8]:
        """Return the tokens that just this group has in common, by design."""
        label = "-".join(map(str, group))
        count = noised_count(
            self._middle, self.mechanism, SecretStream(seed, f"psi ring {label} count")
        )
        count = min(count, 2 * self._middle)
        raw = SecretStream(seed, f"psi ring {label} dummies").take(count * (width - 1))
        return np.insert(
            np.frombuffer(raw, dtype=np.uint8).reshape(count, width - 1), 0, _DUMMY_KIND, axis=1
        )


def common_places(sets: Sequence[Tags], capacities: Sequence[int]) -> NDArray[np.int64]:
    """Step 3, at the comparer: find the tags that all sets hold.

    Args:
        sets: one (capacity, 12) array of tags for each party, 3 or more.
        capacities: the ring's, one for each set.

    Returns:
        (parties, m) where the m common tags stand in each set; columns are ordered by tag, which
        tells nothing of who they are.

    Raises:
        PeerMessageError: if a set has another shape or type, or repeats a tag.
    """
    for tags, capacity in zip(sets, capacities, strict=True):
        validate_tags(tags, capacity)
    first = sets[0]
    kept = np.arange(len(first))
    found: list[NDArray[np.int64]] = []
    for tags in sets[1:]:
        mine, theirs = common_rows(first[kept], tags)
        found = [*(row[mine] for row in found), theirs]
        kept = kept[mine]
    return np.stack([kept, *found])


def _validate_places(common: NDArray[np.int64], capacity: int) -> None:
    if common.ndim != 1 or common.dtype != np.int64:
        raise PeerMessageError(
            f"expected places as int64 of shape (m,), got {common.dtype} of shape {common.shape}"
        )
    if len(common) > capacity:
        raise PeerMessageError(f"expected up to {capacity} places, got {len(common)}")
    if ((common < 0) | (common >= capacity)).any() or len(np.unique(common)) < len(common):
        raise PeerMessageError(f"expected distinct places below {capacity}, got others")
