"""The coordinator: drives the jobs of an agreement, carries messages, averages models.

It is trusted with no personal data: it sees private updates, and of what it carries from party to
party the headers and rounded sizes; what those hold is encrypted to their recipients.

Guarantees: every answer is verified to be that party's, to that very question; a finished job is
not run again; a job that was interrupted is asked again from its start, and the parties repeat
what they had answered. What it says itself goes through its own gate and log.

Leaves to others: what a job says when (`jobs`), how it travels (`channel`).
"""

import json
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import Self

from pydantic import ConfigDict, TypeAdapter, ValidationError

from compliance import records
from compliance.agreement import Agreement
from compliance.errors import describe
from compliance.log.writer import LogWriter
from compliance.terms import NoiseSource, Role
from federation.channel import Channel, Parcel
from federation.clock import Clock, utc_now
from federation.errors import (
    FederationError,
    MessageError,
    PartyUnreachableError,
    RefusedError,
    WorkspaceError,
)
from federation.gate import Departure, Gate
from federation.jobs.align import coordinate_align
from federation.jobs.assist import coordinate_columns
from federation.jobs.exchange import Exchange, Outgoing, Relay, Tolerant, expect
from federation.jobs.expand import coordinate_expand
from federation.jobs.match import coordinate_match
from federation.jobs.match_direct import coordinate_direct
from federation.jobs.model import JointModel
from federation.jobs.sums import coordinate_sums
from federation.jobs.train import coordinate_train
from federation.messages import (
    EVERYONE,
    Identify,
    Message,
    Present,
    Refused,
    SealedMessage,
    SumAsk,
    unseal,
)
from federation.party import PartyFolder, locked, write_atomically
from federation.population import encoder_for
from federation.progress import Progress, report
from federation.routes import off_route
from federation.specification import (
    AlignSpec,
    JobSpec,
    MatchSpec,
    TrainSpec,
    VerticalScoreSpec,
    VerticalTrainSpec,
    policy_objections,
)

__all__ = ["Coordinator", "read_jobs", "write_jobs"]

ROLL_CALL = "roll-call"
"""What the question to all nodes is filed under, which belongs to no job."""

_JOBS = TypeAdapter(tuple[JobSpec, ...], config=ConfigDict(hide_input_in_errors=True))

_ABSENCES = TypeAdapter(tuple[tuple[str, ...], ...])

Job = Generator[Exchange, Sequence[Message], JointModel | None]


def read_jobs(folder: PartyFolder) -> tuple[JobSpec, ...]:
    """Return the jobs that the coordinator's folder lists, in order.

    Raises:
        WorkspaceError: there is no list, or it is malformed.
    """
    file = folder.path / "jobs.json"
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


class Absences:
    """Who was missing in which tolerant exchange of a job, so that a repeated run is the same.

    What parties answered once they repeat, and only that: whoever was left out stays so, and
    whoever was there must be there again.
    """

    def __init__(self, directory: Path) -> None:
        self._file = directory / "absences.json"
        self._missing: list[tuple[str, ...]] = []
        self._number = 0
        try:
            self._missing = list(_ABSENCES.validate_json(self._file.read_bytes()))
        except FileNotFoundError:
            pass
        except ValidationError as error:
            raise WorkspaceError(
                f"{self._file} is damaged: run the job under another name"
            ) from error

    @property
    def known(self) -> bool:
        """Whether the exchange at hand was had before."""
        return self._number < len(self._missing)

    def next(self) -> tuple[str, ...]:
        """Return who is left out of the exchange at hand, as before."""
        return self._missing[self._number] if self.known else ()

    def keep(self, outgoing: Sequence[Outgoing], answers: Sequence[Message]) -> None:
        """Keep who was missing, before anything is said that follows from it; go on to the next."""
        if not self.known:
            there = {message.header.sender for message in answers}
            named = (_recipient(item) for item in outgoing)
            self._missing.append(tuple(name for name in named if name not in there))
            write_atomically(self._file, _ABSENCES.dump_json(tuple(self._missing)))
        self._number += 1


def _stage(item: Outgoing) -> str:
    if isinstance(item, Relay):
        return f"carries {item.message.header.kind}"
    if isinstance(item.body, SumAsk):
        return f"says {item.body.kind}: {item.body.phase}, round {item.body.round}"
    return f"says {item.body.kind}"


def _recipient(item: Outgoing) -> str:
    return item.message.header.recipient if isinstance(item, Relay) else item.recipient


class Coordinator:
    """Runs an agreement's jobs from the coordinator's folder."""

    def __init__(self, folder: PartyFolder, agreement: Agreement, *, clock: Clock) -> None:
        self._folder = folder
        self._agreement = agreement
        self._clock = clock

    @classmethod
    def open(cls, path: Path, *, clock: Clock = utc_now) -> Self:
        """Open a coordinator's folder.

        Raises:
            WorkspaceError: it is none.
            InvalidAgreementError: its agreement is unsigned by somebody, or altered.
        """
        folder = PartyFolder(path)
        return cls(folder, folder.agreement(), clock=clock)

    def run(self, channel: Channel) -> None:
        """Run every listed job that has not ended yet, in order.

        Raises:
            RefusedError: a party, or the agreement, says no; the job stays open.
            PartyUnreachableError: a party gave no answer; run again to go on.
            MessageError: a party broke the protocol.
        """
        jobs = [spec for spec in read_jobs(self._folder) if not self._ended(spec.name)]
        if not jobs:
            return
        folder = self._folder
        with (
            locked(folder),
            LogWriter.open(folder.log, origin=folder.log_origin, key=folder.log_key()) as log,
        ):
            gate = Gate(folder, self._agreement, log, None, clock=self._clock)
            gate.settle()
            at_work = ROLL_CALL
            try:
                nodes = self._roll_call(gate, channel)
                for spec in jobs:
                    at_work = spec.name
                    self._run_job(gate, channel, nodes, spec)
            except RefusedError as refusal:
                if refusal.party == folder.name:  # another party's is in that party's log
                    gate.note_refusal(refusal, at_work, release_id=at_work)
                raise

    def _ended(self, job: str) -> bool:
        return (self._folder.job(job) / "ended.json").exists()

    def _roll_call(self, gate: Gate, channel: Channel) -> Mapping[str, int]:
        """Ask every node which party it is; return the node of each party."""
        people = {
            party.name
            for party in self._agreement.parties
            if party.role in (Role.BRAND, Role.PARTNER)
        }
        question = gate.release(Departure(ROLL_CALL, EVERYONE, Identify())).message
        parcels = [Parcel(node, question) for node in channel.nodes(len(people))]
        found: dict[str, int] = {}
        for parcel, answer in zip(parcels, channel.exchange(parcels), strict=True):
            if answer is None:
                raise RuntimeError("an exchange that tolerates nothing left an answer out")
            message = self._verify(question, answer, ROLL_CALL)
            expect(message, Present)
            found[message.header.sender] = parcel.node
        if missing := sorted(people - found.keys()):
            raise PartyUnreachableError(
                f"no node of {', '.join(missing)} is connected: start it, then run again"
            )
        return found

    def _run_job(
        self, gate: Gate, channel: Channel, nodes: Mapping[str, int], spec: JobSpec
    ) -> None:
        for term, remedy in policy_objections(spec, self._agreement):
            raise RefusedError(party=self._folder.name, term=term, remedy=remedy)
        gate.note(records.JobStarted, spec.name, computation=spec.kind)
        try:
            model = self._drive(
                gate, channel, nodes, self._job(spec), Absences(self._folder.job(spec.name))
            )
        except FederationError:
            gate.note(records.JobEnded, spec.name, computation=spec.kind, outcome="failed")
            raise
        if model is not None:
            write_atomically(self._folder.model(spec.name), model.canonical_bytes)
            gate.note(
                records.ModelTrained,
                spec.name,
                model_digest=model.digest,
                rounds=model.making.rounds,
                parties=model.making.parties,
                epsilon=model.epsilon,
                delta=model.delta,
            )
        gate.note(records.JobEnded, spec.name, computation=spec.kind, outcome="done")
        ended = {"computation": spec.kind, "model": model.digest if model else None}
        write_atomically(self._folder.job(spec.name) / "ended.json", json.dumps(ended).encode())

    def _job(self, spec: JobSpec) -> Job:
        if isinstance(spec, MatchSpec) and spec.is_direct:
            attempt = self._folder.fresh_secret(f"attempt/{self._clock().isoformat()}").hex()
            return coordinate_direct(self._agreement, spec, attempt)
        if isinstance(spec, MatchSpec):
            return coordinate_match(self._agreement, spec)
        if isinstance(spec, AlignSpec):
            return coordinate_align(self._agreement, spec)
        if isinstance(spec, TrainSpec):
            coordinate = coordinate_train if spec.noise is NoiseSource.LOCAL else coordinate_sums
            return coordinate(self._agreement, spec, encoder_for(self._agreement).names)
        if isinstance(spec, VerticalTrainSpec | VerticalScoreSpec):
            return coordinate_columns(self._agreement, spec)
        return coordinate_expand(self._agreement, spec)

    def _drive(
        self,
        gate: Gate,
        channel: Channel,
        nodes: Mapping[str, int],
        job: Job,
        absences: Absences,
    ) -> JointModel | None:
        """Send what the job yields, verify the answers, hand them back, until it returns."""
        try:
            exchange = next(job)
            while True:
                if isinstance(exchange, Tolerant):
                    left_out = absences.next()
                    answers = self._exchange(
                        gate,
                        channel,
                        nodes,
                        [item for item in exchange.outgoing if _recipient(item) not in left_out],
                        most_missing=0 if absences.known else exchange.most_missing,
                    )
                    absences.keep(exchange.outgoing, answers)
                else:
                    answers = self._exchange(gate, channel, nodes, exchange)
                exchange = job.send(answers)
        except StopIteration as end:
            model: JointModel | None = end.value
            return model

    def _exchange(
        self,
        gate: Gate,
        channel: Channel,
        nodes: Mapping[str, int],
        outgoing: Sequence[Outgoing],
        *,
        most_missing: int = 0,
    ) -> list[Message]:
        """Say everything; return the verified answers that came, in order."""
        self._tell(outgoing)
        sealed = [self._seal(gate, item) for item in outgoing]
        parcels = [Parcel(nodes[name], message, name) for name, message in sealed]
        answers = channel.exchange(parcels, most_missing=most_missing)
        verified = []
        for item, (name, question), answer in zip(outgoing, sealed, answers, strict=True):
            if answer is None:
                report(Progress(self._folder.name, item.job, f"goes on without {name}"))
                continue
            message = self._verify(question, answer, item.job)
            if message.header.sender != name:
                raise MessageError(f"{message.header.sender} answered a question to {name}")
            verified.append(message)
        return verified

    def _tell(self, outgoing: Sequence[Outgoing]) -> None:
        for job, stage in dict.fromkeys((item.job, _stage(item)) for item in outgoing):
            report(Progress(self._folder.name, job, stage))

    def _seal(self, gate: Gate, item: Outgoing) -> tuple[str, SealedMessage]:
        if isinstance(item, Relay):
            return _recipient(item), item.message.sealed
        departure = Departure(item.job, item.recipient, item.body, item.payload)
        return item.recipient, gate.release(departure).message

    def _verify(self, question: SealedMessage, answer: SealedMessage, job: str) -> Message:
        message = unseal(answer, self._agreement)
        if message.header.answers != question.digest:
            raise MessageError(
                f"{message.header.sender} sent an answer to another question: refused as a replay"
            )
        if message.header.job != job and not isinstance(message.body, Refused):
            raise MessageError(
                f"{message.header.sender} answered job {job!r} under {message.header.job!r}"
            )
        if (problem := off_route(message.header, self._agreement)) is not None:
            raise MessageError(f"{message.header.sender}: {problem}")
        return message
