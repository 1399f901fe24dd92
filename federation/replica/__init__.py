"""A copy of a party's folder in a database, from which another machine goes on.

Guarantees: whatever left the party, what it rests on is in that database; so the loss of the folder
is what a kill at an earlier step is.

`replica` keeps the copy, `restoring` brings a folder back from it; `scan` says what is kept,
`contents` reads it, `description` what a party says of itself; `store` is the database, by `tables`
and their `migrations`; `kept` is what lies there.

Leaves to others: when a folder is copied (`federation.party.lock`, `federation.gate`).
"""

from federation.replica.replica import Replica
from federation.replica.scan import Scope
from federation.replica.store import ReplicaStore

__all__ = ["Replica", "ReplicaStore", "Scope"]
