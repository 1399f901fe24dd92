"""Checks of one log: what was made, how often people were matched, whether jobs ended.

Leaves to others: what a model's ε is made of (`budget` replays what paid for it).
"""

from bisect import bisect_right, insort
from collections import defaultdict
from collections.abc import Iterator
from datetime import datetime, timedelta
from operator import itemgetter
from typing import Final

from compliance import records
from compliance.auditing.finding import Finding, FindingKind
from compliance.auditing.party_log import PartyLog
from compliance.auditing.rules import Rules
from compliance.naming import named
from compliance.terms import DATA_ROLES, NoiseSource, Role

__all__ = ["code", "is_to_leave", "jobs", "matches", "measurements", "models", "segments"]

_LEFT: Final = {"train": records.ModelTrained, "measure": records.MeasurementMade}
"""What a job leaves at whoever runs it, by its kind."""


def models(log: PartyLog, rules: Rules) -> Iterator[Finding]:
    """Models are of the parties' people, within the terms, and not used after they were retired."""
    retired: dict[str, int] = {}
    for index, leaf, agreement, _ in log.walk(rules, records.ModelRetired, records.ModelTrained):
        if isinstance(leaf, records.ModelRetired):
            retired.setdefault(leaf.model_digest, index)
            continue
        terms, vertical = agreement.train, agreement.vertical
        bringing = {party.name for party in agreement.parties if party.role in DATA_ROLES}
        most = max(terms.epsilon, (vertical and vertical.label_epsilon) or 0.0)
        exact = NoiseSource.UNSAFE_NONE in terms.noise or (vertical and vertical.unsafe_labels)
        if strangers := sorted(set(named(leaf.parties, agreement)) - bringing):
            text = f"was trained on rows of {', '.join(strangers)}, who brings no data"
            yield log.finding(FindingKind.MODEL_OF_STRANGER, index, text)
        if leaf.epsilon is None and not exact:
            text = "states no epsilon, and the agreement allows no training without noise"
            yield log.finding(FindingKind.MODEL_UNPROTECTED, index, text)
        if leaf.epsilon is not None and leaf.epsilon > most:
            text = f"states epsilon {leaf.epsilon:g}, and a job may ask for {most:g} at most"
            yield log.finding(FindingKind.MODEL_OVER_TERMS, index, text)
        likeliest = max(terms.delta, agreement.budget.delta if vertical else 0.0)
        if leaf.delta is not None and leaf.delta > likeliest:
            text = f"states delta {leaf.delta:g}, and a job may ask for {likeliest:g} at most"
            yield log.finding(FindingKind.MODEL_OVER_TERMS, index, text)
        if (before := retired.get(leaf.model_digest)) is not None:
            text = "takes up a model that was retired"
            yield log.finding(FindingKind.MODEL_RETIRED, (before, index), text)


def measurements(log: PartyLog, rules: Rules) -> Iterator[Finding]:
    """Counts are of partners' people, and within the terms."""
    for index, leaf, agreement, _ in log.walk(rules, records.MeasurementMade):
        terms = agreement.measure
        counted = {party.name for party in agreement.by_role(Role.PARTNER)}
        if strangers := sorted(set(named(leaf.parties, agreement)) - counted):
            text = f"counts people of {', '.join(strangers)}, who is no partner"
            yield log.finding(FindingKind.MEASUREMENT_OF_STRANGER, index, text)
        if terms is None:
            text = "tells of counts, and the agreement allows none"
            yield log.finding(FindingKind.OVER_MEASURED, index, text)
            continue
        for name, said, most in (
            ("epsilon", leaf.epsilon, terms.epsilon),
            ("delta", leaf.delta or 0.0, terms.delta or 0.0),
        ):
            if said > most:
                text = f"states {name} {said:g}, and a job may ask for {most:g} at most"
                yield log.finding(FindingKind.OVER_MEASURED, index, text)


def segments(log: PartyLog, rules: Rules) -> Iterator[Finding]:
    """A partner's segment has at most the agreed share, and enough people."""
    for index, leaf, agreement, _ in log.walk(rules, records.SegmentWritten):
        roles = {party.name: party.role for party in agreement.parties}
        if roles.get(log.party) is Role.BRAND:  # a version may leave the party out
            continue  # scores over columns, of everybody who is aligned
        terms = agreement.expand
        if leaf.rows < terms.minimum_segment:
            text = f"has {leaf.rows} people, and at least {terms.minimum_segment} are agreed"
            yield log.finding(FindingKind.SEGMENT_TOO_SMALL, index, text)
        if leaf.share is not None and leaf.share > terms.maximum_share:
            text = f"has a share of {leaf.share:g}, and at most {terms.maximum_share:g} is agreed"
            yield log.finding(FindingKind.SEGMENT_OVER_SHARE, index, text)


def matches(log: PartyLog, rules: Rules) -> Iterator[Finding]:
    """No two parties match more often than agreed; a job counts once."""
    counted: set[tuple[str, str | None]] = set()
    begun: dict[str, list[tuple[datetime, int]]] = defaultdict(list)
    for index, leaf, agreement, _ in log.walk(rules, records.MatchBound):
        if (leaf.peer, leaf.job) in counted:
            continue
        counted.add((leaf.peer, leaf.job))
        terms = agreement.match
        period = timedelta(days=terms.period_days)
        insort(begun[leaf.peer], (leaf.time, index))
        first = bisect_right(begun[leaf.peer], leaf.time - period, key=itemgetter(0))
        recent = sorted(at for _, at in begun[leaf.peer][first:])
        if len(recent) > terms.maximum_matches:
            text = (
                f"is match {len(recent)} with {leaf.peer} in {terms.period_days} days, and "
                f"{terms.maximum_matches} are agreed"
            )
            yield log.finding(FindingKind.TOO_MANY_MATCHES, tuple(recent), text)


def jobs(log: PartyLog, rules: Rules) -> Iterator[Finding]:
    """A job that ended was started, and one that started ended, or was started again.

    One that is done left what it was for.
    """
    del rules
    started: dict[str | None, int] = {}
    left: set[tuple[type[records.Record], str | None]] = set()
    kinds = (records.JobStarted, records.JobEnded, records.ModelTrained, records.MeasurementMade)
    for index, leaf in log.each(*kinds):
        if isinstance(leaf, records.JobStarted):
            for job, before in list(started.items()):
                if job != leaf.job:
                    text = f"starts a job that never ended, though leaf {index} starts another"
                    yield log.finding(FindingKind.JOB_NEVER_ENDED, before, text)
                    del started[job]
            started[leaf.job] = index
        elif not isinstance(leaf, records.JobEnded):
            left.add((type(leaf), leaf.job))
        elif started.pop(leaf.job, None) is None:
            yield log.finding(FindingKind.JOB_NOT_STARTED, index, "ends a job that was not started")
        elif is_to_leave(leaf) and (_LEFT[leaf.computation], leaf.job) not in left:
            text = "ends a job as done, and nothing tells of its result"
            yield log.finding(FindingKind.RESULT_NOT_TOLD, index, text)


def is_to_leave(leaf: records.JobEnded) -> bool:
    """Tell whether a job that ended so has left a model, or counts, at whoever ran it."""
    return leaf.outcome == "done" and leaf.computation in _LEFT


def code(log: PartyLog, rules: Rules) -> Iterator[Finding]:
    """Code that runs is allowed, where it is said which is."""
    for index, leaf, _, held in log.walk(rules, records.CodeReleased):
        if held.allowed_code and leaf.code_digest not in held.allowed_code:
            text = "runs code whose digest is not among those allowed"
            yield log.finding(FindingKind.CODE_NOT_ALLOWED, index, text)
