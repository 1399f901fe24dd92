"""A party's rows for a training of several rounds: read once, and the same in every round.

```
jobs/JOB/
  people/    whose rows they are (`members`)
  rows.npz   encoded features and labels
```

Guarantees: every round is about the same people, whose consent the gate reads again each time;
readable by the owner only, whole or not at all.

Leaves to others: who may be used (`population`), what is computed (`jobs.sums`).
"""

import shutil
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from federation.desk import Desk
from federation.errors import MessageError
from federation.members import save_people
from federation.people_used import PeopleUsed
from federation.population import Population, Use, encoder_for
from federation.shelves import scratch
from federation.specification import TrainSpec
from federation.stored_arrays import stored_arrays, write_arrays

__all__ = ["TrainingRows", "bring_rows"]


@dataclass(frozen=True, eq=False)
class TrainingRows:
    """A party's rows.

    Attributes:
        used: whose they are, as the gate wants it declared.
        features: encoded, shape (n, width).
        labels: 1.0 for members of the match, 0.0 for all others, shape (n,).
    """

    used: PeopleUsed
    features: NDArray[np.float64]
    labels: NDArray[np.float64]

    @property
    def members(self) -> int:
        """Rows that are members of the match."""
        return int(np.count_nonzero(self.labels))


def bring_rows(desk: Desk, spec: TrainSpec) -> TrainingRows:
    """Return the rows that a party brings to a job, which are read at first use.

    Raises:
        RefusedError: the match has not ended here, or there are more rows than declared.
        MessageError: the job began with another match.
        WorkspaceError, ConnectorError, ComplianceError: they cannot be read.
    """
    folder = desk.folder
    path = folder.job(spec.name) / "rows.npz"
    if not path.exists():
        people = _read(desk, spec.name)
        declared = desk.agreement.dataset(folder.name).declared_rows
        if len(people.keys) > declared:
            raise folder.refusal(
                "datasets.declared_rows",
                f"more rows than the {declared} that its data set may bring: declare more",
            )
        members = desk.members(spec.match).among(people.keys)
        write_arrays(
            path,
            features=encoder_for(desk.agreement).encode(people.features),
            labels=members.astype(np.float64),
            match=spec.match,
        )
    with stored_arrays(path) as stored:
        if stored.text("match") != spec.match:
            raise MessageError(f"job {spec.name!r} began with members of another match")
        features = stored.array("features", np.float64, None, None)
        labels = stored.array("labels", np.float64, len(features))
    return TrainingRows(desk.taking_part(spec.name), features, labels)


def _read(desk: Desk, job: str) -> Population:
    """Read the people, and leave who they are on disk for the rounds to come."""
    place = desk.folder.job(job) / "people"
    use = Use(desk.agreement.train.purpose, desk.clock(), with_features=True)
    with scratch(desk.folder.job(job) / "reading.tmp") as beside:
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(mode=0o700, parents=True)
        people = desk.population(job, use, beside, place)
        save_people(place, people.used)
    desk.gate.consent.keep(job, people.heard, people.heard_rows, people.used)
    desk.tell_findings(job, people)
    return people
