"""A coordinator's run: who is there, job after job, what parties have to tell each other."""

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Self

from compliance.agreement import Agreement
from compliance.errors import ComplianceError
from federation.artefacts import check_kept
from federation.channel import Channel
from federation.clock import Clock, utc_now
from federation.coordinator.conversation import Conversation
from federation.coordinator.ends import Ends, run_ends
from federation.coordinator.execution import Execution
from federation.coordinator.job_list import read_jobs
from federation.coordinator.owed import OwedHeads, OwedModels
from federation.errors import (
    FederationError,
    PartyUnreachableError,
    RefusedError,
    RunCancelledError,
    VersionError,
    WorkspaceError,
)
from federation.exchanges import KeptExchanges
from federation.gate import Gate
from federation.jobs.exchange import Say
from federation.jobs.spread import ERASING, coordinate_spreading, parts_of
from federation.jobs.witness import coordinate_witnessing
from federation.messages import RetrainAsk, RetrainTold
from federation.party import PartyFolder, locked
from federation.roll_call import ROLL_CALL, Patience, Registered, unregistered
from federation.specification import JobSpec
from federation.successors import Retrainings, are_agreed
from federation.unmatched import missing_from, unmatched
from federation.witnessing import LogWitnessing
from privacy.errors import PrivacyError

__all__ = ["Coordinator"]

_FAILED_PATIENCE_SECONDS: Final = 60.0
"""How long an answer is waited for at most in showing logs once a run has failed."""


class Coordinator:
    """Runs an agreement's jobs from the coordinator's folder."""

    def __init__(
        self,
        folder: PartyFolder,
        agreement: Agreement,
        *,
        clock: Clock,
        registered: Registered = unregistered,
    ) -> None:
        self._folder = folder
        self._agreement = agreement
        self._clock = clock
        self._registered = registered
        self._owed = OwedModels(folder)
        self._heads = OwedHeads(folder)

    @classmethod
    def open(
        cls, path: Path, *, clock: Clock = utc_now, registered: Registered = unregistered
    ) -> Self:
        """Open a coordinator's folder.

        Args:
            path: the folder.
            clock: tells when now is.
            registered: tells whose the key of a node is.

        Raises:
            WorkspaceError: it is none.
            InvalidAgreementError: its agreement is unsigned by somebody, or altered.
        """
        folder = PartyFolder(path)
        return cls(folder, folder.agreement(), clock=clock, registered=registered)

    def run(
        self, channel: Channel, *, only: Collection[str] = (), patience: Patience | None = None
    ) -> None:
        """Run every listed job that has not ended yet, in order; then those of `successors`.

        A job that is refused keeps no other from being run, unless that builds on it.
        Logs are shown however the jobs end, but where the run is cancelled. Where no job is left
        and the agreement is no longer in force, nothing is carried, and whatever is owed stays so.

        Args:
            channel: to the parties' nodes.
            only: names of jobs, where not all are to be run.
            patience: how long parties that are away are waited for; as the channel bears where left
                out, and less where no job is due.

        Raises:
            WorkspaceError: a job of `only` is not listed.
            RunCancelledError: the channel says that the run is no longer wanted.
            RefusedError, VersionError: a party, or the agreement, said no to a job, or a party that
                it needs runs another version; it stays open; the first, where there are several.
            PartyUnreachableError: a party gave no answer; run again to go on.
            MessageError: a party broke the protocol.
        """
        folder, asked = self._folder, read_jobs(self._folder)
        if strange := sorted(set(only) - {spec.name for spec in asked}):
            raise WorkspaceError(f"no job is called {', '.join(strange)}: list it in jobs.json")
        wanted = [spec for spec in asked if not only or spec.name in only]
        jobs = [spec for spec in wanted if not folder.has_ended(spec.name)]
        listed = (*asked, *Retrainings(folder, self._agreement).specs)
        ended = any(folder.has_ended(spec.name) for spec in asked)
        may_retrain = not only and ended and are_agreed(self._agreement)
        owes = self._owed.owing(listed) or self._heads.job is not None
        if not jobs and not owes and not may_retrain:
            self.spread(channel, patience=patience)
            return
        with self._conversation(channel, patience) as talk, run_ends(talk) as ends:
            if not jobs and not self._may_carry(talk):
                return
            with self._witnessing(talk, _shortest(jobs), ends):
                with self._noting(talk, ROLL_CALL):
                    if jobs:
                        talk.there.seek(talk.people, patience_seconds=_shortest(jobs))
                    else:
                        self._seek_in_passing(talk)
                    heard = self._spread(talk)  # whatever keeps jobs from running
                self._run_each(talk, jobs, listed, ends)
                if not jobs:
                    with self._noting(talk, ROLL_CALL):
                        self._owed.hand_over(talk, listed)
            if may_retrain:
                self._train_again(talk, asked, heard, ends)

    def went_without(self, only: Collection[str] = ()) -> Mapping[str, frozenset[str]]:
        """Return the partners without whom jobs have ended, of those jobs that did without any.

        Args:
            only: names of jobs, where not all are asked for.

        Raises:
            WorkspaceError: what is kept of a job's end is damaged.
        """
        listed = (*read_jobs(self._folder), *Retrainings(self._folder, self._agreement).specs)
        names = [spec.name for spec in listed if not only or spec.name in only]
        missing = {name: missing_from(self._folder, name) for name in names}
        return {name: those for name, those in missing.items() if those}

    def spread(self, channel: Channel, *, patience: Patience | None = None) -> None:
        """Carry requests to erase between parties, and run no job.

        Nothing is carried where the agreement is no longer in force.

        Args:
            channel: to the parties' nodes.
            patience: as for `run`.

        Raises:
            MessageError: a party broke the protocol.
        """
        with self._conversation(channel, patience) as talk:
            if self._may_carry(talk):
                self._seek_in_passing(talk)
                self._spread(talk)

    def _may_carry(self, talk: Conversation) -> bool:
        """Tell whether the agreement is in force; say why not, and what waits for the next one."""
        try:
            talk.gate.contract.check_in_force(self._clock())
        except RefusedError as refusal:
            owed = "" if self._heads.job is None else "; logs have yet to be shown to witnesses"
            talk.tell(ERASING, f"nothing is carried{owed}: {refusal}")
            return False
        return True

    @contextmanager
    def _conversation(self, channel: Channel, patience: Patience | None) -> Iterator[Conversation]:
        """Hold the folder, with the log open, and speak with the parties."""
        folder = self._folder
        with locked(folder), folder.open_log() as log:
            folder.check_current(self._agreement)
            gate = Gate(folder, self._agreement, log, None, clock=self._clock)
            gate.settle()
            yield Conversation(
                *(self._agreement, gate, channel),
                name=folder.name,
                patience=patience,
                clock=self._clock,
                registered=self._registered,
            )

    @staticmethod
    def _seek_in_passing(talk: Conversation) -> None:
        """Find everybody where no job is due; whoever is away is told the rest at the next run."""
        away = talk.there.seek(talk.people, patience_seconds=talk.there.patience.nothing_due)
        if away:
            names = ", ".join(sorted(away))
            talk.tell(
                ROLL_CALL, f"goes on without {names}: what they have yet to hear is told later"
            )

    @contextmanager
    def _noting(self, talk: Conversation, at_work: str) -> Iterator[None]:
        """Log a refusal of the coordinator's own: another party's is in that party's log."""
        try:
            yield
        except RefusedError as refusal:
            if refusal.party == self._folder.name:
                talk.gate.note_refusal(refusal, at_work, release_id=at_work)
            raise

    def _gathered(self, talk: Conversation, spec: JobSpec, listed: Sequence[JobSpec]) -> Execution:
        """Wait for the parties of a job, and return it, ready to be run."""
        folder, agreement = self._folder, self._agreement
        check_kept(folder, spec.name, spec)
        kept = KeptExchanges(folder.job(spec.name))
        out = unmatched(folder, agreement, spec, listed)
        talk.there.gather(spec, kept.left_out | out)
        return Execution(folder, agreement, talk.of_job(spec, out), spec, kept, self._clock)

    def _run_each(
        self, talk: Conversation, jobs: Sequence[JobSpec], listed: Sequence[JobSpec], ends: Ends
    ) -> None:
        """Run jobs in order, but what builds on one that is refused."""
        for spec in jobs:
            if ends.bars(spec):
                continue
            try:
                with ends.of(spec), self._noting(talk, spec.name):
                    execution = self._gathered(talk, spec, listed)
                    self._owed.hand_over(talk, listed)
                    self._heads.owe(spec.name)
                    execution.run()
            except (RefusedError, VersionError) as refusal:
                ends.refuse(spec.name, refusal)

    def _train_again(
        self, talk: Conversation, asked: Sequence[JobSpec], heard: frozenset[str], ends: Ends
    ) -> None:
        """Train again what parties have to retire (see `successors`).

        Args:
            talk: with the parties.
            asked: the jobs that were listed.
            heard: who knows of everybody that asked to be erased; any other would bring them, and
                what was trained would soon be due again.
            ends: what becomes of them; who refuses one keeps no other from being run.

        Raises:
            PartyUnreachableError: somebody who is there has not heard; run again to go on.
        """
        with self._noting(talk, ROLL_CALL):
            due = Retrainings(self._folder, self._agreement).open(self._clock())
            patience = _shortest(asked) if due else talk.there.patience.nothing_due
            talk.there.seek(talk.people, patience_seconds=patience)
            if not self._present(talk) <= heard:  # who came since, or was silent
                heard = self._spread(talk)
            again = self._hear_of_models(talk, asked)
        listed = (*asked, *again.specs)
        with self._witnessing(talk, _shortest(asked), ends):
            for one in again.open(self._clock()):
                what = f"is to take the place of {one.model} by {one.due:%Y-%m-%d}"
                talk.tell(one.spec.name, what)
                try:
                    for spec in one.jobs:
                        if not self._folder.has_ended(spec.name):
                            with ends.of(spec), self._noting(talk, spec.name):
                                execution = self._gathered(talk, spec, listed)
                                if late := self._present(talk) - heard:
                                    raise PartyUnreachableError(
                                        f"{', '.join(sorted(late))} may not know yet who is to be "
                                        f"erased, without whom {one.spec.name} is trained: run "
                                        "again"
                                    )
                                self._heads.owe(spec.name)
                                execution.run()
                except (RefusedError, VersionError) as refusal:
                    day = f"; else model {one.model!r} is retired on {one.due:%Y-%m-%d}"
                    ends.refuse(one.spec.name, refusal.with_remedy(day))
                    has_read_one = isinstance(refusal, RefusedError) and refusal.term == "consent"
                    if has_read_one:  # who was erased
                        again.give_up(one, asked)

    def _hear_of_models(self, talk: Conversation, listed: Sequence[JobSpec]) -> Retrainings:
        """Ask everybody who is there which models are due, or retired, and write it down."""
        nonce = self._folder.fresh_secret(f"retrain/{self._clock().isoformat()}").hex()
        names = sorted(self._present(talk))
        outgoing = [Say(name, ROLL_CALL, RetrainAsk(nonce=nonce)) for name in names]
        answers = talk.exchange(outgoing, most_missing=len(outgoing))
        told = {one.header.sender: one.body for one in answers if isinstance(one.body, RetrainTold)}
        known = Retrainings(self._folder, self._agreement)
        known.hear({name: body.due for name, body in told.items()}, listed)
        known.hear_retired((one for body in told.values() for one in body.retired), listed)
        return known

    def _spread(self, talk: Conversation) -> frozenset[str]:
        """Have parties ask each other to erase people, and tell each other what was done.

        Returns:
            Who is there, and has heard of everybody.
        """
        attempt = self._folder.fresh_secret(f"erasing/{self._clock().isoformat()}").hex()
        present = self._present(talk)
        parts = {name: parts_of(self._agreement, name) for name in present}
        spread = talk.drive(coordinate_spreading(attempt, parts=parts))
        for name in sorted(spread.refused):
            talk.tell(ERASING, f"{name} refused something about an erasure: its log says what")
        if unreached := sorted(present & spread.unreached):
            told = f"{', '.join(unreached)} may not know yet who is to be erased"
            talk.tell(ERASING, f"{told}: the next run asks again")
        if any((self._folder.path / "jobs").glob("*/ended.json")):  # models may be there
            self._hear_of_models(talk, read_jobs(self._folder))
        return present - spread.unreached

    @staticmethod
    def _present(talk: Conversation) -> frozenset[str]:
        return talk.people & talk.nodes.keys()

    @contextmanager
    def _witnessing(self, talk: Conversation, patience: float, ends: Ends) -> Iterator[None]:
        """Show logs after what is done within, however that ends: they tell of a refusal too.

        Where a job was refused, that is what the run ends by, whatever goes wrong in showing.
        """
        try:
            yield
        except RunCancelledError:
            raise
        except (FederationError, PrivacyError):
            try:
                self._witness(talk, min(patience, _FAILED_PATIENCE_SECONDS))
            except (FederationError, ComplianceError) as error:  # the other error ends the run
                talk.tell(ROLL_CALL, f"logs were not shown: {error}")
            raise
        try:
            self._witness(talk, patience)
        except RunCancelledError:
            raise
        except (FederationError, ComplianceError) as error:
            if (first := ends.first) is None:
                raise
            raise first.with_remedy(f". Logs were not shown: {error}") from error

    def _witness(self, talk: Conversation, patience: float) -> None:
        """Show every party's log to every other, filed under the last job, if that is owed.

        Whoever is there and gives no answer has its log shown at the next run; so has everybody
        where nobody is there.

        Args:
            talk: with the parties.
            patience: seconds for each answer.
        """
        if (last := self._heads.job) is None or not talk.nodes:
            return
        own = LogWitnessing(self._folder, self._agreement, clock=self._clock)
        self._heads.begin()
        nonce = self._folder.fresh_secret(f"witness/{last}/{self._clock().isoformat()}")
        carried = coordinate_witnessing(self._agreement, last, own, nonce=nonce, present=talk.nodes)
        with self._noting(talk, ROLL_CALL):
            silent = talk.patient(patience).drive(carried)
        if not silent:
            self._heads.settle()
            return
        when = "after the next job" if self._heads.job is None else "at the next run"
        talk.tell(last, f"logs are to be shown again {when}: {', '.join(sorted(silent))}")


def _shortest(specs: Sequence[JobSpec]) -> float:
    """Return how long parties are waited for that are to be told something before these jobs."""
    return min((spec.patience_seconds for spec in specs), default=math.inf)
