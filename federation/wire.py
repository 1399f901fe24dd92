"""Which version of what parties say to each other is spoken, and what is told where it is another.

Every header bears the number, whatever else it holds: whoever speaks another version can read that
much, and nothing more is read. It changes with anything that an earlier version could not read, or
would read otherwise.

Guarantees: a message of another version is refused by a sentence that names both numbers and what
to do, on whichever side it is seen first, and tells nothing else.

Leaves to others: parsing (`messages`), refusing (`node`, `coordinator`).
"""

from importlib.metadata import PackageNotFoundError, version
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from federation.errors import VersionError

__all__ = ["REMEDY", "WIRE_VERSION", "check_version", "installed"]

WIRE_VERSION: Final = 1
"""What this version of the project speaks."""

REMEDY: Final = "install the same version of Comity on both sides, then run again"


class _Spoken(BaseModel):
    """What a header of any version has."""

    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)

    version: Annotated[int, Field(ge=0, lt=1 << 32, strict=True)]
    sender: Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,62}$")]


def installed() -> str:
    """Return what is installed here, for people: the project's name and its version."""
    try:
        return f"Comity {version('comity')}"
    except PackageNotFoundError:
        return "Comity of no version"


def check_version(header: bytes) -> None:
    """Return only if a header is of the version that is spoken here, or of none that can be told.

    Args:
        header: as it was signed, whoever it was signed by.

    Raises:
        VersionError: it is of another.
    """
    try:
        spoken = _Spoken.model_validate_json(header)
    except ValidationError:
        return  # the parser of this version says what is wrong with it
    if spoken.version != WIRE_VERSION:
        raise VersionError(
            f"a message of {spoken.sender}'s speaks version {spoken.version} of the wire, and "
            f"{installed()} here speaks {WIRE_VERSION}: {REMEDY}"
        )
