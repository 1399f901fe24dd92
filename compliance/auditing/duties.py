"""Checks of one log: erasures on time, holds kept, nothing pruned that was not there."""

from collections import defaultdict
from collections.abc import Iterator
from typing import Final, get_args

from compliance import records
from compliance.auditing.finding import Finding, FindingKind
from compliance.auditing.party_log import PartyLog
from compliance.auditing.rules import Rules
from compliance.log.merkle import root_hash

__all__ = ["erasures", "holds", "prunings"]

_About = (
    records.ErasureAcknowledged | records.ErasureStep | records.ErasureCompleted
    | records.ErasureOverdue | records.SubjectKeyDestroyed
)  # fmt: skip
_ABOUT: Final[tuple[type[records.Record], ...]] = get_args(_About)
_Done = dict[tuple[type, str, str], int]


def erasures(log: PartyLog, rules: Rules) -> Iterator[Finding]:
    """What was asked for was completed by its deadline, here and by whoever acknowledged it."""
    asked: dict[str, tuple[int, records.ErasureRequested]] = {}
    done: _Done = {}
    heard: dict[str, set[str]] = defaultdict(set)
    for index, leaf in log.each(records.ErasureRequested, *_ABOUT):
        if isinstance(leaf, records.ErasureRequested):
            asked.setdefault(leaf.request, (index, leaf))
        elif isinstance(leaf, _About) and leaf.request not in asked:
            text = "is about an erasure that nobody requested before"
            yield log.finding(FindingKind.ERASURE_UNREQUESTED, index, text)
        if isinstance(leaf, records.ErasureAcknowledged | records.ErasureCompleted):
            done.setdefault((type(leaf), leaf.request, leaf.peer), index)
        if isinstance(leaf, records.ErasureAcknowledged):
            heard[leaf.request].add(leaf.peer)
    for index, request in asked.values():
        # No message carries requests between parties: a peer owes what it acknowledged.
        for peer in sorted({log.party} | heard[request.request]):
            yield from _kept(log, rules, index, request, peer, done)


def _kept(
    log: PartyLog,
    rules: Rules,
    index: int,
    request: records.ErasureRequested,
    peer: str,
    done: _Done,
) -> Iterator[Finding]:
    """Say what a peer owes of one request."""
    ended = done.get((records.ErasureCompleted, request.request, peer))
    if ended is None and rules.now <= request.deadline:
        return
    if ended is None or log.records[ended].time > request.deadline:
        leaves = (index,) if ended is None else (ended, index)
        text = f"was not completed by {peer} before its deadline"
        yield log.finding(FindingKind.ERASURE_LATE, leaves, text)


def holds(log: PartyLog, rules: Rules) -> Iterator[Finding]:
    """Nothing is deleted while a hold is on its kind; only a hold that was placed is lifted."""
    del rules
    placed: dict[str, tuple[int, str]] = {}
    kinds = (records.HoldPlaced, records.HoldLifted, records.ArtefactDeleted)
    for index, leaf in log.each(*kinds):
        if isinstance(leaf, records.HoldPlaced):
            placed[leaf.hold] = (index, leaf.artefact)
        elif isinstance(leaf, records.HoldLifted) and placed.pop(leaf.hold, None) is None:
            text = "lifts a hold that was not placed"
            yield log.finding(FindingKind.HOLD_NOT_PLACED, index, text)
        elif isinstance(leaf, records.ArtefactDeleted):
            held = [at for at, artefact in placed.values() if artefact == leaf.artefact]
            if held:
                text = f"deletes a {leaf.artefact}, on which a hold was placed"
                yield log.finding(FindingKind.HELD_DELETED, (*held, index), text)


def prunings(log: PartyLog, rules: Rules) -> Iterator[Finding]:
    """Only what lies before it can have been pruned when a leaf says so, of the tree as it was."""
    del rules
    for index, leaf in log.each(records.LogPruned):
        if leaf.kept_from > index:
            text = f"removes entries before {leaf.kept_from}, more than there were"
            yield log.finding(FindingKind.PRUNED_TOO_FAR, index, text)
        if log.entries:
            root = root_hash(log.hashes[:index])
            if root.hex() != leaf.root_hash:
                text = "names another root than that of the entries before it"
                yield log.finding(FindingKind.PRUNED_OTHERWISE, index, text)
