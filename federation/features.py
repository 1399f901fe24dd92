"""The agreed features of a table's rows: as arrays, or as one score each.

Guarantees: a feature in which no row has a readable value is refused, since training on it would
pay for nothing. Scoring holds some thousand rows at a time, and 4 bytes of each go to disk.

Leaves to others: which rows may be used (`population`), how features are encoded
(`privacy.training.encoding`), what makes a score (`jobs.model`).
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from compliance.terms import ColumnTerm
from federation.errors import WorkspaceError

__all__ = ["Scorer", "Scores", "features_of", "require_readable", "strings_of"]

_ROWS_AT_ONCE: Final = 1 << 13  # so that what is made of them stays near the processor

Scorer = Callable[[Mapping[str, NDArray[Any]]], NDArray[np.float64]]
"""Makes one number of each row's features, given by name as `features_of` returns them."""


def features_of(table: pa.Table, named: Mapping[str, str]) -> dict[str, NDArray[Any]]:
    """Return one array per agreed feature: floats, or strings where it is categorical.

    Args:
        table: rows with the agreed columns, typed as a schema promises.
        named: the column of each feature.
    """
    return {
        name: table.column(column).to_numpy()
        if pa.types.is_floating(table.schema.field(column).type)
        else strings_of(table, column)
        for name, column in named.items()
    }


def strings_of(table: pa.Table, column: str) -> NDArray[np.object_]:
    """Return words as objects, each word once in memory."""
    values = table.column(column).combine_chunks().fill_null("").dictionary_encode()
    words = np.array(values.dictionary.to_pylist(), dtype=np.object_)
    rows: NDArray[np.object_] = words[values.indices.to_numpy()]
    return rows


def require_readable(
    source: str, table: pa.Table, terms: Sequence[ColumnTerm], named: Mapping[str, str]
) -> None:
    """Refuse a feature in which nothing can be read.

    Raises:
        WorkspaceError: there are rows, and none has a readable value of it.
    """
    if len(table):
        for feature in _unreadable(table, terms, named, named):
            raise _no_readable(source, named, feature)


class Scores:
    """Scores of rows, as they are read, in a file.

    The last bit of a score depends on where in a batch its row stands. In single precision, rows
    that are the same have the same score.

    Args:
        path: of the file, which is not there yet.
        score: makes the scores.
        terms: of the features.
        named: the column of each.
    """

    def __init__(
        self, path: Path, score: Scorer, terms: Sequence[ColumnTerm], named: Mapping[str, str]
    ) -> None:
        self._path, self._score = path, score
        self._terms, self._named = terms, named
        self._unread, self._rows = set(named), 0
        path.touch(mode=0o600)

    def put(self, batch: pa.RecordBatch) -> None:
        """Score a batch of rows.

        Raises:
            WorkspaceError: a score is not finite.
            OSError: the disk is full, or cannot be written.
        """
        table = pa.Table.from_batches([batch])
        with self._path.open("ab") as file:
            for begin in range(0, len(batch), _ROWS_AT_ONCE):
                rows = features_of(table.slice(begin, _ROWS_AT_ONCE), self._named)
                with np.errstate(over="ignore", invalid="ignore"):
                    scores = self._score(rows).astype(np.float32)
                if not np.isfinite(scores).all():
                    raise WorkspaceError("the model's scores pass all bounds: train another one")
                file.write(scores.tobytes())
        if self._unread:
            self._unread = set(_unreadable(table, self._terms, self._named, self._unread))
        self._rows += len(batch)

    def of(self, rows: NDArray[np.bool_]) -> NDArray[np.float32]:
        """Return the scores of some rows, in their order."""
        scores: NDArray[np.float32] = np.fromfile(self._path, dtype=np.float32)[rows]
        return scores

    def require_readable(self, source: str) -> None:
        """Refuse a feature in which nothing could be read, as `require_readable` does."""
        if self._unread and self._rows:
            raise _no_readable(source, self._named, min(self._unread))


def _unreadable(
    table: pa.Table,
    terms: Sequence[ColumnTerm],
    named: Mapping[str, str],
    looked_at: Collection[str],
) -> Iterator[str]:
    """Yield which of the features looked at no row has a readable value of."""
    for term in terms:
        if term.name not in looked_at:
            continue
        column = table.column(named[term.name])
        if term.categories:
            readable = pc.any(pc.is_in(column, value_set=pa.array(term.categories))).as_py()
        else:
            readable = column.null_count < len(column)
        if not readable:
            yield term.name


def _no_readable(source: str, named: Mapping[str, str], feature: str) -> WorkspaceError:
    return WorkspaceError(
        f"{source}: no row has a readable value in column {named[feature]!r}, agreed as "
        f"feature {feature!r}: mend the values, or the party's data.features"
    )
