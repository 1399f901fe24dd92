"""A partner's part of training over parties' columns: its learner, its mask, its score.

```
jobs/JOB/
  rows.npz, people/    see `aligned`
  secret               of its key
  keys                 of all partners, as they signed them
  round-NN.json        what it was asked, and its part with what it offered
models/JOB.json        its part, once the training has ended
jobs/TRAIN/scored-ALIGN    see `one_set`
```

Guarantees: a round is answered once; a part of a sum leaves only masked, under keys that every
partner signed, for everything that the brand has told since the training began (residuals, steps,
how it ended), and for the people whom it is of, in their order. A brand that tells partners
different things, once, reads nothing from then on, scores included; nor does anybody where an
operator has named different people to partners. Aligned people are scored with a model once: where
somebody withdraws at one partner, the difference of two sums would be that partner's score. For the
same reason nobody is in sums of two sets of partners (`one_set`).

Leaves to others: the steps (`jobs.assist`), the brand's part (`assisted_brand`), what may leave
(`gate`).
"""

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import numpy as np
import rfc8785
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from compliance import records
from compliance.naming import tell_of
from compliance.terms import Role
from federation.desk import Desk
from federation.errors import MessageError, WorkspaceError
from federation.gate import Leaf, Minimum, Released
from federation.jobs.assist import (
    HeldPart,
    PartnerSum,
    assisted_plan,
    joined_keys,
    vertical_partners,
)
from federation.jobs.exchange import expect
from federation.messages import (
    Acknowledged,
    AssistFitted,
    AssistJoin,
    AssistJoined,
    AssistKeys,
    AssistResiduals,
    AssistScored,
    AssistSettle,
    Digest,
    Message,
)
from federation.outcomes import arriving
from federation.party import PartyFolder, undamaged, write_atomically
from federation.retraining import check_in_use
from federation.specification import VerticalScoreSpec, VerticalTrainSpec
from federation.training.aligned import AlignedRows, bring_aligned
from federation.training.one_set import (
    JoinedOnce,
    ScoredOnce,
    check_one_set,
    digest_of,
    trained_on,
)
from federation.versions import versions_of
from privacy.errors import PeerMessageError
from privacy.randomness import Secret
from privacy.training.learners import Part, new_part

__all__ = ["Assisting", "forget_vertical", "held_part", "model_told"]

_FLOAT: Final = np.dtype("<f4")


class _Offer(BaseModel):
    """What a partner keeps of a round.

    Attributes:
        asked: digest of the question, which alone is answered.
        told: digest of this question and all before it, which is the same at every partner.
        part: its part, with what it offered.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    asked: Digest
    told: Digest
    part: Part = Field(discriminator="kind")


class Assisting:
    """What a partner does with the messages of vertical jobs."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    @property
    def steps(self) -> Mapping[type[object], Callable[[Message], Released]]:
        """What is done with each kind of message."""
        return {
            AssistJoin: self._join,
            AssistKeys: self._take_keys,
            AssistResiduals: self._fit,
            AssistSettle: self._settle,
        }

    def _join(self, message: Message) -> Released:
        """Step 2: read the rows, and show a key."""
        desk, spec = self._desk, expect(message, AssistJoin).spec
        if isinstance(spec, VerticalScoreSpec):
            held_part(desk, spec.train)
            self._check_scored_once(spec)
        elif desk.folder.model(spec.name).exists():
            raise MessageError(f"job {spec.name!r} has left its part here: name another job")
        else:
            check_one_set(desk, spec.align, vertical_partners(desk.agreement))
            JoinedOnce.of(desk, message).note(desk, spec)
        rows = bring_aligned(desk, spec)
        file = desk.folder.job(spec.name) / "secret"
        if not file.exists():
            fresh = desk.folder.fresh_secret(f"assist/{message.sealed.digest}")
            desk.folder.keep_secret(file, fresh)
        sums = PartnerSum.of(spec, desk.agreement)
        key = sums.masks.key(Secret(desk.folder.read_secret(file))).hex()
        return desk.release(
            message, AssistJoined(key=key), people=rows.used, minimums=(rows.minimum,)
        )

    def _take_keys(self, message: Message) -> Released:
        """Keep everybody's keys; in a scoring, answer with this party's part of the scores."""
        desk, spec = self._desk, expect(message, AssistKeys).spec
        keys = joined_keys(message.payload, spec, desk.agreement)
        secret = self._secret(spec)
        if isinstance(spec, VerticalScoreSpec):
            return self._score(message, spec, keys, secret)
        file = desk.folder.job(spec.name) / "keys"
        if file.exists() and file.read_bytes() != message.payload:
            raise MessageError(f"other keys of job {spec.name!r}: the first ones count")
        write_atomically(file, message.payload, mode=0o600)
        return desk.release(message, Acknowledged())

    def _fit(self, message: Message) -> Released:
        """Step 7: take the step along the last sum, and fit the new residuals.

        1. A round has one question, and follows the one before.
        2. Fit, keep the offer; a crash from here on repeats this step from the part before.
        3. Mask it for these residuals, and all that was told before, alone, and let it out.
        """
        desk, body = self._desk, expect(message, AssistResiduals)
        spec, number = body.spec, body.round
        if number > spec.rounds or (body.step is None) is not (number == 1):
            raise MessageError(f"round {number} of job {spec.name!r}, a step of {body.step}")
        rows, kept = bring_aligned(desk, spec), self._offer(spec, number)
        if (kept is not None and kept.asked != message.sealed.digest) or self._offer(
            spec, number + 1
        ):
            raise MessageError(f"a second question of round {number}: the first one counts")  # 1
        check_one_set(desk, spec.align, vertical_partners(desk.agreement))
        residuals = _residuals(message.payload, rows)
        plan = assisted_plan(spec, desk.agreement)
        part, before = self._before(spec, number, body.step)
        told = _told(before, number, body.step, hashlib.sha256(message.payload).hexdigest())
        desk.tell(spec.name, f"fits round {number} of {spec.rounds} at most", rows.used)
        offer = part.propose(rows.features, residuals, plan.flip)  # 2
        fitted = np.where(rows.present, offer.fitted, 0.0)
        if kept is None:
            stored = _Offer(asked=message.sealed.digest, told=told, part=offer.part)
            path = self._round(spec, number)
            write_atomically(path, stored.model_dump_json().encode(), mode=0o600)
        try:
            masked = PartnerSum.of(spec, desk.agreement).mask(
                desk.folder.name,
                self._secret(spec),
                self._keys(spec),
                np.concatenate([fitted, offer.penalties]),
                f"round {number} {told} of {rows.who}",
            )
        except PeerMessageError as error:
            raise MessageError(f"job {spec.name!r}, round {number}: {error}") from error
        return desk.release(  # 3
            message,
            AssistFitted(spec=spec, round=number),
            masked,
            people=rows.used,
            minimums=(rows.minimum,),
        )

    def _settle(self, message: Message) -> Released:
        """Step 10: keep this party's part."""
        desk, body = self._desk, expect(message, AssistSettle)
        spec, job = body.spec, body.spec.name
        last = self._offer(spec, body.rounds)
        if last is None or self._offer(spec, body.rounds + 1) or body.kept > body.rounds:
            raise MessageError(f"job {job!r} did not end here after {body.rounds} rounds")
        (brand,) = desk.agreement.by_role(Role.BRAND)
        held = HeldPart(
            agreement=desk.agreement.digest,
            job=job,
            align=spec.align,
            parties=(brand.name, *vertical_partners(desk.agreement)),
            rounds=body.rounds,
            label_epsilon=spec.label_epsilon,
            told=_told(last.told, body.rounds, body.step, f"kept {body.kept}"),
            part=last.part.settle(body.step).keep(body.kept),
        )
        with (
            desk.result(desk.folder.model(job), message, held.content),
            arriving(desk, message, spec, held.digest) as retired,
        ):
            released = desk.release(
                message,
                Acknowledged(),
                recipient=desk.coordinator,
                results=(model_told(desk, held), *retired),
            )
        forget_vertical(desk.folder, job)
        desk.tell(job, "keeps its part of the model")
        return released

    def _score(
        self,
        message: Message,
        spec: VerticalScoreSpec,
        keys: Mapping[str, bytes],
        secret: Secret,
    ) -> Released:
        """Mask this party's part of everybody's score.

        1. Without some partners nobody is scored who was trained on, by the same token everywhere.
        2. Whom a sum is of is in it with these partners alone, and once with a model.
        3. Mask it for what the brand told, and whom it is of.
        """
        desk, rows = self._desk, bring_aligned(self._desk, spec)
        partners, everybody = tuple(keys), vertical_partners(desk.agreement)
        if desk.folder.name not in partners:
            raise MessageError(f"keys of job {spec.name!r} without that of {desk.folder.name}")
        held = held_part(desk, spec.train)
        scored, about, found = rows.present, f"scores {held.told} of {rows.who}", rows.minimum.found
        chosen = np.ones(len(scored), dtype=np.bool_)
        if partners != everybody:
            apart = trained_on(desk, spec.align)  # 1
            chosen = ~apart
            scored, about = scored & chosen, f"{about} but {digest_of(apart)}"
            found = int(np.count_nonzero(scored))
        self._check_scored_once(spec)
        check_one_set(desk, spec.align, partners, chosen)  # 2
        note = ScoredOnce.of(desk, message, chosen, partners)
        self._check_scored_once(spec, note)
        scores = np.where(scored, held.part.score(rows.features), 0.0)
        try:
            masked = PartnerSum.of(spec, desk.agreement, partners).mask(  # 3
                desk.folder.name, secret, keys, scores, about
            )
        except PeerMessageError as error:
            raise MessageError(f"job {spec.name!r}: {error}") from error
        (brand,) = desk.agreement.by_role(Role.BRAND)
        return desk.release(
            message,
            AssistScored(spec=spec, partners=partners),
            masked,
            recipient=brand.name,
            people=rows.used,
            minimums=(Minimum(rows.minimum.term, found, rows.minimum.required),),
        )

    def _check_scored_once(self, spec: VerticalScoreSpec, note: ScoredOnce | None = None) -> None:
        """Refuse to score the same people with a model again; note the one question, if any.

        A question that was noted counts if its answer left: one that was refused is free again.
        """
        desk, file = self._desk, ScoredOnce.file(self._desk, spec)
        if file.exists():
            noted = ScoredOnce.load(file)
            same = noted.job == spec.name and (note is None or noted.question == note.question)
            if not same and desk.gate.outbox.has_answered(noted.question):
                raise desk.refusal(
                    "vertical.align",
                    f"the people of alignment {spec.align!r} are scored with model {spec.train!r} "
                    "once: who withdrew at one partner would be told by two sums what it scored",
                )
        if note is not None:
            note.save(file)

    def _before(
        self, spec: VerticalTrainSpec, number: int, step: float | None
    ) -> tuple[Part, Digest | None]:
        """Return the part from which a round goes on, and the digest of what was told so far."""
        if number == 1 or step is None:
            return new_part(assisted_plan(spec, self._desk.agreement).learner), None
        before = self._offer(spec, number - 1)
        if before is None:
            raise MessageError(f"round {number} of job {spec.name!r} before the one before it")
        return before.part.settle(step), before.told

    def _offer(self, spec: VerticalTrainSpec, number: int) -> _Offer | None:
        path = self._round(spec, number)
        if not path.exists():
            return None
        with undamaged(path):
            return _Offer.model_validate_json(path.read_bytes())

    def _round(self, spec: VerticalTrainSpec, number: int) -> Path:
        return self._desk.folder.job(spec.name) / f"round-{number:02}.json"

    def _keys(self, spec: VerticalTrainSpec) -> Mapping[str, bytes]:
        try:
            content = (self._desk.folder.job(spec.name) / "keys").read_bytes()
        except FileNotFoundError as error:
            raise MessageError(f"residuals of job {spec.name!r} before its keys") from error
        return joined_keys(content, spec, self._desk.agreement)

    def _secret(self, spec: VerticalTrainSpec | VerticalScoreSpec) -> Secret:
        try:
            folder = self._desk.folder
            return Secret(folder.read_secret(folder.job(spec.name) / "secret"))
        except FileNotFoundError as error:
            raise MessageError(f"no job {spec.name!r} is under way here") from error


def held_part(desk: Desk, train: str) -> HeldPart:
    """Return this party's part of a model.

    Raises:
        RefusedError: that training has not ended here, or was of other partners or columns.
        WorkspaceError: the part is damaged.
    """
    path = desk.folder.model(train)
    check_in_use(desk, train)
    try:
        held = HeldPart.model_validate_json(path.read_bytes())
    except FileNotFoundError as error:
        raise desk.folder.refusal(
            "vertical.columns",
            f"vertical training {train!r} has not ended here: run it first",
        ) from error
    except ValidationError as error:
        raise WorkspaceError(f"{path} holds no part of a vertical model: train anew") from error
    _check_as_trained(desk, held)
    return held


def _check_as_trained(desk: Desk, held: HeldPart) -> None:
    """Refuse a part whose partners have changed since, or which reads its columns otherwise now.

    Raises:
        RefusedError: by an amendment.
    """
    if held.agreement == desk.agreement.digest:
        return
    then, now, name = (
        versions_of(desk.folder.path).version(held.agreement),
        desk.agreement,
        held.job,
    )
    same_partners = vertical_partners(then) == vertical_partners(now)
    own = [one.vertical and one.vertical.held_by(desk.folder.name) for one in (then, now)]
    if not same_partners or own[0] != own[1]:
        raise desk.refusal(
            "vertical.columns",
            f"training {name!r} was under a version of the agreement with other partners or "
            "columns: train anew, on people who are in no other sum",
        )


def model_told(desk: Desk, held: HeldPart) -> tuple[Leaf, Mapping[str, object]]:
    """Return the leaf of a part: randomised response has no δ, so that any holds."""
    noised = held.label_epsilon is not None
    return records.ModelTrained, {
        "model_digest": held.digest,
        "rounds": held.rounds,
        "parties": tell_of(held.parties, desk.agreement),
        "epsilon": held.label_epsilon,
        "delta": desk.agreement.budget.delta if noised else None,
    }


def forget_vertical(folder: PartyFolder, job: str) -> None:
    """Remove rows, secrets and offers of a training that has left its parts."""
    directory = folder.job(job)
    for file in (*directory.glob("round-*"), *(directory / name for name in ("keys", "secret"))):
        file.unlink(missing_ok=True)
    (directory / "rows.npz").unlink(missing_ok=True)


def _told(before: Digest | None, number: int, step: float | None, what: str) -> Digest:
    """Return the digest of everything that the brand has told; only what is the same for all."""
    said = {"before": before, "round": number, "step": step, "what": what}
    return hashlib.sha256(rfc8785.dumps(said)).hexdigest()


def _residuals(payload: bytes, rows: AlignedRows) -> NDArray[np.float64]:
    """Read residuals: one for each aligned person, in (-1, 1); 0 for who is left out here.

    Raises:
        MessageError: they are not so many, or out of range.
    """
    expected = len(rows.present) * _FLOAT.itemsize
    if len(payload) != expected:
        raise MessageError(
            f"residuals: got {len(payload)} bytes, expected {expected}: the parties' rows are not "
            "aligned"
        )
    residuals = np.frombuffer(payload, dtype=_FLOAT).astype(np.float64)
    if not (np.abs(residuals) < 1.0).all():
        raise MessageError("residuals outside (-1, 1), or NaN; expected labels less probabilities")
    return np.where(rows.present, residuals, 0.0)
