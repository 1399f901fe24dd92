"""Training on people's rows so that the model tells next to nothing of any one of them.

`encoding` turns columns into bounded rows. `dp_sgd` trains at one party on noised sums of clipped
`gradients` (of torch modules: `module_gradient`). `distributed` trains over parties that each add
a share of the noise (`shared_noise`), on `integer_sums`.
`newton` trains over parties exactly, and protects nobody. `networks` are small networks that
numbers describe. `evaluation` says how good the ranking is (in simulations, where the truth is
known), `bootstrap` how sure that is, `fairness` for whom.
"""

from privacy.training.bootstrap import (
    CalibrationBin,
    Interval,
    RankingIntervals,
    calibration,
    ranking_intervals,
)
from privacy.training.distributed import (
    DescentState,
    DistributedPlan,
    party_contribution,
    plan_distributed,
    server_step,
    start_descent,
)
from privacy.training.dp_sgd import DpSgdParameters, UnsafeNoNoiseWarning, train
from privacy.training.encoding import CategoricalFeature, Encoder, Feature, NumericFeature, Scale
from privacy.training.evaluation import (
    RankingQuality,
    fit_without_privacy,
    lift,
    ranking_quality,
)
from privacy.training.fairness import FOUR_FIFTHS, GroupFigures, compare_groups
from privacy.training.gradients import GradientEngine, LogisticGradient, RidgeGradient
from privacy.training.module_gradient import ModuleClipping, ModuleGradient
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
from privacy.training.shared_noise import SharedNoise

__all__ = [
    "FOUR_FIFTHS",
    "Activation",
    "CalibrationBin",
    "CategoricalFeature",
    "DescentState",
    "DistributedPlan",
    "DpSgdParameters",
    "Encoder",
    "ExactPlan",
    "Feature",
    "GradientEngine",
    "GroupFigures",
    "Interval",
    "LogisticGradient",
    "ModuleClipping",
    "ModuleGradient",
    "Network",
    "NewtonState",
    "NumericFeature",
    "RankingIntervals",
    "RankingQuality",
    "RidgeGradient",
    "Scale",
    "SharedNoise",
    "UnsafeExactSumsWarning",
    "UnsafeNoNoiseWarning",
    "averaging_contribution",
    "calibration",
    "compare_groups",
    "fit_without_privacy",
    "lift",
    "newton_contribution",
    "newton_step",
    "party_contribution",
    "plan_distributed",
    "ranking_intervals",
    "ranking_quality",
    "server_step",
    "start_descent",
    "start_from_average",
    "train",
    "unsafe_exact_plan",
]
