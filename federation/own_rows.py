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
from pydantic import ValidationError

from compliance.agreement import Agreement
from compliance.errors import InvalidAgreementError
from federation.artefacts import check_kept, deleted_in
from federation.clock import Clock
from federation.consent_reading import ConsentReading
from federation.erased import Erased
from federation.errors import WorkspaceError
from federation.jobs.model import JointModel
from federation.members import Members, load_people
from federation.party import PartyFolder
from federation.population import Population, Use, encoder_for, open_source, read_population
from federation.published import check_published, models_beside
from federation.shelves import scratch
from federation.specification import TrainSpec
from federation.versions import versions_of

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
        """Read a model where a party keeps it, `PARTY/models/JOB.json`.

        Raises:
            WorkspaceError: it lies elsewhere, is malformed, or is of another agreement.
            RefusedError: it was deleted.
            InvalidAgreementError: the party's agreement is unsigned by somebody, or altered.
            ModelAlteredError: it is not the one that the log tells of.
            LogError: the log is damaged.
        """
        path = file.resolve()
        folder = PartyFolder(path.parent.parent)
        try:
            model = JointModel.model_validate_json(path.read_bytes())
            asked = folder.job(model.job) / "specification.json"
            spec = TrainSpec.model_validate_json(asked.read_bytes())
        except FileNotFoundError as error:
            for one in deleted_in(folder):
                if one.name == path.stem:
                    raise one.refusal(folder.name) from error
            raise WorkspaceError(
                f"{error.filename} is missing: name PARTY/models/JOB.json of a brand or partner "
                f"whose training has ended; there is {models_beside(folder)}"
            ) from error
        except ValidationError as error:
            raise WorkspaceError(f"{file} is no model: {error.error_count()} mistakes") from error
        current = folder.agreement()  # it is whole, and this party's
        if folder.model(model.job) != path or spec.name != model.job:
            raise WorkspaceError(f"{file} is of job {model.job!r}: name {folder.model(model.job)}")
        try:
            agreement = versions_of(folder.path).version(model.agreement)
        except InvalidAgreementError as error:
            raise WorkspaceError(
                f"{file} was made under another agreement than its folder has"
            ) from error
        check_published(folder, current, model.job, model.digest)
        return cls(folder, agreement, model, spec)


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
        if config.data is None or config.consent is None or not folder.members(match).exists():
            raise WorkspaceError(
                f"{folder.path} has no rows that {kept.spec.name!r} was trained on: name the model "
                "of a partner"
            )
        with scratch(folder.job(kept.spec.name) / "own-rows.tmp") as beside:
            people = read_population(
                open_source(config.data, folder.path),
                config.data,
                agreement,
                ConsentReading(
                    folder.resolve(config.consent), agreement.purposes, agreement=agreement
                ),
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
