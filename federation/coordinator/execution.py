"""One job, from its beginning to what it leaves at the coordinator.

Guarantees: begin and end are leaves of the coordinator's log, however the job ends; it has ended
once what it leaves is written.

Leaves to others: what is said when (`jobs`), saying it (`conversation`), and who has to be there
(`roll_call`).
"""

import json
from collections.abc import Generator, Sequence
from dataclasses import dataclass

from compliance import records
from compliance.agreement import Agreement
from compliance.naming import tell_of
from compliance.terms import Computation, NoiseSource
from federation.approvals import kept_envelopes
from federation.approving import encode_approvals
from federation.clock import Clock
from federation.coordinator.conversation import Conversation
from federation.coordinator.owed import OwedModels
from federation.errors import FederationError, PartyUnreachableError, RunCancelledError
from federation.exchanges import KeptExchanges
from federation.hidden_share import ToldShare
from federation.jobs.align import coordinate_align
from federation.jobs.assist import coordinate_columns
from federation.jobs.exchange import Exchange, Say, expect
from federation.jobs.expand import Expanded, coordinate_expand
from federation.jobs.match import Matched, coordinate_match
from federation.jobs.match.direct import coordinate_direct
from federation.jobs.measure import Measurement, coordinate_measure
from federation.jobs.model import JointModel
from federation.jobs.secure_sum import partners_of
from federation.jobs.sums import coordinate_sums
from federation.jobs.train import coordinate_train
from federation.messages import Acknowledged, JobApproved, Message
from federation.objections import policy_objections
from federation.party import PartyFolder, write_atomically
from federation.population import encoder_for
from federation.roll_call import spare
from federation.specification import (
    AlignSpec,
    ExpandSpec,
    JobSpec,
    MatchSpec,
    MeasureSpec,
    TrainSpec,
    VerticalScoreSpec,
    VerticalTrainSpec,
)
from federation.successors import Retrainings

__all__ = ["Execution"]

Outcome = JointModel | Measurement | Matched | Expanded | None
Job = Generator[Exchange, Sequence[Message], Outcome]


@dataclass(frozen=True)
class Execution:
    """One job, as a coordinator runs it.

    Attributes:
        folder: the coordinator's.
        agreement: it is under.
        conversation: with the parties, of this job.
        spec: the job.
        kept: its exchanges that were had before.
        clock: tells when now is.
    """

    folder: PartyFolder
    agreement: Agreement
    conversation: Conversation
    spec: JobSpec
    kept: KeptExchanges
    clock: Clock

    def run(self) -> None:
        """Run the job, and keep what it leaves.

        Raises:
            RunCancelledError: the channel says that the run is no longer wanted.
            RefusedError: a party, or the agreement, says no; the job stays open.
            PartyUnreachableError: a party gave no answer; run again to go on.
            MessageError: a party broke the protocol.
        """
        self._check()
        talk, gate, spec = self.conversation, self.conversation.gate, self.spec
        gate.note(records.JobStarted, spec.name, computation=spec.kind)
        if self.kept.count:
            talk.tell(spec.name, f"goes on after {self.kept.count} exchanges that were had")
        gate.spec = spec
        try:
            without = self._carry_approvals()
            outcome = talk.without(without).drive(self._job(), self.kept)
        except FederationError as error:
            how = "cancelled" if isinstance(error, RunCancelledError) else "failed"
            gate.note(records.JobEnded, spec.name, computation=spec.kind, outcome=how)
            raise
        self._keep(outcome)

    def _check(self) -> None:
        """Return only if neither the agreement nor a model to be trained again is against it."""
        for objection in policy_objections(self.spec, self.agreement):
            raise self.folder.refusal(*objection)
        known = Retrainings(self.folder, self.agreement)
        if (due := known.objection(self.spec, self.clock())) is not None:
            raise self.folder.refusal(*due)

    def _carry_approvals(self) -> frozenset[str]:
        """Carry people's approvals of a job that needs them to every data party that is in it.

        Returns:
            Partners that gave no answer, where it goes without as many: they would refuse the job.

        Raises:
            PartyUnreachableError: somebody gave none whom it cannot do without.
        """
        if not self.agreement.needs_approval(Computation(self.spec.kind)):
            return frozenset()
        kept = kept_envelopes(self.folder, self.spec)
        if not kept:  # parties refuse what needs some
            return frozenset()
        talk, payload, body = self.conversation, encode_approvals(kept), JobApproved(spec=self.spec)
        partners = frozenset(partners_of(self.agreement))
        there = talk.people.intersection(talk.nodes) - self.kept.left_out
        gone = partners - there
        outgoing = [Say(name, self.spec.name, body, payload) for name in sorted(there)]
        most = max(0, spare(self.spec, self.agreement) - len(gone))
        answers = talk.exchange(outgoing, most_missing=most)
        for answer in answers:
            expect(answer, Acknowledged)
        silent = there - {answer.header.sender for answer in answers}
        if needed := silent - partners:
            raise PartyUnreachableError(
                f"no answer from {', '.join(sorted(needed))}: look at what runs there, then run "
                "again"
            )
        return silent

    def _job(self) -> Job:
        agreement, spec = self.agreement, self.spec
        match spec:
            case MatchSpec(is_direct=True):
                attempt = self.folder.fresh_secret(f"attempt/{self.clock().isoformat()}").hex()
                job: Job = coordinate_direct(agreement, spec, attempt)
            case MatchSpec():
                job = coordinate_match(agreement, spec)
            case AlignSpec():
                job = coordinate_align(agreement, spec)
            case TrainSpec():
                local = spec.noise is NoiseSource.LOCAL
                coordinate = coordinate_train if local else coordinate_sums
                job = coordinate(agreement, spec, encoder_for(agreement).names)
            case MeasureSpec():
                job = coordinate_measure(agreement, spec)
            case VerticalTrainSpec() | VerticalScoreSpec():
                job = coordinate_columns(agreement, spec)
            case ExpandSpec():
                job = coordinate_expand(agreement, spec)
        return job

    def _keep(self, outcome: Outcome) -> None:
        """Keep what the job leaves, and that it has ended."""
        spec, talk = self.spec, self.conversation
        model = outcome if isinstance(outcome, JointModel) else None
        counted = outcome.counted if isinstance(outcome, Expanded) else ()
        missing = _missing(outcome)
        others = tuple(name for name in missing if name in self.kept.others)
        if isinstance(outcome, Measurement):
            self._keep_measurement(outcome)
        if model is not None:
            self._keep_model(model)
        talk.gate.note(
            records.JobEnded,
            spec.name,
            computation=spec.kind,
            outcome="done",
            missing=tell_of(missing, self.agreement),
            of_another_version=tell_of(others, self.agreement),
        )
        if model is not None and isinstance(spec, TrainSpec):
            hidden = ToldShare.of(model, self.agreement, spec)
            if hidden is not None:
                talk.tell(spec.name, hidden.sentence)
        for one in counted:
            talk.tell(spec.name, one.told)
        ended = {
            "computation": spec.kind,
            "model": model.digest if model else None,
            "counts": [one.model_dump() for one in counted],
            "missing": list(missing),
            "of_another_version": list(others),
        }
        write_atomically(self.folder.ended(spec.name), json.dumps(ended).encode())
        self.kept.forget()
        names = [f"{name} (of another version)" if name in others else name for name in missing]
        without = f" without {', '.join(names)}" if names else ""
        talk.tell(spec.name, f"has ended{without}")

    def _keep_model(self, model: JointModel) -> None:
        """Keep a model, and who has yet to get it."""
        write_atomically(self.folder.model(self.spec.name), model.canonical_bytes)
        OwedModels(self.folder).owe(self.spec, self.conversation.people - self.kept.heard_last)
        self.conversation.gate.note(
            records.ModelTrained,
            self.spec.name,
            model_digest=model.digest,
            rounds=model.making.rounds,
            parties=tell_of(model.making.parties, self.agreement),
            missing=tell_of(model.making.missing, self.agreement),
            epsilon=model.epsilon,
            delta=model.delta,
        )

    def _keep_measurement(self, measurement: Measurement) -> None:
        path = self.folder.measurement(measurement.job)
        write_atomically(path, measurement.canonical_bytes)
        self.conversation.gate.note(
            records.MeasurementMade,
            measurement.job,
            measurement_digest=measurement.digest,
            parties=tell_of((party.party for party in measurement.parties), self.agreement),
            missing=tell_of(measurement.missing, self.agreement),
            epsilon=measurement.epsilon,
            delta=measurement.delta,
        )


def _missing(outcome: Outcome) -> tuple[str, ...]:
    """Return the partners that a job went without."""
    match outcome:
        case JointModel():
            return outcome.making.missing
        case Measurement() | Matched() | Expanded():
            return outcome.missing
    return ()
