"""Ten limbs of 26 and 25 bits in turn, multiplied as 32-bit halves of 64-bit lanes.

Every vector unit multiplies two 32-bit numbers into a 64-bit lane (`vpmuludq` on x86, `umull` on
ARM). Limb i starts at bit ceil(25.5 i): where both factors have odd indexes their product lies one
bit higher than its column and counts twice.

Source: Bernstein, "Curve25519: new Diffie-Hellman speed records", PKC 2006, section 4.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from llvmlite import ir

from privacy.psi.vector.lanes import Emitter
from privacy.psi.vector.limbs import FOLD, Element, LimbField

__all__ = ["Field25"]

_LIMBS = 10
_HALF = 2**32 - 1
_LANES_IN_LINE = 8

# Which limbs meet, and how often: mixed terms come twice in a square.
_WHOLE = [(i, j, 1 + (i & j & 1)) for i in range(_LIMBS) for j in range(_LIMBS)]
_HALF_SQUARE = [(i, j, times * (1 + (i < j))) for i, j, times in _WHOLE if i <= j]


class Field25(LimbField):
    """`LimbField` for any processor: any number of lanes.

    Multiplying and squaring are functions of their own. In line they would save copies, but with
    the 16 registers of processors without AVX-512 a ladder's step of them grows past what caches
    of decoded instructions hold.
    """

    widths = (26, 25) * (_LIMBS // 2)
    factor_bound = _HALF // FOLD
    carry_rounds = ((0, 4), (1, 5), (2, 6), (3, 7), (4, 8), (9,), (0,))

    def __init__(self, emit: Emitter) -> None:
        super().__init__(emit)
        # Calls return carried products, of which a sum or a difference is still a factor.
        # Products in line are carried after the sum or difference, which must not overflow.
        loose, tight = (self.factor_bound,) * _LIMBS, (2**26 + 2**20, 2**25 + 2**20) * (_LIMBS // 2)
        self._in_line = emit.lanes >= _LANES_IN_LINE
        self.kept_bounds = tight if self._in_line else loose
        self._calls = True
        self._multiply = self._write("multiply_elements", 2, _WHOLE)
        self._square = self._write("square_element", 1, _HALF_SQUARE)

    @contextmanager
    def in_line(self) -> Iterator[None]:
        """Write out multiplications, where there are registers enough for it to pay."""
        self._calls = not self._in_line
        yield
        self._calls = True

    def multiply(self, a: Element, b: Element) -> Element:
        """Return a times b: 100 multiplications, and 9 by 19."""
        if self._calls:
            return self._call(self._multiply, a, b)
        return self._convolved(self.factor(a), self.factor(b), _WHOLE)

    def square(self, a: Element) -> Element:
        """Return a times a: 55 multiplications, and 9 by 19."""
        if self._calls:
            return self._call(self._square, a)
        return self._convolved(self.factor(a), self.factor(a), _HALF_SQUARE)

    def _write(self, name: str, count: int, pairs: list[tuple[int, int, int]]) -> ir.Function:
        kinds = [self.emit.pointer] * (count + 1)
        with self.emit.function(name, kinds, exported=False) as function:
            to, *factors = function.args
            a, b = (self.load(place) for place in (factors * 2)[:2])
            product = self.kept(self._carried(self._convolved(a, b, pairs), self.carry_rounds))
            self._product_bounds = product.bounds
            self.store(product, to)
        return function

    def _call(self, function: ir.Function, *factors: Element) -> Element:
        to = self.emit.slots(_LIMBS)
        self.emit.builder.call(function, [to, *map(self._placed, factors)])
        return Element(self.load(to).limbs, self._product_bounds, to)

    def _placed(self, a: Element) -> ir.Value:
        """Return where an element stands, having put it there if it stood nowhere."""
        a = self.kept(a)
        if a.place is not None:
            return a.place
        place = self.emit.slots(_LIMBS)
        self.store(a, place)
        return place

    def scale(self, a: Element, factor: int, plus: Element) -> Element:
        """Return a times a number of at most 19 bits, plus another element."""
        a, number = self.factor(a), self.emit.constant(factor)
        limbs = [
            self.emit.builder.add(self._product(limb, number), more)
            for limb, more in zip(a.limbs, plus.limbs, strict=True)
        ]
        bounds = [most * factor + more for most, more in zip(a.bounds, plus.bounds, strict=True)]
        return Element(tuple(limbs), tuple(bounds))

    def _convolved(self, a: Element, b: Element, pairs: list[tuple[int, int, int]]) -> Element:
        """Return the sum of limb i of a times limb j of b, so many times, in its column."""
        build = self.emit.builder
        multiples = {1: a.limbs}
        for times in (2, 4):
            multiples[times] = tuple(build.add(limb, limb) for limb in multiples[times // 2])
        folded = tuple(map(self._fold_half, b.limbs))
        limbs: list[ir.Value] = [None] * _LIMBS
        bounds = [0] * _LIMBS
        for i, j, times in pairs:
            wraps, column = divmod(i + j, _LIMBS)
            if max(times * a.bounds[i], (FOLD if wraps else 1) * b.bounds[j]) > _HALF:
                raise RuntimeError("a factor could pass 32 bits: carry")
            product = self._product(multiples[times][i], (folded if wraps else b.limbs)[j])
            limbs[column] = build.add(limbs[column], product) if limbs[column] else product
            bounds[column] += times * a.bounds[i] * b.bounds[j] * (FOLD if wraps else 1)
        return Element(tuple(limbs), tuple(bounds))

    def _product(self, a: ir.Value, b: ir.Value) -> ir.Value:
        """Return the products of the low halves, which is what LLVM recognises."""
        build, mask = self.emit.builder, self.emit.constant(_HALF)
        return build.mul(build.and_(a, mask), build.and_(b, mask))

    def _fold_half(self, value: ir.Value) -> ir.Value:
        """Return 19 times lanes that stay below 2^32 (asked for 64 bits, LLVM takes five steps)."""
        halves = ir.VectorType(ir.IntType(32), 2 * self.emit.lanes)
        build = self.emit.builder
        product = build.mul(
            build.bitcast(value, halves), ir.Constant(halves, [FOLD] * halves.count)
        )
        return build.bitcast(product, self.emit.vector)
