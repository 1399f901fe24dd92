"""What is left of a log whose beginning was forgotten: proved leaf by leaf, and said to be pruned.

Guarantees: a log counts as pruned only if a leaf in it says so, every entry from there on is in the
tree of the signed head, and that tree extends the one whose root the leaf names.

Leaves to others: a log that is whole (`reading`); what the forgotten entries said.
"""

from pathlib import Path

from compliance.auditing.finding import Finding, FindingKind
from compliance.auditing.trust import log_keys
from compliance.errors import LogCorruptedError, LogError, RecordError
from compliance.log.checkpoint import Checkpoint
from compliance.log.policy import open_checkpoint
from compliance.log.proving import TiledTree
from compliance.log.verifier import FileMissingError, read_checkpoint
from compliance.records import LogPruned, parse_leaf
from compliance.terms import PartyTerm

__all__ = ["pruned"]


def pruned(directory: Path, party: PartyTerm) -> Finding | None:
    """Say that a log was pruned, and whether rightly; None where nothing in it says that it was.

    1. The last leaf `log.pruned` is looked for from the end, each leaf with its proof.
    2. Every entry that it keeps is there, with its proof.
    3. The head extends the tree whose root it names.
    """
    try:
        head, _ = open_checkpoint(read_checkpoint(directory), log_keys(party))
        tree = TiledTree(directory, head)
        index, leaf = _told(tree, head)  # 1
    except (LogError, RecordError):
        return None  # the reader of whole logs says what is wrong
    try:
        for kept in range(leaf.kept_from, head.tree_size):  # 2
            tree.entry(kept)
        tree.consistency_proof(Checkpoint(head.origin, index, bytes.fromhex(leaf.root_hash)))  # 3
    except (LogError, LogCorruptedError) as error:
        text = f"leaf {index} (log.pruned) of {party.name} does not hold for what is left: {error}"
        return Finding(FindingKind.PRUNED_OTHERWISE, party.name, (index,), text)
    text = (
        f"entries before {leaf.kept_from} of the log of {party.name} were removed, as leaf {index} "
        "says; the others hold, and nothing can be said of the log as a whole: bring a copy"
    )
    return Finding(FindingKind.PRUNED, party.name, (index,), text)


def _told(tree: TiledTree, head: Checkpoint) -> tuple[int, LogPruned]:
    for index in range(head.tree_size - 1, -1, -1):
        leaf = parse_leaf(tree.entry(index))
        if isinstance(leaf, LogPruned):
            return index, leaf
    raise FileMissingError(f"{head.origin}: no leaf says that the log was pruned")
