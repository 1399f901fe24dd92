"""What every engine for private set intersection must do, and a slow engine that surely does it."""

import dataclasses
from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import pytest
from numpy.typing import NDArray

from privacy.errors import InvalidParameterError, PeerMessageError
from privacy.psi import CurveEngine
from privacy.psi.field import PRIME, decode_elements, encode_elements
from privacy.psi.hash_to_curve import hash_to_field
from privacy.psi.portable import DOMAIN
from privacy.randomness import SecretStream, seeded_secret

Bytes: TypeAlias = NDArray[np.uint8]

A = 486662
SUBGROUP_ORDER = 2**252 + 27742317777372353535851937790883648493  # RFC 7748 section 4.1
LOW_ORDER = (
    0,
    1,
    325606250916557431795983626356110631294008115727848805560023387167927233504,
    39382357235489614581723060781553021112529911719440698176882885853963445705823,
    PRIME - 1,
)

# RFC 9380 appendix J.4.2: message, u[0], Q.x, P.x
RFC_9380_DOMAIN = b"QUUX-V01-CS02-with-curve25519_XMD:SHA-512_ELL2_NU_"
RFC_9380_VECTORS = (
    (
        b"",
        0x608D892B641F0328523802A6603427C26E55E6F27E71A91A478148D45B5093CD,
        0x51125222DA5E763D97F3C10FCC92EA6860B9CCBBD2EB1285728F566721C1E65B,
        0x1BB913F0C9DAEFA0B3375378FFA534BDA5526C97391952A7789EB976EDFE4D08,
    ),
    (
        b"abc",
        0x46F5B22494BFEAA7F232CC8D054BE68561AF50230234D7D1D63D1D9ABECA8DA5,
        0x7D56D1E08CB0CCB92BAF069C18C49BB5A0DCD927EFF8DCF75CA921EF7F3E6EEB,
        0x7C22950B7D900FA866334262FCAEA47A441A578DF43B894B4625C9B450F9A026,
    ),
    (
        b"abcdef0123456789",
        0x235FE40C443766CE7E18111C33862D66C3B33267EFA50D50F9E8E5D252A40AAA,
        0x3FBE66B9C9883D79E8407150E7C2A1C8680BEE496C62FABE4619A72B3CABE90F,
        0x31AD08A8B0DEEB2A4D8B0206CA25F567AB4E042746F792F4B7973F3AE2096C52,
    ),
    (
        b"q128_" + b"q" * 128,
        0x001E92A544463BDA9BD04DDBE3D6EED248F82DE32F522669EFC5DDCE95F46F5B,
        0x227E0BB89DE700385D19EC40E857DB6E6A3E634B1C32962F370D26F84FF19683,
        0x027877759D155B1997D0D84683A313EB78BDB493271D935B622900459D52CEAA,
    ),
    (
        b"a512_" + b"a" * 512,
        0x1A68A1AF9F663592291AF987203393F707305C7BAC9C8D63D6A729BDC553DC19,
        0x3BCD651EE54D5F7B6013898AAB251EE8ECC0688166FCE6E9548D38472F6BD196,
        0x5FD892C0958D1A75F54C3182A18D286EFAB784E774D1E017BA2FB252998B5DC1,
    ),
)

# RFC 7748 section 5.2: scalar, input u, output u
RFC_7748_VECTORS = (
    (
        "a546e36bf0527c9d3b16154b82465edd62144c0ac1fc5a18506a2244ba449ac4",
        "e6db6867583030db3594c1a424b15f7c726624ec26b3353b10a903a6d0ab1c4c",
        "c3da55379de9c6908e94ea4df28d084f32eccf03491c71f754b4075577a28552",
    ),
    (
        "4b66e9d4d1b4673c5ad22691957d6af5c11b6421e0ea01d42ca4169e7918ba0d",
        "e5210f12786811d3f4b7959d0538ae2c31dbe7106fc03c3efc4cd549c715a493",
        "95cbde9476e8907d7aade45cb4b873f88b595a68799fa152e6f8f7647aac7957",
    ),
)


# The obvious slow way: affine formulas and Euler's criterion, straight from the RFCs.


def curve_side(u: int) -> int:
    """1 for a point of the curve, PRIME - 1 for one of its twist, 0 for u = 0."""
    return pow((u**3 + A * u**2 + u) % PRIME, (PRIME - 1) // 2, PRIME)


def elligator2(element: int) -> int:
    """RFC 9380 section 6.7.1 with J = 486662, K = 1, Z = 2."""
    first = -A * pow(1 + 2 * element * element, -1, PRIME) % PRIME
    return first if curve_side(first) in (0, 1) else (-first - A) % PRIME


def ladder(scalar: int, u: int) -> int:
    """RFC 7748 section 5, any scalar; 0 stands for the neutral point."""
    x2, z2, x3, z3 = 1, 0, u, 1
    for bit in f"{scalar:b}":
        if bit == "1":
            x2, z2, x3, z3 = x3, z3, x2, z2
        da, cb = (x3 - z3) * (x2 + z2), (x3 + z3) * (x2 - z2)
        x3, z3 = (da + cb) ** 2 % PRIME, u * (da - cb) ** 2 % PRIME
        aa, bb = (x2 + z2) ** 2 % PRIME, (x2 - z2) ** 2 % PRIME
        x2, z2 = aa * bb % PRIME, (aa - bb) * (aa + (A - 2) // 4 * (aa - bb)) % PRIME
        if bit == "1":
            x2, z2, x3, z3 = x3, z3, x2, z2
    return x2 * pow(z2, -1, PRIME) % PRIME if z2 else 0


def clamp(scalar: bytes) -> int:
    return int.from_bytes(scalar, "little") & (2**255 - 8) & (2**255 - 1) | 2**254


@dataclasses.dataclass(frozen=True)
class SlowEngine:
    """The oracle that every engine must equal."""

    domain: bytes = DOMAIN
    name: str = "slow"

    def hash_to_curve(self, tokens: Bytes) -> Bytes:
        elements = [hash_to_field(row.tobytes(), self.domain) for row in tokens]
        return encode_elements([ladder(8, elligator2(element)) for element in elements])

    def multiply(self, points: Bytes, scalar: bytes) -> Bytes:
        if len(scalar) != 32:
            raise InvalidParameterError("expected 32 bytes")
        us = [u & (2**255 - 1) for u in decode_elements(points)]
        products = [ladder(clamp(scalar), u) for u in us]
        if 0 in products:
            raise PeerMessageError("low order")
        return encode_elements(products)

    def check_on_curve(self, points: Bytes) -> None:
        if any(curve_side(u) != 1 for u in decode_elements(points)):
            raise PeerMessageError("twist")


SOME_TOKENS = np.arange(5 * 33, dtype=np.uint8).reshape(5, 33)


def random_rows(seed: int, count: int, width: int = 32) -> Bytes:
    raw = SecretStream(seeded_secret(seed, "test rows"), "rows").take(count * width)
    return np.frombuffer(raw, dtype=np.uint8).reshape(count, width)


def first_points(on_curve: bool, count: int) -> Bytes:
    side = 1 if on_curve else PRIME - 1
    us = (u for u in range(2, 10**6) if curve_side(u) == side)
    return encode_elements([next(us) for _ in range(count)])


CURVE_POINTS = first_points(True, 8)
TWIST_POINTS = first_points(False, 8)


class CurveEngineContract:
    """What holds for every engine; a subclass parametrises `make`, which takes a domain."""

    @pytest.mark.parametrize(("message", "element", "mapped", "point"), RFC_9380_VECTORS)
    def test_hashes_to_the_points_of_rfc_9380(
        self,
        make: Callable[..., CurveEngine],
        message: bytes,
        element: int,
        mapped: int,
        point: int,
    ) -> None:
        rows = np.frombuffer(message, dtype=np.uint8).reshape(1, -1)
        assert decode_elements(make(domain=RFC_9380_DOMAIN).hash_to_curve(rows)) == [point]

    @pytest.mark.parametrize(("scalar", "point", "product"), RFC_7748_VECTORS)
    def test_multiplies_as_rfc_7748(
        self, make: Callable[..., CurveEngine], scalar: str, point: str, product: str
    ) -> None:
        points = np.frombuffer(bytes.fromhex(point), dtype=np.uint8).reshape(1, 32)
        assert make().multiply(points, bytes.fromhex(scalar)).tobytes().hex() == product

    def test_equals_the_slow_way_on_random_tokens_and_scalars(
        self, make: Callable[..., CurveEngine]
    ) -> None:
        tokens, scalar = random_rows(1, 8, 33), random_rows(2, 1).tobytes()
        points = SlowEngine().hash_to_curve(tokens)
        assert np.array_equal(make().hash_to_curve(tokens), points)
        assert np.array_equal(
            make().multiply(points, scalar), SlowEngine().multiply(points, scalar)
        )

    def test_scalars_commute(self, make: Callable[..., CurveEngine]) -> None:
        engine = make()
        points = engine.hash_to_curve(random_rows(3, 3))
        r, s = (row.tobytes() for row in random_rows(4, 2))
        assert np.array_equal(
            engine.multiply(engine.multiply(points, r), s),
            engine.multiply(engine.multiply(points, s), r),
        )

    def test_hashed_points_lie_in_the_subgroup_of_prime_order(
        self, make: Callable[..., CurveEngine]
    ) -> None:
        points = decode_elements(make().hash_to_curve(random_rows(5, 4)))
        assert [curve_side(u) for u in points] == [1] * 4
        assert [ladder(SUBGROUP_ORDER, u) for u in points] == [0] * 4

    def test_another_domain_gives_other_points(self, make: Callable[..., CurveEngine]) -> None:
        ours = make().hash_to_curve(SOME_TOKENS)
        theirs = make(domain=b"another domain").hash_to_curve(SOME_TOKENS)
        assert not set(decode_elements(ours)) & set(decode_elements(theirs))

    def test_no_rows_in_no_rows_out(self, make: Callable[..., CurveEngine]) -> None:
        none = np.empty((0, 33), dtype=np.uint8)
        assert make().hash_to_curve(none).shape == (0, 32)
        assert make().multiply(none[:, :32], bytes(range(32))).shape == (0, 32)
        make().check_on_curve(none[:, :32])

    @pytest.mark.parametrize("count", [1, 2, 7, 8])
    def test_passes_points_of_the_curve(self, make: Callable[..., CurveEngine], count: int) -> None:
        make().check_on_curve(CURVE_POINTS[:count])

    @pytest.mark.parametrize("count", [1, 2, 7, 8])
    def test_refuses_a_single_point_of_the_twist_wherever_it_stands(
        self, make: Callable[..., CurveEngine], count: int
    ) -> None:
        for position in range(count):
            for bad in TWIST_POINTS:
                points = CURVE_POINTS[:count].copy()
                points[position] = bad
                with pytest.raises(PeerMessageError):
                    make().check_on_curve(points)

    @pytest.mark.parametrize("low", LOW_ORDER)
    def test_refuses_to_multiply_a_point_of_low_order(
        self, make: Callable[..., CurveEngine], low: int
    ) -> None:
        points = np.concatenate([CURVE_POINTS, encode_elements([low])])
        with pytest.raises(PeerMessageError):
            make().multiply(points, bytes(range(32)))

    def test_refuses_a_scalar_of_another_length(self, make: Callable[..., CurveEngine]) -> None:
        with pytest.raises(InvalidParameterError):
            make().multiply(CURVE_POINTS, bytes(31))
