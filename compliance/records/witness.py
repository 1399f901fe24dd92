"""What this party was shown of another party's log."""

from typing import Literal

from compliance.records.leaf import Count, Digest, Leaf, Name

__all__ = ["WitnessReceived"]


class WitnessReceived(Leaf):
    """Another party cosigned a head of this log.

    Attributes:
        peer: who cosigned.
        tree_size: of the head.
        root_hash: of the head, hexadecimal.
    """

    kind: Literal["witness.received"] = "witness.received"
    peer: Name
    tree_size: Count
    root_hash: Digest
