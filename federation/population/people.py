"""The people whom a job may use, as they are read."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from compliance.agreement import Agreement
from connectors.connector import Connector
from federation.consent_reading import ConsentReading, Heard
from federation.errors import WorkspaceError
from federation.matching.token_set import TokenBatch
from federation.party import DataConfig
from federation.people_used import PeopleUsed
from federation.population.persons import Chosen
from federation.population.rows import read_rows
from federation.population.use import Use
from federation.suppression import rows_listed

__all__ = ["DISPUTED", "DUPLICATE", "SUPPRESSED", "Population", "read_population"]

DISPUTED = "no_under_another_record"

DUPLICATE = "duplicate_person"

SUPPRESSED = "suppressed"


@dataclass(frozen=True)
class Population:
    """Eligible people of one party.

    Attributes:
        used: purpose, record references and counts, as the gate wants them declared.
        features: one array of n values per agreed feature; empty where the party has none.
        labels: what the labels' column holds, shape (n,); None where it was not read.
        tokens: identifiers ready for matching, sorted by hash, no two equal; rows are indices into
            the references. They are read once, while the scratch directory is there.
        findings: what was found wrong in the source, a sentence each, counts only.
        heard: what was decided about consent, row by row of the table.
        heard_rows: rows of the people and of their further records.
        scores: one number for each of the people, where a score is made; else empty.
        apart: which of the people were to be told apart, under whatever record, shape (n,).
    """

    used: PeopleUsed
    features: Mapping[str, NDArray[np.generic]]
    tokens: Iterable[TokenBatch] = field(repr=False)
    findings: tuple[str, ...]
    heard: Heard = field(repr=False)
    heard_rows: NDArray[np.bool_] = field(repr=False)
    scores: NDArray[np.float32] = field(repr=False)
    apart: NDArray[np.bool_] = field(repr=False)
    labels: NDArray[np.object_] | None = field(default=None, repr=False)

    @cached_property
    def keys(self) -> NDArray[np.str_]:
        """The party's own record references in memory, shape (n,)."""
        return self.used.keys.to_numpy()


def read_population(
    connector: Connector,
    data: DataConfig,
    agreement: Agreement,
    consents: ConsentReading,
    use: Use,
    *,
    scratch: Path,
    place: Path | None = None,
) -> Population:
    """Read a party's table and keep the people whom a job may use.

    1. Read the agreed columns and report their quality.
    2. The brand uses its seeds only.
    3. Leave out people without consent for the purpose as of the moment, and suppressed ones.
    4. Leave out rows of such a person under other records, seeds or not: no under one is no.
    5. Leave out all but the first row of a person.

    One person are all rows that shared keys and identifiers link, also over other rows.

    Args:
        connector: the party's table.
        data: what its columns are called.
        agreement: columns, bounds, identifier recipe.
        consents: the party's consents.
        use: what the people are read for.
        scratch: an empty directory; what is there serves the tokens, and nothing else.
        place: a directory for the references of the people; where left out, they are in memory.

    Raises:
        MissingColumnError: the table lacks a column.
        ConnectorError: it cannot be read.
        ComplianceError: the consents cannot be read.
        WorkspaceError: no row is a seed, or a feature is unreadable in every row.
        OSError: the disk is full, or cannot be written.
    """
    rows = read_rows(connector, data, agreement, use, scratch)  # 1
    asked = rows.asked
    if data.seeds is not None and not asked.any():  # 2
        raise WorkspaceError(
            f"{connector.name}: none of {rows.count:,} rows is a seed: no row holds "
            f"{data.seeds.equals!r} in column {data.seeds.column!r}; mend the seeds rule"
        )
    heard = consents.decide(  # 3
        rows.people,
        rows.count,
        purpose=use.purpose,
        at=use.at,
        directory=scratch / "consents",
        conditions=consents.conditions(use.purpose, contacts=use.score is not None),
    )
    listed = rows_listed(rows.people, rows.count, use.suppressed, scratch / "suppressed")
    person = rows.persons()
    chosen = Chosen.of(person, asked, heard.decision.allowed & ~listed)  # 4, 5
    listed_apart = rows_listed(rows.people, rows.count, use.apart, scratch / "apart")
    apart = _any_row(person, listed_apart)[chosen.keep]
    del person
    features, labels = rows.features(chosen.keep)
    return Population(
        used=PeopleUsed(
            use.purpose,
            rows.references(chosen.keep, place and place / "used.arrow"),
            int(np.count_nonzero(asked)),
            _excluded(asked, listed, heard, chosen),
            linked=rows.references(chosen.linked, place and place / "linked.arrow"),
        ),
        features=features,
        tokens=rows.tokens.batches(_numbers(chosen.keep)),
        findings=rows.findings,
        heard=heard,
        heard_rows=chosen.keep | chosen.linked,
        scores=rows.scores(chosen.keep),
        apart=apart,
        labels=labels,
    )


def _any_row(person: NDArray[np.integer], rows: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return which rows are of a person of whom some row is among `rows`."""
    people = np.zeros(len(person), dtype=np.bool_)
    people[person[rows]] = True
    whole: NDArray[np.bool_] = people[person]
    return whole


def _excluded(
    asked: NDArray[np.bool_], listed: NDArray[np.bool_], heard: Heard, chosen: Chosen
) -> Mapping[str, int]:
    """Return how many of the rows that were asked for are left out, by reason."""
    decision = heard.decision
    duplicate = asked & decision.allowed & ~listed & ~chosen.disputed & ~chosen.keep
    excluded = {str(reason.value): n for reason, n in decision.excluded_among(asked).items()} | {
        SUPPRESSED: int(np.count_nonzero(asked & listed & decision.allowed)),
        DISPUTED: int(np.count_nonzero(asked & chosen.disputed)),
        DUPLICATE: int(np.count_nonzero(duplicate)),
    }
    return {reason: n for reason, n in excluded.items() if n}


def _numbers(keep: NDArray[np.bool_]) -> NDArray[np.int32]:
    """Return the place among the chosen rows of each that is; -1 of all others."""
    number = np.cumsum(keep, dtype=np.int32)
    number[~keep] = 0  # the first of them is number 1, until the next line
    number -= 1
    return number
