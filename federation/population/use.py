"""What people are read for."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import chain

import pyarrow as pa

from compliance.agreement import Agreement
from compliance.terms import ColumnTerm
from federation.features import Scorer

__all__ = ["Use"]


@dataclass(frozen=True)
class Use:
    """What people are read for.

    Attributes:
        purpose: what their data would be used for.
        at: moment at which consent is read, with a time zone.
        with_features: whether the agreed features are read too, into memory.
        key: the agreed key of which each person's first identifier alone is brought to a match;
            all keys and identifiers where left out.
        score: what is made of the features as they are read, so that a number a row is kept of
            them, in single precision.
        suppressed: references, in batches, of people who are left out like those who say no.
        apart: references, in batches, of people who are told apart.
        columns: read in place of the agreed features.
        with_labels: whether the labels' column is read too.
    """

    purpose: str
    at: datetime
    with_features: bool = False
    key: str | None = None
    score: Scorer | None = None
    suppressed: Iterable[pa.Array] = ()
    apart: Iterable[pa.Array] = ()
    columns: tuple[ColumnTerm, ...] = ()
    with_labels: bool = False

    def terms(self, agreement: Agreement) -> tuple[ColumnTerm, ...]:
        """Return the columns to read."""
        return self.columns or (agreement.features if self.with_features else ())

    def but(self, suppressed: Iterable[pa.Array]) -> "Use":
        """Return it with more people left out."""
        return replace(self, suppressed=chain(self.suppressed, suppressed))
