"""Nodes that come back: taken by their keys, and calling by numbers that are of an earlier process.

A SuperLink gives its nodes numbers, and has them in memory alone. Once it was started again, each
node calls once or twice more by its old number, is told so (401), and says again who it is.

Guarantees: a call counts as one of these only where a key that is taken signed it, and when it was
made is not further off than clocks may be. Nobody else can make such a call.

Leaves to others: answering it (Flower), what becomes of the node (`federation.apps.superlink`).
"""

from base64 import b64decode
from collections.abc import Callable, Container
from datetime import datetime

from flwr.common.constant import TIMESTAMP_HEADER
from flwr.supercore.constant import FLEET_HTTP_PUBLIC_KEY_HEADER, FLEET_HTTP_SIGNATURE_HEADER
from flwr.supercore.primitives.asymmetric import bytes_to_public_key, verify_signature
from starlette.datastructures import Headers
from starlette.types import Scope

from federation.apps.credential import MOST_APART
from federation.clock import Clock

__all__ = ["Returning"]


class Returning:
    """Tells which refused calls are those of nodes that are taken.

    Args:
        taken: the keys that are taken now, as Flower names them.
        clock: tells when now is.
    """

    def __init__(self, taken: Callable[[], Container[bytes]], *, clock: Clock) -> None:
        self._taken = taken
        self._clock = clock

    def __call__(self, scope: Scope) -> bool:
        """Tell whether a call was signed by a key that is taken."""
        headers = Headers(scope=scope)
        try:
            key = b64decode(headers[FLEET_HTTP_PUBLIC_KEY_HEADER], validate=True)
            if key not in self._taken():  # before anything dear is done for a stranger
                return False
            signature = b64decode(headers[FLEET_HTTP_SIGNATURE_HEADER], validate=True)
            moment = headers[TIMESTAMP_HEADER]
            apart = self._clock() - datetime.fromisoformat(moment)
            if abs(apart) > MOST_APART:
                return False
            public = bytes_to_public_key(key)
            return bool(verify_signature(public, moment.encode("ascii"), signature))
        except (KeyError, ValueError, TypeError):  # of a moment without a zone, the last
            return False
