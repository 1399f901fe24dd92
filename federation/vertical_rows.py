"""A party's part of a model over columns, and its own rows beside it: for judging it there.

Guarantees: rows are read like those of a training, of people who consent to its purpose now,
without those who asked to be erased.
Nothing of them is sent, logged or kept.

Leaves to others: what is made of them (`vertical_card`, `vertical_attack`), which is not private.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from compliance.agreement import Agreement
from compliance.terms import VerticalTerms
from federation.clock import Clock
from federation.consent_reading import ConsentReading
from federation.erased import Erased
from federation.errors import WorkspaceError
from federation.jobs.assist import HeldPart
from federation.party import LabelRule, PartyFolder
from federation.population import Population, Use, open_source, read_population
from federation.published import Published
from federation.shelves import scratch_of_several
from federation.specification import VerticalTrainSpec

__all__ = ["KeptPart", "is_part", "labels_of", "read_own_rows"]


@dataclass(frozen=True)
class KeptPart:
    """A part of a model in a party's folder, with what was asked for.

    Attributes:
        folder: the party's.
        agreement: the version that it was trained under, verified.
        held: the part.
        spec: the job that trained it.
        terms: agreed for such jobs.
    """

    folder: PartyFolder
    agreement: Agreement
    held: HeldPart
    spec: VerticalTrainSpec
    terms: VerticalTerms

    @classmethod
    def open(cls, file: Path) -> "KeptPart":
        """Read a part where a party keeps it: see `Published.open`."""
        found = Published.open(file, HeldPart, VerticalTrainSpec)
        terms = found.agreement.vertical
        if terms is None:
            raise WorkspaceError(f"{file} was made under an agreement without such jobs")
        return cls(found.folder, found.agreement, found.model, found.spec, terms)


def is_part(file: Path) -> bool:
    """Tell whether a file looks like a part of a model over columns; nothing is verified."""
    try:
        content = json.loads(file.read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and "part" in content and "align" in content


def read_own_rows(kept: KeptPart, clock: Clock, *, with_labels: bool) -> Population:
    """Read the party's rows as of now.

    Raises:
        WorkspaceError: the party has no rows.
        ConnectorError, ComplianceError: they cannot be read.
    """
    folder, agreement, config = kept.folder, kept.agreement, kept.folder.config
    alignment = agreement.match.alignment
    if config.data is None or folder.consents is None or alignment is None:
        raise WorkspaceError(f"{folder.path} has no rows that {kept.spec.name!r} was trained on")
    with scratch_of_several(folder.job(kept.spec.name) / "own-rows.tmp") as beside:
        return read_population(
            open_source(config.data, folder.path),
            config.data,
            agreement,
            ConsentReading(folder.consents, agreement.purposes),
            Use(
                kept.terms.purpose,
                clock(),
                key=alignment.key,
                columns=kept.terms.held_by(folder.name),
                with_labels=with_labels,
            ).but(Erased(folder, folder.agreement()).references()),  # known by today's recipe
            scratch=beside,
        )


def labels_of(people: Population, rule: LabelRule) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return who is positive, and whose label is known, each of shape (n,)."""
    if people.labels is None:
        raise WorkspaceError("the labels' column was not read: name data.labels in party.json")
    positive = np.asarray(people.labels == rule.positive, dtype=np.bool_)
    if rule.negative is None:
        return positive, np.ones(len(positive), dtype=np.bool_)
    return positive, np.asarray(positive | (people.labels == rule.negative), dtype=np.bool_)
