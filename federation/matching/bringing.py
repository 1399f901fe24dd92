"""What a party brings to a match or an alignment: its people, and the set made of them.

```
jobs/JOB/
  people/        who takes part (`members`)
  set/           their tokens (`token_set`)
  reading.tmp/   while they are read
```

Guarantees: both are read once for a job; a set that has more identifiers than was declared, or
differs too much from the last one, is refused before anything of it leaves, and read anew.

Leaves to others: who may be used (`population`), limits over time (`history`), and what
becomes of the set.
"""

import hmac
import shutil
from pathlib import Path

import numpy as np

from federation.desk import Desk
from federation.errors import MessageError, RefusedError
from federation.matching.history import MatchHistory
from federation.matching.token_set import MatchingSet
from federation.members import Members, save_people
from federation.messages import MatchSide
from federation.population import Use, recipe_for, tokens_allowed
from federation.shelves import scratch
from privacy.identifiers import recipe_fingerprint
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
    shutil.rmtree(directory / "reading.tmp", ignore_errors=True)  # a crash may have left it
    if own is None:
        if not told:
            history.check_new(job)
        own = _read(desk, job, directory, key)
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
    if side.recipe != recipe_fingerprint(recipe_for(terms)):
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


def _read(desk: Desk, job: str, directory: Path, key: str | None) -> MatchingSet:
    """Read the people and their tokens.

    1. The people; those of an earlier reading that was cut short are swept away.
    2. Their consents, as they were heard.
    3. Their tokens: only with these are they there (`MatchingSet`).
    """
    place, use = directory / "people", Use(desk.agreement.match.purpose, desk.clock(), key=key)
    with scratch(directory / "reading.tmp") as beside:
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(mode=0o700)
        people = desk.population(job, use, beside, place)  # 1
        save_people(place, people.used)
        desk.gate.consent.keep(job, people.heard, people.heard_rows, people.used)  # 2
        desk.tell_findings(job, people)
        desk.tell(job, "brings its people to the match", people.used)
        return MatchingSet.write_sorted(directory / "set", people.tokens)  # 3


def people_of(desk: Desk, job: str) -> Members:
    """Return who takes part in a job for which a set was brought; nobody is a member yet."""
    return Members(desk.taking_part(job), np.zeros(0, dtype=np.uint32))


def commitment_key(secret: Secret) -> Secret:
    """Return the key that opens a commitment to an auditor."""
    return derive_secret(secret, "match commitment")


def commitment(secret: Secret, own: MatchingSet) -> str:
    """Return what binds the holder of `secret` to a set, and tells nothing of it (hex)."""
    return hmac.digest(commitment_key(secret), bytes.fromhex(own.digest), "sha256").hex()
