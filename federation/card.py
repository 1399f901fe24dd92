"""A model's card: what it is, what ε holds for whom, and how it does on a party's own people.

```
PARTY/cards/JOB.json         the figures
PARTY/cards/JOB.html         the same as one page that loads nothing
PARTY/cards/JOB.facts.*      both, of the facts alone
```

Guarantees: facts are those of the verified agreement, the job and the model, which all its parties
have; attributions are made of published weights and agreed bounds alone, and so cost nothing.
`judged` and `attack` are made of people's rows without noise: nothing is charged for them because
nothing leaves. A card of them that leaves would be a release, and is not offered.

Leaves to others: the measures (`privacy.training`), the rows (`own_rows`), attacks (`attack`).
"""

import math
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from compliance.terms import ModelFamily, NoiseSource, Role
from federation.assumptions import assumptions_of, trusted_for_epsilon
from federation.attack import Attack
from federation.card_files import write_card_files
from federation.clock import Clock, utc_now
from federation.hidden_share import ToldShare
from federation.jobs.bodies import LinearBody
from federation.jobs.expand import Best, segment_size
from federation.jobs.model import JointModel
from federation.own_rows import KeptModel, OwnRows
from federation.population import encoder_for
from federation.progress import Progress, report
from federation.specification import ExpandSpec, TrainSpec
from privacy.randomness import SecretStream, seeded_secret
from privacy.training.bootstrap import (
    CalibrationBin,
    RankingIntervals,
    calibration,
    ranking_intervals,
)
from privacy.training.encoding import NumericFeature, Scale
from privacy.training.fairness import GroupFigures, compare_groups

__all__ = ["Attribution", "Fairness", "Judged", "ModelCard", "make_card", "write_card"]

_BINS: Final = 10
_REPLICATES: Final = 200


class _Closed(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Attribution(_Closed):
    """What a feature can do to a score, by published weights and agreed bounds.

    Attributes:
        feature: its name.
        span: most that it can change the score, from one end of its range to the other, or from
            one category to another, none included; in log-odds, of ridge regression in
            probability.
        highest: where the score is highest: "maximum", "minimum", or a category; None where no
            category raises it.
    """

    feature: str
    span: float
    highest: str | None


class Fairness(_Closed):
    """The groups that one feature makes.

    Attributes:
        feature: agreed in `expand.fairness_groups`.
        groups: in the order of the agreement.
    """

    feature: str
    groups: tuple[GroupFigures, ...]


class Judged(_Closed):
    """How the model does on the party's own people, who consent now. Not private: it stays there.

    Attributes:
        rows: rows that the party holds.
        eligible: those that are judged.
        excluded: rows left out, by reason.
        findings: what was found wrong with the table, counts only.
        positives: judged people who are members of the match: the labels that training saw.
        quality: of the ranking, with 95 % intervals; None where one label is missing.
        one_shot: the same of the partners' models averaged once; None where there is none, or
            no other than this.
        calibration: of the sigmoid of the score; bins below `expand.minimum_segment` are left out.
        share: of people who are chosen for the comparison of groups.
        fairness: one for each agreed feature.
    """

    rows: int
    eligible: int
    excluded: dict[str, int]
    findings: tuple[str, ...]
    positives: int
    quality: RankingIntervals | None
    one_shot: RankingIntervals | None
    calibration: tuple[CalibrationBin, ...]
    share: float
    fairness: tuple[Fairness, ...]


class ModelCard(_Closed):
    """A model, told.

    Attributes:
        party: whose card it is.
        made: when, UTC.
        title: the agreement's.
        agreement: its digest.
        digest: the model's.
        family: kind of the model.
        parties: name and role of everybody.
        features: agreed columns that it reads.
        spec: the job.
        trained_by: partners whose rows are in it.
        missing: partners that were missing when it was trained.
        rounds: that it took.
        noise_multiplier: of its noise; 0 without noise.
        epsilon: that a person is promised; None without noise.
        delta: likewise.
        tables: partners' tables in which that person may stand.
        assumptions: what that rests on.
        trust: on whom.
        hidden_share: how many people who are no seeds are positives; None where nobody counted.
        reproducible: whether the party's secrets come from a known seed: then nothing is private.
        attack: what an attack on the training found here; None if none was made, or of facts alone.
        attributions: of a linear model, largest first; empty for others, which are not additive.
        judged: on the party's own people; None at a party that has no features, or of facts alone.
    """

    party: str
    made: datetime
    title: str
    agreement: str
    digest: str
    family: str
    parties: tuple[tuple[str, Role], ...]
    features: tuple[str, ...]
    spec: TrainSpec
    trained_by: tuple[str, ...]
    missing: tuple[str, ...]
    rounds: int
    noise_multiplier: float
    epsilon: float | None
    delta: float | None
    tables: int
    assumptions: tuple[str, ...]
    trust: tuple[str, ...]
    hidden_share: ToldShare | None
    reproducible: bool
    attack: Attack | None
    attributions: tuple[Attribution, ...]
    judged: Judged | None


def make_card(file: Path, *, facts_alone: bool = False, clock: Clock = utc_now) -> ModelCard:
    """Make the card of a model that a party keeps.

    Args:
        file: the model, `PARTY/models/JOB.json`.
        facts_alone: whether to leave out whatever is made of people's rows.
        clock: moment at which consent is read.

    Raises:
        WorkspaceError: the party keeps no such model, or what an attack left is damaged.
        ConnectorError, ComplianceError: the rows cannot be read.
    """
    kept = KeptModel.open(file)
    agreement, model, folder = kept.agreement, kept.model, kept.folder
    judged = None
    if folder.config.role is Role.PARTNER and not facts_alone:
        report(Progress(folder.name, model.job, "judges the model on its own people"))
        judged = _judge(kept, OwnRows.read(kept, clock))
    return ModelCard(
        party=folder.name,
        made=clock(),
        title=agreement.title,
        agreement=agreement.digest,
        digest=model.digest,
        family=kept.spec.model,
        parties=tuple((party.name, party.role) for party in agreement.parties),
        features=tuple(feature.name for feature in agreement.features),
        spec=kept.spec,
        trained_by=model.making.parties,
        missing=model.making.missing,
        rounds=model.making.rounds,
        noise_multiplier=model.making.noise_multiplier,
        epsilon=model.epsilon,
        delta=model.delta,
        tables=agreement.train.max_parties_per_person,
        assumptions=() if model.noise is NoiseSource.UNSAFE_NONE else assumptions_of(agreement),
        trust=tuple(trusted_for_epsilon(agreement, [model.noise])),
        hidden_share=ToldShare.of(model, agreement, kept.spec),
        reproducible=folder.config.unsafe_seed is not None,
        attack=None if facts_alone else Attack.kept(folder, kept.spec.name, model.digest),
        attributions=tuple(_attributions(kept)),
        judged=judged,
    )


def write_card(card: ModelCard, place: Path) -> None:
    """Write a card's figures and its page, readable by the party only.

    Args:
        card: from `make_card`.
        place: of the files, without their suffix.
    """
    write_card_files(card, "card.html.j2", place)


def _judge(kept: KeptModel, own: OwnRows) -> Judged:
    model, terms = kept.model, kept.agreement.expand
    scores = model.score(own.features)
    both = bool(own.members.any()) and not bool(own.members.all())
    one_shot = None
    averaged = model.making.one_shot if model.making.rounds > 1 else None
    if both and averaged is not None and isinstance(model.body, LinearBody):
        one_shot = _quality(model, own.features @ np.asarray(averaged), own.members)
    probabilities = _probabilities(scores, kept.spec.model)
    bins = calibration(probabilities, own.members, bins=_BINS) if both else ()
    people = len(scores)
    size = segment_size(_expansion(kept), kept.agreement, people)
    best = Best.of(scores.astype(np.float32), ~own.members, size)
    chosen = best.chosen(own.people.used.keys.batches(), people)
    return Judged(
        rows=own.people.used.rows,
        eligible=people,
        excluded=dict(own.people.used.excluded),
        findings=own.people.findings,
        positives=int(own.members.sum()),
        quality=_quality(model, scores, own.members) if both else None,
        one_shot=one_shot,
        calibration=tuple(one for one in bins if one.rows >= terms.minimum_segment),
        share=min(size / people, 1.0) if people else 0.0,
        fairness=tuple(
            Fairness(
                feature=name,
                groups=compare_groups(
                    own.people.features[name],
                    next(one.categories for one in kept.agreement.features if one.name == name),
                    scores,
                    own.members,
                    chosen,
                    ~own.members,
                    minimum=terms.minimum_segment,
                ),
            )
            for name in terms.fairness_groups
        ),
    )


def _quality(
    model: JointModel, scores: NDArray[np.float64], labels: NDArray[np.bool_]
) -> RankingIntervals:
    """Judge a ranking; the same card is made again of the same rows."""
    stream = SecretStream(seeded_secret(0, model.digest), "bootstrap")
    return ranking_intervals(scores, labels, stream, replicates=_REPLICATES)


def _probabilities(scores: NDArray[np.float64], model: ModelFamily) -> NDArray[np.float64]:
    """Return what scores say of probability: ridge regression says it outright, others by odds."""
    if model is ModelFamily.RIDGE_REGRESSION:
        return np.clip(scores, 0.0, 1.0)
    return np.asarray(0.5 * (1.0 + np.tanh(0.5 * scores)))


def _expansion(kept: KeptModel) -> ExpandSpec:
    """Return the expansion with the model that was made here, or the largest agreed."""
    for file in sorted((kept.folder.path / "jobs").glob("*/specification.json")):
        try:
            spec = ExpandSpec.model_validate_json(file.read_bytes())
        except ValidationError:  # another kind of job
            continue
        if spec.train == kept.spec.name:
            return spec
    share = kept.agreement.expand.maximum_share
    return ExpandSpec(name="largest", train=kept.spec.name, share=share)


def _attributions(kept: KeptModel) -> Iterator[Attribution]:
    """Yield what each feature can do to the score of a linear model, largest first."""
    if not isinstance(kept.model.body, LinearBody):
        return
    encoder = encoder_for(kept.agreement)
    weights = dict(zip(kept.model.body.columns, kept.model.body.weights, strict=True))
    unit = 1.0 / math.sqrt(len(encoder.features) + 1)
    found = []
    for feature in encoder.features:
        if isinstance(feature, NumericFeature):
            weight = weights[feature.name]
            span = abs(weight) * (1.0 if feature.scale is Scale.LOG else 2.0)
            highest: str | None = "maximum" if weight > 0.0 else "minimum"
        else:
            values = {name: weights[f"{feature.name}={name}"] for name in feature.categories}
            best = max(values, key=lambda name: values[name])
            span = max(0.0, values[best]) - min(0.0, *values.values())
            highest = best if values[best] > 0.0 else None
        found.append(Attribution(feature=feature.name, span=span * unit, highest=highest))
    yield from sorted(found, key=lambda one: -one.span)
