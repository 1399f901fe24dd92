"""A party's API, over a real server on loopback."""

import fcntl
import json
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from parties import PURPOSE, World, email, record
from test_consent_records import NOTICE

from compliance import records
from compliance.consent import ConsentEvent, ConsentEventKind
from compliance.consent_strings import (
    Purpose,
    TcfString,
    VendorIds,
    encode_tcf,
)
from compliance.erasure.wire import (
    Discovery,
    Identifier,
    Issuer,
    Keys,
    ResultCode,
    Supported,
    public_jwk,
    read_acknowledgement,
)
from compliance.signing import SigningKey
from federation.api import telling
from federation.api.clients import Clients
from federation.api.configuration import ApiConfig
from federation.api.scopes import Scope
from federation.api.server import make_server
from federation.api.telling import Teller
from federation.cli import main
from federation.clock import utc_now
from federation.consent_intake import ConsentIntake
from federation.holding import held
from federation.party import PartyFolder, locked
from privacy.randomness import seeded_secret

SUBJECT = record("retailer", 20)
OTHER = record("retailer", 21)
FIRST_PARTY = "brand.example"
OURS = "retailer.example"


def issuer() -> Issuer:
    return Issuer(FIRST_PARTY, "k1", SigningKey.from_seed(seeded_secret(1, "first party")))


@dataclass
class Site:
    """A retailer's website, which calls its API."""

    world: World
    client: httpx.Client
    key: str

    def post(self, path: str, body: object, *, key: str | None = None, **headers: str) -> Any:
        shown = self.key if key is None else key
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.client.post(
            path, json=body, headers={"Authorization": f"Bearer {shown}", **named}
        )

    def get(self, path: str) -> Any:
        return self.client.get(path, headers={"Authorization": f"Bearer {self.key}"})

    def say(self, event: str, subject: str = SUBJECT, **fields: object) -> Any:
        body = {"subject": {"reference": subject}, "purpose": PURPOSE, "event": event, **fields}
        return self.post("/v1/consents", body)

    def allowed(self, subject: str = SUBJECT) -> Any:
        asked = {"subject": {"reference": subject}, "purpose": PURPOSE}
        (decision,) = self.post("/v1/consents/state", asked).json()
        return decision["reason"] or decision["allowed"]

    @property
    def path(self) -> Path:
        return self.world.folder("retailer").path

    def recorded(self) -> list[str]:
        """What the log knows of, once it is told of everything."""
        told = self.path / "consents-told.json"
        until(
            lambda: (
                not told.exists()
                or json.loads(told.read_text())["size"]
                == (self.path / "consents.csv").stat().st_size
            )
        )
        return self.leaves()

    def leaves(self) -> list[str]:
        return [
            leaf.event
            for leaf in self.world.leaves("retailer")
            if isinstance(leaf, records.ConsentRecorded)
        ]


@contextmanager
def serving(directory: Path, config: ApiConfig) -> Iterator[httpx.Client]:
    """A real server in a thread of this process."""
    with Teller(directory, clock=utc_now) as teller:
        server = make_server(directory, config, teller)
        thread = threading.Thread(target=server.run)
        thread.start()
        try:
            while not server.started:
                assert thread.is_alive()
                time.sleep(0.005)
            port = server.servers[0].sockets[0].getsockname()[1]
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
                yield client
        finally:
            server.should_exit = True
            thread.join()


def prepared(world: World, directory: Path, **changes: object) -> tuple[ApiConfig, str]:
    """Bring the retailer's consents into a journal, and make a configuration and a client."""
    from federation.consent_recording import ConsentRecording

    folder = world.folder("retailer")
    with held(folder.path) as at:
        ConsentRecording(at.folder, at.agreement, at.gate.note).bring(None)
    (directory / "notice.json").write_text(json.dumps(NOTICE))
    published = Discovery(
        endpoint="https://brand.example/delete",
        identifiers=(Supported(id=1, type="email", format="plaintext"),),
        public_keys=(public_jwk(issuer().key.public, "k1"),),
        vendor_script_required=False,
    )
    (directory / "brand.json").write_bytes(published.to_json())
    config = ApiConfig.model_validate(
        {
            "port": 0,
            "patience_seconds": 0.3,
            "requests_per_second": 10_000,
            "burst": 10_000,
            "notices": ["notice.json"],
            "consent_strings": {"vendor": 4, "purposes": {PURPOSE: [3, 4]}},
            "deletion": {
                "domain": OURS,
                "endpoint": "https://retailer.example/v1/deletion-requests",
                "trusted": {FIRST_PARTY: "brand.json"},
            },
            **changes,
        }
    ).within(directory)
    key = Clients(folder.path).add("website", Scope, now=utc_now())
    return config, key


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World.make(tmp_path_factory.mktemp("made"))


@pytest.fixture(scope="module")
def site(made: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """One server for the tests that leave each other alone."""
    directory = tmp_path_factory.mktemp("site")
    world = made.copy(directory / "copy")
    config, key = prepared(world, directory)
    with serving(world.folder("retailer").path, config) as client:
        yield Site(world, client, key)


def until(holds: Callable[[], bool]) -> None:
    """Wait for what happens soon, and fail where it does not."""
    end = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_a_teller_that_the_system_refuses_a_file_tries_again(
    made: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(telling, "_TROUBLE_SECONDS", 0.01)
    world = made.copy(tmp_path / "copy")
    prepared(world, tmp_path)
    folder = PartyFolder(world.folder("retailer").path)
    said = ConsentEvent(SUBJECT, PURPOSE, ConsentEventKind.WITHDRAWN, utc_now())
    ConsentIntake(folder, world.agreement).take(said)
    lock = folder.path / "lock"
    lock.unlink()
    lock.mkdir()
    with Teller(folder.path, clock=utc_now):
        until(lambda: "is not told" in caplog.text)
        lock.rmdir()
        told, journal = folder.path / "consents-told.json", folder.path / "consents.csv"
        until(lambda: json.loads(told.read_text())["size"] == journal.stat().st_size)
    assert [one.event for one in world.leaves("retailer") if one.kind == "consent.recorded"]


class TestConsents:
    def test_what_is_said_holds_at_once_and_is_told_the_log(self, site: Site) -> None:
        before = len(site.recorded())
        assert site.allowed() is True
        said = ("withdrawn", "given", "objected", "given", "refused", "given")
        for event in said:
            answer = site.say(event)
            assert (answer.status_code, answer.json()["events"]) == (201, 1)
            assert site.allowed() == (True if event == "given" else event)
        assert tuple(site.recorded()[before:]) == said

    def test_a_withdrawal_needs_no_more_than_giving(self, site: Site) -> None:
        giving = {"subject": {"reference": OTHER}, "purpose": PURPOSE, "event": "given"}
        taking = {"subject": {"reference": OTHER}}
        assert site.post("/v1/consents", giving).status_code == 201
        assert site.allowed(OTHER) is True
        answer = site.post("/v1/consents/withdraw", taking)
        assert (answer.status_code, answer.json()["events"]) == (201, 2)  # of each purpose
        assert site.allowed(OTHER) == "withdrawn"
        assert set(taking) < set(giving)

    def test_a_batch_is_recorded_wholly_or_not_at_all(self, site: Site) -> None:
        size = _journal(site).stat().st_size
        one = {"subject": {"email": email(22)}, "purpose": PURPOSE, "event": "given"}
        bad = one | {"purpose": "profiling"}
        answer = site.post("/v1/consents/batch", {"events": [one, bad]})
        assert (answer.status_code, answer.json()["type"]) == (
            422,
            "urn:comity:problem:unknown-purpose",
        )
        assert _journal(site).stat().st_size == size
        answer = site.post("/v1/consents/batch", {"events": [one, one | {"event": "withdrawn"}]})
        assert answer.json()["events"] == 2
        assert site.allowed(record("retailer", 22)) == "withdrawn"

    def test_what_was_not_said_before_now_is_refused(self, site: Site) -> None:
        size = _journal(site).stat().st_size
        later = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
        for time_ in (later, "1969-01-01T00:00:00Z", "2026-01-01T00:00:00"):
            assert site.say("given", time=time_).status_code == 422
        assert _journal(site).stat().st_size == size

    def test_scope_and_time_are_kept_as_they_were_said(self, site: Site) -> None:
        answer = site.say(
            "given",
            record("retailer", 24),
            time="2025-07-01T12:00:00+02:00",
            separate=["sensitive"],
            recipients=["courier"],
            expires="2025-08-01T00:00:00Z",
        )
        assert answer.status_code == 201
        last = _journal(site).read_text().splitlines()[-1]
        assert last.endswith(
            f"{PURPOSE},given,sensitive,courier,2025-08-01T00:00:00.000000Z,"
            "2025-07-01T10:00:00.000000Z"
        )
        assert site.allowed(record("retailer", 24)) == "expired"

    @pytest.mark.parametrize("vocabulary", ["iso-27560", "kantara", "dpv"])
    def test_a_receipt_is_of_what_was_told_and_said(self, site: Site, vocabulary: str) -> None:
        asked = {"subject": {"reference": record("retailer", 30)}, "purpose": PURPOSE}
        answer = site.post("/v1/consents/receipt", asked | {"vocabulary": vocabulary})
        key = {"iso-27560": "consent_record", "kantara": "piiControllers", "dpv": "@type"}
        assert (answer.status_code, key[vocabulary] in answer.json()) == (200, True)
        nobody = asked | {"subject": {"reference": "R#unknown"}}
        answer = site.post("/v1/consents/receipt", nobody)
        assert (answer.status_code, "unknown" in answer.text) == (404, False)

    def test_notices_are_told_in_plain_words(self, site: Site) -> None:
        (notice,) = site.get("/v1/notices").json()["notices"]
        assert notice["text"] == NOTICE["text"]
        assert site.get("/v1/notices?purpose=another").status_code == 404

    def test_a_consent_string_says_yes_or_no_and_damage_says_nothing(self, site: Site) -> None:
        subject = record("retailer", 26)

        def take(text: str) -> Any:
            body = {"subject": {"reference": subject}, "format": "tcf", "string": text}
            return site.post("/v1/consents/strings", body)

        profile = Purpose(3), Purpose(4)
        yesterday = datetime.now(UTC).replace(
            hour=0, minute=0, second=0, microsecond=0
        ) - timedelta(days=1)
        yes = _string(*profile, day=yesterday)
        assert take(_string(profile[0], day=yesterday)).json()["events"] == {PURPOSE: "refused"}
        assert site.allowed(subject) == "refused"
        size = _journal(site).stat().st_size
        for damaged in ("!!!!", yes[:40], yes + "=="):
            answer = take(damaged)
            assert (answer.status_code, damaged in answer.text) == (422, False)
        assert _journal(site).stat().st_size == size
        assert take(yes).json()["events"] == {PURPOSE: "given"}
        assert site.allowed(subject) == "refused"  # the yes was said before the no

    def test_a_consent_string_that_lies_ahead_undoes_no_withdrawal(self, site: Site) -> None:
        subject = {"reference": record("retailer", 45)}
        ahead = _string(Purpose(3), Purpose(4), day=datetime.now(UTC) + timedelta(hours=12))
        body = {"subject": subject, "format": "tcf", "string": ahead}
        assert site.post("/v1/consents/strings", body).status_code == 201
        assert site.allowed(subject["reference"]) is True
        site.post("/v1/consents/withdraw", {"subject": subject})
        assert site.post("/v1/consents/strings", body).status_code == 201
        assert site.allowed(subject["reference"]) == "withdrawn"


def _string(*purposes: Purpose, day: datetime) -> str:
    return encode_tcf(
        TcfString(
            created=day,
            last_updated=day,
            cmp_id=10,
            cmp_version=2,
            vendor_list_version=120,
            consents=frozenset(purposes),
            vendor_consents=VendorIds.of([4]),
            disclosed_vendors=VendorIds.of([4]),
        )
    )


def _journal(site: Site) -> Path:
    return site.path / "consents.csv"


@pytest.fixture(scope="module")
def writer(site: Site) -> str:
    return Clients(site.path).add("writer", [Scope.CONSENT_WRITE], now=utc_now())


class TestWithoutSeeing:
    """A key for `consent:write` alone."""

    WRONG = (
        ({"purpose": "profiling", "event": "given"}, 422),
        ({"purpose": PURPOSE, "event": "given", "time": "1969-01-01T00:00:00Z"}, 422),
        ({"purpose": PURPOSE, "event": "given", "expires": "2201-01-01T00:00:00Z"}, 422),
        ({"purpose": PURPOSE, "event": "given"}, 202),
    )

    def test_answers_do_not_hang_on_whether_somebody_is_known(
        self, site: Site, writer: str
    ) -> None:
        people: tuple[dict[str, str], ...] = (
            {"email": email(46)},
            {"email": "stranger@gmx.net"},
            {"reference": record("retailer", 46)},
            {"reference": "R#nobody"},
        )
        yes = _string(Purpose(3), Purpose(4), day=datetime(2026, 3, 2, tzinfo=UTC))
        asked: list[tuple[str, Callable[[dict[str, str]], object], int]] = [
            ("", lambda who, body=body: {"subject": who, **body}, status)  # type: ignore[misc]
            for body, status in self.WRONG
        ]
        asked += [
            ("/batch", lambda who: {"events": [{"subject": who, **self.WRONG[-1][0]}]}, 202),
            ("/withdraw", lambda who: {"subject": who, "purpose": "profiling"}, 422),
            ("/withdraw", lambda who: {"subject": who}, 202),
            ("/strings", lambda who: {"subject": who, "format": "tcf", "string": yes}, 202),
        ]
        for path, body, status in asked:
            answers = [site.post(f"/v1/consents{path}", body(who), key=writer) for who in people]
            assert [answer.status_code for answer in answers] == [status] * 4
            told = [answer.json() for answer in answers]
            for one in told:
                (one.get("recorded") or one).pop("time", None)
            assert told[1:] == told[:-1]
        assert site.allowed(record("retailer", 46)) == "withdrawn"

    def test_nor_do_they_where_nothing_can_be_recorded(self, made: World, tmp_path: Path) -> None:
        world = made.copy(tmp_path / "copy")
        directory = world.folder("retailer").path
        key = Clients(directory).add("writer", [Scope.CONSENT_WRITE], now=utc_now())
        with serving(directory, ApiConfig(port=0)) as client:
            site = Site(world, client, key)
            for who in (email(20), "stranger@gmx.net"):
                answer = site.post("/v1/consents/withdraw", {"subject": {"email": who}})
                assert answer.status_code == 503

    def test_who_sees_is_told_of_nobody_and_nothing_is_recorded(self, site: Site) -> None:
        size = _journal(site).stat().st_size
        one = {"purpose": PURPOSE, "event": "given"}
        both = [{"subject": {"email": who}, **one} for who in (email(20), "stranger@gmx.net")]
        answer = site.post("/v1/consents/batch", {"events": both})
        assert (answer.status_code, answer.json()["type"]) == (404, "urn:comity:problem:nobody")
        assert _journal(site).stat().st_size == size

    def test_a_batch_reaches_each_whom_it_names(self, site: Site, writer: str) -> None:
        named = [{"email": who} for who in (email(47), email(47).upper(), "stranger@gmx.net")]
        events = [{"subject": who, "purpose": PURPOSE, "event": "refused"} for who in named]
        before = _journal(site).read_bytes().count(b"\n")
        answer = site.post("/v1/consents/batch", {"events": events}, key=writer)
        assert (answer.status_code, answer.json()["events"]) == (202, None)
        assert _journal(site).read_bytes().count(b"\n") == before + 2
        assert site.allowed(record("retailer", 47)) == "refused"


class TestWhileAJobIsAtWork:
    def test_what_is_said_is_on_disk_and_told_afterwards(self, site: Site) -> None:
        before = len(site.recorded())
        with locked(PartyFolder(site.path)):
            assert site.say("withdrawn").status_code == 201
            assert site.allowed() == "withdrawn"
            erase = site.post("/v1/erasures", {"email": email(40)})
            assert (erase.status_code, erase.json()["type"]) == (503, "urn:comity:problem:busy")
            assert int(erase.headers["Retry-After"]) > 0
            assert len(site.leaves()) == before
        assert len(site.recorded()) == before + 1
        assert site.say("given").status_code == 201

    def test_those_who_wait_for_it_keep_nobody_from_withdrawing(
        self, made: World, tmp_path: Path
    ) -> None:
        world = made.copy(tmp_path / "copy")
        config, key = prepared(world, tmp_path, patience_seconds=60)
        many = 45  # more than there are threads
        with serving(world.folder("retailer").path, config) as client:
            site = Site(world, client, key)
            with ThreadPoolExecutor(many) as threads:
                with locked(world.folder("retailer")):
                    polls = [threads.submit(site.get, "/v1/erasures/rq-0") for _ in range(many)]
                    until(lambda: sum(poll.done() for poll in polls) == many - 4)
                    refused = [poll.result() for poll in polls if poll.done()]
                    assert site.say("withdrawn").status_code == 201
                    assert not all(poll.done() for poll in polls)
                codes = sorted(poll.result().status_code for poll in polls)
        assert {one.json()["type"] for one in refused} == {"urn:comity:problem:busy"}
        assert all(int(one.headers["Retry-After"]) > 0 for one in refused)
        assert codes == [404] * 4 + [503] * (many - 4)

    def test_events_from_all_sides_are_all_there_once(self, site: Site) -> None:
        before = _journal(site).read_bytes().count(b"\n")
        people = [f"R#{number}" for number in range(20)]
        with ThreadPoolExecutor(4) as threads:
            answers = list(threads.map(lambda one: site.say("given", one), people))
        places = sorted(answer.json()["sequence"] for answer in answers)
        assert places == list(range(before, before + 20))
        assert _journal(site).read_bytes().count(b"\n") == before + 20


class TestOnce:
    def test_the_same_key_and_body_are_recorded_once(self, site: Site) -> None:
        body = {"subject": {"reference": SUBJECT}, "purpose": PURPOSE, "event": "given"}
        size = _journal(site).stat().st_size
        answers = [site.post("/v1/consents", body, Idempotency_Key="a") for _ in range(2)]
        assert answers[0].json() == answers[1].json()
        assert _journal(site).read_bytes()[size:].count(b"\n") == 1
        other = site.post("/v1/consents", body | {"event": "refused"}, Idempotency_Key="a")
        assert (other.status_code, other.json()["type"]) == (409, "urn:comity:problem:key-reused")

    def test_the_answer_outlives_the_process(self, made: World, tmp_path: Path) -> None:
        world = made.copy(tmp_path / "copy")
        config, key = prepared(world, tmp_path)
        body = {"subject": {"reference": SUBJECT}, "purpose": PURPOSE, "event": "withdrawn"}
        answers = []
        for _ in range(2):
            with serving(world.folder("retailer").path, config) as client:
                site = Site(world, client, key)
                answers.append(site.post("/v1/consents", body, Idempotency_Key="k").json())
        assert answers[0] == answers[1]
        assert site.recorded() == ["withdrawn"]  # the teller ends what it began
        kept = (site.path / "api" / "answers.sqlite").read_bytes()
        assert SUBJECT.encode() not in kept
        assert (site.path / "api" / "answers.sqlite").stat().st_mode & 0o77 == 0


class TestErasure:
    def test_the_same_identifier_leads_to_the_same_request_and_receipt(self, site: Site) -> None:
        asked = [
            site.post("/v1/erasures", {"email": text}) for text in (email(41), email(41).upper())
        ]
        assert [answer.status_code for answer in asked] == [202, 202]
        assert asked[0].json() == asked[1].json()
        request = asked[0].json()["request"]
        assert site.get(f"/v1/erasures/{request}").json() == asked[0].json()
        assert site.get(f"/v1/erasures/{request}/receipt").status_code == 404
        from federation.erasing import Erasing

        with held(site.path) as at:
            Erasing(at.folder, at.agreement, at.gate, clock=utc_now).run()
        assert site.get(f"/v1/erasures/{request}").json()["standing"] == "completed"
        receipt = site.get(f"/v1/erasures/{request}/receipt").json()
        assert set(receipt["completion"]) >= {"payload", "signatures"}
        assert site.get("/v1/erasures/rq-0").status_code == 404

    def test_requests_of_the_framework_are_acknowledged(self, site: Site) -> None:
        found = site.client.get("/dsrdelete.json")
        keys = Keys({OURS: Discovery.from_json(found.content)})

        def send(value: str, *, recipient: str = OURS, kind: str = "email") -> ResultCode:
            now = utc_now()
            named = Identifier(value=value, type=kind, format="plaintext")
            identity = issuer().identity(named, jti="id-1", now=now)
            token = issuer().request(identity, named, recipient=recipient, jti="rq-1", now=now)
            answer = site.client.post("/v1/deletion-requests", json={"rqJWT": token})
            assert answer.status_code == 200
            read = read_acknowledgement(
                answer.json()["acJWT"], keys, request=token, recipient=OURS, now=now
            )
            return read.code

        requested = [leaf.kind for leaf in site.world.leaves("retailer")].count
        before = requested("erasure.requested")
        assert [send(email(42)), send(email(42))] == [ResultCode.ACCEPTED] * 2
        requested = [leaf.kind for leaf in site.world.leaves("retailer")].count
        assert requested("erasure.requested") == before + 1
        assert send(email(43), recipient="another.example") is ResultCode.MALFORMED_REQUEST
        assert send("x", kind="device") is ResultCode.UNSUPPORTED_IDENTIFIER_TYPE
        assert send("no address") is ResultCode.INCORRECT_IDENTIFIER_FORMAT
        forged = site.client.post("/v1/deletion-requests", json={"rqJWT": "a.b.c"})
        assert forged.status_code == 200


class TestSubjects:
    def test_what_is_held_is_shown_handed_over_and_corrected(self, site: Site) -> None:
        named = {"reference": record("retailer", 50)}
        shown = site.post("/v1/subjects/show", named).json()
        (row,) = (dict(zip(shown["columns"], one, strict=True)) for one in shown["rows"])
        assert (row["age"], row["record"]) == ("68", named["reference"])
        exported = site.post("/v1/subjects/export", {"email": email(50)})
        assert exported.headers["content-type"].startswith("text/csv")
        assert exported.text.splitlines()[0] == ",".join(shown["columns"])
        changed = site.post("/v1/subjects/correct", {"subject": named, "values": {"age": "69"}})
        assert changed.status_code == 200
        assert "69" in site.post("/v1/subjects/show", named).json()["rows"][0]
        for values in ({"record": "R9"}, {"no-such": "secret-value"}):
            refused = site.post("/v1/subjects/correct", {"subject": named, "values": values})
            assert (refused.status_code, "secret" in refused.text) == (422, False)

    def test_that_nothing_is_held_is_an_answer_too(self, site: Site) -> None:
        answer = site.post("/v1/subjects/show", {"email": "stranger@gmx.net"})
        assert (answer.status_code, answer.json()["rows"]) == (200, [])


class TestWhoMay:
    @pytest.mark.parametrize("key", ["x", "comity_website_" + "0" * 64, "ä" * 300])
    def test_a_stranger_may_nothing(self, site: Site, key: str) -> None:
        answer = site.client.post(
            "/v1/consents/state",
            json={"subject": {"reference": SUBJECT}},
            headers={"Authorization": f"Bearer {key}".encode()},
        )
        assert (answer.status_code, answer.headers["WWW-Authenticate"]) == (401, "Bearer")

    @pytest.mark.parametrize("content", [b"{", b"{}", b"[" * 5000, b"x" * (257 << 10)])
    def test_of_a_stranger_nothing_is_read(self, site: Site, content: bytes) -> None:
        for path in ("/v1/consents", "/v1/erasures", "/nothing"):
            answer = site.client.post(path, content=content)
            assert (answer.status_code, answer.headers["WWW-Authenticate"]) == (401, "Bearer")
            assert answer.headers["content-type"] == "application/problem+json"

    def test_strangers_are_metered_wherever_they_ask_and_take_nothing_from_others(
        self, made: World, tmp_path: Path
    ) -> None:
        world = made.copy(tmp_path / "copy")
        config, key = prepared(world, tmp_path, requests_per_second=0.001, burst=2)
        with serving(world.folder("retailer").path, config) as client:
            site = Site(world, client, key)
            asked = [client.post("/v1/consents", content=b"{") for _ in range(3)]
            assert [answer.status_code for answer in asked] == [401, 401, 429]
            assert int(asked[-1].headers["Retry-After"]) > 900
            for path in ("/ready", "/dsrdelete.json", "/v1/openapi.json"):
                codes = [client.get(path).status_code for _ in range(3)]
                assert codes == [200, 200, 429]
            assert {client.get("/health").status_code for _ in range(3)} == {200}
            assert site.say("given").status_code == 201

    def test_a_key_opens_what_it_is_for_and_nothing_else_until_it_is_revoked(
        self, site: Site
    ) -> None:
        clients = Clients(site.path)
        narrow = clients.add("narrow", [Scope.CONSENT_READ], now=utc_now())
        gone = clients.add("gone", Scope, now=utc_now(), expires=utc_now())
        asked: dict[str, object] = {"subject": {"reference": SUBJECT}}
        assert site.post("/v1/consents/state", asked, key=narrow).status_code == 200
        for path, body in (
            ("/v1/consents/withdraw", asked),
            ("/v1/subjects/show", asked["subject"]),
            ("/v1/erasures", {"email": email(44)}),
        ):
            assert site.post(path, body, key=narrow).status_code == 403
        assert site.post("/v1/consents/state", asked, key=gone).status_code == 401
        clients.revoke("narrow")
        assert site.post("/v1/consents/state", asked, key=narrow).status_code == 401
        kept = (site.path / "api" / "clients.json").read_text()
        assert narrow.rsplit("_", 1)[1] not in kept

    def test_adding_a_client_brings_back_none_that_is_being_revoked(self, site: Site) -> None:
        clients = Clients(site.path)
        clients.add("leaver", Scope, now=utc_now())
        lock = site.path / "api" / ".clients.lock"
        with ThreadPoolExecutor(2) as pool, lock.open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            changes = [
                pool.submit(clients.add, "joiner", Scope, now=utc_now()),
                pool.submit(clients.revoke, "leaver"),
            ]
            assert wait(changes, timeout=0.2).done == set()
            fcntl.flock(file, fcntl.LOCK_UN)
            for change in changes:
                change.result()
        names = {one.name for one in clients.listed()}
        assert "joiner" in names
        assert "leaver" not in names
        clients.revoke("joiner")

    def test_whoever_asks_too_often_waits_and_others_do_not(
        self, made: World, tmp_path: Path
    ) -> None:
        world = made.copy(tmp_path / "copy")
        config, key = prepared(world, tmp_path, requests_per_second=0.001, burst=3)
        other = Clients(world.folder("retailer").path).add("other", Scope, now=utc_now())
        with serving(world.folder("retailer").path, config) as client:
            site = Site(world, client, key)
            asked = {"subject": {"reference": SUBJECT}}
            codes = [site.post("/v1/consents/state", asked).status_code for _ in range(4)]
            assert codes == [200, 200, 200, 429]
            refused = site.post("/v1/consents/state", asked)
            assert int(refused.headers["Retry-After"]) > 900
            assert site.post("/v1/consents/state", asked, key=other).status_code == 200


class TestCommands:
    def run(self, capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str]:
        with pytest.raises(SystemExit) as left:
            main(["api", *map(str, arguments)])
        told = capsys.readouterr()
        return int(left.value.code or 0), told.out + told.err

    def test_a_key_is_shown_once_and_can_be_taken_away(
        self, made: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        path = made.copy(tmp_path / "copy").folder("retailer").path
        scopes = ("--scope", "consent:write", "--scope", "consent:read")
        code, key = self.run(capsys, "client", "add", path, "website", *scopes)
        client = Clients(path).authenticated(key.strip(), now=utc_now())
        assert (code, client.scopes) == (0, (Scope.CONSENT_READ, Scope.CONSENT_WRITE))
        assert self.run(capsys, "client", "add", path, "website", *scopes)[0] == 2
        assert self.run(capsys, "client", "add", path, "No Name", *scopes)[0] == 2
        code, listed = self.run(capsys, "client", "list", path, "--json")
        (told,) = json.loads(listed)
        assert (told["name"], client.key_digest in listed, key in listed) == (
            "website",
            False,
            False,
        )
        assert self.run(capsys, "client", "revoke", path, "website")[0] == 0
        assert self.run(capsys, "client", "revoke", path, "website")[0] == 2

    def test_who_cannot_serve_says_why(
        self, made: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        path = made.copy(tmp_path / "copy").folder("retailer").path
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            port = taken.getsockname()[1]
            code, told = self.run(capsys, "serve", path, "--port", port)
        assert (code, "cannot listen" in told, "serving" in told) == (2, True, False)
        with (path / "api" / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            code, told = self.run(capsys, "serve", path)
        assert (code, "another process serves" in told) == (2, True)


class TestProblems:
    @pytest.mark.parametrize(
        ("body", "status", "pointer"),
        [
            (b"{", 422, "/body/1"),
            (b'{"subject": {"reference": ""}, "purpose": "p", "event": "given"}', 422, None),
            (b'{"subject": {"secret-name": 1}, "purpose": "p", "event": "secret-word"}', 422, None),
            (b'{"secret-name": 1}', 422, "/body/…"),
            (b"[" * 5000, 400, None),
            (b'"\\ud800"', 422, None),
            (b'{"subject": {"reference": "\\ud800"}, "purpose": "p", "event": "given"}', 422, None),
            (b'{"subject": {"reference": "a\\nb"}, "purpose": "p", "event": "given"}', 422, None),
        ],
    )
    def test_a_mistake_is_named_and_not_repeated(
        self, site: Site, body: bytes, status: int, pointer: str | None
    ) -> None:
        answer = site.client.post(
            "/v1/consents",
            content=body,
            headers={"Authorization": f"Bearer {site.key}", "Content-Type": "application/json"},
        )
        told = answer.json()
        assert (answer.status_code, told["status"]) == (status, status)
        assert answer.headers["content-type"] == "application/problem+json"
        assert told["remedy"]
        assert "secret" not in answer.text
        if pointer is not None:
            assert pointer in {one["pointer"] for one in told["errors"]}

    @pytest.mark.parametrize(
        ("subject", "pointer", "detail"),
        [
            ('"R1"', "/body/subject", "expected one of reference, email, phone"),
            ('{"name": "R1"}', "/body/subject", "expected one of reference, email, phone"),
            ('{"email": ""}', "/body/subject/email", "String should have at least 1 character"),
        ],
    )
    def test_how_a_person_may_be_named_is_told_once(
        self, site: Site, subject: str, pointer: str, detail: str
    ) -> None:
        answer = site.client.post(
            "/v1/consents/withdraw",
            content=f'{{"subject": {subject}}}',
            headers={"Authorization": f"Bearer {site.key}", "Content-Type": "application/json"},
        )
        assert answer.json()["errors"] == [{"pointer": pointer, "detail": detail}]

    def test_a_body_that_is_too_long_is_refused_told_or_not(self, site: Site) -> None:
        long = b"x" * (257 << 10)

        def parts() -> Iterator[bytes]:
            yield from (long[:1000] for _ in range(300))

        for content in (long, parts()):
            shown = {"Authorization": f"Bearer {site.key}"}
            answer = site.client.post("/v1/consents", content=content, headers=shown)
            assert (answer.status_code, answer.json()["status"]) == (413, 413)

    def test_what_is_not_there_is_a_problem_too(self, site: Site) -> None:
        for answer, status in (
            (site.get("/nothing"), 404),
            (site.get("/v1/consents"), 405),
        ):
            assert (answer.status_code, answer.json()["status"]) == (status, status)

    def test_it_is_there_and_ready(self, site: Site) -> None:
        assert site.client.get("/health").json() == {"status": "ok"}
        assert site.client.get("/ready").json() == {"status": "ok"}

    def test_a_party_without_a_journal_is_not_ready(self, made: World, tmp_path: Path) -> None:
        world = made.copy(tmp_path / "copy")
        directory = world.folder("retailer").path
        key = Clients(directory).add("website", Scope, now=utc_now())
        with serving(directory, ApiConfig(port=0)) as client:
            site = Site(world, client, key)
            assert client.get("/ready").status_code == 503
            refused = site.say("given")
            assert (refused.status_code, str(directory) in refused.text) == (503, False)
            assert client.get("/dsrdelete.json").status_code == 503

    def test_nothing_of_a_person_is_in_logs(
        self, site: Site, caplog: pytest.LogCaptureFixture
    ) -> None:
        with caplog.at_level(logging.DEBUG):
            site.say("given", "R#secret")
            site.post("/v1/consents/state", {"subject": {"email": "secret@gmx.net"}})
            site.post("/v1/consents", {"secret": "secret"})
            site.get("/v1/erasures/secret")
            site.client.get("/secret?secret=1", headers={"Authorization": "Bearer secret"})
        told = [one.getMessage() for one in caplog.records if one.name.startswith("comity.api")]
        assert "POST /v1/consents 201 website" in told
        assert "GET /v1/erasures/{request} 404 website" in told
        assert "secret" not in "".join(told)
