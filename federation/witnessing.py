"""A party's part of witnessing: its own log's head to others, theirs to it, and what is kept.

```
PARTY/log/witness/
  <SHA-256 of an origin>/…   another party's log as this one saw it (`compliance.log.witnessing`)
  public                     its own last head that enough witnesses cosigned
PARTY/shown/
  head                       its own head that was shown last, with the cosignatures so far
  seen.json                  how many entries of its own log each witness is said to have cosigned
```

Guarantees: nothing is cosigned that does not extend what was seen; what is kept as public meets
the agreement's quorum; a log that was put back to an earlier state is noticed by what its witnesses
have cosigned, and stops. Only cosignatures prove what they have seen.

Leaves to others: how it travels (`jobs.witness`, `log_server`), what an auditor makes of it
(`audit`).
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from pydantic import TypeAdapter, ValidationError

from compliance.agreement import Agreement
from compliance.errors import (
    LogCorruptedError,
    LogError,
    NotPublicError,
    NotWitnessedError,
    SignatureError,
)
from compliance.log.checkpoint import Checkpoint
from compliance.log.note import Note, NoteSignature
from compliance.log.policy import open_checkpoint
from compliance.log.proving import TiledTree
from compliance.log.verifier import read_checkpoint
from compliance.log.witness import AddCheckpoint, Cosigned, StaleError
from compliance.terms import PartyTerm
from federation.clock import Clock
from federation.desk import Desk
from federation.errors import RefusedError, WorkspaceError
from federation.gate import Released
from federation.jobs.exchange import expect
from federation.jobs.witness import (
    Answer,
    Request,
    decode_answers,
    decode_requests,
    encode_answers,
    encode_requests,
)
from federation.messages import (
    Acknowledged,
    Message,
    WitnessAsk,
    WitnessSaid,
    WitnessShow,
    WitnessShown,
    WitnessTell,
)
from federation.party import PartyFolder, write_atomically
from federation.witnesses import (
    log_keys,
    policy_for,
    read_optional,
    witness_keys,
    witness_of,
)

__all__ = ["LogWitnessing", "Witnessing"]

_SEEN = TypeAdapter(dict[str, int])
TERM: Final = "log"


class LogWitnessing:
    """A party's own log before its witnesses, and the party as a witness.

    Use it under the party's lock: one process at a time.
    """

    def __init__(self, folder: PartyFolder, agreement: Agreement, *, clock: Clock) -> None:
        self._folder = folder
        self._agreement = agreement
        self._clock = clock
        self._policy = policy_for(agreement, folder.name)

    def show(self) -> tuple[Request, ...]:
        """Return a request to each other party that witnesses, as its log stands on disk.

        Raises:
            LogError: a witness has seen more than there is: the log was put back; or it is damaged.
        """
        signed = read_checkpoint(self._folder.log)
        head = self._policy_head(signed)
        tree = TiledTree(self._folder.log, head)
        seen = self._seen()
        requests = []
        for witness in self._policy.witnesses:
            old = seen.get(witness, 0)
            self._check_not_put_back(witness, old, head)
            proof = tree.unverified_consistency_proof(old) if old else ()
            text = AddCheckpoint(old, proof, signed).to_bytes().decode()
            requests.append(Request(log=self._folder.name, witness=witness, request=text))
        write_atomically(self._folder.shown / "head", signed)  # until it is cosigned
        return tuple(requests)

    def cosign(self, requests: Sequence[Request]) -> tuple[Answer, ...]:
        """Answer requests of other parties' logs; all of them are heard before one is refused.

        Raises:
            RefusedError: one is not shown to extend what this party had seen of that log; two roots
                of one size are kept as evidence.
            LogError: the disk refused, or the clock went backwards.
        """
        witness = witness_of(self._folder, self._agreement)
        now = int(self._clock().timestamp())
        answers: list[Answer] = []
        refusal: RefusedError | None = None
        for request in requests:
            about = {"log": request.log, "witness": self._folder.name}
            try:
                line = witness.add_checkpoint(request.request.encode(), now=now)
            except StaleError as error:
                last = error.seen.note.to_bytes().decode() if error.seen else None
                answers.append(Answer(**about, seen=error.tree_size, last=last))
            except NotWitnessedError as error:
                remedy = f"the head that the log of {request.log} shows cannot be cosigned: {error}"
                refusal = self._folder.refusal(TERM, remedy[:400])
                refusal.__cause__ = error
            else:
                answers.append(Answer(**about, cosignature=line.decode()))
        if refusal is not None:
            raise refusal
        return tuple(answers)

    def keep(self, answers: Sequence[Answer]) -> None:
        """Keep what the witnesses said, and the head as public once enough cosigned it.

        What is no cosignature of the head that was shown last counts for nothing. A size that
        nobody signed says at most what to prove from next.

        Raises:
            LogError: a witness has cosigned more than there is: the log was put back.
        """
        if not answers:
            return
        head = self._policy_head(read_checkpoint(self._folder.log))
        seen = self._seen()
        for answer in answers:
            if answer.witness not in self._policy.witnesses or answer.seen is None:
                continue
            self._check_not_put_back(answer.witness, self._cosigned_last(answer), head)
            if answer.seen <= head.tree_size:
                seen[answer.witness] = answer.seen
        if (shown := read_optional(self._folder.shown / "head")) is not None:
            seen |= self._publish(shown, answers)
        write_atomically(self._folder.shown / "seen.json", _SEEN.dump_json(seen))

    def _publish(self, shown: bytes, answers: Sequence[Answer]) -> Mapping[str, int]:
        """Merge cosignatures of the shown head; return the sizes that were cosigned."""
        note = Note.parse(shown)
        checkpoint = Checkpoint.from_body(note.text)
        merged = {(one.name, one.key_id): one for one in note.signatures}
        cosigned: dict[str, int] = {}
        for answer in answers:
            key = self._policy.witnesses.get(answer.witness)
            if key is None or answer.cosignature is None:
                continue
            try:
                lines = tuple(
                    one
                    for one in NoteSignature.parse_lines(answer.cosignature)
                    if (one.name, one.key_id) == (key.name, key.key_id)  # a witness's own alone
                )
                key.verify(checkpoint, Note(note.text, lines))
            except SignatureError:
                continue
            merged |= {(one.name, one.key_id): one for one in lines}
            cosigned[answer.witness] = checkpoint.tree_size
        signed = Note(note.text, tuple(merged.values())).to_bytes()
        write_atomically(self._folder.shown / "head", signed)
        try:
            self._policy.check(signed)
        except NotPublicError:
            return cosigned
        write_atomically(self._folder.witnessed / "public", signed)
        return cosigned

    def _cosigned_last(self, answer: Answer) -> int:
        """Return how many entries a witness proves to have cosigned; 0 if it proves nothing.

        Heads by keys that this log had before count for nothing: it has taken over more by now.
        """
        keys = witness_keys(self._folder.path, self._agreement, answer.witness)
        try:
            last = Cosigned.parse(
                (answer.last or "").encode(),
                log_keys(self._own),
                self._policy.witnesses[answer.witness],
                former_cosigners=keys.former_cosigners,
            )
        except LogCorruptedError:
            return 0
        return last.checkpoint.tree_size

    def _policy_head(self, signed: bytes) -> Checkpoint:
        checkpoint, _ = open_checkpoint(signed, log_keys(self._own))
        return checkpoint

    @property
    def _own(self) -> PartyTerm:
        return self._agreement.party(self._folder.name)

    def _check_not_put_back(self, witness: str, size: int, head: Checkpoint) -> None:
        if size > head.tree_size:
            raise LogError(
                f"{self._folder.log}: {witness} has cosigned {size} entries of this log, and it "
                f"holds {head.tree_size}: it was put back to an earlier state; restore the later "
                "one, since appending to this one would contradict it"
            )

    def _seen(self) -> dict[str, int]:
        path = self._folder.shown / "seen.json"
        try:
            return _SEEN.validate_json(path.read_bytes())
        except FileNotFoundError:
            return {}
        except ValidationError as error:
            raise WorkspaceError(f"{path} is damaged: remove it; witnesses know it too") from error


class Witnessing:
    """What a party does with the messages about heads of logs."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    @property
    def steps(self) -> Mapping[type[object], Callable[[Message], Released]]:
        """What to do with which message."""
        return {WitnessShow: self._show, WitnessAsk: self._ask, WitnessTell: self._tell}

    @property
    def _log(self) -> LogWitnessing:
        desk = self._desk
        return LogWitnessing(desk.folder, desk.agreement, clock=desk.clock)

    def _show(self, message: Message) -> Released:
        requests = encode_requests(self._log.show())
        shown = WitnessShown(round=expect(message, WitnessShow).round)
        return self._desk.release(message, shown, requests)

    def _ask(self, message: Message) -> Released:
        answers = self._log.cosign(decode_requests(message.payload))
        said = WitnessSaid(round=expect(message, WitnessAsk).round)
        return self._desk.release(message, said, encode_answers(answers))

    def _tell(self, message: Message) -> Released:
        self._log.keep(decode_answers(message.payload))
        return self._desk.release(message, Acknowledged())
