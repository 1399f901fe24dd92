"""Curve25519, a whole vector of points at a time: ladder, cofactor, Elligator 2, side of the curve.

Guarantees: no branch and no address depends on a scalar or on a point. The scalar's bits arrive in
memory as masks of all ones or none, so that no compiler can know them for the conditions that they
are.

How a point is held: by the sum and the difference of its projective coordinates, u = X/Z with
`plus` = X + Z and `minus` = X - Z, which is what doubling and adding start from.

Leaves to others: dividing X by Z (`powers`).
"""

from dataclasses import dataclass

from llvmlite import ir

from privacy.psi.vector.lanes import BYTE, WORD
from privacy.psi.vector.limbs import Element, LimbField
from privacy.psi.vector.powers import PAIR, Powers

__all__ = ["COEFFICIENT", "POINT_BYTES", "Curve"]

COEFFICIENT = 486662
"""A of v^2 = u^3 + A u^2 + u (RFC 7748 section 4.1)."""

POINT_BYTES = 32

_TOP_BIT = 254  # set by clamping; bits 2, 1 and 0 are cleared (RFC 7748 section 5)
_LOW_BITS = 3
_STEPS = _TOP_BIT - _LOW_BITS


@dataclass(frozen=True)
class _Point:
    """A point by X + Z and X - Z."""

    plus: Element
    minus: Element


class Curve:
    """Writes the functions on points into the field's module.

    Attributes:
        powers: the functions on elements beneath.
        masks: function (masks, scalar) that spells a scalar for the ladder.
        ladder: function (numerator, denominator, point, masks): u of the multiple of one point a
            lane, as a fraction.
        map: function (numerators, denominators, elements): Elligator 2 and the cofactor, for a
            pair of elements.
        side: function (elements, points): the Legendre symbols of u^3 + A u^2 + u, for a pair of
            points a lane: 1 on the curve, p - 1 on its twist.
    """

    mask_count = _STEPS + 1

    def __init__(self, powers: Powers) -> None:
        self.powers = powers
        self._field: LimbField = powers.field
        self._emit = powers.field.emit
        self._double_times = self._write_double()
        self.masks = self._write_masks()
        self.ladder = self._write_ladder()
        self.map = self._write_map()
        self.side = self._write_side()

    def _write_masks(self) -> ir.Function:
        """Write what turns bit t into the mask of step 253 - t: whether it differs from bit t + 1.

        The last mask is bit 3 itself. Clamping needs no operation: bits 255, 254, 2, 1 and 0 are
        never read.
        """
        emit = self._emit
        kinds = [WORD.as_pointer(), BYTE.as_pointer()]
        with emit.function("spell_scalar", kinds, exported=False) as function:
            masks, scalar = function.args
            build = emit.builder
            with emit.loop(_STEPS, WORD(1)) as loop:
                place = build.sub(WORD(_TOP_BIT - 1), loop.index)
                byte = build.load(emit.at(scalar, build.lshr(place, WORD(3))))
                shift = build.and_(place, WORD(7))
                bit = build.and_(build.lshr(build.zext(byte, WORD), shift), WORD(1))
                mask = build.neg(build.xor(bit, loop.values[0]))
                build.store(mask, emit.at(masks, loop.index))
                loop.values = [bit]
            build.store(build.neg(loop.values[0]), emit.at(masks, _STEPS))
        return function

    def _doubled(self, point: _Point) -> tuple[Element, Element]:
        """Return X and Z of twice the point (RFC 7748 section 5: AA, BB, E, x_2, z_2)."""
        field = self._field
        first, second = (field.factor(field.square(one)) for one in (point.plus, point.minus))
        difference = field.factor(field.subtract(first, second))
        scaled = field.scale(difference, (COEFFICIENT - 2) // 4, first)
        return field.multiply(first, second), field.multiply(difference, scaled)

    def _point(self, x: Element, z: Element) -> _Point:
        field = self._field
        return _Point(field.kept(field.add(x, z)), field.kept(field.subtract(x, z)))

    def _write_double(self) -> ir.Function:
        """Write (point, times): double one point a lane so many times, in place."""
        emit = self._emit
        with emit.function("double", [emit.pointer, WORD], exported=False) as function:
            place, times = function.args
            with emit.loop(times):
                self._store_point(self._point(*self._doubled(self._load_point(place))), place)
        return function

    def _load_point(self, place: ir.Value) -> _Point:
        places = (self.powers.element(place, index) for index in (0, 1))
        return _Point(*(self._field.load(one, stays=True) for one in places))

    def _store_point(self, point: _Point, place: ir.Value) -> None:
        for index, element in enumerate((point.plus, point.minus)):
            self._field.store(element, self.powers.element(place, index))

    def _store_fraction(self, point: _Point, numerator: ir.Value, denominator: ir.Value) -> None:
        """Store 2X and 2Z."""
        self._field.store(self._field.add(point.plus, point.minus), numerator)
        self._field.store(self._field.subtract(point.plus, point.minus), denominator)

    def _write_ladder(self) -> ir.Function:
        """Write the Montgomery ladder (RFC 7748 section 5), with one point that is doubled.

        The RFC swaps two points before each step. Of what follows only the doubling depends on
        the order, as the difference of the points is the same either way up to its sign: choosing
        which one to double does the same with a quarter of the work. The top bit is set, so the
        first step is to double; the low three are not, so the last three are as well.
        """
        emit, field = self._emit, self._field
        kinds = [emit.pointer, emit.pointer, BYTE.as_pointer(), WORD.as_pointer()]
        with emit.function("ladder", kinds, exported=False) as function:
            numerator, denominator, row, masks = function.args
            u = field.resident(field.from_words(emit.load_columns(row, 4), 255))
            added = self._point(u, field.constant(1))
            place, first, second = (self.powers.pair() for _ in range(3))
            self._store_point(added, place)
            emit.builder.call(self._double_times, [place, WORD(1)])
            self._store_point(self._load_point(place), first)
            self._store_point(added, second)
            with emit.loop(_STEPS) as loop, field.in_line():
                mask = emit.splat(emit.builder.load(emit.at(masks, loop.index)))
                state = self._load_point(first), self._load_point(second)
                double, added = self._step(u, *state, mask)
                self._store_point(double, first)
                self._store_point(added, second)
            mask = emit.splat(emit.builder.load(emit.at(masks, _STEPS)))
            chosen = self._chosen(mask, self._load_point(first), self._load_point(second))
            self._store_point(chosen, place)
            emit.builder.call(self._double_times, [place, WORD(_LOW_BITS)])
            self._store_fraction(self._load_point(place), numerator, denominator)
        return function

    def _chosen(self, mask: ir.Value, first: _Point, second: _Point) -> _Point:
        select = self._field.select
        return _Point(
            select(mask, first.plus, second.plus), select(mask, first.minus, second.minus)
        )

    def _step(
        self, u: Element, first: _Point, second: _Point, mask: ir.Value
    ) -> tuple[_Point, _Point]:
        """Return the double of the chosen point and the sum of both."""
        field = self._field
        crossed = (
            field.multiply(second.minus, first.plus),
            field.multiply(second.plus, first.minus),
        )
        double = self._point(*self._doubled(self._chosen(mask, first, second)))
        x = field.square(field.add(*crossed))
        z = field.multiply(u, field.square(field.subtract(*crossed)))
        return double, self._point(x, z)

    def _write_map(self) -> ir.Function:
        """Write Elligator 2 (RFC 9380 section 6.7.1 with J = A, K = 1, Z = 2) and the cofactor 8.

        With t = 2 r^2 and d = 1 + t, the candidates are -A/d and -A t/d, and the first is on the
        curve if A d (d^2 - A^2 t) is a square: the value of u^3 + A u^2 + u there, times the
        square -d^4. As -2 is no square, d is never 0.
        """
        emit, field = self._emit, self._field
        zero, one = field.constant(0), field.constant(1)
        with emit.function("map_pair", [emit.pointer] * 3, exported=False) as function:
            numerators, denominators, elements = function.args
            value, symbol, place = (self.powers.pair() for _ in range(3))
            with emit.loop(PAIR) as loop:
                here = [
                    self.powers.element(row, loop.index)
                    for row in (elements, numerators, denominators, value)
                ]
                square = field.square(field.load(here[0]))
                t = field.factor(field.add(square, square))
                d = field.factor(field.add(t, one))
                t_scaled = field.scale(field.scale(t, COEFFICIENT, zero), COEFFICIENT, zero)
                tested = field.multiply(d, field.subtract(field.square(d), t_scaled))
                field.store(t, here[1])
                field.store(d, here[2])
                field.store(field.scale(tested, COEFFICIENT, zero), here[3])
            emit.builder.call(self.powers.legendre, [symbol, value])
            with emit.loop(PAIR) as loop:
                x_place, z_place, sign = (
                    self.powers.element(row, loop.index)
                    for row in (numerators, denominators, symbol)
                )
                second = field.is_zero(field.add(field.load(sign), one))
                x = field.scale(field.select(second, one, field.load(x_place)), COEFFICIENT, zero)
                z = field.subtract(zero, field.load(z_place))
                self._store_point(self._point(x, z), place)
                emit.builder.call(self._double_times, [place, WORD(_LOW_BITS)])
                self._store_fraction(self._load_point(place), x_place, z_place)
        return function

    def _write_side(self) -> ir.Function:
        emit, field = self._emit, self._field
        kinds = [emit.pointer, BYTE.as_pointer()]
        with emit.function("side_pair", kinds, exported=False) as function:
            to, rows = function.args
            value = self.powers.pair()
            with emit.loop(PAIR) as loop:
                row = emit.at(rows, emit.scaled(loop.index, POINT_BYTES * emit.lanes))
                u = field.factor(field.from_words(emit.load_columns(row, 4), 256))
                inner = field.add(field.square(u), field.scale(u, COEFFICIENT, field.constant(1)))
                field.store(field.multiply(u, inner), self.powers.element(value, loop.index))
            emit.builder.call(self.powers.legendre, [to, value])
        return function
