"""What a job costs before it runs, and what its noise is likely to do to a model.

Guarantees: prices are those of the accountant that charges; what is called the largest or the
smallest was searched for and passes, and the next one on the grid does not. No I/O, no data: a
forecast rests on declared figures alone.

A forecast is not a bound. It says how much of a ranking's worth the noise is likely to take, by a
curve for each family of models that was fitted to measured trainings (`benchmarks/forecast.py`,
docs/privacy-budget.md): over other features, or another learning rate, it may be off by more than
its range.

Leaves to others: what a job is charged (`federation.plan` asks the jobs), refusing (`ledger`).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Final

from privacy.accounting.accountant import epsilon_of
from privacy.accounting.events import (
    ComposedEvent,
    Event,
    RepeatedEvent,
    SampledGaussianEvent,
)
from privacy.accounting.ledger import Budget
from privacy.errors import InvalidParameterError

__all__ = [
    "BOOSTED_TREES",
    "LOGISTIC_REGRESSION",
    "MOST_REPEATS",
    "NETWORK",
    "RIDGE_REGRESSION",
    "Curve",
    "Forecast",
    "ForestShape",
    "PriceTag",
    "Shape",
    "TrainingShape",
    "forecast",
    "largest_within",
    "price_tag",
    "smallest_within",
]

MOST_REPEATS: Final = 1_000
"""Further runs of a job that are counted at most."""


@dataclass(frozen=True, slots=True)
class Curve:
    """How much of a ranking's worth is lost at a strength of the signal.

    Attributes:
        half_lost: strength at which half is lost, > 0; fitted.
        power: how steeply less is lost of a stronger signal, > 0.
        weighs_auc: whether the signal of a model that ranks better is stronger.
        band: how much stronger or weaker than forecast the signal is taken to be, at either end.
    """

    half_lost: float
    power: float = 1.0
    weighs_auc: bool = False
    band: float = 3.0

    def strength(self, ratio: float, auc: float) -> float:
        """Return the strength of a signal.

        Args:
            ratio: of signal to noise, see `Shape`.
            auc: what a model reaches without noise, in (0.5, 1). With s = √2 Φ⁻¹(auc), by how many
                standard deviations of its scores it sets the classes apart, it weighs s².
        """
        return 2.0 * ratio * NormalDist().inv_cdf(auc) ** 2 if self.weighs_auc else ratio

    def lost(self, strength: float) -> float:
        """Return the share that is lost, 1 / (1 + (strength / `half_lost`)^`power`)."""
        return float(1.0 / (1.0 + (strength / self.half_lost) ** self.power))


# Fitted to trainings on two public tables by `benchmarks/forecast.py`, at δ = 10⁻⁶; what they miss
# on trainings that they were not fitted to stands in docs/privacy-budget.md.
LOGISTIC_REGRESSION: Final = Curve(3.6, weighs_auc=True)
RIDGE_REGRESSION: Final = Curve(3.4, power=1.5)
NETWORK: Final = Curve(3.0, power=1.5, band=4.0)
BOOSTED_TREES: Final = Curve(10.9)


@dataclass(frozen=True, slots=True)
class PriceTag:
    """What a job does to one ledger.

    Attributes:
        epsilon: of the job alone.
        epsilon_spent: by it and what came before, as one composition.
        epsilon_left: cap less that, 0 or more.
        fits: whether the cap allows it.
        smallest_budget: the cap, in hundredths, that would just allow it.
        repeats: how many further runs would fit after it, at most `MOST_REPEATS`; None where the
            job costs nothing, 0 where it does not fit itself.
    """

    epsilon: float
    epsilon_spent: float
    epsilon_left: float
    fits: bool
    smallest_budget: float
    repeats: int | None


def price_tag(spent: Sequence[Event], job: Sequence[Event], budget: Budget) -> PriceTag:
    """Price a job after what is charged already.

    Args:
        spent: charged before, on the same ledger.
        job: what the job is charged.
        budget: the ledger's.

    Raises:
        InvalidParameterError: if an event cannot be priced.
    """
    after = epsilon_of([*spent, *job], budget.delta)
    fits = after <= budget.epsilon
    return PriceTag(
        epsilon=epsilon_of(job, budget.delta),
        epsilon_spent=after,
        epsilon_left=max(0.0, budget.epsilon - after),
        fits=fits,
        smallest_budget=_hundredths_above(after),
        repeats=_repeats([*spent, *job], job, budget) if fits else 0,
    )


def _hundredths_above(epsilon: float) -> float:
    """Return the least multiple of 0.01 that is not below `epsilon`, whatever floats do to it."""
    hundredths = math.floor(100.0 * epsilon)
    while hundredths / 100.0 < epsilon:
        hundredths += 1
    return hundredths / 100.0


def _repeats(spent: Sequence[Event], job: Sequence[Event], budget: Budget) -> int | None:
    """Count how often a job fits after what is spent."""
    if not job:
        return None
    once = ComposedEvent(events=tuple(job))

    def after(count: int) -> float:
        further = [RepeatedEvent(event=once, count=count)] if count else []
        return epsilon_of([*spent, *further], budget.delta)

    before, one = after(0), after(1)
    if one > budget.epsilon:
        return 0
    # Prices of many runs take long to compute: begin a little above what squares suggest.
    likely = (budget.epsilon**2 - before**2) / max(one**2 - before**2, budget.epsilon**2 * 1e-6)
    limit = min(math.ceil(1.3 * likely) + 2, MOST_REPEATS + 1)
    if after(limit) <= budget.epsilon:
        limit = MOST_REPEATS + 1
    return _most(after, budget.epsilon, limit, power=1)


def largest_within(
    after: Callable[[float], float], *, spent: float, cap: float, asked: float
) -> float | None:
    """Find the largest ε to ask for with which a ledger stays within its cap.

    Args:
        after: ε spent in all if the job were asked for with that ε; never falls. An
            `InvalidParameterError` counts as too much.
        spent: in all if nothing were asked for.
        cap: the ledger's.
        asked: ε that is too much, > 0.

    Returns:
        A multiple of a hundredth of the power of ten at or below `asked`; None if not even one such
        step fits.
    """
    step = 10.0 ** (math.floor(math.log10(asked)) - 2)

    def at(steps: int) -> float:
        try:
            return after(_on_grid(steps, step)) if steps else spent
        except InvalidParameterError:
            return math.inf

    most = _most(at, cap, math.ceil(asked / step), power=2)
    return _on_grid(most, step) if most else None


def _most(price: Callable[[int], float], cap: float, limit: int, *, power: int) -> int:
    """Find the largest number below `limit`, where nothing fits, whose price is within the cap.

    Args:
        price: never falls; of 0 it is within the cap.
        cap: most that may be paid.
        limit: taken not to fit, 1 or more.
        power: of the number to which the square of the price is likely to be proportional. A
            straight line lands close then; every other turn halves the gap, whatever prices do.
    """
    low, high = 0, limit
    low_price, high_price = price(0), price(limit)
    while high - low > 1:
        for straight in (True, False):
            share = 0.5
            if straight and cap < high_price < math.inf:
                share = (cap**2 - low_price**2) / (high_price**2 - low_price**2)
            guess = (low**power + share * (high**power - low**power)) ** (1.0 / power)
            number = min(max(math.floor(guess), low + 1), high - 1)
            # The neighbour of one that fits most often does not, and then all is found.
            for one in (number, number + 1) if straight else (number,):
                if low < one < high:
                    if (cost := price(one)) <= cap:
                        low, low_price = one, cost
                    else:
                        high, high_price = one, cost
            if high - low == 1:
                break
    return low


def _on_grid(steps: int, step: float) -> float:
    """Return so many steps, as the decimal number that one would write."""
    return float(f"{steps * step:.6g}")


def smallest_within(reaches: Callable[[float], bool], asked: float) -> float | None:
    """Find the smallest ε from which on a job can be asked for, to three digits.

    Args:
        reaches: whether some noise keeps that ε; true of all above one that is.
        asked: ε that cannot be kept, > 0.

    Returns:
        None if no ε up to a billion billion times `asked` is in reach.
    """
    low, high = asked, 2.0 * asked
    for _ in range(60):
        if reaches(high):
            break
        low, high = high, 2.0 * high
    else:
        return None
    step = 10.0 ** (math.floor(math.log10(high)) - 2)
    failing, passing = math.floor(low / step), math.ceil(high / step)
    while passing - failing > 1:
        middle = (failing + passing) // 2
        if reaches(_on_grid(middle, step)):
            passing = middle
        else:
            failing = middle
    return _on_grid(passing, step)


@dataclass(frozen=True, slots=True)
class TrainingShape:
    """What a training with local noise is, as far as noise is concerned; all of it declared.

    Attributes:
        rows: of each partner, ≥ 1; their models are averaged with equal weights.
        positives: rows that are labelled as such, of all partners together, ≥ 1 and below all rows.
        columns: of an encoded row, ≥ 1.
        event: what a partner releases in all steps and rounds.
        clipping_norm: of a row's gradient, > 0. Rows have a norm of at most 1, and so have their
            gradients.
        curve: of the model's family.

    Raises:
        InvalidParameterError: if one is out of range.
    """

    rows: tuple[int, ...]
    positives: int
    columns: int
    event: SampledGaussianEvent
    clipping_norm: float = 1.0
    curve: Curve = LOGISTIC_REGRESSION

    def __post_init__(self) -> None:
        if min(self.rows, default=0) < 1 or self.columns < 1:
            raise InvalidParameterError("a training needs partners, rows and columns, got none")
        _check_positives(self.positives, sum(self.rows))
        if not 0.0 < self.clipping_norm < math.inf:
            raise InvalidParameterError(
                f"clipping_norm must be positive and finite, got {self.clipping_norm}"
            )

    @property
    def signal_to_noise(self) -> float:
        """How far the mean gradient stands out of its noise, over the whole training.

        At the start, the gradient of a share p of positives is p (1 - p) times the difference of
        the classes' means, which is taken as 1. Averaged over all steps, a partner's noise has a
        standard deviation of noise multiplier · clipping norm / (q · rows · √steps) in each column.
        """
        share = self.positives / sum(self.rows)
        event = self.event
        once = event.noise_multiplier * max(1.0, self.clipping_norm) / event.sampling_probability
        partners = (once / (rows * math.sqrt(event.steps)) for rows in self.rows)
        noise = math.hypot(*partners) / len(self.rows)
        return share * (1.0 - share) / (noise * math.sqrt(self.columns))


@dataclass(frozen=True, slots=True)
class ForestShape:
    """What boosted trees from noised sums are, as far as noise is concerned; all of it declared.

    Attributes:
        rows: of all partners, ≥ 2.
        positives: rows that are labelled as such, ≥ 1 and below all rows.
        gradient_noise: standard deviation of the noise on a leaf's summed gradient, > 0.
        sums: trees of all rounds, ≥ 1; each puts every row's gradient into one of its leaves.

    Raises:
        InvalidParameterError: if one is out of range.
    """

    rows: int
    positives: int
    gradient_noise: float
    sums: int

    def __post_init__(self) -> None:
        if self.sums < 1:
            raise InvalidParameterError(f"expected trees, got {self.sums}")
        _check_positives(self.positives, self.rows)
        if not 0.0 < self.gradient_noise < math.inf:
            raise InvalidParameterError(
                f"gradient_noise must be positive and finite, got {self.gradient_noise}"
            )

    @property
    def curve(self) -> Curve:
        """Of boosted trees."""
        return BOOSTED_TREES

    @property
    def signal_to_noise(self) -> float:
        """How far the gradient of all leaves of a tree stands out of one leaf's noise.

        At the start, that gradient is rows · p (1 - p) for a share p of positives. Noise of the
        mean of all trees is smaller by √sums. Neither the number of leaves nor that of columns is
        in it: leaves are shrunk by what they are worth, and measured losses follow neither.
        """
        share = self.positives / self.rows
        gradient = self.rows * share * (1.0 - share)
        return gradient * math.sqrt(self.sums) / self.gradient_noise


Shape = TrainingShape | ForestShape
"""A training that a forecast is of."""


def _check_positives(positives: int, rows: int) -> None:
    if not 1 <= positives < rows:
        raise InvalidParameterError(
            f"positives must be at least 1 and fewer than the {rows} declared rows of all "
            f"partners, got {positives}"
        )


@dataclass(frozen=True, slots=True)
class Forecast:
    """What noise is likely to take from a ranking: a share of its AUC above 0.5.

    Attributes:
        auc: what the model is taken to reach without noise.
        ratio: see `Shape`.
        lost: expected share, in (0, 1).
        least: what would be lost if the signal were stronger by the curve's band.
        most: what would be lost if it were weaker by as much.
    """

    auc: float
    ratio: float
    lost: float
    least: float
    most: float

    def auc_loss(self, share: float) -> float:
        """Return a lost share in points of AUC."""
        return share * (self.auc - 0.5)


def forecast(shape: Shape, auc: float) -> Forecast:
    """Forecast what the noise of a training takes; see the module's words on what that is worth.

    Args:
        shape: the training.
        auc: what a model would reach without noise, in (0.5, 1).

    Raises:
        InvalidParameterError: if `auc` is out of range.
    """
    if not 0.5 < auc < 1.0:
        raise InvalidParameterError(
            f"auc must lie between 0.5, which is guessing, and 1, got {auc}"
        )
    ratio, curve = shape.signal_to_noise, shape.curve
    strength = curve.strength(ratio, auc)
    return Forecast(
        auc=auc,
        ratio=ratio,
        lost=curve.lost(strength),
        least=curve.lost(strength * curve.band),
        most=curve.lost(strength / curve.band),
    )
