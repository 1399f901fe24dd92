"""Who took part in a match, and who of them are the brand's: numbers, and a list on disk.

```
jobs/JOB/
  people/
    people.json                who took part: purpose, counts, digests
    used.arrow linked.arrow    their record references (`references`)
  members.npz                  which of them a match found: their places in used.arrow
```

Guarantees: stored whole, readable by their owner only, and never as anything executable; members
belong to the very people they were found among. References are read only when a list is wanted.

Leaves to others: the match itself (`jobs.match`).
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from federation.party import undamaged, write_atomically
from federation.people_used import PeopleUsed
from federation.references import References
from federation.stored_arrays import stored_arrays, to_bytes

__all__ = ["Members", "load_people", "save_people"]


class _Listed(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    count: int = Field(ge=0)
    digest: str = Field(pattern=r"^[0-9a-f]{64}$")

    @classmethod
    def of(cls, references: References) -> Self:
        return cls(count=references.count, digest=references.digest)

    def at(self, path: Path) -> References:
        return References.stored(path, count=self.count, digest=self.digest)


class _People(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    version: int = Field(default=1, ge=1, le=1)
    purpose: str
    rows: int = Field(ge=0)
    excluded: dict[str, int]
    used: _Listed
    linked: _Listed


def save_people(directory: Path, people: PeopleUsed) -> None:
    """Say who takes part; their references lie in the directory already."""
    content = _People(
        purpose=people.purpose,
        rows=people.rows,
        excluded=dict(people.excluded),
        used=_Listed.of(people.keys),
        linked=_Listed.of(people.linked),
    )
    write_atomically(directory / "people.json", content.model_dump_json().encode(), mode=0o600)


def load_people(directory: Path) -> PeopleUsed:
    """Return who takes part, their references unread.

    Raises:
        FileNotFoundError: nobody was read.
        WorkspaceError: the file is damaged.
    """
    path = directory / "people.json"
    with undamaged(path):
        stored = _People.model_validate_json(path.read_bytes())
    return PeopleUsed(
        stored.purpose,
        stored.used.at(directory / "used.arrow"),
        stored.rows,
        stored.excluded,
        linked=stored.linked.at(directory / "linked.arrow"),
    )


@dataclass(frozen=True)
class Members:
    """The people of a party who took part in a match.

    Attributes:
        used: the people, as the gate wants them declared.
        rows: places of the members among them, shape (k,), each once, in the order of the match
            where records are linked one to one; empty before it is done.
    """

    used: PeopleUsed
    rows: NDArray[np.uint32]

    def __len__(self) -> int:
        return len(self.rows)

    def of_rows(self, rows: NDArray[np.integer]) -> Self:
        """Return the members at `rows`, indices into `used.keys`, each once, in that order."""
        first = np.full(len(self.used.keys), len(rows), dtype=np.uint32)
        first[rows[::-1]] = np.arange(len(rows), dtype=np.uint32)[::-1]
        chosen = first[rows] == np.arange(len(rows), dtype=np.uint32)
        return replace(self, rows=rows[chosen].astype(np.uint32))

    def references(self) -> "pa.Array":
        """Read the members' record references, shape (k,), in their order.

        Raises:
            WorkspaceError: they are damaged.
        """
        return self.used.keys.at(self.rows)

    def reference_batches(self) -> Iterator[pa.Array]:
        """Read the members' record references, batch by batch, in the order of the people.

        Raises:
            WorkspaceError: they are damaged.
        """
        rows, begin = np.sort(self.rows), 0
        for batch in self.used.keys.batches():
            first, last = np.searchsorted(rows, (begin, begin + len(batch)))
            yield batch.take(pa.array(rows[first:last] - begin))
            begin += len(batch)

    def among(self, keys: NDArray[np.str_]) -> NDArray[np.bool_]:
        """Tell which of `keys`, shape (n,), are members."""
        asked = pa.array(keys, pa.large_string())
        found = pc.is_in(asked, value_set=self.references())
        return np.asarray(found.to_numpy(zero_copy_only=False), dtype=np.bool_)

    def save(self, path: Path) -> None:
        """Write the members to a file, whole or not at all."""
        write_atomically(path, self.to_bytes(), mode=0o600)

    def to_bytes(self) -> bytes:
        """Write what `load` reads."""
        return to_bytes(people=self.used.keys.digest, rows=self.rows)

    @classmethod
    def load(cls, path: Path, people: PeopleUsed) -> Self:
        """Read what `save` wrote.

        Args:
            path: of the file.
            people: those among whom the members were found.

        Raises:
            FileNotFoundError: there was no such match.
            WorkspaceError: the file is damaged, or the people are others.
        """
        with stored_arrays(path) as stored:
            rows = stored.array("rows", np.uint32, None)
            if stored.text("people") != people.keys.digest:
                raise ValueError("the members are of other people")
            if len(rows) and rows.max() >= len(people.keys):
                raise ValueError("the members are not among the people")
            return cls(people, rows)
