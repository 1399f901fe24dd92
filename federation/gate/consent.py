"""Consent, read again for everybody whom a departure was made from."""

from datetime import datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from compliance import records
from compliance.agreement import Agreement
from compliance.naming import tell_of
from federation.cohort_roots import kept_cohort_root
from federation.consent_reading import ConsentReading, Heard
from federation.erased import Erased
from federation.gate.departure import Departure
from federation.gate.own_log import OwnLog
from federation.party import PartyFolder
from federation.people_used import PeopleUsed

__all__ = ["ConsentCheck"]


class ConsentCheck:
    """The consents of one party's people, read at every use.

    Attributes:
        reading: how they are read; None if the party keeps none.
    """

    def __init__(self, folder: PartyFolder, agreement: Agreement, log: OwnLog) -> None:
        self._folder = folder
        self._agreement = agreement
        self._log = log
        place = folder.consents
        self.reading = (
            None
            if place is None
            else ConsentReading(place, agreement.purposes, agreement=agreement, party=folder.name)
        )

    def check(self, departure: Departure, now: datetime) -> list[records.Record]:
        """Return the leaf of a use of people who all consent to it now, if people were used.

        Raises:
            RefusedError: somebody does not, or was erased.
        """
        people = departure.people
        if people is None:
            return []
        if self.reading is None:
            raise self._folder.refusal(
                "consent", f"{self._folder.name} has no consent file: name one"
            )
        if Erased(self._folder, self._agreement).is_among((people.keys, people.linked)):
            raise self._folder.refusal(
                "consent",
                "somebody was erased while the job ran: run the job under another name",
            )
        conditions = self.reading.conditions(
            people.purpose, contacts=departure.body.kind.startswith("expand.")
        )
        log_size = self.reading.all_allowed(
            (people.keys, people.linked),
            people.purpose,
            at=now,
            kept=self._kept(departure.job),
            conditions=conditions,
        )
        if log_size is None:
            raise self._folder.refusal(
                "consent",
                "it changed for some people while the job ran: run the job under another name",
            )
        return [
            self._log.leaf(
                records.ConsentUsed,
                departure.job,
                purpose=people.purpose,
                consent_log_size=log_size,
                rows=people.rows,
                eligible=len(people.keys),
                excluded=dict(people.excluded),
                recipients=tell_of(conditions.recipients, self._agreement),
                cohort_root=kept_cohort_root(
                    self._folder.cohort_key(self._agreement.digest),
                    people.keys,
                    kept=self._folder.job(departure.job) / "cohort.json",
                ),
                as_of=now,
            )
        ]

    def keep(self, job: str, heard: Heard, rows: NDArray[np.bool_], people: PeopleUsed) -> None:
        """Keep what was heard when the people of a job were read, for its releases.

        Args:
            job: its name.
            heard: what was decided about all rows.
            rows: those of `people`, shape (n,).
            people: whom the job uses.
        """
        if self.reading is None:
            raise RuntimeError(f"{self._folder.name} has no consent file")
        kept = self._kept(job)
        self.reading.keep(heard, rows, (people.keys, people.linked), kept=kept)

    def _kept(self, job: str) -> Path:
        return self._folder.job(job) / "consents-read.json"
