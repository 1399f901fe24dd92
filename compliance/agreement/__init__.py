"""The contract: who may compute what, with which data, for which purpose, at which price.

`contents` is what it says, `contradictions` what of that cannot be meant, `contract` the whole, in
one spelling, and `signed` that with signatures round it.

Guarantees: an `Agreement` that exists is whole and free of contradictions, and has exactly one
spelling in bytes, hence one digest. `SignedAgreement.verify` returns an agreement only if every
party named in it signed these very bytes.

Leaves to others: single terms (`compliance.terms`), obeying them (`federation.gate`), entropy and
key files, and the question whose key is whose: the agreement carries its own keys, so a party
finds its own key in it before it signs, and compares the others' fingerprints
(`compliance.rendering` shows them) over another channel.
"""

from compliance.agreement.contents import MOST_PARTIES, iso
from compliance.agreement.contract import Agreement
from compliance.agreement.contradictions import ALIGNED_PARTIES, CUT_SHARE
from compliance.agreement.signed import PAYLOAD_TYPE, SignedAgreement

__all__ = [
    "ALIGNED_PARTIES",
    "CUT_SHARE",
    "MOST_PARTIES",
    "PAYLOAD_TYPE",
    "Agreement",
    "SignedAgreement",
    "iso",
]
