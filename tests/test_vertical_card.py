"""Cards of models over columns, and attacks on their labels: at home, and staying there."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import parties
import pytest
import vertical
from parties import NOW, World
from test_one_set import amended
from test_report import Page
from vertical import ALIGN, COMMON, PRIVATE, SCORE

from compliance.terms import Role
from federation.cli import main
from federation.errors import WorkspaceError
from federation.vertical_attack import attack_columns
from federation.vertical_card import VerticalCard, make_vertical_card, write_vertical_card
from privacy.attacks import Flaw, guess_labels, plant_labels
from privacy.errors import InvalidParameterError
from privacy.randomness import seeded_secret
from privacy.training.assisted import AssistedPlan, LabelledRows
from privacy.training.label_noise import flip_probability
from privacy.training.learners import Learner

PEOPLE = {"brand": 0, "courier": 1, "press": 2, "retailer": 3}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with pytest.MonkeyPatch.context() as patch:
        roles = dict.fromkeys(PEOPLE, Role.PARTNER) | {"brand": Role.BRAND}
        patch.setattr(parties, "ROLES", roles | {"coordinator": Role.COORDINATOR})
        patch.setattr(parties, "PEOPLE", PEOPLE)
        found = vertical.world(tmp_path_factory.mktemp("card"), ALIGN, PRIVATE, SCORE)
        found.run()
        yield found


def part_of(world: World, party: str = "brand") -> Path:
    return world.folder(party).model("model")


@pytest.mark.parametrize("learner", Learner)
def test_label_noise_holds_its_epsilon_and_is_missed_when_it_is_gone(learner: Learner) -> None:
    draw = np.random.default_rng(3)
    features = draw.normal(size=(400, 2))
    plan = AssistedPlan(partners=1, learner=learner, rounds=2, flip=flip_probability(1.0))
    stated = plant_labels(plan, features, 1.0, seeded_secret(1, "a"), coins=400)
    broken = plant_labels(plan, features, None, seeded_secret(1, "a"), coins=400)
    assert 0.3 < stated.epsilon <= 1.0 < broken.epsilon == broken.most
    assert stated.guesses.made == broken.guesses.made >= 360


def test_a_partner_reads_labels_off_residuals_unless_they_are_noised() -> None:
    draw = np.random.default_rng(3)
    features = draw.normal(size=(600, 2))
    labels = features[:, 0] + draw.logistic(size=600) > 0
    rows = LabelledRows(features, labels, np.ones(600, dtype=np.bool_))
    secret = seeded_secret(1, "b")

    def auc(epsilon: float | None) -> float:
        flip = flip_probability(epsilon)
        plan = AssistedPlan(partners=1, learner=Learner.RIDGE, rounds=2, flip=flip)
        return guess_labels(plan, rows, epsilon, secret).auc

    assert auc(None) == 1.0
    assert auc(2.0) > auc(0.5) > 0.6


@pytest.mark.parametrize(("coins", "rows"), [(19, 1), (20, 0)])
def test_too_few_labels_are_no_attack(coins: int, rows: int) -> None:
    plan = AssistedPlan(partners=1, learner=Learner.RIDGE)
    with pytest.raises(InvalidParameterError):
        plant_labels(plan, np.zeros((rows, 1)), 1.0, seeded_secret(1, "a"), coins=coins)


def test_an_attack_refutes_the_stated_epsilon_only_when_noise_is_left_out(world: World) -> None:
    broken = attack_columns(part_of(world), canaries=300, flaw=Flaw.NOISE, clock=lambda: NOW)
    assert broken.refuted
    assert not world.folder("brand").attack("model").exists()
    found = attack_columns(part_of(world), canaries=300, clock=lambda: NOW)
    assert not found.refuted
    assert (found.stated_epsilon, found.noised.people) == (2.0, COMMON + 20 - 40)
    assert found.noised.auc < found.exact.auc == 1.0
    assert make_vertical_card(part_of(world), clock=lambda: NOW).attack == found
    with pytest.raises(WorkspaceError, match="attack the part of the brand"):
        attack_columns(part_of(world, "press"))
    with pytest.raises(InvalidParameterError, match="not clipped"):
        attack_columns(part_of(world), flaw=Flaw.CLIPPING)


def test_the_brands_card_tells_of_parties_rows_rounds_labels_and_scores(
    world: World, tmp_path: Path
) -> None:
    card = make_vertical_card(part_of(world), clock=lambda: NOW)
    assert {one.party: one.columns for one in card.held} == vertical.COLUMNS
    assert card.rows is not None
    assert (card.rows.rows, card.rows.used) == (COMMON + 20, COMMON)
    assert card.label_epsilon == 2.0
    assert len(card.steps) == card.rounds == len(card.losses) - 1
    assert card.losses[-1] < card.losses[0]
    (judged,) = card.judged
    assert (judged.scored, judged.judged, judged.without) == (COMMON, COMMON - 40, ())
    assert judged.quality is not None
    assert judged.quality.auc.low <= judged.quality.auc.value <= judged.quality.auc.high
    assert judged.quality.auc.value > 0.85
    # Forty people have no label: as many positives are among them as the exact counts say.
    hidden = judged.hidden_share
    assert hidden is not None
    assert hidden.epsilon is None
    assert "of people who have no label are positives" in hidden.sentence
    write_vertical_card(card, tmp_path / "model")
    assert (tmp_path / "model.html").stat().st_mode & 0o077 == 0
    page = Page((tmp_path / "model.html").read_text(encoding="utf-8"))
    assert page.fetched == []
    assert "What one partner gave to it cannot be told" in page.text
    for line in (*card.assumptions, *card.learns, hidden.sentence):
        assert line in page.text
    assert f"{judged.quality.auc.value:.3f}" in page.text
    flagged = judged.model_copy(update={"without": ("courier",)})
    update = {"label_epsilon": None, "judged": (flagged,), "findings": ((1, "out of bounds"),)}
    write_vertical_card(card.model_copy(update=update), tmp_path / "other")
    text = Page((tmp_path / "other.html").read_text(encoding="utf-8")).text
    for words in ("Labels were not protected", "nothing of courier is in these", "out of bounds"):
        assert words in text


def test_a_partners_card_and_facts_alone_hold_no_figure_on_labels(world: World) -> None:
    card = make_vertical_card(part_of(world, "courier"), clock=lambda: NOW)
    assert (card.judged, card.steps, card.attack) == ((), (), None)
    assert card.rows is not None
    facts = make_vertical_card(part_of(world), facts_alone=True)
    assert (facts.judged, facts.rows, facts.attack, facts.losses) == ((), None, None, ())


def test_the_commands_take_a_part_as_they_take_a_model(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    for words, said in (
        (["card", str(part_of(world)), "--facts"], "label epsilon 2"),
        (["attack", str(part_of(world)), "--canaries", "100"], "not refuted"),
        (["attack", str(part_of(world)), "--unsafe-without", "noise"], "refuted"),
    ):
        with pytest.raises(SystemExit) as caught:
            main(words)
        assert caught.value.code == (1 if "noise" in words else 0)
        assert said in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["card", str(part_of(world)), "--json"])
    assert VerticalCard.model_validate(json.loads(capsys.readouterr().out)).party == "brand"


def test_a_model_has_its_card_after_an_amendment_too(world: World, tmp_path: Path) -> None:
    after = world.copy(tmp_path / "after")
    file = after.folder("brand").model("model")
    before = make_vertical_card(file, facts_alone=True)
    amended(after, tmp_path / "next.json", title="Under another title")
    card = make_vertical_card(file, facts_alone=True)
    assert (card.digest, card.agreement) == (before.digest, before.agreement)
    assert card.title == before.title != "Under another title"
