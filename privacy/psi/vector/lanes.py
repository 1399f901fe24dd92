"""Emit arithmetic on lanes: vectors of unsigned 64-bit words, all treated alike.

Guarantees: the vocabulary has no branch but `loop`, whose trip count the caller names, and no
address but a base plus an index that the caller names. What is written with it runs in the same
time for any data, as long as neither counts nor indexes are made from secrets.

Leaves to others: what the words mean (`limbs`, `sha512`) and turning them into machine code
(`program`).
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from llvmlite import ir

__all__ = ["BYTE", "VOID", "WORD", "Emitter", "Loop"]

WORD = ir.IntType(64)
BYTE = ir.IntType(8)
VOID = ir.VoidType()


@dataclass
class Loop:
    """A loop being written.

    Attributes:
        index: counts the turns from 0, a word.
        values: what is carried from turn to turn. The body replaces them; after the loop they are
            those of the last turn.
    """

    index: ir.Value
    values: list[ir.Value]


class Emitter:
    """Writes functions on vectors of `lanes` words into one module.

    Attributes:
        module: the module written so far.
        lanes: words in a vector.
        vector: the type of a vector.
        pointer: the type of a pointer to vectors.
        builder: writes into the function at hand.
    """

    def __init__(self, lanes: int) -> None:
        self.module = ir.Module("comity.curve25519")
        self.lanes = lanes
        self.vector = ir.VectorType(WORD, lanes)
        self.pointer = self.vector.as_pointer()
        self.builder = ir.IRBuilder()

    @contextmanager
    def function(
        self, name: str, arguments: Sequence[ir.Type], *, returns: ir.Type = VOID, exported: bool
    ) -> Iterator[ir.Function]:
        """Write a function; without a `ret` of its own it returns nothing."""
        function = ir.Function(self.module, ir.FunctionType(returns, arguments), name)
        if not exported:
            function.linkage = "internal"
            function.attributes.add("noinline")
        outer, self.builder = self.builder, ir.IRBuilder(function.append_basic_block("entry"))
        yield function
        if not self.builder.block.is_terminated:
            self.builder.ret_void()
        self.builder = outer

    @contextmanager
    def loop(self, count: ir.Value | int, *carried: ir.Value) -> Iterator[Loop]:
        """Write a loop of `count` turns, at least 1."""
        before = self.builder.block
        body = self.builder.append_basic_block("turn")
        after = self.builder.append_basic_block("after")
        self.builder.branch(body)
        self.builder.position_at_end(body)
        phis = [self.builder.phi(value.type) for value in (WORD(0), *carried)]
        loop = Loop(phis[0], phis[1:])
        yield loop
        following = self.builder.add(phis[0], WORD(1))
        ends = zip(phis, (WORD(0), *carried), (following, *loop.values), strict=True)
        for phi, first, last in ends:
            phi.add_incoming(first, before)
            phi.add_incoming(last, self.builder.block)
        limit = WORD(count) if isinstance(count, int) else count
        self.builder.cbranch(self.builder.icmp_unsigned("<", following, limit), body, after)
        self.builder.position_at_end(after)

    def constant(self, number: int) -> ir.Value:
        """Return `number` in every lane."""
        return ir.Constant(self.vector, [WORD(number)] * self.lanes)

    def splat(self, word: ir.Value) -> ir.Value:
        """Return a word in every lane."""
        undefined = ir.Constant(self.vector, ir.Undefined)
        single = self.builder.insert_element(undefined, word, WORD(0))
        return self.shuffle(single, single, [0] * self.lanes)

    def shuffle(self, low: ir.Value, high: ir.Value, picks: Sequence[int]) -> ir.Value:
        """Return the lanes that `picks` names, counted through `low` and then `high`."""
        index = ir.VectorType(ir.IntType(32), len(picks))
        return self.builder.shuffle_vector(low, high, ir.Constant(index, list(picks)))

    def slots(self, count: int) -> ir.Value:
        """Return a pointer to `count` vectors on the stack."""
        with self.builder.goto_entry_block():
            slots = self.builder.alloca(self.vector, count)
        slots.align = 8 * self.lanes
        return slots

    def at(self, pointer: ir.Value, index: ir.Value | int) -> ir.Value:
        """Return the address of the vector, word or byte with this index."""
        return self.builder.gep(pointer, [WORD(index) if isinstance(index, int) else index])

    def load(self, pointer: ir.Value, index: ir.Value | int = 0) -> ir.Value:
        """Load a vector from memory aligned as vectors are."""
        return self.builder.load(self.at(pointer, index), align=8 * self.lanes)

    def store(self, value: ir.Value, pointer: ir.Value, index: ir.Value | int = 0) -> None:
        """Store a vector to memory aligned as vectors are."""
        self.builder.store(value, self.at(pointer, index), align=8 * self.lanes)

    def scaled(self, index: ir.Value | int, factor: int) -> ir.Value:
        """Return a word times a constant."""
        return self.builder.mul(WORD(index) if isinstance(index, int) else index, WORD(factor))

    def load_columns(self, rows: ir.Value, count: int) -> list[ir.Value]:
        """Load one row of `count` little-endian words per lane: the words of equal position.

        Args:
            rows: pointer to bytes, the rows of the lanes one after another.
            count: words in a row, a power of two.
        """
        columns = []
        whole = ir.VectorType(WORD, self.lanes * count)
        words = self.builder.load(self.builder.bitcast(rows, whole.as_pointer()), align=1)
        for column in range(count):
            picks = range(column, self.lanes * count, count)
            columns.append(self.shuffle(words, words, picks))
        return columns

    def store_columns(self, columns: Sequence[ir.Value], rows: ir.Value) -> None:
        """Store what `load_columns` would load; the number of columns is a power of two."""
        parts, count = list(columns), len(columns)
        while len(parts) > 1:
            width = parts[0].type.count
            parts = [
                self.shuffle(low, high, range(2 * width))
                for low, high in zip(parts[::2], parts[1::2], strict=True)
            ]
        picks = [
            column * self.lanes + lane for lane in range(self.lanes) for column in range(count)
        ]
        whole = self.shuffle(parts[0], parts[0], picks)
        self.builder.store(whole, self.builder.bitcast(rows, whole.type.as_pointer()), align=1)
