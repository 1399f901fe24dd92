"""From emitted code to machine code in this process.

Guarantees: one program per instruction set and process, generated at first use. Its functions
release the interpreter lock while they run and keep no state between calls. The memory that holds
the code is written first and made executable after, never both at a time.

Leaves to others: alignment and sizes of what the functions are given (`engine`).
"""

import ctypes
import platform
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from threading import Lock
from typing import Any

from llvmlite import binding, ir

from privacy.psi.vector.curve import POINT_BYTES, Curve
from privacy.psi.vector.field25 import Field25
from privacy.psi.vector.field51 import Field51
from privacy.psi.vector.instruction_sets import InstructionSet
from privacy.psi.vector.lanes import BYTE, WORD, Emitter
from privacy.psi.vector.limbs import LimbField
from privacy.psi.vector.powers import PAIR, Powers
from privacy.psi.vector.sha512 import BLOCK_WORDS, STATE_WORDS, Sha512

__all__ = [
    "Program",
    "field_for",
    "generate",
    "load",
    "machine_code",
    "optimised",
    "program_for",
    "target_machine",
]

_UNIFORM_BITS = 384  # L = 48 bytes (RFC 9380 section 5.1)
_LOCK = Lock()


@dataclass(frozen=True)
class Program:
    """The functions that `VectorEngine` calls; all sizes are in pairs of vectors.

    Attributes:
        instruction_set: what the code was generated for.
        limbs: vectors in an element.
        multiply_points: (to, points, scalar, flags, workspace, pairs); flags a lane with a product
            of 0.
        hash_tokens: (to, tokens, width, first blocks, how many, second blocks, how many,
            workspace, pairs); the blocks hold what follows the token and what follows b_0 (RFC
            9380 section 5.3.1), each word in every lane.
        check_points: (points, flags, pairs); flags a lane with a point off the curve.
        owner: keeps the code alive.
    """

    instruction_set: InstructionSet
    limbs: int
    multiply_points: Callable[..., None]
    hash_tokens: Callable[..., None]
    check_points: Callable[..., None]
    owner: Any

    @property
    def pair_points(self) -> int:
        """Points in a pair of vectors."""
        return PAIR * self.instruction_set.lanes

    def workspace_bytes(self, pairs: int) -> int:
        """Return what multiplying and hashing need: three rows of elements and a pair more."""
        return (3 * pairs + 1) * self.pair_points * self.limbs * 8


class _Emission:
    """The exported functions, over the parts that the other modules write."""

    def __init__(self, field: LimbField) -> None:
        self.emit, self.field = field.emit, field
        self.powers = Powers(field)
        self.curve = Curve(self.powers)
        self.sha512 = Sha512(self.emit)
        self._bytes, self._words = BYTE.as_pointer(), WORD.as_pointer()
        self._write_multiply()
        self._write_hash()
        self._write_check()

    def _rows(self, workspace: ir.Value, pairs: ir.Value) -> tuple[ir.Value, ir.Value, ir.Value]:
        """Return the rows of numerators, denominators and prefixes in the workspace."""
        count = self.emit.scaled(pairs, PAIR)
        second = self.powers.element(workspace, count)
        return workspace, second, self.powers.element(second, count)

    def _point_rows(self, points: ir.Value, index: ir.Value, vectors: int = 1) -> ir.Value:
        return self.emit.at(
            points, self.emit.scaled(index, vectors * POINT_BYTES * self.emit.lanes)
        )

    def _write_multiply(self) -> None:
        emit, pointer = self.emit, self.emit.pointer
        kinds = [self._bytes, self._bytes, self._bytes, pointer, pointer, WORD]
        with emit.function("multiply_points", kinds, exported=True) as function:
            to, points, scalar, flags, workspace, pairs = function.args
            numerators, denominators, prefixes = self._rows(workspace, pairs)
            masks = emit.builder.alloca(WORD, self.curve.mask_count)
            emit.builder.call(self.curve.masks, [masks, scalar])
            with emit.loop(emit.scaled(pairs, PAIR)) as loop:
                above, below = (
                    self.powers.element(row, loop.index) for row in (numerators, denominators)
                )
                point = self._point_rows(points, loop.index)
                emit.builder.call(self.curve.ladder, [above, below, point, masks])
            arguments = [to, numerators, denominators, prefixes, pairs]
            emit.store(emit.builder.call(self.powers.quotients, arguments), flags)

    def _write_hash(self) -> None:
        emit, pointer = self.emit, self.emit.pointer
        kinds = [self._bytes, self._bytes, WORD, pointer, WORD, pointer, WORD, pointer, WORD]
        with emit.function("hash_tokens", kinds, exported=True) as function:
            to, tokens, width, first, first_count, second, second_count = function.args[:7]
            numerators, denominators, prefixes = self._rows(*function.args[7:])
            pairs = function.args[8]
            begun, state = emit.slots(STATE_WORDS), emit.slots(STATE_WORDS)
            zeros = emit.slots(BLOCK_WORDS)
            emit.builder.call(self.sha512.start, [begun])
            for index in range(BLOCK_WORDS):
                emit.store(emit.constant(0), zeros, index)
            emit.builder.call(self.sha512.digest, [begun, zeros, WORD(1)])
            with emit.loop(emit.scaled(pairs, PAIR)) as loop:
                # expand_message_xmd (RFC 9380 section 5.3.1): b_0, then b_1.
                rows = emit.scaled(loop.index, emit.lanes)
                rows = emit.at(tokens, emit.builder.mul(rows, width))
                emit.builder.call(self.sha512.place, [first, rows, width])
                for index in range(STATE_WORDS):
                    emit.store(emit.load(begun, index), state, index)
                emit.builder.call(self.sha512.digest, [state, first, first_count])
                for index in range(STATE_WORDS):
                    emit.store(emit.load(state, index), second, index)
                emit.builder.call(self.sha512.start, [state])
                emit.builder.call(self.sha512.digest, [state, second, second_count])
                uniform = [emit.load(state, index) for index in range(_UNIFORM_BITS // 64)]
                element = self.field.from_words(uniform[::-1], _UNIFORM_BITS)
                self.field.store(element, self.powers.element(prefixes, loop.index))
            with emit.loop(pairs) as loop:
                here = emit.scaled(loop.index, PAIR)
                places = [
                    self.powers.element(row, here) for row in (numerators, denominators, prefixes)
                ]
                emit.builder.call(self.curve.map, places)
            arguments = [to, numerators, denominators, prefixes, pairs]
            emit.builder.call(self.powers.quotients, arguments)

    def _write_check(self) -> None:
        emit, field = self.emit, self.field
        kinds = [self._bytes, emit.pointer, WORD]
        with emit.function("check_points", kinds, exported=True) as function:
            points, flags, pairs = function.args
            symbols = self.powers.pair()
            with emit.loop(pairs, emit.constant(0)) as loop:
                rows = self._point_rows(points, loop.index, PAIR)
                emit.builder.call(self.curve.side, [symbols, rows])
                for index in range(PAIR):
                    symbol = field.load(self.powers.element(symbols, index))
                    on_curve = field.is_zero(field.subtract(symbol, field.constant(1)))
                    off_curve = emit.builder.not_(on_curve)
                    loop.values[0] = emit.builder.or_(loop.values[0], off_curve)
            emit.store(loop.values[0], flags)


def field_for(emit: Emitter, instruction_set: InstructionSet) -> LimbField:
    """Return the field whose radix suits an instruction set."""
    if instruction_set is InstructionSet.AVX512_IFMA:
        return Field51(emit)
    return Field25(emit)


def generate(instruction_set: InstructionSet) -> ir.Module:
    """Return the code for an instruction set, before any optimisation."""
    emit = Emitter(instruction_set.lanes)
    return _Emission(field_for(emit, instruction_set)).emit.module


def target_machine(instruction_set: InstructionSet) -> Any:
    """Return LLVM's description of the processor to generate for.

    On x86-64 that is a level of the System V psABI and not this processor, whose newer
    instructions would blur what was asked for; elsewhere it is this processor.
    """
    binding.initialize_native_target()
    binding.initialize_native_asmprinter()
    target = binding.Target.from_default_triple()
    if platform.machine().lower() not in {"x86_64", "amd64"}:
        features = binding.get_host_cpu_features().flatten()
        return target.create_target_machine(cpu=binding.get_host_cpu_name(), features=features)
    level = {InstructionSet.AVX2: "-v3", InstructionSet.SSE: ""}.get(instruction_set, "-v4")
    features = "+avx512ifma" if instruction_set is InstructionSet.AVX512_IFMA else ""
    return target.create_target_machine(cpu=f"x86-64{level}", features=features)


def optimised(module: ir.Module, machine: Any) -> Any:
    """Return the code as LLVM's passes leave it.

    Loops are neither unrolled nor turned into vectors: they are vectors already.
    """
    parsed = binding.parse_assembly(str(module))
    parsed.verify()
    options = binding.create_pipeline_tuning_options(speed_level=2)
    options.loop_vectorization = options.slp_vectorization = options.loop_unrolling = False
    builder = binding.create_pass_builder(machine, options)
    builder.getModulePassManager().run(parsed, builder)
    return parsed


def load(module: ir.Module, instruction_set: InstructionSet) -> Any:
    """Return the execution engine that holds the machine code of a module."""
    machine = target_machine(instruction_set)
    engine = binding.create_mcjit_compiler(optimised(module, machine), machine)
    engine.finalize_object()
    return engine


def machine_code(instruction_set: InstructionSet) -> Program:
    """Generate a program."""
    engine = load(generate(instruction_set), instruction_set)

    def function(name: str, *kinds: Any) -> Callable[..., None]:
        return ctypes.CFUNCTYPE(None, *kinds)(engine.get_function_address(name))

    at, count = ctypes.c_void_p, ctypes.c_uint64
    return Program(
        instruction_set=instruction_set,
        limbs=field_for(Emitter(instruction_set.lanes), instruction_set).size,
        multiply_points=function("multiply_points", at, at, at, at, at, count),
        hash_tokens=function("hash_tokens", at, at, count, at, count, at, count, at, count),
        check_points=function("check_points", at, at, count),
        owner=engine,
    )


def program_for(instruction_set: InstructionSet) -> Program:
    """Return the program of this process, generated at the first call."""
    with _LOCK:
        return _kept(instruction_set)


@cache
def _kept(instruction_set: InstructionSet) -> Program:
    return machine_code(instruction_set)
