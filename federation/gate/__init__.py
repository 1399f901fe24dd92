"""The only door out of a party.

Everything that a party says to anybody is made here, in one fixed order:

1. the signed agreement covers it, now;
2. policy: this role may say this to that role, for the purpose of a computation that the agreement
   permits, to an agreed region, by agreed code, with the approvals that the job needs, and no
   clause of the party's own forbids it;
3. consent is read again, as of now, for every person the bytes were made from; who asked to be
   erased does not consent;
4. minimum sizes hold;
5. the privacy budget is reserved, and the reservation logged;
6. the release is a leaf of the party's log;
7. the bytes are encrypted where only the recipient may read them, sealed, and kept in the outbox;
   the charge is committed and logged;
8. the bytes are handed over.

A refusal at any step is a leaf too, and names the term and the smallest change that would pass.

`door` keeps that order, of a `departure`; it asks the `contract`, the `policy` and the `consent` of
people, and keeps `charges` and `outbox` in step with the party's `own_log`.

Guarantees: `Released` objects, which alone can become a reply, come from here and nowhere else; a
question that was answered before gets the same bytes again, without a second charge; where a period
is agreed, only if they fit it now, and weighing on it anew. After a crash, `settle` commits what
has left (its bytes are in the outbox) and refunds what has not, and log and ledger tell the same
story again.

Leaves to others: what to say (`jobs`), how it travels (`channel`).
"""

from federation.gate.departure import Departure, Leaf, Minimum
from federation.gate.door import Gate, Released

__all__ = ["Departure", "Gate", "Leaf", "Minimum", "Released"]
