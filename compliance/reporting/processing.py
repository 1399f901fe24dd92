"""Records of processing activities: GDPR article 30(1) for controllers, 30(2) for processors.

Guarantees: every point of article 30 is answered by a term of the agreement, by figures of the
logs, or by a blank that says who has to fill it; nothing is made up. People are never added up
over uses or parties: the logs do not tell who they are, so that nobody is counted twice.

Leaves to others: verifying logs, whether a legal basis holds.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from functools import partial

from compliance import records
from compliance.agreement import Agreement, iso
from compliance.naming import named, version_of
from compliance.reporting.document import (
    Blank,
    Fact,
    Report,
    ReportKind,
    Section,
    Table,
    make_report,
)
from compliance.reporting.figures import Entry, Figure, PartyLog, by, entries_of, written
from compliance.reporting.safeguards import evidence, safeguards, warnings
from compliance.terms import Classification, Role

__all__ = [
    "agreed",
    "columns_table",
    "left_out_table",
    "processing_report",
    "purposes_table",
    "releases_table",
    "uses_table",
]

_ROLES = {
    Role.BRAND: "brings the people to be found again, and the labels",
    Role.PARTNER: "brings people and what it knows of them",
    Role.COORDINATOR: "carries messages and averages; holds no people",
    Role.AUDITOR: "reads logs",
}


def processing_report(agreement: Agreement, logs: Sequence[PartyLog], at: datetime) -> Report:
    """Write the records of processing of everybody whose log is given, as of `at` (UTC)."""
    logs = tuple(log.until(at) for log in logs)
    sections = (
        Section(
            title="Who",
            law="GDPR 30(1)(a), 30(2)(a)",
            lines=(
                Blank(
                    ask="Controllers, joint controllers and processors among the parties, and "
                    "the arrangement between them (GDPR 26, 28; PIPL 20, 21)"
                ),
            ),
            tables=(_parties(agreement),),
        ),
        Section(
            title="What for",
            law="GDPR 30(1)(b)",
            lines=(Blank(ask="Legal basis of each purpose (GDPR 6, 9; PIPL 13, 29)"),),
            tables=(purposes_table(agreement), uses_table(logs), left_out_table(logs)),
        ),
        Section(
            title="Whose data, and which",
            law="GDPR 30(1)(c)",
            lines=(
                Blank(ask="Who the people are: customers, subscribers, children"),
                Blank(ask="Whether a column tells of what GDPR 9 or PIPL 28 protects"),
            ),
            tables=(_people(agreement), columns_table(agreement)),
        ),
        Section(
            title="To whom",
            law="GDPR 30(1)(d)",
            lines=(
                Fact(text="What leaves is sealed messages: bytes of their envelopes and payloads."),
            ),
            tables=(releases_table(logs),),
        ),
        _countries(agreement),
        _duration(agreement, logs),
        _protection(agreement, logs),
        Section(
            title="What was carried out on behalf of others",
            law="GDPR 30(2)(b)",
            tables=(_jobs(logs), _incomplete(agreement, logs)),
        ),
    )
    title = "Records of processing activities"
    return make_report(ReportKind.PROCESSING, title, agreement, logs, at, sections)


def _countries(agreement: Agreement) -> Section:
    """Show the agreed regions; people know the countries."""
    return Section(
        title="To which countries",
        law="GDPR 30(1)(e), 30(2)(c); PIPL 38",
        lines=(
            *agreed(agreement, "regions"),
            Blank(
                ask="Countries in which each party and its processors keep and read data, "
                "and the safeguards of each transfer"
            ),
        ),
    )


def _duration(agreement: Agreement, logs: Sequence[PartyLog]) -> Section:
    """Show how long it is in force, and what was deleted when."""
    return Section(
        title="For how long",
        law="GDPR 30(1)(f)",
        lines=(
            Fact(
                text=f"In force from {iso(agreement.valid_from)} to before "
                f"{iso(agreement.valid_until)}.",
                term="valid_from, valid_until",
            ),
            *(
                tuple(agreed(agreement, "retention"))
                or (Blank(ask="Time limits for erasing each category of data"),)
            ),
        ),
        tables=(_deleted(logs),),
    )


def _protection(agreement: Agreement, logs: Sequence[PartyLog]) -> Section:
    """Show what the agreement asks for, and what the logs have of it."""
    return Section(
        title="How it is protected",
        law="GDPR 30(1)(g), 30(2)(d), 32(1); PIPL 51",
        lines=(
            *safeguards(agreement),
            *warnings(agreement),
            Blank(ask="Measures around the software: who has access to machines and keys"),
        ),
        tables=(evidence(logs),),
    )


def agreed(agreement: Agreement, block: str) -> Iterator[Fact]:
    """Yield the terms of a block that an agreement may have, as they stand in it."""
    found = agreement.model_dump(mode="json").get(block)
    if isinstance(found, Mapping):
        for name, value in found.items():
            yield Fact(text=f"{name.replace('_', ' ')}: {value}", term=f"{block}.{name}")
    elif found:
        yield Fact(text=f"{block}: {found}", term=block)


def purposes_table(agreement: Agreement) -> Table:
    """Return the purposes, and the computations that each of them covers."""
    blocks = ("match", "train", "expand", "measure", "vertical")
    terms = {block: getattr(agreement, block) for block in blocks}
    rows = []
    for purpose in agreement.purposes:
        covered = [
            block
            for block in blocks
            if terms[block] is not None and terms[block].purpose == purpose
        ]
        rows.append(
            (
                Fact(text=purpose, term="purposes"),
                Fact(
                    text=", ".join(covered) or "none",
                    term=", ".join(f"{block}.purpose" for block in covered),
                ),
            )
        )
    return Table(caption="Purposes", head=("purpose", "computations"), rows=tuple(rows))


def releases_table(logs: Sequence[PartyLog]) -> Table:
    """Return what left, by sender, recipient and computation."""
    groups = by(
        entries_of(logs, records.Release),
        lambda leaf: (leaf.party, leaf.recipient, leaf.computation),
    )
    rows = [
        (
            *(Fact(text=text) for text in key),
            Figure.of(len, found),
            Figure.of(lambda used: sum(one.record.charge_id is not None for one in used), found),
            Figure.of(lambda used: sum(one.record.content_bytes for one in used), found, "B"),
            Figure.of(written, found[:1]),
            Figure.of(written, found[-1:]),
        )
        for key, found in sorted(groups.items())
    ]
    head = ("from", "to", "computation", "releases", "of them charged", "length", "first", "last")
    return Table(caption="What left, and to whom", head=head, rows=tuple(rows), keys=3)


def _by_purpose(
    logs: Sequence[PartyLog],
) -> dict[tuple[str, str], list[Entry[records.ConsentUsed]]]:
    """Return every use of people, by party and purpose."""
    return by(entries_of(logs, records.ConsentUsed), lambda leaf: (leaf.party, leaf.purpose))


def _parties(agreement: Agreement) -> Table:
    rows = [
        (
            Fact(text=party.name, term="parties"),
            Fact(text=f"{party.role}: {_ROLES[party.role]}", term="parties.role"),
            Blank(ask="Full name, address and contact; representative; data protection officer"),
        )
        for party in agreement.parties
    ]
    return Table(caption="Parties", head=("party", "role", "who that is"), rows=tuple(rows))


def uses_table(logs: Sequence[PartyLog]) -> Table:
    """Return how often people were used, and how many, by party and purpose."""
    rows = [
        (
            *(Fact(text=text) for text in key),
            Figure.of(len, found, "uses"),
            Figure.of(lambda used: max(one.record.eligible for one in used), found, "people"),
            Figure.of(lambda used: used[0].record.eligible, found[-1:], "people"),
            Figure.of(lambda used: used[0].record.rows, found[-1:], "rows"),
            Figure.of(written, found[-1:]),
        )
        for key, found in sorted(_by_purpose(logs).items())
    ]
    head = ("party", "purpose", "uses", "most at once", "at the last", "of rows then", "last use")
    return Table(caption="Uses of people who had consented", head=head, rows=tuple(rows), keys=2)


def left_out_table(logs: Sequence[PartyLog]) -> Table:
    """Return the rows that were left out at the last use, by reason."""
    rows = [
        (
            Fact(text=party),
            Fact(text=purpose),
            Fact(text=reason.replace("_", " ")),
            Figure.of(partial(_excluded, reason), found[-1:], "rows"),
        )
        for (party, purpose), found in sorted(_by_purpose(logs).items())
        for reason in sorted(found[-1].record.excluded)
    ]
    head = ("party", "purpose", "reason", "rows")
    return Table(caption="Left out at the last use", head=head, rows=tuple(rows), keys=3)


def _people(agreement: Agreement) -> Table:
    rows = [
        (
            Fact(text=dataset.party, term="datasets.party"),
            Fact(text=f"about {dataset.declared_rows:,}", term="datasets.declared_rows"),
            Fact(
                text=", ".join(key.replace("_", " ") for key in dataset.identifiers),
                term="datasets.identifiers",
            ),
            Blank(ask="Categories of people"),
        )
        for dataset in agreement.datasets
    ]
    head = ("brought by", "people, as declared", "identified by", "who they are")
    return Table(caption="People", head=head, rows=tuple(rows))


def columns_table(agreement: Agreement) -> Table:
    """Return the agreed columns, most harmful first."""
    held = [("every partner", column, "features") for column in agreement.features]
    if agreement.vertical is not None:
        held += [(one.party, one, "vertical.columns") for one in agreement.vertical.columns]
    rows = [
        (
            Fact(text=party, term=term),
            Fact(text=column.name, term=term),
            Fact(text=column.type, term=term),
            Fact(text=column.classification, term=f"{term}.classification"),
        )
        for party, column, term in sorted(held, key=lambda one: _HARM[one[1].classification])
    ]
    head = ("brought by", "column", "type", "classification")
    return Table(caption="Columns, most harmful first", head=head, rows=tuple(rows), keys=2)


_HARM = {level: -place for place, level in enumerate(Classification)}


def _deleted(logs: Sequence[PartyLog]) -> Table:
    groups = by(entries_of(logs, records.ArtefactDeleted), lambda leaf: (leaf.party, leaf.artefact))
    rows = [
        (*(Fact(text=text) for text in key), Figure.of(len, found), Figure.of(_late, found))
        for key, found in sorted(groups.items())
    ]
    head = ("party", "artefact", "deleted", "of them after their time")
    return Table(caption="Deleted because their time had come", head=head, rows=tuple(rows), keys=2)


def _jobs(logs: Sequence[PartyLog]) -> Table:
    started = by(entries_of(logs, records.JobStarted), lambda leaf: (leaf.party, leaf.computation))
    ended = by(entries_of(logs, records.JobEnded), lambda leaf: (leaf.party, leaf.computation))
    rows = []
    for key in sorted({*started, *ended}):
        done = [entry for entry in ended.get(key, ()) if entry.record.outcome == "done"]
        failed = [entry for entry in ended.get(key, ()) if entry.record.outcome != "done"]
        counts = (Figure.of(len, found) for found in (started.get(key, ()), done, failed))
        rows.append((*(Fact(text=text) for text in key), *counts))
    head = ("party", "computation", "begun", "done", "failed")
    return Table(caption="Jobs", head=head, rows=tuple(rows), keys=2)


def _incomplete(agreement: Agreement, logs: Sequence[PartyLog]) -> Table:
    versions = {log.party: (*log.versions, agreement) for log in logs}

    def without(told: Sequence[Entry[records.JobEnded]]) -> str:
        last = told[-1]
        version = version_of(last.record, versions[last.party])
        return ", ".join(named(last.record.missing, version))

    ended = (one for one in entries_of(logs, records.JobEnded) if one.record.missing)
    rows = [
        (
            *(Fact(text=text) for text in key),
            Figure.of(without, found),
        )
        for key, found in sorted(
            by(ended, lambda leaf: (leaf.party, leaf.computation, leaf.job or "none")).items()
        )
    ]
    head = ("party", "computation", "job", "without")
    caption = "Jobs that went on without some partners"
    return Table(caption=caption, head=head, rows=tuple(rows), keys=3)


def _excluded(reason: str, used: Sequence[Entry[records.ConsentUsed]]) -> int:
    return used[0].record.excluded[reason]


def _late(deleted: Sequence[Entry[records.ArtefactDeleted]]) -> int:
    return sum(one.record.time > one.record.due for one in deleted)
