"""What a side of one pair remembers between two messages.

Guarantees: frozen, and can be stored; one message counts for each step, and a second one that
differs is refused.
"""

from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field

from federation.errors import MessageError
from federation.messages import MatchSide

__all__ = ["MatchState"]


class MatchState(BaseModel):
    """What a side of one pair remembers between two messages.

    Attributes:
        own: what it said of itself.
        other: what the other said; None before.
        heard: digests of the messages that were taken: one for each bucket, and at a peer that is
            told of the end, one of that.
        last: whether the match is over when the last of them is answered.
        below_minimum: whether all that is known of the outcome is that it was too small.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    own: MatchSide
    other: MatchSide | None = None
    heard: tuple[Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")], ...] = ()
    last: bool = False
    below_minimum: bool = False

    def meet(self, other: MatchSide) -> Self:
        """Take what the other side says of itself.

        Raises:
            MessageError: it said something else before.
        """
        if self.other not in (None, other):
            raise MessageError("the other side has described another set in this job")
        return self.model_copy(update={"other": other})

    def hear(self, bucket: int, digest: str, *, last: bool = False) -> Self:
        """Take the message of a bucket: the next, or one that was taken and is repeated.

        Args:
            bucket: its number; the number of buckets for the message of the end.
            digest: of the message.
            last: whether no other comes after it.

        Raises:
            MessageError: the bucket is not the next, or another message counts for it.
        """
        if bucket < len(self.heard):
            if self.heard[bucket] != digest:
                raise MessageError(f"a second message for bucket {bucket}: the first one counts")
            return self
        if bucket > len(self.heard):
            raise MessageError(f"message for bucket {bucket}; expected {len(self.heard)}")
        return self.model_copy(update={"heard": (*self.heard, digest), "last": last})

    def forget(self, bucket: int) -> Self:
        """Take back the message of a bucket, which broke the protocol: another may come."""
        return self.model_copy(update={"heard": self.heard[:bucket], "last": False})

    def fall_short(self) -> Self:
        """Keep of the outcome that it was below the agreed minimum, and no more."""
        return self.model_copy(update={"below_minimum": True})
