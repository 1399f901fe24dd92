"""The outcome of a run on one machine, as one page to read and one file to compute with.

Guarantees: every figure was measured in this run or read from a verified log; the page is one
file that loads nothing from anywhere; both files appear whole or not at all.

Leaves to others: running (`embedded`), judging (`evaluation`), verifying logs (`audit`).
"""

import io
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from importlib import resources
from pathlib import Path
from typing import Any, Final, Self

from pydantic import BaseModel, ConfigDict

from compliance import records
from compliance.agreement import Agreement
from compliance.naming import named, version_of
from compliance.terms import NoiseSource, Role
from federation.assumptions import assumptions_of, trusted_for_epsilon
from federation.audit import VerifiedParty
from federation.hidden_share import ToldShare
from federation.jobs.measure import Measurement
from federation.party import write_atomically
from federation.specification import JobSpec, TrainSpec
from federation.trial.evaluation import Measured, Who

__all__ = [
    "Change",
    "DegradedScores",
    "Incomplete",
    "MeasuredCounts",
    "ModelFigures",
    "PartyFigures",
    "Quality",
    "Report",
    "build_report",
    "write_report",
]


class _Closed(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Quality(_Closed):
    """How well a model ranks people; see `privacy.training.evaluation.RankingQuality`."""

    auc: float
    average_precision: float
    lift_at_5: float
    lift_at_10: float


class ModelFigures(_Closed):
    """One model, judged.

    Attributes:
        name: whose rows it saw.
        epsilon: privacy loss per person; None without privacy.
        everyone: over all eligible people of the partners.
        unseen: over those who are no seeds.
    """

    name: str
    epsilon: float | None
    everyone: Quality
    unseen: Quality


class PartyFigures(_Closed):
    """What a party's verified log says.

    Attributes:
        party: its name.
        role: its role.
        leaves: leaves of its log, by kind.
        root_hash: of its log, hex.
        rows: rows it held at its last use of people; None if it used none.
        eligible: rows used then.
        excluded: rows left out then, by reason.
        epsilon_spent: per person, by committed charges.
        charges: epsilon spent after each charge, in order.
        segment_rows: people in its segments, by job.
    """

    party: str
    role: Role
    leaves: Mapping[str, int]
    root_hash: str
    rows: int | None = None
    eligible: int | None = None
    excluded: Mapping[str, int] = {}
    epsilon_spent: float = 0.0
    charges: tuple[float, ...] = ()
    segment_rows: Mapping[str, int] = {}


class MeasuredCounts(_Closed):
    """What a measuring job counted.

    Attributes:
        measurement: as brand and coordinator keep it.
        standard_deviation: of the noise on each count.
    """

    measurement: Measurement
    standard_deviation: float


class DegradedScores(_Closed):
    """Scores that a partner's part is missing from.

    Attributes:
        job: that wrote them.
        without: partners who were away.
    """

    job: str
    without: tuple[str, ...]


class Incomplete(_Closed):
    """A job that went on without some partners, by the coordinator's log.

    Attributes:
        job: its name.
        without: partners who were missing.
    """

    job: str
    without: tuple[str, ...]


class Change(_Closed):
    """What people said between two jobs of a party, and what came of it, by its log.

    Attributes:
        party: the party.
        said: how many of each: what was said, or `erased`.
        before, after: the jobs.
        eligible_before, eligible_after: people whom each used.
    """

    party: str
    said: Mapping[str, int]
    before: str
    after: str
    eligible_before: int
    eligible_after: int


class Report(_Closed):
    """A run, told.

    Attributes:
        name: of the collaboration.
        title: the agreement's.
        agreement: its digest.
        made: when the report was made, UTC.
        seconds: wall time of the jobs; None where they had been run before.
        reproducible: whether secrets came from a known seed: then nothing here is private.
        unprotected: jobs that trained without noise: no epsilon holds for their models.
        epsilon: spent per person: the most that any party's verified log says.
        epsilon_cap: agreed, per person.
        delta: at which all of it holds.
        assumptions: what the person-level figure rests on.
        trust: who must be trusted for what.
        jobs: what was run.
        models: the joint model and its yardsticks; empty without a known truth.
        parties: what each log says.
        changes: what people said between jobs.
        measurements: counts with noise, and the standard deviation of each.
        degraded: scores of models over columns without some partners.
        incomplete: other jobs that went on without some partners.
        hidden_shares: how many people who are no seeds are positives, where a training counted.
        verify_command: verifies every log, offline.
    """

    name: str
    title: str
    agreement: str
    made: datetime
    seconds: float | None
    reproducible: bool
    unprotected: tuple[str, ...]
    epsilon: float
    epsilon_cap: float
    delta: float
    assumptions: tuple[str, ...]
    trust: tuple[str, ...]
    jobs: tuple[JobSpec, ...]
    models: tuple[ModelFigures, ...]
    parties: tuple[PartyFigures, ...]
    changes: tuple[Change, ...] = ()
    measurements: tuple[MeasuredCounts, ...] = ()
    degraded: tuple[DegradedScores, ...] = ()
    incomplete: tuple[Incomplete, ...] = ()
    hidden_shares: tuple[ToldShare, ...] = ()
    verify_command: str

    def with_results(
        self,
        measurements: Sequence[Measurement],
        degraded: Sequence[DegradedScores],
        hidden_shares: Sequence[ToldShare] = (),
    ) -> Self:
        """Return the report with what measuring, scoring and training jobs left."""
        counts = tuple(
            MeasuredCounts(measurement=one, standard_deviation=one.standard_deviation)
            for one in measurements
        )
        left = {"degraded": tuple(degraded), "hidden_shares": tuple(hidden_shares)}
        return self.model_copy(update={"measurements": counts, **left})


def build_report(
    agreement: Agreement,
    jobs: Sequence[JobSpec],
    logs: Sequence[VerifiedParty],
    measured: Sequence[Measured],
    *,
    made: datetime,
    seconds: float | None,
    reproducible: bool,
    verify_command: str,
) -> Report:
    """Gather a run's figures."""
    return Report(
        name=agreement.name,
        title=agreement.title,
        agreement=agreement.digest,
        made=made,
        seconds=seconds,
        reproducible=reproducible,
        unprotected=tuple(
            spec.name
            for spec in jobs
            if isinstance(spec, TrainSpec) and spec.noise is NoiseSource.UNSAFE_NONE
        ),
        epsilon=max((log.epsilon_spent for log in logs), default=0.0),
        epsilon_cap=agreement.budget.epsilon,
        delta=agreement.budget.delta,
        assumptions=assumptions_of(agreement),
        trust=(
            *trusted_for_epsilon(
                agreement, [spec.noise for spec in jobs if isinstance(spec, TrainSpec)]
            ),
            "For the match: both sides follow the protocol (semi-honest); see the threat model.",
            "For the proof: nobody; the logs verify offline against the signed agreement.",
            "For availability: the coordinator, which can delay or stop jobs.",
        ),
        jobs=tuple(jobs),
        models=tuple(
            ModelFigures(
                name=one.name,
                epsilon=one.epsilon,
                everyone=_quality(one.everyone),
                unseen=_quality(one.unseen),
            )
            for one in measured
        ),
        parties=tuple(_figures(log) for log in logs),
        changes=tuple(change for log in logs for change in _changes(log)),
        incomplete=tuple(
            Incomplete(
                job=leaf.job,
                without=named(leaf.missing, version_of(leaf, log.log.succession.versions)),
            )
            for log in logs
            for leaf in log.leaves
            if isinstance(leaf, records.JobEnded) and leaf.missing and leaf.job is not None
        ),
        verify_command=verify_command,
    )


def _quality(quality: object) -> Quality:
    return Quality.model_validate({name: getattr(quality, name) for name in Quality.model_fields})


def _figures(log: VerifiedParty) -> PartyFigures:
    used = [leaf for leaf in log.leaves if isinstance(leaf, records.ConsentUsed)]
    last = used[-1] if used else None
    return PartyFigures(
        party=log.party,
        role=log.agreement.party(log.party).role,
        leaves=dict(log.counts),
        root_hash=log.root_hash,
        rows=last.rows if last else None,
        eligible=last.eligible if last else None,
        excluded=last.excluded if last else {},
        epsilon_spent=log.epsilon_spent,
        charges=tuple(
            leaf.epsilon_spent for leaf in log.leaves if isinstance(leaf, records.BudgetCommitted)
        ),
        segment_rows={
            leaf.job: leaf.rows
            for leaf in log.leaves
            if isinstance(leaf, records.SegmentWritten) and leaf.job is not None
        },
    )


def _changes(log: VerifiedParty) -> Iterator[Change]:
    """Yield what was said to a party between two jobs that used people, and how many each used."""
    last: records.ConsentUsed | None = None
    said: Counter[str] = Counter()
    asked: set[str] = set()
    for leaf in log.leaves:
        if isinstance(leaf, records.ConsentRecorded):
            said[leaf.event] += 1
        elif isinstance(leaf, records.ErasureRequested) and leaf.origin == log.party:
            asked.add(leaf.request)
        elif isinstance(leaf, records.ErasureCompleted):
            said["erased"] += leaf.peer == log.party and leaf.request in asked
        elif isinstance(leaf, records.ConsentUsed) and leaf.job is not None:
            if last is not None and last.job is not None and last.job != leaf.job:
                if said.total():
                    yield Change(
                        party=log.party,
                        said=dict(+said),
                        before=last.job,
                        after=leaf.job,
                        eligible_before=last.eligible,
                        eligible_after=leaf.eligible,
                    )
                said.clear()
            last = leaf


def write_report(report: Report, measured: Sequence[Measured], *, page: Path, data: Path) -> None:
    """Write the page and the data.

    Args:
        report: from `build_report`.
        measured: for the curves, in the report's order.
        page: the HTML file.
        data: the JSON file.
    """
    import jinja2

    template = resources.files(__package__).joinpath("report.html.j2").read_text(encoding="utf-8")
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    plots = {
        "roc": _roc_plot(measured) if measured else "",
        "lift": _lift_plot(measured) if measured else "",
        "budget": _budget_plot(report),
    }
    html = environment.from_string(template).render(report=report, plots=plots)
    write_atomically(data, report.model_dump_json(indent=2).encode() + b"\n")
    write_atomically(page, html.encode())


def _figure() -> tuple[Any, Any]:
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "comity"
    mpl.rcParams["font.family"] = "DejaVu Sans"
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(5.2, 3.9), layout="constrained")
    return figure, axes


def _svg(figure: Any) -> str:
    from matplotlib import pyplot as plt

    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    plt.close(figure)
    text = buffer.getvalue()
    return text[text.index("<svg") :]


_SHOWN: Final = frozenset({Who.JOINT, Who.SUMMED, Who.NOBODY})


def _shown(measured: Sequence[Measured]) -> list[Measured]:
    """The joint model, its ceiling, and the random order: what a curve should be held against."""
    return [one for one in measured if one.who in _SHOWN]


def _label(one: Measured) -> str:
    if one.who is Who.JOINT and one.epsilon is not None:
        return f"joint, epsilon {one.epsilon:g} (AUC {one.everyone.auc:.3f})"
    names = {Who.JOINT: "joint, no privacy", Who.SUMMED: "joint, by exact sums"}
    return f"{names.get(one.who, 'random order')} (AUC {one.everyone.auc:.3f})"


def _roc_plot(measured: Sequence[Measured]) -> str:
    figure, axes = _figure()
    for one in _shown(measured):
        x, y = zip(*one.everyone.roc, strict=True)
        axes.plot(x, y, label=_label(one))
    axes.set(xlabel="false positive rate", ylabel="true positive rate", title="ROC curve")
    axes.legend(loc="lower right")
    return _svg(figure)


def _lift_plot(measured: Sequence[Measured]) -> str:
    figure, axes = _figure()
    for one in _shown(measured):
        x, y = zip(*one.everyone.lift_curve, strict=True)
        axes.plot([100 * share for share in x], y, label=_label(one))
    axes.axvline(5, color="0.7", linewidth=0.8)
    axes.set(xlabel="best-ranked share of people, %", ylabel="lift over random", title="Lift")
    axes.legend(loc="upper right")
    return _svg(figure)


def _budget_plot(report: Report) -> str:
    figure, axes = _figure()
    parties = [party for party in report.parties if party.role in (Role.BRAND, Role.PARTNER)]
    names = [party.party for party in parties]
    spent = [party.epsilon_spent for party in parties]
    axes.barh(names, spent, label="spent")
    axes.barh(
        names,
        [report.epsilon_cap - value for value in spent],
        left=spent,
        color="0.88",
        label="left",
    )
    axes.axvline(report.epsilon_cap, color="0.3", linewidth=0.8)
    axes.set(xlabel=f"epsilon per person, at delta = {report.delta:g}", title="Privacy budget")
    axes.legend(loc="lower right")
    return _svg(figure)
