"""Jobs that operators took out of the coordinator's list, told in lines beside the runs.

```
FOLDER/taken-out.jsonl   a line for each: which job, when, by whom, and why it could go
```

Guarantees: a line is on disk before its job is out of the list, and stays. One whose job is listed
still was cut: it tells who tried.

Leaves to others: which job may go (`runs`).
"""

from pydantic import AwareDatetime, BaseModel, ConfigDict

from federation.errors import WorkspaceError
from federation.operations.folder import CoordinatorFolder
from federation.party import write_atomically
from federation.specification import JobName

__all__ = ["TakenOut", "note_taken_out"]


class TakenOut(BaseModel):
    """A job that somebody took out of the list.

    Attributes:
        job: its name.
        at: when.
        by: the operator's name.
        why: that it could go.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    job: JobName
    at: AwareDatetime
    by: str
    why: str


def note_taken_out(folder: CoordinatorFolder, one: TakenOut) -> None:
    """Add a line; nobody else adds one meanwhile.

    Raises:
        WorkspaceError: it cannot be written.
    """
    file = folder.taken_out
    try:
        before = file.read_bytes() if file.exists() else b""
        write_atomically(file, before + f"{one.model_dump_json()}\n".encode(), mode=0o600)
    except OSError as error:
        raise WorkspaceError(
            f"{file} cannot be written: {error.strerror}: job {one.job!r} stays listed"
        ) from error
