"""What can go wrong in `connectors`, split by who can act.

```
ConnectorError
├── SourceNotFoundError      the file or table is not there: correct the source
├── MissingColumnError       the source lacks columns: correct the schema or the source
├── SourceFormatError        the source is there but cannot be understood: repair the source
└── SourceUnavailableError   disk, rights, network or database refuse: the operator acts
```

A call that no source could serve (no columns, a batch of no rows) is a `ValueError` or `TypeError`.
No message carries a value that was read. The libraries beneath quote whole rows in theirs, so the
errors of reading are raised `from None`; only a failed connection keeps its cause.
"""

from collections.abc import Sequence

__all__ = [
    "ConnectorError",
    "MissingColumnError",
    "SourceFormatError",
    "SourceNotFoundError",
    "SourceUnavailableError",
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
        found: the columns of the source.
    """

    def __init__(self, source: str, *, expected: Sequence[str], found: Sequence[str]) -> None:
        self.source = source
        self.expected = tuple(expected)
        self.found = tuple(found)
        self.missing = tuple(name for name in expected if name not in found)
        super().__init__(
            f"{source} lacks {_quoted(self.missing)}: expected the columns {_quoted(expected)}, "
            f"found {_quoted(found)}; correct the schema or add the columns to the source"
        )


class SourceFormatError(ConnectorError):
    """The source is there, but what it holds cannot be understood as a table."""


class SourceUnavailableError(ConnectorError):
    """The system that holds the source refuses or cannot be reached."""


def _quoted(names: Sequence[str]) -> str:
    return ", ".join(repr(name) for name in names) or "none"
