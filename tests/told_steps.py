"""Steps that are told before they are taken, by a run that goes on however often it is killed.

A coordinator that is told to die does, and a copy of it goes on as soon as it hears more. A worker
dies in a copy of the coordinator that waits for it: that copy asks it the same message once more.
"""

import os
import signal
from dataclasses import dataclass
from enum import StrEnum

from crashing import Steps, WatchedWorld

from federation.messages import SealedMessage


class Heard(StrEnum):
    """What is said of a run, each with what follows."""

    MESSAGE = "message"
    """A worker will be asked."""
    STEP = "step"
    """Number, what, process: a step would be taken."""
    NEXT = "next"
    """A worker has answered; at which of its steps shall it die? 0 is at none."""
    ENDED = "ended"
    """Exit code of a coordinator without that worker."""


class Told(StrEnum):
    """What is said to a run."""

    GO = "go"
    DIE = "die"


@dataclass(frozen=True)
class Line:
    """One end of a line, at whose other end somebody waits for each word."""

    incoming: int
    outgoing: int

    @classmethod
    def pair(cls) -> tuple["Line", "Line"]:
        """Return both ends."""
        (here, to_here), (there, to_there) = os.pipe(), os.pipe()
        return cls(here, to_there), cls(there, to_here)

    def say(self, *words: object) -> None:
        """Say something short."""
        os.write(self.outgoing, " ".join(map(str, words)).encode())

    def hear(self) -> str:
        """Wait for what is said; nothing once the other end is closed."""
        return os.read(self.incoming, 4096).decode()

    def ask(self, *words: object) -> str:
        """Say something, and wait for the answer."""
        self.say(*words)
        return self.hear()

    def close(self) -> None:
        """Leave."""
        os.close(self.incoming)
        os.close(self.outgoing)


@dataclass
class ToldSteps(Steps):
    """A party's steps, told on a line; where there is none, as if nobody listened."""

    line: Line | None = None

    def step(self, what: str) -> None:
        """Say which step comes; then take it, or die."""
        if self.line is None or self.acting != self.victim:
            super().step(what)
            return
        self.taken.append(what)
        if self.line.ask(Heard.STEP, len(self.taken), what, os.getpid()) == Told.DIE:
            if os.fork():
                os.kill(os.getpid(), signal.SIGKILL)
            self.line.hear()


@dataclass
class ToldWorld(WatchedWorld):
    """A world in which a worker is killed at several steps of one message, one after another."""

    def _forked(self, name: str, message: SealedMessage) -> SealedMessage | None:
        steps, now = self.steps, self.now
        assert isinstance(steps, ToldSteps)
        line, before = steps.line, list(steps.taken)
        if line is None:
            return super()._forked(name, message)
        line.ask(Heard.MESSAGE)
        answer = super()._forked(name, message)
        while at := int(line.ask(Heard.NEXT)):
            child = os.fork()
            if child == 0:
                steps.line, steps.at, steps.taken, self.now = None, at, before, now
                return super()._forked(name, message)
            line.ask(Heard.ENDED, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        return answer
