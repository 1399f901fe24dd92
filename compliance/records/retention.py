"""What was deleted because its time had come, and what was held back."""

from typing import Literal

from compliance.records.leaf import Count, Digest, Leaf, Name, Sentence, Time

__all__ = ["ArtefactDeleted", "HoldLifted", "HoldPlaced", "LogPruned"]


class ArtefactDeleted(Leaf):
    """An artefact was deleted.

    Attributes:
        artefact: its kind, as the agreement's retention terms call it.
        name: which one.
        purpose: for which it was made.
        days: that the agreement's term allows.
        due: when it had to go.
    """

    kind: Literal["artefact.deleted"] = "artefact.deleted"
    artefact: Name
    name: Name
    purpose: Name
    days: Count
    due: Time


class HoldPlaced(Leaf):
    """Artefacts must be kept though their time has come.

    Attributes:
        hold: its name.
        artefact: the kind that is kept.
        name: which one; all of that kind where left out.
        reason: why.
    """

    kind: Literal["hold.placed"] = "hold.placed"
    hold: Name
    artefact: Name
    name: Name | None = None
    reason: Sentence


class HoldLifted(Leaf):
    """A hold is over."""

    kind: Literal["hold.lifted"] = "hold.lifted"
    hold: Name


class LogPruned(Leaf):
    """Entries before `kept_from` were removed; their hashes stay.

    Attributes:
        kept_from: index of the first entry that stays.
        root_hash: of the tree when they were removed, hexadecimal.
    """

    kind: Literal["log.pruned"] = "log.pruned"
    kept_from: Count
    root_hash: Digest
