"""Where people's data lives: how it is read, counted, deleted and judged.

A party describes its table by a `FileSource`, `SqlSource` or `ObjectSource` and a `Schema`;
`open_connector` and `read_table` do the rest. Whether any of it may be done is not decided here.
"""

from connectors.connector import Connector, FileSource, ObjectSource, SqlSource, open_connector
from connectors.errors import (
    ConnectorError,
    MissingColumnError,
    SinkOccupiedError,
    SinkUnavailableError,
    SourceFormatError,
    SourceNotFoundError,
    SourceReadOnlyError,
    SourceUnavailableError,
    ValueMisfitError,
)
from connectors.file_sinks import CsvSink, ParquetSink
from connectors.files import CsvConnector, ParquetConnector
from connectors.fingerprints import fingerprints
from connectors.quality import QualityReport, TableReading, read_table
from connectors.schema import Classification, Column, ColumnType, Schema
from connectors.sink import Sink
from connectors.sinks import open_sink

__all__ = [
    "Classification",
    "Column",
    "ColumnType",
    "Connector",
    "ConnectorError",
    "CsvConnector",
    "CsvSink",
    "FileSource",
    "MissingColumnError",
    "ObjectSource",
    "ParquetConnector",
    "ParquetSink",
    "QualityReport",
    "Schema",
    "Sink",
    "SinkOccupiedError",
    "SinkUnavailableError",
    "SourceFormatError",
    "SourceNotFoundError",
    "SourceReadOnlyError",
    "SourceUnavailableError",
    "SqlSource",
    "TableReading",
    "ValueMisfitError",
    "fingerprints",
    "open_connector",
    "open_sink",
    "read_table",
]
