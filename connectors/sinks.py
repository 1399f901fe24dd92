"""Every kind of sink, by the place that it is for."""

from connectors.connector import FileSource, ObjectSource, SqlSource
from connectors.errors import SourceFormatError
from connectors.file_sinks import CsvSink, ParquetSink
from connectors.sink import Sink

__all__ = ["open_sink"]


def open_sink(place: FileSource | SqlSource | ObjectSource) -> Sink:
    """Return the sink for a place, which is first touched when it is used.

    Raises:
        SourceFormatError: the file name ends in neither `.csv` nor `.parquet`.
        SourceUnavailableError: the URL is malformed, or the database's driver or what speaks to
            object stores is not installed.
    """
    if isinstance(place, ObjectSource):
        from connectors.object_sink import ObjectSink

        return ObjectSink(place.url)
    if isinstance(place, SqlSource):
        # SQLAlchemy is loaded only for those who use it.
        from connectors.sql_sink import TableSink

        return TableSink(place.url.get_secret_value(), place.table)
    if place.path.suffix == ".csv":
        return CsvSink(place.path)
    if place.path.suffix == ".parquet":
        return ParquetSink(place.path)
    raise SourceFormatError(f"{place.path}: expected a name ending in .csv or .parquet; rename it")
