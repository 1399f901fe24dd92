"""A model's card: its facts are the agreement's, its figures the party's own, and both stay home."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from test_report import Page

from compliance.terms import Role
from federation.attack import attack
from federation.card import ModelCard, make_card, write_card
from federation.cli import main
from federation.clock import utc_now
from federation.errors import WorkspaceError
from federation.jobs.model import JointModel
from federation.own_rows import KeptModel, OwnRows
from privacy.attacks import Flaw


@pytest.fixture(scope="session")
def grouped(finished: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trial that has run, whose agreement names groups; a card reads its people beside a job."""
    return Path(shutil.copytree(finished[1], tmp_path_factory.mktemp("grouped") / "workspace"))


@pytest.fixture
def workspace(grouped: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(grouped, tmp_path / "workspace"))


def model_of(workspace: Path, party: str = "retailer") -> Path:
    return workspace / party / "models" / "model.json"


@pytest.fixture(scope="module")
def card(grouped: Path) -> ModelCard:
    return make_card(model_of(grouped))


@pytest.fixture(scope="module")
def page(card: ModelCard, tmp_path_factory: pytest.TempPathFactory) -> Page:
    place = tmp_path_factory.mktemp("cards") / "model"
    write_card(card, place)
    assert place.with_suffix(".html").stat().st_mode & 0o077 == 0
    assert ModelCard.model_validate_json(place.with_suffix(".json").read_bytes()) == card
    return Page(place.with_suffix(".html").read_text(encoding="utf-8"))


class TestFacts:
    def test_they_are_those_of_agreement_job_and_model(
        self, card: ModelCard, grouped: Path
    ) -> None:
        model = JointModel.model_validate_json(model_of(grouped).read_bytes())
        assert (card.digest, card.agreement) == (model.digest, model.agreement)
        assert (card.epsilon, card.delta, card.tables) == (1.0, 1e-5, 2)
        assert card.noise_multiplier == model.making.noise_multiplier
        assert set(card.trained_by) == {"courier", "retailer"}
        assert set(card.parties) >= {("brand", Role.BRAND), ("coordinator", Role.COORDINATOR)}
        assert card.features == ("age", "colour")
        assert card.spec.steps == 40
        assert any("One person stands in at most 2" in line for line in card.assumptions)
        assert any("each partner trusts its own node only" in line for line in card.trust)
        assert card.reproducible

    def test_attributions_are_the_most_that_a_feature_can_do(
        self, card: ModelCard, grouped: Path
    ) -> None:
        """Against scores of people at the ends of every range."""
        kept = KeptModel.open(model_of(grouped))
        from federation.population import encoder_for

        ages = np.repeat([18.0, 90.0], 3)
        colours = np.array(["green", "red", "none"] * 2, dtype=object)
        encoded = encoder_for(kept.agreement).encode({"age": ages, "colour": colours})
        scores = kept.model.score(encoded).reshape(2, 3)
        spans = {one.feature: one.span for one in card.attributions}
        assert spans["age"] == pytest.approx(np.ptp(scores[:, 0]))
        assert spans["colour"] == pytest.approx(np.ptp(scores[0]))
        assert [one.span for one in card.attributions] == sorted(spans.values(), reverse=True)
        highest = {one.feature: one.highest for one in card.attributions}
        assert highest["age"] == ("minimum", "maximum")[int(np.argmax(scores[:, 0]))]
        assert highest["colour"] == ("green", "red", None)[int(np.argmax(scores[0]))]

    def test_an_attack_that_was_made_is_told(self, workspace: Path) -> None:
        assert make_card(model_of(workspace)).attack is None
        attack(model_of(workspace), canaries=20, models=0, flaw=Flaw.NOISE)
        assert make_card(model_of(workspace)).attack is None
        found = attack(model_of(workspace), canaries=20, models=0)
        assert make_card(model_of(workspace)).attack == found
        assert make_card(model_of(workspace), facts_alone=True).attack is None
        kept = workspace / "retailer" / "attacks" / "model.json"
        kept.write_text(found.model_copy(update={"model": "0" * 64}).model_dump_json())
        assert make_card(model_of(workspace)).attack is None
        kept.write_text("{}")
        with pytest.raises(WorkspaceError, match="is damaged: run `comity attack` again"):
            make_card(model_of(workspace))


class TestJudged:
    def test_it_is_about_the_partys_own_people(self, card: ModelCard) -> None:
        judged = card.judged
        assert judged is not None
        assert (judged.rows, judged.eligible, judged.positives) == (50, 50, 20)
        assert judged.quality is not None
        assert judged.one_shot is not None
        assert 0 <= judged.quality.auc.low <= judged.quality.auc.value <= judged.quality.auc.high
        assert sum(one.rows for one in judged.calibration) == 50
        assert judged.share == 0.2

    def test_groups_add_up_to_those_who_could_be_chosen(self, card: ModelCard) -> None:
        assert card.judged is not None
        (colours,) = card.judged.fairness
        assert [one.group for one in colours.groups] == ["green", "red"]
        assert sum(one.people for one in colours.groups) == 50
        assert sum(one.candidates or 0 for one in colours.groups) == 30
        chosen = sum((one.candidates or 0) * (one.selection_rate or 0) for one in colours.groups)
        assert chosen == pytest.approx(10)  # as many as the segment holds
        assert max(one.ratio or 0 for one in colours.groups) == 1.0

    def test_who_was_left_out_is_counted_with_the_reason(self, workspace: Path) -> None:
        book = workspace / "retailer" / "data" / "consents" / "retailer-consents.csv"
        with book.open("a") as file:
            file.write("R#730,withdrawn,2021-01-01T00:00:00Z,lookalike-audiences\n")
        judged = make_card(model_of(workspace)).judged
        assert judged is not None
        assert (judged.rows, judged.eligible) == (50, 49)
        assert judged.excluded == {"withdrawn": 1}

    def test_a_brand_knows_the_facts_alone(self, grouped: Path) -> None:
        facts = make_card(model_of(grouped, "brand"))
        assert facts.judged is None
        assert facts.attributions == make_card(model_of(grouped)).attributions

    def test_the_same_rows_make_the_same_card(self, grouped: Path, card: ModelCard) -> None:
        assert make_card(model_of(grouped)).judged == card.judged

    def test_the_rows_are_those_of_the_training(self, grouped: Path) -> None:
        own = OwnRows.read(KeptModel.open(model_of(grouped)), utc_now)
        assert own.features.shape == (50, 4)
        assert own.members.sum() == 20


class TestPage:
    def test_it_loads_nothing_and_names_nobody(self, page: Page) -> None:
        assert page.fetched == []
        assert not {"script", "link", "iframe", "object", "embed", "img", "base"} & {*page.tags}
        assert page.tags.count("svg") == 1
        assert not re.search(r"gmx|\+1212|[BRC]#7\d\d", page.text)

    def test_it_tells_what_holds_for_whom(self, page: Page, card: ModelCard) -> None:
        assert "ε = 1 at δ = 1e-05" in page.text
        assert "in each of up to 2 partners' tables" in page.text
        assert "For retailer alone" in page.text
        assert card.digest in page.text
        assert card.judged is not None
        assert card.judged.quality is not None
        assert f"{card.judged.quality.auc.value:.3f}" in page.text
        for one in card.attributions:
            assert f"{one.span:.3f}" in page.text
        for line in (*card.assumptions, *card.trust):
            assert line in page.text

    def test_a_group_below_four_fifths_is_marked(self, page: Page, card: ModelCard) -> None:
        assert card.judged is not None
        marked = any(one.adverse for group in card.judged.fairness for one in group.groups)
        assert ("below four fifths" in page.text) is marked

    def test_names_are_text_and_no_markup(self, card: ModelCard, tmp_path: Path) -> None:
        write_card(card.model_copy(update={"title": "<script src='x'>"}), tmp_path / "model")
        page = Page((tmp_path / "model.html").read_text(encoding="utf-8"))
        assert "script" not in page.tags


def test_a_model_that_was_altered_has_no_card_and_is_not_attacked(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = model_of(workspace)
    model = json.loads(file.read_bytes())
    model["body"]["weights"][0] += 1.0
    file.write_text(json.dumps(model))
    for command in ("card", "attack"):
        with pytest.raises(SystemExit) as caught:
            main([command, str(file)])
        assert caught.value.code == 1
        assert "altered since it was published" in " ".join(capsys.readouterr().err.split())


def test_a_model_that_is_missing_is_answered_by_those_that_are_there(workspace: Path) -> None:
    with pytest.raises(WorkspaceError, match=r"there is .*model\.json"):
        make_card(model_of(workspace).with_name("modle.json"))


def test_the_command_writes_the_card_and_changes_nothing_else(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {p: p.read_bytes() for p in workspace.rglob("*") if p.is_file()}
    for flags in ((), ("--json",), ("--facts",)):
        with pytest.raises(SystemExit) as caught:
            main(["card", str(model_of(workspace)), *flags])
        assert caught.value.code == 0
        said = capsys.readouterr().out
        if flags == ("--facts",):
            assert "card, of facts alone" in said
        elif flags:
            assert ModelCard.model_validate(json.loads(said)).party == "retailer"
        else:
            assert "epsilon 1 at delta 1e-05 for a person in up to 2 partners' tables" in said
            assert "card, for retailer alone" in said
    after = {p: p.read_bytes() for p in workspace.rglob("*") if p.is_file()}
    changed = {p.relative_to(workspace).as_posix() for p in after if after[p] != before.get(p)}
    cards = {"model.html", "model.json", "model.facts.html", "model.facts.json"}
    assert changed == {f"retailer/cards/{name}" for name in cards}
    facts = (workspace / "retailer" / "cards" / "model.facts.json").read_bytes()
    assert ModelCard.model_validate_json(facts).judged is None
