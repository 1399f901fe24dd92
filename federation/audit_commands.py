"""The command `comity audit`: all parties' logs held against the contract and each other.

Guarantees: runs with what `pip install comity` brings; trusts no folder and no server.

Leaves to others: the checks (`compliance.auditing`).
"""

import tempfile
from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from federation.terminal import JsonFlag, answer, counted

if TYPE_CHECKING:
    from compliance.agreement import Agreement
    from compliance.auditing import Excerpt, Finding

__all__ = ["audit_command"]


def audit_command(
    places: Annotated[
        list[str],
        typer.Argument(metavar="DIR|URL…", help="Party folders, workspaces, or served logs."),
    ],
    policy: Annotated[
        Path | None,
        typer.Option("--policy", help="Whose cosignatures count (C2SP tlog-policy)."),
    ] = None,
    agreement: Annotated[
        list[Path] | None,
        typer.Option(
            "--agreement",
            help="Your own copy of the contract; needed for addresses. Once for each version.",
        ),
    ] = None,
    as_json: JsonFlag = False,
    seconds: Annotated[
        float, typer.Option("--seconds", min=1, help="Most that fetching one log may take.")
    ] = 600,
    megabytes: Annotated[
        int, typer.Option("--megabytes", min=1, help="Most that is fetched of one log.")
    ] = 1000,
) -> None:
    """Audit all parties' logs together; leaves with 1 on any finding.

    Example: comity audit out/demo
    """
    from compliance.log.policy import Policy
    from compliance.log.verifier import read_regular
    from federation.auditing import audit_places
    from federation.log_fetching import Limits
    from federation.watch import watched

    trusted = None if policy is None else Policy.parse(read_regular(policy, 1 << 20))
    with tempfile.TemporaryDirectory() as scratch, watched():
        logs, findings, repriced = audit_places(
            places,
            agreements=agreement or (),
            policy=trusted,
            scratch=Path(scratch),
            now=datetime.now(UTC),
            limits=Limits(seconds, megabytes * 1_000_000),
        )
    document, lines = _told(logs, findings, repriced=repriced)
    answer(document, *lines, as_json=as_json)
    if findings:
        raise typer.Exit(1)


def _told(
    logs: "Sequence[Excerpt]", findings: "Sequence[Finding]", *, repriced: bool
) -> tuple[dict[str, object], list[str]]:
    """Return what is answered: the document, and the lines that say the same."""
    parties = {log.party for log in logs}
    unread = sorted({one.party for one in findings} - parties)
    unseen = sorted(_with_logs(log.agreement for log in logs) - parties - set(unread))
    approved = {job: sorted(people) for job, people in sorted(_approved(logs).items())}
    document: dict[str, object] = {
        "logs": [
            {
                "party": log.party,
                "agreement": log.agreement.digest,
                "leaves": log.tree_size,
                "public_size": log.public_size,
                "cosigned_by": log.cosigned_by,
            }
            for log in logs
        ],
        "unread": unread,
        "not_looked_at": unseen,
        "approved": approved,
        "repriced": repriced,
        "findings": findings,
    }
    read = ", ".join(f"{log.party} ({log.tree_size} leaves)" for log in logs)
    lines = [f"{one.kind.value}: {one.sentence}" for one in findings]
    lines.append(f"{counted(len(findings), 'finding')}; read: {read or 'no log'}")
    lines += [f"approved: {job} by {', '.join(people)}" for job, people in approved.items()]
    if unread:
        lines.append(f"{', '.join(unread)} could not be read; checks that need it were not made")
    if unseen:
        lines.append(f"not looked at: {', '.join(unseen)}")
    if not repriced:
        lines.append("prices were not recomputed, which needs the `node` extra")
    return document, lines


def _approved(logs: "Iterable[Excerpt]") -> dict[str, set[str]]:
    """Return who approved which job."""
    from compliance.records import ApprovalReceived

    approved: dict[str, set[str]] = defaultdict(set)
    for log in logs:
        for _, leaf in log.each(ApprovalReceived):
            approved[leaf.job or "–"].add(f"{leaf.approver} of {leaf.of_party}")
    return approved


def _with_logs(agreements: "Iterable[Agreement]") -> set[str]:
    """Return the parties that keep logs, which auditors do not."""
    from compliance.terms import Role

    return {
        party.name
        for agreement in agreements
        for party in agreement.parties
        if party.role is not Role.AUDITOR
    }
