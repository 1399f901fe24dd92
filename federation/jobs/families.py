"""The families of models that partners train with noise of their own, one gradient at a time.

Guarantees: what is trained follows from the job alone; where it starts is drawn from a seed that
everybody knows, the digest of the job.

Leaves to others: gradients and networks (`privacy.training`), the steps (`train`).
"""

import hashlib
from collections.abc import Sequence

import numpy as np
import rfc8785
from numpy.typing import NDArray

from compliance.agreement import Agreement
from compliance.terms import Labels, ModelFamily
from federation.jobs.bodies import LinearBody, ModelBody, NetworkBody, network_of
from federation.specification import NetworkShape, TrainSpec
from privacy.randomness import SecretStream, seeded_secret
from privacy.training.gradients import GradientEngine, LogisticGradient, RidgeGradient
from privacy.training.unlabelled import UNLABELLED_WEIGHT

__all__ = ["gradient_engine", "initial_weights", "is_linear", "trained_body"]


def is_linear(spec: TrainSpec) -> bool:
    """Tell whether a job's model is a weighted sum of the columns."""
    return spec.network is None


def gradient_engine(spec: TrainSpec, width: int) -> GradientEngine:
    """Return what sums clipped gradients of a job's model over `width` columns."""
    match spec.model:
        case ModelFamily.LOGISTIC_REGRESSION:
            return LogisticGradient(width, unlabelled_weight=_unlabelled_weight(spec))
        case ModelFamily.RIDGE_REGRESSION:
            return RidgeGradient(width)
        case ModelFamily.NETWORK:
            return network_of(_shape(spec), width).gradient()
        case ModelFamily.BOOSTED_TREES:
            raise RuntimeError("trees are trained by secure sums, not a gradient at a time")


def initial_weights(spec: TrainSpec, agreement: Agreement, width: int) -> NDArray[np.float64]:
    """Return where the first round starts: at 0, or at a network drawn from the job's digest."""
    if is_linear(spec):
        return np.zeros(width)
    job = hashlib.sha256(rfc8785.dumps(spec.model_dump(mode="json"))).hexdigest()
    public = seeded_secret(
        0, f"{agreement.digest}/{job}"
    )  # nothing rests on it: the same for all, and no secret
    return network_of(_shape(spec), width).initial(SecretStream(public, "initial weights"))


def trained_body(
    spec: TrainSpec, columns: Sequence[str], weights: NDArray[np.float64]
) -> ModelBody:
    """Return the body that a job's trained weights make."""
    names, numbers = tuple(columns), tuple(weights.tolist())
    if is_linear(spec):
        return LinearBody(columns=names, weights=numbers)
    return NetworkBody(columns=names, shape=_shape(spec), weights=numbers)


def _shape(spec: TrainSpec) -> NetworkShape:
    if spec.network is None:
        raise RuntimeError(f"job {spec.name!r} trains no network")
    return spec.network


def _unlabelled_weight(spec: TrainSpec) -> float:
    """Return what somebody who is no seed weighs beside one."""
    return UNLABELLED_WEIGHT if spec.labels is Labels.SEEDS_ONLY else 1.0
