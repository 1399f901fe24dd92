"""Columns of a consent file: what its rows say, batch by batch, null where one cannot be read.

Guarantees: a column of few different texts is read by its dictionary, text by text once; no text of
a row is in an error.

Leaves to others: which columns there are, and counting what could not be read (`files`).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from compliance.consent.events import (
    ANYBODY,
    END,
    EPOCH,
    KINDS,
    NEVER,
    SEPARATE,
    recipient_bits,
    recipient_columns,
    separate_bits,
)
from compliance.errors import ConsentError

__all__ = ["Columns", "expiries_in", "microseconds_in", "rfc_3339", "text_in"]

_RANKS: Final = {kind.value: rank for rank, kind in enumerate(KINDS)}
_RFC_3339: Final = r"^\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+-]\d\d:\d\d)$"
_INSTANT: Final = pa.timestamp("us", "UTC")


@dataclass(frozen=True)
class Columns:
    """What the rows of a batch say, column by column; null where one cannot be read.

    Attributes:
        subject: text, empty where there is none.
        rank: place of the event among `KINDS`.
        number: place of the purpose among those declared.
        time: microseconds since 1970.
        separate: bits, as `separate_bits` says.
        named: bits of recipients, a column for each of `recipient_columns`.
        expires: microseconds since 1970; `NEVER` where the consent does not.
        late: how many rows' expiry cannot be read.
    """

    subject: Any
    rank: Any
    number: Any
    time: Any
    separate: Any
    named: Sequence[Any]
    expires: Any
    late: int

    @classmethod
    def of(cls, batch: Any, where: str, known: Mapping[str, int], parties: tuple[str, ...]) -> Self:
        """Read the columns of a batch.

        Args:
            batch: with the columns that every consent file has, and maybe others.
            where: what to call the file in messages.
            known: place of each declared purpose.
            parties: recipients, in sorted order.

        Raises:
            ConsentError: a column is of another type.
        """
        expires, late = expiries_in(batch, where)
        return cls(
            subject=text_in(batch, "subject", where),
            rank=_coded(batch, "event", where, _RANKS.get),
            number=_coded(batch, "purpose", where, known.get),
            time=microseconds_in(batch, "time", where),
            separate=_coded(batch, "separate", where, _separate, absent=0),
            named=[
                _coded(batch, "recipients", where, partial(_named, known=some), absent=ANYBODY)
                for some in recipient_columns(parties).values()
            ],
            expires=expires,
            late=late,
        )

    def events(self, schema: Any) -> Any:
        """Return them as a record batch, once all are sound."""
        moment = pc.add(pc.multiply(self.time, 8), self.rank).cast(pa.int64())
        text = self.subject.cast(pa.large_string())
        columns = [text, self.number, moment, self.separate, self.named[0], self.expires]
        return pa.record_batch([*columns, *self.named[1:]], schema=schema)


def rfc_3339(microseconds: Any) -> Any:
    """Spell microseconds since 1970, null where one is."""
    time = microseconds.cast(pa.timestamp("us")).cast(pa.string())
    return pc.replace_substring(pc.binary_join_element_wise(time, "Z", ""), " ", "T")


def text_in(table: Any, name: str, where: str) -> Any:
    """Return a column as text, empty where there is none.

    Raises:
        ConsentError: it holds neither text nor whole numbers.
    """
    column = table[name]
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    if not (
        pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_integer(kind)
    ):
        raise ConsentError(f"{where}: expected text in column {name}, got {column.type}")
    return pc.fill_null(column.cast(pa.string()), "")


def _separate(text: str) -> int | None:
    words = text.split()
    return separate_bits(words) if set(words) <= set(SEPARATE) else None


def _named(text: str, known: tuple[str, ...]) -> int | None:
    return recipient_bits(text.split() or None, known)


def _coded(
    batch: Any, name: str, where: str, read: Callable[[str], int | None], *, absent: int = 0
) -> Any:
    """Return what a column of few different texts says, null where it cannot be read."""
    if name not in batch.schema.names:
        return pa.array(np.full(len(batch), absent, dtype=np.int32))
    column = batch[name]
    if not (pa.types.is_dictionary(column.type) and pa.types.is_string(column.type.value_type)):
        column = text_in(batch, name, where).dictionary_encode()
    values = [None if text is None else read(text) for text in column.dictionary.to_pylist()]
    nothing = read("")
    return pa.array([*values, nothing], pa.int32()).take(
        pc.fill_null(column.indices.cast(pa.int32()), len(values))
    )


def expiries_in(batch: Any, where: str) -> tuple[Any, int]:
    """Return when consents end, and how many rows do not say so as they must."""
    if "expires" not in batch.schema.names:
        return pa.array(np.full(len(batch), NEVER)), 0
    column = batch["expires"]
    empty = (
        pc.is_null(column)
        if pa.types.is_timestamp(column.type)
        else pc.equal(text_in(batch, "expires", where), "")
    )
    found = pc.if_else(empty, NEVER, microseconds_in(batch, "expires", where))
    return found, found.null_count


def microseconds_in(table: Any, name: str, where: str) -> Any:
    """Return microseconds since 1970, null where the time is malformed or out of range.

    Raises:
        ConsentError: the column holds timestamps without a time zone, or no text.
    """
    column = table[name]
    if pa.types.is_timestamp(column.type):
        if column.type.tz is None:
            raise ConsentError(f"{where}: column {name} has no time zone: write it as UTC")
        time = column.cast(_INSTANT, safe=False)
    else:
        time = _instants(text_in(table, name, where))
    in_range = pc.and_(pc.greater_equal(time, EPOCH), pc.less(time, END))
    return pc.if_else(in_range, time, None).cast(pa.int64())


def _instants(text: Any) -> Any:
    """Return the moments that texts tell, null where one is malformed."""
    text = pc.if_else(pc.match_substring_regex(text, _RFC_3339), text, None)
    try:
        return text.cast(_INSTANT)
    except pa.ArrowInvalid:  # no such day, or more than six digits of a second
        import pandas as pd

        parsed = pd.to_datetime(text.to_pandas(), errors="coerce", utc=True, format="ISO8601")
        return pa.array(parsed.dt.as_unit("us"))
