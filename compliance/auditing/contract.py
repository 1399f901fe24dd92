"""Which versions of the contract a party obeys, out of all that are at hand.

Guarantees: a version is believed by the digest that a later one names, and by nothing that it says
of itself. A party obeys the last version that names it: whoever left by amendment goes on to hold
what it held then, and differs from nobody.

Leaves to others: which latest version to begin with; who trusts none that lies in a folder brings
his own. A version by which everybody else left is one too.
"""

from collections.abc import Iterable, Sequence

from compliance.agreement import Agreement
from compliance.errors import InvalidAgreementError
from compliance.lifecycle import Succession

__all__ = ["chain", "obeyed_by", "obeys"]


def chain(latest: Agreement, at_hand: Iterable[Agreement]) -> tuple[Agreement, ...]:
    """Return a version after those that it goes back to, as far as they are at hand."""
    known = {one.digest: one for one in at_hand}
    found = [latest]
    while (before := known.get(found[-1].supersedes or "")) is not None:
        found.append(before)
    return tuple(reversed(found))


def obeyed_by(party: str, held: Succession) -> Succession:
    """Return the versions from the first to the last that names a party, with the notices.

    Raises:
        InvalidAgreementError: none names it.
    """
    named = [number for number, one in enumerate(held.versions) if _names(one, party)]
    if not named:
        raise InvalidAgreementError(
            f"no version of agreement {held.latest.name!r} at hand has a party {party!r}: bring "
            "the one that it obeyed (`--agreement`)"
        )
    versions = held.versions[named[0] : named[-1] + 1]
    return Succession(versions, {one: held.effective_from(one) for one in held.notices})


def obeys(party: str, held: Agreement, versions: Sequence[Agreement]) -> bool:
    """Tell whether a party holds as its last version the last of these that names it."""
    named = [one.digest for one in versions if _names(one, party)]
    return named[-1:] == [held.digest]


def _names(version: Agreement, party: str) -> bool:
    return any(one.name == party for one in version.parties)
