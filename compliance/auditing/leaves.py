"""Checks of one log: its opening, its order, what left it, and what it paid.

Each check takes a log and rules, and yields findings; none knows of another.
"""

from collections.abc import Iterator

from compliance import records
from compliance.auditing.budget import Charges
from compliance.auditing.finding import Finding, FindingKind
from compliance.auditing.party_log import PartyLog
from compliance.auditing.rules import Rules
from compliance.terms import Role

__all__ = ["budget", "consent", "decisions", "opening", "order", "routes", "validity"]

_EVERYONE = "everyone"


def opening(log: PartyLog, rules: Rules) -> Iterator[Finding]:
    """The agreement is the first leaf and no other, and names its parties."""
    del rules
    if not log.records:
        text = f"the log of {log.party} is empty: expected agreement.signed as leaf 0"
        yield Finding(FindingKind.NOT_OPENED, log.party, (), text)
        return
    names = {party.name for party in log.agreement.parties}
    for index, leaf in enumerate(log.records):
        if index == 0 and not isinstance(leaf, records.AgreementSigned):
            yield log.finding(FindingKind.NOT_OPENED, index, "stands where agreement.signed must")
        if not isinstance(leaf, records.AgreementSigned):
            continue
        if index:
            yield log.finding(FindingKind.OPENED_AGAIN, index, "opens the log a second time")
        elif set(leaf.parties) != names:
            yield log.finding(
                FindingKind.OTHER_PARTIES, index, "names other parties than the agreement"
            )


def order(log: PartyLog, rules: Rules) -> Iterator[Finding]:
    """Every leaf is of this party, under this agreement, and not before the one before it."""
    del rules
    digest, latest = log.agreement.digest, None
    for index, leaf in enumerate(log.records):
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
    del rules
    ended: int | None = None
    for index, leaf in enumerate(log.records):
        if isinstance(leaf, records.AgreementEnded):
            ended = index
        if not isinstance(leaf, records.Release):
            continue
        if ended is not None:
            text = "releases, though the agreement had ended"
            yield log.finding(FindingKind.AFTER_END, (ended, index), text)
        elif not log.agreement.valid_from <= leaf.time < log.agreement.valid_until:
            text = "releases at a time for which the agreement is not in force"
            yield log.finding(FindingKind.OUTSIDE_VALIDITY, index, text)


def decisions(log: PartyLog, rules: Rules) -> Iterator[Finding]:
    """Policies allowed every release, to this recipient, and it left once for each decision."""
    del rules
    asked: dict[str, tuple[int, records.AccessDecided]] = {}
    for index, leaf in enumerate(log.records):
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
    roles = {party.name: party.role for party in log.agreement.parties}
    own = roles.get(log.party)
    for index, leaf in enumerate(log.records):
        if not isinstance(leaf, records.Release):
            continue
        if (said := rules.computations.get(leaf.computation)) is None:
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
    for index, leaf in enumerate(log.records):
        if isinstance(leaf, records.AccessDecided):
            read = None
        elif isinstance(leaf, records.ConsentUsed):
            read = (index, leaf)
            if leaf.eligible + sum(leaf.excluded.values()) != leaf.rows:
                text = "does not add up: expected rows to be those eligible and those excluded"
                yield log.finding(FindingKind.CONSENT_MISCOUNTED, index, text)
            if leaf.purpose not in log.agreement.purposes:
                text = f"asks for purpose {leaf.purpose!r}, which the agreement does not declare"
                yield log.finding(FindingKind.PURPOSE_NOT_AGREED, index, text)
        elif isinstance(leaf, records.Release):
            said = rules.computations.get(leaf.computation)
            unread = read is None or read[1].job != leaf.job
            if said is not None and said.concerns_people and unread:
                text = f"releases {leaf.computation} without having read consent for it"
                yield log.finding(FindingKind.CONSENT_UNREAD, index, text)
            read = None


def budget(log: PartyLog, rules: Rules) -> Iterator[Finding]:
    """Charges keep the budget, and are settled before anything else leaves."""
    charges = Charges(log.agreement, rules)
    opened: dict[str, int] = {}
    for index, leaf in enumerate(log.records):
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
