"""A party's policies: the routes that the agreement permits, and the party's own file.

Guarantees: every kind of body has a flow, and nothing else has; a file that cannot be read as
prohibitions stops the party, and never stands for none.

Leaves to others: what a policy is and how it decides (`compliance.policy`), asking it (`gate`).
"""

import os
from pathlib import Path
from typing import Final

from compliance.agreement import Agreement
from compliance.errors import PolicyError
from compliance.policy import Flow, Policy
from federation.party import PartyFolder
from federation.routes import ROUTES

__all__ = ["policy_of"]

_FLOWS: Final = tuple(
    Flow(kind, route.sender, route.recipient, route.concerns_people)
    for kind, route in ROUTES.items()
)


def policy_of(folder: PartyFolder, agreement: Agreement) -> Policy:
    """Return the policies of a party, as its file stands now.

    Raises:
        PolicyError: the file cannot be read, or is not what it must be.
    """
    file = folder.policy
    try:
        return Policy(agreement, _FLOWS, _own_text(file))
    except (OSError, UnicodeDecodeError) as error:
        raise PolicyError(f"{file}: cannot be read: {type(error).__name__}") from error
    except PolicyError as error:
        raise PolicyError(f"{file}: {error}") from error


def _own_text(file: Path) -> str:
    if not os.path.lexists(file):  # a link to nowhere is there
        return ""
    text = file.read_text(encoding="utf-8")
    if not text.strip():
        raise PolicyError("is empty: write a clause, or take the file away")
    return text
