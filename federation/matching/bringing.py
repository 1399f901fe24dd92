"""What a party brings to a match or an alignment: its people, and the set made of them.

```
jobs/JOB/
  people.npz   who takes part
  set/         their tokens (`token_set`)
```

Guarantees: both are read once for a job; a set that has more identifiers than was declared, or
differs too much from the last one, is refused before anything of it leaves, and read anew.

Leaves to others: who may be used (`population`), limits over time (`history`), and what
becomes of the set.
"""

import hmac

import numpy as np

from federation.desk import Desk, undamaged
from federation.errors import MessageError, RefusedError
from federation.matching.history import MatchHistory
from federation.matching.token_set import MatchingSet, TokenBatch
from federation.members import Members
from federation.messages import MatchSide
from federation.population import recipe_for, tokens_allowed
from privacy.psi.buckets import padded_count
from privacy.randomness import Secret, derive_secret

__all__ = ["bring", "check_side", "commitment", "commitment_key", "people_of"]


def bring(
    desk: Desk, job: str, history: MatchHistory, *, most: int, told: bool, key: str | None = None
) -> MatchingSet:
    """Return the set that a party brings to a job, which is read at first use.

    Args:
        desk: the party's.
        job: its name.
        history: what the party has matched before.
        most: identifiers that the set may have.
        told: whether anybody was told of the set: then it stays as it is.
        key: the one of the agreed keys that is brought, and of each person only the first
            identifier; all keys and identifiers where left out.

    Raises:
        RefusedError: the set has more identifiers, or differs more from the last one, than agreed;
            or the job was matched before, and its set is gone.
        WorkspaceError: the set is damaged, or the disk is full.
    """
    directory, terms = desk.folder.job(job), desk.agreement.match
    own = MatchingSet.open(directory / "set")
    if own is None:
        if not told:
            history.check_new(job)
        people = desk.people(job, terms.purpose)
        desk.tell_findings(job, people)
        desk.tell(job, "brings its people to the match", people.used)
        Members(people.used, np.zeros(0, dtype=np.str_)).save(directory / "people.npz")
        tokens = people.tokens
        if key is not None:
            tokens = _first_of_rank(tokens, recipe_for(terms).rank(key))
        own = MatchingSet.write(directory / "set", [tokens])
    try:
        if own.token_count > most:
            raise desk.refusal(
                "datasets.declared_rows",
                f"more identifiers than the {most} that its data set may bring: declare more rows",
            )
        history.check_change(own, terms, key=key)
    except RefusedError:
        if not told:
            own.discard()
        raise
    return own


def check_side(desk: Desk, side: MatchSide, party: str, *, width: int = 1) -> None:
    """Hold what another party says of its set against the agreement, before any computing.

    Args:
        desk: this party's.
        side: what the other says.
        party: its name.
        width: points that stand for each of its records; 1 where its identifiers stand alone.

    Raises:
        RefusedError: it normalises otherwise, or brings more than its data set may.
        MessageError: it pads its set otherwise than agreed.
    """
    terms = desk.agreement.match
    if side.recipe != recipe_for(terms).fingerprint():
        raise desk.refusal(
            "match.recipe",
            f"{party} normalises identifiers otherwise: install the same versions of "
            "phonenumbers and email-validator at both",
        )
    bucket, agreement = terms.set_size_bucket, desk.agreement
    if side.points != padded_count(side.points, bucket * width):
        raise MessageError(f"{party} padded its set to no multiple of {bucket * width}")
    allowed = tokens_allowed(agreement, party)
    if width > 1:
        allowed = agreement.dataset(party).declared_rows
    most = padded_count(allowed, bucket) * width
    if side.points > most:
        raise desk.refusal(
            "datasets.declared_rows",
            f"{party} brings more identifiers than the {most} that its data set may: agree on "
            "more rows",
        )


def people_of(desk: Desk, job: str) -> Members:
    """Return who takes part in a job for which a set was brought."""
    path = desk.folder.job(job) / "people.npz"
    with undamaged(path):
        return Members.load(path)


def commitment_key(secret: Secret) -> Secret:
    """Return the key that opens a commitment to an auditor."""
    return derive_secret(secret, "match commitment")


def commitment(secret: Secret, own: MatchingSet) -> str:
    """Return what binds the holder of `secret` to a set, and tells nothing of it (hex)."""
    return hmac.digest(commitment_key(secret), bytes.fromhex(own.digest), "sha256").hex()


def _first_of_rank(tokens: TokenBatch, rank: int) -> TokenBatch:
    """Return of each row the first token of the key of that rank, if it has one."""
    found = np.flatnonzero(tokens.ranks == rank)
    first = found[np.unique(tokens.rows[found], return_index=True)[1]]
    return TokenBatch(tokens.tokens[first], tokens.rows[first], tokens.ranks[first])
