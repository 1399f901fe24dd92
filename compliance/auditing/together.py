"""Checks of all logs together: one party's word against another's.

Each check takes the logs at hand; what a log that is missing would show, nobody finds.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Final

from compliance import records
from compliance.agreement import Agreement
from compliance.auditing.contract import chain, obeys
from compliance.auditing.excerpt import ACKNOWLEDGED, PARTS, Excerpt
from compliance.auditing.finding import Finding, FindingKind
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
    "same_models",
    "unpaid",
]

_MODEL: Final = records.ModelTrained
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


def same_models(logs: Sequence[Excerpt]) -> Iterator[Finding]:
    """A model of one digest has one privacy guarantee, whoever tells of it."""
    told: dict[str, tuple[Excerpt, records.ModelTrained]] = {}
    for log in logs:
        for index, leaf in log.each(records.ModelTrained):
            whose, first = told.setdefault(leaf.model_digest, (log, leaf))
            if (leaf.epsilon, leaf.delta, log.parties_of(leaf)) != (
                first.epsilon,
                first.delta,
                whose.parties_of(first),
            ):
                text = f"says other things of a model than the log of {whose.party} does"
                yield log.finding(FindingKind.MODELS_DIFFER, index, text)


def one_result(logs: Sequence[Excerpt]) -> Iterator[Finding]:
    """A training over rows, or a measurement, leaves one result, whoever tells of it.

    So that a coordinator which tells one party that somebody was missing, and another that nobody
    was, is found.
    """
    told: dict[tuple[str, str | None], tuple[Excerpt, str]] = {}
    for log, index, leaf in _results(logs):
        digest = leaf.model_digest if isinstance(leaf, _MODEL) else leaf.measurement_digest
        whose, first = told.setdefault((leaf.kind, leaf.job), (log, digest))
        if digest != first:
            text = f"is of another result of the job than the log of {whose.party} tells of"
            yield log.finding(FindingKind.RESULTS_DIFFER, index, text)


def parts(logs: Sequence[Excerpt]) -> Iterator[Finding]:
    """Whoever is named for a result gave its part: of a model one a round, of a measurement one.

    So that a partial result, of which the coordinator tells as if it were whole, is found.
    """
    given: dict[tuple[str, str | None], set[str]] = defaultdict(set)
    bringing = {
        one.name for log in logs for each in log.versions for one in each.by_role(Role.PARTNER)
    }
    asked = {log.party for log in logs} & bringing  # who brings nothing is found otherwise
    for log in logs:
        for _, release in log.each(records.Release):
            if release.computation in PARTS:
                given[log.party, release.job].add(release.release_id)
    for log, index, leaf in _results(logs):
        needed = leaf.rounds if isinstance(leaf, _MODEL) else 1
        for party in sorted(log.parties_of(leaf)):
            if party in asked and len(given[party, leaf.job]) < needed:
                text = f"names {party}, whose log, if it is no older copy, tells of no such part"
                yield log.finding(FindingKind.PART_NOT_GIVEN, index, text)


def _results(
    logs: Sequence[Excerpt],
) -> Iterator[tuple[Excerpt, int, records.ModelTrained | records.MeasurementMade]]:
    """Yield results that all are told of alike; of models over columns each party has a part.

    Those name the brand in every log: whoever alone names it passes nothing by.
    """
    brands = {one.name for log in logs for each in log.versions for one in each.by_role(Role.BRAND)}
    told = [
        (log, index, leaf, brands.isdisjoint(log.parties_of(leaf)))
        for log in logs
        for index, leaf in log.each(records.ModelTrained, records.MeasurementMade)
    ]
    over_rows = {leaf.job for _, _, leaf, without_brand in told if without_brand}
    for log, index, leaf, _ in told:
        if leaf.job in over_rows:
            yield log, index, leaf


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
