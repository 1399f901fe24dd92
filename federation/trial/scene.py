"""What two people say while the example runs: one withdraws, one is erased.

```
1 every party brings its consents into its journal
2 after the first match, one of a partner's people withdraws
3 after the first training, another is erased there
```

Guarantees: begun again, each of it happens once; it goes the way that anybody's word goes. What
changed stands in the party's log, and is read from there (`report`).

Leaves to others: the jobs (`embedded`), what the words mean (`consent_recording`, `erasing`).
"""

from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from compliance import records
from compliance.consent import ConsentEvent, ConsentEventKind
from compliance.errors import ErasureError
from federation.audit import verify_party
from federation.clock import Clock
from federation.consent_intake import ConsentIntake
from federation.consent_recording import ConsentRecording
from federation.coordinator import write_jobs
from federation.embedded import run_embedded
from federation.erasing import Erasing
from federation.errors import WorkspaceError
from federation.holding import held
from federation.members import load_people
from federation.party import PartyFolder
from federation.population import open_source
from federation.progress import Progress, report
from federation.specification import JobSpec, MatchSpec, TrainSpec
from federation.trial.workspace import Workspace

__all__ = ["play"]

_FEW: Final = 20


def play(prepared: Workspace, jobs: Sequence[JobSpec], *, clock: Clock) -> None:
    """Run the jobs one after the other, and let two people speak in between.

    Raises:
        FederationError, ComplianceError, ConnectorError: as what runs.
    """
    for folder in prepared.people:
        _begin_journal(folder, clock)  # 1
    party = prepared.partners[0]
    match = next((spec for spec in jobs if isinstance(spec, MatchSpec)), None)
    training = next((spec for spec in jobs if isinstance(spec, TrainSpec)), None)
    for count, spec in enumerate(jobs, start=1):
        write_jobs(prepared.coordinator, jobs[:count])
        run_embedded(prepared.coordinator.path, [folder.path for folder in prepared.people])
        if spec is match:
            _withdraw(party, spec, clock)  # 2
        if spec is training and match is not None:
            _erase(party, match, spec, clock)  # 3


def _begin_journal(folder: PartyFolder, clock: Clock) -> None:
    if PartyFolder(folder.path).consents is None:
        return
    with held(folder.path, clock=clock) as at:
        if ConsentIntake(at.folder, at.agreement).journal_file is None:
            ConsentRecording(at.folder, at.agreement, at.gate.note).bring(None)


def _withdraw(folder: PartyFolder, match: MatchSpec, clock: Clock) -> None:
    leaves = verify_party(folder.path).leaves
    if any(isinstance(leaf, records.ConsentRecorded) for leaf in leaves):
        return
    reference, *_ = _people(folder, match)
    with held(folder.path, clock=clock) as at:
        purpose = at.agreement.match.purpose
        withdrawn = ConsentEvent(reference, purpose, ConsentEventKind.WITHDRAWN, clock())
        ConsentRecording(at.folder, at.agreement, at.gate.note).record(withdrawn)
    report(Progress(folder.name, match.name, "a person withdraws, heard at the next use"))


def _erase(folder: PartyFolder, match: MatchSpec, training: TrainSpec, clock: Clock) -> None:
    with held(folder.path, clock=clock) as at:
        erasing = Erasing(at.folder, at.agreement, at.gate, clock=clock)
        if not erasing.status():
            _request(erasing, folder, _people(folder, match)[1:])
        erasing.run()
    report(Progress(folder.name, training.name, "a person is erased, wherever they were"))


def _request(erasing: Erasing, folder: PartyFolder, references: Sequence[str]) -> None:
    """Ask for the first of some people to be erased whose address can find anybody."""
    data = folder.config.data
    column = None if data is None else data.identifiers.get("email")
    if data is None or not isinstance(column, str):
        raise WorkspaceError(f"{folder.path}: expected one column of addresses")
    for batch in open_source(data, folder.path).find(data.key, references):
        for address in batch.column(batch.schema.get_field_index(column)).to_pylist():
            with suppress(ErasureError):
                erasing.request("email", str(address or ""))
                return
    raise WorkspaceError(f"{folder.path}: no address of a person can be read")


def _people(folder: PartyFolder, match: MatchSpec) -> list[str]:
    """Return the references of the first people whom a match used, two or more."""
    people = load_people(folder.job(match.name) / "people").keys
    first = next(iter(people.batches())).slice(0, _FEW).to_pylist()
    if len(first) < 2:
        raise WorkspaceError(f"{folder.path}: expected two people or more in match {match.name}")
    return [str(one) for one in first]
