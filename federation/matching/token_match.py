"""One pair's match token by token: its buckets are cut by hash, and who learns sees by which keys.

```
with-PEER/
  found-N.npz   what bucket N told the learner: rows, ranks, places, numbers
```

Guarantees: findings are kept a bucket at a time, and put together a bucket at a time: what stays in
memory is one edge of 9 bytes for each token that matched where each record matches one other, and
a bit for each row where it may match several.

Leaves to others: the protocol (`jobs.match.MatchPlan`), the rule (`privacy.linkage`), messages and
their order (`pairs`).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from compliance.terms import Linkage
from federation.errors import MessageError
from federation.jobs.match import PLACE, Comparison, Found, MatchPlan
from federation.matching.token_set import MatchingSet, TokenBatch
from federation.stored_arrays import stored_arrays, write_arrays
from privacy.linkage import resolve
from privacy.psi.engine import CurveEngine
from privacy.randomness import Secret, SecretStream

__all__ = ["TokenMatch"]

_UNMATCHED = 2**32 - 1
_BLOCK = 1 << 20


class _Findings(NamedTuple):
    """What a bucket told: tokens that both have, by place; and how many, dummies included."""

    rows: NDArray[np.uint32]
    ranks: NDArray[np.uint8]
    places: NDArray[np.uint32]
    numbers: NDArray[np.uint64]
    matched: NDArray[np.int64]


@dataclass(frozen=True)
class TokenMatch:
    """One side of it.

    Attributes:
        plan: what both sides do.
        directory: the pair's.
        own: the side's set.
        people: rows that its tokens may be of.
        secret: the side's, of this pair.
    """

    plan: MatchPlan
    directory: Path
    own: MatchingSet
    people: int
    secret: Secret

    @property
    def count(self) -> int:
        """How many buckets there are."""
        return self.plan.buckets.count

    @property
    def points(self) -> int:
        """Points of both sides together."""
        sizes = self.plan.buckets
        return (sizes.receiver_capacity + sizes.sender_capacity) * sizes.count

    def blind(self, bucket: int, engine: CurveEngine) -> bytes:
        """Step 5 of a match, for a bucket."""
        tokens = self._batch(bucket).tokens
        return self.plan.blind(bucket, tokens, self._secret(bucket), engine)

    def reply(self, bucket: int, payload: bytes, engine: CurveEngine) -> bytes:
        """Step 6, at the peer."""
        batch = self._batch(bucket)
        numbers = self._numbers(batch.rows)
        return self.plan.reply(bucket, batch.tokens, numbers, payload, self._secret(bucket), engine)

    def compare(self, bucket: int, payload: bytes, engine: CurveEngine) -> None:
        """Step 7, at the learner: keep what a bucket told, unless it is kept already."""
        if self._file(bucket).exists():
            return
        batch, secret = self._batch(bucket), self._secret(bucket)
        self._keep(bucket, self.plan.compare(len(batch.tokens), payload, secret, engine), batch)

    def found(self, *, told: bool) -> Found:
        """Put all buckets together.

        Args:
            told: whether the peer is told which of its points matched; where each matches one
                other.
        """
        if self.plan.terms.linkage is Linkage.ONE_TO_ONE:
            partners, numbers = self._partners()
        else:
            partners, numbers = None, np.zeros(0, dtype=np.uint64)
        met, seen = np.zeros((2, self.people), dtype=np.bool_)
        rows, places, count = [np.zeros(0, dtype=np.uint32)], [np.zeros(0, dtype=PLACE)], 0
        for bucket, found in enumerate(self._findings()):
            count += int(found.matched)
            met[found.rows] = True
            chosen = np.ones(len(found.rows), dtype=np.bool_)
            if partners is not None:
                chosen = partners[found.rows] == np.searchsorted(numbers, found.numbers)
            here = np.flatnonzero(chosen & ~seen[found.rows])
            first = here[np.sort(np.unique(found.rows[here], return_index=True)[1])]
            seen[found.rows[first]] = True
            rows.append(found.rows[first])
            if told:
                at = np.zeros(len(first), dtype=PLACE)
                at["bucket"], at["place"] = bucket, found.places[first]
                places.append(at)
        everybody = int(np.count_nonzero(met))
        return Found(np.concatenate(rows), np.concatenate(places), everybody, count)

    def rows_at(self, places: NDArray[np.void]) -> NDArray[np.int64]:
        """Return whose tokens stood at the places that the learner names, in their order.

        Raises:
            MessageError: there are no such places, or nobody stood there.
        """
        buckets, begin = np.unique(places["bucket"], return_index=True)
        rows = [np.zeros(0, dtype=np.int64)]
        for bucket, part in zip(
            buckets.tolist(),
            np.split(places["place"], begin[1:]) if len(places) else [],
            strict=True,
        ):
            if bucket >= self.count or part[-1] >= self.plan.buckets.sender_capacity:
                raise MessageError("outcome: places that there are not")
            batch = self._batch(bucket)
            owner = np.full(self.plan.buckets.sender_capacity, -1, dtype=np.int64)
            owner[self.plan.places(len(batch.tokens), self._secret(bucket))] = batch.rows
            rows.append(owner[part])
        found = np.concatenate(rows)
        if (found < 0).any():
            raise MessageError("outcome: places at which nobody stands")
        return found

    def _batch(self, bucket: int) -> TokenBatch:
        return self.own.bucket(bucket, self.count)

    def _secret(self, bucket: int) -> Secret:
        return self.plan.secret(self.secret, self.own.digest, bucket)

    def _file(self, bucket: int) -> Path:
        return self.directory / f"found-{bucket:05d}.npz"

    def _numbers(self, rows: NDArray[np.int64]) -> NDArray[np.uint64]:
        """Return a random number for each record, by which a learner tells records apart.

        They are drawn for all records, a block at a time.

        Args:
            rows: of the records, shape (n,).
        """
        numbers = np.zeros(len(rows), dtype=np.uint64)
        if not self.plan.links_records:
            return numbers
        stream = SecretStream(self.secret, "match record numbers")
        for begin in range(0, self.people, _BLOCK):
            drawn = np.frombuffer(stream.take(8 * min(_BLOCK, self.people - begin)), dtype="<u8")
            here = np.flatnonzero((rows >= begin) & (rows < begin + _BLOCK))
            numbers[here] = drawn[rows[here] - begin]
        return numbers

    def _keep(self, bucket: int, compared: Comparison, batch: TokenBatch) -> None:
        order = np.argsort(compared.places)
        tokens = compared.tokens[order]
        found = _Findings(
            rows=batch.rows[tokens].astype(np.uint32),
            ranks=batch.ranks[tokens].astype(np.uint8),
            places=compared.places[order].astype(np.uint32),
            numbers=compared.numbers[order] if self.plan.links_records else compared.numbers[:0],
            matched=np.array(compared.count),
        )
        write_arrays(self._file(bucket), **found._asdict())

    def _findings(self) -> Iterator[_Findings]:
        for bucket in range(self.count):
            with stored_arrays(self._file(bucket)) as stored:
                rows = stored.array("rows", np.uint32, None)
                found = _Findings(
                    rows=rows,
                    ranks=stored.array("ranks", np.uint8, len(rows)),
                    places=stored.array("places", np.uint32, len(rows)),
                    numbers=stored.array("numbers", np.uint64, None),
                    matched=stored.array("matched", np.int64),
                )
            yield found

    def _partners(self) -> tuple[NDArray[np.uint32], NDArray[np.uint64]]:
        """Return each row's one partner by its place among the numbers of records, and these."""
        numbers = np.concatenate([found.numbers for found in self._findings()])
        numbers.sort()
        numbers = numbers[np.insert(numbers[1:] != numbers[:-1], 0, True)[: len(numbers)]]
        edges = [
            (found.rows, np.searchsorted(numbers, found.numbers).astype(np.uint32), found.ranks)
            for found in self._findings()
        ]
        linked = resolve(*(np.concatenate(column) for column in zip(*edges, strict=True)))
        partners = np.full(self.people, _UNMATCHED, dtype=np.uint32)
        partners[linked.left] = linked.right
        return partners, numbers
