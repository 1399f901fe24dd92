"""Whom a job goes without because the match that it builds on did.

Guarantees: a partner that was missing from a match is asked in no job that uses its members, and is
named as missing by what that job leaves; a job that may not do without it is refused.

Leaves to others: whom a job may do without (`roll_call`), asking the others (`coordinator`).
"""

import json
from collections.abc import Mapping, Sequence

from pydantic import TypeAdapter

from compliance.agreement import Agreement
from federation.party import PartyFolder, undamaged
from federation.roll_call import spare
from federation.specification import ExpandSpec, JobSpec, MeasureSpec, TrainSpec

__all__ = ["missing_from", "unmatched"]

_NAMES = TypeAdapter(tuple[str, ...])


def missing_from(folder: PartyFolder, job: str) -> frozenset[str]:
    """Return the partners that a job which has ended went without; nobody where it has not.

    Raises:
        WorkspaceError: what is kept of its end is damaged.
    """
    path = folder.ended(job)
    if not path.exists():
        return frozenset()
    with undamaged(path):
        return frozenset(_NAMES.validate_python(json.loads(path.read_bytes()).get("missing", ())))


def unmatched(
    folder: PartyFolder, agreement: Agreement, spec: JobSpec, listed: Sequence[JobSpec]
) -> frozenset[str]:
    """Return the partners that have no members of the match which a job builds on.

    Args:
        folder: the coordinator's.
        agreement: the contract.
        spec: the job.
        listed: all jobs.

    Raises:
        RefusedError: they are more than the job can do without.
    """
    match = _match_of(spec, {one.name: one for one in listed})
    missing = frozenset[str]() if match is None else missing_from(folder, match)
    if len(missing) > (most := spare(spec, agreement)):
        names = ", ".join(sorted(missing))
        raise folder.refusal(
            "absent_partners",
            f"match {match!r} went without {names}, and job {spec.name!r} can do without "
            f"{most} partners: match them under another name, or allow {len(missing)} to be absent",
        )
    return missing


def _match_of(spec: JobSpec, listed: Mapping[str, JobSpec]) -> str | None:
    """Return the match whose members a job uses."""
    match spec:
        case TrainSpec() | MeasureSpec():
            return spec.match
        case ExpandSpec():
            train = listed.get(spec.train)
            return None if train is None else _match_of(train, listed)
    return None
