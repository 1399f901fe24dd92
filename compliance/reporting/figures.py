"""Figures that can be computed again from the leaves that they cite.

Guarantees: a `Figure` is made by a function of leaves, and cites these very leaves, no more and no
fewer: whoever applies the function to the cited leaves alone gets its value again. A figure that
cites nothing is what the function says of no leaves at all.

Leaves to others: verifying logs (`compliance.log`, and whoever reads a party's folder), choosing
figures (the modules beside this one).
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import groupby
from typing import Annotated, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from compliance.agreement import Agreement
from compliance.records.leaf import Leaf

__all__ = [
    "Citation",
    "Closed",
    "Entry",
    "Figure",
    "PartyLog",
    "by",
    "entries_of",
    "minute",
    "written",
]


class Closed(BaseModel):
    """A closed, frozen part of a report."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


Kind_co = TypeVar("Kind_co", bound=Leaf, covariant=True)

Key = TypeVar("Key")

Value = int | float | datetime | str


@dataclass(frozen=True)
class Entry(Generic[Kind_co]):
    """A leaf, and where it stands.

    Attributes:
        party: in whose log.
        index: its place there, from 0.
        record: what it says.
    """

    party: str
    index: int
    record: Kind_co


Told = TypeVar("Told", bound=Entry[Leaf])


@dataclass(frozen=True)
class PartyLog:
    """A party's verified log, as reports read it.

    Attributes:
        party: whose log.
        tree_size: leaves that its signed head covers.
        root_hash: of that head, hexadecimal.
        entries: its leaves by rising index; all of them, or those that somebody wants to compute
            a figure from again.
        versions: of the contract, where they are at hand.
        public_size: leaves of the last head that enough other parties cosigned, as far as whoever
            verified the log could see; None where there is none.
        cosigned_by: who cosigned that head.
    """

    party: str
    tree_size: int
    root_hash: str
    entries: tuple[Entry[Leaf], ...]
    versions: tuple[Agreement, ...] = ()
    public_size: int | None = None
    cosigned_by: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        party: str,
        leaves: Sequence[Leaf],
        root_hash: str,
        versions: tuple[Agreement, ...] = (),
        *,
        public_size: int | None = None,
        cosigned_by: tuple[str, ...] = (),
    ) -> "PartyLog":
        """Return a whole log.

        Args:
            party: whose.
            leaves: all of them, in order, once they have been verified.
            root_hash: of the tree over them.
            versions: of the contract, ascending; none where they are not at hand.
            public_size: leaves of its last public head.
            cosigned_by: who cosigned that head.
        """
        entries = tuple(Entry(party, index, leaf) for index, leaf in enumerate(leaves))
        return cls(party, len(entries), root_hash, entries, versions, public_size, cosigned_by)

    def only(self, indexes: Iterable[int]) -> "PartyLog":
        """Return the same log with the leaves of these indexes alone."""
        kept = frozenset(indexes)
        entries = tuple(entry for entry in self.entries if entry.index in kept)
        return replace(self, entries=entries)

    def until(self, moment: datetime) -> "PartyLog":
        """Return the same log with the leaves written at `moment` or before."""
        entries = tuple(entry for entry in self.entries if entry.record.time <= moment)
        return replace(self, entries=entries)


class Citation(Closed):
    """Leaves of one party's log.

    Attributes:
        party: whose log.
        ranges: first and last index of each run of leaves, both included, rising.
    """

    party: str
    ranges: Annotated[tuple[tuple[int, int], ...], Field(min_length=1)]

    @classmethod
    def of(cls, entries: Iterable[Entry[Leaf]]) -> "tuple[Citation, ...]":
        """Cite entries: one citation for each log, runs of indexes compressed."""
        indexes: dict[str, set[int]] = {}
        for entry in entries:
            indexes.setdefault(entry.party, set()).add(entry.index)
        return tuple(
            cls(party=party, ranges=tuple(_ranges(sorted(found))))
            for party, found in sorted(indexes.items())
        )

    @property
    def indexes(self) -> tuple[int, ...]:
        """Every leaf that is cited, rising."""
        return tuple(index for low, high in self.ranges for index in range(low, high + 1))

    @property
    def text(self) -> str:
        """The citation as people write it, such as `retailer 3, 7–9`."""
        spans = (f"{low}" if low == high else f"{low}–{high}" for low, high in self.ranges)
        return f"{self.party} {', '.join(spans)}"


class Figure(Closed):
    """A value that was computed from leaves.

    Attributes:
        type: tells it from other cells of a table.
        value: a number, a moment in UTC, or words.
        unit: what it counts; empty where the table says so.
        citations: the leaves that it was computed from.
    """

    type: Literal["figure"] = "figure"
    value: Value
    unit: str = ""
    citations: tuple[Citation, ...] = ()

    @classmethod
    def of(
        cls,
        function: Callable[[Sequence[Told]], Value],
        entries: Iterable[Told],
        unit: str = "",
    ) -> "Figure":
        """Compute a figure from entries, and cite them."""
        cited = tuple(entries)
        return cls(value=function(cited), unit=unit, citations=Citation.of(cited))

    @property
    def text(self) -> str:
        """The value for people to read, with its unit."""
        match self.value:
            case int():
                text = f"{self.value:,}"
            case float():
                text = f"{self.value:.4g}"
            case datetime():
                text = minute(self.value)
            case _:
                text = self.value
        return f"{text} {self.unit}".rstrip()


def minute(moment: datetime) -> str:
    """Return a moment for people to read, to the minute."""
    return f"{moment:%Y-%m-%d %H:%M} UTC"


def entries_of(logs: Iterable[PartyLog], kind: type[Kind_co]) -> Iterator[Entry[Kind_co]]:
    """Yield every leaf of a kind, log by log, in order."""
    for log in logs:
        for entry in log.entries:
            if isinstance(entry.record, kind):
                yield Entry(entry.party, entry.index, entry.record)


def by(
    entries: Iterable[Entry[Kind_co]], key: Callable[[Kind_co], Key]
) -> dict[Key, list[Entry[Kind_co]]]:
    """Group leaves by what they say, in the order of their first."""
    groups: dict[Key, list[Entry[Kind_co]]] = {}
    for entry in entries:
        groups.setdefault(key(entry.record), []).append(entry)
    return groups


def written(entries: Sequence[Entry[Leaf]]) -> datetime:
    """Return when the first of these leaves was written."""
    return entries[0].record.time


def _ranges(indexes: Sequence[int]) -> Iterator[tuple[int, int]]:
    for _, run in groupby(enumerate(indexes), lambda item: item[1] - item[0]):
        found = [index for _, index in run]
        yield found[0], found[-1]
