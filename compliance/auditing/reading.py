"""Read a party's log as a stranger's: every file held against keys, tree, witnesses and contract.

Guarantees: what is returned as a `PartyLog` is signed, whole and parsed; what is not becomes
findings, one for the first thing that stands in the way. No file that is read can hold the reader.

Leaves to others: what the leaves say together (`compliance.auditing.audit`).
"""

from collections.abc import Iterable
from pathlib import Path

from compliance.agreement import Agreement, SignedAgreement
from compliance.auditing.cryptoperiod import check_in_force
from compliance.auditing.finding import Finding, FindingKind
from compliance.auditing.party_log import PartyLog
from compliance.auditing.pruned import pruned
from compliance.auditing.trust import every_party, log_keys, origin_of
from compliance.errors import (
    InvalidAgreementError,
    LogCorruptedError,
    LogError,
    RecordError,
    SignatureError,
)
from compliance.lifecycle import Succession
from compliance.log.checkpoint import Checkpoint
from compliance.log.note import Note, NoteKey
from compliance.log.policy import open_checkpoint
from compliance.log.tiles import CutFileError
from compliance.log.verifier import (
    FileMissingError,
    VerifiedLog,
    read_checkpoint,
    read_regular,
    verify_log,
)
from compliance.notice import SignedNotice
from compliance.records import AgreementSigned, Record, parse_leaf
from compliance.signing import ENVELOPE_LIMIT
from compliance.terms import PartyTerm

__all__ = ["party_of", "read_agreement", "read_log", "read_versions"]

_ATTEMPTS = 5


def read_agreement(file: Path) -> SignedAgreement:
    """Read a contract that every party signed.

    Raises:
        InvalidAgreementError: it cannot be read, is unsigned by somebody, or was altered.
    """
    try:
        signed = SignedAgreement.from_json(read_regular(file, ENVELOPE_LIMIT + 1))
        signed.verify()
    except OSError as error:
        raise InvalidAgreementError(f"{file} cannot be read: {error.strerror}") from error
    except InvalidAgreementError as error:
        raise type(error)(f"{file}: {error}") from error
    return signed


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

    1. The checkpoint is of this log, and each of its keys signed it, by one version at hand.
    2. Every file holds what the entries imply, whose root is the signed one.
    3. Every entry is a leaf.
    4. Every version that it obeyed is at hand.
    5. The keys that signed are those of the last version that it took over.

    Returns:
        The log, or None with what stands in the way.
    """
    held = versions or Succession((agreement,), {})
    terms = [
        one for version in reversed(held.versions) for one in version.parties if one.name == name
    ]
    log = _verified(directory, terms)  # 1, 2
    if isinstance(log, Finding):
        return None, (log,)
    parsed: list[Record] = []
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
        hashed=log.tree,
        head=log.signed,
    )
    if (problem := _version_missing(read) or _not_in_force(read)) is not None:  # 4, 5
        return None, (problem,)
    return read, ()


def _verified(directory: Path, terms: list[PartyTerm]) -> VerifiedLog | Finding:
    """Verify a log by the keys of the party that signed its head; `terms` begin with the latest."""
    for attempt in range(_ATTEMPTS):
        party, signed = terms[0], b""
        try:
            signed = read_checkpoint(directory)
            objections = {one: _objection(signed, one) for one in terms}
            party = next((one for one, kind in objections.items() if kind is None), party)
            if (kind := objections[party]) is not None:
                text = f"the checkpoint in {directory} does not hold under the keys of {party.name}"
                text += f": {kind}"
                if kind is FindingKind.WRONG_KEY:
                    text += "; where a version that is not at hand replaced keys, bring it"
                return Finding(kind, party.name, (), text)
            return verify_log(
                directory, verification_key=party.log_key, second_key=party.cosigning_key
            )
        except LogError as error:
            if attempt + 1 < _ATTEMPTS and signed != _read_again(directory):
                continue  # its keys may have been replaced meanwhile
            forgotten = pruned(directory, party) if isinstance(error, FileMissingError) else None
            return forgotten or Finding(_kind_of(error), party.name, (), f"{directory}: {error}")
    raise RuntimeError("the last attempt returns")


def _read_again(directory: Path) -> bytes:
    try:
        return read_checkpoint(directory)
    except LogError:
        return b""


def _version_missing(log: PartyLog) -> Finding | None:
    """Say that the log obeyed a version that is not at hand."""
    at_hand = {one.digest for one in log.succession.versions}
    for index, leaf in log.each(AgreementSigned):
        if leaf.agreement in at_hand:
            continue
        if index == 0 or leaf.supersedes == log.succession.latest.digest:
            text = (
                f"takes over version {leaf.agreement[:16]}… of the agreement, which is not at "
                "hand: bring it (`--agreement`, once for each version)"
            )
            return log.finding(FindingKind.VERSION_MISSING, index, text)
    return None


def _not_in_force(log: PartyLog) -> Finding | None:
    """Say that the head is signed by other keys than those of the last version taken over."""
    try:
        check_in_force(log.head, log.cryptoperiods)
    except LogCorruptedError as error:
        text = f"the head of the log of {log.party}: {error}"
        return Finding(FindingKind.KEY_NOT_IN_FORCE, log.party, (), text)
    return None


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


def party_of(signed: bytes, versions: Iterable[Agreement]) -> str | None:
    """Return the party whose log an unverified checkpoint says it is of; None if nobody's."""
    origin = signed.partition(b"\n")[0].decode("utf-8", "replace")
    for party in every_party(versions):
        if NoteKey.from_string(party.log_key).name == origin:
            return party.name
    return None
