"""Whom an alignment found, by what this party knows them by; also when retention has taken it.

```
jobs/ALIGN/summed.npz        once its people were deleted: a pseudonym of each, in the shared order
jobs/ALIGN/forgotten-OTHER   whose pseudonym was taken out of OTHER's, of this alignment's people
```

Guarantees: who was in a sum over an alignment is told from others for as long as the party's folder
lasts. Of a deleted alignment pseudonyms alone stay, under a key of the party's own: nobody who
lacks it can tell whether a person is among them, and neither references nor identifiers can be read
from them. Who is erased is taken out, and stays known to have been there by their place in
alignments that are still kept, for as long as these are: parties at which they were not erased yet,
or which keep the alignment itself, tell the same. An alignment of which no sum was made leaves
nothing.

Leaves to others: which sums there were (`one_set`), when an alignment is deleted (`retaining`).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from federation.erased import Erased
from federation.errors import RefusedError, WorkspaceError
from federation.matching.token_set import MatchingSet
from federation.members import Members, load_people
from federation.party import PartyFolder, undamaged, write_atomically
from federation.stored_arrays import stored_arrays, write_arrays
from federation.training.aligned import tokens_by_person
from privacy.pseudonyms import PSEUDONYM_BYTES, pseudonyms
from privacy.randomness import Secret, derive_secret

__all__ = [
    "SUMMED",
    "SummedPeople",
    "forget_summed",
    "forgotten",
    "is_summed",
    "keep_summed",
    "summed_key",
    "summed_people",
]

SUMMED: Final = "summed.npz"
"""The file of pseudonyms, within the folder of an alignment."""

_FORGOTTEN: Final = "forgotten-"
_REFERENCES: Final = "references"
_TOKENS: Final = "tokens"


@dataclass(frozen=True, eq=False)
class SummedPeople:
    """Aligned people, by what a party knows them by.

    Attributes:
        references: the party's own, shape (n,).
        tokens: of the identifiers that they were aligned by, likewise.
        are_pseudonyms: whether both are pseudonyms of these.
    """

    references: pa.Array
    tokens: pa.Array
    are_pseudonyms: bool = False

    def __len__(self) -> int:
        return len(self.references)

    def those(self, chosen: NDArray[np.bool_]) -> Self:
        """Return the people who are `chosen`, shape (n,)."""
        kept = pa.array(chosen)
        return replace(
            self, references=self.references.filter(kept), tokens=self.tokens.filter(kept)
        )

    def under(self, key: Secret) -> "SummedPeople":
        """Return their pseudonyms."""
        if self.are_pseudonyms:
            return self
        known = _bytes_of(self.references.cast(pa.large_binary()))
        references = pseudonyms(known, key, _REFERENCES)
        tokens = pseudonyms(_bytes_of(self.tokens), key, _TOKENS)
        return SummedPeople(_fixed(references), _fixed(tokens), are_pseudonyms=True)

    def found_in(self, others: "SummedPeople") -> NDArray[np.bool_]:
        """Tell who is one of the others, by either, shape (n,); both are pseudonyms, or neither."""
        found = np.zeros(len(self), dtype=np.bool_)
        for mine, theirs in ((self.references, others.references), (self.tokens, others.tokens)):
            found |= pc.is_in(mine, value_set=theirs).to_numpy(zero_copy_only=False)
        return found


def summed_people(folder: PartyFolder, align: str) -> SummedPeople:
    """Return whom an alignment found, in the order that all parties share.

    Raises:
        RefusedError: it has not ended here, or was deleted by an earlier version, which kept no
            pseudonyms.
        WorkspaceError: what is kept of it is damaged, or under a key that is gone.
    """
    path = folder.job(align) / SUMMED
    if path.exists():  # also where a crash has left the people
        own = _name_of(summed_key(folder))
        with stored_arrays(path) as stored:
            same_key = np.array_equal(stored.array("key", np.uint8, *own.shape), own)
            references = stored.array("references", np.uint8, None, PSEUDONYM_BYTES)
            tokens = stored.array("tokens", np.uint8, *references.shape)
        kept = _fixed(references), _fixed(tokens)
        if not same_key:  # nobody would be found among them
            raise WorkspaceError(f"{path} is under another keys/erasure than is there: restore it")
        return SummedPeople(*kept, are_pseudonyms=True)
    if (found := _read(folder, align)) is not None:
        return found
    if (folder.job(align) / "deleted-match.json").exists():
        raise RefusedError(
            party=folder.name,
            term="retention.match",
            remedy=f"whom alignment {align!r} found was deleted, by a version of Comity that kept "
            "nothing to tell them by or when it was damaged, and sums were made of them: nobody "
            "can tell any more who may be in a sum of other partners; have all partners be there, "
            "as they were then",
        )
    raise RefusedError(
        party=folder.name,
        term="vertical.align",
        remedy=f"alignment {align!r} has not ended here: run it first",
    )


def summed_key(folder: PartyFolder) -> Secret:
    """Return the key of pseudonyms: no other party's, and the same for all alignments."""
    return derive_secret(folder.erasure_key(), "people of sums")


def keep_summed(folder: PartyFolder, align: str) -> None:
    """Keep pseudonyms of whom an alignment found, if sums were made of them; before it is deleted.

    Of whoever was erased since, none; of one that is damaged nothing is kept, so that nobody is in
    sums of other partners.

    Raises:
        WorkspaceError: the disk is full, or the list of the erased is damaged.
    """
    path = folder.job(align) / SUMMED
    if path.exists() or not any(_sums_of(folder, align)):
        return
    try:
        found = _read(folder, align)
    except WorkspaceError:
        return
    if found is None:  # it never ended, or is deleted already
        return
    told, gone = found.under(summed_key(folder)), _erased_of(folder, found)
    if gone.any():
        _note_forgotten(folder, align, told.those(gone))
    kept = [_rows(one) for one in (told.references, told.tokens)]
    for rows in kept:
        rows[gone] = 0  # as `forget_summed` leaves them
    _save(folder, align, *kept)


def is_summed(
    folder: PartyFolder, align: str, references: Sequence[str], token: bytes | None = None
) -> bool:
    """Tell whether somebody is among those whom a deleted alignment found.

    Args:
        folder: the party's.
        align: the alignment.
        references: under which they are or were held.
        token: of the identifier that they named, if that is known.

    Raises:
        WorkspaceError: what is kept of it is damaged, or under a key that is gone.
    """
    return bool(_bearing(folder, summed_people(folder, align), references, token).any())


def forget_summed(
    folder: PartyFolder, align: str, references: Sequence[str], token: bytes | None = None
) -> bool:
    """Take somebody out of whom a deleted alignment found, and tell whether they were there.

    Of whoever is on the list of the erased no sum is made any more, of whichever partners.
    Arguments are those of `is_summed`.

    Raises:
        WorkspaceError: as `is_summed`, or the disk is full.
    """
    people = summed_people(folder, align)
    gone = _bearing(folder, people, references, token)
    if gone.any():
        _note_forgotten(folder, align, people.those(gone))
        kept = [_rows(one) for one in (people.references, people.tokens)]
        for rows in kept:
            rows[gone] = 0  # the others keep their places
        _save(folder, align, *kept)
    return bool(gone.any())


def forgotten(folder: PartyFolder, align: str, other: str, count: int) -> NDArray[np.bool_]:
    """Tell who of an alignment was taken out of the pseudonyms of another.

    Args:
        folder: the party's.
        align: the alignment.
        other: one that was deleted.
        count: people of the first.

    Returns:
        Shape (count,), in the shared order.

    Raises:
        WorkspaceError: what was noted is damaged.
    """
    path = folder.job(align) / f"{_FORGOTTEN}{other}"
    if not path.exists():
        return np.zeros(count, dtype=np.bool_)
    with undamaged(path):
        bits = np.frombuffer(path.read_bytes(), dtype=np.uint8)
        if len(bits) != (count + 7) // 8:
            raise ValueError("it is of another number of people")
        return np.unpackbits(bits, count=count).astype(np.bool_)


def _note_forgotten(folder: PartyFolder, other: str, gone: SummedPeople) -> None:
    """Note whose pseudonyms are about to be taken out of an alignment's, where they are kept."""
    for path in sorted((folder.path / "jobs").glob("*/aligned.npz")):
        align = path.parent.name
        try:
            people = None if align == other else _read(folder, align)
        except WorkspaceError:  # damaged: no sum is made of it
            continue
        if people is None:
            continue
        erased = _erased_of(folder, people)
        if not erased.any():
            continue
        noted = forgotten(folder, align, other, len(people))
        noted[erased] |= people.those(erased).under(summed_key(folder)).found_in(gone)
        file = path.with_name(f"{_FORGOTTEN}{other}")
        write_atomically(file, np.packbits(noted).tobytes(), mode=0o600)


def _erased_of(folder: PartyFolder, people: SummedPeople) -> NDArray[np.bool_]:
    """Tell who is on the list of the erased, by reference or token, shape (n,)."""
    persons = Erased(folder, folder.agreement()).persons().values()
    known = [reference for person in persons for reference in person.references]
    by_reference = pc.is_in(
        people.references.cast(pa.large_string()), value_set=pa.array(known, pa.large_string())
    )
    tokens = pa.array([person.token for person in persons], people.tokens.type)
    by_token = pc.is_in(people.tokens, value_set=tokens)
    found = pc.or_(by_reference, by_token).to_numpy(zero_copy_only=False)
    return np.asarray(found, dtype=np.bool_)


def _bearing(
    folder: PartyFolder, people: SummedPeople, references: Sequence[str], token: bytes | None
) -> NDArray[np.bool_]:
    known = [one.encode() for one in references]
    tokens = [] if token is None else [token]
    found = np.zeros(len(people), dtype=np.bool_)
    for asked, label, column in (
        (known, _REFERENCES, people.references),
        (tokens, _TOKENS, people.tokens),
    ):
        wanted = _fixed(pseudonyms(asked, summed_key(folder), label))
        found |= pc.is_in(column, value_set=wanted).to_numpy(zero_copy_only=False)
    return found


def _save(
    folder: PartyFolder, align: str, references: NDArray[np.uint8], tokens: NDArray[np.uint8]
) -> None:
    key = _name_of(summed_key(folder))
    path = folder.job(align) / SUMMED
    write_arrays(path, references=references, tokens=tokens, key=key)


def _sums_of(folder: PartyFolder, align: str) -> Iterator[Path]:
    """Yield what says that sums were made of an alignment's people."""
    jobs = folder.path / "jobs"
    yield from jobs.glob(f"*/joined-{align}")
    yield from jobs.glob(f"*/scored-{align}")
    for path in jobs.glob("*/specification.json"):  # of a training that an earlier version joined
        if f'"align":"{align}"'.encode() in path.read_bytes():
            yield path


def _read(folder: PartyFolder, align: str) -> SummedPeople | None:
    """Read whom an alignment found; None where that is not there."""
    directory = folder.job(align)
    own = MatchingSet.open(directory / "set")
    try:
        members = Members.load(directory / "aligned.npz", load_people(directory / "people"))
    except FileNotFoundError:
        return None
    if own is None:
        return None
    tokens = tokens_by_person((own.bucket(0, 1),), len(members.used.keys))[members.rows]
    return SummedPeople(members.references(), _fixed(tokens))


def _name_of(key: Secret) -> NDArray[np.uint8]:
    """Return what tells a key from others, and nothing of it."""
    return pseudonyms((b"",), key, "nobody")


def _fixed(rows: NDArray[np.uint8]) -> pa.Array:
    content = pa.py_buffer(np.ascontiguousarray(rows))
    return pa.FixedSizeBinaryArray.from_buffers(
        pa.binary(rows.shape[1]), len(rows), [None, content]
    )


def _rows(column: pa.Array) -> NDArray[np.uint8]:
    joined = b"".join(_bytes_of(column))
    return np.frombuffer(joined, dtype=np.uint8).reshape(-1, PSEUDONYM_BYTES).copy()


def _bytes_of(column: pa.Array) -> Iterator[bytes]:
    found: Iterator[bytes] = iter(column.to_pylist())
    return found
