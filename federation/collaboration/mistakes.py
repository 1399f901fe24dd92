"""A person's mistakes in a file, in plain words: which key, what was found, what is allowed.

Guarantees: one line for each thing that pydantic found; what is allowed is read from the model
itself, so that the two cannot disagree.

Leaves to others: contradictions between keys that are well-formed one by one (`collaboration`).
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from functools import cache
from typing import Any, Final, TypeVar

from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from federation.specification import ContradictoryJobError, JobSpec

__all__ = ["either", "explain", "overlooked", "to_json", "well_formed"]

Model = TypeVar("Model", bound=BaseModel)

Schema = Mapping[str, Any]
"""JSON Schema, as pydantic writes it."""

_WORDS: Final[Mapping[str, str]] = {
    "array": "a list",
    "boolean": "true or false",
    "date-time": "a date and time with its time zone, such as 2026-01-31T00:00:00Z",
    "integer": "a whole number",
    "number": "a number",
    "object": "a table",
    "path": "a path in quotes",
    "string": "text in quotes",
}
_BOUNDS: Final[Mapping[str, str]] = {
    "minimum": "at least {}",
    "exclusiveMinimum": "above {}",
    "maximum": "at most {}",
    "exclusiveMaximum": "below {}",
    "minItems": "at least {} in it",
    "minProperties": "at least {} in it",
    "maxItems": "at most {} in it",
}
_LARGEST_INTEGER: Final = 2**53 - 1  # a bound of RFC 8785, of which no person need hear
_LONGEST_SHOWN: Final = 60


def explain(error: ValidationError, model: type[BaseModel]) -> list[str]:
    """Say what is wrong, a line a mistake: `key: found …; allowed: …`.

    Args:
        error: of a document that its own author will read: the lines quote it.
        model: which refused it.
    """
    schema = _schema(model)
    return [line for one in error.errors(include_url=False) for line in _lines(one, schema)]


def overlooked(job: Any) -> list[str]:
    """Say what a job contradicts in its sound keys, where others of its keys are malformed.

    A job is held against itself only where every key is well-formed: `explain` tells the others,
    and this what it could not see yet.
    """
    _, malformed = _looked_at(job)
    if not malformed:
        return []
    error, _ = _looked_at({key: value for key, value in job.items() if key not in malformed})
    contradictory = None if error is None else _contradictory(error.errors()[0])
    found = () if contradictory is None else contradictory.found
    return [one.told for one in found if not one.keys & malformed]


def _looked_at(job: Any) -> tuple[ValidationError | None, frozenset[str]]:
    """Return what is wrong with a job, and its malformed keys."""
    try:
        TypeAdapter[Any](JobSpec).validate_json(to_json(job), strict=True)
    except ValidationError as error:
        places = [one["loc"] for one in error.errors()]
        return error, frozenset(str(place[1]) for place in places if len(place) > 1)
    return None, frozenset()


def _contradictory(details: ErrorDetails) -> ContradictoryJobError | None:
    error = details.get("ctx", {}).get("error")
    return error if isinstance(error, ContradictoryJobError) else None


def well_formed(model: type[Model], section: Any) -> Model | None:
    """Read a section by itself, or return None; unknown keys, which `explain` tells, are let be."""
    try:
        return model.model_validate_json(to_json(section), strict=True)
    except ValidationError as error:
        unknown = [one["loc"] for one in error.errors() if one["type"] == "extra_forbidden"]
        if not unknown:
            return None
    known = json.loads(to_json(section))
    for *above, name in unknown:
        table: Any = known
        for part in above:
            found = table.get(part) if isinstance(table, dict) else table[part]
            if isinstance(found, dict | list):  # else it is the kind of a union's member
                table = found
        del table[name]
    return well_formed(model, known)


def to_json(document: Any) -> str:
    """Write what TOML says as JSON, dates as text: strict models read that as it was meant."""
    return json.dumps(document, default=lambda moment: moment.isoformat())


def either(values: Iterable[object]) -> str:
    """List what is allowed: `'a'`, `'a' or 'b'`, `'a', 'b' or 'c'`."""
    *others, last = [repr(value) for value in values]
    return f"{', '.join(others)} or {last}" if others else last


@cache
def _schema(model: type[BaseModel]) -> Schema:
    return model.model_json_schema()


def _lines(details: ErrorDetails, schema: Schema) -> list[str]:
    if (contradictory := _contradictory(details)) is None:
        return [_line(details, schema)]
    key, _ = _follow(schema, details["loc"])
    return [f"{key}: {one.told}" for one in contradictory.found]


def _line(details: ErrorDetails, schema: Schema) -> str:
    kind, found, place = details["type"], details.get("input"), details["loc"]
    *above, name = place or ("",)
    if kind == "extra_forbidden":
        known = list(_follow(schema, above)[1].get("properties", ()))
        return f"{_follow(schema, place)[0]}: is not a known key; {_meant(str(name), known)}"
    if name == "[key]":
        key, node = _follow(schema, above[:-1])
        allowed = _allowed(schema, node.get("propertyNames", {}))
        return f"{key}: found the key {found!r}; allowed: {allowed}"
    key, node = _follow(schema, place)
    key = key or "the file"
    if choice := node.get("discriminator"):
        key, allowed = f"{key}.{choice['propertyName']}", either(choice["mapping"])
        found = details.get("ctx", {}).get("tag")
        return f"{key}: " + (f"found {found!r}; allowed: {allowed}" if found else _absent(allowed))
    match kind:
        case "missing":
            return f"{key}: {_absent(_allowed(schema, node))}"
        case "value_error" | "terms":
            return f"{key}: {details.get('ctx', {}).get('error', details['msg'])}"
        case _:
            return f"{key}: found {_shown(found)}; allowed: {_allowed(schema, node)}"


def _absent(allowed: str) -> str:
    return f"is missing; add it: {allowed}"


def _meant(name: str, known: Sequence[str]) -> str:
    close = get_close_matches(name, known, n=1)
    return f"did you mean {close[0]!r}?" if close else f"allowed: {either(known)}"


def _follow(schema: Schema, place: Sequence[int | str]) -> tuple[str, Schema]:
    """Return the key as one writes it in TOML, and the schema of what belongs there."""
    key, node = "", schema
    for part in place:
        if choice := node.get("discriminator"):
            node = {"$ref": choice["mapping"][part]}  # which of the kinds it is: no key
        elif isinstance(part, int):
            key, node = f"{key}[{part}]", node.get("items", {})
        else:
            key = f"{key}.{part}"
            node = node.get("properties", {}).get(part, node.get("additionalProperties") or {})
        node = _resolved(schema, node)
    return key.lstrip("."), node


def _resolved(schema: Schema, node: Schema) -> Schema:
    """Return the schema that `node` refers to, leaving out that it may be absent."""
    if "anyOf" in node:
        node = next(one for one in node["anyOf"] if one.get("type") != "null")
    while "$ref" in node:
        node = schema["$defs"][node["$ref"].rsplit("/", 1)[-1]]
    return node


def _allowed(schema: Schema, node: Schema) -> str:
    node = _resolved(schema, node)
    if "enum" in node or "const" in node:
        return either(node.get("enum") or [node["const"]])
    kind = node.get("type", "string")
    if kind == "string" and "description" in node:
        return str(node["description"])
    words = _WORDS.get(node.get("format", kind), _WORDS[kind])
    node = {key: value for key, value in node.items() if value != _LARGEST_INTEGER}
    least, most = node.get("minimum"), node.get("maximum")
    if least is not None and most is not None:
        return f"{words} from {least} to {most:,}" if least < most else str(least)
    bounds = " and ".join(said.format(node[key]) for key, said in _BOUNDS.items() if key in node)
    return f"{words}, {bounds}" if bounds else words


def _shown(found: object) -> str:
    match found:
        case bool():
            return str(found).lower()
        case Mapping():
            return "a table" if found else "an empty table"
        case list() | tuple():
            return "a list" if found else "an empty list"
        case _:
            text = repr(found)
            return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}…"
