"""What an alignment would cost: of the groups that the coordinator counts."""

from federation.errors import RefusedError
from federation.jobs.align import AlignPlan, count_mechanism
from federation.plan.draft import Charges, Draft
from federation.plan.setting import Setting
from federation.specification import AlignSpec

__all__ = ["draft_alignment"]


def draft_alignment(spec: AlignSpec, setting: Setting) -> Draft:
    """Draft an alignment of all data parties."""
    people = tuple(one.party for one in setting.agreement.datasets)
    note = "all parties learn whom all of them know; the price is of what the coordinator counts"
    try:
        terms = AlignPlan.of(spec, setting.agreement, party=people[0]).terms
    except RefusedError as error:
        return Draft(who=people, note=note, refusal=(error.term, error.remedy))

    def charges_at(epsilon: float) -> Charges:
        event = count_mechanism(terms.model_copy(update={"epsilon": epsilon}))
        return dict.fromkeys(people, (event,))

    return Draft(
        who=people,
        note=note,
        charges=charges_at(terms.epsilon),
        minimums=(setting.minimum_match,),
        refusal=setting.too_few(setting.minimum_match),
        epsilon_term="match.alignment.epsilon",
        asked=terms.epsilon,
        charges_at=charges_at,
    )
