"""What a match leaves at a partner: whom it was made from, and who of them are the brand's.

Guarantees: stored whole, readable by its owner only, and never as anything executable.

Leaves to others: the match itself (`jobs.match`).
"""

import io
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from federation.gate import PeopleUsed
from federation.party import write_atomically

__all__ = ["Members"]


@dataclass(frozen=True)
class Members:
    """The people of a partner who took part in a match.

    Attributes:
        used: the people, as the gate wants them declared.
        keys: record references of the members, shape (k,), in the order of the match where
            records are linked one to one; empty before it is done.
    """

    used: PeopleUsed
    keys: NDArray[np.str_]

    def of_rows(self, rows: NDArray[np.int64]) -> Self:
        """Return the members at `rows`, indices into `used.keys`, each once, in that order."""
        first = np.sort(np.unique(rows, return_index=True)[1])
        return replace(self, keys=self.used.keys[rows[first]])

    def among(self, keys: NDArray[np.str_]) -> NDArray[np.bool_]:
        """Tell which of `keys`, shape (n,), are members."""
        return np.isin(keys, self.keys)

    def save(self, path: Path) -> None:
        """Write the members to a file, whole or not at all."""
        write_atomically(path, self.to_bytes(), mode=0o600)

    def to_bytes(self) -> bytes:
        """Write what `load` reads."""
        content = io.BytesIO()
        np.savez(
            content,
            purpose=np.array(self.used.purpose),
            people=self.used.keys,
            rows=np.array(self.used.rows),
            reasons=np.array(list(self.used.excluded), dtype=np.str_),
            counts=np.array(list(self.used.excluded.values()), dtype=np.int64),
            linked=self.used.linked,
            keys=self.keys,
        )
        return content.getvalue()

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what `save` wrote.

        Raises:
            FileNotFoundError: there was no such match.
        """
        with np.load(path, allow_pickle=False) as stored:
            excluded = dict(zip(stored["reasons"].tolist(), stored["counts"].tolist(), strict=True))
            used = PeopleUsed(
                str(stored["purpose"]),
                stored["people"],
                int(stored["rows"]),
                excluded,
                linked=stored["linked"],
            )
            return cls(used, stored["keys"])
