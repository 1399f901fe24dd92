"""Whose folder a directory is.

Guarantees: it needs base dependencies only, as auditors have. Leaves to others: what else a folder
says (`party`), and whether the log in it is that party's (`audit`).
"""

import json
from pathlib import Path
from typing import Final

from compliance.log.verifier import read_regular
from federation.errors import WorkspaceError

__all__ = ["owner_of"]

_LIMIT: Final = 1 << 20
_NOBODY: Final = "{} says no party's name: restore it"


def owner_of(directory: Path) -> str:
    """Return a party's name: as its folder's `party.json` says, else as the folder is called.

    Copies that auditors are given need have no `party.json`.

    Raises:
        WorkspaceError: there is one, and it names nobody.
    """
    file = directory / "party.json"
    if not file.exists():
        return directory.resolve().name
    try:
        name = json.loads(read_regular(file, _LIMIT))["name"]
        if str.isprintable(name):  # else it would garble what is told of it, and no party has it
            return str(name)
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise WorkspaceError(_NOBODY.format(file)) from error
    raise WorkspaceError(_NOBODY.format(file))
