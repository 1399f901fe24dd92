"""What the ε that a person is promised rests on, in words, for reports and cards.

Guarantees: made from the signed agreement alone; the same terms give the same sentences.

Leaves to others: whether it is so.
"""

from collections.abc import Iterable, Iterator

from compliance.agreement import Agreement
from compliance.terms import NoiseSource, Role

__all__ = ["assumptions_of", "tables", "trusted_for_epsilon"]


def tables(most: int) -> str:
    """Say in how many tables a person is protected: `up to 2 partners' tables`."""
    return "1 partner's table" if most == 1 else f"up to {most} partners' tables"


def assumptions_of(agreement: Agreement) -> tuple[str, ...]:
    """Say what the person-level figure rests on."""
    most = agreement.train.max_parties_per_person
    partners = len(agreement.by_role(Role.PARTNER))
    return (
        f"One person stands in at most {most} of the {partners} partners' tables, as agreed.",
        "Rows of a partner that share an e-mail or phone are one person, and one row is used.",
        "A second record under another e-mail and another phone is not recognised.",
        "Neighbouring data differ in all rows of one person, at every party (add or remove).",
        "Each partner's number of rows in denominators is the declared, public one.",
        "Epsilon covers the published model, not the match, whose outcome the partners learn.",
    )


def trusted_for_epsilon(agreement: Agreement, noises: Iterable[NoiseSource]) -> Iterator[str]:
    """Say whom ε rests on, for every way in which a job was trained."""
    terms = agreement.train
    for noise in dict.fromkeys(noises):
        match noise:
            case NoiseSource.LOCAL:
                yield (
                    "For epsilon: each partner trusts its own node only; noise is added there in "
                    "full."
                )
            case NoiseSource.DISTRIBUTED:
                yield (
                    f"For epsilon: no more than {terms.colluding_partners} partners join forces "
                    f"with each other or the coordinator, and no more than {terms.absent_partners} "
                    "are missing from a sum."
                )
            case NoiseSource.UNSAFE_NONE:
                yield "No epsilon holds for a job without noise: its sums protect no person."
