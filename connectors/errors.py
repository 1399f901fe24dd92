"""What can go wrong in `connectors`, split by who can act.

```
ConnectorError
├── SourceNotFoundError      the file or table is not there: correct the source
├── MissingColumnError       the source lacks columns: correct the schema or the source
├── SourceFormatError        the source is there but cannot be understood: repair the source
├── ValueMisfitError         a new value does not fit its column: ask whoever corrects for another
├── SourceUnavailableError   disk, rights, network or database refuse: the operator acts
│   └── SourceReadOnlyError  it can be read, and not be changed: nothing was done
├── SinkUnavailableError     likewise, where a list is to be delivered; nothing of it was
└── SinkOccupiedError        something lies there already: move it, or deliver elsewhere
```

A call that no source could serve (no columns, a batch of no rows) is a `ValueError` or `TypeError`.
No message carries a value that was read, nor the names of the columns that were found: in a file
without a header line these are the first person's values. The libraries beneath quote whole rows in
theirs, so the errors of reading are raised `from None`; only a failed connection keeps its cause.
"""

from collections.abc import Sequence
from difflib import get_close_matches
from typing import Final

__all__ = [
    "ConnectorError",
    "MissingColumnError",
    "SinkOccupiedError",
    "SinkUnavailableError",
    "SourceFormatError",
    "SourceNotFoundError",
    "SourceReadOnlyError",
    "SourceUnavailableError",
    "ValueMisfitError",
    "other_spelling",
]


class ConnectorError(Exception):
    """Root of everything that `connectors` raises on purpose."""


class SourceNotFoundError(ConnectorError):
    """There is no such file, database or table."""


class MissingColumnError(ConnectorError):
    """The source lacks columns that were asked for; nothing was read or deleted.

    Attributes:
        source: name of the source.
        missing: the columns asked for that the source lacks.
        expected: every column asked for.
        column_count: how many columns the source has.
    """

    def __init__(self, source: str, *, expected: Sequence[str], found: Sequence[str]) -> None:
        self.source = source
        self.expected = tuple(expected)
        self.column_count = len(found)
        self.missing = tuple(name for name in expected if name not in found)
        super().__init__(
            f"{source} lacks {_quoted(self.missing)}: expected the columns {_quoted(expected)}, "
            f"{other_spelling(self.missing, found)}; correct the schema or add the columns to the "
            "source"
        )


class SourceFormatError(ConnectorError):
    """The source is there, but what it holds cannot be understood as a table."""


class ValueMisfitError(ConnectorError):
    """A new value does not fit the type of its column, or breaks a rule of the table."""


class SourceUnavailableError(ConnectorError):
    """The system that holds the source refuses or cannot be reached."""


class SourceReadOnlyError(SourceUnavailableError):
    """The source can be read, and nobody may change it here; nothing was done."""


_ALIKE: Final = 0.7  # of difflib's ratio: two letters changed places, or one is another


class SinkUnavailableError(ConnectorError):
    """The system that should take a list refuses or cannot be reached; nothing was delivered."""


class SinkOccupiedError(ConnectorError):
    """Something lies already where a list is to be delivered; it was left as it is."""

    def __init__(self, sink: str) -> None:
        super().__init__(
            f"{sink} is taken: something lies there that this delivery did not bring; move it "
            "away, or deliver under another name"
        )


def other_spelling(missing: Sequence[str], found: Sequence[str], *, headed: bool = False) -> str:
    """Say how many columns a table has, and which are missing ones spelt otherwise.

    A found name is told only if it has the letters and digits of a missing one, in their order:
    anything less alike could be a person's value, as the name Emil is like `email`. In a table that
    is known to have a header line, the nearest names are told too.

    Args:
        missing: names that were not found.
        found: the table's.
        headed: whether other names that were looked for are among those found.
    """
    bare = {_bare(name) for name in missing} - {""}
    alike = [name for name in found if _bare(name) in bare]
    if headed:
        near = (get_close_matches(name, found, n=1, cutoff=_ALIKE) for name in missing)
        alike = list(dict.fromkeys([*alike, *(name for names in near for name in names)]))
    told = f"the table has {len(found)} column{'' if len(found) == 1 else 's'}"
    if alike:
        return f"{told}, among them {_quoted(alike)}"
    return f"{told}, none spelt alike" + ("" if headed else ": has the file a header line?")


def _bare(name: str) -> str:
    return "".join(filter(str.isalnum, name.casefold()))


def _quoted(names: Sequence[str]) -> str:
    return ", ".join(repr(name) for name in names) or "none"
