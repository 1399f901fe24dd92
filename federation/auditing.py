"""Find the logs that an audit is to read, in folders and at addresses, and audit them.

Guarantees: loads neither Flower nor torch, nor what a party runs; a place that cannot be read is a
finding, and no other place is left out because of it.

Leaves to others: the checks (`compliance.auditing`), printing (`audit_commands`).
"""

from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Final

from compliance.agreement import Agreement
from compliance.auditing import Finding, FindingKind, PartyLog, Rules, audit
from compliance.auditing.reading import (
    party_of,
    read_agreement,
    read_log,
    read_versions,
    witnessed,
)
from compliance.errors import InvalidAgreementError, LogCorruptedError, LogError
from compliance.lifecycle import Succession
from compliance.log.policy import Policy
from compliance.log.verifier import FileMissingError, read_checkpoint
from federation.audit_rules import rules_for
from federation.errors import WorkspaceError
from federation.log_fetching import Limits, fetch_log
from federation.ownership import owner_of

__all__ = ["audit_places"]

_LIMITS: Final = Limits()


def audit_places(
    places: Sequence[str],
    *,
    agreement: Path | None,
    policy: Policy | None,
    scratch: Path,
    now: datetime,
    limits: Limits = _LIMITS,
) -> tuple[tuple[PartyLog, ...], tuple[Finding, ...], bool]:
    """Audit every log at `places` together.

    Args:
        places: party folders, workspaces, or addresses of served logs.
        agreement: the auditor's copy of the contract; where None, the one in each folder.
        policy: what makes heads public; the agreement's where None.
        scratch: an empty directory, for what is fetched.
        now: the moment of the audit, with a time zone.
        limits: what fetching one log may take.

    Returns:
        The logs that could be read, the findings, and whether prices were recomputed.

    Raises:
        WorkspaceError: a path holds no log, or an address was given without an agreement.
        InvalidAgreementError: the auditor's copy does not hold.
    """
    own = None if agreement is None else read_agreement(agreement)
    logs: list[PartyLog] = []
    findings: list[Finding] = []
    directories: dict[str, Path] = {}
    for number, place in enumerate(places):
        for directory, versions, name, problem in _located(
            place, own, scratch / str(number), limits
        ):
            if problem is not None or versions is None:
                findings.extend([problem] if problem else [])
                continue
            log, found = read_log(directory, versions.latest, name, versions=versions)
            findings.extend(found)
            directories[name] = directory
            logs.extend([log] if log else [])
    told, found = witnessed(logs, directories, policy)
    findings.extend(found)
    repriced = True
    if told:
        rules = rules_for(told[0].agreement, now=now)
        every = {one.digest: one for log in told for one in log.succession.versions}
        each = {digest: rules_for(one, now=now) for digest, one in every.items()}
        rules = Rules(rules.computations, rules.pricer, now, rules.allowed_code, each)
        findings.extend(audit(told, rules))
        repriced = rules.pricer.prices
    return told, tuple(findings), repriced


_Located = tuple[Path, Succession | None, str, Finding | None]


def _located(
    place: str, own: Agreement | None, scratch: Path, limits: Limits
) -> Iterator[_Located]:
    if place.startswith(("http://", "https://")):
        if own is None:
            raise WorkspaceError(f"{place}: say with --agreement under which contract to audit it")
        yield _fetched(place, own, scratch, limits)
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
        name, versions, problem = owner_of(folder), None, None
        try:
            versions = read_versions(folder)
            versions.latest.party(name)
            if own is not None and versions.latest != own:
                text = f"{folder} holds another contract than yours"
                problem = Finding(FindingKind.AGREEMENT_DIFFERS, name, (), text)
        except InvalidAgreementError as error:
            problem = Finding(FindingKind.AGREEMENT_UNSIGNED, name, (), str(error))
        yield folder / "log", versions, name, problem


def _fetched(url: str, agreement: Agreement, scratch: Path, limits: Limits) -> _Located:
    try:
        name = fetch_log(url, scratch, agreement, limits=limits)
    except LogError as error:
        corrupted = isinstance(error, LogCorruptedError)
        kind = FindingKind.BAD_SIGNATURE if corrupted else FindingKind.UNREADABLE
        whose = _whose(scratch, agreement)
        text = f"{url}: {error}" if corrupted else str(error)
        if whose is not None:
            text = f"the log of {whose}: {text}"
        return scratch, None, url, Finding(kind, whose or url, (), text)
    if name is None:
        text = f"{url}: the log's name is that of no party of the agreement"
        return scratch, None, url, Finding(FindingKind.FOREIGN_ORIGIN, url, (), text)
    return scratch, Succession((agreement,), {}), name, None


def _whose(directory: Path, agreement: Agreement) -> str | None:
    """Return whose log was being fetched, as far as it came to be known."""
    try:
        return party_of(read_checkpoint(directory), agreement)
    except FileMissingError:
        return None
