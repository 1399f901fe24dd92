"""What the joint model is worth, beside what it could be: for trials where a truth is known.

It sees every party's rows at once, which nobody may in earnest. None of its figures is private,
and none leaves the machine but in a report about a trial.

Guarantees: the truth is read from a table that no party's configuration names; every figure is
measured on the same people; yardsticks are trained as their names say.

Leaves to others: the measures and the training (`privacy.training`), drawing (`report`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from compliance.terms import ModelFamily
from connectors import Column, ColumnType, FileSource, Schema, open_connector, read_table
from connectors.errors import SourceFormatError
from federation.artefacts import check_kept
from federation.clock import Clock
from federation.collaboration import EvaluateSection
from federation.consent_reading import ConsentReading
from federation.errors import WorkspaceError
from federation.jobs.bodies import ModelBody
from federation.jobs.families import gradient_engine, initial_weights, trained_body
from federation.jobs.model import JointModel
from federation.jobs.train import training_plan
from federation.members import Members, load_people
from federation.party import PartyFolder
from federation.population import Use, encoder_for, open_source, read_population
from federation.progress import Progress, report
from federation.shelves import scratch
from federation.specification import TrainSpec
from federation.trial.workspace import Workspace
from privacy.randomness import SecretStream, new_secret, seeded_secret
from privacy.training.dp_sgd import train
from privacy.training.evaluation import RankingQuality, fit_without_privacy, ranking_quality

__all__ = ["Measured", "Who", "evaluate"]


class Who(StrEnum):
    """Whose rows a model saw."""

    JOINT = "all partners together"
    SUMMED = "all partners, by exact sums"
    AVERAGED = "averaged once"
    ALONE = "alone"
    NOBODY = "random order"


@dataclass(frozen=True)
class Measured:
    """One model, judged.

    Attributes:
        who: whose rows it saw.
        party: the partner, where it was one alone.
        epsilon: privacy loss per person; None without privacy.
        everyone: quality over all eligible people of the partners.
        unseen: quality over those of them who are no seeds: their label was in no training.
    """

    who: Who
    party: str | None
    epsilon: float | None
    everyone: RankingQuality
    unseen: RankingQuality

    @property
    def name(self) -> str:
        """What to call it in a table."""
        return f"{self.party} {self.who}" if self.party else str(self.who)


@dataclass(frozen=True)
class _Rows:
    """People of one partner: encoded features, seeds as training sees them, and the truth."""

    party: PartyFolder
    features: NDArray[np.float64]
    members: NDArray[np.bool_]
    truth: NDArray[np.bool_]


def evaluate(
    workspace: Workspace,
    spec: TrainSpec,
    truth: EvaluateSection,
    source: Path,
    *,
    clock: Clock,
    unsafe_seed: int | None,
) -> tuple[Measured, ...]:
    """Judge a trained model and its yardsticks.

    Args:
        workspace: where the training job has ended.
        spec: that job.
        truth: the held-out label.
        source: directory from which `truth.path` is taken.
        clock: moment at which consent is read.
        unsafe_seed: makes the yardsticks' noise and the random order reproducible.

    Returns:
        The joint model as it was trained, the partners' own averaged once where that was free, and
        a joint one without privacy; each partner alone, with privacy and without; a random order.

    Raises:
        WorkspaceError: the training has not ended.
        ConnectorError: the truth cannot be read, or tells too little about the partners' people.
    """
    file = workspace.coordinator.model(spec.name)
    check_kept(workspace.coordinator, spec.name)
    if not file.exists():
        raise WorkspaceError(f"{file} is missing: training {spec.name!r} has not ended")
    model = JointModel.model_validate_json(file.read_bytes())
    labels = _truth(truth, source)
    rows = [_rows(workspace, folder, spec, labels, clock) for folder in workspace.partners]
    _check_truth(rows, source / truth.path)
    features = np.concatenate([part.features for part in rows])
    judge = partial(_measure, rows)
    joint = Who.SUMMED if spec.epsilon is None else Who.JOINT
    measured = [judge(joint, None, spec.epsilon, model.score(features))]
    if model.making.one_shot is not None and model.making.rounds > 1:
        one_shot = np.asarray(model.making.one_shot)
        measured.append(judge(Who.AVERAGED, None, spec.epsilon, features @ one_shot))
    members = np.concatenate([part.members for part in rows])
    report(Progress("evaluation", spec.name, "trains the yardsticks"))
    pooled = features @ fit_without_privacy(features, members)
    measured.append(judge(Who.JOINT, None, None, pooled))
    for part in rows:
        if spec.epsilon is not None:
            alone = _alone(workspace, part, spec, model.body.columns, unsafe_seed).score(features)
            measured.append(judge(Who.ALONE, part.party.name, spec.epsilon, alone))
        alone = features @ fit_without_privacy(part.features, part.members)
        measured.append(judge(Who.ALONE, part.party.name, None, alone))
    secret = new_secret() if unsafe_seed is None else seeded_secret(unsafe_seed, "evaluation")
    order = SecretStream(secret, "random order").uniform(len(features))
    measured.append(judge(Who.NOBODY, None, None, order))
    return tuple(measured)


def _measure(
    rows: list[_Rows],
    who: Who,
    party: str | None,
    epsilon: float | None,
    scores: NDArray[np.float64],
) -> Measured:
    truth = np.concatenate([part.truth for part in rows])
    unseen = ~np.concatenate([part.members for part in rows])
    return Measured(
        who,
        party,
        epsilon,
        ranking_quality(scores, truth),
        ranking_quality(scores[unseen], truth[unseen]),
    )


def _alone(
    workspace: Workspace,
    part: _Rows,
    spec: TrainSpec,
    columns: Sequence[str],
    unsafe_seed: int | None,
) -> ModelBody:
    """Train on one partner's rows with the same ε and local noise, which covers one table only.

    Trees are not trained so: alone, a partner has a logistic regression.
    """
    if spec.model is ModelFamily.BOOSTED_TREES:
        spec = spec.model_copy(update={"model": ModelFamily.LOGISTIC_REGRESSION})
    agreement, name = workspace.agreement, part.party.name
    declared = agreement.dataset(name).declared_rows
    parameters = training_plan(
        spec.model_copy(update={"rounds": 1}), agreement, expected_rows=declared, parties=1
    ).parameters
    secret = new_secret() if unsafe_seed is None else seeded_secret(unsafe_seed, f"alone/{name}")
    weights = train(
        gradient_engine(spec, len(columns)),
        initial_weights(spec, agreement, len(columns)),
        part.features,
        part.members.astype(np.float64),
        parameters,
        SecretStream(secret, "train"),
    )
    return trained_body(spec, columns, weights)


def _truth(section: EvaluateSection, source: Path) -> "pd.Series[float]":
    schema = Schema(
        columns=(
            Column(name=section.party, type=ColumnType.TEXT),
            Column(name=section.record, type=ColumnType.KEY),
            Column(name=section.label, type=ColumnType.NUMERIC),
        )
    )
    path = source / section.path
    table, _ = read_table(open_connector(FileSource(path=path)), schema)
    frame = table.to_pandas()
    index = pd.MultiIndex.from_frame(frame[[section.party, section.record]])
    label = frame[section.label]
    if again := int(index.duplicated().sum()):
        raise SourceFormatError(
            f"{path}: {again} rows repeat an earlier party and record: give each person one label"
        )
    if odd := int((~label.isin([0, 1])).sum()):
        raise SourceFormatError(
            f"{path}: {odd} of {len(label)} rows have another {section.label!r} than 0 or 1: "
            "correct or drop them"
        )
    return pd.Series(label.to_numpy(), index=index)


def _check_truth(rows: list[_Rows], path: Path) -> None:
    for part in rows:
        if not len(part.truth):
            raise SourceFormatError(
                f"{path}: none of the eligible people of {part.party.name} is in it: it needs a "
                "row for each, by party name and record reference"
            )
    for some, whom in ((True, "people"), (False, "people who are no seeds")):
        known = np.concatenate([part.truth[some | ~part.members] for part in rows])
        if known.all() or not known.any():
            raise SourceFormatError(
                f"{path}: {known.sum()} of the {len(known)} eligible {whom} in it are labelled 1: "
                "both labels must occur"
            )


def _rows(
    workspace: Workspace,
    folder: PartyFolder,
    spec: TrainSpec,
    truth: "pd.Series[float]",
    clock: Clock,
) -> _Rows:
    agreement, config = workspace.agreement, folder.config
    if config.data is None or folder.consents is None:
        raise RuntimeError(f"partner {folder.name} has no data")
    check_kept(folder, spec.match)
    with scratch(folder.job(spec.name) / "evaluation.tmp") as beside:
        people = read_population(
            open_source(config.data, folder.path),
            config.data,
            agreement,
            ConsentReading(folder.consents, agreement.purposes),
            Use(agreement.train.purpose, clock(), with_features=True),
            scratch=beside,
        )
    index = pd.MultiIndex.from_arrays([np.full(len(people.keys), folder.name), people.keys])
    label = truth.reindex(index).to_numpy()
    known = ~np.isnan(label)
    taking_part = load_people(folder.job(spec.match) / "people")
    members = Members.load(folder.members(spec.match), taking_part).among(people.keys)
    features = encoder_for(agreement).encode(people.features)
    return _Rows(folder, features[known], members[known], label[known] == 1)
