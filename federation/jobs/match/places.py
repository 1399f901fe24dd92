"""Places: where the peer's points or records stand, as a learner names them.

Guarantees: how many are named does not show; what is read ascends, each place once.
"""

import numpy as np
from numpy.typing import NDArray

from federation.errors import MessageError

__all__ = ["PLACE", "named_places", "places_of"]

PLACE = np.dtype([("bucket", "<u4"), ("place", "<u4")])
"""Where a point of the peer's stands, or a record where buckets are cut by record."""
_NOWHERE = np.array((2**32 - 1, 2**32 - 1), dtype=PLACE)


def named_places(places: NDArray[np.void], room: int) -> bytes:
    """Write the places that a learner names to its peer; how many they are does not show.

    Args:
        places: ascending, `room` or fewer.
        room: places that are written.
    """
    padded = np.full(room, _NOWHERE, dtype=PLACE)
    padded[: len(places)] = places
    return padded.tobytes()


def places_of(payload: bytes, room: int) -> NDArray[np.void]:
    """Return the places that a learner names to its peer, (n,), padding left out.

    Raises:
        MessageError: with padding they are not `room`, or they do not ascend.
    """
    if len(payload) != room * PLACE.itemsize:
        raise MessageError(f"outcome: got {len(payload)} bytes, expected {room} places")
    places = np.frombuffer(payload, dtype=PLACE)
    named = places != _NOWHERE
    places = places[: np.count_nonzero(named)]
    if not named[: len(places)].all():
        raise MessageError("outcome: places after padding")
    bucket, place = places["bucket"], places["place"]
    later = bucket[1:] > bucket[:-1]
    later |= (bucket[1:] == bucket[:-1]) & (place[1:] > place[:-1])
    if not later.all():
        raise MessageError("outcome: the same place twice, or places in another order")
    return places
