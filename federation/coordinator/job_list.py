"""The jobs that a coordinator is to run, in order."""

from collections.abc import Sequence
from pathlib import Path

from pydantic import ConfigDict, TypeAdapter, ValidationError

from compliance.errors import describe
from federation.errors import WorkspaceError
from federation.party import PartyFolder, write_atomically
from federation.specification import JobSpec

__all__ = ["jobs_in", "read_jobs", "write_jobs"]

_JOBS = TypeAdapter(tuple[JobSpec, ...], config=ConfigDict(hide_input_in_errors=True))


def read_jobs(folder: PartyFolder) -> tuple[JobSpec, ...]:
    """Return the jobs that the coordinator's folder lists, in order.

    Raises:
        WorkspaceError: there is no list, or it is malformed.
    """
    return jobs_in(folder.path / "jobs.json")


def jobs_in(file: Path) -> tuple[JobSpec, ...]:
    """Return the jobs that a file lists, in order.

    Raises:
        WorkspaceError: there is no list, or it is malformed.
    """
    try:
        return _JOBS.validate_json(file.read_bytes())
    except FileNotFoundError as error:
        raise WorkspaceError(f"{file} is missing: it lists the jobs to run") from error
    except ValidationError as error:
        raise WorkspaceError(
            f"{file}: {error.error_count()} mistakes: {describe(error)}"
        ) from error


def write_jobs(folder: PartyFolder, jobs: Sequence[JobSpec]) -> None:
    """List the jobs to run in the coordinator's folder."""
    write_atomically(folder.path / "jobs.json", _JOBS.dump_json(tuple(jobs), indent=2) + b"\n")
