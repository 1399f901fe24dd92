"""By what a SuperLink knows that a call is a node's: its key, and when the call was made.

A SuperLink takes a call that was signed five minutes ago, or five seconds hence by its own clock,
and no other. A node's clock may be further off: a refusal says what time it is there.

Guarantees: calls are signed by the SuperLink's time where the two clocks differ, up to
`MOST_APART`; the operator is told when that begins, and by how much. Nothing else is taken from the
SuperLink: whose key it is, and what is asked, stay as they are.

Leaves to others: that it is the SuperLink who answers (TLS), what a refusal means (`superlink`).
"""

from base64 import b64encode
from collections.abc import Callable
from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from pathlib import Path
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_ssh_private_key
from flwr.common.constant import TIMESTAMP_HEADER
from flwr.supercore.constant import FLEET_HTTP_PUBLIC_KEY_HEADER, FLEET_HTTP_SIGNATURE_HEADER
from flwr.supercore.primitives.asymmetric import public_key_to_bytes, sign_message
from flwr.supercore.protobuf.client import ProtobufCall, ProtobufRequestContext
from httpx import Response

from federation.clock import Clock, utc_now
from federation.errors import WorkspaceError
from federation.observing.events import Event, Notice
from federation.party import PartyFolder

__all__ = ["MOST_APART", "Credential", "apart", "read_node_key"]

MOST_APART: Final = timedelta(minutes=15)
"""How far a node's clock may be from its SuperLink's."""

_SAME: Final = timedelta(seconds=3)
"""What a header that tells whole seconds, and the way, make of clocks that do not differ."""


def read_node_key(file: Path, *, folder: PartyFolder | None = None) -> ec.EllipticCurvePrivateKey:
    """Return the key by which a SuperLink knows a node.

    Args:
        file: of the key.
        folder: the party's, whose secrets may be sealed; a key elsewhere lies in clear.

    Raises:
        UnsealingError: it is a secret of the folder, and does not open.
        WorkspaceError: the file holds none in OpenSSH's format, or none of an elliptic curve.
    """
    made = f"make one with: ssh-keygen -t ecdsa -b 256 -N '' -f {file}"
    place = file.parent.resolve() / file.name
    sealed = folder is not None and folder.safe.has(place)
    content = folder.read_secret(place) if folder and sealed else file.read_bytes()
    try:
        key = load_ssh_private_key(content, None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise WorkspaceError(
            f"{file} holds no private key in OpenSSH's format without a password: {made}"
        ) from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise WorkspaceError(f"{file} holds no key of an elliptic curve: {made}")
    return key


class Credential:
    """Signs the calls of a node.

    Args:
        key: the node's.
        tell: told in one line that the clocks differ.
        clock: the node's.
    """

    def __init__(
        self,
        key: ec.EllipticCurvePrivateKey,
        *,
        tell: Callable[[str], None],
        clock: Clock = utc_now,
    ) -> None:
        self._key = key
        self._public = b64encode(public_key_to_bytes(key.public_key())).decode()
        self._tell = tell
        self._clock = clock
        self._ahead = timedelta()
        """How far the SuperLink's clock is ahead, as far as that has mattered."""

    def intercept(self, context: ProtobufRequestContext, call_next: ProtobufCall) -> Response:
        """Sign a call and make it; once more where it was refused, and the clocks differ."""
        answer = self._signed(context, call_next)
        ahead = apart(answer, self._clock())
        if answer.status_code != HTTPStatus.UNAUTHORIZED or ahead is None:
            return answer
        if abs(ahead) > MOST_APART or abs(ahead - self._ahead) <= _SAME:
            return answer
        self._ahead = ahead
        if abs(ahead) > _SAME:
            seconds = abs(round(ahead.total_seconds()))
            way = "behind" if ahead > timedelta() else "ahead of"
            told = (
                f"this machine's clock is {seconds} s {way} the SuperLink's, by which calls are "
                "signed now: set the wrong one right"
            )
            self._tell(Notice(Event.CLOCKS_DIFFER, told, seconds=seconds))
        return self._signed(context, call_next)

    def _signed(self, context: ProtobufRequestContext, call_next: ProtobufCall) -> Response:
        moment = (self._clock() + self._ahead).isoformat()
        context.request.headers.update(
            {
                FLEET_HTTP_PUBLIC_KEY_HEADER: self._public,
                TIMESTAMP_HEADER: moment,
                FLEET_HTTP_SIGNATURE_HEADER: b64encode(
                    sign_message(self._key, moment.encode("ascii"))
                ).decode(),
            }
        )
        answer: Response = call_next(context)
        return answer


def apart(answer: Response, now: datetime) -> timedelta | None:
    """Return how far the clock of whoever answered is ahead; None where it does not say."""
    try:
        told = parsedate_to_datetime(answer.headers["date"])
        return told - now
    except (
        KeyError,
        ValueError,
        TypeError,
        OverflowError,
    ):  # of a moment without a zone, the third
        return None
