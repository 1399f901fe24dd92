"""Find the logs that an audit is to read, in folders and at addresses, and audit them.

Guarantees: loads neither Flower nor torch, nor what a party runs; a place that cannot be read is a
finding, and no other place is left out because of it. What parties keep of heads is read before
any log is, so that logs may grow meanwhile.

Leaves to others: the checks (`compliance.auditing`), printing (`audit_commands`).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from compliance.agreement import SignedAgreement
from compliance.auditing import Finding, FindingKind, PartyLog, Rules, audit
from compliance.auditing.heads import KeptHeads, read_heads, witnessed
from compliance.auditing.reading import read_agreement, read_log, read_versions
from compliance.errors import InvalidAgreementError, LogCorruptedError, LogError
from compliance.lifecycle import Succession
from compliance.log.policy import Policy
from federation.audit_rules import rules_for
from federation.errors import WorkspaceError
from federation.log_fetching import Limits, RemoteLog
from federation.ownership import owner_of

__all__ = ["audit_places"]

_LIMITS: Final = Limits()


@dataclass(frozen=True)
class _Place:
    """A log that is to be read.

    Attributes:
        directory: of the log, or where it is fetched to.
        party: whose.
        versions: of the contract.
        heads: what the party keeps of them.
        remote: where it is served; None if it lies in a folder.
    """

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
) -> tuple[tuple[PartyLog, ...], tuple[Finding, ...], bool]:
    """Audit every log at `places` together.

    1. Whose log is where, under which versions of the contract, and what they keep of heads.
    2. Only then the logs themselves.
    3. All of them, against heads, rules, and each other.

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
        The logs that could be read, the findings, and whether prices were recomputed.

    Raises:
        WorkspaceError: a path holds no log, or an address was given without an agreement.
        InvalidAgreementError: the auditor's copies do not hold, or are no succession.
    """
    own = tuple(map(read_agreement, agreements))
    if own:
        Succession.of(own)
    logs: list[PartyLog] = []
    findings: list[Finding] = []
    located: list[_Place] = []
    for number, place in enumerate(places):  # 1
        for found in _located(place, own, scratch / str(number), limits):
            if isinstance(found, Finding):
                findings.append(found)
            else:
                located.append(found)
    for one in located:  # 2
        problem = _fetched(one)
        if problem is not None:
            findings.append(problem)
            continue
        log, wrong = read_log(one.directory, one.versions.latest, one.party, versions=one.versions)
        findings.extend(wrong)
        logs.extend([log] if log else [])
    told, wrong = witnessed(logs, {one.party: one.heads for one in located}, policy)  # 3
    findings.extend(wrong)
    repriced = True
    if told:
        rules = rules_for(told[0].agreement, now=now)
        every = {one.digest: one for log in told for one in log.succession.versions}
        each = {digest: rules_for(one, now=now) for digest, one in every.items()}
        rules = Rules(rules.computations, rules.pricer, now, rules.allowed_code, each)
        findings.extend(audit(told, rules))
        repriced = rules.pricer.prices
    return told, tuple(findings), repriced


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


def _in_folder(folder: Path, own: Sequence[SignedAgreement]) -> _Place | Finding:
    name = owner_of(folder)
    try:
        versions = read_versions(folder)
        versions.latest.party(name)
        if own and versions.latest != Succession.of(own).latest:
            text = f"{folder} holds another contract than yours"
            return Finding(FindingKind.AGREEMENT_DIFFERS, name, (), text)
    except InvalidAgreementError as error:
        return Finding(FindingKind.AGREEMENT_UNSIGNED, name, (), str(error))
    heads = read_heads(folder / "log" / "witness", versions.versions, name)
    return _Place(folder / "log", name, versions, heads)


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
    return _Place(remote.directory, name, versions, heads, remote)


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
    versions = Succession.of(signed).versions
    named = [number for number, one in enumerate(versions) if name in {p.name for p in one.parties}]
    return Succession(versions[named[0] : named[-1] + 1], {})


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
