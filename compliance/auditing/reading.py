"""Read a party's log as a stranger's: every file held against keys, tree, witnesses and contract.

Guarantees: what is returned as a `PartyLog` is signed, whole and parsed; what is not becomes
findings, one for the first thing that stands in the way. No file that is read can hold the reader.

Leaves to others: what the leaves say together (`compliance.auditing.audit`).
"""

import gc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from compliance.agreement import Agreement, SignedAgreement
from compliance.auditing.finding import Finding, FindingKind
from compliance.auditing.party_log import PartyLog
from compliance.auditing.pruned import pruned
from compliance.auditing.trust import keys_of_others, log_keys, origin_of, policy_for
from compliance.errors import (
    ComplianceError,
    InvalidAgreementError,
    LogCorruptedError,
    LogError,
    NotPublicError,
    RecordError,
    SignatureError,
)
from compliance.lifecycle import Succession
from compliance.log.checkpoint import Checkpoint
from compliance.log.note import NOTE_LIMIT, Note, NoteKey
from compliance.log.policy import Policy, open_checkpoint
from compliance.log.tiles import CutFileError
from compliance.log.verifier import FileMissingError, read_checkpoint, read_regular, verify_log
from compliance.log.witnessing import WitnessRecord
from compliance.notice import SignedNotice
from compliance.records import Record, parse_leaf
from compliance.signing import ENVELOPE_LIMIT
from compliance.terms import PartyTerm

__all__ = ["party_of", "read_agreement", "read_log", "read_versions", "witnessed"]


def read_agreement(file: Path) -> Agreement:
    """Read a contract that every party signed.

    Raises:
        InvalidAgreementError: it cannot be read, is unsigned by somebody, or was altered.
    """
    try:
        return SignedAgreement.from_json(read_regular(file, ENVELOPE_LIMIT + 1)).verify()
    except OSError as error:
        raise InvalidAgreementError(f"{file} cannot be read: {error.strerror}") from error
    except InvalidAgreementError as error:
        raise type(error)(f"{file}: {error}") from error


def read_versions(folder: Path) -> Succession:
    """Read every version of the contract, and every notice about it, that a party's folder holds.

    Raises:
        InvalidAgreementError: one cannot be read or does not hold, or they are no succession.
    """
    try:
        earlier = sorted((folder / "agreements").glob("*.json"))
        signed = [
            SignedAgreement.from_json(read_regular(file, ENVELOPE_LIMIT + 1))
            for file in (*earlier, folder / "agreement.json")
        ]
        notices = [
            SignedNotice.from_json(read_regular(file, ENVELOPE_LIMIT + 1))
            for file in sorted((folder / "notices").glob("*.json"))
        ]
        return Succession.of(signed, notices)
    except OSError as error:
        raise InvalidAgreementError(f"{folder} cannot be read: {error.strerror}") from error
    except InvalidAgreementError as error:
        raise type(error)(f"{folder}: {error}") from error


def read_log(
    directory: Path, agreement: Agreement, name: str, *, versions: Succession | None = None
) -> tuple[PartyLog | None, tuple[Finding, ...]]:
    """Read the log of a party in a directory of the layout of C2SP tlog-tiles.

    1. The checkpoint is of this log, and each of its keys signed it.
    2. Every file holds what the entries imply, whose root is the signed one.
    3. Every entry is a leaf.

    Returns:
        The log, or None with what stands in the way.
    """
    party = agreement.party(name)
    try:
        signed = read_checkpoint(directory)
        if (kind := _objection(signed, party)) is not None:
            text = f"the checkpoint in {directory} does not hold under the keys of {name}: {kind}"
            return None, (Finding(kind, name, (), text),)
        log = verify_log(directory, verification_key=party.log_key, second_key=party.cosigning_key)
    except LogError as error:
        forgotten = pruned(directory, party) if isinstance(error, FileMissingError) else None
        if forgotten is not None:
            return None, (forgotten,)
        return None, (Finding(_kind_of(error), name, (), f"{directory}: {error}"),)
    parsed: list[Record] = []
    with _without_collection():
        for index, entry in enumerate(log.entries):
            try:
                parsed.append(parse_leaf(entry))
            except RecordError as error:
                text = f"leaf {index} of {name} is no leaf: {error}"
                return None, (Finding(FindingKind.MALFORMED_LEAF, name, (index,), text),)
    read = PartyLog(
        name,
        agreement,
        tuple(parsed),
        log.entries,
        versions=versions,
        leaf_hashes=log.leaf_hashes,
    )
    return read, ()


@contextmanager
def _without_collection() -> Iterator[None]:
    """Let nobody look for garbage among leaves while they are read: all of them stay."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()


def _kind_of(error: LogError) -> FindingKind:
    if isinstance(error, FileMissingError):
        return FindingKind.FILE_MISSING
    if isinstance(error, CutFileError):
        return FindingKind.FILE_CUT
    return (
        FindingKind.TREE_MISMATCH
        if isinstance(error, LogCorruptedError)
        else FindingKind.UNREADABLE
    )


def _objection(signed: bytes, party: PartyTerm) -> FindingKind | None:
    """Say what is wrong with a checkpoint, before anything under it is read."""
    try:
        note = Note.parse(signed)
        checkpoint = Checkpoint.from_body(note.text)
    except (SignatureError, LogCorruptedError):
        return FindingKind.BAD_SIGNATURE
    if checkpoint.origin != origin_of(party):
        return FindingKind.FOREIGN_ORIGIN
    signers = {(entry.name, entry.key_id) for entry in note.signatures}
    if any((key.name, key.key_id) not in signers for key in log_keys(party)):
        return FindingKind.WRONG_KEY
    try:
        open_checkpoint(signed, log_keys(party))
    except LogCorruptedError:
        return FindingKind.BAD_SIGNATURE
    return None


def witnessed(
    logs: Sequence[PartyLog], directories: dict[str, Path], policy: Policy | None
) -> tuple[tuple[PartyLog, ...], tuple[Finding, ...]]:
    """Hold logs against what witnesses cosigned, as far as their folders are at hand.

    Args:
        logs: that were read.
        directories: of every log at hand, by party; `witness/` in it is what the party witnessed.
        policy: what makes a head public; the agreement's where None.

    Returns:
        The logs, with their last public heads, and what contradicts the witnesses.
    """
    found: list[Finding] = []
    told: list[PartyLog] = []
    for log in logs:
        heads: list[bytes] = []
        own = directories[log.party]
        for name in ("witness/public", "checkpoint"):
            try:
                heads.append(read_regular(own / name, NOTE_LIMIT + 1))
            except OSError:
                continue  # a log without a public head is said below
        for witness, directory in directories.items():
            if witness != log.party:
                found.extend(_witness(log, witness, directory, heads))
        public = _public(log, _merged(heads), policy or policy_for(log.agreement, log.party))
        if isinstance(public, Finding):
            found.append(public)
            told.append(log)
        else:
            told.append(public)
    return tuple(told), tuple(found)


def _witness(log: PartyLog, witness: str, directory: Path, heads: list[bytes]) -> Iterator[Finding]:
    """Say what a witness keeps that contradicts a log; add the head that it cosigned to `heads`."""
    key = log.agreement.party(witness).cosigner
    if key is None:
        return
    origin = origin_of(log.agreement.party(log.party))
    logs = keys_of_others(log.agreement, witness)
    record = WitnessRecord(directory / "witness", logs=logs, cosigner=key)
    try:
        head, evidence = record.last(origin), record.evidence(origin)
    except ComplianceError as error:
        text = f"what {witness} keeps of the log of {log.party}: {error}"
        yield Finding(FindingKind.UNREADABLE, witness, (), text)
        return
    if evidence:
        pairs = "1 pair" if len(evidence) == 1 else f"{len(evidence)} pairs"
        text = (
            f"{witness} keeps {pairs} of heads that {log.party} signed, of one size with two roots"
        )
        yield Finding(FindingKind.SPLIT_VIEW, log.party, (), text)
    if head is None:
        return
    if log.begins_with(head.checkpoint):
        heads.append(head.note.to_bytes())
    elif not evidence:
        text = (
            f"{witness} cosigned {head.checkpoint.tree_size} entries of the log of {log.party}, "
            "which does not begin with them: it was rewritten, or cut short"
        )
        yield Finding(FindingKind.REWRITTEN, log.party, (), text)


def _merged(heads: Sequence[bytes]) -> list[bytes]:
    """Join the signatures of heads that say the same."""
    notes: dict[str, Note] = {}
    for head in heads:
        try:
            note = Note.parse(head)
        except SignatureError:
            continue  # a witness's own is checked by its record; another counts for nothing
        before = notes.get(note.text)
        signatures = note.signatures if before is None else before.signatures + note.signatures
        notes[note.text] = Note(note.text, tuple(dict.fromkeys(signatures)))
    return [note.to_bytes() for note in notes.values()]


def _public(log: PartyLog, heads: Sequence[bytes], policy: Policy) -> PartyLog | Finding:
    best: PartyLog | None = None
    short = "no head at hand is cosigned by anybody"
    for head in heads:
        try:
            public = policy.check(head)
        except NotPublicError as error:
            short = str(error)
            continue
        except LogCorruptedError as error:
            text = f"a head of the log of {log.party} is wrongly signed: {error}"
            return Finding(FindingKind.BAD_SIGNATURE, log.party, (), text)
        size = public.checkpoint.tree_size
        if not log.begins_with(public.checkpoint):
            text = (
                f"{', '.join(public.cosigned) or log.party} signed {size} entries that the log of "
                f"{log.party} does not begin with: it was rewritten, or cut short"
            )
            return Finding(FindingKind.REWRITTEN, log.party, (), text)
        if best is None or size > (best.public_size or 0):
            best = log.under(tuple(public.cosigned), size)
    text = f"the log of {log.party} is not public: {short}"
    return best or Finding(FindingKind.NOT_PUBLIC, log.party, (), text)


def party_of(signed: bytes, agreement: Agreement) -> str | None:
    """Return the party whose log an unverified checkpoint says it is of; None if nobody's."""
    origin = signed.partition(b"\n")[0].decode("utf-8", "replace")
    for party in agreement.parties:
        if NoteKey.from_string(party.log_key).name == origin:
            return party.name
    return None
