"""The formats of a ledger's tables, and the way from each to the next.

```
format   what it has                                                    way there
1        terms, charges                                                 (it bears no number)
2        a period's cap; since when each charge stands; its number      `versions.format_2`
```

Guarantees: tables are brought to the present format wholly, or, after an error or a kill, not at
all: whoever calls holds a transaction, and every step is taken within it. No charge is lost, none
changes its event or state, and none becomes lighter: where a new format asks what an earlier one
did not keep, the answer is the one under which people lose least. Tables of a later format are
refused.

Leaves to others: holding the tables for itself alone, beginning the transaction and ending it
(`store`, `postgresql_store`), which also make present tables where there are none.
"""

from datetime import datetime
from typing import TYPE_CHECKING, Final

from privacy.accounting.upgrading import upgrade
from privacy.errors import LedgerError

if TYPE_CHECKING:
    from sqlalchemy import Connection

__all__ = ["NUMBER_TABLE", "PRESENT", "format_of", "migrate"]

PRESENT: Final = 2
"""The format that this version of the project reads and writes."""
NUMBER_TABLE: Final = "comity_ledger_format"
"""The table that bears the number, in Alembic's shape: one row, its column `version_num`."""


def format_of(number: str | None, *, name: str) -> int:
    """Return the format that tables bear.

    Args:
        number: as it is written there; None where no row is.
        name: what errors call the ledger.

    Raises:
        LedgerError: it is later than the present one, or none at all.
    """
    if number is None or not (number.isascii() and number.isdigit()):
        raise LedgerError(
            f"ledger {name} is damaged: expected the number of its format in {NUMBER_TABLE}, got "
            f"{'none' if number is None else 'something else'}: restore it from a backup"
        )
    if int(number) > PRESENT:
        raise LedgerError(
            f"ledger {name} has format {number}, and this version of Comity knows those up to "
            f"{PRESENT}: install the version that wrote it, or a later one"
        )
    return int(number)


def migrate(connection: "Connection", *, moment: datetime) -> None:
    """Bring a ledger's tables from an earlier format to the present one; present ones stay.

    Args:
        connection: within a transaction that holds the tables for itself alone.
        moment: now, with a time zone.

    Raises:
        sqlalchemy.exc.SQLAlchemyError: the database refuses; roll back.
    """
    upgrade(connection, scripts="privacy.accounting:migrations", number=PRESENT, moment=moment)
