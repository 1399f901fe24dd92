"""Who must never be in a segment: a list of record references that a party keeps.

```
record
R#1093
R#2210
```

Guarantees: the list, a file or a table, is read anew at every use, wholly or not at all, and again
before anything leaves; whoever is on it under one record is left out under every record of theirs
that identifiers link (`population`).

Leaves to others: who puts people on it, and why. It keeps nobody out of matches or training: that
is what consent does.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from connectors import FileSource, SqlSource, open_connector
from connectors.errors import ConnectorError
from connectors.schema import text_of
from federation.errors import WorkspaceError
from federation.references import References
from federation.shelves import PEOPLE, Shelves, put_people, read_together

__all__ = ["COLUMN", "Suppression", "rows_listed"]

COLUMN: Final = "record"
"""The column that names people, as the party's own records are called."""

_LISTED: Final = pa.schema([("subject", pa.large_string())])


class Suppression:
    """A party's list as it is now.

    Args:
        place: CSV or Parquet, or a table of a database, with a column `record`; None where the
            party keeps none.
    """

    def __init__(self, place: Path | SqlSource | None) -> None:
        self._place = place

    def references(self) -> Iterator[pa.Array]:
        """Read who is on it, in batches.

        Raises:
            WorkspaceError: it cannot be read, or lacks the column.
        """
        if (place := self._place) is None:
            return
        source = FileSource(path=place) if isinstance(place, Path) else place
        try:
            for batch in open_connector(source, patient=True).scan([COLUMN]):
                yield text_of(batch.column(0)).drop_null().cast(pa.large_string())
        except (ConnectorError, pa.ArrowException) as error:
            reason = error if isinstance(error, ConnectorError) else "its column is no text"
            raise WorkspaceError(f"suppression list: {reason}") from None

    def require_none_of(self, people: Sequence[References], directory: Path) -> None:
        """Return only if nobody who is used is on the list now.

        Args:
            people: the party's own record references.
            directory: where all are laid by subject; one that is not there yet.

        Raises:
            WorkspaceError: somebody is, or the list cannot be read.
            OSError: the disk is full, or cannot be written.
        """
        if self._place is None:
            return
        with Shelves(directory / "people", PEOPLE) as shelves:
            count = put_people(shelves, people)
        if rows_listed(shelves, count, self.references(), directory / "listed").any():
            raise WorkspaceError(
                "somebody was put on the suppression list while it was used: run the job again"
            )


def rows_listed(
    people: Shelves, count: int, listed: Iterable[pa.Array], directory: Path
) -> NDArray[np.bool_]:
    """Tell which rows bear a listed reference, shape (count,).

    Args:
        people: rows by their record reference, as `shelves.PEOPLE` says.
        count: how many rows there are.
        listed: record references, in any order.
        directory: where they are laid by subject; one that is not there yet.

    Raises:
        OSError: the disk is full, or cannot be written.
    """
    found, some = np.zeros(count, dtype=np.bool_), False
    with Shelves(directory, _LISTED) as shelves:
        for batch in listed:
            shelves.put(pa.record_batch([batch], schema=_LISTED))
            some = some or len(batch) > 0
    if not some:
        return found
    for asked, named in read_together(people, shelves):
        hit = pc.is_in(asked["subject"], value_set=named["subject"].combine_chunks())
        found[asked["row"].to_numpy()[hit.to_numpy()]] = True
    return found
