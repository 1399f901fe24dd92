"""A party's people, shown blinded to another that has requests to erase: kept until it answers.

```
PARTY/erasures/showing/
  ORIGIN/state.json       the secret, and how far it has come
  ORIGIN/part-NNNNN.bin   tokens of its people, in the order in which they are shown
  ORIGIN.tmp/             while they are read
  ORIGIN.json             when it showed them to that party, over the last day
```

Guarantees: people whom only a kept match knows are shown too; memory depends on a part, not on how
many people there are; an answer is read with the secret and the order of the very part it answers,
and each part counts once; a showing that was cut short goes on where it was, within an hour; a
party is shown the people `MOST_A_DAY` times a day at most. Files are readable by their owner only,
and state and parts are secrets.

Leaves to others: the protocol (`jobs.erase`), and when it is over (`spreading`).
"""

import shutil
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from compliance.agreement import Agreement
from connectors.schema import text_of
from federation.errors import MessageError, WorkspaceError
from federation.jobs.erase import rows_asked, show_people
from federation.jobs.spread import parts_of
from federation.matching.token_set import TokenBatch, TokenShelves
from federation.messages import content_digest
from federation.party import PartyFolder, write_atomically
from federation.population import batch_tokens, open_source, tokens_allowed
from federation.remembered import tokens_remembered
from federation.shelves import scratch
from privacy.psi import CurveEngine, Points, SenderReply
from privacy.randomness import Secret

__all__ = ["MOST_A_DAY", "Showing", "Showings"]

MOST_A_DAY: Final = 12
"""Times a day that one origin is shown this party's people: each costs a pass over them."""

_DAY: Final = timedelta(days=1)
_RESUMABLE: Final = timedelta(hours=1)
"""Whoever is imported after people were read is not among them: they are read anew."""
_TIMES: Final = TypeAdapter(tuple[AwareDatetime, ...])
_WIDTH: Final = 33
_IN_TABLE, _REMEMBERED = 0, 1

_Hex = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
_Number = Annotated[int, Field(ge=0)]


class Showing(BaseModel):
    """What is shown once.

    Attributes:
        name: 32 random bytes, hexadecimal.
        hidden: the secret under which it is blinded, in hexadecimal.
        begun: when the people were read.
        tokens: of all people, distinct: those in the table, and as many as there is room for of
            those whom kept matches alone know.
        part: that is shown now; as many as there are parts once all are answered.
        resumed: whether this part is shown again.
        batch: digest of the origin's points, once it has answered.
        found: places of the batch, each with the token (hexadecimal) that stands there too.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    name: _Hex
    hidden: Annotated[_Hex, Field(repr=False)]
    begun: AwareDatetime
    tokens: _Number
    part: _Number = 0
    resumed: bool = False
    batch: _Hex | None = None
    found: Annotated[tuple[tuple[_Number, str], ...], Field(repr=False)] = ()

    @property
    def secret(self) -> Secret:
        """What blinds it."""
        return Secret(bytes.fromhex(self.hidden))

    @property
    def persons(self) -> Mapping[int, bytes]:
        """Who stands at which place of the batch, of the people held: their tokens."""
        return {place: bytes.fromhex(token) for place, token in self.found}


class Showings:
    """What a party shows. Use it under the party's lock."""

    def __init__(self, folder: PartyFolder, agreement: Agreement) -> None:
        self._folder = folder
        self._agreement = agreement
        self._place = folder.erasures / "showing"
        self._parts = parts_of(agreement, folder.name)

    def show(self, origin: str, label: str, *, now: datetime) -> Showing:
        """Go on showing the people to a party, or read them all, to be shown.

        Of a part that was shown twice without an answer nobody knows why: it is begun anew.

        Args:
            origin: the party.
            label: names the message that asks for it.
            now: the time.

        Raises:
            RefusedError: it was shown them too often today, or they are more than agreed.
            ConnectorError: they cannot be read.
            WorkspaceError: the party's configuration names no data, or the disk is full.
        """
        kept = self._resumable(origin, now)
        if kept is None:
            return self._begin(origin, label, now)
        return self._keep(origin, kept.model_copy(update={"resumed": True}))

    def find(self, origin: str, name: str) -> Showing:
        """Return what is shown to a party.

        Raises:
            MessageError: that is something else.
        """
        found = self._read(origin)
        if found is None or found.name != name:
            raise MessageError(f"{origin} answers what was shown to it before: ask it anew")
        return found

    def points(self, origin: str, showing: Showing, *, engine: CurveEngine) -> Points:
        """Return the points of the part that is shown now."""
        part = showing.part
        tokens, capacity = self._tokens(origin, showing, part), self._parts.size(part)
        return show_people(tokens, showing.secret, part, engine=engine, capacity=capacity)

    def take(
        self, origin: str, showing: Showing, part: int, reply: SenderReply, *, engine: CurveEngine
    ) -> Showing:
        """Take the answer to a part; one to the part before changes nothing.

        Raises:
            MessageError: it answers another part, or with another batch than before.
            PeerMessageError: it breaks the protocol.
        """
        batch = content_digest(reply.blinded.tobytes())
        if showing.batch not in {None, batch}:
            raise MessageError(f"{origin} answers part {part} with another batch than before")
        if part == showing.part - 1:
            return showing
        if part != showing.part:
            raise MessageError(f"{origin} answers part {part}; expected {showing.part}")
        tokens, capacity = self._tokens(origin, showing, part), self._parts.size(part)
        places = rows_asked(
            len(tokens), showing.secret, part, reply, engine=engine, capacity=capacity
        )
        held = np.flatnonzero(places >= 0)
        found = [(int(places[one]), tokens[one].tobytes().hex()) for one in held]
        taken = {"part": part + 1, "resumed": False, "batch": batch}
        return self._keep(
            origin, showing.model_copy(update={**taken, "found": (*showing.found, *found)})
        )

    def end(self, origin: str) -> None:
        """Forget what was shown to a party."""
        (self._place / origin / "state.json").unlink(missing_ok=True)
        shutil.rmtree(self._place / origin, ignore_errors=True)

    def forget(self, now: datetime) -> None:
        """Forget what would be begun anew, and what crashes and earlier versions left."""
        for path in self._place.glob("*.npz"):
            path.unlink()
        for path in [one for one in self._place.glob("*") if one.is_dir()]:
            if self._resumable(path.name, now) is None:
                self.end(path.name)

    def _resumable(self, origin: str, now: datetime) -> Showing | None:
        """Return what goes on where it was: not what no part, or every part, was answered of."""
        kept = self._read(origin)
        if kept is None or kept.resumed or kept.begun <= now - _RESUMABLE:
            return None
        return kept if 0 < kept.part <= self._parts.last else None

    def _begin(self, origin: str, label: str, now: datetime) -> Showing:
        """Read the people; they are there whole once the state is."""
        times = [one for one in self._times(origin) if one > now - _DAY]
        if len(times) >= MOST_A_DAY:
            raise self._folder.refusal(
                "erasure",
                f"{origin} was shown the people here {MOST_A_DAY} times in a day: send "
                "requests in fewer batches; what is left waits until tomorrow",
            )
        write_atomically(self._place / f"{origin}.json", _TIMES.dump_json((*times, now)))
        self.end(origin)
        count = 0
        with scratch(self._place / f"{origin}.tmp") as beside:
            for part, tokens in enumerate(self._cut(self._everybody(beside))):
                self._folder.keep_secret(self._part(origin, part), tokens.tobytes())
                count += len(tokens)
        showing = Showing(
            name=self._folder.fresh_secret(f"showing/{label}").hex(),
            hidden=self._folder.fresh_secret(f"blinding/{label}").hex(),
            begun=now,
            tokens=count,
        )
        return self._keep(origin, showing)

    def _everybody(self, beside: Path) -> Iterator[NDArray[np.uint8]]:
        """Yield the tokens to be shown, each once, as many as are agreed.

        Args:
            beside: an empty directory.
        """
        shelves = TokenShelves(beside)
        for where, batches in ((_IN_TABLE, self._table()), (_REMEMBERED, self._remembered())):
            for tokens in batches:
                rows = np.full(len(tokens), where, dtype=np.int64)
                shelves.put(TokenBatch(tokens, rows, np.zeros(len(tokens), np.int64)))
        for _ in shelves.sorting():
            pass
        most = tokens_allowed(self._agreement, self._folder.name)
        present = sum(int(np.count_nonzero(one.rows == _IN_TABLE)) for one in shelves.batches())
        if present > most:
            raise self._folder.refusal(
                "datasets.declared_rows",
                f"more identifiers than the {most} that its data set may bring: declare more rows",
            )
        room = most - present
        for batch in shelves.batches():
            gone = batch.rows == _REMEMBERED  # their row has left the table
            yield batch.tokens[~gone | (np.cumsum(gone) <= room)]
            room -= min(room, int(np.count_nonzero(gone)))

    def _table(self) -> Iterator[NDArray[np.uint8]]:
        data = self._folder.config.data
        if data is None:
            raise WorkspaceError(f"{self._folder.path / 'party.json'} names no data: add it")
        columns = list(dict.fromkeys(name for _, name in data.identifier_columns))
        for batch in open_source(data, self._folder.path).scan(columns):
            table = pa.record_batch([text_of(one) for one in batch.columns], names=columns)
            yield batch_tokens(table, data, self._agreement).tokens

    def _remembered(self) -> Iterator[NDArray[np.uint8]]:
        return tokens_remembered(self._folder)

    def _cut(self, batches: Iterator[NDArray[np.uint8]]) -> Iterator[NDArray[np.uint8]]:
        """Yield tokens in parts, all full but the last."""
        size, held = self._parts.size(0), np.zeros((0, _WIDTH), dtype=np.uint8)
        for batch in batches:
            held = np.concatenate([held, batch])
            while len(held) >= size:
                yield held[:size]
                held = held[size:]
        if len(held):
            yield held

    def _tokens(self, origin: str, showing: Showing, part: int) -> NDArray[np.uint8]:
        """Return the tokens of a part; the last ones have none where people are few."""
        begin = part * self._parts.size(0)
        count = min(self._parts.size(part), max(0, showing.tokens - begin))
        path = self._part(origin, part)
        content = self._folder.read_secret(path) if count else b""
        if len(content) != count * _WIDTH:
            raise WorkspaceError(f"{path} is damaged: remove its directory")
        return np.frombuffer(content, dtype=np.uint8).reshape(count, _WIDTH)

    def _read(self, origin: str) -> Showing | None:
        path = self._place / origin / "state.json"
        try:
            return Showing.model_validate_json(self._folder.read_secret(path))
        except FileNotFoundError:
            return None
        except ValidationError as error:
            raise WorkspaceError(f"{path} is damaged: remove its directory") from error

    def _keep(self, origin: str, showing: Showing) -> Showing:
        content = showing.model_dump_json().encode()
        self._folder.keep_secret(self._place / origin / "state.json", content)
        return showing

    def _part(self, origin: str, part: int) -> Path:
        return self._place / origin / f"part-{part:05d}.bin"

    def _times(self, origin: str) -> tuple[datetime, ...]:
        path = self._place / f"{origin}.json"
        try:
            return _TIMES.validate_json(path.read_bytes())
        except FileNotFoundError:
            return ()
        except ValidationError as error:
            raise WorkspaceError(f"{path} is damaged: remove it") from error
