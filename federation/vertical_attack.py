"""An attack on a training over columns, by the brand on its own: what do residuals tell of labels?

```
PARTY/attacks/JOB.json    what was found; readable by the party only
```

Guarantees: the training is run anew as it was asked for, on the brand's own rows, one partner
standing for all; nothing is sent, charged or logged. What is found stays in the party's folder.

Leaves to others: the attack and its bound (`privacy.attacks.labels`), rows (`vertical_rows`).
"""

from pathlib import Path
from typing import Final

import numpy as np

from compliance.terms import Role
from federation.clock import Clock, utc_now
from federation.errors import WorkspaceError
from federation.found_attack import FoundAttack, too_few_coins
from federation.population import encoder_of
from federation.progress import Progress, report
from federation.vertical_rows import KeptPart, labels_of, read_own_rows
from privacy.attacks import Flaw, LabelGuesses, PlantedLabels, guess_labels, plant_labels
from privacy.errors import InvalidParameterError
from privacy.randomness import SecretStream, derive_secret
from privacy.training.assisted import AssistedPlan, LabelledRows
from privacy.training.label_noise import flip_probability

__all__ = ["VerticalAttack", "attack_columns"]

_MOST_ROWS: Final = 10_000
_CONFIDENCE: Final = 0.95


class VerticalAttack(FoundAttack):
    """What an attack found; the stated ε is of a label.

    Attributes:
        planted: what planted labels prove.
        noised: how well a partner tells real labels, as the job has it.
        exact: the same if labels were used as they are.
    """

    planted: PlantedLabels
    noised: LabelGuesses
    exact: LabelGuesses

    @property
    def refuted(self) -> bool:
        """Whether the stated ε cannot be true."""
        return self.stated_epsilon is not None and self.planted.epsilon > self.stated_epsilon

    @property
    def warning(self) -> str | None:
        """What to know of planted labels that could refute nothing, however they were guessed."""
        return too_few_coins(self.planted.guesses.coins, self.planted.most, self.stated_epsilon)


def attack_columns(
    file: Path, *, canaries: int = 1000, flaw: Flaw | None = None, clock: Clock = utc_now
) -> VerticalAttack:
    """Attack the training of a part on the rows of the brand that keeps it.

    1. Read the part, its job and the brand's labelled rows; of many, a sample.
    2. Plant labels, and guess them from the residuals of all rounds.
    3. Guess real labels, as the job noises them, and as they are.
    4. Keep what was found, unless something was broken on purpose.

    Args:
        file: the brand's part, `PARTY/models/JOB.json`.
        canaries: labels to plant, 20 or more.
        flaw: what to break on purpose: the noise.
        clock: moment at which consent is read.

    Raises:
        WorkspaceError: it is not the brand's part, or there are no rows for it.
        InvalidParameterError: a number is out of range, or clipping is to be broken.
        ConnectorError, ComplianceError: the rows cannot be read.
    """
    kept = KeptPart.open(file)  # 1
    folder, spec = kept.folder, kept.spec
    if flaw is Flaw.CLIPPING:
        raise InvalidParameterError("labels are not clipped: break the noise instead")
    secret = folder.fresh_secret(f"attack/{kept.held.digest}")
    rows = _sample(kept, clock, SecretStream(secret, "rows"))
    epsilon = None if flaw is Flaw.NOISE else spec.label_epsilon
    plan, exact = (
        AssistedPlan(partners=1, learner=spec.learner, rounds=spec.rounds, flip=flip)
        for flip in (flip_probability(spec.label_epsilon), 0.0)
    )
    report(Progress(folder.name, spec.name, "plants labels"))
    planted = plant_labels(  # 2
        plan,
        rows.features,
        epsilon,
        derive_secret(secret, "canaries"),
        coins=canaries,
        confidence=_CONFIDENCE,
    )
    report(Progress(folder.name, spec.name, "guesses labels"))
    found = VerticalAttack(
        party=folder.name,
        job=spec.name,
        model=kept.held.digest,
        made=clock(),
        stated_epsilon=spec.label_epsilon,
        flaw=flaw,
        planted=planted,
        noised=guess_labels(plan, rows, epsilon, derive_secret(secret, "noised")),  # 3
        exact=guess_labels(exact, rows, None, derive_secret(secret, "exact")),
        confidence=_CONFIDENCE,
    )
    found.keep(folder)  # 4
    return found


def _sample(kept: KeptPart, clock: Clock, stream: SecretStream) -> LabelledRows:
    """Read the brand's labelled rows; of many, a sample."""
    folder = kept.folder
    rule = None if folder.config.data is None else folder.config.data.labels
    if folder.config.role is not Role.BRAND or rule is None:
        raise WorkspaceError(f"{folder.path} has no labels: attack the part of the brand")
    people = read_own_rows(kept, clock, with_labels=True)
    labels, known = labels_of(people, rule)
    features = encoder_of(kept.terms.held_by(folder.name)).encode(people.features)
    mine = np.flatnonzero(known)
    if not len(mine):
        raise WorkspaceError("nobody with a label consents to the training any more")
    chosen = mine[np.sort(stream.permutation(len(mine))[:_MOST_ROWS])]
    return LabelledRows(features[chosen], labels[chosen], known[chosen])
