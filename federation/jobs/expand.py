"""Expand: each partner keeps the best-scored share of its own people who are no seeds.

```
coordinator             partner
1  expand.request  ──►  2 score, drop seeds, rank, keep the share
3  collect         ◄──    expand.done (or refused: below the minimum)
```

Guarantees: no I/O; the same people, scores and share give the same segment. Scores and people
stay with the partner; nobody is told how many there are.

Leaves to others: writing the segment (`node`), delivering it.
"""

import math
from collections.abc import Generator, Sequence

import numpy as np
from numpy.typing import NDArray

from compliance.agreement import Agreement
from compliance.terms import Role
from federation.jobs.exchange import Outgoing, Say, expect
from federation.messages import ExpandDone, ExpandRequest, Message
from federation.specification import ExpandSpec

__all__ = ["choose_segment", "coordinate_expand"]


def choose_segment(
    keys: NDArray[np.str_],
    scores: NDArray[np.float64],
    members: NDArray[np.bool_],
    share: float,
    *,
    minimum: int = 0,
) -> NDArray[np.str_]:
    """Step 2: return the keys of the best people, best first.

    Args:
        keys: record references, shape (n,).
        scores: larger is liker, shape (n,).
        members: seeds, who are never chosen, shape (n,).
        share: of all n people, in (0, 1].
        minimum: smallest segment; a smaller share gives this many.

    Returns:
        At most max(minimum, ceil(share × n)) keys; equal scores are ordered by key.
    """
    size = max(minimum, math.ceil(share * len(keys)))
    candidates = np.flatnonzero(~members)
    order = np.lexsort((keys[candidates], -scores[candidates]))
    chosen: NDArray[np.str_] = keys[candidates[order[:size]]]
    return chosen


def coordinate_expand(
    agreement: Agreement, spec: ExpandSpec
) -> Generator[Sequence[Outgoing], Sequence[Message], None]:
    """Steps 1 and 3, at the coordinator.

    Yields:
        What to send next; resumed with the answers in the same order.
    """
    partners = [party.name for party in agreement.by_role(Role.PARTNER)]
    done = yield [Say(name, spec.name, ExpandRequest(spec=spec)) for name in partners]
    for message in done:
        expect(message, ExpandDone)
