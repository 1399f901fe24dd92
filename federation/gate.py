"""The only door out of a party.

Everything that a party says to anybody is made here, in one fixed order:

1. the signed agreement covers it, now;
2. policy: this role may say this to that role, for the purpose of a computation that the agreement
   permits, to an agreed region, by agreed code, with the approvals that the job needs, and no
   clause of the party's own forbids it;
3. consent is read again, as of now, for every person the bytes were made from; who asked to be
   erased does not consent;
4. minimum sizes hold;
5. the privacy budget is reserved, and the reservation logged;
6. the release is a leaf of the party's log;
7. the bytes are encrypted where only the recipient may read them, sealed, and kept in the outbox;
   the charge is committed and logged;
8. the bytes are handed over.

A refusal at any step is a leaf too, and names the term and the smallest change that would pass.

Guarantees: `Released` objects, which alone can become a reply, come from here and nowhere else; a
question that was answered before gets the same bytes again, without a second charge; where a period
is agreed, only if they fit it now, and weighing on it anew. After a crash, `settle` commits what
has left (its bytes are in the outbox) and refunds what has not, and log and ledger tell the same
story again.

Leaves to others: what to say (`jobs`), how it travels (`channel`).
"""

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Final

import numpy as np
import rfc8785
from numpy.typing import NDArray

from compliance import records
from compliance.agreement import Agreement
from compliance.erasure.completion import Completion
from compliance.log.verifier import verify_log
from compliance.log.writer import LogWriter
from compliance.notice import Notice
from compliance.policy import AGREED, Decision, Question
from compliance.signing import Envelope
from federation import messages
from federation.clock import Clock
from federation.code import running_code
from federation.consent_reading import ConsentReading, Heard, kept_cohort_root
from federation.consent_recording import ConsentRecording
from federation.enclosure import encrypt
from federation.errors import RefusedError
from federation.messages import Body, Header, SealedMessage, content_digest
from federation.party import PartyFolder, write_atomically
from federation.policies import known_job, policy_of, question
from federation.references import References
from federation.routes import ROUTES, is_charged, off_route, travelling
from federation.specification import JobSpec
from federation.versions import ending_notice
from privacy.accounting.accountant import epsilon_of
from privacy.accounting.events import Event, to_json
from privacy.accounting.ledger import ChargeState, Ledger
from privacy.errors import BudgetExceededError, PeriodExceededError

__all__ = ["Departure", "Gate", "Minimum", "PeopleUsed", "Released"]


Leaf = Callable[..., records.Record]
"""A kind of leaf."""

_KEY: Final = object()
_PAID: Final = ".paid"
"""Suffix of the file beside an answer that names its `paid_by`."""


class Released:
    """A message that passed the gate. Only the gate makes them."""

    __slots__ = ("message",)

    message: SealedMessage

    def __init__(self, message: SealedMessage, *, key: object) -> None:
        if key is not _KEY:
            raise RuntimeError("a Released comes from Gate.release, Gate.refuse or Gate.recall")
        object.__setattr__(self, "message", message)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError("a Released is what passed the gate, and stays so")


@dataclass(frozen=True)
class PeopleUsed:
    """The people that the bytes were made from.

    Attributes:
        purpose: for which they were used.
        keys: the party's own record references, n of them.
        rows: rows the party holds, eligible or not.
        excluded: rows left out, by reason.
        linked: further record references of the same people, whose "no" counts too.
    """

    purpose: str
    keys: References
    rows: int
    excluded: Mapping[str, int] = field(default_factory=dict)
    linked: References = field(default_factory=lambda: References.of(()))


@dataclass(frozen=True)
class Minimum:
    """A size below which nothing may leave.

    Attributes:
        term: the agreement's term, as a dotted path.
        found: the size here; it is in no message, error or leaf.
        required: the term's value.
    """

    term: str
    found: int
    required: int

    @property
    def remedy(self) -> str:
        """What would pass; of a match, whose secrets are gone, another one alone."""
        if self.term == "match.minimum_match":
            return (
                f"below the minimum of {self.required} matched people: bring more people whom both "
                "sides know, or agree on a smaller minimum, then match under another name"
            )
        return (
            f"below the minimum of {self.required}: bring more people, or agree on a smaller "
            "minimum"
        )


@dataclass(frozen=True)
class Departure:
    """What a party wants to say.

    Attributes:
        job: the job it belongs to.
        recipient: party it is meant for.
        body: what is said.
        payload: raw bytes beside it.
        answers: digest of the message it answers, if any.
        people: who it was made from, where it was made from people.
        minimums: sizes that must hold.
        charge: privacy loss of the release, for the person it concerns most.
        paid_by: id of the charge of an earlier release, if this one tells more of what that paid
            for: it costs nothing more, but where a period is agreed it weighs from now on.
        results: leaves about what the party keeps for itself if this leaves: kind and fields.
    """

    job: str
    recipient: str
    body: Body
    payload: bytes = b""
    answers: str | None = None
    people: PeopleUsed | None = None
    minimums: tuple[Minimum, ...] = ()
    charge: Event | None = None
    paid_by: str | None = None
    results: tuple[tuple[Leaf, Mapping[str, object]], ...] = ()


class Gate:
    """One party's door out. Use it under the party's lock: one process at a time.

    Attributes:
        consents: the party's consents, as they are read at every use; None if it keeps none.
        spec: the job at work, once it is known.
    """

    def __init__(
        self,
        folder: PartyFolder,
        agreement: Agreement,
        log: LogWriter,
        ledger: Ledger | None,
        *,
        clock: Clock,
    ) -> None:
        self._folder = folder
        self._agreement = agreement
        self._digest = agreement.digest  # of every leaf and header: worked out once
        self._log = log
        self._ledger = ledger
        self._clock = clock
        self._identity = folder.identity_key()
        self.spec: JobSpec | None = None
        path = folder.config.consent
        self.consents = (
            None
            if path is None
            else ConsentReading(
                folder.resolve(path), agreement.purposes, agreement=agreement, party=folder.name
            )
        )

    def release(self, departure: Departure) -> Released:
        """Let a departure out.

        Raises:
            RefusedError: a term says no; nothing was charged. The caller answers with `refuse`,
                which logs it.
        """
        header = self._header(departure)
        key = departure.answers or content_digest(header.model_dump_json().encode())
        if (kept := self.recall(key)) is not None:
            return kept
        release_id = _release_id(header)
        now = self._clock()
        self.check_in_force(now)  # 1
        decided = self._check_policy(departure, header, now)  # 2
        consent = self._check_consent(departure, now)  # 3
        if departure.paid_by is not None:  # before 4, of which a refusal would tell too
            self._renew(departure.paid_by)  # a crash from here on leaves it too recent
        self._check_minimums(departure)  # 4
        leaves = [decided, *consent, *self._reserve(departure, release_id)]  # 5
        sealed = self._seal(header, departure.payload)
        leaves.append(
            self._leaf(
                records.Release,
                departure.job,
                release_id=release_id,
                computation=header.body.kind,
                recipient=departure.recipient,
                content_digest=sealed.digest,
                content_bytes=len(sealed.envelope) + len(sealed.payload),
                charge_id=release_id if departure.charge is not None else None,
            )
        )
        leaves += [self._leaf(kind, departure.job, **told) for kind, told in departure.results]
        self.record(*leaves)  # 6: a crash from here to the outbox leaves a leaf, and no bytes out
        self._keep(
            key, release_id, departure.paid_by, sealed
        )  # 7: a crash from here on repeats these very bytes
        if departure.charge is not None:
            self._commit(release_id, departure.job)
        return Released(sealed, key=_KEY)  # 8

    def refuse(self, refusal: RefusedError, *, job: str, recipient: str, answers: str) -> Released:
        """Log a refusal and say it. It is not kept: once mended, the question is heard anew."""
        remedy = messages.printable(refusal.remedy)[:500]
        body = messages.Refused(term=refusal.term, remedy=remedy)
        header = self._header(Departure(job, recipient, body, answers=answers))
        self.note_refusal(refusal, job, release_id=_release_id(header))
        return Released(self._seal(header, b""), key=_KEY)

    def recall(self, answers: str) -> Released | None:
        """Return the answer that was given to a message before, if any; none once it is deleted.

        Nobody can tell whether it left then: where a period is agreed, it weighs anew from now on.

        Raises:
            RefusedError: it cost, and does not fit what has left within the period by now.
        """
        if (path := self._kept(answers)) is None:
            return None
        self._renew_answer(path)
        payload = path.with_suffix(".bin").read_bytes()
        return Released(SealedMessage(path.read_bytes(), payload), key=_KEY)

    def keeps_answer(self, question: str) -> bool:
        """Tell whether a message got an answer, which is not deleted."""
        return self._kept(question) is not None

    def has_answered(self, question: str) -> bool:
        """Tell whether a message got an answer, even if that is deleted since."""
        return any(self._folder.outbox.glob(f"{question}.*.json"))

    def has_sent(self, digest: str | None) -> bool:
        """Tell whether this party has sent the message of that digest."""
        sent = self._folder.outbox.glob("*.json")
        return any(content_digest(path.read_bytes()) == digest for path in sent)

    def forget_payload(self, digest: str | None) -> None:
        """Delete the payload of a message that this party has sent and will not repeat."""
        for path in self._folder.outbox.glob("*.json"):
            if content_digest(path.read_bytes()) == digest:
                path.with_suffix(".bin").unlink(missing_ok=True)

    def has_left(self, job: str, kind: str, recipient: str) -> bool:
        """Tell whether what a job says once to a recipient has left."""
        name = content_digest(f"{job}/{kind}/{recipient}".encode())
        return any(self._folder.outbox.glob(f"*.{name}.json"))

    def check_budget(self, charge: Event) -> None:
        """Refuse what the budget cannot bear, before anybody computes it.

        Raises:
            RefusedError: the charge would pass the cap, or that of the period.
        """
        ledger, cap = self._required_ledger(), self._agreement.budget.epsilon
        asked, spent = ledger.epsilon_if(charge), ledger.statement().epsilon_spent
        if asked > cap:
            raise self._refusal(
                "budget.epsilon",
                f"epsilon spent would come to {asked:.4f}, past the cap of {cap:.4f} ({spent:.4f} "
                "is spent): ask for a smaller epsilon or amend the agreement's budget; "
                "`comity plan` says what would fit",
            )
        try:
            ledger.check_period(charge, "the job")
        except PeriodExceededError as error:
            raise self._refusal("budget.period.epsilon", str(error)) from error

    def record(self, *leaves: records.Record) -> None:
        """Append leaves to the party's log."""
        self._log.append([records.to_leaf(leaf) for leaf in leaves])

    def note(self, kind: Leaf, job: str | None, **fields: object) -> None:
        """Append one leaf about what this party did, its common fields filled in."""
        self.record(self._leaf(kind, job, **fields))

    def complete(
        self, completion: Completion, *, is_told: Callable[[str], bool] = lambda _: False
    ) -> bytes:
        """Sign that a request to erase was carried out here, and log it, unless that is told."""
        signed = completion.sign(self._identity)
        digest = content_digest(signed)
        if is_told(digest):
            return signed
        self.note(
            records.ErasureCompleted,
            None,
            request=completion.request,
            peer=self._folder.name,
            completion_digest=digest,
        )
        return signed

    def note_refusal(self, refusal: RefusedError, job: str | None, *, release_id: str) -> None:
        """Append the leaf of a refusal of this party's own."""
        self.note(
            records.Refusal,
            job,
            release_id=release_id,
            computation="refused",
            term=refusal.term,
            remedy=messages.printable(refusal.remedy)[:300],
        )

    def settle(self) -> None:
        """Open a new log with the agreement; settle the charges that a crash left open.

        A reserved charge whose bytes are in the outbox is committed; any other is refunded. The
        log is told what it does not know yet: a crash may have come before a leaf, or after it.
        """
        if self._log.tree_size == 0:
            names = tuple(party.name for party in self._agreement.parties)
            supersedes = self._agreement.supersedes
            self.note(records.AgreementSigned, None, parties=names, supersedes=supersedes)
        self._tell_code()
        ConsentRecording(self._folder, self._agreement, self.note).settle()
        if self._ledger is None:
            return
        statement = self._ledger.statement()
        reserved = [
            charge.charge_id for charge in statement.charges if charge.state is ChargeState.RESERVED
        ]
        if not reserved:
            return
        kept = {path.name.split(".")[1] for path in self._folder.outbox.glob("*.*.json")}
        untold = self._open_in_log()
        for charge_id in reserved:
            job = charge_id.split("/")[0]
            if content_digest(charge_id.encode()) in kept:
                self._commit(charge_id, job, tell=charge_id in untold)
                continue
            if charge_id in untold:
                reason = "interrupted before anything left"
                self.note(records.BudgetRefunded, job, charge_id=charge_id, reason=reason)
            self._ledger.refund(charge_id)

    def _tell_code(self) -> None:
        """Tell the log, where code is agreed, which code runs from here on."""
        if not self._agreement.code_digests:
            return
        code, told = running_code(), self._folder.path / "code"
        if told.exists() and told.read_text(encoding="ascii") == code.digest:
            return
        self.note(
            records.CodeReleased,
            None,
            package=code.package,
            package_version=code.version,
            code_digest=code.digest,
        )
        write_atomically(told, code.digest.encode())  # a crash before this tells it twice

    def _open_in_log(self) -> set[str]:
        """Return the charges that the log knows as reserved and not yet settled."""
        key = self._agreement.party(self._folder.name).log_key
        unsettled: set[str] = set()
        for entry in verify_log(self._folder.log, verification_key=key).entries:
            match records.parse_leaf(entry):
                case records.BudgetReserved(charge_id=charge_id):
                    unsettled.add(charge_id)
                case records.BudgetCommitted(charge_id=charge_id):
                    unsettled.discard(charge_id)
                case records.BudgetRefunded(charge_id=charge_id):
                    unsettled.discard(charge_id)
        return unsettled

    def check_in_force(self, now: datetime) -> None:
        """Return only if the agreement is in force.

        Raises:
            RefusedError: it is not, or a party has ended it.
        """
        agreement = self._agreement
        if not agreement.valid_from <= now < agreement.valid_until:
            raise self._refusal(
                "valid_until",
                f"the agreement is in force from {agreement.valid_from:%Y-%m-%d} to "
                f"{agreement.valid_until:%Y-%m-%d}: sign one that covers today",
            )
        if (notice := self._note_end(now)) is not None:
            raise self._refusal(
                "termination",
                f"{notice.party} ended the agreement as of {notice.effective_from:%Y-%m-%d}: sign "
                "an amendment with all parties to go on",
            )

    def _note_end(self, now: datetime) -> Notice | None:
        """Return the notice by which the agreement has ended, if any; the log is told once."""
        notice = ending_notice(self._folder.path, self._agreement, now)
        if notice is None:
            return None
        told = self._folder.path / "notices" / f"{notice.digest}.told"  # spares reading the log
        if not told.exists():
            if not self._is_end_in_log(notice):
                self.note(
                    records.AgreementEnded,
                    None,
                    ended_by=notice.party,
                    notice_digest=notice.digest,
                    reason=notice.reason,
                )
            write_atomically(told, b"")
        return notice

    def _is_end_in_log(self, notice: Notice) -> bool:
        key = self._agreement.party(self._folder.name).log_key
        return any(
            leaf.notice_digest == notice.digest
            for entry in verify_log(self._folder.log, verification_key=key).entries
            if isinstance(leaf := records.parse_leaf(entry), records.AgreementEnded)
        )

    def _check_policy(self, departure: Departure, header: Header, now: datetime) -> records.Record:
        outside = header.model_copy(update={"body": travelling(departure.body)})
        if (problem := off_route(outside, self._agreement)) is not None:
            raise self._refusal("parties", problem)
        kind = departure.body.kind
        route = ROUTES[kind]
        if route.concerns_people != (departure.people is not None):
            raise RuntimeError(f"{kind}: declare the people it was made from, and only then")
        if is_charged(kind, self._agreement) != (departure.charge is not None):
            raise RuntimeError(f"{kind}: declare its privacy loss, and only then")
        spec = self.spec if self.spec and self.spec.name == departure.job else None
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
            asked, job=departure.job, release_id=_release_id(header), recipient=departure.recipient
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
        decided = self._leaf(
            records.AccessDecided,
            job,
            release_id=release_id,
            computation=asked.action,
            recipient=recipient,
            allowed=decision.allowed,
            clauses=decision.clauses,
            policy_digest=decision.policy_digest,
            question_digest=decision.question_digest,
        )
        if decision.allowed:
            return decided
        self.record(decided)
        raise self._forbidden(decision)

    def _forbidden(self, decision: Decision) -> RefusedError:
        """Say which term of the agreement, or which clause of the party's own, forbids it."""
        if not decision.clauses:
            return self._refusal("policy", "no permit of the agreement covers it: agree on it")
        agreed = [name for name in decision.clauses if name.startswith(AGREED)]
        if agreed:
            term = agreed[0].removeprefix(AGREED).partition(".")[0]
            return self._refusal(term, decision.remedy or "agree on it")
        own = f"{self._folder.name}'s own policy forbids it by {', '.join(decision.clauses)}"
        return self._refusal("policy", f"{own}: {decision.remedy or 'ask for another clause'}")

    def _check_consent(self, departure: Departure, now: datetime) -> list[records.Record]:
        people = departure.people
        if people is None:
            return []
        if self.consents is None:
            raise self._refusal("consent", f"{self._folder.name} has no consent file: name one")
        from federation.erased import Erased  # it reads populations, which name the gate's people

        if Erased(self._folder, self._agreement).is_among((people.keys, people.linked)):
            raise self._refusal(
                "consent",
                "somebody was erased while the job ran: run the job under another name",
            )
        conditions = self.consents.conditions(
            people.purpose, contacts=departure.body.kind.startswith("expand.")
        )
        log_size = self.consents.all_allowed(
            (people.keys, people.linked),
            people.purpose,
            at=now,
            kept=self._consents_read(departure.job),
            conditions=conditions,
        )
        if log_size is None:
            raise self._refusal(
                "consent",
                "it changed for some people while the job ran: run the job under another name",
            )
        return [
            self._leaf(
                records.ConsentUsed,
                departure.job,
                purpose=people.purpose,
                consent_log_size=log_size,
                rows=people.rows,
                eligible=len(people.keys),
                excluded=dict(people.excluded),
                recipients=conditions.recipients,
                cohort_root=kept_cohort_root(
                    self._folder.cohort_key(self._digest),
                    people.keys,
                    kept=self._folder.job(departure.job) / "cohort.json",
                ),
                as_of=now,
            )
        ]

    def keep_consents(
        self, job: str, heard: Heard, rows: NDArray[np.bool_], people: PeopleUsed
    ) -> None:
        """Keep what was heard when the people of a job were read, for its releases.

        Args:
            job: its name.
            heard: what was decided about all rows.
            rows: those of `people`, shape (n,).
            people: whom the job uses.
        """
        if self.consents is None:
            raise RuntimeError(f"{self._folder.name} has no consent file")
        kept = self._consents_read(job)
        self.consents.keep(heard, rows, (people.keys, people.linked), kept=kept)

    def _consents_read(self, job: str) -> Path:
        return self._folder.job(job) / "consents-read.json"

    def _check_minimums(self, departure: Departure) -> None:
        for minimum in departure.minimums:
            if minimum.found < minimum.required:
                raise self._refusal(minimum.term, minimum.remedy)

    def _reserve(self, departure: Departure, charge_id: str) -> list[records.Record]:
        if departure.charge is None:
            return []
        ledger = self._required_ledger()
        delta = self._agreement.budget.delta
        known = ledger.charge(charge_id)
        if known is not None and known.counts:  # this question is another, or it was recalled
            raise self._refusal(
                "budget.epsilon",
                f"{charge_id!r} has left already, in answer to another question, and its charge "
                "pays for one: run the job under another name",
            )
        try:
            ledger.reserve(charge_id, departure.charge)
        except PeriodExceededError as error:
            raise self._refusal("budget.period.epsilon", str(error)) from error
        except BudgetExceededError as error:
            remedy = f"{error}; `comity plan` says what would fit"
            raise self._refusal("budget.epsilon", remedy) from error
        statement = ledger.statement()
        return [
            self._leaf(
                records.BudgetReserved,
                departure.job,
                charge_id=charge_id,
                mechanism=to_json(departure.charge),
                epsilon=epsilon_of([departure.charge], delta),
                delta=delta,
                epsilon_spent=statement.epsilon_spent,
                epsilon_cap=statement.epsilon_cap,
                period_epsilon_spent=statement.period and statement.period.epsilon_spent,
            )
        ]

    def _commit(self, charge_id: str, job: str, *, tell: bool = True) -> None:
        """Commit a charge: in the log first, so that the ledger still shows what a crash cut."""
        ledger = self._required_ledger()
        if tell:
            spent = ledger.statement().epsilon_spent
            self.note(records.BudgetCommitted, job, charge_id=charge_id, epsilon_spent=spent)
        ledger.commit(charge_id)

    def _kept(self, question: str) -> Path | None:
        """Return where the whole answer to a message lies; None once it is deleted."""
        answers = self._folder.outbox.glob(f"{question}.*.json")
        whole = (path for path in answers if path.with_suffix(".bin").exists())  # see `artefacts`
        return next(whole, None)

    def _renew_answer(self, path: Path) -> None:
        """Have what is about to leave again weigh on the period, by what paid for it, if anything.

        Args:
            path: of the answer in the outbox, whose name has the digest of the release's id.
        """
        if self._ledger is None or self._agreement.budget.period is None:
            return
        with suppress(FileNotFoundError):
            self._renew(path.with_suffix(_PAID).read_text(encoding="ascii"))
        _, name, _ = path.name.split(".")
        for charge in self._ledger.statement().charges:
            committed = charge.state is ChargeState.COMMITTED
            if committed and content_digest(charge.charge_id.encode()) == name:
                self._renew(charge.charge_id)

    def _renew(self, charge_id: str) -> None:
        """Have a committed charge weigh on the period from now on.

        Raises:
            RefusedError: it does not fit what has left within the period by now.
        """
        try:
            self._required_ledger().renew(charge_id)
        except PeriodExceededError as error:
            raise self._refusal("budget.period.epsilon", str(error)) from error

    def _required_ledger(self) -> Ledger:
        if self._ledger is None:
            raise RuntimeError(f"{self._folder.name} has no ledger, so it cannot release a charge")
        return self._ledger

    def _refusal(self, term: str, remedy: str) -> RefusedError:
        return RefusedError(party=self._folder.name, term=term, remedy=remedy)

    def _leaf(self, kind: Leaf, job: str | None, **fields: object) -> records.Record:
        common = {
            "time": self._clock(),
            "party": self._folder.name,
            "agreement": self._digest,
            "job": job,
        }
        return kind(**common, **fields)

    def _header(self, departure: Departure) -> Header:
        """Return the header with everything in clear; `_seal` encrypts what must be."""
        return Header(
            agreement=self._digest,
            job=departure.job,
            sender=self._folder.name,
            recipient=departure.recipient,
            answers=departure.answers,
            body=departure.body,
            payload_digest=content_digest(departure.payload),
            payload_bytes=len(departure.payload),
        )

    def _seal(self, header: Header, payload: bytes) -> SealedMessage:
        if ROUTES[header.kind].encrypted:
            header, payload = encrypt(header, payload, self._agreement)
        messages.check_size(header.kind, payload)
        content = rfc8785.dumps(header.model_dump(mode="json"))
        envelope = Envelope.sign(messages.HEADER_TYPE, content, {header.sender: self._identity})
        return SealedMessage(envelope.to_json(), payload)

    def _keep(self, key: str, release_id: str, paid_by: str | None, sealed: SealedMessage) -> None:
        path = self._folder.outbox / f"{key}.{content_digest(release_id.encode())}.json"
        if paid_by is not None:
            write_atomically(path.with_suffix(_PAID), paid_by.encode(), mode=0o600)
        write_atomically(path.with_suffix(".bin"), sealed.payload, mode=0o600)
        write_atomically(path, sealed.envelope, mode=0o600)


def _release_id(header: Header) -> str:
    """Name a release: job, what is said, to whom, in which round or bucket, and of whose set."""
    parts = [header.job, header.body.kind, header.recipient]
    if isinstance(header.body, messages.Acknowledged) and header.answers is not None:
        parts.append(header.answers[:16])  # what it acknowledges: a job has several
    if (phase := getattr(header.body, "phase", None)) is not None:
        parts.append(str(phase))
    for word, field_name in (("round", "round"), ("bucket", "bucket"), ("set", "place")):
        if (number := getattr(header.body, field_name, None)) is not None:
            parts.append(f"{word}-{number}")
    return "/".join(parts)
