"""What a party's own log tells it, also where its beginning was pruned.

Guarantees: a whole log is verified as a whole. Of one that was pruned every entry from where the
last leaf `log.pruned` says is proved to be in the tree of the signed head; a log of which other
entries are missing is refused.

Leaves to others: what follows where the leaves that are gone told something (whoever asks), and
reading one's own log as a stranger would (`compliance.auditing`).
"""

from compliance import records
from compliance.agreement import Agreement
from compliance.auditing.trust import log_keys
from compliance.log.policy import open_checkpoint
from compliance.log.proving import TiledTree
from compliance.log.verifier import FileMissingError, read_checkpoint, verify_log
from federation.party import PartyFolder

__all__ = ["leaves_left", "own_leaves"]


def own_leaves(folder: PartyFolder, agreement: Agreement) -> tuple[records.Record, ...]:
    """Return the leaves of a party's log, the oldest first: all of them, or those not pruned.

    Args:
        folder: the party's.
        agreement: that its folder obeys now, whose keys sign the log.

    Raises:
        LogError: the log is damaged, or cannot be read.
    """
    party = agreement.party(folder.name)
    try:
        log = verify_log(folder.log, verification_key=party.log_key, second_key=party.cosigning_key)
    except FileMissingError as error:
        head, _ = open_checkpoint(read_checkpoint(folder.log), log_keys(party))
        told, left = leaves_left(TiledTree(folder.log, head), head.tree_size)
        if told is None:
            raise FileMissingError(f"{error}, and no leaf says that it was pruned") from error
        return left
    return tuple(map(records.parse_leaf, log.entries))


def leaves_left(
    tree: TiledTree, size: int
) -> tuple[records.LogPruned | None, tuple[records.Record, ...]]:
    """Return what told of the last pruning, if anything did, and the leaves that it left, proved.

    Args:
        tree: of the log's head.
        size: its entries.

    Raises:
        LogError: an entry that was not let go is missing, or cannot be read.
        LogCorruptedError: the files contradict the head.
    """
    told: records.LogPruned | None = None
    left: list[records.Record] = []
    for index in range(size - 1, -1, -1):
        if told is not None and index < told.kept_from:
            break
        leaf = records.parse_leaf(tree.entry(index))
        if told is None and isinstance(leaf, records.LogPruned):
            told = leaf
        left.append(leaf)
    return told, tuple(reversed(left))
