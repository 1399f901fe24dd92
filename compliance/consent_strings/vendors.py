"""Sets of vendor ids, as a consent string has them: a bit for each, or ranges.

Guarantees: ids are 1 to 65,535; ranges ascend and do not meet; nothing is in a set that its bits
do not name.

Leaves to others: what being in a set means.

Source: IAB Tech Lab, "Consent string and vendor list formats v2", Vendor Consent Section.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final, Self

from compliance.consent_strings.bits import BitReader, BitWriter
from compliance.errors import ConsentStringError

__all__ = ["VendorIds", "read_ranges", "read_vendors", "write_ranges", "write_vendors"]

_ID_BITS: Final = 16
_COUNT_BITS: Final = 12
_MAXIMUM: Final = (1 << _ID_BITS) - 1


@dataclass(frozen=True, slots=True)
class VendorIds:
    """A set of vendor ids.

    Attributes:
        bits: the number whose bit of value 2^v is set for each vendor v of the set.
    """

    bits: int = field(default=0, repr=False)

    def __post_init__(self) -> None:
        if self.bits < 0 or self.bits & 1 or self.bits.bit_length() > _MAXIMUM + 1:
            raise ConsentStringError(f"vendor ids: expected 1 to {_MAXIMUM}")

    @classmethod
    def of(cls, ids: Iterable[int]) -> Self:
        """Return the set of some ids.

        Raises:
            ConsentStringError: one is not 1 to 65,535.
        """
        bits = 0
        for one in ids:
            if not 1 <= one <= _MAXIMUM:
                raise ConsentStringError(f"vendor ids: expected 1 to {_MAXIMUM}")
            bits |= 1 << one
        return cls(bits)

    def __contains__(self, vendor: int) -> bool:
        return vendor > 0 and bool(self.bits >> vendor & 1)

    def __iter__(self) -> Iterator[int]:
        for first, last in self.ranges():
            yield from range(first, last + 1)

    def __len__(self) -> int:
        return self.bits.bit_count()

    def __le__(self, other: "VendorIds") -> bool:
        return not self.bits & ~other.bits

    @property
    def largest(self) -> int:
        """The largest id; 0 of an empty set."""
        return max(self.bits.bit_length() - 1, 0)

    def ranges(self) -> Iterator[tuple[int, int]]:
        """Yield (first, last) of every run of ids, ascending."""
        rest, offset = self.bits, 0
        while rest:
            skip = (rest & -rest).bit_length() - 1
            rest >>= skip
            run = (~rest & (rest + 1)).bit_length() - 1
            yield offset + skip, offset + skip + run - 1
            rest >>= run
            offset += skip + run


def read_ranges(reader: BitReader, name: str, most: int = _MAXIMUM) -> VendorIds:
    """Read NumEntries and as many range entries.

    Raises:
        ConsentStringError: an entry is empty, out of range, or not after the one before it.
    """
    bits, before = 0, 0
    for _ in range(reader.take(_COUNT_BITS)):
        several = reader.take(1)
        first = reader.take(_ID_BITS)
        last = reader.take(_ID_BITS) if several else first
        if not before < first <= last <= most or (several and first == last):
            raise ConsentStringError(f"{name}: ranges of vendors that do not ascend within bounds")
        bits |= ((1 << (last - first + 1)) - 1) << first
        before = last
    return VendorIds(bits)


def read_vendors(reader: BitReader, name: str) -> VendorIds:
    """Read MaxVendorId, IsRangeEncoding, and a bit field or ranges.

    Raises:
        ConsentStringError: ranges as in `read_ranges`, or the bits end first.
    """
    most = reader.take(_ID_BITS)
    if reader.take(1):
        return read_ranges(reader, name, most)
    # The leftmost bit is vendor 1; in `bits`, it has the least value.
    field = reader.take(most)
    return VendorIds(int(f"{field:0{most}b}"[::-1], 2) << 1) if field else VendorIds()


def write_ranges(writer: BitWriter, vendors: VendorIds) -> None:
    """Write what `read_ranges` reads.

    Raises:
        ConsentStringError: there are more than 4,095 ranges.
    """
    ranges = list(vendors.ranges())
    writer.put(len(ranges), _COUNT_BITS)
    for first, last in ranges:
        writer.put(first < last, 1).put(first, _ID_BITS)
        if first < last:
            writer.put(last, _ID_BITS)


def write_vendors(writer: BitWriter, vendors: VendorIds) -> None:
    """Write what `read_vendors` reads, in the shorter of the two ways."""
    most = vendors.largest
    writer.put(most, _ID_BITS)
    cost = _COUNT_BITS
    for first, last in vendors.ranges():
        cost += 1 + (2 if first < last else 1) * _ID_BITS
        if cost >= most:
            break
    if cost < most:
        writer.put(1, 1)
        write_ranges(writer, vendors)
    else:
        field = int(f"{vendors.bits >> 1:0{most}b}"[::-1], 2) if most else 0
        writer.put(0, 1).put(field, most)
