"""Heads that parties keep of logs, held against the logs: what was cosigned must still be there.

Guarantees: kept heads are read before the logs that they are held against, so that a log which
grows meanwhile is never found shorter than what was cosigned of it. A head counts only by the keys
that sign heads of its size (`cryptoperiod`), in a version that the log's own place has; one that
replaced keys signed accuses whoever has those, and not the log, unless a witness cosigned it before
they were replaced. Of a head that another brings, only valid lines of the log and of that other
count, so that nobody spoils a log by what they keep of it. Evidence of a split view is said, and
stays where it is with both heads.

Leaves to others: reading logs (`reading`), fetching what is elsewhere.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from pathlib import Path

from compliance.agreement import Agreement
from compliance.auditing.cryptoperiod import KeyNotInForceError, check_in_force, check_public
from compliance.auditing.finding import Finding, FindingKind
from compliance.auditing.party_log import PartyLog
from compliance.auditing.trust import WitnessKeys, log_keys, origin_of
from compliance.errors import ComplianceError, LogCorruptedError, NotPublicError, SignatureError
from compliance.log.checkpoint import Checkpoint
from compliance.log.cosignature import CosignerKey
from compliance.log.note import NOTE_LIMIT, Note, NoteKey, NoteSignature
from compliance.log.policy import LogKey, Policy, open_by_any
from compliance.log.verifier import read_regular
from compliance.log.witness import AddCheckpoint, Cosigned, Evidence
from compliance.log.witnessing import WitnessRecord

__all__ = [
    "KeptHeads",
    "contradicted",
    "is_valid",
    "merged",
    "read_heads",
    "split_views",
    "witnessed",
]


@dataclass(frozen=True)
class KeptHeads:
    """What one party keeps of heads, as it was before any log was read.

    Attributes:
        public: its own last public head, unverified; None if there is none.
        cosigned: what it cosigned last of others' logs, by origin.
        evidence: pairs of heads against others' logs, by origin.
        unreadable: what is wrong with what it keeps, by origin.
    """

    public: bytes | None = None
    cosigned: Mapping[str, Cosigned] = field(default_factory=dict)
    evidence: Mapping[str, tuple[Evidence, ...]] = field(default_factory=dict)
    unreadable: Mapping[str, str] = field(default_factory=dict)


def read_heads(directory: Path, versions: Sequence[Agreement], party: str) -> KeptHeads:
    """Read what a party keeps in a directory, by the keys of these versions, the latest last."""
    keys = WitnessKeys.of(versions, party)
    try:
        public = read_regular(directory / "public", NOTE_LIMIT + 1)
    except OSError:
        public = None  # whoever audits the log says that it is not public
    if keys.cosigner is None:
        return KeptHeads(public)
    record = WitnessRecord(
        directory,
        logs=keys.logs,
        cosigner=keys.cosigner,
        former=keys.former,
        former_cosigners=keys.former_cosigners,
    )
    cosigned: dict[str, Cosigned] = {}
    evidence: dict[str, tuple[Evidence, ...]] = {}
    unreadable: dict[str, str] = {}
    for origin in dict.fromkeys((*keys.logs, *keys.former)):  # also of whoever left
        try:
            evidence[origin] = record.evidence(origin)
            if (head := record.last(origin)) is not None:
                cosigned[origin] = head
        except ComplianceError as error:
            unreadable[origin] = str(error)
    return KeptHeads(public, cosigned, evidence, unreadable)


def witnessed(
    log: PartyLog,
    public: bytes | None,
    kept: Sequence[tuple[str, KeptHeads]],
    policy: Policy | None,
) -> tuple[PartyLog, tuple[Finding, ...]]:
    """Hold a log against what witnesses cosigned, as far as their heads are at hand.

    Args:
        log: that was read after `kept` was.
        public: the last public head where the log lies; None if there is none.
        kept: heads, with who is said to keep them; several may say that they are one party.
        policy: what makes a head public; the agreement's where None.

    Returns:
        The log, with its last public head, and what contradicts the witnesses.
    """
    found: list[Finding] = []
    heads = [log.head] if public is None else [public, log.head]
    own = len(merged(heads))
    for witness, theirs in kept:
        if witness != log.party:
            found.extend(_witness(log, witness, theirs, heads))
        elif theirs.public is not None:  # of this place, or of another that is said to have it
            heads.extend(_countable(log, theirs.public, _cosigners(log, policy)))
    last = _public(log, merged(heads), own, policy)
    if isinstance(last, Finding):
        found.append(last)
    told = log if isinstance(last, Finding) else last
    return told, tuple(dict.fromkeys(found))


def contradicted(log: PartyLog, witness: str, kept: KeptHeads) -> tuple[Finding, ...]:
    """Return what one witness keeps that contradicts a log."""
    return tuple(_witness(log, witness, kept, []))


def split_views(log: PartyLog, witness: str, pairs: Sequence[Evidence]) -> tuple[Evidence, ...]:
    """Return the pairs both of whose heads this log signed, while it had the keys."""
    return tuple(pair for pair in pairs if _signers(log, witness, pair) == {_Signer.LOG})


class _Signer(Enum):
    """Who may have signed a head that a log does not begin with."""

    LOG = "whoever had its keys"
    REPLACED = "whoever has keys that were replaced since"
    NOBODY = "no key of any version that it obeys"


def _signer(log: PartyLog, signed: bytes, witness: str) -> _Signer:
    """Tell who signed a head, which a witness cosigned at a time that its line names."""
    try:
        check_in_force(signed, log.cryptoperiods)
    except KeyNotInForceError as error:
        if error.replaced is None or _cosigned_before(log, signed, witness, error.replaced):
            return _Signer.LOG
        return _Signer.REPLACED
    except LogCorruptedError:  # by a version, if any, that is at hand and was never taken over
        own = [
            log_keys(one)
            for version in log.succession.versions
            for one in version.parties
            if one.name == log.party
        ]
        try:
            open_by_any(signed, own)
        except LogCorruptedError:
            return _Signer.NOBODY
    return _Signer.LOG


def _signers(log: PartyLog, witness: str, pair: Evidence) -> set[_Signer]:
    heads = (pair.seen, AddCheckpoint.parse(pair.submitted).checkpoint)
    return {_signer(log, head, witness) for head in heads}


def _cosigned_before(log: PartyLog, signed: bytes, witness: str, moment: datetime) -> bool:
    """Tell whether a witness cosigned a head before a moment, by its keys in any version."""
    note = Note.parse(signed)
    checkpoint = Checkpoint.from_body(note.text)
    for key in _cosigners(log, None, witness):
        if isinstance(key, CosignerKey):
            with suppress(SignatureError):
                return 0 < key.verify(checkpoint, note) < moment.timestamp()
    return False


def _witness(log: PartyLog, witness: str, kept: KeptHeads, heads: list[bytes]) -> Iterator[Finding]:
    """Say what a witness keeps that contradicts a log; add the head that it cosigned to `heads`.

    Only what a key of the log signed counts, by a version that the log's own place has: a contract
    that a witness alone holds names whatever keys it likes.
    """
    origin = origin_of(log.agreement.party(log.party))
    if (problem := kept.unreadable.get(origin)) is not None:
        text = f"what {witness} keeps of the log of {log.party}: {problem}"
        yield Finding(FindingKind.UNREADABLE, witness, (), text)
        return
    pairs = kept.evidence.get(origin, ())
    evidence = split_views(log, witness, pairs)
    if evidence:
        said = "1 pair" if len(evidence) == 1 else f"{len(evidence)} pairs"
        text = (
            f"{witness} keeps {said} of heads that {log.party} signed, of one size with two roots"
        )
        yield Finding(FindingKind.SPLIT_VIEW, log.party, (), text)
    elif any(_Signer.NOBODY not in _signers(log, witness, pair) for pair in pairs):
        text = f"{witness} keeps evidence against {log.party} that replaced keys signed"
        yield Finding(FindingKind.KEY_NOT_IN_FORCE, log.party, (), text)
    if (head := kept.cosigned.get(origin)) is None:
        return
    signed = head.note.to_bytes()
    if log.begins_with(head.checkpoint):
        heads.extend(_countable(log, signed, _cosigners(log, None, witness)))
        return
    signer = _signer(log, signed, witness)
    if signer is _Signer.REPLACED:
        text = (
            f"{witness} cosigned what replaced keys signed, {head.checkpoint.tree_size} entries "
            f"that the log of {log.party} does not begin with, after they had been replaced"
        )
        yield Finding(FindingKind.KEY_NOT_IN_FORCE, log.party, (), text)
    elif signer is _Signer.LOG and not evidence:
        text = (
            f"{witness} cosigned {head.checkpoint.tree_size} entries of the log of {log.party}, "
            "which does not begin with them: it was rewritten, or cut short"
        )
        yield Finding(FindingKind.REWRITTEN, log.party, (), text)


def _cosigners(log: PartyLog, policy: Policy | None, witness: str | None = None) -> set[LogKey]:
    """Return the keys by which the policy and any version know one witness, or all of them."""
    keys: set[LogKey] = set() if policy is None else set(policy.witnesses.values())
    for version in log.succession.versions:
        keys |= {
            one.cosigner
            for one in version.parties
            if one.cosigner is not None and one.name == (witness or one.name)
        }
    return keys


def _countable(log: PartyLog, signed: bytes, cosigners: set[LogKey]) -> Iterator[bytes]:
    """Yield a head from elsewhere with those of its lines that may count for the log.

    These are valid ones, by keys of the log or by `cosigners`: whoever brings a head can add lines
    in anybody's name, and joined to the log's own they would spoil it. A head that the log's keys
    did not sign, or that keys signed which sign none of its size, is left out.
    """
    keys = cosigners | {key for period in log.cryptoperiods for key in period.keys}
    try:
        note = Note.parse(signed)
        checkpoint = Checkpoint.from_body(note.text)
        lines = tuple(one for one in note.signatures if is_valid(one, checkpoint, note.text, keys))
        head = Note(note.text, lines).to_bytes()
        check_in_force(head, log.cryptoperiods)
    except (SignatureError, LogCorruptedError):
        return
    yield head


def is_valid(line: NoteSignature, checkpoint: Checkpoint, text: str, keys: set[LogKey]) -> bool:
    """Tell whether one of these keys made a signature of a head."""
    alone = Note(text, (line,))
    for key in keys:
        try:
            if isinstance(key, NoteKey):
                alone.verify(key)
            else:
                key.verify(checkpoint, alone)
        except SignatureError:
            continue
        return True
    return False


def merged(heads: Sequence[bytes]) -> list[bytes]:
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


def _public(
    log: PartyLog, heads: Sequence[bytes], own: int, policy: Policy | None
) -> PartyLog | Finding:
    """Return the log with its last public head; the first `own` of them must be rightly signed."""
    best: PartyLog | None = None
    short = "no head at hand is cosigned by anybody"
    for number, head in enumerate(heads):
        try:
            public = check_public(head, log.cryptoperiods, policy)
        except NotPublicError as error:
            short = str(error)
            continue
        except LogCorruptedError as error:
            if number >= own:
                continue  # by the policy at hand: whoever brings it cannot spoil the log's own
            late = isinstance(error, KeyNotInForceError)
            kind = FindingKind.KEY_NOT_IN_FORCE if late else FindingKind.BAD_SIGNATURE
            text = f"a head of the log of {log.party} is wrongly signed: {error}"
            return Finding(kind, log.party, (), text)
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
