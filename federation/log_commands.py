"""What `comity log` does with one party's log beside verifying all of it: serve, receipts.

Guarantees: a receipt that is made verifies; one that is checked is checked against the agreement
given, or against a policy file, and against nothing that the receipt says of itself.

Leaves to others: printing (`cli`), the whole log (`audit`).
"""

import time
from pathlib import Path

from compliance import records
from compliance.errors import LogError, NotPublicError
from compliance.log.policy import Policy, PublicCheckpoint, open_checkpoint
from compliance.log.proving import TiledTree
from compliance.log.receipt import Receipt
from compliance.log.verifier import read_checkpoint, read_regular
from federation.errors import WorkspaceError
from federation.log_server import LogServer
from federation.ownership import owner_of
from federation.party import PartyFolder, verified_agreement
from federation.witnesses import log_keys, policy_for, read_optional, witness_of

__all__ = ["check_receipt", "make_receipt", "make_server", "policy_file"]

_LARGEST_FILE = 1 << 20


def make_server(directory: Path, host: str, port: int) -> LogServer:
    """Return a server of a party's log, which witnesses the other parties'.

    Raises:
        WorkspaceError: it is no party's folder.
        WorkspaceError: the address cannot be had.
    """
    folder = PartyFolder(directory)
    agreement = folder.agreement()
    witnesses = agreement.party(folder.name).cosigner is not None
    witness = witness_of(folder, agreement) if witnesses else None
    try:
        return LogServer((host, port), folder.log, witness=witness, now=lambda: int(time.time()))
    except (OSError, OverflowError) as error:
        raise WorkspaceError(
            f"cannot listen at {host}:{port}: {error}; name another --port, or another --host"
        ) from error


def make_receipt(directory: Path, index: int) -> tuple[Receipt, bool]:
    """Prove that a leaf is in a party's log, under its last public head that holds it.

    Returns:
        The receipt, and whether its head is public; else it is the log's own last one.

    Raises:
        LogError: there is no such leaf, or the files contradict the head.
    """
    agreement = verified_agreement(directory / "agreement.json")
    party = agreement.party(owner_of(directory))
    log = directory / "log"
    public = read_optional(log / "witness" / "public")
    signed = read_checkpoint(log)
    if public is not None:
        head, _ = open_checkpoint(public, log_keys(party))
        signed = public if index < head.tree_size else signed
    head, _ = open_checkpoint(signed, log_keys(party))
    tree = TiledTree(log, head)
    receipt = Receipt(index, tree.inclusion_proof(index), signed, tree.entry(index))
    try:
        receipt.verify(policy_for(agreement, party.name))
    except NotPublicError:
        return receipt, False
    return receipt, True


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
