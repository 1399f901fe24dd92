"""Keeping the joint model that a training left, once it is what the party knows of its making.

Guarantees: a model of another job, agreement, columns or making than announced is refused, and so
is one that names this party for rounds which it never gave.

Leaves to others: the model's form (`jobs.model`), how it was trained (`local`, `summing`).
"""

from collections.abc import Callable, Mapping, Sequence

from compliance import records
from compliance.agreement import Agreement
from compliance.naming import tell_of
from compliance.terms import NoiseSource
from federation.desk import Desk
from federation.errors import MessageError
from federation.gate import Released
from federation.jobs.bodies import check_body
from federation.jobs.exchange import expect
from federation.jobs.model import JointModel, agreed_model, read_model
from federation.jobs.sums import check_summed
from federation.jobs.train import check_trained
from federation.messages import Acknowledged, Message, ModelPublished, SumPhase
from federation.outcomes import arriving
from federation.population import encoder_for
from federation.training.summing import forget_sums
from privacy.accounting.charge import ChargeState

__all__ = ["Publishing", "parse_model"]


def parse_model(message: Message, agreement: Agreement, columns: Sequence[str]) -> JointModel:
    """Read a published model.

    Raises:
        MessageError: it is malformed, or says anything else than its job, the agreement and the
            agreed columns do.
    """
    spec, model = expect(message, ModelPublished).spec, read_model(message)
    if model != agreed_model(agreement, spec, model.body, model.making):
        raise MessageError("published model of another job or agreement than announced")
    check_body(model.body, spec, columns)
    check = check_trained if spec.noise is NoiseSource.LOCAL else check_summed
    check(model, agreement, spec)
    return model


class Publishing:
    """What a party does with a published model."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    @property
    def steps(self) -> Mapping[type[object], Callable[[Message], Released]]:
        """What is done with each kind of message."""
        return {ModelPublished: self._keep}

    def _keep(self, message: Message) -> Released:
        desk = self._desk
        model = parse_model(message, desk.agreement, encoder_for(desk.agreement).names)
        self._check_given(model)
        path = desk.folder.model(model.job)
        kept = {
            "model_digest": model.digest,
            "rounds": model.making.rounds,
            "parties": tell_of(model.making.parties, desk.agreement),
            "missing": tell_of(model.making.missing, desk.agreement),
            "epsilon": model.epsilon,
            "delta": model.delta,
        }
        spec = expect(message, ModelPublished).spec
        with (
            desk.result(path, message, model.canonical_bytes),
            arriving(desk, message, spec, model.digest) as retired,
        ):
            released = desk.release(
                message, Acknowledged(), results=((records.ModelTrained, kept), *retired)
            )
        if model.noise is not NoiseSource.LOCAL:
            forget_sums(desk.folder, model.job)
        without = f", without {', '.join(model.making.missing)}" if model.making.missing else ""
        desk.tell(model.job, f"keeps the joint model{without}")
        return released

    def _check_given(self, model: JointModel) -> None:
        """Refuse a model that names this partner for rounds which it never gave."""
        if self._desk.folder.name not in model.making.parties:
            return
        for number in range(1, model.making.rounds + 1):
            if not self._gave(model, number):
                raise MessageError(f"model of job {model.job!r}: round {number} was not given here")

    def _gave(self, model: JointModel, number: int) -> bool:
        folder, to = self._desk.folder, self._desk.coordinator
        if model.noise is not NoiseSource.LOCAL:  # to the end: by then it had signed who is in it
            last = folder.job(model.job) / f"round-{number:04d}" / f"{SumPhase.UNMASK}.json"
            if not last.exists():
                return False
        if model.noise is NoiseSource.UNSAFE_NONE:
            return True
        said = "train.update" if model.noise is NoiseSource.LOCAL else "sum.noised"
        charge = self._desk.ledger.charge(f"{model.job}/{said}/{to}/round-{number}")
        return charge is not None and charge.state is ChargeState.COMMITTED
