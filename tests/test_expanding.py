"""Expanding: who is chosen, what a crash or a full disk leaves, and which counts are told."""

import io
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from object_server import Bucket
from object_server import bucket as bucket  # noqa: PLC0414 - a fixture
from object_server import object_server as object_server  # noqa: PLC0414 - a fixture
from parties import EXPAND, NOW, PEOPLE, World, collaboration, consents, record, table
from test_sinks import small_files

from compliance import records
from compliance.terms import Artefact
from connectors import CsvSink, SqlSource, open_connector
from connectors.errors import SinkUnavailableError
from federation.artefacts import remove
from federation.coordinator import write_jobs
from federation.erasing import Erasing
from federation.errors import MessageError
from federation.holding import held
from federation.jobs.exchange import Say
from federation.jobs.expand import (
    Best,
    CountPlan,
    coordinate_expand,
    counted_by,
    ordered,
    segment_size,
)
from federation.jobs.model import JointModel
from federation.messages import ExpandCounted, ExpandDone, ExpandRequest, Message, Refused
from federation.objections import policy_objections
from federation.party import PartyFolder, SegmentPlace, SegmentsConfig
from federation.plan import plan
from federation.progress import listening
from federation.references import References
from federation.specification import ExpandSpec
from federation.suppression import Suppression
from privacy.accounting.accountant import epsilon_of
from privacy.accounting.ledger import Ledger
from privacy.errors import LedgerError

pytestmark = pytest.mark.xdist_group("expanding")  # its tests share one run

AGAIN = EXPAND.model_copy(update={"name": "again"})


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> World:
    """A world in which every job was run, with counts agreed."""
    world = World.make(
        tmp_path_factory.mktemp("ended"),
        unsafe_seed=3,
        expand={"count_epsilon": 0.5},
        budget={"epsilon": 4.0},
    )
    world.run()
    return world


@pytest.fixture
def later(ended: World, tmp_path: Path) -> World:
    return ended.copy(tmp_path / "copy")


def ask(world: World, spec: ExpandSpec = AGAIN, party: str = "retailer") -> Message:
    question = world.parties.seal("coordinator", party, spec.name, ExpandRequest(spec=spec))
    return world.ask(party, question)


def segment_of(world: World, job: str = "again", party: str = "retailer") -> list[str]:
    found: list[str] = pd.read_csv(world.folder(party).segment(job))["record"].tolist()
    return found


def configure(world: World, party: str = "retailer", **changes: Any) -> None:
    """Change what a party says of itself alone."""
    path = world.folder(party).path
    config = world.folder(party).config.model_copy(update=changes)
    (path / "party.json").write_text(config.model_dump_json())
    world.workspace = replace(
        world.workspace,
        folders=tuple(PartyFolder(one.path) for one in world.workspace.folders),
    )


def suppress(world: World, references: Sequence[str], party: str = "retailer") -> Path:
    file = world.folder(party).path / "data" / "suppressed.csv"
    pd.DataFrame({"record": references}, dtype=str).to_csv(file, index=False)
    configure(world, party, suppression=Path("data/suppressed.csv"))
    return file


def left_behind(world: World, party: str = "retailer") -> list[Path]:
    """What a delivery must not leave when it is over."""
    root = world.folder(party).path
    patterns = ("jobs/*/delivery.json", "segments/.*", "jobs/*/expanding.tmp")
    return [path for pattern in patterns for path in root.glob(pattern)]


# --- choosing ---------------------------------------------------------------------------------


@st.composite
def scored(draw: st.DrawFn) -> tuple[list[str], np.ndarray, np.ndarray]:
    count = draw(st.integers(0, 25))
    keys = [f"R{number:02}" for number in draw(st.permutations(range(count)))]
    scores = draw(st.lists(st.sampled_from([-1.0, 0.0, 0.5, 2.0]), min_size=count, max_size=count))
    seeds = draw(st.lists(st.booleans(), min_size=count, max_size=count))
    return keys, np.array(scores, dtype=np.float32), np.array(seeds, dtype=bool)


def chosen(keys: list[str], scores: np.ndarray, seeds: np.ndarray, size: int) -> list[str]:
    batches = [pa.array(keys[begin : begin + 3], pa.large_string()) for begin in range(0, 25, 3)]
    found = Best.of(scores, ~seeds, size).chosen(batches, len(keys))
    best: list[str] = ordered(pa.array(keys, pa.large_string()).filter(found), scores[found])
    return best.to_pylist()


@settings(max_examples=40)
@given(scored(), st.integers(0, 30), st.randoms(use_true_random=False))
@pytest.mark.parametrize("block", [3, 1 << 18])
def test_the_best_who_are_no_seeds_are_chosen_in_whatever_order_they_stand(
    block: int, people: tuple[list[str], np.ndarray, np.ndarray], size: int, random: Any
) -> None:
    keys, scores, seeds = people
    by_key = {key: (score, seed) for key, score, seed in zip(*people, strict=True)}
    others = [key for key in by_key if not by_key[key][1]]
    best = sorted(others, key=lambda key: (-by_key[key][0], key))[:size]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("federation.jobs.expand._BLOCK_ROWS", block)
        assert chosen(*people, size) == best
        order = np.array(random.sample(range(len(keys)), len(keys)), dtype=int)
        shuffled = [keys[place] for place in order]
        assert chosen(shuffled, scores[order], seeds[order], size) == best


def test_constant_scores_are_decided_by_key_alone() -> None:
    keys = [f"R{number:04}" for number in np.random.default_rng(1).permutation(1000)]
    scores, nobody = np.zeros(1000, dtype=np.float32), np.zeros(1000, dtype=bool)
    assert chosen(keys[:25], scores[:25], nobody[:25], 7) == sorted(keys[:25])[:7]


SHARES = st.floats(0.001, 0.5)


@given(st.integers(0, 10_000), SHARES | st.integers(3, 25))
def test_one_person_changes_the_size_by_one_at_most(people: int, asked: float) -> None:
    """Else the noise on a count would not cover the segment."""
    agreement = AGREED()
    measure = {"share": None, "size": asked} if isinstance(asked, int) else {"share": asked}
    spec = EXPAND.model_copy(update=measure)
    here, more = (segment_size(spec, agreement, count) for count in (people, people + 1))
    assert 0 <= more - here <= 1
    assert here >= agreement.expand.minimum_segment


@settings(max_examples=40)
@given(st.integers(0, 10_000), SHARES)
def test_a_larger_share_only_adds_people(people: int, share: float) -> None:
    sizes = [
        segment_size(EXPAND.model_copy(update={"share": one}), AGREED(), people)
        for one in (share / 2, share)
    ]
    assert sizes == sorted(sizes)


@pytest.mark.parametrize(
    ("size", "term"),
    [(2, "expand.minimum_segment"), (3, None), (25, None), (26, "expand.maximum_share")],
)
def test_a_size_is_held_against_what_is_public(size: int, term: str | None) -> None:
    """Partners declare 50 rows each; half of them may be in a segment, and at least 3 must."""
    spec = ExpandSpec(name="so-many", train="model", size=size)
    assert [one for one, _ in policy_objections(spec, AGREED())] == ([term] if term else [])


# --- who is in a segment ----------------------------------------------------------------------


def test_a_size_is_met_where_there_are_so_many(later: World) -> None:
    assert isinstance(
        ask(later, AGAIN.model_copy(update={"share": None, "size": 7})).body, ExpandDone
    )
    assert segment_of(later) == segment_of(later, "best")[:7]
    leaf = [one for one in later.leaves("retailer") if isinstance(one, records.SegmentWritten)][-1]
    assert (leaf.size, leaf.share, leaf.rows) == (7, None, 7)


def test_a_size_beyond_the_agreed_share_of_the_people_here_is_cut_in_silence(later: World) -> None:
    """A refusal would count them, size by size."""
    later.withdraw("retailer", [person for person in PEOPLE["retailer"] if person >= 45])
    assert isinstance(
        ask(later, AGAIN.model_copy(update={"share": None, "size": 25})).body, ExpandDone
    )
    assert len(segment_of(later)) == 15  # of 35 people half are 18, and 15 are no seeds


def test_who_is_suppressed_is_in_no_segment(later: World) -> None:
    first = segment_of(later, "best")
    suppress(later, [*first[:3], "R#999", ""])
    assert isinstance(ask(later).body, ExpandDone)
    assert segment_of(later)[: len(first) - 3] == first[3:]
    used = [one for one in later.leaves("retailer") if isinstance(one, records.ConsentUsed)][-1]
    assert (used.eligible, used.excluded) == (47, {"suppressed": 3})


def test_who_is_suppressed_or_a_seed_under_one_record_is_so_under_all(later: World) -> None:
    first = segment_of(later, "best")
    people = table("retailer")
    best = people["record"].isin(first[:2])
    twins = people[best].assign(record=["R#1", "R#2"])
    seed = people[people["record"] == record("retailer", 10)].assign(record="R#3", age=90)
    grown = pd.concat([seed, twins, people])  # whose records stand first, and are used
    grown.to_csv(later.table("retailer"), index=False)
    given_ = consents("retailer")
    more = pd.concat([given_, given_.head(3).assign(subject=["R#1", "R#2", "R#3"])])
    more.to_csv(later.consents("retailer"), index=False)
    suppress(later, first[:1])
    assert isinstance(ask(later).body, ExpandDone)
    found = segment_of(later)
    assert not {first[0], "R#3", record("retailer", 10)} & set(found)
    assert len({"R#1", "R#2"} & set(found)) == 1  # the other is suppressed as first[0]
    assert "R#1" in found or "R#2" in found


@pytest.mark.parametrize("is_twin_used", [False, True], ids=["used", "linked to who is used"])
def test_a_suppression_list_is_read_again_before_anything_leaves(
    later: World, monkeypatch: pytest.MonkeyPatch, *, is_twin_used: bool
) -> None:
    file, first = suppress(later, []), segment_of(later, "best")
    if is_twin_used:
        people, said = table("retailer"), consents("retailer")
        twin = people[people["record"] == first[0]].assign(record="R#1")
        pd.concat([twin, people]).to_csv(later.table("retailer"), index=False)
        said = pd.concat([said, said.head(1).assign(subject="R#1")])
        said.to_csv(later.consents("retailer"), index=False)
    staging = CsvSink.stage

    def stage(self: CsvSink, *arguments: Any, **named: Any) -> None:
        staging(self, *arguments, **named)
        file.write_text(f"record\n{first[0]}\n")

    with monkeypatch.context() as patch:
        patch.setattr(CsvSink, "stage", stage)
        assert isinstance(ask(later).body, Refused)
    assert left_behind(later) == []
    assert not later.folder("retailer").segment("again").exists()
    assert isinstance(ask(later).body, ExpandDone)
    assert not {first[0], "R#1"} & set(segment_of(later))


@pytest.mark.parametrize("content", [None, b"", b"name\nx\n", b"record\n\xff\xfe\x00,1,2\n"])
def test_a_suppression_list_that_cannot_be_read_stops_the_job(
    later: World, content: bytes | None
) -> None:
    file = suppress(later, [])
    file.unlink()
    if content is not None:
        file.write_bytes(content)
    assert ask(later).body == Refused(term="computation", remedy=ask(later).body.remedy)
    assert not later.folder("retailer").segment("again").exists()


def test_without_a_list_nobody_is_on_it() -> None:
    assert list(Suppression(None).references()) == []
    Suppression(None).require_none_of([References.of(["R1"])], Path("nowhere"))


def test_nobody_eligible_is_below_the_minimum(later: World) -> None:
    later.withdraw("retailer", PEOPLE["retailer"])
    body = ask(later).body
    assert isinstance(body, Refused)
    assert body.term == "expand.minimum_segment"
    assert left_behind(later) == []


def model_of(world: World, *, told: bool = True, **changes: Any) -> None:
    """Put another model into a partner's folder, and have its log tell that it was published."""
    path = world.folder("retailer").model("model")
    model = JointModel.model_validate_json(path.read_bytes())
    model = model.model_copy(update={"body": model.body.model_copy(update=changes)})
    path.write_bytes(model.canonical_bytes)
    if told:
        leaves = world.leaves("retailer")
        leaf = next(one for one in leaves if isinstance(one, records.ModelTrained))
        leaf = leaf.model_copy(update={"model_digest": model.digest})
        with world.folder("retailer").open_log() as log:
            log.append([records.to_leaf(leaf)])


def test_a_model_that_was_altered_on_disk_is_refused(later: World) -> None:
    model_of(later, told=False, weights=(1.0, 0.0, 0.0, 0.0))
    body = ask(later).body
    assert isinstance(body, Refused)
    assert "was altered since it was published" in body.remedy


def test_a_model_that_likes_everybody_the_same_is_decided_by_reference(later: World) -> None:
    model_of(later, weights=(0.0, 0.0, 0.0, 0.0))
    assert isinstance(ask(later).body, ExpandDone)
    others = [record("retailer", person) for person in range(30, 60)]
    assert segment_of(later) == sorted(others)[:10]


def test_a_model_of_other_columns_is_refused(later: World) -> None:
    model_of(later, columns=("age", "colour=green", "colour=blue", "(constant)"))
    body = ask(later).body
    assert isinstance(body, Refused)
    assert body.term == "expand.train"


def test_a_model_whose_scores_pass_all_bounds_is_refused(later: World) -> None:
    model_of(later, weights=(1e308, 1e308, 1e308, 1e308))
    assert isinstance(ask(later).body, Refused)
    assert left_behind(later) == []


def test_a_table_that_lacks_the_models_columns_is_refused(later: World) -> None:
    table("retailer").drop(columns="age").to_csv(later.table("retailer"), index=False)
    body = ask(later).body
    assert isinstance(body, Refused)
    assert body.term == "datasets"


def test_a_feature_without_one_readable_value_is_refused(later: World) -> None:
    table("retailer").assign(colour="?").to_csv(later.table("retailer"), index=False)
    assert isinstance(ask(later).body, Refused)
    assert left_behind(later) == []


# --- where a segment goes ---------------------------------------------------------------------


def test_a_segment_can_be_a_parquet_file_or_a_table(later: World) -> None:
    first = segment_of(later, "best")
    configure(later, segments=SegmentsConfig(kind=SegmentPlace.PARQUET))
    assert isinstance(ask(later).body, ExpandDone)
    path = later.folder("retailer").path / "segments" / "again.parquet"
    assert pd.read_parquet(path)["record"].tolist() == first
    configure(later, segments=SegmentsConfig(kind=SegmentPlace.SQL, url="sqlite:///crm.db"))
    third = EXPAND.model_copy(update={"name": "third-time"})
    assert isinstance(ask(later, third).body, ExpandDone)
    url = f"sqlite:///{later.folder('retailer').path}/crm.db"
    found = open_connector(SqlSource(url=url, table="segment_third_time")).scan(["record"])
    assert [one for batch in found for one in batch.column(0).to_pylist()] == first


def test_a_segment_can_be_an_object_and_goes_with_its_time(later: World, bucket: Bucket) -> None:
    first = segment_of(later, "best")
    url = f"s3://{bucket.name}/crm/segments/"
    configure(later, segments=SegmentsConfig(kind=SegmentPlace.PARQUET, url=url))
    assert isinstance(ask(later).body, ExpandDone)
    assert bucket.keys() == ["segments/again.parquet"]
    found = pd.read_parquet(io.BytesIO(bucket.get("segments/again.parquet")))
    assert found["record"].tolist() == first
    remove(later.folder("retailer"), Artefact.SEGMENT, "again")
    assert bucket.keys() == []


@pytest.mark.parametrize(
    "config",
    [
        {"kind": "sql"},
        {"kind": "csv", "url": "sqlite:///x.db"},
        {"kind": "sql", "url": "s3://bucket/segments"},
    ],
)
def test_a_database_needs_a_url_and_files_have_none(config: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="url"):
        SegmentsConfig.model_validate(config)


def test_what_lies_in_the_segments_place_stays(later: World) -> None:
    path = later.folder("retailer").segment("again")
    path.write_text("mine\n")
    assert isinstance(ask(later).body, Refused)
    assert path.read_text() == "mine\n"
    assert left_behind(later) == []


def test_a_full_disk_leaves_nothing_and_costs_nothing(later: World) -> None:
    before = later.statement("retailer")
    people = [record("retailer", person) + "x" * 4_000 for person in PEOPLE["retailer"]]
    table("retailer").assign(record=people).to_csv(later.table("retailer"), index=False)
    consents("retailer").assign(subject=people).to_csv(later.consents("retailer"), index=False)
    with pytest.MonkeyPatch.context() as patch:
        staging = CsvSink.stage

        def stage(self: CsvSink, *arguments: Any, **named: Any) -> None:
            with small_files(10_000):
                staging(self, *arguments, **named)

        patch.setattr(CsvSink, "stage", stage)
        body = ask(later).body
    assert isinstance(body, Refused)
    assert (body.term, later.statement("retailer")) == ("datasets", before)
    assert left_behind(later) == []
    assert not later.folder("retailer").segment("again").exists()
    assert isinstance(ask(later).body, ExpandDone)


class KilledError(BaseException):
    """What ends a process wherever it is."""


@pytest.mark.parametrize("method", ["stage", "publish"])
@pytest.mark.parametrize("after", [False, True])
def test_a_kill_at_any_moment_leaves_all_or_nothing_and_is_charged_once(
    later: World, method: str, after: bool
) -> None:
    question = later.parties.seal("coordinator", "retailer", "again", ExpandRequest(spec=AGAIN))
    right: Callable[..., None] = getattr(CsvSink, method)

    def killed(self: CsvSink, *arguments: Any, **named: Any) -> None:
        if after:
            right(self, *arguments, **named)
        raise KilledError

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CsvSink, method, killed)
        with pytest.raises(KilledError):
            later.handle("retailer", question)
    path = later.folder("retailer").segment("again")
    assert path.exists() is (method == "publish" and after)
    answer = later.ask("retailer", question)
    assert isinstance(answer.body, ExpandDone)
    assert segment_of(later) == segment_of(later, "best")
    assert left_behind(later) == []
    charges = [
        one for one in later.statement("retailer").charges if one.charge_id.startswith("again")
    ]
    assert len(charges) == 1


def test_who_is_erased_while_a_segment_is_on_its_way_is_not_delivered_in_it(later: World) -> None:
    question = later.parties.seal("coordinator", "retailer", "again", ExpandRequest(spec=AGAIN))

    def killed(self: CsvSink, *, ticket: str) -> None:
        raise KilledError

    def refuse(self: CsvSink, *, ticket: str) -> None:
        raise SinkUnavailableError("out of reach")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CsvSink, "publish", killed)
        with pytest.raises(KilledError):
            later.handle("retailer", question)
    folder = later.folder("retailer")
    (staged,) = (path for path in left_behind(later) if path.suffix == ".staged")
    person = pd.read_csv(staged)["record"].iloc[0]
    data = pd.read_csv(later.table("retailer"), dtype=str)
    address = data.set_index("record").loc[person, "email"]
    with held(folder.path, clock=later.clock) as at:
        erasing = Erasing(at.folder, at.agreement, at.gate, clock=later.clock)
        request = erasing.request("email", address).execution.request
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(CsvSink, "publish", refuse)
            with pytest.raises(SinkUnavailableError, match="out of reach"):
                erasing.run()
        (pending,) = erasing.status()
        assert pending.execution.pending == ("delivery again",)  # all else is done
        erasing.run()
        _, outcomes = erasing.receipt(request)
    told = {step.target: step.outcome for step in outcomes.steps}
    assert told["delivery again"] is records.ErasureOutcome.DELETED
    assert isinstance(later.ask("retailer", question).body, ExpandDone)
    assert person not in segment_of(later)
    assert segment_of(later) == segment_of(later, "best")  # which was of the same people
    assert left_behind(later) == []


def test_a_place_that_refuses_at_the_last_moment_gets_the_segment_later(later: World) -> None:
    """Its answer was let go: it is paid for, and said to be there."""
    question = later.parties.seal("coordinator", "retailer", "again", ExpandRequest(spec=AGAIN))

    def refuse(self: CsvSink, *, ticket: str) -> None:
        raise SinkUnavailableError("out of reach")

    told: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CsvSink, "publish", refuse)
        assert isinstance(later.ask("retailer", question).body, Refused)
        with listening(lambda one: told.append(one.stage)):
            later.handle("retailer", question)
    assert any("not delivered yet: out of reach" in stage for stage in told)
    assert isinstance(later.ask("retailer", question).body, ExpandDone)
    assert segment_of(later) == segment_of(later, "best")


def test_what_was_let_go_is_delivered_though_its_charge_could_not_be_settled_at_once(
    later: World,
) -> None:
    question = later.parties.seal("coordinator", "retailer", "again", ExpandRequest(spec=AGAIN))

    def refuse(self: Ledger, charge_id: str) -> None:
        raise LedgerError("the database is away")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Ledger, "commit", refuse)
        assert isinstance(later.ask("retailer", question).body, Refused)
    assert isinstance(later.ask("retailer", question).body, ExpandDone)
    assert segment_of(later) == segment_of(later, "best")
    assert left_behind(later) == []


# --- counts -----------------------------------------------------------------------------------


AGREEMENTS: list[Any] = []


def AGREED() -> Any:
    """A small contract with counts, made once."""
    from parties import Parties

    if not AGREEMENTS:
        AGREEMENTS.append(Parties.in_memory(expand={"count_epsilon": 0.5}).agreement)
    return AGREEMENTS[0]


def test_the_coordinator_and_the_brand_are_told_one_noised_count_of_each_partner(
    ended: World,
) -> None:
    ended_file = ended.folder("coordinator").job("best") / "ended.json"
    counts = json.loads(ended_file.read_bytes())["counts"]
    assert [one["party"] for one in counts] == ["retailer", "courier"]
    assert {one["eligible"] for one in counts} != {50}  # with the seed at hand, not both draw 0
    for one in counts:
        size = segment_size(EXPAND, ended.agreement, one["eligible"])
        assert one["segment"] == min(size, one["eligible"])
    kept = json.loads((ended.folder("brand").job("best") / "counts.json").read_bytes())
    assert kept == {"counted": counts, "missing": []}


def test_a_count_costs_what_was_agreed_over_all_partners(ended: World) -> None:
    plan = CountPlan.of(ended.agreement)
    assert plan is not None
    assert epsilon_of([plan.charge], 1e-9) <= 0.5
    assert plan.mechanism.scale == 4.0  # two partners may count the same person
    charges = [
        one for one in ended.statement("retailer").charges if one.charge_id.startswith("best/")
    ]
    assert [one.charge_id for one in charges] == ["best/expand.done/coordinator"]


def test_a_plan_prices_the_count_and_says_what_would_pass() -> None:
    found = plan(collaboration(expand={"count_epsilon": 0.1}), clock=lambda: NOW)
    expand = found.jobs[-1]
    assert 0 < expand.epsilon <= 0.1
    assert "one noised count leaves" in expand.note
    silent = plan(collaboration(), clock=lambda: NOW).jobs[-1]
    assert (silent.epsilon, silent.refused_by) == (0, None)
    greedy = plan(collaboration(expand={"count_epsilon": 9.0}), clock=lambda: NOW).jobs[-1]
    assert greedy.refused_by == "budget.epsilon"
    assert "expand.count_epsilon of at most" in str(greedy.remedy)


def test_counting_beyond_the_budget_is_refused_before_anybody_is_read(tmp_path: Path) -> None:
    world = World.make(tmp_path, expand={"count_epsilon": 0.5}, budget={"epsilon": 1.2})
    write_jobs(world.folder("coordinator"), [])
    body = ask(world, ExpandSpec(name="again", train="model", share=0.2)).body
    assert isinstance(body, Refused)
    assert body.term == "expand.train"  # 0.5 of 1.2 would fit
    greedy = World.make(tmp_path / "g", expand={"count_epsilon": 5.0}, budget={"epsilon": 1.2})
    body = ask(greedy, ExpandSpec(name="again", train="model", share=0.2)).body
    assert isinstance(body, Refused)
    assert body.term == "budget.epsilon"


def said(world: World, party: str, body: Any, job: str = "best") -> Message:
    return world.parties.message(party, "coordinator", job, body)


def test_a_count_that_was_not_agreed_or_is_missing_breaks_the_protocol(ended: World) -> None:
    for body in (ExpandDone(), ExpandDone(eligible=None)):
        with pytest.raises(MessageError, match="another count"):
            counted_by(ended.agreement, EXPAND, [("retailer", body)])
    terms = ended.agreement.expand.model_copy(update={"count_epsilon": None})
    silent = ended.agreement.model_copy(update={"expand": terms})
    with pytest.raises(MessageError, match="another count"):
        counted_by(silent, EXPAND, [("retailer", ExpandDone(eligible=3))])
    assert counted_by(silent, EXPAND, [("retailer", ExpandDone())]) == ()


def test_the_coordinator_hands_on_what_partners_signed(ended: World) -> None:
    job = coordinate_expand(ended.agreement, EXPAND)
    next(job)
    done = [said(ended, name, ExpandDone(eligible=40)) for name in ("retailer", "courier")]
    (told,) = job.send(done)
    assert isinstance(told, Say)
    assert (told.recipient, told.body) == ("brand", ExpandCounted(spec=EXPAND))
    assert told.payload.split(b"\n") == [one.sealed.envelope for one in done]


def test_the_brand_believes_signatures_alone(later: World) -> None:
    right = [said(later, name, ExpandDone(eligible=40), "new") for name in ("retailer", "courier")]
    envelopes = [one.sealed.envelope for one in right]
    other = said(later, "courier", ExpandDone(eligible=40), "best").sealed.envelope
    silent = said(later, "courier", ExpandDone(), "new").sealed.envelope
    spec = EXPAND.model_copy(update={"name": "new"})
    for lines in (
        [],
        envelopes[:1],
        [*envelopes, envelopes[0]],
        envelopes[::-1],
        [envelopes[0], other],
        [envelopes[0], silent],
        [envelopes[0], envelopes[1].replace(b"A", b"B", 1)],
    ):
        question = later.parties.seal(
            "coordinator", "brand", "new", ExpandCounted(spec=spec), b"\n".join(lines)
        )
        assert isinstance(later.ask("brand", question).body, Refused)
    question = later.parties.seal(
        "coordinator", "brand", "new", ExpandCounted(spec=spec), b"\n".join(envelopes)
    )
    assert later.ask("brand", question).body.kind == "acknowledged"
    kept = json.loads((later.folder("brand").job("new") / "counts.json").read_bytes())
    assert kept["counted"][0] == {"party": "retailer", "eligible": 40, "segment": 8}
