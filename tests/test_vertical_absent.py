"""Scoring without a partner: of new people alone, flagged, and never over two sets of partners."""

from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import parties
import pytest
import vertical
from parties import World
from sklearn.metrics import roc_auc_score
from test_vertical_jobs import PEOPLE
from vertical import ALIGN, UNSAFE, ask_for, record

from compliance.records import Refusal
from compliance.terms import Artefact, Role
from federation.artefacts import places
from federation.errors import MessageError, PartyUnreachableError, RefusedError
from federation.jobs.assist import check_partners, spare_scorers
from federation.messages import AssistAsk, AssistOpen, JobApproved
from federation.objections import policy_objections
from federation.party import write_atomically
from federation.progress import listening
from federation.specification import AlignSpec, VerticalScoreSpec, VerticalTrainSpec
from federation.trial.simulation import degraded_scores
from federation.trial.workspace import Workspace
from federation.vertical_card import make_vertical_card

COMMON, NEW = 120, 40
PRIVATE = vertical.PRIVATE.model_copy(update={"rounds": 1})
LATER = AlignSpec(name="later")
WITHOUT = VerticalScoreSpec(name="scores", train="model", align="later", absent_partners=1)
WHOLE = VerticalScoreSpec(name="whole", train="model", align="later")


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A model was trained on 80 people; 40 more are aligned with them since."""
    with pytest.MonkeyPatch.context() as patch:
        roles = dict.fromkeys(PEOPLE, Role.PARTNER) | {"brand": Role.BRAND}
        patch.setattr(parties, "ROLES", roles | {"coordinator": Role.COORDINATOR})
        patch.setattr(parties, "PEOPLE", PEOPLE)
        patch.setattr(vertical, "COMMON", COMMON)
        path = tmp_path_factory.mktemp("grown")
        jobs = (ALIGN, PRIVATE, LATER)
        found = vertical.world(path, *jobs, alignments=2, absent_partners=1)
        whole = pd.read_csv(found.table("retailer"))
        late = [record("retailer", person) for person in range(COMMON - NEW, COMMON)]
        whole[~whole["record"].isin(late)].to_csv(found.table("retailer"), index=False)
        ask_for(found, ALIGN, PRIVATE)
        found.run()
        whole.to_csv(found.table("retailer"), index=False)
        ask_for(found, *jobs)
        found.run()
        yield found


@pytest.fixture
def world(grown: World, tmp_path: Path) -> World:
    return grown.apart(tmp_path / "workspace")


def run(world: World, *jobs: VerticalScoreSpec, away: str | None = None) -> list[str]:
    """Score, perhaps while a partner is away; returns what was reported."""
    told: list[str] = []
    world.unreachable |= {away} if away else set()
    ask_for(world, *jobs)
    try:
        with listening(lambda one: told.append(one.stage)):
            world.run()
    finally:
        world.unreachable.clear()
    return told


def test_new_people_are_scored_without_a_partner_once_and_everything_says_so(world: World) -> None:
    told = run(world, WITHOUT, away="courier")
    assert any("degraded: without courier" in stage for stage in told)
    written = pd.read_csv(world.folder("brand").segment("scores"))
    assert set(written["without"]) == {"courier"}
    assert set(written["record"]) == {
        record("brand", person) for person in range(COMMON - NEW, COMMON)
    }
    truth = vertical.people().assign(record=[record("brand", one) for one in range(COMMON)])
    ranked = written.merge(truth)
    assert roc_auc_score(ranked["truth"], ranked["score"]) > 0.6
    (judged,) = make_vertical_card(world.folder("brand").model("model")).judged
    assert (judged.without, judged.scored) == (("courier",), NEW)
    folders = tuple(world.folder(one.name) for one in world.agreement.parties)
    workspace = Workspace(folders[0].path.parent, world.agreement, folders)
    (degraded,) = degraded_scores(workspace, [WITHOUT])
    assert (degraded.job, degraded.without) == ("scores", ("courier",))
    # These people are in a sum now, and get into none of other partners, whatever is asked.
    other = UNSAFE.model_copy(update={"name": "twin", "align": "later", "rounds": 1})
    for spec, said in ((WHOLE, "scored with model 'model' once"), (other, "another set of partn")):
        with pytest.raises(RefusedError, match=said):
            run(world, spec)
    refusals = [leaf for leaf in world.leaves("press") if isinstance(leaf, Refusal)]
    assert [leaf.term for leaf in refusals] == ["vertical.align", "vertical.absent_partners"]


def test_a_twin_of_the_model_gives_no_second_sum_either(world: World) -> None:
    """Two trainings of the same labels leave the same parts: the rule is of people, not of models."""
    twin = UNSAFE.model_copy(update={"name": "twin", "rounds": 1})
    run(world, twin, WHOLE.model_copy(update={"train": "twin"}))
    with pytest.raises(RefusedError, match="another set of partners"):
        run(world, WITHOUT, away="courier")
    assert not world.folder("brand").segment("scores").exists()


def test_a_training_told_of_afterwards_makes_a_sum_of_nobody_else(world: World) -> None:
    """Whom a sum was of is what was noted then; a training counts from when it was joined."""
    planned = UNSAFE.model_copy(update={"name": "planned", "align": "later", "rounds": 1})
    note(world, "press", planned)  # joined by nobody: were it counted, the scores would be random
    run(world, WITHOUT, away="courier")
    assert len(pd.read_csv(world.folder("brand").segment("scores"))) == NEW
    ghost = planned.model_copy(update={"name": "ghost"})
    for party in PEOPLE:
        told = world.parties.seal("coordinator", party, "ghost", JobApproved(spec=ghost), b"[]")
        assert world.ask(party, told).body.kind == "refused"
        assert not (world.folder(party).job("ghost") / "specification.json").exists()
    for party in PEOPLE:  # even if it were believed to have joined
        note(world, party, ghost)
        (world.folder(party).outbox / f"{'0' * 64}.{'1' * 64}.json").write_bytes(b"")
    other = planned.model_copy(update={"name": "other"})
    with pytest.raises(RefusedError, match="scored by job 'scores' with another set of partners"):
        run(world, other)
    # Neither an answer nor a model that is deleted takes what is known of a sum with it.
    press = world.folder("press")
    assert (press.job("model") / "scored-later").exists()
    assert not [one for one in places(press, Artefact.MODEL, "model") if "scored" in one.name]
    for payload in press.outbox.glob("*.bin"):
        payload.unlink()
    again = other.model_copy(update={"name": "again"})
    with pytest.raises(RefusedError, match="by press under vertical"):
        run(world, again)


def note(world: World, party: str, spec: VerticalTrainSpec) -> None:
    """Have a training at a party that asked it to join, and got no answer."""
    directory = world.folder(party).job(spec.name)
    write_atomically(directory / "specification.json", spec.model_dump_json().encode())
    model = world.folder(party).job("model") / "joined-rows"
    _, same = model.read_text(encoding="ascii").split(" ", 1)  # columns and partners
    write_atomically(directory / f"joined-{spec.align}", f"{'0' * 64} {same}".encode())


def test_whoever_was_trained_on_is_scored_by_all_or_not_at_all(world: World) -> None:
    spec = WITHOUT.model_copy(update={"align": "rows"})
    with pytest.raises(RefusedError, match="below the minimum of 30"):
        run(world, spec, away="courier")
    again = WITHOUT.model_copy(update={"name": "again"})
    assert "degraded" not in " ".join(run(world, again))  # all are there: everybody is scored
    written = pd.read_csv(world.folder("brand").segment("again"))
    assert len(written) == COMMON
    assert "without" not in written


def test_partners_who_disagree_on_who_was_trained_on_leave_no_scores(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("joined-rows", "specification.json"):
        (world.folder("press").job("model") / name).unlink()
    with pytest.raises(RefusedError):
        run(world, WITHOUT, away="courier")
    assert "the scores of job 'scores' are random" in caplog.text
    assert not world.folder("brand").segment("scores").exists()


def test_what_an_earlier_version_noted_of_sums_counts(world: World) -> None:
    """It noted no training that it joined, and of a scoring no columns."""
    for party in PEOPLE:
        (world.folder(party).job("model") / "joined-rows").unlink()
    run(world, WITHOUT, away="courier")
    assert len(pd.read_csv(world.folder("brand").segment("scores"))) == NEW
    again = WITHOUT.model_copy(update={"name": "again", "train": "twin"})
    other = UNSAFE.model_copy(update={"name": "other", "align": "later", "rounds": 1})
    for party in set(PEOPLE) - {"brand", "courier"}:
        scored = world.folder(party).job("model") / "scored-later"
        job, question, chosen, _, *partners = scored.read_text(encoding="ascii").split()
        scored.write_text(" ".join((job, question, chosen, *partners)), encoding="ascii")
    with pytest.raises(RefusedError, match="scored by job 'scores' with another set of partners"):
        run(world, other)
    run(world, UNSAFE.model_copy(update={"name": "twin", "rounds": 1}))
    run(world, again, away="courier")  # with the same partners, out of the same columns


def test_no_more_are_missed_than_was_asked_for_agreed_and_leaves_two(world: World) -> None:
    with pytest.raises(PartyUnreachableError, match="courier"):
        run(world, WHOLE, away="courier")
    asked = WITHOUT.model_copy(update={"absent_partners": 2})
    assert [term for term, _ in policy_objections(asked, world.agreement)] == [
        "vertical.absent_partners"
    ]
    assert spare_scorers(asked, world.agreement) == 1
    assert spare_scorers(PRIVATE, world.agreement) == 0
    check_partners(("courier", "press"), WITHOUT, world.agreement)
    for names in (("press",), ("press", "courier"), ("courier", "press", "stranger")):
        with pytest.raises(MessageError):
            check_partners(names, WITHOUT, world.agreement)
    with pytest.raises(MessageError):
        check_partners(("courier", "press"), WHOLE, world.agreement)


@pytest.mark.parametrize("gone", [False, True], ids=["kept", "its model is gone"])
def test_a_training_that_has_ended_draws_and_tells_no_labels_anew(
    world: World, *, gone: bool
) -> None:
    """One charge pays for one draw: of a second one, noise could be averaged away."""
    brand, seal = world.folder("brand"), world.parties.seal
    if gone:
        brand.model("model").unlink()
    bodies = (AssistOpen(spec=PRIVATE), AssistAsk(spec=PRIVATE, round=1, place=0))
    for body in bodies:
        again = seal("coordinator", "brand", "model", body, b"again")
        assert world.ask("brand", again).body.kind == "refused"
