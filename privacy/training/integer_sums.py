"""Sums over people's rows in whole numbers, each row's part of them bounded exactly.

Guarantees: whatever the rows hold, adding or removing one changes the sums by at most the stated
L2 norm, as integers. No rounding error takes part in that statement: rows, weights and residuals
are cut to whole numbers first, products and sums of them stay below 2⁵³, where floating point is
exact, and so a row's part is the same wherever it stands and whoever else is there. All that is
asked of the machine beyond it is that numpy's tanh gives equal numbers equal values.

Leaves to others: noise, charging and the division of the sums among parties (`distributed`).
"""

import math
from collections.abc import Iterator
from typing import Final

import numpy as np
from numpy.typing import NDArray

from privacy.errors import InvalidParameterError

__all__ = [
    "FRACTION_BITS",
    "MAXIMUM_ROWS",
    "MAXIMUM_WEIGHTS",
    "MOMENT_CLIP",
    "check_rows",
    "check_weights",
    "gradient_clip",
    "gradient_sum",
    "moment_sum",
    "moments",
    "row_chunks",
]

FRACTION_BITS: Final = 14
"""A feature or a residual is a multiple of 2⁻¹⁴, so that a product of two is one of 2⁻²⁸."""

MAXIMUM_ROWS: Final = 1 << 26
"""Most rows of one party: as many products of at most 2²⁸, times 2⁸, fit 64 bits."""

MAXIMUM_WEIGHTS: Final = 2.0**18
"""Largest norm of weights at which x·w is exact."""

MOMENT_CLIP: Final = math.isqrt(1 << (15 + 4 * FRACTION_BITS)) + 1
"""Most that one row adds to `moment_sum`, in the L2 norm."""

_UNIT: Final = 1 << FRACTION_BITS
_WEIGHT_BITS: Final = 20
_DIAGONAL: Final = 181  # 181² <= 2¹⁵: a diagonal entry counts for √½ of its value
_OFF_DIAGONAL: Final = 256
_ROWS_AT_ONCE: Final = 1 << 13  # 2¹³ products of at most 2²⁸ stay exact


def gradient_clip(clipping_norm: float) -> int:
    """Return `clipping_norm`, in (0, 1], in units of `gradient_sum`: rounded down.

    Raises:
        InvalidParameterError: if it is out of range. Above 1 it would clip nothing, since rows
            are cut to a norm of 1.
    """
    if not 2.0**-FRACTION_BITS <= clipping_norm <= 1.0:
        raise InvalidParameterError(
            f"expected a clipping norm from {2.0**-FRACTION_BITS} to 1, the largest norm of a row, "
            f"got {clipping_norm}"
        )
    return math.floor(clipping_norm * _UNIT * _UNIT)


def gradient_sum(
    weights: NDArray[np.float64],
    features: NDArray[np.float64],
    labels: NDArray[np.float64],
    clip: int,
) -> NDArray[np.int64]:
    """Sum the clipped gradients of the logistic loss, in units of 2⁻²⁸.

    Args:
        weights: shape (d,), finite, of norm `MAXIMUM_WEIGHTS` at most; cut to multiples of 2⁻²⁰.
        features: shape (n, d), finite; rows longer than 1 are shortened to it.
        labels: shape (n,), in [0, 1].
        clip: from `gradient_clip`; a row adds at most that much, in the L2 norm.

    Returns:
        Shape (d,).

    Raises:
        InvalidParameterError: if shapes do not fit or values are out of range.
    """
    check_rows(weights.size, features, labels)
    check_weights(weights, MAXIMUM_WEIGHTS)
    whole_weights = np.rint(weights * (1 << _WEIGHT_BITS))
    total = np.zeros(weights.size, dtype=np.int64)
    for rows in row_chunks(len(features)):
        whole, squares = _whole_rows(features[rows])
        scores = (whole @ whole_weights) / (_UNIT << _WEIGHT_BITS)
        residuals = 0.5 * (1.0 + np.tanh(0.5 * scores)) - labels[rows]
        most = clip / np.maximum(np.sqrt(squares), 1.0)
        cut = np.trunc(np.clip(residuals * _UNIT, -most, most)).astype(np.int64)
        # The one place where a rounding error could pass the clip; in integers it is seen.
        beyond = cut * cut * squares.astype(np.int64) > clip * clip
        cut -= np.sign(cut) * beyond
        total += (cut.astype(np.float64) @ whole).astype(np.int64)
    return total


def moment_sum(features: NDArray[np.float64]) -> NDArray[np.int64]:
    """Sum the products of every two features, for `moments` to read.

    Diagonal entries are weighed down by √½ (rounded down), so that a row of norm 1 weighs exactly
    √½ of what it would if all entries of its symmetric matrix were sent.

    Args:
        features: shape (n, d), finite; rows longer than 1 are shortened to it.

    Returns:
        The upper triangle, row by row, shape (d(d+1)/2,); a row adds at most `MOMENT_CLIP`.

    Raises:
        InvalidParameterError: if values are not finite.
    """
    width = features.shape[1] if features.ndim == 2 else 0
    check_rows(width, features, np.zeros(len(features)))
    total = np.zeros((width, width), dtype=np.int64)
    for rows in row_chunks(len(features)):
        whole, _ = _whole_rows(features[rows])
        total += (whole.T @ whole).astype(np.int64)
    weighed = total * _OFF_DIAGONAL
    np.fill_diagonal(weighed, np.diagonal(total) * _DIAGONAL)
    triangle: NDArray[np.int64] = weighed[np.triu_indices(width)]
    return triangle


def moments(total: NDArray[np.int64], width: int) -> NDArray[np.float64]:
    """Read a sum of `moment_sum` as the symmetric matrix X'X, shape (`width`, `width`).

    Noise of one spread on `total` becomes noise on the matrix whose eigenvalues do not depend on
    the choice of axes, but for the rounding of √½ (the Gaussian orthogonal ensemble).
    """
    upper = np.zeros((width, width))
    upper[np.triu_indices(width)] = total / _OFF_DIAGONAL
    diagonal = np.diagonal(upper) * (_OFF_DIAGONAL / _DIAGONAL)
    whole = upper + upper.T
    np.fill_diagonal(whole, diagonal)
    return np.asarray(whole / (_UNIT * _UNIT), dtype=np.float64)


def row_chunks(rows: int) -> Iterator[slice]:
    """Cut a table into pieces that bound the memory; chunks change no result."""
    return (slice(start, start + _ROWS_AT_ONCE) for start in range(0, rows, _ROWS_AT_ONCE))


def check_rows(width: int, features: NDArray[np.float64], labels: NDArray[np.float64]) -> None:
    """Refuse rows that do not belong together or are out of range, by their number alone.

    Raises:
        InvalidParameterError: if they are.
    """
    if width < 1 or features.ndim != 2 or features.shape[1] != width:
        raise InvalidParameterError(
            f"expected features of shape (n, {max(width, 1)}), got {features.shape}"
        )
    if labels.shape != features.shape[:1]:
        raise InvalidParameterError(f"expected {len(features)} labels, got shape {labels.shape}")
    if len(features) > MAXIMUM_ROWS:
        raise InvalidParameterError(
            f"expected at most {MAXIMUM_ROWS} rows, got {len(features)}: a sum could overflow"
        )
    broken = int(len(features) - np.isfinite(features).all(axis=1).sum())
    if broken:
        raise InvalidParameterError(
            f"features must be finite, got {broken} rows that are not: encode them first"
        )
    broken = int(len(labels) - ((labels >= 0.0) & (labels <= 1.0)).sum())
    if broken:
        raise InvalidParameterError(f"labels must lie in [0, 1], got {broken} that do not")


def check_weights(weights: NDArray[np.float64], most: float) -> None:
    """Refuse weights that are no vector, not finite, or longer than `most`.

    Raises:
        InvalidParameterError: if they are.
    """
    norm = float(np.linalg.norm(weights)) if weights.ndim == 1 else math.nan
    if not norm <= most:
        raise InvalidParameterError(
            f"expected a vector of finite weights with a norm of at most {most:.0f}, got shape "
            f"{weights.shape} and norm {norm}"
        )


def _whole_rows(
    features: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return rows in units of 2⁻¹⁴, none longer than 1, and their squared norms, both whole."""
    largest = np.abs(features).max(axis=1, initial=0.0)
    scaled = features / np.maximum(largest, 1.0)[:, np.newaxis]  # or its square might overflow
    norms = np.linalg.norm(scaled, axis=1)
    whole = np.trunc(scaled * (_UNIT / np.maximum(norms, 1.0 / np.maximum(largest, 1.0)))[:, None])
    squares = np.einsum("ij,ij->i", whole, whole)
    fits = squares <= _UNIT * _UNIT
    return whole * fits[:, np.newaxis], squares * fits
