"""The versions of an agreement, and notices about it, that a party's folder holds.

```
PARTY/agreement.json         the version that is obeyed
PARTY/agreements/N.json      version N, which was obeyed before
PARTY/notices/DIGEST.json    a party's notice
PARTY/notices/DIGEST.received    when it came, in ISO 8601; none at its author
```

Guarantees: every file is verified whenever it is read; one that does not hold stops the party, and
never stands for none.

Leaves to others: where an agreement stands (`compliance.lifecycle`), putting files there
(`adoption`).
"""

from datetime import datetime
from pathlib import Path

from compliance.agreement import Agreement, SignedAgreement
from compliance.errors import InvalidAgreementError
from compliance.lifecycle import Succession
from compliance.log.verifier import read_regular
from compliance.notice import Notice, SignedNotice
from compliance.signing import ENVELOPE_LIMIT
from federation.errors import WorkspaceError
from federation.party import read_agreement

__all__ = ["ending_notice", "notices_in", "read_notice", "signed_versions_in", "versions_of"]


def read_notice(file: Path) -> SignedNotice:
    """Read a notice whose signature is not verified yet.

    Raises:
        WorkspaceError: the file cannot be read.
        InvalidAgreementError: it holds no notice.
    """
    try:
        content = read_regular(file, ENVELOPE_LIMIT + 1)
    except OSError as error:
        raise WorkspaceError(f"{file} cannot be read: {error.strerror}") from error
    try:
        return SignedNotice(SignedNotice.from_json(content).envelope, _received(file))
    except InvalidAgreementError as error:
        raise type(error)(f"{file}: {error}") from error


def _received(file: Path) -> datetime | None:
    path = file.with_suffix(".received")
    try:
        moment = datetime.fromisoformat(read_regular(path, ENVELOPE_LIMIT + 1).decode().strip())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise WorkspaceError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise WorkspaceError(f"{path} is damaged: expected a time with a time zone; restore it")
    return moment


def signed_versions_in(directory: Path) -> tuple[SignedAgreement, ...]:
    """Return the versions that a party's folder holds, unverified.

    Raises:
        WorkspaceError: one cannot be read, or there is none.
        InvalidAgreementError: one holds no contract.
    """
    earlier = sorted((directory / "agreements").glob("*.json"))
    return tuple(map(read_agreement, (*earlier, directory / "agreement.json")))


def notices_in(directory: Path) -> tuple[SignedNotice, ...]:
    """Return the notices that a party's folder holds, unverified.

    Raises:
        WorkspaceError: one cannot be read.
        InvalidAgreementError: one holds no notice.
    """
    return tuple(map(read_notice, sorted((directory / "notices").glob("*.json"))))


def versions_of(directory: Path) -> Succession:
    """Return everything that a party's folder holds of its agreement, verified.

    Raises:
        WorkspaceError: a file cannot be read, or there is none.
        InvalidAgreementError: one does not hold, or they are no succession.
    """
    try:
        return Succession.of(signed_versions_in(directory), notices_in(directory))
    except InvalidAgreementError as error:
        if str(error).startswith(str(directory)):
            raise
        raise type(error)(f"{directory}: {error}") from error


def ending_notice(directory: Path, agreement: Agreement, now: datetime) -> Notice | None:
    """Return the notice by which the agreement that a folder obeys has ended, if any.

    Raises:
        WorkspaceError, InvalidAgreementError: as `versions_of`.
    """
    if not any((directory / "notices").glob("*.json")):
        return None
    status = versions_of(directory).status(agreement, now)
    return status.notice if status.ends is not None and status.ends <= now else None
