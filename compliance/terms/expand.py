"""How an audience is expanded.

Leaves to others: scoring and choosing (`federation`).
"""

from typing import Annotated

from pydantic import AfterValidator, Field

from compliance.terms.vocabulary import ColumnName, Count, Epsilon, Finite, Purpose, Terms, unique

__all__ = ["ExpandTerms"]


class ExpandTerms(Terms):
    """How an audience is expanded.

    Attributes:
        purpose: for which each person must have consented.
        maximum_share: largest share of a partner's people in a segment, in (0, 1].
        minimum_segment: people in the smallest segment; a smaller share gives this many, and none
            is written where `maximum_share` would not reach it.
        count_epsilon: privacy loss per person, over all partners, of counting their people in one
            job; with it, each partner tells how many it has, with noise. Left out: no count leaves.
        fairness_groups: categorical features by whose values a model's card compares how many are
            chosen.
    """

    purpose: Purpose
    maximum_share: Annotated[Finite, Field(gt=0, le=1)]
    minimum_segment: Count
    count_epsilon: Annotated[Epsilon, Field(ge=1e-3, le=100)] | None = None
    fairness_groups: Annotated[
        tuple[ColumnName, ...], Field(max_length=64), AfterValidator(unique)
    ] = ()
