"""From the keys by which records of two parties met to at most one partner for each record.

Guarantees: the pairs are one-to-one, and depend on nothing but who met whom by which keys: not on
the order of the edges, on the numbering of records, or on which party is called left. Every pair
that met is accounted for: matched, contradicted or ambiguous.

The rule. Keys are taken in their agreed order. At each key stand the pairs that met by it, both
records still unmatched; a pair that met by more keys stands above one that met by fewer. A pair is
matched if, for both of its records, it stands above all others. Then its records' other pairs are
struck, and the question is put again until nothing changes. What is tied stays for the later keys,
and in the end unmatched.

Where nobody may know the keys, all count as one: the pair that shares more identifiers stands above
one that shares fewer, and what is tied stays unmatched.

Leaves to others: how records met (`privacy.identifiers`, `privacy.psi`), and people with several
records at one party.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from privacy.errors import InvalidParameterError

__all__ = ["Linkage", "resolve"]

Integers: TypeAlias = NDArray[np.integer]

_SLICE = 1 << 20
_MOST_RANKS = 64  # bits of a set of ranks


@dataclass(frozen=True)
class Linkage:
    """Who is whom, and what could not be told.

    Pairs are counted once, by however many keys they met:
    pairs met = matched + `contradicted` + `ambiguous`.

    Attributes:
        left: (m,) left records, ascending.
        right: (m,) the right record of each.
        rank: (m,) rank of the key that decided; 0 where keys are not known.
        keys: (m,) number of different keys by which the two met; of edges, where keys are not
            known.
        contradicted: pairs of which one record, or each, was matched with another.
        ambiguous: pairs of which both records stayed unmatched.
        ambiguous_left: left records in ambiguous pairs.
        ambiguous_right: right records in ambiguous pairs.
    """

    left: Integers
    right: Integers
    rank: Integers
    keys: Integers
    contradicted: int
    ambiguous: int
    ambiguous_left: int
    ambiguous_right: int


def resolve(left: Integers, right: Integers, rank: Integers | None = None) -> Linkage:
    """Match records one-to-one by the keys they share.

    1. Pairs of which neither record met another are matched as they come, unsorted.
    2. The others contend: the rule decides. Their e edges are sorted; time grows as e log e, about
       1 s for a million.

    Where records are numbered densely in 32 bits and few contend, 20 bytes an edge are taken beside
    the edges.

    Args:
        left: (e,) left record of each edge.
        right: (e,) right record of each edge.
        rank: (e,) rank of the key by which the two met, 0 for the most telling; an edge may occur
            several times and counts once. Left out where keys are not known: an edge then stands
            for one identifier that both bear, and counts as often as it occurs.

    Raises:
        InvalidParameterError: if the arrays differ in length, are not flat, or hold other than
            integers, or a rank is negative.
    """
    _require_edges(left, right, *(() if rank is None else (rank,)))
    lefts, rights = (_dense(side, beyond=8 * len(side) + _SLICE) for side in (left, right))
    ranks = None if rank is None else _dense(rank, beyond=_MOST_RANKS)
    contend = _contending(lefts, rights)
    if ranks is not None and ranks.room > _MOST_RANKS:
        contend[:] = True
    alone = _alone(lefts, rights, ranks, ~contend)  # 1
    rest = _settled(  # 2
        lefts.codes[contend], rights.codes[contend], None if ranks is None else ranks.codes[contend]
    )
    at = np.searchsorted(alone.left, rest.matched.left)
    of_left, of_right, decided, keys = (
        np.insert(column, at, more) for column, more in zip(alone, rest.matched, strict=True)
    )
    return Linkage(
        left=lefts.named(of_left),
        right=rights.named(of_right),
        rank=decided if ranks is None else ranks.named(decided),
        keys=keys,
        contradicted=rest.contradicted,
        ambiguous=rest.ambiguous,
        ambiguous_left=rest.ambiguous_left,
        ambiguous_right=rest.ambiguous_right,
    )


class _Matched(NamedTuple):
    """Pairs: left and right by number, number of the rank that decided, keys by which they met."""

    left: Integers
    right: Integers
    rank: Integers
    keys: Integers


class _Settled(NamedTuple):
    matched: _Matched
    contradicted: int
    ambiguous: int
    ambiguous_left: int
    ambiguous_right: int


class _Numbered(NamedTuple):
    """Values by number: `names[codes]`; the numbers themselves where there are no names."""

    names: Integers | None
    codes: Integers

    @property
    def room(self) -> int:
        """One more than the largest number."""
        if self.names is not None:
            return len(self.names)
        return int(self.codes.max()) + 1 if len(self.codes) else 0

    def named(self, codes: Integers) -> Integers:
        return codes if self.names is None else self.names[codes]


def _dense(values: Integers, *, beyond: int) -> _Numbered:
    """Number values in their order, or take them for their own numbers where none is `beyond`."""
    if len(values) and int(values.min()) >= 0 and int(values.max()) < beyond:
        return _Numbered(None, values)
    return _Numbered(*np.unique(values, return_inverse=True))


def _slices(count: int) -> Iterator[slice]:
    """Cut edges so that indices, which numpy widens to 64 bits, take little room."""
    for begin in range(0, count, _SLICE):
        yield slice(begin, begin + _SLICE)


def _contending(lefts: _Numbered, rights: _Numbered) -> NDArray[np.bool_]:
    """Tell of each edge whether one of its records met another than the other."""
    edges = len(lefts.codes)
    contend = np.zeros(edges, dtype=np.bool_)
    for here, there in ((lefts, rights), (rights, lefts)):
        one = np.zeros(here.room, dtype=there.codes.dtype)  # any of those whom a record met
        several = np.zeros(here.room, dtype=np.bool_)
        for part in _slices(edges):
            one[here.codes[part]] = there.codes[part]
        for part in _slices(edges):
            several[here.codes[part][one[here.codes[part]] != there.codes[part]]] = True
        for part in _slices(edges):
            contend[part] |= several[here.codes[part]]
    return contend


def _alone(
    lefts: _Numbered, rights: _Numbered, ranks: _Numbered | None, edges: NDArray[np.bool_]
) -> _Matched:
    """Match the pairs of edges of which neither record met another."""
    partner = np.zeros(lefts.room, dtype=rights.codes.dtype)
    met: Integers = np.zeros(lefts.room, dtype=np.uint32 if ranks is None else np.uint64)
    for part in _slices(len(edges)):
        here = lefts.codes[part][edges[part]]
        partner[here] = rights.codes[part][edges[part]]
        if ranks is None:
            np.add.at(met, here, np.uint32(1))
        else:  # a set of ranks, a bit each
            np.bitwise_or.at(met, here, np.uint64(1) << ranks.codes[part][edges[part]].astype("u8"))
    left = np.flatnonzero(met).astype(lefts.codes.dtype)
    met = met[left]
    if ranks is None:
        return _Matched(left, partner[left], np.zeros(len(left), dtype=np.uint8), met)
    first = np.bitwise_count((met & (~met + np.uint64(1))) - np.uint64(1))
    return _Matched(left, partner[left], first, np.bitwise_count(met))


def _settled(left: Integers, right: Integers, rank: Integers | None) -> _Settled:
    """Apply the rule to edges, whose ranks stand for their order alone."""
    lefts, of_left = np.unique(left, return_inverse=True)
    rights, of_right = np.unique(right, return_inverse=True)
    pairs, pair_met = np.unique(of_left * len(rights) + of_right, return_inverse=True)
    rank_met = np.zeros(len(pairs), dtype=np.int64)
    if rank is None:
        keys, pair_met = np.bincount(pair_met, minlength=len(pairs)), np.arange(len(pairs))
    else:
        met = np.unique(rank * np.int64(len(pairs)) + pair_met)
        rank_met, pair_met = np.divmod(met, max(1, len(pairs)))
        keys = np.bincount(pair_met, minlength=len(pairs))
    a, b = np.divmod(pairs, max(1, len(rights)))
    free_left, free_right = np.ones(len(lefts), dtype=bool), np.ones(len(rights), dtype=bool)
    decided = np.full(len(pairs), -1, dtype=np.int64)
    for place in np.unique(rank_met).tolist():
        standing = pair_met[rank_met == place]
        while True:
            standing = standing[free_left[a[standing]] & free_right[b[standing]]]
            above = _alone_at_the_top(a[standing], keys[standing], len(lefts))
            above &= _alone_at_the_top(b[standing], keys[standing], len(rights))
            if not above.any():
                break
            matched = standing[above]
            decided[matched] = place
            free_left[a[matched]] = free_right[b[matched]] = False
    chosen = np.flatnonzero(decided >= 0)
    open_ = free_left[a] & free_right[b]
    return _Settled(
        _Matched(lefts[a[chosen]], rights[b[chosen]], decided[chosen], keys[chosen]),
        contradicted=len(pairs) - len(chosen) - int(np.count_nonzero(open_)),
        ambiguous=int(np.count_nonzero(open_)),
        ambiguous_left=len(np.unique(a[open_])),
        ambiguous_right=len(np.unique(b[open_])),
    )


def _alone_at_the_top(
    record: NDArray[np.intp], score: NDArray[np.intp], records: int
) -> NDArray[np.bool_]:
    """Tell of each pair whether no other pair of its record has as high a score."""
    best = np.zeros(records, dtype=score.dtype)
    np.maximum.at(best, record, score)
    top: NDArray[np.bool_] = score == best[record]
    alone: NDArray[np.bool_] = np.bincount(record[top], minlength=records)[record] == 1
    return top & alone


def _require_edges(*columns: Integers) -> None:
    shapes = [column.shape for column in columns]
    types = [column.dtype for column in columns]
    if len({*shapes}) != 1 or len(shapes[0]) != 1:
        raise InvalidParameterError(
            f"expected left, right and rank of one length, got shapes {shapes}"
        )
    if not all(np.issubdtype(kind, np.integer) for kind in types):
        raise InvalidParameterError(f"expected left, right and rank as integers, got {types}")
    if len(columns) > 2 and (columns[2] < 0).any():
        raise InvalidParameterError("rank: expected 0 or more, got a negative number")
