"""Find the logs that an audit is to read, in folders and at addresses, and audit them.

Guarantees: loads neither Flower nor torch, nor what a party runs; a place that cannot be read is a
finding, and no other place is left out because of it.

Leaves to others: the checks (`compliance.auditing`), printing (`audit_commands`).
"""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Final

from compliance.agreement import Agreement
from compliance.auditing import (
    Excerpt,
    Finding,
    FindingKind,
    Rules,
    audit_alone,
    audit_together,
)
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

__all__ = ["audit_places"]

_LIMITS: Final = Limits()
_LARGE: Final = 100_000  # leaves from which on a process is worth its start
_MOST_PROCESSES: Final = 8


def audit_places(
    places: Sequence[str],
    *,
    agreement: Path | None,
    policy: Policy | None,
    scratch: Path,
    now: datetime,
    limits: Limits = _LIMITS,
) -> tuple[tuple[Excerpt, ...], tuple[Finding, ...], bool]:
    """Audit every log at `places` together.

    Args:
        places: party folders, workspaces, or addresses of served logs.
        agreement: the auditor's copy of the contract; where None, the one in each folder.
        policy: what makes heads public; the agreement's where None.
        scratch: an empty directory, for what is fetched.
        now: the moment of the audit, with a time zone.
        limits: what fetching one log may take.

    Returns:
        What the logs that could be read tell, the findings, and whether prices were recomputed.

    Raises:
        WorkspaceError: a path holds no log, or an address was given without an agreement.
        InvalidAgreementError: the auditor's copy does not hold.
    """
    own = None if agreement is None else read_agreement(agreement)
    findings: list[Finding] = []
    at_hand: dict[str, _AtHand] = {}
    for number, place in enumerate(places):
        for directory, versions, name, problem in _located(
            place, own, scratch / str(number), limits
        ):
            if problem is not None or versions is None:
                findings.extend([problem] if problem else [])
            else:
                at_hand[name] = _AtHand(name, directory, versions)
    rules = _rules(tuple(one.versions for one in at_hand.values()), now)
    if rules is None:
        return (), tuple(findings), True
    directories = {name: one.directory for name, one in at_hand.items()}
    one_log = partial(_audited, directories=directories, policy=policy, rules=rules)
    told = list(_each(one_log, tuple(at_hand.values())))
    findings.extend(chain.from_iterable(found for _, found in told))
    excerpts = tuple(excerpt for excerpt, _ in told if excerpt is not None)
    findings.extend(audit_together(excerpts))
    return excerpts, tuple(findings), not excerpts or rules.pricer.prices


@dataclass(frozen=True)
class _AtHand:
    """A log that can be read, and the versions of its contract."""

    party: str
    directory: Path
    versions: Succession


_Told = tuple[Excerpt | None, tuple[Finding, ...]]


def _audited(
    log: _AtHand, *, directories: dict[str, Path], policy: Policy | None, rules: Rules
) -> _Told:
    """Audit one log by itself: its files, its witnesses, its leaves."""
    latest = log.versions.latest
    read, unread = read_log(log.directory, latest, log.party, versions=log.versions)
    if read is None:
        return None, unread
    (known,), found = witnessed([read], directories, policy)
    return Excerpt.of(known), (*found, *audit_alone(known, rules))


def _each(audited: Callable[[_AtHand], _Told], logs: Sequence[_AtHand]) -> Iterable[_Told]:
    """Audit each log; large ones beside each other, in processes of their own."""
    large = sum(_claimed_size(log.directory) for log in logs) >= _LARGE
    if not large or len(logs) < 2 or (os.cpu_count() or 1) < 2:
        return map(audited, logs)
    with ProcessPoolExecutor(min(len(logs), _MOST_PROCESSES)) as processes:
        return list(processes.map(audited, logs))


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
        name, versions, problem = folder.resolve().name, None, None
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
