"""One pair's match record by record, so that nobody sees by which keys people matched.

```
with-PEER/
  records/       the side's records as they leave (`record_set`)
  found-N.bin    tags of chunk N: of the learner's records, and of the peer's
```

Guarantees: tags are kept a chunk at a time, and put together a 256th at a time, or several where
they are few: what stays in memory is one edge of 8 bytes for each identifier that both have, and
four bytes for each record.
Tags that come again, in whatever chunk, are refused.

Leaves to others: the protocol (`jobs.match.RecordPlan`), the rule (`privacy.linkage`), messages and
their order (`pairs`).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from federation.errors import MessageError, WorkspaceError
from federation.jobs.match import PLACE, Found, RecordPlan
from federation.matching.record_set import NOBODY, Records, RecordSet
from federation.matching.token_set import MatchingSet
from federation.party import undamaged, write_atomically
from privacy.errors import PeerMessageError
from privacy.linkage import resolve
from privacy.psi.blinding import TAG_BYTES, Tags, common_rows
from privacy.psi.engine import CurveEngine, count_repeats
from privacy.psi.records import Groups
from privacy.randomness import Secret

__all__ = ["RecordMatch"]

_TAG: Final = np.dtype([("tag", "u1", TAG_BYTES), ("record", "<u4")])
_SHELVES: Final = 256
_EDGES: Final = np.dtype(("<u4", _SHELVES + 1))
_TOGETHER: Final = 1 << 16
"""Tags for which one reading waits: where they are few, it takes several shelves at once."""


@dataclass(frozen=True)
class RecordMatch:
    """One side of it.

    Attributes:
        plan: what both sides do.
        directory: the pair's.
        own: the side's set.
        people: rows that its tokens may be of.
        secret: the side's, of this pair.
        learns: whether it is the side that learns.
        one_to_one: whether each record matches one other at most.
    """

    plan: RecordPlan
    directory: Path
    own: MatchingSet
    people: int
    secret: Secret
    learns: bool
    one_to_one: bool

    @property
    def count(self) -> int:
        """How many chunks there are."""
        return self.plan.chunks

    @property
    def points(self) -> int:
        """Points of both sides together."""
        return (self.plan.learner.points + self.plan.peer.points) * self.plan.chunks

    def blind(self, chunk: int, engine: CurveEngine) -> bytes:
        """Step 5 of a match, for a chunk."""
        return self.plan.blind(chunk, *self._laid_out.chunk(chunk), self._secret, engine)

    def reply(self, chunk: int, payload: bytes, engine: CurveEngine) -> bytes:
        """Step 6, at the peer."""
        tokens, places = self._laid_out.chunk(chunk)
        return self.plan.reply(chunk, tokens, places, payload, self._secret, engine)

    def compare(self, chunk: int, payload: bytes, engine: CurveEngine) -> None:
        """Step 7, at the learner: keep the tags of a chunk, unless they are kept already."""
        if self._file(chunk).exists():
            return
        tags = self.plan.compare(payload, self._secret, engine)
        shelved = [
            _shelved(one, groups, chunk)
            for one, groups in zip(tags, (self.plan.learner, self.plan.peer), strict=True)
        ]
        content = b"".join(edges.tobytes() for _, edges in shelved)
        content += b"".join(records.tobytes() for records, _ in shelved)
        write_atomically(self._file(chunk), content, mode=0o600)

    def found(self, *, told: bool) -> Found:
        """Put all chunks together.

        Args:
            told: whether the peer is told which of its records matched; where each matches one
                other.

        Raises:
            PeerMessageError: a tag occurs twice in a set.
        """
        try:
            mine, theirs = _joined(self._met())
        except PeerMessageError:
            self._file(self.plan.chunks - 1).unlink()  # its message may be mended
            raise
        count, laid_out = len(mine), self._laid_out.rows
        met = np.zeros(self.people, dtype=np.bool_)
        met[laid_out[mine]] = True
        named: NDArray[np.integer] = theirs
        if self.one_to_one:
            linked = resolve(mine, theirs)
            order = np.argsort(linked.right)
            rows, named = laid_out[linked.left[order]], linked.right[order]
        else:
            matched = np.zeros(len(laid_out), dtype=np.bool_)
            matched[mine] = True
            rows = laid_out[matched]
        places = np.zeros(len(rows) if told else 0, dtype=PLACE)
        if told:
            places["bucket"], places["place"] = np.divmod(named, self.plan.peer.records)
        return Found(rows, places, int(np.count_nonzero(met)), count)

    def rows_at(self, places: NDArray[np.void]) -> NDArray[np.int64]:
        """Return whose records stood at the places that the learner names, in their order.

        Raises:
            MessageError: there are no such places, or nobody stood there.
        """
        held = self.plan.peer.records
        if (places["bucket"] >= self.plan.chunks).any() or (places["place"] >= held).any():
            raise MessageError("outcome: places that there are not")
        rows = self._laid_out.rows[places["bucket"] * np.int64(held) + places["place"]]
        if (rows == NOBODY).any():
            raise MessageError("outcome: places at which nobody stands")
        found: NDArray[np.int64] = rows.astype(np.int64)
        return found

    @cached_property
    def _laid_out(self) -> RecordSet:
        """The side's records as they leave; laid out at first use."""
        directory = self.directory / "records"
        kept = RecordSet.open(directory)
        if kept is not None:
            return kept
        groups = self.plan.learner if self.learns else self.plan.peer
        records = Records.of(self.own, self.people, by_row=groups.width > 1)
        at = self.plan.places(self._secret, groups)
        return RecordSet.write(directory, records, at, chunks=self.plan.chunks)

    @property
    def _secret(self) -> Secret:
        return self.plan.secret(self.secret, self.own.digest)

    def _file(self, chunk: int) -> Path:
        return self.directory / f"found-{chunk:05d}.bin"

    def _met(self) -> Iterator[tuple[NDArray[np.uint32], NDArray[np.uint32]]]:
        """Return the learner's and the peer's record of each tag that both sets have."""
        rows = self._laid_out.rows
        edges = [self._edges(chunk) for chunk in range(self.plan.chunks)]
        several = min(max(1, _TOGETHER * _SHELVES // self.points), _SHELVES)
        for shelf in range(0, _SHELVES, several):
            ends = [shelf, min(shelf + several, _SHELVES)]
            mine, theirs = (
                np.concatenate(
                    [
                        self._read(chunk, side, *edges[chunk][side, ends].tolist())
                        for chunk in range(self.plan.chunks)
                    ]
                )
                for side in (0, 1)
            )
            for side in (mine, theirs):
                if repeats := count_repeats(side["tag"]):
                    raise PeerMessageError(
                        f"expected all tags of a set to be distinct, got {repeats} duplicates: the "
                        "peer does not follow the protocol"
                    )
            here, there = common_rows(mine["tag"], theirs["tag"])
            if (rows[mine["record"][here]] == NOBODY).any():
                raise PeerMessageError("padding matched: the peer does not follow the protocol")
            yield mine["record"][here], theirs["record"][there]

    def _edges(self, chunk: int) -> NDArray[np.generic]:
        """Return where each shelf of a chunk begins, in the learner's tags and in the peer's."""
        path, sides = self._file(chunk), (self.plan.learner, self.plan.peer)
        size = 2 * _EDGES.itemsize + sum(side.points for side in sides) * _TAG.itemsize
        with undamaged(path):
            edges = np.fromfile(path, dtype=_EDGES, count=2)
            ends = [side.points for side in sides]
            if path.stat().st_size != size or edges[:, -1].tolist() != ends:
                raise WorkspaceError(f"{path} is damaged: run its job under another name")
        return edges

    def _read(self, chunk: int, side: int, begin: int, end: int) -> NDArray[np.void]:
        first = begin + side * self.plan.learner.points
        offset = 2 * _EDGES.itemsize + first * _TAG.itemsize
        return np.fromfile(self._file(chunk), dtype=_TAG, count=end - begin, offset=offset)


def _joined(
    parts: Iterator[tuple[NDArray[np.uint32], NDArray[np.uint32]]],
) -> tuple[NDArray[np.uint32], NDArray[np.uint32]]:
    columns = [list(column) for column in zip(*parts, strict=True)]
    return np.concatenate(columns[0]), np.concatenate(columns[1])


def _shelved(tags: Tags, groups: Groups, chunk: int) -> tuple[NDArray[np.void], NDArray[np.uint32]]:
    """Sort the tags of a chunk into shelves, each with its record; return where shelves begin."""
    order = np.argsort(tags[:, 0], kind="stable")
    records = np.empty(len(tags), dtype=_TAG)
    records["tag"] = tags[order]
    records["record"] = chunk * groups.records + order // groups.width
    edges = np.searchsorted(tags[order, 0], np.arange(_SHELVES + 1))
    return records, edges.astype(np.uint32)
