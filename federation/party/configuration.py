"""What a party is, where its data lie, and where what it makes goes.

Leaves to others: reading them (`connectors`), and whether the agreement allows it.
"""

from collections.abc import Iterator, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from compliance.terms import KeyName, Role
from connectors import FileSource, ObjectSource, SqlSource
from federation.rr22.configuration import Rr22Config
from federation.workers import WorkersConfig

__all__ = [
    "JOURNAL",
    "DataConfig",
    "FileOrTable",
    "KeyColumns",
    "LabelRule",
    "PartyConfig",
    "SeedRule",
    "SegmentPlace",
    "SegmentsConfig",
    "TableConfig",
]

_SQLITE: Final = "sqlite:///"

JOURNAL: Final = "consents.csv"
"""Name of the journal into which `comity consent import` brings a party's consents."""


class _Closed(BaseModel):
    # A database's URL holds a password.
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class SeedRule(_Closed):
    """Which of the brand's rows are seeds: those whose `column` holds `equals`."""

    column: str
    equals: str


class LabelRule(_Closed):
    """What the brand's labels are.

    Attributes:
        column: where they stand.
        positive: what the column holds of people with label 1.
        negative: what it holds of people with label 0; all others have none, are not trained on,
            and can be scored. Left out, everybody else has label 0.
    """

    column: str
    positive: str
    negative: str | None = None

    @model_validator(mode="after")
    def _differ(self) -> Self:
        if self.positive == self.negative:
            raise ValueError("positive and negative must differ")
        return self


def _columns(value: object, read: ValidatorFunctionWrapHandler) -> object:
    """Read where a key is, and say in one sentence what could stand there."""
    try:
        return read(tuple(value) if isinstance(value, list) else value)  # JSON has no tuples
    except ValidationError as error:
        raise PydanticCustomError(
            "terms",
            "{error}",
            {"error": "name a column, a list of columns, or a table of a composite key's fields"},
        ) from error


KeyColumns = Annotated[
    str
    | Annotated[tuple[str, ...], Field(min_length=1, max_length=16)]
    | Annotated[Mapping[KeyName, str], Field(min_length=1)],
    WrapValidator(_columns),
]
"""A column, several columns of one kind, or the column of each field of a composite key."""


def _named_columns(place: str, named: KeyColumns) -> Iterator[tuple[str, str]]:
    if isinstance(named, str):
        yield place, named
    elif isinstance(named, Mapping):
        yield from ((f"{place}.{field}", column) for field, column in named.items())
    else:
        yield from ((f"{place}[{index}]", column) for index, column in enumerate(named))


class DataConfig(_Closed):
    """Where a party's people lie and what its columns are called.

    Attributes:
        path: a CSV, CSV.gz or Parquet file; or
        url, table: a database (SQLAlchemy URL) and one of its tables or views; or
        url: objects of an S3-compatible store, `s3://bucket/prefix/people-*.parquet`.
        key: column with the party's own record reference, unique per row.
        identifiers: where each key is by which people are matched: a column, several columns, or
            for a composite key a table of its fields' columns.
        features: the party's column for each agreed feature that it calls otherwise.
        seeds: which rows are seeds (brand only); every row where left out.
        labels: what vertical training learns (brand only).
    """

    path: Path | None = None
    url: str | None = None
    table: str | None = None
    key: str
    identifiers: Mapping[KeyName, KeyColumns] = Field(min_length=1)
    features: Mapping[str, str] = Field(default_factory=dict)
    seeds: SeedRule | None = None
    labels: LabelRule | None = None

    @property
    def identifier_columns(self) -> tuple[tuple[str, str], ...]:
        """Every column that identifies people, after the key in the file that names it."""
        return tuple(
            (place, column)
            for key, named in self.identifiers.items()
            for place, column in _named_columns(f"identifiers.{key}", named)
        )

    @property
    def identifiers_per_person(self) -> int:
        """Identifiers that a row has at most."""
        return sum(
            len(named) if isinstance(named, tuple) else 1 for named in self.identifiers.values()
        )

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        tabled = self.url is not None and not _in_objects(self.url)
        if (self.path is None) == (self.url is None) or tabled == (self.table is None):
            raise ValueError("give either path, or url and table, or the url of objects alone")
        return self

    def within(self, directory: Path) -> Self:
        """Return the same source with a relative file, or SQLite file, taken from `directory`."""
        if self.path is not None:
            return self.model_copy(update={"path": directory / self.path})
        return self.model_copy(update={"url": _sqlite_within(self.url or "", directory)})


class TableConfig(_Closed):
    """A table of a database.

    Attributes:
        url: of the database (SQLAlchemy).
        table: one of its tables or views.
    """

    url: str
    table: Annotated[str, Field(min_length=1)]

    @model_validator(mode="after")
    def _of_a_database(self) -> Self:
        if _in_objects(self.url):
            raise ValueError("a store of objects has no tables")
        return self

    def within(self, directory: Path) -> Self:
        """Return the same table with a relative SQLite file taken from `directory`."""
        return self.model_copy(update={"url": _sqlite_within(self.url, directory)})

    def source(self, directory: Path) -> SqlSource:
        """Return where it is; a relative SQLite file is taken from `directory`."""
        return SqlSource(url=SecretStr(self.within(directory).url), table=self.table)


def _file_or_table(value: object, read: ValidatorFunctionWrapHandler) -> object:
    """Read where a list is, and say in one sentence what could stand there."""
    try:
        return read(value)
    except ValidationError as error:
        raise PydanticCustomError(
            "terms",
            "{error}",
            {"error": "name a file, or a database's table with its url and table"},
        ) from error


FileOrTable = Annotated[Path | TableConfig, WrapValidator(_file_or_table)]
"""A CSV or Parquet file, or a table of a database."""


class SegmentPlace(StrEnum):
    """What a party's segments become."""

    CSV = "csv"
    PARQUET = "parquet"
    SQL = "sql"
    """A table for each, in a database."""


class SegmentsConfig(_Closed):
    """Where a party's segments go.

    Attributes:
        kind: files, or tables.
        url: of the database (SQLAlchemy), with `sql`. The table of a job is called `segment_` and
            the job's name, hyphens as underscores. With another kind, `s3://bucket/prefix`: where
            objects with the job's name go in place of files in its folder.
    """

    kind: SegmentPlace = SegmentPlace.CSV
    url: str | None = None

    @model_validator(mode="after")
    def _fits_kind(self) -> Self:
        in_files = self.url is None or _in_objects(self.url)
        if in_files is (self.kind is SegmentPlace.SQL):
            raise ValueError(
                "give a database's url with kind 'sql', and s3://… or none with others"
            )
        return self

    @property
    def in_objects(self) -> bool:
        """Whether segments become objects of a store."""
        return self.url is not None and _in_objects(self.url)

    def source(self, job: str, folder: Path) -> FileSource | SqlSource | ObjectSource:
        """Return where the segment of a job lies, of the party that has a folder."""
        name = f"{job}.{self.kind}"
        if self.url is None:
            return FileSource(path=folder / "segments" / name)
        if self.in_objects:
            return ObjectSource(url=f"{self.url.rstrip('/')}/{name}")
        url = _sqlite_within(self.url, folder)
        return SqlSource(url=SecretStr(url), table=f"segment_{job.replace('-', '_')}")

    def within(self, directory: Path) -> Self:
        """Return the same place with a relative SQLite file taken from `directory`."""
        return self.model_copy(update={"url": self.url and _sqlite_within(self.url, directory)})


def _in_objects(url: str) -> bool:
    return url.startswith("s3://")


def _sqlite_within(url: str, directory: Path) -> str:
    file = url.removeprefix(_SQLITE)
    if file == url or file.startswith(("/", ":", "file:")):
        return url
    return f"{_SQLITE}{(directory / file).resolve()}"


class PartyConfig(_Closed):
    """What a party is and where its data lies.

    Attributes:
        name: as in the agreement.
        role: as in the agreement.
        data: its people; none for the coordinator.
        consent: its consent events; none for the coordinator.
        suppression: who must never be in a segment; nobody where left out.
        segments: where segments go; CSV files in its folder where left out.
        workers: who does its arithmetic; two threads where left out.
        ledger: URL of the PostgreSQL database that keeps its privacy budget; where left out, that
            of `database`, or a file in its folder.
        database: URL of the database that keeps a copy of all that must not be lost; none where
            left out.
        rr22: what it needs for matches over a direct link; it takes part in none where left out.
        unsafe_seed: makes every secret of this party predictable, for reproducible trials only.
    """

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,62}$")]
    role: Role
    data: DataConfig | None = None
    consent: FileOrTable | None = None
    suppression: FileOrTable | None = None
    segments: SegmentsConfig | None = None
    workers: WorkersConfig | None = None
    ledger: str | None = None
    database: str | None = None
    rr22: Rr22Config | None = None
    unsafe_seed: int | None = None
