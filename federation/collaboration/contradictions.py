"""What a collaboration file says that cannot be, though each key by itself is well-formed.

Guarantees: each check looks at whatever is there, however much else is wrong, so that its author
reads every mistake at once; what is found in a table is counted and never quoted.

Leaves to others: the form of keys and values (`mistakes`), contradictions between the contract's
own terms (`compliance.agreement`).
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from compliance.consent import REQUIRED_COLUMNS
from compliance.terms import MatchTerms, Role
from connectors import FileSource, open_connector
from connectors.errors import ConnectorError, other_spelling
from federation.collaboration.mistakes import either, well_formed
from federation.party import DataConfig, TableConfig
from federation.population import open_source
from federation.suppression import COLUMN

__all__ = ["job_contradictions", "party_contradictions", "source_contradictions"]

Document = Mapping[str, Any]
"""A parsed TOML file, of which nothing is known."""

_PEOPLE: Final = (Role.BRAND, Role.PARTNER)
_OTHERS: Final = (Role.COORDINATOR, Role.AUDITOR)
_BUILDS_ON: Final[Mapping[str, Mapping[str, str]]] = {
    "train": {"match": "match", "replaces": "train"},
    "expand": {"train": "train"},
    "measure": {"match": "match"},
    "train-vertical": {"align": "align", "replaces": "train-vertical"},
    "score-vertical": {"train": "train-vertical", "align": "align"},
}
"""Of each kind of job, the keys that name jobs it builds on, and the kind of those."""
_KINDS: Final = ("match", "align", *_BUILDS_ON)
_UNKNOWN: Final = "unknown"


def party_contradictions(document: Document) -> Iterator[str]:
    """Look at what each party brings, given its role."""
    seen: set[str] = set()
    features, keys = _feature_names(document), _match_keys(document)
    for index, party in _tables(document, "parties"):
        name, role = party.get("name"), party.get("role")
        if isinstance(name, str) and name in seen:
            yield f"parties[{index}].name: {name!r} is taken by an earlier party"
        seen.add(str(name))
        for key in ("data", "consent", "declared_rows"):
            if role in _PEOPLE and key not in party:
                yield f"parties[{index}].{key}: is missing; add it: a {role} brings its people"
            if role in _OTHERS and key in party:
                yield f"parties[{index}].{key}: a {role} brings no people; remove it"
        data = _table(party.get("data"))
        if "seeds" in data and role != Role.BRAND:
            yield f"parties[{index}].data.seeds: only the brand has seeds; remove it"
        for unknown in sorted(_table(data.get("identifiers")).keys() - set(keys)):
            yield (
                f"parties[{index}].data.identifiers.{unknown}: is none of agreement.match.keys; "
                f"allowed: {either(keys) if keys else 'none, since none is agreed'}"
            )
        if "labels" in data and role != Role.BRAND:
            yield f"parties[{index}].data.labels: only the brand has labels; remove it"
        agreed = [*features, *_held_names(document, name)]
        for unknown in sorted(_table(data.get("features")).keys() - set(agreed)):
            yield (
                f"parties[{index}].data.features.{unknown}: is none of agreement.features; "
                f"allowed: {either(agreed) if agreed else 'none, since none is agreed'}"
            )


def job_contradictions(document: Document) -> Iterator[str]:
    """Look at whether each job builds on one that comes before it."""
    before: dict[str, str] = {}
    for index, job in _tables(document, "jobs"):
        name, kind = job.get("name"), job.get("kind")
        if isinstance(name, str) and name in before:
            yield f"jobs[{index}].name: {name!r} is taken by an earlier job"
        for key, needed in _BUILDS_ON.get(str(kind), {}).items():
            wanted = job.get(key)
            if isinstance(wanted, str) and before.get(wanted) not in {needed, _UNKNOWN}:
                fit = [earlier for earlier, had in before.items() if had == needed]
                allowed = f"allowed: {either(fit)}" if fit else f"list a {needed} job before it"
                yield (
                    f"jobs[{index}].{key}: found {wanted!r}, which is no {needed} job listed "
                    f"before; {allowed}"
                )
        before[str(name)] = str(kind) if kind in _KINDS else _UNKNOWN


def source_contradictions(document: Document, directory: Path) -> Iterator[str]:
    """Look for the files, tables and columns; relative paths are taken from `directory`."""
    features = _feature_names(document)
    for index, party in _tables(document, "parties"):
        place, consent = f"parties[{index}]", party.get("consent")
        if isinstance(consent, str) and not (directory / consent).is_file():
            yield (
                f"{place}.consent: there is no file {directory / consent}: name the CSV or Parquet "
                "file of the party's consent events"
            )
        yield from _table_mistakes(f"{place}.consent", consent, REQUIRED_COLUMNS, directory)
        yield from _suppression_mistakes(f"{place}.suppression", party, directory)
        data = well_formed(DataConfig, party.get("data"))
        if data is None:
            continue
        try:
            found = open_source(data, directory).columns()
        except ConnectorError as error:
            yield f"{place}.data: {error}"
            continue
        agreed = features if party.get("role") == Role.PARTNER else []
        agreed = list(dict.fromkeys([*agreed, *_held_names(document, party.get("name"))]))
        yield from _column_mistakes(f"{place}.data", data, agreed, found)


def _table_mistakes(
    place: str, named: object, columns: Sequence[str], directory: Path
) -> Iterator[str]:
    if not isinstance(named, Mapping) or (config := well_formed(TableConfig, named)) is None:
        return
    try:
        open_connector(config.source(directory)).scan(columns)
    except ConnectorError as error:
        yield f"{place}: {error}"


def _suppression_mistakes(place: str, party: Mapping[str, Any], directory: Path) -> Iterator[str]:
    if not isinstance(file := party.get("suppression"), str):
        yield from _table_mistakes(place, file, [COLUMN], directory)
        return
    try:
        found = open_connector(FileSource(path=directory / file)).columns()
    except ConnectorError as error:
        yield f"{place}: {error}"
        return
    if COLUMN not in found:
        yield f"{place}: there is no column {COLUMN!r}; {other_spelling([COLUMN], found)}"


def _column_mistakes(
    place: str, data: DataConfig, features: list[str], found: tuple[str, ...]
) -> Iterator[str]:
    named = {"key": data.key}
    named |= dict(data.identifier_columns)
    named |= {f"features.{name}": column for name, column in data.features.items()}
    if data.seeds is not None:
        named["seeds.column"] = data.seeds.column
    if data.labels is not None:
        named["labels.column"] = data.labels.column
    headed = any(column in found for column in named.values())
    for key, column in named.items():
        if column not in found:
            alike = other_spelling([column], found, headed=headed)
            yield f"{place}.{key}: there is no column {column!r}; {alike}"
    lacking = [name for name in features if name not in data.features and name not in found]
    if lacking:
        yield (
            f"{place}.features: there is no column for the agreed {', '.join(map(repr, lacking))}"
            f"; name the column of each, or bring it; "
            f"{other_spelling(lacking, found, headed=headed)}"
        )


def _feature_names(document: Document) -> list[str]:
    terms = _table(document.get("agreement"))
    names = [term.get("name") for _, term in _tables(terms, "features")]
    return [name for name in names if isinstance(name, str)]


def _held_names(document: Document, party: object) -> list[str]:
    """Return the columns that a party brings to vertical training."""
    vertical = _table(_table(document.get("agreement")).get("vertical"))
    held = [one for _, one in _tables(vertical, "columns") if one.get("party") == party]
    return [name for one in held if isinstance(name := one.get("name"), str)]


def _match_keys(document: Document) -> list[str]:
    match = _table(_table(document.get("agreement")).get("match"))
    listed = match.get("keys")
    named = listed if isinstance(listed, list) else MatchTerms.model_fields["keys"].default
    return [key for key in named if isinstance(key, str)]


def _table(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _tables(document: Document, key: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    values = document.get(key)
    for index, value in enumerate(values if isinstance(values, list) else []):
        if isinstance(value, Mapping):
            yield index, value
