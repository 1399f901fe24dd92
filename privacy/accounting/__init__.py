"""Privacy accounting: what was released, what it cost, how much noise that takes, what is left.

`events` describes mechanisms, `accountant` prices them (by loss distributions, or by `renyi`
bounds), `calibration` finds the noise for a price, `ledger` keeps a party's spending under the
agreement's cap. Each rests on those before it.
"""

from privacy.accounting.accountant import Accountant, epsilon_of
from privacy.accounting.calibration import (
    calibrate_discrete_gaussian,
    calibrate_distributed_discrete_gaussian,
    calibrate_noise_multiplier,
)
from privacy.accounting.charge import Charge, ChargeState
from privacy.accounting.events import (
    ComposedEvent,
    DiscreteGaussianEvent,
    DiscreteLaplaceEvent,
    DistributedDiscreteGaussianEvent,
    Event,
    GaussianEvent,
    RandomisedResponseEvent,
    RepeatedEvent,
    SampledGaussianEvent,
    from_json,
    to_json,
)
from privacy.accounting.ledger import Budget, Ledger, Statement
from privacy.accounting.period import Period, PeriodStatement

__all__ = [
    "Accountant",
    "Budget",
    "Charge",
    "ChargeState",
    "ComposedEvent",
    "DiscreteGaussianEvent",
    "DiscreteLaplaceEvent",
    "DistributedDiscreteGaussianEvent",
    "Event",
    "GaussianEvent",
    "Ledger",
    "Period",
    "PeriodStatement",
    "RandomisedResponseEvent",
    "RepeatedEvent",
    "SampledGaussianEvent",
    "Statement",
    "calibrate_discrete_gaussian",
    "calibrate_distributed_discrete_gaussian",
    "calibrate_noise_multiplier",
    "epsilon_of",
    "from_json",
    "to_json",
]
