"""An agreement's life: draft, partly signed, signed, active, amended, ended.

```
 draft ──sign──> partly signed ──last signature──> signed ──valid_from──> active
                                                                         │     │
                                           a later version, by all ──> amended │
                                   a party's notice, or valid_until ──> ended <┘
```

Guarantees: a state follows from signed documents and a moment alone, never from a mark that
somebody set. A `Succession` that exists is one chain: each version is signed by all, names the one
before by its digest, counts on from it, and keeps its logs by their names, those of parties that
come back by their keys too, so that budget, log and history go on under it. A party that stays may
replace the keys of its log; no key that a log gave up comes back. A notice counts if the party that
gives it signed it, for a version that is there, and no sooner than that version's terms allow.

Leaves to others: where the documents lie and the clock (`federation.adoption`), refusing releases
(`federation.gate`).
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from itertools import pairwise
from typing import Final, Literal, Self

from compliance.agreement import Agreement, SignedAgreement, iso
from compliance.errors import InvalidAgreementError
from compliance.log.note import NoteKey
from compliance.notice import Notice, SignedNotice
from compliance.terms import EarlierParty, PartyTerm

__all__ = [
    "Ending",
    "ReplacedKey",
    "State",
    "Status",
    "Succession",
    "amend",
    "check_amendment",
    "in_force",
    "replaced_keys",
    "status_of",
]


class State(StrEnum):
    """Where a version of an agreement stands at a moment."""

    DRAFT = "draft"
    PARTLY_SIGNED = "partly-signed"
    SIGNED = "signed"
    """By all; its time has yet to come."""
    ACTIVE = "active"
    AMENDED = "amended"
    ENDED = "ended"


class Ending(StrEnum):
    """Why a version ends."""

    TIME = "time"
    NOTICE = "notice"


@dataclass(frozen=True)
class Status:
    """Where a version stands at a moment.

    Attributes:
        number: which version.
        state: where it stands.
        missing: parties that have yet to sign.
        ends: when it ends or ended, by what is known; None for what is not signed by all.
        ending: why.
        notice: the notice by which it ends, if any.
        amended_by: digest of the version that takes its place, if there is one.
        amended_from: when that one does.
    """

    number: int
    state: State
    missing: tuple[str, ...] = ()
    ends: datetime | None = None
    ending: Ending | None = None
    notice: Notice | None = None
    amended_by: str | None = None
    amended_from: datetime | None = None


KeyName = Literal["identity_key", "encryption_key", "log_key", "cosigning_key"]
_KEYS: Final[tuple[KeyName, ...]] = ("identity_key", "encryption_key", "log_key", "cosigning_key")


@dataclass(frozen=True)
class ReplacedKey:
    """A key of a party that a version replaces.

    Attributes:
        key: the term that names it.
        old_digest: hexadecimal SHA-256 of the key as the earlier version spells it.
        new_digest: as the later one does.
    """

    key: KeyName
    old_digest: str
    new_digest: str


def replaced_keys(before: PartyTerm, after: PartyTerm) -> tuple[ReplacedKey, ...]:
    """Return which keys of a party one version replaces by others, in the order of their terms."""
    named = ((key, getattr(before, key), getattr(after, key)) for key in _KEYS)
    return tuple(
        ReplacedKey(key, *(hashlib.sha256(one.encode()).hexdigest() for one in (old, new)))
        for key, old, new in named
        if None not in (old, new) and old != new
    )


class Succession:
    """The versions of one agreement, each signed by all, and the notices about them.

    Attributes:
        versions: by number, rising by one; the first at hand need not be number 1, as a party may
            have joined later.
        notices: those of which the version is at hand, the earliest in effect first.
    """

    def __init__(self, versions: Sequence[Agreement], notices: Mapping[Notice, datetime]) -> None:
        self.versions = tuple(versions)
        self.notices = tuple(sorted(notices, key=lambda one: (notices[one], one.digest)))
        self._effective = dict(notices)

    @classmethod
    def of(cls, signed: Iterable[SignedAgreement], notices: Iterable[SignedNotice] = ()) -> Self:
        """Verify documents and put them in order.

        1. Every version is signed by all its parties; a copy of one counts once.
        2. Each but the first at hand amends the one before (`check_amendment`), and names no key of
           a log that a version before it had replaced.
        3. Every notice is given by a party of a version at hand, under its terms.

        Raises:
            InvalidAgreementError: there is no version, or one of the steps fails.
            AlteredAgreementError, UnsignedAgreementError: step 1 fails.
        """
        found = {agreement.digest: agreement for agreement in (one.verify() for one in signed)}
        versions = sorted(found.values(), key=lambda one: one.number)  # 1
        if not versions:
            raise InvalidAgreementError("expected at least one signed agreement, got none")
        for before, after in pairwise(versions):
            check_amendment(before, after)  # 2
        if revived := next(_revived(versions), None):
            raise InvalidAgreementError(revived)
        told: dict[Notice, datetime] = {}
        for notice in notices:
            about = notice.unverified().agreement
            if about not in found:
                raise InvalidAgreementError(
                    f"a notice is about agreement {about[:16]}…, which is not at hand: bring it"
                )
            told[notice.verify(found[about])] = notice.effective_from(found[about])  # 3
        return cls(versions, told)

    @property
    def latest(self) -> Agreement:
        """The version of the highest number."""
        return self.versions[-1]

    def version(self, digest: str) -> Agreement:
        """Return the version of that digest.

        Raises:
            InvalidAgreementError: none at hand has it.
        """
        for one in self.versions:
            if one.digest == digest:
                return one
        raise InvalidAgreementError(
            f"no version of agreement {self.latest.name!r} at hand has digest {digest[:16]}…"
        )

    def term_before(self, agreement: Agreement, name: str) -> PartyTerm | None:
        """Return a party as the last version before this one names it; None if none does."""
        named = [
            one
            for version in self.versions
            if version.number < agreement.number
            for one in version.parties
            if one.name == name
        ]
        return named[-1] if named else None

    def check_next(self, agreement: Agreement) -> None:
        """Return only if a version, signed or not, can follow the last one.

        Raises:
            InvalidAgreementError: everything that stands against it.
        """
        check_amendment(self.latest, agreement)
        if revived := next(_revived((*self.versions, agreement)), None):
            raise InvalidAgreementError(revived)

    def status(self, agreement: Agreement, at: datetime) -> Status:
        """Say where a version stands at a moment, which has a time zone."""
        after = self.versions[self.versions.index(agreement) + 1 :]
        following = after[0] if after else None
        notice = self._notice_of(agreement)
        ends, ending = agreement.valid_until, Ending.TIME
        if notice is not None and self._effective[notice] < ends:
            ends, ending = self._effective[notice], Ending.NOTICE
        amended = min((one.valid_from for one in after), default=None)
        if at < agreement.valid_from and at < ends:
            state = State.SIGNED
        elif amended is not None and amended <= min(at, ends):
            state = State.AMENDED
        else:
            state = State.ACTIVE if at < ends else State.ENDED
        return Status(
            number=agreement.number,
            state=state,
            ends=ends,
            ending=ending,
            notice=notice if ending is Ending.NOTICE else None,
            amended_by=None if following is None else following.digest,
            amended_from=amended,
        )

    def in_force(self, at: datetime) -> Agreement | None:
        """Return the version that is in force at a moment, which has a time zone; None if none."""
        for one in self.versions:
            if self.status(one, at).state is State.ACTIVE:
                return one
        return None

    def effective_from(self, notice: Notice) -> datetime:
        """Return the moment from which a notice at hand is heeded here."""
        return self._effective[notice]

    def _notice_of(self, agreement: Agreement) -> Notice | None:
        """Return the notice that ends a version first: one about it, or about a later one."""
        ended_with = {one.digest for one in self.versions if one.number >= agreement.number}
        return next((one for one in self.notices if one.agreement in ended_with), None)


def in_force(
    signed: Iterable[SignedAgreement], notices: Iterable[SignedNotice], at: datetime
) -> Agreement | None:
    """Return which of an agreement's versions is in force at a moment; None if none is.

    Args:
        signed: all versions at hand, in any order; drafts do not belong here.
        notices: all notices at hand.
        at: the moment, with a time zone.

    Raises:
        InvalidAgreementError: as `Succession.of`.
    """
    return Succession.of(signed, notices).in_force(at)


def status_of(
    signed: SignedAgreement,
    at: datetime,
    *,
    versions: Iterable[SignedAgreement] = (),
    notices: Iterable[SignedNotice] = (),
) -> Status:
    """Say where a version stands at a moment, signed by all or not.

    Args:
        signed: the version.
        at: the moment, with a time zone.
        versions: others of the same agreement, each signed by all.
        notices: about any of them.

    Raises:
        InvalidAgreementError: a document is altered, or they are no succession.
    """
    agreement = signed.unverified()
    signers = signed.signed_by
    missing = tuple(one.name for one in agreement.parties if one.name not in signers)
    if missing:
        state = State.PARTLY_SIGNED if signers else State.DRAFT
        return Status(agreement.number, state, missing=missing)
    return Succession.of((signed, *versions), notices).status(agreement, at)


def amend(before: Agreement, terms: Mapping[str, object]) -> Agreement:
    """Draw up the next version of an agreement.

    Args:
        before: the version that it amends.
        terms: what changes, by field; `valid_from` is the moment from which it holds.

    Raises:
        InvalidAgreementError: the terms contradict each other, or cannot follow `before`.
    """
    fields = {name: getattr(before, name) for name in Agreement.model_fields} | dict(terms)
    draft = Agreement.from_terms(fields | {"amends": None})
    takes_over = {
        "number": before.number + 1,
        "supersedes": before.digest,
        "first": before.lineage,
        "cut_delta": before.cut_delta_until(min(draft.valid_from, before.valid_until)),
        "earlier": _until(before),
    }
    after = Agreement.from_terms(fields | {"amends": takes_over})
    check_amendment(before, after)
    return after


def check_amendment(before: Agreement, after: Agreement) -> None:
    """Return only if a version can take the place of the one before.

    Raises:
        InvalidAgreementError: everything that stands against it.
    """
    if mistakes := tuple(_against(before, after)):
        raise InvalidAgreementError(
            f"version {after.number} of agreement {after.name!r} does not amend version "
            f"{before.number}: {'; '.join(mistakes)}"
        )


def _against(before: Agreement, after: Agreement) -> Iterator[str]:
    if after.number != before.number + 1:
        yield f"expected number {before.number + 1}, got {after.number}"
    if after.supersedes != before.digest:
        yield f"it supersedes {(after.supersedes or 'nothing')[:16]}…, not {before.digest[:16]}…"
    if after.lineage != before.lineage:
        yield f"it began as {after.lineage[:16]}…, not as {before.lineage[:16]}…"
    if after.name != before.name:
        yield f"it is called {after.name!r}, not {before.name!r}"
    if not after.valid_from > before.valid_from:
        yield f"valid_from: expected after {iso(before.valid_from)}, got {iso(after.valid_from)}"
    took = before.cut_delta_until(min(after.valid_from, before.valid_until))
    if after.amends is not None and after.amends.cut_delta < took:
        yield f"amends.cut_delta: expected {took!r} or more, got {after.amends.cut_delta!r}"
    yield from _against_parties(before, after)


def _against_parties(before: Agreement, after: Agreement) -> Iterator[str]:
    """Say who does not go on as the party that it was, in the version before or any earlier one."""
    earlier = _until(before)
    if after.amends is not None and after.amends.earlier != earlier:
        names = ", ".join(one.name for one in earlier)
        yield f"amends.earlier: expected {names}, in this order, as they were"
    named = {one.name: one for one in earlier}
    owners = {NoteKey.from_string(one.log_key).key: one.name for one in earlier}
    for party in after.parties:
        if (known := named.get(party.name)) is not None:
            if party.role is not known.role:
                yield f"{party.name!r} changes its role: give it another name"
        elif (owner := owners.get(NoteKey.from_string(party.log_key).key)) is not None:
            yield f"{party.name!r} has the log key of {owner!r}: it keeps its name, or brings a log"
    staying = {one.name: one for one in before.parties}
    for party in after.parties:
        if (stayed := staying.get(party.name)) is not None:
            yield from _changed_log(stayed, party)
        elif (known := named.get(party.name)) and known.log_key != party.log_key:
            yield f"{party.name!r} comes back with another log key: replace it in a later version"


def _until(before: Agreement) -> tuple[EarlierParty, ...]:
    """Return every party of a version and of those before it."""
    named = {one.name: one for one in before.earlier}
    for one in before.parties:
        named[one.name] = EarlierParty(name=one.name, role=one.role, log_key=one.log_key)
    return tuple(named[name] for name in sorted(named))


def _changed_log(before: PartyTerm, after: PartyTerm) -> Iterator[str]:
    """Say what a party that stays may not change of its log: its name, or how many keys sign it."""
    old, new = (NoteKey.from_string(one.log_key).name for one in (before, after))
    if old != new:
        yield f"{after.name!r} calls its log {new!r}, which goes on as {old!r}: keep its name"
    if before.cosigning_key is not None and after.cosigning_key is None:
        yield f"{after.name!r} gives up its cosigning key: replace it"


def _revived(versions: Sequence[Agreement]) -> Iterator[str]:
    """Say which keys of logs come back though a version had replaced them."""
    gone: set[str] = set()
    held: dict[str, PartyTerm] = {}
    for version in versions:
        for party in version.parties:
            named = {key for key in (party.log_key, party.cosigning_key) if key is not None}
            if named & gone:
                yield (
                    f"version {version.number} names a key of the log of {party.name!r} that a "
                    "version before it had replaced: make a new one"
                )
            before = held.get(party.name, party)
            gone |= {key for key in (before.log_key, before.cosigning_key) if key} - named
            held[party.name] = party
