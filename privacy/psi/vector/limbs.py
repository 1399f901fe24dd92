"""Elements of the field of 2^255 - 19, cut into limbs that lie in one 64-bit lane each.

Guarantees: no limb ever overflows. Every `Element` carries, beside the values that machine code
will compute, the most that each limb can be; every operation derives the bounds of its result
from those of its operands and refuses to emit what could pass 2^64, or what a multiplier could
not take. Carries are emitted only where these bounds ask for them. As code is emitted once for
all data, a program that was emitted is a program whose bounds were proven.

Leaves to others: multiplication, which is what radixes differ in (`field51`, `field25`).
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate

from llvmlite import ir

from privacy.psi.field import PRIME
from privacy.psi.vector.lanes import Emitter

__all__ = ["FIELD_BITS", "FOLD", "Element", "LimbField"]

FIELD_BITS = 255
FOLD = 19
"""2^255 is 19 in the field."""
_WORD_BITS = 64


@dataclass(frozen=True)
class Element:
    """An element, not necessarily reduced: the sum of limb i times 2^(start of limb i).

    Attributes:
        limbs: one vector per limb.
        bounds: the most that each limb can be.
        place: where in memory the limbs stand as they are, if they do.
    """

    limbs: tuple[ir.Value, ...]
    bounds: tuple[int, ...]
    place: ir.Value | None = None

    def __post_init__(self) -> None:
        _refuse_overflow(max(self.bounds))


def _refuse_overflow(bound: int) -> None:
    if bound >= 2**_WORD_BITS:
        raise RuntimeError(f"a limb could reach {bound.bit_length()} bits, of {_WORD_BITS}: carry")


class LimbField(ABC):
    """Arithmetic on elements; subclasses choose the radix and multiply.

    Attributes:
        emit: writes the code.
        widths: bits of each limb, 255 in all.
        starts: first bit of each limb.
        factor_bound: the most that a limb of a factor may be.
        kept_bounds: the most that each limb may be at rest, in memory or from turn to turn.
        carry_rounds: which limbs to carry, those of one round all at once.
    """

    widths: tuple[int, ...]
    factor_bound: int
    kept_bounds: tuple[int, ...]
    carry_rounds: tuple[tuple[int, ...], ...]

    def __init__(self, emit: Emitter) -> None:
        self.emit = emit
        self.starts = tuple(accumulate(self.widths[:-1], initial=0))

    @contextmanager
    def in_line(self) -> Iterator[None]:
        """Write out the multiplications in the body, if they are calls elsewhere."""
        yield

    @abstractmethod
    def multiply(self, a: Element, b: Element) -> Element:
        """Return a times b."""

    @abstractmethod
    def square(self, a: Element) -> Element:
        """Return a times a."""

    @abstractmethod
    def scale(self, a: Element, factor: int, plus: Element) -> Element:
        """Return a times a number of at most 19 bits, plus another element."""

    @property
    def size(self) -> int:
        """Vectors in an element."""
        return len(self.widths)

    def constant(self, number: int) -> Element:
        """Return the same reduced number in every lane."""
        limbs = [
            number >> start & (2**width - 1)
            for start, width in zip(self.starts, self.widths, strict=True)
        ]
        return Element(tuple(map(self.emit.constant, limbs)), tuple(limbs))

    def add(self, a: Element, b: Element) -> Element:
        """Return a + b."""
        return Element(
            tuple(map(self.emit.builder.add, a.limbs, b.limbs)),
            tuple(x + y for x, y in zip(a.bounds, b.bounds, strict=True)),
        )

    def subtract(self, a: Element, b: Element) -> Element:
        """Return a - b, made positive by a multiple of p whose limbs are those of b or more."""
        prime = self.constant(PRIME).bounds
        times = max(-(-bound // limb) for bound, limb in zip(b.bounds, prime, strict=True))
        bias = tuple(times * limb for limb in prime)
        raised = self.add(a, Element(tuple(map(self.emit.constant, bias)), bias))
        return Element(tuple(map(self.emit.builder.sub, raised.limbs, b.limbs)), raised.bounds)

    def select(self, mask: ir.Value, a: Element, b: Element) -> Element:
        """Return a where the mask is 0, b where it is all ones."""
        build = self.emit.builder
        limbs = (
            build.xor(x, build.and_(build.xor(x, y), mask))
            for x, y in zip(a.limbs, b.limbs, strict=True)
        )
        return Element(tuple(limbs), tuple(map(max, a.bounds, b.bounds)))

    def factor(self, a: Element) -> Element:
        """Return a, carried if a multiplier could not take it as it is."""
        return self._fitting(a, (self.factor_bound,) * self.size)

    def kept(self, a: Element) -> Element:
        """Return a, carried if it could not be kept as it is."""
        return self._fitting(a, self.kept_bounds)

    def load(self, pointer: ir.Value, *, stays: bool = False) -> Element:
        """Load an element that was kept; say if its memory stays as it is while it is in use."""
        limbs = tuple(self.emit.load(pointer, index) for index in range(self.size))
        return Element(limbs, self.kept_bounds, pointer if stays else None)

    def store(self, a: Element, pointer: ir.Value) -> None:
        """Keep an element in memory."""
        for index, limb in enumerate(self.kept(a).limbs):
            self.emit.store(limb, pointer, index)

    def resident(self, a: Element) -> Element:
        """Return the element after giving it a place of its own."""
        place = self.emit.slots(self.size)
        self.store(a, place)
        return self.load(place, stays=True)

    def flatten(self, *elements: Element) -> list[ir.Value]:
        """Return the limbs of elements that go from turn to turn, kept."""
        return [limb for element in elements for limb in self.kept(element).limbs]

    def unflatten(self, values: Sequence[ir.Value]) -> list[Element]:
        """Return the elements that `flatten` took apart."""
        return [
            Element(tuple(values[at : at + self.size]), self.kept_bounds)
            for at in range(0, len(values), self.size)
        ]

    def from_words(self, words: Sequence[ir.Value], bits: int) -> Element:
        """Return the element of a little-endian number of 64-bit words.

        Args:
            words: one vector per word, the least first.
            bits: how many bits count, 255 to 510; those above are ignored.
        """
        low = self._cut(words, 0, FIELD_BITS)
        if bits == FIELD_BITS:
            return low
        high = self._cut(words, FIELD_BITS, bits - FIELD_BITS)
        folded = tuple(map(self.times_fold, high.limbs))
        return self.add(low, Element(folded, tuple(FOLD * most for most in high.bounds)))

    def to_words(self, a: Element) -> list[ir.Value]:
        """Return the four little-endian words of the one canonical form."""
        build, limbs = self.emit.builder, self._canonical(a)
        words = []
        for low in range(0, 256, _WORD_BITS):
            parts = []
            for limb, start, width in zip(limbs, self.starts, self.widths, strict=True):
                if low <= start < low + _WORD_BITS:
                    parts.append(build.shl(limb, self.emit.constant(start - low)))
                elif start < low < start + width:
                    parts.append(build.lshr(limb, self.emit.constant(low - start)))
            words.append(self._either(parts))
        return words

    def is_zero(self, a: Element) -> ir.Value:
        """Return all ones in the lanes where the element is 0, else 0."""
        return self.all_zero(self._canonical(a))

    def all_zero(self, vectors: Sequence[ir.Value]) -> ir.Value:
        """Return all ones in the lanes where every vector is 0, else 0."""
        build = self.emit.builder
        zero = build.icmp_unsigned("==", self._either(vectors), self.emit.constant(0))
        return build.sext(zero, self.emit.vector)

    def times_fold(self, value: ir.Value) -> ir.Value:
        """Return a vector times 19."""
        return self.emit.builder.mul(value, self.emit.constant(FOLD))

    def _fitting(self, a: Element, bounds: tuple[int, ...]) -> Element:
        if all(map(int.__le__, a.bounds, bounds)):
            return a
        carried = self._carried(a, self.carry_rounds)
        if not all(map(int.__le__, carried.bounds, bounds)):
            raise RuntimeError(f"carrying leaves limbs up to {carried.bounds}, past {bounds}")
        return carried

    def _carried(self, a: Element, rounds: Sequence[Sequence[int]]) -> Element:
        """Move what limbs have above their widths to the next, the last limb's to the first."""
        build, limbs, bounds = self.emit.builder, list(a.limbs), list(a.bounds)
        for indexes in rounds:
            over = [build.lshr(limbs[i], self.emit.constant(self.widths[i])) for i in indexes]
            most = [bounds[i] >> self.widths[i] for i in indexes]
            for i in indexes:
                limbs[i] = build.and_(limbs[i], self.emit.constant(2 ** self.widths[i] - 1))
                bounds[i] = min(bounds[i], 2 ** self.widths[i] - 1)
            for i, excess, bound in zip(indexes, over, most, strict=True):
                last = i == self.size - 1
                following = 0 if last else i + 1
                moved = self.times_fold(excess) if last else excess
                limbs[following] = build.add(limbs[following], moved)
                bounds[following] += FOLD * bound if last else bound
                _refuse_overflow(bounds[following])
        return Element(tuple(limbs), tuple(bounds))

    def _canonical(self, a: Element) -> tuple[ir.Value, ...]:
        """Return the limbs of the representative in [0, p)."""
        build = self.emit.builder
        # All limbs but the first end within their widths; the first gets at most 19 · 2^39 more,
        # so what remains is below 2p and reaches p at most once.
        a = self._carried(a, [(index,) for index in range(self.size)])
        # a + 19 reaches 2^255 exactly if a reaches p; then a - p = a + 19 - 2^255.
        over = self.emit.constant(FOLD)
        for limb, width in zip(a.limbs, self.widths, strict=True):
            over = build.lshr(build.add(limb, over), self.emit.constant(width))
        over = build.mul(over, self.emit.constant(FOLD))
        limbs = []
        for limb, width in zip(a.limbs, self.widths, strict=True):
            total = build.add(limb, over)
            limbs.append(build.and_(total, self.emit.constant(2**width - 1)))
            over = build.lshr(total, self.emit.constant(width))
        return tuple(limbs)

    def _cut(self, words: Sequence[ir.Value], first: int, bits: int) -> Element:
        """Return the limbs of `bits` bits from bit `first` on."""
        build, limbs, bounds = self.emit.builder, [], []
        for start, whole in zip(self.starts, self.widths, strict=True):
            width = max(0, min(whole, bits - start))
            index, shift = divmod(first + start, _WORD_BITS)
            limb = self.emit.constant(0)
            if width:
                limb = build.lshr(words[index], self.emit.constant(shift))
                if shift + width > _WORD_BITS:
                    rest = build.shl(words[index + 1], self.emit.constant(_WORD_BITS - shift))
                    limb = build.or_(limb, rest)
                limb = build.and_(limb, self.emit.constant(2**width - 1))
            limbs.append(limb)
            bounds.append(2**width - 1)
        return Element(tuple(limbs), tuple(bounds))

    def _either(self, vectors: Sequence[ir.Value]) -> ir.Value:
        result = vectors[0]
        for vector in vectors[1:]:
            result = self.emit.builder.or_(result, vector)
        return result
