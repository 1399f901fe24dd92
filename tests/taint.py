"""Where a secret goes in code that LLVM has optimised: an analysis for tests of constant time.

Memory is followed by the roots that its addresses come from: stack slots, arguments, globals. What
is stored to a root taints everything that is loaded from it, and what a callee does to its
argument happens to the caller's roots. Both err towards alarm.
"""

from functools import cache
from typing import Any

HARMLESS = ("llvm.x86.avx512.vpmadd52", "llvm.fshl.")
MOVES = ("llvm.memset.", "llvm.memcpy.", "llvm.memmove.")
DIVISIONS = frozenset({"udiv", "sdiv", "urem", "srem", "fdiv", "frem"})
# Which operands an address may come from.
PASSES_ON = {
    "getelementptr": slice(1),
    "bitcast": slice(1),
    "phi": slice(None),
    "select": slice(1, 3),
}
BRANCHES = frozenset({"br", "switch", "indirectbr"})


class Taint:
    """What depends on that to which arguments of functions, by number, point.

    Attributes:
        values: instructions and arguments.
        memory: roots of addresses.
        results: functions by name.
        violations: (function, what a secret must not reach there).
    """

    def __init__(self, module: Any, *sources: tuple[str, int]) -> None:
        self.values: set[Any] = set()
        self.memory: set[Any] = set()
        self.results: set[str] = set()
        self.violations: set[tuple[str, str]] = set()
        self._code = [
            (one.name, instruction, instruction.opcode, list(instruction.operands))
            for one in module.functions
            for block in one.blocks
            for instruction in block.instructions
        ]
        self._arguments = {one.name: list(one.arguments) for one in module.functions}
        self._bodies = {name for name, *_ in self._code}
        # An operand does not know that it is an instruction; it does compare equal to it.
        self._definitions = {
            instruction: (opcode, operands) for _, instruction, opcode, operands in self._code
        }
        self.roots = cache(self._roots)
        self.memory |= {self._arguments[function][argument] for function, argument in sources}
        before = -1
        while (found := self._size()) > before:
            before = found
            for line in self._code:
                self._visit(*line)

    def share(self, function: str) -> float:
        """Return which part of a function's instructions depends on the secret."""
        lines = [instruction for name, instruction, *_ in self._code if name == function]
        return sum(one in self.values for one in lines) / len(lines)

    def _size(self) -> int:
        return sum(map(len, (self.values, self.memory, self.results, self.violations)))

    def _roots(self, pointer: Any) -> frozenset[Any]:
        found, seen, following = set(), set(), [pointer]
        while following:
            one = following.pop()
            opcode, operands = self._definitions.get(one, ("", []))
            if opcode in PASSES_ON and one not in seen:
                following += operands[PASSES_ON[opcode]]
            elif opcode not in PASSES_ON:
                assert opcode in {"", "alloca"}, f"cannot follow an address out of {opcode}"
                found.add(one)
            seen.add(one)
        return frozenset(found)

    def _visit(self, where: str, line: Any, opcode: str, operands: list[Any]) -> None:
        tainted = [operand in self.values for operand in operands]
        if opcode == "call":
            self._visit_call(where, line, operands[-1].name, operands[:-1])
        elif opcode == "load":
            self._forbid(where, "address", tainted[0])
            if self.roots(operands[0]) & self.memory:
                self.values.add(line)
        elif opcode == "store":
            self._forbid(where, "address", tainted[1])
            if tainted[0]:
                self.memory |= self.roots(operands[1])
        elif opcode in BRANCHES:
            self._forbid(where, "branch", tainted[0])
        elif opcode == "ret":
            self.results |= {where} if any(tainted) else set()
        elif any(tainted):
            self._forbid(where, "division", opcode in DIVISIONS)
            lanes = str(operands[0].type).startswith("<")
            self._forbid(where, "select", opcode == "select" and tainted[0] and not lanes)
            self.values.add(line)

    def _visit_call(self, where: str, line: Any, callee: str, given: list[Any]) -> None:
        tainted = [value in self.values for value in given]
        if callee in self._bodies:
            self._enter(callee, given)
            if callee in self.results:
                self.values.add(line)
        elif callee.startswith(MOVES):
            self._forbid(where, "address", tainted[0] or tainted[2])
            if tainted[1] or self.roots(given[1]) & self.memory:
                self.memory |= self.roots(given[0])
        elif any(tainted) or any(value in self.memory for value in given):
            self._forbid(where, "call", not callee.startswith(HARMLESS))
            self.values.add(line)

    def _enter(self, callee: str, given: list[Any]) -> None:
        for value, parameter in zip(given, self._arguments[callee], strict=True):
            if value in self.values:
                self.values.add(parameter)
            if str(parameter.type) == "ptr":
                if self.roots(value) & self.memory:
                    self.memory.add(parameter)
                if parameter in self.memory:
                    self.memory |= self.roots(value)

    def _forbid(self, where: str, what: str, happens: bool) -> None:
        if happens:
            self.violations.add((where, what))
