"""Impact assessment: GDPR article 35(7)(a) to (d), PIPL articles 55 and 56.

Guarantees: risks come with what was measured or logged of them, and with a warning where nothing
protects; likelihood, severity, necessity and consultation are blanks, since only people can judge
them.

Leaves to others: the judgement, and keeping the report for at least three years (PIPL 56).
"""

from collections.abc import Sequence
from datetime import datetime

from compliance import records
from compliance.agreement import Agreement
from compliance.reporting.budget import budget_summary
from compliance.reporting.document import (
    Blank,
    Cell,
    Fact,
    Report,
    ReportKind,
    Section,
    Table,
    Warn,
    make_report,
)
from compliance.reporting.erasure import erasure_table
from compliance.reporting.figures import Entry, Figure, PartyLog, by, entries_of
from compliance.reporting.processing import (
    columns_table,
    left_out_table,
    purposes_table,
    releases_table,
    uses_table,
)
from compliance.reporting.safeguards import evidence, safeguards, warnings

__all__ = ["impact_report"]

_UNPROTECTED = {
    "sum.exact": "Exact sums left for trainings without noise (unsafe-none): no ε holds for these "
    "models, and they may give away single people.",
    "assist.exact": "Labels left as they are (unsafe_labels): each partner of these trainings read "
    "every aligned person's label, exactly.",
}


def impact_report(agreement: Agreement, logs: Sequence[PartyLog], at: datetime) -> Report:
    """Write what a data protection impact assessment needs of agreement and logs, as of `at`."""
    logs = tuple(log.until(at) for log in logs)
    sections = (
        Section(
            title="What is done",
            law="GDPR 35(7)(a); PIPL 55",
            lines=(
                Blank(
                    ask="Why an assessment is made (GDPR 35(1), 35(3); PIPL 55), and the "
                    "legitimate interest, if one is pursued"
                ),
            ),
            tables=(
                purposes_table(agreement),
                uses_table(logs),
                columns_table(agreement),
                releases_table(logs),
            ),
        ),
        _necessity(agreement, logs, at),
        _risks(agreement, logs),
        Section(
            title="What is done about them",
            law="GDPR 35(7)(d); PIPL 56(3)",
            lines=(
                *safeguards(agreement),
                Blank(ask="Further measures, by whom and by when; why they match the risk"),
            ),
            tables=(evidence(logs),),
        ),
        _decision(at),
    )
    title = "Impact assessment (DPIA, PIA)"
    return make_report(ReportKind.IMPACT, title, agreement, logs, at, sections)


def _necessity(agreement: Agreement, logs: Sequence[PartyLog], at: datetime) -> Section:
    """Ask why less would not do, and show who was used and erased."""
    return Section(
        title="Whether it is necessary and proportionate",
        law="GDPR 35(7)(b); PIPL 56(1)",
        lines=(
            Blank(
                ask="Why the purposes are lawful and legitimate, and cannot be reached with less"
            ),
            Blank(ask="How people are told, and how they use their rights (GDPR 12 to 22)"),
        ),
        tables=(left_out_table(logs), _segments(logs), erasure_table(agreement, logs, at)),
    )


def _risks(agreement: Agreement, logs: Sequence[PartyLog]) -> Section:
    """Show what was measured or logged of risks; people judge them."""
    return Section(
        title="Risks to people",
        law="GDPR 35(7)(c); PIPL 56(2)",
        lines=(
            *warnings(agreement),
            *_happened(logs),
            Fact(
                text="Models and counts bound what anybody can learn of one person by ε; a "
                "match tells whom match.reveal says, exactly, whatever ε is."
            ),
            Fact(
                text="Protection rests on parties that follow the protocol; a party that "
                "deviates is not prevented everywhere (docs/threat-model.md)."
            ),
            Blank(
                ask="Result of comity attack on each model: an empirical ε beside the "
                "stated one; it stays at the party and is in no log"
            ),
            Blank(ask="Likelihood and severity of each risk to people, and what is left of it"),
        ),
        tables=(
            budget_summary(agreement, logs),
            _models(logs),
            _measurements(logs),
            _unprotected(logs),
        ),
    )


def _decision(at: datetime) -> Section:
    """Ask who was heard and who decided."""
    return Section(
        title="Advice, views and decision",
        law="GDPR 35(2), 35(9), 35(11), 36; PIPL 56",
        lines=(
            Blank(ask="Advice of the data protection officer"),
            Blank(ask="Views of the people concerned or their representatives"),
            Blank(ask="Whether the authority has to be consulted first"),
            Blank(ask="Decided by, on, and next review"),
            Fact(
                text="Report and records of handling are kept for at least three years (PIPL "
                f"56): of this one, not before {at.year + 3}-{at:%m-%d}."
            ),
        ),
    )


def _happened(logs: Sequence[PartyLog]) -> list[Warn]:
    """Say what left that protects nobody; its leaves are in the table of the same."""
    used = {one.record.computation for one in entries_of(logs, records.Release)}
    told = [Warn(text=text) for computation, text in _UNPROTECTED.items() if computation in used]
    if any(one.record.epsilon is None for one in entries_of(logs, records.ModelTrained)):
        told.append(Warn(text="There are models without any ε: see the table of models."))
    return told


def _unprotected(logs: Sequence[PartyLog]) -> Table:
    found = (
        one for one in entries_of(logs, records.Release) if one.record.computation in _UNPROTECTED
    )
    rows = [
        (*(Fact(text=text) for text in key), Figure.of(len, released))
        for key, released in sorted(
            by(found, lambda leaf: (leaf.party, leaf.computation, leaf.job or "")).items()
        )
    ]
    head = ("party", "computation", "job", "releases")
    return Table(caption="Left without protection", head=head, rows=tuple(rows), keys=3)


def _segments(logs: Sequence[PartyLog]) -> Table:
    groups = by(entries_of(logs, records.SegmentWritten), lambda leaf: (leaf.party, leaf.segment))
    rows = [
        (
            *(Fact(text=text) for text in key),
            Figure.of(len, found),
            Figure.of(lambda told: told[0].record.rows, found[-1:], "people"),
        )
        for key, found in sorted(groups.items())
    ]
    head = ("party", "segment", "written", "in it at the last")
    return Table(caption="People singled out into segments", head=head, rows=tuple(rows), keys=2)


def _models(logs: Sequence[PartyLog]) -> Table:
    groups = by(entries_of(logs, records.ModelTrained), lambda leaf: leaf.model_digest)
    rows: list[tuple[Cell, ...]] = [
        (
            Fact(text=found[0].record.job or "none"),
            Fact(text=_short(digest)),
            Figure.of(_promised, found),
            Figure.of(lambda told: len({one.record.party for one in told}), found, "parties"),
        )
        for digest, found in groups.items()
    ]
    head = ("job", "model (SHA-256)", "promised per person", "held by")
    return Table(caption="Models", head=head, rows=tuple(rows), keys=2)


def _short(digest: str) -> str:
    """Return the beginning of a digest, as it stands in reports; the leaf cited has all of it."""
    return f"{digest[:12]}…"


def _promised(told: Sequence[Entry[records.ModelTrained]]) -> str:
    """Return the weakest promise that any log makes of a model."""
    if any(one.record.epsilon is None for one in told):
        return "none: trained without noise"
    epsilon = max(one.record.epsilon or 0.0 for one in told)
    delta = max(one.record.delta or 0.0 for one in told)
    return f"ε = {epsilon:g} at δ = {delta:g}"


def _measurements(logs: Sequence[PartyLog]) -> Table:
    groups = by(entries_of(logs, records.MeasurementMade), lambda leaf: leaf.measurement_digest)
    rows = [
        (
            Fact(text=found[0].record.job or "none"),
            Fact(text=_short(digest)),
            Figure.of(lambda told: max(one.record.epsilon for one in told), found, "ε"),
        )
        for digest, found in groups.items()
    ]
    head = ("job", "measurement (SHA-256)", "promised per person")
    return Table(caption="Counts", head=head, rows=tuple(rows), keys=2)
