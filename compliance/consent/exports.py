"""Records as others read them: Kantara Consent Receipt v1.1, and DPV 2 as JSON-LD.

Guarantees: every field that Kantara's specification requires is there; nothing is told that the
record does not say. Leaves to others: signing, and sending.
"""

from typing import Final

from compliance.consent.record import ConsentRecord

__all__ = ["to_dpv", "to_kantara"]

_STATUS: Final = {
    "given": "ConsentGiven",
    "reconfirmed": "RenewedConsentGiven",
    "scope_changed": "ConsentGiven",
    "refused": "ConsentRefused",
    "withdrawn": "ConsentWithdrawn",
    "objected": "ConsentWithdrawn",
    "expired": "ConsentExpired",
}


def to_kantara(record: ConsentRecord) -> dict[str, object]:
    """Return a record as a Kantara Initiative Consent Receipt, v1.1.0, section 4."""
    (purpose,) = record.pii_processing.purposes
    last = record.events[-1]
    kinds = [one.pii_type for one in purpose.pii_information]
    sensitive = "sensitive" in last.separate_consents
    return {
        "version": "KI-CR-v1.1.0",
        "jurisdiction": " ".join(purpose.jurisdiction),
        "consentTimestamp": int(last.event_time.timestamp()),
        "collectionMethod": purpose.collection_method,
        "consentReceiptID": record.header.record_id,
        "language": record.pii_processing.language,
        "piiPrincipalId": record.header.pii_principal_id,
        "piiControllers": [
            {
                "piiController": party.party_name,
                "contact": party.party_contact,
                "address": {"streetAddress": party.party_address},
                "email": party.party_email,
                "phone": party.party_phone or "",
                "piiControllerUrl": party.party_url,
            }
            for party in record.party_identification
            if party.party_role == "pii_controller"
        ],
        "policyUrl": record.pii_processing.privacy_notice,
        "services": [
            {
                "service": purpose.purpose,
                "purposes": [
                    {
                        "purpose": purpose.purpose_description,
                        "purposeCategory": [purpose.purpose],
                        "consentType": "EXPLICIT",
                        "piiCategory": kinds,
                        "primaryPurpose": False,
                        "termination": purpose.withdrawal_method,
                        "thirdPartyDisclosure": bool(purpose.recipient_third_parties),
                        "thirdPartyName": ", ".join(purpose.recipient_third_parties),
                    }
                ],
            }
        ],
        "sensitive": sensitive,
        "spiCat": kinds if sensitive else [],
    }


def to_dpv(record: ConsentRecord) -> dict[str, object]:
    """Return a record as a `dpv:ConsentRecord` in JSON-LD."""
    processing = record.pii_processing
    (purpose,) = processing.purposes
    return {
        "@context": {
            "dpv": "https://w3id.org/dpv#",
            "dct": "http://purl.org/dc/terms/",
            "xsd": "http://www.w3.org/2001/XMLSchema#",
        },
        "@type": "dpv:ConsentRecord",
        "dct:identifier": record.header.record_id,
        "dct:language": processing.language,
        "dpv:hasDataSubject": {
            "@type": "dpv:DataSubject",
            "dct:identifier": record.header.pii_principal_id,
        },
        "dpv:hasNotice": {"@id": processing.privacy_notice},
        "dpv:hasPurpose": {
            "@type": "dpv:Purpose",
            "dct:identifier": purpose.purpose,
            "dct:description": purpose.purpose_description,
        },
        "dpv:hasPersonalData": [one.pii_type for one in purpose.pii_information],
        "dpv:hasDataController": list(purpose.pii_controllers),
        "dpv:hasRecipient": list(purpose.recipient_third_parties),
        "dpv:hasConsentStatus": [
            {
                "@type": f"dpv:{_STATUS[event.event_state]}",
                "dct:date": {"@type": "xsd:dateTime", "@value": event.event_time.isoformat()},
            }
            for event in record.events
            if event.event_state in _STATUS
        ],
    }
