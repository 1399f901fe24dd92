"""A party's people, shown blinded to another that has requests to erase: kept until it answers.

```
PARTY/erasures/showing/
  ORIGIN.npz    tokens of all its people in the order they were shown, the secret, and its name
  ORIGIN.json   when it showed them to that party, over the last day
```

Guarantees: people whom only a kept match knows are shown too; an answer is read with the secret and
the order of the very showing it answers; a party is shown the people `MOST_A_DAY` times a day at
most. Files are readable by their owner only.

Leaves to others: the protocol (`jobs.erase`), and when it is over (`spreading`).
"""

import io
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import AwareDatetime, TypeAdapter, ValidationError

from compliance.agreement import Agreement
from connectors.schema import text_of
from federation.desk import undamaged
from federation.errors import MessageError, WorkspaceError
from federation.party import PartyFolder, write_atomically
from federation.population import batch_tokens, open_source, tokens_allowed
from federation.remembered import tokens_remembered
from privacy.randomness import Secret

__all__ = ["MOST_A_DAY", "Showing", "Showings"]

MOST_A_DAY: Final = 12
"""Times a day that one origin is shown this party's people: each costs a pass over them."""

_DAY: Final = timedelta(days=1)
_TIMES: Final = TypeAdapter(tuple[AwareDatetime, ...])


@dataclass(frozen=True)
class Showing:
    """What was shown once.

    Attributes:
        name: 32 random bytes, hexadecimal.
        secret: under which it was blinded.
        tokens: of all people, distinct, (n, 33), in the order of showing: those in the table,
            then as many as there is room for of those whom kept matches alone know.
    """

    name: str
    secret: Secret
    tokens: NDArray[np.uint8]


class Showings:
    """What a party shows. Use it under the party's lock."""

    def __init__(self, folder: PartyFolder, agreement: Agreement) -> None:
        self._folder = folder
        self._agreement = agreement
        self._place = folder.erasures / "showing"

    def begin(self, origin: str, label: str, *, now: datetime) -> Showing:
        """Read all people, to be shown to a party.

        Args:
            origin: the party.
            label: names the message that asks for it.
            now: the time.

        Raises:
            RefusedError: it was shown them too often today.
            ConnectorError: they cannot be read.
            WorkspaceError: the party's configuration names no data.
        """
        times = [one for one in self._times(origin) if one > now - _DAY]
        if len(times) >= MOST_A_DAY:
            raise self._folder.refusal(
                "erasure",
                f"{origin} was shown the people here {MOST_A_DAY} times in a day: send "
                "requests in fewer batches; what is left waits until tomorrow",
            )
        write_atomically(self._place / f"{origin}.json", _TIMES.dump_json((*times, now)))
        showing = Showing(
            self._folder.fresh_secret(f"showing/{label}").hex(),
            self._folder.fresh_secret(f"blinding/{label}"),
            self._tokens(),
        )
        content = io.BytesIO()
        np.savez(
            content,
            tokens=showing.tokens,
            secret=np.frombuffer(showing.secret, np.uint8),
            name=np.frombuffer(bytes.fromhex(showing.name), np.uint8),
        )
        self._folder.keep_secret(self._file(origin), content.getvalue())
        return showing

    def find(self, origin: str, name: str) -> Showing:
        """Return what was shown to a party last.

        Raises:
            MessageError: that was something else.
        """
        path, found = self._file(origin), None
        if path.exists():
            content = io.BytesIO(self._folder.read_secret(path))
            with undamaged(path), np.load(content) as kept:
                found = Showing(
                    kept["name"].tobytes().hex(), Secret(kept["secret"].tobytes()), kept["tokens"]
                )
        if found is None or found.name != name:
            raise MessageError(f"{origin} answers what was shown to it before: ask it anew")
        return found

    def end(self, origin: str) -> None:
        """Forget what was shown to a party."""
        self._file(origin).unlink(missing_ok=True)

    def forget(self, now: datetime) -> None:
        """Forget what nobody has answered for a day."""
        for path in self._place.glob("*.npz"):
            if not any(one > now - _DAY for one in self._times(path.stem)):
                path.unlink()

    def _tokens(self) -> NDArray[np.uint8]:
        data = self._folder.config.data
        if data is None:
            raise WorkspaceError(f"{self._folder.path / 'party.json'} names no data: add it")
        columns = list(dict.fromkeys(name for _, name in data.identifier_columns))
        found = [np.zeros(0, dtype="V33")]
        for batch in open_source(data, self._folder.path).scan(columns):
            table = pa.record_batch([text_of(one) for one in batch.columns], names=columns)
            tokens = batch_tokens(table, data, self._agreement).tokens
            found.append(np.ascontiguousarray(tokens).view("V33").ravel())
        present = np.unique(np.concatenate(found))
        room = max(0, tokens_allowed(self._agreement, self._folder.name) - len(present))
        kept = tokens_remembered(self._folder)
        more = (np.ascontiguousarray(one).view("V33").ravel() for one in kept)
        every, first = np.unique(np.concatenate([present, *more]), return_index=True)
        gone = every[first >= len(present)][:room]  # their row has left the table
        return np.concatenate([present, gone]).view(np.uint8).reshape(-1, 33)

    def _times(self, origin: str) -> tuple[datetime, ...]:
        path = self._place / f"{origin}.json"
        try:
            return _TIMES.validate_json(path.read_bytes())
        except FileNotFoundError:
            return ()
        except ValidationError as error:
            raise WorkspaceError(f"{path} is damaged: remove it") from error

    def _file(self, origin: str) -> Path:
        return self._place / f"{origin}.npz"
