"""How a learner tells its peer which of the peer's points, or records, matched: in one message.

```
list   8 bytes for each that could match one to one        4,096 pairs: 32 KiB
map    a bit for each of the peer's places, in all buckets 100,000,000 places: 12.5 MB
```

Guarantees: both sides derive the form and its length from what both announced: how many matched
does not show. A list goes wherever it has room in a message, and a map where it has not. Where
neither has, that is known, with the arithmetic, before a point travels.

Leaves to others: which places there are (the plans), and whether somebody stands there
(`matching`).
"""

from dataclasses import dataclass
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from federation.errors import MessageError
from federation.jobs.match.places import PLACE, named_places, places_of
from federation.jobs.match.record_plan import RecordPlan
from federation.jobs.match.token_plan import MatchPlan
from federation.messages import MAX_PAYLOAD_BYTES, PADDING_CHUNK_BYTES

__all__ = ["MOST_BYTES", "OutcomeForm"]

MOST_BYTES: Final = MAX_PAYLOAD_BYTES - 2 * PADDING_CHUNK_BYTES
"""What a message holds of an outcome, beside all that encrypting adds."""

_PIECE: Final = 1 << 20


@dataclass(frozen=True)
class OutcomeForm:
    """How the outcome of one pair is written: the same at both sides, from what both know.

    Attributes:
        room: points, or records, that can match one to one at most.
        buckets: how many the peer's are cut into.
        capacity: of its places in each.
    """

    room: int
    buckets: int
    capacity: int

    @classmethod
    def of(cls, plan: MatchPlan | RecordPlan) -> Self:
        """Derive it from a pair's plan."""
        if isinstance(plan, MatchPlan):
            return cls(plan.room, plan.buckets.count, plan.buckets.sender_capacity)
        return cls(plan.room, plan.chunks, plan.peer.records)

    @property
    def size(self) -> int:
        """Bytes that it has, whatever matched."""
        return self._list_bytes if self._is_list else self._map_bytes

    @property
    def arithmetic(self) -> str:
        """Why no message could hold it; empty where one can."""
        if self.size <= MOST_BYTES:
            return ""
        return (
            f"an outcome takes {self.room:,} pairs x 8 bytes = {self._list_bytes:,}, or "
            f"{self.buckets * self.capacity:,} places / 8 = {self._map_bytes:,}, of the "
            f"{MOST_BYTES:,} bytes that one message tells"
        )

    def encode(self, places: NDArray[np.void]) -> bytes:
        """Write the places that matched.

        Args:
            places: ascending, each once, `room` or fewer.
        """
        if self._is_list:
            return named_places(places, self.room)
        at = places["bucket"] * np.int64(self.capacity) + places["place"]
        packed = np.zeros(self._map_bytes, dtype=np.uint8)
        np.bitwise_or.at(packed, at >> 3, (1 << (at & 7)).astype(np.uint8))
        return packed.tobytes()

    def decode(self, payload: bytes) -> NDArray[np.void]:
        """Return the places that are told, (n,), ascending.

        Raises:
            MessageError: another length; an order, or a number of places, that there cannot be.
        """
        if self._is_list:
            return places_of(payload, self.room)
        if len(payload) != self._map_bytes:
            raise MessageError(f"outcome: got {len(payload)} bytes, expected {self._map_bytes}")
        packed = np.frombuffer(payload, dtype=np.uint8)
        found = [
            8 * begin
            + np.flatnonzero(np.unpackbits(packed[begin : begin + _PIECE], bitorder="little"))
            for begin in range(0, len(packed), _PIECE)
        ]
        at = np.concatenate(found)
        if len(at) > self.room:
            raise MessageError(f"outcome: {len(at)} places, expected {self.room} at most")
        places = np.empty(len(at), dtype=PLACE)
        places["bucket"], places["place"] = np.divmod(at, self.capacity)
        return places

    @property
    def _is_list(self) -> bool:
        return self._list_bytes <= MOST_BYTES

    @property
    def _list_bytes(self) -> int:
        return self.room * PLACE.itemsize

    @property
    def _map_bytes(self) -> int:
        return -(-self.buckets * self.capacity // 8)
