"""What can go wrong in `federation`, split by who can act.

```
FederationError
├── CollaborationError   the collaboration file has mistakes: its author mends all of them at once
├── UnsealingError       a secret does not open, or lies in clear: whoever keeps the unsealing key
├── WorkspaceError       the workspace holds something else: name another, or finish the old one
├── PartyBusyError       a job holds the party's folder: ask again a little later
├── ReplicaError         the database that keeps a copy of the folder is away: run again with it
│   └── TakenOverError   ... or another machine went on from that copy: stop this one
├── MessageError         bytes from another party break the protocol: nothing of them was used
│   ├── VersionError     ... or are of another version of Comity: install the same on both sides
│   ├── StrangerError    ... or are of nobody who signed the agreement
│   └── ForgedError      ... or prove nothing of whose they are
├── RefusedError         a term of the agreement says no: its text names the term and the remedy
├── PartyUnreachableError  a party stayed silent or failed: its operator looks at that party
├── EnrolmentError       an invitation, or an answer to it, does not hold: operator and party talk
├── SuperLinkError       a node is not taken, or calls another's SuperLink: two operators talk
├── CoordinatorUnreachableError  no coordinator answers an operator's call: see whether it is up
├── RunStateError        a run is not where the operator takes it to be: look at its state first
└── RunCancelledError    an operator cancelled the run: resume it to go on
```

A wrong order of calls by our own code is a `RuntimeError`. No message carries an identifier, a
hash of one, or a feature value.
"""

from collections.abc import Sequence
from pathlib import Path

__all__ = [
    "CollaborationError",
    "CoordinatorUnreachableError",
    "EnrolmentError",
    "FederationError",
    "ForgedError",
    "MessageError",
    "PartyBusyError",
    "PartyUnreachableError",
    "RefusedError",
    "ReplicaError",
    "RunCancelledError",
    "RunStateError",
    "StrangerError",
    "SuperLinkError",
    "TakenOverError",
    "UnsealingError",
    "VersionError",
    "WorkspaceError",
]


class FederationError(Exception):
    """Root of everything that `federation` raises on purpose."""


class CollaborationError(FederationError):
    """A collaboration file has mistakes; all of them are listed.

    Attributes:
        path: the file.
        mistakes: one line a mistake: key, what was found, what is allowed.
        remedy: what else would mend all of them at once, if anything does.
    """

    def __init__(self, path: Path, mistakes: Sequence[str], *, remedy: str = "") -> None:
        self.path = path
        self.mistakes = tuple(mistakes)
        self.remedy = remedy
        count = len(self.mistakes)
        head = f"{path}: {count} mistake{'' if count == 1 else 's'}"
        lines = [head, *(f"  {line}" for line in self.mistakes)]
        super().__init__("\n".join([*lines, remedy] if remedy else lines))


class UnsealingError(FederationError):
    """A secret on disk cannot be had: changed, or the unsealing key is missing or another."""


class WorkspaceError(FederationError):
    """A workspace or party folder holds something else than what was asked for."""


class PartyBusyError(FederationError):
    """A job is at work in a party's folder, and will be for a while; nothing was done."""


class ReplicaError(FederationError):
    """The copy of a party's folder cannot be kept up to date or had; nothing left the party."""


class TakenOverError(ReplicaError):
    """Another machine has restored a party's folder and goes on from there; this one must not."""


class MessageError(FederationError):
    """A message breaks the protocol: wrong signature, agreement, order, size or content."""


class VersionError(MessageError):
    """A party runs a version of this project that does not fit the one here.

    Attributes:
        party: whose message or node it is, by its own account, which nobody has verified.
    """

    def __init__(self, told: str, *, party: str | None = None) -> None:
        self.party = party
        super().__init__(told)

    def with_remedy(self, more: str) -> "VersionError":
        """Return it with more to say of what is to be done, which begins with a mark."""
        return VersionError(f"{self}{more}", party=self.party)


class StrangerError(MessageError):
    """A message is of somebody who is no party of the agreement."""


class ForgedError(MessageError):
    """A message is none of ours, or not signed by whom it names: it proves nothing of a sender."""


class RefusedError(FederationError):
    """A term of the agreement, or a party's own rule, says no.

    Attributes:
        party: who refused.
        term: the term that refused, as a dotted path such as `match.minimum_match`.
        remedy: the smallest change that would pass.
    """

    def __init__(self, *, party: str, term: str, remedy: str) -> None:
        self.party = party
        self.term = term
        self.remedy = remedy
        super().__init__(f"refused by {party} under {term}: {remedy}")

    def with_remedy(self, more: str) -> "RefusedError":
        """Return it with more to say of what is to be done, which begins with a mark."""
        return RefusedError(party=self.party, term=self.term, remedy=f"{self.remedy}{more}")


class PartyUnreachableError(FederationError):
    """A party gave no answer in time, or its process failed before it could answer."""


class EnrolmentError(FederationError):
    """An invitation, a registration or a signature is not what it must be; it was not used."""


class SuperLinkError(FederationError):
    """A SuperLink does not take this party's node, or is not the one that was meant."""


class CoordinatorUnreachableError(FederationError):
    """No coordinator answers an operator's call, or it is not the one that was meant."""


class RunStateError(FederationError):
    """A run is in another state than what was asked for needs, or there is no such run."""


class RunCancelledError(FederationError):
    """An operator cancelled the run that is under way."""
