"""What of a folder is secret, and how it lies on disk: sealed wherever there is an unsealing key.

Guarantees: with an unsealing key, a secret in clear is never written, and one that lies in clear is
refused: whoever can write to the folder cannot put a secret of their own there. Without one, what
is sealed is refused. Nothing is sealed but what is listed here, so that whatever lists secrets
(`resealing`) misses none.

Leaves to others: the format (`compliance.sealing`), the key (`unsealing`), writing files.
"""

from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Final

from compliance.errors import SealingError, SealingKeyError
from compliance.sealing import UnsealingKey, is_sealed
from federation.errors import UnsealingError
from federation.unsealing import SOURCES
from privacy.randomness import new_secret

__all__ = ["COORDINATOR_SECRETS", "PARTY_SECRETS", "Safe", "SafeRows", "Secrets", "Table"]


@dataclass(frozen=True)
class Table:
    """A column of secrets in an SQLite file.

    Attributes:
        file: within the folder.
        name: of the table.
        row: expression whose text tells one row from another.
        column: that holds a secret.
    """

    file: str
    name: str
    row: str
    column: str


@dataclass(frozen=True)
class Secrets:
    """What is secret in a kind of folder.

    Attributes:
        files: patterns of names within it; `*` stands for any part of one name.
        tables: in SQLite files.
    """

    files: tuple[str, ...]
    tables: tuple[Table, ...] = ()

    def has(self, name: str) -> bool:
        """Tell whether the file of a name is secret, or holds secrets."""
        if any(name == one.file for one in self.tables):
            return True
        parts = name.split("/")
        return any(
            len(parts) == len(wanted := pattern.split("/"))
            and all(fnmatchcase(*pair) for pair in zip(parts, wanted, strict=True))
            for pattern in self.files
        )


_KEYS: Final = ("identity", "log", "cosigning", "encryption", "erasure", "deletion", "node")

PARTY_SECRETS: Final = Secrets(
    files=(
        *(f"keys/{name}" for name in _KEYS),
        "keys/*.next",
        *(f"jobs/*/{name}" for name in ("secret", "seed", "commitment")),
        *(f"jobs/*/with-*/{name}" for name in ("secret", "commitment", "state.json")),
        "jobs/*/round-*/*.json",
        "erasures/showing/*.npz",  # of earlier versions
        "erasures/showing/*/*",
        "erasures/asking/*.json",
        "enrolment/invitation.json",
        "api/clients.json",
    ),
    tables=(
        Table("keys/subjects.sqlite", "subject_key", "subject", "key"),
        Table("keys/manifests.sqlite", "subject_key", "subject", "key"),
        Table("api/answers.sqlite", "secret", "'requests'", "key"),
    ),
)
"""Of a party's folder."""

COORDINATOR_SECRETS: Final = Secrets(files=("certificates/*.key", "tokens.json"))
"""Of a coordinator's state folder."""


@dataclass(frozen=True)
class Safe:
    """The secrets of one folder.

    Attributes:
        root: the folder.
        owner: whose it is; a secret opens in its owner's folder alone.
        secrets: what is secret there.
        key: that unseals; secrets lie in clear where it is None.
    """

    root: Path
    owner: str
    secrets: Secrets
    key: UnsealingKey | None

    def has(self, path: Path) -> bool:
        """Tell whether a file is one of the folder's secrets."""
        if not path.is_relative_to(self.root):
            return False
        return self.secrets.has(path.relative_to(self.root).as_posix())

    def under(self, key: UnsealingKey | None) -> "Safe":
        """Return the same secrets, under another key."""
        return Safe(self.root, self.owner, self.secrets, key)

    def seal(self, path: Path, content: bytes, *, row: str = "") -> bytes:
        """Return what to write for a secret.

        Args:
            path: of the file in which it is to lie.
            content: the secret.
            row: in which it is to lie, where the file is a table.
        """
        name = path.relative_to(self.root).as_posix()
        if not self.secrets.has(name):
            raise RuntimeError(f"{name} is not listed as a secret of {self.root}")
        if self.key is None:
            return content
        return self.key.seal(content, owner=self.owner, name=_place(name, row), nonce=new_secret())

    def unseal(self, path: Path, content: bytes, *, row: str = "") -> bytes:
        """Return a secret.

        Args:
            path: of the file in which it lies.
            content: what lies there.
            row: in which it lies, where the file is a table.

        Raises:
            UnsealingError: it does not open with the key, or does not lie as it must.
        """
        sealed = is_sealed(content)
        if self.key is None:
            if sealed:
                raise UnsealingError(
                    f"{path} is sealed, and no key was given: give it by one of "
                    f"{', '.join(SOURCES)}"
                )
            return content
        if not sealed:
            raise UnsealingError(
                f"{path} lies in clear, and an unsealing key was given: seal it with `comity "
                f"secrets seal {self.root}`; if it was sealed before, somebody else put it there: "
                "restore it from a backup"
            )
        name = path.relative_to(self.root).as_posix()
        try:
            return self.key.open(content, owner=self.owner, name=_place(name, row))
        except SealingKeyError as error:
            raise UnsealingError(
                f"{path} does not open: {error}. Give the key under which it was sealed, or "
                "restore the file from a backup"
            ) from error
        except SealingError as error:
            raise UnsealingError(
                f"{path} does not open: {error}. Restore it from a backup"
            ) from error


@dataclass(frozen=True)
class SafeRows:
    """How secrets lie in the rows of a table: each opens in its own row alone.

    Attributes:
        safe: of the folder.
        path: of the SQLite file.
    """

    safe: Safe
    path: Path

    def wrap(self, subject: str, key: bytes) -> bytes:
        """Return what to store of a secret."""
        return self.safe.seal(self.path, key, row=subject)

    def unwrap(self, subject: str, stored: bytes) -> bytes:
        """Return the secret of which this is stored.

        Raises:
            UnsealingError: as `Safe.unseal`.
        """
        return self.safe.unseal(self.path, stored, row=subject)


def _place(name: str, row: str) -> str:
    return f"{name}\0{row}"  # no file's name has a NUL
