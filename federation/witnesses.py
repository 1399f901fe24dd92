"""Who witnesses whose log under an agreement: keys, policies, and a party's folder as a witness.

Guarantees: keys come from the agreement; reads nothing secret, and loads neither Flower nor what
writes logs, so that an auditor can use it.

Leaves to others: taking part (`witnessing`), serving it (`log_server`), judging it (`audit`).
"""

from pathlib import Path
from typing import Final

from compliance.agreement import Agreement
from compliance.errors import LogError
from compliance.log.cosignature import CosignerKey
from compliance.log.note import NOTE_LIMIT, NoteKey
from compliance.log.policy import Group, LogKey, Policy
from compliance.log.verifier import read_regular
from compliance.log.witnessing import Witness, WitnessRecord
from compliance.terms import PartyTerm, Role
from federation.party import PartyFolder, verified_agreement

__all__ = ["log_keys", "policy_for", "read_optional", "witness_in", "witness_of"]

_QUORUM: Final = "others"


def log_keys(party: PartyTerm) -> tuple[LogKey, ...]:
    """Return the keys with which a party signs its log."""
    key = NoteKey.from_string(party.log_key)
    return (key,) if party.cosigner is None else (key, party.cosigner)


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


def witness_of(folder: PartyFolder, agreement: Agreement) -> Witness:
    """Return a party, with its key, as a witness of every other party's log."""
    logs = _logs_of_others(agreement, folder.name)
    return Witness(folder.witnessed, logs=logs, cosigner=folder.cosigning_key())


def witness_in(directory: Path) -> WitnessRecord | None:
    """Return what the party of a folder has witnessed; None if it has no cosigning key.

    Raises:
        WorkspaceError: there is no agreement.
        InvalidAgreementError: it is unsigned by somebody, or altered.
    """
    agreement = verified_agreement(directory / "agreement.json")
    name = directory.resolve().name
    key = agreement.party(name).cosigner
    if key is None:
        return None
    logs = _logs_of_others(agreement, name)
    return WitnessRecord(directory / "log" / "witness", logs=logs, cosigner=key)


def _logs_of_others(agreement: Agreement, name: str) -> dict[str, tuple[LogKey, ...]]:
    others = (party for party in agreement.parties if party.name != name)
    return {NoteKey.from_string(party.log_key).name: log_keys(party) for party in others}


def read_optional(path: Path) -> bytes | None:
    """Return a signed head that may not be there.

    Raises:
        LogError: it cannot be read.
    """
    try:
        return read_regular(path, NOTE_LIMIT + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise LogError(f"{path}: cannot be read: {error.strerror}") from error
