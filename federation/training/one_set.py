"""One set of partners for each person: whose parts a sum over people may hold, once and for all.

```
jobs/TRAIN/joined-ALIGN    which question this party joined a training by, with which columns of
                           its own and which partners
jobs/TRAIN/scored-ALIGN    which scoring took this party's part of these people's scores, answering
                           which question, with which columns and partners, and whom exactly the sum
                           was of
```

Guarantees: whatever this party gave of a person to a sum, it gave together with the same partners,
out of columns that were agreed on in the same words; another set is refused, whichever model,
alignment and version of the agreement it is asked for. Of two sums over one person with different
sets the difference would be what the others gave, which with one more partner is that partner's
alone; so it is where one partner's columns alone are others. A training is a sum over all partners
of its time, and counts from when this party joined it. Whom a sum was of, and with whom, is noted
before it leaves, and never worked out anew: what happened since makes it of nobody else. An earlier
version noted less: of what it joined and scored, columns and partners are those of now under an
agreement that was never amended, and else count as others.

It holds for all models, not for each: two trainings of the same rows may leave the same parts.

Leaves to others: whom an alignment found, also once it is deleted (`summed`); masks, which make a
sum random where partners disagree about whom it is of (`assisting`); the values in the columns,
which a party may change between two sums. People are known by this party's record references and by
the identifiers that they were aligned by: somebody who has others of both, at **every** partner of
a sum, is taken for somebody else.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

import numpy as np
import rfc8785
from numpy.typing import NDArray
from pydantic import ValidationError

from federation.desk import Desk
from federation.jobs.assist import vertical_partners
from federation.messages import AssistExact, AssistJoined, AssistNoised, Message
from federation.party import undamaged, write_atomically
from federation.specification import VerticalScoreSpec, VerticalTrainSpec
from federation.training.summed import SummedPeople, forgotten, summed_key, summed_people

__all__ = ["JoinedOnce", "ScoredOnce", "check_one_set", "digest_of", "trained_on"]

_JOINED: Final = "joined-"
_SCORED: Final = "scored-"
_BEGINNINGS: Final = tuple(
    one.model_fields["kind"].default for one in (AssistJoined, AssistNoised, AssistExact)
)
"""What a party says when a training begins with it: a partner, or the brand."""
_DIGEST_DIGITS: Final = 64


@dataclass(frozen=True)
class JoinedOnce:
    """With whom this party trains on an alignment.

    Attributes:
        question: digest of what was answered by joining; nothing was joined where it was not.
        columns: digest of how this party's own columns are read.
        partners: all who are in the training.
    """

    question: str
    columns: str
    partners: tuple[str, ...]

    @classmethod
    def of(cls, desk: Desk, message: Message) -> Self:
        """Return what answering means, under the agreement as it is now."""
        partners = vertical_partners(desk.agreement)
        return cls(message.sealed.digest, _own_columns(desk), partners)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what `note` wrote.

        Raises:
            WorkspaceError: it is damaged.
        """
        with undamaged(path):
            question, columns, *partners = path.read_text(encoding="ascii").split()
            return cls(question, columns, tuple(partners))

    def note(self, desk: Desk, spec: VerticalTrainSpec) -> None:
        """Write it, before the answer leaves; the first one that was answered counts."""
        path = desk.folder.job(spec.name) / f"{_JOINED}{spec.align}"
        if path.exists() and desk.gate.outbox.has_answered(self.load(path).question):
            return
        content = " ".join((self.question, self.columns, *self.partners))
        write_atomically(path, content.encode(), mode=0o600)


@dataclass(frozen=True)
class ScoredOnce:
    """Who took this party's part of the scores of an alignment.

    Attributes:
        job: the scoring.
        question: digest of what was answered.
        chosen: of whom of the alignment the sum is, one bit each in the shared order, in hex.
        columns: digest of how this party's own columns are read; None where an earlier version
            noted it.
        partners: all whose parts are in the sum.
    """

    job: str
    question: str
    chosen: str
    columns: str | None
    partners: tuple[str, ...]

    @classmethod
    def of(
        cls, desk: Desk, message: Message, chosen: NDArray[np.bool_], partners: tuple[str, ...]
    ) -> Self:
        """Return what answering means: a sum over the people who are `chosen`, shape (n,)."""
        bits = np.packbits(chosen).tobytes().hex()
        job, question = message.header.job, message.sealed.digest
        return cls(job, question, bits, _own_columns(desk), partners)

    @staticmethod
    def file(desk: Desk, spec: VerticalScoreSpec) -> Path:
        """Where it lies."""
        return desk.folder.job(spec.train) / f"{_SCORED}{spec.align}"

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what `save` wrote.

        Raises:
            WorkspaceError: it is damaged.
        """
        with undamaged(path):
            job, question, chosen, first, *more = path.read_text(encoding="ascii").split()
            bytes.fromhex(chosen)
            if len(first) != _DIGEST_DIGITS:  # a partner's name, which is shorter
                return cls(job, question, chosen, None, (first, *more))
            return cls(job, question, chosen, first, tuple(more))

    def save(self, path: Path) -> None:
        """Write it, whole or not at all."""
        columns = () if self.columns is None else (self.columns,)
        content = " ".join((self.job, self.question, self.chosen, *columns, *self.partners))
        write_atomically(path, content.encode(), mode=0o600)

    def among(self, path: Path, people: SummedPeople) -> SummedPeople:
        """Return whom of the alignment the sum is of.

        Args:
            path: where it was loaded from.
            people: of the alignment.

        Raises:
            WorkspaceError: it is damaged, or the alignment is another than then.
        """
        with undamaged(path):
            bits = np.frombuffer(bytes.fromhex(self.chosen), dtype=np.uint8)
            if len(bits) != (len(people) + 7) // 8:
                raise ValueError("it is of another number of people")
            return people.those(np.unpackbits(bits, count=len(people)).astype(np.bool_))


def trained_on(desk: Desk, align: str) -> NDArray[np.bool_]:
    """Tell who of an alignment is in a training that this party joined, in the shared order.

    Returns:
        Shape (n,).

    Raises:
        RefusedError: an alignment has not ended here, or an earlier version deleted it.
        WorkspaceError: it is damaged.
    """
    people = summed_people(desk.folder, align)
    found = np.zeros(len(people), dtype=np.bool_)
    for other in sorted({other for _, other, _ in _trainings(desk)}):
        found |= _found_in(desk, people, summed_people(desk.folder, other))
        found |= forgotten(desk.folder, align, other, len(people))
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
    """Refuse a sum over people of whom this party gave its part to one of another set.

    Another set are other partners, or other columns of this party's own.

    Args:
        desk: the party's.
        align: the people.
        partners: whose parts would be in the sum.
        chosen: of whom of them it would be, shape (n,), in the shared order; of all by default.

    Raises:
        RefusedError: it did, in a training or a scoring.
        WorkspaceError: what was noted is damaged.
    """
    wanted: SummedPeople | None = None
    for job, did, others in _other_sums(desk, partners):
        if wanted is None:
            wanted = summed_people(desk.folder, align)
            wanted = wanted if chosen is None else wanted.those(chosen)
        if _found_in(desk, wanted, others).any():
            raise desk.refusal(
                "vertical.absent_partners",
                f"people of alignment {align!r} were {did} by job {job!r} with another set "
                "of partners, or other columns of this party's, and two sums would tell by "
                "difference what one partner gave: score and train people who are in no other sum",
            )


def _other_sums(desk: Desk, partners: tuple[str, ...]) -> Iterator[tuple[str, str, SummedPeople]]:
    """Yield each sum of another set: its job, what that did, and whom it was of."""
    now = (partners, _own_columns(desk))
    for job, align, joined in _trainings(desk):
        if (joined.partners, joined.columns) != now:
            yield job, "trained on", summed_people(desk.folder, align)
    for path in sorted((desk.folder.path / "jobs").glob(f"*/{_SCORED}*")):
        noted = ScoredOnce.load(path)
        columns = noted.columns
        if columns is None and desk.agreement.amends is None:
            columns = now[1]
        if (noted.partners, columns) != now and desk.gate.outbox.has_answered(noted.question):
            everybody = summed_people(desk.folder, path.name.removeprefix(_SCORED))
            yield noted.job, "scored", noted.among(path, everybody)


def _found_in(desk: Desk, people: SummedPeople, others: SummedPeople) -> NDArray[np.bool_]:
    """Tell who is one of the others, shape (n,); of others who were deleted by pseudonym."""
    if others.are_pseudonyms:
        people = people.under(summed_key(desk.folder))
    return people.found_in(others)


def _own_columns(desk: Desk) -> str:
    """Return a digest of how a party's own columns are read, by the agreement as it is now."""
    terms = desk.agreement.vertical
    held = () if terms is None else terms.held_by(desk.folder.name)
    return hashlib.sha256(rfc8785.dumps([one.model_dump(mode="json") for one in held])).hexdigest()


def _trainings(desk: Desk) -> Iterator[tuple[str, str, JoinedOnce]]:
    """Yield every training that this party joined, or opened: job, alignment, and with whom."""
    noted: set[str] = set()
    for path in sorted((desk.folder.path / "jobs").glob(f"*/{_JOINED}*")):
        joined = JoinedOnce.load(path)
        if desk.gate.outbox.has_answered(joined.question):
            noted.add(path.parent.name)
            yield path.parent.name, path.name.removeprefix(_JOINED), joined
    for path in sorted((desk.folder.path / "jobs").glob("*/specification.json")):
        if path.parent.name in noted:
            continue
        try:
            spec = VerticalTrainSpec.model_validate_json(path.read_bytes())
        except ValidationError:  # another kind of job
            continue
        has_left, coordinator = desk.gate.outbox.has_left, desk.coordinator
        if any(has_left(spec.name, kind, coordinator) for kind in _BEGINNINGS):
            yield spec.name, spec.align, _joined_before(desk)


def _joined_before(desk: Desk) -> JoinedOnce:
    """Return what is known of a training that an earlier version joined."""
    if desk.agreement.amends is not None:
        return JoinedOnce("", "", ())
    return JoinedOnce("", _own_columns(desk), vertical_partners(desk.agreement))
