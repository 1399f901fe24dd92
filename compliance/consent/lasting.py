"""How long a consent lasts that was changed or said again since it was given.

```
given ─► scope_changed: until it would have ended, or earlier ─► reconfirmed: anew
                              (either only while it still holds)
```

Guarantees: what comes once a consent has ended does not bring it back; `scope_changed` never makes
it last longer. The outcome depends on the set of what was said, not on its order.

Leaves to others: which events count (`book`), and everything else that a consent says.
"""

from dataclasses import dataclass
from datetime import timedelta
from typing import Final

import numpy as np
from numpy.typing import NDArray

from compliance.consent.events import KINDS, NEVER, ConsentEventKind

__all__ = ["Sayings", "ends"]

_RECONFIRMED: Final = KINDS.index(ConsentEventKind.RECONFIRMED)
_GIVEN: Final = KINDS.index(ConsentEventKind.GIVEN)


@dataclass(frozen=True, eq=False)
class Sayings:
    """Some `given`, `scope_changed` and `reconfirmed` events about one purpose, in columns.

    Attributes:
        who: number of the person.
        time: microseconds since 1970.
        kind: place in `KINDS`.
        expires: first microsecond at which it no longer holds by its own words, or `NEVER`.
    """

    who: NDArray[np.int32]
    time: NDArray[np.int64]
    kind: NDArray[np.int8]
    expires: NDArray[np.int64]


def ends(said: Sayings, given: NDArray[np.int64], validity: timedelta | None) -> NDArray[np.int64]:
    """Return when each person's consent ends, or ended.

    Of several events at one moment the last kind of `KINDS` counts, and the earliest end.

    Args:
        said: from when a person last gave consent, and nothing before; any order.
        given: when that was, by person; -1 where never.
        validity: how long a consent holds at most that is not reconfirmed.

    Returns:
        As many as `given`: microseconds since 1970; `NEVER` where it does not end, or where
        nothing was given.
    """
    at_first = said.time == given[said.who]
    found = np.full(len(given), NEVER)
    np.minimum.at(found, said.who[at_first], said.expires[at_first])
    found = np.where(given >= 0, np.minimum(found, _after(given, validity)), NEVER)
    later = np.flatnonzero(~at_first)
    if not len(later):
        return found
    people = np.unique(said.who[later])
    who = np.concatenate((people, said.who[later]))
    time = np.concatenate((given[people], said.time[later]))
    kind = np.concatenate((np.full(len(people), _GIVEN), said.kind[later]))
    expires = np.concatenate((found[people], said.expires[later]))
    # 1. One event a moment.
    order = np.lexsort((time, who))
    who, time, kind, expires = who[order], time[order], kind[order], expires[order]
    first = np.flatnonzero(np.r_[True, (who[1:] != who[:-1]) | (time[1:] != time[:-1])])
    who, time = who[first], time[first]
    kind, expires = np.maximum.reduceat(kind, first), np.minimum.reduceat(expires, first)
    # 2. The earliest end since consent was given or reconfirmed.
    anew = kind >= _RECONFIRMED
    expires = np.where(anew, np.minimum(expires, _after(time, validity)), expires)
    running = _least_so_far(expires, np.cumsum(anew))
    # 3. Where an event came too late, the end that it came after stands.
    before = np.r_[NEVER, running[:-1]]
    missed = np.where((kind < _GIVEN) & (time >= before), before, NEVER)
    start = np.flatnonzero(kind == _GIVEN)
    last = np.r_[start[1:], len(who)] - 1
    found[people] = np.minimum(running[last], np.minimum.reduceat(missed, start))
    return found


def _after(time: NDArray[np.int64], validity: timedelta | None) -> NDArray[np.int64]:
    """Return until when consent holds that was given or reconfirmed then."""
    if validity is None:
        return np.full(len(time), NEVER)
    return time + min(validity // timedelta(microseconds=1), NEVER // 2)


def _least_so_far(values: NDArray[np.int64], group: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the least value up to each place of the same group; groups follow each other."""
    known, rank = np.unique(values, return_inverse=True)
    size = len(known)
    least: NDArray[np.int64] = known[np.minimum.accumulate(rank - group * size) + group * size]
    return least
