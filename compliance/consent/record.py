"""What a person is told, the record of what they said, and the receipt that they get.

Names of fields, and clauses where they are given, are those of ISO/IEC TS 27560:2023 as the W3C
Data Privacy Vocabularies Community Group lists them ("Consent Records and Receipts as per ISO/IEC
TS 27560:2023 using DPV", tables 27560-GDPR-DPV and 27560-29184-GDPR); the specification itself is
not public. Names that the guide does not list are ours, and marked so.

Guarantees: a notice says in plain words what one purpose is, who gets what, until when, and where
to withdraw, in no more steps than to give. It has no place for a choice made in advance: what was
ticked stands in events alone. `separate_consents` of a record are those that an event names.

Leaves to others: whether the words are understood, and legal advice.
"""

from datetime import datetime, timedelta
from typing import Annotated, Literal, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, model_validator

from compliance.consent.events import ConsentEvent
from compliance.terms.consent import LawfulBasis, SeparateConsent

__all__ = ["ConsentNotice", "ConsentReceipt", "ConsentRecord", "Party", "json_schema"]

_Text = Annotated[str, Field(min_length=1, max_length=4_000)]
_Url = Annotated[str, Field(pattern=r"^https://[^\s]+$", max_length=500)]


class _Closed(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class Party(_Closed):
    """A party to the processing ("party fields")."""

    party_id: _Text
    party_name: _Text
    party_role: Literal["pii_controller", "pii_processor", "third_party", "authority"]
    party_type: _Text
    party_address: _Text
    party_contact: _Text
    party_email: _Text
    party_url: _Url
    party_phone: _Text | None = None
    party_country: Annotated[str, Field(pattern=r"^[A-Z]{2}$")]  # ours


class ConsentNotice(_Closed):
    """What people are told about one purpose.

    Attributes:
        purpose: as the agreement calls it.
        text: in plain words.
        language: BCP 47.
        lawful_basis: why it is lawful.
        separate: consents that are asked one by one, each with its own words.
        steps_to_give, steps_to_withdraw: clicks or lines; no more to withdraw than to give.
    """

    purpose: _Text
    text: _Text
    language: Annotated[str, Field(pattern=r"^[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8})*$")]
    privacy_notice: _Url
    withdrawal_method: _Url
    lawful_basis: LawfulBasis = LawfulBasis.CONSENT
    separate: dict[SeparateConsent, _Text] = Field(default_factory=dict)
    pii_types: Annotated[tuple[_Text, ...], Field(min_length=1)]
    parties: Annotated[tuple[Party, ...], Field(min_length=1)]
    jurisdiction: Annotated[tuple[_Text, ...], Field(min_length=1)]
    storage_locations: Annotated[tuple[_Text, ...], Field(min_length=1)]
    retention_period: _Text
    collection_method: _Text
    steps_to_give: Annotated[int, Field(ge=1)]
    steps_to_withdraw: Annotated[int, Field(ge=1)]

    @model_validator(mode="after")
    def _easy_to_withdraw(self) -> Self:
        if self.steps_to_withdraw > self.steps_to_give:
            raise ValueError("withdrawing may take no more steps than giving (GDPR article 7(3))")
        if all(party.party_role != "pii_controller" for party in self.parties):
            raise ValueError("parties: expected a pii_controller")
        return self


class RecordHeader(_Closed):
    """Which record, of whom ("metadata fields")."""

    schema_version: Literal["comity-27560-1"] = "comity-27560-1"
    record_id: _Text
    pii_principal_id: _Text


class PiiInformation(_Closed):
    """A kind of personal data ("personal data fields")."""

    pii_type: _Text


class Purpose(_Closed):
    """One purpose, and what is done for it."""

    purpose: _Text  # 6.3.4.3, 6.3.4.4
    purpose_description: _Text  # ours: the notice's text
    lawful_basis: LawfulBasis  # 6.3.4.6
    pii_information: tuple[PiiInformation, ...]  # 6.3.4.7
    pii_controllers: tuple[_Text, ...]  # 6.3.4.8
    collection_method: _Text  # 6.3.4.9
    storage_locations: tuple[_Text, ...]  # 6.3.4.11
    retention_period: _Text  # 6.3.4.12
    jurisdiction: tuple[_Text, ...]  # 6.3.4.16
    recipient_third_parties: tuple[_Text, ...]  # 6.3.4.17
    withdrawal_method: _Url  # 6.3.4.18


class PiiProcessing(_Closed):
    """What is done with personal data (clause 6.3.4, "processing fields")."""

    privacy_notice: _Url  # 6.3.4.1
    language: str  # 6.3.4.2
    purposes: tuple[Purpose, ...]  # the layout by purposes is ours


class RecordEvent(_Closed):
    """Something that was said ("event fields"), and what GDPR and PIPL need besides."""

    event_time: AwareDatetime
    event_type: Literal["explicit", "notification"]
    event_state: _Text
    entity_id: _Text
    validity_duration: timedelta | None = None  # null: until more is said
    separate_consents: tuple[SeparateConsent, ...] = ()  # ours
    recipients: tuple[_Text, ...] | None = None  # ours


class ConsentRecord(_Closed):
    """What a person was told about a purpose, and everything that they said about it."""

    header: RecordHeader
    pii_processing: PiiProcessing
    party_identification: tuple[Party, ...]
    events: Annotated[tuple[RecordEvent, ...], Field(min_length=1)]

    @classmethod
    def of(cls, record_id: str, notice: ConsentNotice, events: tuple[ConsentEvent, ...]) -> Self:
        """Return the record of one person's events about a notice's purpose.

        Raises:
            ValueError: events of several people, or about another purpose: an error of our own.
        """
        if {(e.subject, e.purpose) for e in events} != {(events[0].subject, notice.purpose)}:
            raise ValueError("a record is of one person and the notice's purpose")
        roles = {party.party_id: party.party_role for party in notice.parties}
        purpose = Purpose(
            purpose=notice.purpose,
            purpose_description=notice.text,
            lawful_basis=notice.lawful_basis,
            pii_information=tuple(PiiInformation(pii_type=one) for one in notice.pii_types),
            pii_controllers=tuple(p for p, role in roles.items() if role == "pii_controller"),
            recipient_third_parties=tuple(p for p, role in roles.items() if role == "third_party"),
            collection_method=notice.collection_method,
            storage_locations=notice.storage_locations,
            retention_period=notice.retention_period,
            jurisdiction=notice.jurisdiction,
            withdrawal_method=notice.withdrawal_method,
        )
        return cls(
            header=RecordHeader(record_id=record_id, pii_principal_id=events[0].subject),
            pii_processing=PiiProcessing(
                privacy_notice=notice.privacy_notice, language=notice.language, purposes=(purpose,)
            ),
            party_identification=notice.parties,
            events=tuple(map(_event, sorted(events, key=lambda e: (e.time, e.event)))),
        )


class ConsentReceipt(_Closed):
    """What a person gets: a copy of their record (what is in it, the specification leaves open)."""

    receipt_id: _Text
    receipt_time: AwareDatetime  # ours
    schema_version: Literal["comity-27560-1"] = "comity-27560-1"
    consent_record: ConsentRecord

    @classmethod
    def of(cls, record: ConsentRecord, at: datetime) -> Self:
        """Return the receipt of a record as it is at a moment."""
        receipt_id = f"{record.header.record_id}/{len(record.events)}"
        return cls(receipt_id=receipt_id, receipt_time=at, consent_record=record)


def json_schema() -> dict[str, object]:
    """Return the JSON Schema (2020-12) of receipts, and of records within them."""
    schema = ConsentReceipt.model_json_schema(mode="serialization")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def _event(event: ConsentEvent) -> RecordEvent:
    own_act = event.event not in {"expired", "contacted"}
    return RecordEvent(
        event_time=event.time,
        event_type="explicit" if own_act else "notification",
        event_state=event.event.value,
        entity_id="pii_principal" if own_act else "pii_controller",
        validity_duration=event.expires and event.expires - event.time,
        separate_consents=tuple(sorted(event.separate)),
        recipients=None if event.recipients is None else tuple(sorted(event.recipients)),
    )
