"""What `comity log` does with one party's log beside verifying all of it: serve, receipts.

Guarantees: a receipt that is made verifies; one that is checked is checked against the agreement
given, or against a policy file, and against nothing that the receipt says of itself. It is worth
what the keys in these are: a receipt does not show when they were replaced.

Leaves to others: printing (`cli`), the whole log (`audit`).
"""

import time
from contextlib import suppress
from pathlib import Path

from compliance import records
from compliance.agreement import Agreement
from compliance.errors import InvalidAgreementError, LogCorruptedError, LogError, NotPublicError
from compliance.log.policy import Policy, PublicCheckpoint, open_by_any
from compliance.log.proving import TiledTree
from compliance.log.receipt import Receipt
from compliance.log.verifier import read_checkpoint, read_regular
from federation.errors import ReplicaError, WorkspaceError
from federation.log_server import LogServer
from federation.ownership import owner_of
from federation.party import PartyFolder, verified_agreement
from federation.versions import signed_versions_in, versions_of
from federation.witnesses import log_keys, policy_for, read_optional, witness_of

__all__ = ["check_receipt", "make_receipt", "make_server", "policy_file"]

_LARGEST_FILE = 1 << 20
WITNESSED = "log/witness"
"""What is kept of others' logs, within a party's folder."""


class _FolderWitness:
    """A party as a witness, by the version that its folder obeys at each request."""

    def __init__(self, folder: PartyFolder) -> None:
        self._folder = folder

    def add_checkpoint(self, body: bytes, *, now: int) -> bytes:
        """Answer an add-checkpoint request: see `Witness.add_checkpoint`."""
        try:
            witness = witness_of(self._folder, self._folder.agreement())
        except (WorkspaceError, InvalidAgreementError) as error:
            raise LogError(f"nothing was cosigned: {error}") from error
        line = witness.add_checkpoint(body, now=now)
        try:
            self._folder.synchronise(WITNESSED)  # or another machine would cosign otherwise
        except ReplicaError as error:
            raise LogError(f"nothing was cosigned: {error}") from error
        return line


def _version(directory: Path, number: int) -> bytes | None:
    """Return a version of the contract as a party's folder holds it; None if it does not."""
    for signed in signed_versions_in(directory):
        if signed.unverified().number == number:
            return signed.to_json()
    return None


def make_server(directory: Path, host: str, port: int) -> LogServer:
    """Return a server of a party's log, which witnesses the other parties'.

    Raises:
        WorkspaceError: it is no party's folder.
        WorkspaceError: the address cannot be had.
    """
    folder = PartyFolder(directory)
    agreement = folder.agreement()
    witnesses = agreement.party(folder.name).cosigner is not None
    witness = _FolderWitness(folder) if witnesses else None
    try:
        return LogServer(
            (host, port),
            folder.log,
            shown=folder.shown_log,
            witness=witness,
            now=lambda: int(time.time()),
            version=lambda number: _version(directory, number),
        )
    except (OSError, OverflowError) as error:
        raise WorkspaceError(
            f"cannot listen at {host}:{port}: {error}; name another --port, or another --host"
        ) from error


def make_receipt(directory: Path, index: int) -> tuple[Receipt, Agreement | None]:
    """Prove that a leaf is in a party's log, under its last public head that holds it.

    Returns:
        The receipt, and the version of the agreement under which its head is public: it is checked
        by that one. None if it is not: then its head is the log's own last one.

    Raises:
        LogError: there is no such leaf, or the files contradict the head.
    """
    agreement = verified_agreement(directory / "agreement.json")
    name = owner_of(directory)
    held = [one for one in versions_of(directory).versions if one.number <= agreement.number]
    versions = [one for one in reversed(held) if name in {party.name for party in one.parties}]
    keys = [log_keys(one.party(name)) for one in versions]
    log = directory / "log"
    public = read_optional(log / "witness" / "public")
    signed = read_checkpoint(PartyFolder(directory).shown_log)
    if public is not None:
        head, *_ = open_by_any(public, keys)
        signed = public if index < head.tree_size else signed
    head, *_ = open_by_any(signed, keys)
    tree = TiledTree(log, head)
    receipt = Receipt(index, tree.inclusion_proof(index), signed, tree.entry(index))
    for version in versions:
        with suppress(LogCorruptedError, NotPublicError):  # of another version, or of none
            receipt.verify(policy_for(version, name))
            return receipt, version
    return receipt, None


def policy_file(agreement: Path, party: str) -> bytes:
    """Return the policy (C2SP tlog-policy) under which heads of a party's log are public."""
    return policy_for(verified_agreement(agreement), party).to_bytes()


def check_receipt(
    file: Path, *, agreement: Path | None, party: str | None, policy: Path | None
) -> tuple[Receipt, PublicCheckpoint, records.Record]:
    """Check a receipt offline, and read the leaf that it proves.

    Args:
        file: the receipt.
        agreement: the signed contract, with `party`, whose log it is; or
        party: see there.
        policy: a policy file.

    Raises:
        WorkspaceError: a file cannot be read, or it is not said what to check against.
        LogError: the receipt does not hold, or its head is not public.
        RecordError: what it proves is no leaf of ours.
    """
    if policy is not None:
        trusted = Policy.parse(_read(policy))
    elif agreement is not None and party is not None:
        trusted = policy_for(verified_agreement(agreement), party)
    else:
        raise WorkspaceError("say what to check against: --policy, or --agreement and --party")
    receipt = Receipt.parse(_read(file))
    public = receipt.verify(trusted)
    if receipt.extra is None:
        raise LogError(f"{file}: the receipt carries no leaf")
    return receipt, public, records.parse_leaf(receipt.extra)


def _read(file: Path) -> bytes:
    try:
        return read_regular(file, _LARGEST_FILE)
    except OSError as error:
        raise WorkspaceError(f"{file} cannot be read: {error.strerror}") from error
