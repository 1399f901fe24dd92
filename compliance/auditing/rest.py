"""What is left of a pruned log, held against the contract that let the rest go, and witnesses.

Guarantees: a log was rightly pruned only if the version that it says it obeys lets go of
`log-body` and had ended by then, no hold that is left was on it, and a head that enough others
cosigned, no older than what was removed, is proved to be its beginning; so is every head at hand
that the log signed and that can be proved at all. Nobody passes a new log off as an old one by
saying that it was pruned.

Leaves to others: that every entry left is in the tree (`pruned`); how old the removed ones were,
which nobody can see any more.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from compliance.agreement import Agreement, iso
from compliance.auditing.finding import Finding, FindingKind
from compliance.auditing.heads import KeptHeads, is_valid, merged
from compliance.auditing.trust import log_keys, origin_of, policy_for
from compliance.errors import LogCorruptedError, LogError, NotPublicError, RecordError
from compliance.log.checkpoint import Checkpoint
from compliance.log.note import Note
from compliance.log.policy import LogKey, Policy, open_by_any
from compliance.log.proving import TiledTree
from compliance.log.verifier import FileMissingError, read_checkpoint
from compliance.records import HoldLifted, HoldPlaced, LogPruned, parse_leaf
from compliance.terms import Artefact

__all__ = ["held_against"]


@dataclass(frozen=True)
class _Rest:
    """What is left of a log: its tree, and what says since when it is less."""

    party: str
    naming: tuple[Agreement, ...]
    head: Checkpoint
    tree: TiledTree
    told: int
    leaf: LogPruned


def held_against(
    directory: Path,
    party: str,
    versions: Sequence[Agreement],
    *,
    told: int,
    public: bytes | None,
    kept: Sequence[tuple[str, KeptHeads]],
    policy: Policy | None,
    now: datetime,
) -> tuple[Finding, ...]:
    """Return what stands against a log of which a leaf says that it was pruned.

    Args:
        directory: the log's; all that is left was proved.
        party: whose it is.
        versions: of the contract, to the last that names the party.
        told: index of the leaf.
        public: the last public head where the log lies; None if there is none.
        kept: heads, with who is said to keep them.
        policy: what makes a head public; the agreement's where None.
        now: the moment of the audit, with a time zone.
    """
    naming = tuple(one for one in versions if any(other.name == party for other in one.parties))
    sets = [log_keys(one.party(party)) for one in reversed(naming)]
    signed = read_checkpoint(directory)
    try:
        head, *_ = open_by_any(signed, sets)
        tree = TiledTree(directory, head)
        leaf = parse_leaf(tree.entry(told))
        if not isinstance(leaf, LogPruned):
            raise LogCorruptedError(f"leaf {told} says of no pruning")
        rest = _Rest(party, naming, head, tree, told, leaf)
        against = list(_against(rest, now))
    except (LogError, RecordError) as error:
        text = f"what is left of the log of {party} cannot be read: {error}"
        return (Finding(FindingKind.PRUNED_OTHERWISE, party, (told,), text),)
    found = [
        Finding(
            FindingKind.PRUNED_OTHERWISE,
            party,
            (told,),
            f"leaf {told} (log.pruned) of {party} {one}",
        )
        for one in against
    ]
    heads = _heads(party, origin_of(naming[-1].party(party)), public, kept, sets)
    found.extend(_witnessed(rest, [signed, *heads], policy))
    return tuple(found)


def _against(rest: _Rest, now: datetime) -> Iterator[str]:
    """Say what the contract, or another leaf, has against a pruning."""
    leaf = rest.leaf
    version = next((one for one in rest.naming if one.digest == leaf.agreement), None)
    if leaf.party != rest.party or version is None:
        yield "is of another party, or under a version that is not at hand"
    elif all(one.artefact is not Artefact.LOG_BODY for one in version.retention):
        yield "prunes, and no retention term of the agreement lets go of log-body"
    elif leaf.time < version.valid_until:
        yield f"prunes, and the agreement was in force until {iso(version.valid_until)}"
    if leaf.time > now:
        yield "is dated after this audit"
    if leaf.kept_from > rest.told:
        yield f"removes entries before {leaf.kept_from}, more than there were"
    placed: set[str] = set()
    for index in range(leaf.kept_from, rest.told):
        other = parse_leaf(rest.tree.entry(index))
        if isinstance(other, HoldPlaced) and other.artefact == Artefact.LOG_BODY:
            placed.add(other.hold)
        elif isinstance(other, HoldLifted):
            placed.discard(other.hold)
    if placed:
        yield "prunes, though a hold was on log-body"


def _heads(
    party: str,
    origin: str,
    public: bytes | None,
    kept: Sequence[tuple[str, KeptHeads]],
    sets: Sequence[tuple[LogKey, ...]],
) -> Iterator[bytes]:
    """Yield the heads at hand that keys of the log signed."""
    brought = [] if public is None else [public]
    for witness, theirs in kept:
        if witness == party:
            brought += [] if theirs.public is None else [theirs.public]
        elif (seen := theirs.cosigned.get(origin)) is not None:
            brought.append(seen.note.to_bytes())
    for signed in brought:
        try:
            open_by_any(signed, sets)
        except LogCorruptedError:
            continue
        yield signed


def _witnessed(rest: _Rest, heads: Sequence[bytes], policy: Policy | None) -> Iterator[Finding]:
    """Hold what is left against heads; say where none that is public can be proved."""
    party = rest.party
    policies = [policy or policy_for(one, party) for one in reversed(rest.naming)]
    keys = {key for one in policies for key in (*one.logs, *one.witnesses.values())}
    keys |= {key for one in rest.naming for key in log_keys(one.party(party))}
    public = False
    for signed in merged(heads):
        note = Note.parse(signed)
        seen = Checkpoint.from_body(note.text)
        if not seen.tree_size:
            continue
        try:
            if seen.tree_size > rest.head.tree_size:
                raise LogCorruptedError("it is longer than the log")
            rest.tree.consistency_proof(seen)
        except FileMissingError:
            continue  # older than what was removed
        except LogError:
            text = (
                f"others cosigned {seen.tree_size} entries of the log of {party}, which what is "
                "left of it does not go on from: it was rewritten, or cut short"
            )
            yield Finding(FindingKind.REWRITTEN, party, (), text)
            continue
        lines = tuple(one for one in note.signatures if is_valid(one, seen, note.text, keys))
        public = public or _is_public(Note(note.text, lines).to_bytes(), policies)
    if not public:
        text = (
            f"leaf {rest.told} (log.pruned) of {party} prunes what nobody can prove any more: no "
            "head that enough others cosigned is the beginning of what is left"
        )
        yield Finding(FindingKind.PRUNED_OTHERWISE, party, (rest.told,), text)


def _is_public(signed: bytes, policies: Sequence[Policy]) -> bool:
    for policy in policies:
        try:
            policy.check(signed)
        except (LogCorruptedError, NotPublicError):
            continue
        return True
    return False
