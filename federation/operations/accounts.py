"""Whose bearer token a call has: one of the coordinator's own, or an identity provider's.

Guarantees: whatever keeps a token from being verified, it opens nothing. Callers are not told why;
the operator is, where it is not the token's fault.

Leaves to others: the two kinds (`tokens`, `identity_provider`), and what a role may do.
"""

from collections.abc import Callable
from datetime import datetime
from typing import Self

from federation.errors import (
    CoordinatorUnreachableError,
    RefusedError,
    UnsealingError,
    WorkspaceError,
)
from federation.operations.folder import CoordinatorFolder
from federation.operations.identity_provider import IdentityProvider
from federation.operations.provider_keys import keys_of
from federation.operations.tokens import Operator, TokenBook

__all__ = ["Accounts"]


class Accounts:
    """The operators of one coordinator.

    Args:
        book: the coordinator's own tokens.
        provider: whose tokens are taken beside; nobody's where None.
    """

    def __init__(self, book: TokenBook, provider: IdentityProvider | None) -> None:
        self._book = book
        self._provider = provider
        self._told: str | None = None

    @classmethod
    def of(cls, folder: CoordinatorFolder) -> Self:
        """Return the operators that a coordinator's folder has."""
        config = folder.config.identity_provider
        book = TokenBook(folder.tokens, safe=folder.safe)
        if config is None:
            return cls(book, None)
        return cls(book, IdentityProvider(config, keys_of(config, folder.path)))

    def operator(self, token: str, *, now: datetime) -> Operator:
        """Return whose token it is.

        Raises:
            RefusedError: it opens nothing.
            WorkspaceError, UnsealingError, CoordinatorUnreachableError: nobody can tell.
        """
        found = self._book.operator(token, now=now)
        if found is not None:
            return found
        if self._provider is None or "." not in token:
            raise RefusedError(
                party="coordinator",
                term="operator token",
                remedy="it is none of the coordinator's that is good now: `comity coordinator "
                "token add`",
            )
        return self._provider.operator(token, now=now)

    def find(self, token: str, *, now: datetime, tell: Callable[[str], None]) -> Operator | None:
        """Return whose token it is, or None if it opens nothing.

        Args:
            token: as a caller showed it.
            now: the time.
            tell: told in one line why nobody can tell, once until that changes.
        """
        try:
            found = self.operator(token, now=now)
        except RefusedError:
            return None
        except (WorkspaceError, UnsealingError, CoordinatorUnreachableError) as error:
            if str(error) != self._told:
                self._told = str(error)
                tell(self._told)
            return None
        self._told = None
        return found
