"""The brand's part of training over parties' columns: labels, residuals, sums, scores.

```
jobs/JOB/
  rows.npz, people/    see `aligned`; labels are noised before they are written here again
  labels.npz           as they are used: 1, 0, or -1 for none; the job that they were drawn for, and
                       the question, whose answer pays for them
  state.npz            where the training stands
  sum-NN-PARTNER       a partner's masked part of a round's sum
models/JOB.json        the brand's part, once the training has ended
segments/JOB.csv       everybody's score, after a scoring
```

Guarantees: labels are noised once for a job, as it is specified then, and only the noised ones are
used from then on; nothing that depends on a label leaves before the charge stands, or, where they
are used as they are, before that was said; a sum is added up when all its parts
are there, and counts once; sums of a training that has ended are forgotten.

Leaves to others: the steps (`jobs.assist`), learning (`privacy.training.assisted`), what may leave
(`gate`).
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from compliance import records
from federation.desk import Desk
from federation.errors import MessageError
from federation.gate import Released
from federation.jobs.assist import (
    HeldPart,
    PartnerSum,
    assisted_plan,
    check_partners,
    vertical_partners,
)
from federation.jobs.exchange import expect
from federation.messages import (
    Acknowledged,
    AssistAsk,
    AssistClose,
    AssistExact,
    AssistFitted,
    AssistHeard,
    AssistNoised,
    AssistOpen,
    AssistResiduals,
    AssistScored,
    AssistSettle,
    AssistStanding,
    Message,
)
from federation.outcomes import arriving
from federation.party import write_atomically
from federation.specification import VerticalScoreSpec, VerticalTrainSpec
from federation.stored_arrays import stored_arrays, write_arrays
from federation.training.aligned import AlignedRows, aligned_members, bring_aligned
from federation.training.assisting import forget_vertical, held_part, model_told
from federation.training.one_set import JoinedOnce, trained_on
from privacy.accounting.charge import ChargeState
from privacy.accounting.events import Event
from privacy.randomness import SecretStream
from privacy.training.assisted import MAXIMUM_ROUNDS, Assisted, Finding, LabelledRows
from privacy.training.label_noise import label_charge, randomise_labels
from privacy.training.learners import FITTED_BOUND, PENALTIES, part_from_json

__all__ = ["AssistedBrand"]

_SAYS: Final = {
    Finding.OUT_OF_BOUNDS: "a sum was larger than all partners may say; cut. A partner, or its "
    "mask, is at fault; which one cannot be seen",
    Finding.NO_GAIN: "a sum explained nothing and was not followed",
}

_LARGEST_SCORE: Final = 4.0 * FITTED_BOUND * MAXIMUM_ROUNDS  # of one partner, on people it saw

_LABELS, _STATE = "labels.npz", "state.npz"
_PASSING: Final = (_LABELS, _STATE)


class AssistedBrand:
    """What the brand does with the messages of vertical jobs."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    @property
    def steps(self) -> Mapping[type[object], Callable[[Message], Released]]:
        """What is done with each kind of message."""
        return {
            AssistOpen: self._open,
            AssistAsk: self._ask,
            AssistFitted: self._hear,
            AssistClose: self._close,
            AssistScored: self._take_scores,
        }

    def _open(self, message: Message) -> Released:
        """Step 5: read the rows, noise the labels once, learn what can be learnt alone, and pay."""
        desk, spec = self._desk, expect(message, AssistOpen).spec
        if desk.folder.model(spec.name).exists():
            raise MessageError(f"job {spec.name!r} has left its part here: name another job")
        charge: Event | None = None
        if spec.label_epsilon is not None:
            charge = label_charge(spec.label_epsilon)
            desk.gate.charges.check(charge)
        JoinedOnce.of(desk, message).note(desk, spec)
        rows = bring_aligned(desk, spec)
        question = self._drawn_by(spec)
        if question is None:
            self._noise_labels(message, spec, rows)
        elif not desk.gate.outbox.keeps_answer(question):  # unanswered: this one may pay
            self._keep_labels(message, *self._drawn(spec))
        mine = self._labelled(spec, rows)
        if not self._state_file(spec).exists():
            self._save(spec, Assisted.start(assisted_plan(spec, desk.agreement), mine))
        released = desk.release(
            message,
            AssistExact() if charge is None else AssistNoised(),
            people=rows.used,
            minimums=(rows.minimum,),
            charge=charge,
        )
        desk.tell(spec.name, "opens the training", charged=charge is not None)
        return released

    def _ask(self, message: Message) -> Released:
        """Step 6: give a partner the residuals of a round."""
        desk, body = self._desk, expect(message, AssistAsk)
        spec, number = body.spec, body.round
        partner = self._partner(body.place)
        rows, state = bring_aligned(desk, spec), self._load(spec)
        if number != len(state.steps) + 1 or state.finished:
            raise MessageError(f"round {number} of job {spec.name!r} is not the next one")
        said = state.residuals(self._labelled(spec, rows)).astype("<f4").tobytes()
        step = state.steps[-1] if state.steps else None
        return desk.release(
            message,
            AssistResiduals(spec=spec, round=number, step=step),
            said,
            recipient=partner,
            people=rows.used,
            minimums=(rows.minimum,),
            paid_by=self._paid(spec),
        )

    def _hear(self, message: Message) -> Released:
        """Step 8: take a partner's part of a sum; with the last one, go on.

        1. One part of each partner counts for a round, and only of the round under way.
        2. Add up what all gave; a crash after the state was written finds the round heard.
        """
        desk, body = self._desk, expect(message, AssistFitted)
        spec, number = body.spec, body.round
        rows, state = bring_aligned(desk, spec), self._load(spec)
        partners = vertical_partners(desk.agreement)
        path = self._part_file(spec, number, message.header.sender)
        if path.exists() and path.read_bytes() != message.payload:
            raise MessageError(f"a second part of round {number} from {message.header.sender}")
        heard = len(state.steps)
        if number not in {heard + 1, heard} or (number == heard and not path.exists()):
            raise MessageError(f"part of round {number} of job {spec.name!r}; {heard} were heard")
        length = len(rows.present) + PENALTIES
        sums = PartnerSum.of(spec, desk.agreement)
        sums.total((message.payload,), length)
        write_atomically(path, message.payload, mode=0o600)  # 1
        files = [self._part_file(spec, number, name) for name in partners]
        standing = AssistStanding.WAITING
        if all(file.exists() for file in files):
            if number == heard + 1:
                total = sums.total([file.read_bytes() for file in files], length)
                mine = self._labelled(spec, rows)
                state = state.hear(mine, total[:-PENALTIES], total[-PENALTIES:])
                self._save(spec, state)  # 2
                self._tell(spec, state)
            standing = AssistStanding.DONE if state.finished else AssistStanding.MORE
        return desk.release(
            message,
            AssistHeard(round=number, standing=standing),
            recipient=desk.coordinator,
            people=rows.used,
            paid_by=self._paid(spec),
        )

    def _close(self, message: Message) -> Released:
        """Step 9: tell a partner how it ended; with the last one, keep the brand's own part."""
        desk, body = self._desk, expect(message, AssistClose)
        spec, job = body.spec, body.spec.name
        partner, partners = self._partner(body.place), vertical_partners(desk.agreement)
        state = self._load(spec)
        if not state.finished:
            raise MessageError(f"job {job!r} has not come to its end")
        used, kept = desk.taking_part(job), state.kept_rounds
        settle = AssistSettle(spec=spec, rounds=len(state.steps), kept=kept, step=state.steps[-1])
        kind, others = settle.kind, (name for name in partners if name != partner)
        if not all(desk.gate.outbox.has_left(job, kind, name) for name in others):
            paid_by = self._paid(spec)
            return desk.release(message, settle, recipient=partner, people=used, paid_by=paid_by)
        held = HeldPart(
            agreement=desk.agreement.digest,
            job=job,
            align=spec.align,
            parties=(desk.folder.name, *partners),
            rounds=len(state.steps),
            label_epsilon=spec.label_epsilon,
            intercept=state.intercept,
            part=state.own.keep(kept),
            steps=state.steps,
            losses=state.losses,
            findings=tuple((number, str(finding)) for number, finding in state.findings),
        )
        with (
            desk.result(desk.folder.model(job), message, held.content),
            arriving(desk, message, spec, held.digest) as retired,
        ):
            released = desk.release(
                message,
                settle,
                recipient=partner,
                people=used,
                paid_by=self._paid(spec),
                results=(model_told(desk, held), *retired),
            )
        self._forget(job)
        desk.tell(job, "keeps its part of the model")
        return released

    def _take_scores(self, message: Message) -> Released:
        """Take a partner's part of everybody's score; with the last one, write all scores.

        1. One part of each partner counts, and one set of partners.
        2. Add up, add the brand's own, and write those whom the brand may use; without some
           partners, nobody who was trained on.
        """
        desk, body = self._desk, expect(message, AssistScored)
        spec, sender = body.spec, message.header.sender
        held, rows = held_part(desk, spec.train), bring_aligned(desk, spec)
        self._forget(spec.train)  # a crash may have come before
        partners, everybody = body.partners, vertical_partners(desk.agreement)
        check_partners(partners, spec, desk.agreement)
        agreed = desk.folder.job(spec.name) / "scored-by"
        listed = " ".join(partners).encode()
        if sender not in partners or (agreed.exists() and agreed.read_bytes() != listed):
            raise MessageError(
                f"{sender} scored for job {spec.name!r} with another set of partners"
            )
        sums, length = PartnerSum.of(spec, desk.agreement, partners), len(rows.present)
        sums.total((message.payload,), length)
        path = desk.folder.job(spec.name) / f"scores-{sender}"
        if path.exists() and path.read_bytes() != message.payload:
            raise MessageError(f"a second part of the scores of job {spec.name!r} from {sender}")
        write_atomically(agreed, listed, mode=0o600)  # 1
        write_atomically(path, message.payload, mode=0o600)
        files = [path.with_name(f"scores-{name}") for name in partners]
        if not all(file.exists() for file in files):
            return desk.release(message, Acknowledged(), recipient=desk.coordinator)
        total = sums.total([file.read_bytes() for file in files], length)  # 2
        chosen, without = rows.present, tuple[str, ...]()
        if partners != everybody:
            chosen = chosen & ~trained_on(desk, spec.align)
            without = tuple(name for name in everybody if name not in partners)
        if chosen.any() and np.median(np.abs(total[chosen])) > _LARGEST_SCORE * len(partners):
            raise MessageError(
                f"the scores of job {spec.name!r} are random: the partners do not agree on who was "
                "aligned, or whom models were trained on; align again, under another name"
            )
        total += held.intercept + held.part.score(rows.features)
        content = self._written(spec, chosen, total, without)
        result = desk.folder.segment(spec.name)
        scored = int(np.count_nonzero(chosen))
        told = {"segment": result.stem, "share": 1.0, "rows": scored}
        with desk.result(result, message, content):
            released = desk.release(
                message,
                Acknowledged(),
                recipient=desk.coordinator,
                results=((records.SegmentWritten, told),),
            )
        for file in (*files, desk.folder.job(spec.name) / "rows.npz"):
            file.unlink(missing_ok=True)
        degraded = f", degraded: without {', '.join(without)}" if without else ""
        desk.tell(spec.name, f"wrote its scores{degraded}", rows=scored)
        return released

    def _written(
        self,
        spec: VerticalScoreSpec,
        chosen: NDArray[np.bool_],
        scores: NDArray[np.float64],
        without: tuple[str, ...],
    ) -> bytes:
        """Write the scores, best first, and in every row whose part is missing, if anybody's is."""
        import pandas as pd

        references = aligned_members(self._desk, spec.align).references()
        table = pd.DataFrame(
            {
                "record": references.to_numpy(zero_copy_only=False)[chosen],
                "score": scores[chosen],
            }
        )
        if without:
            table["without"] = " ".join(without)
        ordered = table.sort_values(["score", "record"], ascending=[False, True])
        return ordered.to_csv(index=False, float_format="%.6f").encode()

    def _noise_labels(self, message: Message, spec: VerticalTrainSpec, rows: AlignedRows) -> None:
        """Turn labels round; those who have none keep none."""
        labels, known = rows.labels, rows.labels >= 0
        if spec.label_epsilon is not None:
            secret = self._desk.folder.fresh_secret(f"labels/{message.sealed.digest}")
            seen = randomise_labels(
                labels > 0, spec.label_epsilon, SecretStream(secret, "randomised labels")
            )
            labels = np.where(known, seen.astype(np.int8), np.int8(-1))
        self._keep_labels(message, labels, spec.model_dump_json())

    def _keep_labels(self, message: Message, labels: NDArray[np.int8], drawn_for: str) -> None:
        """Keep labels, and the question whose answer pays for them."""
        file, drawn_by = self._desk.folder.job(message.header.job) / _LABELS, message.sealed.digest
        write_arrays(file, labels=labels, drawn_for=drawn_for, drawn_by=drawn_by)

    def _drawn(self, spec: VerticalTrainSpec) -> tuple[NDArray[np.int8], str]:
        """Return the labels as they are used, and the job that they were drawn for."""
        with stored_arrays(self._labels_file(spec)) as stored:
            return stored.array("labels", np.int8, None), stored.text("drawn_for")

    def _drawn_by(self, spec: VerticalTrainSpec) -> str | None:
        """Return the question for which the labels were drawn, if they were."""
        path = self._labels_file(spec)
        if not path.exists():
            return None
        with stored_arrays(path) as stored:
            return stored.text("drawn_by")

    def _labelled(self, spec: VerticalTrainSpec, rows: AlignedRows) -> LabelledRows:
        labels, drawn_for = self._drawn(spec)
        if drawn_for != spec.model_dump_json():
            raise MessageError(
                f"labels of job {spec.name!r} were drawn when it was another: run it under another "
                "name"
            )
        return LabelledRows(rows.features, labels > 0, (labels >= 0) & rows.present)

    def _save(self, spec: VerticalTrainSpec, state: Assisted) -> None:
        write_arrays(
            self._state_file(spec),
            own=np.frombuffer(state.own.to_json(), dtype=np.uint8),
            intercept=state.intercept,
            partners=state.partners,
            steps=np.array(state.steps, dtype=np.float64),
            losses=np.array(state.losses, dtype=np.float64),
            findings=np.array([[str(at), str(what)] for at, what in state.findings], dtype=np.str_),
            finished=state.finished,
        )

    def _check_paid(self, spec: VerticalTrainSpec) -> None:
        """Refuse to go on before step 5 has ended: its charge stands, or its warning has left.

        A charge stands for the labels that were drawn for the question which it answered.

        Raises:
            MessageError: it has not.
        """
        job, to = spec.name, self._desk.coordinator
        if spec.label_epsilon is None:
            opened = self._desk.gate.outbox.has_left(job, AssistExact().kind, to)
        else:
            paid = self._desk.ledger.charge(self._charge_id(spec))
            opened = (
                paid is not None
                and paid.state is ChargeState.COMMITTED
                and paid.event == label_charge(spec.label_epsilon)
            )
        question = self._drawn_by(spec)  # a charge pays for one draw, and no other
        opened = opened and question is not None and self._desk.gate.outbox.keeps_answer(question)
        if not opened:
            raise MessageError(f"the labels of job {job!r} are not paid for here: open it first")

    def _paid(self, spec: VerticalTrainSpec) -> str | None:
        """Return the charge of the noised labels, of which every later step tells, if any."""
        return None if spec.label_epsilon is None else self._charge_id(spec)

    def _charge_id(self, spec: VerticalTrainSpec) -> str:
        return f"{spec.name}/{AssistNoised().kind}/{self._desk.coordinator}"

    def _load(self, spec: VerticalTrainSpec) -> Assisted:
        self._check_paid(spec)
        path = self._state_file(spec)
        if not path.exists():
            raise MessageError(f"no training of job {spec.name!r} is open here")
        with stored_arrays(path) as stored:
            findings = stored.texts("findings").reshape(-1, 2)
            return Assisted(
                plan=assisted_plan(spec, self._desk.agreement),
                own=part_from_json(stored.array("own", np.uint8, None).tobytes()),
                intercept=float(stored.array("intercept", np.float64)),
                partners=stored.array("partners", np.float64, None),
                steps=tuple(stored.array("steps", np.float64, None).tolist()),
                losses=tuple(stored.array("losses", np.float64, None).tolist()),
                findings=tuple((int(at), Finding(str(what))) for at, what in findings),
                finished=bool(stored.array("finished", np.bool_)),
            )

    def _tell(self, spec: VerticalTrainSpec, state: Assisted) -> None:
        """Report a sum, and what was wrong with it."""
        number = len(state.steps)
        self._desk.tell(spec.name, f"heard round {number} of {spec.rounds} at most")
        for at, finding in state.findings:
            if at == number:
                self._desk.tell(spec.name, f"round {number}: {_SAYS[finding]}")

    def _forget(self, job: str) -> None:
        """Remove what a training that has ended was made of: its labels, its sums over partners."""
        directory = self._desk.folder.job(job)
        for file in (*directory.glob("sum-*"), *map(directory.joinpath, _PASSING)):
            file.unlink(missing_ok=True)
        forget_vertical(self._desk.folder, job)

    def _partner(self, place: int) -> str:
        partners = vertical_partners(self._desk.agreement)
        if place >= len(partners):
            raise MessageError(f"partner {place} of {len(partners)}: there is no such")
        return partners[place]

    def _labels_file(self, spec: VerticalTrainSpec) -> Path:
        return self._desk.folder.job(spec.name) / _LABELS

    def _state_file(self, spec: VerticalTrainSpec) -> Path:
        return self._desk.folder.job(spec.name) / _STATE

    def _part_file(self, spec: VerticalTrainSpec, number: int, partner: str) -> Path:
        return self._desk.folder.job(spec.name) / f"sum-{number:02}-{partner}"
