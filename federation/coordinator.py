"""The coordinator: drives the jobs of an agreement, carries messages, averages models.

It is trusted with no personal data: it sees private updates, and of what it carries from party to
party the headers and rounded sizes; what those hold is encrypted to their recipients.

Guarantees: every answer is verified to be that party's, to that very question; a finished job is
not run again; a job that was interrupted is asked again from its start, and the parties repeat
what they had answered, or it was kept here (`exchanges`). Whoever was not there when a model was
published gets it at the next run. What it says itself goes through its own gate and log.

Leaves to others: what a job says when (`jobs`), how it travels (`channel`), who is there
(`roll_call`).
"""

import json
from collections.abc import Collection, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Self

from pydantic import ConfigDict, TypeAdapter, ValidationError

from compliance import records
from compliance.agreement import Agreement
from compliance.errors import describe
from compliance.naming import tell_of
from compliance.terms import Computation, NoiseSource, Role
from federation.approvals import kept_envelopes
from federation.approving import encode_approvals
from federation.artefacts import check_kept
from federation.channel import Channel, Parcel
from federation.clock import Clock, utc_now
from federation.errors import (
    FederationError,
    MessageError,
    PartyUnreachableError,
    RefusedError,
    RunCancelledError,
    WorkspaceError,
)
from federation.exchanges import KeptExchanges
from federation.gate import Departure, Gate
from federation.hidden_share import ToldShare
from federation.jobs.align import coordinate_align
from federation.jobs.assist import coordinate_columns
from federation.jobs.exchange import Exchange, Outgoing, Relay, Say, Tolerant, expect
from federation.jobs.expand import Expanded, coordinate_expand
from federation.jobs.match import Matched, coordinate_match
from federation.jobs.match_direct import coordinate_direct
from federation.jobs.measure import Measurement, coordinate_measure
from federation.jobs.model import JointModel
from federation.jobs.spread import ERASING, coordinate_spreading
from federation.jobs.sums import coordinate_sums
from federation.jobs.train import coordinate_train
from federation.jobs.witness import coordinate_witnessing
from federation.messages import (
    EVERYONE,
    Acknowledged,
    Identify,
    JobApproved,
    Message,
    ModelPublished,
    Present,
    Refused,
    RetrainAsk,
    RetrainTold,
    SealedMessage,
    SumAsk,
    unseal,
)
from federation.objections import policy_objections
from federation.party import PartyFolder, locked, write_atomically
from federation.population import encoder_for
from federation.progress import Progress, report
from federation.roll_call import ROLL_CALL, RollCall
from federation.routes import off_route
from federation.specification import (
    AlignSpec,
    ExpandSpec,
    JobSpec,
    MatchSpec,
    MeasureSpec,
    TrainSpec,
    VerticalScoreSpec,
    VerticalTrainSpec,
)
from federation.successors import Retraining, Retrainings, are_agreed
from federation.unmatched import unmatched
from federation.witnessing import LogWitnessing

__all__ = ["Coordinator", "jobs_in", "read_jobs", "write_jobs"]

_JOBS = TypeAdapter(tuple[JobSpec, ...], config=ConfigDict(hide_input_in_errors=True))

_NAMES = TypeAdapter(tuple[str, ...])

Outcome = JointModel | Measurement | Matched | Expanded | None
Job = Generator[Exchange, Sequence[Message], Outcome]


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


def _stage(item: Outgoing) -> str:
    if isinstance(item, Relay):
        return f"carries {item.message.header.kind}"
    if isinstance(item.body, SumAsk):
        return f"says {item.body.kind}: {item.body.phase}, round {item.body.round}"
    return f"says {item.body.kind}"


def _but(nodes: Mapping[str, int], out: Collection[str]) -> Mapping[str, int]:
    return {name: node for name, node in nodes.items() if name not in out}


def _missing(outcome: Outcome) -> tuple[str, ...]:
    """Return the partners that a job went without."""
    match outcome:
        case JointModel():
            return outcome.making.missing
        case Measurement() | Matched() | Expanded():
            return outcome.missing
    return ()


def _with_day(refusal: RefusedError, one: Retraining) -> RefusedError:
    """Say of a training that was refused what comes of the model whose place it was to take."""
    remedy = f"{refusal.remedy}; else model {one.model!r} is retired on {one.due:%Y-%m-%d}"
    return RefusedError(party=refusal.party, term=refusal.term, remedy=remedy)


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

    def run(self, channel: Channel, *, only: Collection[str] = ()) -> None:
        """Run every listed job that has not ended yet, in order; then those of `successors`.

        Args:
            channel: to the parties' nodes.
            only: names of jobs, where not all are to be run.

        Raises:
            WorkspaceError: a job of `only` is not listed.
            RunCancelledError: the channel says that the run is no longer wanted.
            RefusedError: a party, or the agreement, says no; the job stays open.
            PartyUnreachableError: a party gave no answer; run again to go on.
            MessageError: a party broke the protocol.
        """
        asked = read_jobs(self._folder)
        if strange := sorted(set(only) - {spec.name for spec in asked}):
            raise WorkspaceError(f"no job is called {', '.join(strange)}: list it in jobs.json")
        wanted = [spec for spec in asked if not only or spec.name in only]
        jobs = [spec for spec in wanted if not self._ended(spec.name)]
        again = Retrainings(self._folder, self._agreement)
        listed = (*asked, *again.specs)
        ended = any(self._ended(spec.name) for spec in asked)
        may_retrain = not only and ended and are_agreed(self._agreement)
        if not jobs and not self._owing(listed) and not may_retrain:
            self.spread(channel)
            return
        folder = self._folder
        with self._opened() as gate:
            there = RollCall(self._agreement, channel, partial(self._identify, gate, channel))
            at_work = ROLL_CALL
            try:
                there.seek(self._people)
                self._spread(gate, channel, there.nodes)  # whatever keeps jobs from running
                for spec in jobs:
                    check_kept(folder, spec.name, spec)
                    kept = KeptExchanges(folder.job(spec.name))
                    at_work = spec.name
                    out = unmatched(folder, self._agreement, spec, listed)
                    at_work = ROLL_CALL
                    there.gather(spec, kept.left_out | out)
                    self._hand_over(gate, channel, there, listed)
                    at_work = spec.name
                    self._run_job(gate, channel, _but(there.nodes, out), spec, kept)
                    at_work = ROLL_CALL
                if jobs:
                    self._witness(gate, channel, there.nodes, jobs[-1])
                else:
                    self._hand_over(gate, channel, there, listed)
                if may_retrain:
                    self._train_again(gate, channel, there, asked)
            except RefusedError as refusal:
                if refusal.party == folder.name:  # another party's is in that party's log
                    gate.note_refusal(refusal, at_work, release_id=at_work)
                raise

    def _train_again(
        self, gate: Gate, channel: Channel, there: RollCall, asked: Sequence[JobSpec]
    ) -> None:
        """Train again what parties have to retire (see `successors`).

        Raises:
            RefusedError: somebody refuses one; the others were run.
        """
        there.seek(self._people)
        again = self._hear_of_models(gate, channel, there.nodes, asked)
        listed = (*asked, *again.specs)
        refused: RefusedError | None = None
        ran: JobSpec | None = None
        for one in again.open(self._clock()):
            self._tell_of(one.spec, f"is to take the place of {one.model} by {one.due:%Y-%m-%d}")
            ran = one.spec
            try:
                for ran in one.jobs:
                    if not self._ended(ran.name):
                        kept = KeptExchanges(self._folder.job(ran.name))
                        check_kept(self._folder, ran.name, ran)
                        out = unmatched(self._folder, self._agreement, ran, listed)
                        there.gather(ran, kept.left_out | out)
                        self._run_job(gate, channel, _but(there.nodes, out), ran, kept)
            except RefusedError as refusal:
                refused = refused or _with_day(refusal, one)
                if refusal.party == self._folder.name:
                    gate.note_refusal(refusal, ran.name, release_id=ran.name)
                if refusal.term == "consent":  # of whom it had read, somebody was erased
                    again.give_up(one, asked)
        if ran is not None:
            self._witness(gate, channel, there.nodes, ran)
        if refused is not None:
            raise refused

    def _hear_of_models(
        self,
        gate: Gate,
        channel: Channel,
        nodes: Mapping[str, int],
        listed: Sequence[JobSpec],
    ) -> Retrainings:
        """Ask everybody who is there which models are due, or retired, and write it down."""
        nonce = self._folder.fresh_secret(f"retrain/{self._clock().isoformat()}").hex()
        names = sorted(self._people & nodes.keys())
        outgoing = [Say(name, ROLL_CALL, RetrainAsk(nonce=nonce)) for name in names]
        answers = self._exchange(gate, channel, nodes, outgoing, most_missing=len(outgoing))
        told = {one.header.sender: one.body for one in answers if isinstance(one.body, RetrainTold)}
        known = Retrainings(self._folder, self._agreement)
        known.hear({name: body.due for name, body in told.items()}, listed)
        known.hear_retired((one for body in told.values() for one in body.retired), listed)
        return known

    def spread(self, channel: Channel) -> None:
        """Carry requests to erase between parties, and run no job.

        Nothing is carried where the agreement is no longer in force.

        Raises:
            MessageError: a party broke the protocol.
        """
        with self._opened() as gate:
            try:
                gate.check_in_force(self._clock())
            except RefusedError as refusal:
                report(Progress(self._folder.name, ERASING, f"nothing is carried: {refusal}"))
                return
            there = RollCall(self._agreement, channel, partial(self._identify, gate, channel))
            there.seek(self._people)
            self._spread(gate, channel, there.nodes)

    @contextmanager
    def _opened(self) -> Iterator[Gate]:
        """Hold the folder, with the log open."""
        folder = self._folder
        with locked(folder), folder.open_log() as log:
            folder.check_current(self._agreement)
            gate = Gate(folder, self._agreement, log, None, clock=self._clock)
            gate.settle()
            yield gate

    def _spread(self, gate: Gate, channel: Channel, nodes: Mapping[str, int]) -> None:
        """Have parties ask each other to erase people, and tell each other what was done."""
        attempt = self._folder.fresh_secret(f"erasing/{self._clock().isoformat()}").hex()
        spreading = coordinate_spreading(attempt, present=self._people & nodes.keys())
        answers: list[Message] | None = None
        while True:
            try:
                exchange = next(spreading) if answers is None else spreading.send(answers)
            except StopIteration as end:
                for name in end.value:
                    told = f"{name} refused something about an erasure: its log says what"
                    report(Progress(self._folder.name, ERASING, told))
                if any((self._folder.path / "jobs").glob("*/ended.json")):  # models may be there
                    self._hear_of_models(gate, channel, nodes, read_jobs(self._folder))
                return
            answers = self._exchange(
                gate, channel, nodes, exchange.outgoing, most_missing=exchange.most_missing
            )

    def _ended(self, job: str) -> bool:
        return (self._folder.job(job) / "ended.json").exists()

    def _identify(
        self, gate: Gate, channel: Channel, nodes: Sequence[int], may_miss: int
    ) -> list[Message | None]:
        """Ask nodes which parties they are."""
        question = gate.release(Departure(ROLL_CALL, EVERYONE, Identify())).message
        parcels = [Parcel(node, question) for node in nodes]
        found: list[Message | None] = []
        for answer in channel.exchange(parcels, most_missing=may_miss):
            message = None if answer is None else self._verify(question, answer, ROLL_CALL)
            if message is not None:
                expect(message, Present)
            found.append(message)
        return found

    def _owing(self, listed: Sequence[JobSpec]) -> Mapping[TrainSpec, frozenset[str]]:
        """Return who has yet to get the model, not retired since, of which training that ended."""
        found = {}
        for spec in listed:
            owed = self._folder.job(spec.name) / "owed.json"
            if self._folder.retired(spec.name).exists():
                continue
            if isinstance(spec, TrainSpec) and self._ended(spec.name) and owed.exists():
                found[spec] = frozenset(_NAMES.validate_json(owed.read_bytes()))
        return found

    def _hand_over(
        self, gate: Gate, channel: Channel, there: RollCall, listed: Sequence[JobSpec]
    ) -> None:
        """Give models to those who are back, and were not there when these were published."""
        for spec, owed in self._owing(listed).items():
            body, model = ModelPublished(spec=spec), self._folder.model(spec.name).read_bytes()
            outgoing = [
                Say(name, spec.name, body, model) for name in sorted(owed & there.nodes.keys())
            ]
            answers = self._exchange(
                gate, channel, there.nodes, outgoing, most_missing=len(outgoing)
            )
            for one in answers:
                if not isinstance(one.body, Acknowledged):
                    self._tell_of(spec, f"{one.header.sender} refuses the model: its log says why")
            took = {one.header.sender for one in answers if isinstance(one.body, Acknowledged)}
            if took:
                self._owe(spec, owed - took)

    def _owe(self, spec: JobSpec, names: frozenset[str]) -> None:
        """Write down who has yet to get a model."""
        path = self._folder.job(spec.name) / "owed.json"
        if names:
            write_atomically(path, _NAMES.dump_json(tuple(sorted(names))))
            self._tell_of(spec, f"{', '.join(sorted(names))} will get the model at a later run")
        else:
            path.unlink(missing_ok=True)

    def _run_job(
        self,
        gate: Gate,
        channel: Channel,
        nodes: Mapping[str, int],
        spec: JobSpec,
        kept: KeptExchanges,
    ) -> None:
        for term, remedy in policy_objections(spec, self._agreement):
            raise RefusedError(party=self._folder.name, term=term, remedy=remedy)
        known = Retrainings(self._folder, self._agreement)
        if (objection := known.objection(spec, self._clock())) is not None:
            raise RefusedError(party=self._folder.name, term=objection[0], remedy=objection[1])
        gate.note(records.JobStarted, spec.name, computation=spec.kind)
        if kept.count:
            self._tell_of(spec, f"goes on after {kept.count} exchanges that were had")
        gate.spec = spec
        try:
            self._carry_approvals(gate, channel, nodes, spec)
            outcome = self._drive(gate, channel, nodes, self._job(spec), kept)
        except FederationError as error:
            how = "cancelled" if isinstance(error, RunCancelledError) else "failed"
            gate.note(records.JobEnded, spec.name, computation=spec.kind, outcome=how)
            self._tell_of(spec, "was cancelled" if how == "cancelled" else "has failed")
            raise
        if isinstance(outcome, Measurement):
            self._keep_measurement(gate, outcome)
        model = outcome if isinstance(outcome, JointModel) else None
        counted = outcome.counted if isinstance(outcome, Expanded) else ()
        missing = _missing(outcome)
        if model is not None:
            write_atomically(self._folder.model(spec.name), model.canonical_bytes)
            self._owe(spec, self._people - kept.heard_last)
            gate.note(
                records.ModelTrained,
                spec.name,
                model_digest=model.digest,
                rounds=model.making.rounds,
                parties=tell_of(model.making.parties, self._agreement),
                missing=tell_of(missing, self._agreement),
                epsilon=model.epsilon,
                delta=model.delta,
            )
        gate.note(
            records.JobEnded,
            spec.name,
            computation=spec.kind,
            outcome="done",
            missing=tell_of(missing, self._agreement),
        )
        if model is not None and isinstance(spec, TrainSpec):
            hidden = ToldShare.of(model, self._agreement, spec)
            if hidden is not None:
                report(Progress(self._folder.name, spec.name, hidden.sentence))
        for one in counted:
            report(Progress(self._folder.name, spec.name, one.told))
        ended = {
            "computation": spec.kind,
            "model": model.digest if model else None,
            "counts": [one.model_dump() for one in counted],
            "missing": list(missing),
        }
        write_atomically(self._folder.job(spec.name) / "ended.json", json.dumps(ended).encode())
        kept.forget()
        without = f" without {', '.join(missing)}" if missing else ""
        self._tell_of(spec, f"has ended{without}")

    def _carry_approvals(
        self, gate: Gate, channel: Channel, nodes: Mapping[str, int], spec: JobSpec
    ) -> None:
        """Carry people's approvals of a job that needs them to every data party that is there."""
        if not self._agreement.needs_approval(Computation(spec.kind)):
            return
        kept = kept_envelopes(self._folder, spec)
        if not kept:  # parties refuse what needs some
            return
        payload, body = encode_approvals(kept), JobApproved(spec=spec)
        there = sorted(self._people.intersection(nodes))
        outgoing = [Say(name, spec.name, body, payload) for name in there]
        for answer in self._exchange(gate, channel, nodes, outgoing):
            expect(answer, Acknowledged)

    def _tell_of(self, spec: JobSpec, stage: str) -> None:
        report(Progress(self._folder.name, spec.name, stage))

    @property
    def _people(self) -> frozenset[str]:
        roles = (Role.BRAND, Role.PARTNER)
        return frozenset(party.name for party in self._agreement.parties if party.role in roles)

    def _keep_measurement(self, gate: Gate, measurement: Measurement) -> None:
        path = self._folder.measurement(measurement.job)
        write_atomically(path, measurement.canonical_bytes)
        gate.note(
            records.MeasurementMade,
            measurement.job,
            measurement_digest=measurement.digest,
            parties=tell_of((party.party for party in measurement.parties), self._agreement),
            missing=tell_of(measurement.missing, self._agreement),
            epsilon=measurement.epsilon,
            delta=measurement.delta,
        )

    def _witness(
        self, gate: Gate, channel: Channel, nodes: Mapping[str, int], last: JobSpec
    ) -> None:
        """Show every party's log to every other, filed under the last job of the run."""
        own = LogWitnessing(self._folder, self._agreement, clock=self._clock)
        showing = coordinate_witnessing(self._agreement, last.name, own, present=nodes)
        answers: list[Message] | None = None
        while True:
            try:
                exchange = next(showing) if answers is None else showing.send(answers)
            except StopIteration:
                return
            answers = self._exchange(
                gate, channel, nodes, exchange.outgoing, most_missing=exchange.most_missing
            )

    def _job(self, spec: JobSpec) -> Job:
        agreement = self._agreement
        match spec:
            case MatchSpec(is_direct=True):
                attempt = self._folder.fresh_secret(f"attempt/{self._clock().isoformat()}").hex()
                job: Job = coordinate_direct(agreement, spec, attempt)
            case MatchSpec():
                job = coordinate_match(agreement, spec)
            case AlignSpec():
                job = coordinate_align(agreement, spec)
            case TrainSpec():
                local = spec.noise is NoiseSource.LOCAL
                coordinate = coordinate_train if local else coordinate_sums
                job = coordinate(agreement, spec, encoder_for(agreement).names)
            case MeasureSpec():
                job = coordinate_measure(agreement, spec)
            case VerticalTrainSpec() | VerticalScoreSpec():
                job = coordinate_columns(agreement, spec)
            case ExpandSpec():
                job = coordinate_expand(agreement, spec)
        return job

    def _drive(
        self,
        gate: Gate,
        channel: Channel,
        nodes: Mapping[str, int],
        job: Job,
        kept: KeptExchanges,
    ) -> Outcome:
        """Send what the job yields, verify the answers, hand them back, until it returns."""
        tolerant = 0
        try:
            exchange = next(job)
            while True:
                if isinstance(exchange, Tolerant):
                    answers = self._tolerant(gate, channel, nodes, exchange, kept, tolerant)
                    tolerant += 1
                else:
                    answers = self._exchange(gate, channel, nodes, exchange)
                exchange = job.send(answers)
        except StopIteration as end:
            outcome: Outcome = end.value
            return outcome

    def _tolerant(
        self,
        gate: Gate,
        channel: Channel,
        nodes: Mapping[str, int],
        exchange: Tolerant,
        kept: KeptExchanges,
        number: int,
    ) -> list[Message]:
        """Have an exchange that goes on without some parties, or have it as it was before."""
        had = kept.had(number) if exchange.kept else None
        if had is None:
            out = frozenset[str]() if exchange.kept else kept.left_out
            asked = [item for item in exchange.outgoing if _recipient(item) not in out]
            spare = exchange.most_missing - (len(exchange.outgoing) - len(asked))
            answers = self._exchange(gate, channel, nodes, asked, most_missing=spare)
            there = {message.header.sender for message in answers}
            named = map(_recipient, exchange.outgoing)
            missing = [name for name in named if name not in there]
            kept.keep(number, missing, answers if exchange.kept else ())
            return answers
        found = []
        for item in exchange.outgoing:
            name, question = self._seal(gate, item)
            if (answer := had.answer_of(name)) is not None:
                found.append(self._verified(name, question, answer, item.job))
        return found

    def _exchange(
        self,
        gate: Gate,
        channel: Channel,
        nodes: Mapping[str, int],
        outgoing: Sequence[Outgoing],
        *,
        most_missing: int = 0,
    ) -> list[Message]:
        """Say everything; return the verified answers that came, in order.

        Raises:
            PartyUnreachableError: more are missing, those included whose node is not there.
        """
        away = [name for name in map(_recipient, outgoing) if name not in nodes]
        if len(away) > most_missing:
            raise PartyUnreachableError(
                f"no node of {', '.join(away)} is connected: start it, then run again"
            )
        for item in outgoing:
            if _recipient(item) in away:
                self._tell_missing(item)
        outgoing = [item for item in outgoing if _recipient(item) not in away]
        if not outgoing:
            return []
        self._tell(outgoing)
        sealed = [self._seal(gate, item) for item in outgoing]
        parcels = [Parcel(nodes[name], message, name) for name, message in sealed]
        answers = channel.exchange(parcels, most_missing=most_missing - len(away))
        verified = []
        for item, (name, question), answer in zip(outgoing, sealed, answers, strict=True):
            if answer is None:
                self._tell_missing(item)
                continue
            verified.append(self._verified(name, question, answer, item.job))
        return verified

    def _tell_missing(self, item: Outgoing) -> None:
        report(Progress(self._folder.name, item.job, f"goes on without {_recipient(item)}"))

    def _verified(
        self, name: str, question: SealedMessage, answer: SealedMessage, job: str
    ) -> Message:
        message = self._verify(question, answer, job)
        if message.header.sender != name:
            raise MessageError(f"{message.header.sender} answered a question to {name}")
        return message

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
