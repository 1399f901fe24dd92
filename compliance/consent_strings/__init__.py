"""Consent strings of the advertising industry, read strictly: what is not clear permits nothing.

`tcf` reads and writes the IAB's TC strings (TCF v2.3), `gpp` its GPP strings with the sections in
`us_privacy`; `bits` and `vendors` are what they are made of.
"""

from compliance.consent_strings.gpp import GppString, SectionId, decode_gpp, encode_gpp
from compliance.consent_strings.tcf import (
    LegalBasis,
    PublisherRestriction,
    PublisherTc,
    Purpose,
    RestrictionType,
    TcfString,
    decode_tcf,
    encode_tcf,
)
from compliance.consent_strings.us_privacy import Answer, UsPrivacy, UsSection
from compliance.consent_strings.vendors import VendorIds

__all__ = [
    "Answer",
    "GppString",
    "LegalBasis",
    "PublisherRestriction",
    "PublisherTc",
    "Purpose",
    "RestrictionType",
    "SectionId",
    "TcfString",
    "UsPrivacy",
    "UsSection",
    "VendorIds",
    "decode_gpp",
    "decode_tcf",
    "encode_gpp",
    "encode_tcf",
]
