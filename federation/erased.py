"""Whom a party has erased, so that they stay so: found again by identifier and by reference.

```
PARTY/erasures/ENTRY.json     how far a request has come, and its receipt
PARTY/erasures/ENTRY.person   identifier's token and references, sealed; readable by the owner;
                              none where another party asked about somebody unknown here
PARTY/keys/erasure            the key they are sealed under
```

An entry is called `REQUEST`, or `REQUEST@ORIGIN` where another party asked: an origin chooses the
names of its requests.

Guarantees: whoever is here is in no population that a job reads, from the moment of the request and
for ever, under whatever references a later import brings them in.

Leaves to others: deleting (`erasing`), and protecting the key: with it, the list of the erased can
be tried with candidates, as any list that recognises people again can.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from compliance.agreement import Agreement
from compliance.errors import SubjectKeyError
from compliance.subject_keys import SubjectKey
from connectors.schema import text_of
from federation.errors import WorkspaceError
from federation.party import PartyFolder, write_atomically
from federation.population import batch_tokens, open_source
from federation.references import References

__all__ = ["Erased", "Person", "check_nobody_erased", "entry_of", "find_entry", "names_any"]


@dataclass(frozen=True)
class Person:
    """Somebody who asked to be erased.

    Attributes:
        token: of the identifier they named, 33 bytes.
        references: record references under which they were found so far.
    """

    token: bytes
    references: tuple[str, ...] = ()


def entry_of(request: str, origin: str | None) -> str:
    """Return what a request is kept under: no party takes the name of another's.

    Args:
        request: its name.
        origin: party at which the person asked; None where that is this one.
    """
    return request if origin is None else f"{request}@{origin}"


def find_entry(folder: PartyFolder, named: str) -> str:
    """Return what a request is kept under, by its name, or by name and origin (`rq-1@brand`).

    Raises:
        WorkspaceError: there is none, or several parties have requests of that name.
    """
    entries = sorted(path.stem for path in folder.erasures.glob("*.json"))
    found = [one for one in entries if named in {one, one.partition("@")[0]}]
    if named in found:
        return named
    if len(found) != 1:
        which = f"expected one of {', '.join(found)}" if found else "there is none"
        raise WorkspaceError(f"request {named!r}: {which}: `comity erase status` lists them")
    return found[0]


class Erased:
    """The people whom a party has erased or is about to. Use it under the party's lock."""

    def __init__(self, folder: PartyFolder, agreement: Agreement) -> None:
        self._folder = folder
        self._agreement = agreement

    def keep(self, entry: str, person: Person) -> None:
        """Put somebody on the list, or write down more references of theirs."""
        told = {"token": person.token.hex(), "references": person.references}
        nonce = self._folder.fresh_secret(f"erasure/{entry}/{len(person.references)}")
        sealed = self._key().seal(json.dumps(told).encode(), context=entry.encode(), nonce=nonce)
        write_atomically(self._folder.erasures / f"{entry}.person", sealed, mode=0o600)

    def person(self, entry: str) -> Person:
        """Return whom a request is about, by what it is kept under.

        Raises:
            WorkspaceError: the entry is missing or damaged.
        """
        path = self._folder.erasures / f"{entry}.person"
        try:
            told = json.loads(self._key().open(path.read_bytes(), context=entry.encode()))
            return Person(bytes.fromhex(told["token"]), tuple(told["references"]))
        except (OSError, SubjectKeyError, ValueError, KeyError) as error:
            raise WorkspaceError(
                f"{path} is missing or damaged: restore it from before, with keys/erasure; without "
                "it the person would come back"
            ) from error

    def entries(self) -> tuple[str, ...]:
        """Return what all requests are kept under."""
        return tuple(sorted(path.stem for path in self._folder.erasures.glob("*.person")))

    def persons(self) -> dict[str, Person]:
        """Return whom the requests are about, by what they are kept under."""
        return {entry: self.person(entry) for entry in self.entries()}

    def references(self) -> Iterator[pa.Array]:
        """Read the references of everybody who is on the list, in the table as it is now.

        Raises:
            WorkspaceError: an entry is damaged.
            ConnectorError: the table cannot be read.
        """
        persons = self.persons()
        if persons:
            known = [one for person in persons.values() for one in person.references]
            yield pa.array(known, pa.large_string())
            yield from self.found([person.token for person in persons.values()])

    def found(self, tokens: Sequence[bytes]) -> Iterator[pa.Array]:
        """Read the references of all rows that bear one of these tokens."""
        for _, references, _ in self._bearing(tokens):
            yield references.unique()

    def found_by(
        self, tokens: Sequence[bytes], remembered: Sequence[tuple[str, ...]] = ()
    ) -> tuple[tuple[str, ...], ...]:
        """Return under which references each token's person is held; one reading for all.

        Those are of rows that bear the token, and remembered ones of no row: a row that is there
        and does not bear it is somebody else's by now. The table is read however few tokens there
        are, so that the time it takes does not tell.

        Args:
            tokens: of the people.
            remembered: references that each had once, in the order of the tokens.

        Raises:
            ConnectorError: the table cannot be read.
        """
        found: list[list[str]] = [[] for _ in tokens]
        gone = set(chain.from_iterable(remembered))
        known = pa.array(list(gone), pa.large_string())
        for places, references, keys in self._bearing(tokens):
            for place, reference in zip(places.tolist(), references.to_pylist(), strict=True):
                found[place].append(reference)
            gone.difference_update(keys.filter(pc.is_in(keys, value_set=known)).to_pylist())
        for more, before in zip(found, remembered, strict=False):
            more += [reference for reference in before if reference in gone]
        return tuple(tuple(dict.fromkeys(one)) for one in found)

    def _bearing(
        self, tokens: Sequence[bytes]
    ) -> Iterator[tuple[NDArray[np.int64], pa.Array, pa.Array]]:
        """Read which tokens are borne by whom: places among them and references; and all keys."""
        data = self._folder.config.data
        if data is None:
            return
        columns = list(dict.fromkeys((data.key, *(name for _, name in data.identifier_columns))))
        wanted = pa.array(tokens, pa.binary(33))
        for batch in open_source(data, self._folder.path).scan(columns):
            texts = [text_of(column) for column in batch.columns]
            table = pa.record_batch(texts, names=columns)
            bearing = batch_tokens(table, data, self._agreement)
            rows = pa.FixedSizeBinaryArray.from_buffers(
                pa.binary(33),
                len(bearing.tokens),
                [None, pa.py_buffer(np.ascontiguousarray(bearing.tokens))],
            )
            places = pc.index_in(rows, value_set=wanted)
            hit = np.flatnonzero(places.is_valid().to_numpy(False))
            keys = table.column(data.key).cast(pa.large_string())
            references = keys.take(pa.array(bearing.rows[hit]))
            named = references.is_valid().to_numpy(False)
            borne = places.take(pa.array(hit[named])).to_numpy(False).astype(np.int64)
            yield borne, references.drop_null(), keys

    def is_among(self, people: Iterable[References]) -> bool:
        """Tell whether somebody on the list is among people who were read before.

        By reference, without reading the table: a request writes down those that it finds.

        Raises:
            WorkspaceError: an entry is damaged.
        """
        known = [one for person in self.persons().values() for one in person.references]
        return bool(known) and names_any(people, known)

    def _key(self) -> SubjectKey:
        return SubjectKey(self._folder.erasure_key())


def check_nobody_erased(folder: PartyFolder, job: str) -> None:
    """Return only if nobody was erased whom a job had read at a party.

    Raises:
        RefusedError: somebody was; what the job had made of its people's columns is deleted.
    """
    if (folder.job(job) / "erased").exists():
        raise folder.refusal(
            "consent",
            "somebody whom the job had read was erased: run it under another name",
        )


def names_any(people: Iterable[References], wanted: Sequence[str]) -> bool:
    """Tell whether any of the wanted references is among people."""
    value_set = pa.array(wanted, pa.large_string())
    return any(
        bool(np.any(pc.is_in(batch.cast(pa.large_string()), value_set=value_set)))
        for listed in people
        for batch in listed.batches()
    )
