"""The door itself: the order in which everything is asked before anything leaves.

Guarantees: `Released` objects, which alone can become a reply, come from here and nowhere else.
"""

from collections.abc import Callable
from datetime import datetime
from typing import Final

import numpy as np
import rfc8785
from numpy.typing import NDArray

from compliance import records
from compliance.agreement import Agreement
from compliance.erasure.completion import Completion
from compliance.log.writer import LogWriter
from compliance.policy import Question
from compliance.signing import Envelope
from federation import messages
from federation.clock import Clock
from federation.consent_reading import ConsentReading, Heard
from federation.consent_recording import ConsentRecording
from federation.enclosure import encrypt
from federation.errors import RefusedError
from federation.gate.charges import Charges
from federation.gate.consent import ConsentCheck
from federation.gate.contract import Contract
from federation.gate.departure import Departure, Leaf, PeopleUsed
from federation.gate.outbox import Outbox
from federation.gate.own_log import OwnLog
from federation.gate.policy import PolicyCheck
from federation.messages import Header, SealedMessage, content_digest
from federation.party import PartyFolder
from federation.routes import ROUTES
from federation.specification import JobSpec
from privacy.accounting.events import Event
from privacy.accounting.ledger import Ledger

__all__ = ["Gate", "Released"]

_KEY: Final = object()


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


class Gate:
    """One party's door out. Use it under the party's lock: one process at a time.

    Attributes:
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
        self._clock = clock
        self._identity = folder.identity_key()
        self._log = OwnLog(folder, agreement, log, clock=clock)
        self._contract = Contract(folder, agreement, self._log)
        self._policy = PolicyCheck(folder, agreement, self._log)
        self._consent = ConsentCheck(folder, agreement, self._log)
        self._outbox = Outbox(folder.outbox)
        self._charges = Charges(folder.name, agreement, ledger, self._outbox, self._log)
        self.spec: JobSpec | None = None

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
        spec = self.spec if self.spec and self.spec.name == departure.job else None
        # 2
        decided = self._policy.check(departure, header, release_id=release_id, spec=spec, now=now)
        consent = self._consent.check(departure, now)  # 3
        if departure.paid_by is not None:  # before 4, of which a refusal would tell too
            self._charges.renew(departure.paid_by)  # a crash from here on leaves it too recent
        self._check_minimums(departure)  # 4
        leaves = [decided, *consent, *self._charges.reserve(departure, release_id)]  # 5
        sealed = self._seal(header, departure.payload)
        leaves.append(
            self._log.leaf(
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
        leaves += [self._log.leaf(kind, departure.job, **told) for kind, told in departure.results]
        self.record(*leaves)  # 6: a crash from here to the outbox leaves a leaf, and no bytes out
        # 7: a crash from here on repeats these very bytes
        self._outbox.keep(key, release_id, departure.paid_by, sealed)
        if departure.charge is not None:
            self._charges.commit(release_id, departure.job)
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
        if (path := self._outbox.kept(answers)) is None:
            return None
        self._charges.renew_answer(path)
        return Released(SealedMessage(*self._outbox.read(path)), key=_KEY)

    def keeps_answer(self, question: str) -> bool:
        """Tell whether a message got an answer, which is not deleted."""
        return self._outbox.kept(question) is not None

    def has_answered(self, question: str) -> bool:
        """Tell whether a message got an answer, even if that is deleted since."""
        return self._outbox.has_answered(question)

    def has_sent(self, digest: str | None) -> bool:
        """Tell whether this party has sent the message of that digest."""
        return self._outbox.has_sent(digest)

    def forget_payload(self, digest: str | None) -> None:
        """Delete the payload of a message that this party has sent and will not repeat."""
        self._outbox.forget_payload(digest)

    def has_left(self, job: str, kind: str, recipient: str) -> bool:
        """Tell whether what a job says once to a recipient has left."""
        return self._outbox.has_left(job, kind, recipient)

    @property
    def consents(self) -> ConsentReading | None:
        """The party's consents, as they are read at every use; None if it keeps none."""
        return self._consent.reading

    def keep_consents(
        self, job: str, heard: Heard, rows: NDArray[np.bool_], people: PeopleUsed
    ) -> None:
        """Keep what was heard when the people of a job were read: see `ConsentCheck.keep`."""
        self._consent.keep(job, heard, rows, people)

    def check_in_force(self, now: datetime) -> None:
        """Return only if the agreement is in force: see `Contract.check_in_force`."""
        self._contract.check_in_force(now)

    def check_budget(self, charge: Event) -> None:
        """Refuse what the budget cannot bear: see `Charges.check`."""
        self._charges.check(charge)

    def decide(
        self, asked: Question, *, job: str | None, release_id: str, recipient: str
    ) -> records.Record:
        """Return the leaf of the policies' yes, yet to be recorded: see `PolicyCheck.decide`."""
        return self._policy.decide(asked, job=job, release_id=release_id, recipient=recipient)

    def record(self, *leaves: records.Record) -> None:
        """Append leaves to the party's log."""
        self._log.record(*leaves)

    def note(self, kind: Leaf, job: str | None, **fields: object) -> None:
        """Append one leaf about what this party did, its common fields filled in."""
        self._log.note(kind, job, **fields)

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
        self._contract.tell()
        ConsentRecording(self._folder, self._agreement, self.note).settle()
        self._charges.settle()

    def _check_minimums(self, departure: Departure) -> None:
        for minimum in departure.minimums:
            if minimum.found < minimum.required:
                raise self._refusal(minimum.term, minimum.remedy)

    def _refusal(self, term: str, remedy: str) -> RefusedError:
        return RefusedError(party=self._folder.name, term=term, remedy=remedy)

    def _header(self, departure: Departure) -> Header:
        """Return the header with everything in clear; `_seal` encrypts what must be."""
        return Header(
            agreement=self._agreement.digest,
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
