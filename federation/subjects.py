"""What a party's table holds about one person: shown to them, taken along, corrected.

Guarantees: only columns that the table has; every request leaves a leaf, whether the person is held
or not, and none that says which; a correction is written wholly or not at all. The column of the
party's own references stays as it is: consents hang on it.

Leaves to others: who may ask (the party knows its people), what was made of the rows earlier
(segments and matches: read anew by later jobs), holding the folder (whoever calls).
"""

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import pyarrow as pa

from compliance import records
from compliance.agreement import Agreement
from connectors import Connector, SourceFormatError
from connectors.schema import text_of
from federation.clock import Clock
from federation.erased import Erased
from federation.errors import WorkspaceError
from federation.gate import Gate
from federation.jobs.erase import request_tokens
from federation.party import DataConfig, PartyFolder
from federation.population import open_source, recipe_for

__all__ = ["HeldRows", "Subjects", "references_of", "references_of_all"]


@dataclass(frozen=True)
class HeldRows:
    """What a table holds about one person.

    Attributes:
        request: names the request in the party's log.
        columns: of the table, in its order.
        rows: values as text, None where there is none.
    """

    request: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str | None, ...], ...] = field(repr=False)

    def to_csv(self) -> str:
        """Return a table with a line of names (RFC 4180)."""
        text = io.StringIO(newline="")
        writer = csv.writer(text)
        writer.writerow(self.columns)
        writer.writerows(self.rows)
        return text.getvalue()

    def to_json(self) -> str:
        """Return a list of rows, each with its columns by name."""
        rows = [dict(zip(self.columns, row, strict=True)) for row in self.rows]
        return json.dumps(rows, indent=2, ensure_ascii=False) + "\n"


class Subjects:
    """Requests of people about themselves, at one party. Use it under the party's lock."""

    def __init__(
        self, folder: PartyFolder, agreement: Agreement, gate: Gate, *, clock: Clock
    ) -> None:
        self._folder = folder
        self._agreement = agreement
        self._gate = gate
        self._clock = clock

    def show(self, references: Sequence[str]) -> HeldRows:
        """Return all that the table holds under some references of one person.

        Raises:
            WorkspaceError: the party has no table.
            ConnectorError: it cannot be read.
        """
        table, data = self._table()
        columns = table.columns()
        try:
            rows = tuple(row for batch in table.find(data.key, references) for row in _rows(batch))
        except pa.ArrowException:
            raise SourceFormatError(
                f"{table.name}: a column holds what has no form as text: keep it elsewhere"
            ) from None
        request = self._request()
        self._gate.note(records.SubjectInformed, None, request=request)
        return HeldRows(request, columns, rows)

    def correct(self, references: Sequence[str], values: Mapping[str, str | None]) -> str:
        """Write other values into the rows of one person; return the request's name.

        Raises:
            WorkspaceError: the party has no table, or its references were to be changed.
            MissingColumnError: it lacks a column.
            ValueMisfitError: a value does not fit its column.
            SourceReadOnlyError: it can only be read.
            ConnectorError: it cannot be reached.
        """
        table, data = self._table()
        if data.key in values:
            raise WorkspaceError(
                f"column {data.key!r} holds the party's own references, on which consents hang: "
                "it is not corrected"
            )
        table.update(data.key, references, values)
        request = self._request()
        self._gate.note(records.SubjectCorrected, None, request=request)
        return request

    def _table(self) -> tuple[Connector, DataConfig]:
        data = self._folder.config.data
        if data is None:
            raise WorkspaceError(f"{self._folder.path} has no table of people")
        return open_source(data, self._folder.path), data

    def _request(self) -> str:
        label = f"subject/{self._clock().isoformat()}"
        return f"rq-{self._folder.fresh_secret(label).hex()[:32]}"


def references_of(
    folder: PartyFolder, agreement: Agreement, kind: str, value: str
) -> tuple[str, ...]:
    """Return the references of all rows that bear an identifier; reads the whole table.

    Args:
        folder: the party's.
        agreement: in force; says how identifiers are normalised.
        kind: `email` or `phone`.
        value: as the person writes it.

    Raises:
        ErasureError: the identifier could find nobody.
        ConnectorError: the table cannot be read.
    """
    (found,) = references_of_all(folder, agreement, [(kind, value)])
    return found


def references_of_all(
    folder: PartyFolder, agreement: Agreement, named: Sequence[tuple[str, str]]
) -> tuple[tuple[str, ...], ...]:
    """Return the same for each of several identifiers, of a kind each; one reading for all.

    Raises:
        ErasureError, ConnectorError: as `references_of`.
    """
    recipe = recipe_for(agreement.match)
    tokens = [request_tokens(kind, value, recipe)[0].tobytes() for kind, value in named]
    each = tuple(dict.fromkeys(tokens))
    found = dict(zip(each, Erased(folder, agreement).found_by(each), strict=True))
    return tuple(found[token] for token in tokens)


def _rows(batch: pa.RecordBatch) -> Iterable[tuple[str | None, ...]]:
    """Return one person's few rows, as text."""
    return zip(*(text_of(column).to_pylist() for column in batch.columns), strict=True)
