"""How a party takes over the next version of its agreement, a notice, or a key of its own.

Guarantees: nothing is taken over but what all parties signed and what follows the version that the
party obeys; log, ledger, match history and jobs go on, so that no amendment gives budget back. A
crash at any step leaves a folder that refuses to work until the same command has ended. New keys of
the log sign from the leaf on that tells of them: see `compliance.auditing.cryptoperiod`.

Leaves to others: what may follow what (`compliance.lifecycle`), obeying it (`gate`).
"""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from enum import StrEnum
from pathlib import Path

from compliance import records
from compliance.agreement import Agreement, SignedAgreement, iso
from compliance.errors import LogCorruptedError
from compliance.lifecycle import Succession, check_amendment, replaced_keys
from compliance.log.cosignature import CosigningKey, open_head
from compliance.log.note import NoteKey
from compliance.log.proving import TiledTree
from compliance.log.verifier import FileMissingError, read_checkpoint, verify_log
from compliance.log.writer import LogWriter
from compliance.naming import tell_of
from compliance.notice import Notice, SignedNotice
from compliance.signing import SigningKey
from compliance.terms import DATA_ROLES, PartyTerm
from federation.budgets import budget_of
from federation.errors import WorkspaceError
from federation.log_reading import leaves_left
from federation.party import PartyFolder, copied, locked, read_agreement, write_atomically
from federation.versions import notices_in, signed_versions_in, versions_of
from privacy.accounting.ledger import Ledger
from privacy.encryption import DecryptionKey
from privacy.errors import LedgerError
from privacy.randomness import SECRET_BYTES, Secret

__all__ = ["RotatedKey", "adopt", "give_notice", "keep_notice", "next_term", "rotate", "sign"]


class RotatedKey(StrEnum):
    """A key that an amendment can replace; its file is called so too."""

    IDENTITY = "identity"
    ENCRYPTION = "encryption"
    LOG = "log"
    COSIGNING = "cosigning"


def rotate(folder: PartyFolder, key: RotatedKey) -> PartyTerm:
    """Make the next key of a party, to be named by the next version; once more changes nothing.

    Returns:
        The party as the next version is to name it.

    Raises:
        WorkspaceError: the party has no such key.
    """
    if key is RotatedKey.ENCRYPTION and folder.config.role not in DATA_ROLES:
        raise WorkspaceError(f"{folder.name} has no encryption key: nothing is encrypted to it")
    with locked(folder):
        path = _next_key(folder, key)
        if not path.exists():
            number = folder.agreement().number + 1
            secret = folder.fresh_secret(f"{key}/{number}")
            folder.keep_secret(path, secret.hex().encode())
        return next_term(folder)


def next_term(folder: PartyFolder) -> PartyTerm:
    """Return a party as the next version is to name it: with its next keys, where it has any."""
    changes: dict[str, str] = {}
    if (secret := _next_secret(folder, RotatedKey.IDENTITY)) is not None:
        changes["identity_key"] = SigningKey.from_seed(secret).public.to_base64()
    if (secret := _next_secret(folder, RotatedKey.ENCRYPTION)) is not None:
        changes["encryption_key"] = DecryptionKey(secret).public.to_base64()
    if (secret := _next_secret(folder, RotatedKey.LOG)) is not None:
        key = SigningKey.from_seed(secret).public
        changes["log_key"] = NoteKey(folder.log_origin, key).to_string()
    if (secret := _next_secret(folder, RotatedKey.COSIGNING)) is not None:
        cosigner = CosigningKey.from_seed(folder.log_origin, secret).public
        changes["cosigning_key"] = cosigner.to_string()
    return folder.term().model_copy(update=changes)


def sign(folder: PartyFolder, file: Path) -> SignedAgreement:
    """Sign an agreement as a party, with the key of it that the agreement names.

    Raises:
        WorkspaceError: it names other keys for this party.
        InvalidAgreementError: it names no such party, or does not follow the one it obeys.
        SignatureError, AlteredAgreementError: as `SignedAgreement.sign`.
    """
    signed = read_agreement(file)
    agreement = signed.unverified()
    key = folder.identity_key()
    if agreement.party(folder.name) == next_term(folder):
        secret = _next_secret(folder, RotatedKey.IDENTITY)
        key = key if secret is None else SigningKey.from_seed(secret)
        signed = signed.sign(folder.name, key)
    else:
        signed = signed.sign(folder.name, key)
        folder.check_named(agreement, file)
    copied(folder)  # nobody hears of keys that could be lost
    if agreement.amends is not None and (folder.path / "agreement.json").exists():
        held = versions_of(folder.path)
        if agreement not in held.versions:
            held.check_next(agreement)
    return signed


def adopt(folder: PartyFolder, file: Path, *, now: datetime) -> Agreement:
    """Have a party obey an agreement from here on: its first, or the version after the one here.

    1. All parties signed it; it follows what is here, and its time has come.
    2. It lies beside the agreement: from here to step 6 the folder refuses to work.
    3. The log is told, once; where there was none, the ledger is started first. If the version
       names other keys of the log, old and new ones sign the head with that leaf, all in one.
    4. The ledger keeps its charges, under the new cap.
    5. The earlier version is put with the others; next keys take their places.
    6. It takes the agreement's place.

    A version that leaves the party out is put with the others, and the party goes on obeying its
    own; so it can take over one in which it comes back, with its log and ledger.

    Raises:
        WorkspaceError: it names other keys for this party, its time has yet to come, or the folder
            is a new one of a party that was in an earlier version.
        InvalidAgreementError: it is unsigned by somebody, altered, or follows something else.
    """
    signed = read_agreement(file)
    place = folder.path / "agreement.json"
    with locked(folder):
        if not place.exists():
            folder.check_named(agreement := signed.verify(), file)
            folder.check_new(agreement)
            write_atomically(place, signed.to_json())
            return agreement
        held, notices = signed_versions_in(folder.path), notices_in(folder.path)
        succession = Succession.of((*held, signed), notices)  # 1
        agreement, before = signed.verify(), read_agreement(place).verify()
        if agreement == before and not folder.next_agreement.exists():
            return agreement
        if _leaves_out(folder, agreement) and agreement.number > before.number:
            kept = folder.path / "agreements" / f"{agreement.number}.json"
            write_atomically(kept, signed.to_json())
            return agreement
        _check_next(folder, Succession.of(held, notices).latest, agreement, file, now)
        write_atomically(folder.next_agreement, signed.to_json())  # 2
        with _open_log(folder, agreement) as log:
            _check_ledger(folder, log, agreement)  # 3
            _tell(folder, log, succession, agreement, now)
        folder.synchronise()  # the ledger may lie elsewhere: it hears of nothing that could be lost
        _amend_ledger(folder, before, agreement)  # 4
        kept = folder.path / "agreements" / f"{before.number}.json"
        write_atomically(kept, place.read_bytes())  # 5
        for key in RotatedKey:
            if _named(agreement, folder.name, key) != _named(before, folder.name, key):
                _replace_key(folder, key)
        folder.next_agreement.replace(place)  # 6
        return folder.agreement()


def give_notice(
    folder: PartyFolder, reason: str, *, now: datetime, effective_from: datetime | None = None
) -> tuple[Path, Notice]:
    """End a party's agreement by notice, as early as agreed unless said otherwise; keep it.

    Returns:
        The notice's file, for every other party to keep too.

    Raises:
        InvalidAgreementError: the agreement has no terms of termination, or the day is too early.
    """
    agreement = folder.agreement()
    terms = agreement.termination
    days = 0 if terms is None else terms.notice_days
    notice = Notice.model_validate(
        {
            "agreement": agreement.digest,
            "party": folder.name,
            "given": now,
            "effective_from": effective_from or now + timedelta(days=days),
            "reason": reason,
        }
    )
    notice.check(agreement)
    return _keep(folder, SignedNotice.sign(notice, folder.identity_key())), notice


def keep_notice(
    folder: PartyFolder, signed: SignedNotice, *, now: datetime
) -> tuple[Notice, datetime]:
    """Have a party heed another's notice, and keep when it first came.

    Returns:
        The notice, and the moment from which the party heeds it.

    Raises:
        InvalidAgreementError: it is none under any version that the party has.
    """
    held = versions_of(folder.path)
    notice = signed.verify(held.version(signed.unverified().agreement))
    _keep(folder, signed, received=now)
    return notice, versions_of(folder.path).effective_from(notice)


def _keep(folder: PartyFolder, signed: SignedNotice, *, received: datetime | None = None) -> Path:
    path = folder.path / "notices" / f"{signed.unverified().digest}.json"
    with locked(folder):
        if received is not None and not path.exists():
            write_atomically(path.with_suffix(".received"), received.isoformat().encode())
        write_atomically(path, signed.to_json())
    return path


def _leaves_out(folder: PartyFolder, agreement: Agreement) -> bool:
    return folder.name not in {one.name for one in agreement.parties}


def _check_next(
    folder: PartyFolder, before: Agreement, agreement: Agreement, file: Path, now: datetime
) -> None:
    """Refuse what is not the very next version, or comes before its time."""
    check_amendment(before, agreement)
    pending = folder.next_agreement
    if pending.exists() and read_agreement(pending).unverified() != agreement:
        raise WorkspaceError(f"{pending} was being taken over: take over that one first")
    if now < agreement.valid_from:
        raise WorkspaceError(
            f"{file} is in force from {iso(agreement.valid_from)}: take it over from then on"
        )
    if agreement.party(folder.name) not in (next_term(folder), folder.term()):
        raise WorkspaceError(
            f"{file} names other keys, or another role, for {folder.name} than {folder.path} has: "
            "make them with `comity agreement rotate`, and have them named"
        )


def _open_log(folder: PartyFolder, agreement: Agreement) -> LogWriter:
    """Open the log with the keys that sign its head: the old, or after a crash the new ones."""
    key, second = _log_keys(folder, agreement)
    if (key.public, second.public) != (folder.log_key().public, folder.cosigning_key().public):
        with suppress(LogCorruptedError):  # the old ones signed it, or there is none
            signed = read_checkpoint(folder.log)
            open_head(signed, NoteKey(folder.log_origin, key.public), second.public)
            return LogWriter.open(folder.log, origin=folder.log_origin, key=key, second_key=second)
    return folder.open_log()


def _log_keys(folder: PartyFolder, agreement: Agreement) -> tuple[SigningKey, CosigningKey]:
    """Return the keys of the log that a version names: the next ones where it names these."""
    term = agreement.party(folder.name)
    key, second = folder.log_key(), folder.cosigning_key()
    if (secret := _next_secret(folder, RotatedKey.LOG)) is not None:
        following = SigningKey.from_seed(secret)
        named = NoteKey(folder.log_origin, following.public).to_string() == term.log_key
        key = following if named else key
    if (secret := _next_secret(folder, RotatedKey.COSIGNING)) is not None:
        cosigning = CosigningKey.from_seed(folder.log_origin, secret)
        second = cosigning if cosigning.public == term.cosigner else second
    return key, second


def _tell(
    folder: PartyFolder,
    log: LogWriter,
    succession: Succession,
    agreement: Agreement,
    now: datetime,
) -> None:
    """Append what the log does not say yet of the versions that the party obeyed."""
    told = set[str]()
    if log.tree_size:
        written = _written(folder, log)
        first, last = written[0], written[-1]
        told = {leaf.agreement for leaf in written if isinstance(leaf, records.AgreementSigned)}
        digests = [one.digest for one in succession.versions]
        if first.agreement in digests:  # where the log was pruned, entries before it told these
            told.update(digests[: digests.index(first.agreement) + 1])
        if now < last.time:
            raise WorkspaceError(
                f"the clock says {iso(now)}, and the last leaf of {folder.log} is of "
                f"{iso(last.time)}: set the clock, and adopt again"
            )
    key, second = _log_keys(folder, agreement)
    for version in succession.versions:
        if version.digest not in told:
            leaves = _leaves(folder.name, succession, version, now)
            entries = [records.to_leaf(leaf) for leaf in leaves]
            if version == agreement:
                log.hand_over(entries, key=key, second_key=second)
            else:
                log.append(entries)


def _written(folder: PartyFolder, log: LogWriter) -> Sequence[records.Record]:
    """Return the leaves of the log: all of them, or those that were not pruned."""
    try:
        entries = verify_log(folder.log, verification_key=log.verification_key).entries
    except FileMissingError:
        pruned, left = leaves_left(TiledTree(folder.log, log.checkpoint), log.tree_size)
        if pruned is None:
            raise
        return left
    return tuple(map(records.parse_leaf, entries))


def _leaves(
    party: str, succession: Succession, after: Agreement, now: datetime
) -> Iterator[records.Record]:
    names = tuple(one.name for one in after.parties)
    yield records.AgreementSigned(
        time=now,
        party=party,
        agreement=after.digest,
        parties=tell_of(names, after),
        supersedes=after.supersedes,
    )
    before = succession.term_before(after, party)
    if before is None or party not in names:
        return
    for replaced in replaced_keys(before, after.party(party)):
        yield records.KeyRotated(
            time=now,
            party=party,
            agreement=after.digest,
            key=replaced.key,
            old_key_digest=replaced.old_digest,
            new_key_digest=replaced.new_digest,
        )


def _check_ledger(folder: PartyFolder, log: LogWriter, after: Agreement) -> None:
    """Start the ledger of a party that has done nothing yet; one that has must have it."""
    store = folder.ledger_store(after)
    if folder.config.role not in DATA_ROLES or store.exists():
        return
    if log.tree_size:
        raise WorkspaceError(
            f"ledger {store.name} is missing, and the log says it was there: restore it and adopt "
            "again; a new one would spend the budget twice"
        )
    Ledger.open(store, agreement=after.lineage, budget=budget_of(after))


def _amend_ledger(folder: PartyFolder, before: Agreement, after: Agreement) -> None:
    if folder.config.role not in DATA_ROLES:  # nothing is ever charged
        return
    store = folder.ledger_store(after)
    try:
        ledger = Ledger.open(store, agreement=after.lineage, budget=budget_of(after))
    except LedgerError:
        ledger = Ledger.open(store, agreement=after.lineage, budget=budget_of(before))
    ledger.amend(budget_of(after))


def _named(agreement: Agreement | None, party: str, key: RotatedKey) -> str | None:
    found = agreement and next((one for one in agreement.parties if one.name == party), None)
    return getattr(found, f"{key}_key") if found else None


def _next_key(folder: PartyFolder, key: RotatedKey) -> Path:
    return folder.path / "keys" / f"{key}.next"


def _next_secret(folder: PartyFolder, key: RotatedKey) -> Secret | None:
    path = _next_key(folder, key)
    if not path.exists():
        return None
    try:
        content = bytes.fromhex(folder.read_secret(path).decode("ascii"))
    except ValueError:
        content = b""
    if len(content) != SECRET_BYTES:
        raise WorkspaceError(f"{path} is damaged: expected {SECRET_BYTES} bytes in hex")
    return Secret(content)


def _replace_key(folder: PartyFolder, key: RotatedKey) -> None:
    """Put the next key in the place of the old one, which is gone; once more changes nothing."""
    following = _next_key(folder, key)
    if following.exists():  # sealed under its name, so that it cannot be renamed
        folder.keep_secret(following.with_suffix(""), folder.read_secret(following))
        following.unlink()
