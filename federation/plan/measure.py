"""What a measurement would cost: of its counts."""

from federation.assumptions import tables
from federation.jobs.measure import measure_charge
from federation.objections import policy_objections
from federation.plan.draft import Charges, Draft
from federation.plan.setting import Setting
from federation.specification import MeasureSpec
from privacy.errors import InvalidParameterError

__all__ = ["draft_measurement"]


def draft_measurement(spec: MeasureSpec, setting: Setting) -> Draft:
    """Draft a measurement at every partner."""
    refusal = next(iter(policy_objections(spec, setting.agreement)), None)
    if spec.match in setting.refused:
        refusal = "measure.match", f"match {spec.match!r} would be refused: mend it"
    terms = setting.agreement.measure
    note = f"holds for a person in {tables(setting.agreement.train.max_parties_per_person)}"
    if terms is None:
        return Draft(who=setting.partners, note=note, refusal=refusal)

    def charges_at(epsilon: float) -> Charges:
        asked = spec.model_copy(update={"epsilon": epsilon})
        return dict.fromkeys(setting.partners, (measure_charge(asked, setting.agreement)[1],))

    try:
        charges = charges_at(spec.epsilon)
    except InvalidParameterError as error:
        return Draft(who=setting.partners, note=note, refusal=("epsilon", str(error)))
    return Draft(
        who=setting.partners,
        note=f"{note}; counts below {terms.minimum_cell} are withheld",
        charges=charges,
        minimums=(setting.minimum_match,),
        refusal=refusal,
        epsilon_term="an epsilon",
        asked=spec.epsilon,
        charges_at=charges_at,
    )
