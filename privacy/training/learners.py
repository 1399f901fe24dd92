"""A party's own part of a model over several parties: what it fits, round by round, and keeps.

```
propose   residuals in, fitted values out: one per person, on the scale of the logit, bounded
settle    the step that was taken with them is kept
score     what the part gives to a person's score
```

Guarantees: I/O-free, single-threaded and deterministic; fitted values are finite and within
`FITTED_BOUND`, whatever the residuals; a person whose residual is 0 has no influence; a part holds
no person's row. Nothing is tuned: the ridge's penalty is found from the party's own rows.

Leaves to others: whose residuals these are and whether they may be had (`assisted` makes them);
rows of finite numbers (`encoding`).

**One number per person says all.** With p the model's probability and labels that were turned round
with probability φ, a label is seen to be 1 with probability q = φ + (1 - 2φ) p. The residual is
e = seen label - q, which gives away the seen label (its sign), q, and p. So each party derives the
gradient g of the likelihood of what was seen, and its Fisher information h:

    v = p (1 - p),  g = e (1 - 2φ) v / (q (1 - q)),  h = ((1 - 2φ) v)² / (q (1 - q))

which are e and p (1 - p) where φ = 0 (Natarajan et al. 2013 and Patrini et al. 2017 call the
correction of the likelihood "forward").

Sources: Diao et al., "GAL: Gradient Assisted Learning", NeurIPS 2022; MacKay 1992, "The evidence
framework applied to classification networks" (the penalty).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Final, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from privacy.errors import InvalidParameterError

__all__ = [
    "FITTED_BOUND",
    "PENALTIES",
    "Learner",
    "Part",
    "Proposal",
    "RidgePart",
    "TreesPart",
    "gradients",
    "new_part",
    "part_from_json",
]

FITTED_BOUND: Final = 8.0
"""Largest magnitude of a fitted value: a party moves nobody further in a round."""

PENALTIES: Final = 2
"""Numbers beside the fitted values: the penalty's slope and curvature along them."""

_LEAST_VARIANCE: Final = 1e-6
_PENALTY_RANGE: Final = (1e-9, 1e6)  # times the largest curvature
_FIXED_POINT_STEPS: Final = 20
_TREES: Final = 20
_LEAVES: Final = 8
_SHRINKAGE: Final = 0.1
_LEAF_ROWS: Final = 20
_LEAF_PENALTY: Final = 1.0
_LARGEST_MODEL: Final = 1 << 22

Finite = Annotated[float, Field(allow_inf_nan=False)]


class Learner(StrEnum):
    """What a party fits to residuals."""

    RIDGE = "ridge"
    """A weighted linear regression in closed form: all together are a logistic regression."""
    TREES = "trees"
    """Twenty small regression trees (LightGBM); what parties' columns tell together is not seen."""


def gradients(
    residuals: NDArray[np.float64], flip: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return gradient and Fisher information of each person's likelihood, in the logit.

    Args:
        residuals: seen label minus its probability, shape (n,), in (-1, 1); 0 for who is left out.
        flip: probability with which labels were turned round, in [0, 0.5).
    """
    q = np.where(residuals > 0, 1.0 - residuals, -residuals)
    p = np.clip((q - flip) / (1.0 - 2.0 * flip), 0.0, 1.0)
    variance = np.maximum(p * (1.0 - p), _LEAST_VARIANCE)
    used = residuals != 0
    slope = np.zeros(len(residuals))
    np.divide((1.0 - 2.0 * flip) * variance, q * (1.0 - q), out=slope, where=used)
    return residuals * slope, (1.0 - 2.0 * flip) * variance * slope


@dataclass(frozen=True, eq=False)
class Proposal:
    """What a party offers in a round.

    Attributes:
        part: the party's part, which remembers the offer until it is settled.
        fitted: shape (n,), of magnitude `FITTED_BOUND` or less.
        penalties: what a step s along `fitted` adds to the party's penalty: s · the first plus
            s² · the second; shape (2,).
    """

    part: "Part"
    fitted: NDArray[np.float64]
    penalties: NDArray[np.float64]


class _Closed(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    def to_json(self) -> bytes:
        """Write the part; `part_from_json` reads it."""
        return self.model_dump_json().encode()


class RidgePart(_Closed):
    """A linear part.

    Attributes:
        centre: mean of each column over the rows of the training; empty before the first round.
        weights: of the columns, their centre taken away.
        proposed: what the last proposal would add to them; empty where it is settled.
        penalty: λ of ½λ‖w‖²; 0 before the first round.
    """

    kind: Literal["ridge"] = "ridge"
    centre: tuple[Finite, ...] = ()
    weights: tuple[Finite, ...] = ()
    proposed: tuple[Finite, ...] = ()
    penalty: Annotated[Finite, Field(ge=0)] = 0.0

    def propose(
        self, features: NDArray[np.float64], residuals: NDArray[np.float64], flip: float
    ) -> Proposal:
        """Take one step of Fisher scoring, all other parties standing still.

        The penalty is the one that the evidence of these rows prefers: one that columns which tell
        nothing drive up, until they are used for nothing.

        Raises:
            InvalidParameterError: features and residuals do not fit each other or this part.
        """
        _check(features, residuals, self.weights)
        centre = np.array(self.centre) if self.centre else features.mean(axis=0)
        weights = np.array(self.weights) if self.weights else np.zeros(features.shape[1])
        rows = features - centre
        g, h = gradients(residuals, flip)
        curvature = (rows * h[:, np.newaxis]).T @ rows
        values, vectors = np.linalg.eigh(curvature)
        values = np.maximum(values, 0.0)
        if values[-1] <= np.finfo(np.float64).eps * len(rows):  # no column varies
            part = self._with(centre, weights, np.zeros_like(weights), self.penalty)
            return Proposal(part, np.zeros(len(rows)), np.zeros(PENALTIES))
        target = vectors.T @ (rows.T @ g + curvature @ weights)
        penalty = _evidence(values, target, self.penalty)
        step = vectors @ (target / (values + penalty)) - weights
        fitted = rows @ step
        largest = float(np.abs(fitted).max(initial=0.0))
        if largest > FITTED_BOUND:  # the direction stays; the step is the line search's matter
            step, fitted = step * (FITTED_BOUND / largest), fitted * (FITTED_BOUND / largest)
        penalties = penalty * np.array([weights @ step, 0.5 * (step @ step)])
        part = self._with(centre, weights, step, penalty)
        return Proposal(part, np.clip(fitted, -FITTED_BOUND, FITTED_BOUND), penalties)

    def settle(self, step: float) -> Self:
        """Keep what was proposed, times `step`."""
        if not self.proposed:
            raise InvalidParameterError("nothing was proposed since the last step")
        weights = np.array(self.weights) + step * np.array(self.proposed)
        return self.model_copy(update={"weights": tuple(weights.tolist()), "proposed": ()})

    def keep(self, rounds: int) -> Self:  # noqa: ARG002 -- its last round is its best
        """Forget what came after `rounds` rounds, where that is worse."""
        return self

    def score(self, features: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return what the part gives to each person's logit, shape (n,).

        Raises:
            InvalidParameterError: the columns are not those it was trained on.
        """
        _check_rows(features, self.weights)
        if not self.weights:
            return np.zeros(len(features))
        scores: NDArray[np.float64] = (features - np.array(self.centre)) @ np.array(self.weights)
        return scores

    @staticmethod
    def _with(
        centre: NDArray[np.float64],
        weights: NDArray[np.float64],
        proposed: NDArray[np.float64],
        penalty: float,
    ) -> "RidgePart":
        return RidgePart(
            centre=tuple(centre.tolist()),
            weights=tuple(weights.tolist()),
            proposed=tuple(proposed.tolist()),
            penalty=penalty,
        )


class Stage(_Closed):
    """Trees of one round, and the step that was taken with them."""

    step: Finite
    trees: Annotated[str, Field(max_length=_LARGEST_MODEL)]


class TreesPart(_Closed):
    """A part of regression trees.

    Attributes:
        width: columns of the rows; 0 before the first round.
        stages: settled rounds.
        proposed: trees of the last proposal; None where it is settled.
    """

    kind: Literal["trees"] = "trees"
    width: Annotated[int, Field(ge=0)] = 0
    stages: tuple[Stage, ...] = ()
    proposed: Annotated[str, Field(max_length=_LARGEST_MODEL)] | None = None

    def propose(
        self, features: NDArray[np.float64], residuals: NDArray[np.float64], flip: float
    ) -> Proposal:
        """Grow trees on gradient and Fisher information, by Newton's method in the leaves.

        Raises:
            InvalidParameterError: features and residuals do not fit each other or this part.
        """
        _check(features, residuals, (0.0,) * self.width)
        g, h = gradients(residuals, flip)
        used = residuals != 0
        if not used.any():
            raise InvalidParameterError("every residual is 0: there is nobody to learn from")
        text = _grown(features[used], g[used], h[used], seed=len(self.stages))
        part = self.model_copy(update={"width": features.shape[1], "proposed": text})
        fitted = np.clip(_predict(text, features), -FITTED_BOUND, FITTED_BOUND)
        return Proposal(part, fitted, np.zeros(PENALTIES))

    def settle(self, step: float) -> Self:
        """Keep the trees that were proposed, weighed by `step`."""
        if self.proposed is None:
            raise InvalidParameterError("nothing was proposed since the last step")
        stages = (*self.stages, Stage(step=step, trees=self.proposed))
        return self.model_copy(update={"stages": stages, "proposed": None})

    def keep(self, rounds: int) -> Self:
        """Forget what came after `rounds` rounds."""
        return self.model_copy(update={"stages": self.stages[:rounds]})

    def score(self, features: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return what the part gives to each person's logit, shape (n,).

        Raises:
            InvalidParameterError: the columns are not those it was trained on.
        """
        _check_rows(features, (0.0,) * self.width)
        scores = np.zeros(len(features))
        for stage in self.stages:
            if stage.step:
                fitted = np.clip(_predict(stage.trees, features), -FITTED_BOUND, FITTED_BOUND)
                scores += stage.step * fitted
        return scores


Part = RidgePart | TreesPart
"""A party's own part of a model."""

_PART: Final[TypeAdapter[Part]] = TypeAdapter(Annotated[Part, Field(discriminator="kind")])


def new_part(learner: Learner) -> Part:
    """Return a part that has learnt nothing yet."""
    return RidgePart() if learner is Learner.RIDGE else TreesPart()


def part_from_json(content: bytes) -> Part:
    """Read a part back.

    Raises:
        InvalidParameterError: it is none.
    """
    try:
        return _PART.validate_json(content)
    except ValidationError as error:
        raise InvalidParameterError(
            f"expected a party's part of a model, got {error.error_count()} mistakes"
        ) from error


def _grown(
    rows: NDArray[np.float64], g: NDArray[np.float64], h: NDArray[np.float64], *, seed: int
) -> str:
    """Return trees as text; none where no column can be split."""
    import lightgbm

    if len(rows) < 2 * _LEAF_ROWS or not np.ptp(rows, axis=0).any():
        return ""

    def quadratic(
        fitted: NDArray[np.float64], _: object
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        return h * fitted - g, h

    try:
        booster = lightgbm.train(
            {
                "objective": quadratic,
                "learning_rate": _SHRINKAGE,
                "num_leaves": _LEAVES,
                "min_data_in_leaf": _LEAF_ROWS,
                "lambda_l2": _LEAF_PENALTY,
                "num_threads": 1,
                "deterministic": True,
                "force_row_wise": True,
                "seed": seed,
                "verbose": -1,
            },
            lightgbm.Dataset(rows, params={"verbose": -1}),
            num_boost_round=_TREES,
        )
    except lightgbm.basic.LightGBMError:  # every column differs in too few rows
        return ""
    text: str = booster.model_to_string()
    return text


def _predict(trees: str, features: NDArray[np.float64]) -> NDArray[np.float64]:
    import lightgbm

    if not trees:
        return np.zeros(len(features))
    try:
        booster = lightgbm.Booster(model_str=trees)
        fitted: NDArray[np.float64] = booster.predict(features, num_threads=1)
    except lightgbm.basic.LightGBMError as error:
        raise InvalidParameterError("the trees of a part cannot be read: it is damaged") from error
    return fitted


def _evidence(values: NDArray[np.float64], target: NDArray[np.float64], penalty: float) -> float:
    """Find the penalty at which the weights are as large as it expects them to be.

    Args:
        values: curvature along its own axes.
        target: curvature times the weights without a penalty, along the same axes.
        penalty: where to begin; 0 for nowhere in particular.
    """
    least, most = (bound * float(values[-1]) for bound in _PENALTY_RANGE)
    penalty = min(max(penalty or 1e-3 * float(values[-1]), least), most)
    for _ in range(_FIXED_POINT_STEPS):
        weights = target / (values + penalty)
        effective = float((values / (values + penalty)).sum())
        size = float(weights @ weights)
        penalty = min(max(effective / size, least), most) if size * most > effective else most
    return penalty


def _check(
    features: NDArray[np.float64], residuals: NDArray[np.float64], known: Sequence[float]
) -> None:
    _check_rows(features, known)
    if residuals.shape != (len(features),):
        raise InvalidParameterError(
            f"expected one residual for each of {len(features)} rows, got {residuals.shape}: the "
            "parties' rows are not aligned"
        )
    if not (np.abs(residuals) < 1.0).all():  # NaN is refused too
        raise InvalidParameterError("residuals must lie in (-1, 1), got others")


def _check_rows(features: NDArray[np.float64], known: Sequence[float]) -> None:
    if features.ndim != 2 or not np.isfinite(features).all():
        raise InvalidParameterError(f"rows must be finite, (n, width), got {features.shape}")
    if known and features.shape[1] != len(known):
        raise InvalidParameterError(
            f"a part of {len(known)} columns got rows of {features.shape[1]}: its columns changed"
        )
