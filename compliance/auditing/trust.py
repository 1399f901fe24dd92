"""Whom an auditor believes about a party's log: its keys and its witnesses, by the agreement.

Leaves to others: reading the agreement, and a policy file that an auditor brings instead.
"""

from typing import Final

from compliance.agreement import Agreement
from compliance.log.cosignature import CosignerKey
from compliance.log.note import NoteKey
from compliance.log.policy import Group, LogKey, Policy
from compliance.terms import PartyTerm, Role

__all__ = ["keys_of_others", "log_keys", "origin_of", "policy_for"]

_QUORUM: Final = "others"


def log_keys(party: PartyTerm) -> tuple[LogKey, ...]:
    """Return the keys with which a party signs its log."""
    key = NoteKey.from_string(party.log_key)
    return (key,) if party.cosigner is None else (key, party.cosigner)


def origin_of(party: PartyTerm) -> str:
    """Return the name of a party's log."""
    return NoteKey.from_string(party.log_key).name


def keys_of_others(agreement: Agreement, name: str) -> dict[str, tuple[LogKey, ...]]:
    """Return the keys of all logs but one party's, by origin."""
    return {origin_of(one): log_keys(one) for one in agreement.parties if one.name != name}


def policy_for(agreement: Agreement, party: str) -> Policy:
    """Return the policy under which heads of a party's log are public (C2SP tlog-policy).

    Any two quorums share a witness, so that two heads of one size and different roots cannot both
    be public unless a witness cheats too. Auditors count where the agreement says how many must
    cosign, since it is more than half of all; where it leaves that out, everybody else has to, and
    auditors are listed without counting. Each key of the log must have signed.
    """
    term = agreement.party(party)
    keys: dict[str, CosignerKey] = {
        other.name: other.cosigner
        for other in agreement.parties
        if other.name != party and other.cosigner is not None
    }
    counted = tuple(keys)
    if (quorum := agreement.witness_quorum) is None:
        counted = tuple(name for name in keys if agreement.party(name).role is not Role.AUDITOR)
        quorum = len(counted)
    groups = {_QUORUM: Group(quorum, counted)} if counted else {}
    name = _QUORUM if counted else "none"
    return Policy(name, log_keys(term), keys, groups, every_key=True)
