"""Five limbs of 51 bits, multiplied by AVX-512 IFMA.

`vpmadd52luq` and `vpmadd52huq` multiply the low 52 bits of two lanes and add the low or the high
52 bits of the product to a third. As 2^52 = 2 · 2^51, a high half counts twice in the next column.

Source: Intel 64 and IA-32 Architectures Software Developer's Manual, volume 2, VPMADD52LUQ and
VPMADD52HUQ.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import combinations

from llvmlite import ir

from privacy.psi.vector.lanes import Emitter
from privacy.psi.vector.limbs import FOLD, Element, LimbField

__all__ = ["Field51"]

_LIMBS = 5
_HALF = 2**52 - 1


@dataclass(frozen=True)
class _Sum:
    """A column under way: its value and the most that it can be."""

    value: ir.Value
    bound: int


class Field51(LimbField):
    """`LimbField` for processors with IFMA: 8 lanes."""

    widths = (51,) * _LIMBS
    factor_bound = _HALF
    kept_bounds = (2**51 + 2**16,) * _LIMBS
    carry_rounds = (tuple(range(_LIMBS)),)

    def __init__(self, emit: Emitter) -> None:
        super().__init__(emit)
        kind = ir.FunctionType(emit.vector, [emit.vector] * 3)
        self._low = ir.Function(emit.module, kind, "llvm.x86.avx512.vpmadd52l.uq.512")
        self._high = ir.Function(emit.module, kind, "llvm.x86.avx512.vpmadd52h.uq.512")

    def multiply(self, a: Element, b: Element) -> Element:
        """Return a times b: 50 multiplications."""
        a, b = self.factor(a), self.factor(b)
        pairs = [(i, j) for i in range(_LIMBS) for j in range(_LIMBS)]
        columns = []
        for column in range(2 * _LIMBS):
            total = self._add_high(self._zero, pairs, column, a, b)
            columns.append(self._add_low(self._twice(total), pairs, column, a, b))
        return self._folded(columns)

    def square(self, a: Element) -> Element:
        """Return a times a: 30 multiplications, as mixed terms count twice."""
        a = self.factor(a)
        mixed, pure = list(combinations(range(_LIMBS), 2)), [(i, i) for i in range(_LIMBS)]
        columns = []
        for column in range(2 * _LIMBS):
            total = self._twice(self._add_high(self._zero, mixed, column, a, a))
            total = self._add_high(total, pure, column, a, a)
            total = self._twice(self._add_low(total, mixed, column, a, a))
            columns.append(self._add_low(total, pure, column, a, a))
        return self._folded(columns)

    def scale(self, a: Element, factor: int, plus: Element) -> Element:
        """Return a times a number of at most 19 bits, plus another element."""
        a = self.factor(a)
        number = Element((self.emit.constant(factor),), (factor,))
        pairs = [(i, 0) for i in range(_LIMBS)]
        columns = []
        for column in range(_LIMBS + 1):
            total = self._twice(self._add_high(self._zero, pairs, column, a, number))
            if column < _LIMBS:
                total = self._plus(total, _Sum(plus.limbs[column], plus.bounds[column]))
            columns.append(self._add_low(total, pairs, column, a, number))
        return self._folded(columns)

    @property
    def _zero(self) -> _Sum:
        return _Sum(self.emit.constant(0), 0)

    def _add_low(
        self, total: _Sum, pairs: Iterable[tuple[int, int]], column: int, a: Element, b: Element
    ) -> _Sum:
        """Add the low halves that belong to a column."""
        for i, j in pairs:
            if i + j == column:
                value = self.emit.builder.call(self._low, [total.value, a.limbs[i], b.limbs[j]])
                total = _Sum(value, total.bound + min(a.bounds[i] * b.bounds[j], _HALF))
        return total

    def _add_high(
        self, total: _Sum, pairs: Iterable[tuple[int, int]], column: int, a: Element, b: Element
    ) -> _Sum:
        """Add the high halves, of half their weight, that belong to a column."""
        for i, j in pairs:
            if i + j + 1 == column:
                value = self.emit.builder.call(self._high, [total.value, a.limbs[i], b.limbs[j]])
                total = _Sum(value, total.bound + (a.bounds[i] * b.bounds[j] >> 52))
        return total

    def _plus(self, a: _Sum, b: _Sum) -> _Sum:
        if a.bound == 0:
            return b
        return _Sum(self.emit.builder.add(a.value, b.value), a.bound + b.bound)

    def _twice(self, total: _Sum) -> _Sum:
        return self._plus(total, total)

    def _folded(self, columns: list[_Sum]) -> Element:
        """Return the element whose columns from 2^255 on count 19 times at the bottom."""
        for column, total in enumerate(columns[_LIMBS:]):
            folded = _Sum(self.times_fold(total.value), FOLD * total.bound)
            columns[column] = self._plus(columns[column], folded)
        low = columns[:_LIMBS]
        return Element(tuple(one.value for one in low), tuple(one.bound for one in low))
