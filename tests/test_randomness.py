import hashlib
import hmac
import math
from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from privacy.errors import InvalidParameterError
from privacy.randomness import (
    SECRET_BYTES,
    Secret,
    SecretStream,
    derive_secret,
    new_secret,
    seeded_secret,
)

SECRET = Secret(bytes(range(32)))
SAMPLES = 200_000


def stream(label: str, seed: int = 0) -> SecretStream:
    return SecretStream(seeded_secret(seed, "test"), label)


# The obvious slow way, itself checked on the published vectors below.


def hkdf_sha256(key_material: bytes, salt: bytes, info: bytes, length: int) -> bytes:
    """RFC 5869 sections 2.2 and 2.3."""
    key = hmac.digest(salt or bytes(32), key_material, "sha256")
    block, output = b"", b""
    for counter in range(1, math.ceil(length / 32) + 1):
        block = hmac.digest(key, block + info + bytes([counter]), "sha256")
        output += block
    return output[:length]


def aes_counter_mode(key: bytes, counter: int, length: int) -> bytes:
    """NIST SP 800-38A section 6.5, keystream only, one block at a time."""
    encryptor = Cipher(algorithms.AES256(key), modes.ECB()).encryptor()  # noqa: S305  # the block cipher itself, to build counter mode on
    blocks = (
        encryptor.update((counter + index).to_bytes(16, "big"))
        for index in range(math.ceil(length / 16))
    )
    return b"".join(blocks)[:length]


class TestPublishedVectors:
    @pytest.mark.parametrize(
        ("key_material", "salt", "info", "output"),
        [
            # RFC 5869 appendix A.1, A.2 and A.3
            (
                b"\x0b" * 22,
                bytes(range(13)),
                bytes(range(0xF0, 0xFA)),
                "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865",
            ),
            (
                bytes(range(0x50)),
                bytes(range(0x60, 0xB0)),
                bytes(range(0xB0, 0x100)),
                (
                    "b11e398dc80327a1c8e7f78c596a49344f012eda2d4efad8a050cc4c19afa97c"
                    "59045a99cac7827271cb41c65e590e09da3275600c2f09b8367793a9aca3db71"
                    "cc30c58179ec3e87c14c01d5c1f3434f1d87"
                ),
            ),
            (
                b"\x0b" * 22,
                b"",
                b"",
                "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8",
            ),
        ],
        ids=["A.1", "A.2", "A.3"],
    )
    def test_the_slow_hkdf_equals_rfc_5869(
        self, key_material: bytes, salt: bytes, info: bytes, output: str
    ) -> None:
        assert hkdf_sha256(key_material, salt, info, len(output) // 2).hex() == output

    def test_the_slow_counter_mode_equals_nist_sp_800_38a(self) -> None:
        # Appendix F.5.5, CTR-AES256.Encrypt: four blocks, plaintext exclusive-or keystream.
        key = "603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4"
        plaintext = (
            "6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51"
            "30c81c46a35ce411e5fbc1191a0a52eff69f2445df4f9b17ad2b417be66c3710"
        )
        ciphertext = (
            "601ec313775789a5b7a7f504bbf3d228f443e3ca4d62b59aca84e990cacaf5c5"
            "2b0930daa23de94ce87017ba2d84988ddfc9c58db67aada613c2dd08457941a6"
        )
        keystream = aes_counter_mode(
            bytes.fromhex(key), 0xF0F1F2F3F4F5F6F7F8F9FAFBFCFDFEFF, len(plaintext) // 2
        )
        mixed = bytes(a ^ b for a, b in zip(keystream, bytes.fromhex(plaintext), strict=True))
        assert mixed.hex() == ciphertext

    @given(secret=st.binary(min_size=32, max_size=32), label=st.text(min_size=1))
    def test_derive_secret_is_hkdf_with_the_label_as_info(self, secret: bytes, label: str) -> None:
        assert derive_secret(Secret(secret), label) == hkdf_sha256(secret, b"", label.encode(), 32)

    @given(label=st.text(min_size=1), length=st.integers(0, 200))
    def test_a_stream_is_counter_mode_from_zero_under_the_derived_key(
        self, label: str, length: int
    ) -> None:
        expected = aes_counter_mode(derive_secret(SECRET, label), 0, length)
        assert SecretStream(SECRET, label).take(length) == expected


class TestSecrets:
    def test_new_secrets_are_fresh_and_of_full_length(self) -> None:
        secrets = {new_secret() for _ in range(100)}
        assert len(secrets) == 100
        assert {len(secret) for secret in secrets} == {SECRET_BYTES}

    def test_seeded_secrets_repeat_and_differ_by_seed_and_label(self) -> None:
        made = [seeded_secret(seed, label) for seed in range(20) for label in ("a", "b")]
        again = [seeded_secret(seed, label) for seed in range(20) for label in ("a", "b")]
        assert made == again
        assert len(set(made)) == 40
        assert {len(secret) for secret in made} == {SECRET_BYTES}

    def test_derived_secrets_differ_by_label_and_from_their_parent(self) -> None:
        labels = [f"job/{index}" for index in range(100)]
        derived = {derive_secret(SECRET, label) for label in labels}
        assert len(derived | {SECRET}) == 101

    @pytest.mark.parametrize("length", [0, 31, 33])
    def test_a_secret_of_another_length_is_refused_and_not_shown(self, length: int) -> None:
        wrong = Secret(bytes([0xAB]) * length)
        with pytest.raises(InvalidParameterError, match=f"32 bytes, got {length}") as caught:
            derive_secret(wrong, "label")
        assert "abab" not in str(caught.value).lower()

    def test_an_empty_label_is_refused(self) -> None:
        with pytest.raises(InvalidParameterError, match="label"):
            SecretStream(SECRET, "")


class TestStream:
    def test_streams_do_not_drift_between_versions(self) -> None:
        # Pinned once: a killed job must repeat its own noise after an update.
        digest = hashlib.sha256(SecretStream(SECRET, "pinned").take(1 << 16)).hexdigest()
        normals = SecretStream(SECRET, "pinned").standard_normal(4)
        order = SecretStream(SECRET, "pinned").permutation(8)
        assert digest == "228c166c65a41930911c862ddf755a429fd26916c2c9cb8ef9e803dae2a4eb06"
        assert normals.tolist() == pytest.approx(
            [1.3210535087105686, -1.4744818239751247, 0.47691116237906517, 0.07058458034405801],
            rel=1e-12,
        )
        assert order.tolist() == [2, 1, 4, 0, 3, 6, 5, 7]

    @given(st.lists(st.integers(0, 100), max_size=10))
    def test_taking_in_pieces_equals_taking_at_once(self, counts: list[int]) -> None:
        pieces = SecretStream(SECRET, "pieces")
        whole = SecretStream(SECRET, "pieces").take(sum(counts))
        assert b"".join(pieces.take(count) for count in counts) == whole

    def test_successive_calls_continue_the_stream(self) -> None:
        source = SecretStream(SECRET, "go on")
        first, second = source.standard_normal(1_000), source.standard_normal(1_000)
        assert not np.isin(first, second).any()

    def test_a_negative_count_is_refused(self) -> None:
        with pytest.raises(InvalidParameterError, match="-1"):
            SecretStream(SECRET, "label").take(-1)

    @pytest.mark.parametrize("size", [0, 1, 2, 7, 8])
    def test_every_draw_has_the_size_asked_for(self, size: int) -> None:
        source = SecretStream(SECRET, "sizes")
        assert source.uniform(size).shape == (size,)
        assert source.standard_normal(size).shape == (size,)
        assert source.bernoulli(0.5, size).shape == (size,)
        assert sorted(source.permutation(size).tolist()) == list(range(size))


class TestLabelIndependence:
    LABELS = ("noise/1", "noise/2", "noise/11", "sampling/1", "noise/1 ")

    def test_streams_of_other_labels_share_no_block(self) -> None:
        blocks = Counter(
            raw[start : start + 16]
            for label in self.LABELS
            for raw in [SecretStream(SECRET, label).take(16 * 5_000)]
            for start in range(0, len(raw), 16)
        )
        assert max(blocks.values()) == 1

    def test_streams_of_other_secrets_share_no_block(self) -> None:
        streams = [stream("same label", seed).take(16 * 1_000) for seed in range(5)]
        blocks = {raw[start : start + 16] for raw in streams for start in range(0, 16_000, 16)}
        assert len(blocks) == 5 * 1_000

    def test_normals_of_other_labels_are_uncorrelated(self) -> None:
        draws = np.stack([stream(label).standard_normal(SAMPLES) for label in self.LABELS])
        off_diagonal = np.corrcoef(draws) - np.eye(len(self.LABELS))
        assert np.abs(off_diagonal).max() < 5 / math.sqrt(SAMPLES)

    def test_bits_of_other_labels_differ_in_half_of_all_places(self) -> None:
        first, second = (
            np.unpackbits(np.frombuffer(stream(label).take(SAMPLES // 8), dtype=np.uint8))
            for label in self.LABELS[:2]
        )
        assert abs(np.mean(first != second) - 0.5) < 5 * 0.5 / math.sqrt(SAMPLES)


def largest_gap(
    samples: NDArray[np.float64], distribution: Callable[[NDArray[np.float64]], NDArray[np.float64]]
) -> float:
    """Kolmogorov's statistic: the greatest distance of the empirical distribution."""
    ranks = np.arange(len(samples) + 1) / len(samples)
    expected = distribution(np.sort(samples))
    return float(max(np.max(ranks[1:] - expected), np.max(expected - ranks[:-1])))


class TestDistributions:
    """Fixed seeds: each bound holds once and for all; its probability of chance is under 1e-5."""

    KOLMOGOROV = 2.5 / math.sqrt(SAMPLES)  # 2·exp(-2·2.5²) = 7e-6

    def test_uniforms_fill_the_open_interval_evenly(self) -> None:
        draws = stream("uniform").uniform(SAMPLES)
        assert 0 < draws.min() < draws.max() < 1
        assert largest_gap(draws, lambda x: x) < self.KOLMOGOROV

    def test_uniforms_are_odd_multiples_of_two_to_the_minus_53(self) -> None:
        numerators = stream("grid").uniform(10_000) * 2.0**53
        assert np.array_equal(numerators % 2, np.ones(10_000))

    def test_normals_follow_the_normal_distribution(self) -> None:
        draws = stream("normal").standard_normal(SAMPLES)
        normal = np.vectorize(lambda x: 0.5 * math.erfc(-x / math.sqrt(2)))
        assert largest_gap(draws, normal) < self.KOLMOGOROV

    def test_moments_and_tails_of_normals_are_right(self) -> None:
        draws = stream("moments").standard_normal(SAMPLES)
        assert abs(draws.mean()) < 5 / math.sqrt(SAMPLES)
        assert abs(draws.var() - 1) < 5 * math.sqrt(2 / SAMPLES)
        assert abs((draws**4).mean() - 3) < 5 * math.sqrt(96 / SAMPLES)
        for threshold in (2.0, 3.0, 4.0):
            expected = math.erfc(threshold / math.sqrt(2)) * SAMPLES
            outside = np.count_nonzero(np.abs(draws) > threshold)
            assert abs(outside - expected) < 5 * math.sqrt(expected)

    def test_the_two_halves_of_box_muller_are_uncorrelated(self) -> None:
        cosines, sines = np.split(stream("halves").standard_normal(SAMPLES), 2)
        bound = 5 / math.sqrt(SAMPLES / 2)
        assert abs(np.corrcoef(cosines, sines)[0, 1]) < bound
        assert abs(np.corrcoef(cosines**2, sines**2)[0, 1]) < bound

    @pytest.mark.parametrize("probability", [0.01, 0.2, 0.5, 0.99])
    def test_coins_come_up_with_their_probability(self, probability: float) -> None:
        share = stream("coins").bernoulli(probability, SAMPLES).mean()
        deviation = math.sqrt(probability * (1 - probability) / SAMPLES)
        assert abs(share - probability) < 5 * deviation

    @pytest.mark.parametrize(("probability", "share"), [(0.0, 0.0), (1.0, 1.0)])
    def test_certain_coins_never_err(self, probability: float, share: float) -> None:
        assert stream("certain").bernoulli(probability, 10_000).mean() == share

    def test_every_order_is_equally_likely(self) -> None:
        source = stream("orders")
        counts = Counter(tuple(source.permutation(4).tolist()) for _ in range(12_000))
        statistic = sum((count - 500) ** 2 / 500 for count in counts.values())
        assert len(counts) == 24
        assert statistic < 66  # chi-square, 23 degrees of freedom

    def test_a_long_permutation_scatters(self) -> None:
        order = stream("scatter").permutation(SAMPLES)
        assert np.array_equal(np.sort(order), np.arange(SAMPLES))
        correlation = np.corrcoef(order, np.arange(SAMPLES))[0, 1]
        assert abs(correlation) < 5 / math.sqrt(SAMPLES)
