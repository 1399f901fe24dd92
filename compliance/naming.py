"""How leaves tell of parties of their agreement: few by name, many by their places in its list.

Guarantees: a list of parties takes at most `TOLD_BYTES` in a leaf, however many and however long
their names; whoever holds the agreement, whose digest is in the leaf, has their names again.

Leaves to others: what is said of them (`compliance.records`).
"""

from collections.abc import Iterable, Sequence
from typing import cast

from compliance.agreement import Agreement
from compliance.errors import RecordError
from compliance.records.leaf import TOLD_BYTES, Leaf, Told, spelt_bytes

__all__ = ["named", "tell_of", "version_of"]


def tell_of(names: Iterable[str], agreement: Agreement) -> Told:
    """Return parties of an agreement as a leaf under it tells of them.

    By name, in the order given, where that takes at most `TOLD_BYTES`; else by place, rising: 0 is
    the first of `agreement.parties`.

    Raises:
        RecordError: they are told by place, and one is no party of the agreement.
    """
    names = tuple(names)
    if spelt_bytes(names) <= TOLD_BYTES:
        return names
    places = {party.name: place for place, party in enumerate(agreement.parties)}
    if strangers := sorted(set(names) - places.keys()):
        raise RecordError(
            f"a leaf tells of parties of agreement {agreement.name!r} alone, and "
            f"{', '.join(strangers)} is none"
        )
    return tuple(sorted({places[name] for name in names}))


def named(parties: Told, agreement: Agreement) -> tuple[str, ...]:
    """Return the names of whom a leaf under an agreement tells.

    A place that the agreement has not is called so, which is the name of no party.
    """
    if not parties or isinstance(parties[0], str):  # as in nearly every leaf
        return cast("tuple[str, ...]", parties)
    known = [party.name for party in agreement.parties]
    return tuple(known[place] if place < len(known) else f"place {place}" for place in parties)


def version_of(leaf: Leaf, versions: Sequence[Agreement]) -> Agreement:
    """Return the version of the contract that a leaf is under; the last where none is at hand."""
    return next((one for one in versions if one.digest == leaf.agreement), versions[-1])
