"""Checks of one log: its opening, its order, what left it, and what it paid.

Each check takes a log and rules, and yields findings; none knows of another.
"""

from collections.abc import Iterator
from itertools import count
from operator import itemgetter
from typing import Final

from compliance import records
from compliance.auditing.budget import Charges
from compliance.auditing.finding import Finding, FindingKind
from compliance.auditing.party_log import PartyLog
from compliance.auditing.rules import Computation, Rules
from compliance.lifecycle import ReplacedKey
from compliance.naming import named
from compliance.terms import Role

__all__ = [
    "approvals",
    "budget",
    "cohorts",
    "consent",
    "decisions",
    "opening",
    "order",
    "refused_calls",
    "rotations",
    "routes",
    "validity",
]

_EVERYONE = "everyone"
_CHARGING: Final[tuple[type[records.Record], ...]] = (
    records.BudgetReserved,
    records.Release,
    records.BudgetCommitted,
    records.BudgetRefunded,
)


def opening(log: PartyLog, rules: Rules) -> Iterator[Finding]:
    """The agreement is the first leaf and no other, and names its parties."""
    if not log.records:
        text = f"the log of {log.party} is empty: expected agreement.signed as leaf 0"
        yield Finding(FindingKind.NOT_OPENED, log.party, (), text)
        return
    if not isinstance(log.records[0], records.AgreementSigned):
        yield log.finding(FindingKind.NOT_OPENED, 0, "stands where agreement.signed must")
    before = log.succession.versions[0]
    for index, leaf, agreement, _ in log.walk(rules, records.AgreementSigned):
        taken_over, before = agreement is not before, agreement
        if index and not taken_over:
            yield log.finding(FindingKind.OPENED_AGAIN, index, "opens the log a second time")
        elif set(named(leaf.parties, agreement)) != {party.name for party in agreement.parties}:
            yield log.finding(
                FindingKind.OTHER_PARTIES, index, "names other parties than the agreement"
            )
        elif leaf.supersedes != agreement.supersedes:
            text = "takes the place of another version than the agreement says"
            yield log.finding(FindingKind.OTHER_VERSION, index, text)
    if before != log.succession.latest:
        text = (
            f"the log of {log.party} ends under version {before.number} of the agreement, and "
            f"version {log.succession.latest.number} is at hand"
        )
        yield Finding(FindingKind.OTHER_VERSION, log.party, (), text)


def rotations(log: PartyLog, rules: Rules) -> Iterator[Finding]:
    """Keys that a version replaces are told right after it is taken over, and no others ever."""
    before = log.succession.versions[0]
    awaited: set[ReplacedKey] = set()
    since, right_after = 0, 0
    for index, leaf, agreement, _ in log.walk(rules, records.AgreementSigned, records.KeyRotated):
        if isinstance(leaf, records.AgreementSigned) or index != right_after:
            yield from _untold(log, awaited, since)
            awaited = set()
        if isinstance(leaf, records.KeyRotated):
            told = ReplacedKey(leaf.key, leaf.old_key_digest, leaf.new_key_digest)
            if told not in awaited:
                text = f"tells of a {leaf.key} that the agreement did not replace here"
                yield log.finding(FindingKind.ROTATED_OTHERWISE, index, text)
            awaited.discard(told)
        elif agreement is not before:
            before, since = agreement, index
            awaited = log.replaced_by(agreement)
        right_after = index + 1
    yield from _untold(log, awaited, since)


def _untold(log: PartyLog, awaited: set[ReplacedKey], since: int) -> Iterator[Finding]:
    if awaited:
        keys = ", ".join(sorted(one.key for one in awaited))
        text = f"takes over a version that replaces {keys}, and no leaf key.rotated says so"
        yield log.finding(FindingKind.ROTATED_OTHERWISE, since, text)


def order(log: PartyLog, rules: Rules) -> Iterator[Finding]:
    """Every leaf is of this party, under this agreement, and not before the one before it."""
    del rules
    digests = {id(one): one.digest for one in log.succession.versions}
    latest, current, digest = None, None, ""
    for index, leaf, agreement in zip(count(), log.records, log.obeyed, strict=False):
        if agreement is not current:
            current, digest = agreement, digests[id(agreement)]
        if leaf.party != log.party:
            yield log.finding(FindingKind.FOREIGN_PARTY, index, f"is of {leaf.party}")
        if leaf.agreement != digest:
            text = f"is under agreement {leaf.agreement[:16]}…, expected {digest[:16]}…"
            yield log.finding(FindingKind.FOREIGN_AGREEMENT, index, text)
        if latest is not None and leaf.time < latest:
            text = "is dated before the leaf before it: the clock was put back"
            yield log.finding(FindingKind.TIME_BACKWARDS, index, text)
        else:
            latest = leaf.time


def validity(log: PartyLog, rules: Rules) -> Iterator[Finding]:
    """Nothing leaves outside the agreement's time, or after its end."""
    ended: int | None = None
    current = None
    for index, leaf, agreement, _ in log.walk(rules, records.AgreementEnded, records.Release):
        if agreement is not current:
            current, ended = agreement, None
            notice = log.succession.status(agreement, agreement.valid_until).notice
        if isinstance(leaf, records.AgreementEnded):
            ended = index
        if not isinstance(leaf, records.Release):
            continue
        if ended is not None:
            text = "releases, though the agreement had ended"
            yield log.finding(FindingKind.AFTER_END, (ended, index), text)
        elif notice is not None and leaf.time >= notice.effective_from:
            text = f"releases, though notice of {notice.party} had ended the agreement"
            yield log.finding(FindingKind.AFTER_END, index, text)
        elif not agreement.valid_from <= leaf.time < agreement.valid_until:
            text = "releases at a time for which the agreement is not in force"
            yield log.finding(FindingKind.OUTSIDE_VALIDITY, index, text)


def refused_calls(log: PartyLog, rules: Rules) -> Iterator[Finding]:
    """Calls that a coordinator refused are told once, window after window."""
    del rules
    last: tuple[int, records.CallsRefused] | None = None
    for index, leaf in log.each(records.CallsRefused):
        if leaf.since > leaf.time:
            text = "tells of calls that were refused after it"
            yield log.finding(FindingKind.CALLS_COUNTED_TWICE, index, text)
        elif last is not None and leaf.since <= last[1].since:
            text = "tells of refused calls from when on an earlier leaf had told of them"
            yield log.finding(FindingKind.CALLS_COUNTED_TWICE, (last[0], index), text)
        last = index, leaf


def decisions(log: PartyLog, rules: Rules) -> Iterator[Finding]:
    """Policies allowed every release, to this recipient, and it left once for each decision."""
    del rules
    asked: dict[str, tuple[int, records.AccessDecided]] = {}
    for index, leaf in log.each(records.AccessDecided, records.Release):
        if isinstance(leaf, records.AccessDecided):
            asked[leaf.release_id] = (index, leaf)
        if not isinstance(leaf, records.Release):
            continue
        place, decided = asked.pop(leaf.release_id, (None, None))
        if place is None or decided is None:
            text = "releases what no policy had allowed"
            yield log.finding(FindingKind.UNDECIDED, index, text)
        elif not decided.allowed:
            text = "releases what policy had denied"
            yield log.finding(FindingKind.DENIED, (place, index), text)
        elif (decided.computation, decided.recipient) != (leaf.computation, leaf.recipient):
            text = "releases something else, or to somebody else, than policy had allowed"
            yield log.finding(FindingKind.UNDECIDED, (place, index), text)


def routes(log: PartyLog, rules: Rules) -> Iterator[Finding]:
    """What left may be said by this role to that role."""
    current = None
    for index, leaf, agreement, held in log.walk(rules, records.Release):
        if agreement is not current:
            current = agreement
            roles = {party.name: party.role for party in agreement.parties}
            own = roles.get(log.party)
        if (said := held.computations.get(leaf.computation)) is None:
            continue  # the budget check says so
        recipient: Role | None = roles.get(leaf.recipient)
        everyone = leaf.recipient == _EVERYONE
        wrong = (
            own not in said.senders
            or leaf.recipient == log.party
            or everyone is not said.to_everyone
            or not (everyone or recipient in said.recipients)
            or (recipient == own and not said.within_role)
        )
        if wrong:
            text = f"releases {leaf.computation} to {leaf.recipient}, who may not be told it"
            yield log.finding(FindingKind.OFF_ROUTE, index, text)


def consent(log: PartyLog, rules: Rules) -> Iterator[Finding]:
    """Consent was read just before whatever concerns people, for a purpose that is agreed."""
    read: tuple[int, records.ConsentUsed] | None = None
    kinds = (records.AccessDecided, records.ConsentUsed, records.Release)
    for index, leaf, agreement, held in log.walk(rules, *kinds):
        if isinstance(leaf, records.AccessDecided):
            read = None
        elif isinstance(leaf, records.ConsentUsed):
            read = (index, leaf)
            if leaf.eligible + sum(leaf.excluded.values()) != leaf.rows:
                text = "does not add up: expected rows to be those eligible and those excluded"
                yield log.finding(FindingKind.CONSENT_MISCOUNTED, index, text)
            if leaf.purpose not in agreement.purposes:
                text = f"asks for purpose {leaf.purpose!r}, which the agreement does not declare"
                yield log.finding(FindingKind.PURPOSE_NOT_AGREED, index, text)
        elif isinstance(leaf, records.Release):
            said = held.computations.get(leaf.computation)
            unread = read is None or read[1].job != leaf.job
            if said is not None and said.concerns_people and unread:
                text = f"releases {leaf.computation} without having read consent for it"
                yield log.finding(FindingKind.CONSENT_UNREAD, index, text)
            elif said is not None and read is not None:
                yield from _otherwise(log, index, read[0], said)
            read = None


def _otherwise(log: PartyLog, index: int, place: int, said: Computation) -> Iterator[Finding]:
    """Say how a release uses people for something else, or shows them to others, than was read."""
    leaf, used = log.records[index], log.records[place]
    if not isinstance(leaf, records.Release) or not isinstance(used, records.ConsentUsed):
        raise TypeError("expected a release, after consent was read")
    agreed = used.purpose in log.obeyed[index].purposes  # else `consent` says so
    if agreed and said.purposes and used.purpose not in said.purposes:
        text = f"releases {leaf.computation}, and consent was read for another purpose"
        yield log.finding(FindingKind.OTHER_PURPOSE, (place, index), text)
    if used.recipients and leaf.recipient not in named(used.recipients, log.obeyed[place]):
        text = f"releases to {leaf.recipient}, for whom consent was not read"
        yield log.finding(FindingKind.OTHER_RECIPIENTS, (place, index), text)


def cohorts(log: PartyLog, rules: Rules) -> Iterator[Finding]:
    """No consent event is forgotten, and recipients are parties of the agreement.

    A book of which a leaf told once is only ever appended to: whatever reads consent afterwards, in
    whatever job, reads that event too, and all that was read since. Before the first such leaf
    a party's file may be replaced by another between jobs, and is the same within one.
    """
    seen: dict[tuple[str | None, str], tuple[int, int]] = {}
    told: tuple[int, int] | None = None
    names, current = frozenset[str](), None
    for index, leaf, agreement, _ in log.walk(rules, records.ConsentRecorded, records.ConsentUsed):
        if isinstance(leaf, records.ConsentRecorded):
            if told is not None and leaf.sequence <= told[1]:
                text = f"is event {leaf.sequence} of a book of which {told[1]} were known before"
                yield log.finding(FindingKind.CONSENT_FORGOTTEN, (told[0], index), text)
            else:
                told = index, leaf.sequence
            continue
        if agreement is not current:
            current, names = agreement, frozenset(party.name for party in agreement.parties)
        heard = named(leaf.recipients, agreement)
        if not names.issuperset(heard):
            strangers = sorted(set(heard) - names)
            text = f"reads consent for {', '.join(strangers)}, who is no party of the agreement"
            yield log.finding(FindingKind.OTHER_RECIPIENTS, index, text)
        before, most = max(
            seen.get((leaf.job, leaf.purpose), (index, 0)),
            told or (index, 0),
            key=itemgetter(1),
        )
        if leaf.consent_log_size < most:
            text = f"reads {leaf.consent_log_size} consent events, and {most} had been read before"
            yield log.finding(FindingKind.CONSENT_FORGOTTEN, (before, index), text)
        else:
            seen[leaf.job, leaf.purpose] = (index, leaf.consent_log_size)
            told = told and (index, leaf.consent_log_size)


def approvals(log: PartyLog, rules: Rules) -> Iterator[Finding]:
    """What releases rows leaves after enough people of enough parties approved the job."""
    heard: dict[str | None, set[tuple[str, str]]] = {}
    for index, leaf, agreement, held in log.walk(rules, records.ApprovalReceived, records.Release):
        if isinstance(leaf, records.ApprovalReceived):
            heard.setdefault(leaf.job, set()).add((leaf.approver, leaf.of_party))
        elif isinstance(leaf, records.Release) and (terms := agreement.approval) is not None:
            said = held.computations.get(leaf.computation)
            if said is None or not said.approved:
                continue
            agreed = {(one.name, one.party) for one in terms.approvers}
            yes = heard.get(leaf.job, set()) & agreed
            parties = {party for _, party in yes}
            if len(yes) < terms.approvals or len(parties) < terms.parties:
                text = (
                    f"releases rows with {len(yes)} approval(s) of {len(parties)} parties, and "
                    f"{terms.approvals} of {terms.parties} are agreed"
                )
                yield log.finding(FindingKind.UNAPPROVED, index, text)


def budget(log: PartyLog, rules: Rules) -> Iterator[Finding]:
    """Charges keep the budget, and are settled before anything else leaves."""
    first = log.succession.versions[0]
    charges = Charges(first, rules.under(first.digest))
    opened: dict[str, int] = {}
    current = first
    for index, leaf, agreement, held in log.walk(rules, records.AgreementSigned, *_CHARGING):
        if agreement is not current:
            current = agreement
            charges.continue_under(agreement, held)
        if isinstance(leaf, records.Release):
            for charge in sorted(charges.released & opened.keys()):
                if charge != leaf.charge_id:
                    text = "pays for what left, and was never committed before more left"
                    yield log.finding(FindingKind.NEVER_SETTLED, opened.pop(charge), text)
        if problem := charges.replay(leaf):
            yield log.finding(problem.kind, index, problem.text)
        elif isinstance(leaf, records.BudgetReserved):
            opened[leaf.charge_id] = index
        elif isinstance(leaf, records.BudgetCommitted | records.BudgetRefunded):
            opened.pop(leaf.charge_id, None)
