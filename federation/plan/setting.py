"""What every job of a collaboration is planned against."""

from dataclasses import dataclass, field

from compliance.agreement import Agreement
from compliance.terms import Role
from federation.plan.planned import MinimumSize

__all__ = ["Setting"]


@dataclass(frozen=True)
class Setting:
    """What every job of a collaboration is planned against.

    Attributes:
        agreement: as drafted.
        positives: members whom the partners' tables hold together; assumed where None.
        auc: what a model is taken to reach without noise, in (0.5, 1).
        refused: names of jobs so far that would be refused; the planner adds to them.
    """

    agreement: Agreement
    positives: int | None
    auc: float
    refused: set[str] = field(default_factory=set)

    @property
    def brand(self) -> str:
        """Name of the party with seeds or labels."""
        (brand,) = self.agreement.by_role(Role.BRAND)
        return brand.name

    @property
    def partners(self) -> tuple[str, ...]:
        """Names of the others with data, in the agreement's order."""
        return tuple(party.name for party in self.agreement.by_role(Role.PARTNER))

    @property
    def minimum_match(self) -> MinimumSize:
        """People that every match takes."""
        return MinimumSize(term="match.minimum_match", people=self.agreement.match.minimum_match)

    def too_few(self, minimum: MinimumSize) -> tuple[str, str] | None:
        """Refuse where a party declares fewer people than a minimum takes."""
        least = min(self.agreement.datasets, key=lambda one: one.declared_rows)
        if least.declared_rows >= minimum.people:
            return None
        remedy = (
            f"{least.party} declares {least.declared_rows} rows, and it takes {minimum.people}: "
            f"agree on a minimum of at most {least.declared_rows}"
        )
        return minimum.term, remedy

    @property
    def rows_of_partners(self) -> int:
        """Rows that all partners declare together."""
        return sum(self.agreement.dataset(name).declared_rows for name in self.partners)

    @property
    def assumed_positives(self) -> int:
        """Members whom the partners hold together: as asked with, or every row of the brand."""
        brand = self.agreement.dataset(self.brand).declared_rows
        most = self.rows_of_partners // 2
        return min(brand, most) if self.positives is None else self.positives
