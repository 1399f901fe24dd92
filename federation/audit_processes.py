"""Audit logs: one here, or large ones beside each other, each in a process of its own.

Guarantees: nobody looks for garbage among leaves that are read: all of them stay. What is told of a
log is the same either way. What several logs ask the price of is priced once, by the process that
started the others. One that ends before it told anything is a finding about its log, and stops none
of the others.

Leaves to others: auditing a log (`auditing`).
"""

import gc
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from multiprocessing import Pipe, Process
from multiprocessing.connection import Connection, wait
from typing import Final, Protocol, TypeVar, cast

from compliance.auditing import Excerpt, Finding, FindingKind, PartyLog, Pricer, UnpriceableError

__all__ = ["Audited", "Told", "audit_beside", "audit_here"]

_MOST_PROCESSES: Final = 8

Audited = tuple[PartyLog | None, tuple[Finding, ...]]
"""A log, if it could be read, and what was found in it."""

Told = tuple[Excerpt | None, tuple[Finding, ...]]
"""As much of it as others are held against."""


class _OfParty(Protocol):
    @property
    def party(self) -> str: ...


Log = TypeVar("Log", bound=_OfParty)

Audit = Callable[[Log, Pricer], Audited]


def audit_here(audit: Audit[Log], log: Log, pricer: Pricer) -> Told:
    """Audit a log in this process."""
    collects = gc.isenabled()
    gc.disable()
    try:
        return _told(audit(log, pricer))
    finally:
        if collects:
            gc.enable()


def audit_beside(audit: Audit[Log], logs: Sequence[Log], pricer: Pricer) -> list[Told]:
    """Audit each log in a process of its own, a few at a time; what is told is in their order."""
    told: dict[int, Told] = {}
    running: dict[Connection, int] = {}
    following = iter(enumerate(logs))

    def start() -> None:
        for number, log in islice(following, 1):
            here, there = Pipe()
            Process(target=_tell, args=(there, audit, log, pricer), daemon=True).start()
            there.close()  # so that its end is noticed
            running[here] = number

    for _ in range(_MOST_PROCESSES):
        start()
    pricer.prepare()  # while they read
    while running:
        for ready in wait(list(running)):
            connection = cast("Connection", ready)
            number = running[connection]
            try:
                said = connection.recv()
                if isinstance(said, _Question):
                    connection.send(_answer(pricer, said))
                    continue
            except (OSError, EOFError):
                party = logs[number].party
                text = f"the log of {party} cannot be audited: the process that read it has ended"
                said = None, (Finding(FindingKind.UNREADABLE, party, (), text),)
            told[number] = said
            del running[connection]
            connection.close()
            start()
    return [told[number] for number in range(len(logs))]


@dataclass(frozen=True)
class _Question:
    """What is the price of all mechanisms, each so often, at `delta`?"""

    mechanisms: Mapping[str, int]
    delta: float


def _answer(pricer: Pricer, question: _Question) -> float | UnpriceableError:
    try:
        return pricer.epsilon(question.mechanisms, question.delta)
    except UnpriceableError as error:
        return error
    except Exception as error:  # noqa: BLE001  nobody's log may stop the audit of the others
        return UnpriceableError(f"cannot be priced: that ends in {type(error).__name__}")


class _Asking:
    """A pricer that asks the process which started this one for prices."""

    def __init__(self, pricer: Pricer, connection: Connection) -> None:
        self._pricer = pricer
        self._connection = connection

    @property
    def prices(self) -> bool:
        return self._pricer.prices

    def prepare(self) -> None:
        pass

    def check(self, mechanism: str) -> None:
        self._pricer.check(mechanism)

    def epsilon(self, mechanisms: Mapping[str, int], delta: float) -> float:
        self._connection.send(_Question(dict(mechanisms), delta))
        answer: float | UnpriceableError = self._connection.recv()
        if isinstance(answer, UnpriceableError):
            raise answer
        return answer


def _tell(connection: Connection, audit: Audit[Log], log: Log, pricer: Pricer) -> None:
    gc.disable()
    audited = audit(log, _Asking(pricer, connection))
    connection.send(_told(audited))
    connection.close()
    os._exit(0)  # all leaves go at once, and not one after another


def _told(audited: Audited) -> Told:
    log, found = audited
    return None if log is None else Excerpt.of(log), found
