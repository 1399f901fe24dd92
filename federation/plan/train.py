"""What training over rows would cost, and what its noise is likely to do to the model."""

from collections.abc import Mapping
from typing import Final

from compliance.terms import ModelFamily, NoiseSource
from federation.assumptions import tables
from federation.hidden_share import PlannedShare
from federation.jobs.hidden import HiddenPlan
from federation.jobs.standing import Sums
from federation.jobs.sums import sums_for, whole_charge
from federation.jobs.train import training_plan
from federation.objections import policy_objections
from federation.plan.draft import Charges, Draft
from federation.plan.planned import TrainingForecast
from federation.plan.setting import Setting
from federation.population import encoder_for
from federation.specification import TrainSpec
from privacy.accounting.events import Event, RepeatedEvent, SampledGaussianEvent
from privacy.accounting.price import (
    LOGISTIC_REGRESSION,
    NETWORK,
    RIDGE_REGRESSION,
    Curve,
    ForestShape,
    Shape,
    TrainingShape,
    forecast,
    smallest_within,
)
from privacy.errors import InvalidParameterError
from privacy.training.random_boosting import TREES

__all__ = ["draft_training"]

_CURVES: Final[Mapping[ModelFamily, Curve]] = {
    ModelFamily.LOGISTIC_REGRESSION: LOGISTIC_REGRESSION,
    ModelFamily.RIDGE_REGRESSION: RIDGE_REGRESSION,
    ModelFamily.NETWORK: NETWORK,
}
"""Of families whose gradients have noise; that of trees belongs to their shape."""

_HEAVY_LOSS: Final = 0.25  # of what a model has above guessing; past it a plan warns


def draft_training(spec: TrainSpec, setting: Setting) -> Draft:
    """Draft a training over rows at every partner."""
    refusal = next(iter(policy_objections(spec, setting.agreement)), None)
    if not setting.agreement.features:
        return Draft(who=setting.partners, note=_note(spec, setting), refusal=refusal)
    if spec.match in setting.refused:
        refusal = "train.match", f"match {spec.match!r} would be refused: mend it"
    asked, note = spec.epsilon, _note(spec, setting)
    if asked is None:
        minimums = (setting.minimum_match,)
        return Draft(who=setting.partners, note=note, minimums=minimums, refusal=refusal)

    def charges_at(epsilon: float) -> Charges:
        charge = _charge(spec.model_copy(update={"epsilon": epsilon}), setting)
        counting = HiddenPlan.of(spec, setting.agreement)
        counted = () if counting is None else (counting.charge,)
        return dict.fromkeys(setting.partners, (charge, *counted))

    def reaches(epsilon: float) -> bool:
        try:
            charges_at(epsilon)
        except InvalidParameterError:
            return False
        return True

    try:
        charges = charges_at(asked)
    except InvalidParameterError as error:
        smallest = smallest_within(reaches, asked)
        least = "" if smallest is None else f"; {smallest:g} is the smallest in reach"
        return Draft(who=setting.partners, note=note, refusal=("epsilon", f"{error}{least}"))
    noise, shape = _noise(spec, setting)
    if spec.model is ModelFamily.NETWORK and spec.rounds == 1 and len(setting.partners) > 1:
        note += (
            "; no forecast: noised networks that are averaged once lose far more than was "
            "measured otherwise; ask for 10 rounds, which cost no more privacy"
        )
        shape = None
    return Draft(
        who=setting.partners,
        note=note,
        charges=charges,
        minimums=(setting.minimum_match,),
        refusal=refusal,
        epsilon_term="an epsilon",
        asked=asked,
        charges_at=charges_at,
        noise_multiplier=noise,
        forecast=None if shape is None else _forecast(spec, asked, shape, setting),
        hidden_share=_hidden_share(spec, setting),
    )


def _hidden_share(spec: TrainSpec, setting: Setting) -> PlannedShare | None:
    """Say what to expect of counting hidden positives; None where nobody counts."""
    plan, people = HiddenPlan.of(spec, setting.agreement), setting.rows_of_partners
    if plan is None or people < 2:
        return None
    seeds = setting.assumed_positives
    return PlannedShare.of(plan, partners=len(setting.partners), people=people, seeds=seeds)


def _note(spec: TrainSpec, setting: Setting) -> str:
    terms = setting.agreement.train
    if spec.noise is NoiseSource.UNSAFE_NONE:
        return f"protects no person: up to {spec.rounds} exact sums over partners"
    held = f"holds for a person in {tables(terms.max_parties_per_person)}"
    if spec.noise is NoiseSource.LOCAL:
        rounds = "1 round" if spec.rounds == 1 else f"{spec.rounds} rounds"
        return f"{held}; {rounds} of {spec.steps_per_round} steps"
    colluding, absent = terms.colluding_partners, terms.absent_partners
    collude = "1 partner colludes" if colluding == 1 else f"{colluding} partners collude"
    missing = "1 is missing" if absent == 1 else f"{absent} are missing"
    sums = "1 secure sum" if spec.rounds == 1 else f"{spec.rounds} secure sums"
    return f"{held}, though {collude} and {missing}; {sums}"


def _sums(spec: TrainSpec, setting: Setting) -> Sums:
    return sums_for(spec, setting.agreement, width=encoder_for(setting.agreement).width)


def _charge(spec: TrainSpec, setting: Setting) -> Event:
    if spec.noise is NoiseSource.LOCAL:
        charge = training_plan(spec, setting.agreement, expected_rows=1).charge
        return RepeatedEvent(event=charge, count=spec.rounds)
    if (whole := whole_charge(_sums(spec, setting), spec)) is None:
        raise RuntimeError("sums with noise have a price")
    return whole


def _noise(spec: TrainSpec, setting: Setting) -> tuple[float, Shape | None]:
    """Return the noise multiplier, and the training's shape where somebody can be told apart.

    Sums are taken as steps on all rows in one place.
    """
    declared = tuple(setting.agreement.dataset(name).declared_rows for name in setting.partners)
    if spec.noise is NoiseSource.LOCAL:
        parameters = training_plan(spec, setting.agreement, expected_rows=1).parameters
        noise, rows = parameters.noise_multiplier, declared
        step = parameters.event.model_copy(update={"steps": spec.steps})
        clipping_norm = setting.agreement.train.clipping_norm
    else:
        sums = _sums(spec, setting)
        noise, rows, clipping_norm = sums.noise_multiplier, (sum(declared),), 1.0
        step = SampledGaussianEvent(
            noise_multiplier=sums.gradient_noise, sampling_probability=1.0, steps=spec.rounds
        )
    if sum(declared) < 2:
        return noise, None
    positives = setting.assumed_positives
    if spec.model is ModelFamily.BOOSTED_TREES:
        return noise, ForestShape(
            rows=sum(declared),
            positives=positives,
            gradient_noise=step.noise_multiplier,
            sums=spec.rounds * TREES,
        )
    return noise, TrainingShape(
        rows=rows,
        positives=positives,
        columns=encoder_for(setting.agreement).width,
        event=step,
        clipping_norm=clipping_norm,
        curve=_CURVES[spec.model],
    )


def _forecast(spec: TrainSpec, epsilon: float, shape: Shape, setting: Setting) -> TrainingForecast:
    found, columns = forecast(shape, setting.auc), encoder_for(setting.agreement).width
    rows = shape.rows if isinstance(shape, ForestShape) else sum(shape.rows)
    warning = None
    if found.lost >= _HEAVY_LOSS:
        over, fewer = f" over {columns} columns", "agree on fewer columns, "
        if isinstance(shape, ForestShape):  # whose loss does not follow their number
            over = fewer = ""
        warning = (
            f"about {shape.positives} positives cannot carry epsilon {epsilon:g}{over}: the "
            f"noise is likely to take {found.lost:.0%} of what a model would have above "
            f"guessing; bring more positives, {fewer}or allow a larger epsilon"
        )
    return TrainingForecast(
        family=spec.model,
        rows=rows,
        positives=shape.positives,
        assumed=setting.positives is None,
        columns=columns,
        signal_to_noise=found.ratio,
        lost=found.lost,
        auc=found.auc,
        auc_loss=found.auc_loss(found.lost),
        auc_loss_least=found.auc_loss(found.least),
        auc_loss_most=found.auc_loss(found.most),
        warning=warning,
    )
