"""Regions, code and approvals: agreed, held against every release, and nothing leaves around them."""

import json
import os
import resource
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from parties import EXPAND, MATCH, PURPOSE, ROLES, TRAIN, Parties, World
from test_gate import BODIES, NOISE, departure, opened, people, update
from typer.testing import CliRunner

from compliance import records
from compliance.approval import Approval, sign_approval, verify_approval
from compliance.errors import ApprovalError, InvalidAgreementError
from compliance.policy import Policy
from compliance.signing import Envelope, SigningKey
from compliance.terms import COUNTRIES, RELEASES_ROWS, Classification, Computation, Reveal
from federation import code
from federation.api.configuration import ApiConfig
from federation.api.server import make_server
from federation.api.telling import Teller
from federation.approvals import approvals_of, job_digest, keep_approvals
from federation.approving import encode_approvals
from federation.cli import app
from federation.clock import utc_now
from federation.code import listing, looked_at_once, running_code
from federation.coordinator import write_jobs
from federation.errors import PartyUnreachableError, RefusedError, WorkspaceError
from federation.gate import Minimum
from federation.messages import JobApproved, SealedMessage, TrainUpdate, unseal_header
from federation.people_used import PeopleUsed
from federation.policies import classification, policy_of
from federation.references import References
from federation.routes import ROUTES
from privacy.accounting import ChargeState, GaussianEvent
from privacy.randomness import seeded_secret

WHOSE = {"approver-1": "brand", "approver-2": "retailer", "approver-3": "retailer"}
KEYS = {name: SigningKey.from_seed(seeded_secret(9, name)) for name in WHOSE}
APPROVAL: dict[str, Any] = {
    "approvers": [
        {"name": name, "party": party, "key": KEYS[name].public.to_base64()}
        for name, party in WHOSE.items()
    ]
}
STRANGER = APPROVAL["approvers"][1] | {"party": "x"}
OTHER_CODE = "0" * 64
TICK = 20_000_000
"""Nanoseconds that the file system's clock needs to go on."""


def regions(**elsewhere: str) -> list[dict[str, Any]]:
    """All in Germany, and reaching it alone, but for those elsewhere, whom all reach."""
    names = ("brand", "retailer", "courier", "coordinator")
    return [
        {
            "party": name,
            "country": elsewhere.get(name, "DE"),
            "reaches": ["DE", *elsewhere.values()],
        }
        for name in names
    ]


@pytest.fixture(scope="module")
def approving(tmp_path_factory: pytest.TempPathFactory) -> World:
    return with_terms(World.make(tmp_path_factory.mktemp("approving")), approval=APPROVAL)


def with_terms(world: World, **changes: Any) -> World:
    """The same world under a contract with further terms, signed by all."""
    from compliance.agreement import Agreement, SignedAgreement

    terms = world.agreement.model_dump(mode="json") | changes
    signed = SignedAgreement.draft(Agreement.model_validate(terms))
    for folder in world.workspace.folders:
        signed = signed.sign(folder.name, folder.identity_key())
    for folder in world.workspace.folders:
        (folder.path / "agreement.json").write_bytes(signed.to_json())
    return World(replace(world.workspace, agreement=signed.verify()), world.now)


def approve(world: World, spec: Any, *names: str) -> list[Envelope]:
    return [
        sign_approval(
            Approval(
                agreement=world.agreement.digest,
                job=spec.name,
                job_digest=job_digest(spec),
                approver=name,
                time=world.now,
            ),
            KEYS[name],
            world.agreement,
        )
        for name in names
    ]


class TestTerms:
    @pytest.mark.parametrize(
        ("changes", "told"),
        [
            ({"regions": regions()[:2]}, "'courier' has none"),
            ({"regions": [*regions(), regions()[0]]}, "'brand' has two"),
            ({"regions": [*regions(), regions()[0] | {"party": "x"}]}, "'x' is no party"),
            ({"regions": [*regions()[:3], regions(coordinator="FR")[3]]}, "does not reach FR"),
            ({"regions": [regions()[0] | {"country": "UK"}]}, "ISO 3166-1"),
            ({"regions": [regions()[0] | {"country": "AT"}]}, "which its reaches lack"),
            ({"code_digests": ["abc"]}, "code_digests"),
            ({"approval": APPROVAL | {"approvals": 4}}, "4 of 3 approvers"),
            ({"approval": APPROVAL | {"approvals": 3, "parties": 3}}, "approvers are of 2"),
            ({"approval": APPROVAL | {"parties": 1}}, "greater than or equal to 2"),
            (
                {"approval": {"approvers": [APPROVAL["approvers"][0]] * 2}},
                "two are called 'approver-1'; .*one key stands twice",
            ),
            (
                {"approval": {"approvers": [STRANGER, APPROVAL["approvers"][0]]}},
                "'x', no party",
            ),
        ],
    )
    def test_contradictions_are_told(self, changes: dict[str, Any], told: str) -> None:
        terms = Parties.in_memory().agreement.model_dump(mode="json") | changes
        with pytest.raises(InvalidAgreementError, match=told):
            type(Parties.in_memory().agreement).from_terms(terms)

    def test_everything_that_releases_rows_needs_approval_and_a_mere_size_does_not(self) -> None:
        agreement = Parties.in_memory(approval=APPROVAL | {"also": ["measure"]}).agreement
        needing = {one for one in Computation if agreement.needs_approval(one)}
        assert needing == RELEASES_ROWS | {Computation.MEASURE}
        size = agreement.match.model_copy(update={"reveal": Reveal.SIZE_ONLY})
        told = agreement.model_copy(update={"match": size})
        assert not told.needs_approval(Computation.MATCH)
        assert not Parties.in_memory().agreement.needs_approval(Computation.EXPAND)

    def test_countries_are_codes(self) -> None:
        assert len(COUNTRIES) == 249


class TestApprovals:
    def test_an_approval_is_of_one_job_as_it_stands(self, approving: World) -> None:
        (envelope,) = approve(approving, EXPAND, "approver-1")
        verify_approval(envelope, approving.agreement, job_digest(EXPAND))
        changed = EXPAND.model_copy(update={"share": 0.3})
        with pytest.raises(ApprovalError, match="as it stood before"):
            verify_approval(envelope, approving.agreement, job_digest(changed))
        other = approving.agreement.model_copy(update={"title": "Other"})
        with pytest.raises(ApprovalError, match="another agreement"):
            verify_approval(envelope, other, job_digest(EXPAND))

    def test_nobody_else_can_make_one(self, approving: World) -> None:
        content = json.loads(approve(approving, EXPAND, "approver-1")[0].payload_bytes)
        approval = Approval.model_validate(content)
        with pytest.raises(ApprovalError, match="names key"):
            sign_approval(approval, KEYS["approver-2"], approving.agreement)
        stranger = approval.model_copy(update={"approver": "stranger"})
        with pytest.raises(ApprovalError, match="no approver 'stranger'"):
            sign_approval(stranger, KEYS["approver-1"], approving.agreement)
        good = approve(approving, EXPAND, "approver-1")[0]
        forged = Envelope.sign(
            good.payload_type, good.payload_bytes, {"approver-1": KEYS["approver-2"]}
        )
        with pytest.raises(ApprovalError, match="does not verify"):
            verify_approval(forged, approving.agreement, job_digest(EXPAND))

    def test_a_run_needs_people_of_two_parties_and_each_yes_is_a_leaf(
        self, approving: World, tmp_path: Path
    ) -> None:
        world = approving.copy(tmp_path / "run")
        world.workspace = replace(world.workspace, agreement=approving.agreement)
        coordinator = world.folder("coordinator")
        write_jobs(coordinator, [MATCH])
        keep_approvals(
            coordinator, world.agreement, MATCH, approve(world, MATCH, "approver-2", "approver-3")
        )
        with pytest.raises(RefusedError, match="2 approvers of 2 parties") as refusal:
            world.run()
        assert refusal.value.term == "approval"
        assert not any(isinstance(leaf, records.ConsentUsed) for leaf in world.leaves("retailer"))
        keep_approvals(coordinator, world.agreement, MATCH, approve(world, MATCH, "approver-1"))
        world.run()
        received = [
            (leaf.job, leaf.approver, leaf.of_party, leaf.job_digest)
            for leaf in world.leaves("courier")
            if isinstance(leaf, records.ApprovalReceived)
        ]
        assert received == [
            ("find", "approver-2", "retailer", job_digest(MATCH)),
            ("find", "approver-3", "retailer", job_digest(MATCH)),
            ("find", "approver-1", "brand", job_digest(MATCH)),
        ]
        assert len(approvals_of(world.folder("courier"), world.agreement, MATCH)) == 3

    @pytest.mark.parametrize("gone", ["courier", "brand"])
    def test_whoever_does_not_hear_who_approved_is_missing_as_from_any_answer(
        self, approving: World, tmp_path: Path, gone: str
    ) -> None:
        spec = MATCH.model_copy(update={"absent_partners": 1})
        world = approving.copy(tmp_path / "run")
        world.workspace = replace(world.workspace, agreement=approving.agreement)
        coordinator = world.folder("coordinator")
        write_jobs(coordinator, [spec])
        approved = approve(world, spec, "approver-1", "approver-2")
        keep_approvals(coordinator, world.agreement, spec, approved)

        def leave(_: str, question: SealedMessage, answer: SealedMessage) -> SealedMessage:
            if unseal_header(question.envelope, world.agreement).kind == "erase.look":
                world.unreachable.add(gone)
            return answer

        world.listener = leave
        if gone == "brand":
            with pytest.raises(PartyUnreachableError, match="no answer from brand"):
                world.run()
            return
        world.run()
        ended = [one for one in world.leaves("coordinator") if isinstance(one, records.JobEnded)]
        assert [(one.outcome, one.missing) for one in ended] == [("done", ("courier",))]

    def test_whom_a_job_goes_on_without_need_not_hear_who_approved(
        self, approving: World, tmp_path: Path
    ) -> None:
        spec = MATCH.model_copy(update={"absent_partners": 1})
        world = approving.copy(tmp_path / "run")
        world.workspace = replace(world.workspace, agreement=approving.agreement)
        coordinator = world.folder("coordinator")
        write_jobs(coordinator, [spec])
        approved = approve(world, spec, "approver-1", "approver-2")
        keep_approvals(coordinator, world.agreement, spec, approved)

        def leave(_: str, question: SealedMessage, answer: SealedMessage) -> SealedMessage:
            kind = unseal_header(question.envelope, world.agreement).kind
            if kind == "match.offer" and world.away:
                world.unreachable.add("brand")
            elif kind == "erase.look" and not world.away:
                world.unreachable.add("courier")
            return answer

        world.listener, world.away = leave, {"courier"}
        with pytest.raises(PartyUnreachableError, match="no answer from brand"):
            world.run()
        world.away, world.unreachable = set(), set()  # the courier is back, and was left out
        world.run()
        ended = [one for one in world.leaves("coordinator") if isinstance(one, records.JobEnded)]
        assert [one.outcome for one in ended] == ["failed", "done"]
        assert ended[-1].missing == ("courier",)

    def test_a_yes_is_kept_once_and_bears_no_further_signature(
        self, approving: World, tmp_path: Path
    ) -> None:
        world = approving.copy(tmp_path / "once")
        world.workspace = replace(world.workspace, agreement=approving.agreement)
        (good,) = approve(world, MATCH, "approver-1")
        junk = good.add_signature("stranger", KEYS["approver-2"])
        with pytest.raises(ApprovalError, match="'approver-1' alone"):
            verify_approval(junk, world.agreement, job_digest(MATCH))
        world.now += timedelta(seconds=1)
        payloads = {
            encode_approvals(told): kind
            for told, kind in (
                ((), "refused"),
                ((junk,), "refused"),
                ((good,), "acknowledged"),
                (approve(world, MATCH, "approver-1"), "acknowledged"),  # at another time
            )
        }
        assert len(payloads) == 4
        for payload, kind in payloads.items():
            body = JobApproved(spec=MATCH)
            told = world.parties.seal("coordinator", "courier", MATCH.name, body, payload)
            assert world.ask("courier", told).body.kind == kind
        leaves = world.leaves("courier")
        assert sum(isinstance(leaf, records.ApprovalReceived) for leaf in leaves) == 1
        assert not (world.folder("courier").job(MATCH.name) / "specification.json").exists()
        needless = JobApproved(spec=TRAIN)
        told = world.parties.seal("coordinator", "courier", TRAIN.name, needless, payload)
        assert world.ask("courier", told).body.term == "approval"

    def test_commands(self, approving: World, tmp_path: Path) -> None:
        world = approving.copy(tmp_path / "commands")
        folder = world.folder("coordinator").path
        file, key = tmp_path / "yes.json", tmp_path / "key"
        key.write_text(seeded_secret(9, "approver-1").hex())
        asked = ["approve", "best", "--in", str(folder), "--as", "approver-1", "--json"]
        told = CliRunner().invoke(app, [*asked, "--key", str(key), "--out", str(file)])
        assert told.exit_code == 0, told.output
        assert json.loads(told.stdout)["job_digest"] == job_digest(EXPAND)
        key.write_text(seeded_secret(9, "approver-2").hex())
        told = CliRunner().invoke(app, [*asked[:-1], "--key", str(key), "--out", str(file)])
        assert told.exit_code == 1
        assert '"share"' in told.stdout  # the job is shown before it is signed
        told = CliRunner().invoke(app, ["approval", "add", str(folder), str(file), "--json"])
        assert json.loads(told.stdout) == [{"job": "best", "approver": "approver-1"}]
        told = CliRunner().invoke(app, ["approval", "key", str(tmp_path / "new")])
        assert len(told.stdout.strip()) == 44
        assert (tmp_path / "new").stat().st_mode & 0o777 == 0o600
        told = CliRunner().invoke(app, ["code", "digest"])
        assert told.stdout.strip() == running_code().digest

    def test_a_program_gets_the_files_that_are_digested_too(self) -> None:
        code = asdict(running_code())
        plain = CliRunner().invoke(app, ["code", "digest", "--list"]).stdout
        told = json.loads(CliRunner().invoke(app, ["code", "digest", "--list", "--json"]).stdout)
        files = told.pop("files")
        assert told == code
        assert "".join(f"{one['digest']}  {one['path']}\n" for one in files) == plain
        assert json.loads(CliRunner().invoke(app, ["code", "digest", "--json"]).stdout) == code


class TestRegions:
    def test_what_may_not_go_to_a_country_does_not(self, tmp_path: Path) -> None:
        listed = regions(brand="FR")
        listed[1]["reaches"] = ["DE"]  # the retailer's stays in Germany
        world = with_terms(World.make(tmp_path), regions=listed)
        with opened(world) as gate:
            gate.release(update())
            with pytest.raises(RefusedError, match="country") as refusal:
                gate.release(departure("match.blinded", "brand"))
        assert refusal.value.term == "regions"
        decided = world.leaves("retailer")[-1]
        assert isinstance(decided, records.AccessDecided)
        assert decided.clauses == ("agreed:regions.retailer",)
        with opened(world, "courier") as gate:
            gate.release(departure("match.blinded", "brand", "courier"))


class TestCode:
    @pytest.fixture(autouse=True)
    def looked_at_each_time(self) -> Iterator[None]:
        token = code._LOOK.set(code._look)
        yield
        code._LOOK.reset(token)

    def test_code_that_is_not_agreed_says_nothing(self, tmp_path: Path) -> None:
        world = with_terms(World.make(tmp_path), code_digests=[OTHER_CODE])
        with opened(world) as gate, pytest.raises(RefusedError, match="digest") as refusal:
            gate.release(update())
        assert refusal.value.term == "code_digests"
        assert world.outbox("retailer") == {}

    def test_code_that_is_agreed_is_one_leaf(self, tmp_path: Path) -> None:
        world = with_terms(World.make(tmp_path), code_digests=[OTHER_CODE, running_code().digest])
        for _ in range(2):
            with opened(world) as gate:
                gate.release(update())
        told = [leaf for leaf in world.leaves("retailer") if leaf.kind == "code.released"]
        assert [leaf.code_digest for leaf in told] == [running_code().digest]

    def test_every_file_counts_and_bytecode_does_not(self, tmp_path: Path) -> None:
        (tmp_path / "inner").mkdir()
        (tmp_path / "a.py").write_text("pass")
        first = listing({"federation": tmp_path})
        (tmp_path / "__pycache__").mkdir()
        (tmp_path / "__pycache__" / "a.cpython-311.pyc").write_text("compiled")
        (tmp_path / "examples").mkdir()
        (tmp_path / "examples" / "b.py").write_text("pass")
        assert listing({"federation": tmp_path}) == first
        (tmp_path / "inner" / "planted.py").write_text("pass")
        assert listing({"federation": tmp_path}).count("\n") == first.count("\n") + 1

    def test_what_python_would_import_in_place_of_a_file_counts(self, tmp_path: Path) -> None:
        package, elsewhere = tmp_path / "package", tmp_path / "elsewhere"
        for one in (package, elsewhere):
            one.mkdir()
            (one / "__init__.py").write_text("")
        (package / "clock.py").write_text("")
        first = listing({"federation": package})
        (package / "clock").symlink_to(elsewhere)
        linked = listing({"federation": package})
        assert "federation/clock/__init__.py" in linked
        (elsewhere / "__init__.py").rename(elsewhere / "__init__.pyc")
        assert "federation/clock/__init__.pyc" in listing({"federation": package})
        (package / "clock").unlink()
        assert listing({"federation": package}) == first

    @pytest.mark.parametrize("change", ["altered", "replaced", "added", "taken away", "led to"])
    @pytest.mark.parametrize("relied_on", [True, False], ids=["old", "fresh"])
    def test_nothing_is_said_of_code_that_changed_since_it_was_read(
        self, change: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, relied_on: bool
    ) -> None:
        place, elsewhere = tmp_path / "code", tmp_path / "elsewhere.py"
        (place / "inner").mkdir(parents=True)
        file = place / "inner" / "a.py"
        file.write_text("pass")
        monkeypatch.setattr(code, "_directories", lambda: {"federation": place})
        monkeypatch.setattr(code, "_read", cache(code._read.__wrapped__))
        if relied_on:
            monkeypatch.setattr(code, "_COARSEST_TICK", TICK)
        running = running_code()
        (place / "__pycache__").mkdir()
        (place / "__pycache__" / "a.cpython-311.pyc").write_text("compiled")
        if not relied_on or change == "led to":
            (place / "nowhere.py").symlink_to(elsewhere)
        time.sleep(2 * TICK / 10**9)
        assert running_code() == running
        tree, *_ = code._read()
        assert tree._seen.relied_on == (relied_on and change != "led to")
        match change:
            case "altered":
                file.write_text("fail")
            case "replaced":
                times = file.stat()
                (tmp_path / "new").write_text("fail")
                (tmp_path / "new").replace(file)
                os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
            case "added":
                (place / "inner" / "b.py").touch()
            case "led to":
                elsewhere.touch()
            case _:
                file.unlink()
        with pytest.raises(WorkspaceError, match="start the process again"):
            running_code()

    def test_threads_that_ask_at_once_are_all_told(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for one in range(100):
            (tmp_path / f"{one}.py").touch()
        monkeypatch.setattr(code, "_directories", lambda: {"federation": tmp_path})
        monkeypatch.setattr(code, "_read", cache(code._read.__wrapped__))
        running = running_code()
        with ThreadPoolExecutor(4) as threads:
            told = set(threads.map(lambda _: running_code(), range(200)))
        assert told == {running}

    def test_what_leaves_together_is_looked_at_once_and_what_comes_after_it_anew(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(code, "_directories", lambda: {"federation": tmp_path})
        monkeypatch.setattr(code, "_read", cache(code._read.__wrapped__))
        running = running_code()
        with looked_at_once():
            assert running_code() == running
            (tmp_path / "a.py").touch()
            assert running_code() == running
        with looked_at_once(), pytest.raises(WorkspaceError, match="start the process again"):
            running_code()
        with pytest.raises(WorkspaceError, match="start the process again"):
            running_code()

    def test_questions_that_leave_together_are_one_look(self, tmp_path: Path) -> None:
        looks, world = [], World.make(tmp_path)
        code._LOOK.set(lambda: looks.append(code._look()) or looks[-1])
        world.run()
        told = {name: [leaf.kind for leaf in world.leaves(name)] for name in ROLES}
        said = {name: kinds.count("release") for name, kinds in told.items()}
        assert 0 < len(looks) < sum(said.values()) - said["coordinator"] / 2

    def test_code_that_could_not_be_seen_once_has_not_changed(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "inner").mkdir()
        (tmp_path / "inner" / "a.py").touch()
        monkeypatch.setattr(code, "_directories", lambda: {"federation": tmp_path})
        monkeypatch.setattr(code, "_read", cache(code._read.__wrapped__))
        running = running_code()
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (0, limits[1]))  # no further file can be opened
        try:
            with pytest.raises(WorkspaceError, match="cannot be read"):
                running_code()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        assert running_code() == running

    def test_an_api_tells_of_no_code_that_came_after_it_began(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        directory = World.make(tmp_path / "world").folder("retailer").path
        (tmp_path / "code").mkdir()
        monkeypatch.setattr(code, "_directories", lambda: {"federation": tmp_path / "code"})
        monkeypatch.setattr(code, "_read", cache(code._read.__wrapped__))
        with Teller(directory, clock=utc_now) as teller:
            make_server(directory, ApiConfig(port=0), teller)
        (tmp_path / "code" / "a.py").touch()
        with pytest.raises(WorkspaceError, match="start the process again"):
            running_code()


def test_the_most_harmful_column_classifies() -> None:
    features = [
        {"name": "age", "type": "numeric", "minimum": 18, "maximum": 90},
        {
            "name": "ill",
            "type": "categorical",
            "categories": ["a", "b"],
            "classification": "sensitive",
        },
    ]
    agreement = Parties.in_memory().agreement
    terms = agreement.model_dump(mode="json") | {"features": features}
    agreement = type(agreement).from_terms(terms)
    assert classification(agreement, "train.update", "retailer") is Classification.SENSITIVE
    assert classification(agreement, "match.offer", "retailer") is Classification.PERSONAL


# --- nothing leaves without its reasons -------------------------------------------------------

AGREEMENTS = st.fixed_dictionaries(
    {},
    optional={
        "approval": st.just(APPROVAL) | st.just(APPROVAL | {"also": ["train"]}),
        "regions": st.just(regions()) | st.just(regions(brand="FR")),
        "code_digests": st.sampled_from([[OTHER_CODE], [running_code().digest]]),
        "purposes": st.just([PURPOSE]),
    },
)
DEPARTURES = st.fixed_dictionaries(
    {
        "kind": st.sampled_from(["train.update", "match.blinded", "expand.done", "measure.counts"]),
        "recipient": st.sampled_from(["coordinator", "brand", "courier"]),
        "people": st.sampled_from(["all", "strangers", "withdrawn", "another purpose"]),
        "noise": st.sampled_from([8.0, 0.5]),
        "found": st.sampled_from([4, 5]),
        "late": st.booleans(),
        "approvers": st.sampled_from([(), ("approver-1",), ("approver-1", "approver-2")]),
    }
)


@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changes=AGREEMENTS, wanted=st.lists(DEPARTURES, min_size=3, max_size=5))
def test_no_bytes_leave_without_leaf_clause_consent_and_charge(
    changes: dict[str, Any],
    wanted: list[dict[str, Any]],
    bare: World,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    world = with_terms(bare.copy(tmp_path_factory.mktemp("any") / "world"), **changes)
    wanted = [READY, *wanted]
    for number, one in enumerate(wanted):
        leave(world, number, one)
    check_reasons(world)
    if not changes:
        assert any(isinstance(leaf, records.Release) for leaf in world.leaves("retailer"))


READY = {
    "kind": "train.update",
    "recipient": "coordinator",
    "people": "all",
    "noise": 8.0,
    "found": 5,
    "late": False,
    "approvers": (),
}


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World.make(tmp_path_factory.mktemp("bare"))


def leave(world: World, number: int, one: dict[str, Any]) -> None:
    """Try to let something out; count what is in the outbox only where a release returned."""
    spec = {"train.update": TRAIN, "expand.done": EXPAND}.get(one["kind"], MATCH)
    used = {
        "all": people(),
        "strangers": PeopleUsed(PURPOSE, References.of(["R1"]), 1),
        "withdrawn": people(),
        "another purpose": replace(people(), purpose="newsletter"),
    }[one["people"]]
    world.withdraw("retailer", [33] if one["people"] == "withdrawn" else [])
    world.now += timedelta(days=400 if one["late"] else 0)
    body = BODIES[one["kind"]]
    if isinstance(body, TrainUpdate):
        body = body.model_copy(update={"round": number + 1})
    fields: dict[str, Any] = {
        "people": used,
        "body": body,
        "answers": f"{number:064x}",
        "minimums": (Minimum("match.minimum_match", one["found"], 5),),
        "job": spec.name,
    }
    if one["kind"] in {"train.update", "measure.counts"}:
        fields["charge"] = GaussianEvent(noise_multiplier=one["noise"])
    if world.agreement.approval is not None:
        keep_approvals(
            world.folder("retailer"), world.agreement, spec, approve(world, spec, *one["approvers"])
        )
    before = world.outbox("retailer")
    with opened(world) as gate:
        gate.spec = spec
        try:
            gate.release(departure(one["kind"], one["recipient"], **fields))
        except RefusedError:
            assert world.outbox("retailer") == before, "refused, and something is in the outbox"
    world.now -= timedelta(days=400 if one["late"] else 0)


def check_reasons(world: World) -> None:
    """Every envelope that left has, before it in the log, all that it needed."""
    agreement, leaves = world.agreement, world.leaves("retailer")
    policy = policy_of(world.folder("retailer"), agreement)
    envelopes = [c for name, c in world.outbox("retailer").items() if name.endswith(".json")]
    releases = {
        leaf.content_digest: (at, leaf)
        for at, leaf in enumerate(leaves)
        if isinstance(leaf, records.Release)
    }
    from federation.messages import content_digest

    assert {content_digest(one) for one in envelopes} == set(releases)
    committed = {
        one.charge_id
        for one in world.statement("retailer").charges
        if one.state is ChargeState.COMMITTED
    }
    permits = {f"agreed:{kind}" for kind in ROUTES}
    for at, release in releases.values():
        own = [leaf for leaf in leaves[:at] if leaf.job == release.job]
        (decided,) = [
            leaf
            for leaf in own
            if isinstance(leaf, records.AccessDecided)
            and leaf.release_id == release.release_id
            and leaf.allowed
        ][-1:]
        assert set(decided.clauses) <= permits
        assert decided.clauses
        assert decided.policy_digest == policy.digest
        assert isinstance(policy, Policy)
        assert agreement.valid_from <= release.time < agreement.valid_until
        between = leaves[leaves.index(decided) : at]
        assert any(isinstance(leaf, records.ConsentUsed) for leaf in between)
        if release.computation == "train.update":
            assert release.charge_id in committed
            assert any(isinstance(leaf, records.BudgetReserved) for leaf in between)
        needing = {"match.blinded": Computation.MATCH, "expand.done": Computation.EXPAND}
        computation = needing.get(release.computation, Computation.TRAIN)
        if agreement.needs_approval(computation):
            directory = world.folder("retailer").job(release.job) / "approvals"
            assert len(list(directory.glob("*.json"))) >= 2
        if agreement.code_digests:
            assert running_code().digest in agreement.code_digests


def test_the_charge_of_the_property_is_affordable() -> None:
    assert NOISE.noise_multiplier == READY["noise"]
