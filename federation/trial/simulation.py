"""A whole collaboration on one machine: prepare, run, judge, verify, report.

Guarantees: begun again in the same workspace it goes on where it stopped, charges nothing twice,
and ends with the same models; the report is written last, from verified logs.

Leaves to others: each of those steps (`workspace`, `embedded`, `evaluation`, `audit`, `report`).
"""

import shlex
import time
from collections.abc import Sequence
from pathlib import Path

from compliance.terms import Role
from federation.audit import verify_party
from federation.clock import Clock, utc_now
from federation.collaboration import UNSAFE_SEED_WARNING, load_collaboration
from federation.embedded import run_embedded
from federation.hidden_share import ToldShare
from federation.jobs.measure import Measurement
from federation.jobs.model import JointModel
from federation.party import PartyFolder
from federation.progress import Progress, report
from federation.specification import JobSpec, MeasureSpec, TrainSpec, VerticalScoreSpec
from federation.trial.evaluation import Measured, evaluate
from federation.trial.report import DegradedScores, Report, build_report, write_report
from federation.trial.scene import play
from federation.trial.workspace import Workspace, prepare_workspace

__all__ = ["degraded_scores", "hidden_shares", "simulate"]


def simulate(
    file: Path, workspace: Path, *, clock: Clock = utc_now, with_scene: bool = False
) -> Report:
    """Run a collaboration file with all parties in this process.

    1. Check the file; make the parties' folders, keys and contract.
    2. Run the jobs that have not ended yet.
    3. Judge the last trained model, where a truth is known.
    4. Verify every party's log.
    5. Write `report.html` and `report.json` into the workspace.

    Args:
        file: the collaboration file.
        workspace: where the parties' folders and the report go.
        clock: the time.
        with_scene: whether two people speak between the jobs, see `scene`.

    Raises:
        CollaborationError: the file has mistakes.
        WorkspaceError: the workspace holds something else.
        RefusedError: a term of the agreement says no.
        FederationError, PrivacyError, ConnectorError, ComplianceError: what else went wrong.
    """
    collaboration = load_collaboration(file)
    if collaboration.unsafe_seed is not None:
        report(Progress(collaboration.name, "agree", UNSAFE_SEED_WARNING))
    prepared = prepare_workspace(collaboration, file, workspace)  # 1
    report(Progress(collaboration.name, "agree", "every party has signed the agreement"))
    seconds = _run(prepared, collaboration.jobs, clock, with_scene=with_scene)  # 2
    trained = [spec for spec in collaboration.jobs if isinstance(spec, TrainSpec)]
    measured: tuple[Measured, ...] = ()
    if collaboration.evaluate is not None and trained:  # 3
        measured = evaluate(
            prepared,
            trained[-1],
            collaboration.evaluate,
            file.parent,
            clock=clock,
            unsafe_seed=collaboration.unsafe_seed,
        )
    logs = [verify_party(folder.path) for folder in prepared.folders if folder.log.is_dir()]  # 4
    result = build_report(
        prepared.agreement,
        collaboration.jobs,
        logs,
        measured,
        made=clock(),
        seconds=seconds,
        reproducible=collaboration.unsafe_seed is not None,
        verify_command=f"comity log verify {shlex.quote(str(workspace))}",
    ).with_results(
        _measurements(prepared, collaboration.jobs),
        degraded_scores(prepared, collaboration.jobs),
        hidden_shares(trained, prepared.coordinator),
    )
    page, data = workspace / "report.html", workspace / "report.json"
    write_report(result, measured, page=page, data=data)  # 5
    return result


def _run(
    prepared: Workspace, jobs: Sequence[JobSpec], clock: Clock, *, with_scene: bool
) -> float | None:
    """Run the jobs; return how many seconds that took, or None where all had ended before."""
    is_open = not all(prepared.coordinator.has_ended(spec.name) for spec in jobs)
    begun = time.monotonic()
    if with_scene:
        play(prepared, jobs, clock=clock)
    else:
        run_embedded(prepared.coordinator.path, [folder.path for folder in prepared.people])
    return time.monotonic() - begun if is_open else None


def _measurements(prepared: Workspace, jobs: Sequence[JobSpec]) -> list[Measurement]:
    files = (
        prepared.coordinator.measurement(spec.name)
        for spec in jobs
        if isinstance(spec, MeasureSpec)
    )
    return [Measurement.model_validate_json(file.read_bytes()) for file in files if file.exists()]


def hidden_shares(jobs: Sequence[TrainSpec], coordinator: PartyFolder) -> tuple[ToldShare, ...]:
    """Tell the hidden shares of trainings whose models the coordinator keeps."""
    kept = [(spec, coordinator.model(spec.name)) for spec in jobs]
    told = (
        ToldShare.of(
            JointModel.model_validate_json(file.read_bytes()), coordinator.agreement(), spec
        )
        for spec, file in kept
        if file.exists()
    )
    return tuple(one for one in told if one is not None)


def degraded_scores(prepared: Workspace, jobs: Sequence[JobSpec]) -> list[DegradedScores]:
    """Say which scores some partners' parts are missing from, as the brand settled it."""
    partners = [folder.name for folder in prepared.partners]
    (brand,) = (one for one in prepared.people if one.config.role is Role.BRAND)
    found = []
    for spec in jobs:
        scored_by = brand.job(spec.name) / "scored-by"
        if isinstance(spec, VerticalScoreSpec) and scored_by.exists():
            there = scored_by.read_text(encoding="ascii").split()
            if without := tuple(name for name in partners if name not in there):
                found.append(DegradedScores(job=spec.name, without=without))
    return found
