"""Who masks with whom: everybody with everybody, or each with a few on a random circle.

Guarantees: a neighbourhood from `choose_neighbourhood` holds, over the random order of the circle,
but with the stated chances. The graph follows from a public digest and is the same at everybody.

Leaves to others: a digest that no party chose. Whoever advertises its keys last could try many, so
neighbourhoods are for a server and parties that follow the protocol (`plan` enforces it). That
dropping out does not depend on the graph is assumed.

Source: Bell, Bonawitz, Gascón, Lepoint and Raykova, "Secure single-server aggregation with
(poly)logarithmic overhead", CCS 2020, section 3: a Harary graph over a random permutation.
"""

# With n parties, of which c collude and d drop out, each has k neighbours: those that stand up to
# k/2 places before and behind it. They are k of the others, drawn without replacement. t of them
# must reveal a share. H(m, c, k) counts the marked among k drawn of m, of which c are marked
# (hypergeometric). By union bounds over parties:
#
#   privacy    n · P[H(n-d-1, c, k) >= t]               t colluding neighbours know a secret; worst
#                                                       where the d are gone before the draw
#              + C(n,2) · (c+d)_k / (n)_k  <= 2^-40     the honest ones who stay have two gaps of
#                                                       k/2: the sum falls into two parts
#   success    n · P[H(n-1, d, k) >= k-t+1]  <= 2^-20   too few neighbours stay
#
# (m)_k is a falling factorial: the quotient is the chance that k given places are all among c+d.

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from math import comb, perm
from typing import Final

from privacy.errors import InvalidParameterError
from privacy.randomness import Secret, SecretStream

__all__ = ["PRIVACY_BITS", "SUCCESS_BITS", "Graph", "Neighbourhood", "choose_neighbourhood"]

PRIVACY_BITS: Final = 40
"""A random graph fails to hide an input with a chance of at most 2⁻⁴⁰."""

SUCCESS_BITS: Final = 20
"""A random graph leaves somebody too few neighbours with a chance of at most 2⁻²⁰."""


@dataclass(frozen=True)
class Neighbourhood:
    """How many neighbours each party has, and how many of them give a secret back.

    Attributes:
        degree: neighbours, even.
        share_threshold: shares that give a secret back.
    """

    degree: int
    share_threshold: int


@lru_cache(maxsize=64)
def choose_neighbourhood(parties: int, *, colluding: int, dropping: int) -> Neighbourhood | None:
    """Return the smallest neighbourhood that holds, or None where only the complete graph does.

    Args:
        parties: how many there are, n.
        colluding: of them, at most so many put together what they see with the server.
        dropping: of them, at most so many drop out.

    Raises:
        InvalidParameterError: colluding or dropping parties are negative, or as many as there are.
    """
    if not (colluding >= 0 <= dropping and colluding + dropping < parties):
        raise InvalidParameterError(
            f"expected fewer colluding and dropping parties than the {parties} there are, got "
            f"{colluding} and {dropping}"
        )
    for degree in range(2, parties - dropping - 1, 2):
        gone = colluding + dropping
        parted = comb(parties, 2) * Fraction(perm(gone, degree), perm(parties, degree))
        allowed = Fraction(1, 2**PRIVACY_BITS) - parted
        near = list(_chances(parties - dropping - 1, colluding, degree))
        threshold = _smallest_threshold([parties * chance for chance in near], allowed)
        if threshold is None:
            continue
        few = sum(list(_chances(parties - 1, dropping, degree))[degree - threshold + 1 :])
        if parties * few <= Fraction(1, 2**SUCCESS_BITS):
            return Neighbourhood(degree=degree, share_threshold=threshold)
    return None


def _smallest_threshold(chances: list[Fraction], allowed: Fraction) -> int | None:
    """Return the smallest t of 2 or more for which chances from t on are allowed in all."""
    found = None
    for threshold in range(len(chances) - 1, 1, -1):
        allowed -= chances[threshold]
        if allowed < 0:
            break
        found = threshold
    return found


def _chances(population: int, marked: int, drawn: int) -> Iterator[Fraction]:
    """Yield P[H = 0], …, P[H = drawn] of the hypergeometric distribution."""
    everything = comb(population, drawn)
    for hits in range(drawn + 1):
        yield Fraction(comb(marked, hits) * comb(population - marked, drawn - hits), everything)


@dataclass(frozen=True)
class Graph:
    """Who masks with whom, by places on the roster.

    Attributes:
        order: places round the circle.
        reach: neighbours on each side; as many as there are parties, where all are neighbours.
    """

    order: tuple[int, ...]
    reach: int

    @classmethod
    def drawn(cls, parties: int, neighbourhood: Neighbourhood | None, digest: bytes) -> "Graph":
        """Draw the order of the circle from 32 public bytes that no party chose."""
        if neighbourhood is None:
            return cls(tuple(range(parties)), parties)
        stream = SecretStream(Secret(digest), "secure aggregation neighbourhoods")
        return cls(tuple(stream.permutation(parties).tolist()), neighbourhood.degree // 2)

    def neighbours(self, place: int) -> frozenset[int]:
        """Return the places of a party's neighbours, itself not among them."""
        size = len(self.order)
        if 2 * self.reach >= size - 1:
            return frozenset(range(size)) - {place}
        at = self.order.index(place)
        steps = (*range(-self.reach, 0), *range(1, self.reach + 1))
        return frozenset(self.order[(at + step) % size] for step in steps)
