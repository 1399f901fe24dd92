"""One set of partners for each person: whose parts a sum over people may hold, once and for all.

```
jobs/TRAIN/scored-ALIGN    which scoring took this party's part of these people's scores, answering
                           which question, with which partners, and whom exactly the sum was of
```

Guarantees: whatever this party gave of a person to a sum, it gave together with the same partners;
another set is refused, whichever model and alignment it is asked for. Of two sums over one person
with different sets the difference would be what the others gave, which with one more partner is
that partner's alone. A training is a sum over all partners, and counts
from when this party joined it. Whom a sum was of is noted with it, and never worked out anew: what
happened since makes it of nobody else.

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
from federation.messages import AssistExact, AssistNoised
from federation.party import write_atomically
from federation.specification import VerticalScoreSpec, VerticalTrainSpec
from federation.training.aligned import aligned_members

__all__ = ["ScoredOnce", "check_one_set", "digest_of", "trained_on"]

_PREFIX: Final = "scored-"
_JOINED: Final = ("assist.joined", AssistNoised().kind, AssistExact().kind)
"""What a party says when a training begins with it: a partner, or the brand."""


@dataclass(frozen=True)
class ScoredOnce:
    """Who took this party's part of the scores of an alignment.

    Attributes:
        job: the scoring.
        question: digest of what was answered.
        chosen: of whom of the alignment the sum is, one bit each in the shared order, in hex.
        partners: all whose parts are in the sum.
    """

    job: str
    question: str
    chosen: str
    partners: tuple[str, ...]

    @classmethod
    def of(
        cls, job: str, question: str, chosen: NDArray[np.bool_], partners: tuple[str, ...]
    ) -> Self:
        """Note a sum over the people who are `chosen`, shape (n,), in the shared order."""
        return cls(job, question, np.packbits(chosen).tobytes().hex(), partners)

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
            job, question, chosen, *partners = path.read_text(encoding="ascii").split()
            bytes.fromhex(chosen)
            return cls(job, question, chosen, tuple(partners))

    def save(self, path: Path) -> None:
        """Write it, whole or not at all."""
        content = " ".join((self.job, self.question, self.chosen, *self.partners))
        write_atomically(path, content.encode(), mode=0o600)

    def people(self, desk: Desk, path: Path) -> pa.Array:
        """Return the references of whom the sum is of.

        Args:
            desk: the party's.
            path: where it was loaded from.

        Raises:
            RefusedError: its alignment is gone.
            WorkspaceError: it is damaged, or the alignment is another than then.
        """
        everybody = _references(desk, path.name.removeprefix(_PREFIX))
        with undamaged(path):
            bits = np.frombuffer(bytes.fromhex(self.chosen), dtype=np.uint8)
            if len(bits) != (len(everybody) + 7) // 8:
                raise ValueError("it is of another number of people")
            chosen = np.unpackbits(bits, count=len(everybody)).astype(np.bool_)
        return everybody.filter(pa.array(chosen))


def trained_on(desk: Desk, align: str) -> NDArray[np.bool_]:
    """Tell who of an alignment is in a training that this party joined, in the shared order.

    Returns:
        Shape (n,).

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


def check_one_set(
    desk: Desk,
    align: str,
    partners: tuple[str, ...],
    chosen: NDArray[np.bool_] | None = None,
) -> None:
    """Refuse a sum over people whose scores have gone into one with other partners.

    Args:
        desk: the party's.
        align: the people.
        partners: whose parts would be in the sum.
        chosen: of whom of them it would be, shape (n,), in the shared order; of all by default.

    Raises:
        RefusedError: they have.
        WorkspaceError: what was noted is damaged.
    """
    wanted: pa.Array | None = None
    for path in sorted((desk.folder.path / "jobs").glob(f"*/{_PREFIX}*")):
        noted = ScoredOnce.load(path)
        if noted.partners == partners or not desk.gate.has_answered(noted.question):
            continue
        if wanted is None:
            wanted = _references(desk, align)
            wanted = wanted if chosen is None else wanted.filter(pa.array(chosen))
        if _among(wanted, noted.people(desk, path)).any():
            raise desk.refusal(
                "vertical.absent_partners",
                f"people of alignment {align!r} were scored by job {noted.job!r} with another set "
                "of partners, and two sums would tell by difference what one partner gave: score "
                "and train people who are in no other sum",
            )


def _references(desk: Desk, align: str) -> pa.Array:
    return aligned_members(desk, align).references()


def _among(people: pa.Array, others: pa.Array) -> NDArray[np.bool_]:
    found = pc.is_in(people, value_set=others)
    return np.asarray(found.to_numpy(zero_copy_only=False), dtype=np.bool_)


def _trainings(desk: Desk) -> Iterator[str]:
    """Yield the alignment of every training that this party joined, or opened."""
    for file in (desk.folder.path / "jobs").glob("*/specification.json"):
        try:
            spec = VerticalTrainSpec.model_validate_json(file.read_bytes())
        except ValidationError:  # another kind of job
            continue
        if any(desk.gate.has_left(spec.name, kind, desk.coordinator) for kind in _JOINED):
            yield spec.align
