"""What secure aggregation rests on: plans, neighbourhoods, shares, messages, fixed point."""

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy import stats
from summing import Simulation, plan_of

from privacy.errors import InvalidParameterError, PeerMessageError
from privacy.randomness import Secret, SecretStream, new_secret, seeded_secret
from privacy.secagg import FixedPoint, Neighbours, Plan, ServerTrust, keys
from privacy.secagg.client import read_client_state
from privacy.secagg.messages import (
    Confirmation,
    Confirmations,
    KeyAdvertisement,
    KeyRoster,
    MaskedVector,
    SealedShares,
    ShareDelivery,
    Survivors,
    Unmasking,
)
from privacy.secagg.neighbourhood import Graph, Neighbourhood, choose_neighbourhood
from privacy.secagg.server import read_server_state
from privacy.secagg.shamir import (
    PRIME,
    SHARE_BYTES,
    combine_shares,
    evaluate,
    interpolation_weights,
    read_share,
    split_secret,
)

MESSAGES = (
    KeyAdvertisement,
    KeyRoster,
    SealedShares,
    ShareDelivery,
    MaskedVector,
    Survivors,
    Confirmation,
    Confirmations,
    Unmasking,
)
secrets = st.binary(min_size=32, max_size=32).map(Secret)


def stream(seed: int = 0) -> SecretStream:
    return SecretStream(seeded_secret(seed, "secure aggregation test"), "polynomials")


class TestShamir:
    # RFC 9591 appendix E.1, FROST(Ed25519, SHA-512): a polynomial and three of its points, over
    # the order of the group, little-endian.
    ORDER = 2**252 + 27742317777372353535851937790883648493
    SECRET = "7b1c33d3f5291d85de664833beb1ad469f7fb6025a0ec78b3a790c6e13a98304"
    COEFFICIENT = "178199860edd8c62f5212ee91eff1295d0d670ab4ed4506866bae57e7030b204"
    SHARES = (
        "929dcc590407aae7d388761cddb0c0db6f5627aea8e217f4a033f2ec83d93509",
        "a91e66e012e4364ac9aaa405fcafd370402d9859f7b6685c07eed76bf409e80d",
        "d3cb090a075eb154e82fdb4b3cb507f110040905468bb9c46da8bdea643a9a02",
    )

    def test_polynomials_and_weights_are_those_of_rfc_9591(self) -> None:
        secret, coefficient, *shares = (
            int.from_bytes(bytes.fromhex(text), "little")
            for text in (self.SECRET, self.COEFFICIENT, *self.SHARES)
        )
        for place, share in enumerate(shares, 1):
            assert evaluate([secret, coefficient], place, self.ORDER) == share
        for places in itertools.permutations((1, 2, 3), 2):
            weights = interpolation_weights(places, self.ORDER)
            points = [shares[place - 1] for place in places]
            assert sum(p * w for p, w in zip(points, weights, strict=True)) % self.ORDER == secret

    def test_the_order_of_the_field_is_prime(self) -> None:
        # Pocklington would do for a proof; Fermat to forty bases for a test that can fail.
        assert PRIME > 1 << 256
        assert all(pow(base, PRIME - 1, PRIME) == 1 for base in range(2, 42))

    @given(secrets, st.data())
    def test_any_threshold_of_shares_gives_the_secret_back(
        self, secret: Secret, data: st.DataObject
    ) -> None:
        places = data.draw(st.lists(st.integers(1, 1_000), min_size=1, max_size=12, unique=True))
        threshold = data.draw(st.integers(1, len(places)))
        shares = split_secret(secret, threshold, places, stream())
        chosen = data.draw(st.permutations(range(len(places))))[:threshold]
        weights = interpolation_weights([places[index] for index in chosen])
        values = [read_share(shares[index]) for index in chosen]
        assert {len(share) for share in shares} == {SHARE_BYTES}
        assert combine_shares(values, weights) == secret

    @given(secrets, secrets, st.integers(2, 8))
    def test_fewer_shares_fit_every_secret(
        self, secret: Secret, other: Secret, threshold: int
    ) -> None:
        shares = split_secret(secret, threshold, range(1, threshold + 1), stream())
        known = [read_share(share) for share in shares[: threshold - 1]]
        weights = interpolation_weights(range(1, threshold + 1))
        wanted = int.from_bytes(other, "little")
        partial = sum(share * weight for share, weight in zip(known, weights, strict=False))
        last = (wanted - partial) * pow(weights[-1], -1, PRIME) % PRIME
        assert combine_shares([*known, last], weights) == other

    def test_shares_of_one_secret_differ_by_stream(self) -> None:
        secret = new_secret()
        first, second = (split_secret(secret, 2, (1, 2), stream(seed)) for seed in (1, 2))
        assert not set(first) & set(second)

    def test_shares_that_fit_no_secret_are_refused(self) -> None:
        with pytest.raises(PeerMessageError, match="do not fit together"):
            combine_shares([1 << 256], [1])

    @pytest.mark.parametrize(
        ("secret", "threshold", "places"),
        [
            (bytes(31), 1, (1,)),
            (bytes(32), 0, (1, 2)),
            (bytes(32), 3, (1, 2)),
            (bytes(32), 1, (0, 1)),
            (bytes(32), 1, (1, 1)),
        ],
    )
    def test_what_cannot_be_cut_is_refused(
        self, secret: bytes, threshold: int, places: tuple[int, ...]
    ) -> None:
        with pytest.raises(InvalidParameterError):
            split_secret(Secret(secret), threshold, places, stream())

    @pytest.mark.parametrize("share", [b"", bytes(32), bytes(34), PRIME.to_bytes(33, "little")])
    def test_what_is_no_share_is_refused(self, share: bytes) -> None:
        with pytest.raises(PeerMessageError, match="expected a share"):
            read_share(share)


class TestKeys:
    def test_agreement_is_that_of_rfc_7748(self) -> None:
        # RFC 7748 section 6.1
        alice = "77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a"
        bob = "5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb"
        shared = "4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742"
        one, other = (keys.private_key(Secret(bytes.fromhex(text))) for text in (alice, bob))
        assert keys.agree(one, keys.public_bytes(other)).hex() == shared
        assert keys.agree(other, keys.public_bytes(one)).hex() == shared

    @given(st.integers(0, 200_000), st.sampled_from(["<u4", "<u8"]))
    @settings(max_examples=20)
    def test_a_mask_is_added_and_taken_away(self, length: int, entry: str) -> None:
        secret = new_secret()
        total = np.arange(length, dtype=entry)
        keys.add_mask(total, keys.own_mask(secret))
        assert length < 4 or not np.array_equal(total, np.arange(length, dtype=entry))
        plain = np.frombuffer(keys.own_mask(secret).take(total.nbytes), dtype=entry)
        assert np.array_equal(total, np.arange(length, dtype=entry) + plain)
        keys.add_mask(total, keys.own_mask(secret), negative=True)
        assert np.array_equal(total, np.arange(length, dtype=entry))

    def test_secrets_differ_by_aggregation_and_purpose(self) -> None:
        secret = new_secret()
        derived = [keys.PartySecrets.derived(secret, digest * 64) for digest in "01"]
        raw = {
            part
            for one in derived
            for part in (
                one.channel.private_bytes_raw(),
                one.mask.private_bytes_raw(),
                one.own_mask,
                keys.commitment(one.own_mask),
                keys.own_mask(one.own_mask).take(32),
            )
        }
        assert len(raw) == 10

    def test_a_common_mask_is_of_one_roster_and_two_parties_in_either_order(self) -> None:
        shared = new_secret()
        cases = [("0", "a", "b"), ("1", "a", "b"), ("0", "a", "c"), ("0", "b", "c")]
        masks = [keys.common_mask(shared, *case).take(32) for case in cases]
        assert len(set(masks)) == 4
        assert keys.common_mask(shared, "0", "b", "a").take(32) == masks[0]

    def test_shares_open_under_one_key_roster_sender_and_recipient(self) -> None:
        shared = new_secret()
        sealed = keys.seal(b"shares", shared, "0", "a", "b")
        assert keys.unseal(sealed, shared, "0", "a", "b") == b"shares"
        others = [
            (new_secret(), "0", "a", "b"),
            (shared, "1", "a", "b"),
            (shared, "0", "c", "b"),
            (shared, "0", "a", "c"),
            (shared, "0", "b", "a"),
        ]
        for other in others:
            with pytest.raises(PeerMessageError, match="do not open"):
                keys.unseal(sealed, *other)

    def test_what_is_signed_once_is_nothing_else(self) -> None:
        simulation = Simulation(plan_of(3, 2))
        said = simulation.speak("party-000", 0)
        signed = {keys.signed_keys(said)}
        for field in ("channel_key", "mask_key", "mask_commitment"):
            signed.add(keys.signed_keys(said.model_copy(update={field: bytes(range(32))})))
        signed.add(keys.signed_keys(said.model_copy(update={"sender": "party-001"})))
        signed.add(keys.signed_keys(said.model_copy(update={"aggregation": "0" * 64})))
        for survivors in (("a", "b"), ("a-b",), ("a",)):
            signed.add(keys.signed_survivors("0" * 64, "1" * 64, survivors))
        signed.add(keys.signed_survivors("1" * 64, "1" * 64, ("a", "b")))
        signed.add(keys.signed_survivors("0" * 64, "0" * 64, ("a", "b")))
        assert len(signed) == 11


class TestPlan:
    @given(st.integers(2, 40), st.data())
    def test_a_threshold_is_refused_where_two_groups_could_reach_it(
        self, count: int, data: st.DataObject
    ) -> None:
        colluding = data.draw(st.integers(0, count))
        threshold = (count + colluding) // 2 + data.draw(st.integers(-2, 2))
        # Honest parties answer once, colluding ones twice: can two quorums be had?
        two_quorums = 2 * threshold <= (count - colluding) + 2 * colluding
        hides = colluding + 2 <= threshold <= count
        try:
            plan_of(count, threshold, colluding=colluding)
            accepted = True
        except InvalidParameterError:
            accepted = False
        assert accepted == (hides and not two_quorums)
        if hides:
            plan_of(count, threshold, colluding=colluding, server=ServerTrust.FOLLOWS_PROTOCOL)

    @pytest.mark.parametrize(
        "changes",
        [
            {"parties": ("a",)},
            {"parties": ("b", "a", "c")},
            {"parties": ("a", "a", "b")},
            {"parties": ("A", "b", "c")},
            {"parties": tuple(f"p{number:04d}" for number in range(1_001)), "threshold": 900},
            {"context": "ab"},
            {"ring_bits": 16},
            {"length": 0},
            {"length": (1 << 27) + 1},
            {"threshold": 4},
            {"threshold": "3"},
            {"colluding": -1},
            {"server": "honest"},
            {"neighbours": Neighbours.FEW},
            {"unknown": 1},
        ],
        ids="-".join,
    )
    def test_a_plan_out_of_range_is_refused(self, changes: dict[str, Any]) -> None:
        good = {"context": "ab" * 32, "parties": ("a", "b", "c"), "threshold": 3, "length": 1}
        Plan(**good)
        with pytest.raises(InvalidParameterError, match="plan of a sum"):
            Plan(**(good | changes))

    def test_every_term_is_in_the_digest(self) -> None:
        semi = ServerTrust.FOLLOWS_PROTOCOL
        plans = [
            plan_of(24, 21),
            plan_of(24, 22),
            plan_of(25, 21),
            plan_of(24, 21, colluding=1),
            plan_of(24, 21, server=semi),
            plan_of(24, 21, server=semi, neighbours=Neighbours.FEW),
            plan_of(24, 21, ring_bits=32),
            plan_of(24, 21, length=6),
            plan_of(24, 21, context="cd" * 32),
        ]
        assert len({plan.digest for plan in plans}) == len(plans)
        assert plan_of(24, 21).digest == plans[0].digest

    def test_a_plan_is_read_back_from_its_json(self) -> None:
        plan = plan_of(5, 4, colluding=1)
        assert Plan(**plan.model_dump(mode="json")) == plan


class TestNeighbourhood:
    @pytest.mark.parametrize(
        ("count", "colluding", "dropping"),
        [(24, 0, 3), (50, 5, 5), (100, 5, 5), (100, 10, 10), (100, 20, 10), (500, 100, 50)],
    )
    def test_it_is_the_smallest_that_holds(self, count: int, colluding: int, dropping: int) -> None:
        def holds(degree: int, threshold: int) -> bool:
            exposed = count * stats.hypergeom.sf(
                threshold - 1, count - dropping - 1, colluding, degree
            )
            gone = colluding + dropping
            removed = stats.hypergeom.pmf(degree, count, gone, degree)
            parted = count * (count - 1) / 2 * removed
            stuck = count * stats.hypergeom.sf(degree - threshold, count - 1, dropping, degree)
            return bool(exposed + parted <= 2**-40 and stuck <= 2**-20)

        chosen = choose_neighbourhood(count, colluding=colluding, dropping=dropping)
        assert chosen is not None
        assert holds(chosen.degree, chosen.share_threshold)
        assert chosen.degree % 2 == 0
        assert chosen.degree < count - dropping - 1
        smaller = range(2, chosen.degree, 2)
        assert not any(holds(k, t) for k in smaller for t in range(2, k + 1))

    @pytest.mark.parametrize("count", [2, 3, 5, 8])
    def test_few_parties_have_no_choice(self, count: int) -> None:
        assert choose_neighbourhood(count, colluding=0, dropping=count // 2) is None
        plan = plan_of(
            count,
            max(2, count - count // 2),
            server=ServerTrust.FOLLOWS_PROTOCOL,
            neighbours=Neighbours.FEW,
        )
        assert plan.neighbourhood is None
        assert plan.share_threshold == plan.threshold

    @pytest.mark.parametrize(("colluding", "dropping"), [(-1, 0), (0, -1), (5, 5)])
    def test_a_choice_out_of_range_is_refused(self, colluding: int, dropping: int) -> None:
        with pytest.raises(InvalidParameterError):
            choose_neighbourhood(10, colluding=colluding, dropping=dropping)

    @given(st.integers(6, 40), st.binary(min_size=32, max_size=32), st.data())
    def test_neighbours_are_mutual_and_as_many_as_agreed(
        self, count: int, digest: bytes, data: st.DataObject
    ) -> None:
        degree = 2 * data.draw(st.integers(1, (count - 2) // 2))
        graph = Graph.drawn(count, Neighbourhood(degree, 2), digest)
        near = [graph.neighbours(place) for place in range(count)]
        assert {len(one) for one in near} == {degree}
        assert all(place not in near[place] for place in range(count))
        assert all(place in near[other] for place in range(count) for other in near[place])

    def test_without_a_choice_all_are_neighbours(self) -> None:
        graph = Graph.drawn(5, None, bytes(32))
        assert all(graph.neighbours(place) == set(range(5)) - {place} for place in range(5))

    def test_every_pair_is_as_likely_to_be_neighbours(self) -> None:
        counted = np.zeros((8, 8))
        for seed in range(3_000):
            graph = Graph.drawn(8, Neighbourhood(2, 2), seeded_secret(seed, "graph"))
            for place in range(8):
                counted[place, list(graph.neighbours(place))] += 1
        pairs = counted[np.triu_indices(8, 1)]
        assert abs(pairs - 3_000 * 2 / 7).max() < 5 * np.sqrt(3_000 * 2 / 7)

    def test_a_graph_parts_only_where_two_gaps_are_as_wide_as_its_reach(self) -> None:
        graph = Graph(tuple(range(12)), 2)
        for gone in itertools.combinations(range(12), 4):
            runs = sum(
                1 for start in gone if (start + 1) % 12 in gone and (start - 1) % 12 not in gone
            )
            stay = set(range(12)) - set(gone)
            reached, frontier = set(), {min(stay)}
            while frontier:
                reached |= frontier
                frontier = {
                    other for place in frontier for other in graph.neighbours(place)
                } & stay - reached
            assert (reached == stay) == (runs < 2)


@pytest.fixture(scope="module")
def written() -> dict[type, bytes]:
    """One message of each kind, from a real run, as JSON."""
    simulation = Simulation(plan_of(3, 2))
    kept: dict[type, bytes] = {}
    for number in range(5):
        before = dict(simulation.states), simulation.at_server
        said = simulation.speak("party-000", number)
        kept[type(said)] = said.to_json()
        simulation.states, simulation.at_server = before
        told = simulation.round(number)
        told = told["party-000"] if number == 1 else told
        if number < 4:
            kept[type(told)] = told.to_json()
    return kept


class TestMessages:
    @pytest.mark.parametrize("kind", MESSAGES, ids=lambda kind: kind.__name__)
    def test_a_message_is_read_back(self, written: dict[type, bytes], kind: Any) -> None:
        plan = plan_of(3, 2)
        message = kind.from_json(written[kind], plan)
        assert message.to_json() == written[kind]
        assert message.aggregation == plan.digest

    @pytest.mark.parametrize("kind", MESSAGES, ids=lambda kind: kind.__name__)
    def test_every_other_kind_and_damage_is_refused(
        self, written: dict[type, bytes], kind: Any
    ) -> None:
        good = written[kind]
        others = [raw for other, raw in written.items() if other is not kind]
        damaged = [
            b"",
            good[:-1],
            good + b"{}",
            good[:-1] + b',"more":1}',
            good.replace(b'"aggregation":"', b'"aggregation":"0'),
            good.replace(b'"aggregation"', b'"aggregated"'),
            b"\xff" + good,
            b"null",
            b"[" * 10_000,
        ]
        for raw in (*others, *damaged):
            with pytest.raises(PeerMessageError, match=f"malformed {kind.__name__}"):
                kind.from_json(raw, plan_of(3, 2))

    @pytest.mark.parametrize("kind", MESSAGES, ids=lambda kind: kind.__name__)
    @given(st.binary(max_size=200) | st.text(max_size=100).map(str.encode))
    @settings(max_examples=20)
    def test_bytes_raise_nothing_else(self, kind: Any, raw: bytes) -> None:
        with pytest.raises(PeerMessageError):
            kind.from_json(raw, plan_of(3, 2))

    @pytest.mark.parametrize("kind", MESSAGES, ids=lambda kind: kind.__name__)
    def test_an_oversized_message_is_refused_unread(self, kind: Any) -> None:
        plan = plan_of(3, 2)
        with pytest.raises(PeerMessageError, match="at most"):
            kind.from_json(b" " * (plan.largest_message + 1), plan)

    def test_the_largest_messages_fit(self) -> None:
        plan = plan_of(100, 67, length=1)
        simulation = Simulation(plan, stored=False)
        simulation.round(0)
        assert len(simulation.told.to_json()) < plan.largest_message
        vector = MaskedVector(aggregation="0" * 64, sender="a" * 63, vector=bytes(80_000))
        assert len(vector.to_json()) < plan_of(2, 2, length=10_000).largest_message

    @pytest.mark.parametrize(
        "parties", [("b", "a"), ("a", "a"), ("A",), ("",), ("a" * 64,), ("a\n",)]
    )
    def test_lists_are_in_order_each_party_once(self, parties: tuple[str, ...]) -> None:
        raw = b'{"aggregation":"%b","parties":%b}' % (
            b"0" * 64,
            str(list(parties)).replace("'", '"').encode(),
        )
        with pytest.raises(PeerMessageError, match="malformed Survivors"):
            Survivors.from_json(raw, plan_of(3, 2))

    @given(st.binary(max_size=100) | st.just(b'{"kind":"unmasked"}'))
    def test_a_damaged_state_is_refused(self, raw: bytes) -> None:
        for read in (read_client_state, read_server_state):
            with pytest.raises(InvalidParameterError, match="cannot be read"):
                read(raw)


class TestFixedPoint:
    @given(st.data())
    def test_the_decoded_sum_is_the_sum_of_what_was_rounded(self, data: st.DataObject) -> None:
        parties = data.draw(st.integers(1, 6))
        bits = data.draw(st.sampled_from([32, 64]))
        point = FixedPoint(bits, parties, data.draw(st.integers(0, 20)))
        bound = min(point.bound, 1e6)
        vectors = data.draw(
            arrays.arrays(
                np.float64,
                (parties, 4),
                elements=st.floats(-bound, bound, allow_subnormal=False),
            )
        )
        total = sum(
            (point.encode(vector) for vector in vectors),
            np.zeros(4, dtype=f"<u{bits // 8}"),
        )
        step = 2.0**-point.fraction_bits
        exact = np.rint(vectors / step).sum(axis=0) * step
        assert np.array_equal(point.decode(total), exact)
        assert np.abs(exact - vectors.sum(axis=0)).max() <= parties * step / 2 * (1 + 1e-9)

    @pytest.mark.parametrize("bits", [32, 64])
    @pytest.mark.parametrize("parties", [1, 2, 3, 1_000])
    @pytest.mark.parametrize("sign", [-1, 1])
    def test_the_largest_integers_do_not_wrap_around(
        self, bits: int, parties: int, sign: int
    ) -> None:
        point = FixedPoint(bits, parties, 0)
        largest = np.array([sign * point.largest_integer], dtype=np.int64)
        one = point.to_ring(largest)
        total = np.zeros_like(one)
        for _ in range(parties):
            total += one
        assert point.integers(total)[0] == sign * point.largest_integer * parties
        if bits == 32:
            with pytest.raises(InvalidParameterError, match="wrap around"):
                point.to_ring(largest + sign)

    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e9, -1e9, 8_388_608.0])
    def test_what_is_not_finite_or_too_large_is_refused(self, value: float) -> None:
        point = FixedPoint(32, 2, 7)
        values = np.array([0.0, value, 1.0])
        with pytest.raises(InvalidParameterError, match=r"expected (finite )?numbers"):
            point.encode(values)

    def test_the_bound_itself_is_taken(self) -> None:
        point = FixedPoint(32, 3, 7)
        assert point.to_ring(point.round(np.array([point.bound, -point.bound]))).shape == (2,)

    @pytest.mark.parametrize(
        ("bits", "parties", "fraction"), [(16, 1, 0), (64, 0, 0), (64, 1, -1), (64, 1, 53)]
    )
    def test_a_point_out_of_range_is_refused(self, bits: int, parties: int, fraction: int) -> None:
        with pytest.raises(InvalidParameterError):
            FixedPoint(bits, parties, fraction)

    @pytest.mark.parametrize("dtype", ["<i8", "<u8", "?", "<c16"])
    def test_only_floats_are_rounded(self, dtype: str) -> None:
        with pytest.raises(InvalidParameterError, match="floating"):
            FixedPoint(64, 2, 8).round(np.zeros(2, dtype=dtype))

    def test_other_widths_are_refused(self) -> None:
        point = FixedPoint(64, 2, 8)
        with pytest.raises(InvalidParameterError, match="64 bits"):
            point.decode(np.zeros(2, dtype="<u4"))
        with pytest.raises(InvalidParameterError, match="64-bit"):
            point.to_ring(np.zeros(2, dtype=np.int32))
