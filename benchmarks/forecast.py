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
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import NormalDist, fmean

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar

from privacy.accounting import SampledGaussianEvent, calibrate_noise_multiplier
from privacy.accounting.price import BAND, HALF_LOST, TrainingShape, signal_to_noise
from privacy.randomness import SecretStream, seeded_secret
from privacy.training.dp_sgd import DpSgdParameters, LogisticGradient, UnsafeNoNoiseWarning, train
from privacy.training.encoding import CategoricalFeature, Encoder, Feature, NumericFeature, Scale
from privacy.training.evaluation import ranking_quality

DATA = Path(__file__).resolve().parent.parent / "examples" / "data"
DELTA = 1e-6
SAMPLING = 0.2
STEPS = 300
LEARNING_RATE = 20.0
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


@dataclass(frozen=True)
class Table:
    """Encoded rows and a label, of which some rows are for judging only."""

    name: str
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
        partners: that train and are averaged.
        epsilon: for a person at one partner.
        fitted: whether the curve is fitted to it; else it is held against the curve.
    """

    table: str
    rows: int
    known: float
    partners: int
    epsilon: float
    fitted: bool


@dataclass(frozen=True)
class Point:
    """A setting, its signal-to-noise ratio, and the share of AUC above 0.5 that was lost."""

    setting: Setting
    positives: int
    ratio: float
    auc: float
    private_auc: float

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
    return Table(
        name,
        Encoder(features).encode(columns),
        labels.to_numpy().astype(float),
        np.array(held_out),
    )


def _drawn(text: str) -> float:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") / 2**64


def settings() -> Iterator[list[Setting]]:
    """What is measured: sizes, shares of known positives, partners, epsilons."""
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
        yield [Setting(table, rows, known, partners, one, fitted) for one in EPSILONS]


def measure(table: Table, settings: Sequence[Setting], repeats: int) -> Iterator[Point]:
    """Train on the same rows with each setting's noise and with none, and judge all.

    Args:
        table: whose rows.
        settings: which differ in epsilon alone.
        repeats: further rows and further noise, to average over.
    """
    first = settings[0]
    aucs: dict[float | None, list[float]] = {}
    positives = []
    for repeat in range(repeats):
        order = np.random.default_rng(repeat).permutation(np.flatnonzero(~table.held_out))
        shares = [order[one :: first.partners][: first.rows] for one in range(first.partners)]
        labels = [table.labels[share].copy() for share in shares]
        for place, one in enumerate(labels):
            one[np.random.default_rng([repeat, place]).random(len(one)) >= first.known] = 0
        positives.append(sum(one.sum() for one in labels))
        for noise in (None, *map(noise_of, settings)):
            models = [
                _train(table.features[share], one, noise, f"{first}/{repeat}/{place}")
                for place, (share, one) in enumerate(zip(shares, labels, strict=True))
            ]
            scores = table.features[table.held_out] @ np.mean(models, axis=0)
            quality = ranking_quality(scores, table.labels[table.held_out] == 1)
            aucs.setdefault(noise, []).append(quality.auc)
    for setting in settings:
        noise = noise_of(setting)
        shape = TrainingShape(
            rows=(setting.rows,) * setting.partners,
            positives=round(fmean(positives)),
            columns=table.features.shape[1],
            event=SampledGaussianEvent(
                noise_multiplier=noise, sampling_probability=SAMPLING, steps=STEPS
            ),
        )
        ratio = signal_to_noise(shape)
        yield Point(setting, shape.positives, ratio, fmean(aucs[None]), fmean(aucs[noise]))


def noise_of(setting: Setting) -> float:
    """Return the noise multiplier of a setting, for a person at one partner."""
    return calibrate_noise_multiplier(
        epsilon=setting.epsilon, delta=DELTA, sampling_probability=SAMPLING, steps=STEPS
    )


def _train(
    features: NDArray[np.float64], labels: NDArray[np.float64], noise: float | None, label: str
) -> NDArray[np.float64]:
    common = {
        "steps": STEPS,
        "sampling_probability": SAMPLING,
        "clipping_norm": 1.0,
        "learning_rate": LEARNING_RATE,
        "expected_rows": len(features),
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnsafeNoNoiseWarning)
        parameters = (
            DpSgdParameters.unsafe_without_noise(**common)
            if noise is None
            else DpSgdParameters(noise_multiplier=noise, **common)
        )
    width = features.shape[1]
    stream = SecretStream(seeded_secret(7, label), f"forecast/{noise}")
    return train(LogisticGradient(width), np.zeros(width), features, labels, parameters, stream)


def report(points: Sequence[Point]) -> None:
    """Say what `HALF_LOST` fits best, and how many settings lie within the band."""

    def strength(point: Point) -> float:
        return 2.0 * point.ratio * NormalDist().inv_cdf(point.auc) ** 2

    def missed(half: float) -> float:
        return fmean(
            (1.0 / (1.0 + strength(one) / half) - one.lost) ** 2
            for one in points
            if one.setting.fitted
        )

    best = float(minimize_scalar(missed, bounds=(0.1, 100.0), method="bounded").x)
    print(f"half is lost at a strength of {best:.2f}; in use: {HALF_LOST}")
    for fitted, name in ((True, "fitted"), (False, "held out")):
        chosen = [one for one in points if one.setting.fitted is fitted]
        errors = [1.0 / (1.0 + strength(one) / HALF_LOST) - one.lost for one in chosen]
        within = fmean(
            1.0 / (1.0 + BAND * strength(one) / HALF_LOST) - SLACK
            <= one.lost
            <= 1.0 / (1.0 + strength(one) / BAND / HALF_LOST) + SLACK
            for one in chosen
        )
        print(
            f"{name}: {len(chosen)} settings, root mean square error "
            f"{fmean(one**2 for one in errors) ** 0.5:.3f}, {within:.0%} within the band"
        )


def main() -> None:
    """Measure, fit, and say what the fit misses."""
    parser = argparse.ArgumentParser(description=__doc__)
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
    for group in settings():
        for point in measure(tables[group[0].table], group, options.repeats):
            points.append(point)
            one = point.setting
            print(
                f"{one.table:14} {one.partners} x {one.rows:6} rows, {point.positives:5} "
                f"positives, epsilon {one.epsilon:5}: ratio {point.ratio:8.3f}, "
                f"AUC {point.auc:.3f} -> {point.private_auc:.3f}, lost {point.lost:.3f}",
                flush=True,
            )
    report(points)
    if options.json:
        options.json.write_text(
            json.dumps([asdict(one) | {"lost": one.lost} for one in points], indent=1)
        )


if __name__ == "__main__":
    main()
