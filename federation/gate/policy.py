"""Whether the agreement and the party's own clauses allow a departure."""

from datetime import datetime

from compliance import records
from compliance.agreement import Agreement
from compliance.policy import AGREED, Decision, Question, lacking
from federation.errors import RefusedError
from federation.gate.departure import Departure
from federation.gate.own_log import OwnLog
from federation.messages import Header
from federation.party import PartyFolder
from federation.policies import known_job, policy_of, question
from federation.routes import ROUTES, is_charged, off_route, travelling
from federation.specification import JobSpec

__all__ = ["PolicyCheck"]


class PolicyCheck:
    """The policies of one party, asked before anything leaves."""

    def __init__(self, folder: PartyFolder, agreement: Agreement, log: OwnLog) -> None:
        self._folder = folder
        self._agreement = agreement
        self._log = log

    def check(
        self,
        departure: Departure,
        header: Header,
        *,
        release_id: str,
        spec: JobSpec | None,
        now: datetime,
    ) -> records.Record:
        """Return the leaf of the policies' yes to a departure, yet to be recorded.

        Args:
            departure: what is to leave.
            header: of it, in clear.
            release_id: names the release.
            spec: the job at work, if it is known.
            now: the moment.

        Raises:
            RefusedError: they say no.
        """
        outside = header.model_copy(update={"body": travelling(departure.body)})
        if (problem := off_route(outside, self._agreement)) is not None:
            raise self._folder.refusal("parties", problem)
        kind = departure.body.kind
        route = ROUTES[kind]
        if route.concerns_people != (departure.people is not None):
            raise RuntimeError(f"{kind}: declare the people it was made from, and only then")
        if is_charged(kind, self._agreement) != (departure.charge is not None):
            raise RuntimeError(f"{kind}: declare its privacy loss, and only then")
        asked = question(
            self._folder,
            self._agreement,
            kind=kind,
            recipient=departure.recipient,
            job=departure.job,
            spec=spec or known_job(self._folder, departure.job),
            purpose=None if departure.people is None else departure.people.purpose,
            charged=departure.charge is not None,
            payload_bytes=len(departure.payload),
            time=now,
        )
        return self.decide(
            asked, job=departure.job, release_id=release_id, recipient=departure.recipient
        )

    def decide(
        self, asked: Question, *, job: str | None, release_id: str, recipient: str
    ) -> records.Record:
        """Ask the policies as they stand, and return the leaf of their yes, yet to be recorded.

        Args:
            asked: the question.
            job: that it belongs to, if any.
            release_id: names what is asked for.
            recipient: who would get it.

        Raises:
            RefusedError: they say no, and the leaf of it is recorded.
            PolicyError: they cannot be read.
        """
        decision = policy_of(self._folder, self._agreement).decide(asked)
        decided = self._log.leaf(
            records.AccessDecided,
            job,
            release_id=release_id,
            computation=asked.action,
            recipient=recipient,
            allowed=decision.allowed,
            clauses=records.AccessDecided.first_clauses(decision.clauses),
            policy_digest=decision.policy_digest,
            question_digest=decision.question_digest,
        )
        if decision.allowed:
            return decided
        self._log.record(decided)
        raise self._forbidden(asked, decision)

    def _forbidden(self, asked: Question, decision: Decision) -> RefusedError:
        """Say which term of the agreement, or which clause of the party's own, forbids it."""
        if not decision.clauses:
            whom = f"from {asked.sender} to {asked.recipient}"
            what = asked.action if asked.purpose is None else f"{asked.action} for {asked.purpose}"
            table = lacking(self._agreement, asked.action)
            why = "" if table is None else f" (agreement.{table} is missing)"
            return self._folder.refusal(
                "policy",
                f"no permit of the agreement covers {what} {whom}{why}: ask for what it has terms "
                "for, or have it amended",
            )
        agreed = [name for name in decision.clauses if name.startswith(AGREED)]
        if agreed:
            term = agreed[0].removeprefix(AGREED).partition(".")[0]
            return self._folder.refusal(term, decision.remedy or "agree on it")
        own = f"{self._folder.name}'s own policy forbids it by {', '.join(decision.clauses)}"
        return self._folder.refusal(
            "policy", f"{own}: {decision.remedy or 'ask for another clause'}"
        )
