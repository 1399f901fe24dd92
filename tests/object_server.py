"""An S3 server on loopback, spoken to over HTTP, and a bucket of it for each test."""

import itertools
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import botocore.session
import pytest
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server
from werkzeug.wrappers import Response

from connectors.object_store import _descriptions

SECRET = "never-to-be-told"
_UNIQUE = itertools.count()
_REFUSALS: dict[tuple[str, str], tuple[int, str]] = {}


@dataclass(frozen=True)
class Bucket:
    """A bucket, by other means than ours."""

    client: Any
    name: str

    def url(self, key: str) -> str:
        return f"s3://{self.name}/crm/{key}"

    def put(self, key: str, content: bytes, **more: Any) -> str:
        self.client.put_object(Bucket=self.name, Key=f"crm/{key}", Body=content, **more)
        return self.url(key)

    def get(self, key: str) -> bytes:
        answer = self.client.get_object(Bucket=self.name, Key=f"crm/{key}")
        return answer["Body"].read()

    def head(self, key: str) -> Any:
        return self.client.head_object(Bucket=self.name, Key=f"crm/{key}")

    def keys(self) -> list[str]:
        found = self.client.list_objects_v2(Bucket=self.name).get("Contents", ())
        return [one["Key"].removeprefix("crm/") for one in found]

    def keep_versions(self) -> None:
        self.client.put_bucket_versioning(
            Bucket=self.name, VersioningConfiguration={"Status": "Enabled"}
        )

    def versions(self) -> list[bytes]:
        """Return the content of every version there is."""
        found = self.client.list_object_versions(Bucket=self.name).get("Versions", ())
        return [
            self.client.get_object(Bucket=self.name, Key=one["Key"], VersionId=one["VersionId"])[
                "Body"
            ].read()
            for one in found
        ]

    def uploads(self) -> list[Any]:
        return self.client.list_multipart_uploads(Bucket=self.name).get("Uploads", [])

    def refuse(self, what: str, status: int, code: str) -> None:
        """Refuse requests with a word in their query, or a header that is called so."""
        _REFUSALS[self.name, what] = (status, code)

    def deny(self, *actions: str) -> None:
        statement = {
            "Effect": "Deny",
            "Principal": "*",
            "Action": list(actions),
            "Resource": [f"arn:aws:s3:::{self.name}", f"arn:aws:s3:::{self.name}/*"],
        }
        policy = {"Version": "2012-10-17", "Statement": [statement]}
        self.client.put_bucket_policy(Bucket=self.name, Policy=json.dumps(policy))


@pytest.fixture(scope="module")
def object_server() -> Iterator[str]:
    """A server of this module, which the environment names as a party's would."""
    served = DomainDispatcherApplication(create_backend_app)

    def answer(environ: dict[str, Any], start: Any) -> Any:
        name = environ["PATH_INFO"].split("/")[1]
        for (refused, what), (status, code) in _REFUSALS.items():
            header = f"HTTP_{what.upper().replace('-', '_')}"
            writing = environ["REQUEST_METHOD"] in {"PUT", "POST"}
            if refused == name and (
                what in environ["QUERY_STRING"].split("&") or (writing and header in environ)
            ):
                said = f"<Error><Code>{code}</Code><Message>no</Message></Error>"
                return Response(said, status, mimetype="application/xml")(environ, start)
        return served(environ, start)

    server = make_server("127.0.0.1", 0, answer, threaded=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    url = f"http://127.0.0.1:{server.server_port}"
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {
            "AWS_ENDPOINT_URL_S3": url,
            "AWS_ACCESS_KEY_ID": "test-party",
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": "/nonexistent",
            "AWS_SHARED_CREDENTIALS_FILE": "/nonexistent",
        }.items():
            patch.setenv(name, value)
        yield url
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def bucket(object_server: str) -> Bucket:
    session = botocore.session.Session()
    session.register_component("data_loader", _descriptions())
    client = session.create_client("s3")
    name = f"people-{next(_UNIQUE)}"
    client.create_bucket(Bucket=name)
    return Bucket(client, name)
