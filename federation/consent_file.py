"""A party's consents as one file to read: their own, or a copy of their table for one reading.

```
PARTY/consents-table-XXXXXXXX.tmp/table.csv   what a table held, while it is read
```

Guarantees: what is read does not change within a reading, or the reading ends in an error: a file
is held against its digest, a journal is read to where it ended, and a table is copied within one
transaction. A copy is gone when the reading is over; a killed reader's is at the next reading, at
the latest. A database that is away is waited for, a quarter of a minute, and a minute
more where nothing answers at all.

Leaves to others: what the rows mean (`compliance.consent`), and whom they are about
(`consent_reading`).
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from compliance.consent import CONSENT_COLUMNS, size_of
from compliance.errors import ConsentError
from connectors import ConnectorError, SqlSource
from federation.shelves import scratch_of_several

__all__ = ["ConsentFile", "consent_file"]

_COPIES: Final = "consents-table.tmp"
_BLOCK: Final = 1 << 20


@dataclass(frozen=True)
class ConsentFile:
    """Consents that can be read more than once, and say the same each time.

    Attributes:
        path: of the file.
        name: what to call it in messages.
        size: how many bytes of a journal are read, which grows meanwhile; None of all else.
    """

    path: Path
    name: str
    size: int | None = None

    def digest(self) -> str:
        """Return the SHA-256 (hex) of what is read.

        Raises:
            ConsentError: it cannot be read.
        """
        try:
            with self.path.open("rb") as file:
                if self.size is None:
                    return hashlib.file_digest(file, "sha256").hexdigest()
                digest, left = hashlib.sha256(), self.size
                while left and (block := file.read(min(left, _BLOCK))):
                    digest.update(block)
                    left -= len(block)
                return digest.hexdigest()
        except OSError as error:
            raise ConsentError(f"{self.name} cannot be read: {error.strerror}") from error


@contextmanager
def consent_file(place: Path | SqlSource, beside: Path) -> Iterator[ConsentFile]:
    """Lend a party's consents as they are now.

    Args:
        place: their file or table.
        beside: a directory that may hold a copy of a table.

    Raises:
        ConsentError: the table cannot be read, or a time of it has no time zone.
        WorkspaceError: the disk is full, or cannot be written.
    """
    if isinstance(place, Path):
        yield ConsentFile(place, f"consent file {place}", size_of(place))
        return
    with scratch_of_several(beside / _COPIES) as directory:
        copy = directory / "table.csv"
        yield ConsentFile(copy, f"consent table {_copied(place, copy)}")


def _copied(table: SqlSource, copy: Path) -> str:
    """Copy a table of consents, and return what to call it."""
    from connectors.sql import PAUSES, SqlConnector  # SQLAlchemy is loaded for those who use it

    try:
        connector = SqlConnector(table.url.get_secret_value(), table.table, pauses=PAUSES)
        connector.copy(CONSENT_COLUMNS, copy)
    except ConnectorError as error:
        raise ConsentError(f"consents: {error}") from None
    return connector.name
