"""Columns become rows of bounded norm, by public terms alone."""

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from privacy.errors import InvalidParameterError
from privacy.training import CategoricalFeature, Encoder, NumericFeature, Scale

AGE = NumericFeature("age", 20.0, 60.0)
GAIN = NumericFeature("gain", 0.0, 99.0, Scale.LOG)
JOB = CategoricalFeature("job", ("clerk", "smith"))
ENCODER = Encoder([AGE, GAIN, JOB])

numbers = st.floats(allow_nan=True, allow_infinity=True)
words = st.one_of(st.none(), st.just(math.nan), st.text(), st.sampled_from(JOB.categories))
tables = st.lists(st.tuples(numbers, numbers, words), max_size=8)
bounds = st.tuples(st.floats(-1e300, 1e300), st.floats(-1e300, 1e300)).filter(lambda b: b[0] < b[1])


def columns(rows: list[tuple[float, float, object]]) -> dict[str, NDArray]:
    ages, gains, jobs = zip(*rows, strict=True) if rows else ((), (), ())
    return {
        "age": np.array(ages, dtype=float),
        "gain": np.array(gains, dtype=float),
        "job": np.array(jobs, dtype=object),
    }


def encode_one(age: float = 40.0, gain: float = 0.0, job: object = None) -> list[float]:
    """Encode one row, before it is divided by the public constant."""
    return (ENCODER.encode(columns([(age, gain, job)]))[0] * 2.0).tolist()


@given(tables)
def test_every_row_has_a_norm_of_at_most_one(rows: list) -> None:
    encoded = ENCODER.encode(columns(rows))
    assert encoded.shape == (len(rows), ENCODER.width)
    assert (np.linalg.norm(encoded, axis=1) <= 1 + 1e-12).all()


@given(bounds, st.lists(numbers, min_size=1), st.sampled_from(Scale))
def test_whatever_the_bounds_a_number_weighs_at_most_one(
    bounds: tuple, values: list, scale: Scale
) -> None:
    encoded = NumericFeature("x", *bounds, scale).encode(np.array(values))
    assert (np.abs(encoded) <= 1.0).all()


@given(tables)
def test_a_row_is_encoded_alone_as_among_others(rows: list) -> None:
    together = ENCODER.encode(columns(rows))
    for row, encoded in zip(rows, together, strict=True):
        np.testing.assert_array_equal(ENCODER.encode(columns([row]))[0], encoded)


def test_names_say_what_each_column_is() -> None:
    assert ENCODER.names == ("age", "gain", "job=clerk", "job=smith", "(constant)")
    assert ENCODER.width == 5


@pytest.mark.parametrize(
    ("age", "expected"),
    {
        20.0: -1.0,
        40.0: 0.0,
        60.0: 1.0,
        -5.0: -1.0,
        99.0: 1.0,
        math.inf: 1.0,
        -math.inf: -1.0,
    }.items(),
)
def test_linear_numbers_span_minus_one_to_one_and_are_clipped(age: float, expected: float) -> None:
    assert encode_one(age=age)[0] == expected


@pytest.mark.parametrize(
    ("gain", "expected"), [(0.0, 0.0), (9.0, 0.5), (99.0, 1.0), (1e9, 1.0), (-3.0, 0.0)]
)
def test_logarithmic_numbers_span_zero_to_one_and_are_clipped(gain: float, expected: float) -> None:
    assert encode_one(gain=gain)[1] == pytest.approx(expected)


def test_missing_numbers_contribute_nothing() -> None:
    assert encode_one(age=math.nan, gain=math.nan)[:2] == [0.0, 0.0]


@pytest.mark.parametrize(
    ("job", "expected"),
    [
        ("clerk", [1, 0]),
        ("smith", [0, 1]),
        ("Smith", [0, 0]),
        ("", [0, 0]),
        (None, [0, 0]),
        (math.nan, [0, 0]),
        (pd.NA, [0, 0]),
        (0, [0, 0]),
    ],
)
def test_a_category_sets_its_column_and_anything_else_none(
    job: object, expected: list[int]
) -> None:
    assert encode_one(job=job)[2:4] == expected


def test_every_row_bears_the_constant() -> None:
    assert encode_one()[-1] == 1.0


@pytest.mark.parametrize("dtype", [np.int64, np.float32, np.uint8, bool])
def test_any_numeric_dtype_is_read(dtype: type) -> None:
    feature = NumericFeature("x", 0.0, 1.0)
    assert feature.encode(np.array([0, 1], dtype=dtype)).ravel().tolist() == [-1.0, 1.0]


def test_text_of_fixed_width_is_read_as_text() -> None:
    assert JOB.encode(np.array(["smith", "clerk"])).tolist() == [[0.0, 1.0], [1.0, 0.0]]


def test_a_column_that_is_not_numeric_is_refused_without_its_values() -> None:
    with pytest.raises(InvalidParameterError, match=r"'age'.*object") as refusal:
        ENCODER.encode(columns([(1.0, 1.0, None)]) | {"age": np.array(["secret"], dtype=object)})
    assert "secret" not in str(refusal.value)
    assert refusal.value.__cause__ is None


def test_missing_columns_are_named() -> None:
    with pytest.raises(InvalidParameterError, match=r"\['age', 'job'\].*\['gain', 'other'\]"):
        ENCODER.encode({"gain": np.zeros(1), "other": np.zeros(1)})


@pytest.mark.parametrize("age", [np.zeros(2), np.zeros((1, 1)), np.zeros(())])
def test_columns_of_other_shapes_are_refused(age: NDArray) -> None:
    with pytest.raises(InvalidParameterError, match="one length"):
        ENCODER.encode(columns([(1.0, 1.0, None)]) | {"age": age})


@pytest.mark.parametrize(
    "bounds",
    [(1.0, 1.0), (2.0, 1.0), (math.nan, 1.0), (0.0, math.nan), (0.0, math.inf), (-1e308, 1e308)],
)
def test_bounds_must_be_finite_and_in_order(bounds: tuple[float, float]) -> None:
    with pytest.raises(InvalidParameterError, match="bounds"):
        NumericFeature("x", *bounds)


@pytest.mark.parametrize("categories", [(), ("a", "a")])
def test_categories_must_be_given_and_differ(categories: tuple[str, ...]) -> None:
    with pytest.raises(InvalidParameterError, match="categories"):
        CategoricalFeature("x", categories)


@pytest.mark.parametrize("features", [[], [AGE, AGE]])
def test_features_must_be_given_and_differ(features: list[NumericFeature]) -> None:
    with pytest.raises(InvalidParameterError, match="features"):
        Encoder(features)
