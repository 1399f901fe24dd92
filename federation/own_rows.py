"""A model at a party, and the party's own rows beside it: for judging it there, and nowhere else.

Guarantees: rows are read like those of a training, of people who consent to its purpose now; who
has withdrawn since, or asked to be erased, is not looked at. Nothing of them is sent, logged or
kept.

Leaves to others: what is made of them (`attack`, `card`), which is not private and stays there.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from compliance.agreement import Agreement
from federation.artefacts import check_kept
from federation.clock import Clock
from federation.consent_reading import ConsentReading
from federation.erased import Erased
from federation.errors import WorkspaceError
from federation.jobs.model import JointModel
from federation.members import Members, load_people
from federation.party import PartyFolder
from federation.population import Population, Use, encoder_for, open_source, read_population
from federation.published import Published
from federation.shelves import scratch_of_several
from federation.specification import TrainSpec

__all__ = ["KeptModel", "OwnRows"]


@dataclass(frozen=True)
class KeptModel:
    """A joint model in a party's folder, with what was asked for.

    Attributes:
        folder: the party's.
        agreement: verified.
        model: the model.
        spec: the job that trained it.
    """

    folder: PartyFolder
    agreement: Agreement
    model: JointModel
    spec: TrainSpec

    @classmethod
    def open(cls, file: Path) -> "KeptModel":
        """Read a model where a party keeps it: see `Published.open`."""
        found = Published.open(file, JointModel, TrainSpec)
        return cls(found.folder, found.agreement, found.model, found.spec)


@dataclass(frozen=True, eq=False)
class OwnRows:
    """A partner's rows for the purpose of a training.

    Attributes:
        people: as they were read, with findings and counts of who was left out.
        features: encoded, shape (n, width).
        members: who of them are positives, shape (n,).
    """

    people: Population
    features: NDArray[np.float64]
    members: NDArray[np.bool_]

    @classmethod
    def read(cls, kept: KeptModel, clock: Clock) -> "OwnRows":
        """Read the rows as of now.

        Raises:
            WorkspaceError: the party has no rows, or no members of the match.
            RefusedError: the match was deleted.
            ConnectorError, ComplianceError: they cannot be read.
        """
        folder, agreement, match = kept.folder, kept.agreement, kept.spec.match
        config = folder.config
        check_kept(folder, match)
        if config.data is None or folder.consents is None or not folder.members(match).exists():
            raise WorkspaceError(
                f"{folder.path} has no rows that {kept.spec.name!r} was trained on: name the model "
                "of a partner"
            )
        with scratch_of_several(folder.job(kept.spec.name) / "own-rows.tmp") as beside:
            people = read_population(
                open_source(config.data, folder.path),
                config.data,
                agreement,
                ConsentReading(folder.consents, agreement.purposes, agreement=agreement),
                Use(agreement.train.purpose, clock(), with_features=True).but(
                    Erased(folder, folder.agreement()).references()  # known by today's recipe
                ),
                scratch=beside,
            )
        members = Members.load(folder.members(match), load_people(folder.job(match) / "people"))
        return cls(
            people,
            encoder_for(agreement).encode(people.features),
            members.among(people.keys),
        )
