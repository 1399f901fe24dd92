"""The budget of a ledger, by the terms of an agreement.

Leaves to others: keeping to it (`privacy.accounting.ledger`).
"""

from compliance.agreement import Agreement
from privacy.accounting.ledger import Budget
from privacy.accounting.period import Period

__all__ = ["budget_of"]


def budget_of(agreement: Agreement) -> Budget:
    """Return what one person may lose, at the δ that cuts of noise leave of what is agreed."""
    terms, period_delta = agreement.budget.period, agreement.accounted_period_delta
    period = None
    if terms is not None and period_delta is not None:
        period = Period(terms.days, terms.epsilon, period_delta)
    return Budget(agreement.budget.epsilon, agreement.accounted_delta, period)
