"""Consent files: CSV or Parquet, read in batches, written whole.

Guarantees: a file is read wholly or refused, with every mistake counted and no subject shown.
Leaves to others: what its events come to (`book`), appending one by one (`journal`).

| column | holds |
|---|---|
| subject | the party's own reference of the person, text, compared as it is written |
| purpose | a purpose that the agreement declares |
| event | one of `ConsentEventKind` |
| time | when, RFC 3339 with an offset (or a Parquet timestamp with a time zone), 1970 to 2199 |
| separate | optional: separate consents given with it, by spaces apart |
| recipients | optional: who may see what is made of them, by spaces apart; anybody where empty |
| expires | optional: when the consent ends, like `time`; it does not where empty |

Times are read to the microsecond.
"""

import gzip
import os
import re
import tempfile
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv, parquet

from compliance.consent.columns import Columns, expiries_in, microseconds_in, rfc_3339, text_in
from compliance.consent.events import KINDS, NEVER, events_schema
from compliance.errors import ConsentError, UnknownPurposeError

__all__ = ["CONSENT_COLUMNS", "JOURNAL", "REQUIRED_COLUMNS", "read_events", "read_rows"]

REQUIRED_COLUMNS: Final = ("subject", "purpose", "event", "time")
"""Columns that each consent file has."""
_OPTIONAL: Final = ("separate", "recipients", "expires")
_FEW: Final = ("purpose", "event", "separate", "recipients")  # different texts in a column
CONSENT_COLUMNS: Final = (*REQUIRED_COLUMNS, *_OPTIONAL)
"""Columns of a consent file that are read; the last three may be absent."""
JOURNAL: Final = ("subject", "purpose", "event", "separate", "recipients", "expires", "time")
"""Columns of a journal, in their order: `time` ends a row."""
_ENDINGS: Final = (".csv", ".csv.gz", ".parquet")
_PURPOSE: Final = re.compile(r"[A-Za-z][A-Za-z0-9._:/ -]{0,126}")
_SHOWN_PURPOSES: Final = 20
_BATCH_ROWS: Final = 65_536
_BLOCK_BYTES: Final = 2 << 20  # of CSV; also the longest row that can be read

_TORN: Final = "with too many or too few fields"
_NO_SUBJECT: Final = "without a subject"
_NO_EVENT: Final = f"whose event is none of {', '.join(KINDS)}"
_NO_TIME: Final = "whose time is not RFC 3339 with an offset, from 1970 to 2199"
_NO_SCOPE: Final = "whose separate consents or expiry cannot be understood"
_MISTAKES: Final = (_TORN, _NO_SUBJECT, _NO_EVENT, _NO_TIME, _NO_SCOPE)
"""What can be wrong with a row, in the order in which it is told."""


def read_events(
    path: Path,
    *,
    purposes: Collection[str],
    recipients: Collection[str] = (),
    first: int | None = None,
    size: int | None = None,
    name: str | None = None,
) -> Iterator[Any]:
    """Read a consent file in batches, each in bounded memory.

    Nothing of a batch may be used before all have been read: only then is every row known to be
    sound.

    Args:
        path: `.csv`, `.csv.gz` or `.parquet`; other columns in it are ignored.
        purposes: those that the agreement declares.
        recipients: those that the agreement knows.
        first: only so many rows from the start, as the file was when it had so many; all of them
            where left out.
        size: only so many bytes of a journal, which grows while it is read; all where left out.
        name: what to call it in messages; by its path where left out.

    Yields:
        Record batches as `events_schema` says, purposes and recipients by their place in sorted
        order.

    Raises:
        ConsentError: the file cannot be read, lacks a column, or has rows without a subject,
            with an unknown event or with a malformed time; all are counted.
        UnknownPurposeError: the file names other purposes.
    """
    torn: list[int] = []
    parties = tuple(sorted(set(recipients)))
    schema = events_schema(parties)
    known = {purpose: place for place, purpose in enumerate(sorted(set(purposes)))}
    where = name or f"consent file {path}"
    seen = _Seen(where)
    for whole in _read(path, where, torn, size):
        batch = whole if first is None else whole.slice(0, first - seen.rows)
        if not len(batch):
            break
        columns = Columns.of(batch, where, known, parties)
        seen.take(batch, columns)
        if seen.all_sound:
            yield columns.events(schema)
    seen.refuse_mistakes(len(torn))
    refuse_purposes(seen.foreign, purposes, where)


class _Seen:
    """What was read of a file so far, and everything that is wrong with it."""

    def __init__(self, where: str) -> None:
        self._where = where
        self._wrong = Counter(dict.fromkeys(_MISTAKES, 0))
        self.rows = 0
        self.foreign: Counter[str] = Counter()

    @property
    def all_sound(self) -> bool:
        return not (self._wrong.total() or self.foreign)

    def take(self, batch: Any, columns: Columns) -> None:
        """Count a batch, and the mistakes in it."""
        self.rows += len(batch)
        self._wrong[_NO_SUBJECT] += pc.sum(pc.equal(columns.subject, "")).as_py() or 0
        self._wrong[_NO_EVENT] += columns.rank.null_count
        self._wrong[_NO_TIME] += columns.time.null_count
        self._wrong[_NO_SCOPE] += columns.separate.null_count + columns.late
        if columns.number.null_count:
            told = text_in(batch, "purpose", self._where)
            counts = pc.value_counts(told.filter(pc.is_null(columns.number))).to_pylist()
            self.foreign.update({pair["values"]: pair["counts"] for pair in counts})

    def refuse_mistakes(self, torn: int) -> None:
        """Return only if every row of the file was sound; `torn` others could not be read."""
        self._wrong[_TORN] = torn
        if found := [f"{count} {what}" for what, count in self._wrong.items() if count]:
            raise ConsentError(
                f"{self._where}: of {self.rows + torn} rows {'; '.join(found)}: correct them"
            )


def read_rows(path: Path, *, size: int | None = None) -> Iterator[Any]:
    """Read a consent file that `read_events` found sound, as text.

    Yields:
        Record batches of text, as `JOURNAL` says; times are in UTC, to the microsecond.

    Raises:
        ConsentError: it cannot be read, or changed meanwhile.
    """
    where = f"consent file {path}"
    for batch in _read(path, where, [], size):
        empty = pa.array([""] * len(batch), pa.string())
        told = {name: text_in(batch, name, where) for name in JOURNAL[:3]}
        for name in JOURNAL[3:5]:
            told[name] = text_in(batch, name, where) if name in batch.schema.names else empty
        expires, _ = expiries_in(batch, where)
        unlimited = pc.equal(expires, NEVER)
        told["expires"] = pc.fill_null(rfc_3339(pc.if_else(unlimited, None, expires)), "")
        told["time"] = rfc_3339(microseconds_in(batch, "time", where))
        yield pa.record_batch(told)


def refuse_purposes(foreign: Counter[str], allowed: Collection[str], where: str) -> None:
    """Refuse undeclared purposes; they are named only where they can be taken for purposes."""
    if not foreign:
        return
    if len(foreign) <= _SHOWN_PURPOSES and all(map(_PURPOSE.fullmatch, foreign)):
        counted = sorted(foreign.items())
        shown = ", ".join(f"{purpose!r} ({count} rows)" for purpose, count in counted)
    else:
        shown = f"{len(foreign)} others in {foreign.total()} rows (is that column the purpose?)"
    raise UnknownPurposeError(
        f"{where}: the agreement declares {_join(sorted(allowed))}, got {shown}: correct them, or "
        "have the agreement amended"
    )


def _read(path: Path, where: str, torn: list[int], size: int | None) -> Iterator[Any]:
    """Yield the columns, batch by batch; note rows with too many or too few fields."""
    try:
        if _ending(path) == ".parquet":
            names = parquet.read_schema(path).names
            _require_columns(names, where)
            wanted = _wanted(names, where)
            encoded = [name for name in wanted if name in _FEW]
            with parquet.ParquetFile(path, read_dictionary=encoded) as file:
                batches = file.iter_batches(batch_size=_BATCH_ROWS, columns=wanted)
                yield from map(_sound, batches)
        else:
            with _csv(path, None, [], size) as reader:
                _require_columns(reader.schema.names, where)
                wanted = _wanted(reader.schema.names, where)
            with _csv(path, wanted, torn, size) as reader:
                yield from map(_sound, reader)
    except (pa.ArrowException, UnicodeError):
        # Arrow quotes the row it stumbled over: its error must not travel with ours.
        raise ConsentError(
            f"{where} is damaged: expected UTF-8 text with a header line, or Parquet"
        ) from None
    except OSError as error:
        raise ConsentError(f"{where} cannot be read: {reason_of(error)}") from error


def _csv(
    path: Path, columns: Collection[str] | None, torn: list[int], size: int | None = None
) -> Any:
    def skip(row: Any) -> str:
        torn.append(row.actual_columns)
        return "skip"

    return csv.open_csv(
        path if size is None else pa.OSFile(str(path)).get_stream(0, size),
        # Arrow reads some blocks ahead; with threads, dozens of them.
        read_options=csv.ReadOptions(use_threads=False, block_size=_BLOCK_BYTES),
        parse_options=csv.ParseOptions(newlines_in_values=True, invalid_row_handler=skip),
        convert_options=csv.ConvertOptions(
            include_columns=columns,
            column_types=dict.fromkeys(CONSENT_COLUMNS, pa.string()),
            strings_can_be_null=False,
        ),
    )


def _require_columns(found: Sequence[str], where: str) -> None:
    if amiss := [name for name in REQUIRED_COLUMNS if found.count(name) != 1]:
        # What was found is not shown: in a file without a header it is the first person's row.
        raise ConsentError(
            f"{where}: expected each of the columns {_join(REQUIRED_COLUMNS)} once in its "
            f"header, not so {_join(amiss)}"
        )


def _wanted(found: Sequence[str], where: str) -> list[str]:
    if twice := [name for name in _OPTIONAL if found.count(name) > 1]:
        raise ConsentError(f"{where}: {_join(twice)} stands twice in its header")
    return [*REQUIRED_COLUMNS, *(name for name in _OPTIONAL if name in found)]


def _sound(batch: Any) -> Any:
    batch.validate(full=True)
    return batch


def encode(table: Any, path: Path) -> bytes:
    ending = _ending(path)
    sink = pa.BufferOutputStream()
    if ending == ".parquet":
        parquet.write_table(table, sink)
    else:
        csv.write_csv(table, sink)
    content: bytes = sink.getvalue().to_pybytes()
    return gzip.compress(content, compresslevel=6, mtime=0) if ending == ".csv.gz" else content


def _ending(path: Path) -> str:
    for ending in _ENDINGS:
        if path.name.endswith(ending):
            return ending
    raise ConsentError(f"consent file {path}: expected a name ending in {_join(_ENDINGS)}")


def write_atomically(path: Path, content: bytes) -> None:
    descriptor, beside = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(beside).replace(path)
    except BaseException:
        Path(beside).unlink(missing_ok=True)
        raise
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def reason_of(error: OSError) -> str:
    return error.strerror or "it is damaged"


def _join(names: Iterable[str]) -> str:
    return ", ".join(names)
