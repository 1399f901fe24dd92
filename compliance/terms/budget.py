"""The privacy loss that no person may pass.

Leaves to others: keeping to it (`privacy.accounting`).
"""

from compliance.terms.vocabulary import Delta, Epsilon, Terms

__all__ = ["BudgetTerms"]


class BudgetTerms(Terms):
    """The privacy loss that no person may pass, over everything, while the agreement lasts.

    Attributes:
        epsilon: of (ε, δ)-differential privacy, per person, add-or-remove-one.
        delta: its failure probability.
    """

    epsilon: Epsilon
    delta: Delta
