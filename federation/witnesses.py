"""Who witnesses whose log under an agreement: keys, policies, and a party's folder as a witness.

Guarantees: keys come from the agreement, those before from its earlier versions; reads nothing
secret, and loads neither Flower nor what writes logs, so that an auditor can use it.

Leaves to others: taking part (`witnessing`), serving it (`log_server`), judging it (`audit`).
"""

from pathlib import Path

from compliance.agreement import Agreement
from compliance.auditing.trust import WitnessKeys, log_keys, origin_of, policy_for
from compliance.errors import LogError
from compliance.log.note import NOTE_LIMIT
from compliance.log.verifier import read_regular
from compliance.log.witnessing import Witness, WitnessRecord
from federation.ownership import owner_of
from federation.party import PartyFolder, verified_agreement
from federation.versions import versions_of

__all__ = [
    "log_keys",
    "origin_of",
    "policy_for",
    "read_optional",
    "witness_in",
    "witness_keys",
    "witness_of",
]


def witness_of(folder: PartyFolder, agreement: Agreement) -> Witness:
    """Return a party, with its key, as a witness of every other party's log."""
    keys = witness_keys(folder.path, agreement, folder.name)
    return Witness(
        folder.witnessed,
        logs=keys.logs,
        cosigner=folder.cosigning_key(),
        former=keys.former,
        former_cosigners=keys.former_cosigners,
    )


def witness_in(directory: Path) -> WitnessRecord | None:
    """Return what the party of a folder has witnessed; None if it has no cosigning key.

    Raises:
        WorkspaceError: there is no agreement.
        InvalidAgreementError: it is unsigned by somebody, or altered.
    """
    agreement = verified_agreement(directory / "agreement.json")
    name = owner_of(directory)
    keys = witness_keys(directory, agreement, name)
    if keys.cosigner is None:
        return None
    return WitnessRecord(
        directory / "log" / "witness",
        logs=keys.logs,
        cosigner=keys.cosigner,
        former=keys.former,
        former_cosigners=keys.former_cosigners,
    )


def witness_keys(directory: Path, agreement: Agreement, witness: str) -> WitnessKeys:
    """Return the keys of a witness and its logs under the version that a folder obeys, and before.

    Raises:
        WorkspaceError, InvalidAgreementError: as `versions_of`.
    """
    earlier = versions_of(directory).versions if any((directory / "agreements").glob("*")) else ()
    before = (one for one in earlier if one.number < agreement.number)
    return WitnessKeys.of((*before, agreement), witness)


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
