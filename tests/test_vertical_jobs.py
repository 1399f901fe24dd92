"""Training and scoring over parties' columns by jobs, all parties on disk, in one process."""

import gzip
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import parties
import pytest
import vertical
from conftest import ROOT
from parties import PURPOSE, World
from pydantic import ValidationError
from sklearn.metrics import roc_auc_score
from vertical import ALIGN, COMMON, PRIVATE, SCORE, UNSAFE, ask_for, record

from compliance.errors import InvalidAgreementError
from compliance.records import BudgetCommitted, ModelTrained, SegmentWritten
from compliance.terms import Role
from federation.audit import verify_party
from federation.collaboration import drafted_agreement, load_collaboration
from federation.desk import Desk
from federation.errors import CollaborationError, MessageError, PartyUnreachableError, RefusedError
from federation.gate import Released
from federation.jobs import message_room
from federation.jobs.assist import HeldPart, PartnerSum, joined_keys
from federation.messages import (
    AssistAsk,
    AssistClose,
    AssistExact,
    AssistFitted,
    AssistNoised,
    AssistOpen,
    AssistResiduals,
    AssistScored,
    AssistSettle,
    Body,
    Encrypted,
    Message,
    SealedMessage,
    unseal,
)
from federation.objections import policy_objections
from federation.plan import plan
from federation.progress import listening
from federation.specification import VerticalTrainSpec
from federation.training import assisted_brand
from federation.trial.simulation import simulate
from privacy.training.learners import FITTED_BOUND, Learner

EXAMPLE = ROOT / "examples" / "vertical"
PEOPLE = {"brand": 0, "courier": 1, "press": 2, "retailer": 3}


@pytest.fixture(scope="module", autouse=True)
def _four_data_parties() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        roles = dict.fromkeys(PEOPLE, Role.PARTNER) | {"brand": Role.BRAND}
        patch.setattr(parties, "ROLES", roles | {"coordinator": Role.COORDINATOR})
        patch.setattr(parties, "PEOPLE", PEOPLE)
        yield


@pytest.fixture(scope="module")
def aligned(tmp_path_factory: pytest.TempPathFactory, _four_data_parties: None) -> World:
    """A world in which people are aligned, and nothing is trained."""
    found = vertical.world(tmp_path_factory.mktemp("columns"), ALIGN)
    found.run()
    return found


@pytest.fixture(scope="module")
def trained(aligned: World, tmp_path_factory: pytest.TempPathFactory) -> World:
    """A world in which a model was trained on noised labels."""
    found = aligned.apart(tmp_path_factory.mktemp("trained") / "workspace")
    ask_for(found, ALIGN, PRIVATE)
    found.run()
    return found


@pytest.fixture
def world(aligned: World, tmp_path: Path) -> World:
    return aligned.apart(tmp_path / "workspace")


@contextmanager
def refusing(*kinds: type[Body]) -> Iterator[None]:
    """Have parties refuse to say such things."""
    honest = Desk.release

    def release(self: Desk, message: Message, body: Body, *rest: bytes, **said: Any) -> Released:
        if isinstance(body, kinds):
            raise self.refusal("valid_until", "not today")
        return honest(self, message, body, *rest, **said)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Desk, "release", release)
        yield


def scores(found: World) -> pd.DataFrame:
    written = pd.read_csv(found.folder("brand").segment("scores"), keep_default_na=False)
    truth = vertical.people()
    truth["record"] = [record("brand", person) for person in range(COMMON)]
    return written.merge(truth)


def held(found: World, name: str) -> HeldPart:
    return HeldPart.model_validate_json(found.folder(name).model("model").read_bytes())


# --- the way through -----------------------------------------------------------------------------


def test_a_model_over_columns_ranks_people_whose_label_nobody_knows(
    trained: World, tmp_path: Path
) -> None:
    found = trained.apart(tmp_path / "workspace")
    ask_for(found, ALIGN, PRIVATE, SCORE)
    found.run()
    ranked = scores(found)
    assert len(ranked) == COMMON
    assert roc_auc_score(ranked["truth"], ranked["score"]) > 0.9
    new = ranked[ranked["bought"] == ""]
    assert roc_auc_score(new["truth"], new["score"]) > 0.85
    assert [leaf.rows for leaf in found.leaves("brand") if isinstance(leaf, SegmentWritten)] == [
        COMMON
    ]
    for name in PEOPLE:  # verified as they are read
        assert [leaf.epsilon for leaf in found.leaves(name) if isinstance(leaf, ModelTrained)] == [
            2.0
        ]


def test_labels_are_paid_for_once_by_the_brand_alone(trained: World) -> None:
    charges = {
        name: [leaf.charge_id for leaf in trained.leaves(name) if isinstance(leaf, BudgetCommitted)]
        for name in PEOPLE
    }
    assert [charge for charge in charges["brand"] if "model" in charge] == [
        "model/assist.noised/coordinator"
    ]
    assert not any(
        "model" in charge for name in PEOPLE if name != "brand" for charge in charges[name]
    )


def test_what_brand_and_partners_say_is_closed_to_the_coordinator(trained: World) -> None:
    said = [unseal(sealed, trained.agreement) for sealed in trained.wire]
    between = [
        one for one in said if "coordinator" not in {one.header.sender, one.header.recipient}
    ]
    kinds = {one.header.kind for one in between if one.header.job == "model"}
    assert kinds == {"assist.residuals", "assist.fitted", "assist.settle"}
    assert all(isinstance(one.body, Encrypted) for one in between)


def test_one_round_is_one_exchange_with_each_partner(trained: World) -> None:
    said = [unseal(sealed, trained.agreement) for sealed in trained.wire]
    rounds = held(trained, "brand").rounds
    for kind, end in (("assist.residuals", "recipient"), ("assist.fitted", "sender")):
        ways = {
            (one.sealed.digest, getattr(one.header, end)) for one in said if one.header.kind == kind
        }
        assert len(ways) == 3 * rounds
    assert rounds <= PRIVATE.rounds


def test_nobody_holds_the_whole_model_and_nothing_secret_is_left(trained: World) -> None:
    widths = {name: len(held(trained, name).part.weights) for name in PEOPLE}
    assert widths == {"brand": 2, "courier": 2, "press": 2, "retailer": 4}
    assert len({held(trained, name).told for name in PEOPLE if name != "brand"}) == 1
    for name in PEOPLE:
        left = {file.name for file in trained.folder(name).job("model").iterdir()}
        assert not left & {"secret", "keys", "labels.npz", "rows.npz", "round-01.json", "state.npz"}


def test_masked_parts_tell_nothing_alone_and_add_up_to_bounded_values(trained: World) -> None:
    parts = {}
    for sealed in trained.wire:
        message = unseal(sealed, trained.agreement)
        if message.header.kind == "assist.fitted":
            opened = trained.read(sealed)
            if opened.body.round == 1:
                parts[message.header.sender] = opened.payload
    partners = tuple(sorted(parts))
    sums = PartnerSum.of(PRIVATE, trained.agreement)
    length = COMMON + 2
    total = sums.total([parts[name] for name in partners], length)
    assert np.abs(total[:-2]).max() < 3 * FITTED_BOUND
    for name in partners:
        alone = np.frombuffer(parts[name], dtype="<u4").astype(np.float64) / 2**32
        assert alone.mean() == pytest.approx(0.5, abs=0.1)
        with pytest.raises(MessageError, match="rows are not aligned"):
            sums.total([parts[name][:-4]], length)


def test_cut_short_and_with_tables_in_another_order_it_comes_to_the_same_and_costs_no_more(
    world: World, trained: World
) -> None:
    for name in PEOPLE:
        table = pd.read_csv(world.table(name), keep_default_na=False)
        table.iloc[::-1].to_csv(world.table(name), index=False)
    ask_for(world, ALIGN, PRIVATE)
    heard = 0

    def cut(name: str, _: object, answer: SealedMessage) -> SealedMessage:
        nonlocal heard
        heard += unseal(answer, world.agreement).header.kind == "assist.fitted"
        if heard == 5:
            heard += 1
            raise ConnectionError
        return answer

    world.listener = cut
    with pytest.raises(ConnectionError):
        world.run()
    world.run()
    assert all(held(world, name) == held(trained, name) for name in PEOPLE)
    assert sum("model" in one.charge_id for one in world.statement("brand").charges) == 1
    assert world.statement("brand").epsilon_spent == trained.statement("brand").epsilon_spent


# --- rows ----------------------------------------------------------------------------------------


def test_a_table_whose_records_name_other_people_is_refused_and_nothing_is_charged(
    world: World,
) -> None:
    table = pd.read_csv(world.table("courier"))
    table["record"] = np.roll(table["record"].to_numpy(), 1)
    table.to_csv(world.table("courier"), index=False)
    ask_for(world, ALIGN, PRIVATE)
    with pytest.raises(RefusedError, match="name other people than when alignment 'rows' ran"):
        world.run()
    assert not any("model" in charge.charge_id for charge in world.statement("brand").charges)


def test_whoever_withdraws_or_is_erased_brings_nothing_and_no_other_party_is_told(
    world: World,
) -> None:
    gone = [record("courier", person) for person in range(5)]
    given = pd.read_csv(world.consents("courier"))
    no = pd.DataFrame({"subject": gone, "event": "withdrawn", "time": "2026-02-28T00:00:00Z"})
    pd.concat([given, no.assign(purpose=PURPOSE)]).to_csv(world.consents("courier"), index=False)
    table = pd.read_csv(world.table("retailer"))
    table = table[~table["record"].isin([record("retailer", person) for person in range(5, 9)])]
    table.to_csv(world.table("retailer"), index=False)
    brands = pd.read_csv(world.consents("brand"))
    no = no.assign(subject=[record("brand", person) for person in range(9, 14)], purpose=PURPOSE)
    pd.concat([brands, no]).to_csv(world.consents("brand"), index=False)
    ask_for(world, ALIGN, PRIVATE.model_copy(update={"learner": Learner.TREES}), SCORE)
    world.run()
    used = {
        leaf.party: leaf.eligible
        for name in PEOPLE
        for leaf in world.leaves(name)
        if leaf.kind == "consent.used" and leaf.job == "model"
    }
    assert used == {"brand": 295, "courier": 295, "press": 300, "retailer": 296}
    ranked = scores(world)
    assert len(ranked) == 295
    assert roc_auc_score(ranked["truth"], ranked["score"]) > 0.7  # trees, of so few people
    sizes = {
        len(world.read(sealed).payload)
        for sealed in world.wire
        if unseal(sealed, world.agreement).header.kind == "assist.fitted"
    }
    assert sizes == {4 * (COMMON + 2)}


def test_too_few_people_are_refused(world: World) -> None:
    book = pd.read_csv(world.consents("press"))
    book[book["subject"] == record("press", 1)].to_csv(world.consents("press"), index=False)
    ask_for(world, ALIGN, PRIVATE)
    with pytest.raises(RefusedError, match="below the minimum of 30"):
        world.run()


def test_more_people_than_a_message_tells_of_are_refused_before_anything_is_charged(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(message_room, "MOST_ALIGNED", COMMON - 1)
    ask_for(world, ALIGN, PRIVATE)
    told = "300 people x 4 bytes = 1,200, of the 1,196 bytes that one message tells: align fewer"
    with pytest.raises(RefusedError, match=told) as refusal:
        world.run()
    assert refusal.value.term == "vertical.align"
    assert not any(charge.charge_id.startswith("model") for charge in world.spent("brand").charges)


def test_labels_of_one_class_are_refused_before_anything_is_charged(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    table = pd.read_csv(world.table("brand"), keep_default_na=False)
    table.assign(bought="yes").to_csv(world.table("brand"), index=False)
    ask_for(world, ALIGN, UNSAFE)
    with pytest.raises(RefusedError, match="the party's own console"):
        world.run()
    assert "all labels are of one class" in caplog.text


# --- who misbehaves ------------------------------------------------------------------------------


def test_garbage_is_flagged_and_a_round_has_one_question_and_one_answer(world: World) -> None:
    ask_for(world, ALIGN, UNSAFE)
    asked: list[str] = []

    def ask_again(name: str) -> None:
        """As the brand, ask other things of a partner that has answered the first round."""
        body, nothing = AssistResiduals(spec=UNSAFE, round=1), "0" * 64
        for payload in (bytes(4 * COMMON), bytes(4), b"\x00\x00\xc0\x7f" * COMMON):
            again = world.parties.seal("brand", name, "model", body, payload, answers=nothing)
            asked.append(world.ask(name, again).body.kind)

    def spoil(name: str, question: SealedMessage, answer: SealedMessage) -> SealedMessage:
        message = unseal(answer, world.agreement)
        if message.header.kind != "assist.fitted":
            return answer
        if name == "courier" and not asked:
            ask_again(name)
        if name != "press":
            return answer
        body, answers = world.read(answer).body, message.header.answers
        noise = np.random.default_rng(1).integers(0, 2**32, COMMON + 2, dtype=np.uint32).tobytes()
        return world.parties.seal(name, "brand", "model", body, noise, answers=answers)

    world.listener = spoil
    told: list[str] = []
    with listening(lambda one: told.append(one.stage)):
        world.run()
    assert asked == ["refused"] * 3
    assert "out of bounds" in {what for _, what in held(world, "brand").findings}
    assert any("larger than all partners may say" in stage for stage in told)
    stray = AssistFitted(spec=UNSAFE, round=9)
    late = [
        world.parties.seal(
            "coordinator", "brand", "model", AssistAsk(spec=UNSAFE, round=1, place=0)
        ),
        world.parties.seal("press", "brand", "model", stray, b"", answers="0" * 64),
    ]
    assert [world.ask("brand", one).body.kind for one in late] == ["refused"] * 2


@pytest.mark.parametrize("differs", [AssistResiduals, AssistSettle], ids=["step", "settlement"])
def test_a_brand_that_once_tells_partners_different_steps_reads_no_sum_from_then_on(
    world: World,
    differs: type[AssistResiduals | AssistSettle],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    honest = Desk.release

    def release(self: Desk, message: Message, body: Body, *rest: bytes, **said: Any) -> Released:
        if isinstance(body, differs) and body.step is not None and said["recipient"] != "courier":
            body = body.model_copy(update={"step": 0.0})
        return honest(self, message, body, *rest, **said)

    monkeypatch.setattr(Desk, "release", release)
    ask_for(world, ALIGN, PRIVATE, SCORE)
    with pytest.raises(RefusedError):
        world.run()
    findings = {(at, what) for at, what in held(world, "brand").findings if "bounds" in what}
    assert findings == ({(2, "out of bounds")} if differs is AssistResiduals else set())
    assert "the scores of job 'scores' are random" in caplog.text
    # Nor does a brand that shuts its eyes to that read anything.
    monkeypatch.setattr(assisted_brand, "_LARGEST_SCORE", np.inf)
    world.run()
    assert scores(world)["score"].abs().median() > 100 * FITTED_BOUND
    assert len({held(world, name).told for name in PEOPLE if name != "brand"}) == 2


@pytest.mark.parametrize("spec", [PRIVATE, UNSAFE], ids=["noised", "exact"])
def test_no_residual_leaves_before_its_labels_are_paid_for_as_the_job_then_was(
    world: World, spec: VerticalTrainSpec
) -> None:
    ask_for(world, ALIGN, spec)
    with refusing(AssistNoised, AssistExact), pytest.raises(RefusedError, match="not today"):
        world.run()

    def asked(*bodies: Body) -> list[str]:
        seal = world.parties.seal
        return [
            world.ask("brand", seal("coordinator", "brand", "model", body)).body.kind
            for body in bodies
        ]

    asks = [AssistAsk(spec=spec, round=1, place=place) for place in range(3)]
    assert asked(*asks, AssistClose(spec=spec, place=0)) == ["refused"] * 4
    other = PRIVATE.model_copy(update={"label_epsilon": 0.01})
    assert asked(AssistOpen(spec=other), AssistAsk(spec=other, round=1, place=0)) == ["refused"] * 2
    assert not any("model" in charge.charge_id for charge in world.statement("brand").charges)
    assert "refused" not in asked(AssistOpen(spec=spec), *asks)


# --- scoring -------------------------------------------------------------------------------------


def test_a_scoring_waits_for_all_partners_since_sums_of_fewer_would_tell_of_the_one_away(
    trained: World, tmp_path: Path
) -> None:
    found = trained.apart(tmp_path / "workspace")
    ask_for(found, ALIGN, PRIVATE, SCORE)

    def leave(name: str, _: SealedMessage, answer: SealedMessage) -> SealedMessage:
        if unseal(answer, found.agreement).header.kind == "present" and name == "courier":
            found.unreachable.add("courier")
        return answer

    found.listener = leave
    with pytest.raises(PartyUnreachableError, match="courier"):
        found.run()
    found.unreachable.clear()
    found.listener = lambda _, __, answer: answer
    found.run()
    assert len(scores(found)) == COMMON
    ask_for(found, SCORE.model_copy(update={"name": "again"}))
    with pytest.raises(RefusedError, match="are scored with model 'model' once"):
        found.run()


def test_a_scoring_that_was_refused_leaves_another_free(trained: World, tmp_path: Path) -> None:
    found = trained.apart(tmp_path / "workspace")
    ask_for(found, ALIGN, PRIVATE, SCORE)
    with refusing(AssistScored), pytest.raises(RefusedError, match="not today"):
        found.run()
    ask_for(found, SCORE.model_copy(update={"name": "again"}))
    found.run()
    assert found.folder("brand").segment("again").exists()


def test_nothing_is_scored_before_it_is_trained(world: World) -> None:
    ask_for(world, ALIGN, SCORE)
    with pytest.raises(RefusedError, match="vertical training 'model' has not ended here"):
        world.run()


# --- what is agreed ------------------------------------------------------------------------------


def test_jobs_keep_within_the_terms() -> None:
    agreement = drafted_agreement(
        vertical.collaboration(label_epsilon=1.0, unsafe_labels=False, max_rounds=1)
    )
    assert [term for term, _ in policy_objections(PRIVATE, agreement)] == [
        "vertical.max_rounds",
        "vertical.label_epsilon",
    ]
    assert "vertical.unsafe_labels" in [term for term, _ in policy_objections(UNSAFE, agreement)]
    bare = agreement.model_copy(update={"vertical": None})
    for spec in (PRIVATE, SCORE):
        assert [term for term, _ in policy_objections(spec, bare)] == ["vertical.columns"]


@pytest.mark.parametrize(
    "terms",
    [{}, {"label_epsilon": 1.0, "unsafe_labels": True}, {"rounds": 16, "unsafe_labels": True}],
    ids=["neither", "both", "too many rounds"],
)
def test_a_job_says_how_labels_are_protected(terms: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        VerticalTrainSpec(name="model", align="rows", **terms)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"label_epsilon": None, "unsafe_labels": False}, "agree on a label_epsilon"),
        ({"label_epsilon": 10.0, "purpose": "spying"}, "'spying' is not among the purposes"),
        ({"columns": vertical.held()[:1] * 2}, "'brand' has two called 'age'"),
        ({"columns": vertical.held()[:2]}, "'retailer' brings none"),
    ],
    ids=["no label could be used", "a strange purpose", "a column twice", "a party without any"],
)
def test_terms_that_contradict_themselves_are_refused(change: dict[str, object], said: str) -> None:
    with pytest.raises((InvalidAgreementError, ValidationError), match=said):
        drafted_agreement(vertical.collaboration(**change))


def test_a_plan_prices_the_labels_and_nothing_else() -> None:
    found = plan(
        vertical.collaboration(ALIGN, PRIVATE, UNSAFE.model_copy(update={"name": "bare"}), SCORE)
    )
    _, train, bare, score = found.jobs
    assert 0 < train.epsilon <= 2.0
    assert "label" in train.note
    assert bare.epsilon == score.epsilon == 0
    assert "NOT PRIVATE" in bare.note
    dear = PRIVATE.model_copy(update={"label_epsilon": 4.0})
    refused = plan(vertical.collaboration(ALIGN, dear)).jobs[1]
    assert refused.refused_by == "budget.epsilon"
    assert "vertical.label_epsilon" in (refused.remedy or "")


def test_keys_come_from_partners_as_they_signed_them(trained: World) -> None:
    said = {}
    for sealed in trained.wire:
        message = unseal(sealed, trained.agreement)
        if message.header.kind == "assist.joined":
            said[message.header.sender] = sealed.envelope
    names = ("courier", "press", "retailer")
    whole = b"\n".join(said[name] for name in names)
    assert tuple(joined_keys(whole, PRIVATE, trained.agreement)) == names
    wrong = {
        "order": b"\n".join(said[name] for name in reversed(names)),
        "one is missing": b"\n".join(said[name] for name in names[:2]),
        "changed": whole.replace(b"payload", b"pay1oad", 1),
    }
    for payload in wrong.values():
        with pytest.raises(MessageError):
            joined_keys(payload, PRIVATE, trained.agreement)


def test_the_file_tells_what_is_wrong_with_labels_and_columns(tmp_path: Path) -> None:
    text = (EXAMPLE / "collaboration.toml").read_text()
    text = text.replace('column = "income"', 'column = "wealth"').replace(
        'name = "hours-per-week"', 'name = "hours"'
    )
    text = text.replace('align = "people-of-all"', 'align = "income-model"', 1)
    shutil.copytree(EXAMPLE / "data", tmp_path / "data")
    (tmp_path / "wrong.toml").write_text(text)
    with pytest.raises(CollaborationError) as found:
        load_collaboration(tmp_path / "wrong.toml")
    said = str(found.value)
    assert "labels.column: there is no column 'wealth'" in said
    assert "there is no column for the agreed 'hours'" in said
    assert "jobs[1].align: found 'income-model', which is no align job" in said


# --- the example ---------------------------------------------------------------------------------


def test_the_example_runs_as_it_is_told_on_fewer_people(
    tmp_path: Path,
) -> None:
    script = [sys.executable, str(EXAMPLE / "generate.py"), "--output", str(tmp_path / "data")]
    subprocess.run([*script, "--people", "600"], check=True)
    shutil.copy(EXAMPLE / "collaboration.toml", tmp_path)
    file = tmp_path / "collaboration.toml"
    smaller = {
        "rounds = 5": "rounds = 1",
        "rows = 4000": "rows = 600",
        "bucket = 1000": "bucket = 100",
    }
    text = file.read_text()
    smaller |= {"epsilon = 1.0\ndelta = 1e-12": "epsilon = 10.0\ndelta = 1e-9", "= 3.5": "= 12.5"}
    for written_so, instead in smaller.items():
        text = text.replace(written_so, instead)
    file.write_text(text)
    simulate(file, tmp_path / "out")
    written = pd.read_csv(tmp_path / "out" / "brand" / "segments" / "income-scores.csv")
    brand = pd.read_csv(tmp_path / "data" / "brand.csv.gz", keep_default_na=False)
    ranked = written.merge(brand)
    known = ranked[ranked["income"] != ""]
    assert 300 < len(ranked) < 600
    assert roc_auc_score(known["income"] == "high", known["score"]) > 0.75
    parties_of = ("brand", "broker", "recruiter", "coordinator")
    assert {verify_party(tmp_path / "out" / name).party for name in parties_of} == set(parties_of)


def test_the_tables_of_the_example_are_those_that_its_script_makes(tmp_path: Path) -> None:
    script = [sys.executable, str(EXAMPLE / "generate.py"), "--output", str(tmp_path)]
    subprocess.run(script, check=True)
    for path in (EXAMPLE / "data").glob("*.csv.gz"):
        assert gzip.decompress((tmp_path / path.name).read_bytes()) == gzip.decompress(
            path.read_bytes()
        )


def test_residuals_that_leave_after_the_days_weigh_in_the_days_in_which_they_leave(
    tmp_path: Path,
) -> None:
    period = {"days": 30, "epsilon": 12.9, "delta": 0.05}
    found = vertical.world(tmp_path / "world", ALIGN, PRIVATE, period=period)

    def weighs() -> float:
        with found.node("brand").desk() as desk:
            told = desk.ledger.statement().period
            assert told is not None
            return told.epsilon_spent

    def stop(_: str, __: SealedMessage, answer: SealedMessage) -> SealedMessage:
        if unseal(answer, found.agreement).header.kind == "assist.noised":
            found.unreachable.add("brand")
        return answer

    found.listener = stop
    with pytest.raises(PartyUnreachableError):
        found.run()
    assert weighs() > PRIVATE.label_epsilon * 0.9
    question = found.parties.seal(
        "coordinator", "brand", "model", AssistAsk(spec=PRIVATE, round=1, place=0)
    )
    for _ in range(2):  # they leave, and leave again
        found.now += timedelta(days=31)
        assert weighs() == 0.0
        said = found.handle("brand", question)
        assert unseal(said, found.agreement).header.kind == "assist.residuals"
        assert weighs() == pytest.approx(PRIVATE.label_epsilon, rel=0.1)
