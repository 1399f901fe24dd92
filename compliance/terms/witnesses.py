"""Who witnesses whose log where an agreement has many parties.

Guarantees: up to `MOST_WITNESSES` others, all of them; of more, as many whom a digest of both names
draws: the same at everybody, others for each log, and mostly the same where a party joins or leaves
(Thaler and Ravishankar, "Using name-based mappings to increase hit rates", 1998).

Leaves to others: who may be drawn, and how many of them must cosign (`compliance.agreement`).
"""

import hashlib
from collections.abc import Collection
from typing import Final

__all__ = ["MOST_WITNESSES", "drawn_witnesses"]

MOST_WITNESSES: Final = 23
"""Witnesses of one log: what a head with their signatures weighs (about 3.3 KB each), and what a
policy that names them takes, stay within the formats' limits; and parties n send n times as many
cosignatures round, not n²."""


def drawn_witnesses(log: str, others: Collection[str]) -> tuple[str, ...]:
    """Return who witnesses a party's log, in the order of `others`.

    Args:
        log: the party.
        others: parties that could, each once.
    """
    ranked = sorted(others, key=lambda name: hashlib.sha256(f"{log} {name}".encode()).digest())
    drawn = frozenset(ranked[:MOST_WITNESSES])
    return tuple(name for name in others if name in drawn)
