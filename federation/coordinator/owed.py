"""What a coordinator has yet to do though its job has ended: models to hand over, heads to show.

```
COORDINATOR/jobs/JOB/owed.json   who has yet to get the model: they were not there then
COORDINATOR/unshown              logs have grown by a job, which it names, and have yet to be shown;
                                 and how often that was begun
```
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from pydantic import TypeAdapter

from federation.coordinator.conversation import Conversation
from federation.jobs.exchange import Say
from federation.messages import Acknowledged, ModelPublished
from federation.party import PartyFolder, write_atomically
from federation.progress import Progress, report
from federation.specification import JobSpec, TrainSpec

__all__ = ["OwedHeads", "OwedModels"]

MOST_ATTEMPTS: Final = 3
"""What is cut, or not answered, as often waits for the next job."""

_NAMES = TypeAdapter(tuple[str, ...])


class OwedHeads:
    """Whether parties' logs have yet to be shown to their witnesses; kept on disk."""

    def __init__(self, folder: PartyFolder) -> None:
        self._path = folder.path / "unshown"

    @property
    def job(self) -> str | None:
        """The job by which logs have grown; None where all were shown."""
        return self._read()[0] if self._path.exists() else None

    def owe(self, job: str) -> None:
        """Write down, before a job begins, that logs will have to be shown."""
        write_atomically(self._path, job.encode())

    def begin(self) -> None:
        """Write down that they are being shown, so that nobody shows them for ever."""
        job, times = self._read()
        attempt = int(times or 0) + 1
        if attempt < MOST_ATTEMPTS:
            write_atomically(self._path, f"{job} {attempt}".encode())
        else:
            self.settle()

    def settle(self) -> None:
        """Write down that they were shown to everybody who is there."""
        self._path.unlink(missing_ok=True)

    def _read(self) -> tuple[str, str]:
        job, _, times = self._path.read_text(encoding="ascii").partition(" ")
        return job, times


class OwedModels:
    """The models that a coordinator owes, written down beside their jobs."""

    def __init__(self, folder: PartyFolder) -> None:
        self._folder = folder

    def owing(self, listed: Sequence[JobSpec]) -> Mapping[TrainSpec, frozenset[str]]:
        """Return who has yet to get the model, not retired since, of which training that ended."""
        found = {}
        for spec in listed:
            owed = self._path(spec)
            if self._folder.retired(spec.name).exists():
                continue
            if isinstance(spec, TrainSpec) and self._folder.has_ended(spec.name) and owed.exists():
                found[spec] = frozenset(_NAMES.validate_json(owed.read_bytes()))
        return found

    def owe(self, spec: JobSpec, names: frozenset[str]) -> None:
        """Write down who has yet to get a model."""
        path = self._path(spec)
        if names:
            write_atomically(path, _NAMES.dump_json(tuple(sorted(names))))
            told = f"{', '.join(sorted(names))} will get the model at a later run"
            report(Progress(self._folder.name, spec.name, told))
        else:
            path.unlink(missing_ok=True)

    def hand_over(self, conversation: Conversation, listed: Sequence[JobSpec]) -> None:
        """Give models to those who are back, and were not there when these were published."""
        for spec, owed in self.owing(listed).items():
            body, model = ModelPublished(spec=spec), self._folder.model(spec.name).read_bytes()
            back = sorted(owed & conversation.nodes.keys())
            outgoing = [Say(name, spec.name, body, model) for name in back]
            answers = conversation.exchange(outgoing, most_missing=len(outgoing))
            took = set()
            for one in answers:
                if isinstance(one.body, Acknowledged):
                    took.add(one.header.sender)
                else:
                    told = f"{one.header.sender} refuses the model: its log says why"
                    report(Progress(self._folder.name, spec.name, told))
            if took:
                self.owe(spec, owed - took)

    def _path(self, spec: JobSpec) -> Path:
        return self._folder.job(spec.name) / "owed.json"
