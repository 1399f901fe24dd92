"""What a collaboration would do and cost, before anybody does anything.

`planned` is what is told; `planner` follows every party's ledger, and a module for each kind of job
drafts what it would charge whom, in a `setting`.

Guarantees: computed from the file, and how many rows its tables have; nothing is charged, nothing
leaves, and a table that cannot be counted is said to be so. Every
party's ledger is followed by itself; what is told of a job is told of the party that it leaves
with the least. What is called the largest or smallest that would pass was searched for.

Leaves to others: prices and forecasts (`privacy.accounting.price`), refusing in earnest (`gate`),
drawing (`cli`).
"""

from federation.plan.planned import (
    FullerTable,
    MinimumSize,
    Plan,
    PlannedJob,
    PlannedPeriod,
    TrainingForecast,
    UncountedTable,
)
from federation.plan.planner import plan

__all__ = [
    "FullerTable",
    "MinimumSize",
    "Plan",
    "PlannedJob",
    "PlannedPeriod",
    "TrainingForecast",
    "UncountedTable",
    "plan",
]
