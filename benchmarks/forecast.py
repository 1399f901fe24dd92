"""What privacy costs a model in AUC, measured: the points that the price tag's curve is fitted to.

Guarantees: the trainer is the one that parties run; rows are judged that it never saw; what is lost
is counted against the same training without noise. Every draw comes from a fixed seed, so that the
same figures come back on every run of one machine.

Run it with `python benchmarks/forecast.py`: it prints one line a setting, then the fit and what it
misses on settings that it was not fitted to. See docs/privacy-budget.md and docs/adr/0023.
"""

import argparse
import hashlib
import json
import math
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from functools import cache
from pathlib import Path
from statistics import fmean

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar

from privacy.accounting import Budget, SampledGaussianEvent, calibrate_noise_multiplier
from privacy.accounting.price import (
    BOOSTED_TREES,
    LOGISTIC_REGRESSION,
    NETWORK,
    RIDGE_REGRESSION,
    Curve,
    ForestShape,
    Shape,
    TrainingShape,
)
from privacy.randomness import SecretStream, seeded_secret
from privacy.training import Network
from privacy.training.binning import grid_of
from privacy.training.dp_sgd import DpSgdParameters, UnsafeNoNoiseWarning, train
from privacy.training.encoding import CategoricalFeature, Encoder, Feature, NumericFeature, Scale
from privacy.training.evaluation import ranking_quality
from privacy.training.gradients import GradientEngine, LogisticGradient, RidgeGradient
from privacy.training.random_boosting import (
    TREES,
    RandomBoostingPlan,
    plan_random_boosting,
    random_contribution,
    random_step,
)
from privacy.training.trees import GRADIENT_UNIT, Forest, total_scores

DATA = Path(__file__).resolve().parent.parent / "examples" / "data"
DELTA = 1e-6
SAMPLING = 0.2
STEPS = 300
CELLS = 256  # of a number, as jobs have it
NO_NOISE = 1e5  # epsilon that leaves trees as good as without
SLACK = 0.02  # what chance does to a measured share
EPSILONS = (0.1, 0.25, 0.5, 1.0, 2.0, 4.0)

ADULT_BOUNDS = {
    "age": (17, 90, Scale.LINEAR),
    "education-num": (1, 16, Scale.LINEAR),
    "capital-gain": (0, 99_999, Scale.LOG),
    "capital-loss": (0, 4_356, Scale.LOG),
    "hours-per-week": (1, 99, Scale.LINEAR),
}
HOUSEHOLD_WORDS = ("age", "income", "home_ownership", "marital_status", "household_size")
HOUSEHOLD_COUNTS = {"n_baskets": 500, "n_stores": 15, "coupon_disc": 200, "retail_disc": 1500}
"""Public, round bounds of what is no logarithm of a spend."""


class Family(StrEnum):
    """Families of models, as jobs name them."""

    LOGISTIC_REGRESSION = "logistic-regression"
    RIDGE_REGRESSION = "ridge-regression"
    NETWORK = "network"
    BOOSTED_TREES = "boosted-trees"


CURVES = {
    Family.LOGISTIC_REGRESSION: LOGISTIC_REGRESSION,
    Family.RIDGE_REGRESSION: RIDGE_REGRESSION,
    Family.NETWORK: NETWORK,
    Family.BOOSTED_TREES: BOOSTED_TREES,
}
RATES = {
    Family.LOGISTIC_REGRESSION: (20.0, 0.0),
    Family.RIDGE_REGRESSION: (3.0, 1e-3),
    Family.NETWORK: (10.0, 0.0),
}
"""Learning rate and penalty of jobs that name none."""


@dataclass(frozen=True)
class Table:
    """Encoded rows and a label, of which some rows are for judging only."""

    name: str
    encoder: Encoder
    features: NDArray[np.float64]
    labels: NDArray[np.float64]
    held_out: NDArray[np.bool_]


@dataclass(frozen=True)
class Setting:
    """One training.

    Attributes:
        table: whose rows.
        rows: of each partner.
        known: share of the positives that are labelled; the others count as negatives.
        partners: that train and are averaged, or whose sums are added.
        epsilon: for a person at one partner.
        fitted: whether the curve is fitted to it; else it is held against the curve.
        family: of the model.
        hidden: layers of a network.
        rounds: in which the partners' models are averaged.
        depth: of boosted trees.
    """

    table: str
    rows: int
    known: float
    partners: int
    epsilon: float
    fitted: bool
    family: Family = Family.LOGISTIC_REGRESSION
    hidden: tuple[int, ...] = ()
    rounds: int = 1
    depth: int = 6


@dataclass(frozen=True)
class Point:
    """A setting, its signal-to-noise ratio, and the share of AUC above 0.5 that was lost."""

    setting: Setting
    shape: Shape
    auc: float
    private_auc: float

    @property
    def ratio(self) -> float:
        """See `Shape`."""
        return self.shape.signal_to_noise

    @property
    def strength(self) -> float:
        """See `Curve`."""
        return self.shape.curve.strength(self.ratio, self.auc)

    @property
    def lost(self) -> float:
        """Share of what the model without noise has above 0.5."""
        return (self.auc - self.private_auc) / (self.auc - 0.5)


def adult() -> Table:
    """Who earns more than 50,000 dollars (1994 US Census)."""
    rows = pd.read_csv(DATA / "adult.csv.gz")
    left_out = {"fnlwgt", "education", "class", *ADULT_BOUNDS}
    features: list[Feature] = [NumericFeature(name, *one) for name, one in ADULT_BOUNDS.items()]
    features += [_words(rows, name) for name in rows.columns if name not in left_out]
    return _table("adult", rows, features, rows["class"] == ">50K")


def households(label: str, own: str) -> Table:
    """Who buys something later on, from what households bought before."""
    rows = pd.read_csv(DATA / "households.csv.gz")
    known = {*HOUSEHOLD_WORDS, *HOUSEHOLD_COUNTS}
    features: list[Feature] = [_words(rows, name) for name in HOUSEHOLD_WORDS]
    for name, most in HOUSEHOLD_COUNTS.items():
        features.append(NumericFeature(name, 0, most, Scale.LOG))
    for name in rows.columns:
        if name.isupper() and name not in known | {own}:
            rows[name] = np.expm1(rows[name])
            features.append(NumericFeature(name, 0, 1_000, Scale.LOG))
    return _table(label, rows, features, rows[label] == 1)


def _words(rows: pd.DataFrame, name: str) -> CategoricalFeature:
    return CategoricalFeature(name, tuple(sorted(rows[name].dropna().unique())))


def _table(name: str, rows: pd.DataFrame, features: Sequence[Feature], labels: pd.Series) -> Table:
    columns = {one.name: rows[one.name].to_numpy() for one in features}
    held_out = [_drawn(f"{name}|{row}") < 0.3 for row in range(len(rows))]
    encoder = Encoder(features)
    return Table(
        name,
        encoder,
        encoder.encode(columns),
        labels.to_numpy().astype(float),
        np.array(held_out),
    )


def _drawn(text: str) -> float:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") / 2**64


def settings(family: Family) -> Iterator[list[Setting]]:
    """What is measured of a family: sizes, shares of known positives, partners, epsilons."""
    if family is Family.BOOSTED_TREES:
        for depth, fitted, table, rows, known in (
            (6, True, "buys_vitamins", 850, 1.0),
            (3, True, "buys_vitamins", 850, 1.0),
            (6, False, "buys_wine", 850, 1.0),
            (4, False, "buys_wine", 850, 1.0),
            (6, True, "adult", 1_000, 1.0),
            (3, True, "adult", 1_000, 1.0),
            (6, True, "adult", 4_000, 0.1),
            (6, False, "adult", 2_000, 0.3),
            (4, False, "adult", 500, 1.0),
            (6, False, "adult", 8_000, 1.0),
        ):
            first = Setting(table, rows, known, 2, 1.0, fitted, family, depth=depth)
            yield [replace(first, epsilon=one) for one in EPSILONS]
    elif family is Family.NETWORK:
        for hidden, fitted, table, rows, known, partners, rounds in (
            (16, True, "buys_vitamins", 1_700, 1.0, 1, 1),
            (16, True, "buys_vitamins", 850, 1.0, 2, 10),
            (16, True, "adult", 2_000, 1.0, 1, 1),
            (64, True, "adult", 2_000, 1.0, 1, 1),
            (16, True, "adult", 4_000, 0.1, 1, 1),
            (16, True, "adult", 4_000, 1.0, 2, 10),
            (16, False, "buys_wine", 1_700, 1.0, 1, 1),
            (8, False, "buys_wine", 850, 1.0, 2, 10),
            (8, False, "adult", 2_000, 0.3, 2, 10),
            (16, False, "adult", 8_000, 1.0, 2, 10),
        ):
            first = Setting(table, rows, known, partners, 1.0, fitted, family, (hidden,), rounds)
            yield [replace(first, epsilon=one) for one in (0.1, 0.5, 1.0, 4.0)]
    else:
        for fitted, table, rows, known, partners in (
            (True, "buys_vitamins", 1_700, 1.0, 1),
            (True, "buys_vitamins", 850, 1.0, 2),
            (False, "buys_wine", 1_700, 1.0, 1),
            (False, "buys_wine", 850, 1.0, 2),
            (False, "adult", 1_000, 1.0, 2),
            (True, "adult", 2_000, 1.0, 1),
            (True, "adult", 2_000, 0.3, 2),
            (True, "adult", 4_000, 1.0, 1),
            (True, "adult", 8_000, 0.1, 1),
            (False, "adult", 16_000, 0.05, 2),
            (False, "adult", 6_000, 0.3, 4),
            (False, "adult", 16_000, 1.0, 2),
        ):
            first = Setting(table, rows, known, partners, 1.0, fitted, family)
            yield [replace(first, epsilon=one) for one in EPSILONS]


def measure(table: Table, settings: Sequence[Setting], repeats: int) -> Iterator[Point]:
    """Train on the same rows with each setting's noise and with none, and judge all.

    Args:
        table: whose rows.
        settings: which differ in epsilon alone.
        repeats: further rows and further noise, to average over.
    """
    first = settings[0]
    train_on = _forest if first.family is Family.BOOSTED_TREES else _gradients
    aucs: dict[float | None, list[float]] = {}
    positives = []
    for repeat in range(repeats):
        order = np.random.default_rng(repeat).permutation(np.flatnonzero(~table.held_out))
        shares = [order[one :: first.partners][: first.rows] for one in range(first.partners)]
        labels = [table.labels[share].copy() for share in shares]
        for place, one in enumerate(labels):
            one[np.random.default_rng([repeat, place]).random(len(one)) >= first.known] = 0
        positives.append(sum(one.sum() for one in labels))
        for epsilon in (None, *(one.epsilon for one in settings)):
            data = [(table.features[share], one) for share, one in zip(shares, labels, strict=True)]
            scores = train_on(table, first, data, epsilon, f"{first}/{repeat}")
            quality = ranking_quality(scores, table.labels[table.held_out] == 1)
            aucs.setdefault(epsilon, []).append(quality.auc)
    for setting in settings:
        shape = shape_of(table, setting, round(fmean(positives)))
        yield Point(setting, shape, fmean(aucs[None]), fmean(aucs[setting.epsilon]))


def shape_of(table: Table, setting: Setting, positives: int) -> Shape:
    """Return what a plan would know of a setting."""
    if setting.family is Family.BOOSTED_TREES:
        plan = _forest_plan(table, setting, setting.epsilon, "any")
        return ForestShape(
            rows=setting.rows * setting.partners,
            positives=positives,
            gradient_noise=_sum_noise(plan),
            sums=plan.rounds * TREES,
        )
    return TrainingShape(
        rows=(setting.rows,) * setting.partners,
        positives=positives,
        columns=table.features.shape[1],
        event=SampledGaussianEvent(
            noise_multiplier=noise_of(setting), sampling_probability=SAMPLING, steps=STEPS
        ),
        curve=CURVES[setting.family],
    )


def noise_of(setting: Setting) -> float:
    """Return the noise multiplier of a setting's steps, for a person at one partner."""
    return _noise(setting.epsilon)


@cache
def _noise(epsilon: float) -> float:
    return calibrate_noise_multiplier(
        epsilon=epsilon, delta=DELTA, sampling_probability=SAMPLING, steps=STEPS
    )


Rows = Sequence[tuple[NDArray[np.float64], NDArray[np.float64]]]
"""Features and labels of each partner."""


def _gradients(
    table: Table, setting: Setting, data: Rows, epsilon: float | None, label: str
) -> NDArray[np.float64]:
    """Train at each partner with noise of its own, average, and score what is held out."""
    width, held_out = table.features.shape[1], table.features[table.held_out]
    network = Network(width, setting.hidden) if setting.hidden else None
    engine: GradientEngine
    if network is not None:
        engine = network.gradient()
        start = network.initial(SecretStream(seeded_secret(7, label), "start"))
    else:
        ridge = setting.family is Family.RIDGE_REGRESSION
        engine = RidgeGradient(width) if ridge else LogisticGradient(width)
        start = np.zeros(width)
    rate, penalty = RATES[setting.family]
    noise = None if epsilon is None else _noise(epsilon)
    weights = start
    for number in range(setting.rounds):
        models = []
        for place, (features, labels) in enumerate(data):
            common = {
                "steps": STEPS // setting.rounds,
                "sampling_probability": SAMPLING,
                "clipping_norm": 1.0,
                "learning_rate": rate,
                "penalty": penalty,
                "expected_rows": len(features),
            }
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UnsafeNoNoiseWarning)
                parameters = (
                    DpSgdParameters.unsafe_without_noise(**common)
                    if noise is None
                    else DpSgdParameters(noise_multiplier=noise, **common)
                )
            secret = seeded_secret(7, f"{label}/{place}")
            stream = SecretStream(secret, f"forecast/{noise}/{number}")
            models.append(train(engine, weights, features, labels, parameters, stream))
        weights = np.mean(models, axis=0)
    return held_out @ weights if network is None else network.scores(weights, held_out)


def _forest_plan(
    table: Table, setting: Setting, epsilon: float | None, seed: str
) -> RandomBoostingPlan:
    """Plan boosted trees; every partner's share of the noise is counted on."""
    return plan_random_boosting(
        grid=grid_of(table.encoder.features, CELLS),
        declared_rows=(setting.rows,) * setting.partners,
        colluding=0,
        dropouts=0,
        budget=Budget(NO_NOISE if epsilon is None else epsilon, DELTA),
        seed=seed,
        depth=setting.depth,
    )


def _sum_noise(plan: RandomBoostingPlan) -> float:
    """Return the standard deviation of the noise on the gradient of a leaf."""
    noise = plan.noise
    return noise.noise_scale * math.sqrt(len(plan.declared_rows)) * 2.0**noise.shift / GRADIENT_UNIT


def _forest(
    table: Table, setting: Setting, data: Rows, epsilon: float | None, label: str
) -> NDArray[np.int64]:
    """Boost trees by sums over all partners, and score what is held out."""
    plan = _forest_plan(table, setting, epsilon, label)
    parts = [(plan.grid.cells(features), labels) for features, labels in data]
    forests: list[Forest] = []
    for number in range(1, plan.rounds + 1):
        total = np.zeros(plan.length, dtype=np.int64)
        for place, (cells, labels) in enumerate(parts):
            secret = seeded_secret(7, f"{label}/{place}")
            stream = SecretStream(secret, f"forecast/{epsilon}/{number}")
            total += random_contribution(forests, cells, labels, plan, stream, party=place)
        values = random_step(total, plan, contributors=len(parts))
        forests.append(plan.forest(number, values))
    return total_scores(forests, plan.grid.cells(table.features[table.held_out]))


def report(points: Sequence[Point], curve: Curve) -> None:
    """Say what fits best, and how many settings lie within the band.

    Beside the fit stands how well a curve does on one table that was fitted to the other alone.
    """
    fitted = [one for one in points if one.setting.fitted]
    print(f"half is lost at a strength of {best_fit(fitted, curve):.2f}; in use: {curve.half_lost}")
    _missed("fitted", fitted, curve)
    _missed("held out", [one for one in points if not one.setting.fitted], curve)
    census = [one for one in points if one.setting.table == "adult"]
    households = [one for one in points if one.setting.table != "adult"]
    for name, known, other in (
        ("the census alone, held against households", census, households),
        ("households alone, held against the census", households, census),
    ):
        half = best_fit(known, curve)
        _missed(f"fitted to {name} ({half:.2f})", other, replace(curve, half_lost=half))


def best_fit(points: Sequence[Point], curve: Curve) -> float:
    """Return the strength at which half is lost that misses points by the least squares."""

    def missed(half: float) -> float:
        tried = replace(curve, half_lost=half)
        return fmean((tried.lost(one.strength) - one.lost) ** 2 for one in points)

    return float(minimize_scalar(missed, bounds=(0.01, 100.0), method="bounded").x)


def _missed(name: str, points: Sequence[Point], curve: Curve) -> None:
    errors = [curve.lost(one.strength) - one.lost for one in points]
    within = fmean(
        curve.lost(one.strength * curve.band) - SLACK
        <= one.lost
        <= curve.lost(one.strength / curve.band) + SLACK
        for one in points
    )
    print(
        f"{name}: {len(points)} settings, root mean square error "
        f"{fmean(one**2 for one in errors) ** 0.5:.3f}, {within:.0%} within the band"
    )


def main() -> None:
    """Measure, fit, and say what the fit misses."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--family", type=Family, choices=Family, action="append")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    tables = {
        one.name: one
        for one in (
            adult(),
            households("buys_vitamins", "VITAMINS"),
            households("buys_wine", "DOMESTIC WINE"),
        )
    }
    points = []
    for family in options.family or Family:
        print(f"== {family}", flush=True)
        found = []
        for group in settings(family):
            for point in measure(tables[group[0].table], group, options.repeats):
                found.append(point)
                one = point.setting
                size = f", depth {one.depth}" if family is Family.BOOSTED_TREES else ""
                size = f", hidden {one.hidden}" if one.hidden else size
                print(
                    f"{one.table:14} {one.partners} x {one.rows:6} rows{size}, "
                    f"{point.shape.positives:5} positives, epsilon {one.epsilon:5}: "
                    f"ratio {point.ratio:8.3f}, AUC {point.auc:.3f} -> {point.private_auc:.3f}, "
                    f"lost {point.lost:.3f}, forecast {CURVES[family].lost(point.strength):.3f}",
                    flush=True,
                )
        report(found, CURVES[family])
        points += found
    if options.json:
        options.json.write_text(
            json.dumps([asdict(one) | {"lost": one.lost} for one in points], indent=1, default=str)
        )


if __name__ == "__main__":
    main()
