"""Segments on their way: delivered whole once what tells of them was let go, else taken away.

```
jobs/JOB/delivery.json   the question whose segment is on its way; gone when it is there
```

Guarantees: a segment is in its place, whole, once the gate has let out the answer that tells of it,
and else nowhere; a delivery that a crash cut ends so when it is settled.

Leaves to others: who is in a segment (`expanding`), its place (`connectors.sinks`), and when to
settle: before each message, and when somebody is to be erased.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Final

import pyarrow as pa
from pydantic import BaseModel, ConfigDict

from federation.gate import Gate
from federation.messages import Digest
from federation.party import PartyFolder, undamaged, write_atomically

__all__ = ["delivered", "on_the_way", "settle_delivery"]

_NOTE: Final = "delivery.json"


class _Delivery(BaseModel):
    """A segment that is on its way.

    Attributes:
        question: digest of the message that is answered with it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    question: Digest


def on_the_way(folder: PartyFolder) -> tuple[str, ...]:
    """Return the jobs whose segments a crash, or a sink that refused, left on their way."""
    return tuple(sorted(path.parent.name for path in folder.path.glob(f"jobs/*/{_NOTE}")))


def settle_delivery(folder: PartyFolder, gate: Gate, job: str) -> None:
    """Deliver a job's segment if its answer was let go, else take it away; nothing if it is over.

    Raises:
        ConnectorError: the sink refuses; it is on its way as before.
        WorkspaceError: what says so is damaged.
    """
    path = folder.job(job) / _NOTE
    if not path.exists():
        return
    with undamaged(path):
        question = _Delivery.model_validate_json(path.read_bytes()).question
    sink = folder.sink(job)
    if gate.outbox.keeps_answer(question):
        sink.publish(ticket=question)
    else:
        sink.discard(ticket=question)
    path.unlink()


@contextmanager
def delivered(
    folder: PartyFolder,
    gate: Gate,
    job: str,
    rows: tuple[Iterable[pa.RecordBatch], pa.Schema],
    *,
    question: str,
) -> Iterator[None]:
    """Have a segment in its place when what tells of it was let go within.

    Raises:
        ConnectorError: the sink refuses.
    """
    sink, note = folder.sink(job), folder.job(job) / _NOTE
    write_atomically(note, _Delivery(question=question).model_dump_json().encode(), mode=0o600)
    try:
        sink.stage(*rows, ticket=question)
        yield
    except Exception:
        if not gate.outbox.keeps_answer(question):  # else it was let go, and is owed
            sink.discard(ticket=question)
            note.unlink()
        raise
    sink.publish(ticket=question)
    note.unlink()
