"""Roots over the people of whom something is made, which a leaf tells instead of who they are.

Guarantees: memory depends on a shelf, not on people; a root that was kept is of the very same
references.

Leaves to others: the root itself (`compliance.consent.cohort`), who the people are (`population`).
"""

from pathlib import Path
from typing import Final

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, ValidationError

from compliance.consent import cohort_root
from federation.party import write_atomically
from federation.references import References
from federation.shelves import SHELVES, Shelves, scratch

__all__ = ["cohort_root_of", "kept_cohort_root", "root_of_shelves"]

_SUBJECTS: Final = pa.schema([("subject", pa.large_string())])


class _KeptRoot(BaseModel):
    """The root over people, by the digest of their references."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    people: str
    root: str


def kept_cohort_root(key: bytes, people: References, *, kept: Path) -> str:
    """Return the root over people, in parts by shelf (`compliance.consent.cohort`).

    Args:
        key: the party's `cohort_key`.
        people: their references.
        kept: where it is kept for the next release made from the same people.

    Raises:
        WorkspaceError: the references are damaged, or the disk is full.
    """
    try:
        found = _KeptRoot.model_validate_json(kept.read_bytes())
    except (FileNotFoundError, ValidationError):
        found = None
    if found is not None and found.people == people.digest:
        return found.root
    root = cohort_root_of(key, people, kept.with_name("cohort.tmp"))
    content = _KeptRoot(people=people.digest, root=root).model_dump_json()
    write_atomically(kept, content.encode(), mode=0o600)
    return root


def cohort_root_of(key: bytes, people: References, beside: Path) -> str:
    """Return the root over people, which is kept nowhere.

    Args:
        key: the party's `cohort_key`.
        people: their references.
        beside: where a directory may lie meanwhile.

    Raises:
        WorkspaceError: the references are damaged, or the disk is full.
    """
    with scratch(beside) as directory:
        with Shelves(directory / "people", _SUBJECTS) as shelves:
            for batch in people.batches():
                shelves.put(pa.record_batch([batch], schema=_SUBJECTS))
        return root_of_shelves(key, shelves)


def root_of_shelves(key: bytes, shelves: Shelves) -> str:
    """Return the root over people who lie on shelves already, by their column `subject`."""
    filled, nobody = shelves.filled, pa.array([], _SUBJECTS.field("subject").type)
    parts = (
        shelves.shelf(number)["subject"].combine_chunks() if number in filled else nobody
        for number in range(SHELVES)
    )
    return cohort_root(key, parts)
