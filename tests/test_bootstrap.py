"""Intervals of a ranking's figures, calibration, and groups: against figures had another way."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from privacy.errors import InvalidParameterError
from privacy.randomness import SecretStream, seeded_secret
from privacy.training import ranking_quality
from privacy.training.bootstrap import (
    CalibrationBin,
    RankingIntervals,
    calibration,
    ranking_intervals,
)
from privacy.training.fairness import GroupFigures, compare_groups

FIGURES = ("auc", "average_precision", "lift_at_5", "lift_at_10")

ranked = st.lists(
    st.tuples(st.sampled_from([0.0, 0.25, 0.5, 1.0]), st.booleans()), min_size=2, max_size=30
).filter(lambda rows: len({label for _, label in rows}) == 2)


def stream(label: str = "x") -> SecretStream:
    return SecretStream(seeded_secret(1, "bootstrap"), label)


def people(count: int, label: str = "people") -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """A score, and labels that follow it: sigmoid(score) is the chance of a positive."""
    drawn = stream(label)
    scores = drawn.standard_normal(count) - 1.0
    return scores, drawn.uniform(count) < 1 / (1 + np.exp(-scores))


class TestIntervals:
    @settings(max_examples=30)
    @given(ranked)
    def test_the_figures_are_those_of_the_ranking(self, rows: list) -> None:
        scores, labels = (np.array(one) for one in zip(*rows, strict=True))
        found, expected = (
            ranking_intervals(scores, labels, stream()),
            ranking_quality(scores, labels),
        )
        for name in FIGURES:
            one = getattr(found, name)
            assert one.value == pytest.approx(getattr(expected, name))
            assert one.low <= one.high

    @settings(max_examples=10)
    @given(ranked, st.randoms())
    def test_equal_scores_have_no_order(self, rows: list, random: object) -> None:
        def found(pairs: list) -> RankingIntervals:
            scores, labels = (np.array(one) for one in zip(*pairs, strict=True))
            return ranking_intervals(scores, labels, stream())

        shuffled = sorted(rows, key=lambda _: random.random())
        for name in FIGURES:
            values = [getattr(found(pairs), name).value for pairs in (rows, shuffled)]
            assert values[0] == pytest.approx(values[1])

    def test_an_interval_is_as_wide_as_figures_of_other_people_differ(self) -> None:
        """Held against many samples of the same population, which nobody has in earnest."""
        others = [
            ranking_intervals(*people(400, str(k)), stream(), replicates=20) for k in range(80)
        ]
        found = ranking_intervals(*people(400), stream(), replicates=400)
        for name in ("auc", "average_precision"):
            spread = np.std([getattr(one, name).value for one in others])
            interval = getattr(found, name)
            assert interval.low < interval.value < interval.high
            assert interval.high - interval.low == pytest.approx(2 * 1.96 * spread, rel=0.3)

    def test_memory_changes_nothing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        whole = ranking_intervals(*people(100), stream())
        monkeypatch.setattr("privacy.training.bootstrap._WEIGHTS_AT_ONCE", 700)
        assert ranking_intervals(*people(100), stream()) == whole

    @pytest.mark.parametrize(
        ("replicates", "level"), [(19, 0.95), (200, 0.0), (200, 1.0), (200, np.nan)]
    )
    def test_what_gives_no_interval_is_refused(self, replicates: int, level: float) -> None:
        with pytest.raises(InvalidParameterError, match="20 replicates"):
            ranking_intervals(*people(10), stream(), replicates=replicates, level=level)

    @pytest.mark.parametrize(
        ("scores", "labels"),
        {
            "one label": ([0.1, 0.2], [True, True]),
            "nobody": ([], []),
            "other lengths": ([0.1, 0.2, 0.3], [True, False]),
            "not finite": ([0.1, np.inf], [True, False]),
            "not a label": ([0.1, 0.2], [1, 0]),
        }.values(),
        ids=str,
    )
    def test_what_cannot_be_judged_is_refused(self, scores: list, labels: list) -> None:
        truth = np.array(labels, dtype=bool) if not labels else np.array(labels)
        with pytest.raises(InvalidParameterError):
            ranking_intervals(np.array(scores), truth, stream())


class TestCalibration:
    def test_true_probabilities_come_true(self) -> None:
        scores, labels = people(20_000)
        bins = calibration(1 / (1 + np.exp(-scores)), labels)
        assert [one.rows for one in bins] == [2000] * 10
        assert [one.predicted for one in bins] == sorted(one.predicted for one in bins)
        for one in bins:
            assert one.observed == pytest.approx(one.predicted, abs=0.04)

    def test_equal_probabilities_share_a_bin(self) -> None:
        labels = np.array([True, False, False, False])
        assert calibration(np.full(4, 0.5), labels) == (CalibrationBin(4, 0.5, 0.25),)
        assert calibration(np.array([0.1, 0.1, 0.9, 0.9]), labels) == (
            CalibrationBin(2, pytest.approx(0.1), 0.5),
            CalibrationBin(2, pytest.approx(0.9), 0.0),
        )

    @settings(max_examples=30)
    @given(ranked, st.integers(1, 12))
    def test_everybody_is_in_one_bin(self, rows: list, bins: int) -> None:
        scores, labels = (np.array(one) for one in zip(*rows, strict=True))
        found = calibration(scores, labels, bins=bins)
        assert 1 <= len(found) <= bins
        assert sum(one.rows for one in found) == len(rows)
        assert sum(one.rows * one.observed for one in found) == pytest.approx(labels.sum())

    def test_what_is_no_probability_is_refused(self) -> None:
        labels = np.array([True, False])
        for values in ([-0.1, 0.5], [0.5, 1.1]):
            with pytest.raises(InvalidParameterError, match="probabilities"):
                calibration(np.array(values), labels)
        with pytest.raises(InvalidParameterError, match="1 bin"):
            calibration(np.array([0.1, 0.2]), labels, bins=0)


class TestGroups:
    def compare(self, minimum: int = 2) -> tuple[GroupFigures, ...]:
        """Ten people of a and b, one of c, and one whose group is unknown."""
        values = np.array(["a"] * 5 + ["b"] * 5 + ["c", "?"], dtype=object)
        labels = np.array([1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0], dtype=bool)
        scores = np.array([9, 8, 7, 6, 1, 0, 5, 4, 3, 2, 10, 11.0])
        chosen = np.array([0, 1, 1, 1, 0, 0, 1, 1, 0, 0, 1, 0], dtype=bool)
        return compare_groups(
            values, ("a", "b", "c", "d"), scores, labels, chosen, ~labels, minimum=minimum
        )

    def test_rates_are_held_against_the_highest(self) -> None:
        a, b, c, d, other = self.compare()
        assert (a.people, a.candidates, a.selection_rate, a.ratio) == (5, 4, 0.75, 1.0)
        assert (b.selection_rate, b.ratio, b.adverse) == (0.5, pytest.approx(2 / 3), True)
        assert not a.adverse
        assert (a.positive_share, a.auc, b.auc) == (0.2, 1.0, 0.0)
        assert [one.group for one in (c, d, other)] == ["c", "d", None]

    def test_of_few_people_nothing_is_said_but_how_many(self) -> None:
        _, _, c, d, other = self.compare()
        assert (c, d) == (GroupFigures("c", 1), GroupFigures("d", 0))
        assert other == GroupFigures(None, 1)
        assert all(one.selection_rate is None for one in self.compare(minimum=6))

    def test_exactly_four_fifths_is_enough(self) -> None:
        values = np.array(["a"] * 10 + ["b"] * 10)
        chosen = np.zeros(20, dtype=bool)
        chosen[:10] = chosen[10:18] = True
        everybody = np.ones(20, dtype=bool)
        labels = np.arange(20) % 2 == 0
        a, b = compare_groups(
            values, ("a", "b"), np.arange(20.0), labels, chosen, everybody, minimum=1
        )
        assert (a.ratio, b.ratio, b.adverse) == (1.0, pytest.approx(0.8), False)

    def test_where_nobody_is_chosen_nobody_is_preferred(self) -> None:
        nobody = np.zeros(4, dtype=bool)
        values = np.array(["a", "a", "b", "b"])
        for one in compare_groups(
            values, ("a", "b"), np.zeros(4), nobody, nobody, ~nobody, minimum=1
        ):
            assert (one.selection_rate, one.ratio, one.adverse, one.auc) == (0.0, None, False, None)

    def test_contradictions_are_refused(self) -> None:
        two, three = np.zeros(2, dtype=bool), np.zeros(3, dtype=bool)
        values = np.array(["a", "b"])
        with pytest.raises(InvalidParameterError, match="as many"):
            compare_groups(values, ("a",), np.zeros(2), three, two, two, minimum=1)
        for chosen, minimum in ((two, 0), (~two, 1)):
            with pytest.raises(InvalidParameterError, match="minimum"):
                compare_groups(values, ("a",), np.zeros(2), two, chosen, two, minimum=minimum)
