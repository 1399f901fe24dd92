"""How often each client may ask: a token bucket each.

Guarantees: in any stretch of t seconds a client gets at most `burst + rate · t` requests through;
one client's requests take nothing from another's.

Leaves to others: the time (passed in), and who asks (`clients`).
"""

from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock

from federation.errors import FederationError

__all__ = ["Buckets", "TooManyRequestsError"]


class TooManyRequestsError(FederationError):
    """A client asks too often.

    Attributes:
        seconds: after which it may ask again.
    """

    def __init__(self, seconds: float) -> None:
        super().__init__("too many requests: wait, and ask again")
        self.seconds = seconds


@dataclass(frozen=True)
class _Bucket:
    tokens: float
    since: float


class Buckets:
    """A bucket for each client.

    Args:
        rate: requests a second, over 0.
        burst: requests at once, at least 1.
        seconds: a clock that never goes back.
    """

    def __init__(self, *, rate: float, burst: int, seconds: Callable[[], float]) -> None:
        self._rate = rate
        self._burst = burst
        self._seconds = seconds
        self._buckets: dict[str, _Bucket] = {}
        self._lock = Lock()

    def take(self, client: str) -> None:
        """Let one request of a client through.

        Raises:
            TooManyRequestsError: its bucket is empty.
        """
        with self._lock:
            now = self._seconds()
            last = self._buckets.get(client, _Bucket(self._burst, now))
            tokens = min(float(self._burst), last.tokens + (now - last.since) * self._rate)
            if tokens < 1:
                self._buckets[client] = _Bucket(tokens, now)
                raise TooManyRequestsError((1 - tokens) / self._rate)
            self._buckets[client] = _Bucket(tokens - 1, now)
