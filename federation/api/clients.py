"""Who may call a party's API, and what for: keys, kept as hashes.

```
PARTY/api/clients.json   name, scopes and SHA-256 of the key of each client
```

Guarantees: a key has 256 random bits and is shown once; what is kept of it opens nothing; a wrong
key takes as long as a right one, whoever it names.

Leaves to others: transport security, and how often (`buckets`).
"""

import fcntl
import hashlib
import hmac
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Annotated, Final

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from federation.api.scopes import Scope
from federation.errors import FederationError, WorkspaceError
from federation.party import PartyFolder
from privacy.randomness import new_secret

__all__ = ["Client", "Clients", "UnauthenticatedError"]

_PREFIX: Final = "comity"
_LONGEST: Final = 256


class UnauthenticatedError(FederationError):
    """A key is missing, unknown, or no longer good."""


class Client(BaseModel):
    """One client of the API.

    Attributes:
        name: what it is called, in logs too.
        scopes: what it may do.
        key_digest: SHA-256 of its key (hex).
        created: when.
        expires: the first moment at which the key is no longer good; None if it stays so.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,62}$")]
    scopes: Annotated[tuple[Scope, ...], Field(min_length=1)]
    key_digest: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$", repr=False)]
    created: AwareDatetime
    expires: AwareDatetime | None = None


class _File(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    clients: tuple[Client, ...] = ()


class Clients:
    """The clients of one party's API.

    Args:
        directory: the party's folder.
    """

    def __init__(self, directory: Path) -> None:
        self._folder = PartyFolder(directory)
        self._path = self._folder.path / "api" / "clients.json"

    def add(
        self,
        name: str,
        scopes: Iterable[Scope],
        *,
        now: datetime,
        expires: datetime | None = None,
    ) -> str:
        """Add a client, and return its key, which is shown this once.

        Raises:
            WorkspaceError: there is one of that name, or name or scopes are no good.
        """
        key = f"{_PREFIX}_{name}_{new_secret().hex()}"
        try:
            client = Client(
                name=name,
                scopes=tuple(sorted(set(scopes))),
                key_digest=_digest(key),
                created=now,
                expires=expires,
            )
        except ValidationError as error:
            raise WorkspaceError(
                "expected a name of small letters, digits and hyphens, and one scope or more"
            ) from error
        with self._held():
            known = self.listed()
            if any(one.name == name for one in known):
                raise WorkspaceError(
                    f"there is a client {name!r}: revoke it first, or choose another name"
                )
            self._write((*known, client))
        return key

    def revoke(self, name: str) -> None:
        """Take a client's key away, from its next request on.

        Raises:
            WorkspaceError: there is none of that name.
        """
        with self._held():
            known = self.listed()
            kept = tuple(client for client in known if client.name != name)
            if len(kept) == len(known):
                raise WorkspaceError(
                    f"there is no client {name!r}: `comity api client list` tells all"
                )
            self._write(kept)

    def listed(self) -> tuple[Client, ...]:
        """Return all clients.

        Raises:
            WorkspaceError: the file is damaged.
        """
        try:
            return _File.model_validate_json(self._folder.read_secret(self._path)).clients
        except FileNotFoundError:
            return ()
        except ValidationError as error:
            raise WorkspaceError(f"{self._path} is damaged: restore it from a backup") from error

    def authenticated(self, key: str, *, now: datetime) -> Client:
        """Return whose key it is.

        Raises:
            UnauthenticatedError: nobody's, or it is no longer good.
            WorkspaceError: the file is damaged.
        """
        presented = _digest(key[:_LONGEST])
        found = None
        for client in self.listed():  # all of them, whichever it is
            if hmac.compare_digest(client.key_digest, presented):
                found = client
        if found is None or len(key) > _LONGEST:
            raise UnauthenticatedError("expected the key of a client of this API")
        if found.expires is not None and now >= found.expires:
            raise UnauthenticatedError("the client's key is no longer good: ask for another")
        return found

    @contextmanager
    def _held(self) -> Iterator[None]:
        """Change one thing at a time: adding a client must bring back none that was revoked."""
        path = self._path.with_name(".clients.lock")
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with path.open("w", encoding="ascii") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _write(self, clients: tuple[Client, ...]) -> None:
        content = _File(clients=clients).model_dump_json(indent=2).encode() + b"\n"
        self._folder.keep_secret(self._path, content)
        # or a client that was revoked would come back with a folder that is brought back
        self._folder.synchronise(self._path.relative_to(self._folder.path).as_posix())


def _digest(key: str) -> str:
    # A key of 256 random bits needs no slow hash.
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()
