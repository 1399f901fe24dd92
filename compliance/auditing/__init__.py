"""The auditor: all parties' logs held against the agreement, the rules, and each other.

Guarantees: `audit` says everything that its checks find, in plain sentences with leaf indexes, and
nothing about logs that hold; it does no I/O. `reading` does, and trusts no file. The two parts of
an audit may be made in different processes: each log alone, then excerpts of all together.

Leaves to others: which computations cost what (`rules`), printing (`federation.audit_commands`),
and whatever no log shows: what a party did and did not write down.
"""

from collections.abc import Sequence
from itertools import chain
from typing import Final

from compliance.auditing import duties, leaves, results, together
from compliance.auditing.excerpt import Excerpt
from compliance.auditing.finding import Finding, FindingKind
from compliance.auditing.party_log import PartyLog
from compliance.auditing.rules import Computation, Pricer, Rules, UnpriceableError

__all__ = [
    "Computation",
    "Excerpt",
    "Finding",
    "FindingKind",
    "PartyLog",
    "Pricer",
    "Rules",
    "UnpriceableError",
    "audit",
    "audit_alone",
    "audit_together",
]

_OF_ONE: Final = (
    leaves.opening,
    leaves.rotations,
    leaves.order,
    leaves.validity,
    leaves.refused_calls,
    leaves.decisions,
    leaves.routes,
    leaves.consent,
    leaves.cohorts,
    leaves.approvals,
    leaves.budget,
    results.models,
    results.measurements,
    results.segments,
    results.matches,
    results.jobs,
    results.code,
    duties.erasures,
    duties.retrainings,
    duties.holds,
    duties.prunings,
)

_OF_ALL: Final = (
    together.agreements,
    together.commitments,
    together.same_results,
    together.one_result,
    together.parts,
    together.told_jobs,
    together.acknowledgements,
    together.unpaid,
    together.completions,
)


def audit(logs: Sequence[PartyLog], rules: Rules) -> tuple[Finding, ...]:
    """Return what does not hold in logs whose files do; nothing where everything does."""
    alone = chain.from_iterable(audit_alone(log, rules) for log in logs)
    return (*alone, *audit_together([Excerpt.of(log) for log in logs]))


def audit_alone(log: PartyLog, rules: Rules) -> tuple[Finding, ...]:
    """Return what does not hold in one log, whatever others say."""
    return tuple(chain.from_iterable(check(log, rules) for check in _OF_ONE))


def audit_together(logs: Sequence[Excerpt]) -> tuple[Finding, ...]:
    """Return in what logs contradict each other."""
    return tuple(chain.from_iterable(check(logs) for check in _OF_ALL))
