"""What training and scoring over columns would cost: of labels that are noised."""

from federation.objections import policy_objections
from federation.plan.draft import Charges, Draft
from federation.plan.planned import MinimumSize
from federation.plan.setting import Setting
from federation.specification import VerticalScoreSpec, VerticalTrainSpec
from privacy.training.label_noise import LARGEST_EPSILON, label_charge

__all__ = ["draft_vertical"]


def draft_vertical(spec: VerticalTrainSpec | VerticalScoreSpec, setting: Setting) -> Draft:
    """Draft a training or a scoring, in which all data parties take part."""
    people = (setting.brand, *setting.partners)
    refusal = next(iter(policy_objections(spec, setting.agreement)), None)
    if spec.align in setting.refused:
        refusal = "vertical.align", f"alignment {spec.align!r} would be refused: mend it"
    terms = setting.agreement.vertical
    minimums = (
        (MinimumSize(term="vertical.minimum_people", people=terms.minimum_people),)
        if terms is not None
        else ()
    )
    if isinstance(spec, VerticalScoreSpec):
        if spec.train in setting.refused:
            refusal = "vertical.columns", f"training {spec.train!r} would be refused: mend it"
        note = "the brand learns each person's score, the sum over all parties' columns"
        return Draft(who=people, note=note, minimums=minimums, refusal=refusal)
    if spec.label_epsilon is None:
        note = "NOT PRIVATE: partners learn every label"
        return Draft(who=people, note=note, minimums=minimums, refusal=refusal)

    def charges_at(epsilon: float) -> Charges:
        return {setting.brand: (label_charge(min(epsilon, LARGEST_EPSILON)),)}

    return Draft(
        who=people,
        note=(
            "the price is of a person's label alone; what columns tell is not noised; no "
            "forecast for training over columns was measured"
        ),
        charges=charges_at(spec.label_epsilon) if refusal is None else {},
        minimums=minimums,
        refusal=refusal,
        epsilon_term="vertical.label_epsilon",
        asked=spec.label_epsilon,
        charges_at=charges_at,
    )
