"""Which keys of a party's log may sign heads of which sizes, after an amendment replaced them.

```
 leaf   0 … i-1            i                    i+1 …
        under version 1    agreement.signed     key.rotated, and all that follows under version 2
 heads  of up to i         of more than i entries
        keys of version 1  keys of version 2
```

Guarantees: **the last head that the keys of a version sign alone has as many entries as stand
before the leaf `agreement.signed` of the next version**: i entries, if that is leaf i. The head
with that leaf bears the signatures of old and new keys (`LogWriter.hand_over`), all later ones
those of the new keys alone. A head of more than i entries that the old keys alone signed is
refused, whatever it holds: who has only those cannot make one that counts, and of one with fewer
entries the log itself says whether it begins with it. The same sizes part witnesses and quorums of
the versions.

Leaves to others: versions that are not at hand; a log that never says that it took one over is read
under the one before, and said to do so (`leaves.opening`).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from compliance.agreement import Agreement
from compliance.auditing.trust import log_keys, policy_for
from compliance.errors import LogCorruptedError, SignatureError
from compliance.lifecycle import Succession
from compliance.log.checkpoint import Checkpoint
from compliance.log.note import Note
from compliance.log.policy import LogKey, Policy, PublicCheckpoint, open_checkpoint
from compliance.records import AgreementSigned, Record

__all__ = ["Cryptoperiod", "KeyNotInForceError", "check_in_force", "check_public", "cryptoperiods"]


class KeyNotInForceError(LogCorruptedError):
    """A head is signed by keys of the log that may not sign a head of that size.

    Attributes:
        replaced: from when on the version that replaced those keys is in force; None where no
            version did, so that only the party has them.
    """

    def __init__(self, message: str, replaced: datetime | None) -> None:
        super().__init__(message)
        self.replaced = replaced


@dataclass(frozen=True)
class Cryptoperiod:
    """The sizes of heads for which a version of the agreement names keys and witnesses.

    Attributes:
        version: of the agreement.
        party: whose log.
        first: the least number of entries.
        last: the largest; None where no later version was taken over.
    """

    version: Agreement
    party: str
    first: int
    last: int | None = None

    @property
    def keys(self) -> tuple[LogKey, ...]:
        """Each of them signs every head."""
        return log_keys(self.version.party(self.party))

    def covers(self, tree_size: int) -> bool:
        """Whether a head of that many entries is signed under this version."""
        return self.first <= tree_size and (self.last is None or tree_size <= self.last)

    def __str__(self) -> str:
        until = "on" if self.last is None else f"to {self.last}"
        return f"those of version {self.version.number} from {self.first} {until}"


def cryptoperiods(
    succession: Succession, party: str, leaves: Sequence[Record]
) -> tuple[Cryptoperiod, ...]:
    """Return the periods of a log, in order; a version that it has not taken over has none."""
    versions = [
        one for one in succession.versions if party in {other.name for other in one.parties}
    ]
    found, following = [(versions[0], 0)], [(one, one.digest) for one in versions[1:]]
    for index, leaf in enumerate(leaves):
        if not following:
            break
        if isinstance(leaf, AgreementSigned) and leaf.agreement == following[0][1]:
            found.append((following.pop(0)[0], index + 1))
    ends = [start - 1 for _, start in found[1:]]
    return tuple(
        Cryptoperiod(version, party, start, last)
        for (version, start), last in zip(found, (*ends, None), strict=True)
    )


def check_in_force(signed: bytes, periods: Sequence[Cryptoperiod]) -> Checkpoint:
    """Return a head that the keys signed which sign heads of its size.

    Raises:
        KeyNotInForceError: other keys of the log signed it.
        LogCorruptedError: none did, or it is malformed.
    """
    try:
        claimed = Checkpoint.from_body(Note.parse(signed).text)
    except SignatureError as error:
        raise LogCorruptedError(f"checkpoint: {error}") from error
    (covering,) = (one for one in periods if one.covers(claimed.tree_size))
    try:
        return open_checkpoint(signed, covering.keys)[0]
    except LogCorruptedError as error:
        if signing := tuple(_signed_by(signed, periods)):
            other = signing[-1]
            following = periods[periods.index(other) + 1 :]
            raise KeyNotInForceError(
                f"a head of {claimed.origin!r} with {claimed.tree_size} entries is signed by the "
                f"keys of version {other.version.number} alone: expected "
                f"{', '.join(map(str, periods))}; whoever has replaced keys can sign no more",
                following[0].version.valid_from if following else None,
            ) from error
        raise


def check_public(
    signed: bytes, periods: Sequence[Cryptoperiod], policy: Policy | None = None
) -> PublicCheckpoint:
    """Return a head that was made public under the version that its size belongs to.

    Args:
        signed: with cosignatures.
        periods: of the log.
        policy: what makes a head public; that version's where None.

    Raises:
        LogCorruptedError: as `check_in_force`, or a cosignature is not valid.
        NotPublicError: too few witnesses cosigned it.
    """
    head = check_in_force(signed, periods)
    (covering,) = (one for one in periods if one.covers(head.tree_size))
    return (policy or policy_for(covering.version, covering.party)).check(signed)


def _signed_by(signed: bytes, periods: Sequence[Cryptoperiod]) -> Iterator[Cryptoperiod]:
    for period in periods:
        try:
            open_checkpoint(signed, period.keys)
        except LogCorruptedError:
            continue
        yield period
