"""A party's policies: the routes that the agreement permits, and the party's own file.

Guarantees: what a policy is asked is read from the agreement, the job as this party knows it and
the code that runs, never from what the coordinator says of them; every kind of body has a flow,
and nothing else has; a file that cannot be read as prohibitions stops the party, and never stands
for none.

Leaves to others: what a policy is and how it decides (`compliance.policy`), asking it (`gate`).
"""

import os
from collections.abc import Iterable
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Final

from pydantic import TypeAdapter

from compliance.agreement import Agreement
from compliance.errors import PolicyError
from compliance.policy import ANALYST, ANALYST_ROLE, EVERYONE, Flow, Policy, Question
from compliance.policy_words import UnknownWord, unknown_words
from compliance.terms import DATA_ROLES, Classification, Computation, Role
from federation.approvals import approvals_of
from federation.code import running_code
from federation.party import PartyFolder
from federation.routes import ROUTES
from federation.specification import JobSpec

__all__ = [
    "VIEW",
    "classification",
    "known_job",
    "policy_of",
    "question",
    "strange_words",
    "view_question",
]

VIEW: Final = "view.counts"
"""What a party's own analyst asks for: counts of its people, which nobody sends."""

_SPEC: Final[TypeAdapter[JobSpec]] = TypeAdapter(JobSpec)

_FLOWS: Final = (
    *(
        Flow(kind, route.sender, route.recipient, route.concerns_people)
        for kind, route in ROUTES.items()
    ),
    Flow(VIEW, frozenset({ANALYST_ROLE}), DATA_ROLES, concerns_people=True),
)


def policy_of(folder: PartyFolder, agreement: Agreement) -> Policy:
    """Return the policies of a party, as its file stands now.

    Raises:
        PolicyError: the file cannot be read, or is not what it must be.
    """
    file = folder.policy
    try:
        return _compiled(agreement, _own_text(file))
    except (OSError, UnicodeDecodeError) as error:
        raise PolicyError(f"{file}: cannot be read: {type(error).__name__}") from error
    except PolicyError as error:
        raise PolicyError(f"{file}: {error}") from error


@lru_cache(maxsize=16)
def _compiled(agreement: Agreement, own: str) -> Policy:
    """Return what the same terms and the same text always are; the file is read before."""
    return Policy(agreement, _FLOWS, own)


def strange_words(folder: PartyFolder, agreement: Agreement) -> tuple[UnknownWord, ...]:
    """Return what the party's own clauses ask for though nothing is called so.

    Raises:
        PolicyError: the file cannot be read, or is not what it must be.
    """
    policy_of(folder, agreement)
    names = (*(party.name for party in agreement.parties), EVERYONE, ANALYST)
    known = {
        "scenario": tuple(dict.fromkeys(flow.scenario for flow in _FLOWS)),
        "computation": tuple(one.value for one in Computation),
        "purpose": agreement.purposes,
        "role": (*(role.value for role in Role), EVERYONE, ANALYST_ROLE),
        "name": names,
        "party": names,
        "country": tuple(dict.fromkeys(one.country for one in agreement.regions)),
    }
    return unknown_words(_own_text(folder.policy), known)


def _own_text(file: Path) -> str:
    if not os.path.lexists(file):  # a link to nowhere is there
        return ""
    text = file.read_text(encoding="utf-8")
    if not text.strip():
        raise PolicyError("is empty: write a clause, or take the file away")
    return text


def known_job(folder: PartyFolder, job: str) -> JobSpec | None:
    """Return a job as this party answered it first; None where it has not, or it is none."""
    file = folder.job(job) / "specification.json"
    return _SPEC.validate_json(file.read_bytes()) if file.exists() else None


def question(  # noqa: PLR0913 -- what is asked has that many sides
    folder: PartyFolder,
    agreement: Agreement,
    *,
    kind: str,
    recipient: str,
    job: str,
    spec: JobSpec | None,
    purpose: str | None,
    charged: bool,
    payload_bytes: int,
    time: datetime,
) -> Question:
    """Ask whether a party may say something.

    Args:
        folder: the party's.
        agreement: under which it would.
        kind: of what it would say.
        recipient: to whom.
        job: name of the job.
        spec: the job, where it is one that this party knows.
        purpose: what the people in it were used for; None if it is made from nobody.
        charged: whether it costs privacy budget.
        payload_bytes: length of its payload.
        time: now.

    Raises:
        ApprovalError: an approval that lies here is damaged.
    """
    approvals = () if spec is None else approvals_of(folder, agreement, spec)
    terms = agreement.approval
    people = [] if terms is None else [terms.approver(one.approver) for one in approvals]
    return Question(
        sender=folder.name,
        action=kind,
        recipient=recipient,
        job=job,
        purpose=purpose,
        charged=charged,
        payload_bytes=payload_bytes,
        time=time,
        computation=None if spec is None else Computation(spec.kind),
        classification=None if purpose is None else classification(agreement, kind, folder.name),
        approving=tuple(one.party for one in people if one is not None),
        code=running_code().digest,
    )


def view_question(
    folder: PartyFolder, agreement: Agreement, columns: Iterable[str], *, time: datetime
) -> Question:
    """Ask whether a party's own analyst may see its people counted by some agreed features."""
    features = {column.name: column.classification for column in agreement.features}
    return Question(
        sender=ANALYST,
        action=VIEW,
        recipient=folder.name,
        job="view",
        purpose=None if agreement.measure is None else agreement.measure.purpose,
        charged=False,
        payload_bytes=0,
        time=time,
        computation=Computation.MEASURE,
        classification=_of_people(features[name] for name in columns),
        code=running_code().digest,
    )


def classification(agreement: Agreement, kind: str, party: str) -> Classification:
    """Return the highest classification of the columns that a kind of message is made from.

    What is made from identifiers alone counts as personal.
    """
    features = {column.name: column.classification for column in agreement.features}
    found: Iterable[Classification]
    match kind.split(".", maxsplit=1)[0]:
        case "train" | "sum" | "expand":
            found = features.values()
        case "assist":
            columns = agreement.vertical.columns if agreement.vertical is not None else ()
            found = (one.classification for one in columns if one.party == party)
        case "measure":
            counted = agreement.measure.columns if agreement.measure is not None else ()
            found = (features[one.name] for one in counted)
        case _:
            found = ()
    return _of_people(found)


def _of_people(found: Iterable[Classification]) -> Classification:
    order = list(Classification)
    # What is made from people tells at least that they are in the party's data.
    return order[max(map(order.index, (Classification.PERSONAL, *found)))]
