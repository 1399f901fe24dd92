"""Training on people's rows so that the model tells next to nothing of any one of them.

`encoding` turns columns into bounded rows. `dp_sgd` trains at one party with clipped and noised
gradients. `distributed` trains over parties that each add a share of the noise, on `integer_sums`.
`newton` trains over parties exactly, and protects nobody. `networks`
are small networks that numbers describe. `evaluation` says how good the ranking
is (in simulations, where the truth is known).
"""

from privacy.training.distributed import (
    DescentState,
    DistributedPlan,
    SharedNoise,
    party_contribution,
    plan_distributed,
    server_step,
    start_descent,
)
from privacy.training.dp_sgd import (
    DpSgdParameters,
    GradientEngine,
    LogisticGradient,
    ModuleClipping,
    ModuleGradient,
    RidgeGradient,
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
from privacy.training.networks import Activation, Network
from privacy.training.newton import (
    ExactPlan,
    NewtonState,
    UnsafeExactSumsWarning,
    averaging_contribution,
    newton_contribution,
    newton_step,
    start_from_average,
    unsafe_exact_plan,
)

__all__ = [
    "Activation",
    "CategoricalFeature",
    "DescentState",
    "DistributedPlan",
    "DpSgdParameters",
    "Encoder",
    "ExactPlan",
    "Feature",
    "GradientEngine",
    "LogisticGradient",
    "ModuleClipping",
    "ModuleGradient",
    "Network",
    "NewtonState",
    "NumericFeature",
    "RankingQuality",
    "RidgeGradient",
    "Scale",
    "SharedNoise",
    "UnsafeExactSumsWarning",
    "UnsafeNoNoiseWarning",
    "averaging_contribution",
    "fit_without_privacy",
    "lift",
    "newton_contribution",
    "newton_step",
    "party_contribution",
    "plan_distributed",
    "ranking_quality",
    "server_step",
    "start_descent",
    "start_from_average",
    "train",
    "unsafe_exact_plan",
]
