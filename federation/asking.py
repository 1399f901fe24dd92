"""What a party asks another about in a batch, kept while it is shown that party's people in parts.

```
PARTY/erasures/asking/PEER.json   the showing, the batch's secret, its requests, what was shown;
                                  a secret
PARTY/erasures/asked/PEER.json    when showings of that party's began to be answered, over a day
```

Guarantees: all parts of a showing are answered with the same batch, under one secret that no other
showing gets; a part that comes again counts if it has the same points, so that nobody tries more of
them than it may bring; and no party has more showings answered in a day than it would show by
itself, whoever carries them, and whether it acknowledges what it is asked or not.

Leaves to others: the protocol (`jobs.erase`), and when it is over (`spreading`).
"""

from collections.abc import Iterable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated, Final

import numpy as np
from numpy.typing import NDArray
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from compliance.agreement import Agreement
from federation.erased import Erased
from federation.errors import MessageError, WorkspaceError
from federation.jobs.erase import BATCH_PLACES
from federation.messages import content_digest
from federation.party import PartyFolder, write_atomically
from federation.showing import MOST_A_DAY
from privacy.randomness import Secret

__all__ = ["Asking", "Askings"]

_DAY: Final = timedelta(days=1)
_TIMES: Final = TypeAdapter(tuple[AwareDatetime, ...])
_Hex = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Asking(BaseModel):
    """A batch of requests for one party.

    Attributes:
        showing: of that party's, which it answers.
        begun: when its first part came.
        hidden: the secret, in hexadecimal.
        requests: names, in the order of the batch.
        shown: digests of the points of each part that came.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    showing: _Hex
    begun: AwareDatetime
    hidden: Annotated[_Hex, Field(repr=False)]
    requests: tuple[str, ...]
    shown: tuple[_Hex, ...] = ()

    @property
    def secret(self) -> Secret:
        """What blinds the batch."""
        return Secret(bytes.fromhex(self.hidden))

    def see(self, part: int, points: bytes) -> "Asking":
        """Take a part: the next, or one that came before.

        Raises:
            MessageError: it is another, or has other points than before.
        """
        digest = content_digest(points)
        if part == len(self.shown):
            return self.model_copy(update={"shown": (*self.shown, digest)})
        if part > len(self.shown):
            raise MessageError(f"part {part} of people shown; expected {len(self.shown)}")
        if self.shown[part] != digest:
            raise MessageError(f"part {part} of people shown with other points: the first count")
        return self


class Askings:
    """What a party asks others about. Use it under the party's lock."""

    def __init__(self, folder: PartyFolder, agreement: Agreement) -> None:
        self._folder = folder
        self._erased = Erased(folder, agreement)
        self._place = folder.erasures / "asking"

    def begin(
        self, peer: str, showing: str, requests: Iterable[str], *, label: str, now: datetime
    ) -> Asking:
        """Return a batch of as many requests as it holds, which counts, and is not kept yet.

        Args:
            peer: who shows its people.
            showing: that it answers.
            requests: that wait; of those about one person the first, the others wait on.
            label: names the message that began the showing.
            now: the time.

        Raises:
            RefusedError: too many of that party's were answered today: whoever may try one list of
                people after another learns who of all of them asked to be erased.
        """
        self._count(peer, now)
        waiting: dict[bytes, str] = {}
        for request in requests:
            waiting.setdefault(self._erased.person(request).token, request)
        return Asking(
            showing=showing,
            begun=now,
            hidden=self._folder.fresh_secret(f"erase/{label}").hex(),
            requests=tuple(waiting.values())[:BATCH_PLACES],
        )

    def persons(self, asking: Asking) -> NDArray[np.uint8]:
        """Return whom a batch is about: tokens of shape (n, 33), in its order."""
        tokens = [self._erased.person(one).token for one in asking.requests]
        return np.frombuffer(b"".join(tokens), np.uint8).reshape(len(tokens), -1)

    def find(self, peer: str, showing: str) -> Asking | None:
        """Return the batch that answers a showing of a party's, if there is one."""
        found = self._read(self._file(peer))
        return found if found is not None and found.showing == showing else None

    def keep(self, peer: str, asking: Asking) -> None:
        """Keep a batch in place of any other for that party."""
        self._folder.keep_secret(self._file(peer), asking.model_dump_json().encode())

    def end(self, peer: str) -> None:
        """Forget what a party was asked."""
        self._file(peer).unlink(missing_ok=True)

    def forget(self, now: datetime) -> None:
        """Forget what was asked for a day."""
        for path in self._place.glob("*.json"):
            found = self._read(path)
            if found is None or found.begun <= now - _DAY:
                path.unlink()

    def _count(self, peer: str, now: datetime) -> None:
        """Count a showing that is to be answered."""
        path = self._folder.erasures / "asked" / f"{peer}.json"
        try:
            before = _TIMES.validate_json(path.read_bytes())
        except FileNotFoundError:
            before = ()
        except ValidationError as error:
            raise WorkspaceError(f"{path} is damaged: remove it") from error
        times = [one for one in before if one > now - _DAY]
        if len(times) >= MOST_A_DAY:
            raise self._folder.refusal(
                "erasure",
                f"{peer} has shown its people {MOST_A_DAY} times in a day: what is left waits "
                "until tomorrow",
            )
        write_atomically(path, _TIMES.dump_json((*times, now)), mode=0o600)

    def _read(self, path: Path) -> Asking | None:
        try:
            return Asking.model_validate_json(self._folder.read_secret(path))
        except (FileNotFoundError, ValidationError):  # damaged, it is none: people are shown anew
            return None

    def _file(self, peer: str) -> Path:
        return self._place / f"{peer}.json"
