"""The coordinator: drives the jobs of an agreement, carries messages, averages models.

It is trusted with no personal data: it sees private updates, and of what it carries from party to
party the headers and rounded sizes; what those hold is encrypted to their recipients.

Guarantees: every answer is verified to be that party's, to that very question; a finished job is
not run again; a job that was interrupted is asked again from its start, and the parties repeat
what they had answered, or it was kept here (`exchanges`). Whoever was not there when a model was
published gets it at the next run. What it says itself goes through its own gate and log.

`coordinator` goes through the jobs of a `job_list`; each is an `execution`, which speaks with the
parties in a `conversation`; `ends` says what became of each; `owed` keeps who has yet to get a
model, and whether logs have yet to be shown.

Leaves to others: what a job says when (`jobs`), how it travels (`channel`), who is there
(`roll_call`).
"""

from federation.coordinator.coordinator import Coordinator
from federation.coordinator.job_list import jobs_in, read_jobs, write_jobs

__all__ = ["Coordinator", "jobs_in", "read_jobs", "write_jobs"]
