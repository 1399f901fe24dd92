"""What a party's own analyst may see of its people: how many there are in each cell, never who.

Guarantees: people are counted by one or two columns that the agreement names for counting, and by
its categories and edges; every number is rounded down to a multiple of `View.unit`, and one below
it is not told; there are no totals. Policies decide before anybody is read, as they do about
messages, and consent is read anew. The log tells of every view, and of every refusal.

Leaves to others: deciding (`gate`), reading people (`desk`), cells (`privacy.measurement`). Nothing
leaves the party, so there is no noise and no charge: see docs/views.md for what that does not
protect against.
"""

from collections.abc import Sequence
from datetime import datetime
from difflib import get_close_matches
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from compliance import records
from compliance.agreement import Agreement
from compliance.policy import ANALYST
from compliance.terms import MeasureTerms
from federation.clock import Clock, utc_now
from federation.cohort_roots import kept_cohort_root
from federation.desk import Desk
from federation.errors import RefusedError, WorkspaceError
from federation.members import Members
from federation.node import Node
from federation.policies import view_question
from federation.population import Population, Use
from federation.shelves import scratch
from privacy.errors import InvalidParameterError
from privacy.measurement import Bins, Categories, Cells

__all__ = ["LEAST_UNIT", "View", "rounded_down", "view"]

LEAST_UNIT: Final = 5
"""What numbers are rounded to at least, however small the agreement's `minimum_cell` is."""

_MOST_COLUMNS: Final = 2


class View(BaseModel):
    """A party's people, counted.

    Attributes:
        party: whose people.
        purpose: for which all of them consented.
        match: whose members alone are counted; None for all people.
        columns: by which they are counted.
        unit: what numbers are rounded down to multiples of.
        cells: what each cell holds of each column.
        counts: of each cell, a multiple of `unit`; None where there are fewer.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    party: str
    purpose: str
    match: str | None
    columns: tuple[str, ...]
    unit: int
    cells: tuple[tuple[str, ...], ...]
    counts: tuple[int | None, ...]


def rounded_down(counts: NDArray[np.int64], unit: int) -> tuple[int | None, ...]:
    """Return the largest multiple of `unit` in each count; None where there is none but 0."""
    return tuple(count or None for count in (counts // unit * unit).tolist())


def view(
    party: Path, columns: Sequence[str], *, match: str | None = None, clock: Clock = utc_now
) -> View:
    """Count a party's people for its own analyst.

    1. The agreement is in force, and policies allow it.
    2. The agreement names the columns for counting.
    3. People are read who consent to that purpose now.
    4. The log is told: what was decided, and that consent was read.
    5. People are counted, and the counts rounded down.

    Args:
        party: its folder.
        columns: one or two agreed features.
        match: count the members that this match found here, and nobody else.
        clock: moment at which consent is read.

    Raises:
        RefusedError: a term or a clause says no; the log is told.
        InvalidParameterError: no column, too many, one twice, or one that nobody has agreed on.
        WorkspaceError: the party keeps no people, or no members of that match.
        ConnectorError, ComplianceError: people, consents or policies cannot be read.
    """
    node = Node.open(party, clock=clock)
    with node.desk() as desk:
        _check_named(columns, desk.agreement)
        desk.gate.settle()
        name = f"view/{'/'.join(columns)}"[:128]
        try:
            return _view(desk, name, tuple(columns), match)
        except RefusedError as refusal:
            desk.gate.note_refusal(refusal, None, release_id=name)
            raise


def _check_named(columns: Sequence[str], agreement: Agreement) -> None:
    features = [feature.name for feature in agreement.features]
    expected = "expected one column, or two of different names"
    if not columns:
        raise InvalidParameterError(f"{expected}, got none: name one of {', '.join(features)}")
    if len(columns) > _MOST_COLUMNS:
        told = f"{expected}, got {len(columns)}: leave out others than two"
        raise InvalidParameterError(told)
    if len(set(columns)) != len(columns):
        raise InvalidParameterError(f"{expected}, got one of them twice: name it once")
    if others := [one for one in columns if one not in features]:
        near = get_close_matches(others[0], features, n=1)
        remedy = "name one of these, or have the agreement amended"
        raise InvalidParameterError(
            f"expected columns among the agreed features {', '.join(features)}, got another: "
            + (f"did you mean {near[0]!r}?" if near else remedy)
        )


def _view(desk: Desk, name: str, columns: tuple[str, ...], match: str | None) -> View:
    now, agreement = desk.clock(), desk.agreement
    desk.gate.contract.check_in_force(now)
    asked = view_question(desk.folder, agreement, columns, time=now)
    decided = desk.gate.policy.decide(asked, job=None, release_id=name, recipient=ANALYST)  # 1
    terms = agreement.measure
    if terms is None:
        raise RuntimeError("policies allowed a view that no terms are agreed for")
    cells = _cells(desk, terms, columns)  # 2
    members = None if match is None else _members(desk, match)
    use = Use(
        terms.purpose,
        now,
        columns=tuple(feature for feature in agreement.features if feature.name in columns),
    )
    with scratch(desk.folder.path / "view.tmp") as beside:
        people = desk.population("view", use, beside)  # 3
        desk.gate.log.record(decided, _consent_used(desk, people, now, beside))  # 4
    of_row = cells.of(people.features)
    if members is not None:
        of_row = of_row[members.among(people.keys)]
    unit = max(terms.minimum_cell, LEAST_UNIT)
    return View(
        party=desk.folder.name,
        purpose=terms.purpose,
        match=match,
        columns=columns,
        unit=unit,
        cells=cells.labels,
        counts=rounded_down(np.bincount(of_row, minlength=cells.count), unit),  # 5
    )


def _cells(desk: Desk, terms: MeasureTerms, columns: Sequence[str]) -> Cells:
    edges = {column.name: column.edges for column in terms.columns}
    if missing := [column for column in columns if column not in edges]:
        raise desk.refusal(
            "measure.columns",
            f"expected columns that are agreed for counting, which are {', '.join(edges)}, got "
            f"{missing[0]!r}: name these, or have measure.columns of the agreement amended",
        )
    categories = {feature.name: feature.categories for feature in desk.agreement.features}
    return Cells(
        tuple(
            Bins(name, tuple(map(float, edges[name])))
            if edges[name]
            else Categories(name, categories[name])
            for name in columns
        )
    )


def _members(desk: Desk, match: str) -> Members:
    known = desk.folder.path / "jobs"
    found = [path.parent.name for path in known.glob("*/members.npz")]
    if match not in found:
        raise WorkspaceError(
            f"{desk.folder.path} keeps no members of that match: name one of "
            f"{', '.join(sorted(found)) or 'none that there is yet'}"
        )
    return Members.load(desk.folder.members(match), desk.taking_part(match))


def _consent_used(desk: Desk, people: Population, now: datetime, beside: Path) -> records.Record:
    """Return the leaf that consent was read; a view is shown to no other party."""
    digest, used = desk.agreement.digest, people.used
    return records.ConsentUsed(
        time=desk.clock(),  # the decision is told before it
        party=desk.folder.name,
        agreement=digest,
        job=None,
        purpose=used.purpose,
        consent_log_size=people.heard.decision.log_size,
        rows=used.rows,
        eligible=len(used.keys),
        excluded=dict(used.excluded),
        cohort_root=kept_cohort_root(
            desk.folder.cohort_key(digest), used.keys, kept=beside / "cohort.json"
        ),
        as_of=now,
    )
