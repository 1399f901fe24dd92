"""What releases cost: reserved before they leave, committed after, and told to the log.

Guarantees: a charge pays for one release; a crash leaves no charge open: what has left is
committed, what has not is refunded, and log and ledger tell the same story again.
"""

from pathlib import Path
from typing import Final

from compliance import records
from compliance.agreement import Agreement
from federation.gate.departure import Departure
from federation.gate.outbox import Outbox, release_digest, release_of
from federation.gate.own_log import OwnLog
from federation.party import PartyFolder
from privacy.accounting.accountant import epsilon_of
from privacy.accounting.charge import ChargeState
from privacy.accounting.events import Event, to_json
from privacy.accounting.ledger import Ledger
from privacy.errors import BudgetExceededError, PeriodExceededError

__all__ = ["Charges"]

_WOULD_FIT: Final = (
    "`comity plan FILE --without-tables`, of a collaboration file with all jobs so far, says what "
    "would fit"
)


class Charges:
    """The privacy budget of one party, as its releases weigh on it."""

    def __init__(
        self,
        folder: PartyFolder,
        agreement: Agreement,
        ledger: Ledger | None,
        outbox: Outbox,
        log: OwnLog,
    ) -> None:
        self._folder = folder
        self._agreement = agreement
        self._ledger = ledger
        self._outbox = outbox
        self._log = log

    def check(self, charge: Event) -> None:
        """Refuse what the budget cannot bear, before anybody computes it.

        Raises:
            RefusedError: the charge would pass the cap, or that of the period.
        """
        ledger, cap = self._required_ledger(), self._agreement.budget.epsilon
        asked, spent = ledger.epsilon_if(charge), ledger.statement().epsilon_spent
        if asked > cap:
            raise self._folder.refusal(
                "budget.epsilon",
                f"epsilon spent would come to {asked:.4f}, past the cap of {cap:.4f} ({spent:.4f} "
                "is spent): ask for a smaller epsilon or amend the agreement's budget; "
                + _WOULD_FIT,
            )
        try:
            ledger.check_period(charge, "the job")
        except PeriodExceededError as error:
            raise self._folder.refusal("budget.period.epsilon", str(error)) from error

    def reserve(self, departure: Departure, charge_id: str) -> list[records.Record]:
        """Reserve what a departure costs, if it costs, and return the leaf of it.

        Raises:
            RefusedError: the budget cannot bear it, or that of the period.
        """
        if departure.charge is None:
            return []
        ledger = self._required_ledger()
        delta = self._agreement.budget.delta
        known = ledger.charge(charge_id)
        if known is not None and known.counts:  # this question is another, or it was recalled
            raise self._folder.refusal(
                "budget.epsilon",
                f"{charge_id!r} has left already, in answer to another question, and its charge "
                "pays for one: run the job under another name",
            )
        try:
            ledger.reserve(charge_id, departure.charge)
        except PeriodExceededError as error:
            raise self._folder.refusal("budget.period.epsilon", str(error)) from error
        except BudgetExceededError as error:
            remedy = f"{error}; {_WOULD_FIT}"
            raise self._folder.refusal("budget.epsilon", remedy) from error
        statement = ledger.statement()
        return [
            self._log.leaf(
                records.BudgetReserved,
                departure.job,
                charge_id=charge_id,
                mechanism=to_json(departure.charge),
                epsilon=epsilon_of([departure.charge], delta),
                delta=delta,
                epsilon_spent=statement.epsilon_spent,
                epsilon_cap=statement.epsilon_cap,
                period_epsilon_spent=statement.period and statement.period.epsilon_spent,
            )
        ]

    def commit(self, charge_id: str, job: str, *, tell: bool = True) -> None:
        """Commit a charge: in the log first, so that the ledger still shows what a crash cut.

        The ledger may lie elsewhere than the folder: it hears of nothing that could be lost.
        """
        ledger = self._required_ledger()
        if tell:
            spent = ledger.statement().epsilon_spent
            self._log.note(records.BudgetCommitted, job, charge_id=charge_id, epsilon_spent=spent)
        self._folder.synchronise()
        ledger.commit(charge_id)

    def renew_answer(self, path: Path) -> None:
        """Have what is about to leave again weigh on the period, by what paid for it, if anything.

        Args:
            path: of the answer in the outbox, whose name has the digest of the release's id.
        """
        if self._ledger is None or self._agreement.budget.period is None:
            return
        if (paid_by := self._outbox.paid_by(path)) is not None:
            self.renew(paid_by)
        for charge in self._ledger.statement().charges:
            committed = charge.state is ChargeState.COMMITTED
            if committed and release_digest(charge.charge_id) == release_of(path):
                self.renew(charge.charge_id)

    def renew(self, charge_id: str) -> None:
        """Have a committed charge weigh on the period from now on.

        Raises:
            RefusedError: it does not fit what has left within the period by now.
        """
        try:
            self._required_ledger().renew(charge_id)
        except PeriodExceededError as error:
            raise self._folder.refusal("budget.period.epsilon", str(error)) from error

    def settle(self) -> None:
        """Commit reserved charges whose bytes are in the outbox, and refund any other.

        The log is told what it does not know yet: a crash may have come before a leaf, or after it.
        """
        if self._ledger is None:
            return
        statement = self._ledger.statement()
        reserved = [
            charge.charge_id for charge in statement.charges if charge.state is ChargeState.RESERVED
        ]
        if not reserved:
            return
        kept = self._outbox.releases()
        untold = self._open_in_log()
        for charge_id in reserved:
            job = charge_id.split("/")[0]
            if release_digest(charge_id) in kept:
                self.commit(charge_id, job, tell=charge_id in untold)
                continue
            if charge_id in untold:
                reason = "interrupted before anything left"
                self._log.note(records.BudgetRefunded, job, charge_id=charge_id, reason=reason)
                self._folder.synchronise()
            self._ledger.refund(charge_id)

    def _open_in_log(self) -> set[str]:
        """Return the charges that the log knows as reserved and not yet settled."""
        unsettled: set[str] = set()
        for leaf in self._log.leaves():
            match leaf:
                case records.BudgetReserved(charge_id=charge_id):
                    unsettled.add(charge_id)
                case records.BudgetCommitted(charge_id=charge_id):
                    unsettled.discard(charge_id)
                case records.BudgetRefunded(charge_id=charge_id):
                    unsettled.discard(charge_id)
        return unsettled

    def _required_ledger(self) -> Ledger:
        if self._ledger is None:
            raise RuntimeError(f"{self._folder.name} has no ledger, so it cannot release a charge")
        return self._ledger
