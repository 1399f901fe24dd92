"""The spelling of a plain leaf, as a regular expression: read in one step what needs no more.

Guarantees: what `Spelling.read` returns is what the model reads from the same bytes, and those are
canonical (`tests/test_leaf_spelling.py` holds the two against each other). Whatever it is not sure
of, it leaves alone.

Leaves to others: every leaf that it returns None for, which may yet hold (`parse_leaf`); kinds with
numbers that are not counts, with free text, or with a field that is not always spelt.
"""

import re
from collections.abc import Callable
from datetime import datetime
from functools import lru_cache
from itertools import pairwise
from typing import Any, Final, Literal, get_args, get_origin, get_type_hints

from pydantic import BaseModel

from compliance.records.leaf import (
    MOST_NAMES,
    Clauses,
    Count,
    Counts,
    Digest,
    Label,
    Leaf,
    Name,
    Parties,
    Positive,
    Recipients,
    Time,
)

__all__ = ["Spelling"]

_NAME: Final = "[A-Za-z0-9][A-Za-z0-9._:/ -]{0,127}+"
_LABEL: Final = "[A-Za-z0-9][A-Za-z0-9._:/ -]{0,62}+"
_REASON: Final = "[A-Za-z0-9][A-Za-z0-9._:/ -]{0,31}+"
_PLACE: Final = "(?:0|[1-9][0-9]?|1[01][0-9]|12[0-7])"

_TIME: Final = (
    r"(?:19[7-9][0-9]|2[0-9]{3})-[0-9]{2}-[0-9]{2}T(?:[01][0-9]|2[0-3]):[0-9]{2}:[0-9]{2}"
    r"(?:\.(?!000000)[0-9]{6})?Z"
)

_Read = Callable[[str], object]


@lru_cache(maxsize=256)  # many leaves say the same
def _names(text: str) -> tuple[str, ...]:
    return tuple(text[2:-2].split('","')) if len(text) > 2 else ()


@lru_cache(maxsize=256)  # likewise
def _told(text: str) -> tuple[str, ...] | tuple[int, ...]:
    """Read parties by name, or by places; raise ValueError where those do not rise."""
    if len(text) == 2 or text[1] == '"':
        return _names(text)
    places = tuple(map(int, text[1:-1].split(",")))
    if any(after <= before for before, after in pairwise(places)):
        raise ValueError("expected places that rise")
    return places


def _counts(text: str) -> dict[str, int]:
    """Read members, whose names are sorted and differ; raise ValueError else.

    Names of that alphabet sort alike by code points and by UTF-16 (RFC 8785 §3.2.3).
    """
    found = {}
    before = ""
    for member in text[1:-1].split(",") if len(text) > 2 else ():
        name, _, count = member.rpartition(":")
        if (name := name[1:-1]) <= before:
            raise ValueError("expected sorted names")
        found[name] = int(count)
        before = name
    return found


_put_dict, _put_fields_set, _put_extra, _put_private = (
    BaseModel.__dict__[name].__set__
    for name in (
        "__dict__",
        "__pydantic_fields_set__",
        "__pydantic_extra__",
        "__pydantic_private__",
    )
)
"""What `object.__setattr__` finds by name; models are frozen."""


_GROUP: Final = re.compile(r"\((?!\?)")

_SOME: Final = (
    rf'"{_NAME}"(?:,"{_NAME}"){{0,{MOST_NAMES - 1}}}|{_PLACE}(?:,{_PLACE}){{0,{MOST_NAMES - 1}}}'
)
_MEMBER: Final = f'"{_REASON}":(?:0|[1-9][0-9]{{0,14}})'

_GRAMMAR: Final[tuple[tuple[object, str, _Read | None], ...]] = (
    (Name, f'"({_NAME})"', None),
    (Name | None, f'(?:null|"({_NAME})")', None),
    (Label, f'"({_LABEL})"', None),
    (Label | None, f'(?:null|"({_LABEL})")', None),
    (Digest, '"([0-9a-f]{64})"', None),
    (Digest | None, '(?:null|"([0-9a-f]{64})")', None),
    (Parties, rf"(\[(?:{_SOME})\])", _told),
    (Recipients, rf"(\[(?:{_SOME})?\])", _told),
    (Counts, rf"(\{{(?:{_MEMBER}(?:,{_MEMBER}){{0,15}})?\}})", _counts),
    (Clauses, rf'(\[(?:"{_NAME}"(?:,"{_NAME}"){{0,15}})?\])', _names),
    # Fifteen digits at most: a count of sixteen may be too large.
    (Count, "(0|[1-9][0-9]{0,14})", int),
    (Positive, "([1-9][0-9]{0,14})", int),
    (bool, "(true|false)", "true".__eq__),
    (
        Time,
        f'"({_TIME})"',
        datetime.fromisoformat,
    ),
    (
        Time | None,
        f'(?:null|"({_TIME})")',
        lambda text: None if text is None else datetime.fromisoformat(text),
    ),
)
"""Annotation of a field, its canonical spellings of which one group is the value, what it means."""


class Spelling:
    """How one kind of leaf is spelt."""

    def __init__(
        self, kind: type[Leaf], pattern: str, fields: tuple[tuple[str, _Read | None], ...]
    ) -> None:
        self._kind = kind
        # Rules across fields; `_refuse` is about the error alone.
        self._rules = [
            getattr(kind, name)
            for name in kind.__pydantic_decorators__.model_validators
            if name != "_refuse"
        ]
        self._match = re.compile(pattern).fullmatch
        self._reads = tuple((name, read) for name, read in fields if read is not None)
        # In the model's order; what is not in `fields` is fixed.
        self._all: dict[str, Any] = {
            name: field.default for name, field in kind.model_fields.items()
        }
        self._set = set(kind.model_fields)

    @classmethod
    def of(cls, kind: type[Leaf]) -> "Spelling | None":
        """Return how a kind is spelt; None where reading it takes more than its fields' spelling.

        Fields are spelt in the order of their names (RFC 8785 §3.2.3), all of them.
        """
        rules = kind.__pydantic_decorators__.model_validators
        if any(rule.info.mode != "after" for name, rule in rules.items() if name != "_refuse"):
            return None
        if any(field.exclude_if is not None for field in kind.model_fields.values()):
            return None
        members: list[str] = []
        fields: list[tuple[str, _Read | None]] = []
        for name, annotation in sorted(get_type_hints(kind, include_extras=True).items()):
            if name not in kind.model_fields:
                continue
            if get_origin(annotation) is Literal and len(get_args(annotation)) == 1:
                (value,) = get_args(annotation)
                spelt = f'"{value}"' if isinstance(value, str) else str(value)
                members.append(f'"{name}":{re.escape(spelt)}')
                continue
            for known, spelling, read in _GRAMMAR:
                if annotation == known:
                    named = _GROUP.sub(f"(?P<{name}>", spelling, count=1)
                    members.append(f'"{name}":{named}')
                    fields.append((name, read))
                    break
            else:
                return None
        return cls(kind, r"\{" + ",".join(members) + r"\}", tuple(fields))

    def read(self, text: str) -> Any | None:
        """Return the record that a text spells; None where the model has to be asked."""
        if (found := self._match(text)) is None:
            return None
        values = self._all | found.groupdict()
        # As `model_construct`, which takes as long as reading: every field is there, and checked.
        record = self._kind.__new__(self._kind)
        try:
            for name, read in self._reads:
                values[name] = read(values[name])
            _put_dict(record, values)
            _put_fields_set(record, self._set)
            _put_extra(record, None)
            _put_private(record, None)
            for rule in self._rules:
                rule(record)
        except ValueError:
            return None  # a date that no calendar has, or fields that do not fit together
        return record
