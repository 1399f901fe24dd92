"""What a party's log says, once it is verified: for `comity log` and the report.

Guarantees: nothing is said about a log before its signature, tree and every leaf have been
verified under the key that the signed agreement names, and no leaf contradicts the agreement: of
this party and contract, budget arithmetic within the cap, every charge reserved before its
release and settled once.

Leaves to others: proofs and formats (`compliance.log`), the wording (`cli`).
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from compliance import records
from compliance.agreement import Agreement
from compliance.errors import LogCorruptedError
from compliance.log.verifier import verify_log
from federation.errors import WorkspaceError
from federation.party import verified_agreement

__all__ = ["VerifiedParty", "party_directories", "verify_party"]


@dataclass(frozen=True)
class VerifiedParty:
    """A party's log that holds.

    Attributes:
        party: whose log.
        agreement: the contract it refers to.
        tree_size: leaves.
        root_hash: of the Merkle tree, hex.
        leaves: every leaf, in order.
        epsilon_spent: by committed charges, as the log says.
    """

    party: str
    agreement: Agreement
    tree_size: int
    root_hash: str
    leaves: tuple[records.Record, ...]
    epsilon_spent: float

    @property
    def counts(self) -> Mapping[str, int]:
        """Leaves by kind."""
        return Counter(leaf.kind for leaf in self.leaves)


def party_directories(path: Path) -> tuple[Path, ...]:
    """Return the party folders meant by `path`: itself, the one around a log, or all below it.

    Raises:
        WorkspaceError: there is none.
    """
    if path.name == "log" and (path.parent / "agreement.json").is_file():
        return (path.parent,)
    if (path / "log").is_dir():
        return (path,)
    found = tuple(sorted(log.parent for log in path.glob("*/log") if log.is_dir()))
    if not path.exists():
        raise WorkspaceError(f"{path} does not exist: name a party's folder or a workspace")
    if not found:
        raise WorkspaceError(f"{path} holds no log: name a party's folder or a workspace")
    return found


def verify_party(directory: Path) -> VerifiedParty:
    """Verify a party's agreement and log, offline.

    1. Every party signed the agreement that lies beside the log.
    2. The log's checkpoint is signed by the key that the agreement names for this party.
    3. Every tile and entry hashes to that checkpoint.
    4. Every leaf is of a known kind, by this party, under this agreement.
    5. The leaves keep the budget: see `_check_budget`.

    Raises:
        WorkspaceError: there is no agreement.
        ComplianceError: what does not hold, by file and leaf index.
    """
    agreement = verified_agreement(directory / "agreement.json")  # 1
    party = agreement.party(directory.resolve().name)
    log = verify_log(directory / "log", verification_key=party.log_key)  # 2, 3
    leaves = tuple(records.parse_leaf(entry) for entry in log.entries)
    for index, leaf in enumerate(leaves):  # 4
        if (leaf.party, leaf.agreement) != (party.name, agreement.digest):
            raise LogCorruptedError(
                f"{directory / 'log'}: leaf {index} is of {leaf.party} under agreement "
                f"{leaf.agreement[:16]}…; expected {party.name} and {agreement.digest[:16]}…"
            )
    spent = _check_budget(directory, agreement, leaves)  # 5
    root = log.root_hash.hex() if isinstance(log.root_hash, bytes) else log.root_hash
    return VerifiedParty(party.name, agreement, log.tree_size, root, leaves, spent)


def _check_budget(
    directory: Path, agreement: Agreement, leaves: tuple[records.Record, ...]
) -> float:
    """Check that charges are reserved, released and settled in that order; return ε committed."""
    pending: set[str] = set()
    spent = 0.0
    for index, leaf in enumerate(leaves):
        if problem := _budget_problem(leaf, agreement, pending):
            raise LogCorruptedError(f"{directory / 'log'}: leaf {index} ({leaf.kind}) {problem}")
        if isinstance(leaf, records.BudgetReserved):
            pending.add(leaf.charge_id)
        elif isinstance(leaf, records.BudgetCommitted | records.BudgetRefunded):
            pending.remove(leaf.charge_id)
            spent = leaf.epsilon_spent if isinstance(leaf, records.BudgetCommitted) else spent
    return spent


def _budget_problem(leaf: records.Record, agreement: Agreement, pending: set[str]) -> str:
    """Say what is wrong with a leaf about the budget, given the charges pending before it."""
    match leaf:
        case records.BudgetReserved(epsilon_cap=cap) if cap != agreement.budget.epsilon:
            return "names another cap than the agreement's"
        case records.BudgetReserved(epsilon_spent=spent) if spent > agreement.budget.epsilon:
            return "passes the agreement's budget"
        case records.Release(charge_id=str(charge)) if charge not in pending:
            return "releases under a charge that was not reserved"
        case (
            records.BudgetCommitted(charge_id=charge) | records.BudgetRefunded(charge_id=charge)
        ) if charge not in pending:
            return "settles a charge that was not open"
    return ""
