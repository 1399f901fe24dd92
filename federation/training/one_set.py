"""One set of partners for each person: whose parts a sum over people may hold, once and for all.

```
jobs/TRAIN/scored-ALIGN    which scoring took this party's part of these people's scores, answering
                           which question, with which partners
```

Guarantees: whatever this party gave of a person to a sum, it gave together with the same partners;
another set is refused, whichever model and alignment it is asked for. Of two sums over one person
with different sets the difference would be what the others gave, which with one more partner is
that partner's alone. A training is a sum over all partners, and counts.

It holds for all models, not for each: two trainings of the same rows may leave the same parts.

Leaves to others: masks, which make a sum random where partners disagree about whom it is of
(`assisting`). People are known by this party's record references: somebody who has another one at
**every** partner of a sum is taken for somebody else.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pydantic import ValidationError

from federation.desk import Desk, undamaged
from federation.jobs.assist import vertical_partners
from federation.party import write_atomically
from federation.specification import VerticalScoreSpec, VerticalTrainSpec
from federation.training.aligned import aligned_members

__all__ = ["ScoredOnce", "check_one_set", "digest_of", "trained_on"]

_PREFIX: Final = "scored-"


@dataclass(frozen=True)
class ScoredOnce:
    """Who took this party's part of the scores of an alignment.

    Attributes:
        job: the scoring.
        question: digest of what was answered.
        partners: all whose parts are in the sum.
    """

    job: str
    question: str
    partners: tuple[str, ...]

    @staticmethod
    def file(desk: Desk, spec: VerticalScoreSpec) -> Path:
        """Where it lies."""
        return desk.folder.job(spec.train) / f"{_PREFIX}{spec.align}"

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what `save` wrote.

        Raises:
            WorkspaceError: it is damaged.
        """
        with undamaged(path):
            job, question, *partners = path.read_text(encoding="ascii").split()
            return cls(job, question, tuple(partners))

    def save(self, path: Path) -> None:
        """Write it, whole or not at all."""
        content = " ".join((self.job, self.question, *self.partners))
        write_atomically(path, content.encode(), mode=0o600)


def trained_on(desk: Desk, align: str) -> NDArray[np.bool_]:
    """Tell who of an alignment any training began with here, shape (n,), in the shared order.

    Raises:
        RefusedError: an alignment has not ended here, or is gone.
        WorkspaceError: it is damaged.
    """
    people = _references(desk, align)
    found = np.zeros(len(people), dtype=np.bool_)
    for other in sorted(set(_trainings(desk))):
        found |= _among(people, _references(desk, other))
    return found


def digest_of(chosen: NDArray[np.bool_]) -> str:
    """Return a digest of whom of an alignment is chosen, which is the same at all parties."""
    return hashlib.sha256(np.packbits(chosen).tobytes()).hexdigest()


def check_one_set(desk: Desk, align: str, partners: tuple[str, ...]) -> None:
    """Refuse a sum over people whose scores have gone into one with other partners.

    Args:
        desk: the party's.
        align: the people, with other sets than all those left out whom trainings began with.
        partners: whose parts would be in the sum.

    Raises:
        RefusedError: they have.
        WorkspaceError: what was noted is damaged.
    """
    everybody = vertical_partners(desk.agreement)
    wanted: pa.Array | None = None
    for path in sorted((desk.folder.path / "jobs").glob(f"*/{_PREFIX}*")):
        noted = ScoredOnce.load(path)
        if noted.partners == partners or desk.gate.recall(noted.question) is None:
            continue
        if wanted is None:
            wanted = _summed(desk, align, whole=partners == everybody)
        whole = noted.partners == everybody
        before = _summed(desk, path.name.removeprefix(_PREFIX), whole=whole)
        if _among(wanted, before).any():
            raise desk.refusal(
                "vertical.absent_partners",
                f"people of alignment {align!r} were scored by job {noted.job!r} with another set "
                "of partners, and two sums would tell by difference what one partner gave: score "
                "and train people who are in no other sum",
            )


def _summed(desk: Desk, align: str, *, whole: bool) -> pa.Array:
    """Return whom a sum is of: without all partners, nobody who was trained on."""
    people = _references(desk, align)
    return people if whole else people.filter(pa.array(~trained_on(desk, align)))


def _references(desk: Desk, align: str) -> pa.Array:
    return aligned_members(desk, align).references()


def _among(people: pa.Array, others: pa.Array) -> NDArray[np.bool_]:
    found = pc.is_in(people, value_set=others)
    return np.asarray(found.to_numpy(zero_copy_only=False), dtype=np.bool_)


def _trainings(desk: Desk) -> Iterator[str]:
    """Yield the alignment of every training that has begun here."""
    for file in (desk.folder.path / "jobs").glob("*/specification.json"):
        try:
            yield VerticalTrainSpec.model_validate_json(file.read_bytes()).align
        except ValidationError:  # another kind of job
            continue
