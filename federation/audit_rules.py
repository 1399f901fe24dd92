"""What this package's routes and accountant say to an auditor.

Guarantees: loads neither Flower nor torch; prices are computed where `dp_accounting` is installed.

Leaves to others: the checks (`compliance.auditing`).
"""

from collections.abc import Mapping
from datetime import datetime
from functools import lru_cache
from importlib.util import find_spec
from math import isfinite
from typing import Final

from compliance.agreement import Agreement
from compliance.auditing import Computation, Rules, UnpriceableError
from compliance.terms import Computation as Job
from federation.routes import ROUTES, is_charged
from privacy.accounting.accountant import Accountant
from privacy.accounting.events import Event, GaussianEvent, from_json
from privacy.errors import InvalidParameterError

__all__ = ["Accounting", "rules_for"]


class Accounting:
    """Prices logged mechanisms with the accountant that charged them."""

    def __init__(self) -> None:
        self._prices = find_spec("dp_accounting") is not None

    @property
    def prices(self) -> bool:
        """Whether `dp_accounting` is installed."""
        return self._prices

    def prepare(self) -> None:
        """Load what prices are computed with, which takes most of a second, if it is installed."""
        if self._prices:
            Accountant().compose(GaussianEvent(noise_multiplier=100.0)).epsilon(0.5)

    def check(self, mechanism: str) -> None:
        """Return only if the canonical JSON is a mechanism.

        Raises:
            UnpriceableError: it is none.
        """
        try:
            _event(mechanism)
        except InvalidParameterError as error:
            raise UnpriceableError(f"no mechanism: {error}") from error

    def epsilon(self, mechanisms: Mapping[str, int], delta: float) -> float:
        """Return ε of all mechanisms, each so often, at `delta`.

        Raises:
            UnpriceableError: one is none, δ is out of range, or no number comes out.
        """
        try:
            whole = Accountant()
            for mechanism, count in mechanisms.items():
                whole.compose(_event(mechanism), count)
            price = whole.epsilon(delta)
        except (InvalidParameterError, ArithmeticError, ValueError) as error:
            raise UnpriceableError(f"cannot be priced: {error}") from error
        if not isfinite(price):
            raise UnpriceableError("cannot be priced: no finite epsilon comes out")
        return price


@lru_cache(maxsize=1024)
def _event(mechanism: str) -> Event:
    return from_json(mechanism)


def rules_for(agreement: Agreement, *, now: datetime) -> Rules:
    """Return what logs under an agreement are held against."""
    computations = {
        kind: Computation(
            senders=route.sender,
            recipients=route.recipient,
            concerns_people=route.concerns_people,
            charged=is_charged(kind, agreement),
            within_role=route.within_role,
            to_everyone=kind == "identify",
            purposes=_purposes(kind, agreement),
            approved=route.concerns_people and _is_approved(kind, agreement),
        )
        for kind, route in ROUTES.items()
    }
    return Rules(computations, Accounting(), now, frozenset(agreement.code_digests))


def _purposes(kind: str, agreement: Agreement) -> frozenset[str]:
    """Return the purposes for which people may be used in what is said, by the terms of its job."""
    subject = kind.partition(".")[0]
    terms = {
        "match": (agreement.match,),
        "align": (agreement.match, agreement.vertical),
        "train": (agreement.train,),
        "sum": (agreement.train,),
        "assist": (agreement.vertical,),
        "expand": (agreement.expand,),
        "measure": (agreement.measure,),
    }
    return frozenset(one.purpose for one in terms.get(subject, ()) if one is not None)


_JOBS: Final[dict[str, tuple[Job, ...]]] = {
    "match": (Job.MATCH,),
    "align": (Job.ALIGN,),
    "train": (Job.TRAIN,),
    "sum": (Job.TRAIN,),
    "assist": (Job.TRAIN_VERTICAL, Job.SCORE_VERTICAL),
    "expand": (Job.EXPAND,),
    "measure": (Job.MEASURE,),
}
"""Jobs in which something is said, by the first word of its name."""


def _is_approved(kind: str, agreement: Agreement) -> bool:
    """Tell whether every job in which this is said needs approvals."""
    jobs = _JOBS.get(kind.partition(".")[0], ())
    return bool(jobs) and all(map(agreement.needs_approval, jobs))
