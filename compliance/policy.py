"""What may leave, as Cedar policies: the agreement's permits, and a party's own prohibitions.

Guarantees: nothing is allowed that no permit of the agreement covers (role, purpose and scenario
together); a party's own file can only forbid, is checked against a schema before it is used, and
one clause that cannot be evaluated forbids. A decision names the clauses that made it, and the
digests of the policies and of the question, so that it can be made again.

Leaves to others: which flows a computation needs (`federation.routes`), consent, minimum sizes and
budget (the gate), and writing decisions down.

Policies are written in Cedar (cedarpolicy.com), and decided by `cedarpy`. Every clause of a party's
own file bears a name, `@id("…")`, and may bear a remedy, `@remedy("…")`:

```
@id("office-hours")
@remedy("ask between 8 and 18 h UTC")
forbid (principal, action, resource) when { context.hour < 8 || context.hour >= 18 };
```
"""

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from compliance.agreement import Agreement
from compliance.canonical import canonical_json
from compliance.errors import PolicyError
from compliance.terms import Classification, Computation, Role

if TYPE_CHECKING:
    import cedarpy

__all__ = [
    "AGREED",
    "ANALYST",
    "ANALYST_ROLE",
    "EVERYONE",
    "SCHEMA",
    "Decision",
    "Flow",
    "Policy",
    "Question",
    "lacking",
]

EVERYONE: Final = "everyone"
"""The recipient, and its role, of what is said to all parties at once."""

ANALYST: Final = "own analyst"
"""Whoever looks at a party's people there, in counts; no party can be called so."""

ANALYST_ROLE: Final = "analyst"
"""The role of a party's own analyst, which no party of an agreement has."""

AGREED: Final = "agreed:"
"""How the names of the agreement's own clauses begin."""

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_LONGEST: Final = 1 << 16

SCHEMA: Final = """\
entity Party = { name: String, role: String, country?: String };
action {actions} appliesTo {
  principal: Party,
  resource: Party,
  context: {
    job: String,
    scenario: String,
    purpose?: String,
    charged: Bool,
    bytes: Long,
    time: Long,
    hour: Long,
    weekday: Long,
    computation?: String,
    classification?: Long,
    approvals: Long,
    approving_parties: Long,
    code: String,
  },
};
"""
"""What a clause can speak of, `{actions}` standing for every kind of message.

`principal` says it to `resource`. `scenario` is what the message belongs to (`match`, `train`, …),
`purpose` what the people in it were used for (absent where it is made from nobody), `charged`
whether it costs privacy budget, `bytes` its payload's length, `time` seconds since 1970, `hour` 0
to 23 and `weekday` 1 (Monday) to 7, in UTC. `computation` is the kind of job that it is said in
(`match`, `train-vertical`, …; absent where it is said in none), `classification` that of the most
harmful columns in it (0 public, 1 internal, 2 personal, 3 sensitive; absent where it is made from
nobody), `approvals` how many people approved the job, `approving_parties` of how many parties,
`code` the digest of the code that `principal` runs. A party has a `country` where regions are
agreed.

Of a view, which nobody sends, `principal` is the party's own analyst, and `resource` the party.
"""


@dataclass(frozen=True)
class Flow:
    """A kind of message, and who may say it to whom.

    Attributes:
        action: the kind, `train.update` for example; the part before the dot is the scenario.
        senders: roles that may say it; of a view, who may look.
        recipients: roles to which it may be said; of a view, whose people may be looked at.
        concerns_people: whether it is made from people, and so needs a purpose.
    """

    action: str
    senders: frozenset[Role] | frozenset[str]
    recipients: frozenset[Role]
    concerns_people: bool

    @property
    def scenario(self) -> str:
        """What the message belongs to."""
        return self.action.split(".")[0]


@dataclass(frozen=True)
class Question:
    """May this leave?

    Attributes:
        sender: who says it.
        action: the kind of message.
        recipient: to whom.
        job: in which job.
        purpose: what the people in it were used for; None if it is made from nobody.
        charged: whether it costs privacy budget.
        payload_bytes: length of its payload.
        time: now, with a time zone.
        computation: kind of the job; None where it is said in none.
        classification: of the most harmful columns in it; None if it is made from nobody.
        approving: party of each person who approved the job.
        code: digest of the code that the sender runs.
    """

    sender: str
    action: str
    recipient: str
    job: str
    purpose: str | None
    charged: bool
    payload_bytes: int
    time: datetime
    computation: Computation | None = None
    classification: Classification | None = None
    approving: tuple[str, ...] = ()
    code: str = ""

    @property
    def digest(self) -> str:
        """SHA-256 of the question as canonical JSON (RFC 8785), in hex."""
        return _digest(self._request())

    def _request(self) -> dict[str, Any]:
        moment = self.time.astimezone(UTC)
        context: dict[str, Any] = {
            "job": self.job,
            "scenario": self.action.split(".", maxsplit=1)[0],
            "charged": self.charged,
            "bytes": self.payload_bytes,
            "time": int(moment.timestamp()),
            "hour": moment.hour,
            "weekday": moment.isoweekday(),
            "approvals": len(self.approving),
            "approving_parties": len(set(self.approving)),
            "code": self.code,
        }
        if self.computation is not None:
            context["computation"] = self.computation.value
        if self.classification is not None:
            context["classification"] = list(Classification).index(self.classification)
        if self.purpose is not None:
            context["purpose"] = self.purpose
        return {
            "principal": {"type": "Party", "id": self.sender},
            "action": {"type": "Action", "id": self.action},
            "resource": {"type": "Party", "id": self.recipient},
            "context": context,
        }


@dataclass(frozen=True)
class Decision:
    """What the policies say to a question.

    Attributes:
        allowed: whether it may leave.
        clauses: names of the clauses that decided; none where no permit covers the question.
        remedy: what would pass, where the deciding clause says so.
        policy_digest: SHA-256 of all policies, in hex.
        question_digest: of the question, likewise.
    """

    allowed: bool
    clauses: tuple[str, ...]
    remedy: str | None
    policy_digest: str
    question_digest: str


@dataclass(frozen=True)
class _Clause:
    name: str
    remedy: str | None


class Policy:
    """The policies of one party under one agreement.

    Attributes:
        text: all of them, in Cedar.
        digest: SHA-256 of the text, in hex.
    """

    def __init__(self, agreement: Agreement, flows: Iterable[Flow], own: str = "") -> None:
        """Put the agreement's permits and a party's own clauses together.

        Raises:
            PolicyError: the party's own text is malformed, permits anything, speaks of what no
                message has, or leaves a clause without a name of its own.
        """
        import cedarpy

        flows = tuple(flows)
        agreed = "\n".join([*_permits(agreement, flows), *_prohibitions(agreement)])
        schema = SCHEMA.replace("{actions}", ", ".join(json.dumps(flow.action) for flow in flows))
        _check_own(own, schema)
        self.text = f"{agreed}\n{own}"
        self.digest = hashlib.sha256(self.text.encode()).hexdigest()
        self._compiled, self._clauses = _compile(self.text)
        roles = {party.name: party.role.value for party in agreement.parties}
        countries = {one.party: {"country": one.country} for one in agreement.regions}
        parties = [
            {
                "uid": {"type": "Party", "id": name},
                "attrs": {"name": name, "role": role, **countries.get(name, {})},
                "parents": [],
            }
            for name, role in (*roles.items(), (EVERYONE, EVERYONE), (ANALYST, ANALYST_ROLE))
        ]
        self._entities = cedarpy.Entities.from_json_str(json.dumps(parties))

    def decide(self, question: Question) -> Decision:
        """Decide one question."""
        return self.decide_all([question])[0]

    def decide_all(self, questions: Sequence[Question]) -> tuple[Decision, ...]:
        """Decide many questions at once, in their order."""
        import cedarpy

        requests = [question._request() for question in questions]  # noqa: SLF001
        results = cedarpy.is_authorized_batch(requests, self._compiled, self._entities)
        return tuple(map(self._decision, map(_digest, requests), results))

    def _decision(self, question_digest: str, result: "cedarpy.AuthzResult") -> Decision:
        # Cedar skips a clause that it cannot evaluate; here it forbids.
        broken = bool(result.diagnostics.errors)
        found = [self._clauses[reason] for reason in sorted(result.diagnostics.reasons)]
        remedies = [clause.remedy for clause in found if clause.remedy is not None]
        return Decision(
            allowed=result.allowed and not broken,
            clauses=("clause-that-cannot-be-evaluated",)
            if broken
            else tuple(clause.name for clause in found),
            remedy=remedies[0] if remedies else None,
            policy_digest=self.digest,
            question_digest=question_digest,
        )


def lacking(agreement: Agreement, action: str) -> str | None:
    """Return the table of the agreement that an action takes and that is not in it, if any."""
    scenario, _, _ = action.partition(".")
    if _purposes(agreement).get(scenario, "") is not None:
        return None
    return {"align": "match.alignment", "assist": "vertical"}.get(scenario, "measure")


def _digest(request: dict[str, Any]) -> str:
    return hashlib.sha256(canonical_json(request)).hexdigest()


def _permits(agreement: Agreement, flows: Iterable[Flow]) -> Iterator[str]:
    """Write the permit of each flow that a term of the agreement covers."""
    purposes = _purposes(agreement)
    for flow in flows:
        if not flow.concerns_people:
            yield _permit(agreement, flow, "!(context has purpose)")
        elif (agreed := purposes.get(flow.scenario)) is not None:
            purpose = json.dumps(agreed)
            yield _permit(agreement, flow, f"context has purpose && context.purpose == {purpose}")


def _purposes(agreement: Agreement) -> Mapping[str, str | None]:
    """Return for what people may be used in each scenario; None where no terms of it are agreed."""
    match, measure, vertical = agreement.match, agreement.measure, agreement.vertical
    counted = None if measure is None else measure.purpose
    return {
        "match": match.purpose,
        "align": None if match.alignment is None else match.purpose,
        "train": agreement.train.purpose,
        "sum": agreement.train.purpose,
        "assist": None if vertical is None else vertical.purpose,
        "expand": agreement.expand.purpose,
        "measure": counted,
        "view": counted,
    }


def _permit(agreement: Agreement, flow: Flow, purpose: str) -> str:
    """Write one permit: role, scenario and purpose together, while the agreement is in force."""
    conditions = [
        f"{_strings(flow.senders)}.contains(principal.role)",
        f"{_strings({*flow.recipients, EVERYONE})}.contains(resource.role)",
        f"context.scenario == {json.dumps(flow.scenario)}",
        f"context.time >= {int(agreement.valid_from.timestamp())}",
        f"context.time < {int(agreement.valid_until.timestamp())}",
        purpose,
    ]
    action = json.dumps(flow.action)
    return (
        f"@id({json.dumps(AGREED + flow.action)})\n"
        f"permit (principal is Party, action == Action::{action}, resource is Party) when {{\n  "
        + " &&\n  ".join(conditions)
        + "\n};"
    )


def _prohibitions(agreement: Agreement) -> Iterator[str]:
    """Write what the agreement forbids: regions, code, and what people must have approved."""
    for region in agreement.regions:
        yield _prohibition(
            f"regions.{region.party}",
            "ask a party in a country that it reaches, or agree on more of them",
            f'(resource.name != "{EVERYONE}") && !(resource has country && '
            f"{_strings(region.reaches)}.contains(resource.country))",
            principal=f"principal == Party::{json.dumps(region.party)}",
        )
    if agreement.code_digests:
        yield _prohibition(
            "code_digests",
            "install code whose digest is agreed, or agree on the one that `comity code digest` "
            "tells",
            f"!{_strings(agreement.code_digests)}.contains(context.code)",
        )
    if agreement.measure is not None:
        yield _prohibition(
            "view.classification",
            "view columns that are not sensitive",
            "!(context has classification) || context.classification > "
            f"{list(Classification).index(Classification.PERSONAL)}",
            action='action == Action::"view.counts"',
        )
    if (terms := agreement.approval) is not None:
        needing = [one for one in Computation if agreement.needs_approval(one)]
        yield _prohibition(
            "approval",
            f"have {terms.approvals} approvers of {terms.parties} parties approve the job as it "
            "stands, by `comity approve`",
            "context has purpose && (!(context has computation) || "
            f"{_strings(needing)}.contains(context.computation)) && (context.approvals < "
            f"{terms.approvals} || context.approving_parties < {terms.parties})",
        )


def _prohibition(
    name: str,
    remedy: str,
    condition: str,
    *,
    principal: str = "principal",
    action: str = "action",
) -> str:
    return (
        f"@id({json.dumps(AGREED + name)})\n@remedy({json.dumps(remedy)})\n"
        f"forbid ({principal}, {action}, resource) when {{\n  {condition}\n}};"
    )


def _strings(texts: Iterable[str]) -> str:
    return "[" + ", ".join(json.dumps(text) for text in sorted(map(str, texts))) + "]"


@lru_cache(maxsize=16)
def _check_own(text: str, schema: str) -> None:
    import cedarpy

    if len(text) > _LONGEST:
        raise PolicyError(f"expected at most {_LONGEST} characters, got {len(text)}")
    if not text.strip():
        return
    _, clauses = _compile(text)
    names = [clause.name for clause in clauses.values()]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise PolicyError(f"clause {twice[0]!r} stands there twice: give each a name of its own")
    for kind, clause in zip(_effects(text), clauses.values(), strict=True):
        if kind != "forbid":
            raise PolicyError(
                f"clause {clause.name!r} permits: a party's own policy can only forbid, what is "
                "permitted stands in the agreement"
            )
        if not _NAME.fullmatch(clause.name):
            raise PolicyError('a clause without a name: put @id("…") before it')
    try:
        result = cedarpy.validate_policies(text, schema)
    except ValueError as error:
        raise PolicyError(f"malformed: {error}") from error
    if not result.validation_passed:
        told = str(result.errors[0].error)
        for key, clause in clauses.items():
            told = re.sub(rf"\b{key}\b", clause.name, told)
        raise PolicyError(told)


@lru_cache(maxsize=16)
def _compile(text: str) -> "tuple[cedarpy.PolicySet, Mapping[str, _Clause]]":
    import cedarpy

    try:
        compiled = cedarpy.PolicySet.from_str(text)
        written = json.loads(cedarpy.policies_to_json_str(text))
    except ValueError as error:
        raise PolicyError(f"malformed: {error}") from error
    if written["templates"]:
        raise PolicyError("a template (?principal or ?resource): write the parties out")
    clauses = {}
    for key, clause in _in_order(written["staticPolicies"]):
        notes = clause.get("annotations", {})
        clauses[key] = _Clause(notes.get("id") or "", notes.get("remedy"))
    return compiled, MappingProxyType(clauses)


def _effects(text: str) -> list[str]:
    import cedarpy

    written = json.loads(cedarpy.policies_to_json_str(text))
    return [clause["effect"] for _, clause in _in_order(written["staticPolicies"])]


def _in_order(policies: Mapping[str, Any]) -> list[tuple[str, Any]]:
    return sorted(policies.items(), key=lambda item: int(item[0].removeprefix("policy")))
