import numpy as np
import pytest

from privacy.accounting.events import DiscreteLaplaceEvent
from privacy.errors import InvalidParameterError
from privacy.psi.portable import PortableEngine
from privacy.psi.sizes import SizeNoise
from privacy.psi.two_party import TagOrder, receiver_blind, receiver_count, sender_reply
from privacy.randomness import SecretStream, seeded_secret

ENGINE = PortableEngine()
NOISE = SizeNoise(DiscreteLaplaceEvent(scale=2.0), 1e-6)


def stream(seed: int) -> SecretStream:
    return SecretStream(seeded_secret(seed, "sizes test"), "noise")


def tokens(numbers: range) -> np.ndarray:
    raw = b"".join(b"\x01" + number.to_bytes(32, "big") for number in numbers)
    return np.frombuffer(raw, dtype=np.uint8).reshape(-1, 33)


def counted(noise: SizeNoise, seed: int, mine: range, theirs: range) -> int:
    capacity = 30 + noise.dummies_per_bucket
    receiver, sender = (seeded_secret(seed, name) for name in ("receiver", "sender"))
    own = np.concatenate([tokens(mine), noise.dummies(4, width=33)])
    other = np.concatenate([tokens(theirs), noise.drawn(4, stream(seed), width=33)])
    blinded = receiver_blind(own, receiver, engine=ENGINE, capacity=capacity)
    reply = sender_reply(
        other,
        blinded,
        sender,
        engine=ENGINE,
        capacity=capacity,
        receiver_capacity=capacity,
        order=TagOrder.SHUFFLED,
    )
    return receiver_count(
        receiver, reply, engine=ENGINE, capacity=capacity, sender_capacity=capacity
    )


def test_what_is_counted_is_the_size_and_the_drawn_dummies() -> None:
    for seed in range(3):
        drawn = len(NOISE.drawn(4, stream(seed), width=33))
        assert counted(NOISE, seed, range(20), range(12, 40)) == 8 + drawn


def test_sizes_scatter_about_the_truth_as_the_mechanism_says() -> None:
    middle = NOISE.dummies_per_bucket // 2
    sizes = [
        NOISE.size(500 + len(NOISE.drawn(0, stream(seed), width=33)), 1) for seed in range(600)
    ]
    ratio = np.exp(-1 / 2.0)
    assert np.mean(sizes) == pytest.approx(500, abs=0.5)
    assert np.std(sizes) == pytest.approx(np.sqrt(2 * ratio) / (1 - ratio), rel=0.2)
    assert middle > 2.0 * np.log(1e6)


def test_every_bucket_takes_its_own_mean_off() -> None:
    middle = NOISE.dummies_per_bucket // 2
    assert NOISE.size(100 + 3 * middle, 3) == 100
    assert NOISE.size(middle, 3) == 0


def test_buckets_have_their_own_dummies_and_no_identifiers_kind() -> None:
    first, second = (NOISE.dummies(bucket, width=33) for bucket in (0, 1))
    rows = {row.tobytes() for row in np.concatenate([first, second])}
    assert len(rows) == 2 * NOISE.dummies_per_bucket
    assert (first[:, 0] == 0).all()


@pytest.mark.parametrize("delta", [0.0, 1.0, -1.0])
def test_a_delta_out_of_range_is_refused(delta: float) -> None:
    with pytest.raises(InvalidParameterError, match="delta"):
        SizeNoise(NOISE.mechanism, delta)


@pytest.mark.parametrize("width", [1, 34])
def test_a_width_that_no_token_has_is_refused(width: int) -> None:
    with pytest.raises(InvalidParameterError, match="bytes"):
        NOISE.dummies(0, width=width)
