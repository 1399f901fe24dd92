"""A party's part of erasing somebody: its table, segments, matches, models and keys.

```
request   1 the person is on the list of the erased: no job reads them from here on
run       2 their records are found, and written down before any is deleted
          3 every place is dealt with: what will be done is noted before, what was done after
          4 the completion is signed and logged by the gate
```

Guarantees: a run that is cut anywhere goes on where it was: no place is forgotten, each outcome is
told as it was before the cut, each leaf is in the log once, and there is one completion. What
cannot be carried out hinders no other request. The same identifier, named again while its request
is open, leads to the same request; afterwards to a new one. A request that another party signs anew
is carried out anew, whoever it is about: neither answer nor log tells whether they are held. A
source that can only be read is said to be so. Under the party's lock, no job is at work meanwhile.

Leaves to others: who may ask (the party knows its people), verifying what others ask and spreading
the request (`spreading`), backups, and training models again by the day that is told.
"""

import hashlib
from collections.abc import Sequence
from datetime import datetime, timedelta
from itertools import chain
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict, ValidationError

from compliance import records
from compliance.agreement import Agreement
from compliance.erasure.completion import Completion, Outcomes
from compliance.erasure.execution import Execution, Standing
from compliance.errors import ComplianceError
from compliance.records import ErasureOutcome
from compliance.records.leaf import Leaf
from compliance.terms import ErasureTerms
from connectors.errors import ConnectorError
from federation.clock import Clock
from federation.erased import Erased, Person, entry_of, find_entry
from federation.erasure_places import SOURCE, ErasurePlaces
from federation.errors import FederationError, WorkspaceError
from federation.gate import Gate
from federation.jobs.erase import request_tokens
from federation.jobs.spread import ERASING, people_of
from federation.leaves_told import is_told
from federation.party import PartyFolder, write_atomically
from federation.population import recipe_for
from federation.progress import Progress, report
from federation.remembered import references_remembered

__all__ = ["Erasing", "Kept"]


_GONE: Final = frozenset({ErasureOutcome.NOT_HELD, ErasureOutcome.UNKNOWN})


class Doing(BaseModel):
    """A place that is being dealt with.

    Attributes:
        target: the place.
        held: whether the person was there before anything was deleted.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    target: str
    held: bool


class Kept(BaseModel):
    """A request as it is kept.

    Attributes:
        asked: when.
        execution: how far it has come.
        origin: party at which the person asked; None where that is this one.
        peers: whom it is sent on to.
        named: whether anybody here is meant, as far as is known.
        logged: whether the log is known to tell of it.
        doing: what is being done, written down before it is.
        finished: when all was done, written down before it is signed.
        heard: whether its origin has the completion.
        deleted: places where somebody was deleted before the origin asked anew.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    asked: datetime
    execution: Execution
    origin: str | None = None
    peers: tuple[str, ...] = ()
    named: bool = True
    logged: bool = True
    doing: Doing | None = None
    finished: datetime | None = None
    heard: bool = False
    deleted: tuple[str, ...] = ()

    @property
    def entry(self) -> str:
        """What it is kept under."""
        return entry_of(self.execution.request, self.origin)

    def with_(self, **changes: object) -> "Kept":
        """Return it with changes."""
        return self.model_copy(update=changes)


class Erasing:
    """Requests to erase, at one party. Use it under the party's lock."""

    def __init__(
        self, folder: PartyFolder, agreement: Agreement, gate: Gate, *, clock: Clock
    ) -> None:
        self._folder = folder
        self._agreement = agreement
        self._gate = gate
        self._clock = clock
        self._erased = Erased(folder, agreement)
        self._places = ErasurePlaces(folder, agreement, gate)
        self._terms = agreement.erasure or ErasureTerms()

    def request(self, kind: str, value: str) -> Kept:
        """Take a request; whoever asked before is told of the same one, while that is open.

        Args:
            kind: `email` or `phone`.
            value: the identifier, as the person writes it.

        Raises:
            ErasureError: the identifier could find nobody.
            ConnectorError: the table cannot be read; the request is kept. Until it is named again
                or carried out, jobs that have read the person go on.
        """
        recipe = recipe_for(self._agreement.match)
        token = request_tokens(kind, value, recipe)[0].tobytes()
        for entry, person in self._erased.persons().items():
            kept = self._read(entry) if person.token == token else None
            if kept is not None and kept.origin is None and not kept.execution.completion:
                kept = self._log_request(kept)
                self._find((kept,))
                return kept
        # A crash between the two writes leaves a person who is left out, and no request: asking
        # again makes one.
        name, now = self._new_name(), self._clock()
        self._erased.keep(name, Person(token))  # 1
        peers = (one for one in people_of(self._agreement) if one != self._folder.name)
        kept = Kept(
            asked=now,
            execution=self._execution(
                name,
                name,
                token_digest=hashlib.sha256(name.encode()).hexdigest(),  # it came by no wire
                acknowledgement=name,
                deadline=self.deadline(now),
            ),
            peers=tuple(peers),
            logged=False,
        )
        kept = self._log_request(self._write(kept), fresh=True)
        self._find((kept,))  # jobs at work may use them: the gate goes by reference
        return kept

    def take(
        self,
        name: str,
        token: str,
        acknowledgement: str,
        *,
        origin: str,
        deadline: datetime,
        person: bytes | None,
    ) -> Kept:
        """Keep a request that another party sends, or has sent before.

        Args:
            name: of the request.
            token: the request as it came, verified.
            acknowledgement: the answer that it gets.
            origin: whom it came from, and at whom the person asked.
            deadline: by when the person must be erased.
            person: token of whom it is about, if this party holds them.

        The answer must be the same whether anybody here is meant or not: whoever came first under
        a name stays, and what was done is done again.
        """
        entry, kept = entry_of(name, origin), self.read(name, origin)
        digest = hashlib.sha256(token.encode()).hexdigest()
        if kept is None:
            if person is not None:
                self._erased.keep(entry, Person(person))  # 1
            kept = Kept(
                asked=self._clock(),
                execution=self._execution(
                    entry,
                    name,
                    token_digest=digest,
                    acknowledgement=acknowledgement,
                    deadline=deadline,
                ),
                origin=origin,
                named=person is not None,
                logged=False,
            )
            return self._log_request(self._write(kept), fresh=True)
        if digest == kept.execution.token_digest:
            return self._log_request(kept)
        if person is not None and not kept.named:  # imported since
            self._erased.keep(entry, Person(person))
            kept = kept.with_(named=True)
        elif person is not None and self._erased.person(entry).token != person:
            told = f"request {name} of {origin} names somebody else than before, who stays"
            report(Progress(self._folder.name, ERASING, told))
        renewed = kept.with_(execution=kept.execution.renewed(token, acknowledgement))
        return self._log_request(self._write(self._anew(renewed)))

    def _anew(self, kept: Kept) -> Kept:
        """Return a request to be carried out from the beginning: a place may hold them by now."""
        before = kept.execution
        done = (one.target for one in before.steps if one.outcome is ErasureOutcome.DELETED)
        execution = self._execution(
            f"{kept.entry}/{before.token_digest}",
            before.request,
            token_digest=before.token_digest,
            acknowledgement=before.acknowledgement,
            deadline=before.deadline,
        )
        deleted = tuple(dict.fromkeys((*kept.deleted, *done)))
        return kept.with_(
            execution=execution, deleted=deleted, doing=None, finished=None, heard=False
        )

    def look_for(self, kept: Sequence[Kept]) -> None:
        """Write down under which references the people of some requests are held.

        Raises:
            ConnectorError: the table cannot be read; jobs that have read them go on until it can.
        """
        self._find(kept)

    def deadline(self, now: datetime) -> datetime:
        """Return by when a request of now must be carried out."""
        return now + timedelta(days=self._terms.deadline_days)

    def told(self, request: str, origin: str) -> None:
        """Note that the origin of a request has its completion, where there is one."""
        kept = self.read(request, origin)
        if kept is not None and kept.execution.completion and not kept.heard:
            self._write(kept.with_(heard=True))

    def _new_name(self) -> str:
        return f"rq-{self._folder.fresh_secret(f'request/{self._clock().isoformat()}').hex()[:32]}"

    def _execution(
        self, label: str, name: str, *, token_digest: str, acknowledgement: str, deadline: datetime
    ) -> Execution:
        return Execution(
            request=name,
            token_digest=token_digest,
            acknowledgement=acknowledgement,
            deadline=deadline,
            nonce=self._folder.fresh_secret(f"outcomes/{label}").hex(),
            targets=(SOURCE,),
        )

    def _log_request(self, kept: Kept, *, fresh: bool = False) -> Kept:
        """Tell the log of a request, once."""
        if kept.logged:
            return kept
        name, origin = kept.execution.request, kept.origin or self._folder.name
        if fresh or not self._is_told(records.ErasureRequested, name, origin=origin):
            self._gate.note(
                records.ErasureRequested,
                None,
                request=name,
                origin=origin,
                deadline=kept.execution.deadline,
            )
        return self._write(kept.with_(logged=True))

    def status(self) -> tuple[Kept, ...]:
        """Return all requests, the oldest first."""
        found = [self._read(path.stem) for path in self._folder.erasures.glob("*.json")]
        return tuple(sorted((one for one in found if one is not None), key=lambda one: one.asked))

    def run(self) -> tuple[Kept, ...]:
        """Carry out all that was asked; erase again whom a later import brought back.

        Raises:
            ConnectorError: a place cannot be reached; all others were dealt with: run it again.
        """
        return self._carry_out_each(self.status())

    def run_pending(self) -> None:
        """Carry out what has yet to be.

        Raises:
            ConnectorError: a place cannot be reached; all others were dealt with: run it again.
        """
        self._carry_out_each([one for one in self.status() if not one.execution.completion])

    def _carry_out_each(self, kept: Sequence[Kept]) -> tuple[Kept, ...]:
        """Carry out requests: one that cannot be hinders no other; the first error is raised.

        None is completed while anybody is still in a last set: the next look takes them out.
        """
        dealt: list[Kept] = []
        wrong: list[Exception] = []
        found = self._find(kept)  # 2
        is_remembered = False
        try:
            self._forget_last_sets(kept, found)
        except FederationError as error:
            is_remembered = True
            wrong.append(error)
        for one, references in zip(kept, found, strict=True):
            report(Progress(self._folder.name, "erase", f"carries out {one.execution.request}"))
            try:
                dealt.append(self._deal(one, references))
            except (ConnectorError, ComplianceError, FederationError) as error:
                wrong.append(error)
        if dealt:
            self._places.tell_of_models()
        done = tuple(dealt if is_remembered else map(self._complete, dealt))
        if wrong:
            raise wrong[0]
        return done

    def _forget_last_sets(self, kept: Sequence[Kept], found: Sequence[tuple[str, ...]]) -> None:
        if kept:  # whoever is meant
            named = [self._erased.person(one.entry).token for one in kept if one.named]
            self._places.forget_last_sets(named, tuple(chain.from_iterable(found)))

    def receipt(self, request: str) -> tuple[bytes, Outcomes]:
        """Return the signed completion of a request, and the outcomes that it binds to.

        Args:
            request: its name; with `@` and its origin where several parties have used it.

        Raises:
            WorkspaceError: there is no such request, or it is not completed.
        """
        kept = self._read(find_entry(self._folder, request))
        if kept is None or kept.execution.completion is None:
            raise WorkspaceError(
                f"request {request!r} is not completed here: `comity erase status` lists them"
            )
        return kept.execution.completion.encode(), kept.execution.outcomes(self._folder.name)

    def _deal(self, kept: Kept, references: tuple[str, ...]) -> Kept:
        if kept.execution.standing is Standing.COMPLETED:
            self._places.source(references)  # an import brought them back: the receipt stays
            return kept
        kept = self._log_request(kept)
        if not kept.execution.steps and kept.doing is None:
            self._places.settle()
            targets = (SOURCE, *self._places.listed())
            execution = kept.execution.model_copy(update={"targets": targets})
            kept = self._write(kept.with_(execution=execution))
        token = self._erased.person(kept.entry).token if kept.named else None
        for target in kept.execution.pending:  # 3
            kept = self._deal_with(target, references, token, kept)
        return kept

    def _complete(self, kept: Kept) -> Kept:
        request = kept.execution.request
        if kept.execution.standing is Standing.COMPLETED:
            return kept
        cut = kept.finished is not None
        kept = kept if cut else self._write(kept.with_(finished=self._clock()))
        outcomes = kept.execution.outcomes(self._folder.name)
        completion = Completion.of(outcomes, completed=kept.finished or self._clock())

        def told(digest: str) -> bool:
            known = records.ErasureCompleted, request
            return cut and self._is_told(*known, completion_digest=digest)

        signed = self._gate.complete(completion, is_told=told)  # 4
        return self._write(kept.with_(execution=kept.execution.completed(completion, signed)))

    def _deal_with(
        self, target: str, references: tuple[str, ...], token: bytes | None, kept: Kept
    ) -> Kept:
        """Do one step: once as far as anybody can tell, wherever it is cut."""
        request, doing = kept.execution.request, kept.doing
        cut = doing is not None and doing.target == target
        if doing is None or not cut:
            held = target in kept.deleted or self._places.holds(target, references, token)
            doing = Doing(target=target, held=held)
            kept = self._write(kept.with_(doing=doing))
        step = self._places.deal_with(
            target, references, request=request, asked=kept.asked, cut=cut, token=token
        )
        if doing.held and step.outcome in _GONE:  # it went before the cut
            step = step.model_copy(update={"outcome": ErasureOutcome.DELETED})
        digest = step.committed(request, kept.execution.nonce)
        told = {"request": request, "target": target, "outcome_digest": digest}
        if not (cut and is_told(self._folder, self._agreement, records.ErasureStep, **told)):
            self._gate.note(records.ErasureStep, None, **told)
        return self._write(kept.with_(execution=kept.execution.with_step(step), doing=None))

    def _is_told(self, kind: type[Leaf], request: str, **fields: object) -> bool:
        return is_told(self._folder, self._agreement, kind, request=request, **fields)

    def _find(self, kept: Sequence[Kept]) -> tuple[tuple[str, ...], ...]:
        """Return the references that each person has or had, written down; one reading for all.

        The table and the matches are read whether anybody here is meant or not.
        """
        if not kept:
            return ()
        persons = self._erased.persons()
        named = [one.entry for one in kept if one.named]
        tokens = [persons[entry].token for entry in named]
        found = self._erased.found_by(tokens, references_remembered(self._folder, tokens))
        had: dict[str, tuple[str, ...]] = {}
        for entry, now in zip(named, found, strict=True):
            person = persons[entry]
            before = (one.references for one in persons.values() if one.token == person.token)
            had[entry] = references = tuple(dict.fromkeys(chain(*before, now)))
            if set(references) != set(person.references):
                self._erased.keep(entry, Person(person.token, references))
        return tuple(had.get(one.entry, ()) for one in kept)

    def read(self, request: str, origin: str | None = None) -> Kept | None:
        """Return a request; None where there is none of that name and origin.

        Raises:
            WorkspaceError: it is damaged.
        """
        return self._read(entry_of(request, origin))

    def _read(self, entry: str) -> Kept | None:
        path = self._file(entry)
        try:
            return Kept.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            return None
        except ValidationError as error:
            raise WorkspaceError(f"{path} is damaged: restore it") from error

    def _write(self, kept: Kept) -> Kept:
        content = kept.model_dump_json().encode()
        write_atomically(self._file(kept.entry), content, mode=0o600)
        return kept

    def _file(self, entry: str) -> Path:
        return self._folder.erasures / f"{entry}.json"
