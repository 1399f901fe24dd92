"""Operators' tokens: what is kept of them, and whose one is.

Guarantees: a token has 256 random bits, is shown once and kept as its SHA-256 hash (a slow hash
would add nothing to so many bits); one that is revoked or has expired opens nothing from the next
call on. Nothing tells how nearly a wrong one was right.

Leaves to others: what a role is (`roles`) and may call (`federation.apps.control_listener`), who
hands a token to whom.
"""

import fcntl
import hashlib
import hmac
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated, Final

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from compliance.errors import describe
from federation.errors import WorkspaceError
from federation.operations.roles import OperatorRole
from federation.party import write_atomically
from federation.safe import Safe
from privacy.randomness import new_secret

__all__ = ["Operator", "OperatorToken", "TokenBook"]

_TOKEN: Final = re.compile(r"comity-[0-9a-f]{64}")


@dataclass(frozen=True)
class Operator:
    """Who calls."""

    name: str
    role: OperatorRole


class OperatorToken(BaseModel):
    """What is kept of a token.

    Attributes:
        name: whose it is; one token each.
        role: what it opens.
        digest: its SHA-256, in hex.
        made: when.
        expires: from when on it opens nothing; never where left out.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,62}$")]
    role: OperatorRole
    digest: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    made: AwareDatetime
    expires: AwareDatetime | None = None

    def is_good(self, now: datetime) -> bool:
        """Whether it opens anything now."""
        return self.expires is None or now < self.expires


_BOOK: Final = TypeAdapter(tuple[OperatorToken, ...])


class TokenBook:
    """The tokens of one coordinator, in one file; read anew at every call."""

    def __init__(self, path: Path, *, safe: Safe | None = None) -> None:
        """Take the file.

        Args:
            path: of the file.
            safe: how the folder's secrets lie; in clear where left out.
        """
        self._path = path
        self._safe = safe

    def all(self) -> tuple[OperatorToken, ...]:
        """Return what is kept of every token, by name.

        Raises:
            WorkspaceError: the file is damaged.
        """
        try:
            content = self._path.read_bytes()
            if self._safe is not None:
                content = self._safe.unseal(self._path, content)
            return _BOOK.validate_json(content)
        except FileNotFoundError:
            return ()
        except ValidationError as error:
            raise WorkspaceError(f"{self._path}: {describe(error)}") from error

    def add(
        self, name: str, role: OperatorRole, *, now: datetime, expires: datetime | None = None
    ) -> str:
        """Make a token, and return it: it cannot be seen again.

        Raises:
            WorkspaceError: the name is malformed or has one, or it would never open anything.
        """
        token = f"comity-{new_secret().hex()}"
        try:
            made = OperatorToken(
                name=name, role=role, digest=_digest(token), made=now, expires=expires
            )
        except ValidationError as error:
            raise WorkspaceError(f"token: {describe(error)}") from error
        if not made.is_good(now):
            raise WorkspaceError(
                f"expected a token that expires later than now, got {expires}: give it days"
            )
        with self._locked():
            kept = self.all()
            if name in {one.name for one in kept}:
                raise WorkspaceError(
                    f"{name} has a token already: revoke it first, or choose another name"
                )
            self._write((*kept, made))
        return token

    def revoke(self, name: str) -> None:
        """Forget a token.

        Raises:
            WorkspaceError: nobody of that name has one.
        """
        with self._locked():
            kept = self.all()
            left = tuple(one for one in kept if one.name != name)
            if len(left) == len(kept):
                names = ", ".join(one.name for one in kept) or "nobody"
                raise WorkspaceError(f"{name} has no token: {names} has")
            self._write(left)

    def operator(self, token: str, *, now: datetime) -> Operator | None:
        """Return whose token it is, or None if it opens nothing."""
        if not _TOKEN.fullmatch(token):
            return None
        digest = _digest(token)
        found = [one for one in self.all() if hmac.compare_digest(one.digest, digest)]
        return next((Operator(one.name, one.role) for one in found if one.is_good(now)), None)

    def _write(self, tokens: tuple[OperatorToken, ...]) -> None:
        listed = tuple(sorted(tokens, key=lambda one: one.name))
        content = _BOOK.dump_json(listed, indent=2) + b"\n"
        if self._safe is not None:
            content = self._safe.seal(self._path, content)
        write_atomically(self._path, content, mode=0o600)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with self._path.with_name(f".{self._path.name}.lock").open("w", encoding="ascii") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
