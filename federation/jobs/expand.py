"""Expand: each partner keeps the best-scored of its own people who are no seeds.

```
coordinator               partner                                brand
1  expand.request    ──►  2 score, drop seeds, rank, keep so many
                          3 deliver the segment
                     ◄──    expand.done, with a noised count where one is agreed
4  expand.counted, what partners signed  ──────────────────────►  5 keep the counts
```

Guarantees: no I/O; the same people, scores and size give the same segment, in whatever order rows
stand. Scores and people stay with the partner. What is told of their number is one count with
noise; how many are in the segment follows from it and from what is public.

Leaves to others: reading and scoring (`population`), delivering (`expanding`).
"""

import math
from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from compliance.agreement import Agreement
from compliance.terms import Role
from federation.errors import MessageError
from federation.jobs.exchange import Exchange, Say, expect
from federation.jobs.quorum import Quorum, is_quorum, partners_in_order
from federation.messages import (
    Acknowledged,
    ExpandCounted,
    ExpandDone,
    ExpandRequest,
    Message,
    unseal_header,
)
from federation.specification import ExpandSpec
from privacy.accounting.events import DiscreteLaplaceEvent, RepeatedEvent

__all__ = [
    "Best",
    "CountPlan",
    "Counted",
    "Expanded",
    "coordinate_expand",
    "counted_by",
    "ordered",
    "read_counted",
    "segment_size",
]

_BLOCK_ROWS: Final = 1 << 18


def segment_size(spec: ExpandSpec, agreement: Agreement, people: int) -> int:
    """Return how many of `people`, seeds among them, a segment would hold.

    What is asked for, though never under the agreement's minimum nor over its share. Both ways one
    person more or less changes it by one at most.
    """
    terms = agreement.expand
    if spec.size is not None:
        asked = min(spec.size, math.ceil(terms.maximum_share * people))
    else:
        asked = math.ceil((spec.share or 0.0) * people)
    return max(terms.minimum_segment, asked)


@dataclass(frozen=True, eq=False)
class Best:
    """Step 2: the best of some candidates, before ties are broken.

    Attributes:
        above: rows that are surely among them, shape (m,), ascending.
        tied: rows of the lowest score that is, shape (t,), ascending.
        wanted: how many of these are, 0 to t.
    """

    above: NDArray[np.uint32]
    tied: NDArray[np.uint32]
    wanted: int

    @classmethod
    def of(cls, scores: NDArray[np.float32], candidates: NDArray[np.bool_], size: int) -> Self:
        """Find the `size` best; fewer where there are not so many candidates.

        Looks at the scores in blocks, and holds `size` of them twice at most.

        Args:
            scores: larger is liker, finite, shape (n,).
            candidates: who may be chosen, shape (n,).
            size: 0 or more.
        """
        none = np.zeros(0, dtype=np.uint32)
        if size < 1:
            return cls(none, none, 0)
        best = np.zeros(0, dtype=np.float32)
        lowest = np.float32(-np.inf)
        for block in _blocks(len(scores)):
            more = scores[block][candidates[block]]
            best = np.concatenate([best, more[more > lowest]])
            if len(best) >= size:
                best = np.partition(best, len(best) - size)[len(best) - size :]
                lowest = best[0]
        if not len(best):
            return cls(none, none, 0)
        lowest = best.min()
        above, tied = [none], [none]
        for block in _blocks(len(scores)):
            for found, which in (
                (above, scores[block] > lowest),
                (tied, scores[block] == lowest),
            ):
                rows = np.flatnonzero(which & candidates[block]) + block.start
                found.append(rows.astype(np.uint32))
        surely = np.concatenate(above)
        return cls(surely, np.concatenate(tied), len(best) - len(surely))

    def chosen(self, keys: Iterable[pa.Array], count: int) -> NDArray[np.bool_]:
        """Break ties by key, and tell which rows are chosen, shape (count,).

        Args:
            keys: of all rows, in their order, in batches; no two equal.
            count: how many rows there are.
        """
        chosen = np.zeros(count, dtype=np.bool_)
        chosen[self.above] = True
        if self.wanted == len(self.tied):
            chosen[self.tied] = True
            return chosen
        first = pa.table({"key": pa.array([], pa.large_string()), "row": pa.array([], pa.uint32())})
        begin = 0
        for batch in keys:
            low, high = np.searchsorted(self.tied, (begin, begin + len(batch)))
            rows = self.tied[low:high]
            taken = batch.take(pa.array(rows - np.uint32(begin)))
            more = pa.table({"key": taken, "row": pa.array(rows)})
            first = pa.concat_tables([first, more])
            if len(first) > 2 * self.wanted + _BLOCK_ROWS:
                first = _first(first, self.wanted)
            begin += len(batch)
        chosen[_first(first, self.wanted)["row"].to_numpy()] = True
        return chosen


def _first(table: pa.Table, count: int) -> pa.Table:
    """Return the rows with the `count` smallest keys."""
    order = pc.sort_indices(table, sort_keys=[("key", "ascending")])
    return table.take(order[:count]).combine_chunks()


def _blocks(count: int) -> list[slice]:
    return [slice(begin, begin + _BLOCK_ROWS) for begin in range(0, count, _BLOCK_ROWS)]


def ordered(keys: pa.Array, scores: NDArray[np.float32]) -> pa.Array:
    """Return the keys of a segment, best first; equal scores are ordered by key."""
    table = pa.table({"key": keys, "score": pa.array(scores)})
    order = pc.sort_indices(table, sort_keys=[("score", "descending"), ("key", "ascending")])
    return keys.take(order)


@dataclass(frozen=True)
class CountPlan:
    """How a partner's people are counted, and what it costs.

    A person may be counted by as many partners as agreed, and ε is promised over all of them.

    Attributes:
        mechanism: the noise on one count.
        charge: privacy loss of a person whom so many partners count.
    """

    mechanism: DiscreteLaplaceEvent
    charge: RepeatedEvent

    @classmethod
    def of(cls, agreement: Agreement) -> Self | None:
        """Return the plan that the agreement makes; None where no count leaves."""
        epsilon, parties = agreement.expand.count_epsilon, agreement.train.max_parties_per_person
        if epsilon is None:
            return None
        mechanism = DiscreteLaplaceEvent(scale=parties / epsilon)
        return cls(mechanism, RepeatedEvent(event=mechanism, count=parties))


class Counted(BaseModel):
    """What a partner tells of its people's number.

    Attributes:
        party: the partner.
        eligible: its people who may be used, seeds among them, with noise; 0 or more.
        segment: how many that gives the segment, of those who are no seeds.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    party: str
    eligible: int
    segment: int

    @property
    def told(self) -> str:
        """The counts in words."""
        return f"{self.party}: about {self.segment:,} of {self.eligible:,} people"


def counted_by(
    agreement: Agreement, spec: ExpandSpec, said: Iterable[tuple[str, ExpandDone]]
) -> tuple[Counted, ...]:
    """Return what partners tell, and what follows from it.

    Raises:
        MessageError: a count is missing that was agreed, or there though none was.
    """
    found = []
    for party, done in said:
        if (done.eligible is None) is not (agreement.expand.count_epsilon is None):
            raise MessageError(f"{party} told another count than was agreed")
        if done.eligible is not None:
            segment = min(done.eligible, segment_size(spec, agreement, done.eligible))
            found.append(Counted(party=party, eligible=done.eligible, segment=segment))
    return tuple(found)


@dataclass(frozen=True)
class Expanded:
    """What the coordinator knows of an expansion that has ended.

    Attributes:
        counted: what partners tell; nothing where no count is agreed.
        missing: partners that have no segment of it.
    """

    counted: tuple[Counted, ...]
    missing: tuple[str, ...]


def coordinate_expand(
    agreement: Agreement, spec: ExpandSpec
) -> Generator[Exchange, Sequence[Message], Expanded]:
    """Steps 1 and 4, at the coordinator.

    Yields:
        What to send next; resumed with the answers that came, in the same order.
    """
    quorum = Quorum(spec, agreement)
    done = yield quorum.say(ExpandRequest(spec=spec))  # 1
    quorum.hear(done)
    said = [(message.header.sender, expect(message, ExpandDone)) for message in done]
    counted = counted_by(agreement, spec, said)
    if counted:
        envelopes = b"\n".join(message.sealed.envelope for message in done)
        (brand,) = agreement.by_role(Role.BRAND)
        answers = yield [Say(brand.name, spec.name, ExpandCounted(spec=spec), envelopes)]  # 4
        for answer in answers:
            expect(answer, Acknowledged)
    return Expanded(counted, quorum.missing)


def read_counted(message: Message, agreement: Agreement) -> Expanded:
    """Step 5: read what partners signed, at the brand.

    Raises:
        MessageError: it is malformed, of another job, or not of as many partners as the job needs,
            once each.
    """
    spec = expect(message, ExpandCounted).spec
    headers = [unseal_header(line, agreement) for line in message.payload.split(b"\n")]
    senders = [header.sender for header in headers]
    missing = tuple(name for name in partners_in_order(agreement) if name not in senders)
    if not is_quorum(senders, missing, spec, agreement):
        few = f", or of all but {spec.absent_partners}" if spec.absent_partners else ""
        raise MessageError(
            f"counts of an expansion: expected what every partner signed{few}, once each"
        )
    said = []
    for header in headers:
        if header.job != spec.name or not isinstance(header.body, ExpandDone):
            raise MessageError(f"{header.sender} signed something else than a count of this job")
        said.append((header.sender, header.body))
    return Expanded(counted_by(agreement, spec, said), missing)
