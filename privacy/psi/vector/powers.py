"""Powers, inverses and quotients of many elements at a time.

Guarantees: no branch or address depends on an element. Elements come in pairs, neighbours in
memory, so that each of two chains of squarings works while the other waits for its last product.

Leaves to others: where numerators and denominators come from (`curve`).

Source: the addition chain for 2^250 - 1 is that of Bernstein's Curve25519 (2006); for the batch,
Montgomery, "Speeding the Pollard and elliptic curve methods of factorization", 1987, section
10.3.1.
"""

from llvmlite import ir

from privacy.psi.vector.lanes import WORD
from privacy.psi.vector.limbs import LimbField

__all__ = ["PAIR", "Powers"]

PAIR = 2
"""Elements that are worked on together."""


class Powers:
    """Writes the functions on pairs of elements into the field's module.

    Attributes:
        field: whose elements they are.
        inverse: function (to, from) of the reciprocals; 0 for 0.
        legendre: function (to, from) of the Legendre symbols: 1 for squares, p - 1 for others, 0
            for 0.
        quotients: function (to, numerators, denominators, workspace, pairs) that writes canonical
            32-byte rows and returns all ones in a lane if one of them is 0. Denominators of 0 give
            0. Numerators and denominators are used up; the workspace holds pairs + 1 pairs.
    """

    def __init__(self, field: LimbField) -> None:
        self.field = field
        self._emit = field.emit
        self._multiply = self._write_multiply()
        self._square = self._write_square()
        pointers = [self._emit.pointer] * 2
        with self._emit.function("inverse", pointers, exported=False) as self.inverse:
            # p - 2 = 2^5 (2^250 - 1) + 11
            to, base = self.inverse.args
            high, eleventh = self._high(base)
            self._product(self._squared(high, 5), eleventh, to=to)
        with self._emit.function("legendre", pointers, exported=False) as self.legendre:
            # (p - 1) / 2 = 2^4 (2^250 - 1) + 6
            to, base = self.legendre.args
            high, _ = self._high(base)
            second = self._squared(base, 1)
            sixth = self._product(self._squared(second, 1), second)
            self._product(self._squared(high, 4), sixth, to=to)
        self.quotients = self._write_quotients()

    def pair(self) -> ir.Value:
        """Return a place on the stack for a pair."""
        return self._emit.slots(PAIR * self.field.size)

    def element(self, elements: ir.Value, index: ir.Value | int) -> ir.Value:
        """Return the address of an element in a row of them."""
        return self._emit.at(elements, self._emit.scaled(index, self.field.size))

    def _write_multiply(self) -> ir.Function:
        pointer, field = self._emit.pointer, self.field
        with self._emit.function("multiply_pair", [pointer] * 3, exported=False) as function:
            to, *factors = function.args
            products = [
                field.multiply(*(field.load(self.element(one, index)) for one in factors))
                for index in range(PAIR)
            ]
            for index, product in enumerate(products):
                field.store(product, self.element(to, index))
        return function

    def _write_square(self) -> ir.Function:
        pointer, field = self._emit.pointer, self.field
        kinds = [pointer, pointer, WORD]
        with self._emit.function("square_pair", kinds, exported=False) as function:
            to, base, times = function.args
            first = [field.load(self.element(base, index)) for index in range(PAIR)]
            with self._emit.loop(times, *field.flatten(*first)) as loop:
                squares = map(field.square, field.unflatten(loop.values))
                loop.values = field.flatten(*squares)
            for index, square in enumerate(field.unflatten(loop.values)):
                field.store(square, self.element(to, index))
        return function

    def _product(self, a: ir.Value, b: ir.Value, to: ir.Value | None = None) -> ir.Value:
        to = self.pair() if to is None else to
        self._emit.builder.call(self._multiply, [to, a, b])
        return to

    def _squared(self, base: ir.Value, times: int) -> ir.Value:
        to = self.pair()
        self._emit.builder.call(self._square, [to, base, WORD(times)])
        return to

    def _high(self, base: ir.Value) -> tuple[ir.Value, ir.Value]:
        """Return base^(2^250 - 1) and base^11."""
        second = self._squared(base, 1)
        ninth = self._product(self._squared(second, 2), base)
        eleventh = self._product(ninth, second)
        ones = {5: self._product(self._squared(eleventh, 1), ninth)}  # base^(2^key - 1)
        for known, more in ((5, 5), (10, 10), (20, 20), (40, 10), (50, 50), (100, 100), (200, 50)):
            ones[known + more] = self._product(self._squared(ones[known], more), ones[more])
        return ones[250], eleventh

    def _write_quotients(self) -> ir.Function:
        emit, field = self._emit, self.field
        kinds = [ir.IntType(8).as_pointer(), *[emit.pointer] * 3, WORD]
        with emit.function("quotients", kinds, returns=emit.vector, exported=False) as function:
            to, numerators, denominators, prefixes, pairs = function.args
            one = field.constant(1)
            for index in range(PAIR):
                field.store(one, self.element(prefixes, index))
            with emit.loop(emit.scaled(pairs, PAIR)) as loop:
                self._replace_zero(
                    self.element(numerators, loop.index), self.element(denominators, loop.index)
                )
            with emit.loop(pairs) as loop:
                here = emit.scaled(loop.index, PAIR)
                self._product(
                    self.element(prefixes, here),
                    self.element(denominators, here),
                    to=self.element(prefixes, emit.builder.add(here, WORD(PAIR))),
                )
            inverse, single, quotient = self.pair(), self.pair(), self.pair()
            whole = self.element(prefixes, emit.scaled(pairs, PAIR))
            emit.builder.call(self.inverse, [inverse, whole])
            with emit.loop(pairs, emit.constant(0)) as loop:
                back = emit.builder.sub(emit.builder.sub(pairs, WORD(1)), loop.index)
                here = emit.scaled(back, PAIR)
                self._product(inverse, self.element(prefixes, here), to=single)
                self._product(inverse, self.element(denominators, here), to=inverse)
                self._product(single, self.element(numerators, here), to=quotient)
                row = 32 * emit.lanes
                for index in range(PAIR):
                    words = field.to_words(field.load(self.element(quotient, index)))
                    place = emit.builder.add(here, WORD(index))
                    emit.store_columns(words, emit.at(to, emit.scaled(place, row)))
                    loop.values[0] = emit.builder.or_(loop.values[0], field.all_zero(words))
            emit.builder.ret(loop.values[0])
        return function

    def _replace_zero(self, numerator: ir.Value, denominator: ir.Value) -> None:
        """Make 0 / 1 of what has the denominator 0, which would spoil the others' inverses."""
        field = self.field
        below = field.load(denominator)
        zero = field.is_zero(below)
        field.store(field.select(zero, field.load(numerator), field.constant(0)), numerator)
        field.store(field.select(zero, below, field.constant(1)), denominator)
