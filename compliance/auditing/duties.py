"""Checks of one log: erasures and retrainings on time, holds kept, nothing pruned too far."""

from collections import defaultdict
from collections.abc import Iterator
from datetime import timedelta
from typing import Final, get_args

from compliance import records
from compliance.auditing.finding import Finding, FindingKind
from compliance.auditing.party_log import PartyLog
from compliance.auditing.rules import Rules
from compliance.terms import DATA_ROLES, Artefact

__all__ = ["erasures", "holds", "prunings", "retrainings"]

_About = (
    records.ErasureAcknowledged | records.ErasureStep | records.ErasureCompleted
    | records.ErasureOverdue | records.SubjectKeyDestroyed
)  # fmt: skip
_ABOUT: Final[tuple[type[records.Record], ...]] = get_args(_About)
_GRACE: Final = timedelta(days=8)
"""A run of `comity retention` a day, or one that must first believe the clock: see `retention`."""
_Answered = records.ErasureAcknowledged | records.ErasureCompleted | records.ErasureOverdue

_Done = dict[tuple[type, str, str], int]


def erasures(log: PartyLog, rules: Rules) -> Iterator[Finding]:
    """What was asked for was completed by its deadline: here, and by whom it goes on to.

    A request goes on from where the person asked to everybody who held people then by the contract.
    """
    asked: dict[str, tuple[int, records.ErasureRequested]] = {}
    done: _Done = {}
    heard: dict[str, set[str]] = defaultdict(set)
    for index, leaf in log.each(records.ErasureRequested, *_ABOUT):
        if isinstance(leaf, records.ErasureRequested):
            asked.setdefault(leaf.request, (index, leaf))
        elif isinstance(leaf, _About) and leaf.request not in asked:
            text = "is about an erasure that nobody requested before"
            yield log.finding(FindingKind.ERASURE_UNREQUESTED, index, text)
        if isinstance(leaf, _Answered):
            done.setdefault((type(leaf), leaf.request, leaf.peer), index)
            heard[leaf.request].add(leaf.peer)
    for index, request in asked.values():
        owing = {log.party} | heard[request.request]
        if request.origin == log.party:
            parties = log.obeyed[index].parties
            owing |= {party.name for party in parties if party.role in DATA_ROLES}
        for peer in sorted(owing):
            yield from _kept(log, rules, index, request, peer, done)


def _kept(
    log: PartyLog,
    rules: Rules,
    index: int,
    request: records.ErasureRequested,
    peer: str,
    done: _Done,
) -> Iterator[Finding]:
    """Say what a party owes of one request."""
    ended = done.get((records.ErasureCompleted, request.request, peer))
    late = done.get((records.ErasureOverdue, request.request, peer))
    if ended is None and rules.now <= request.deadline:
        return
    if ended is None or log.records[ended].time > request.deadline:
        leaves = (*sorted(one for one in (late, ended) if one is not None), index)
        text = f"was not completed by {peer} before its deadline"
        yield log.finding(FindingKind.ERASURE_LATE, leaves, text)


def retrainings(log: PartyLog, rules: Rules) -> Iterator[Finding]:
    """A model that had to be trained again was retired, or deleted, soon after its day at last."""
    due: dict[str, tuple[int, records.ModelDue]] = {}
    ended: dict[str | None, int] = {}
    kinds = (records.ModelDue, records.ModelRetired, records.ArtefactDeleted)
    for index, leaf in log.each(*kinds):
        if isinstance(leaf, records.ModelDue):
            known = due.get(leaf.model_digest)
            if known is None or leaf.due < known[1].due:
                due[leaf.model_digest] = (index, leaf)
        elif isinstance(leaf, records.ModelRetired):
            ended.setdefault(leaf.model_digest, index)
        elif isinstance(leaf, records.ArtefactDeleted) and leaf.artefact == Artefact.MODEL:
            ended.setdefault(leaf.name, index)
    for digest, (index, one) in due.items():
        end = ended.get(digest, ended.get(one.job))
        late = rules.now if end is None else log.records[end].time
        if late > one.due + _GRACE:
            leaves = (index,) if end is None else tuple(sorted((index, end)))
            text = f"names {one.due:%Y-%m-%d}, and the model was not retired by then"
            yield log.finding(FindingKind.RETRAIN_OVERDUE, leaves, text)


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
        if log.entries and log.tree.root_hash(index).hex() != leaf.root_hash:
            text = "names another root than that of the entries before it"
            yield log.finding(FindingKind.PRUNED_OTHERWISE, index, text)
