"""What a party's log says, once it is verified: for `comity log` and the report.

Guarantees: nothing is said about a log before its signature, tree and every leaf have been
verified under the key that the signed agreement names, and no leaf contradicts the agreement or
another leaf: of this party and contract, every release that costs paid for by one open charge,
every charge within the cap and settled once, every release allowed by policy just before. What
other parties cosigned of a log is a beginning of it, as far as their folders are at hand. Where
`dp_accounting` is installed, no price is below what the logged mechanisms cost together.

Leaves to others: proofs and formats (`compliance.log`), prices (`privacy.accounting`), whether a
mechanism ran as logged (nobody can see that from a log), the wording (`cli`).
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from compliance import records
from compliance.agreement import Agreement
from compliance.auditing import PartyLog
from compliance.auditing.budget import Charges
from compliance.auditing.contract import chain, obeys
from compliance.auditing.cryptoperiod import check_public
from compliance.auditing.heads import KeptHeads, contradicted, read_heads
from compliance.auditing.leaves import rotations
from compliance.errors import (
    ComplianceError,
    InvalidAgreementError,
    LogCorruptedError,
    LogError,
    RecordError,
)
from compliance.lifecycle import Succession
from compliance.log.policy import PublicCheckpoint
from compliance.log.verifier import verify_log
from federation.audit_rules import rules_for
from federation.errors import WorkspaceError
from federation.ownership import owner_of
from federation.party import verified_agreement
from federation.progress import Progress, report
from federation.versions import versions_of
from federation.witnesses import origin_of, read_optional, witness_in

__all__ = ["VerifiedParty", "has_begun", "party_directories", "verify_all", "verify_party"]


@dataclass(frozen=True)
class VerifiedParty:
    """A party's log that holds.

    Attributes:
        party: whose log.
        agreement: the contract it refers to.
        tree_size: leaves.
        root_hash: of the Merkle tree, hex.
        leaves: every leaf, in order.
        epsilon_spent: by committed charges, as the log says.
        repriced: whether every ε was held against the logged mechanisms, which needs
            `dp_accounting`.
        public_size: leaves of the last head that enough other parties cosigned; None if there is
            none.
        cosigned_by: who cosigned that head.
        withdrawn_releases: releases whose charge was refunded afterwards. A crash between the
            leaf and the sending leaves one; the log alone cannot show that nothing was sent.
        log: as an auditor takes it, with the versions of the agreement.
    """

    party: str
    agreement: Agreement
    tree_size: int
    root_hash: str
    leaves: tuple[records.Record, ...]
    epsilon_spent: float
    repriced: bool
    withdrawn_releases: int
    public_size: int | None
    cosigned_by: tuple[str, ...]
    log: PartyLog = field(compare=False, repr=False)

    @property
    def counts(self) -> Mapping[str, int]:
        """Leaves by kind."""
        return Counter(leaf.kind for leaf in self.leaves)


def party_directories(path: Path) -> tuple[Path, ...]:
    """Return the party folders meant by `path`: itself, the one around a log, or all below it.

    Raises:
        WorkspaceError: there is none.
    """
    if path.name == "log" and (path.parent / "agreement.json").is_file():
        return (path.parent,)
    if (path / "log").is_dir():
        return (path,)
    found = tuple(sorted(log.parent for log in path.glob("*/log") if log.is_dir()))
    if not path.exists():
        raise WorkspaceError(f"{path} does not exist: name a party's folder or a workspace")
    if not found:
        raise WorkspaceError(f"{path} holds no log: name a party's folder or a workspace")
    return found


def verify_all(
    paths: Sequence[Path],
) -> tuple[tuple[VerifiedParty, ...], tuple[ComplianceError, ...]]:
    """Verify every party found at `paths`, however many of them do not hold.

    Where a path is a workspace with a contract of its own, that one is verified too, and must be
    the one that each party holds.

    Returns:
        The parties whose logs hold, and what does not hold elsewhere.

    Raises:
        WorkspaceError: a path holds no log.
    """
    found: list[VerifiedParty] = []
    problems: list[ComplianceError] = []
    # First, so that a log which grows meanwhile is not found shorter than what was cosigned of it.
    every = {each for path in paths for each in party_directories(path)}
    kept = {directory: _kept_heads(directory) for directory in every}
    for path in paths:
        directories = party_directories(path)
        try:
            common = _common_agreement(path, directories)
        except ComplianceError as error:
            problems.append(error)
            common = None
        for directory in directories:
            try:
                report(Progress(owner_of(directory), "verify", "every leaf is read"))
                party = verify_party(directory)
                if common is not None and not _is_of(directory, party, common):
                    raise InvalidAgreementError(
                        f"{directory / 'agreement.json'} is another contract than "
                        f"{path / 'agreement.json'}: once all have adopted an amended version, "
                        "copy it over the workspace's"
                    )
                found.append(party)
            except ComplianceError as error:
                problems.append(error)
    for directory, heads in kept.items():
        if isinstance(heads, KeptHeads):
            problems.extend(_witnessed_otherwise(directory, heads, found))
        else:
            problems.append(heads)
    return tuple(found), tuple(problems)


def _common_agreement(path: Path, directories: Sequence[Path]) -> Agreement | None:
    """Return the contract that lies in a workspace beside the parties' folders, if any."""
    file = path / "agreement.json"
    if any(directory == path or path.name == "log" for directory in directories):
        return None
    return verified_agreement(file) if file.exists() else None


def _is_of(directory: Path, party: VerifiedParty, common: Agreement) -> bool:
    """Tell whether a party obeys the last version that names it, of those that lead to this one."""
    versions = chain(common, versions_of(directory).versions)
    left = not any(one.name == party.party for one in common.parties)
    return obeys(party.party, party.agreement, versions if left else (common,))


def has_begun(log: Path) -> bool:
    """Tell whether a log's checkpoint covers any leaf: a crash may come before the first."""
    checkpoint = log / "checkpoint"
    return checkpoint.is_file() and checkpoint.read_bytes().split(b"\n")[1:2] != [b"0"]


def verify_party(directory: Path) -> VerifiedParty:
    """Verify a party's agreement and log, offline.

    1. Every party signed the agreement that lies beside the log.
    2. The log's checkpoint is signed by the key that the agreement names for this party.
    3. Every tile and entry hashes to that checkpoint.
    4. Every leaf is of a known kind, by this party, under the version that it obeyed then.
    5. The agreement is the first leaf; each later version is one leaf, in order; nothing was
       released after the leaf of an end.
    6. The leaves keep the budget: see `_Charges`.
       Keys that a version replaced are told right after it.
    7. What is kept as its public head meets the agreement's quorum, and is a beginning of the log;
       the heads of others' logs that it keeps are signed by them and by itself.

    Raises:
        WorkspaceError: there is no agreement.
        ComplianceError: what does not hold, by file and leaf index.
    """
    agreement = verified_agreement(directory / "agreement.json")  # 1
    party = agreement.party(owner_of(directory))
    shown = read_optional(directory / "log" / "witness" / "public")  # before a log that may grow
    try:
        log = verify_log(
            directory / "log", verification_key=party.log_key, second_key=party.cosigning_key
        )  # 2, 3
        leaves = tuple(records.parse_leaf(entry) for entry in log.entries)
    except (LogError, RecordError) as error:
        raise type(error)(f"{directory / 'log'}: {error}") from error
    held = versions_of(directory).versions  # later ones leave this party out
    versions = [one for one in held if one.number <= agreement.number]
    charges = _check_leaves(directory / "log", versions, party.name, leaves)  # 4, 5, 6
    whole = PartyLog(
        party.name,
        agreement,
        leaves,
        log.entries,
        versions=Succession(versions, {}),
        head=log.signed,
        hashed=log.tree,
    )
    if untold := next(rotations(whole, rules_for(agreement, now=datetime.now(UTC))), None):
        raise LogCorruptedError(f"{directory / 'log'}: {untold.sentence}")
    public = _public_head(directory / "log", shown, whole)  # 7
    _check_witnessed(directory, agreement, party.name)
    root = log.root_hash.hex() if isinstance(log.root_hash, bytes) else log.root_hash
    return VerifiedParty(
        party=party.name,
        agreement=agreement,
        tree_size=log.tree_size,
        root_hash=root,
        leaves=leaves,
        log=whole,
        epsilon_spent=charges.epsilon_spent,
        repriced=charges.repriced,
        withdrawn_releases=charges.withdrawn_releases,
        public_size=public.checkpoint.tree_size if public else None,
        cosigned_by=tuple(public.cosigned) if public else (),
    )


def _public_head(log: Path, signed: bytes | None, whole: PartyLog) -> PublicCheckpoint | None:
    if signed is None:
        return None
    try:
        public = check_public(signed, whole.cryptoperiods)
    except LogError as error:
        raise type(error)(f"{log / 'witness' / 'public'}: {error}") from error
    if not whole.begins_with(public.checkpoint):
        raise LogCorruptedError(
            f"{log}: {', '.join(public.cosigned)} cosigned {public.checkpoint.tree_size} entries "
            "that this log does not begin with: it was rewritten, or cut short"
        )
    return public


def _check_witnessed(directory: Path, agreement: Agreement, party: str) -> None:
    if (record := witness_in(directory)) is None:
        return
    for other in agreement.parties:
        if other.name != party:
            record.last(origin_of(other))


def _kept_heads(directory: Path) -> KeptHeads | ComplianceError:
    """Read what a party keeps of others' logs, or say why it cannot be read."""
    try:
        agreement = verified_agreement(directory / "agreement.json")
        held = versions_of(directory).versions
        versions = [one for one in held if one.number <= agreement.number]
        kept = read_heads(directory / "log" / "witness", versions, owner_of(directory))
    except ComplianceError as error:
        return error
    problem = next(iter(kept.unreadable.values()), None)
    return kept if problem is None else LogCorruptedError(problem)


def _witnessed_otherwise(
    directory: Path, kept: KeptHeads, found: Sequence[VerifiedParty]
) -> Iterator[ComplianceError]:
    """Say what a party has witnessed of others' logs that contradicts them, and its evidence."""
    for other in found:
        if owner_of(directory) == other.party:
            continue
        for one in contradicted(other.log, owner_of(directory), kept):
            yield LogCorruptedError(f"{directory}: {one.sentence}")


def _check_leaves(
    log: Path, versions: Sequence[Agreement], party: str, leaves: tuple[records.Record, ...]
) -> "_Charges":
    """Replay the leaves; return the charges after the last."""
    if not leaves:
        raise LogCorruptedError(
            f"{log}: expected agreement.signed as leaf 0, got an empty log: let the party's node "
            "run again if it was cut short at its start"
        )
    charges, allowed, place = _Charges(versions[0]), set[str](), _Place(versions)
    for index, leaf in enumerate(leaves):
        problem = place.replay(leaf, index)
        if (leaf.party, leaf.agreement) != (party, place.digest):
            raise LogCorruptedError(
                f"{log}: leaf {index} is of {leaf.party} under agreement "
                f"{leaf.agreement[:16]}…; expected {party} and {place.digest[:16]}…"
            )
        if isinstance(leaf, records.AgreementSigned):
            charges.amend(place.agreement)
        charged = charges.replay(leaf)
        said = charged.text if charged else ""
        if problem := problem or said or _undecided(leaf, allowed):
            raise LogCorruptedError(f"{log}: leaf {index} ({leaf.kind}) {problem}")
    if place.agreement != versions[-1]:
        raise LogCorruptedError(
            f"{log}: it ends under version {place.agreement.number} of the agreement, and the "
            f"folder holds version {versions[-1].number}: take that over as the party"
        )
    return charges


class _Place:
    """Which version a log obeys, leaf by leaf, and whether that has ended."""

    def __init__(self, versions: Sequence[Agreement]) -> None:
        self._following = list(versions[1:])
        self._ended = False
        self.agreement = versions[0]
        self.digest = versions[0].digest

    def replay(self, leaf: records.Record, index: int) -> str:
        """Take the next leaf; say what is wrong with its place, or nothing."""
        if not isinstance(leaf, records.AgreementSigned):
            return "stands where agreement.signed must" if index == 0 else self._after_end(leaf)
        if index:
            if not self._following or leaf.agreement != self._following[0].digest:
                return "opens the log a second time"
            self.agreement = self._following.pop(0)
            self.digest, self._ended = self.agreement.digest, False
        if leaf.supersedes != self.agreement.supersedes:
            return "supersedes another version than the agreement does"
        return ""

    def _after_end(self, leaf: records.Record) -> str:
        if isinstance(leaf, records.AgreementEnded):
            if self._ended:
                return "ends the agreement a second time"
            self._ended = True
        if self._ended and isinstance(leaf, records.Release):
            return "releases under an agreement that had ended"
        return ""


def _undecided(leaf: records.Record, allowed: set[str]) -> str:
    """Say what is wrong with a release that policies did not allow just before.

    Args:
        leaf: the next one.
        allowed: releases that were allowed and have not left; kept up to date.
    """
    if isinstance(leaf, records.AccessDecided):
        (allowed.add if leaf.allowed else allowed.discard)(leaf.release_id)
    elif isinstance(leaf, records.Release):
        if leaf.release_id not in allowed:
            return "releases what no policy had allowed"
        allowed.discard(leaf.release_id)
    return ""


class _Charges(Charges):
    """The charges of a log under the rules of this package."""

    def __init__(self, agreement: Agreement) -> None:
        rules = rules_for(agreement, now=datetime.now(UTC))
        super().__init__(agreement, rules)
        self.repriced = rules.pricer.prices

    def amend(self, agreement: Agreement) -> None:
        """Go on under another version, with its routes."""
        self.continue_under(agreement, rules_for(agreement, now=datetime.now(UTC)))
