"""What every step of a party's work needs: its people, its gate, its results, its voice.

Guarantees: a step leaves its results whole or not at all, and leaves none where the gate refused.

Leaves to others: the steps (`work`, `matching`), who may be used (`population`), what may leave
(`gate`).
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from compliance.agreement import Agreement
from compliance.terms import Role
from federation.clock import Clock
from federation.erased import Erased, check_nobody_erased
from federation.errors import MessageError, RefusedError, WorkspaceError
from federation.gate import Departure, Gate, Leaf, Minimum, Released
from federation.members import Members, load_people
from federation.messages import Body, Message
from federation.party import PartyFolder, write_atomically
from federation.people_used import PeopleUsed
from federation.population import Population, Use, open_source, read_population
from federation.progress import Progress, report
from federation.shelves import scratch
from federation.specification import TrainSpec, VerticalTrainSpec
from federation.training.manifests import keep_manifest
from federation.workers import engine_for
from privacy.accounting.events import Event
from privacy.accounting.ledger import Ledger
from privacy.psi.engine import CurveEngine

__all__ = ["Desk"]


class Desk:
    """A party at work on one message, while it holds its folder."""

    def __init__(
        self,
        folder: PartyFolder,
        agreement: Agreement,
        gate: Gate,
        ledger: Ledger,
        *,
        clock: Clock,
    ) -> None:
        self.folder = folder
        self.agreement = agreement
        self.gate = gate
        self.ledger = ledger
        self.clock = clock
        (coordinator,) = agreement.by_role(Role.COORDINATOR)
        self.coordinator = coordinator.name

    def release(  # noqa: PLR0913 -- the fields of a departure
        self,
        message: Message,
        body: Body,
        payload: bytes = b"",
        *,
        recipient: str | None = None,
        people: PeopleUsed | None = None,
        minimums: tuple[Minimum, ...] = (),
        charge: Event | None = None,
        paid_by: str | None = None,
        results: tuple[tuple[Leaf, Mapping[str, object]], ...] = (),
    ) -> Released:
        """Ask the gate to let out an answer to `message`.

        Of a training, who is in it is written down before (`training.manifests`).
        """
        spec = self.gate.spec
        if people is not None and isinstance(spec, TrainSpec | VerticalTrainSpec):
            keep_manifest(
                self.folder,
                self.agreement,
                spec,
                people,
                question=message.sealed.digest,
                computation=body.kind,
                now=self.clock(),
            )
        return self.gate.release(
            Departure(
                job=message.header.job,
                recipient=recipient or message.header.sender,
                body=body,
                payload=payload,
                answers=message.sealed.digest,
                people=people,
                minimums=minimums,
                charge=charge,
                paid_by=paid_by,
                results=results,
            )
        )

    @contextmanager
    def result(self, path: Path, message: Message, content: bytes) -> Iterator[None]:
        """Make a result the party's own once the gate has let go what tells of it.

        1. Another question cannot change what a job has left already.
        2. It lies beside its place, under the question's digest, while the gate decides.
        3. It takes its place; after a crash in between, the repeated question puts it there.
        """
        if path.exists():  # 1
            raise MessageError(f"job {message.header.job!r} has its result here already")
        pending = self.folder.pending(path, message.sealed.digest)
        write_atomically(pending, content, mode=0o600)  # 2
        try:
            yield
        except Exception:
            pending.unlink()
            raise
        pending.replace(path)  # 3

    def people(self, job: str, purpose: str) -> Population:
        """Read the people whom a job may use now, their references and features into memory.

        Raises:
            WorkspaceError: as `population`, or the disk is full.
            ConnectorError, ComplianceError: they cannot be read.
        """
        use = Use(purpose, self.clock(), with_features=True)
        with scratch(self.folder.job(job) / "reading.tmp") as beside:
            people = self.population(job, use, beside)
        self.gate.consent.keep(job, people.heard, people.heard_rows, people.used)
        return people

    def population(self, job: str, use: Use, beside: Path, place: Path | None = None) -> Population:
        """Read the people whom a job may use; see `read_population`.

        Args:
            job: its name.
            use: what they are read for.
            beside: an empty directory that lasts as long as their tokens are wanted.
            place: a directory for their references.

        Raises:
            WorkspaceError: the party's configuration names no data or no consents.
            ConnectorError, ComplianceError: they cannot be read.
            OSError: the disk is full, or cannot be written.
        """
        config, consents = self.folder.config, self.gate.consent.reading
        if config.data is None or consents is None:
            raise WorkspaceError(
                f"{self.folder.path / 'party.json'} names no data or no consent file, and job "
                f"{job!r} is about people: add both"
            )
        check_nobody_erased(self.folder, job)
        erased = Erased(self.folder, self.agreement).references()
        return read_population(
            open_source(config.data, self.folder.path),
            config.data,
            self.agreement,
            consents,
            use.but(erased),
            scratch=beside,
            place=place,
        )

    def taking_part(self, match: str) -> PeopleUsed:
        """Return who takes part in a match, their references unread."""
        return load_people(self.folder.job(match) / "people")

    def members(self, match: str) -> Members:
        """Return whom a match found here.

        Raises:
            RefusedError: it has not ended.
        """
        path = self.folder.members(match)
        try:
            return Members.load(path, self.taking_part(match))
        except FileNotFoundError as error:
            raise self.refusal(
                "train.match", f"match {match!r} has not ended here: run it first"
            ) from error

    def engine(self, job: str, points: int) -> CurveEngine:
        """Return what does the arithmetic of a job of about so many multiplications, and reports.

        Raises:
            WorkerError: the workers that the party is configured to use are not there.
        """
        return engine_for(self.folder.config.workers, points, progress=partial(self.tell_done, job))

    def refusal(self, term: str, remedy: str) -> RefusedError:
        """Return this party's own refusal."""
        return self.folder.refusal(term, remedy)

    def tell(
        self,
        job: str,
        stage: str,
        used: PeopleUsed | None = None,
        *,
        rows: int | None = None,
        charged: bool = False,
    ) -> None:
        """Report where a job stands."""
        statement = self.ledger.statement() if charged else None
        report(
            Progress(
                self.folder.name,
                job,
                stage,
                rows=len(used.keys) if used else rows,
                excluded=used.excluded if used else {},
                epsilon_spent=statement.epsilon_spent if statement else None,
                epsilon_left=statement.epsilon_left if statement else None,
            )
        )

    def tell_size(self, job: str, peer: str, size: int) -> None:
        """Report how many people a match found, as far as this party may know: with noise."""
        self.tell(job, f"about {max(0, size):,} people in common with {peer}, with noise")

    def tell_findings(self, job: str, people: Population) -> None:
        """Report what is wrong with the data, counts only."""
        for finding in people.findings:
            self.tell(job, f"data: {finding}")

    def tell_done(self, job: str, stage: str, done: int, total: int) -> None:
        """Report how far a long step has come."""
        report(Progress(self.folder.name, job, stage, done=done, total=total))
