"""Counts of what a party's log says, read on from where they were left.

Guarantees: holds no lock, writes nothing; each leaf is read once, however often it is asked; of a
log whose first entries are pruned, what is left is counted. What is counted are releases, refusals,
and calls refused: no kind of leaf that there is one of for a person.

Leaves to others: whether the log is whole and true (`audit`): a number here is a figure for a
screen, and no proof.
"""

from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Final

from compliance.errors import LogError, RecordError
from compliance.log.checkpoint import Checkpoint
from compliance.log.note import Note
from compliance.log.tiles import TILE_WIDTH, Tile, decode_bundle
from compliance.log.verifier import FileMissingError, read_checkpoint, read_tile
from compliance.records import (
    CallsRefused,
    ModelTrained,
    Refusal,
    RefusedFor,
    Release,
    parse_leaf,
)
from federation.routes import ROUTES

__all__ = ["LogCounts"]

_COUNTED: Final = (
    *(b'"kind":"release"', b'"kind":"refusal"', b'"kind":"model.trained"'),
    b'"kind":"calls.refused"',
)
_OTHER: Final = "other"
_MOST_TERMS: Final = 64


@dataclass
class LogCounts:
    """What the log in a directory counts so far.

    Attributes:
        directory: the log's.
        leaves: in its head.
        releases: by what they were part of.
        bytes_released: likewise; of messages as they travelled.
        refusals: by term.
        rounds: of training, of models that were finished.
        refused_calls: at a coordinator, by the reason.
        refused_since: from when on the last leaf that tells of them does; None without one.
    """

    directory: Path
    leaves: int = 0
    releases: Counter[str] = field(default_factory=Counter)
    bytes_released: Counter[str] = field(default_factory=Counter)
    refusals: Counter[str] = field(default_factory=Counter)
    rounds: int = 0
    refused_calls: Counter[RefusedFor] = field(default_factory=Counter)
    refused_since: datetime | None = None
    _counted: int = 0

    def read_on(self) -> None:
        """Count what was appended since.

        Raises:
            LogError: the log cannot be read, or is damaged.
        """
        self.leaves = self._head()
        while self._counted < self.leaves:
            index, past = divmod(self._counted, TILE_WIDTH)
            width = min(TILE_WIDTH, self.leaves - index * TILE_WIDTH)
            tile = Tile(None, index, width)
            try:
                bundle = read_tile(self.directory, tile)
            except FileMissingError:
                if (head := self._head()) > self.leaves:  # it grew, and this is superseded
                    self.leaves = head
                    continue
                bundle = None  # pruned
            if bundle is not None and any(kind in bundle for kind in _COUNTED):
                for entry in decode_bundle(tile, bundle)[past:]:
                    self._count(entry)
            self._counted = index * TILE_WIDTH + width

    def _head(self) -> int:
        try:
            signed = read_checkpoint(self.directory)
        except FileMissingError:  # nothing was logged yet
            return 0
        return Checkpoint.from_body(Note.parse(signed).text).tree_size

    def _count(self, entry: bytes) -> None:
        if not any(kind in entry for kind in _COUNTED):  # cheaper than to parse
            return
        try:
            leaf = parse_leaf(entry)
        except RecordError as error:
            raise LogError(f"{self.directory}: {error}") from error
        if isinstance(leaf, Release):
            name = leaf.computation if leaf.computation in ROUTES else _OTHER
            self.releases[name] += 1
            self.bytes_released[name] += leaf.content_bytes
        elif isinstance(leaf, Refusal):
            known = leaf.term in self.refusals or len(self.refusals) < _MOST_TERMS
            self.refusals[leaf.term if known else _OTHER] += 1
        elif isinstance(leaf, ModelTrained):
            self.rounds += leaf.rounds
        elif isinstance(leaf, CallsRefused):
            self.refused_calls.update(leaf.refused)
            self.refused_since = leaf.since
