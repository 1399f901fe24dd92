"""SHA-512 of one message per lane, and what RFC 9380 makes of it.

Guarantees: no branch and no address depends on a message, only on lengths, which the messages of
one call share.

Leaves to others: the padded suffix that all messages of a call have in common (`suffixed_blocks`
lays it out) and the reduction modulo p (`limbs`).

Source: FIPS 180-4 sections 4.1.3, 4.2.3, 5.3.5 and 6.4.2.
"""

from math import isqrt

import numpy as np
from llvmlite import ir
from numpy.typing import NDArray

from privacy.psi.vector.lanes import BYTE, WORD, Emitter

__all__ = ["BLOCK_WORDS", "STATE_WORDS", "Sha512", "suffixed_blocks"]

BLOCK_WORDS = 16
STATE_WORDS = 8

_BLOCK_BYTES = 8 * BLOCK_WORDS
_ROUNDS = 80
_MASK = 2**64 - 1


def suffixed_blocks(prefix_bytes: int, suffix: bytes, hashed_bytes: int = 0) -> NDArray[np.uint64]:
    """Lay out the last blocks of messages that differ in a prefix only (FIPS 180-4, 5.1.2).

    Args:
        prefix_bytes: length of the prefix, left zero here.
        suffix: what follows it.
        hashed_bytes: how much was hashed in blocks before these.

    Returns:
        (blocks, 16) words.
    """
    length = prefix_bytes + len(suffix)
    blocks = -(-(length + 17) // _BLOCK_BYTES)
    raw = (bytes(prefix_bytes) + suffix + b"\x80").ljust(blocks * _BLOCK_BYTES - 16, b"\x00")
    raw += (8 * (hashed_bytes + length)).to_bytes(16, "big")
    return np.frombuffer(raw, dtype=">u8").astype(np.uint64).reshape(-1, BLOCK_WORDS)


class Sha512:
    """Writes SHA-512 into a module.

    Attributes:
        start: function (state): the state before the first block.
        digest: function (state, blocks, count): hash `count` blocks of 16 vectors, at least 1.
        place: function (blocks, rows, width): write one row of `width` bytes a lane over the
            front of the blocks.
    """

    def __init__(self, emit: Emitter) -> None:
        self._emit = emit
        self.start = self._write_start()
        self.digest = self._write_digest()
        self.place = self._write_place()

    def _write_start(self) -> ir.Function:
        with self._emit.function("sha512_start", [self._emit.pointer], exported=False) as function:
            for index, prime in enumerate(_primes(STATE_WORDS)):
                word = isqrt(prime << 128) & _MASK
                self._emit.store(self._emit.constant(word), function.args[0], index)
        return function

    def _write_place(self) -> ir.Function:
        emit = self._emit
        kinds = [emit.pointer, BYTE.as_pointer(), WORD]
        with emit.function("place_rows", kinds, exported=False) as function:
            blocks, rows, width = function.args
            build = emit.builder
            columns = build.bitcast(blocks, BYTE.as_pointer())
            with emit.loop(WORD(emit.lanes)) as lane:
                row = emit.at(rows, build.mul(lane.index, width))
                with emit.loop(width) as byte:
                    # Byte i of a lane goes to its word i // 8, the most significant byte first.
                    word = build.mul(build.lshr(byte.index, WORD(3)), WORD(emit.lanes))
                    word = build.add(word, lane.index)
                    last = build.xor(build.and_(byte.index, WORD(7)), WORD(7))
                    place = build.add(build.shl(word, WORD(3)), last)
                    build.store(build.load(emit.at(row, byte.index)), emit.at(columns, place))
        return function

    def _write_digest(self) -> ir.Function:
        emit = self._emit
        kinds = [emit.pointer, emit.pointer, WORD]
        constants = self._round_constants()
        with emit.function("sha512_blocks", kinds, exported=False) as function:
            state, blocks, count = function.args
            with emit.loop(count) as block:
                first = emit.at(blocks, emit.scaled(block.index, BLOCK_WORDS))
                before = [emit.load(state, index) for index in range(STATE_WORDS)]
                schedule = [emit.load(first, index) for index in range(BLOCK_WORDS)]
                with emit.loop(_ROUNDS // BLOCK_WORDS, *before, *schedule) as turn:
                    place = emit.scaled(turn.index, BLOCK_WORDS)
                    rows = [
                        emit.splat(emit.builder.load(emit.at(constants, self._plus(place, index))))
                        for index in range(BLOCK_WORDS)
                    ]
                    turn.values = self._sixteen_rounds(turn.values, rows)
                for index, (old, new) in enumerate(zip(before, turn.values, strict=False)):
                    emit.store(emit.builder.add(old, new), state, index)
        return function

    def _plus(self, index: ir.Value, number: int) -> ir.Value:
        return self._emit.builder.add(index, WORD(number))

    def _round_constants(self) -> ir.Value:
        kind = ir.ArrayType(WORD, _ROUNDS)
        table = ir.GlobalVariable(self._emit.module, kind, "sha512_constants")
        table.linkage, table.global_constant = "internal", True
        words = [WORD(_cube_root(prime << 192) & _MASK) for prime in _primes(_ROUNDS)]
        table.initializer = ir.Constant(kind, words)
        return table.bitcast(WORD.as_pointer())

    def _sixteen_rounds(self, values: list[ir.Value], constants: list[ir.Value]) -> list[ir.Value]:
        """Return state and schedule after sixteen rounds (FIPS 180-4 section 6.4.2)."""
        build = self._emit.builder
        (a, b, c, d, e, f, g, h), schedule = values[:STATE_WORDS], values[STATE_WORDS:]
        following = list(schedule)
        for t in range(BLOCK_WORDS):
            chosen = build.xor(g, build.and_(e, build.xor(f, g)))
            majority = build.or_(build.and_(a, b), build.and_(c, build.or_(a, b)))
            first = build.add(build.add(h, schedule[t]), build.add(constants[t], chosen))
            first = build.add(first, self._mixed(e, 14, 18, 41))
            second = build.add(self._mixed(a, 28, 34, 39), majority)
            a, b, c, d, e, f, g, h = (
                build.add(first, second), a, b, c, build.add(d, first), e, f, g
            )  # fmt: skip
            early, late = following[(t + 1) % BLOCK_WORDS], following[(t + 14) % BLOCK_WORDS]
            small = build.add(self._shifted(early, 1, 8, 7), self._shifted(late, 19, 61, 6))
            total = build.add(following[t], following[(t + 9) % BLOCK_WORDS])
            following[t] = build.add(total, small)
        return [a, b, c, d, e, f, g, h, *following]

    def _rotated(self, value: ir.Value, bits: int) -> ir.Value:
        low = self._emit.builder.lshr(value, self._emit.constant(bits))
        return self._emit.builder.or_(
            low, self._emit.builder.shl(value, self._emit.constant(64 - bits))
        )

    def _mixed(self, value: ir.Value, *rotations: int) -> ir.Value:
        first, second, third = (self._rotated(value, bits) for bits in rotations)
        return self._emit.builder.xor(self._emit.builder.xor(first, second), third)

    def _shifted(self, value: ir.Value, first: int, second: int, shift: int) -> ir.Value:
        rotated = self._emit.builder.xor(self._rotated(value, first), self._rotated(value, second))
        shifted = self._emit.builder.lshr(value, self._emit.constant(shift))
        return self._emit.builder.xor(rotated, shifted)


def _primes(count: int) -> list[int]:
    found: list[int] = []
    number = 2
    while len(found) < count:
        if all(number % prime for prime in found):
            found.append(number)
        number += 1
    return found


def _cube_root(number: int) -> int:
    """Return the largest whole number whose cube is at most `number`."""
    root = 1 << -(-number.bit_length() // 3)
    while (smaller := (2 * root + number // root**2) // 3) < root:
        root = smaller
    return root
