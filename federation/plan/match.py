"""What a match would cost: of sizes that leave, if any do."""

from compliance.terms import Reveal
from federation.jobs.match import learner_of, size_mechanism
from federation.plan.draft import Charges, Draft
from federation.plan.setting import Setting
from privacy.accounting.events import Event

__all__ = ["draft_match"]


def draft_match(setting: Setting) -> Draft:
    """Draft every match of the agreement, which says all there is to it."""
    terms = setting.agreement.match
    notes = {
        Reveal.PARTNER_LEARNS_MEMBERS: "partners learn who of their people are seeds",
        Reveal.BRAND_LEARNS_MEMBERS: "the brand learns whom each partner knows",
        Reveal.BOTH_LEARN_MEMBERS: "both sides learn who matched",
    }
    note = "nobody learns who matched; sizes leave with noise"
    if terms.reveal in notes:
        note = f"not differentially private by its nature: {notes[terms.reveal]}"

    def charges_at(epsilon: float | None) -> Charges:
        mechanism = size_mechanism(terms.model_copy(update={"size_epsilon": epsilon}))
        if mechanism is None or terms.reveal is Reveal.BOTH_LEARN_MEMBERS:
            return {}
        charges: dict[str, tuple[Event, ...]] = {}
        for partner in setting.partners:
            learner, peer = learner_of(setting.agreement, partner)
            tellers = (learner, peer) if terms.reveal is Reveal.SIZE_ONLY else (learner,)
            for party in tellers:
                charges[party] = (*charges.get(party, ()), mechanism)
        return charges

    return Draft(
        who=(setting.brand, *setting.partners),
        note=f"{note}; below {terms.minimum_match} nothing leaves",
        charges=charges_at(terms.size_epsilon),
        minimums=(setting.minimum_match,),
        refusal=setting.too_few(setting.minimum_match),
        epsilon_term="match.size_epsilon",
        asked=terms.size_epsilon or 0.0,
        charges_at=charges_at,
    )
