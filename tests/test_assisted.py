"""Training over parties' columns, without any party: learners, label noise, sums, and attacks."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from privacy.accounting.accountant import epsilon_of
from privacy.accounting.events import (
    DiscreteLaplaceEvent,
    GaussianEvent,
    RandomisedResponseEvent,
    from_json,
    to_json,
)
from privacy.errors import InvalidParameterError, PeerMessageError
from privacy.randomness import SecretStream, seeded_secret
from privacy.secagg.repeated import RepeatedSum
from privacy.training.assisted import Assisted, AssistedPlan, Finding, LabelledRows
from privacy.training.label_noise import flip_probability, label_charge, randomise_labels
from privacy.training.learners import (
    FITTED_BOUND,
    Learner,
    Part,
    RidgePart,
    TreesPart,
    gradients,
    new_part,
    part_from_json,
)

PEOPLE = 1_500
SPLIT = (slice(0, 3), slice(3, 6), slice(6, 9))


def draw(label: str) -> SecretStream:
    return SecretStream(seeded_secret(31, label), "test")


ROWS = draw("rows").standard_normal(9 * PEOPLE).reshape(PEOPLE, 9)
ROWS[:, 4] += 0.6 * ROWS[:, 1]  # what two parties know overlaps
LOGITS = ROWS @ np.array([1.0, -0.5, 0.0, 1.5, 0.8, 0.0, -1.0, 0.0, 0.6]) - 0.5
LABELS = draw("labels").uniform(PEOPLE) < 1.0 / (1.0 + np.exp(-LOGITS))
EVERYBODY = np.ones(PEOPLE, dtype=bool)


def brands_rows(labels: np.ndarray = LABELS, known: np.ndarray = EVERYBODY) -> LabelledRows:
    return LabelledRows(ROWS[:, SPLIT[0]], labels, known)


def train(
    learner: Learner,
    labels: np.ndarray = LABELS,
    *,
    flip: float = 0.0,
    rounds: int = 6,
    garbage: bool = False,
) -> tuple[Assisted, list[Part]]:
    plan = AssistedPlan(partners=2, learner=learner, rounds=rounds, flip=flip)
    rows = brands_rows(labels)
    brand, parts = Assisted.start(plan, rows), [new_part(learner) for _ in SPLIT[1:]]
    noise = draw("garbage")
    while not brand.finished:
        said = brand.residuals(rows).astype(np.float64)
        offers = [
            part.propose(ROWS[:, held], said, flip)
            for part, held in zip(parts, SPLIT[1:], strict=True)
        ]
        total = np.sum([offer.fitted for offer in offers], axis=0)
        if garbage:
            total = 1e6 * noise.standard_normal(PEOPLE)
        brand = brand.hear(rows, total, np.sum([offer.penalties for offer in offers], axis=0))
        parts = [offer.part.settle(brand.steps[-1]) for offer in offers]
    return brand, [part.keep(brand.kept_rounds) for part in parts]


# --- what it reaches -----------------------------------------------------------------------------


def test_ridges_together_come_to_the_joint_logistic_regression() -> None:
    brand, parts = train(Learner.RIDGE)
    joint = LogisticRegression(C=1e3).fit(ROWS, LABELS).decision_function(ROWS)
    own = brand.intercept + brand.own.score(ROWS[:, SPLIT[0]])
    partners = sum(part.score(ROWS[:, held]) for part, held in zip(parts, SPLIT[1:], strict=True))
    assert np.corrcoef(own + partners, joint)[0, 1] > 0.999
    np.testing.assert_allclose(partners, brand.partners, atol=1e-9)
    assert list(brand.losses) == sorted(brand.losses, reverse=True)
    assert brand.findings == ()


def test_trees_learn_more_from_partners_than_the_brand_knows() -> None:
    brand, parts = train(Learner.TREES)
    alone = Assisted.start(brand.plan, brands_rows())
    assert brand.losses[brand.kept_rounds] < alone.losses[0] - 0.1
    assert all(
        isinstance(part, TreesPart) and len(part.stages) == brand.kept_rounds for part in parts
    )


def test_the_same_inputs_give_the_same_parts() -> None:
    for learner in Learner:
        assert train(learner, rounds=2)[1] == train(learner, rounds=2)[1]


def test_known_noise_on_labels_is_taken_out_of_the_model() -> None:
    flip = flip_probability(1.0)
    brand, _ = train(Learner.RIDGE, randomise_labels(LABELS, 1.0, draw("noise")), flip=flip)
    logits = brand.logits(brands_rows())
    assert np.mean(1 / (1 + np.exp(-logits))) == pytest.approx(LABELS.mean(), abs=0.05)
    assert roc_auc_score(LABELS, logits) > roc_auc_score(LABELS, LOGITS) - 0.02


@given(st.floats(-6, 6), st.booleans(), st.floats(0, 0.45))
def test_gradients_are_those_of_the_likelihood_of_what_is_seen(
    logit: float, label: bool, flip: float
) -> None:
    def seen(at: float) -> float:
        return flip + (1 - 2 * flip) / (1 + math.exp(-at))

    def loss(at: float) -> float:
        return -math.log(seen(at) if label else 1 - seen(at))

    residual = np.array([label - seen(logit)])
    (g,), (h,) = gradients(residual, flip)
    slope = (loss(logit + 1e-5) - loss(logit - 1e-5)) / 2e-5
    assert g == pytest.approx(-slope, rel=1e-3, abs=1e-5)
    q, v = seen(logit), (seen(logit) - flip) / (1 - 2 * flip)
    v *= 1 - v
    assert h == pytest.approx(((1 - 2 * flip) * v) ** 2 / (q * (1 - q)), rel=1e-6)


# --- labels and what they cost -------------------------------------------------------------------


@given(st.floats(1e-3, 10))
def test_noised_labels_cost_no_more_than_was_asked(epsilon: float) -> None:
    event = label_charge(epsilon)
    assert event.pure_loss <= epsilon * (1 + 1e-9)
    assert (event.flip_probability * 2**52).is_integer()


@pytest.mark.parametrize("epsilon", [0.5, 2.0, 8.0])
def test_the_ledger_charges_the_price_of_randomised_response(epsilon: float) -> None:
    event = label_charge(epsilon)
    assert epsilon_of([event], 1e-9) == pytest.approx(epsilon, abs=2e-4)
    assert epsilon_of([event], 1e-9) >= event.pure_loss - 1e-8  # what a δ of 1e-9 buys
    assert from_json(to_json(event)) == event
    for other in (DiscreteLaplaceEvent(scale=2.0), GaussianEvent(noise_multiplier=5.0)):
        apart = epsilon_of([event], 1e-9) + epsilon_of([other], 1e-6)
        assert epsilon <= epsilon_of([event, other], 1e-6) + 1e-3 <= apart + 2e-3


def test_many_noised_labels_of_one_person_are_priced_by_their_pure_loss_at_most() -> None:
    events = [label_charge(10.0)] * 5
    assert epsilon_of(events, 1e-6) <= 50 * (1 + 1e-9)


@pytest.mark.parametrize("flip", [0.5, 0.0, math.nan, -0.1])
def test_no_event_is_free_or_endless(flip: float) -> None:
    with pytest.raises(InvalidParameterError):
        RandomisedResponseEvent(flip_probability=flip)


@pytest.mark.parametrize("epsilon", [0.0, -1.0, 11.0, math.nan])
def test_an_epsilon_out_of_range_is_refused(epsilon: float) -> None:
    with pytest.raises(InvalidParameterError, match="epsilon of labels"):
        flip_probability(epsilon)


def recovered(residuals: np.ndarray) -> np.ndarray:
    """What a partner takes the labels for: the sign of a residual tells."""
    return residuals > 0


def test_without_noise_a_partner_reads_every_label_off_the_residuals() -> None:
    brand, _ = train(Learner.RIDGE, rounds=1)
    assert roc_auc_score(LABELS, recovered(brand.residuals(brands_rows()))) == 1.0


@pytest.mark.parametrize("epsilon", [0.5, 2.0])
def test_with_noise_a_partner_is_right_no_more_often_than_promised(epsilon: float) -> None:
    """Given the model's probability, no guess from a residual beats the bound of (ε, 0)."""
    labels = draw("many labels").bernoulli(0.5, 40_000)
    seen = randomise_labels(labels, epsilon, draw(f"flips {epsilon}"))
    said = seen - 0.5  # residuals of a model that knows nothing: all that is learnt is the label
    right = np.mean(recovered(said) == labels)
    bound = math.exp(epsilon) / (1 + math.exp(epsilon))
    assert right == pytest.approx(bound, abs=4 * 0.5 / math.sqrt(len(labels)))


# --- bad input -----------------------------------------------------------------------------------


def test_a_sum_of_garbage_is_cut_flagged_and_hardly_followed() -> None:
    brand, _ = train(Learner.RIDGE, garbage=True, rounds=4)
    alone = Assisted.start(brand.plan, brands_rows())
    assert {what for _, what in brand.findings} >= {Finding.OUT_OF_BOUNDS}
    assert brand.losses[-1] <= alone.losses[0] + 0.01
    apart = np.abs(brand.partners)
    assert apart.max() <= sum(brand.steps) * 2 * FITTED_BOUND + 1e-9
    assert max(brand.steps) < 0.05


def test_a_sum_that_points_the_wrong_way_is_not_followed() -> None:
    plan, rows = AssistedPlan(partners=2, learner=Learner.RIDGE), brands_rows()
    brand = Assisted.start(plan, rows)
    heard = brand.hear(rows, -np.clip(LOGITS, -8, 8), np.zeros(2))
    assert heard.findings == ((1, Finding.NO_GAIN),)
    assert heard.steps == (0.0,)
    assert heard.losses[1] == pytest.approx(brand.losses[0], abs=1e-3)


@pytest.mark.parametrize(
    ("total", "penalties"),
    [
        (np.zeros(PEOPLE - 1), np.zeros(2)),
        (np.full(PEOPLE, math.nan), np.zeros(2)),
        (np.zeros(PEOPLE), np.array([math.inf, 0.0])),
        (np.zeros(PEOPLE), np.zeros(3)),
    ],
    ids=["too few people", "NaN", "an infinite penalty", "too many penalties"],
)
def test_a_sum_that_is_none_is_refused(total: np.ndarray, penalties: np.ndarray) -> None:
    rows = brands_rows()
    brand = Assisted.start(AssistedPlan(partners=2, learner=Learner.RIDGE), rows)
    with pytest.raises(InvalidParameterError):
        brand.hear(rows, total, penalties)


def test_labels_of_one_class_are_refused() -> None:
    with pytest.raises(InvalidParameterError, match="all labels are of one class"):
        brands_rows(np.zeros(PEOPLE, dtype=bool))


def test_after_its_end_a_training_takes_nothing() -> None:
    brand, _ = train(Learner.RIDGE, rounds=1)
    with pytest.raises(InvalidParameterError, match="has ended"):
        brand.hear(brands_rows(), np.zeros(PEOPLE), np.zeros(2))


@pytest.mark.parametrize("learner", list(Learner))
def test_whoever_has_no_residual_has_no_influence(learner: Learner) -> None:
    said = np.where(LABELS, 0.7, -0.3)
    said[:300] = 0.0
    other = ROWS[:, SPLIT[1]].copy()
    other[:300] = other[:300][::-1]  # the same mean of the columns
    one, two = (new_part(learner).propose(rows, said, 0.0) for rows in (ROWS[:, SPLIT[1]], other))
    np.testing.assert_allclose(one.fitted[300:], two.fitted[300:], atol=1e-8)


@pytest.mark.parametrize("learner", list(Learner))
def test_columns_that_never_vary_add_nothing(learner: Learner) -> None:
    said = np.where(LABELS, 0.7, -0.3)
    offer = new_part(learner).propose(np.ones((PEOPLE, 3)), said, 0.0)
    assert np.ptp(offer.fitted) < 1e-9
    assert np.isfinite(offer.part.settle(1.0).score(np.zeros((4, 3)))).all()


def test_columns_that_tell_nothing_are_hardly_used() -> None:
    said = np.where(LABELS, 1 - LABELS.mean(), -LABELS.mean())
    noise = draw("columns").standard_normal(40 * PEOPLE).reshape(PEOPLE, 40)
    assert np.abs(RidgePart().propose(noise, said, 0.0).fitted).mean() < 0.12
    assert np.abs(RidgePart().propose(ROWS[:, SPLIT[1]], said, 0.0).fitted).mean() > 0.5


@pytest.mark.parametrize("learner", list(Learner))
@pytest.mark.parametrize(
    ("rows", "residuals"),
    [
        (ROWS[:, :3], np.full(PEOPLE - 1, 0.5)),
        (ROWS[:, :3], np.full(PEOPLE, 1.0)),
        (ROWS[:, :3], np.full(PEOPLE, math.nan)),
        (np.full((PEOPLE, 3), math.nan), np.full(PEOPLE, 0.5)),
    ],
    ids=["too few", "out of range", "NaN", "rows that are not finite"],
)
def test_residuals_that_are_none_are_refused(
    learner: Learner, rows: np.ndarray, residuals: np.ndarray
) -> None:
    with pytest.raises(InvalidParameterError):
        new_part(learner).propose(rows, residuals, 0.0)


@pytest.mark.parametrize("learner", list(Learner))
def test_parts_are_stored_whole_and_refuse_other_columns(learner: Learner) -> None:
    part = new_part(learner).propose(ROWS[:, :3], np.where(LABELS, 0.5, -0.5), 0.1).part
    assert part_from_json(part.to_json()) == part
    settled = part.settle(0.5)
    with pytest.raises(InvalidParameterError, match="columns changed"):
        settled.score(ROWS[:, :4])
    with pytest.raises(InvalidParameterError, match="nothing was proposed"):
        settled.settle(0.5)
    for damaged in (b"", b"{}", part.to_json()[:-3]):
        with pytest.raises(InvalidParameterError, match="expected a party's part"):
            part_from_json(damaged)


# --- sums under one set of keys ------------------------------------------------------------------

NAMES = ("courier", "press", "retailer")
SUMS = RepeatedSum("a" * 64, NAMES)
SECRETS = {name: seeded_secret(3, name) for name in NAMES}
KEYS = {name: SUMS.key(secret) for name, secret in SECRETS.items()}


def masked(name: str, vector: np.ndarray, about: str = "round 1") -> np.ndarray:
    return SUMS.mask(name, SECRETS[name], KEYS, vector, about)


@settings(max_examples=10)
@given(st.lists(st.integers(0, 2**32 - 1), min_size=3, max_size=3), st.sampled_from("ab"))
def test_masks_cancel_in_the_sum_and_nowhere_else(values: list[int], about: str) -> None:
    vectors = [np.full(5, value, dtype=np.uint32) for value in values]
    hidden = [masked(name, one, about) for name, one in zip(NAMES, vectors, strict=True)]
    total = np.sum(hidden, axis=0, dtype=np.uint32)
    assert (total == np.sum(vectors, axis=0, dtype=np.uint32)).all()
    for left_out in range(3):
        part = np.sum(np.delete(hidden, left_out, axis=0), axis=0, dtype=np.uint32)
        assert len(set((part - np.sum(np.delete(vectors, left_out, axis=0), axis=0)).tolist())) > 1


def test_two_rounds_have_other_masks_and_other_questions_leave_no_sum() -> None:
    nothing = np.zeros(4, dtype=np.uint32)
    assert (masked("courier", nothing, "round 1") != masked("courier", nothing, "round 2")).all()
    told = [masked(name, nothing, f"round 1 {'x' if name == 'press' else 'y'}") for name in NAMES]
    assert np.sum(told, axis=0, dtype=np.uint32).any()


def test_keys_that_are_not_one_of_each_party_are_refused() -> None:
    nothing = np.zeros(4, dtype=np.uint32)
    wrong = {
        "one is missing": {name: KEYS[name] for name in NAMES[:2]},
        "two are alike": KEYS | {"press": KEYS["retailer"]},
        "its own is another's": KEYS | {"courier": SUMS.key(seeded_secret(9, "other"))},
        "one is short": KEYS | {"press": b"short"},
        "one is weak": KEYS | {"press": bytes(32)},
    }
    for keys in wrong.values():
        with pytest.raises(PeerMessageError):
            SUMS.mask("courier", SECRETS["courier"], keys, nothing, "round 1")
    for parties in (("courier",), ("courier", "courier")):
        with pytest.raises(InvalidParameterError, match="two parties or more"):
            RepeatedSum("a" * 64, parties)
