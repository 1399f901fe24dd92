"""The agreement in a file, read and verified."""

from functools import lru_cache
from pathlib import Path

from compliance.agreement import Agreement, SignedAgreement
from compliance.errors import InvalidAgreementError
from compliance.log.verifier import read_regular
from compliance.signing import ENVELOPE_LIMIT
from federation.errors import WorkspaceError

__all__ = ["read_agreement", "verified_agreement", "verified_in"]


def _written_agreement(file: Path) -> bytes:
    try:
        content = read_regular(file, ENVELOPE_LIMIT + 1)  # the parser refuses the one too many
    except FileNotFoundError as error:
        raise WorkspaceError(
            f"expected an agreement at {file}, got no such file: put it there, or name another "
            "(WORKSPACE/agreement.json, PARTY/agreement.json)"
        ) from error
    except IsADirectoryError as error:
        raise WorkspaceError(
            f"expected an agreement at {file}, got a folder: name the file in it, "
            f"{file / 'agreement.json'}"
        ) from error
    except OSError as error:
        raise WorkspaceError(
            f"expected an agreement at {file}, which cannot be read ({error.strerror}): make it "
            "readable, or name another"
        ) from error
    return content


def read_agreement(file: Path) -> SignedAgreement:
    """Read a contract whose signatures are not verified yet.

    Raises:
        WorkspaceError: the file cannot be read.
        InvalidAgreementError: it holds no contract.
    """
    content = _written_agreement(file)
    try:
        return SignedAgreement.from_json(content)
    except InvalidAgreementError as error:
        raise type(error)(f"{file}: {error}") from error


def verified_agreement(file: Path) -> Agreement:
    """Read a contract that every party signed.

    Raises:
        WorkspaceError: the file cannot be read.
        InvalidAgreementError: it holds no contract, or one unsigned by somebody, or altered.
    """
    content = _written_agreement(file)
    try:
        return verified_in(content)
    except InvalidAgreementError as error:
        raise type(error)(f"{file}: {error}") from error


@lru_cache(maxsize=4)
def verified_in(content: bytes) -> Agreement:
    """Verify a contract once for all who hold the same bytes: what follows from them alone.

    Raises:
        InvalidAgreementError: they hold no contract, or one unsigned by somebody, or altered.
    """
    return SignedAgreement.from_json(content).verify()
