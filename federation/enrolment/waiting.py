"""What a node does before there is an agreement: it asks until all have signed.

Guarantees: returns once the party's folder holds an agreement, or has no invitation to ask about;
what does not hold stops it at once.

Leaves to others: what an answer is worth (`joining`).
"""

import time
from collections.abc import Callable
from typing import Final

from federation.clock import utc_now
from federation.enrolment.exchange import ask
from federation.enrolment.joining import Membership
from federation.errors import PartyUnreachableError
from federation.party import PartyFolder

__all__ = ["wait_until_signed"]

_FIRST_PAUSE: Final = 0.5
_LONGEST_PAUSE: Final = 10.0


def wait_until_signed(folder: PartyFolder, tell: Callable[[str], None]) -> None:
    """Ask the coordinator until all parties have signed, ever more rarely.

    Args:
        folder: the party's.
        tell: told in one line whom the party waits for, whenever that changes.

    Raises:
        EnrolmentError, InvalidAgreementError: what the coordinator answers does not hold.
    """
    if (folder.path / "agreement.json").exists() or not (folder.path / "enrolment").exists():
        return
    member, pause, told = Membership.open(folder.path), _FIRST_PAUSE, ""
    while True:
        try:
            answer = ask(member.invitation, member.registration)
            standing = member.take(answer, now=utc_now())
        except PartyUnreachableError as error:
            now = str(error)
        else:
            if standing.missing:
                now = f"{folder.name} waits for {', '.join(standing.missing)} to join"
            elif standing.unsigned:
                now = f"{folder.name} waits for {', '.join(standing.unsigned)} to sign"
            else:
                return
        if now != told:
            tell(now)
        told = now
        time.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE)
