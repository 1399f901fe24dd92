"""The people that bytes are made from, as they are declared to the gate.

Leaves to others: whom a job may use (`population`), and what of them may leave (`gate`).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from federation.references import References

__all__ = ["PeopleUsed"]


@dataclass(frozen=True)
class PeopleUsed:
    """The people that the bytes were made from.

    Attributes:
        purpose: for which they were used.
        keys: the party's own record references, n of them.
        rows: rows the party holds, eligible or not.
        excluded: rows left out, by reason.
        linked: further record references of the same people, whose "no" counts too.
    """

    purpose: str
    keys: References
    rows: int
    excluded: Mapping[str, int] = field(default_factory=dict)
    linked: References = field(default_factory=lambda: References.of(()))
