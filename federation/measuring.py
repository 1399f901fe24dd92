"""A party's part of measuring.

Guarantees: the budget is looked at before anything is counted; counts leave when they are charged,
with noise, and consent is read anew for the job's purpose.

Leaves to others: the steps (`jobs.measure`), who may be used (`population`), what may leave
(`gate`).
"""

from collections.abc import Callable, Mapping

from compliance import records
from compliance.naming import tell_of
from federation.desk import Desk
from federation.gate import Minimum, Released
from federation.jobs.exchange import expect
from federation.jobs.measure import CountPlan, count_people, read_measurement
from federation.messages import (
    Acknowledged,
    MeasureCounts,
    MeasurePublished,
    MeasureRequest,
    Message,
)

__all__ = ["Measuring"]


class Measuring:
    """What a party does with the messages of a measurement."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    @property
    def steps(self) -> Mapping[type[object], Callable[[Message], Released]]:
        """What is done with each kind of message."""
        return {MeasureRequest: self._count, MeasurePublished: self._keep}

    def _count(self, message: Message) -> Released:
        desk, agreement = self._desk, self._desk.agreement
        spec, job = expect(message, MeasureRequest).spec, message.header.job
        plan = CountPlan.of(spec, agreement)
        desk.gate.charges.check(plan.charge)
        people = desk.people(job, plan.terms.purpose)
        members = desk.members(spec.match).among(people.keys)
        desk.tell_findings(job, people)
        desk.tell(job, "counts its people", people.used)
        secret = desk.folder.fresh_secret(f"measure/{message.sealed.digest}")
        released = desk.release(
            message,
            MeasureCounts(),
            count_people(plan, people.features, members, secret),
            people=people.used,
            minimums=(
                Minimum("match.minimum_match", int(members.sum()), agreement.match.minimum_match),
            ),
            charge=plan.charge,
        )
        desk.tell(job, "gave its counts", charged=True)
        return released

    def _keep(self, message: Message) -> Released:
        desk = self._desk
        measurement = read_measurement(message, desk.agreement)
        kept = {
            "measurement_digest": measurement.digest,
            "parties": tell_of((party.party for party in measurement.parties), desk.agreement),
            "missing": tell_of(measurement.missing, desk.agreement),
            "epsilon": measurement.epsilon,
            "delta": measurement.delta,
        }
        path = desk.folder.measurement(measurement.job)
        with desk.result(path, message, measurement.canonical_bytes):
            released = desk.release(
                message, Acknowledged(), results=((records.MeasurementMade, kept),)
            )
        without = f", without {', '.join(measurement.missing)}" if measurement.missing else ""
        desk.tell(measurement.job, f"keeps the measurement{without}")
        return released
