"""Which version of what parties say to each other is spoken, and what is told where it is another.

Every header bears the number, whatever else it holds: whoever speaks another version can read that
much, and nothing more is read. It changes with anything that an earlier version could not read, or
would read otherwise.

Guarantees: a message of another version is refused by a sentence that names both numbers and what
to do, on whichever side it is seen first, and tells nothing else.

Leaves to others: parsing (`messages`), refusing (`node`, `coordinator`).
"""

import re
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from federation.errors import VersionError

__all__ = ["REMEDY", "VERSION_TERM", "WIRE_VERSION", "check_version", "installed", "other_bundle"]

WIRE_VERSION: Final = 1
"""What this version of the project speaks."""

VERSION_TERM: Final = "version"
"""What a node refuses a message of another version under."""

REMEDY: Final = "install the same version of Comity on both sides, then run again"
"""What is to be done where nobody can tell who is behind."""

_SAID: Final = re.compile(
    r"([a-z][a-z0-9-]{0,62}) runs Comity ([0-9]+(?:\.[0-9]+)*)[0-9A-Za-z.+-]*"
)
_RELEASE: Final = re.compile(r"Comity ([0-9]+(?:\.[0-9]+)*)")


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
            f"{installed()} here speaks {WIRE_VERSION}: "
            f"{_remedy(spoken.sender, is_behind=spoken.version < WIRE_VERSION)}",
            party=spoken.sender,
        )


def other_bundle(addressee: str, said: str) -> VersionError:
    """Return the error of a node that takes no run of the bundle installed here.

    Args:
        addressee: whom an operator would look for.
        said: what the node says of itself, in printable characters: `NAME runs Comity VERSION`.
    """
    party, remedy = None, REMEDY
    if (found := _SAID.fullmatch(said)) is not None:
        party, theirs = found[1], _numbers(found[2])
        ours = _RELEASE.match(installed())
        if ours is not None and theirs != _numbers(ours[1]):
            remedy = _remedy(party, is_behind=theirs < _numbers(ours[1]))
    told = (
        f"{addressee} takes no run of {installed()}; it says: {said or 'nothing'}: {remedy}, or "
        "have that node allow this version's bundle"
    )
    return VersionError(told, party=party)


def _remedy(party: str, *, is_behind: bool) -> str:
    """Say whose Comity is to be updated, of a party's and the one here."""
    return f"update Comity {f'at {party}' if is_behind else 'here'}, then run again"


def _numbers(release: str) -> tuple[int, ...]:
    return tuple(int(one) for one in release.split("."))
