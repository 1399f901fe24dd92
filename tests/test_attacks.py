"""The audit of our own trainings: what guesses prove, and that a broken training is found out."""

import math
import warnings
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import binom, norm

from privacy.accounting import Budget, calibrate_noise_multiplier
from privacy.attacks import (
    Claim,
    Flaw,
    Guesses,
    Rates,
    Shadows,
    WatchedDpSgd,
    WatchedExactSums,
    WatchedSums,
    WatchedTraining,
    attack_by_canaries,
    attack_by_shadows,
    epsilon_lower_bound,
    epsilon_of_rates,
    guess,
    p_value,
)
from privacy.errors import InvalidParameterError
from privacy.randomness import SecretStream, seeded_secret
from privacy.training import (
    DistributedPlan,
    DpSgdParameters,
    LogisticGradient,
    UnsafeExactSumsWarning,
    UnsafeNoNoiseWarning,
    plan_distributed,
    train,
)

DELTA = 1e-5


@pytest.fixture(autouse=True)
def made_up_rows() -> object:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnsafeNoNoiseWarning)
        warnings.simplefilter("ignore", UnsafeExactSumsWarning)
        yield


class TestGuesses:
    @pytest.mark.parametrize("epsilon", [0.2, 1.0, 3.0])
    def test_randomised_response_is_seldom_refuted_and_often_nearly(self, epsilon: float) -> None:
        """Each answer is right with e^ε / (1 + e^ε): the worst that is ε-private, exactly."""
        coins, heads = 1000, binom(1000, 1 / (1 + math.exp(-epsilon)))
        bounds = [epsilon_lower_bound(Guesses(coins, coins, v), 0.0, 0.95) for v in range(1001)]
        refuted = heads.pmf(np.flatnonzero(np.array(bounds) > epsilon)).sum()
        assert 0.03 < refuted <= 0.05
        assert bounds[int(heads.median())] > 0.75 * epsilon - 0.1

    def test_what_leaks_with_probability_delta_is_paid_by_delta(self) -> None:
        """A mechanism that gives each coin away with probability δ, and else says nothing."""
        coins, delta = 200, 0.02
        right = binom(coins, delta + (1 - delta) / 2)
        bounds = [epsilon_lower_bound(Guesses(coins, coins, v), delta, 0.95) for v in range(201)]
        assert right.pmf(np.flatnonzero(np.array(bounds) > 0.0)).sum() <= 0.05
        unpaid = [epsilon_lower_bound(Guesses(coins, coins, v), 0.0, 0.95) for v in range(201)]
        assert right.pmf(np.flatnonzero(np.array(unpaid) > 0.0)).sum() > 0.05

    @settings(max_examples=20)
    @given(st.integers(1, 500), st.sampled_from([0.9, 0.95, 0.99]))
    def test_flawless_guesses_have_a_closed_form(self, made: int, confidence: float) -> None:
        accuracy = (1 - confidence) ** (1 / made)  # q^r = 1 - confidence
        expected = max(0.0, math.log(accuracy / (1 - accuracy)))
        found = epsilon_lower_bound(Guesses(1000, made, made), 0.0, confidence)
        assert found == pytest.approx(expected, abs=1e-9)
        assert found <= expected + 1e-9

    @settings(max_examples=20)
    @given(st.data())
    def test_the_p_value_is_that_of_the_papers_own_program(self, data: st.DataObject) -> None:
        coins = data.draw(st.integers(1, 300))
        made = data.draw(st.integers(0, coins))
        correct = data.draw(st.integers(0, made))
        epsilon, delta = data.draw(st.floats(0, 5)), data.draw(st.sampled_from([0.0, 1e-5, 1e-2]))
        q = 1 / (1 + math.exp(-epsilon))
        alpha = total = 0.0
        for i in range(1, correct + 1):  # appendix D, line by line
            total += binom.pmf(correct - i, made, q)
            alpha = max(alpha, total / i)
        expected = min(1.0, binom.sf(correct - 1, made, q) + alpha * delta * 2 * coins)
        assert p_value(Guesses(coins, made, correct), epsilon, delta) == pytest.approx(expected)

    @settings(max_examples=20)
    @given(st.integers(1, 400), st.sampled_from([0.0, 1e-5, 1e-3]), st.data())
    def test_more_right_guesses_never_prove_less_and_a_larger_delta_never_more(
        self, made: int, delta: float, data: st.DataObject
    ) -> None:
        correct = data.draw(st.integers(0, made - 1))
        less, more = (Guesses(500, made, v) for v in (correct, correct + 1))
        bound = epsilon_lower_bound(less, delta, 0.95)
        assert 0.0 <= bound <= epsilon_lower_bound(more, delta, 0.95)
        assert epsilon_lower_bound(less, 10 * delta, 0.95) <= bound
        assert epsilon_lower_bound(less, delta, 0.99) <= bound

    def test_the_highest_are_guessed_in_and_the_lowest_out(self) -> None:
        scores = np.array([0.1, 5.0, -3.0, 0.2, 4.0])
        inside = np.array([True, True, False, False, False])
        assert guess(scores, inside, 2) == Guesses(5, 2, 2)
        assert guess(scores, inside, 3) == Guesses(5, 3, 2)
        assert guess(scores, inside, 5) == Guesses(5, 5, 2)

    @pytest.mark.parametrize("numbers", [(1, 2, 0), (2, 1, 2), (0, 0, 0), (5, 3, -1)], ids=str)
    def test_impossible_counts_are_refused(self, numbers: tuple[int, int, int]) -> None:
        with pytest.raises(InvalidParameterError):
            Guesses(*numbers)

    @pytest.mark.parametrize("made", [0, 4])
    def test_as_many_guesses_as_there_are_coins(self, made: int) -> None:
        with pytest.raises(InvalidParameterError, match="1 to 3 guesses"):
            guess(np.zeros(3), np.zeros(3, dtype=bool), made)

    def test_scores_that_cannot_be_ordered_are_refused(self) -> None:
        for scores in (np.array([0.0, np.nan]), np.zeros(3), np.zeros((2, 1))):
            with pytest.raises(InvalidParameterError, match="one score a coin"):
                guess(scores, np.zeros(2, dtype=bool), 1)

    @pytest.mark.parametrize(
        ("epsilon", "delta"), [(-1.0, 0.0), (math.inf, 0.0), (math.nan, 0.0), (1, -0.1), (1, 2)]
    )
    def test_claims_out_of_range_are_refused(self, epsilon: float, delta: float) -> None:
        with pytest.raises(InvalidParameterError):
            p_value(Guesses(1, 1, 1), epsilon, delta)

    @pytest.mark.parametrize("confidence", [0.0, 1.0, math.nan])
    def test_certainty_is_not_to_be_had(self, confidence: float) -> None:
        with pytest.raises(InvalidParameterError, match="confidence"):
            epsilon_lower_bound(Guesses(1, 1, 1), 0.0, confidence)
        with pytest.raises(InvalidParameterError, match="confidence"):
            Claim(1.0, 0.0, confidence)


class TestRates:
    @pytest.mark.parametrize("epsilon", [0.2, 1.0, 2.0])
    def test_randomised_response_is_seldom_refuted(self, epsilon: float) -> None:
        trials, q = 30, 1 / (1 + math.exp(-epsilon))
        found = binom.pmf(np.arange(trials + 1), trials, q)
        refuted = sum(
            found[true] * found[trials - false]
            for true in range(trials + 1)
            for false in range(trials + 1)
            if epsilon_of_rates(Rates(trials, true, trials, false), 0.0, 0.95) > epsilon
        )
        assert refuted > 0.0
        assert refuted <= 0.05

    def test_flawless_rates_have_a_closed_form(self) -> None:
        rates = Rates(20, 17, 30, 4).flawless
        assert rates == Rates(20, 20, 30, 0)
        found, missed = 0.025 ** (1 / 20), 1 - 0.025 ** (1 / 30)
        assert epsilon_of_rates(rates, 0.0, 0.95) == pytest.approx(
            max(math.log(found / missed), math.log((1 - missed) / (1 - found)))
        )
        assert epsilon_of_rates(rates, 0.01, 0.95) < epsilon_of_rates(rates, 0.0, 0.95)

    @pytest.mark.parametrize("rates", [Rates(0, 0, 0, 0), Rates(9, 0, 9, 0), Rates(9, 9, 9, 9)])
    def test_who_always_says_the_same_proves_nothing(self, rates: Rates) -> None:
        assert epsilon_of_rates(rates, 0.0, 0.95) == 0.0

    def test_impossible_counts_are_refused(self) -> None:
        for counts in ((1, 2, 3, 0), (1, 0, 3, 4), (1, -1, 1, 0)):
            with pytest.raises(InvalidParameterError):
                Rates(*counts)
        with pytest.raises(InvalidParameterError, match="delta"):
            epsilon_of_rates(Rates(1, 1, 1, 0), 1.5, 0.95)


class TestShadows:
    def scores(self, seed: int, apart: float) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """60 models, 8 rows; the third row moves its score by `apart` deviations."""
        stream = SecretStream(seeded_secret(seed, "shadows"), "scores")
        inside = stream.bernoulli(0.5, 480).reshape(60, 8)
        scores = stream.standard_normal(480).reshape(60, 8) * 0.1 + np.arange(8)
        scores[:, 2] += 0.1 * apart * inside[:, 2]
        return scores, inside

    def test_the_most_exposed_row_is_found_and_attacked(self) -> None:
        shadows = Shadows(*self.scores(1, apart=8))
        assert shadows.most_exposed == 2
        rates = shadows.attack(*self.scores(2, apart=8))
        assert rates == rates.flawless
        assert epsilon_of_rates(rates, DELTA, 0.95) > 2.0
        unmoved = shadows.attack(*self.scores(3, apart=0))
        assert epsilon_of_rates(unmoved, DELTA, 0.95) == 0.0

    def test_ratios_are_those_of_two_gaussians_of_one_spread(self) -> None:
        scores, inside = self.scores(4, apart=3)
        row, there = scores[:, 2], inside[:, 2]
        means = row[there].mean(), row[~there].mean()
        squares = ((row - np.where(there, *means)) ** 2).sum()
        spread = math.sqrt(squares / 58)
        expected = norm.logpdf(row, means[0], spread) - norm.logpdf(row, means[1], spread)
        np.testing.assert_allclose(Shadows(scores, inside).log_ratios(scores)[:, 2], expected)

    def test_nothing_is_claimed_of_a_row_that_was_always_in(self) -> None:
        scores, inside = self.scores(5, apart=1)
        inside[:, 4] = True
        assert not Shadows(scores, inside).log_ratios(scores)[:, 4].any()

    def test_what_is_no_table_of_scores_is_refused(self) -> None:
        scores, inside = self.scores(6, apart=1)
        for broken in (scores[:, 0], scores[:10], np.full_like(scores, np.inf)):
            with pytest.raises(InvalidParameterError, match="finite scores"):
                Shadows(broken, inside)
        with pytest.raises(InvalidParameterError, match="4 shadow models"):
            Shadows(scores[:3], inside[:3])


def rows(count: int = 300) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    stream = SecretStream(seeded_secret(1, "rows"), "rows")
    features = stream.uniform(4 * count).reshape(count, 4) - 0.5
    features[:, 3] = 0.5
    return features, (features[:, 0] > 0.1).astype(float)


def dp_sgd(epsilon: float, *, tables: int = 1, rounds: int = 1) -> DpSgdParameters:
    return DpSgdParameters(
        steps=40 // rounds,
        sampling_probability=0.3,
        clipping_norm=1.0,
        noise_multiplier=calibrate_noise_multiplier(
            epsilon=epsilon,
            delta=DELTA,
            sampling_probability=0.3,
            steps=40,
            compositions=tables,
        ),
        learning_rate=5.0,
        expected_rows=300,
    )


def shared(epsilon: float, tables: int) -> Callable[[int], DistributedPlan]:
    return lambda width: plan_distributed(
        width=width,
        declared_rows=[300] * 4,
        colluding=1,
        dropouts=1,
        budget=Budget(epsilon=epsilon, delta=DELTA),
        max_parties_per_person=tables,
        rounds=4,
    )


def local(epsilon: float, tables: int, flaw: Flaw | None = None) -> WatchedDpSgd:
    return WatchedDpSgd(dp_sgd(epsilon, tables=tables, rounds=tables), tables, tables, flaw)


class Unclipped(LogisticGradient):
    """A gradient whose author forgot to clip."""

    def clipped_gradient_sum(
        self,
        parameters: NDArray[np.float64],
        features: NDArray[np.float64],
        labels: NDArray[np.float64],
        clipping_norm: float,
    ) -> NDArray[np.float64]:
        return self._residuals(features @ parameters, labels) @ features


def by_canaries(training: WatchedTraining, epsilon: float | None, canaries: int = 1000) -> float:
    found = attack_by_canaries(
        training,
        *rows(),
        seeded_secret(3, "attack"),
        claim=Claim(epsilon, DELTA),
        canaries=canaries,
    )
    assert found.epsilon <= found.most
    return found.epsilon


def by_shadows(training: WatchedTraining, epsilon: float | None) -> float:
    found = attack_by_shadows(
        training, *rows(60), seeded_secret(4, "attack"), claim=Claim(epsilon, DELTA), models=64
    )
    assert found.epsilon <= found.most
    assert 0.0 <= found.auc <= 1.0
    return found.epsilon


class TestAudit:
    @pytest.mark.parametrize("tables", [1, 2])
    @pytest.mark.parametrize("epsilon", [1.0, 4.0])
    def test_local_noise_keeps_its_promise_and_is_not_far_from_it(
        self, epsilon: float, tables: int
    ) -> None:
        found = by_canaries(local(epsilon, tables), epsilon)
        assert 0.05 * epsilon < found <= epsilon

    def test_published_models_tell_less_than_is_promised(self) -> None:
        assert by_shadows(local(1.0, 1), 1.0) <= 1.0

    @pytest.mark.parametrize("tables", [1, 3])
    def test_shared_noise_keeps_its_promise_and_is_not_far_from_it(self, tables: int) -> None:
        found = by_canaries(WatchedSums(shared(4.0, tables)), 4.0, canaries=400)
        assert 0.05 * 4.0 < found <= 4.0

    @pytest.mark.parametrize("flaw", Flaw)
    def test_local_noise_that_is_broken_is_refuted(self, flaw: Flaw) -> None:
        broken = local(1.0, 1, flaw)
        assert by_canaries(broken, 1.0) > 3.0
        assert by_shadows(broken, 1.0) > 1.0

    def test_a_larger_epsilon_is_refuted_by_more_guesses(self) -> None:
        assert by_canaries(local(4.5, 1, Flaw.NOISE), 4.5) > 4.5

    def test_an_engine_that_forgets_to_clip_is_refuted(self) -> None:
        assert by_canaries(WatchedDpSgd(dp_sgd(1.0), engine_for=Unclipped), 1.0) > 3.0

    def test_a_person_in_more_tables_than_was_paid_for_is_refuted(self) -> None:
        assert by_canaries(WatchedDpSgd(dp_sgd(1.0), tables=25), 1.0) > 1.0

    def test_noise_of_a_tenth_is_refuted(self) -> None:
        stated, less = dp_sgd(1.0), dp_sgd(1.0)
        object.__setattr__(less, "noise_multiplier", stated.noise_multiplier / 10)
        assert by_canaries(WatchedDpSgd(less), 1.0) > 1.0

    def test_shared_noise_that_is_missing_is_refuted(self) -> None:
        broken = WatchedSums(shared(1.0, 2), Flaw.NOISE)
        assert by_canaries(broken, 1.0, canaries=300) > 2.0
        assert by_shadows(broken, 1.0) > 1.0

    def test_rows_that_weigh_more_than_their_bound_are_refuted(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from privacy.training import distributed

        sound = distributed.gradient_sum
        monkeypatch.setattr(distributed, "gradient_sum", lambda *given: 60 * sound(*given))
        assert by_canaries(WatchedSums(shared(1.0, 1)), 1.0, canaries=300) > 1.0

    def test_exact_sums_hide_nobody(self) -> None:
        assert by_canaries(WatchedExactSums(), None, canaries=60) > 1.0

    def test_shared_noise_has_no_clipping_to_switch_off(self) -> None:
        with pytest.raises(InvalidParameterError, match="no clipping"):
            WatchedSums(shared(1.0, 1), Flaw.CLIPPING)

    @pytest.mark.parametrize("canaries", [0, -1])
    def test_canaries_are_needed(self, canaries: int) -> None:
        with pytest.raises(InvalidParameterError, match="canary"):
            by_canaries(local(1.0, 1), 1.0, canaries)

    def test_models_and_rows_are_needed(self) -> None:
        secret, claim = seeded_secret(1, "x"), Claim(1.0, DELTA)
        for count, models in ((0, 8), (1, 7)):
            with pytest.raises(InvalidParameterError, match="8 models"):
                attack_by_shadows(local(1.0, 1), *rows(count), secret, claim=claim, models=models)

    def test_every_training_is_told(self) -> None:
        told: list[tuple[int, int]] = []
        attack_by_canaries(
            WatchedSums(shared(1.0, 1)),
            *rows(10),
            seeded_secret(1, "x"),
            claim=Claim(1.0, DELTA),
            canaries=250,
            on_run=lambda *done: told.append(done),
        )
        assert told == [(1, 3), (2, 3), (3, 3)]


class TestWatchedTrainings:
    @pytest.mark.parametrize("steps", [1, 4, 5])
    def test_own_rows_are_trained_as_they_always_are(self, steps: int) -> None:
        features, labels = rows()
        parameters = DpSgdParameters.unsafe_without_noise(
            steps=steps,
            sampling_probability=1.0,
            clipping_norm=0.3,
            learning_rate=2.0,
            expected_rows=300,
            penalty=0.1,
        )
        alone = train(
            LogisticGradient(4),
            np.zeros(4),
            features,
            labels,
            parameters,
            SecretStream(seeded_secret(1, "x"), "train"),
        )
        object.__setattr__(parameters, "noise_multiplier", 1.0)  # stated; broken below
        watched = WatchedDpSgd(parameters, flaw=Flaw.NOISE)
        planted = np.array([True, False, True])
        seen = watched.run(planted, features, labels, SecretStream(seeded_secret(1, "y"), "run"))
        np.testing.assert_allclose(seen.model[3:], alone, rtol=1e-12)
        assert np.array_equal(seen.model[:3] != 0.0, planted)
        # Every step shows exactly 1 of a canary, and 0 where there is none.
        np.testing.assert_allclose(
            seen.canaries, np.where(planted, 0.5, -0.5) * steps, rtol=1e-7, atol=1e-7
        )

    def test_nobody_may_be_there(self) -> None:
        nobody = np.zeros(5, dtype=bool)
        for watched in (local(1.0, 2), WatchedSums(shared(1.0, 2))):
            stream = SecretStream(seeded_secret(1, "x"), "run")
            seen = watched.run(nobody, *rows(0), stream)
            assert seen.canaries.shape == (5,)
            assert seen.model.shape == (9,)
            assert np.isfinite(seen.canaries).all()
