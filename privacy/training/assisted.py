"""Training over parties that know different things of the same people: the side that has labels.

```
brand                                          every partner
1  residuals of the people in common   ──────► 2  fits its own learner to them (`learners`)
4  the sum of the fitted values        ◄────── 3  fitted values, which only add up to be read
5  searches along the sum how far to go, then improves its own part on its own columns
6  stops where nothing is gained, or after the agreed rounds; else from 1, with the step it took
```

Guarantees: I/O-free and deterministic; labels are used as given, so where they were noised first
(`label_noise`), everything said here is computed from the noised ones and costs nothing more. What
comes back has bounded influence whatever it is: values beyond what all partners together may say
are cut and flagged, the step is searched in [0, 4], and a sum that explains nothing gets step 0 and
a flag. Which partner spoilt a sum cannot be told: only the sum is seen.

Leaves to others: that rows are aligned (residuals and sums go by place), sums without summands
(`privacy.secagg`), who may be used at all.

**What residuals tell.** A residual tells the seen label (its sign) and the model's probability,
exactly. Without noise on labels partners learn every label.

Source: Diao, Ding and Tarokh, "GAL: Gradient Assisted Learning for Decentralized Multi-Organization
Collaborations", NeurIPS 2022: algorithm 1, with Fisher information beside the residual.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from privacy.errors import InvalidParameterError
from privacy.training.learners import (
    FITTED_BOUND,
    PENALTIES,
    Learner,
    Part,
    gradients,
    new_part,
)

__all__ = ["MAXIMUM_ROUNDS", "Assisted", "AssistedPlan", "Finding", "LabelledRows"]

MAXIMUM_ROUNDS: Final = 15
"""Most exchanges with a partner."""

_OWN_STEPS: Final = {
    Learner.RIDGE: (6, 3),
    Learner.TREES: (0, 1),
}  # before the first sum, after one
_LARGEST_STEP: Final = 4.0
_LEAST_RESIDUAL: Final = 1e-6
_LEAST_GAIN: Final = 1e-5  # of the loss per person
_HELD_OUT: Final = 10  # one row of so many judges trees
_PATIENCE: Final = 2
_SEARCH_STEPS: Final = 20


class Finding(StrEnum):
    """What was wrong with a sum."""

    OUT_OF_BOUNDS = "out of bounds"
    """Some values were larger than all partners together may say; they were cut."""
    NO_GAIN = "no gain"
    """Following it would have explained the labels no better; it was not followed."""


@dataclass(frozen=True)
class AssistedPlan:
    """How a model over several parties is trained: the same for all.

    Attributes:
        partners: how many fitted values are in a sum, 1 or more.
        learner: what every party fits.
        rounds: at most, 1 to 15.
        flip: probability with which labels were turned round, in [0, 0.5).

    Raises:
        InvalidParameterError: a value is out of range.
    """

    partners: int
    learner: Learner
    rounds: int = 10
    flip: float = 0.0

    def __post_init__(self) -> None:
        if self.partners < 1:
            raise InvalidParameterError(f"expected 1 partner or more, got {self.partners}")
        if not 1 <= self.rounds <= MAXIMUM_ROUNDS:
            raise InvalidParameterError(f"expected 1 to {MAXIMUM_ROUNDS} rounds, got {self.rounds}")
        if not 0.0 <= self.flip < 0.5:
            raise InvalidParameterError(f"flip must lie in [0, 0.5), got {self.flip}")


@dataclass(frozen=True, eq=False)
class LabelledRows:
    """The brand's rows of a training.

    Attributes:
        features: shape (n, width), finite.
        labels: as seen, noise included, shape (n,).
        known: who has a label, and may be used, shape (n,).

    Raises:
        InvalidParameterError: shapes differ, a row is not finite, or a class is missing.
    """

    features: NDArray[np.float64]
    labels: NDArray[np.bool_]
    known: NDArray[np.bool_]

    def __post_init__(self) -> None:
        shape = (len(self.features),)
        if self.features.ndim != 2 or self.labels.shape != shape or self.known.shape != shape:
            raise InvalidParameterError(
                f"expected rows, and a label for each, got {self.features.shape}, "
                f"{self.labels.shape} and {self.known.shape}"
            )
        if self.labels.dtype != np.bool_ or self.known.dtype != np.bool_:
            raise InvalidParameterError("labels must be booleans")
        if not np.isfinite(self.features).all():
            raise InvalidParameterError("rows must be finite")
        if len(set(self.labels[self.known].tolist())) < 2:
            raise InvalidParameterError(
                "all labels are of one class: there is nothing to tell apart"
            )


@dataclass(frozen=True, eq=False)
class Assisted:
    """Where a training stands, at the side that has the labels.

    Attributes:
        plan: how it is trained.
        own: the brand's own part.
        intercept: added to every score.
        partners: what the sums gave to each person's logit so far, shape (n,).
        steps: taken along each sum.
        losses: mean over who judges: after the brand's own start, and after every sum.
        findings: what was wrong with which sum, from 1.
        finished: whether no further sum is wanted.
    """

    plan: AssistedPlan
    own: Part
    intercept: float
    partners: NDArray[np.float64]
    steps: tuple[float, ...] = ()
    losses: tuple[float, ...] = ()
    findings: tuple[tuple[int, Finding], ...] = ()
    finished: bool = False

    @classmethod
    def start(cls, plan: AssistedPlan, rows: LabelledRows) -> "Assisted":
        """Begin with what the brand knows by itself.

        Raises:
            InvalidParameterError: too few rows are left to learn from.
        """
        known = _learners(plan, rows)
        seen = rows.labels[known]
        if len(set(seen.tolist())) < 2:
            raise InvalidParameterError("too few labels of one class to learn from")
        rate = np.clip((seen.mean() - plan.flip) / (1.0 - 2.0 * plan.flip), 1e-3, 1.0 - 1e-3)
        begun = cls(
            plan, new_part(plan.learner), float(np.log(rate / (1.0 - rate))), np.zeros(len(known))
        )
        for _ in range(_OWN_STEPS[plan.learner][0]):
            begun = _own_step(begun, rows)
        return begun.changed(losses=(_loss(begun, rows),))

    def logits(self, rows: LabelledRows) -> NDArray[np.float64]:
        """Return every person's score, shape (n,)."""
        return self.intercept + self.own.score(rows.features) + self.partners

    def changed(self, **fields: Any) -> "Assisted":
        """Return the same but for some fields."""
        return replace(self, **fields)

    @property
    def kept_rounds(self) -> int:
        """Rounds that every part keeps: of trees, those until the loss was least."""
        if self.plan.learner is Learner.RIDGE or len(self.losses) < 2:
            return len(self.steps)
        return 1 + int(np.argmin(self.losses[1:]))

    def residuals(self, rows: LabelledRows) -> NDArray[np.float32]:
        """Step 1: return what partners fit, shape (n,): in (-1, 1), 0 for whom they leave out.

        Those are people without a label, those who may not be used, and, for trees, one of ten
        who judges the outcome: a 0 does not tell which.
        """
        found = _residuals(self.logits(rows), rows.labels, self.plan.flip)
        return np.where(_learners(self.plan, rows), found, 0.0).astype(np.float32)

    def hear(
        self,
        rows: LabelledRows,
        total: NDArray[np.float64],
        penalties: NDArray[np.float64],
    ) -> "Assisted":
        """Steps 5 and 6: take the sum of the partners' fitted values, and of their penalties.

        Args:
            rows: as at the start.
            total: shape (n,).
            penalties: shape (2,); see `Proposal`.

        Raises:
            InvalidParameterError: the training has ended, or shapes do not fit.
        """
        if self.finished:
            raise InvalidParameterError("the training has ended: it takes no further sum")
        if total.shape != self.partners.shape or penalties.shape != (PENALTIES,):
            raise InvalidParameterError(
                f"expected a sum for {len(self.partners)} people and {PENALTIES} penalties, got "
                f"{total.shape} and {penalties.shape}: the parties' rows are not aligned"
            )
        if not (np.isfinite(total).all() and np.isfinite(penalties).all()):
            raise InvalidParameterError("expected finite sums, got NaN or infinity")
        number, findings = len(self.steps) + 1, list(self.findings)
        most = FITTED_BOUND * self.plan.partners
        if (np.abs(total) > most * (1.0 + 1e-6)).any():
            findings.append((number, Finding.OUT_OF_BOUNDS))
        total = np.clip(total, -most, most)
        shift, step = _search(self, rows, total, penalties)
        if not step:
            findings.append((number, Finding.NO_GAIN))
        moved = replace(
            self,
            intercept=self.intercept + shift,
            partners=self.partners + step * total,
            steps=(*self.steps, step),
            findings=tuple(findings),
        )
        for _ in range(_OWN_STEPS[self.plan.learner][1]):
            moved = _own_step(moved, rows)
        losses = (*self.losses, _loss(moved, rows))
        return moved.changed(losses=losses, finished=_is_over(self.plan, losses))


def _own_step(state: Assisted, rows: LabelledRows) -> Assisted:
    """Improve the brand's own part, everything else standing still."""
    offer = state.own.propose(
        rows.features, state.residuals(rows).astype(np.float64), state.plan.flip
    )
    shift, step = _search(state, rows, offer.fitted, offer.penalties)
    return state.changed(own=offer.part.settle(step), intercept=state.intercept + shift)


def _search(
    state: Assisted,
    rows: LabelledRows,
    direction: NDArray[np.float64],
    penalties: NDArray[np.float64],
) -> tuple[float, float]:
    """Return how far to move the intercept, and to go along `direction`, in [0, 4].

    Fisher scoring on the penalised likelihood, halved until it gains.
    """
    known, flip = _learners(state.plan, rows), state.plan.flip
    base, labels = state.logits(rows)[known], rows.labels[known]
    columns = np.stack([np.ones(len(base)), direction[known]])
    at = np.zeros(2)

    def cost(point: NDArray[np.float64]) -> float:
        bent = point[1] * penalties[0] + point[1] ** 2 * penalties[1]
        return float(_losses(base + point @ columns, labels, flip).sum() + bent)

    value = cost(at)
    for _ in range(_SEARCH_STEPS):
        g, h = gradients(_residuals(base + at @ columns, labels, flip), flip)
        slope = columns @ g - [0.0, penalties[0] + 2.0 * at[1] * penalties[1]]
        curvature = (columns * h) @ columns.T + np.diag([1e-9, 2.0 * penalties[1] + 1e-9])
        move = np.linalg.solve(curvature, slope)
        wanted = at + move
        wanted[1] = min(max(wanted[1], 0.0), _LARGEST_STEP)
        while (found := cost(wanted)) >= value and np.abs(wanted - at).max() > 1e-6:
            wanted = (wanted + at) / 2.0
        if found >= value - 1e-9 * len(base):
            break
        at, value = wanted, found
    return float(at[0]), float(at[1])


def _loss(state: Assisted, rows: LabelledRows) -> float:
    """Return the mean loss of those who judge."""
    judges = rows.known
    if state.plan.learner is Learner.TREES:
        judges = judges & ~_learners(state.plan, rows)
    return float(_losses(state.logits(rows)[judges], rows.labels[judges], state.plan.flip).mean())


def _learners(plan: AssistedPlan, rows: LabelledRows) -> NDArray[np.bool_]:
    """Return whom parties learn from: all with a label; with trees, but every tenth of those."""
    if plan.learner is Learner.RIDGE:
        return rows.known
    judging = np.cumsum(rows.known) % _HELD_OUT == 0
    return np.asarray(rows.known & ~judging, dtype=np.bool_)


def _is_over(plan: AssistedPlan, losses: Sequence[float]) -> bool:
    """Tell whether another sum is worth nothing."""
    if len(losses) > plan.rounds:
        return True
    if plan.learner is Learner.RIDGE:
        return abs(losses[-2] - losses[-1]) < _LEAST_GAIN
    return len(losses) > _PATIENCE and min(losses[-_PATIENCE:]) > min(losses[:-_PATIENCE])


def _seen_probability(logits: NDArray[np.float64], flip: float) -> NDArray[np.float64]:
    """Return the probability that a label is seen to be 1."""
    from scipy.special import expit

    q: NDArray[np.float64] = flip + (1.0 - 2.0 * flip) * expit(logits)
    return np.clip(q, _LEAST_RESIDUAL, 1.0 - _LEAST_RESIDUAL)


def _residuals(
    logits: NDArray[np.float64], labels: NDArray[np.bool_], flip: float
) -> NDArray[np.float64]:
    return labels - _seen_probability(logits, flip)


def _losses(
    logits: NDArray[np.float64], labels: NDArray[np.bool_], flip: float
) -> NDArray[np.float64]:
    q = _seen_probability(logits, flip)
    return -np.log(np.where(labels, q, 1.0 - q))
