"""The listeners' certificate, issued again while they are at work.

Guarantees: a certificate that is due is replaced without an end of the process: who connects from
then on sees the new one, and connections that there are stay. The operator is told, and for three
months beforehand, at each start, that the authority itself ends, which no process can mend.

Leaves to others: when a certificate is due (`operations.folder`), when to look (`service`).
"""

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final, Protocol

from federation.clock import Clock
from federation.operations.folder import CoordinatorFolder

__all__ = ["Renewal", "warn_of_end"]

_WARNED: Final = timedelta(days=90)


class _Listener(Protocol):
    """What a listener shakes hands by, as `ssl.SSLContext` does."""

    def load_cert_chain(self, certificate: Path, key: Path, password: str | None, /) -> None:
        """Show this certificate from now on."""


class Renewal:
    """What keeps the certificate of some listeners in force.

    Args:
        folder: the coordinator's.
        listeners: that show it.
        tell: told in one line that there is another certificate.
        clock: tells when now is.
    """

    def __init__(
        self,
        folder: CoordinatorFolder,
        listeners: Sequence[_Listener],
        *,
        tell: Callable[[str], None],
        clock: Clock,
    ) -> None:
        self._folder = folder
        self._listeners = tuple(listeners)
        self._tell = tell
        self._clock = clock
        self._is_new = False

    def issue(self) -> None:
        """Issue a certificate if one is due.

        Raises:
            WorkspaceError: the authority has ended, or the folder is damaged or full.
        """
        self._is_new |= self._folder.renew(self._clock())

    def show(self) -> None:
        """Have listeners show the one that was issued. Call it in the thread that they run in.

        Raises:
            WorkspaceError, OSError: it cannot be read.
        """
        if not self._is_new:
            return
        with self._folder.readable_server_key() as (key, password):
            for one in self._listeners:
                one.load_cert_chain(self._folder.server_certificate, key, password)
        self._is_new = False
        self._tell("the listeners' certificate was to end soon: they have another from now on")


def warn_of_end(folder: CoordinatorFolder, tell: Callable[[str], None], now: datetime) -> None:
    """Tell that the authority ends soon, if it does."""
    ends = folder.authority_ends
    if ends is not None and ends - now < _WARNED:
        tell(
            f"the certificate authority ends on {ends:%Y-%m-%d}, and then no party's node believes "
            "this coordinator any more: see --authority of `comity coordinator init`"
        )
