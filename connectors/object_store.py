"""Objects of an S3-compatible store: listed, read as they were listed, written if still so.

Guarantees: an object is read as the one that was listed, or not at all (`If-Match` on every
request); what is written is seen whole or not at all, and takes the place of what it was made from
alone, where the store knows conditional writes, and of what was there a moment before where it
does not. A part of an object is in memory at a time, and nothing is on this machine's disk.

Leaves to others: what objects hold (`objects`, `object_sink`). Credentials, region and endpoint are
the environment's, as the store's own kit finds them (`AWS_…`, a profile, a role); none is in a URL,
in a file of ours, or in an error.

Source: Amazon S3 API reference, "Conditional requests", "Multipart upload".
"""

import hashlib
import io
import os
import re
from base64 import b64encode
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any, Final

import pyarrow as pa

from connectors.errors import (
    SourceNotFoundError,
    SourceReadOnlyError,
    SourceUnavailableError,
)

__all__ = ["ChangedError", "ObjectStore", "StoredObject", "UnknownRequestError", "content_md5"]

_READ_BYTES: Final = 4 << 20
_URL: Final = re.compile(r"s3://([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])/([^\x00-\x1f\x7f]{1,1024})")
_ENDPOINTS: Final = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
_ABSENT: Final = frozenset({"NoSuchKey", "NoSuchBucket", "NoSuchVersion", "NoSuchUpload", "404"})
_CHANGED: Final = frozenset({"PreconditionFailed", "ConditionalRequestConflict", "412"})
_NO_RIGHT: Final = frozenset({"AccessDenied", "MethodNotAllowed", "AllAccessDisabled", "403"})


class UnknownRequestError(SourceUnavailableError):
    """The store does not know this kind of request, or condition."""


class ChangedError(SourceUnavailableError):
    """The object is another than the one that was listed."""


@dataclass(frozen=True, slots=True)
class StoredObject:
    """One object as it was when it was listed.

    Attributes:
        key: its name in the bucket.
        etag: its fingerprint, as the store makes it: another content has another.
        size: in bytes.
        version: which of the key's versions, where it is not the latest.
    """

    key: str
    etag: str
    size: int
    version: str | None = None


class ObjectStore:
    """The objects of one bucket whose names fit one URL. May be used by several threads.

    Args:
        url: `s3://bucket/key`; each `*` in the key stands for any letters but `/`.

    Raises:
        SourceUnavailableError: the URL is malformed, or the kit is not installed.
    """

    def __init__(self, url: str) -> None:
        parts = _URL.fullmatch(url)
        if parts is None:  # not quoted: somebody may have put a secret in it
            raise SourceUnavailableError(
                "the URL of an object is malformed: expected s3://bucket/prefix/people-*.parquet; "
                "credentials come from the environment"
            )
        try:
            import botocore.session  # noqa: F401
        except ImportError as error:
            raise SourceUnavailableError(
                "nothing that speaks to object stores is installed: install comity[objects]"
            ) from error
        self.url = url
        self.bucket, self.key = parts.groups()

    def url_of(self, key: str) -> str:
        """Return the URL of an object of this bucket."""
        return f"s3://{self.bucket}/{key}"

    def listed(self) -> tuple[StoredObject, ...]:
        """Return every object whose key fits, by key.

        Raises:
            SourceNotFoundError: there is none, or no such bucket.
        """
        if "*" not in self.key:
            return (self._stored(self.key),)
        with self._failures(self.url):
            pages = self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self.bucket, Prefix=self._prefix
            )
            found = tuple(
                StoredObject(key=one["Key"], etag=one["ETag"], size=one["Size"])
                for page in pages
                for one in page.get("Contents", ())
                if self._fits(one["Key"])
            )
        if not found:
            raise SourceNotFoundError(f"{self.url} is no object's name: correct the URL")
        return found

    def older(self) -> tuple[StoredObject, ...]:
        """Return what a bucket that keeps versions has of objects that were replaced or deleted.

        Raises:
            SourceReadOnlyError: it keeps some, and does not say which.
        """
        versions, _ = self._versions()
        return tuple(
            StoredObject(one["Key"], one["ETag"], one["Size"], one["VersionId"])
            for one in versions
            if not one["IsLatest"]
        )

    def head(self, key: str, *, etag: str | None = None) -> Mapping[str, Any]:
        """Return what is known of an object.

        Raises:
            SourceNotFoundError: it is not there.
            SourceUnavailableError: it is another than `etag` says.
        """
        condition: dict[str, Any] = {} if etag is None else {"IfMatch": etag}
        return self.request("head_object", key, **condition)

    def is_there(self, key: str) -> bool:
        """Tell whether there is an object of that name."""
        try:
            self.head(key)
        except SourceNotFoundError:
            return False
        return True

    def open(self, stored: StoredObject) -> pa.NativeFile:
        """Return a file that reads here and there in an object; nothing has to be closed."""
        return pa.PythonFile(_Reading(self, stored), mode="r")

    def stream(self, stored: StoredObject) -> pa.NativeFile:
        """Return a file that reads an object from its begin to its end, 4 MiB at a time."""
        return pa.PythonFile(io.BufferedReader(_Reading(self, stored), _READ_BYTES), mode="r")

    def read(self, stored: StoredObject, begin: int, end: int) -> bytes:
        """Read the bytes from `begin` up to `end`, which are within the object.

        Raises:
            SourceUnavailableError: it is another by now, or the store fails.
        """
        version = {} if stored.version is None else {"VersionId": stored.version}
        with self._failures(name := self.url_of(stored.key)):
            answer = self._client.get_object(
                Bucket=self.bucket,
                Key=stored.key,
                Range=f"bytes={begin}-{end - 1}",
                IfMatch=stored.etag,
                **version,
            )
            content: bytes = answer["Body"].read()
        if len(content) != end - begin:
            raise SourceUnavailableError(
                f"{name}: the store gave {len(content)} of {end - begin} bytes: try again"
            )
        return content

    def request(
        self, operation: str, key: str, *, writing: bool = False, **parameters: Any
    ) -> Mapping[str, Any]:
        """Ask something of one object, by an operation's name in the kit.

        Raises:
            SourceNotFoundError: it is not there.
            SourceReadOnlyError: it may not be written.
            ChangedError: a condition does not hold.
            UnknownRequestError: the store does not know the operation or the condition.
            SourceUnavailableError: the store fails otherwise.
        """
        with self._failures(self.url_of(key), writing=writing):
            answer: Mapping[str, Any] = getattr(self._client, operation)(
                Bucket=self.bucket, Key=key, **parameters
            )
        return answer

    def get(self, key: str) -> bytes:
        """Return a small object, whatever it is by now."""
        stored = self._stored(key)
        return self.read(stored, 0, stored.size) if stored.size else b""

    def put(self, key: str, content: bytes) -> None:
        """Write a small object in place of any."""
        self.request("put_object", key, writing=True, Body=content, ContentMD5=content_md5(content))

    def delete(self, key: str, *, version: str | None = None) -> None:
        """Delete an object, or one version of it."""
        named: dict[str, Any] = {} if version is None else {"VersionId": version}
        self.request("delete_object", key, writing=True, **named)

    def delete_every_version(self) -> None:
        """Delete the object of this URL, which has no `*`, and all that is kept of it."""
        versions, markers = self._versions()
        for one in (*versions, *markers):
            self.delete(self.key, version=one["VersionId"])
        if not versions:
            self.delete(self.key)

    def _versions(self) -> tuple[list[Mapping[str, Any]], list[Mapping[str, Any]]]:
        """Return the versions of all that fits, and the marks of deletions."""
        try:
            with self._failures(self.url, writing=True):
                pages = list(
                    self._client.get_paginator("list_object_versions").paginate(
                        Bucket=self.bucket, Prefix=self._prefix
                    )
                )
        except SourceReadOnlyError:
            if not self._keeps_versions():
                return [], []
            raise SourceReadOnlyError(
                f"{self.url}: its bucket keeps versions and does not list them: give this party "
                "the rights s3:ListBucketVersions, s3:GetObjectVersion and s3:DeleteObjectVersion"
            ) from None
        except UnknownRequestError:  # a store that has no versions
            return [], []
        kinds = ("Versions", "DeleteMarkers")
        versions, markers = (
            [one for page in pages for one in page.get(kind, ()) if self._fits(one["Key"])]
            for kind in kinds
        )
        return versions, markers

    def _keeps_versions(self) -> bool:
        """Tell by a header that an object has in buckets with versions alone."""
        try:
            return any("VersionId" in self.head(one.key) for one in self.listed()[:1])
        except SourceNotFoundError:
            return False

    @property
    def _prefix(self) -> str:
        return self.key.partition("*")[0]

    def _fits(self, key: str) -> bool:
        pattern = "[^/]*".join(map(re.escape, self.key.split("*")))
        return re.fullmatch(pattern, key) is not None

    def _stored(self, key: str) -> StoredObject:
        head = self.head(key)
        return StoredObject(key=key, etag=head["ETag"], size=head["ContentLength"])

    @cached_property
    def _client(self) -> Any:
        import botocore.config
        import botocore.session

        own = any(os.environ.get(name) for name in _ENDPOINTS)
        config = botocore.config.Config(
            connect_timeout=10,
            read_timeout=60,
            retries={"mode": "standard", "total_max_attempts": 3},
            # `Content-MD5` is sent in their place: every store knows it, and few the newer ones.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            # Names of buckets before the host's need a wildcard in its DNS: few own stores have it.
            s3={"addressing_style": "path"} if own else None,
        )
        with self._failures(self.url):
            session = botocore.session.Session()
            session.register_component("data_loader", _descriptions())
            return session.create_client("s3", config=config)

    @contextmanager
    def _failures(self, name: str, *, writing: bool = False) -> Iterator[None]:
        """Turn what the kit raises into errors of ours, which name the object and no secret."""
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            yield
        except ClientError as error:
            code = str(error.response.get("Error", {}).get("Code", "unknown"))
            raise _refusal(name, code, writing=writing) from None
        except (BotoCoreError, ValueError) as error:
            raise SourceUnavailableError(
                f"{name} cannot be reached ({type(error).__name__}): check the endpoint, region "
                "and credentials in this process's environment, and that the store is up"
            ) from None


def content_md5(content: bytes) -> str:
    """Return what a store compares with what it received (RFC 1864); it protects from accidents."""
    return b64encode(hashlib.md5(content, usedforsecurity=False).digest()).decode()


@cache
def _descriptions() -> Any:
    """Return what the kit knows of stores' operations, which takes it a while to read."""
    import botocore.loaders

    return botocore.loaders.create_loader()


def _refusal(name: str, code: str, *, writing: bool) -> Exception:
    if code in _ABSENT:
        what = "its bucket does not exist" if code == "NoSuchBucket" else "it does not exist"
        return SourceNotFoundError(f"{name}: {what}: correct the URL")
    if code in _CHANGED:
        return ChangedError(
            f"{name} was changed by another program meanwhile, nothing was done here: try again "
            "when it is at rest"
        )
    if code == "NotImplemented":
        return UnknownRequestError(f"{name}: the store does not know this request")
    if code in _NO_RIGHT and writing:
        return SourceReadOnlyError(
            f"{name} can only be read, nothing was done: give this party the rights s3:PutObject "
            "and s3:DeleteObject, or do it where the object comes from"
        )
    return SourceUnavailableError(
        f"{name}: the store refuses ({code}): check the credentials in this process's environment "
        "and their rights to read and list the bucket"
    )


class _Reading(io.RawIOBase):
    """An object as a file, read by ranges."""

    def __init__(self, store: ObjectStore, stored: StoredObject) -> None:
        self._store = store
        self._object = stored
        self._place = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._place

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        begin = {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self._object.size}[whence]
        self._place = begin + offset
        return self._place

    def read(self, size: int | None = -1) -> bytes:
        left = max(self._object.size - self._place, 0)
        wanted = left if size is None or size < 0 else min(size, left)
        if wanted == 0:
            return b""
        content = self._store.read(self._object, self._place, self._place + wanted)
        self._place += wanted
        return content

    def readinto(self, buffer: Any) -> int:
        content = self.read(len(buffer))
        buffer[: len(content)] = content
        return len(content)
