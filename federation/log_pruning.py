"""What `comity log prune` does: forget the beginning of a party's log, by the agreed rule.

Guarantees: nothing is removed that the agreement does not let go (`retention`, `log-body`), while
it is in force, or while a hold is on the log; a leaf tells of it, durably, before the first file
goes. After a crash, asking again removes the rest, and no second leaf tells of it. Nobody works in
the folder meanwhile.

Leaves to others: a copy of what is removed; auditing what is left (`compliance.auditing.pruned`).
"""

from collections.abc import Iterable
from datetime import datetime, timedelta
from pathlib import Path

from compliance import records
from compliance.agreement import Agreement, iso
from compliance.auditing.trust import policy_for
from compliance.errors import LogError
from compliance.log.checkpoint import Checkpoint
from compliance.log.note import Note
from compliance.log.proving import TiledTree
from compliance.log.pruning import prune
from compliance.log.tiles import TILE_WIDTH
from compliance.terms import Artefact
from federation.errors import WorkspaceError
from federation.log_reading import leaves_left
from federation.party import PartyFolder, locked
from federation.witnesses import read_optional

__all__ = ["prune_log"]


def prune_log(directory: Path, before: int, *, now: datetime) -> tuple[records.LogPruned, int]:
    """Remove entries before `before`, as far as whole files end there.

    Args:
        directory: the party's folder.
        before: index of an entry that stays.
        now: with a time zone.

    Returns:
        The leaf that tells of it, or told of it before, and how many files were removed.

    Raises:
        WorkspaceError: the agreement is in force or has no such rule, an entry is too young or on
            hold or after the last public head, or no whole file would go.
        InvalidAgreementError: the agreement in the folder does not hold.
        LogError: the log is open elsewhere, has fewer entries, or the disk refused.
    """
    folder = PartyFolder(directory)
    agreement = folder.agreement()
    days = [one.days for one in agreement.retention if one.artefact is Artefact.LOG_BODY]
    if not days:
        raise WorkspaceError("the agreement has no retention term for log-body: agree on one")
    if now < agreement.valid_until:
        raise WorkspaceError(
            f"the agreement is in force until {iso(agreement.valid_until)}, and a party that works "
            "reads its whole log: prune it afterwards"
        )
    kept_from = before // TILE_WIDTH * TILE_WIDTH
    with locked(folder), folder.open_log() as log:
        folder.check_current(agreement)
        head = log.checkpoint
        if before > head.tree_size:
            raise LogError(
                f"expected at most the {head.tree_size} entries of the log, got {before}"
            )
        if kept_from == 0:
            raise WorkspaceError(f"files hold {TILE_WIDTH} entries each: nothing goes before that")
        tree = TiledTree(folder.log, head)
        told, left = leaves_left(tree, head.tree_size)
        if _is_held(left):
            raise WorkspaceError("a hold is on log-body: nothing goes before it is lifted")
        if told is not None and kept_from <= told.kept_from:  # what a crash may have left
            return told, prune(folder.log, head, told.kept_from)
        _check_witnessed(folder, agreement, tree, kept_from)
        youngest = records.parse_leaf(tree.entry(kept_from - 1)).time
        if now < youngest + timedelta(days=max(days)):
            raise WorkspaceError(
                f"entry {kept_from - 1} is of {iso(youngest)}, and entries stay {max(days)} days"
            )
        leaf = records.LogPruned(
            time=now,
            party=folder.name,
            agreement=agreement.digest,
            kept_from=kept_from,
            root_hash=head.root_hash.hex(),
        )
        log.append([records.to_leaf(leaf)])
        return leaf, prune(folder.log, log.checkpoint, kept_from)


def _check_witnessed(
    folder: PartyFolder, agreement: Agreement, tree: TiledTree, kept_from: int
) -> None:
    """Return only if what others cosigned last can be proved after the pruning."""
    if not policy_for(agreement, folder.name).groups:
        return  # nobody cosigns
    signed = read_optional(folder.log / "witness" / "public")
    public = None if signed is None else Checkpoint.from_body(Note.parse(signed).text)
    if public is None or public.tree_size < kept_from:
        size = 0 if public is None else public.tree_size
        raise WorkspaceError(
            f"others cosigned {size} entries: none after these may go, or nobody could tell any "
            "more that the log is the one that they saw"
        )
    tree.consistency_proof(public)


def _is_held(left: Iterable[records.Record]) -> bool:
    """Tell whether a hold is on the log; none is that was placed among entries let go before."""
    placed: set[str] = set()
    for leaf in left:
        if isinstance(leaf, records.HoldPlaced) and leaf.artefact == Artefact.LOG_BODY:
            placed.add(leaf.hold)
        elif isinstance(leaf, records.HoldLifted):
            placed.discard(leaf.hold)
    return bool(placed)
