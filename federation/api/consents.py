"""What people say, taken by a party's API.

Guarantees: whatever was taken is on disk, though a job be at work; a consent string that cannot be
read gives nothing, and a yes in it counts from when the string was made, so that an old one undoes
no withdrawal.

Leaves to others: the leaf of what was taken (`telling`), who may say it (the caller knows people).
"""

from collections.abc import Mapping, Sequence
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
from compliance.errors import UnknownPurposeError
from federation.api import bodies, problems
from federation.api.configuration import ConsentStringsConfig
from federation.api.problems import ProblemError
from federation.consent_intake import ConsentIntake
from federation.consent_reading import ConsentReading
from federation.consent_recording import ConsentRecords
from federation.party import PartyFolder
from federation.subjects import references_of

__all__ = ["Consents", "references"]

_OPT_OUTS: Final = {
    Processing.SALE: "SaleOptOut",
    Processing.SHARING: "SharingOptOut",
    Processing.TARGETED_ADVERTISING: "TargetedAdvertisingOptOut",
}
_MOST_AHEAD: Final = timedelta(minutes=5)
_YEARS: Final = (datetime(1970, 1, 1, tzinfo=UTC), datetime(2200, 1, 1, tzinfo=UTC))


def references(folder: PartyFolder, agreement: Agreement, named: bodies.Named) -> tuple[str, ...]:
    """Return the party's own references of a person.

    Raises:
        ProblemError: nobody bears the identifier.
        ErasureError: it could find nobody.
        ConnectorError: the table cannot be read.
    """
    if isinstance(named, bodies.NamedByReference):
        return (named.reference,)
    if isinstance(named, bodies.NamedByEmail):
        found = references_of(folder, agreement, "email", named.email)
    else:
        found = references_of(folder, agreement, "phone", named.phone)
    if not found:
        raise ProblemError(problems.NOBODY)
    return found


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

    def record(self, events: Sequence[bodies.Event], now: datetime) -> bodies.Recorded:
        """Record events, all or none.

        Raises:
            ProblemError: a time is out of range, or nobody bears an identifier.
            UnknownPurposeError: the agreement does not declare a purpose.
        """
        folder = PartyFolder(self._directory)
        agreement = folder.agreement()
        said = [
            ConsentEvent(
                reference,
                one.purpose,
                one.event,
                _moment(one.time or now, now),
                frozenset(one.separate),
                None if one.recipients is None else frozenset(one.recipients),
                None if one.expires is None else _within_years(one.expires),
            )
            for one in events
            for reference in references(folder, agreement, one.subject)
        ]
        return self._take(folder, agreement, said, now)

    def withdraw(self, asked: bodies.Withdrawal, now: datetime) -> bodies.Recorded:
        """Record that a person withdraws, from one purpose or from all."""
        folder = PartyFolder(self._directory)
        agreement = folder.agreement()
        purposes = agreement.purposes if asked.purpose is None else (asked.purpose,)
        said = [
            ConsentEvent(reference, purpose, ConsentEventKind.WITHDRAWN, now)
            for reference in references(folder, agreement, asked.subject)
            for purpose in purposes
        ]
        return self._take(folder, agreement, said, now)

    def take_string(self, asked: bodies.StringIntake, now: datetime) -> bodies.StringOutcome:
        """Record what a consent string says.

        1. The string is read, strictly.
        2. A TC string says yes or no to each purpose; a US section says no, or nothing: that
           somebody did not opt out is not a yes.
        3. A yes counts from when the string was made, or from the beginning of today (UTC) where it
           says that it is made later than now; a no from now.

        Raises:
            ProblemError: no consent strings are taken, or nobody bears the identifier.
            ConsentStringError: it cannot be read, or says what nobody defined.
        """
        if self._strings is None:
            raise ProblemError(problems.UNAVAILABLE, "expected `consent_strings`")
        said = _said(asked, self._strings, now)  # 1, 2
        if not said:
            return bodies.StringOutcome(events={}, recorded=None)
        folder = PartyFolder(self._directory)
        agreement = folder.agreement()
        events = [
            ConsentEvent(reference, purpose, kind, time)  # 3
            for reference in references(folder, agreement, asked.subject)
            for purpose, (kind, time) in said.items()
        ]
        recorded = self._take(folder, agreement, events, now)
        kinds = {purpose: kind for purpose, (kind, _) in said.items()}
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
        if not set(purposes) <= set(agreement.purposes):
            raise UnknownPurposeError(
                f"the agreement declares {', '.join(agreement.purposes)}, got another purpose"
            )
        if (file := ConsentIntake(folder, agreement).file) is None:
            raise ProblemError(problems.UNAVAILABLE, "expected a party that keeps consents")
        reading = ConsentReading(file, agreement.purposes, agreement=agreement, party=folder.name)
        named = references(folder, agreement, asked.subject)
        book = reading.said_by(named)
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

    def _take(
        self, folder: PartyFolder, agreement: Agreement, said: Sequence[ConsentEvent], now: datetime
    ) -> bodies.Recorded:
        sequence = ConsentIntake(folder, agreement).take(*said)
        return bodies.Recorded(events=len(said), sequence=sequence, time=now)


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
