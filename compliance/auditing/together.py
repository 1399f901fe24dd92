"""Checks of all logs together: one party's word against another's.

Each check takes the logs at hand; what a log that is missing would show, nobody finds.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Final

from compliance import records
from compliance.agreement import Agreement
from compliance.auditing.contract import chain, obeys
from compliance.auditing.excerpt import ACKNOWLEDGED, PARTS, PUBLISHED, Excerpt, is_in_job
from compliance.auditing.finding import Finding, FindingKind
from compliance.auditing.results import is_to_leave
from compliance.auditing.trust import every_party
from compliance.terms import Role

__all__ = [
    "acknowledgements",
    "agreements",
    "commitments",
    "completions",
    "one_contract",
    "one_result",
    "parts",
    "same_results",
    "told_jobs",
    "unpaid",
]

_MODEL: Final = records.ModelTrained
_RESULTS: Final = (records.ModelTrained, records.MeasurementMade)
_CHARGING: Final[tuple[type[records.Record], ...]] = (
    records.Release,
    records.BudgetRefunded,
    records.BudgetCommitted,
)


def agreements(logs: Sequence[Excerpt]) -> Iterator[Finding]:
    """All hold one contract."""
    yield from one_contract([(log.party, log.versions) for log in logs])


def one_contract(held: Sequence[tuple[str, Sequence[Agreement]]]) -> Iterator[Finding]:
    """Say of whom the last version is not the last one at hand that names it.

    Args:
        held: parties, and the versions that each holds, to the last that names it.
    """
    if not held:
        return
    whose, theirs = max(held, key=lambda one: one[1][-1].number)  # the first of several
    versions = chain(theirs[-1], (one for _, each in held for one in each))
    for party, own in held:
        if not obeys(party, own[-1], versions):
            text = f"{party} holds another contract than {whose}"
            yield Finding(FindingKind.AGREEMENT_DIFFERS, party, (), text)


def commitments(logs: Sequence[Excerpt]) -> Iterator[Finding]:
    """Two parties bound one match to the same two sets; said of the second of them."""
    bound = {
        (log.party, leaf.peer, leaf.job): (index, leaf, log)
        for log in logs
        for index, leaf in log.each(records.MatchBound)
    }
    for (party, peer, job), (_, leaf, log) in bound.items():
        other = bound.get((peer, party, job))
        if other is None or party > peer:
            continue
        index, said, theirs = other
        if (said.own_commitment, said.peer_commitment) != (
            leaf.peer_commitment,
            leaf.own_commitment,
        ):
            text = f"binds the match to other sets than the log of {log.party} does"
            yield theirs.finding(FindingKind.MATCH_DIFFERS, index, text)


def same_results(logs: Sequence[Excerpt]) -> Iterator[Finding]:
    """A model, or a measurement, of one digest was made in one way, whoever tells of it."""
    told: dict[tuple[str, str], tuple[str, tuple[object, ...]]] = {}
    for log in logs:
        for index, leaf in log.each(*_RESULTS):
            rounds = leaf.rounds if isinstance(leaf, _MODEL) else None
            said = (leaf.epsilon, leaf.delta, log.parties_of(leaf), log.missing_of(leaf), rounds)
            whose, first = told.setdefault((leaf.kind, _digest(leaf)), (log.party, said))
            if said != first:
                text = f"says other things of that result than the log of {whose} does"
                counts = isinstance(leaf, records.MeasurementMade)
                kind = FindingKind.RESULTS_DIFFER if counts else FindingKind.MODELS_DIFFER
                yield log.finding(kind, index, text)


def one_result(logs: Sequence[Excerpt]) -> Iterator[Finding]:
    """A training over rows, or a measurement, leaves one result, whoever tells of it.

    So that a coordinator which tells one party that somebody was missing, and another that nobody
    was, is found.
    """
    told: dict[tuple[str, str | None], tuple[Excerpt, str]] = {}
    for log, index, leaf, is_over_rows in _results(logs):
        if not is_over_rows:
            continue
        digest = _digest(leaf)
        whose, first = told.setdefault((leaf.kind, leaf.job), (log, digest))
        if digest != first:
            text = f"is of another result of the job than the log of {whose.party} tells of"
            yield log.finding(FindingKind.RESULTS_DIFFER, index, text)


def parts(logs: Sequence[Excerpt]) -> Iterator[Finding]:
    """Whoever is named for a result gave its part: of a model one a round, of a measurement one.

    So that a partial result, of which the coordinator tells as if it were whole, is found. Of a
    model over columns it is enough to have said something in its job.
    """
    given: dict[tuple[str, str | None], set[str]] = defaultdict(set)
    said: set[tuple[str, str | None]] = set()
    bringing = {
        one.name for log in logs for each in log.versions for one in each.by_role(Role.PARTNER)
    }
    at_hand = {log.party for log in logs}
    for log in logs:
        for _, release in log.each(records.Release):
            if release.computation in PARTS:
                given[log.party, release.job].add(release.release_id)
            if is_in_job(release):
                said.add((log.party, release.job))
    for log, index, leaf, is_over_rows in _results(logs):
        asked = at_hand & log.parties_of(leaf)
        needed = leaf.rounds if isinstance(leaf, _MODEL) else 1
        if is_over_rows:  # who brings nothing is found otherwise
            lacking = {one for one in asked & bringing if len(given[one, leaf.job]) < needed}
        else:
            lacking = {one for one in asked if (one, leaf.job) not in said}
        for party in sorted(lacking):
            text = f"names {party}, whose log, if it is no older copy, tells of no such part"
            yield log.finding(FindingKind.PART_NOT_GIVEN, index, text)


def told_jobs(logs: Sequence[Excerpt]) -> Iterator[Finding]:
    """The coordinator's log tells of each job that others took part in, and of what it left them.

    Said once of a job. What it left is not asked for while the job may be under way, nor where the
    coordinator's log alone says that something is missing; nor of a job that failed after that log
    tells that a result was sent: whoever was to get it refused it, or the answer was lost.
    """
    told = {log.party: _told_in(log) for log in logs}
    left = {(log.party, index) for log, index, _, is_over_rows in _results(logs) if is_over_rows}
    said: set[tuple[str, str | None]] = set()
    for log in logs:
        for index, leaf in log.each(records.Release, *_RESULTS):
            is_left = (log.party, index) in left
            if not is_left and not is_in_job(leaf):
                continue
            whose = log.coordinator_of(leaf)
            if whose == log.party or whose not in told or (whose, leaf.job) in said:
                continue
            known, what = told[whose], (leaf.kind, leaf.job)
            if ("job.started", leaf.job) not in known:
                kind = FindingKind.JOB_NOT_TOLD
                text = f"is of a job of which the log of {whose}, if no older copy, tells nothing"
            elif is_left and ("job.ended", leaf.job) in known and what not in known:
                kind = FindingKind.RESULT_NOT_TOLD
                text = f"is of a job that left nothing by the log of {whose}"
            else:
                continue
            said.add((whose, leaf.job))
            yield log.finding(kind, index, text)


def _told_in(log: Excerpt) -> set[tuple[str, str | None]]:
    """Return kinds of leaves and their jobs: which began, ended without a result, and left one."""
    told: set[tuple[str, str | None]] = set()
    sent: set[str | None] = set()
    for _, leaf in log.each(records.JobStarted, records.JobEnded, records.Release, *_RESULTS):
        if isinstance(leaf, records.Release):
            sent |= {leaf.job} if leaf.computation in PUBLISHED else set()
            continue
        if isinstance(leaf, records.JobStarted):
            told.discard(("job.ended", leaf.job))
        has_left = isinstance(leaf, records.JobEnded) and (
            is_to_leave(leaf) or (leaf.outcome != "done" and leaf.job in sent)
        )
        if not has_left:
            told.add((leaf.kind, leaf.job))
    return told


def _digest(leaf: records.ModelTrained | records.MeasurementMade) -> str:
    return leaf.model_digest if isinstance(leaf, _MODEL) else leaf.measurement_digest


def _results(
    logs: Sequence[Excerpt],
) -> Iterator[tuple[Excerpt, int, records.ModelTrained | records.MeasurementMade, bool]]:
    """Yield results, and whether they are over rows: so that all are told of alike.

    Of models over columns each party has a part of its own. They name the brand in every log, and
    nobody gives a part over rows: whoever alone names it passes nothing by.
    """
    brands = {one.name for log in logs for each in log.versions for one in each.by_role(Role.BRAND)}
    told = [(log, index, leaf) for log in logs for index, leaf in log.each(*_RESULTS)]
    over_rows = {leaf.job for log, _, leaf in told if brands.isdisjoint(log.parties_of(leaf))}
    for log in logs:
        parts_of = (leaf for _, leaf in log.each(records.Release) if leaf.computation in PARTS)
        over_rows.update(leaf.job for leaf in parts_of)
    for log, index, leaf in told:
        yield log, index, leaf, leaf.job in over_rows


def acknowledgements(logs: Sequence[Excerpt]) -> Iterator[Finding]:
    """What a party acknowledges, some party says it sent; asked where all but auditors are here.

    All are those of every version, whoever left since.
    """
    versions = {one.digest: one for log in logs for one in log.versions}.values()
    needed = {party.name for party in every_party(versions) if party.role != "auditor"}
    if not needed <= {log.party for log in logs}:
        return
    sent = frozenset[str]().union(*(log.sent for log in logs))
    for log in logs:
        for index, leaf in log.each(records.Release):
            if leaf.computation == ACKNOWLEDGED:
                digest = leaf.release_id.rpartition("/")[2]
                if len(digest) == 16 and digest not in sent:
                    text = "acknowledges a message that no log says was sent"
                    yield log.finding(FindingKind.NOT_SENT, index, text)


def completions(logs: Sequence[Excerpt]) -> Iterator[Finding]:
    """What a party says another signed about an erasure is what that one's log says it signed.

    Whoever is asked anew does it anew: it may have signed several.
    """
    signed: dict[tuple[str, str], set[str]] = defaultdict(set)
    for log in logs:
        for _, leaf in log.each(records.ErasureCompleted):
            if leaf.peer == log.party:
                signed[leaf.request, leaf.peer].add(leaf.completion_digest)
    for log in logs:
        for index, leaf in log.each(records.ErasureCompleted):
            theirs = signed.get((leaf.request, leaf.peer))
            if theirs is not None and leaf.completion_digest not in theirs:
                text = f"names another completion than the log of {leaf.peer} does"
                yield log.finding(FindingKind.ERASURE_DIFFERS, index, text)


def unpaid(logs: Sequence[Excerpt]) -> Iterator[Finding]:
    """Nobody took back a charge for what is in a model or in counts."""
    used = {
        (party, leaf.job)
        for log in logs
        for _, leaf in log.each(records.ModelTrained, records.MeasurementMade)
        if leaf.epsilon is not None
        for party in log.parties_of(leaf)
    }
    for log in logs:
        released: set[str] = set()
        taken: dict[str, int] = {}
        jobs: dict[int, str | None] = {}
        for index, leaf in log.each(*_CHARGING):
            if isinstance(leaf, records.Release) and leaf.charge_id is not None:
                released.add(leaf.charge_id)
            elif isinstance(leaf, records.BudgetRefunded) and leaf.charge_id in released:
                taken[leaf.charge_id] = index
                jobs[index] = leaf.job
            elif isinstance(leaf, records.BudgetCommitted):
                taken.pop(leaf.charge_id, None)
        for index in taken.values():
            if (log.party, jobs[index]) in used:
                text = "takes back a charge for what went into the job's result"
                yield log.finding(FindingKind.REFUNDED_THOUGH_USED, index, text)
