"""A party's API against its own description, by whatever requests that description allows."""

from collections.abc import Iterator

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from parties import World
from schemathesis.checks import CheckFunction
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from test_api import Site, prepared, serving

CHECKS: list[CheckFunction] = [
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
]


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    directory = tmp_path_factory.mktemp("fuzzed")
    world = World.make(directory / "made")
    config, key = prepared(world, directory)
    with serving(world.folder("retailer").path, config) as client:
        yield Site(world, client, key)


ROUTES = (
    *(("GET", "/health"), ("GET", "/ready"), ("GET", "/dsrdelete.json"), ("GET", "/v1/notices")),
    ("POST", "/v1/deletion-requests"),
    *(("POST", f"/v1/consents{end}") for end in ("", "/batch", "/withdraw", "/strings", "/state")),
    ("POST", "/v1/consents/receipt"),
    ("POST", "/v1/erasures"),
    *(("GET", f"/v1/erasures/{{request}}{end}") for end in ("", "/receipt")),
    *(("POST", f"/v1/subjects/{what}") for what in ("show", "export", "correct")),
)


@pytest.fixture(scope="module")
def described(fuzzed: Site) -> schemathesis.BaseSchema:
    return schemathesis.openapi.from_url(f"{fuzzed.client.base_url}/v1/openapi.json")


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_a_route_answers_as_it_is_described(
    described: schemathesis.BaseSchema, fuzzed: Site, method: str, path: str
) -> None:
    @settings(max_examples=6, suppress_health_check=list(HealthCheck))
    @given(described[path][method].as_strategy())
    def asked(case: schemathesis.Case) -> None:
        answer = case.call(headers={"Authorization": f"Bearer {fuzzed.key}"})
        case.validate_response(answer, checks=CHECKS)
        assert answer.status_code != 500

    asked()


def test_the_description_is_of_openapi_3_1_and_names_every_route(fuzzed: Site) -> None:
    found = fuzzed.client.get("/v1/openapi.json").json()
    assert found["openapi"].startswith("3.1")
    assert {(method.upper(), path) for path, told in found["paths"].items() for method in told} == {
        *ROUTES
    }
