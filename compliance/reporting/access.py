"""Access review: what policies decided, by which clause; what was refused; what rules changed.

Guarantees: every decision and every refusal of the logs is counted once, and policies are told
apart by their digests, in the order in which they were used.

Leaves to others: what a policy says (its party keeps the text), deciding (`compliance.policy`).
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from itertools import groupby

from compliance import records
from compliance.agreement import Agreement
from compliance.records.leaf import Leaf
from compliance.reporting.document import (
    Blank,
    Cell,
    Fact,
    Report,
    ReportKind,
    Section,
    Table,
    make_report,
)
from compliance.reporting.figures import Entry, Figure, PartyLog, by, entries_of, written

__all__ = ["access_report"]

_Changes = Mapping[tuple[str, str], Sequence[Entry[Leaf]]]


def access_report(agreement: Agreement, logs: Sequence[PartyLog], at: datetime) -> Report:
    """Write who was allowed what until `at` (UTC), and by which rule."""
    logs = tuple(log.until(at) for log in logs)
    sections = (
        Section(
            title="Decisions",
            lines=(Fact(text="No clause: no permit of the agreement covers it."),),
            tables=(_decisions(logs),),
        ),
        Section(
            title="Refusals",
            lines=(Fact(text="Each with the smallest change that would pass, as the log says."),),
            tables=(_refusals(logs),),
        ),
        Section(
            title="Rules that changed",
            lines=(
                Fact(text="Logs have digests of policies; each party shows the text on request."),
            ),
            tables=(_policies(logs), _people_and_code(logs)),
        ),
        Section(
            title="Review",
            lines=(
                Blank(ask="Whether each permission is still needed"),
                Blank(ask="Reviewed by, on, and next review"),
            ),
        ),
    )
    return make_report(ReportKind.ACCESS, "Access review", agreement, logs, at, sections)


def _decisions(logs: Sequence[PartyLog]) -> Table:
    groups = by(
        entries_of(logs, records.AccessDecided),
        lambda leaf: (
            leaf.party,
            leaf.recipient,
            leaf.computation,
            "allowed" if leaf.allowed else "forbidden",
            ", ".join(leaf.clauses) or "no clause",
        ),
    )
    rows = [
        (*(Fact(text=text) for text in key), Figure.of(len, found))
        for key, found in sorted(groups.items())
    ]
    head = ("from", "to", "computation", "decision", "by clause", "times")
    return Table(caption="Decided by policies", head=head, rows=tuple(rows), keys=5)


def _refusals(logs: Sequence[PartyLog]) -> Table:
    groups = by(
        entries_of(logs, records.Refusal),
        lambda leaf: (leaf.party, leaf.computation, leaf.term, leaf.remedy),
    )
    rows = [
        (*(Fact(text=text) for text in key), Figure.of(len, found))
        for key, found in sorted(groups.items())
    ]
    head = ("party", "computation", "term", "remedy", "times")
    return Table(caption="Refused by terms", head=head, rows=tuple(rows), keys=4)


def _policies(logs: Sequence[PartyLog]) -> Table:
    rows = []
    for log in logs:
        decided = entries_of([log], records.AccessDecided)
        for digest, run in groupby(decided, lambda one: one.record.policy_digest):
            found = list(run)
            rows.append(
                (
                    Fact(text=log.party),
                    Figure.of(written, found),
                    Fact(text=digest),
                    Figure.of(lambda used: used[-1].record.time, found),
                    Figure.of(len, found),
                )
            )
    head = ("party", "first used", "policies (SHA-256)", "last used", "decisions")
    return Table(caption="Policies in force", head=head, rows=tuple(rows), keys=3)


def _people_and_code(logs: Sequence[PartyLog]) -> Table:
    approvals = by(entries_of(logs, records.ApprovalReceived), _approver)
    keys = by(entries_of(logs, records.KeyRotated), _key)
    code = by(entries_of(logs, records.CodeReleased), _code)
    notices = by(entries_of(logs, records.AgreementEnded), _ended)
    rows = (
        *_changes("approval", approvals),
        *_changes("key rotated", keys),
        *_changes("code", code),
        *_changes("agreement ended", notices),
    )
    head = ("party", "what", "which", "leaves")
    return Table(caption="Approvals, keys, code and notices", head=head, rows=rows, keys=3)


def _changes(what: str, groups: _Changes) -> Iterator[tuple[Cell, ...]]:
    for (party, name), found in sorted(groups.items()):
        yield Fact(text=party), Fact(text=what), Fact(text=name), Figure.of(len, found)


def _approver(leaf: records.ApprovalReceived) -> tuple[str, str]:
    return leaf.party, f"{leaf.of_party}: {leaf.approver}"


def _key(leaf: records.KeyRotated) -> tuple[str, str]:
    return leaf.party, leaf.key


def _code(leaf: records.CodeReleased) -> tuple[str, str]:
    return leaf.party, f"{leaf.package} {leaf.package_version}, {leaf.code_digest}"


def _ended(leaf: records.AgreementEnded) -> tuple[str, str]:
    return leaf.party, f"{leaf.ended_by}: {leaf.reason}"
