"""What an expansion would cost: of one count, if it leaves."""

from federation.jobs.expand import CountPlan
from federation.objections import policy_objections
from federation.plan.draft import Charges, Draft
from federation.plan.planned import MinimumSize
from federation.plan.setting import Setting
from federation.specification import ExpandSpec

__all__ = ["draft_expansion"]


def draft_expansion(spec: ExpandSpec, setting: Setting) -> Draft:
    """Draft an expansion at every partner."""
    terms = setting.agreement.expand
    minimum = MinimumSize(term="expand.minimum_segment", people=terms.minimum_segment)
    refusal = None
    if spec.train in setting.refused:
        refusal = "expand.train", f"training {spec.train!r} would be refused: mend it"
    elif (refusal := next(iter(policy_objections(spec, setting.agreement)), None)) is None:
        rows = min(setting.agreement.dataset(name).declared_rows for name in setting.partners)
        if (most := int(terms.maximum_share * rows)) < minimum.people:
            remedy = (
                f"{terms.maximum_share:g} of the {rows} rows that a partner declares are "
                f"{most} people: agree on a minimum of at most {most}, or on a larger "
                "maximum_share"
            )
            refusal = minimum.term, remedy

    def charges_at(epsilon: float | None) -> Charges:
        counting = terms.model_copy(update={"count_epsilon": epsilon})
        count = CountPlan.of(setting.agreement.model_copy(update={"expand": counting}))
        return {} if count is None else dict.fromkeys(setting.partners, (count.charge,))

    told = "no count leaves" if terms.count_epsilon is None else "one noised count leaves"
    return Draft(
        who=setting.partners,
        note=f"scores stay at the partner; best {spec.measure}; {told}",
        charges=charges_at(terms.count_epsilon),
        minimums=(minimum,),
        refusal=refusal,
        epsilon_term="expand.count_epsilon",
        asked=terms.count_epsilon or 0.0,
        charges_at=charges_at,
    )
