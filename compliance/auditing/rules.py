"""What an audit holds logs against, beside the agreement: what is said to whom, prices, code.

Leaves to others: where these come from. `federation` builds them from its routes and accountant;
neither is imported here, so that an auditor needs neither.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Protocol

from compliance.errors import ComplianceError
from compliance.terms import Role

__all__ = ["Computation", "Pricer", "Rules", "UnpriceableError"]


class UnpriceableError(ComplianceError):
    """A logged mechanism, or its δ, is none that can be priced: whoever wrote the log."""


class Pricer(Protocol):
    """Computes again what logged mechanisms cost."""

    @property
    def prices(self) -> bool:
        """Whether `epsilon` can be asked; else mechanisms are only read."""

    def prepare(self) -> None:
        """Load what prices are computed with, which takes a while, before any is asked for."""

    def check(self, mechanism: str) -> None:
        """Return only if the canonical JSON is a mechanism; raise `UnpriceableError`."""

    def epsilon(self, mechanisms: Mapping[str, int], delta: float) -> float:
        """Return ε of all mechanisms, each so often, at `delta`; raise `UnpriceableError`."""


@dataclass(frozen=True)
class Computation:
    """One kind of thing that is said.

    Attributes:
        senders: roles that may say it.
        recipients: roles to which it may be said.
        concerns_people: whether consent must be read for it.
        charged: whether it costs budget, under this agreement.
        within_role: whether it may be said to another party of the sender's role.
        to_everyone: whether it goes to all at once.
        purposes: for which people may be used in it; any that is agreed where empty.
        approved: whether a job in which it leaves needs people's approvals.
    """

    senders: frozenset[Role]
    recipients: frozenset[Role]
    concerns_people: bool = False
    charged: bool = False
    within_role: bool = False
    to_everyone: bool = False
    purposes: frozenset[str] = frozenset()
    approved: bool = False


@dataclass(frozen=True)
class Rules:
    """What logs are held against.

    Attributes:
        computations: by the name that leaves give them.
        pricer: of mechanisms.
        now: the moment of the audit, with a time zone.
        allowed_code: hexadecimal digests of code that may run; empty where nothing says so.
        versions: rules of versions of the contract, by digest; these where one is not among them.
    """

    computations: Mapping[str, Computation]
    pricer: Pricer
    now: datetime
    allowed_code: frozenset[str] = field(default_factory=frozenset)
    versions: Mapping[str, "Rules"] = field(default_factory=dict)

    def under(self, digest: str) -> "Rules":
        """Return the rules under the version of the contract with that digest."""
        return self.versions.get(digest, self)

    def priced_by(self, pricer: Pricer) -> "Rules":
        """Return the same rules, of every version, with another pricer."""
        versions = {digest: one.priced_by(pricer) for digest, one in self.versions.items()}
        return replace(self, pricer=pricer, versions=versions)
