"""Find the logs that an audit is to read, in folders and at addresses, and audit them.

Guarantees: loads neither Flower nor torch, nor what a party runs; a place that cannot be read is a
finding, and no other place is left out because of it, whichever party it says that it is of: of
several places of one party each is audited, and that they are several is a finding. What parties
keep of heads is read before any log is, so that logs may grow meanwhile.

Leaves to others: the checks (`compliance.auditing`), printing (`audit_commands`).
"""

import itertools
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Final

from compliance.agreement import SignedAgreement
from compliance.auditing import (
    Excerpt,
    Finding,
    FindingKind,
    PartyLog,
    Pricer,
    Rules,
    audit_alone,
    audit_together,
)
from compliance.auditing.contract import chain, obeyed_by, obeys
from compliance.auditing.heads import KeptHeads, read_heads, witnessed
from compliance.auditing.reading import read_agreement, read_log, read_versions
from compliance.auditing.rest import held_against
from compliance.auditing.together import one_contract
from compliance.errors import InvalidAgreementError, LogCorruptedError, LogError
from compliance.lifecycle import Succession
from compliance.log.policy import Policy
from compliance.log.verifier import read_checkpoint
from compliance.terms import Role
from federation.audit_processes import Audited, Told, audit_beside, audit_here
from federation.audit_rules import rules_for
from federation.errors import WorkspaceError
from federation.log_fetching import Limits, RemoteLog
from federation.ownership import owner_of
from federation.progress import Progress, report

__all__ = ["audit_places"]

_LIMITS: Final = Limits()
_LARGE: Final = 100_000  # leaves from which on a process is worth its start


@dataclass(frozen=True)
class _Place:
    """A log that is to be read.

    Attributes:
        where: as it is called: a path or an address.
        directory: of the log, or where it is fetched to.
        party: whose the place says that it is; nothing has been verified yet.
        versions: of the contract.
        heads: what the party keeps of them.
        remote: where it is served; None if it lies in a folder.
    """

    where: str
    directory: Path
    party: str
    versions: Succession
    heads: KeptHeads
    remote: RemoteLog | None = None


def audit_places(
    places: Sequence[str],
    *,
    agreements: Sequence[Path],
    policy: Policy | None,
    scratch: Path,
    now: datetime,
    limits: Limits = _LIMITS,
) -> tuple[tuple[Excerpt, ...], tuple[Finding, ...], bool]:
    """Audit every log at `places` together.

    1. Whose log is where, under which versions of the contract, and what they keep of heads.
    2. Only then the logs themselves, each against heads and rules.
    3. All of them, against each other.

    Args:
        places: party folders, workspaces, or addresses of served logs.
        agreements: the auditor's copies of versions of the contract; earlier ones are asked of
            servers, and believed by the digest that the version after them names. Where there is
            none, those in each folder.
        policy: what makes heads public; the agreement's where None.
        scratch: an empty directory, for what is fetched.
        now: the moment of the audit, with a time zone.
        limits: what fetching one log may take.

    Returns:
        What the logs that could be read tell, the findings, and whether prices were recomputed.

    Raises:
        WorkspaceError: a path holds no log, or an address was given without an agreement.
        InvalidAgreementError: the auditor's copies do not hold, or are no succession.
    """
    own = tuple(map(read_agreement, agreements))
    if own:
        Succession.of(own)
    located, findings = _places(places, own, scratch, limits)  # 1
    logs, untaken = _logs(located)  # 2
    findings += untaken
    rules = _rules([one.versions for one in logs], now)
    if rules is None:
        return (), tuple(findings), True
    kept = [(one.party, one.heads) for one in located]
    told: list[Told] = []
    audited = _each(partial(_audited, kept=kept, policy=policy, rules=rules), logs, rules.pricer)
    for log, one_told in zip(logs, audited, strict=True):
        report(Progress(log.party, "audit", "was read by itself"))
        told.append(one_told)
    findings.extend(itertools.chain.from_iterable(found for _, found in told))
    excerpts = tuple(excerpt for excerpt, _ in told if excerpt is not None)
    findings.extend(audit_together(excerpts))  # 3
    findings = list(dict.fromkeys(findings))  # that contracts differ is said before logs are read
    return excerpts, tuple(findings), not excerpts or rules.pricer.prices


@dataclass(frozen=True)
class _Log:
    """A log that lies here.

    Attributes:
        party: whose.
        directory: of the log.
        versions: of the contract.
        public: its last public head, unverified; None if the place has none.
        where: as its place is called, where another says that it is the same party's.
    """

    party: str
    directory: Path
    versions: Succession
    public: bytes | None
    where: str | None


def _audited(
    log: _Log,
    pricer: Pricer,
    *,
    kept: Sequence[tuple[str, KeptHeads]],
    policy: Policy | None,
    rules: Rules,
) -> Audited:
    """Audit one log by itself: its files, its witnesses, its leaves.

    What it holds may make a check fail; that is said of this log, and the others are audited.
    """
    read: PartyLog | None = None
    found: tuple[Finding, ...] = ()
    try:
        read, found = read_log(log.directory, log.versions.latest, log.party, versions=log.versions)
        if read is not None:
            read, told = witnessed(read, log.public, kept, policy)
            found = (*found, *told)
            found += audit_alone(read, rules.priced_by(pricer))
        for one in [one for one in found if one.kind is FindingKind.PRUNED]:
            found += held_against(
                log.directory,
                log.party,
                log.versions.versions,
                told=one.leaves[-1],
                public=log.public,
                kept=kept,
                policy=policy,
                now=rules.now,
            )
    except Exception as error:  # noqa: BLE001  nobody's log may stop the audit of the others
        text = f"the log of {log.party} cannot be audited: a check ends in {type(error).__name__}"
        found = (*found, Finding(FindingKind.UNREADABLE, log.party, (), text))
    if log.where is not None:
        found = tuple(
            Finding(one.kind, one.party, one.leaves, f"{log.where}: {one.sentence}")
            for one in found
        )
    return read, found


def _each(
    audited: Callable[[_Log, Pricer], Audited], logs: Sequence[_Log], pricer: Pricer
) -> Iterable[Told]:
    """Audit each log; large ones beside each other, in processes of their own."""
    large = sum(_claimed_size(log.directory) for log in logs) >= _LARGE
    if not large or len(logs) < 2 or (os.cpu_count() or 1) < 2:
        return (audit_here(audited, log, pricer) for log in logs)
    return audit_beside(audited, logs, pricer)


def _claimed_size(directory: Path) -> int:
    """Return how many leaves an unverified checkpoint claims; 0 if it claims nothing."""
    try:
        return int(read_checkpoint(directory).split(b"\n")[1])
    except (LogError, IndexError, ValueError):
        return 0


def _rules(successions: Sequence[Succession], now: datetime) -> Rules | None:
    """Return the rules of every version of the contract at hand; None where there is none."""
    if not successions:
        return None
    latest = rules_for(successions[0].latest, now=now)
    every = {one.digest: one for versions in successions for one in versions.versions}
    each = {digest: rules_for(one, now=now) for digest, one in every.items()}
    return Rules(latest.computations, latest.pricer, now, latest.allowed_code, each)


def _places(
    places: Sequence[str], own: Sequence[SignedAgreement], scratch: Path, limits: Limits
) -> tuple[list[_Place], list[Finding]]:
    """Find every log that is to be read, and what is amiss before any is."""
    findings: list[Finding] = []
    located: list[_Place] = []
    for number, place in enumerate(places):
        for found in _located(place, own, scratch / str(number), limits):
            if isinstance(found, Finding):
                findings.append(found)
            else:
                located.append(found)
    findings.extend(_given_twice(located))
    findings.extend(one_contract([(one.party, one.versions.versions) for one in located]))
    return located, findings


def _logs(located: Sequence[_Place]) -> tuple[list[_Log], list[Finding]]:
    """Take every log, from where it is served too; tell which could not be taken."""
    findings: list[Finding] = []
    logs: list[_Log] = []
    twice = {party for party, number in Counter(one.party for one in located).items() if number > 1}
    for one in located:
        report(Progress(one.party, "audit", "its log is taken"))
        if (problem := _fetched(one)) is not None:
            findings.append(problem)
            continue
        where = one.where if one.party in twice else None
        logs.append(_Log(one.party, one.directory, one.versions, one.heads.public, where))
    return logs, findings


def _located(
    place: str, own: Sequence[SignedAgreement], scratch: Path, limits: Limits
) -> Iterator[_Place | Finding]:
    if place.startswith(("http://", "https://")):
        if not own:
            raise WorkspaceError(f"{place}: say with --agreement under which contract to audit it")
        yield _served(RemoteLog(place, scratch, limits=limits), own)
        return
    path = Path(place)
    if path.name == "log" and (path.parent / "agreement.json").is_file():
        path = path.parent
    folders = [path] if (path / "log").is_dir() else sorted(
        log.parent for log in path.glob("*/log") if log.is_dir()
    )  # fmt: skip
    if not folders:
        raise WorkspaceError(f"{path} holds no log: name a party's folder or a workspace")
    for folder in folders:
        yield _in_folder(folder, own)
    if folders != [path]:
        yield from _without_log(path)


def _without_log(workspace: Path) -> Iterator[Finding]:
    """Say which folders of a workspace are those of parties, and hold no log."""
    for folder in sorted(file.parent for file in workspace.glob("*/agreement.json")):
        if (folder / "log").is_dir():
            continue
        if folder.name == "enrolment" and (workspace / "coordinator.toml").exists():
            continue  # where a coordinator keeps who joins; what lies in a folder proves nothing
        try:
            name = owner_of(folder)
            role = read_versions(folder).latest.party(name).role
        except (WorkspaceError, InvalidAgreementError):
            name, role = str(folder), None
        if role is not Role.AUDITOR:
            text = f"{folder} holds no log: it was removed, or the party has not begun"
            yield Finding(FindingKind.FILE_MISSING, name, (), text)


def _in_folder(folder: Path, own: Sequence[SignedAgreement]) -> _Place | Finding:
    try:
        name = owner_of(folder)
    except WorkspaceError as error:
        return Finding(FindingKind.UNREADABLE, str(folder), (), str(error))
    try:
        held = read_versions(folder)
        versions = obeyed_by(name, held)
        if own:
            yours = Succession.of(own)
            known = (*yours.versions, *held.versions)
            if not obeys(name, versions.latest, chain(yours.latest, known)):
                text = f"{folder} holds another contract than yours"
                return Finding(FindingKind.AGREEMENT_DIFFERS, name, (), text)
    except InvalidAgreementError as error:
        return Finding(FindingKind.AGREEMENT_UNSIGNED, name, (), str(error))
    heads = read_heads(folder / "log" / "witness", versions.versions, name)
    return _Place(str(folder), folder / "log", name, versions, heads)


def _served(remote: RemoteLog, own: Sequence[SignedAgreement]) -> _Place | Finding:
    versions = Succession.of(own)
    try:
        name = remote.fetch_heads(versions.versions)
    except LogError as error:
        return Finding(FindingKind.UNREADABLE, remote.url, (), str(error))
    if name is None:
        text = f"{remote.url}: the log's name is that of no party of the agreement"
        return Finding(FindingKind.FOREIGN_ORIGIN, remote.url, (), text)
    try:
        versions = _with_earlier(remote, own, name)
    except InvalidAgreementError as error:
        text = f"{remote.url} serves another earlier version of the contract than yours: {error}"
        return Finding(FindingKind.AGREEMENT_DIFFERS, name, (), text)
    except LogError as error:
        return Finding(FindingKind.UNREADABLE, name, (), f"the log of {name}: {error}")
    heads = read_heads(remote.directory / "witness", versions.versions, name)
    return _Place(remote.url, remote.directory, name, versions, heads, remote)


def _with_earlier(remote: RemoteLog, own: Sequence[SignedAgreement], name: str) -> Succession:
    """Go back from the auditor's copies as far as the server has versions."""
    signed = list(own)
    while (first := Succession.of(signed).versions[0]).number > 1:
        if (before := remote.fetch_version(first.number - 1)) is None:
            break
        if before.unverified().digest != first.supersedes:  # a later one would prove nothing
            raise InvalidAgreementError(
                f"expected version {first.number - 1} as you hold its digest"
            )
        signed.append(before)
    return obeyed_by(name, Succession.of(signed))


def _given_twice(located: Sequence[_Place]) -> Iterator[Finding]:
    """Say of which party several places are given: at most one of them is where its log is."""
    first: dict[str, str] = {}
    for place in located:
        if (before := first.setdefault(place.party, place.where)) != place.where:
            text = (
                f"{place.where} says that its log is that of {place.party}, as {before} does: each "
                "was audited; give one of them"
            )
            yield Finding(FindingKind.GIVEN_TWICE, place.party, (), text)


def _fetched(place: _Place) -> Finding | None:
    """Fetch a log that is served; say what stands in the way."""
    if place.remote is None:
        return None
    try:
        place.remote.fetch_log(place.versions.versions, place.party)
    except LogCorruptedError:
        return None  # the reader says what is wrong with the checkpoint
    except LogError as error:
        text = f"the log of {place.party}: {error}"
        return Finding(FindingKind.UNREADABLE, place.party, (), text)
    return None
