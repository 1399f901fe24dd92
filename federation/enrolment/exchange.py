"""A party's request, carried to its coordinator over HTTPS.

Guarantees: the only certificate believed is one that the invitation's authority vouches for, for
the invitation's address; nothing is sent before that is settled. No proxy is used, no redirect is
followed, and an answer is bounded in size.

Leaves to others: what is asked and what an answer is worth (`joining`).
"""

import ssl
from http import HTTPStatus
from http.client import HTTPException, HTTPSConnection
from typing import Final

from federation.enrolment.invitation import Invitation
from federation.enrolment.request import STANDING_LIMIT
from federation.errors import EnrolmentError, PartyUnreachableError
from federation.operations.folder import host_of, port_of

__all__ = ["PATH", "ask"]

PATH: Final = "/v1/enrolment/requests"
"""Where a coordinator's public listener takes requests."""

_SECONDS: Final = 30.0


def ask(invitation: Invitation, request: bytes, *, seconds: float = _SECONDS) -> bytes:
    """Carry a request to the coordinator that issued an invitation, and return its answer.

    Args:
        invitation: names the address, and the authority that vouches for it.
        request: as `joining` made it.
        seconds: patience for every step.

    Raises:
        EnrolmentError: who answers is another than was meant, or refuses; nothing was sent to
            another.
        PartyUnreachableError: nobody answers, or it breaks off.
    """
    host, port = host_of(invitation.address), port_of(invitation.address)
    place = f"the coordinator at {invitation.address}"
    context = ssl.create_default_context(cadata=invitation.certificate)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    connection = HTTPSConnection(host, port, timeout=seconds, context=context)
    try:
        connection.request("POST", PATH, request, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        body = answer.read(STANDING_LIMIT + 1)
    except ssl.SSLCertVerificationError as error:
        raise EnrolmentError(
            f"what answers at {invitation.address} has no certificate of the invitation's "
            f"authority ({error.verify_message}): nothing was sent. Somebody stands between, or "
            "the coordinator has another certificate now: ask it"
        ) from error
    except (OSError, HTTPException) as error:
        raise PartyUnreachableError(
            f"{place} cannot be asked ({error}): try again later, or carry the request there in a "
            "file (--to FILE)"
        ) from error
    finally:
        connection.close()
    if answer.status == HTTPStatus.OK:
        return body
    told = _readable(body)
    if answer.status in {HTTPStatus.BAD_REQUEST, HTTPStatus.FORBIDDEN}:
        raise EnrolmentError(f"{place} refused: {told}")
    raise PartyUnreachableError(f"{place} answered with HTTP {answer.status}: {told}")


def _readable(body: bytes) -> str:
    text = body[:500].decode(errors="replace").strip()
    return "".join(one if one.isprintable() else " " for one in text) or "it does not say why"
