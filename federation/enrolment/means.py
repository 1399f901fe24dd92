"""Where a party's people lie and what else it brings, in a file of its own that nobody else sees.

```toml
consent = "consents.csv"

[data]
path = "people.csv"
key = "record"
identifiers = { email = "email" }
```

`consent` and `suppression` are files, or tables: `{ url = "postgresql://…", table = "…" }`.

Guarantees: what the file says fits the draft that the party accepts, and the files, tables and
columns that it names exist at that moment; all mistakes are reported at once. Nothing of it leaves.

Leaves to others: reading people (`population`), the party's folder (`party`).
"""

import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from compliance.draft import Draft
from compliance.terms import DATA_ROLES
from federation.collaboration.contradictions import party_contradictions, source_contradictions
from federation.collaboration.mistakes import explain, to_json
from federation.errors import CollaborationError
from federation.party import DataConfig, FileOrTable, PartyConfig, SegmentsConfig
from federation.rr22.configuration import Rr22Config
from federation.workers import WorkersConfig

__all__ = ["PartyMeans", "load_means"]


class PartyMeans(BaseModel):
    """What a party's own file says; every key is one of `PartyConfig`, paths from the file's place.

    Attributes:
        data, consent: its people and their consent events; of the brand and partners.
        suppression, segments: who is in no segment, and where segments go; of partners.
        workers, ledger, database, rr22: as in `PartyConfig`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    data: DataConfig | None = None
    consent: FileOrTable | None = None
    suppression: FileOrTable | None = None
    segments: SegmentsConfig | None = None
    workers: WorkersConfig | None = None
    ledger: str | None = None
    database: str | None = None
    rr22: Rr22Config | None = None


def load_means(file: Path, draft: Draft, party: str) -> PartyConfig:
    """Read a party's own file, and return the configuration of its folder.

    1. It is TOML, every key known and well-formed.
    2. It fits the party's role and the terms.
    3. What it names exists.

    Raises:
        CollaborationError: with every mistake that could be found.
    """
    try:
        document = tomllib.loads(file.read_text(encoding="utf-8-sig"))
        means = PartyMeans.model_validate_json(to_json(document), strict=True)  # 1
    except OSError as error:
        raise CollaborationError(file, [f"cannot be read: {error.strerror}"]) from error
    except ValidationError as error:
        raise CollaborationError(file, explain(error, PartyMeans)) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise CollaborationError(file, [f"is not TOML in UTF-8: {error}"]) from error
    place = file.resolve().parent
    if mistakes := tuple(_mistakes(document, means, draft, party, place)):
        raise CollaborationError(file, mistakes)
    return PartyConfig(
        name=party,
        role=draft.party(party).role,
        data=means.data and means.data.within(place),
        consent=_within(means.consent, place),
        suppression=_within(means.suppression, place),
        segments=means.segments and means.segments.within(place),
        workers=means.workers,
        ledger=means.ledger,
        database=means.database,
        rr22=means.rr22,
    )


def _within(named: FileOrTable | None, place: Path) -> FileOrTable | None:
    return place / named if isinstance(named, Path) else named and named.within(place)


def _mistakes(
    document: Mapping[str, Any], means: PartyMeans, draft: Draft, party: str, place: Path
) -> Iterator[str]:
    agreement = draft.for_reading()
    role = draft.party(party).role
    section: dict[str, Any] = {**document, "name": party, "role": role.value}
    if role in DATA_ROLES:
        section["declared_rows"] = agreement.dataset(party).declared_rows
    whole = {"parties": [section], "agreement": agreement.model_dump(mode="json")}
    for mistake in (*party_contradictions(whole), *source_contradictions(whole, place)):  # 2, 3
        yield mistake.replace("parties[0].", "")
    if means.data is None or role not in DATA_ROLES:
        return
    dataset = agreement.dataset(party)
    agreed, brought = set(dataset.identifiers), set(means.data.identifiers)
    if lacking := sorted(agreed - brought):
        yield f"data.identifiers: the terms say that {party} brings {', '.join(lacking)} too"
    if surplus := sorted(brought - agreed):
        yield f"data.identifiers: the terms know no {', '.join(surplus)} of {party}; remove it"
    if means.data.identifiers_per_person > dataset.identifiers_per_person:
        yield (
            f"data.identifiers: {means.data.identifiers_per_person} identifiers a row, and the "
            f"terms say {dataset.identifiers_per_person}: name fewer columns"
        )
