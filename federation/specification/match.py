"""What a match is asked to do, and an alignment."""

from collections.abc import Iterator
from typing import ClassVar, Literal

from pydantic import ByteSize, Field

from compliance.terms import MatchProtocol
from federation.specification.job import Absent, Contradiction, OfAll, Spec, between

__all__ = ["AlignSpec", "MatchSpec"]

_BASE_BYTES = 320 << 20  # interpreter, libraries and Flower; measured, see docs/scale.md
_BYTES_PER_POINT = 512  # points, tags, and their copies on the way; measured
_LARGEST_BUCKET_BITS = 20
_LINKED_BASE_BYTES = 480 << 20  # that, and the program in its own environment; measured likewise
_LINKED_BYTES_PER_POINT = 1_400  # its tables, its files in memory, and ours; measured
_LINKED_LEAST_BYTES = 768 << 20


class _Bucketed(Spec):
    memory_limit: ByteSize = Field(default=ByteSize(1 << 30), ge=512 << 20, le=1 << 40)

    @property
    def bucket_points(self) -> int:
        """Points of the larger set in a bucket, so many that a party stays within the limit."""
        room = (self.memory_limit - _BASE_BYTES) // _BYTES_PER_POINT
        return 1 << min(room.bit_length() - 1, _LARGEST_BUCKET_BITS)


class MatchSpec(_Bucketed):
    """Find out who of the brand's and each partner's people are the same.

    Attributes:
        memory_limit: bytes that a party's process may take while it matches, 512 MiB to 1 TiB; a
            text such as `"1GiB"` is read too; at least 768 MiB with rr22, whose program counts.
        protocol: by which it is computed, one that the agreement allows.
        absent_partners: partners that the match goes on without; none over a direct link. Who was
            missing has no members, and jobs that use the match go on without them too.
    """

    kind: Literal["match"] = "match"
    protocol: MatchProtocol = MatchProtocol.ECDH
    absent_partners: Absent = 0

    @property
    def is_direct(self) -> bool:
        """Whether the two sides match over a direct link of theirs."""
        return self.protocol is MatchProtocol.RR22

    @property
    def bucket_points(self) -> int:
        """Points of the larger set in a bucket, so many that a party stays within the limit."""
        if not self.is_direct:
            return super().bucket_points
        room = (self.memory_limit - _LINKED_BASE_BYTES) // _LINKED_BYTES_PER_POINT
        return 1 << min(room.bit_length() - 1, _LARGEST_BUCKET_BITS)

    def _contradictions(self) -> Iterator[Contradiction]:
        if self.is_direct and self.memory_limit < _LINKED_LEAST_BYTES:
            yield between(
                "protocol memory_limit",
                "protocol 'rr22' needs a memory_limit of at least 768MiB: give it more, or match "
                "by 'ecdh'",
            )
        if self.is_direct and self.absent_partners:
            yield between(
                "protocol absent_partners",
                "protocol 'rr22' has no absent_partners: both ends of a link have to be there at "
                "once, at most three times for a bucket: leave it out, or match by 'ecdh'",
            )


class AlignSpec(_Bucketed, OfAll):
    """Find the people whom all data parties know, for all of them, in one order.

    Attributes:
        memory_limit: as in a match.
    """

    WHY: ClassVar[str] = "an alignment is of the people whom every party knows"

    kind: Literal["align"] = "align"
