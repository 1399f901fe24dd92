"""What people say, taken by a party's API.

Guarantees: whatever was taken is on disk, though a job be at work; a consent string that cannot be
read gives nothing, and a yes in it counts from when the string was made, so that an old one undoes
no withdrawal. Whoever may write alone does not learn from an answer whether anybody is known.

Leaves to others: the leaf of what was taken (`telling`), who may say it (the caller knows people).
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import numpy as np

from compliance.agreement import Agreement
from compliance.consent import ConsentEvent, ConsentEventKind
from compliance.consent.exports import to_dpv, to_kantara
from compliance.consent.record import ConsentNotice, ConsentReceipt
from compliance.consent_strings import (
    LegalBasis,
    TcfString,
    UsPrivacy,
    UsSection,
    decode_gpp,
    decode_tcf,
)
from compliance.consent_strings.us_privacy import Processing
from connectors import SqlSource
from federation.api import bodies, problems
from federation.api.configuration import ConsentStringsConfig
from federation.api.problems import ProblemError
from federation.consent_intake import ConsentIntake
from federation.consent_reading import ConsentReading
from federation.consent_recording import ConsentRecords
from federation.party import PartyFolder
from federation.subjects import references_of_all

__all__ = ["Consents", "references"]

_OPT_OUTS: Final = {
    Processing.SALE: "SaleOptOut",
    Processing.SHARING: "SharingOptOut",
    Processing.TARGETED_ADVERTISING: "TargetedAdvertisingOptOut",
}
_SOMEBODY: Final = "-"
"""Whoever says something, before they are looked for."""
_MOST_AHEAD: Final = timedelta(minutes=5)
_YEARS: Final = (datetime(1970, 1, 1, tzinfo=UTC), datetime(2200, 1, 1, tzinfo=UTC))


def references(folder: PartyFolder, agreement: Agreement, named: bodies.Named) -> tuple[str, ...]:
    """Return the party's own references of a person.

    Raises:
        ProblemError: nobody bears the identifier.
        ErasureError: it could find nobody.
        ConnectorError: the table cannot be read.
    """
    if not (found := _references(folder, agreement, [named])[named]):
        raise ProblemError(problems.NOBODY)
    return found


def _references(
    folder: PartyFolder, agreement: Agreement, people: Iterable[bodies.Named]
) -> dict[bodies.Named, tuple[str, ...]]:
    """Return the references of each person, none of who is nobody; the table is read once."""
    found: dict[bodies.Named, tuple[str, ...]] = {}
    sought: dict[bodies.Named, tuple[str, str]] = {}
    for one in people:
        match one:
            case bodies.NamedByReference():
                found[one] = (one.reference,)
            case bodies.NamedByEmail():
                sought[one] = ("email", one.email)
            case bodies.NamedByPhone():
                sought[one] = ("phone", one.phone)
    borne = references_of_all(folder, agreement, list(sought.values())) if sought else ()
    return found | dict(zip(sought, borne, strict=True))


class Consents:
    """What people say at one party.

    Args:
        directory: the party's folder.
        notices: what they are told, by purpose.
        strings: whose consent is read from consent strings; nobody's where None.
    """

    def __init__(
        self,
        directory: Path,
        notices: Mapping[str, ConsentNotice],
        strings: ConsentStringsConfig | None,
    ) -> None:
        self._directory = directory
        self._notices = notices
        self._strings = strings

    def record(
        self, events: Sequence[bodies.Event], now: datetime, *, seeing: bool
    ) -> bodies.Recorded:
        """Record events, all or none.

        Args:
            events: what was said.
            now: the time.
            seeing: whether the caller may see who is known, so that it is told of nobody.

        Raises:
            ProblemError: a time is out of range; or, to a caller that sees, nobody bears an
                identifier.
            UnknownPurposeError: the agreement does not declare a purpose.
        """
        said = [
            (
                one.subject,
                ConsentEvent(
                    _SOMEBODY,
                    one.purpose,
                    one.event,
                    _moment(one.time or now, now),
                    frozenset(one.separate),
                    None if one.recipients is None else frozenset(one.recipients),
                    None if one.expires is None else _within_years(one.expires),
                ),
            )
            for one in events
        ]
        return self._take(said, now, seeing=seeing)

    def withdraw(self, asked: bodies.Withdrawal, now: datetime, *, seeing: bool) -> bodies.Recorded:
        """Record that a person withdraws, from one purpose or from all; see `record`."""
        purposes = self._agreement().purposes if asked.purpose is None else (asked.purpose,)
        said = [
            (asked.subject, ConsentEvent(_SOMEBODY, purpose, ConsentEventKind.WITHDRAWN, now))
            for purpose in purposes
        ]
        return self._take(said, now, seeing=seeing)

    def take_string(
        self, asked: bodies.StringIntake, now: datetime, *, seeing: bool
    ) -> bodies.StringOutcome:
        """Record what a consent string says.

        1. The string is read, strictly.
        2. A TC string says yes or no to each purpose; a US section says no, or nothing: that
           somebody did not opt out is not a yes.
        3. A yes counts from when the string was made, or from the beginning of today (UTC) where it
           says that it is made later than now; a no from now.

        Raises:
            ProblemError: no consent strings are taken; otherwise see `record`.
            ConsentStringError: it cannot be read, or says what nobody defined.
        """
        if self._strings is None:
            raise ProblemError(problems.UNAVAILABLE, "expected `consent_strings`")
        heard = _said(asked, self._strings, now)  # 1, 2
        if not heard:
            return bodies.StringOutcome(events={}, recorded=None)
        said = [
            (asked.subject, ConsentEvent(_SOMEBODY, purpose, kind, time))  # 3
            for purpose, (kind, time) in heard.items()
        ]
        recorded = self._take(said, now, seeing=seeing)
        kinds = {purpose: kind for purpose, (kind, _) in heard.items()}
        return bodies.StringOutcome(events=kinds, recorded=recorded)

    def decide(self, asked: bodies.PersonAndPurpose, now: datetime) -> tuple[bodies.Decision, ...]:
        """Say whether a person may be used now; a no under any of their references is a no.

        Raises:
            UnknownPurposeError: the agreement does not declare the purpose.
            ProblemError: the party keeps no consents, or nobody bears the identifier.
        """
        folder = PartyFolder(self._directory)
        agreement = folder.agreement()
        purposes = agreement.purposes if asked.purpose is None else (asked.purpose,)
        ConsentIntake(folder, agreement).check(purposes)
        if (place := folder.consents) is None:
            raise ProblemError(problems.UNAVAILABLE, "expected a party that keeps consents")
        reading = ConsentReading(place, agreement.purposes, agreement=agreement, party=folder.name)
        named = references(folder, agreement, asked.subject)
        book = reading.said_by(named, folder.path)
        found = []
        for purpose in purposes:
            decision = book.decide(
                np.array(named),
                purpose=purpose,
                at=now,
                conditions=reading.conditions(purpose),
            )
            reasons = [reason for reason, count in decision.excluded.items() if count]
            found.append(
                bodies.Decision(
                    purpose=purpose, allowed=not reasons, reason=reasons[0] if reasons else None
                )
            )
        return tuple(found)

    def receipt(self, asked: bodies.ReceiptRequest, now: datetime) -> dict[str, object]:
        """Return a person's receipt, or their record in others' words.

        Raises:
            ProblemError: there is no notice for the purpose.
            NothingSaidError: the person said nothing about it.
        """
        if (notice := self._notices.get(asked.purpose)) is None:
            raise ProblemError(problems.UNAVAILABLE, "expected a notice for the purpose")
        folder = PartyFolder(self._directory)
        (reference, *_) = references(folder, folder.agreement(), asked.subject)
        record = ConsentRecords(folder).of(reference, asked.purpose, notice)
        match asked.vocabulary:
            case bodies.Vocabulary.KANTARA:
                return to_kantara(record)
            case bodies.Vocabulary.DPV:
                return to_dpv(record)
        return ConsentReceipt.of(record, now).model_dump(mode="json")

    def notices(self, purpose: str | None) -> bodies.Notices:
        """Return what people are told, about one purpose or all."""
        wanted = self._notices if purpose is None else {purpose}
        told = tuple(notice for name, notice in self._notices.items() if name in wanted)
        if purpose is not None and not told:
            raise ProblemError(problems.NOT_FOUND, "there is no notice for the purpose")
        return bodies.Notices(notices=told)

    def _agreement(self) -> Agreement:
        return PartyFolder(self._directory).agreement()

    def _take(
        self, said: Sequence[tuple[bodies.Named, ConsentEvent]], now: datetime, *, seeing: bool
    ) -> bodies.Recorded:
        """Record what people said.

        Whoever may not see who is known gets the same answer whoever is:

        1. All that can be wrong with the events themselves, and with where they go, is found before
           anybody is looked for.
        2. Who is nobody is passed over, and the journal is written to in any case.
        3. Nothing is counted.
        """
        folder = PartyFolder(self._directory)
        agreement = folder.agreement()
        intake = ConsentIntake(folder, agreement)
        intake.check(event.purpose for _, event in said)  # 1
        if isinstance(folder.consents, SqlSource):
            raise ProblemError(problems.UNAVAILABLE, "expected a journal, and consents are a table")
        people = _references(folder, agreement, [named for named, _ in said])
        if seeing and not all(people.values()):
            raise ProblemError(problems.NOBODY)
        events = [event.said_by(reference) for named, event in said for reference in people[named]]
        sequence = intake.take(*events)  # 2
        folder.synchronise(*intake.names)
        if not seeing:
            return bodies.Recorded(events=None, sequence=None, time=now)  # 3
        return bodies.Recorded(events=len(events), sequence=sequence, time=now)


def _moment(time: datetime, now: datetime) -> datetime:
    if time > now + _MOST_AHEAD:
        raise ProblemError(problems.INVALID, "expected a time that is not after now")
    return _within_years(min(time, now))


def _within_years(time: datetime) -> datetime:
    if not _YEARS[0] <= time < _YEARS[1]:
        raise ProblemError(problems.INVALID, "expected times from 1970 to 2199")
    return time


def _said(
    asked: bodies.StringIntake, config: ConsentStringsConfig, now: datetime
) -> dict[str, tuple[ConsentEventKind, datetime]]:
    if asked.format is bodies.StringFormat.TCF:
        return _said_by_tcf(decode_tcf(asked.string, now=now), config, now)
    said: dict[str, tuple[ConsentEventKind, datetime]] = {}
    for section in decode_gpp(asked.string, now=now).sections.values():
        if isinstance(section, TcfString):
            heard = _said_by_tcf(section, config, now)
        elif isinstance(section, UsSection | UsPrivacy) and not _permits(section):
            heard = dict.fromkeys(config.purposes, (ConsentEventKind.OBJECTED, now))
        else:
            continue
        for purpose, told in heard.items():  # a no in one section is a no
            if purpose not in said or told[0] is not ConsentEventKind.GIVEN:
                said[purpose] = told
    return said


def _said_by_tcf(
    string: TcfString, config: ConsentStringsConfig, now: datetime
) -> dict[str, tuple[ConsentEventKind, datetime]]:
    made = string.last_updated
    if made > now:  # by a clock that is fast: never as of now, which would undo any withdrawal
        made = now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    yes, no = (ConsentEventKind.GIVEN, made), (ConsentEventKind.REFUSED, now)
    return {
        purpose: yes
        if all(string.permits(config.vendor, one, LegalBasis.CONSENT) for one in needed)
        else no
        for purpose, needed in config.purposes.items()
    }


def _permits(section: UsSection | UsPrivacy) -> bool:
    if isinstance(section, UsPrivacy):
        return section.permits(Processing.SALE)
    asked = [one for one, answer in _OPT_OUTS.items() if answer in section.answers]
    return bool(asked) and all(section.permits(one) for one in asked)
