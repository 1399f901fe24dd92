"""Who at a party does what with each message.

Guarantees: a job stays what it was when this party answered first.

Leaves to others: matches and alignments (`matching`), training (`training`), expansion
(`expanding`), what every step needs (`desk`), the steps themselves (`jobs`), who may be used
(`population`), what may leave (`gate`), and turning failures into refusals (`node`).
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Final

from federation.approving import Approving
from federation.artefacts import check_kept
from federation.desk import Desk
from federation.erased import check_nobody_erased
from federation.errors import MessageError
from federation.expanding import Expanding
from federation.gate import Released
from federation.matching.aligning import Aligning
from federation.matching.direct import DirectMatching
from federation.matching.pairs import Matching
from federation.measuring import Measuring
from federation.messages import (
    Identify,
    JobApproved,
    Message,
    Present,
)
from federation.objections import policy_objections
from federation.party import write_atomically
from federation.retraining import Telling, check_replaces
from federation.specification import JobSpec, MatchSpec
from federation.spreading import Spreading
from federation.training.assisted_brand import AssistedBrand
from federation.training.assisting import Assisting
from federation.training.local import LocalTraining
from federation.training.publishing import Publishing
from federation.training.summing import Summing, give_up_sums
from federation.witnessing import Witnessing

__all__ = ["Work"]

_READ_ROWS: Final = frozenset({"assist", "sum", "train"})
"""What belongs to jobs that read people's columns once, and keep them while they are at work."""


class Work:
    """What a party does with one message, while it holds its folder."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._matching = Matching(desk)
        self._direct = DirectMatching(desk)
        self._aligning = Aligning(desk)
        self._expanding = Expanding(desk)

    def settle(self) -> None:
        """Take away what is left of work that is over."""
        if self._desk.clock() >= self._desk.agreement.valid_until:
            give_up_sums(self._desk.folder)
        self._matching.settle()
        self._aligning.settle()
        self._expanding.settle()

    def answer(self, message: Message) -> Released:
        """Do what a verified message on its right way to this party asks.

        Raises:
            RefusedError: a term says no.
            MessageError: the message does not fit the moment.
            PrivacyError, ConnectorError, ComplianceError: the step failed; nothing has left.
        """
        spec: JobSpec | None = getattr(message.body, "spec", None)
        check_kept(self._desk.folder, message.header.job, spec)
        if message.body.kind.partition(".")[0] in _READ_ROWS:
            check_nobody_erased(self._desk.folder, message.header.job)
        direct = isinstance(spec, MatchSpec) and spec.is_direct
        steps: Mapping[type[object], Callable[[Message], Released]] = {
            Identify: self._present,
            **Approving(self._desk).steps,
            **(self._direct.steps if direct else self._matching.steps),
            **self._aligning.steps,
            **LocalTraining(self._desk).steps,
            **Summing(self._desk).steps,
            **Publishing(self._desk).steps,
            **Witnessing(self._desk).steps,
            **Telling(self._desk).steps,
            **Spreading(self._desk).steps,
            **Assisting(self._desk).steps,
            **AssistedBrand(self._desk).steps,
            **self._expanding.steps,
            **Measuring(self._desk).steps,
        }
        step = steps.get(type(message.body))
        if step is None:
            raise MessageError(f"{message.body.kind} is an answer, and nothing was asked")
        if message.header.sender == self._desk.coordinator and message.header.answers is not None:
            raise MessageError(f"{message.body.kind} opens an exchange, and answers nothing")
        if spec is None:
            return step(message)
        if spec.name != message.header.job:
            raise MessageError(f"message of job {message.header.job!r} about {spec.name!r}")
        for term, remedy in policy_objections(spec, self._desk.agreement):
            raise self._desk.refusal(term, remedy)
        check_replaces(self._desk, spec)
        self._desk.gate.spec = spec
        with self._held_to(spec, begins=not isinstance(message.body, JobApproved)):
            return step(message)

    @contextmanager
    def _held_to(self, spec: JobSpec, *, begins: bool) -> Iterator[None]:
        """Refuse a job that changes under its name once it has begun here.

        It begins with the first answer in it; hearing who approved it begins nothing.
        """
        path = self._desk.folder.job(spec.name) / "specification.json"
        content = spec.model_dump_json().encode()
        if path.exists() and path.read_bytes() != content:
            raise MessageError(f"job {spec.name!r} is not what it was when it began here")
        yield
        if begins and not path.exists():
            give_up_sums(self._desk.folder, but=spec.name)
            write_atomically(path, content, mode=0o600)

    def _present(self, message: Message) -> Released:
        return self._desk.release(message, Present())
