"""The program of one end of a direct link: spu, in a process and an environment of its own.

It is asked one question, on its standard input, and answers in lines: that it is ready, and how
many it found; who is let go in between says so to it. It reads and writes in its party's directory,
and removes itself and that directory when its standard input ends, as it does with our process.

Guarantees: it is given no network and no secret but the tags; every failure of it is one of ours,
and nothing that it says of one is quoted; what it found is used whole or not at all.

Leaves to others: the directory, and carrying what the program says to the other one (`link`); what
it does (`worker`).
"""

import asyncio
import json
from asyncio.subprocess import DEVNULL, PIPE, Process
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from federation.errors import WorkspaceError
from privacy.errors import WorkerError
from privacy.psi.rr22 import from_lines, to_lines

__all__ = ["MAKE_ENVIRONMENT", "Program", "write_tags"]

MAKE_ENVIRONMENT: Final = (
    "make it with `python3.11 -m venv DIRECTORY` and `DIRECTORY/bin/pip install --no-deps "
    "spu==0.9.5`, and name DIRECTORY/bin/python in party.json"
)

_WORKER: Final = Path(__file__).with_name("worker.py")
_MOST_ANSWER_BYTES: Final = 1 << 12
_LEAVING_SECONDS: Final = 10.0
_ENDING_SECONDS: Final = 1.0
_HEAD: Final = b"id\n"
_GO: Final = b"go\n"


def write_tags(scratch: Path, tags: NDArray[np.uint8]) -> None:
    """Write the tags that a program matches, shape (n, 16), where it reads them."""
    (scratch / "own.csv").write_bytes(_HEAD + to_lines(tags))


@dataclass(frozen=True, eq=False)
class Program:
    """A program that was started, for one bucket.

    Attributes:
        process: it itself.
        python: interpreter of its environment.
        scratch: the directory it works in.
        peer: name of the party at the other end, for messages.
        learns: whether this end learns the result.
    """

    process: Process
    python: Path
    scratch: Path
    peer: str
    learns: bool

    @classmethod
    async def start(
        cls, python: Path, scratch: Path, *, peer: str, learns: bool, seconds: float
    ) -> Self:
        """Start it and ask it; it waits at most `seconds` for the other program.

        Raises:
            WorkspaceError: its interpreter cannot be started.
        """
        try:
            process = await asyncio.create_subprocess_exec(
                python,
                "-I",
                _WORKER,
                cwd=scratch,
                env={"PATH": "/usr/bin:/bin", "TMPDIR": str(scratch), "LC_ALL": "C.UTF-8"},
                stdin=PIPE,  # it stays open: its end tells the program that we are gone
                stdout=PIPE,
                stderr=DEVNULL,
                limit=_MOST_ANSWER_BYTES,
                start_new_session=True,  # it ends itself and tidies up when we are gone
            )
        except OSError as error:
            raise WorkspaceError(
                f"rr22.python {python} cannot be started: {error.strerror}: {MAKE_ENVIRONMENT}"
            ) from error
        program = cls(process, python, scratch, peer, learns)
        question = {
            "learns": learns,
            "input": "own.csv",
            "output": "found.csv",
            "own": f"unix:{scratch / 'own.sock'}",
            "peer": f"unix:{scratch / 'peer.sock'}",
            "seconds": int(seconds),
        }
        program._say(json.dumps(question).encode() + b"\n")
        return program

    async def ready(self) -> None:
        """Wait until it is ready.

        Raises:
            WorkspaceError, WorkerError: it will not be.
        """
        await self._line("ready")

    def go(self) -> None:
        """Let it go, once the other one is ready too."""
        self._say(_GO)

    async def answer(self) -> object:
        """Wait for its one answer: what it says of how many it found, which `found` checks.

        Raises:
            WorkspaceError, WorkerError: it gave none.
        """
        return (await self._line("done"))["done"]

    def found(self, told: object, *, most: int) -> NDArray[np.uint8]:
        """Read what it found, shape (told, 16); none at an end that does not learn.

        Args:
            told: its answer.
            most: tags that it was given.

        Raises:
            WorkerError: it told, or wrote, what cannot be.
        """
        if not isinstance(told, int) or not 0 <= told <= most:
            raise self._unreadable()
        if not self.learns:
            return np.empty((0, 16), dtype=np.uint8)
        file = self.scratch / "found.csv"
        content = file.read_bytes() if file.exists() else b""
        head, _, lines = content.replace(b'"', b"").partition(b"\n")
        tags = from_lines(lines)
        if head + b"\n" != _HEAD or len(tags) != told:
            raise WorkerError(
                f"the program of the direct link to {self.peer} told {told} matches and wrote "
                f"{len(tags)}: nothing of it was used; run again"
            )
        return tags

    async def end(self) -> None:
        """Let it end, and end it if it does not."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self.process.wait(), _ENDING_SECONDS)
        if self.process.returncode is None:
            with suppress(ProcessLookupError):
                self.process.kill()
        await self.process.wait()

    def _say(self, line: bytes) -> None:
        if self.process.stdin is None:
            raise RuntimeError("the program was started with pipes")
        self.process.stdin.write(line)

    async def _line(self, expected: str) -> dict[str, Any]:
        """Read a line of the program's, and raise what it means if it is not the expected one."""
        if self.process.stdout is None:
            raise RuntimeError("the program was started with pipes")
        try:
            content = await self.process.stdout.readline()
        except ValueError as error:  # a line longer than the limit
            raise self._unreadable() from error
        told = _parse(content)
        if expected in told:
            return told
        if told.get("failed") == "environment":
            raise WorkspaceError(
                f"rr22.python {self.python} has not what is needed: {MAKE_ENVIRONMENT}"
            )
        if "failed" in told:
            raise WorkerError(
                f"the program of the direct link to {self.peer} failed: run again; finished "
                "buckets are kept"
            )
        if content:
            raise self._unreadable()
        with suppress(TimeoutError):
            await asyncio.wait_for(self.process.wait(), _LEAVING_SECONDS)
        raise WorkerError(
            f"the program of the direct link to {self.peer} ended without an answer (exit code "
            f"{self.process.returncode}): if it was killed, give it more memory; then run again"
        )

    def _unreadable(self) -> WorkerError:
        return WorkerError(
            f"the program of the direct link to {self.peer} gave no answer that can be read: see "
            "that rr22.python is the environment's"
        )


def _parse(content: bytes) -> dict[str, Any]:
    try:
        answer = json.loads(content)
    except ValueError:
        return {}
    return answer if isinstance(answer, dict) else {}
