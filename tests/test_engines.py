import ctypes
import dataclasses
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from engine_contract import CURVE_POINTS, random_rows

from privacy.errors import InvalidParameterError
from privacy.psi import PortableEngine
from privacy.psi import engines as module
from privacy.psi.engines import (
    GENERATION_PAYS_FROM,
    EngineKind,
    VectorEngineWarning,
    choose_engine,
)

pytest.importorskip("llvmlite", reason="generated code needs llvmlite")

from privacy.psi.vector import program as programs
from privacy.psi.vector.engine import VectorEngine
from privacy.psi.vector.instruction_sets import InstructionSet, available
from privacy.psi.vector.program import Program

FASTEST = available()[0]
CHEAPEST = InstructionSet.SSE  # two lanes run anywhere


@pytest.fixture(autouse=True)
def _untested() -> Iterator[None]:
    """Let every test see generated code for the first time."""
    module._faults.cache_clear()
    yield
    module._faults.cache_clear()


class TestChoice:
    def test_few_points_are_not_worth_generating_code(self) -> None:
        assert isinstance(choose_engine(0), PortableEngine)
        assert isinstance(choose_engine(GENERATION_PAYS_FROM - 1), PortableEngine)

    def test_many_points_get_the_fastest_instructions(self) -> None:
        engine = choose_engine(GENERATION_PAYS_FROM)
        assert isinstance(engine, VectorEngine)
        assert engine.instruction_set == FASTEST

    @pytest.mark.parametrize("kind", [*available(), "portable"])
    def test_what_is_wanted_is_what_is_got(self, kind: str) -> None:
        for points in (0, GENERATION_PAYS_FROM):
            engine = choose_engine(points, wanted=EngineKind(kind))
            if kind == "portable":
                assert isinstance(engine, PortableEngine)
            else:
                assert isinstance(engine, VectorEngine)
                assert engine.instruction_set == kind

    @pytest.mark.parametrize("wanted", ["portable", CHEAPEST.value])
    def test_hands_on_workers_and_progress(self, wanted: str) -> None:
        told: list[tuple[str, int, int]] = []
        engine: Any = choose_engine(
            1, workers=3, progress=lambda *call: told.append(call), wanted=EngineKind(wanted)
        )
        assert engine.workers == 3
        assert told == []  # the test of generated code is silent
        engine.check_on_curve(CURVE_POINTS)
        assert told == [("checks points", 8, 8)]

    def test_there_is_a_kind_for_every_instruction_set(self) -> None:
        assert {"portable", *InstructionSet} == {*EngineKind}

    def test_a_kind_that_the_processor_lacks_is_refused(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(
            "privacy.psi.vector.instruction_sets.available", lambda: (InstructionSet.SSE,)
        )
        with pytest.raises(InvalidParameterError, match=r"\(sse, portable\), got avx2"):
            choose_engine(10**6, wanted=EngineKind.AVX2)

    def test_without_llvmlite_the_portable_engine_runs_and_no_other_is_to_be_had(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(module, "find_spec", lambda name: None)
        assert isinstance(choose_engine(10**9), PortableEngine)
        with pytest.raises(InvalidParameterError, match="install llvmlite"):
            choose_engine(10**9, wanted=EngineKind.SSE)

    @pytest.mark.parametrize("fields", [{"points": -1}, {"points": 1, "workers": 0}], ids=str)
    @pytest.mark.parametrize("wanted", [None, EngineKind.SSE])
    def test_refuses_numbers_out_of_range(
        self, fields: dict[str, int], wanted: EngineKind | None
    ) -> None:
        with pytest.raises(InvalidParameterError):
            choose_engine(**fields, wanted=wanted)

    def test_llvm_is_loaded_only_when_it_pays(self) -> None:
        program = (
            "import sys, privacy.psi.engines as e; e.choose_engine(100);"
            "print('llvmlite' in sys.modules); e.choose_engine(e.GENERATION_PAYS_FROM);"
            "print('llvmlite' in sys.modules)"
        )
        command = [sys.executable, "-c", program]
        run = subprocess.run(command, check=True, capture_output=True, text=True)
        assert run.stdout.split() == ["False", "True"]


def ignore(*_: object) -> None:
    """Do nothing, as code that never reports a fault."""


def alarm(points: int, flags: int, pairs: int) -> None:
    """Find a point off the curve whatever the points."""
    ctypes.c_uint8.from_address(flags).value = 1


def silenced(right: Callable[..., None]) -> Callable[..., None]:
    """Return the function without its flags for products of 0."""

    def wrong(to: int, points: int, scalar: int, flags: int, *arguments: int) -> None:
        right(to, points, scalar, flags, *arguments)
        ctypes.memset(flags, 0, 8 * CHEAPEST.lanes)

    return wrong


def spoiled(right: Callable[..., None], position: int) -> Callable[..., None]:
    """Return the function with one wrong bit in its first result."""

    def wrong(to: int, *arguments: int) -> None:
        right(to, *arguments)
        memory = (ctypes.c_uint8 * 32).from_address(to)
        memory[position] ^= 1

    return wrong


@pytest.fixture(scope="module")
def wrong_constant() -> Program:
    """A program for another curve: A = 486666."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("privacy.psi.vector.curve.COEFFICIENT", 486666)
        return programs.machine_code(CHEAPEST)


TAMPERINGS: dict[str, tuple[Callable[[Program], dict[str, Any]], str]] = {
    "a wrong bit in products": (
        lambda right: {"multiply_points": spoiled(right.multiply_points, 31)},
        "RFC 7748 section 5.2; random points",
    ),
    "a wrong bit in hashes": (
        lambda right: {"hash_tokens": spoiled(right.hash_tokens, 0)},
        "RFC 9380 appendix J.4.2; random points",
    ),
    "no check of points": (lambda right: {"check_points": ignore}, "points to refuse"),
    "a check that refuses everything": (lambda right: {"check_points": alarm}, "points to refuse"),
    "no refusal of low orders": (
        lambda right: {"multiply_points": silenced(right.multiply_points)},
        "points to refuse",
    ),
}


class TestSelfTest:
    def choose(self, program: Program, monkeypatch: pytest.MonkeyPatch) -> Any:
        monkeypatch.setattr("privacy.psi.vector.engine.program_for", lambda kind: program)
        return choose_engine(10**6, workers=3, wanted=EngineKind(CHEAPEST))

    def test_right_code_passes_without_a_word(self) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert isinstance(choose_engine(1, wanted=EngineKind(CHEAPEST)), VectorEngine)

    def test_a_wrong_curve_constant_is_found_and_the_portable_engine_used(
        self, wrong_constant: Program, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with pytest.warns(
            VectorEngineWarning, match=r"RFC 7748.*RFC 9380.*random.*portable engine instead"
        ):
            engine = self.choose(wrong_constant, monkeypatch)
        assert isinstance(engine, PortableEngine)
        assert engine.workers == 3
        tokens = random_rows(1, 3)
        assert np.array_equal(engine.hash_to_curve(tokens), PortableEngine().hash_to_curve(tokens))

    @pytest.mark.parametrize(("tamper", "faults"), TAMPERINGS.values(), ids=TAMPERINGS.keys())
    def test_each_operation_is_tested(
        self,
        tamper: Callable[[Program], dict[str, Any]],
        faults: str,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        right = programs.program_for(CHEAPEST)
        wrong = dataclasses.replace(right, **tamper(right))
        with pytest.warns(VectorEngineWarning, match=rf"\({faults}[;)]"):
            assert isinstance(self.choose(wrong, monkeypatch), PortableEngine)

    def test_code_that_cannot_be_generated_is_no_disaster(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(kind: InstructionSet) -> Program:
            raise RuntimeError(f"LLVM has no {kind}")

        monkeypatch.setattr("privacy.psi.vector.engine.program_for", fail)
        with pytest.warns(VectorEngineWarning, match="cannot be generated: LLVM has no sse"):
            assert isinstance(choose_engine(1, wanted=EngineKind.SSE), PortableEngine)

    def test_runs_once_per_process_and_instruction_set(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        runs: list[object] = []
        monkeypatch.setattr(module, "_refuses", lambda engine: not runs.append(engine))
        for _ in range(2):
            choose_engine(1, wanted=EngineKind(CHEAPEST))
        assert len(runs) == 1
        choose_engine(1, wanted=EngineKind(FASTEST))
        assert len(runs) == len({CHEAPEST, FASTEST})

    def test_a_failure_is_told_at_every_choice(
        self, monkeypatch: pytest.MonkeyPatch, wrong_constant: Program
    ) -> None:
        for _ in range(2):
            with pytest.warns(VectorEngineWarning):
                self.choose(wrong_constant, monkeypatch)
