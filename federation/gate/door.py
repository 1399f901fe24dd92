"""The door itself: the order in which everything is asked before anything leaves.

Guarantees: `Released` objects, which alone can become a reply, come from here and nowhere else.
"""

from collections.abc import Callable
from typing import Final

import rfc8785

from compliance import records
from compliance.agreement import Agreement
from compliance.erasure.completion import Completion
from compliance.log.writer import LogWriter
from compliance.signing import Envelope
from federation import messages
from federation.clock import Clock
from federation.consent_recording import ConsentRecording
from federation.enclosure import encrypt
from federation.errors import RefusedError
from federation.gate.charges import Charges
from federation.gate.consent import ConsentCheck
from federation.gate.contract import Contract
from federation.gate.departure import Departure, Leaf
from federation.gate.outbox import Outbox
from federation.gate.own_log import OwnLog
from federation.gate.policy import PolicyCheck
from federation.messages import Header, SealedMessage, content_digest
from federation.party import PartyFolder
from federation.routes import ROUTES
from federation.specification import JobSpec
from privacy.accounting.ledger import Ledger

__all__ = ["Gate", "Released"]

_KEY: Final = object()


class Released:
    """A message that passed the gate. Only the gate makes them; they cannot be changed.

    Attributes:
        message: sealed, and encrypted where only the recipient may read it.
    """

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
        log: the party's own.
        contract: that it is under.
        policy: what it and the agreement permit.
        consent: of its people.
        outbox: its answers.
        charges: on its privacy budget.
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
        self.log = OwnLog(folder, agreement, log, clock=clock)
        self.contract = Contract(folder, agreement, self.log)
        self.policy = PolicyCheck(folder, agreement, self.log)
        self.consent = ConsentCheck(folder, agreement, self.log)
        self.outbox = Outbox(folder.outbox)
        self.charges = Charges(folder, agreement, ledger, self.outbox, self.log)
        self.spec: JobSpec | None = None

    def release(self, departure: Departure) -> Released:
        """Let a departure out.

        Raises:
            RefusedError: a term says no; nothing was charged. The caller answers with `refuse`,
                which logs it.
            ReplicaError: the database that keeps a copy of the folder cannot be reached.
        """
        header = self._header(departure)
        key = departure.answers or content_digest(header.model_dump_json().encode())
        if (kept := self.recall(key)) is not None:
            return kept
        release_id = _release_id(header)
        now = self._clock()
        self.contract.check_in_force(now)  # 1
        spec = self.spec if self.spec and self.spec.name == departure.job else None
        # 2
        decided = self.policy.check(departure, header, release_id=release_id, spec=spec, now=now)
        consent = self.consent.check(departure, now)  # 3
        if departure.paid_by is not None:  # before 4, of which a refusal would tell too
            self.charges.renew(departure.paid_by)  # a crash from here on leaves it too recent
        self._check_minimums(departure)  # 4
        leaves = [decided, *consent, *self.charges.reserve(departure, release_id)]  # 5
        sealed = self._seal(header, departure.payload)
        leaves.append(
            self.log.leaf(
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
        leaves += [self.log.leaf(kind, departure.job, **told) for kind, told in departure.results]
        self.log.record(*leaves)  # 6: a crash before the outbox leaves a leaf, and no bytes out
        # 7: a crash from here on repeats these very bytes, and so does the loss of the folder
        self.outbox.keep(key, release_id, departure.paid_by, sealed)
        if departure.charge is None:
            self._folder.synchronise()
        else:
            self.charges.commit(release_id, departure.job)
        return Released(sealed, key=_KEY)  # 8

    def refuse(self, refusal: RefusedError, *, job: str, recipient: str, answers: str) -> Released:
        """Log a refusal and say it. It is not kept: once mended, the question is heard anew.

        Args:
            refusal: the term, and the smallest change that would pass; what is said of that is
                made printable and cut to 500 characters.
            job: in which it was asked.
            recipient: who asked.
            answers: digest of the question.

        Raises:
            LogError: the log cannot be written; then nothing is said.
            ReplicaError: as `release`.
        """
        remedy = messages.printable(refusal.remedy)[:500]
        body = messages.Refused(term=refusal.term, remedy=remedy)
        header = self._header(Departure(job, recipient, body, answers=answers))
        self.note_refusal(refusal, job, release_id=_release_id(header))
        self._folder.synchronise()
        return Released(self._seal(header, b""), key=_KEY)

    def recall(self, answers: str) -> Released | None:
        """Return the answer that was given to a message before, if any; none once it is deleted.

        Nobody can tell whether it left then: where a period is agreed, it weighs anew from now on.

        Raises:
            RefusedError: it cost, and does not fit what has left within the period by now.
            ReplicaError: as `release`.
        """
        if (path := self.outbox.kept(answers)) is None:
            return None
        self.charges.renew_answer(path)
        self._folder.synchronise()  # a crash may have come between the outbox and that
        return Released(SealedMessage(*self.outbox.read(path)), key=_KEY)

    def note(self, kind: Leaf, job: str | None, **fields: object) -> None:
        """Append one leaf about what this party did, its common fields filled in."""
        self.log.note(kind, job, **fields)

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
        """Append the leaf of a refusal of this party's own.

        Args:
            refusal: the term and the remedy, of which a leaf has 300 characters and no address.
            job: in which it was asked; None outside of any.
            release_id: of what was not let out.
        """
        self.note(
            records.Refusal,
            job,
            release_id=release_id,
            computation="refused",
            term=refusal.term,
            # A party's own words, in its policy, may hold an address; no leaf does.
            remedy=messages.printable(refusal.remedy).replace("@", " at ")[:300],
        )

    def settle(self) -> None:
        """Open a new log with the agreement; settle the charges that a crash left open.

        A reserved charge whose bytes are in the outbox is committed; any other is refunded. The
        log is told what it does not know yet: a crash may have come before a leaf, or after it.
        """
        self.contract.tell()
        ConsentRecording(self._folder, self._agreement, self.note).settle()
        self.charges.settle()

    def _check_minimums(self, departure: Departure) -> None:
        for minimum in departure.minimums:
            if minimum.found < minimum.required:
                raise self._folder.refusal(minimum.term, minimum.remedy)

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
