"""A whole collaboration on one machine: prepare, run, judge, verify, report.

Guarantees: begun again in the same workspace it goes on where it stopped, charges nothing twice,
and ends with the same models; the report is written last, from verified logs.

Leaves to others: each of those steps (`workspace`, `embedded`, `evaluation`, `audit`, `report`).
"""

import shlex
import time
from pathlib import Path

from federation.audit import verify_party
from federation.clock import Clock, utc_now
from federation.collaboration import UNSAFE_SEED_WARNING, load_collaboration
from federation.embedded import run_embedded
from federation.progress import Progress, report
from federation.specification import TrainSpec
from federation.trial.evaluation import Measured, evaluate
from federation.trial.report import Report, build_report, write_report
from federation.trial.workspace import prepare_workspace

__all__ = ["simulate"]


def simulate(file: Path, workspace: Path, *, clock: Clock = utc_now) -> Report:
    """Run a collaboration file with all parties in this process.

    1. Check the file; make the parties' folders, keys and contract.
    2. Run the jobs that have not ended yet.
    3. Judge the last trained model, where a truth is known.
    4. Verify every party's log.
    5. Write `report.html` and `report.json` into the workspace.

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
    open_jobs = any(
        not (prepared.coordinator.job(spec.name) / "ended.json").exists()
        for spec in collaboration.jobs
    )
    begun = time.monotonic()
    run_embedded(prepared.coordinator.path, [folder.path for folder in prepared.people])  # 2
    seconds = time.monotonic() - begun if open_jobs else None
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
    )
    write_report(
        result, measured, page=workspace / "report.html", data=workspace / "report.json"
    )  # 5
    return result
