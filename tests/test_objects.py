"""Object stores: what only they have of failures, versions, patterns and rights."""

import gzip
import io
import socket
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from object_server import SECRET, Bucket
from object_server import bucket as bucket  # noqa: PLC0414 - a fixture
from object_server import object_server as object_server  # noqa: PLC0414 - a fixture

from connectors import (
    Connector,
    ConnectorError,
    ObjectSource,
    SinkOccupiedError,
    SinkUnavailableError,
    SourceFormatError,
    SourceNotFoundError,
    SourceReadOnlyError,
    SourceUnavailableError,
    open_connector,
    open_sink,
)
from connectors import uploads as uploads_module
from connectors.object_store import ObjectStore, StoredObject
from connectors.uploads import Upload

TICKET = "5eed" * 4
LIST = pa.schema([("record", pa.string())])


def parquet(*records: str, rows: int | None = None, **more: list[Any]) -> bytes:
    content = io.BytesIO()
    pq.write_table(pa.table({"record": list(records), **more}), content, row_group_size=rows)
    return content.getvalue()


def opened(url: str) -> Connector:
    return open_connector(ObjectSource(url=url))


def records(connector: Connector) -> list[str]:
    return [one for batch in connector.scan(["record"]) for one in batch.column(0).to_pylist()]


def told(error: BaseException) -> str:
    return "".join(traceback.format_exception(error))


@pytest.fixture
def three(bucket: Bucket) -> str:
    """Three objects that are one table, and two that are none of it."""
    bucket.put("people-1.parquet", parquet("R1", "R2"))
    bucket.put("people-2.parquet", parquet("R3"))
    bucket.put("people-3.parquet", parquet("R1", "R4"))
    bucket.put("people-old/1.parquet", parquet("R9"))
    bucket.put("people.txt", b"no table")
    return bucket.url("people-*.parquet")


# --- many objects as one table ----------------------------------------------------------------


def test_objects_whose_names_fit_are_one_table(three: str) -> None:
    connector = opened(three)
    assert records(connector) == ["R1", "R2", "R3", "R1", "R4"]
    assert connector.count() == 5
    found = list(connector.find("record", ["R1"]))
    assert [batch.num_rows for batch in found] == [1, 1]


def test_a_deletion_writes_those_objects_anew_that_have_rows(three: str, bucket: Bucket) -> None:
    before = bucket.head("people-2.parquet")
    bucket.client.put_object(
        Bucket=bucket.name,
        Key="crm/people-1.parquet",
        Body=bucket.get("people-1.parquet"),
        ContentType="application/vnd.apache.parquet",
        Metadata={"origin": "warehouse"},
        ServerSideEncryption="AES256",
    )
    assert opened(three).delete("record", ["R1", "R8"]) == 2
    assert records(opened(three)) == ["R2", "R3", "R4"]
    assert bucket.head("people-2.parquet")["LastModified"] == before["LastModified"]
    after = bucket.head("people-1.parquet")
    assert after["ContentType"] == "application/vnd.apache.parquet"
    assert after["Metadata"] == {"origin": "warehouse"}
    assert after["ServerSideEncryption"] == "AES256"
    assert bucket.uploads() == []


def test_objects_with_other_columns_are_no_one_table(bucket: Bucket) -> None:
    bucket.put("people-1.parquet", parquet("R1", age=[30]))
    bucket.put("people-2.parquet", parquet("R2", age=["thirty"]))
    connector = opened(bucket.url("people-*.parquet"))
    with pytest.raises(SourceFormatError, match=r"people-2\.parquet.*export them alike"):
        list(connector.scan(["record", "age"]))
    assert records(connector) == ["R1", "R2"]


def test_one_damaged_object_keeps_all_from_being_written(three: str, bucket: Bucket) -> None:
    before = bucket.get("people-1.parquet")
    bucket.put("people-3.parquet", bucket.get("people-3.parquet")[:-10])
    for request in (
        lambda: records(opened(three)),
        lambda: opened(three).count(),
        lambda: opened(three).delete("record", ["R1"]),
    ):
        with pytest.raises(SourceFormatError, match=r"people-3\.parquet"):
            request()
    assert bucket.get("people-1.parquet") == before


def test_gzip_is_read_and_written_as_such(bucket: Bucket) -> None:
    url = bucket.put("people.csv.gz", gzip.compress(b"record,note\nR1,x\nR2,y\n"))
    assert opened(url).delete("record", ["R1"]) == 1
    assert gzip.decompress(bucket.get("people.csv.gz")) == b'"record","note"\n"R2","y"\n'
    bucket.put("people.csv.gz", gzip.compress(b"record,note\nR1,x\n" * 50)[:-12])
    with pytest.raises(SourceFormatError, match=r"people\.csv\.gz"):
        opened(url).count()


def test_a_scan_asks_for_a_row_group_at_a_time(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    count, rows = 40_000, 10_000
    content = parquet(*(f"record-{number}" for number in range(count)), rows=rows)
    url = bucket.put("people.parquet", content)
    asked: list[int] = []
    read = ObjectStore.read

    def reading(self: ObjectStore, stored: StoredObject, begin: int, end: int) -> bytes:
        asked.append(end - begin)
        return read(self, stored, begin, end)

    monkeypatch.setattr(ObjectStore, "read", reading)
    scan = opened(url).scan(["record"], batch_rows=rows)
    assert next(scan).num_rows == rows
    assert sum(asked[-1:]) < len(content) / 3  # one of four groups
    assert sum(batch.num_rows for batch in scan) == count - rows


def test_what_does_not_fit_a_part_is_sent_in_several(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uploads_module, "_PART_BYTES", 5 << 20)  # the least a store takes
    notes = [f"{number:08}" * 1500 for number in range(600)]
    csv = "record,note\n" + "".join(f"R{n},{note}\n" for n, note in enumerate(notes))
    url = bucket.put("people.csv", csv.encode())
    assert opened(url).delete("record", ["R7"]) == 1
    assert bucket.head("people.csv")["ETag"].endswith('-2"')
    assert records(opened(url)) == [f"R{n}" for n in range(600) if n != 7]


# --- others at work ---------------------------------------------------------------------------


def test_an_object_that_changes_while_it_is_read_ends_the_scan(three: str, bucket: Bucket) -> None:
    scan = opened(three).scan(["record"])
    next(scan)
    bucket.put("people-3.parquet", parquet("R1", "R5"))
    with pytest.raises(SourceUnavailableError, match=r"people-3\.parquet was changed"):
        list(scan)


def test_an_object_that_changes_while_it_is_written_anew_is_left_alone(
    three: str, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    finish = Upload.finish
    newer = parquet("R1", "R6")

    def finish_while_another_writes(self: Upload) -> Any:
        parts = finish(self)
        if self._key.endswith("people-3.parquet"):
            bucket.put("people-3.parquet", newer)
        return parts

    monkeypatch.setattr(Upload, "finish", finish_while_another_writes)
    with pytest.raises(SourceUnavailableError, match=r"1 of 2 objects were changed, then.*at rest"):
        opened(three).delete("record", ["R1"])
    assert bucket.get("people-3.parquet") == newer
    assert bucket.uploads() == []
    monkeypatch.setattr(Upload, "finish", finish)
    assert opened(three).delete("record", ["R1"]) == 1
    assert records(opened(three)) == ["R2", "R3", "R6"]


def test_the_store_itself_is_told_what_may_be_replaced(bucket: Bucket) -> None:
    url = bucket.put("people.csv", b"record\nR1\n")
    for header in ("If-Match", "If-None-Match"):
        bucket.refuse(header, 412, "PreconditionFailed")
    with pytest.raises(SourceUnavailableError, match="changed by another"):
        opened(url).delete("record", ["R1"])
    sink = open_sink(ObjectSource(url=bucket.url("best.csv")))
    sink.stage([], LIST, ticket=TICKET)
    with pytest.raises(SinkOccupiedError):
        sink.publish(ticket=TICKET)


def test_a_store_that_knows_no_conditions_on_writes_is_written_to(bucket: Bucket) -> None:
    url = bucket.put("people.csv", b"record\nR1\n")
    for header in ("If-Match", "If-None-Match"):
        bucket.refuse(header, 501, "NotImplemented")
    assert opened(url).delete("record", ["R1"]) == 1
    sink = open_sink(ObjectSource(url=bucket.url("best.csv")))
    sink.stage([], LIST, ticket=TICKET)
    sink.publish(ticket=TICKET)
    assert (sink.is_taken(), bucket.uploads()) == (True, [])


def test_a_list_that_another_delivered_first_is_not_written_over(bucket: Bucket) -> None:
    store = ObjectStore(bucket.url("best.csv"))
    upload = Upload.begin(store, store.key)
    upload.write(b"record\nR1\n")
    upload.finish()
    bucket.put("best.csv", b"another's")
    # As where the other came after it was looked whether somebody had.
    with pytest.raises(SourceUnavailableError, match="changed by another"):
        upload._complete({"IfNoneMatch": "*"})
    assert bucket.get("best.csv") == b"another's"


def test_a_publication_cut_before_its_end_is_done_when_it_is_repeated(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    sink = open_sink(ObjectSource(url=bucket.url("best.csv")))
    batch = pa.record_batch([pa.array(["R1"])], schema=LIST)
    sink.stage([batch], LIST, ticket=TICKET)
    assert bucket.keys() == [f".best.csv.{TICKET}.staged"]
    assert b"R1" not in bucket.get(bucket.keys()[0])

    class CutError(Exception):
        pass

    def cut(*_: object, **__: object) -> None:
        raise CutError

    with monkeypatch.context() as patch:
        patch.setattr(ObjectStore, "delete", cut)
        with pytest.raises(CutError):
            sink.publish(ticket=TICKET)
    sink.publish(ticket=TICKET)
    assert bucket.keys() == ["best.csv"]
    assert bucket.get("best.csv") == b'"record"\n"R1"\n'


def test_an_upload_that_the_store_gave_up_is_no_longer_staged(bucket: Bucket) -> None:
    sink = open_sink(ObjectSource(url=bucket.url("best.csv")))
    sink.stage([], LIST, ticket=TICKET)
    (upload,) = bucket.uploads()
    bucket.client.abort_multipart_upload(
        Bucket=bucket.name, Key=upload["Key"], UploadId=upload["UploadId"]
    )
    with pytest.raises(SinkUnavailableError, match="nothing is staged"):
        sink.publish(ticket=TICKET)


def test_what_a_crash_left_of_a_delivery_is_given_up_by_the_next(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    class CutError(Exception):
        pass

    def cut(*_: object, **__: object) -> None:
        raise CutError

    sink = open_sink(ObjectSource(url=bucket.url("best.csv")))
    with monkeypatch.context() as patch:
        for name in ("finish", "give_up"):
            patch.setattr(Upload, name, cut)
        with pytest.raises(CutError):
            sink.stage([], LIST, ticket=TICKET)
    assert len(bucket.uploads()) == len(bucket.keys()) == 1
    sink.discard(ticket=TICKET)
    assert (bucket.keys(), bucket.uploads()) == ([], [])


def test_rows_that_break_off_leave_neither_upload_nor_note(bucket: Bucket) -> None:
    def breaking() -> Iterator[pa.RecordBatch]:
        yield pa.record_batch([pa.array(["R1"])], schema=LIST)
        raise LookupError

    sink = open_sink(ObjectSource(url=bucket.url("best.parquet")))
    with pytest.raises(LookupError):
        sink.stage(breaking(), LIST, ticket=TICKET)
    assert (bucket.keys(), bucket.uploads()) == ([], [])


# --- versions ---------------------------------------------------------------------------------


def test_a_deletion_reaches_older_versions_and_those_of_deleted_objects(bucket: Bucket) -> None:
    bucket.keep_versions()
    bucket.put("people-1.csv", b"record\nR1\nR2\n")
    bucket.put("people-1.csv", b"record\nR2\n")
    bucket.put("people-1.csv", b"record\nR1\nR3\n")
    bucket.put("people-2.csv", b"record\nR1\n")
    bucket.client.delete_object(Bucket=bucket.name, Key="crm/people-2.csv")
    bucket.put("other.csv", b"record\nR1\n")
    connector = opened(bucket.url("people-*.csv"))
    assert connector.delete("record", ["R1"]) == 1
    assert sorted(bucket.versions()) == [b'"record"\n"R3"\n', b"record\nR1\n", b"record\nR2\n"]
    assert connector.delete("record", ["R2"]) == 1  # of an older version alone
    assert sorted(bucket.versions()) == [b'"record"\n"R3"\n', b"record\nR1\n"]
    assert connector.delete("record", ["R2"]) == 0
    bucket.client.delete_object(Bucket=bucket.name, Key="crm/people-1.csv")
    assert connector.delete("record", ["R3"]) == 1  # no object is left, and a version was
    assert bucket.versions() == [b"record\nR1\n"]


def test_a_version_that_may_not_be_deleted_is_told_and_not_called_deleted(bucket: Bucket) -> None:
    bucket.keep_versions()
    url = bucket.put("people.csv", b"record\nR1\nR2\n")
    bucket.deny("s3:DeleteObject", "s3:DeleteObjectVersion")
    for _ in range(2):  # again: the rows are gone from the object, and not from its versions
        with pytest.raises(SourceReadOnlyError, match=r"older version.*keeps them"):
            opened(url).delete("record", ["R1"])
    assert records(opened(url)) == ["R2"]
    assert b"record\nR1\nR2\n" in bucket.versions()


def test_versions_that_may_not_be_listed_keep_a_deletion_from_beginning(bucket: Bucket) -> None:
    bucket.keep_versions()
    url = bucket.put("people.csv", b"record\nR1\n")
    bucket.refuse("versions", 403, "AccessDenied")
    with pytest.raises(SourceReadOnlyError, match="s3:ListBucketVersions"):
        opened(url).delete("record", ["R1"])
    assert records(opened(url)) == ["R1"]


def test_a_bucket_without_versions_needs_no_right_to_list_them(bucket: Bucket) -> None:
    url = bucket.put("people.csv", b"record\nR1\nR2\n")
    bucket.refuse("versions", 403, "AccessDenied")
    assert opened(url).delete("record", ["R1"]) == 1


def test_a_list_whose_time_is_over_goes_with_every_version(bucket: Bucket) -> None:
    bucket.keep_versions()
    url = bucket.put("best.csv", b"record\nR1\n")
    bucket.put("best.csv", b"record\nR1\nR2\n")
    bucket.put("best.csv.old.csv", b"another")
    sink = open_sink(ObjectSource(url=url))
    sink.remove()
    assert not sink.is_taken()
    assert bucket.versions() == [b"another"]


# --- what is refused --------------------------------------------------------------------------


def test_a_bucket_that_can_only_be_read_is_left_as_it_is(three: str, bucket: Bucket) -> None:
    bucket.deny("s3:PutObject")
    with pytest.raises(SourceReadOnlyError, match=r"can only be read.*s3:PutObject"):
        opened(three).delete("record", ["R1"])
    assert records(opened(three)) == ["R1", "R2", "R3", "R1", "R4"]
    sink = open_sink(ObjectSource(url=bucket.url("best.csv")))
    with pytest.raises(SinkUnavailableError, match=r"best\.csv.*s3:PutObject"):
        sink.stage([], LIST, ticket=TICKET)


def test_a_bucket_that_may_not_be_read_says_so(three: str, bucket: Bucket) -> None:
    bucket.deny("s3:GetObject")
    with pytest.raises(SourceUnavailableError, match=r"refuses.*rights"):
        records(opened(three))
    bucket.refuse("list-type=2", 403, "AccessDenied")
    with pytest.raises(SourceUnavailableError, match="refuses"):
        records(opened(three))


@pytest.mark.parametrize("key", ["people.csv", "people-*.csv"])
def test_what_is_not_there_is_named(bucket: Bucket, key: str) -> None:
    for url in (bucket.url(key), f"s3://no-such-bucket/{key}"):
        for request in (Connector.columns, Connector.count):
            with pytest.raises(SourceNotFoundError) as caught:
                getattr(opened(url), request.__name__)()
            assert url in str(caught.value)
    with pytest.raises(SourceNotFoundError):
        opened(bucket.url(key)).delete("record", ["R1"])


def test_a_store_that_is_away_is_told_without_a_secret(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = bucket.put("people.csv", b"record\nR1\n")
    with socket.socket() as free:  # bound and never listening: every connection is refused
        free.bind(("127.0.0.1", 0))
        monkeypatch.setenv(
            "AWS_ENDPOINT_URL_S3", f"http://party:{SECRET}@127.0.0.1:{free.getsockname()[1]}"
        )
        with pytest.raises(SourceUnavailableError, match="check the endpoint") as caught:
            opened(url).columns()
        with pytest.raises(SinkUnavailableError, match="check the endpoint") as sunk:
            open_sink(ObjectSource(url=url)).is_taken()
    assert url in str(caught.value)
    assert SECRET not in told(caught.value) + told(sunk.value)


def test_no_credentials_is_told(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    url = bucket.put("people.csv", b"record\nR1\n")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(SourceUnavailableError, match=r"NoCredentialsError.*credentials"):
        opened(url).columns()


@pytest.mark.parametrize(
    "url",
    [
        f"s3://key:{SECRET}@bucket/people.csv",
        f"s3://{SECRET}",
        f"https://{SECRET}/people.csv",
        f"s3:///{SECRET}.csv",
        f"s3://Bucket/{SECRET}.csv",
        f"s3://bucket/{SECRET}\n.csv",
    ],
)
def test_a_malformed_url_is_refused_and_not_quoted(url: str) -> None:
    for place in (open_connector, open_sink):
        refuse: Callable[[ObjectSource], object] = place
        with pytest.raises(SourceUnavailableError, match="expected s3://") as caught:
            refuse(ObjectSource(url=url))
        assert SECRET not in told(caught.value)


def test_another_form_is_refused() -> None:
    with pytest.raises(SourceFormatError, match=r"\.csv, \.csv\.gz, \.parquet or \.pq"):
        open_connector(ObjectSource(url="s3://bucket/people.xlsx"))
    for key in ("best.csv.gz", "best-*.csv"):
        with pytest.raises(SourceFormatError, match=r"\.csv or \.parquet"):
            open_sink(ObjectSource(url=f"s3://bucket/{key}"))


def test_damage_raises_only_errors_that_quote_nothing(bucket: Bucket) -> None:
    whole = parquet("secret-1", "secret-2")
    for place in range(0, len(whole), max(len(whole) // 8, 1)):
        damaged = bytearray(whole)
        damaged[place] ^= 0xFF
        url = bucket.put("people.parquet", bytes(damaged))
        try:
            records(opened(url))
        except ConnectorError as error:
            assert "secret-" not in told(error)  # noqa: PT017 - not every damage is found
