"""A party's keys, and how its secrets lie on disk.

Guarantees: secrets are created with mode 0600; no key is made anew once there is an agreement.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from compliance.log.cosignature import CosigningKey
from compliance.signing import SigningKey
from federation.errors import WorkspaceError
from federation.party.places import PartyPlaces
from federation.party.writing import write_atomically
from federation.safe import PARTY_SECRETS, Safe
from federation.unsealing import unsealing_key
from privacy.encryption import DecryptionKey
from privacy.randomness import SECRET_BYTES, Secret, derive_secret, new_secret, seeded_secret

__all__ = ["PartyKeys"]

DerivedKey = TypeVar("DerivedKey")


class PartyKeys(PartyPlaces):
    """The keys of one party, in its folder."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._keys: dict[Path, tuple[Secret, Any]] = {}

    @property
    def safe(self) -> Safe:
        """How the folder's secrets lie on disk.

        Raises:
            UnsealingError: the unsealing key cannot be had, though there is to be one.
        """
        return Safe(self.path, f"party {self.name}", PARTY_SECRETS, unsealing_key())

    def keep_secret(self, path: Path, content: bytes) -> None:
        """Write a secret into a file of the folder, sealed where there is an unsealing key.

        Raises:
            UnsealingError: the unsealing key cannot be had.
            WorkspaceError: as `write_atomically`.
        """
        write_atomically(path, self.safe.seal(path, content), mode=0o600)

    def read_secret(self, path: Path) -> bytes:
        """Return a secret of the folder.

        Raises:
            UnsealingError: it does not open, or lies in clear though there is an unsealing key.
            OSError: the file cannot be read.
        """
        return self.safe.unseal(path, path.read_bytes())

    def fresh_secret(self, label: str) -> Secret:
        """Return a secret that was never used before.

        With `unsafe_seed` it is the same for the same label, so `label` names the one message that
        the secret serves.
        """
        seed = self.config.unsafe_seed
        return new_secret() if seed is None else seeded_secret(seed, f"{self.name}/{label}")

    def _secret(self, path: Path, label: str) -> Secret:
        if path.exists():
            try:
                content = bytes.fromhex(self.read_secret(path).decode("ascii"))
            except ValueError:
                content = b""
            if len(content) != SECRET_BYTES:
                raise WorkspaceError(f"{path} is damaged: expected {SECRET_BYTES} bytes in hex")
            return Secret(content)
        if (self.path / "agreement.json").exists():
            raise WorkspaceError(
                f"{path} is missing, and the agreement in {self.path} rests on it: restore the key "
                "from a backup; a new one would be nobody's"
            )
        secret = self.fresh_secret(label)
        self.keep_secret(path, secret.hex().encode())
        return secret

    def _derived(
        self, path: Path, label: str, derive: Callable[[Secret], DerivedKey]
    ) -> DerivedKey:
        """Return what follows from a secret, which is read each time and derived from once."""
        secret = self._secret(path, label)
        if path not in self._keys or self._keys[path][0] != secret:
            self._keys[path] = (secret, derive(secret))
        key: DerivedKey = self._keys[path][1]
        return key

    def identity_key(self) -> SigningKey:
        """Return the key that signs agreements and messages; made at first use.

        Raises:
            WorkspaceError: it is damaged, or is missing though there is an agreement.
        """
        return self._derived(self.path / "keys" / "identity", "identity", SigningKey.from_seed)

    def log_key(self) -> SigningKey:
        """Return the key that signs the log's checkpoints; made at first use.

        Raises:
            WorkspaceError: it is damaged, or is missing though there is an agreement.
        """
        return self._derived(self.path / "keys" / "log", "log", SigningKey.from_seed)

    def cosigning_key(self) -> CosigningKey:
        """Return the key that cosigns logs, this party's own too; made at first use.

        Raises:
            WorkspaceError: it is damaged, or is missing though there is an agreement.
        """
        derive = partial(CosigningKey.from_seed, self.log_origin)
        return self._derived(self.path / "keys" / "cosigning", "cosigning", derive)

    def decryption_key(self) -> DecryptionKey:
        """Return the key that opens what other parties encrypt to this one; made at first use.

        Raises:
            WorkspaceError: it is damaged, or is missing though there is an agreement.
        """
        return self._derived(self.path / "keys" / "encryption", "encryption", DecryptionKey)

    def cohort_key(self, agreement: str) -> Secret:
        """Return the key under which cohorts are told in the log; an auditor may be given it.

        Args:
            agreement: its digest.

        Raises:
            WorkspaceError: the identity key is damaged, or is missing though there is an agreement.
        """
        secret = self._secret(self.path / "keys" / "identity", "identity")
        return derive_secret(secret, f"consent cohorts under {agreement}")

    def erasure_key(self) -> Secret:
        """Return the key that seals whom this party erased; made at first use.

        Raises:
            WorkspaceError: it is damaged.
        """
        path = self.path / "keys" / "erasure"
        if not path.exists():
            self.keep_secret(path, self.fresh_secret("erasure key").hex().encode())
        try:
            return Secret(bytes.fromhex(self.read_secret(path).decode("ascii")))
        except ValueError as error:
            raise WorkspaceError(f"{path} is damaged: restore it") from error
