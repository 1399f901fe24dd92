"""Heads that parties keep of logs, held against the logs: what was cosigned must still be there.

Guarantees: kept heads are read before the logs that they are held against, so that a log which
grows meanwhile is never found shorter than what was cosigned of it. A head counts only by the keys
that sign heads of its size (`cryptoperiod`); one that replaced keys signed accuses whoever has
those, and not the log. Of a head that another brings, only valid lines of the log and of that other
count, so that nobody spoils a log by what they keep of it. Evidence of a split view is said, and
stays where it is with both heads.

Leaves to others: reading logs (`reading`), fetching what is elsewhere.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from compliance.agreement import Agreement
from compliance.auditing.cryptoperiod import KeyNotInForceError, check_in_force, check_public
from compliance.auditing.finding import Finding, FindingKind
from compliance.auditing.party_log import PartyLog
from compliance.auditing.trust import WitnessKeys, origin_of
from compliance.errors import ComplianceError, LogCorruptedError, NotPublicError, SignatureError
from compliance.log.checkpoint import Checkpoint
from compliance.log.note import NOTE_LIMIT, Note, NoteKey, NoteSignature
from compliance.log.policy import LogKey, Policy
from compliance.log.verifier import read_regular
from compliance.log.witness import AddCheckpoint, Cosigned, Evidence
from compliance.log.witnessing import WitnessRecord

__all__ = ["KeptHeads", "read_heads", "split_views", "witnessed"]


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
    for origin in keys.logs:
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
    own = len(_merged(heads))
    for witness, theirs in kept:
        if witness != log.party:
            found.extend(_witness(log, witness, theirs, heads))
        elif theirs.public is not None:  # of this place, or of another that is said to have it
            heads.extend(_countable(log, theirs.public, _cosigners(log, policy)))
    last = _public(log, _merged(heads), own, policy)
    if isinstance(last, Finding):
        found.append(last)
    told = log if isinstance(last, Finding) else last
    return told, tuple(dict.fromkeys(found))


def split_views(log: PartyLog, pairs: Sequence[Evidence]) -> tuple[Evidence, ...]:
    """Return the pairs both of whose heads the keys of their size signed."""
    return tuple(pair for pair in pairs if _accuses(log, pair))


def _accuses(log: PartyLog, pair: Evidence) -> bool:
    try:
        for head in (pair.seen, AddCheckpoint.parse(pair.submitted).checkpoint):
            check_in_force(head, log.cryptoperiods)
    except KeyNotInForceError:
        return False
    except LogCorruptedError:
        pass  # signed under a version that is at hand, and that this log never took over
    return True


def _witness(log: PartyLog, witness: str, kept: KeptHeads, heads: list[bytes]) -> Iterator[Finding]:
    """Say what a witness keeps that contradicts a log; add the head that it cosigned to `heads`."""
    origin = origin_of(log.agreement.party(log.party))
    if (problem := kept.unreadable.get(origin)) is not None:
        text = f"what {witness} keeps of the log of {log.party}: {problem}"
        yield Finding(FindingKind.UNREADABLE, witness, (), text)
        return
    evidence = split_views(log, kept.evidence.get(origin, ()))
    if evidence:
        pairs = "1 pair" if len(evidence) == 1 else f"{len(evidence)} pairs"
        text = (
            f"{witness} keeps {pairs} of heads that {log.party} signed, of one size with two roots"
        )
        yield Finding(FindingKind.SPLIT_VIEW, log.party, (), text)
    if (head := kept.cosigned.get(origin)) is None:
        return
    if log.begins_with(head.checkpoint):
        heads.extend(_countable(log, head.note.to_bytes(), _cosigners(log, None, witness)))
        return
    try:
        check_in_force(head.note.to_bytes(), log.cryptoperiods)
    except KeyNotInForceError as error:
        text = f"{witness} cosigned what replaced keys signed: {error}"
        yield Finding(FindingKind.KEY_NOT_IN_FORCE, log.party, (), text)
        return
    except LogCorruptedError:
        pass  # signed under a version that this log never took over
    if not evidence:
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
        lines = tuple(one for one in note.signatures if _is_valid(one, checkpoint, note.text, keys))
        head = Note(note.text, lines).to_bytes()
        check_in_force(head, log.cryptoperiods)
    except (SignatureError, LogCorruptedError):
        return
    yield head


def _is_valid(line: NoteSignature, checkpoint: Checkpoint, text: str, keys: set[LogKey]) -> bool:
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
