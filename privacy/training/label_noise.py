"""Labels that may be wrong, so that nothing computed from them tells much of any one.

Guarantees: every label is turned round by its own coin (randomised response, Warner 1965), so that
whatever is computed from the noised labels alone, however often, is (ε, 0)-differentially private
for each person's label: whoever sees it all, and knows everything else, believes in neither label
more than e^ε times what it believed before. The probability is rounded up to a multiple of 2⁻⁵²,
which the coins reach exactly.

Leaves to others: drawing the labels once and keeping them (a second draw is a second charge), who
is labelled at all (which is not hidden), and learning from labels whose noise is known
(`learners`).

Source: Ghazi et al., "Deep Learning with Label Differential Privacy", NeurIPS 2021, for the notion;
with two labels their mechanism is randomised response.
"""

import math
from typing import Final

import numpy as np
from numpy.typing import NDArray

from privacy.accounting.events import RandomisedResponseEvent
from privacy.errors import InvalidParameterError
from privacy.randomness import SecretStream

__all__ = ["LARGEST_EPSILON", "flip_probability", "label_charge", "randomise_labels"]

LARGEST_EPSILON: Final = 10.0
"""Past it, one label of 22,000 is turned round: that is no protection worth its name."""

_COINS: Final = 1 << 52  # values of a uniform of `SecretStream`


def flip_probability(epsilon: float | None) -> float:
    """Return how often a label is turned round, in (0, 0.5); 0 for no noise (None).

    Args:
        epsilon: what the labels may tell of each, in (0, 10].

    Raises:
        InvalidParameterError: `epsilon` is out of range.
    """
    if epsilon is None:
        return 0.0
    if not 0.0 < epsilon <= LARGEST_EPSILON:
        raise InvalidParameterError(
            f"the epsilon of labels must lie in (0, {LARGEST_EPSILON:g}], got {epsilon}"
        )
    return math.ceil(_COINS / (1.0 + math.exp(epsilon))) / _COINS


def label_charge(epsilon: float) -> RandomisedResponseEvent:
    """Return what noised labels cost each person, once and for all rounds.

    Raises:
        InvalidParameterError: as `flip_probability`.
    """
    return RandomisedResponseEvent(flip_probability=flip_probability(epsilon))


def randomise_labels(
    labels: NDArray[np.bool_], epsilon: float, stream: SecretStream
) -> NDArray[np.bool_]:
    """Turn each label round with `flip_probability`.

    Args:
        labels: shape (n,).
        epsilon: in (0, 10].
        stream: secret for ever, and used for these labels alone.

    Raises:
        InvalidParameterError: a value is out of range, or labels are no booleans.
    """
    if labels.ndim != 1 or labels.dtype != np.bool_:
        raise InvalidParameterError(
            f"labels must be booleans, (n,), got {labels.dtype}, {labels.shape}"
        )
    return labels ^ stream.bernoulli(flip_probability(epsilon), len(labels))
