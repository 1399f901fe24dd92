import ctypes
import dataclasses
import platform
import re
import sys
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from typing import Any

import numpy as np
import pytest
from engine_contract import (
    CURVE_POINTS,
    LOW_ORDER,
    TWIST_POINTS,
    A,
    Bytes,
    CurveEngineContract,
    clamp,
    curve_side,
    elligator2,
    ladder,
    random_rows,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from taint import Taint

from privacy.errors import InvalidParameterError, PeerMessageError
from privacy.psi import CurveEngine, PortableEngine
from privacy.psi.field import PRIME, decode_elements, encode_elements

pytest.importorskip("llvmlite", reason="generated code needs llvmlite")

from llvmlite import binding, ir

from privacy.psi.vector import program as programs
from privacy.psi.vector.curve import Curve
from privacy.psi.vector.engine import VectorEngine
from privacy.psi.vector.field25 import Field25
from privacy.psi.vector.instruction_sets import InstructionSet, available
from privacy.psi.vector.lanes import BYTE, VOID, WORD, Emitter
from privacy.psi.vector.limbs import Element, LimbField
from privacy.psi.vector.powers import PAIR, Powers
from privacy.psi.vector.sha512 import suffixed_blocks

KINDS = available()
ORACLE = PortableEngine(workers=1)
on_every_kind = pytest.mark.parametrize("kind", KINDS)
on_x86 = pytest.mark.skipif(
    platform.machine().lower() not in {"x86_64", "amd64"}, reason="reads x86-64 assembly"
)


def engines(*, workers: int) -> dict[str, Callable[..., CurveEngine]]:
    return {kind: partial(VectorEngine, kind, workers=workers) for kind in KINDS}


@pytest.mark.parametrize("make", engines(workers=1).values(), ids=engines(workers=1).keys())
class TestVectorEngineContract(CurveEngineContract):
    pass


def rows_of(numbers: list[int]) -> Bytes:
    raw = b"".join(number.to_bytes(32, "little") for number in numbers)
    return np.frombuffer(raw, dtype=np.uint8).reshape(-1, 32)


def outcome(act: Callable[[], Bytes]) -> bytes | type[Exception]:
    try:
        return act().tobytes()
    except PeerMessageError as error:
        return type(error)


ROOT_OF_MINUS_1 = pow(2, (PRIME - 1) // 4, PRIME)
EDGES = (0, 1, 2, 9, 2**51 - 1, 2**51, 2**26, 2**128, 2**254, ROOT_OF_MINUS_1, PRIME - 2, PRIME - 1)
NOT_REDUCED = (PRIME, PRIME + 1, PRIME + 9, 2**255 - 1, 2**255, 2**255 + 9, 2**256 - 1)
coordinates = st.one_of(
    st.sampled_from([*EDGES, *NOT_REDUCED, *LOW_ORDER]), st.integers(0, 2**256 - 1)
)
scalars = st.one_of(
    st.sampled_from([bytes(32), b"\xff" * 32, b"\x01" + bytes(31), bytes(31) + b"\x80"]),
    st.binary(min_size=32, max_size=32),
)


@on_every_kind
class TestEqualsThePortableEngine:
    @given(us=st.lists(coordinates, min_size=1, max_size=3), scalar=scalars)
    @settings(max_examples=40)
    def test_multiplying_any_coordinates_by_any_scalar(
        self, kind: InstructionSet, us: list[int], scalar: bytes
    ) -> None:
        points, engine = rows_of(us), VectorEngine(kind, workers=1)
        assert outcome(lambda: engine.multiply(points, scalar)) == outcome(
            lambda: ORACLE.multiply(points, scalar)
        )

    @pytest.mark.parametrize("u", [*EDGES, *NOT_REDUCED])
    def test_multiplying_special_coordinates(self, kind: InstructionSet, u: int) -> None:
        scalar = bytes(range(32))
        expected = ladder(clamp(scalar), u % 2**255)
        engine = VectorEngine(kind, workers=1)
        found = outcome(lambda: engine.multiply(rows_of([u]), scalar))
        assert found == (encode_elements([expected]).tobytes() if expected else PeerMessageError)

    @given(
        st.integers(0, 300).flatmap(
            lambda width: st.lists(st.binary(min_size=width, max_size=width), max_size=3)
        ),
        st.binary(min_size=1, max_size=255),
    )
    @settings(max_examples=40)
    def test_hashing_tokens_of_any_width_in_any_domain(
        self, kind: InstructionSet, tokens: list[bytes], domain: bytes
    ) -> None:
        width = len(tokens[0]) if tokens else 0
        rows = np.frombuffer(b"".join(tokens), dtype=np.uint8).reshape(len(tokens), width)
        assert np.array_equal(
            VectorEngine(kind, workers=1, domain=domain).hash_to_curve(rows),
            PortableEngine(workers=1, domain=domain).hash_to_curve(rows),
        )

    def test_for_any_count_of_rows(self, kind: InstructionSet) -> None:
        engine, scalar = VectorEngine(kind, workers=1), bytes(range(32))
        tokens = random_rows(1, 34, 33)
        points = ORACLE.hash_to_curve(tokens)
        products = ORACLE.multiply(points, scalar)
        for count in range(35):
            assert np.array_equal(engine.hash_to_curve(tokens[:count]), points[:count])
            assert np.array_equal(engine.multiply(points[:count], scalar), products[:count])
            engine.check_on_curve(points[:count])

    def test_in_several_chunks_and_threads(self, kind: InstructionSet) -> None:
        count, some = 2 * 4_096 + 5, [0, 1, 4_095, 4_096, 8_191, 8_192, 8_196]
        tokens, scalar = random_rows(2, count, 33), bytes(range(32))
        engine = VectorEngine(kind, workers=3)
        points = engine.hash_to_curve(tokens)
        products = engine.multiply(points, scalar)
        engine.check_on_curve(points)
        assert np.array_equal(points[some], ORACLE.hash_to_curve(tokens[some]))
        assert np.array_equal(products[some], ORACLE.multiply(points[some], scalar))
        assert np.array_equal(
            points[:300], VectorEngine(kind, workers=1).hash_to_curve(tokens[:300])
        )


@on_every_kind
class TestRefusals:
    def test_a_bad_point_is_found_in_any_lane_of_any_chunk(self, kind: InstructionSet) -> None:
        engine = VectorEngine(kind, workers=1)
        good = np.tile(CURVE_POINTS, (520, 1))
        for position in (*range(17), 4_095, 4_096, 4_159):
            bad = good[: position + 1 + position % 3]
            for number, act in (
                (TWIST_POINTS[1], engine.check_on_curve),
                (encode_elements([LOW_ORDER[2]]), lambda rows: engine.multiply(rows, bytes(32))),
            ):
                tampered = bad.copy()
                tampered[position] = number
                with pytest.raises(PeerMessageError):
                    act(tampered[-100:])

    def test_zero_is_no_point_of_the_curve(self, kind: InstructionSet) -> None:
        with pytest.raises(PeerMessageError):
            VectorEngine(kind).check_on_curve(encode_elements([9, 0]))

    @pytest.mark.parametrize(
        "rows",
        [CURVE_POINTS[:, :31], CURVE_POINTS.reshape(-1), CURVE_POINTS.astype(np.uint16)],
        ids=["narrow", "flat", "wide"],
    )
    def test_points_of_another_shape_or_type(
        self, kind: InstructionSet, rows: NDArray[Any]
    ) -> None:
        engine = VectorEngine(kind)
        with pytest.raises(InvalidParameterError, match=r"of shape \(n, 32\)"):
            engine.multiply(rows, bytes(32))
        with pytest.raises(InvalidParameterError, match=r"of shape \(n, 32\)"):
            engine.check_on_curve(rows)

    @pytest.mark.parametrize(
        "rows", [CURVE_POINTS.reshape(-1), CURVE_POINTS.astype(np.int8)], ids=["flat", "signed"]
    )
    def test_tokens_of_another_shape_or_type(
        self, kind: InstructionSet, rows: NDArray[Any]
    ) -> None:
        with pytest.raises(InvalidParameterError, match=r"of shape \(n, k\)"):
            VectorEngine(kind).hash_to_curve(rows)

    @pytest.mark.parametrize(
        "fields", [{"workers": 0}, {"domain": b""}, {"domain": bytes(256)}], ids=str
    )
    def test_fields_out_of_range(self, kind: InstructionSet, fields: dict[str, Any]) -> None:
        with pytest.raises(InvalidParameterError):
            VectorEngine(kind, **fields)

    def test_an_instruction_set_that_the_processor_lacks(
        self, kind: InstructionSet, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        others = tuple(one for one in InstructionSet if one != kind)
        monkeypatch.setattr("privacy.psi.vector.engine.available", lambda: others)
        with pytest.raises(InvalidParameterError, match=f"got {kind}"):
            VectorEngine(kind)


class TestVectorEngine:
    engine = VectorEngine(KINDS[0])

    def test_multiplies_as_the_thousand_turns_of_rfc_7748(self) -> None:
        # RFC 7748 section 5.2: k and u start as 9; each turn k becomes k·u, and u the old k.
        scalar = u = (9).to_bytes(32, "little")
        for _ in range(1_000):
            product = VectorEngine(KINDS[0], workers=1).multiply(
                np.frombuffer(u, dtype=np.uint8).reshape(1, 32), scalar
            )
            scalar, u = product.tobytes(), scalar
        assert scalar.hex() == "684cf59ba83309552800ef566f2f4d3c1c3887c49360e3875f2eb94d99532c51"

    def test_rows_need_not_lie_together_and_stay_as_they_were(self) -> None:
        points = np.tile(CURVE_POINTS, (8, 1))
        before = points.copy()
        every_other = points[::2]
        assert np.array_equal(
            self.engine.multiply(every_other, bytes(32)),
            ORACLE.multiply(every_other.copy(), bytes(32)),
        )
        assert np.array_equal(points, before)

    def test_tells_progress_in_the_callers_words_and_thread(self) -> None:
        told: dict[str, list[tuple[str, int, int]]] = {"vector": [], "portable": []}
        tokens = random_rows(3, 5_000)
        for make, name in (
            (partial(VectorEngine, KINDS[0]), "vector"),
            (PortableEngine, "portable"),
        ):
            engine = make(progress=lambda *call, name=name: told[name].append(call))
            points = engine.hash_to_curve(tokens[: 5_000 if name == "vector" else 10])
            engine.multiply(points, bytes(32))
            engine.check_on_curve(points)
        assert {call[0] for call in told["vector"]} == {call[0] for call in told["portable"]}
        assert [call[1:] for call in told["vector"]] == [(4_096, 5_000), (5_000, 5_000)] * 3

    def test_its_name_says_the_instructions(self) -> None:
        assert KINDS[0] in self.engine.name

    def test_code_is_generated_once_per_process_even_if_two_threads_ask(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        generated: list[InstructionSet] = []

        def slowly(kind: InstructionSet) -> int:
            time.sleep(0.05)
            generated.append(kind)
            return len(generated)

        monkeypatch.setattr(programs, "machine_code", slowly)
        monkeypatch.setattr(programs, "_kept", cache(programs._kept.__wrapped__))
        with ThreadPoolExecutor(2) as pool:
            assert list(pool.map(programs.program_for, [KINDS[0]] * 2)) == [1, 1]

    def test_a_block_of_a_message_is_laid_out_as_fips_180_4_says(self) -> None:
        # Section 5.1.2: a 1, then zeros, then the length in bits; 24 bits for "abc".
        (words,) = suffixed_blocks(1, b"bc").tolist()
        assert words == [0x0062638000000000, *[0] * 14, 24]
        assert suffixed_blocks(0, bytes(111)).shape == (1, 16)
        assert suffixed_blocks(0, bytes(112)).shape == (2, 16)
        assert suffixed_blocks(64, b"x", 128)[-1, -1] == 8 * 193


LEVEL_3 = ("avx2", "bmi", "bmi2", "f16c", "fma", "lzcnt", "movbe")
LEVEL_4 = (*LEVEL_3, "avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl")


@pytest.mark.parametrize(
    ("features", "expected"),
    [
        ((), ["sse"]),
        (LEVEL_3[:-1], ["sse"]),
        (LEVEL_3, ["avx2", "sse"]),
        ((*LEVEL_3, "avx512f", "avx512ifma"), ["avx2", "sse"]),
        (LEVEL_4, ["avx512", "avx2", "sse"]),
        ((*LEVEL_4, "avx512ifma"), ["avx512_ifma", "avx512", "avx2", "sse"]),
    ],
    ids=len,
)
def test_an_instruction_set_is_available_if_all_it_needs_is(
    features: tuple[str, ...], expected: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    present = {**dict.fromkeys((*LEVEL_4, "avx512ifma"), False), **dict.fromkeys(features, True)}
    monkeypatch.setattr(binding, "get_host_cpu_features", lambda: present)
    assert [*available.__wrapped__()] == expected


def test_two_lanes_remain_where_llvm_does_not_know_the_processor(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail() -> None:
        raise RuntimeError("failed to get host cpu features")

    monkeypatch.setattr(binding, "get_host_cpu_features", fail)
    assert [*available.__wrapped__()] == ["sse"]


def test_nothing_is_available_where_the_greatest_byte_comes_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "byteorder", "big")
    assert available.__wrapped__() == ()


# Limbs: every operation at its bounds, against whole numbers.


def operations(field: LimbField) -> dict[str, Callable[[Element, Element], Element]]:
    return {
        "multiply": field.multiply,
        "square": lambda a, b: field.square(a),
        "add": field.add,
        "subtract": field.subtract,
        "scale": lambda a, b: field.scale(a, A, b),
        "lazily": lambda a, b: field.subtract(
            field.multiply(field.add(a, b), field.subtract(a, b)), field.square(field.add(a, b))
        ),
    }


EXPECTED: dict[str, Callable[[int, int], int]] = {
    "multiply": lambda a, b: a * b,
    "square": lambda a, b: a * a,
    "add": lambda a, b: a + b,
    "subtract": lambda a, b: a - b,
    "scale": lambda a, b: a * A + b,
    "lazily": lambda a, b: (a + b) * (a - b) - (a + b) ** 2,
}
CUTS = (255, 256, 384)


@dataclasses.dataclass(frozen=True)
class Workbench:
    """Single operations on elements, in machine code."""

    field: LimbField
    owner: Any
    claims: dict[str, tuple[int, ...]]

    def run(self, name: str, *vectors: NDArray[np.uint64], rows: int) -> NDArray[np.uint64]:
        """Call a function on arrays of vectors; the result has `rows` vectors."""
        return self.results(name, [rows], *vectors)[0]

    def results(
        self, name: str, rows: list[int], *vectors: NDArray[np.uint64]
    ) -> list[NDArray[np.uint64]]:
        """Call a function that has several results."""
        lanes = self.field.emit.lanes
        places = [aligned(count, lanes) for count in (*rows, *map(len, vectors))]
        for place, one in zip(places[len(rows) :], vectors, strict=True):
            place[:] = one
        at = self.owner.get_function_address(name)
        kinds = [ctypes.c_void_p] * len(places)
        ctypes.CFUNCTYPE(None, *kinds)(at)(*(place.ctypes.data for place in places))
        return places[: len(rows)]

    def numbers(self, limbs: NDArray[np.uint64]) -> list[int]:
        """Return what limbs stand for, lane by lane."""
        return [
            sum(int(limb) << start for limb, start in zip(lane, self.field.starts, strict=True))
            for lane in limbs.T
        ]


def aligned(rows: int, lanes: int) -> NDArray[np.uint64]:
    raw = np.zeros(rows * lanes + 8, dtype=np.uint64)
    start = -raw.ctypes.data % 64 // 8
    return raw[start : start + rows * lanes].reshape(rows, lanes)


@cache
def workbench(kind: InstructionSet) -> Workbench:
    emit = Emitter(kind.lanes)
    field = programs.field_for(emit, kind)
    claims = {}
    for name in EXPECTED:
        with emit.function(name, [emit.pointer] * 4, exported=True) as function, field.in_line():
            to, raw, *factors = function.args
            result = operations(field)[name](*map(field.load, factors))
            field.store(result, to)
            for index, limb in enumerate(result.limbs):
                emit.store(limb, raw, index)
            claims[name] = result.bounds
    with emit.function("to_words", [emit.pointer] * 2, exported=True) as function:
        for index, word in enumerate(field.to_words(field.load(function.args[1]))):
            emit.store(word, function.args[0], index)
    with emit.function("is_zero", [emit.pointer] * 2, exported=True) as function:
        emit.store(field.is_zero(field.load(function.args[1])), function.args[0])
    for bits in CUTS:
        with emit.function(f"cut_{bits}", [emit.pointer] * 2, exported=True) as function:
            words = [emit.load(function.args[1], index) for index in range(-(-bits // 64))]
            field.store(field.from_words(words, bits), function.args[0])
    return Workbench(field, programs.load(emit.module, kind), claims)


def limbs_within(kind: InstructionSet) -> st.SearchStrategy[NDArray[np.uint64]]:
    """Draw limbs for every lane, with a liking for their greatest values."""
    field, lanes = workbench(kind).field, kind.lanes
    one = [
        st.one_of(st.just(most), st.sampled_from([0, 2**width - 1]), st.integers(0, most))
        for most, width in zip(field.kept_bounds, field.widths, strict=True)
    ]
    lane = st.tuples(*one)
    return st.lists(lane, min_size=1, max_size=lanes).map(
        lambda drawn: np.array((drawn * lanes)[:lanes], dtype=np.uint64).T
    )


@on_every_kind
class TestLimbs:
    @given(data=st.data())
    @settings(max_examples=30)
    def test_operations_equal_whole_numbers_and_keep_their_bounds(
        self, kind: InstructionSet, data: st.DataObject
    ) -> None:
        bench = workbench(kind)
        a, b = (data.draw(limbs_within(kind)) for _ in range(2))
        self.compare(bench, a, b)

    def test_operations_hold_when_every_limb_is_greatest(self, kind: InstructionSet) -> None:
        bench = workbench(kind)
        most = np.array([bench.field.kept_bounds] * kind.lanes, dtype=np.uint64).T
        zero = np.zeros_like(most)
        for a, b in ((most, most), (most, zero), (zero, most), (zero, zero)):
            self.compare(bench, a, b)

    def compare(self, bench: Workbench, a: NDArray[np.uint64], b: NDArray[np.uint64]) -> None:
        size = bench.field.size
        for name, expected in EXPECTED.items():
            limbs, raw = bench.results(name, [size, size], a, b)
            pairs = zip(bench.numbers(a), bench.numbers(b), strict=True)
            found = [number % PRIME for number in bench.numbers(limbs)]
            assert found == [expected(*pair) % PRIME for pair in pairs], name
            for found_limbs, most in ((limbs, bench.field.kept_bounds), (raw, bench.claims[name])):
                assert all(map(int.__le__, found_limbs.max(axis=1).tolist(), most)), name

    @given(data=st.data())
    @settings(max_examples=30)
    def test_words_are_canonical_whatever_the_limbs(
        self, kind: InstructionSet, data: st.DataObject
    ) -> None:
        bench = workbench(kind)
        near = st.sampled_from([0, 1, PRIME - 1, PRIME, PRIME + 1, 2**255 - 1])
        numbers = data.draw(st.lists(near, min_size=kind.lanes, max_size=kind.lanes))
        exact = np.array(
            [
                [
                    number >> start & (2**width - 1)
                    for start, width in zip(bench.field.starts, bench.field.widths, strict=True)
                ]
                for number in numbers
            ],
            dtype=np.uint64,
        ).T
        for limbs in (exact, data.draw(limbs_within(kind))):
            words = bench.run("to_words", limbs, rows=4)
            found = [sum(int(w) << 64 * i for i, w in enumerate(lane)) for lane in words.T]
            expected = [number % PRIME for number in bench.numbers(limbs)]
            assert found == expected
            zeros = bench.run("is_zero", limbs, rows=1)[0].tolist()
            assert zeros == [0 if number else 2**64 - 1 for number in expected]

    @given(data=st.data())
    @settings(max_examples=30)
    def test_numbers_of_words_are_cut_where_asked(
        self, kind: InstructionSet, data: st.DataObject
    ) -> None:
        bench = workbench(kind)
        for bits in CUTS:
            count = -(-bits // 64)
            word = st.one_of(st.sampled_from([0, 2**64 - 1]), st.integers(0, 2**64 - 1))
            row = st.lists(word, min_size=kind.lanes, max_size=kind.lanes)
            words = np.array([data.draw(row) for _ in range(count)], dtype=np.uint64)
            limbs = bench.run(f"cut_{bits}", words, rows=bench.field.size)
            whole = [sum(int(w) << 64 * i for i, w in enumerate(lane)) for lane in words.T]
            assert [number % PRIME for number in bench.numbers(limbs)] == [
                number % 2**bits % PRIME for number in whole
            ]


class TestBounds:
    def field(self, **changes: object) -> Field25:
        """Return a field that writes into a function, changed after its own code was written."""
        emit = Emitter(8)
        field = Field25(emit)
        emit.builder = ir.IRBuilder(
            ir.Function(emit.module, ir.FunctionType(VOID, []), "scratch").append_basic_block()
        )
        for name, value in changes.items():
            setattr(field, name, value)
        return field

    def element(self, field: Field25, bound: int) -> Element:
        return Element(field.constant(0).limbs, (bound,) * field.size)

    def test_an_element_that_could_overflow_is_not_made(self) -> None:
        field = self.field()
        self.element(field, 2**64 - 1)
        with pytest.raises(RuntimeError, match="65 bits"):
            self.element(field, 2**64)

    def test_sums_that_could_overflow_are_not_made(self) -> None:
        field = self.field()
        with pytest.raises(RuntimeError, match="65 bits"):
            field.add(self.element(field, 2**63), self.element(field, 2**63))

    def test_a_carry_that_could_overflow_on_its_way_is_refused(self) -> None:
        field = self.field()
        most = [2**26] * 10
        most[0], most[1] = 2**40, 2**64 - 1  # the carry out of limb 0 comes before that of limb 1
        with pytest.raises(RuntimeError, match="65 bits"):
            field.kept(Element(field.constant(0).limbs, tuple(most)))

    def test_a_difference_is_raised_by_what_is_taken_away(self) -> None:
        field = self.field()
        for bound in (2**20, 2**26, 2**40):
            raised = field.subtract(self.element(field, 0), self.element(field, bound)).bounds
            assert min(raised) >= bound
            whole = sum(most << start for most, start in zip(raised, field.starts, strict=True))
            assert whole % PRIME == 0

    def test_what_a_carry_cannot_tame_is_refused(self) -> None:
        field = self.field(kept_bounds=(2**25,) * 10)
        with pytest.raises(RuntimeError, match="carrying leaves"):
            field.kept(self.element(field, 2**63))

    def test_a_factor_past_32_bits_is_refused(self) -> None:
        field = self.field(factor_bound=2**31)
        with field.in_line():
            field.square(self.element(field, 2**27))
            with pytest.raises(RuntimeError, match="a factor could pass 32 bits"):
                field.square(self.element(field, 2**31))


# Elligator 2 on chosen field elements, which no hash can be made to hit.

EDGE_ELEMENTS = (
    *EDGES,
    *(pow(2, -1, PRIME), PRIME // 2, PRIME // 2 + 1, A, PRIME - A, 3, 5, 7),
    *LOW_ORDER[2:4],
)


@pytest.mark.parametrize("kind", [KINDS[0], KINDS[-1]])
def test_elligator_2_maps_edge_elements_as_rfc_9380(kind: InstructionSet) -> None:
    emit = Emitter(kind.lanes)
    field = programs.field_for(emit, kind)
    powers = Powers(field)
    curve = Curve(powers)
    step = PAIR * kind.lanes
    pairs = -(-len(EDGE_ELEMENTS) // step)
    elements = (EDGE_ELEMENTS * 2)[: pairs * step]
    kinds = [BYTE.as_pointer(), BYTE.as_pointer()]
    with emit.function("map_rows", kinds, exported=True) as function:
        to, rows = function.args
        size = PAIR * field.size
        above, below, prefixes = (emit.slots((pairs + 1) * size) for _ in range(3))
        for index in range(PAIR * pairs):
            row = emit.at(rows, index * 32 * kind.lanes)
            element = field.from_words(emit.load_columns(row, 4), 256)
            field.store(element, powers.element(prefixes, index))
        for index in range(pairs):
            places = [emit.at(one, index * size) for one in (above, below, prefixes)]
            emit.builder.call(curve.map, places)
        emit.builder.call(powers.quotients, [to, above, below, prefixes, WORD(pairs)])
    owner = programs.load(emit.module, kind)
    run = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * 2)(owner.get_function_address("map_rows"))
    given_rows, found = rows_of([*elements]).copy(), np.empty((len(elements), 32), dtype=np.uint8)
    run(found.ctypes.data, given_rows.ctypes.data)
    assert decode_elements(found) == [ladder(8, elligator2(one)) for one in elements]
    assert 0 in [ladder(8, elligator2(one)) for one in EDGE_ELEMENTS]
    assert {curve_side(-A * pow(1 + 2 * e * e, -1, PRIME) % PRIME) for e in EDGE_ELEMENTS} >= {
        1,
        PRIME - 1,
    }


# Constant time.


@cache
def optimised(kind: InstructionSet) -> Any:
    return programs.optimised(programs.generate(kind), programs.target_machine(kind))


@on_every_kind
class TestConstantTime:
    def test_no_secret_reaches_a_branch_an_address_or_a_division(
        self, kind: InstructionSet
    ) -> None:
        scalar, points, tokens = ("multiply_points", 2), ("multiply_points", 1), ("hash_tokens", 1)
        taint = Taint(optimised(kind), scalar, points, tokens)
        assert taint.violations == set()
        reached = ["spell_scalar", "ladder", "sha512_blocks", "map_pair", "quotients"]
        assert min(map(taint.share, reached)) > 0.2

    @on_x86
    def test_assembly_jumps_no_more_than_the_code_that_was_analysed(
        self, kind: InstructionSet
    ) -> None:
        assembly = programs.target_machine(kind).emit_assembly(optimised(kind))
        jumps = conditional_jumps(assembly)
        branches = {
            one.name: sum(
                instruction.opcode == "br" and len(list(instruction.operands)) == 3
                for block in one.blocks
                for instruction in block.instructions
            )
            for one in optimised(kind).functions
            if not one.is_declaration
        }
        assert jumps.keys() == branches.keys()
        assert jumps["ladder"] == branches["ladder"] == 1
        assert all(jumps[name] <= branches[name] for name in jumps)
        assert not re.search(r"^\ti?div", assembly, re.MULTILINE)
        assert not re.search(r"^\tv?p?gather", assembly, re.MULTILINE)


def test_the_analysis_follows_the_scalar_by_itself_through_the_ladder() -> None:
    assert Taint(optimised(KINDS[0]), ("multiply_points", 2)).share("ladder") > 0.5


def conditional_jumps(assembly: str) -> Counter[str]:
    found: Counter[str] = Counter()
    where = ""
    for line in assembly.splitlines():
        if begins := re.match(r"\t\.type\t(\w+),@function", line):
            where = begins[1]
            found[where] += 0
        elif re.match(r"\tj(?!mp)[a-z]+\t", line):
            found[where] += 1
    return found


LEAKS = {
    "branch": """
        %bit = trunc i64 %word to i1
        br i1 %bit, label %one, label %two
    one:
        br label %two
    two:
        ret i64 0""",
    "address": """
        %place = getelementptr i64, ptr %public, i64 %word
        %leaked = load i64, ptr %place
        ret i64 %leaked""",
    "division": """
        %leaked = udiv i64 1000, %word
        ret i64 %leaked""",
    "select": """
        %bit = trunc i64 %word to i1
        %leaked = select i1 %bit, i64 1, i64 2
        ret i64 %leaked""",
    "call": """
        %leaked = call i64 @outside(i64 %word)
        ret i64 %leaked""",
}


ASSEMBLY = """
\t.type\tf,@function
f:
\tjmp\t.L1
\tjne\t.L1
\t.type\tg,@function
g:
\tretq
"""


class TestTaintAnalysis:
    def analyse(self, body: str) -> set[tuple[str, str]]:
        # The secret goes through a function's result and the caller's stack before it leaks.
        module = binding.parse_assembly(f"""
            declare i64 @outside(i64)
            define internal void @copy(ptr %to, ptr %from) {{
                %word = load i64, ptr %from
                store i64 %word, ptr %to
                ret void
            }}
            define internal i64 @leak(ptr %public, i64 %word) {{ {body}
            }}
            define i64 @start(ptr %public, ptr %secret) {{
                %slots = alloca [4 x i64]
                %slot = getelementptr [4 x i64], ptr %slots, i64 0, i64 2
                call void @copy(ptr %slot, ptr %secret)
                %word = load i64, ptr %slot
                %result = call i64 @leak(ptr %public, i64 %word)
                ret i64 %result
            }}""")
        return Taint(module, ("start", 1)).violations

    @pytest.mark.parametrize("leak", LEAKS)
    def test_sees_a_leak(self, leak: str) -> None:
        assert self.analyse(LEAKS[leak]) == {("leak", leak)}

    def test_lets_arithmetic_pass(self) -> None:
        assert self.analyse("%twice = add i64 %word, %word\n ret i64 %twice") == set()

    def test_counts_a_jump_that_only_assembly_has(self) -> None:
        assert conditional_jumps(ASSEMBLY) == {"f": 1, "g": 0}
