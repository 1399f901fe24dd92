"""What an operator asks of a coordinator's runs, and its form on the coordinator's own machine.

Guarantees: the same calls, with the same answers and errors, here and from afar (`remote`). A job
that is ordered is listed in the coordinator's folder before its run is queued, however many order
at once, if the agreement, the jobs listed before it and where models stand let it run; one that is
listed already must be the same. One that charged nothing can be taken out of the list; so
can a scoring with a model that is out of use, which can end no more. Who took it out is told
(`taken_out`).

Leaves to others: who may ask (`tokens`), running (the dispatcher), states (`journal`).
"""

import fcntl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Protocol

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from compliance.agreement import Agreement
from compliance.canonical import is_unsaid
from compliance.records import JobStarted, RefusedFor
from federation.clock import utc_now
from federation.collaboration import read_document
from federation.collaboration.contradictions import job_contradictions
from federation.collaboration.mistakes import explain, overlooked, to_json
from federation.coordinator import read_jobs, write_jobs
from federation.enrolment.store import EnrolmentStore
from federation.errors import CollaborationError, RunStateError, WorkspaceError
from federation.log_reading import own_leaves
from federation.model_standing import ModelStanding, model_standings
from federation.objections import policy_objections
from federation.observing.log_counts import LogCounts
from federation.operations.folder import CoordinatorFolder
from federation.operations.journal import Lines, Run, RunJournal
from federation.operations.refused_calls import refused_calls
from federation.operations.taken_out import TakenOut, note_taken_out
from federation.party import PartyFolder
from federation.specification import Deadline, ExpandSpec, JobSpec, VerticalScoreSpec
from federation.successors import Retrainings

__all__ = ["LocalRuns", "Order", "Runs", "read_order"]


class Order(BaseModel):
    """What is to be run.

    Attributes:
        job: one job; all that have not ended where left out.
        patience_seconds: how long parties that are away are waited for, where it is not to be as
            the coordinator's settings say.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    job: JobSpec | None = None
    patience_seconds: Annotated[Deadline | None, Field(exclude_if=is_unsaid)] = None


class Runs(Protocol):
    """A coordinator's runs, as one operator may see and steer them.

    Every call may raise RunStateError, WorkspaceError, and from afar RefusedError, VersionError or
    CoordinatorUnreachableError.
    """

    @property
    def is_served(self) -> bool:
        """Whether the coordinator's process is there; without it, nothing goes on."""
        ...

    def submit(self, order: Order) -> Run:
        """Queue a run, or return the one of the same jobs that waits or goes on."""
        ...

    def all(self) -> tuple[Run, ...]:
        """Return every run, the oldest first."""
        ...

    def run(self, number: int) -> Run:
        """Return one run."""
        ...

    def lines(self, number: int, *, after: int = 0) -> Lines:
        """Return what a run told from a place on."""
        ...

    def refused(self) -> Mapping[RefusedFor, int]:
        """Return how many calls the coordinator refused so far, by the reason."""
        ...

    def models(self) -> tuple[ModelStanding, ...]:
        """Return where the models stand that trainings left."""
        ...

    def cancel(self, number: int) -> Run:
        """Have a run stop before its next message."""
        ...

    def resume(self, number: int, *, patience_seconds: int | None = None) -> Run:
        """Queue a run again that was stopped or cancelled; it waits as long as before, or as said.

        A coordinator of an earlier version has it wait as long as before: what is returned tells.
        """
        ...

    def drop(self, job: str) -> JobSpec:
        """Take a job out of the list, and return it.

        It is one for which nobody was charged, or which its model, out of use, keeps from ending.
        """
        ...


def read_order(file: Path) -> Order:
    """Read one job from a TOML file: what a collaboration file has under one `[[jobs]]`.

    Raises:
        CollaborationError: it cannot be read, or holds no job; every mistake is listed.
    """
    if not file.exists():
        told = "there is no such file: name a file (TOML) of one job, or --all for what is listed"
        raise CollaborationError(file, [told])
    job = read_document(file)
    if "jobs" in job:
        raise CollaborationError(file, ["has [[jobs]]: leave that line out, and name one job only"])
    try:
        return Order.model_validate_json(to_json({"job": job}), strict=True)
    except ValidationError as error:
        lines = [line.removeprefix("job.").removeprefix("job: ") for line in explain(error, Order)]
        raise CollaborationError(file, [*lines, *overlooked(job)]) from error


class LocalRuns:
    """The runs of a coordinator whose folder lies on this machine."""

    def __init__(self, folder: CoordinatorFolder, *, by: str) -> None:
        self._folder = folder
        self._journal = RunJournal(folder.runs)
        self._by = by

    @property
    def is_served(self) -> bool:
        """Whether a process serves the folder; see `Runs.is_served`."""
        return self._folder.is_served

    def submit(self, order: Order) -> Run:
        """Queue a run; see `Runs.submit`."""
        party = PartyFolder(self._folder.party)
        if not (party.path / "agreement.json").exists():
            EnrolmentStore(self._folder.path).check_signed()
        agreement = party.agreement()
        if order.job is None:
            read_jobs(party)
            return self._journal.submit((), by=self._by, patience_seconds=order.patience_seconds)
        _list(party, agreement, order.job)
        jobs = (order.job.name,)
        return self._journal.submit(jobs, by=self._by, patience_seconds=order.patience_seconds)

    def all(self) -> tuple[Run, ...]:
        """Return every run; see `Runs.all`."""
        return self._journal.all()

    def run(self, number: int) -> Run:
        """Return one run; see `Runs.run`."""
        return self._journal.run(number)

    def lines(self, number: int, *, after: int = 0) -> Lines:
        """Return what it told; see `Runs.lines`."""
        return self._journal.lines(number, after=after)

    def refused(self) -> Mapping[RefusedFor, int]:
        """Return how many calls were refused; see `Runs.refused`."""
        return refused_calls(self._folder, LogCounts(self._folder.party / "log"))

    def models(self) -> tuple[ModelStanding, ...]:
        """Return where models stand; see `Runs.models`."""
        party = PartyFolder(self._folder.party)
        if not (party.path / "agreement.json").exists():
            return ()
        listed = read_jobs(party) if (party.path / "jobs.json").exists() else ()
        return model_standings(party, party.agreement(), listed, utc_now())

    def cancel(self, number: int) -> Run:
        """Cancel it; see `Runs.cancel`."""
        return self._journal.cancel(number, by=self._by)

    def resume(self, number: int, *, patience_seconds: int | None = None) -> Run:
        """Resume it; see `Runs.resume`."""
        return self._journal.resume(number, by=self._by, patience_seconds=patience_seconds)

    def drop(self, job: str) -> JobSpec:
        """Take it out of the list; see `Runs.drop`."""
        party = PartyFolder(self._folder.party)
        agreement = party.agreement()
        with self._journal.held() as runs:  # so that none begins before the job is out
            for run in runs:
                may_run = run.state.is_at_work or job in run.jobs
                if may_run and not run.state.is_over:
                    raise RunStateError(
                        f"run {run.number} is {run.state} and may run job {job!r}: wait until it "
                        f"ends, or `comity cancel {run.number}` first"
                    )
            with _listing(party):
                dropped, why = _droppable(party, agreement, job)
                taken = TakenOut(job=job, at=utc_now(), by=self._by, why=why)
                note_taken_out(self._folder, taken)
                write_jobs(party, [one for one in read_jobs(party) if one.name != job])
            return dropped


def _check(party: PartyFolder, agreement: Agreement, job: JobSpec) -> None:
    """Hold a job that is not listed yet against the agreement, and those listed before it.

    Raises:
        WorkspaceError: it could never run; every mistake is listed.
    """
    listed = read_jobs(party) if (party.path / "jobs.json").exists() else ()
    if any(one.name == job.name for one in listed):
        return
    before = (*listed, *Retrainings(party, agreement).specs)
    document = {"jobs": [one.model_dump(mode="json") for one in (*before, job)]}
    place = f"jobs[{len(before)}]."
    told = [one for one in job_contradictions(document) if one.startswith(place)]
    mistakes = [one.removeprefix(place) for one in told]
    against = [*policy_objections(job, agreement)]
    if (out_of_use := Retrainings(party, agreement).objection(job, utc_now())) is not None:
        against.append(out_of_use)
    mistakes += [f"{remedy} ({term})" for term, remedy in against]
    if mistakes:
        count = f"{len(mistakes)} mistake{'' if len(mistakes) == 1 else 's'}"
        head = f"job {job.name!r}: {count}, and it was not listed"
        raise WorkspaceError("\n  ".join([head, *mistakes]))


def _droppable(party: PartyFolder, agreement: Agreement, name: str) -> tuple[JobSpec, str]:
    """Return a job that may be taken out of the coordinator's list, and why it may.

    Raises:
        WorkspaceError: it is not there, has ended, or may have been charged for and can still end;
            or another job that is listed builds on it.
    """
    listed = read_jobs(party) if (party.path / "jobs.json").exists() else ()
    job = next((one for one in listed if one.name == name), None)
    if job is None:
        raise WorkspaceError(f"no job {name!r} is listed in {party.path / 'jobs.json'}")
    if party.has_ended(name):
        raise WorkspaceError(f"job {name!r} has ended: it stays listed, and is not run again")
    out_of_use = Retrainings(party, agreement).objection(job, utc_now())
    if out_of_use is None and _may_have_charged(party, agreement, job):
        raise WorkspaceError(
            f"job {name!r} has begun, and parties may have been charged for it: it stays "
            "listed; run it to its end"
        )
    if above := [one.name for one in listed if name in one.builds_on]:
        raise WorkspaceError(f"{', '.join(above)} builds on job {name!r}: cancel that first")
    return job, "nobody was charged for it" if out_of_use is None else out_of_use[1]


def _may_have_charged(party: PartyFolder, agreement: Agreement, job: JobSpec) -> bool:
    """Tell whether a job was begun that charges anybody; scoring does so for counts alone."""
    if isinstance(job, ExpandSpec) and agreement.expand.count_epsilon is None:
        return False
    if isinstance(job, VerticalScoreSpec) or not party.log.exists():
        return False
    return any(
        isinstance(leaf, JobStarted) and leaf.job == job.name
        for leaf in own_leaves(party, agreement)
    )


@contextmanager
def _listing(party: PartyFolder) -> Iterator[None]:
    """Hold the list of jobs; one order at a time does."""
    with (party.path / "jobs.lock").open("w", encoding="ascii") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _list(party: PartyFolder, agreement: Agreement, job: JobSpec) -> None:
    """Add a job to the coordinator's list, unless it is there."""
    with _listing(party):
        _check(party, agreement, job)
        listed = read_jobs(party) if (party.path / "jobs.json").exists() else ()
        same = [one for one in listed if one.name == job.name]
        if same and same[0] != job:
            raise WorkspaceError(
                f"job {job.name!r} is listed in {party.path / 'jobs.json'} with other content: "
                "give this one another name"
            )
        if not same:
            write_jobs(party, (*listed, job))
