"""Whether a party's log says something already: asked where a crash may have come in between.

Leaves to others: writing it down (`gate`). The whole log is verified and read each time, so it is
asked after a crash, and not at every step.
"""

from compliance.agreement import Agreement
from compliance.records.leaf import Leaf
from federation.log_reading import own_leaves
from federation.party import PartyFolder

__all__ = ["is_told"]


def is_told(folder: PartyFolder, agreement: Agreement, kind: type[Leaf], **fields: object) -> bool:
    """Tell whether a leaf of this kind, with these fields, is in the party's log.

    Raises:
        LogError: the log is damaged.
    """
    return any(
        isinstance(leaf, kind)
        and all(getattr(leaf, name) == value for name, value in fields.items())
        for leaf in own_leaves(folder, agreement)
    )
