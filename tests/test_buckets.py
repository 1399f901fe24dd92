import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from privacy.errors import InvalidParameterError
from privacy.psi.buckets import BucketPlan, bucket_numbers, padded_count, plan_buckets

HASHES = np.frombuffer(
    b"".join(hashlib.sha256(str(row).encode()).digest() for row in range(50_000)), dtype=np.uint8
).reshape(-1, 32)


class TestPaddedCount:
    @pytest.mark.parametrize(
        ("count", "multiple", "padded"),
        [(0, 1, 1), (1, 1, 1), (7, 1, 7), (0, 10, 10), (1, 10, 10), (10, 10, 10), (11, 10, 20)],
    )
    def test_is_the_next_multiple_and_never_nothing(
        self, count: int, multiple: int, padded: int
    ) -> None:
        assert padded_count(count, multiple) == padded

    @pytest.mark.parametrize(("count", "multiple"), [(-1, 1), (1, 0), (1, -5)])
    def test_refuses_what_is_out_of_range(self, count: int, multiple: int) -> None:
        with pytest.raises(InvalidParameterError):
            padded_count(count, multiple)


class TestPlanBuckets:
    def test_sets_that_fit_are_one_bucket_without_slack(self) -> None:
        assert plan_buckets(700, 300, bucket_points=700) == BucketPlan(1, 700, 300)

    def test_the_larger_set_decides_and_the_order_does_not(self) -> None:
        plan = plan_buckets(1 << 20, 1_000)
        turned = plan_buckets(1_000, 1 << 20)
        assert plan.count == turned.count == 4
        assert plan.receiver_capacity == turned.sender_capacity
        assert plan.sender_capacity == turned.receiver_capacity

    def test_slack_is_small_for_large_buckets(self) -> None:
        plan = plan_buckets(1 << 20, 1 << 20)
        assert 1 < plan.receiver_capacity * plan.count / (1 << 20) < 1.02

    @given(st.integers(1, 10**10), st.integers(1, 10**10), st.integers(1_000, 1 << 20))
    def test_capacities_hold_the_sets_and_no_bucket_more_than_the_set(
        self, receiver: int, sender: int, bucket_points: int
    ) -> None:
        plan = plan_buckets(receiver, sender, bucket_points=bucket_points)
        for points, capacity in (
            (receiver, plan.receiver_capacity),
            (sender, plan.sender_capacity),
        ):
            assert points <= capacity * plan.count
            assert capacity <= points
        assert (plan.count - 1) * bucket_points < max(receiver, sender)

    @pytest.mark.parametrize("count", [2, 7, 50, 500])
    def test_hashes_stay_below_the_capacity(self, count: int) -> None:
        plan = plan_buckets(len(HASHES), len(HASHES), bucket_points=-(-len(HASHES) // count))
        loads = np.bincount(bucket_numbers(HASHES, plan.count), minlength=plan.count)
        assert plan.count == count
        assert loads.max() <= plan.receiver_capacity
        assert loads.max() > 0.5 * plan.receiver_capacity  # and not for want of tokens

    @pytest.mark.parametrize("arguments", [(0, 1, 1), (1, 0, 1), (1, 1, 0)])
    def test_refuses_what_is_out_of_range(self, arguments: tuple[int, int, int]) -> None:
        receiver, sender, bucket_points = arguments
        with pytest.raises(InvalidParameterError):
            plan_buckets(receiver, sender, bucket_points=bucket_points)


class TestBucketNumbers:
    @given(st.integers(1, 1 << 31))
    def test_stay_in_range_and_follow_the_hash_alone(self, count: int) -> None:
        numbers = bucket_numbers(HASHES[:500], count)
        other_kind = np.insert(HASHES[:500], 0, 7, axis=1)
        assert numbers.min() >= 0
        assert numbers.max() < count
        assert np.array_equal(bucket_numbers(other_kind, count), numbers)

    def test_the_greatest_hash_falls_into_the_last_bucket(self) -> None:
        greatest = np.full((1, 33), 255, dtype=np.uint8)
        assert bucket_numbers(greatest, 1 << 31).tolist() == [(1 << 31) - 1]

    @pytest.mark.parametrize(
        "tokens",
        [np.zeros((2, 7), np.uint8), np.zeros(33, np.uint8), np.zeros((1, 33), np.int64)],
        ids=["no width", "flat", "wide"],
    )
    def test_refuse_tokens_of_another_shape_or_type(self, tokens: np.ndarray) -> None:
        with pytest.raises(InvalidParameterError, match="expected tokens as uint8"):
            bucket_numbers(tokens, 4)

    @pytest.mark.parametrize("count", [0, (1 << 31) + 1])
    def test_refuse_another_count_of_buckets(self, count: int) -> None:
        with pytest.raises(InvalidParameterError, match="buckets"):
            bucket_numbers(HASHES, count)
