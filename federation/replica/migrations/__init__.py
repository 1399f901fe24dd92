"""The formats of the tables of parties' copies, and the way from each to the next.

```
format   what it has                                         way there
1        copies, their files, the parts of these             `versions.format_1`
```

Guarantees: tables are brought to the present format wholly, or, after an error or a kill, not at
all: whoever calls holds a transaction. Tables of a later format are refused.

Leaves to others: holding the tables, and the transaction (`federation.replica.store`).
"""

from typing import TYPE_CHECKING, Final

from federation.errors import ReplicaError
from privacy.accounting.upgrading import upgrade

if TYPE_CHECKING:
    from sqlalchemy import Connection

__all__ = ["NUMBER_TABLE", "PRESENT", "format_of", "migrate"]

PRESENT: Final = 1
"""The format that this version of the project reads and writes."""
NUMBER_TABLE: Final = "comity_replica_format"
"""The table that bears the number, in Alembic's shape: one row, its column `version_num`."""


def format_of(number: str | None, *, name: str) -> int:
    """Return the format that tables bear; 0 where they were never made wholly.

    Args:
        number: as it is written there; None where no row is.
        name: what errors call the database.

    Raises:
        ReplicaError: it is later than the present one, or none at all.
    """
    if number is None:
        return 0
    if not (number.isascii() and number.isdigit()):
        raise ReplicaError(
            f"{name} is damaged: expected the number of a format in {NUMBER_TABLE}, got something "
            "else: restore it from a backup"
        )
    if int(number) > PRESENT:
        raise ReplicaError(
            f"{name} has format {number}, and this version of Comity knows those up to {PRESENT}: "
            "install the version that wrote it, or a later one"
        )
    return int(number)


def migrate(connection: "Connection") -> None:
    """Make the tables, or bring those of an earlier format to the present one; present ones stay.

    Args:
        connection: within a transaction that holds the tables for itself alone.

    Raises:
        sqlalchemy.exc.SQLAlchemyError: the database refuses; roll back.
    """
    upgrade(connection, scripts="federation.replica:migrations", number=PRESENT)
