"""An attack by a party on a training that it took part in: what of ε is refuted, on its own rows.

```
PARTY/attacks/JOB.json    what was found; readable by the party only
```

Guarantees: the training is run anew under the very terms of the job, the noise derived from them
again; canaries stand in as many tables as the agreement lets a person stand in, so that what is
refuted is the ε promised to a person. Nothing is sent, charged or logged: what is found is made
from people's rows without noise, and stays in the party's folder.

Leaves to others: attacks and bounds (`privacy.attacks`), rows (`own_rows`).
"""

import warnings
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from compliance.terms import ModelFamily, NoiseSource
from federation.clock import Clock, utc_now
from federation.errors import WorkspaceError
from federation.found_attack import FoundAttack, too_few_coins
from federation.jobs.linear_sums import NoisedSums
from federation.jobs.sums import sums_for
from federation.jobs.train import training_plan
from federation.own_rows import KeptModel, OwnRows
from federation.progress import Progress, report
from privacy.attacks import (
    Canaries,
    Claim,
    Exposure,
    Flaw,
    WatchedDpSgd,
    WatchedExactSums,
    WatchedSums,
    WatchedTraining,
    attack_by_canaries,
    attack_by_shadows,
)
from privacy.errors import InvalidParameterError
from privacy.randomness import Secret, SecretStream, derive_secret
from privacy.training.distributed import DistributedPlan
from privacy.training.dp_sgd import UnsafeNoNoiseWarning
from privacy.training.newton import UnsafeExactSumsWarning

__all__ = ["Attack", "attack"]

_MOST_ROWS: Final = 10_000
_LEAST_MODELS: Final = 8  # that shadows take
_CONFIDENCE: Final = 0.975  # of each of two bounds
_NO_DELTA: Final = 1e-5  # where a job promises nothing: what an empirical ε is said at


class Attack(FoundAttack):
    """What an attack found.

    Attributes:
        noise: who adds the noise.
        delta: its δ; without noise, the δ that `epsilon` is said at.
        tables: tables in which a person, and each canary, stands.
        rows: own rows that took part.
        canaries: what planted canaries prove.
        exposure: what shadow models tell; None if they were not asked.
        epsilon: the larger of the lower bounds on ε, which hold together with `confidence`.
    """

    noise: NoiseSource
    delta: float
    tables: int
    rows: int
    canaries: Canaries
    exposure: Exposure | None
    epsilon: float

    @property
    def refuted(self) -> bool:
        """Whether the stated ε cannot be true."""
        return self.stated_epsilon is not None and self.epsilon > self.stated_epsilon

    @property
    def warning(self) -> str | None:
        """What to know of canaries that could refute nothing, however they were guessed."""
        return too_few_coins(self.canaries.guesses.coins, self.canaries.most, self.stated_epsilon)


def attack(
    file: Path,
    *,
    canaries: int = 1000,
    models: int = 64,
    flaw: Flaw | None = None,
    clock: Clock = utc_now,
) -> Attack:
    """Attack the training of a model on the rows of the party that keeps it.

    1. Read the model, its job and the party's rows; of many, a sample.
    2. Plant canaries, and guess which were there.
    3. Train shadow models, and infer from published ones who was there.
    4. Keep what was found, unless something was broken on purpose.

    Args:
        file: the model, `PARTY/models/JOB.json`.
        canaries: coins to flip, 1 or more.
        models: trainings for shadow models, 8 or more; 0 for none.
        flaw: what to break on purpose, to see that the attack finds it.
        clock: moment at which consent is read.

    Raises:
        WorkspaceError: the party keeps no such model, or has no rows for it.
        InvalidParameterError: a number is out of range, or this model's training is not attacked.
        ConnectorError, ComplianceError: the rows cannot be read.
    """
    _check(canaries, models)  # before rows are read, which may take long
    kept = KeptModel.open(file)  # 1
    folder, spec = kept.folder, kept.spec
    training = _watched(kept, flaw)
    secret = folder.fresh_secret(f"attack/{kept.model.digest}")
    rows = _sample(OwnRows.read(kept, clock), SecretStream(secret, "rows"))
    claim = Claim(spec.epsilon, spec.delta or _NO_DELTA, _CONFIDENCE)
    watched = _Watched(kept, training, rows, secret, claim)
    with warnings.catch_warnings():  # the option and the agreement name the danger themselves
        warnings.simplefilter("ignore", UnsafeNoNoiseWarning)
        warnings.simplefilter("ignore", UnsafeExactSumsWarning)
        planted = watched.by_canaries(canaries)  # 2
        exposure = watched.by_shadows(models) if models else None  # 3
    found = Attack(
        party=folder.name,
        job=spec.name,
        model=kept.model.digest,
        made=clock(),
        noise=spec.noise,
        stated_epsilon=spec.epsilon,
        delta=claim.delta,
        tables=kept.agreement.train.max_parties_per_person,
        rows=len(rows[0]),
        flaw=flaw,
        canaries=planted,
        exposure=exposure,
        epsilon=max(planted.epsilon, exposure.epsilon if exposure else 0.0),
        confidence=2.0 * _CONFIDENCE - 1.0,
    )
    found.keep(folder)  # 4
    return found


@dataclass(frozen=True, eq=False)
class _Watched:
    """A model's training as an attacker sees it, and all that attacks on it take."""

    kept: KeptModel
    training: WatchedTraining
    rows: tuple[NDArray[np.float64], NDArray[np.float64]]
    secret: Secret
    claim: Claim

    def by_canaries(self, canaries: int) -> Canaries:
        seed = derive_secret(self.secret, "canaries")
        tell = partial(_tell, self.kept, "plants canaries")
        return attack_by_canaries(
            self.training, *self.rows, seed, claim=self.claim, canaries=canaries, on_run=tell
        )

    def by_shadows(self, models: int) -> Exposure:
        seed = derive_secret(self.secret, "shadows")
        tell = partial(_tell, self.kept, "trains shadow models")
        return attack_by_shadows(
            self.training, *self.rows, seed, claim=self.claim, models=models, on_run=tell
        )


def _check(canaries: int, models: int) -> None:
    """Return only if an attack can be made of so many."""
    if canaries < 1:
        raise InvalidParameterError(f"expected 1 canary or more, got {canaries}")
    if models < 0 or 0 < models < _LEAST_MODELS:
        raise InvalidParameterError(
            f"expected {_LEAST_MODELS} models or more, or 0 for none, got {models}"
        )


def _watched(kept: KeptModel, flaw: Flaw | None) -> WatchedTraining:
    """Return the training that the job asked for, as an attacker sees it."""
    spec, agreement = kept.spec, kept.agreement
    if spec.model is not ModelFamily.LOGISTIC_REGRESSION:
        raise InvalidParameterError(
            f"{spec.name!r} trains by {spec.model.value!r}: only "
            f"{ModelFamily.LOGISTIC_REGRESSION.value!r} is attacked"
        )
    if spec.noise is NoiseSource.LOCAL:
        declared = agreement.dataset(kept.folder.name).declared_rows
        plan = training_plan(spec, agreement, expected_rows=declared)
        tables = agreement.train.max_parties_per_person
        return WatchedDpSgd(plan.parameters, spec.rounds, tables, flaw)
    if spec.noise is NoiseSource.UNSAFE_NONE:
        return WatchedExactSums()

    def plan_for(width: int) -> DistributedPlan:
        sums = sums_for(spec, agreement, width=width)
        if not isinstance(sums, NoisedSums):
            raise TypeError("distributed noise makes noised sums")
        return sums.plan

    return WatchedSums(plan_for, flaw)


def _sample(rows: OwnRows, stream: SecretStream) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    if not len(rows.features):
        raise WorkspaceError("nobody here consents to the training any more: nothing to attack")
    chosen = np.sort(stream.permutation(len(rows.features))[:_MOST_ROWS])
    return rows.features[chosen], rows.members[chosen].astype(np.float64)


def _tell(kept: KeptModel, stage: str, done: int, total: int) -> None:
    report(Progress(kept.folder.name, kept.spec.name, stage, done=done, total=total))
