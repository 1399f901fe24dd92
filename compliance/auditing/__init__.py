"""The auditor: all parties' logs held against the agreement, the rules, and each other.

Guarantees: `audit` says everything that its checks find, in plain sentences with leaf indexes, and
nothing about logs that hold; it does no I/O. `reading` does, and trusts no file.

Leaves to others: which computations cost what (`rules`), printing (`federation.audit_commands`),
and whatever no log shows: what a party did and did not write down.
"""

from collections.abc import Sequence
from itertools import chain
from typing import Final

from compliance.auditing import duties, leaves, results, together
from compliance.auditing.finding import Finding, FindingKind
from compliance.auditing.party_log import PartyLog
from compliance.auditing.rules import Computation, Pricer, Rules, UnpriceableError

__all__ = [
    "Computation",
    "Finding",
    "FindingKind",
    "PartyLog",
    "Pricer",
    "Rules",
    "UnpriceableError",
    "audit",
]

_OF_ONE: Final = (
    leaves.opening,
    leaves.rotations,
    leaves.order,
    leaves.validity,
    leaves.decisions,
    leaves.routes,
    leaves.consent,
    leaves.cohorts,
    leaves.approvals,
    leaves.budget,
    results.models,
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
    together.same_models,
    together.acknowledgements,
    together.unpaid,
    together.completions,
)


def audit(logs: Sequence[PartyLog], rules: Rules) -> tuple[Finding, ...]:
    """Return what does not hold in logs whose files do; nothing where everything does."""
    alone = (check(log, rules) for log in logs for check in _OF_ONE)
    return tuple(chain(chain.from_iterable(alone), *(check(logs) for check in _OF_ALL)))
