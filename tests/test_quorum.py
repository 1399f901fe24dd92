"""Jobs that go on without some partners: who is missing is named, and rejoins at the next job."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from parties import EXPAND, JOBS, MATCH, PURPOSE, TRAIN, World, collaboration
from pydantic import ValidationError

from compliance import naming, records
from compliance.auditing import FindingKind, PartyLog, audit
from compliance.records.leaf import Told
from compliance.reporting import figures, processing_report
from compliance.terms import NoiseSource, Reveal
from federation.audit import verify_party
from federation.audit_rules import rules_for
from federation.auditing import audit_places
from federation.collaboration import load_collaboration
from federation.coordinator import write_jobs
from federation.errors import CollaborationError, PartyUnreachableError, RefusedError
from federation.jobs.model import JointModel
from federation.messages import (
    Acknowledged,
    MeasurePublished,
    Message,
    ModelPublished,
    Refused,
    SealedMessage,
    TrainUpdate,
    unseal_header,
)
from federation.objections import policy_objections
from federation.plan import plan
from federation.specification import (
    AlignSpec,
    JobSpec,
    MatchSpec,
    MeasureSpec,
    TrainSpec,
    VerticalTrainSpec,
)

MEASURE_TERMS: dict[str, Any] = {
    "purpose": PURPOSE,
    "columns": [{"name": "colour"}],
    "epsilon": 0.2,
    "minimum_cell": 1,
}
WITHOUT_ONE = {"absent_partners": 1}
MATCH_WITHOUT = MATCH.model_copy(update=WITHOUT_ONE)
TRAIN_WITHOUT = TRAIN.model_copy(update=WITHOUT_ONE | {"epsilon": 0.4})
EXPAND_WITHOUT = EXPAND.model_copy(update=WITHOUT_ONE)
MEASURE_WITHOUT = MeasureSpec(
    name="count", match="find", columns=("colour",), epsilon=0.1, absent_partners=1
)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World.make(
        tmp_path_factory.mktemp("quorum"),
        unsafe_seed=3,
        expand={"count_epsilon": 0.2},
        measure=MEASURE_TERMS,
        budget={"epsilon": 3.0},
    )


@pytest.fixture
def world(made: World, tmp_path: Path) -> World:
    return made.copy(tmp_path / "workspace")


def run(world: World, *jobs: JobSpec, away: Sequence[str] = ()) -> None:
    world.away = set(away)
    write_jobs(world.folder("coordinator"), jobs)
    world.run()


def missing_at_the_end(world: World) -> dict[str, Told]:
    ended = (one for one in world.leaves("coordinator") if isinstance(one, records.JobEnded))
    return {one.job or "": one.missing for one in ended if one.outcome == "done"}


def model(world: World, name: str, job: str = "model") -> JointModel:
    return JointModel.model_validate_json(world.folder(name).model(job).read_bytes())


class CrashError(Exception):
    """The coordinator's process is no more."""


def drop(world: World, party: str, kind: str, *, crash_at: str | None = None) -> None:
    """Have a party go away once it has said something, and the coordinator after it was missed."""
    said: list[str] = []

    def listen(name: str, _: SealedMessage, answer: SealedMessage) -> SealedMessage:
        told = unseal_header(answer.envelope, world.agreement).kind
        if party in world.unreachable:
            said.append(told)
            if crash_at == told and len(said) > 1:
                raise CrashError
        if (name, told) == (party, kind):
            world.unreachable.add(party)
        return answer

    world.listener = listen


def test_every_kind_of_job_goes_on_without_a_partner_that_is_away_and_says_so(
    world: World,
) -> None:
    jobs = (MATCH_WITHOUT, TRAIN_WITHOUT, EXPAND_WITHOUT, MEASURE_WITHOUT)
    run(world, *jobs, away=["courier"])
    assert missing_at_the_end(world) == {spec.name: ("courier",) for spec in jobs}
    for spec in jobs:
        ended = json.loads((world.folder("coordinator").job(spec.name) / "ended.json").read_bytes())
        assert ended["missing"] == ["courier"]
    for name in ("brand", "retailer"):
        making = model(world, name).making
        assert (making.parties, making.missing) == (("retailer",), ("courier",))
    measured = json.loads(world.folder("brand").measurement("count").read_bytes())
    assert [one["party"] for one in measured["parties"]] == ["retailer"]
    assert measured["missing"] == ["courier"]
    counts = json.loads((world.folder("brand").job("best") / "counts.json").read_bytes())
    assert [one["party"] for one in counts["counted"]] == ["retailer"]
    assert counts["missing"] == ["courier"]
    for name in ("brand", "coordinator"):
        told = [
            leaf
            for leaf in world.leaves(name)
            if isinstance(leaf, records.ModelTrained | records.MeasurementMade)
        ]
        assert [(leaf.parties, leaf.missing) for leaf in told] == [
            (("retailer",), ("courier",))
        ] * 2
    assert not world.folder("courier").log.joinpath("tile/entries").exists()


def test_parties_of_whom_leaves_tell_by_place_are_audited_and_reported_by_name(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(naming, "TOLD_BYTES", 2)  # as if names were too long, however few
    jobs = (MATCH_WITHOUT, TRAIN_WITHOUT, MEASURE_WITHOUT)
    run(world, *jobs, away=["courier"])
    everybody = [party.name for party in world.agreement.parties]
    told = [
        (leaf, getattr(leaf, name))
        for folder in world.workspace.folders
        if folder.name != "courier"
        for leaf in world.leaves(folder.name)
        for name in {"parties", "recipients", "missing"} & type(leaf).model_fields.keys()
    ]
    assert {type(leaf) for leaf, places in told if places} == {
        records.AgreementSigned,
        records.ConsentUsed,
        records.ModelTrained,
        records.MeasurementMade,
        records.JobEnded,
    }
    assert {place for _, places in told for place in places} == set(range(len(everybody)))
    places = [str(world.folder(name).path) for name in everybody if name != "courier"]
    logs, found, _ = audit_places(
        places, agreements=(), policy=None, scratch=tmp_path, now=world.now
    )
    assert len(logs) == len(places)
    assert {one.kind for one in found} == {FindingKind.NOT_PUBLIC}  # a witness was away
    verified = verify_party(world.folder("coordinator").path)
    log = figures.PartyLog.of("coordinator", verified.leaves, verified.root_hash)
    report = processing_report(world.agreement, [log], world.now).model_dump_json()
    assert report.count('"value":"courier"') == len(jobs)


def test_a_partner_that_comes_back_rejoins_at_the_next_match_and_is_in_no_job_of_the_former(
    world: World,
) -> None:
    run(world, MATCH_WITHOUT, away=["courier"])
    later = (
        MATCH_WITHOUT,
        TRAIN_WITHOUT,
        EXPAND_WITHOUT,
        MATCH.model_copy(update={"name": "find2"}),
        MEASURE_WITHOUT.model_copy(update={"name": "count2", "match": "find2"}),
    )
    run(world, *later)
    assert missing_at_the_end(world) == {
        "find": ("courier",),
        "model": ("courier",),
        "best": ("courier",),
        "find2": (),
        "count2": (),
    }
    assert model(world, "courier") == model(world, "retailer")  # handed over when it was back
    assert not world.folder("courier").members("find").exists()
    assert world.folder("courier").members("find2").exists()
    charged = {one.charge_id.partition("/")[0] for one in world.statement("courier").charges}
    assert charged == {"count2"}
    for folder in world.workspace.folders:
        verify_party(folder.path)


def test_a_partner_that_comes_during_a_run_is_in_its_next_job_though_nobody_waits_for_it(
    world: World,
) -> None:
    again = MATCH_WITHOUT.model_copy(update={"name": "find2"})

    def listen(_: str, __: SealedMessage, answer: SealedMessage) -> SealedMessage:
        if unseal_header(answer.envelope, world.agreement).kind == "match.done":
            world.away.clear()
        return answer

    world.listener = listen
    run(world, MATCH_WITHOUT, again, away=["courier"])
    assert missing_at_the_end(world) == {"find": ("courier",), "find2": ()}


@pytest.mark.parametrize("spec", [TRAIN, MEASURE_WITHOUT.model_copy(update={"absent_partners": 0})])
def test_a_job_that_needs_everybody_is_refused_on_a_match_without_somebody(
    world: World, spec: JobSpec
) -> None:
    run(world, MATCH_WITHOUT, away=["courier"])
    with pytest.raises(RefusedError, match="match 'find' went without courier") as caught:
        run(world, MATCH_WITHOUT, spec)
    assert caught.value.term == "absent_partners"
    refused = [one for one in world.leaves("coordinator") if isinstance(one, records.Refusal)]
    assert [one.term for one in refused] == ["absent_partners"]
    assert not (world.folder("coordinator").job(spec.name) / "ended.json").exists()


@pytest.mark.parametrize(
    ("jobs", "away"),
    [
        ((MATCH,), ["courier"]),
        ((MATCH_WITHOUT,), ["courier", "retailer"]),
        ((MATCH_WITHOUT,), ["brand"]),
    ],
)
def test_below_its_quorum_a_job_stops_and_stays_open(
    world: World, jobs: tuple[JobSpec, ...], away: list[str]
) -> None:
    with pytest.raises(PartyUnreachableError, match=rf"no node of {', '.join(sorted(away))}"):
        run(world, *jobs, away=away)
    run(world, *jobs)
    assert missing_at_the_end(world) == {"find": ()}


def test_a_partner_that_leaves_a_training_is_out_of_it_and_stays_so_after_a_crash(
    world: World,
) -> None:
    run(world, MATCH)
    spec = TRAIN_WITHOUT.model_copy(update={"rounds": 4})
    drop(world, "courier", "train.update", crash_at="train.update")
    with pytest.raises(CrashError):  # when the retailer answers the third round
        run(world, MATCH, spec)
    world.unreachable, before = set(), len(world.wire)
    world.listener = lambda _, __, answer: answer
    run(world, MATCH, spec)
    making = model(world, "brand").making
    assert (making.parties, making.missing) == (("retailer",), ("courier",))
    asked = [unseal_header(one.envelope, world.agreement) for one in world.wire[before:]]
    rounds = [(one.sender, one.body.round) for one in asked if isinstance(one.body, TrainUpdate)]
    assert rounds == [("retailer", 3), ("retailer", 4)]  # what was answered before is kept
    charged = [one.charge_id for one in world.statement("courier").charges]
    assert len(charged) == 1
    run(world, MATCH, spec)
    assert model(world, "courier") == model(world, "brand")


@pytest.mark.parametrize("reveal", [Reveal.PARTNER_LEARNS_MEMBERS, Reveal.BRAND_LEARNS_MEMBERS])
def test_a_partner_that_leaves_a_match_takes_its_own_pair_with_it_alone(
    tmp_path: Path, reveal: Reveal
) -> None:
    world = World.make(tmp_path, unsafe_seed=3, match={"reveal": reveal.value})
    partner_learns = reveal is Reveal.PARTNER_LEARNS_MEMBERS
    said = "match.offer" if partner_learns else "match.accept"
    drop(world, "courier", said, crash_at="match.reply" if partner_learns else None)
    if partner_learns:
        with pytest.raises(CrashError):  # when the brand answers the retailer's blinded points
            run(world, MATCH_WITHOUT)
        world.unreachable.clear()
        world.listener = lambda _, __, answer: answer
    run(world, MATCH_WITHOUT)
    assert missing_at_the_end(world) == {"find": ("courier",)}
    learner = world.folder("retailer" if partner_learns else "brand")
    found = learner.members("find") if partner_learns else learner.job("find") / "with-retailer"
    assert found.exists()
    assert not world.folder("courier").members("find").exists()
    assert not (world.folder("brand").job("find") / "with-courier" / "members.npz").exists()


def test_a_partner_that_refused_is_heard_anew_once_it_has_mended_what_was_wrong(
    made: World, tmp_path: Path
) -> None:
    spec = MEASURE_WITHOUT
    world = made.apart(tmp_path / "workspace")
    run(world, MATCH)
    table, before = world.table("courier"), len(world.wire)
    away = table.rename(table.with_suffix(".away"))
    for _ in range(2):
        with pytest.raises(RefusedError) as caught:
            run(world, MATCH, spec)
        assert (caught.value.party, caught.value.term) == ("courier", "datasets")
    away.rename(table)
    run(world, MATCH, spec)
    assert missing_at_the_end(world) == {"find": (), spec.name: ()}
    said = [unseal_header(one.envelope, world.agreement) for one in world.wire[before:]]
    refused = [one for one in said if isinstance(one.body, Refused)]
    assert len(refused) == 2


def test_a_model_that_a_party_refused_is_published_once_it_may_have_it(world: World) -> None:
    run(world, MATCH)
    policy = world.folder("brand").path / "policy.cedar"
    policy.write_text('@id("none") forbid (principal, action == Action::"acknowledged", resource);')
    with pytest.raises(RefusedError, match="brand"):
        run(world, MATCH, TRAIN)
    policy.unlink()
    run(world, MATCH, TRAIN)
    assert missing_at_the_end(world)["model"] == ()
    assert model(world, "brand") == model(world, "courier")


def told_brand(world: World, kind: str) -> Message:
    """Return what the coordinator told the brand."""
    found = [
        world.read(one)
        for one in world.wire
        if (header := unseal_header(one.envelope, world.agreement)).kind == kind
        and header.recipient == "brand"
    ]
    return found[-1]


def test_a_result_that_hides_or_adds_who_was_missing_is_refused(world: World) -> None:
    jobs = (MATCH_WITHOUT, TRAIN_WITHOUT, MEASURE_WITHOUT)
    before = world.copy(world.workspace.path.parent / "before")
    run(world, *jobs, away=["courier"])
    for kind, body in (
        ("model.published", ModelPublished(spec=TRAIN_WITHOUT)),
        ("measure.published", MeasurePublished(spec=MEASURE_WITHOUT)),
    ):
        told = told_brand(world, kind)
        content = json.loads(told.payload)
        place = content["making"] if kind == "model.published" else content
        for missing in ([], ["retailer"], ["courier", "courier"], ["courier", "stranger"]):
            place["missing"] = missing
            question = before.parties.seal(
                "coordinator", "brand", told.header.job, body, json.dumps(content).encode()
            )
            assert isinstance(before.ask("brand", question).body, Refused)
    strict = ModelPublished(spec=TRAIN_WITHOUT.model_copy(update={"absent_partners": 0}))
    told = told_brand(world, "model.published")
    question = before.parties.seal("coordinator", "brand", "model", strict, told.payload)
    assert isinstance(before.ask("brand", question).body, Refused)


def test_a_model_that_was_retired_meanwhile_is_handed_to_nobody(world: World) -> None:
    run(world, MATCH_WITHOUT)
    run(world, MATCH_WITHOUT, TRAIN_WITHOUT, away=["courier"])
    retired = world.folder("coordinator").retired("model")
    retired.write_bytes(b"")
    run(world, MATCH_WITHOUT, TRAIN_WITHOUT)
    assert not world.folder("courier").model("model").exists()
    retired.unlink()
    run(world, MATCH_WITHOUT, TRAIN_WITHOUT)
    assert world.folder("courier").model("model").exists()


def test_an_audit_finds_a_partial_result_that_the_coordinator_calls_whole(world: World) -> None:
    """Those who get it cannot know: the one who was missing is not told."""
    begun = (MATCH_WITHOUT, TRAIN_WITHOUT)
    run(world, MATCH_WITHOUT)
    before = world.copy(world.workspace.path.parent / "before")
    run(world, *begun, away=["courier"])
    honest = [log_of(world, name) for name in ("brand", "courier", "retailer")]
    rules = rules_for(world.agreement, now=world.now)
    assert audit(honest, rules) == ()
    told = told_brand(world, "model.published")
    content = json.loads(told.payload)
    content["making"] |= {"parties": ["retailer", "courier"], "missing": []}
    question = world.parties.seal(
        "coordinator", "brand", "model", told.body, json.dumps(content).encode()
    )
    assert isinstance(before.ask("brand", question).body, Acknowledged)
    logs = [log_of(before, "brand"), *(log_of(world, name) for name in ("courier", "retailer"))]
    found = [(one.kind, one.party) for one in audit(logs, rules)]
    assert found == [
        (FindingKind.RESULTS_DIFFER, "retailer"),
        (FindingKind.PART_NOT_GIVEN, "brand"),
    ]


def test_nobody_is_accused_where_the_answer_to_a_result_was_lost(world: World) -> None:
    spec = MEASURE_WITHOUT.model_copy(update={"absent_partners": 0})

    def lose(name: str, _: SealedMessage, answer: SealedMessage) -> SealedMessage:
        header = unseal_header(answer.envelope, world.agreement)
        if (name, header.job, header.kind) == ("brand", "count", "acknowledged"):
            raise PartyUnreachableError("no answer from brand within 1 s")
        return answer

    world.listener = lose
    with pytest.raises(PartyUnreachableError, match="brand"):
        run(world, MATCH, spec)
    assert world.folder("brand").measurement("count").exists()
    everybody = [log_of(world, folder.name) for folder in world.workspace.folders]
    assert audit(everybody, rules_for(world.agreement, now=world.now)) == ()


def log_of(world: World, name: str) -> PartyLog:
    return PartyLog(name, world.agreement, tuple(world.leaves(name)))


@pytest.mark.parametrize(
    ("kind", "fields", "why"),
    [
        (AlignSpec, {}, "people whom every party knows"),
        (VerticalTrainSpec, {"align": "rows", "unsafe_labels": True}, "over every party's columns"),
        (MatchSpec, {"protocol": "rr22"}, "both ends of a link"),
        (
            TrainSpec,
            {"match": "find", "noise": NoiseSource.DISTRIBUTED, "epsilon": 1.0, "delta": 1e-6},
            "train.absent_partners of the agreement",
        ),
        (TrainSpec, {"match": "find", "noise": NoiseSource.UNSAFE_NONE}, "difference is its part"),
    ],
)
def test_a_job_that_needs_everybody_says_why_it_has_no_quorum(
    kind: type[Any], fields: dict[str, Any], why: str
) -> None:
    assert kind(name="job", **fields)
    with pytest.raises(ValidationError, match=f"has no absent_partners.*{why}.*leave it out"):
        kind(name="job", **fields, absent_partners=1)


def test_a_file_that_asks_for_a_quorum_where_there_is_none_is_told_why(tmp_path: Path) -> None:
    file = tmp_path / "file.toml"
    file.write_text('version = 1\n[[jobs]]\nkind = "align"\nname = "rows"\nabsent_partners = 1\n')
    with pytest.raises(CollaborationError, match=r"jobs\[0\]: has no absent_partners, since an al"):
        load_collaboration(file)


def test_a_plan_says_how_many_partners_a_job_does_without() -> None:
    document = collaboration()
    found = plan(document.model_copy(update={"jobs": (MATCH_WITHOUT, *JOBS[1:])}))
    assert found.jobs[0].note.endswith("; goes on without 1 of its 2 partners")
    assert "goes on without" not in found.jobs[1].note


def test_a_quorum_of_nobody_is_refused(made: World) -> None:
    for spec in (MATCH, TRAIN, EXPAND, MEASURE_WITHOUT):
        one = spec.model_copy(update={"absent_partners": 1})
        assert policy_objections(one, made.agreement) == ()
        both = spec.model_copy(update={"absent_partners": 2})
        ((term, remedy),) = policy_objections(both, made.agreement)
        assert term == "absent_partners"
        assert remedy.endswith("ask for at most 1")
