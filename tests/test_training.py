"""DP-SGD: two engines under one contract, and what each step must do for the promise to hold."""

import math
from collections.abc import Callable
from dataclasses import FrozenInstanceError, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch.nn.functional import binary_cross_entropy_with_logits

from privacy.accounting import SampledGaussianEvent, calibrate_noise_multiplier
from privacy.errors import InvalidParameterError
from privacy.randomness import SecretStream, seeded_secret
from privacy.training import (
    CategoricalFeature,
    DpSgdParameters,
    Encoder,
    GradientEngine,
    LogisticGradient,
    ModuleClipping,
    ModuleGradient,
    NumericFeature,
    RidgeGradient,
    Scale,
    UnsafeNoNoiseWarning,
    fit_without_privacy,
    ranking_quality,
    train,
)

WIDTH = 4
ADULT = Path(__file__).parents[1] / "examples" / "data" / "adult.csv.gz"
USUAL = DpSgdParameters(
    steps=10,
    sampling_probability=0.5,
    clipping_norm=0.5,
    noise_multiplier=2.0,
    learning_rate=1.0,
    expected_rows=20,
)


def logistic_loss(outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return binary_cross_entropy_with_logits(outputs.squeeze(-1), labels, reduction="none")


def squared_loss(outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return 0.5 * (outputs.squeeze(-1) - labels) ** 2


def linear_module(width: int = WIDTH) -> torch.nn.Module:
    return torch.nn.Linear(width, 1, bias=False)


def deep_module() -> torch.nn.Module:
    return torch.nn.Sequential(torch.nn.Linear(WIDTH, 3), torch.nn.Tanh(), torch.nn.Linear(3, 1))


ENGINES: dict[str, Callable[[], GradientEngine]] = {
    "logistic, closed form": lambda: LogisticGradient(WIDTH),
    "ridge, closed form": lambda: RidgeGradient(WIDTH),
    "linear module": lambda: ModuleGradient(linear_module, logistic_loss),
    "deep module": lambda: ModuleGradient(deep_module, logistic_loss),
    "deep module, row by row": lambda: ModuleGradient(
        deep_module, logistic_loss, clipping=ModuleClipping.PER_ROW
    ),
}


def stream(seed: int = 0, label: str = "test") -> SecretStream:
    return SecretStream(seeded_secret(seed, "training"), label)


def made_up(rows: int, seed: int = 0, width: int = WIDTH) -> tuple[NDArray, NDArray]:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(rows, width)), (rng.random(rows) < 0.5).astype(float)


@pytest.mark.parametrize("make", ENGINES.values(), ids=ENGINES)
class TestGradientEngine:
    """What every engine promises, whatever its model."""

    @pytest.fixture
    def engine(self, make: Callable[[], GradientEngine]) -> GradientEngine:
        return make()

    @pytest.fixture
    def weights(self, engine: GradientEngine) -> NDArray:
        return np.random.default_rng(7).normal(size=engine.parameter_count)

    def test_sums_nothing_to_zero(self, engine: GradientEngine, weights: NDArray) -> None:
        total = engine.clipped_gradient_sum(weights, np.zeros((0, WIDTH)), np.zeros(0), 1.0)
        np.testing.assert_array_equal(total, np.zeros(engine.parameter_count))

    @pytest.mark.parametrize("norm", [0.01, 0.5, 100.0])
    def test_sums_what_the_rows_give_alone(
        self, engine: GradientEngine, weights: NDArray, norm: float
    ) -> None:
        features, labels = made_up(1500)
        alone = [
            engine.clipped_gradient_sum(weights, features[i : i + 1], labels[i : i + 1], norm)
            for i in range(0, 1500, 100)
        ]
        some = slice(0, 1500, 100)
        together = engine.clipped_gradient_sum(weights, features[some], labels[some], norm)
        np.testing.assert_allclose(together, np.sum(alone, axis=0), atol=1e-12)
        halves = [
            engine.clipped_gradient_sum(weights, features[half], labels[half], norm)
            for half in (slice(0, 700), slice(700, 1500))
        ]
        whole = engine.clipped_gradient_sum(weights, features, labels, norm)
        np.testing.assert_allclose(whole, np.sum(halves, axis=0), atol=1e-10)

    def test_no_row_weighs_more_than_the_clipping_norm(
        self, engine: GradientEngine, weights: NDArray
    ) -> None:
        for size in (1e-3, 1.0, 1e3, 1e100, 1e200, 1e308):
            for norm in (1e-3, 1.0):
                features, labels = made_up(1)
                total = engine.clipped_gradient_sum(
                    weights, np.clip(features * size, -1e308, 1e308), labels, norm
                )
                assert np.linalg.norm(total) <= norm * (1 + 1e-12)

    def test_a_row_that_cannot_be_computed_spoils_no_other(
        self, engine: GradientEngine, weights: NDArray
    ) -> None:
        features, labels = made_up(3)
        expected = engine.clipped_gradient_sum(weights, features[:2], labels[:2], 1.0)
        features[2] = [1.7e308, -1.7e308, 1.7e308, -1.7e308]
        total = engine.clipped_gradient_sum(weights * 1e3, features[2:], labels[2:], 1.0)
        assert np.linalg.norm(total) <= 1 + 1e-12
        total = engine.clipped_gradient_sum(weights, features, labels, 1.0)
        assert np.linalg.norm(total - expected) <= 1 + 1e-12

    def test_leaves_its_arguments_alone(self, engine: GradientEngine, weights: NDArray) -> None:
        features, labels = made_up(5)
        kept = [array.copy() for array in (weights, features, labels)]
        engine.clipped_gradient_sum(weights, features, labels, 0.1)
        for before, after in zip(kept, (weights, features, labels), strict=True):
            np.testing.assert_array_equal(before, after)

    def test_refuses_shapes_that_do_not_fit(self, engine: GradientEngine, weights: NDArray) -> None:
        features, labels = made_up(5)
        for arguments in (
            (weights[:-1], features, labels),
            (weights, features, labels[:-1]),
            (weights, features[:, 0], labels),
            (weights, features[:, :-1], labels),
        ):
            with pytest.raises(InvalidParameterError, match="expected"):
                engine.clipped_gradient_sum(*arguments, 1.0)


class TestOracles:
    @settings(max_examples=25)
    @given(
        seed=st.integers(0, 2**32),
        rows=st.integers(0, 30),
        width=st.integers(1, 8),
        scale=st.sampled_from([0.01, 1.0, 30.0]),
        norm=st.sampled_from([0.01, 0.5, 10.0]),
        contestants=st.tuples(
            st.sampled_from([(LogisticGradient, logistic_loss), (RidgeGradient, squared_loss)]),
            st.sampled_from(ModuleClipping),
        ),
    )
    def test_the_closed_forms_equal_opacus(
        self,
        seed: int,
        rows: int,
        width: int,
        scale: float,
        norm: float,
        contestants: tuple[tuple[type[LogisticGradient], Callable], ModuleClipping],
    ) -> None:
        features, labels = made_up(rows, seed, width)
        weights = np.random.default_rng(seed + 1).normal(size=width) * scale
        (closed, loss), clipping = contestants
        opacus = ModuleGradient(lambda: linear_module(width), loss, clipping=clipping)
        np.testing.assert_allclose(
            closed(width).clipped_gradient_sum(weights, features, labels, norm),
            opacus.clipped_gradient_sum(weights, features, labels, norm),
            atol=1e-9,
        )

    @pytest.mark.parametrize("clipping", ModuleClipping)
    def test_a_deep_module_equals_plain_torch_row_by_row(self, clipping: ModuleClipping) -> None:
        features, labels = made_up(20)
        module = deep_module().double()
        weights = torch.nn.utils.parameters_to_vector(module.parameters()).detach().numpy().copy()
        expected = np.zeros_like(weights)
        for row, label in zip(torch.tensor(features), torch.tensor(labels), strict=True):
            module.zero_grad()
            logistic_loss(module(row[None]), label[None]).sum().backward()
            gradient = torch.cat([p.grad.ravel() for p in module.parameters()]).numpy()
            expected += gradient * min(1.0, 0.3 / np.linalg.norm(gradient))
        engine = ModuleGradient(deep_module, logistic_loss, clipping=clipping)
        total = engine.clipped_gradient_sum(weights, features, labels, 0.3)
        np.testing.assert_allclose(total, expected, atol=1e-12)

    def test_the_closed_form_follows_the_loss_it_claims(self) -> None:
        features, labels = made_up(50)
        weights, step = np.array([0.3, -1.0, 0.2, 2.0]), 1e-6

        def loss(at: NDArray) -> float:
            return float(np.sum(np.logaddexp(0.0, features @ at) - labels * (features @ at)))

        slopes = [
            (loss(weights + step * axis) - loss(weights - step * axis)) / (2 * step)
            for axis in np.eye(WIDTH)
        ]
        total = LogisticGradient(WIDTH).clipped_gradient_sum(weights, features, labels, 1e9)
        np.testing.assert_allclose(total, slopes, rtol=1e-6, atol=1e-6)


class TestModules:
    @pytest.mark.parametrize(
        "part", [torch.nn.BatchNorm1d(WIDTH), torch.nn.Dropout(0.1), torch.nn.RReLU()], ids=str
    )
    def test_that_mix_rows_or_draw_randomness_are_refused(self, part: torch.nn.Module) -> None:
        with pytest.raises(InvalidParameterError, match="Sequential"):
            ModuleGradient(lambda: torch.nn.Sequential(part, linear_module()), logistic_loss)

    def test_with_nothing_to_train_are_refused(self) -> None:
        with pytest.raises(InvalidParameterError, match="no parameter"):
            ModuleGradient(torch.nn.Tanh, logistic_loss)

    def test_keep_frozen_parameters_out(self) -> None:
        def half_frozen() -> torch.nn.Module:
            torch.manual_seed(0)  # the frozen layer keeps what it starts with
            module = deep_module()
            module[0].requires_grad_(requires_grad=False)
            return module

        engines = [
            ModuleGradient(half_frozen, logistic_loss, clipping=clipping)
            for clipping in ModuleClipping
        ]
        sums = [engine.clipped_gradient_sum(np.ones(4), *made_up(9), 0.2) for engine in engines]
        np.testing.assert_allclose(*sums, atol=1e-12)

    def test_may_leave_a_parameter_unused(self) -> None:
        class Part(torch.nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.used, self.idle = linear_module(), linear_module()

            def forward(self, rows: torch.Tensor) -> torch.Tensor:
                return self.used(rows)

        for clipping in ModuleClipping:
            engine = ModuleGradient(Part, logistic_loss, clipping=clipping)
            total = engine.clipped_gradient_sum(np.ones(2 * WIDTH), *made_up(9), 0.2)
            assert (total[:WIDTH] != 0.0).all()
            assert (total[WIDTH:] == 0.0).all()

    def test_that_share_parameters_between_layers_are_clipped_row_by_row_only(self) -> None:
        def tied() -> torch.nn.Module:
            square = torch.nn.Linear(WIDTH, WIDTH, bias=False)
            return torch.nn.Sequential(square, torch.nn.Tanh(), square, linear_module())

        weights, rows = np.full(WIDTH * WIDTH + WIDTH, 0.1), made_up(9)
        with pytest.raises(InvalidParameterError, match="PER_ROW"):
            ModuleGradient(tied, logistic_loss).clipped_gradient_sum(weights, *rows, 0.2)
        engine = ModuleGradient(tied, logistic_loss, clipping=ModuleClipping.PER_ROW)
        assert np.linalg.norm(engine.clipped_gradient_sum(weights, *rows, 0.2)) > 0.0

    @pytest.mark.parametrize("clipping", ModuleClipping)
    def test_draw_no_randomness_from_torch(self, clipping: ModuleClipping) -> None:
        engine = ModuleGradient(deep_module, logistic_loss, clipping=clipping)
        before = torch.random.get_rng_state()
        train(engine, np.zeros(engine.parameter_count), *made_up(20), USUAL, stream())
        assert torch.equal(before, torch.random.get_rng_state())

    @pytest.mark.parametrize("clipping", ModuleClipping)
    def test_a_row_of_infinite_gradient_counts_as_nothing(self, clipping: ModuleClipping) -> None:
        engine = ModuleGradient(
            linear_module, lambda out, y: (out.squeeze(-1) - y) ** 4, clipping=clipping
        )
        features, labels = made_up(3)
        expected = engine.clipped_gradient_sum(np.ones(WIDTH), features[:2], labels[:2], 1.0)
        features[2] = 1e200
        total = engine.clipped_gradient_sum(np.ones(WIDTH), features, labels, 1.0)
        np.testing.assert_allclose(total, expected, atol=1e-12)

    def test_a_loss_that_averages_over_rows_is_refused(self) -> None:
        engine = ModuleGradient(
            linear_module, lambda out, y: binary_cross_entropy_with_logits(out.squeeze(-1), y)
        )
        with pytest.raises(InvalidParameterError, match="one number a row"):
            engine.clipped_gradient_sum(np.zeros(WIDTH), *made_up(3), 1.0)


class TestParameters:
    @pytest.mark.parametrize(
        "change",
        [{"steps": 0}, {"steps": 1_000_001}, {"expected_rows": 0}]
        + [{"sampling_probability": bad} for bad in (0.0, -0.1, 1.1, math.nan)]
        + [
            {name: bad}
            for name in ("clipping_norm", "noise_multiplier", "learning_rate")
            for bad in (0.0, -1.0, math.nan, math.inf)
        ]
        + [{"penalty": bad} for bad in (-0.1, math.nan, math.inf)],
        ids=str,
    )
    def test_out_of_range_are_refused(self, change: dict[str, float]) -> None:
        with pytest.raises(InvalidParameterError, match=next(iter(change))):
            replace(USUAL, **change)

    def test_cannot_be_changed(self) -> None:
        with pytest.raises(FrozenInstanceError):
            USUAL.noise_multiplier = 0.0

    def test_say_what_is_to_be_charged(self) -> None:
        assert USUAL.event == SampledGaussianEvent(
            noise_multiplier=2.0, sampling_probability=0.5, steps=10
        )

    def test_without_noise_warn_and_have_no_privacy_to_state(self) -> None:
        with pytest.warns(UnsafeNoNoiseWarning, match="protects nobody"):
            silent = noiseless()
        assert silent.noise_multiplier == 0.0
        with pytest.raises(InvalidParameterError, match="noise_multiplier"):
            _ = silent.event
        with pytest.raises(InvalidParameterError, match="noise_multiplier"):
            replace(silent, steps=2)


def noiseless(
    steps: int = 10,
    sampling_probability: float = 0.5,
    learning_rate: float = 1.0,
    expected_rows: int = 20,
) -> DpSgdParameters:
    return DpSgdParameters.unsafe_without_noise(
        steps=steps,
        sampling_probability=sampling_probability,
        clipping_norm=0.5,
        learning_rate=learning_rate,
        expected_rows=expected_rows,
    )


class CountingEngine:
    """A model of one parameter whose every row has the gradient 1: it counts samples."""

    parameter_count = 1

    def __init__(self) -> None:
        self.samples: list[NDArray] = []

    def clipped_gradient_sum(
        self, parameters: NDArray, features: NDArray, labels: NDArray, clipping_norm: float
    ) -> NDArray:
        self.samples.append(features[:, 0])
        return np.array([float(len(features))])


class TestTrain:
    def run(self, seed: int = 0, parameters: DpSgdParameters = USUAL, rows: int = 30) -> NDArray:
        engine = LogisticGradient(WIDTH)
        return train(engine, np.zeros(WIDTH), *made_up(rows), parameters, stream(seed))

    def test_repeats_itself_given_the_stream_and_only_then(self) -> None:
        np.testing.assert_array_equal(self.run(), self.run())
        assert not np.array_equal(self.run(), self.run(seed=1))

    def test_follows_the_algorithm_written_out(self) -> None:
        features, labels = made_up(30)
        parameters = replace(USUAL, steps=5)
        again = stream()
        engine, weights, iterates = LogisticGradient(WIDTH), np.zeros(WIDTH), []
        for _ in range(5):
            chosen = again.uniform(30) < 0.5
            gradient = engine.clipped_gradient_sum(weights, features[chosen], labels[chosen], 0.5)
            noised = gradient + 2.0 * 0.5 * again.standard_normal(WIDTH)
            weights = weights - 1.0 * noised / (0.5 * 20)
            iterates.append(weights)
        trained = train(engine, np.zeros(WIDTH), features, labels, parameters, stream())
        np.testing.assert_allclose(trained, np.mean(iterates[2:], axis=0), atol=1e-12)

    @pytest.mark.filterwarnings("ignore::privacy.training.UnsafeNoNoiseWarning")
    def test_a_penalty_leads_to_the_ridge_solution(self) -> None:
        features, labels = made_up(200)
        features /= np.linalg.norm(features, axis=1, keepdims=True)
        parameters = DpSgdParameters.unsafe_without_noise(
            steps=300,
            sampling_probability=1.0,
            clipping_norm=100.0,
            learning_rate=1.0,
            expected_rows=200,
            penalty=0.3,
        )
        found = train(RidgeGradient(WIDTH), np.zeros(WIDTH), features, labels, parameters, stream())
        moments = features.T @ features / 200 + 0.3 * np.eye(WIDTH)
        expected = np.linalg.solve(moments, features.T @ labels / 200)
        np.testing.assert_allclose(found, expected, atol=1e-9)

    def test_no_rows_and_empty_samples_still_get_noise(self) -> None:
        nobody = self.run(rows=0)
        assert (nobody != 0.0).all()
        rare = self.run(parameters=replace(USUAL, sampling_probability=1e-9))
        assert (rare != 0.0).all()

    def test_the_noise_has_the_spread_that_was_charged(self) -> None:
        engine, width = LogisticGradient(100_000), 100_000
        parameters = replace(USUAL, steps=1, clipping_norm=3.0, noise_multiplier=7.0)
        nothing = np.zeros((0, width)), np.zeros(0)
        noise = train(engine, np.zeros(width), *nothing, parameters, stream()) * (0.5 * 20)
        assert noise.mean() == pytest.approx(0.0, abs=5 * 21 / math.sqrt(width))
        assert noise.std() == pytest.approx(21.0, rel=0.02)
        assert (np.abs(noise) < 21.0).mean() == pytest.approx(0.6827, abs=0.01)

    @pytest.mark.filterwarnings("ignore::privacy.training.UnsafeNoNoiseWarning")
    def test_each_row_is_sampled_alone_with_the_charged_probability(self) -> None:
        engine, rows, steps = CountingEngine(), 200, 500
        features = np.arange(rows, dtype=float)[:, None]
        parameters = noiseless(steps=steps, sampling_probability=0.2)
        train(engine, np.zeros(1), features, np.zeros(rows), parameters, stream())
        drawn = np.zeros((steps, rows), dtype=bool)
        for step, sample in enumerate(engine.samples):
            assert len(set(sample)) == len(sample)
            drawn[step, sample.astype(int)] = True
        assert drawn.mean() == pytest.approx(0.2, abs=0.007)
        # Poisson sampling: sizes vary as a binomial's do, rows and steps are uncorrelated.
        assert drawn.sum(axis=1).var() == pytest.approx(rows * 0.2 * 0.8, rel=0.3)
        assert drawn.mean(axis=0).var() == pytest.approx(0.2 * 0.8 / steps, rel=0.4)
        assert np.corrcoef(drawn[:-1].ravel(), drawn[1:].ravel())[0, 1] == pytest.approx(
            0, abs=0.02
        )

    @pytest.mark.filterwarnings("ignore::privacy.training.UnsafeNoNoiseWarning")
    def test_divides_by_the_declared_rows_never_by_the_true_number(self) -> None:
        parameters = noiseless(steps=1, sampling_probability=1.0, expected_rows=50)
        for rows in (0, 1, 100):
            trained = train(
                CountingEngine(),
                np.zeros(1),
                np.zeros((rows, 1)),
                np.zeros(rows),
                parameters,
                stream(),
            )
            assert trained[0] == pytest.approx(-rows / 50)

    @pytest.mark.filterwarnings("ignore::privacy.training.UnsafeNoNoiseWarning")
    @pytest.mark.parametrize(
        ("steps", "averaged"), [(1, [1]), (2, [2]), (3, [2, 3]), (6, [4, 5, 6])]
    )
    def test_returns_the_average_of_the_last_half(self, steps: int, averaged: list[int]) -> None:
        parameters = noiseless(steps=steps, sampling_probability=1.0, expected_rows=1)
        trained = train(
            CountingEngine(), np.zeros(1), np.zeros((1, 1)), np.zeros(1), parameters, stream()
        )
        assert trained[0] == pytest.approx(-np.mean(averaged))

    def test_starts_where_it_is_told(self) -> None:
        start = np.array([1e6])
        trained = train(CountingEngine(), start, np.zeros((1, 1)), np.zeros(1), USUAL, stream())
        assert trained[0] == pytest.approx(1e6, rel=1e-3)
        assert start[0] == 1e6

    def test_tells_of_each_step(self) -> None:
        told: list[tuple[int, int]] = []
        train(
            LogisticGradient(WIDTH),
            np.zeros(WIDTH),
            *made_up(3),
            replace(USUAL, steps=3),
            stream(),
            on_step=lambda done, steps: told.append((done, steps)),
        )
        assert told == [(1, 3), (2, 3), (3, 3)]

    @pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
    @pytest.mark.parametrize("where", ["initial", "features", "labels"])
    def test_refuses_what_is_not_finite_by_count_alone(self, where: str, bad: float) -> None:
        features, labels = made_up(5)
        arrays = {"initial": np.zeros(WIDTH), "features": features, "labels": labels}
        arrays[where][1] = bad
        with pytest.raises(InvalidParameterError, match=f"{where} must be finite, got 1 row"):
            train(LogisticGradient(WIDTH), *arrays.values(), USUAL, stream())

    def test_refuses_shapes_that_do_not_fit(self) -> None:
        features, labels = made_up(5)
        for arguments in (
            (np.zeros(WIDTH + 1), features, labels),
            (np.zeros(WIDTH), features, labels[1:]),
            (np.zeros(WIDTH), features[:, 1:], labels),
        ):
            with pytest.raises(InvalidParameterError, match="expected"):
                train(LogisticGradient(WIDTH), *arguments, USUAL, stream())

    def test_a_canary_cannot_be_told_apart_better_than_was_charged(self) -> None:
        """One step, one row that points all its weight along one axis: the worst case.

        An attacker who thresholds the released parameter at any point must obey
        true positives ≤ e^ε · false positives + δ (Kairouz et al. 2015).
        """
        from privacy.accounting import epsilon_of

        parameters = replace(USUAL, steps=1, sampling_probability=1.0, noise_multiplier=1.0)
        canary = np.array([[100.0]]), np.array([0.0])
        nobody = np.zeros((0, 1)), np.zeros(0)
        runs, delta = 4000, 0.01
        with_canary, without = (
            -np.array(
                [
                    train(LogisticGradient(1), np.zeros(1), *rows, parameters, stream(i, label))[0]
                    for i in range(runs)
                ]
            )
            for label, rows in (("with", canary), ("without", nobody))
        )
        epsilon = epsilon_of([parameters.event], delta)
        slack = 4 * math.sqrt(0.25 / runs) * (1 + math.exp(epsilon)) / 2
        for threshold in np.quantile(with_canary, np.linspace(0.05, 0.95, 19)):
            caught = (with_canary > threshold).mean()
            assert caught <= math.exp(epsilon) * (without > threshold).mean() + delta + slack
        # The attack is not idle: the canary moves the parameter by exactly its clipped weight.
        moved = (with_canary.mean() - without.mean()) * 20
        assert moved == pytest.approx(0.5, abs=5 * 0.5 * math.sqrt(2 / runs))


def test_adult_is_ranked_almost_as_well_as_without_privacy() -> None:
    """Two parties, half the people each, 30 % of the positives known, ε = 2, averaged once."""
    import pandas as pd

    table = pd.read_csv(ADULT)
    numeric = {
        "age": (17, 90, Scale.LINEAR),
        "education-num": (1, 16, Scale.LINEAR),
        "capital-gain": (0, 99_999, Scale.LOG),
        "capital-loss": (0, 4356, Scale.LOG),
        "hours-per-week": (1, 99, Scale.LINEAR),
    }
    words = ("workclass", "marital-status", "occupation", "relationship", "race", "sex")
    encoder = Encoder(
        [NumericFeature(name, *bounds) for name, bounds in numeric.items()]
        + [CategoricalFeature(name, tuple(sorted(table[name].dropna().unique()))) for name in words]
    )
    features = encoder.encode({name: table[name].to_numpy() for name in (*numeric, *words)})
    truth = (table["class"] == ">50K").to_numpy()
    rng = np.random.default_rng(0)
    seeds = (truth & (rng.random(len(truth)) < 0.3)).astype(float)
    party = rng.random(len(truth)) < 0.5
    parameters = DpSgdParameters(
        steps=300,
        sampling_probability=0.2,
        clipping_norm=1.0,
        noise_multiplier=calibrate_noise_multiplier(
            epsilon=2.0, delta=1e-6, sampling_probability=0.2, steps=300, compositions=2
        ),
        learning_rate=20.0,
        expected_rows=24_000,
    )
    halves = [
        train(
            LogisticGradient(encoder.width),
            np.zeros(encoder.width),
            features[rows],
            seeds[rows],
            parameters,
            stream(label=name),
        )
        for name, rows in (("one", party), ("other", ~party))
    ]
    private = ranking_quality(features @ np.mean(halves, axis=0), truth)
    open_ = ranking_quality(features @ fit_without_privacy(features, seeds), truth)
    assert private.auc > 0.885
    assert private.lift_at_5 > 3.5
    assert open_.auc - 0.01 < private.auc < open_.auc + 0.005
