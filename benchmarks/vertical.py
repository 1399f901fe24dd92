"""What training over parties that know different things of the same people reaches and costs.

The folds, tables and columns of `benchmarks/training.py`, the columns dealt to a brand and two
partners as `examples/data/NOTICE.md` says. Sums pass through fixed point and masks, as in a job;
bytes are those of one partner: residuals that come (32 bits a person), masked sums that go (32
bits a person). CPU is that of all parties together. Noise on labels comes from a seed, so that a
run can be repeated: what is trained here protects nobody.

Part of `make bench-training`; a missed bar fails the run. Hyperparameters are those of the library.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from training import EXAMPLES, FOLDS, VITAMINS, WINE, Table, adult

from privacy.randomness import SecretStream, seeded_secret
from privacy.secagg import FixedPoint
from privacy.secagg.repeated import RepeatedSum
from privacy.training.assisted import Assisted, AssistedPlan, LabelledRows
from privacy.training.evaluation import ranking_quality
from privacy.training.label_noise import flip_probability, randomise_labels
from privacy.training.learners import PENALTIES, Learner, new_part

ADULT_PARTIES = (
    ("age", "sex", "race", "marital-status", "relationship", "native-country"),
    ("workclass", "occupation", "education-num", "hours-per-week"),
    ("capital-gain", "capital-loss"),
)
SEEDS_SHARE = 10  # one positive of so many is known
PARTNERS = ("partner-1", "partner-2")
FIXED_POINT = FixedPoint(ring_bits=32, parties=len(PARTNERS), fraction_bits=16)
RANDOM_STATE = 0


@dataclass(frozen=True)
class Contest:
    """What is trained how, and its bars."""

    name: str
    table: Callable[[], Table]
    parties: Callable[[Table], list[NDArray[np.int64]]]
    learner: Learner
    bar: float | None = None
    epsilon: float | None = None
    seeds_only: bool = False
    lift_bar: float | None = None
    quick: bool = False


def dealt(parties: Sequence[Sequence[str]], table: Table) -> list[NDArray[np.int64]]:
    """Return which encoded columns each party holds."""
    column_of = [name.rsplit("=", 1)[0] if "=" in name else name for name in table.names]
    return [
        np.array([place for place, name in enumerate(column_of) if name in set(party)])
        for party in parties
    ]


def household_parties() -> list[list[str]]:
    """Return the columns of the brand, the grocer and the retailer."""
    held = json.loads((EXAMPLES / "data" / "households.parties.json").read_text())
    return list(held.values())


def labels_of(contest: Contest, table: Table, fold: int) -> NDArray[np.bool_]:
    """Return the labels that the brand trains with, before noise."""
    labels = table.labels.astype(bool)
    if not contest.seeds_only:
        return labels
    stream = SecretStream(seeded_secret(RANDOM_STATE, f"seeds/{fold}"), "which positives are known")
    known = np.zeros(len(labels), dtype=bool)
    positives = np.flatnonzero(labels)
    order = stream.permutation(len(positives))[: len(positives) // SEEDS_SHARE]
    known[positives[order]] = True
    return known


def train(contest: Contest, table: Table, fold: int) -> tuple[NDArray[np.float64], dict[str, Any]]:
    """Train on the rows outside `fold`; return the scores of those inside, and the costs."""
    inside = table.folds == fold
    columns = contest.parties(table)
    rows = [table.features[~inside][:, held] for held in columns]
    new = [table.features[inside][:, held] for held in columns]
    labels = labels_of(contest, table, fold)[~inside]
    if contest.epsilon is not None:
        stream = SecretStream(seeded_secret(RANDOM_STATE, f"{contest.name}/{fold}"), "labels")
        labels = randomise_labels(labels, contest.epsilon, stream)
    begun = time.process_time()
    flip = flip_probability(contest.epsilon)
    plan = AssistedPlan(partners=len(PARTNERS), learner=contest.learner, flip=flip)
    mine = LabelledRows(rows[0], labels, np.ones(len(labels), dtype=bool))
    sums = RepeatedSum(f"{contest.name}/{fold}", PARTNERS)
    secrets = {name: seeded_secret(RANDOM_STATE, name) for name in PARTNERS}
    keys = {name: sums.key(secret) for name, secret in secrets.items()}
    parts = {name: new_part(contest.learner) for name in PARTNERS}
    brand, sent, taken = Assisted.start(plan, mine), 0, 0
    while not brand.finished:
        number = str(len(brand.steps) + 1)
        said = brand.residuals(mine)
        offers = {
            name: parts[name].propose(held, said.astype(np.float64), flip)
            for name, held in zip(PARTNERS, rows[1:], strict=True)
        }
        masked = [
            sums.mask(
                name,
                secrets[name],
                keys,
                FIXED_POINT.encode(np.concatenate([offer.fitted, offer.penalties])),
                number,
            )
            for name, offer in offers.items()
        ]
        total = FIXED_POINT.decode(np.sum(masked, axis=0, dtype=np.uint32))
        brand = brand.hear(mine, total[:-PENALTIES], total[-PENALTIES:])
        parts = {name: offer.part.settle(brand.steps[-1]) for name, offer in offers.items()}
        sent, taken = sent + masked[0].nbytes, taken + said.nbytes
    score = brand.own.keep(brand.kept_rounds).score(new[0])
    for name, held in zip(PARTNERS, new[1:], strict=True):
        score += parts[name].keep(brand.kept_rounds).score(held)
    spent = time.process_time() - begun
    return score, {
        "rounds": len(brand.steps),
        "sent": sent,
        "taken": taken,
        "cpu": 1e6 * spent / len(labels),
    }


ADULT = partial(dealt, ADULT_PARTIES)


def households(table: Table) -> list[NDArray[np.int64]]:
    """Return which columns each of the three parties holds."""
    return dealt(household_parties(), table)


RIDGE, TREES = Learner.RIDGE, Learner.TREES
CONTESTS = (
    Contest("Adult, ridge", adult, ADULT, RIDGE, 0.899, quick=True),
    Contest("Adult, trees", adult, ADULT, TREES, 0.922),
    Contest("Adult, ridge, label epsilon 2", adult, ADULT, RIDGE, 0.890, epsilon=2.0, quick=True),
    Contest("Adult, trees, label epsilon 2", adult, ADULT, TREES, epsilon=2.0),
    Contest("Adult, ridge, label epsilon 1", adult, ADULT, RIDGE, epsilon=1.0),
    Contest("Adult, ridge, label epsilon .5", adult, ADULT, RIDGE, epsilon=0.5),
    Contest("vitamins, ridge", VITAMINS, households, RIDGE, 0.785, quick=True),
    Contest("wine, ridge", WINE, households, RIDGE, 0.775),
    Contest("vitamins, trees", VITAMINS, households, TREES),
    Contest("wine, trees", WINE, households, TREES),
    Contest("Adult, seeds only, ridge", adult, ADULT, RIDGE, 0.880, None, True, 3.5, quick=True),
    Contest("Adult, seeds only, trees", adult, ADULT, TREES, seeds_only=True),
)


def run(contest: Contest, folds: int) -> dict[str, Any]:
    """Train on every fold, and say what came out."""
    table = contest.table()
    aucs, lifts, costs = [], [], []
    for fold in range(folds):
        scores, cost = train(contest, table, fold)
        quality = ranking_quality(scores, table.labels[table.folds == fold] > 0)
        aucs.append(quality.auc)
        lifts.append(quality.lift_at_5)
        costs.append(cost)
    auc, lift = float(np.mean(aucs)), float(np.mean(lifts))
    met = (contest.bar is None or auc >= contest.bar) and (
        contest.lift_bar is None or lift >= contest.lift_bar
    )
    return {
        "name": contest.name,
        "auc": auc,
        "spread_over_folds": float(np.std(aucs, ddof=1)) if folds > 1 else None,
        "lift_at_5": lift,
        "rounds": max(cost["rounds"] for cost in costs),
        "bytes_sent": max(cost["sent"] for cost in costs),
        "bytes_taken": max(cost["taken"] for cost in costs),
        "cpu_microseconds_a_row": float(np.mean([cost["cpu"] for cost in costs])),
        "bar": contest.bar,
        "lift_bar": contest.lift_bar,
        "met": met if contest.bar is not None and folds == FOLDS else None,
    }


def show(result: dict[str, Any]) -> None:
    """Print one training."""
    bar = "" if result["bar"] is None else f"   bar {result['bar']:.3f}"
    lift_bar = "" if result["lift_bar"] is None else f" (bar {result['lift_bar']:g})"
    verdict = {None: "", True: " met", False: " MISSED"}[result["met"]]
    print(f"vertical: {result['name']:<32} AUC {result['auc']:.4f}{bar}{verdict}")
    print(
        f"    lift at 5 % {result['lift_at_5']:.2f}{lift_bar}; at most {result['rounds']} rounds, "
        f"a partner sends {result['bytes_sent'] / 1e3:,.0f} kB and takes "
        f"{result['bytes_taken'] / 1e3:,.0f} kB, {result['cpu_microseconds_a_row']:.0f} us of CPU "
        "a row",
        flush=True,
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and fail where a bar was missed."""
    parser = argparse.ArgumentParser(description="Measure training over parties' columns.")
    parser.add_argument("--quick", action="store_true", help="one fold, no verdict")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")
    given = parser.parse_args(arguments)
    folds = 1 if given.quick else FOLDS
    results = []
    for contest in CONTESTS:
        if given.quick and not contest.quick:
            continue
        results.append(run(contest, folds))
        show(results[-1])
    if given.json is not None:
        given.json.write_text(json.dumps({"folds": folds, "trainings": results}, indent=2) + "\n")
    if given.quick:
        print("The bars are set for five folds; they were not judged.")
        return 0
    return 1 if any(result["met"] is False for result in results) else 0


if __name__ == "__main__":
    sys.exit(main())
