"""Lists of people's references, as bytes whose length tells of their count alone.

Guarantees: what `pack` wrote `unpack` reads, and so many people in another list take as many bytes,
unless their references are longer or shorter by several bytes on average.

Leaves to others: sealing them, and what they are for (`manifests`).
"""

from dataclasses import dataclass
from typing import Final, Self

import pyarrow as pa

from federation.errors import WorkspaceError
from federation.references import References

__all__ = ["Lists", "whole"]

_SCHEMA: Final = pa.schema([("subject", pa.string())])
_LARGEST: Final = (1 << 31) - 1  # of what AES-GCM seals at once
_BYTES_PER_PERSON: Final = 8
_LEAST_PEOPLE: Final = 128


@dataclass(frozen=True)
class Lists:
    """References of records.

    Attributes:
        used: whose rows were used.
        linked: further ones of the same people.
        erased: known as erased by then.
    """

    used: pa.Array
    linked: pa.Array
    erased: pa.Array

    def pack(self) -> bytes:
        """Write the lists one after the other, padded to a multiple of 8 bytes a person.

        Raises:
            WorkspaceError: they are too long to be sealed at once.
        """
        sink, parts = pa.BufferOutputStream(), (self.used, self.linked, self.erased)
        with pa.ipc.new_stream(sink, _SCHEMA) as writer:
            for part in parts:
                writer.write_batch(pa.record_batch([part], schema=_SCHEMA))
        body: bytes = sink.getvalue().to_pybytes()
        unit = _BYTES_PER_PERSON * max(_LEAST_PEOPLE, sum(map(len, parts)))
        length = -(-len(body) // unit) * unit
        if length > _LARGEST:
            raise _too_long()
        return body.ljust(length, b"\0")

    @classmethod
    def unpack(cls, body: bytes) -> Self:
        """Read what `pack` wrote; it must be known to be that."""
        with pa.ipc.open_stream(body) as reader:
            used, linked, erased = (batch.column(0) for batch in reader)
        return cls(used, linked, erased)


def whole(references: References) -> pa.Array:
    """Return references in memory.

    Raises:
        WorkspaceError: they are too long to be sealed at once, or damaged.
    """
    parts = [pa.array([], pa.string()), *(part.cast(pa.string()) for part in references.batches())]
    try:
        return pa.concat_arrays(parts)
    except pa.ArrowInvalid:  # its own words may quote what it read
        raise _too_long() from None


def _too_long() -> WorkspaceError:
    return WorkspaceError(
        f"references of the people of a training take more than {_LARGEST:,} bytes, and a manifest "
        "holds no more: give records shorter references, or train on fewer people"
    )
