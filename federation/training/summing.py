"""A party's part of secure sums: its state between messages, and what it puts into a sum.

```
jobs/JOB/
  given-up         whether another job began before this one left its model
  round-NNNN/
    weights.bin    where the sum is wanted
    PHASE.json     the question of a phase, and what the secure sum remembers after it
```

Guarantees: a phase is answered once, and the same question gets the same answer, also after a
crash; rounds follow each other, each to its end; secrets that no later phase needs are removed when
the next phase is asked, and all, with the rows, when the job has left its model, another job begins
or the agreement ends; a part of a sum leaves only when its round is charged.

Leaves to others: the steps (`jobs.sums`), the rows (`rows`), what may leave (`gate`).
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, NamedTuple, Self

from pydantic import BaseModel, ConfigDict

from compliance.terms import NoiseSource
from federation.desk import Desk
from federation.errors import MessageError
from federation.gate import Minimum, Released
from federation.jobs.exchange import expect
from federation.jobs.secure_sum import AgreedKeys, partners_of, ring_of, sum_plan
from federation.jobs.standing import Sums
from federation.jobs.sums import sums_for, whole_charge
from federation.messages import (
    Digest,
    Message,
    SumAsk,
    SumExact,
    SumNoised,
    SumPhase,
    SumSaid,
    weights_from_bytes,
)
from federation.party import PartyFolder, undamaged, write_atomically
from federation.population import encoder_for
from federation.specification import TrainSpec
from federation.training.rows import TrainingRows, bring_rows
from privacy import secagg
from privacy.errors import PeerMessageError
from privacy.randomness import SECRET_BYTES, Secret, SecretStream, derive_secret
from privacy.secagg.messages import (
    Confirmation,
    Confirmations,
    KeyRoster,
    SealedShares,
    ShareDelivery,
    Survivors,
    Unmasking,
)

__all__ = ["Summing", "forget_sums", "give_up_sums"]

_PHASES: Final = tuple(SumPhase)


class _Kept(BaseModel):
    """What a party keeps of a phase.

    Attributes:
        asked: digest of the question, which alone is answered.
        state: the secure sum's, after it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    asked: Digest
    state: secagg.ClientState


class _Answer(NamedTuple):
    """A phase's state, what is said of it, and the rows that it was made from, if any."""

    state: secagg.ClientState
    payload: bytes
    rows: TrainingRows | None = None

    @classmethod
    def of(cls, state: secagg.ClientState, said: Confirmation | SealedShares | Unmasking) -> Self:
        return cls(state, said.to_json())


class _Round:
    """One round's folder."""

    def __init__(self, folder: PartyFolder, directory: Path) -> None:
        self._folder = folder
        self._directory = directory
        self.weights = directory / "weights.bin"

    def kept(self, phase: SumPhase) -> _Kept | None:
        path = self._path(phase)
        if not path.exists():
            return None
        with undamaged(path):
            return _Kept.model_validate_json(self._folder.read_secret(path))

    def keep(self, phase: SumPhase, kept: _Kept) -> None:
        self._folder.keep_secret(self._path(phase), kept.model_dump_json().encode())

    def has_passed(self, phase: SumPhase) -> bool:
        """Tell whether a later phase was had."""
        later = _PHASES[_PHASES.index(phase) + 1 :]
        return any(self._path(one).exists() for one in later)

    def forget_before(self, phase: SumPhase) -> None:
        """Remove what the phases before the last one remember."""
        for earlier in _PHASES[: max(0, _PHASES.index(phase) - 1)]:
            self._path(earlier).unlink(missing_ok=True)

    def end(self) -> None:
        """Remove all but what tells that the round was had."""
        self.forget_before(SumPhase.UNMASK)
        self._path(SumPhase.CONFIRM).unlink(missing_ok=True)
        self.weights.unlink(missing_ok=True)

    def _path(self, phase: SumPhase) -> Path:
        return self._directory / f"{phase}.json"


class Summing:
    """What a party does with the messages of secure sums."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    @property
    def steps(self) -> Mapping[type[object], Callable[[Message], Released]]:
        """What is done with each kind of message."""
        return {SumAsk: self._answer}

    def _answer(self, message: Message) -> Released:
        """Take part in a phase.

        1. A phase has one question, and follows the one before; a round follows the one before.
        2. Compute, keep the state; a crash from here on repeats this step from the state before.
        3. Let the answer out.
        """
        desk, body = self._desk, expect(message, SumAsk)
        spec, number, phase = body.spec, body.round, body.phase
        if spec.noise is NoiseSource.LOCAL:
            raise MessageError(f"job {spec.name!r} is trained with local noise: it has no sums")
        sums = sums_for(spec, desk.agreement, width=len(encoder_for(desk.agreement).names))
        self._check_open(spec, number)
        this = self._round(spec, number)
        kept = this.kept(phase)  # 1
        if kept is not None and kept.asked != message.sealed.digest:
            raise MessageError(f"a second question of phase {phase} in round {number}")
        if kept is None and this.has_passed(phase):
            raise MessageError(f"phase {phase} of round {number} is over")
        if phase is SumPhase.ADVERTISE:
            answer = self._advertise(message, spec, sums, number, this)
        else:
            before = this.kept(_PHASES[_PHASES.index(phase) - 1])
            if before is None:
                raise MessageError(f"phase {phase} of round {number} before the one before it")
            answer = self._go_on(message, body, sums, this, before.state)
        if kept is None:
            this.keep(phase, _Kept(asked=message.sealed.digest, state=answer.state))  # 2
        this.forget_before(phase)
        if answer.rows is None:
            said = SumSaid(round=number, phase=phase)
            paid_by = self._paid(spec, sums, said)
            return desk.release(message, said, answer.payload, paid_by=paid_by)  # 3
        return self._release_part(message, sums, number, answer)

    def _check_open(self, spec: TrainSpec, number: int) -> None:
        """Return only if the job is still open here, and the rounds before had."""
        folder = self._desk.folder
        if number > spec.rounds:
            raise MessageError(f"round {number} of a job of {spec.rounds} rounds")
        if _given_up(folder, spec.name).exists():
            raise self._desk.refusal(
                "train",
                f"job {spec.name!r} was given up here when another began, or the agreement ended: "
                "run it under another name",
            )
        if folder.model(spec.name).exists():
            raise MessageError(f"job {spec.name!r} has left its model: it has no more sums")
        if number > 1 and self._round(spec, number - 1).kept(SumPhase.UNMASK) is None:
            raise MessageError(f"round {number} before the end of the one before it")

    def _advertise(
        self, message: Message, spec: TrainSpec, sums: Sums, number: int, this: _Round
    ) -> _Answer:
        """Step 2: keep where the sum is wanted, and make keys."""
        desk = self._desk
        weights = weights_from_bytes(message.payload, sums.asked_length(number))
        if number == 1:
            if (charge := whole_charge(sums, spec)) is not None:
                desk.gate.charges.check(charge)
            rows = bring_rows(desk, spec)
            desk.tell(spec.name, "takes part in secure sums", rows.used)
        else:
            self._round(spec, number - 1).end()
        write_atomically(this.weights, weights.astype("<f8").tobytes(), mode=0o600)
        secret = desk.folder.fresh_secret(f"sum/{message.sealed.digest}")
        if (kept := this.kept(SumPhase.ADVERTISE)) is not None:
            secret = _secret_of(kept.state)
        state, said = self._client(spec, sums, number, this).advertise(secret)
        return _Answer(state, said.to_json())

    def _go_on(
        self,
        message: Message,
        body: SumAsk,
        sums: Sums,
        this: _Round,
        before: secagg.ClientState,
    ) -> _Answer:
        """Steps 4, 6, 8 and 10."""
        client, payload = self._client(body.spec, sums, body.round, this), message.payload
        try:
            match body.phase:
                case SumPhase.SHARE:
                    roster = KeyRoster.from_json(payload, client.plan)
                    return _Answer.of(*client.share(before, roster))
                case SumPhase.CONFIRM:
                    survivors = Survivors.from_json(payload, client.plan)
                    return _Answer.of(*client.confirm(before, survivors))
                case SumPhase.UNMASK:
                    confirmations = Confirmations.from_json(payload, client.plan)
                    return _Answer.of(*client.unmask(before, confirmations))
                case _:
                    return self._mask(message, body, sums, this, before)
        except PeerMessageError as error:
            raise MessageError(f"job {body.spec.name!r}, round {body.round}: {error}") from error

    def _mask(
        self,
        message: Message,
        body: SumAsk,
        sums: Sums,
        this: _Round,
        before: secagg.ClientState,
    ) -> _Answer:
        """Step 6: compute on the party's rows, and mask."""
        desk, spec, number = self._desk, body.spec, body.round
        rows = bring_rows(desk, spec)
        client = self._client(spec, sums, number, this)
        with undamaged(this.weights):
            weights = weights_from_bytes(this.weights.read_bytes(), sums.asked_length(number))
        desk.tell(spec.name, f"computes, round {number} of {spec.rounds}", rows.used)
        part = sums.contribution(
            number,
            partners_of(desk.agreement).index(desk.folder.name),
            weights,
            rows.features,
            rows.labels,
            SecretStream(derive_secret(_secret_of(before), "noise"), f"sum/round-{number}"),
        )
        delivery = ShareDelivery.from_json(message.payload, client.plan)
        state, masked = client.mask(before, delivery, ring_of(client.plan).to_ring(part))
        return _Answer(state, masked.to_json(), rows)

    def _release_part(self, message: Message, sums: Sums, number: int, answer: _Answer) -> Released:
        """Let a masked part out, which costs what its round does."""
        desk, rows = self._desk, answer.rows
        if rows is None:
            raise RuntimeError("a part is made from rows")
        charge, least = sums.charge(number), desk.agreement.match.minimum_match
        released = desk.release(
            message,
            SumExact(round=number) if charge is None else SumNoised(round=number),
            answer.payload,
            people=rows.used,
            minimums=(Minimum("match.minimum_match", rows.members, least),),
            charge=charge,
        )
        desk.tell(message.header.job, f"gave round {number}", charged=charge is not None)
        return released

    def _paid(self, spec: TrainSpec, sums: Sums, said: SumSaid) -> str | None:
        """Return the charge of the part that unmasking lets be read in a sum, if any."""
        number = said.round
        if said.phase is not SumPhase.UNMASK or sums.charge(number) is None:
            return None
        kind = SumNoised(round=number).kind
        return f"{spec.name}/{kind}/{self._desk.coordinator}/round-{number}"

    def _client(self, spec: TrainSpec, sums: Sums, number: int, this: _Round) -> secagg.Client:
        agreement, folder = self._desk.agreement, self._desk.folder
        weights, length = this.weights.read_bytes(), sums.length(number)
        plan = sum_plan(spec, agreement, number, length=length, weights=weights)
        return secagg.Client(plan, folder.name, folder.identity_key(), AgreedKeys(agreement))

    def _round(self, spec: TrainSpec, number: int) -> _Round:
        folder = self._desk.folder
        return _Round(folder, folder.job(spec.name) / f"round-{number:04d}")


def forget_sums(folder: PartyFolder, job: str) -> None:
    """Remove rows, and what sums remember, of a job that is over here."""
    for directory in folder.job(job).glob("round-*/"):
        _Round(folder, directory).end()
    (folder.job(job) / "rows.npz").unlink(missing_ok=True)


def give_up_sums(folder: PartyFolder, *, but: str | None = None) -> None:
    """Give up all jobs that have left rows here, but one: their coordinator has gone on without.

    A coordinator has one job after the other, so that whoever is asked in another one has been
    left out, or will be asked under another name.
    """
    for rows in (folder.path / "jobs").glob("*/rows.npz"):
        job = rows.parent.name
        if job != but and _trains(folder, job):
            write_atomically(_given_up(folder, job), b"")
            forget_sums(folder, job)


def _trains(folder: PartyFolder, job: str) -> bool:
    """Tell whether a job is a training over rows: others keep rows of their own."""
    file = folder.job(job) / "specification.json"
    return file.exists() and json.loads(file.read_bytes()).get("kind") == "train"


def _given_up(folder: PartyFolder, job: str) -> Path:
    return folder.job(job) / "given-up"


def _secret_of(state: secagg.ClientState) -> Secret:
    secret = getattr(state, "secret", None)
    if not isinstance(secret, bytes) or len(secret) != SECRET_BYTES:
        raise MessageError("a secure sum has gone on already: its secret is no more")
    return Secret(secret)
