"""Where lists of people are delivered: whole or not at all, and never over something else.

```
stage(rows, ticket)   written beside its place, seen by nobody
publish(ticket)       in its place, whole, at one moment
discard(ticket)       gone, as if it had never been staged
remove()              gone from its place, when its time is over
```

Guarantees: until `publish` returns, nobody finds anything where the list belongs; from then on they
find all of it. A step that was cut short can be repeated under its ticket. Files are readable by
their owner alone. A sink holds a batch at a time.

Leaves to others: whether the list may be delivered, and who is on it.
"""

import re
from collections.abc import Iterable
from typing import Final, Protocol, runtime_checkable

import pyarrow as pa

__all__ = ["Sink", "checked_ticket"]

_TICKET: Final = re.compile(r"[0-9a-f]{16,64}")


@runtime_checkable
class Sink(Protocol):
    """A place for one list, which is there whole or not at all.

    Every method raises a `ConnectorError` when the place fails; none keeps anything open.
    """

    @property
    def name(self) -> str:
        """What to call the place in messages: its path or masked URL, never a secret."""
        ...

    def is_taken(self) -> bool:
        """Tell whether something lies in the place already."""
        ...

    def stage(self, rows: Iterable[pa.RecordBatch], schema: pa.Schema, *, ticket: str) -> None:
        """Write a list beside its place; what was staged under the ticket before is replaced.

        Args:
            rows: batches of `schema`; where they raise, nothing stays.
            schema: columns of text.
            ticket: names this delivery, 16 to 64 hexadecimal digits.

        Raises:
            SinkUnavailableError: disk, rights, network or database refuse; nothing stays.
            ValueError: the ticket is malformed.
        """
        ...

    def publish(self, *, ticket: str) -> None:
        """Put what was staged in its place; nothing happens where that was done already.

        Raises:
            SinkOccupiedError: something else lies there; what was staged stays where it is.
            SinkUnavailableError: nothing is staged and nothing there, or the place refuses.
            ValueError: the ticket is malformed.
        """
        ...

    def discard(self, *, ticket: str) -> None:
        """Remove what was staged, if anything is; what was published stays.

        Raises:
            SinkUnavailableError: the place refuses.
            ValueError: the ticket is malformed.
        """
        ...

    def remove(self) -> None:
        """Remove what lies in the place, if anything does; what is staged stays.

        Raises:
            SinkUnavailableError: the place refuses.
        """
        ...


def checked_ticket(ticket: str) -> str:
    """Return a ticket that is fit for the name of a file or table."""
    if not _TICKET.fullmatch(ticket):
        raise ValueError("expected a ticket of 16 to 64 hexadecimal digits")
    return ticket
