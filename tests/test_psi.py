from typing import Any

import numpy as np
import pytest
from engine_contract import (
    CURVE_POINTS,
    LOW_ORDER,
    RFC_9380_DOMAIN,
    RFC_9380_VECTORS,
    SUBGROUP_ORDER,
    TWIST_POINTS,
    Bytes,
    CurveEngineContract,
    SlowEngine,
    curve_side,
    elligator2,
    first_points,
    ladder,
    random_rows,
)
from hypothesis import given
from hypothesis import strategies as st

from privacy.errors import InvalidParameterError, PeerMessageError
from privacy.psi import (
    CurveEngine,
    PortableEngine,
    validate_points,
)
from privacy.psi.field import (
    PRIME,
    batch_inverse,
    decode_elements,
    edwards_from_montgomery,
    encode_elements,
    montgomery_from_edwards,
)
from privacy.psi.hash_to_curve import SUITE, encode_to_curve, hash_to_field
from privacy.psi.portable import DOMAIN

ENGINES = {
    "libsodium": PortableEngine,
    "libsodium, one worker": lambda **fields: PortableEngine(workers=1, **fields),
    "slow": SlowEngine,
}
ENGINE: CurveEngine = PortableEngine()


@pytest.mark.parametrize("make", ENGINES.values(), ids=ENGINES.keys())
class TestCurveEngineContract(CurveEngineContract):
    pass


class TestPortableEngine:
    def test_chunks_keep_the_order_of_rows(self) -> None:
        tokens = random_rows(6, 2_500, 33)
        points = ENGINE.hash_to_curve(tokens)
        assert np.array_equal(points[1_020:1_030], SlowEngine().hash_to_curve(tokens[1_020:1_030]))
        assert np.array_equal(points, PortableEngine(workers=3).hash_to_curve(tokens))
        ENGINE.check_on_curve(points)

    def test_finds_a_point_of_the_twist_in_any_chunk(self) -> None:
        points = ENGINE.hash_to_curve(random_rows(6, 2_049, 33))
        for position in (0, 1_023, 1_024, 2_047, 2_048):
            tampered = points.copy()
            tampered[position] = TWIST_POINTS[0]
            with pytest.raises(PeerMessageError, match="twist"):
                ENGINE.check_on_curve(tampered)

    def test_multiplies_as_the_thousand_turns_of_rfc_7748(self) -> None:
        # RFC 7748 section 5.2: k and u start as 9; each turn k becomes k·u, and u the old k.
        scalar = u = (9).to_bytes(32, "little")
        for _ in range(1_000):
            product = PortableEngine(workers=1).multiply(
                np.frombuffer(u, dtype=np.uint8).reshape(1, 32), scalar
            )
            scalar, u = product.tobytes(), scalar
        assert scalar.hex() == "684cf59ba83309552800ef566f2f4d3c1c3887c49360e3875f2eb94d99532c51"

    @pytest.mark.parametrize(
        "fields", [{"workers": 0}, {"domain": b""}, {"domain": bytes(256)}], ids=str
    )
    def test_refuses_fields_out_of_range(self, fields: dict[str, Any]) -> None:
        with pytest.raises(InvalidParameterError):
            PortableEngine(**fields)

    def test_the_domain_names_the_suite_and_does_not_drift(self) -> None:
        assert b"COMITY-PSI-V01-with-" + SUITE.encode() == DOMAIN


class TestHashToCurve:
    @pytest.mark.parametrize(("message", "element", "mapped", "point"), RFC_9380_VECTORS)
    def test_field_element_map_and_cofactor_follow_rfc_9380(
        self, message: bytes, element: int, mapped: int, point: int
    ) -> None:
        assert hash_to_field(message, RFC_9380_DOMAIN) == element
        assert elligator2(element) == mapped
        assert ladder(8, mapped) == point
        assert decode_elements(encode_to_curve([message], RFC_9380_DOMAIN)) == [point]

    @pytest.mark.parametrize("domain", [b"", bytes(256)])
    def test_refuses_a_domain_that_one_byte_cannot_measure(self, domain: bytes) -> None:
        with pytest.raises(InvalidParameterError, match="1 to 255"):
            hash_to_field(b"", domain)

    def test_plain_sha_256_would_often_lie_on_the_twist_and_hashing_never_does(self) -> None:
        rows = random_rows(7, 64)
        naive = [u & (2**255 - 1) for u in decode_elements(rows)]
        assert 16 < sum(curve_side(u % PRIME) != 1 for u in naive) < 48
        assert all(curve_side(u) == 1 for u in decode_elements(ENGINE.hash_to_curve(rows)))


class TestField:
    @given(st.lists(st.integers(0, PRIME - 1), max_size=20))
    def test_batch_inverse_equals_single_inverses_and_keeps_zero(self, elements: list[int]) -> None:
        expected = [pow(element, -1, PRIME) if element else 0 for element in elements]
        assert batch_inverse(elements) == expected

    @given(st.lists(st.integers(0, PRIME - 2), max_size=10))
    def test_coordinates_survive_the_way_to_edwards_and_back(self, us: list[int]) -> None:
        assert montgomery_from_edwards(edwards_from_montgomery(us)) == us

    @given(st.lists(st.integers(0, 2**256 - 1), max_size=10))
    def test_encoding_is_reversible(self, elements: list[int]) -> None:
        assert decode_elements(encode_elements(elements)) == elements

    def test_base_points_correspond(self) -> None:
        # RFC 7748 section 4.1: u = 9 and y = 4/5 are the same point.
        assert edwards_from_montgomery([9]) == [4 * pow(5, -1, PRIME) % PRIME]


class TestValidatePoints:
    def refuse(self, points: Bytes, expected_count: int, match: str) -> None:
        with pytest.raises(PeerMessageError, match=match):
            validate_points(points, expected_count, engine=ENGINE)

    def test_passes_distinct_points_of_the_curve(self) -> None:
        validate_points(CURVE_POINTS, 8, engine=ENGINE)

    @pytest.mark.parametrize("count", [0, 7, 9])
    def test_refuses_another_count(self, count: int) -> None:
        self.refuse(CURVE_POINTS, count, r"got uint8 of shape \(8, 32\)")

    @pytest.mark.parametrize(
        "points",
        [CURVE_POINTS[:, :31], CURVE_POINTS.reshape(-1), CURVE_POINTS.astype(np.uint16)],
        ids=["narrow", "flat", "wide"],
    )
    def test_refuses_another_shape_or_type(self, points: Bytes) -> None:
        self.refuse(points, 8, "expected points as uint8")

    @pytest.mark.parametrize("low", LOW_ORDER)
    def test_refuses_every_point_of_low_order(self, low: int) -> None:
        self.refuse(np.concatenate([CURVE_POINTS, encode_elements([low])]), 9, "1 of low order")

    def test_the_list_of_low_orders_is_complete(self) -> None:
        # Multiplying by the large prime leaves a point's part of low order; 40 points of the curve
        # (8 such parts) and of its twist (4) meet them all. Both groups together count 2p + 2.
        twist_order = (2 * PRIME + 2 - 8 * SUBGROUP_ORDER) // 4
        parts = {ladder(SUBGROUP_ORDER, u) for u in decode_elements(first_points(True, 40))}
        parts |= {ladder(twist_order, u) for u in decode_elements(first_points(False, 40))}
        assert parts == set(LOW_ORDER)

    @pytest.mark.parametrize("number", [*range(PRIME, 2**255), 2**255 + 9, 2**256 - 1])
    def test_refuses_numbers_that_are_not_reduced(self, number: int) -> None:
        self.refuse(np.concatenate([CURVE_POINTS, encode_elements([number])]), 9, "1 not canonical")

    def test_passes_the_greatest_canonical_points_of_the_curve(self) -> None:
        great = [u for u in range(PRIME - 20, PRIME - 1) if curve_side(u) == 1]
        assert len(great) > 3
        validate_points(encode_elements(great), len(great), engine=ENGINE)

    def test_refuses_duplicates(self) -> None:
        self.refuse(np.concatenate([CURVE_POINTS, CURVE_POINTS[2:4]]), 10, "2 duplicates")

    def test_refuses_points_of_the_twist(self) -> None:
        self.refuse(np.concatenate([CURVE_POINTS, TWIST_POINTS[:1]]), 9, "twist")

    def test_names_every_kind_of_fault_and_no_value(self) -> None:
        faulty = np.concatenate([CURVE_POINTS, CURVE_POINTS[:1], encode_elements([1, PRIME + 5])])
        with pytest.raises(PeerMessageError) as caught:
            validate_points(faulty, 11, engine=ENGINE)
        assert "1 not canonical, 1 of low order, 1 duplicates" in str(caught.value)
        assert all(row.tobytes().hex() not in str(caught.value) for row in faulty)
