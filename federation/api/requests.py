"""What people ask for beside consent: to be erased, to see what is held, to have it corrected.

Guarantees: the same identifier again leads to the same request to erase, while that is open; each
request to see or to correct leaves a leaf. None is carried out while a job is at work: who waits
too long is told so, as is at once whoever comes while as many wait as may. So withdrawals find
threads that are free.

Leaves to others: carrying erasures out (`comity erase run`), who may ask (the caller knows people).
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import BoundedSemaphore
from typing import Final

from federation.api import bodies, problems
from federation.api.consents import references
from federation.api.problems import ProblemError
from federation.clock import Clock
from federation.erasing import Erasing, Kept
from federation.errors import PartyBusyError, WorkspaceError
from federation.holding import Held, held
from federation.subjects import Subjects

__all__ = ["Requests"]

_MOST_AT_ONCE: Final = 4
"""Requests that wait for the folder or hold it: few of the threads that all requests share."""


class Requests:
    """Requests of people at one party.

    Args:
        directory: the party's folder.
        patience: seconds to wait for a job that is at work.
        clock: the time.
    """

    def __init__(self, directory: Path, *, patience: float, clock: Clock) -> None:
        self._directory = directory
        self._patience = patience
        self._clock = clock
        self._places = BoundedSemaphore(_MOST_AT_ONCE)

    def erase(self, asked: bodies.Identifier) -> bodies.Erasure:
        """Take a request to erase somebody.

        Raises:
            ErasureError: the identifier could find nobody.
            PartyBusyError: a job is at work.
        """
        with self._held() as at:
            if isinstance(asked, bodies.NamedByEmail):
                return _told(self._erasing(at).request("email", asked.email))
            return _told(self._erasing(at).request("phone", asked.phone))

    def erasure(self, request: str) -> bodies.Erasure:
        """Say how far a request has come.

        Raises:
            ProblemError: there is none of that name.
            PartyBusyError: a job is at work.
        """
        with self._held() as at:
            for kept in self._erasing(at).status():
                if kept.execution.request == request:
                    return _told(kept)
        raise ProblemError(problems.NOT_FOUND, "there is no such request")

    def erasure_receipt(self, request: str) -> bodies.ErasureReceipt:
        """Return the signed completion of a request.

        Raises:
            ProblemError: there is none of that name, or it is not completed.
            PartyBusyError: a job is at work.
        """
        self.erasure(request)
        with self._held() as at:
            try:
                completion, _ = self._erasing(at).receipt(request)
            except WorkspaceError:
                raise ProblemError(problems.NOT_FOUND, "it is not completed yet") from None
        return bodies.ErasureReceipt(request=request, completion=json.loads(completion))

    def show(self, named: bodies.Named) -> bodies.Rows:
        """Return what the party's table holds about somebody.

        Raises:
            ConnectorError: the table cannot be read.
            PartyBusyError: a job is at work.
        """
        with self._held() as at:
            found = self._subjects(at).show(self._references(at, named))
        return bodies.Rows(request=found.request, columns=found.columns, rows=found.rows)

    def export(self, named: bodies.Named) -> str:
        """Return the same as a table of text, CSV (RFC 4180)."""
        with self._held() as at:
            return self._subjects(at).show(self._references(at, named)).to_csv()

    def correct(self, asked: bodies.Correction) -> bodies.Request:
        """Correct what the party's table holds about somebody.

        Raises:
            ProblemError: the party's own references were to be changed.
            ValueMisfitError, MissingColumnError, SourceReadOnlyError: it cannot be done.
            PartyBusyError: a job is at work.
        """
        with self._held() as at:
            data = at.folder.config.data
            if data is not None and data.key in asked.values:
                raise ProblemError(
                    problems.INVALID, "the column of the party's own references is not corrected"
                )
            found = self._references(at, asked.subject)
            return bodies.Request(request=self._subjects(at).correct(found, asked.values))

    def _references(self, at: Held, named: bodies.Named) -> tuple[str, ...]:
        try:
            return references(at.folder, at.agreement, named)
        except ProblemError:  # nothing is held under the identifier, and that is an answer
            return ()

    def _subjects(self, at: Held) -> Subjects:
        return Subjects(at.folder, at.agreement, at.gate, clock=self._clock)

    def _erasing(self, at: Held) -> Erasing:
        return Erasing(at.folder, at.agreement, at.gate, clock=self._clock)

    @contextmanager
    def _held(self) -> Iterator[Held]:
        if not self._places.acquire(blocking=False):
            raise PartyBusyError("other requests wait for the party's folder already")
        try:
            with held(self._directory, clock=self._clock, patience=self._patience) as at:
                yield at
        finally:
            self._places.release()


def _told(kept: Kept) -> bodies.Erasure:
    return bodies.Erasure(
        request=kept.execution.request,
        standing=kept.execution.standing,
        asked=kept.asked,
        deadline=kept.execution.deadline,
        pending=len(kept.execution.pending),
    )
