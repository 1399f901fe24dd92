"""A party's rows of the people whom all parties know, in the order that all share.

```
jobs/JOB/
  people/       whose rows they are, of those who may be used (`members`)
  rows.npz      encoded columns of every aligned person, labels at the brand, and who may be used
```

Guarantees: rows are found by the party's record references, so that a table in another order gives
the same rows. Somebody who has no consent here, or is not in the table any more, keeps the place
and brings nothing. Who that is at a partner, no other party sees; at the brand, partners see a
residual of 0, which others have too where people have no label or judge trees, and nobody else has
with ridges where every other label is known. A reference that names another person than when
people were aligned is refused. Every use is about the same people, whose consent the gate reads
again each time.

Leaves to others: who may be used (`population`), what is computed (`assisting`).
"""

import hashlib
import shutil
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from compliance.terms import Role, VerticalTerms
from federation.desk import Desk
from federation.errors import MessageError, WorkspaceError
from federation.gate import Minimum
from federation.jobs.message_room import check_aligned
from federation.matching.token_set import MatchingSet, TokenBatch
from federation.members import Members, save_people
from federation.party import LabelRule
from federation.people_used import PeopleUsed
from federation.population import Population, Use, encoder_of
from federation.references import References
from federation.shelves import scratch
from federation.specification import VerticalScoreSpec, VerticalTrainSpec
from federation.stored_arrays import stored_arrays, write_arrays

__all__ = [
    "AlignedRows",
    "aligned_members",
    "aligned_tokens",
    "bring_aligned",
    "tokens_by_person",
    "vertical_terms",
]

_TOKEN_BYTES = 33
_UNKNOWN = -1


@dataclass(frozen=True, eq=False)
class AlignedRows:
    """A party's rows.

    Attributes:
        used: whose they are, as the gate wants them declared.
        features: encoded columns of every aligned person, shape (n, width); 0 for who is left out.
        present: who may be used here, shape (n,).
        labels: 1, 0, or -1 for none, shape (n,); all -1 but at the brand.
        minimum: people that it takes.
        who: digest of the aligned people in their order, by the identifiers that they were aligned
            by: the same at all parties, or their masks do not go away.
    """

    used: PeopleUsed
    features: NDArray[np.float64]
    present: NDArray[np.bool_]
    labels: NDArray[np.int8]
    minimum: Minimum
    who: str


def vertical_terms(desk: Desk) -> VerticalTerms:
    """Return the agreed terms.

    Raises:
        RefusedError: there are none.
    """
    terms = desk.agreement.vertical
    if terms is None:
        raise desk.refusal("vertical.columns", "no vertical training is agreed: agree on it")
    return terms


def aligned_members(desk: Desk, align: str) -> Members:
    """Return who was aligned, in the order that all parties share.

    Raises:
        RefusedError: the alignment has not ended here.
    """
    path = desk.folder.job(align) / "aligned.npz"
    try:
        return Members.load(path, desk.taking_part(align))
    except FileNotFoundError as error:
        raise desk.refusal(
            "vertical.align", f"alignment {align!r} has not ended here: run it first"
        ) from error


def aligned_tokens(desk: Desk, align: str, members: Members) -> NDArray[np.uint8]:
    """Return the token by which each person was aligned, in the order that all parties share.

    Args:
        desk: the party's.
        align: the alignment.
        members: who was aligned by it.

    Returns:
        Shape (n, 33).

    Raises:
        RefusedError: its set is gone.
    """
    return tokens_by_person(_set_of(desk, align), len(members.used.keys))[members.rows]


def bring_aligned(desk: Desk, spec: VerticalTrainSpec | VerticalScoreSpec) -> AlignedRows:
    """Return the rows that a party brings to a job, which are read at first use.

    Raises:
        RefusedError: the alignment has not ended here, or the table changed since, or an earlier
            version began the job.
        MessageError: the job began with another alignment.
        WorkspaceError, ConnectorError, ComplianceError: they cannot be read.
    """
    path = desk.folder.job(spec.name) / "rows.npz"
    if not path.exists():
        _read(desk, spec)
    with stored_arrays(path) as stored:
        if stored.text("align") != spec.align:
            raise MessageError(f"job {spec.name!r} began with people of another alignment")
        if "who" not in stored:
            raise desk.refusal(
                "vertical.align",
                f"job {spec.name!r} began under an earlier version of Comity, whose masks are "
                "others: run it anew, under another name",
            )
        used = desk.taking_part(spec.name)
        least = vertical_terms(desk).minimum_people
        present = stored.array("present", np.bool_, None)
        return AlignedRows(
            used,
            stored.array("features", np.float64, len(present), None),
            present,
            stored.array("labels", np.int8, len(present)),
            Minimum("vertical.minimum_people", len(used.keys), least),
            stored.text("who"),
        )


def _read(desk: Desk, spec: VerticalTrainSpec | VerticalScoreSpec) -> None:
    """Read the aligned people, if a message can tell of so many.

    1. Read everybody, with what the agreement says this party brings.
    2. Find the aligned ones, by reference; those who are there are who they were.
    3. Leave on disk who they are, then their rows.
    """
    folder, terms, job = desk.folder, vertical_terms(desk), spec.name
    members, alignment = aligned_members(desk, spec.align), desk.agreement.match.alignment
    check_aligned(len(members), folder.name)
    if alignment is None:
        raise desk.refusal("match.alignment", "no alignment is agreed: agree on one")
    columns, rule = terms.held_by(folder.name), _label_rule(desk, spec)
    use = Use(
        terms.purpose,
        desk.clock(),
        key=alignment.key,
        columns=columns,
        with_labels=rule is not None,
    )
    with scratch(folder.job(job) / "reading.tmp") as beside:
        people = desk.population(job, use, beside)  # 1
        tokens = tokens_by_person(people.tokens, len(people.keys))
    place = _places(people, members)  # 2
    present = place >= 0
    before = aligned_tokens(desk, spec.align, members)
    if not np.array_equal(before[present], tokens[place[present]]):
        raise desk.refusal(
            "vertical.align",
            f"records of {folder.name} name other people than when alignment {spec.align!r} ran: "
            "align again, under another name, and use that",
        )
    rows = encoder_of(columns).encode(people.features)
    features = np.zeros((len(members), rows.shape[1]))
    features[present] = rows[place[present]]
    labels = np.full(len(members), _UNKNOWN, dtype=np.int8)
    if rule is not None and people.labels is not None:
        labels[present] = _labels(people.labels, rule)[place[present]]
    used = _save_used(desk, job, people, place[present])  # 3
    desk.gate.consent.keep(job, people.heard, people.heard_rows, used)
    desk.tell_findings(job, people)
    if present.any() and not np.ptp(features[present], axis=0).any():
        desk.tell(job, "data: no column differs between people; they can add nothing")
    desk.tell(job, "brings its columns of the aligned people", used)
    write_arrays(
        folder.job(job) / "rows.npz",
        features=features,
        present=present,
        labels=labels,
        align=spec.align,
        who=_digest(before),
    )


def _label_rule(desk: Desk, spec: VerticalTrainSpec | VerticalScoreSpec) -> LabelRule | None:
    """Return what the brand's labels are, if they are wanted."""
    config = desk.folder.config
    if config.role is not Role.BRAND or isinstance(spec, VerticalScoreSpec):
        return None
    if config.data is None or config.data.labels is None:
        raise WorkspaceError(
            f"{desk.folder.path / 'party.json'} names no labels, and job {spec.name!r} "
            "learns them: add data.labels"
        )
    return config.data.labels


def _labels(values: NDArray[np.object_], rule: LabelRule) -> NDArray[np.int8]:
    """Return 1, 0, or -1 for each value."""
    others = 0 if rule.negative is None else _UNKNOWN
    labels = np.full(len(values), others, dtype=np.int8)
    labels[values == rule.positive] = 1
    if rule.negative is not None:
        labels[values == rule.negative] = 0
    return labels


def _places(people: Population, members: Members) -> NDArray[np.int64]:
    """Return where each aligned person stands among the people now, below 0 for nowhere."""
    import pandas as pd

    now = pd.Index(people.keys.astype(object))
    found = now.get_indexer(pd.Index(members.references().to_numpy(zero_copy_only=False)))
    return np.asarray(found, dtype=np.int64)


def _digest(tokens: NDArray[np.uint8]) -> str:
    return hashlib.sha256(tokens.tobytes()).hexdigest()


def _set_of(desk: Desk, align: str) -> Iterable[TokenBatch]:
    own = MatchingSet.open(desk.folder.job(align) / "set")
    if own is None:
        raise desk.refusal("vertical.align", f"the set of alignment {align!r} is gone: align again")
    return (own.bucket(0, 1),)


def tokens_by_person(batches: Iterable[TokenBatch], count: int) -> NDArray[np.uint8]:
    """Return the token of each of `count` people, shape (count, 33); zeros for who has none."""
    found = np.zeros((count, _TOKEN_BYTES), dtype=np.uint8)
    for batch in batches:
        found[batch.rows] = batch.tokens
    return found


def _save_used(desk: Desk, job: str, people: Population, chosen: NDArray[np.int64]) -> PeopleUsed:
    place = desk.folder.job(job) / "people"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(mode=0o700, parents=True)
    keys = pa.array(people.keys[np.sort(chosen)], pa.large_string())
    used = PeopleUsed(
        people.used.purpose,
        References.write(place / "used.arrow", (keys,)),
        people.used.rows,
        dict(people.used.excluded) | {"not_aligned": len(people.keys) - len(chosen)},
        linked=References.write(place / "linked.arrow", people.used.linked.batches()),
    )
    save_people(place, used)
    return used
