"""Training on people's rows so that the model tells next to nothing of any one of them.

`encoding` turns columns into bounded rows, `dp_sgd` trains with clipped and noised gradients,
`evaluation` says how good the ranking is (in simulations, where the truth is known).
"""

from privacy.training.dp_sgd import (
    DpSgdParameters,
    GradientEngine,
    LogisticGradient,
    ModuleGradient,
    UnsafeNoNoiseWarning,
    train,
)
from privacy.training.encoding import CategoricalFeature, Encoder, Feature, NumericFeature, Scale
from privacy.training.evaluation import (
    RankingQuality,
    fit_without_privacy,
    lift,
    ranking_quality,
)

__all__ = [
    "CategoricalFeature",
    "DpSgdParameters",
    "Encoder",
    "Feature",
    "GradientEngine",
    "LogisticGradient",
    "ModuleGradient",
    "NumericFeature",
    "RankingQuality",
    "Scale",
    "UnsafeNoNoiseWarning",
    "fit_without_privacy",
    "lift",
    "ranking_quality",
    "train",
]
