"""A party's part of each job: read what it needs, take the job's step, hand the result to the gate.

Guarantees: a step leaves its results whole or not at all, and leaves none where the gate refused;
the budget is looked at before anything is computed.

Leaves to others: the steps themselves (`jobs`), who may be used (`population`), what may leave
(`gate`), and turning failures into refusals (`node`).
"""

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import pandas as pd

from compliance import records
from compliance.agreement import Agreement
from compliance.consent import ConsentBook
from compliance.terms import Role
from federation.clock import Clock
from federation.errors import MessageError, RefusedError, WorkspaceError
from federation.gate import Departure, Gate, Leaf, Minimum, PeopleUsed, Released
from federation.jobs.exchange import expect
from federation.jobs.expand import choose_segment
from federation.jobs.match import PartnerMatch, answer_match
from federation.jobs.train import JointModel, parse_model, train_round, training_plan
from federation.members import Members
from federation.messages import (
    Acknowledged,
    Body,
    ExpandDone,
    ExpandRequest,
    Identify,
    MatchBlinded,
    MatchDone,
    MatchReply,
    MatchRequest,
    Message,
    ModelPublished,
    Present,
    TrainRequest,
)
from federation.party import PartyFolder, write_atomically
from federation.population import Population, encoder_for, open_source, read_population
from federation.progress import Progress, report
from federation.routes import off_route
from federation.specification import JobSpec, policy_objections
from privacy.accounting.events import Event, RepeatedEvent
from privacy.accounting.ledger import ChargeState, Ledger
from privacy.psi.portable import PortableEngine
from privacy.randomness import Secret

__all__ = ["Work"]


class Work:
    """What a party does with one message, while it holds its folder."""

    def __init__(
        self,
        folder: PartyFolder,
        agreement: Agreement,
        gate: Gate,
        ledger: Ledger,
        *,
        clock: Clock,
    ) -> None:
        self.gate = gate
        self._folder = folder
        self._agreement = agreement
        self._ledger = ledger
        self._clock = clock
        (coordinator,) = agreement.by_role(Role.COORDINATOR)
        self._coordinator = coordinator.name

    def answer(self, message: Message) -> Released:
        """Do what a verified message for this party asks.

        Raises:
            RefusedError: a term says no.
            MessageError: the message does not fit the moment.
            PrivacyError, ConnectorError, ComplianceError: the step failed; nothing has left.
        """
        steps: Mapping[type[object], Callable[[Message], Released]] = {
            Identify: self._present,
            MatchRequest: self._blind,
            MatchBlinded: self._double,
            MatchReply: self._intersect,
            TrainRequest: self._train,
            ModelPublished: self._keep_model,
            ExpandRequest: self._expand,
        }
        step = steps.get(type(message.body))
        if step is None:
            raise MessageError(f"{message.body.kind} is an answer, and nothing was asked")
        if (problem := off_route(message.header, self._agreement)) is not None:
            raise MessageError(f"{message.header.sender}: {problem}")
        if message.header.sender == self._coordinator and message.header.answers is not None:
            raise MessageError(f"{message.body.kind} opens an exchange, and answers nothing")
        spec: JobSpec | None = getattr(message.body, "spec", None)
        if spec is None:
            return step(message)
        if spec.name != message.header.job:
            raise MessageError(f"message of job {message.header.job!r} about {spec.name!r}")
        for term, remedy in policy_objections(spec, self._agreement):
            raise RefusedError(party=self._folder.name, term=term, remedy=remedy)
        with self._held_to(spec):
            return step(message)

    @contextmanager
    def _held_to(self, spec: JobSpec) -> Iterator[None]:
        """Refuse a job that changes under its name once this party has answered anything in it."""
        path = self._folder.job(spec.name) / "specification.json"
        content = spec.model_dump_json().encode()
        if path.exists() and path.read_bytes() != content:
            raise MessageError(f"job {spec.name!r} is not what it was when it began here")
        yield
        if not path.exists():
            write_atomically(path, content, mode=0o600)

    def _present(self, message: Message) -> Released:
        return self._release(message, Present())

    def _blind(self, message: Message) -> Released:
        body = expect(message, MatchRequest)
        job, terms = message.header.job, self._agreement.match
        people = self._people(job, terms.purpose)
        secret = self._folder.fresh_secret(f"match/{message.sealed.digest}")
        self._tell_findings(job, people)
        self._tell(job, "blinds its people's identifiers", people.used)
        state, said = PartnerMatch().blind(
            body.spec, terms, people.tokens, secret, self._engine(job)
        )
        took_part = Members(people.used, people.token_rows, np.zeros(0, dtype=np.str_))
        directory = self._state(job)
        took_part.save(directory / "people.npz")
        write_atomically(directory / "secret", secret, mode=0o600)
        write_atomically(directory / "match.json", state.model_dump_json().encode(), mode=0o600)
        return self._release(
            message, said.body, said.payload, recipient=body.brand, people=people.used
        )

    def _double(self, message: Message) -> Released:
        job, terms = message.header.job, self._agreement.match
        expect(message, MatchBlinded)
        people = self._people(job, terms.purpose)
        secret = self._folder.fresh_secret(f"match/{message.sealed.digest}")
        self._tell_findings(job, people)
        self._tell(job, f"blinds its seeds for {message.header.sender}", people.used)
        said = answer_match(message, terms, people.tokens, secret, self._engine(job))
        return self._release(message, said.body, said.payload, people=people.used)

    def _intersect(self, message: Message) -> Released:
        job, terms = message.header.job, self._agreement.match
        expect(message, MatchReply)
        if not self.gate.has_sent(message.header.answers):
            raise MessageError(f"match.reply for job {job!r} answers nothing that was sent")
        directory = self._state(job)
        try:
            with _undamaged(directory):
                took_part = Members.load(directory / "people.npz")
                state = PartnerMatch.model_validate_json((directory / "match.json").read_bytes())
                secret = Secret((directory / "secret").read_bytes())
        except FileNotFoundError as error:
            raise MessageError(
                f"match.reply for job {job!r}, in which nothing was asked"
            ) from error
        self._bind_reply(job, message.sealed.digest)
        _, hits = state.intersect(message, terms, secret, self._engine(job))
        found = took_part.matched(hits)
        self._tell(job, "knows which of its people are members", rows=len(found.keys))
        minimum = Minimum("match.minimum_match", len(found.keys), terms.minimum_match)
        with self._result(self._folder.members(job), message, found.to_bytes()):
            released = self._release(
                message,
                MatchDone(),
                recipient=self._coordinator,
                people=found.used,
                minimums=(minimum,),
            )
        (directory / "secret").unlink()
        return released

    def _bind_reply(self, job: str, digest: str) -> None:
        """Take one reply to what was blinded: a second could ask about other people."""
        path = self._state(job) / "reply"
        if not path.exists():
            write_atomically(path, digest.encode(), mode=0o600)
        elif path.read_bytes() != digest.encode():
            raise MessageError(f"a second match.reply in job {job!r}: the first one counts")

    def _train(self, message: Message) -> Released:
        body = expect(message, TrainRequest)
        job, agreement = message.header.job, self._agreement
        plan = training_plan(
            body.spec, agreement, expected_rows=agreement.dataset(self._folder.name).declared_rows
        )
        rounds_left = max(1, body.spec.rounds - body.round + 1)
        self.gate.check_budget(RepeatedEvent(event=plan.charge, count=rounds_left))
        people = self._people(job, agreement.train.purpose, with_features=True)
        members = self._load_members(body.spec.match).among(people.keys)
        if body.round == 1:
            self._tell_findings(job, people)
        self._tell(job, f"trains, round {body.round} of {body.spec.rounds}", people.used)
        update, payload = train_round(
            message,
            plan,
            encoder_for(agreement).encode(people.features),
            members.astype(np.float64),
            self._folder.fresh_secret(f"train/{message.sealed.digest}"),
            on_step=self._steps(job),
        )
        minimum = Minimum("match.minimum_match", int(members.sum()), agreement.match.minimum_match)
        released = self._release(
            message,
            update,
            payload,
            people=people.used,
            minimums=(minimum,),
            charge=plan.charge,
        )
        self._tell(job, f"gave round {body.round}", charged=True)
        return released

    def _keep_model(self, message: Message) -> Released:
        model = parse_model(message, self._agreement, encoder_for(self._agreement).names)
        self._check_trained(model)
        path = self._folder.model(model.job)
        kept = {
            "model_digest": model.digest,
            "rounds": model.rounds,
            "parties": model.parties,
            "epsilon": model.epsilon,
            "delta": model.delta,
        }
        with self._result(path, message, model.canonical_bytes):
            released = self._release(
                message, Acknowledged(), results=((records.ModelTrained, kept),)
            )
        self._tell(model.job, "keeps the joint model")
        return released

    def _check_trained(self, model: JointModel) -> None:
        """Refuse a model that names this partner for rounds which it never gave."""
        if self._folder.name not in model.parties:
            return
        for number in range(1, model.rounds + 1):
            charge = self._ledger.charge(
                f"{model.job}/train.update/{self._coordinator}/round-{number}"
            )
            if charge is None or charge.state is not ChargeState.COMMITTED:
                raise MessageError(f"model of job {model.job!r}: round {number} was not given here")

    def _expand(self, message: Message) -> Released:
        spec = expect(message, ExpandRequest).spec
        job, terms = message.header.job, self._agreement.expand
        model = self._load_model(spec.train)
        people = self._people(job, terms.purpose, with_features=True)
        scores = model.score(encoder_for(self._agreement).encode(people.features))
        members = self._load_members(model.match).among(people.keys)
        segment = choose_segment(
            people.keys, scores, members, spec.share, minimum=terms.minimum_segment
        )
        self._tell(job, "scores its people", people.used)
        # By the agreed share, not the asked one: trying shares would count the people.
        most = math.ceil(terms.maximum_share * int((~members).sum()))
        path = self._folder.segment(job)
        written = {"segment": path.stem, "share": spec.share, "rows": len(segment)}
        content = pd.DataFrame({"record": segment}).to_csv(index=False).encode()
        with self._result(path, message, content):
            released = self._release(
                message,
                ExpandDone(),
                people=people.used,
                minimums=(Minimum("expand.minimum_segment", most, terms.minimum_segment),),
                results=((records.SegmentWritten, written),),
            )
        self._tell(job, "wrote its segment", rows=len(segment))
        return released

    @contextmanager
    def _result(self, path: Path, message: Message, content: bytes) -> Iterator[None]:
        """Make a result a party's own once the gate has let go what tells of it.

        1. Another question cannot change what a job has left already.
        2. It lies beside its place, under the question's digest, while the gate decides.
        3. It takes its place; after a crash in between, the repeated question puts it there.
        """
        if path.exists():  # 1
            raise MessageError(f"job {message.header.job!r} has its result here already")
        pending = self._folder.pending(path, message.sealed.digest)
        write_atomically(pending, content, mode=0o600)  # 2
        try:
            yield
        except Exception:
            pending.unlink()
            raise
        pending.replace(path)  # 3

    def _release(
        self,
        message: Message,
        body: Body,
        payload: bytes = b"",
        *,
        recipient: str | None = None,
        people: PeopleUsed | None = None,
        minimums: tuple[Minimum, ...] = (),
        charge: Event | None = None,
        results: tuple[tuple[Leaf, Mapping[str, object]], ...] = (),
    ) -> Released:
        return self.gate.release(
            Departure(
                job=message.header.job,
                recipient=recipient or message.header.sender,
                body=body,
                payload=payload,
                answers=message.sealed.digest,
                people=people,
                minimums=minimums,
                charge=charge,
                results=results,
            )
        )

    def _people(self, job: str, purpose: str, *, with_features: bool = False) -> Population:
        config = self._folder.config
        if config.data is None or config.consent is None:
            raise WorkspaceError(
                f"{self._folder.path / 'party.json'} names no data or no consent file, and job "
                f"{job!r} is about people: add both"
            )
        consent = ConsentBook.load(
            self._folder.resolve(config.consent), purposes=self._agreement.purposes
        )
        return read_population(
            open_source(config.data, self._folder.path),
            config.data,
            self._agreement,
            consent,
            purpose=purpose,
            at=self._clock(),
            with_features=with_features,
        )

    def _load_members(self, match: str) -> Members:
        path = self._folder.members(match)
        try:
            with _undamaged(path):
                return Members.load(path)
        except FileNotFoundError as error:
            raise RefusedError(
                party=self._folder.name,
                term="train.match",
                remedy=f"match {match!r} has not ended here: run it first",
            ) from error

    def _load_model(self, train: str) -> JointModel:
        path = self._folder.model(train)
        try:
            with _undamaged(path):
                return JointModel.model_validate_json(path.read_bytes())
        except FileNotFoundError as error:
            raise RefusedError(
                party=self._folder.name,
                term="expand.train",
                remedy=f"training {train!r} has not ended here: run it first",
            ) from error

    def _state(self, job: str) -> Path:
        return self._folder.job(job) / "state"

    def _tell(
        self,
        job: str,
        stage: str,
        used: PeopleUsed | None = None,
        *,
        rows: int | None = None,
        charged: bool = False,
    ) -> None:
        statement = self._ledger.statement() if charged else None
        report(
            Progress(
                self._folder.name,
                job,
                stage,
                rows=len(used.keys) if used else rows,
                excluded=used.excluded if used else {},
                epsilon_spent=statement.epsilon_spent if statement else None,
                epsilon_left=statement.epsilon_left if statement else None,
            )
        )

    def _tell_findings(self, job: str, people: Population) -> None:
        for finding in people.findings:
            self._tell(job, f"data: {finding}")

    def _engine(self, job: str) -> PortableEngine:
        name = self._folder.name
        return PortableEngine(
            progress=lambda operation, done, total: report(
                Progress(name, job, operation, done=done, total=total)
            )
        )

    def _steps(self, job: str) -> Callable[[int, int], None]:
        name = self._folder.name
        return lambda done, total: report(Progress(name, job, "trains", done=done, total=total))


@contextmanager
def _undamaged(path: Path) -> Iterator[None]:
    """Turn what is wrong with a file that this party wrote itself into its own error."""
    try:
        yield
    except (BadZipFile, EOFError, KeyError, ValueError) as error:
        raise WorkspaceError(f"{path} is damaged: run its job under another name") from error
