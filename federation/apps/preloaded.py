"""What messages need, loaded by being imported: a worker would load it anew for every message.

Elsewhere these are imported where they are needed, so that no command waits for what it does not.
"""

import cedarpy
import pandas as pd
import phonenumbers
from dp_accounting.pld import privacy_loss_distribution
from scipy import special, stats

from compliance.log import writer
from federation import budgets, erased
from privacy.accounting import ledger

__all__ = [
    "budgets",
    "cedarpy",
    "erased",
    "ledger",
    "pd",
    "phonenumbers",
    "privacy_loss_distribution",
    "special",
    "stats",
    "writer",
]
