"""A pair of data parties: who learns of whom, and what the agreement lets either see."""

from compliance.agreement import Agreement
from compliance.terms import Linkage, MatchTerms, Reveal, Role
from privacy.accounting.events import DiscreteLaplaceEvent

__all__ = ["learner_of", "record_widths", "size_mechanism"]


def learner_of(agreement: Agreement, partner: str) -> tuple[str, str]:
    """Return who learns and who helps it, of the brand and a partner."""
    (brand,) = agreement.by_role(Role.BRAND)
    if agreement.match.reveal is Reveal.BRAND_LEARNS_MEMBERS:
        return brand.name, partner
    return partner, brand.name


def size_mechanism(terms: MatchTerms) -> DiscreteLaplaceEvent | None:
    """Return the noise on every size that leaves, or None where none does."""
    if terms.size_epsilon is None:
        return None
    return DiscreteLaplaceEvent(scale=1.0 / terms.size_epsilon)


def record_widths(agreement: Agreement, learner: str, peer: str) -> tuple[int, int] | None:
    """Return how many points stand for a record of the learner's and of the peer's.

    None where tokens are matched one by one: there keys may be seen, or there is but one, and no
    record bears a second identifier.

    Args:
        agreement: its match, and what is declared of both data sets.
        learner: the party that learns.
        peer: the party that helps it.
    """
    terms = agreement.match
    if terms.reveal_keys or terms.reveal is Reveal.SIZE_ONLY:
        return None
    mine, theirs = (agreement.dataset(name).identifiers_per_person for name in (learner, peer))
    if terms.linkage is Linkage.ANY_KEY:  # the peer's records need not be told apart
        theirs = 1
    return None if mine == theirs == 1 else (mine, theirs)
