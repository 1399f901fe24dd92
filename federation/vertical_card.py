"""The card of a model over columns: what a party may know of it, and how its scores do.

```
PARTY/cards/JOB.json    the figures
PARTY/cards/JOB.html    the same as one page that loads nothing
```

Guarantees: facts are those of the verified agreement, the job and the party's own part. `judged` is
made, at the brand alone, of people's rows without noise, and stays there; of groups and bins with
fewer people than `vertical.minimum_people` nothing is said but their number.

Leaves to others: the measures (`privacy.training`), rows (`vertical_rows`), attacks
(`vertical_attack`).

**What one partner gives is not told**: the brand has sums over partners alone.
"""

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict, ValidationError

from compliance.terms import ColumnType, Role
from federation.card_files import write_card_files
from federation.clock import Clock, utc_now
from federation.errors import WorkspaceError
from federation.hidden_share import ToldShare
from federation.members import load_people
from federation.population import Population
from federation.specification import VerticalScoreSpec, VerticalTrainSpec
from federation.vertical_attack import VerticalAttack
from federation.vertical_rows import KeptPart, labels_of, read_own_rows
from privacy.randomness import SecretStream, seeded_secret
from privacy.training.bootstrap import (
    CalibrationBin,
    RankingIntervals,
    calibration,
    ranking_intervals,
)
from privacy.training.fairness import GroupFigures, compare_groups
from privacy.training.unlabelled import ScoreCounts

__all__ = ["JudgedScores", "VerticalCard", "make_vertical_card", "write_vertical_card"]

_BINS: Final = 10
_SHARE: Final = 0.1  # of people, the best, whom groups are compared by
_REPLICATES: Final = 200


class _Closed(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class HeldColumns(_Closed):
    """What one party brings: its name, and its agreed columns."""

    party: str
    columns: tuple[str, ...]


class TrainedRows(_Closed):
    """The party's rows when the training ran.

    Attributes:
        rows: that it held.
        used: of aligned people who could be used here.
        excluded: rows left out, by reason.
    """

    rows: int
    used: int
    excluded: dict[str, int]


class Groups(_Closed):
    """The groups that one of the brand's agreed categorical columns makes."""

    column: str
    groups: tuple[GroupFigures, ...]


class JudgedScores(_Closed):
    """How the scores of one job do, on people whose label the brand knows and who consent now.

    Attributes:
        job: the scoring.
        scored: people with a score.
        without: partners whose part is in no score of it.
        judged: of them, those with a label.
        positives: of those.
        quality: of the ranking, with 95 % intervals; None where one label is missing.
        calibration: of the sigmoid of the score.
        groups: how the best tenth is spread.
        hidden_share: how many of the others who are scored are positives, by exact counts of
            scores; None where fewer than `vertical.minimum_people` are positive or without a label.
    """

    job: str
    scored: int
    without: tuple[str, ...]
    judged: int
    positives: int
    quality: RankingIntervals | None
    calibration: tuple[CalibrationBin, ...]
    groups: tuple[Groups, ...]
    hidden_share: ToldShare | None


class VerticalCard(_Closed):
    """A model over columns, told.

    Attributes:
        party: whose card it is.
        made: when, UTC.
        title: the agreement's.
        agreement: its digest.
        digest: of the party's part.
        spec: the job.
        held: what each party brings.
        rows: the party's rows when it was trained; None of facts alone.
        rounds: that it took.
        steps: taken along each sum of partners; empty at partners, who do not keep them.
        losses: mean loss before the first sum, and after each; likewise. What one partner gave to
            it cannot be told.
        findings: at the brand: rounds whose sum was cut or not followed, and why.
        label_epsilon: what noised labels tell of each; None where partners learn them all.
        assumptions: what that rests on.
        learns: what each side learns.
        reproducible: whether the party's secrets come from a known seed: then nothing is private.
        attack: what an attack found here; None if none was made, or of facts alone.
        judged: at the brand: every scoring that there was.
    """

    party: str
    made: datetime
    title: str
    agreement: str
    digest: str
    spec: VerticalTrainSpec
    held: tuple[HeldColumns, ...]
    rows: TrainedRows | None
    rounds: int
    steps: tuple[float, ...]
    losses: tuple[float, ...]
    findings: tuple[tuple[int, str], ...]
    label_epsilon: float | None
    assumptions: tuple[str, ...]
    learns: tuple[str, ...]
    reproducible: bool
    attack: VerticalAttack | None
    judged: tuple[JudgedScores, ...]


def make_vertical_card(
    file: Path, *, facts_alone: bool = False, clock: Clock = utc_now
) -> VerticalCard:
    """Make the card of a part that a party keeps.

    Args:
        file: the part, `PARTY/models/JOB.json`.
        facts_alone: whether to leave out whatever is made of people's rows.
        clock: moment at which consent is read.

    Raises:
        WorkspaceError: the party keeps no such part, or what a job left is damaged.
        ConnectorError, ComplianceError: the rows cannot be read.
    """
    kept = KeptPart.open(file)
    agreement, held, folder = kept.agreement, kept.held, kept.folder
    named = tuple(
        HeldColumns(party=name, columns=tuple(one.name for one in kept.terms.held_by(name)))
        for name in held.parties
    )
    return VerticalCard(
        party=folder.name,
        made=clock(),
        title=agreement.title,
        agreement=agreement.digest,
        digest=held.digest,
        spec=kept.spec,
        held=named,
        rows=None if facts_alone else _trained_rows(kept),
        rounds=held.rounds,
        steps=() if facts_alone else held.steps,
        losses=() if facts_alone else held.losses,
        findings=held.findings,
        label_epsilon=held.label_epsilon,
        assumptions=tuple(_assumptions(kept)),
        learns=tuple(_learns(kept)),
        reproducible=folder.config.unsafe_seed is not None,
        attack=None if facts_alone else VerticalAttack.kept(folder, kept.spec.name, held.digest),
        judged=() if facts_alone else tuple(_judge(kept, clock)),
    )


def write_vertical_card(card: VerticalCard, place: Path) -> None:
    """Write a card's figures and its page, readable by the party only.

    Args:
        card: from `make_vertical_card`.
        place: of the files, without their suffix.
    """
    write_card_files(card, "vertical_card.html.j2", place)


def _trained_rows(kept: KeptPart) -> TrainedRows:
    directory = kept.folder.job(kept.spec.name) / "people"
    try:
        people = load_people(directory)
    except OSError as error:
        raise WorkspaceError(f"{directory} is gone: run the job anew") from error
    return TrainedRows(rows=people.rows, used=len(people.keys), excluded=dict(people.excluded))


def _assumptions(kept: KeptPart) -> Iterator[str]:
    if kept.held.label_epsilon is None:
        yield "Labels were used as they are: every partner read every label, exactly."
    else:
        yield (
            "Epsilon is of the label of a person who is there, towards all partners together and "
            "whatever else they know; delta is 0."
        )
        yield "It does not hide who is in the aligned set, nor any column."
        yield "Labels were noised once; another training of the same labels is charged again."
    yield "The brand joins forces with no more than all partners but two."


def _learns(kept: KeptPart) -> Iterator[str]:
    labels = "exactly" if kept.held.label_epsilon is None else "as noised"
    yield (
        "A partner: for each aligned person and round the model's probability, and the label "
        f"{labels}; so what all others together say of a person."
    )
    yield "The brand: for each person the sum over partners, never what one partner gave to it."
    yield "The coordinator: who takes part, rounds and sizes; no label, residual, value or score."


def _judge(kept: KeptPart, clock: Clock) -> Iterator[JudgedScores]:
    """Judge every scoring of the model that has been written here."""
    config = kept.folder.config
    if config.role is not Role.BRAND or config.data is None or config.data.labels is None:
        return
    scorings = list(_scorings(kept))
    if not scorings:
        return
    people = read_own_rows(kept, clock, with_labels=True)
    for name in scorings:
        yield _judge_one(kept, name, people)


def _scorings(kept: KeptPart) -> Iterator[str]:
    for file in sorted((kept.folder.path / "jobs").glob("*/specification.json")):
        try:
            spec = VerticalScoreSpec.model_validate_json(file.read_bytes())
        except ValidationError:  # another kind of job
            continue
        if spec.train == kept.spec.name and kept.folder.segment(spec.name).exists():
            yield spec.name


def _judge_one(kept: KeptPart, name: str, people: Population) -> JudgedScores:
    data = kept.folder.config.data
    if data is None or data.labels is None:
        raise WorkspaceError(f"{kept.folder.path} names no labels: add data.labels")
    file = kept.folder.segment(name)
    written = pd.read_csv(file, keep_default_na=False, dtype={"record": str})
    positive, known = labels_of(people, data.labels)
    place = pd.Index(people.keys.astype(object)).get_indexer(pd.Index(written["record"]))
    here = place >= 0
    use = here & known[place]
    rows, scores = place[use], written["score"].to_numpy(dtype=np.float64)[use]
    labels, least = positive[rows], kept.terms.minimum_people
    both = bool(labels.any()) and not bool(labels.all())
    quality, bins = None, tuple[CalibrationBin, ...]()
    if both:
        stream = SecretStream(seeded_secret(0, kept.held.digest), "bootstrap")
        quality = ranking_intervals(scores, labels, stream, replicates=_REPLICATES)
        found = calibration(0.5 * (1.0 + np.tanh(0.5 * scores)), labels, bins=_BINS)
        bins = tuple(one for one in found if one.rows >= least)
    chosen = np.zeros(len(scores), dtype=np.bool_)
    chosen[np.argsort(-scores, kind="stable")[: int(_SHARE * len(scores))]] = True
    everybody = np.ones(len(scores), dtype=np.bool_)
    groups = tuple(
        Groups(
            column=term.name,
            groups=compare_groups(
                people.features[term.name][rows],
                term.categories,
                scores,
                labels,
                chosen,
                everybody,
                minimum=least,
            ),
        )
        for term in kept.terms.held_by(kept.folder.name)
        if term.type is ColumnType.CATEGORICAL
    )
    unlabelled = here & ~known[place]
    hidden_share = None
    if min(int(labels.sum()), int(unlabelled.sum())) >= least:
        asked = use & positive[place] | unlabelled
        counts = ScoreCounts.of(written["score"].to_numpy(np.float64)[asked], use[asked])
        hidden_share = ToldShare.made(name, None, counts.hidden_share(), whom="have no label")
    without = () if "without" not in written else tuple(str(written["without"].iloc[0]).split())
    return JudgedScores(
        job=name,
        scored=len(written),
        without=without,
        judged=len(scores),
        positives=int(labels.sum()),
        quality=quality,
        calibration=bins,
        groups=groups,
        hidden_share=hidden_share,
    )
