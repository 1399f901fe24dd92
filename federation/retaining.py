"""A party deletes what it has kept long enough: once, on time, and its log says what and why.

```
PARTY/retention/
  mark.json         the latest moment that is believed to have come
  holds/HOLD.json   holds in force
```

Guarantees: an artefact is deleted when it is due at the mark and no hold covers it, with one leaf
however often the process was killed; a hold counts from the moment at which its file or its leaf is
there until the leaf that lifts it. Running again changes nothing.

Leaves to others: what is due (`compliance.retention`), where artefacts lie (`artefacts`), running
at all (`comity retention run`). Entries of the log are pruned by `compliance.log.pruning`, consents
are the party's own table; neither is touched here.

One run, under the party's lock:

1. Finish what an earlier one began: holds, then deletions.
2. Advance the mark by the clock, and write it down.
3. For every artefact that is due: write down that it goes. From here nothing uses it.
4. Remove it.
5. Append its leaf, unless the log has it.
6. Write down that the log says so.
7. Retire models that were not trained again by their day (`retraining`).
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from compliance import records
from compliance.agreement import Agreement
from compliance.errors import RetentionError, describe
from compliance.log.writer import LogWriter
from compliance.records.leaf import Leaf
from compliance.retention import Hold, Mark, Standing, State, assess
from federation.artefacts import Deleted, artefacts_of, deleted_in, remove
from federation.audit import has_begun
from federation.errors import WorkspaceError
from federation.log_reading import own_leaves
from federation.party import PartyFolder, locked, write_atomically
from federation.retraining import RetrainingQueue

__all__ = ["Retained", "lift", "place", "run", "status"]


@dataclass(frozen=True)
class Retained:
    """What a party keeps, and what it has deleted.

    Attributes:
        party: whose folder.
        mark: the moment that counts, and what the clock claims beyond it.
        standings: of what is kept, in the order in which it has to go.
        holds: those in force.
        deleted: what was deleted; by this run alone, where it is one's.
        retired: models that this run retired, as nothing had taken their place by their day.
    """

    party: str
    mark: Mark
    standings: tuple[Standing, ...]
    holds: tuple[Hold, ...]
    deleted: tuple[Deleted, ...]
    retired: tuple[str, ...] = ()


def status(folder: PartyFolder, *, now: datetime) -> Retained:
    """Say what a run would find, and change nothing.

    Raises:
        WorkspaceError: a file is damaged, or the log has not begun.
        ComplianceError: agreement or log do not hold.
    """
    agreement = folder.agreement()
    with locked(folder):
        leaves = _leaves(folder, agreement)
        mark = _mark(folder, leaves).advance(now)
        standings, holds = _assess(folder, agreement, leaves, mark)
        return Retained(folder.name, mark, standings, holds, tuple(deleted_in(folder)))


def run(folder: PartyFolder, *, now: datetime) -> Retained:
    """Delete what is due.

    Raises:
        WorkspaceError: a file is damaged, or the log has not begun.
        ComplianceError: agreement or log do not hold, or cannot be written.
        ConnectorError: a database does not give a segment back.
    """
    with _at_work(folder, now) as work:
        before = {one.path(folder) for one in deleted_in(folder) if one.told}
        work.settle()  # 1
        mark = _mark(folder, work.leaves).advance(now)  # 2
        _keep_mark(folder, mark)
        standings, _ = _assess(folder, work.agreement, work.leaves, mark)
        for one in standings:
            if one.state is State.DUE and one.term is not None and one.due is not None:
                going = Deleted(
                    artefact=one.kept.artefact,
                    name=one.kept.name,
                    purpose=one.kept.purpose,
                    days=one.term.days,
                    due=one.due,
                )
                write_atomically(going.path(folder), _json(going))  # 3
                work.delete(going)
        standings, holds = _assess(folder, work.agreement, work.leaves, mark)
        gone = tuple(one for one in deleted_in(folder) if one.path(folder) not in before)
        queue = RetrainingQueue(folder, work.agreement)
        retired = queue.retire_due(mark.moment, work.leaves, work.tell_of)  # 7
        return Retained(folder.name, mark, standings, holds, gone, retired)


def place(folder: PartyFolder, hold: Hold, *, now: datetime) -> None:
    """Have artefacts kept from here on; once more changes nothing.

    Raises:
        RetentionError: the name stands for another hold, or for one that was lifted.
        WorkspaceError, ComplianceError, ConnectorError: as `run`.
    """
    with _at_work(folder, now) as work:
        work.settle()
        known = {one.hold: one for one in _holds(folder, work.leaves)}
        if known.get(hold.hold) == hold:
            return
        if hold.hold in known or hold.hold in _lifted(work.leaves):
            raise RetentionError(
                f"hold {hold.hold!r} was placed before: a name is used once, choose another"
            )
        write_atomically(_hold_path(folder, hold.hold), _json(hold), mode=0o600)
        work.settle()


def lift(folder: PartyFolder, hold: str, *, now: datetime) -> None:
    """End a hold; once more changes nothing.

    Raises:
        RetentionError: there was none of that name.
        WorkspaceError, ComplianceError, ConnectorError: as `run`.
    """
    with _at_work(folder, now) as work:
        work.settle()
        if hold in _lifted(work.leaves):
            return
        known = [one.hold for one in _holds(folder, work.leaves)]
        if hold not in known:
            there = f"there are {', '.join(known)}" if known else "there is none"
            raise RetentionError(f"no hold {hold!r} is in force: {there}")
        work.tell(records.HoldLifted, hold=hold)
        work.settle()


class _Work:
    """A party at its retention, while it holds its folder and its log."""

    def __init__(
        self, folder: PartyFolder, agreement: Agreement, log: LogWriter, now: datetime
    ) -> None:
        self.folder = folder
        self.agreement = agreement
        self.leaves = [*_leaves(folder, agreement)]
        self._log = log
        self._now = now

    def tell(self, kind: type[Leaf], **fields: object) -> None:
        """Append a leaf."""
        leaf: Any = kind.model_validate(
            {
                "time": self._now,
                "party": self.folder.name,
                "agreement": self.agreement.digest,
                **fields,
            }
        )
        self._log.append([records.to_leaf(leaf)])
        self.leaves.append(leaf)

    def tell_of(self, kind: type[Leaf], job: str | None, **fields: object) -> None:
        """Append a leaf about a job."""
        self.tell(kind, job=job, **fields)

    def settle(self) -> None:
        """Make holds and deletions whole that a crash cut short."""
        self._settle_holds()
        for one in deleted_in(self.folder):
            self.delete(one)

    def delete(self, going: Deleted) -> None:
        """Remove an artefact that is written down to go, and see that the log says so once."""
        remove(self.folder, going.artefact, going.name)  # 4
        if going.told:
            return
        if not any(
            isinstance(leaf, records.ArtefactDeleted)
            and (leaf.artefact, leaf.name) == (going.artefact, going.name)
            for leaf in self.leaves
        ):
            fields = going.model_dump(exclude={"told", "artefact"})
            self.tell(records.ArtefactDeleted, artefact=str(going.artefact), **fields)  # 5
        told = going.model_copy(update={"told": True})
        write_atomically(going.path(self.folder), _json(told))  # 6

    def _settle_holds(self) -> None:
        """Have a file and a leaf for every hold in force, and no file for one that was lifted."""
        placed, lifted = _placed(self.leaves), _lifted(self.leaves)
        for path in _hold_files(self.folder):
            if path.stem in lifted:
                path.unlink()
        for hold in _holds(self.folder, self.leaves):
            if not (path := _hold_path(self.folder, hold.hold)).exists():
                write_atomically(path, _json(hold), mode=0o600)
            if hold.hold not in placed:
                self.tell(
                    records.HoldPlaced, **(hold.model_dump() | {"artefact": hold.artefact.value})
                )


@contextmanager
def _at_work(folder: PartyFolder, now: datetime) -> Iterator[_Work]:
    agreement = folder.agreement()
    with locked(folder), folder.open_log() as log:
        folder.check_current(agreement)
        work = _Work(folder, agreement, log, now)
        _keep_mark(folder, _mark(folder, work.leaves))  # before this clock is in the log
        yield work


def _leaves(folder: PartyFolder, agreement: Agreement) -> Sequence[records.Record]:
    if not has_begun(folder.log):
        raise WorkspaceError(f"{folder.log} is empty: nothing was made here that could be kept")
    return own_leaves(folder, agreement)


def _mark(folder: PartyFolder, leaves: Sequence[records.Record]) -> Mark:
    """Return the mark that was kept; the time of the last leaf before the first run."""
    path = folder.path / "retention" / "mark.json"
    if not path.exists():
        return Mark(moment=leaves[-1].time)
    try:
        return Mark.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise WorkspaceError(f"{path} is damaged: remove it, and look at the clock") from error


def _keep_mark(folder: PartyFolder, mark: Mark) -> None:
    write_atomically(folder.path / "retention" / "mark.json", _json(mark))


def _assess(
    folder: PartyFolder, agreement: Agreement, leaves: Sequence[records.Record], mark: Mark
) -> tuple[tuple[Standing, ...], tuple[Hold, ...]]:
    holds = _holds(folder, leaves)
    kept = artefacts_of(folder, agreement, leaves)
    return assess(agreement.retention, kept, holds, mark.moment), holds


def _holds(folder: PartyFolder, leaves: Sequence[records.Record]) -> tuple[Hold, ...]:
    """Return the holds in force, by files or, should one be missing, by leaves."""
    found = _placed(leaves)
    for path in _hold_files(folder):
        try:
            hold = Hold.model_validate_json(path.read_bytes())
        except ValidationError as error:
            raise WorkspaceError(
                f"{path} is damaged: {describe(error)}; restore it from a backup"
            ) from error
        found[hold.hold] = hold
    lifted = _lifted(leaves)
    return tuple(found[name] for name in sorted(found.keys() - lifted))


def _placed(leaves: Iterable[records.Record]) -> dict[str, Hold]:
    return {
        leaf.hold: Hold.of(leaf.hold, leaf.artefact, leaf.reason, name=leaf.name)
        for leaf in leaves
        if isinstance(leaf, records.HoldPlaced)
    }


def _lifted(leaves: Iterable[records.Record]) -> frozenset[str]:
    return frozenset(leaf.hold for leaf in leaves if isinstance(leaf, records.HoldLifted))


def _hold_files(folder: PartyFolder) -> tuple[Path, ...]:
    return tuple(sorted((folder.path / "retention" / "holds").glob("[!.]*.json")))


def _hold_path(folder: PartyFolder, hold: str) -> Path:
    return folder.path / "retention" / "holds" / f"{hold}.json"


def _json(document: Mark | Hold | Deleted) -> bytes:
    return document.model_dump_json(indent=2).encode() + b"\n"
