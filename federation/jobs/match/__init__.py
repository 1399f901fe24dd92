"""Match: in each pair of data parties, one learns which of its people the other holds too.

```
coordinator              learner                               peer
1  match.request   ──►   2 says how large its set is, and
                           binds itself to it
                         match.offer                ──────►    3 holds that against the agreement,
                         4 likewise                 ◄──────      says the same of itself
                                                                 match.accept
   for every bucket
                         5 blinds its own
                         match.blinded              ──────►    6 blinds them again, and its own
                         7 compares                 ◄──────      match.reply
   at the end
8  collects        ◄──   match.done; or, where the peer may know something too,
                         match.outcome              ──────►    9 keeps it
   collects        ◄──────────────────────────────────────       match.done
```

Who learns, and what, is the agreement's `reveal` term; the flow follows it, so that nobody receives
what it must not learn. Where people bear several identifiers, buckets are cut by record and keys
stay hidden (`RecordPlan`), unless `reveal_keys` is agreed: then, and where everybody bears one,
tokens are matched one by one (`MatchPlan`). All but requests and ends is encrypted between the two:
the coordinator sees how many buckets there are, and sizes in chunks.

Guarantees: no I/O; a side's state is frozen and can be stored between two messages; one message
counts for each step, and a second one that differs is refused.

`coordination` is the coordinator's. Both sides of a `pair` remember their `state`, and match by a
`token_plan` or a `record_plan`; the learner has `findings`, and tells an `outcome` by `places`.
`direct` is the same over a direct link.

Leaves to others: the curve (`privacy.psi`), reading people (`population`), keeping tokens
(`matching.token_set`), limits over many matches (`matching.history`), sending (`gate`).
"""

from federation.jobs.match.coordination import Matched, coordinate_match
from federation.jobs.match.findings import Comparison, Found
from federation.jobs.match.pair import learner_of, record_widths, size_mechanism
from federation.jobs.match.places import PLACE, named_places, places_of
from federation.jobs.match.record_plan import RecordPlan
from federation.jobs.match.state import MatchState
from federation.jobs.match.token_plan import MatchPlan

__all__ = [
    "PLACE",
    "Comparison",
    "Found",
    "MatchPlan",
    "MatchState",
    "Matched",
    "RecordPlan",
    "coordinate_match",
    "learner_of",
    "named_places",
    "places_of",
    "record_widths",
    "size_mechanism",
]
