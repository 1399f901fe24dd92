"""What became of the jobs of one run.

Guarantees: a job that is refused, or needs a party of another version, keeps nothing from being run
but what builds on it; each failure is told with its reason where it happens, and at the end which
jobs ended all the same; then the first refusal is raised, unless something else stopped the run.

Leaves to others: running them (`coordinator`), and what an error says.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from federation.coordinator.conversation import Conversation
from federation.errors import FederationError, RefusedError, RunCancelledError, VersionError
from federation.messages import printable
from federation.roll_call import ROLL_CALL
from federation.specification import JobSpec

__all__ = ["Ends", "run_ends"]

_MOST_TOLD: Final = 20


class Ends:
    """Which jobs of a run ended, which were refused, and which were not run for that."""

    def __init__(self, talk: Conversation) -> None:
        self._talk = talk
        self._ended: list[str] = []
        self._refused: dict[str, RefusedError | VersionError] = {}
        self._barred: list[str] = []

    @property
    def first(self) -> RefusedError | VersionError | None:
        """The first refusal."""
        return next(iter(self._refused.values()), None)

    @contextmanager
    def of(self, spec: JobSpec) -> Iterator[None]:
        """Note that a job ended, or tell why not; a refusal is told by `refuse`."""
        try:
            yield
        except RunCancelledError:
            self._talk.tell(spec.name, "was cancelled")
            raise
        except (RefusedError, VersionError):
            raise
        except FederationError as error:
            self._talk.tell(spec.name, printable(f"has failed: {error}"))
            raise
        self._ended.append(spec.name)

    def refuse(self, job: str, refusal: RefusedError | VersionError) -> None:
        """Note that a job was refused, and tell why."""
        self._refused[job] = refusal
        self._talk.tell(job, printable(f"has failed: {refusal}"))

    def bars(self, spec: JobSpec) -> bool:
        """Tell whether a job cannot be run, as it builds on one that was not; and say so."""
        missing = spec.builds_on & {*self._refused, *self._barred}
        if missing:
            self._barred.append(spec.name)
            names = ", ".join(sorted(missing))
            self._talk.tell(spec.name, f"is not run: it builds on {names}, which has not ended")
        return bool(missing)

    def tell(self) -> None:
        """Say which jobs ended and which did not, where there is more to say than of one."""
        parts = {"ended": self._ended, "refused": [*self._refused], "not run": self._barred}
        if sum(len(names) for names in parts.values()) > 1:
            told = [f"{what}: {_listed(names)}" for what, names in parts.items() if names]
            self._talk.tell(ROLL_CALL, "; ".join(told))


@contextmanager
def run_ends(talk: Conversation) -> Iterator[Ends]:
    """Yield what becomes of a run's jobs, and say it where the run does not end well.

    Raises:
        RefusedError, VersionError: the first refusal of a job.
    """
    ends = Ends(talk)
    try:
        yield ends
    except RunCancelledError:
        raise
    except FederationError:
        ends.tell()
        raise
    if ends.first is not None:
        ends.tell()
        raise ends.first


def _listed(names: list[str]) -> str:
    """Return names for a line."""
    more = len(names) - _MOST_TOLD
    return ", ".join(names[:_MOST_TOLD]) + (f" and {more} more" if more > 0 else "")
