"""Nobody is in sums of two sets of partners: not by an amendment, an operator, or another record."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import parties
import pyarrow as pa
import pytest
import vertical
from parties import PURPOSE, World, email
from test_adoption import LATER
from test_vertical_jobs import PEOPLE
from vertical import ALIGN, ask_for

from compliance.agreement import Agreement, SignedAgreement
from compliance.lifecycle import amend
from compliance.records import ErasureOutcome
from compliance.terms import Artefact, Role
from federation import adoption, artefacts
from federation.auditing import audit_places
from federation.coordinator import Coordinator, write_jobs
from federation.erasing import Erasing
from federation.errors import RefusedError, WorkspaceError
from federation.holding import held
from federation.jobs import align
from federation.jobs.assist import HeldPart
from federation.party import PartyFolder
from federation.population import encoder_of
from federation.specification import AlignSpec, JobSpec, VerticalScoreSpec
from federation.training import assisted_brand, one_set
from federation.training.summed import (
    SUMMED,
    SummedPeople,
    forget_summed,
    summed_key,
    summed_people,
)
from federation.trial.workspace import Workspace
from privacy.randomness import Secret

ROLES = dict.fromkeys(PEOPLE, Role.PARTNER) | {"brand": Role.BRAND, "coordinator": Role.COORDINATOR}
TRAIN = vertical.PRIVATE.model_copy(update={"rounds": 1})
LATER_ROWS = AlignSpec(name="later")
SCORE = VerticalScoreSpec(name="scores", train="model", align="rows")
AGAIN = SCORE.model_copy(update={"name": "again", "align": "later"})
WITHOUT = SCORE.model_copy(update={"absent_partners": 1})
TWIN = TRAIN.model_copy(update={"name": "twin"})
COMMON = 80
TERMS = {"alignments": 2, "absent_partners": 1}


@pytest.fixture(scope="module", autouse=True)
def _small_world() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parties, "ROLES", ROLES)
        patch.setattr(parties, "PEOPLE", PEOPLE)
        patch.setattr(vertical, "COMMON", COMMON)
        yield


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, _small_world: None) -> World:
    found = vertical.world(tmp_path_factory.mktemp("trained"), ALIGN, TRAIN, **TERMS)
    found.run()
    return found


@pytest.fixture
def world(trained: World, tmp_path: Path) -> World:
    return trained.apart(tmp_path / "workspace")


def test_an_audit_finds_nothing_in_a_training_over_columns(trained: World, tmp_path: Path) -> None:
    """Each party has a part of its own, and the coordinator's log tells of none."""
    places = [str(trained.workspace.path)]
    _, found, _ = audit_places(
        places, agreements=(), policy=None, scratch=tmp_path, now=trained.now
    )
    assert found == ()


def amended(
    world: World, file: Path, *, joins: tuple[PartyFolder, ...] = (), **changes: object
) -> World:
    """Have those whom the next version names sign it and take it over."""
    after = amend(world.agreement, {"valid_from": LATER, **changes})
    file.write_bytes(SignedAgreement.draft(after).to_json())
    named = {one.name for one in after.parties}
    folders = tuple(one for one in (*world.workspace.folders, *joins) if one.name in named)
    for folder in folders:
        file.write_bytes(adoption.sign(folder, file).to_json())
    for folder in folders:
        adoption.adopt(folder, file, now=LATER)
    return World(Workspace(world.workspace.path, after, folders), LATER)


def without_retailer(agreement: Agreement) -> dict[str, Any]:
    columns = tuple(one for one in agreement.vertical.columns if one.party != "retailer")
    return {
        "parties": tuple(one for one in agreement.parties if one.name != "retailer"),
        "datasets": tuple(one for one in agreement.datasets if one.party != "retailer"),
        "vertical": agreement.vertical.model_copy(update={"columns": columns}),
    }


@pytest.mark.parametrize(
    ("spec", "said"),
    [(SCORE, "other partners or columns"), (TWIN, "trained on by job 'model'")],
    ids=["scoring", "training"],
)
def test_whom_a_partner_that_left_was_trained_with_is_in_no_sum_without_it(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spec: JobSpec, said: str
) -> None:
    """The sum of the training less a sum of those who are left would be its part."""
    after = amended(world, tmp_path / "next.json", **without_retailer(world.agreement))
    for name, whole in (("PEOPLE", PEOPLE), ("ROLES", ROLES)):
        left = {party: of for party, of in whole.items() if party != "retailer"}
        monkeypatch.setattr(parties, name, left)
    ask_for(after, spec)
    with pytest.raises(RefusedError, match=said):
        after.run()


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        (SCORE, r"by courier under vertical\.columns"),
        (TWIN, r"by courier under vertical\.absent_partners: .* trained on by job 'model'"),
    ],
    ids=["scoring", "training"],
)
def test_people_are_in_no_sum_of_columns_that_are_read_otherwise_now(
    world: World, tmp_path: Path, spec: JobSpec, said: str
) -> None:
    """One partner's bounds alone are others: the difference of two sums would be its own."""
    terms = world.agreement.vertical
    wider = tuple(
        one.model_copy(update={"maximum": 9.0}) if one.party == "courier" else one
        for one in terms.columns
    )
    changed = terms.model_copy(update={"columns": wider})
    after = amended(world, tmp_path / "next.json", vertical=changed)
    ask_for(after, spec)
    with pytest.raises(RefusedError, match=said):
        after.run()


def test_an_amendment_that_changes_neither_lets_the_model_score(
    world: World, tmp_path: Path
) -> None:
    after = amended(world, tmp_path / "next.json", title="Changed")
    ask_for(after, SCORE)
    after.run()
    assert len(pd.read_csv(after.folder("brand").segment("scores"))) == COMMON


def test_another_operator_makes_nobody_new(world: World, tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        named = {
            "operator" if name == "coordinator" else name: role for name, role in ROLES.items()
        }
        patch.setattr(parties, "ROLES", named)
        other = vertical.world(tmp_path / "other", **TERMS)
    place = world.workspace.path / "operator"
    shutil.copytree(other.folder("operator").path, place)
    (place / "agreement.json").unlink()
    operator = PartyFolder(place)
    listed = tuple(
        operator.term() if one.name == "coordinator" else one for one in world.agreement.parties
    )
    after = amended(world, tmp_path / "next.json", joins=(operator,), parties=listed)
    write_jobs(operator, [WITHOUT])
    after.unreachable.add("courier")
    with pytest.raises(RefusedError, match="below the minimum"):
        Coordinator.open(operator.path, clock=after.clock).run(after)


def test_records_under_other_names_everywhere_are_the_same_people(world: World) -> None:
    """Every party has given its records other references since: identifiers tell all the same."""
    for party in PEOPLE:
        for file in (world.table(party), world.consents(party)):
            text = file.read_text()
            file.write_text(text.replace(f"{party[0].upper()}-", f"{party[0].upper()}X-"))
    again = WITHOUT.model_copy(update={"align": "later"})
    ask_for(world, LATER_ROWS)
    world.run()
    world.unreachable.add("courier")
    ask_for(world, again)
    with pytest.raises(RefusedError, match="below the minimum"):
        world.run()


def courier_gets_the_next_ones(
    honest: Callable[..., np.ndarray],
) -> Callable[..., np.ndarray]:
    def common_places(*sets: Any) -> np.ndarray:
        places = honest(*sets).copy()
        places[1] = np.roll(places[1], -1)
        return places

    return common_places


def test_an_operator_that_names_a_partner_other_people_makes_sums_random(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Of two sums, one over its neighbours in place of them, the difference was its own column."""
    ask_for(world, SCORE)
    world.run()
    with monkeypatch.context() as patch:
        patch.setattr(align, "common_places", courier_gets_the_next_ones(align.common_places))
        ask_for(world, LATER_ROWS)
        world.run()
    ask_for(world, AGAIN)
    with pytest.raises(RefusedError):
        world.run()
    assert "the scores of job 'again' are random" in caplog.text
    monkeypatch.setattr(assisted_brand, "_LARGEST_SCORE", np.inf)  # a brand that shuts its eyes
    world.run()
    order = world.listed("brand", "later/aligned.npz")
    first, second = (
        pd.read_csv(world.folder("brand").segment(name)).set_index("record").loc[order, "score"]
        for name in ("scores", "again")
    )
    held = HeldPart.model_validate_json(world.folder("courier").model("model").read_bytes())
    columns = world.agreement.vertical.held_by("courier")
    known = vertical.people()
    own = held.part.score(encoder_of(columns).encode({"parcels": known["parcels"].to_numpy()}))
    truth = own[[int(name.partition("-")[2]) - 7_000 for name in order]]
    gap = np.roll(truth, -1) - truth
    assert abs(np.corrcoef((second - first).to_numpy(), gap)[0, 1]) < 0.4


@pytest.mark.parametrize("known_by", ["references", "tokens"])
def test_somebody_is_found_by_either_of_what_they_are_known_by(known_by: str) -> None:
    token = pa.binary(2)
    mine = SummedPeople(pa.array(["a", "b"]), pa.array([b"aa", b"bb"], token))
    others = {
        "references": SummedPeople(pa.array(["b"]), pa.array([b"zz"], token)),
        "tokens": SummedPeople(pa.array(["z"]), pa.array([b"bb"], token)),
    }
    assert mine.found_in(others[known_by]).tolist() == [False, True]
    key = Secret(bytes(32))
    found = mine.under(key).found_in(others[known_by].under(key))
    assert found.tolist() == [False, True]
    assert not mine.under(key).found_in(others[known_by].under(Secret(b"k" * 32))).any()


def deleted_alignment(world: World, name: str) -> None:
    """Have retention take an alignment from a party."""
    folder = world.folder(name)
    artefacts.remove(folder, Artefact.MATCH, "rows")
    going = artefacts.Deleted(
        artefact=Artefact.MATCH, name="rows", purpose=PURPOSE, days=1, due=world.now, told=True
    )
    going.path(folder).write_text(going.model_dump_json())


def test_whom_a_deleted_alignment_found_is_known_by_pseudonyms(world: World) -> None:
    """Of a person in a sum nobody may give a part to another, however long ago that was."""
    ask_for(world, LATER_ROWS)
    world.run()
    references = world.listed("press", "rows/aligned.npz")
    for name in ("brand", "press"):  # each party deletes by itself
        deleted_alignment(world, name)
        deleted_alignment(world, name)  # after a crash
    (left,) = (one for one in world.folder("press").job("rows").iterdir() if one.name == SUMMED)
    content = left.read_bytes()
    assert not any(reference.encode() in content for reference in references)
    assert summed_people(world.folder("press"), "rows").are_pseudonyms
    assert summed_key(world.folder("press")) != summed_key(world.folder("brand"))
    with world.node("press").desk() as desk:
        assert one_set.trained_on(desk, "later").all()
    key = world.folder("press").path / "keys" / "erasure"
    kept = key.read_bytes()
    key.write_text("5a" * 32)  # by which nobody would be found
    with pytest.raises(WorkspaceError, match="another keys/erasure"):
        summed_people(world.folder("press"), "rows")
    key.write_bytes(kept)
    world.unreachable.add("courier")
    ask_for(world, AGAIN.model_copy(update={"absent_partners": 1}))
    with pytest.raises(RefusedError, match="below the minimum"):  # nobody is left to be scored
        world.run()


def test_who_is_erased_is_taken_out_of_pseudonyms(world: World) -> None:
    folder, now = world.folder("press"), world.now
    deleted_alignment(world, "press")
    before = summed_people(folder, "rows")
    with held(folder.path, clock=lambda: now) as at:
        erasing = Erasing(at.folder, at.agreement, at.gate, clock=lambda: now)
        erasing.request("email", email(7))
        (done,) = erasing.run()
    steps = {step.target: step.outcome for step in done.execution.steps}
    assert steps["sums rows"] is ErasureOutcome.DELETED
    after = summed_people(folder, "rows")
    same = np.array([a == b for a, b in zip(before.tokens, after.tokens, strict=True)])
    assert (len(after), np.count_nonzero(~same)) == (COMMON, 1)
    assert before.found_in(after).tolist() == same.tolist()
    assert not forget_summed(folder, "rows", [vertical.record("press", 7)])


def test_who_was_erased_before_an_alignment_is_deleted_leaves_no_pseudonym(world: World) -> None:
    folder, now = world.folder("press"), world.now
    before = summed_people(folder, "rows").under(summed_key(folder))
    with held(folder.path, clock=lambda: now) as at:
        erasing = Erasing(at.folder, at.agreement, at.gate, clock=lambda: now)
        erasing.request("email", email(7))
        erasing.run()
    deleted_alignment(world, "press")
    after = summed_people(folder, "rows")
    assert not forget_summed(folder, "rows", [vertical.record("press", 7)])
    assert np.count_nonzero(~before.found_in(after)) == 1


def erase(world: World, name: str, person: int) -> None:
    """Have a party erase somebody, and nobody else."""
    now = world.now
    with held(world.folder(name).path, clock=lambda: now) as at:
        erasing = Erasing(at.folder, at.agreement, at.gate, clock=lambda: now)
        erasing.request("email", email(person))
        erasing.run()


def test_parties_that_erase_and_delete_at_different_times_tell_the_same_people_apart(
    world: World,
) -> None:
    """Else their masks would not go away, and a scoring without a partner would be lost."""
    ask_for(world, LATER_ROWS)
    world.run()

    def told() -> set[str]:
        found = set()
        for name in ("brand", "press", "courier"):
            with world.node(name).desk() as desk:
                found.add(one_set.digest_of(one_set.trained_on(desk, "later")))
        return found

    everybody = told()
    assert len(everybody) == 1
    deleted_alignment(world, "press")
    erase(world, "press", 7)  # the others have yet to
    assert told() == everybody
    erase(world, "brand", 7)
    deleted_alignment(world, "brand")
    assert told() == everybody
    erase(world, "courier", 7)  # which keeps the alignment
    assert told() == everybody
    for name in ("press", "brand"):
        folder = world.folder(name)
        assert (folder.job("later") / "forgotten-rows").exists()
        artefacts.remove(folder, Artefact.MATCH, "later")
        assert not (folder.job("later") / "forgotten-rows").exists()


def test_who_is_known_by_a_pseudonym_alone_is_taken_out_by_the_identifier(world: World) -> None:
    folder, now = world.folder("press"), world.now
    deleted_alignment(world, "press")
    before = summed_people(folder, "rows")
    table = pd.read_csv(world.table("press"))
    gone = table["record"] == vertical.record("press", 7)
    table[~gone].to_csv(world.table("press"), index=False)  # and no match knows them any more
    with held(folder.path, clock=lambda: now) as at:
        erasing = Erasing(at.folder, at.agreement, at.gate, clock=lambda: now)
        for person, outcome in ((7, ErasureOutcome.DELETED), (999, ErasureOutcome.UNKNOWN)):
            asked = erasing.request("email", email(person)).execution.request
            done = next(one for one in erasing.run() if one.execution.request == asked)
            steps = {step.target: step.outcome for step in done.execution.steps}
            assert steps["sums rows"] is outcome
    assert np.count_nonzero(~before.found_in(summed_people(folder, "rows"))) == 1


def test_an_alignment_that_an_earlier_version_deleted_says_so(world: World) -> None:
    for name in ("press", "courier"):
        if name == "courier":  # or that was damaged by then
            (world.folder(name).job("rows") / "aligned.npz").write_bytes(b"cut")
        deleted_alignment(world, name)
        (world.folder(name).job("rows") / SUMMED).unlink(missing_ok=name == "courier")
        with pytest.raises(RefusedError, match=r"retention\.match: .* nothing to tell them by"):
            summed_people(world.folder(name), "rows")


def test_an_alignment_without_sums_leaves_nothing(world: World) -> None:
    ask_for(world, LATER_ROWS)
    world.run()
    folder = world.folder("press")
    artefacts.remove(folder, Artefact.MATCH, "later")
    assert not artefacts.places(folder, Artefact.MATCH, "later")
    assert not (folder.job("later") / SUMMED).exists()


def test_the_first_joining_that_was_answered_stays_what_is_noted(world: World) -> None:
    file = world.folder("press").job("model") / "joined-rows"
    before = file.read_bytes()
    with world.node("press").desk() as desk:
        one_set.JoinedOnce("f" * 64, "0" * 64, ("courier", "press")).note(desk, TRAIN)
    assert file.read_bytes() == before


def test_a_scoring_of_columns_that_were_read_otherwise_is_another_sum(world: World) -> None:
    directory = world.folder("press").job("model")
    joined = one_set.JoinedOnce.load(directory / "joined-rows")
    chosen = np.packbits(np.ones(COMMON, dtype=np.bool_)).tobytes().hex()
    for columns in (joined.columns, "0" * 64):
        noted = one_set.ScoredOnce("scores", joined.question, chosen, columns, joined.partners)
        noted.save(directory / "scored-rows")
        with world.node("press").desk() as desk:
            if columns == joined.columns:
                one_set.check_one_set(desk, "rows", joined.partners)
                continue
            with pytest.raises(RefusedError, match="were scored by job 'scores' with another set"):
                one_set.check_one_set(desk, "rows", joined.partners)
