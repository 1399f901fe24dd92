"""What fields of messages are made of: closed models, digests, names, texts.

Guarantees: no text of a message holds a control character.
"""

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from compliance.agreement import ALIGNED_PARTIES

__all__ = ["Closed", "Count", "Digest", "PartyName", "Place", "Text", "printable"]

Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
PartyName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,62}$")]
Count = Annotated[int, Field(ge=0, le=1 << 32)]
Place = Annotated[int, Field(ge=0, lt=ALIGNED_PARTIES[1])]


def printable(text: str) -> str:
    """Return a text that a terminal shows and does not obey: spaces for what cannot be printed."""
    return "".join(one if one.isprintable() else " " for one in text)


def _printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("expected a text without control characters")
    return text


Text = Annotated[str, Field(min_length=1, max_length=500), AfterValidator(_printable)]


class Closed(BaseModel):
    """A model that takes no field it does not know, and never changes."""

    model_config = ConfigDict(frozen=True, extra="forbid")
