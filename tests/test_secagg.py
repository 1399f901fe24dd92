"""The protocol of secure aggregation: honest runs, dropouts, and what attacks get."""

import itertools
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from summing import ROUNDS, Simulation, names, plain_sum, plan_of

from privacy.errors import InvalidParameterError, MissingPartiesError, PeerMessageError
from privacy.randomness import Secret, seeded_secret
from privacy.secagg import Neighbours, Plan, ServerTrust, keys
from privacy.secagg.client import Client
from privacy.secagg.messages import (
    Confirmation,
    Confirmations,
    KeyRoster,
    MaskedVector,
    SealedShare,
    ShareDelivery,
    ShareKind,
    Survivors,
)
from privacy.secagg.roster import Roster
from privacy.secagg.shamir import PRIME, SHARE_BYTES, combine_shares, interpolation_weights

WHAT = (
    "advertised keys",
    "shared their secrets",
    "sent a masked vector",
    "confirmed who survived",
    "revealed shares",
)
A, B, C, D, E = names(5)


@st.composite
def aggregations(draw: st.DrawFn) -> tuple[Plan, dict[str, int]]:
    """Draw a plan, and for some parties the round in which they fall silent."""
    count = draw(st.integers(2, 7))
    server = draw(st.sampled_from(ServerTrust))
    lowest = count // 2 + 1 if server is ServerTrust.MAY_LIE else 2
    plan = plan_of(
        count,
        draw(st.integers(max(2, lowest), count)),
        server=server,
        ring_bits=draw(st.sampled_from([32, 64])),
        length=draw(st.integers(1, 40)),
    )
    silent = draw(st.dictionaries(st.sampled_from(plan.parties), st.integers(0, ROUNDS - 1)))
    return plan, silent


class TestHonestParties:
    @settings(max_examples=40)
    @given(aggregations(), st.integers(0, 2**32))
    def test_the_sum_is_exact_or_there_are_too_few(
        self, drawn: tuple[Plan, dict[str, int]], seed: int
    ) -> None:
        plan, silent = drawn
        simulation = Simulation(plan, silent, seed)
        there = [
            [name for name in plan.parties if silent.get(name, ROUNDS) > number]
            for number in range(ROUNDS)
        ]
        short = [number for number in range(ROUNDS) if len(there[number]) < plan.threshold]
        if not short:
            aggregate = simulation.run()
            assert aggregate.parties == tuple(there[2])
            expected = plain_sum(plan, simulation.inputs, there[2])
            assert np.array_equal(aggregate.total, expected)
            return
        with pytest.raises(MissingPartiesError, match=WHAT[short[0]]) as caught:
            simulation.run()
        assert caught.value.present == len(there[short[0]])
        assert caught.value.missing == plan.threshold - len(there[short[0]])

    @pytest.mark.parametrize("number", range(ROUNDS))
    def test_dropouts_down_to_the_threshold_at_one_round(self, number: int) -> None:
        plan = plan_of(7, 4)
        silent = dict.fromkeys(plan.parties[1:4], number)
        simulation = Simulation(plan, silent)
        aggregate = simulation.run()
        assert len(aggregate.parties) == (4 if number < 3 else 7)
        expected = plain_sum(plan, simulation.inputs, aggregate.parties)
        assert np.array_equal(aggregate.total, expected)

    @settings(max_examples=3)
    @given(st.data())
    def test_few_neighbours_give_the_same_sum(self, data: st.DataObject) -> None:
        plan = plan_of(
            24, 21, server=ServerTrust.FOLLOWS_PROTOCOL, neighbours=Neighbours.FEW, ring_bits=32
        )
        assert plan.neighbourhood is not None
        dropping = data.draw(st.sets(st.sampled_from(plan.parties), max_size=3))
        silent = {name: data.draw(st.integers(0, ROUNDS - 1)) for name in sorted(dropping)}
        simulation = Simulation(plan, silent, stored=False)
        aggregate = simulation.run()
        expected = plain_sum(plan, simulation.inputs, aggregate.parties)
        assert np.array_equal(aggregate.total, expected)

    def test_few_neighbours_share_with_few(self) -> None:
        plan = plan_of(24, 21, server=ServerTrust.FOLLOWS_PROTOCOL, neighbours=Neighbours.FEW)
        simulation = Simulation(plan).until(1)
        said = simulation.speak(A, 1)
        assert plan.neighbourhood is not None
        assert len(said.shares) == plan.neighbourhood.degree < 23

    def test_a_vector_that_comes_too_late_stays_masked(self) -> None:
        """Its sender counts as dropped out and its mask key is revealed, but not its own mask."""
        plan = plan_of(4, 3, length=64)
        simulation = Simulation(plan).until(2)
        late = simulation.speak(D, 2)
        simulation.silent = {D: 2}
        for number in (2, 3):
            simulation.round(number)
        unmaskings = [simulation.speak(name, 4) for name in (A, B, C)]
        roster = Roster.of(simulation.told_roster, plan)
        bare = np.frombuffer(late.vector, dtype=plan.entry).copy()
        private = keys.private_key(known_secret(unmaskings, roster, D, ShareKind.MASK_KEY, 3))
        for other in (A, B, C):
            shared = keys.agree(private, roster.keys[other].mask_key)
            mask = keys.common_mask(shared, roster.digest, D, other)
            keys.add_mask(bare, mask)  # D took it away
        assert not (bare == simulation.inputs[D]).any()
        assert known_secret(unmaskings, roster, D, ShareKind.OWN_MASK, 3) is None

    def test_masks_are_fresh_for_every_context(self) -> None:
        first, second = (
            Simulation(plan_of(3, 2, length=1_000, context=context)).until(2)
            for context in ("ab" * 32, "cd" * 32)
        )
        one = np.frombuffer(first.speak(A, 2).vector, dtype="<u8")
        other = np.frombuffer(second.speak(A, 2).vector, dtype="<u8")
        assert np.array_equal(first.inputs[A], second.inputs[A])
        assert first.secret(A) == second.secret(A)
        assert not (one == other).any()
        assert not (one == first.inputs[A]).any()

    def test_a_masked_zero_looks_uniform(self) -> None:
        simulation = Simulation(plan_of(3, 2, length=20_000))
        simulation.inputs = {
            name: np.zeros(20_000, dtype="<u8") for name in simulation.plan.parties
        }
        said = simulation.until(2).speak(A, 2)
        counted = np.bincount(np.frombuffer(said.vector, dtype=np.uint8), minlength=256)
        statistic = float(np.sum((counted - 625) ** 2 / 625))
        assert statistic < 360  # chi-square, 255 degrees of freedom: chance 1e-5


def known_secret(
    unmaskings: list[Any], roster: Roster, owner: str, kind: ShareKind, threshold: int
) -> Secret | None:
    """Return the secret that a server can put together, if it has shares enough."""
    shares = [
        (roster.place(message.sender), int.from_bytes(one.share, "little"))
        for message in unmaskings
        for one in message.shares
        if (one.owner, one.kind) == (owner, kind)
    ][:threshold]
    if len(shares) < threshold:
        return None
    places, values = zip(*shares, strict=True)
    return combine_shares(values, interpolation_weights(places))


@dataclass
class Played:
    """One aggregation of three, and of its rounds what A remembered, said and was told.

    Attributes:
        client: A's states after each round.
        server: the server's states before each round.
        said: A's messages.
        told: the server's, to A.
    """

    simulation: Simulation
    client: list[Any] = field(default_factory=list)
    server: list[Any] = field(default_factory=list)
    said: list[Any] = field(default_factory=list)
    told: list[Any] = field(default_factory=list)


@pytest.fixture(scope="module")
def played() -> Played:
    """Play once: the cores are deterministic, so that A may say everything twice."""
    simulation = Simulation(plan_of(3, 2))
    kept = Played(simulation)
    for number in range(ROUNDS):
        kept.server.append(simulation.at_server)
        before = dict(simulation.states)
        kept.said.append(simulation.speak(A, number))
        simulation.states = before
        told = simulation.round(number)
        kept.client.append(simulation.states[A])
        kept.told.append(told[A] if number == 1 else told)
    return kept


class TestStates:
    """Every pair of state and step: one step fits each state, all others are refused."""

    CLIENT_STEPS = ("share", "mask", "confirm", "unmask")
    CLIENT_STATES = ("advertised", "shared", "masked", "confirmed", "unmasked")
    SERVER_STATES = (
        "awaiting-keys",
        "awaiting-shares",
        "awaiting-vectors",
        "awaiting-confirmations",
        "awaiting-unmaskings",
    )

    @pytest.mark.parametrize(("state", "step"), list(itertools.product(range(5), range(4))))
    def test_a_client_takes_each_message_in_its_state_alone(
        self, played: Played, state: int, step: int
    ) -> None:
        client: Client = played.simulation.clients[A]
        given_state = played.client[state]
        assert given_state.kind == self.CLIENT_STATES[state]
        told = played.told[step]
        arguments = [told, played.simulation.inputs[A]] if step == 1 else [told]
        take = getattr(client, self.CLIENT_STEPS[step])
        if state == step:
            new, _ = take(given_state, *arguments)
            assert new.kind == self.CLIENT_STATES[state + 1]
        else:
            with pytest.raises(PeerMessageError, match="out of turn"):
                take(given_state, *arguments)

    @pytest.mark.parametrize(
        ("state", "step", "closing"), list(itertools.product(range(5), range(5), (False, True)))
    )
    def test_a_server_takes_each_message_in_its_state_alone(
        self, played: Played, state: int, step: int, closing: bool
    ) -> None:
        simulation = Simulation(plan_of(3, 2))
        server = simulation.server
        at = played.server[state]
        assert at.kind == self.SERVER_STATES[state]
        if closing:
            close = (*(simulation.close(number) for number in range(4)), server.close)[step]
            if state == step:
                with pytest.raises(MissingPartiesError, match="0 of 3"):
                    close(at)
            else:
                with pytest.raises(PeerMessageError, match="out of turn"):
                    close(at)
        elif state == step:
            new = simulation.take(step)(at, played.said[step])
            assert new.kind == self.SERVER_STATES[state]
            with pytest.raises(PeerMessageError, match="second message"):
                simulation.take(step)(new, played.said[step])
        else:
            with pytest.raises(PeerMessageError, match="out of turn"):
                simulation.take(step)(at, played.said[step])

    def test_secrets_are_forgotten_when_no_later_step_needs_them(self, played: Played) -> None:
        advertised, shared, masked, confirmed, unmasked = played.client
        assert advertised.secret == shared.secret
        assert {"secret", "own"}.isdisjoint(type(masked).model_fields)
        assert {"secret", "own"}.isdisjoint(type(confirmed).model_fields)
        assert set(type(unmasked).model_fields) == {"aggregation", "kind"}

    def test_a_state_shows_no_secret(self, played: Played) -> None:
        for state in played.client:
            shown = repr(state)
            assert "secret=" not in shown
            assert "own_mask" not in shown
        assert "total" not in repr(played.server[3])

    def test_a_state_of_another_aggregation_is_refused(self, played: Played) -> None:
        other = Simulation(plan_of(3, 3)).clients[A]
        with pytest.raises(PeerMessageError, match="expected a message of aggregation"):
            other.share(played.client[0], played.told[0])


class TestLyingServer:
    def test_a_client_reveals_once_and_one_share_of_each_party(self) -> None:
        simulation = Simulation(plan_of(4, 3)).until(3)
        masked = simulation.states[B]
        everybody, others = tuple(simulation.plan.parties), (B, C, D)
        confirmed, first = simulation.clients[B].confirm(masked, survivors(simulation, everybody))
        with pytest.raises(PeerMessageError, match="out of turn"):
            simulation.clients[B].confirm(confirmed, survivors(simulation, others))
        assert first.signature
        simulation.round(3)
        state = simulation.states[B]
        unmasked, said = simulation.clients[B].unmask(state, simulation.told)
        assert [one.owner for one in said.shares] == list(everybody)
        assert {one.kind for one in said.shares} == {ShareKind.OWN_MASK}
        with pytest.raises(PeerMessageError, match="out of turn"):
            simulation.clients[B].unmask(unmasked, simulation.told)

    @settings(max_examples=40)
    @given(st.data())
    def test_no_lists_of_survivors_give_both_secrets_of_a_party(self, data: st.DataObject) -> None:
        """The server shows anything to anybody; one party, if agreed, is in league with it."""
        colluding = data.draw(st.integers(0, 1))
        simulation = masked_of_five(colluding)
        plan, everybody = simulation.plan, simulation.plan.parties
        subsets = st.sets(st.sampled_from(everybody), min_size=3).map(sorted).map(tuple)
        lists = [*data.draw(st.lists(subsets, min_size=1, max_size=2)), everybody]
        signed, states = {shown: {} for shown in lists}, {}
        roster = Roster.of(simulation.told_roster, plan)
        for name in everybody[colluding:]:
            shown = data.draw(st.sampled_from(lists))
            try:
                states[name], said = simulation.clients[name].confirm(
                    simulation.states[name], survivors(simulation, shown)
                )
            except (PeerMessageError, MissingPartiesError):
                continue
            signed[shown][name] = said
        for shown in lists:
            for name in everybody[:colluding]:
                signature = simulation.directory.keys[name].sign(
                    keys.signed_survivors(plan.digest, roster.digest, shown)
                )
                signed[shown][name] = Confirmation(
                    aggregation=plan.digest, sender=name, signature=signature
                )
        known = {
            (one, owner, kind)
            for one in everybody[:colluding]
            for owner in everybody
            for kind in ShareKind
        }
        for (name, state), shown in itertools.product(states.items(), lists):
            items = [one for _, one in sorted(signed[shown].items()) if one.sender in shown]
            try:
                _, said = simulation.clients[name].unmask(state, confirmations(simulation, items))
            except (PeerMessageError, MissingPartiesError):
                continue
            known |= {(name, one.owner, one.kind) for one in said.shares}
        for owner in everybody:
            counts = [sum((one, owner, kind) in known for one in everybody) for kind in ShareKind]
            assert min(counts) < plan.threshold

    def test_different_sets_of_survivors_find_no_quorum(self) -> None:
        simulation = Simulation(plan_of(4, 3)).until(3)
        everybody, others = tuple(simulation.plan.parties), (B, C, D)
        told = {A: everybody, B: everybody, C: others, D: others}
        said = {}
        for name, parties in told.items():
            simulation.states[name], said[name] = simulation.clients[name].confirm(
                simulation.states[name], survivors(simulation, parties)
            )
        for name, parties in told.items():
            alike = [one for one in told if told[one] == parties]
            for signers in (alike, [*alike, *(set(told) - set(alike))]):
                message = confirmations(simulation, [said[one] for one in sorted(signers)])
                with pytest.raises((MissingPartiesError, PeerMessageError)):
                    simulation.clients[name].unmask(simulation.states[name], message)

    @pytest.mark.parametrize(
        ("threshold", "server"), [(2, ServerTrust.FOLLOWS_PROTOCOL), (3, ServerTrust.MAY_LIE)]
    )
    def test_a_threshold_of_half_would_give_an_input_away(
        self, threshold: int, server: ServerTrust
    ) -> None:
        """The attack that `plan` refuses thresholds for: it works on a plan that trusts."""
        plan = plan_of(4, threshold, server=server)
        simulation = Simulation(plan).until(2)
        vector = simulation.speak(A, 2)
        roster = Roster.of(simulation.told_roster, plan)
        for name in (B, C, D):
            simulation.speak(name, 2)
        told = {A: plan.parties, B: plan.parties, C: (B, C, D), D: (B, C, D)}
        said, unmaskings = {}, []
        for name, parties in told.items():
            simulation.states[name], said[name] = simulation.clients[name].confirm(
                simulation.states[name], survivors(simulation, parties)
            )
        for pair in ((A, B), (C, D)):
            for name in pair:
                message = confirmations(simulation, [said[one] for one in pair])
                try:
                    _, unmasking = simulation.clients[name].unmask(simulation.states[name], message)
                except MissingPartiesError:
                    continue
                unmaskings.append(unmasking)
        own = known_secret(unmaskings, roster, A, ShareKind.OWN_MASK, 2)
        mask_key = known_secret(unmaskings, roster, A, ShareKind.MASK_KEY, 2)
        if server is ServerTrust.MAY_LIE:
            assert not unmaskings
            return
        assert own is not None
        assert mask_key is not None
        bare = np.frombuffer(vector.vector, dtype=plan.entry).copy()
        keys.add_mask(bare, keys.own_mask(own), negative=True)
        for other in (B, C, D):
            shared = keys.agree(keys.private_key(mask_key), roster.keys[other].mask_key)
            mask = keys.common_mask(shared, roster.digest, A, other)
            keys.add_mask(bare, mask, negative=True)
        assert np.array_equal(bare, simulation.inputs[A])

    @pytest.mark.parametrize(
        ("parties", "match"),
        [
            ((A, B), "2 of 5 parties sent a masked vector, 3 are needed: 1 missing"),
            ((B, C, D), f"{A} sent its masked vector and is no survivor"),
            ((A, B, C, "stranger"), "was not given: stranger"),
            ((A, B, C, E), f"was not given: {E}"),
        ],
    )
    def test_survivors_that_cannot_be_are_not_signed(
        self, parties: tuple[str, ...], match: str
    ) -> None:
        simulation = Simulation(plan_of(5, 3), {E: 1}).until(3)
        with pytest.raises((PeerMessageError, MissingPartiesError), match=match):
            simulation.clients[A].confirm(simulation.states[A], survivors(simulation, parties))

    def test_keys_that_their_owner_did_not_sign_are_refused(self) -> None:
        simulation = Simulation(plan_of(3, 2)).until(1)
        server_key = keys.private_key(seeded_secret(0, "the server's"))
        for name in ("channel_key", "mask_key", "mask_commitment"):
            swapped = self.with_keys(simulation, B, **{name: keys.public_bytes(server_key)})
            with pytest.raises(PeerMessageError, match=f"not signed by {B}"):
                simulation.clients[A].share(simulation.states[A], swapped)

    def test_keys_of_another_aggregation_are_refused(self) -> None:
        simulation = Simulation(plan_of(3, 2)).until(1)
        earlier = Simulation(plan_of(3, 2, context="cd" * 32)).until(1)
        (replayed,) = [one for one in earlier.told.advertisements if one.sender == B]
        for aggregation in (replayed.aggregation, simulation.plan.digest):
            update = replayed.model_dump() | {"aggregation": aggregation}
            with pytest.raises(PeerMessageError):
                simulation.clients[A].share(
                    simulation.states[A], self.with_keys(simulation, B, **update)
                )

    def test_a_roster_without_the_party_or_with_other_keys_of_it_is_refused(self) -> None:
        simulation = Simulation(plan_of(3, 2)).until(1)
        roster = simulation.told
        without = KeyRoster(
            aggregation=roster.aggregation, advertisements=roster.advertisements[1:]
        )
        older = Simulation(plan_of(3, 2), seed=1).until(1).told.advertisements[0]
        others = KeyRoster(
            aggregation=roster.aggregation, advertisements=(older, *roster.advertisements[1:])
        )
        for message in (without, others):
            with pytest.raises(PeerMessageError, match=f"other keys of {A}"):
                simulation.clients[A].share(simulation.states[A], message)

    def test_a_roster_of_too_few_or_under_another_name_is_refused(self) -> None:
        simulation = Simulation(plan_of(3, 2)).until(1)
        alone = simulation.told.model_copy(
            update={"advertisements": simulation.told.advertisements[:1]}
        )
        with pytest.raises(MissingPartiesError, match="1 of 3 parties advertised keys"):
            simulation.clients[A].share(simulation.states[A], alone)
        renamed = simulation.told.model_copy(update={"aggregation": "0" * 64})
        with pytest.raises(PeerMessageError, match="another agreement, job or round"):
            simulation.clients[A].share(simulation.states[A], renamed)

    def test_a_copied_key_cancels_no_mask(self) -> None:
        """C advertises A's mask key as its own: B's masks with A and C must not be the same."""
        plan = plan_of(3, 3, colluding=1)
        simulation = Simulation(plan).until(1)
        copied = self.with_keys(simulation, C, mask_key=simulation.told.advertisements[0].mask_key)
        signature = simulation.directory.keys[C].sign(keys.signed_keys(copied.advertisements[2]))
        roster = self.with_keys(
            simulation, C, mask_key=copied.advertisements[2].mask_key, signature=signature
        )
        said = {}
        for name in (A, B):
            simulation.states[name], said[name] = simulation.clients[name].share(
                simulation.states[name], roster
            )
        digest = Roster.of(roster, plan).digest
        secrets = keys.PartySecrets.derived(simulation.secret(C), plan.digest)
        shared = keys.agree(secrets.channel, roster.advertisements[1].channel_key)
        sealed = keys.seal(bytes(2 * SHARE_BYTES), shared, digest, C, B)
        delivered = ShareDelivery(
            aggregation=plan.digest,
            recipient=B,
            shares=(self.sealed_for(B, said[A]), SealedShare(party=C, sealed=sealed)),
        )
        _, vector = simulation.clients[B].mask(
            simulation.states[B], delivered, simulation.inputs[B]
        )
        bare = np.frombuffer(vector.vector, dtype=plan.entry).copy()
        own = keys.PartySecrets.derived(simulation.secret(B), plan.digest).own_mask
        keys.add_mask(bare, keys.own_mask(own), negative=True)
        assert not (bare == simulation.inputs[B]).any()

    def test_a_low_order_key_is_refused(self) -> None:
        simulation = Simulation(plan_of(3, 2)).until(1)
        forged = self.with_keys(simulation, B, channel_key=bytes(32))
        signature = simulation.directory.keys[B].sign(
            keys.signed_keys(forged.advertisements[1])
        )  # B is in league with the server
        forged = self.with_keys(simulation, B, channel_key=bytes(32), signature=signature)
        with pytest.raises(PeerMessageError, match="large order"):
            simulation.clients[A].share(simulation.states[A], forged)

    def test_parties_that_were_shown_other_keys_cannot_read_each_others_shares(self) -> None:
        simulation = Simulation(plan_of(4, 3)).until(1)
        roster = simulation.told
        fewer = KeyRoster(aggregation=roster.aggregation, advertisements=roster.advertisements[:3])
        said = {}
        for name, shown in ((A, roster), (B, fewer), (C, fewer)):
            simulation.states[name], said[name] = simulation.clients[name].share(
                simulation.states[name], shown
            )
        delivered = ShareDelivery(
            aggregation=roster.aggregation,
            recipient=A,
            shares=tuple(self.sealed_for(A, said[name]) for name in (B, C)),
        )
        with pytest.raises(PeerMessageError, match=f"{B} that do not open"):
            simulation.clients[A].mask(simulation.states[A], delivered, simulation.inputs[A])

    def test_shares_of_an_earlier_aggregation_do_not_open(self) -> None:
        simulation = Simulation(plan_of(3, 2)).until(2)
        earlier = Simulation(plan_of(3, 2, context="cd" * 32)).until(2)
        delivered = earlier.told[A]
        with pytest.raises(PeerMessageError, match="another agreement, job or round"):
            simulation.clients[A].mask(simulation.states[A], delivered, simulation.inputs[A])
        relabelled = delivered.model_copy(update={"aggregation": simulation.plan.digest})
        with pytest.raises(PeerMessageError, match="do not open"):
            simulation.clients[A].mask(simulation.states[A], relabelled, simulation.inputs[A])

    def test_shares_open_for_their_recipient_from_their_sender_alone(self) -> None:
        simulation = Simulation(plan_of(3, 2)).until(2)
        mine, other = simulation.told[A], simulation.told[B]
        reflected = SealedShare(party=B, sealed=other.shares[0].sealed)  # what A sealed for B
        swapped = tuple(
            SealedShare(party=one.party, sealed=two.sealed)
            for one, two in zip(mine.shares, reversed(mine.shares), strict=True)
        )
        changed = bytearray(mine.shares[0].sealed)
        changed[5] ^= 1
        tampered = SealedShare(party=mine.shares[0].party, sealed=bytes(changed))
        own = SealedShare(party=A, sealed=mine.shares[0].sealed)
        cases = {
            "brought to": other,
            "that do not open": mine.model_copy(update={"shares": swapped}),
            f"shares from {B} that do not": mine.model_copy(
                update={"shares": (reflected, mine.shares[1])}
            ),
            "do not open:": mine.model_copy(update={"shares": (tampered, mine.shares[1])}),
            "no neighbour": mine.model_copy(update={"shares": (own, *mine.shares)}),
        }
        for match, message in cases.items():
            with pytest.raises(PeerMessageError, match=match):
                simulation.clients[A].mask(simulation.states[A], message, simulation.inputs[A])

    def test_shares_outside_the_field_are_refused_from_whoever_cut_them(self) -> None:
        simulation = Simulation(plan_of(3, 2)).until(2)
        roster = Roster.of(simulation.told_roster, simulation.plan)
        secrets = keys.PartySecrets.derived(simulation.secret(B), simulation.plan.digest)
        shared = keys.agree(secrets.channel, roster.keys[A].channel_key)
        good = bytes(SHARE_BYTES)
        for plaintext in (good + b"\xff" * SHARE_BYTES, b"\xff" * SHARE_BYTES + good):
            sealed = keys.seal(plaintext, shared, roster.digest, B, A)
            shares = (SealedShare(party=B, sealed=sealed), simulation.told[A].shares[1])
            message = simulation.told[A].model_copy(update={"shares": shares})
            with pytest.raises(PeerMessageError, match="below the field's order"):
                simulation.clients[A].mask(simulation.states[A], message, simulation.inputs[A])

    def test_too_few_shares_leave_the_input_unsent(self) -> None:
        simulation = Simulation(plan_of(4, 3)).until(2)
        fewer = simulation.told[A].model_copy(update={"shares": simulation.told[A].shares[:1]})
        with pytest.raises(MissingPartiesError, match=r"2 of 4 parties shared.*: 1 missing"):
            simulation.clients[A].mask(simulation.states[A], fewer, simulation.inputs[A])

    def test_confirmations_must_be_survivors_over_the_same_set(self) -> None:
        simulation = Simulation(plan_of(4, 3), {D: 2}).until(4)
        good: Confirmations = simulation.told
        by_stranger = Confirmation(
            aggregation=good.aggregation, sender=D, signature=good.confirmations[2].signature
        )
        forged = by_stranger.model_copy(update={"sender": C})
        forged = forged.model_copy(update={"signature": good.confirmations[0].signature})
        for match, items in {
            "no survivor": (*good.confirmations, by_stranger),
            "not signed by": (*good.confirmations[:2], forged),
        }.items():
            message = good.model_copy(update={"confirmations": items})
            with pytest.raises(PeerMessageError, match=match):
                simulation.clients[A].unmask(simulation.states[A], message)
        fewer = good.model_copy(update={"confirmations": good.confirmations[:2]})
        with pytest.raises(MissingPartiesError, match="1 missing"):
            simulation.clients[A].unmask(simulation.states[A], fewer)

    @staticmethod
    def with_keys(simulation: Simulation, party: str, **changes: Any) -> KeyRoster:
        return KeyRoster(
            aggregation=simulation.told.aggregation,
            advertisements=tuple(
                one.model_copy(update=changes) if one.sender == party else one
                for one in simulation.told.advertisements
            ),
        )

    @staticmethod
    def sealed_for(recipient: str, message: Any) -> SealedShare:
        (share,) = [one for one in message.shares if one.party == recipient]
        return SealedShare(party=message.sender, sealed=share.sealed)


@lru_cache
def masked_of_five(colluding: int) -> Simulation:
    """Five parties after round 2, at the lowest threshold; states are frozen."""
    return Simulation(plan_of(5, 3 + colluding, colluding=colluding)).until(3)


def survivors(simulation: Simulation, parties: tuple[str, ...]) -> Survivors:
    return Survivors(aggregation=simulation.plan.digest, parties=parties)


def confirmations(simulation: Simulation, items: list[Confirmation]) -> Confirmations:
    return Confirmations(aggregation=simulation.plan.digest, confirmations=tuple(items))


class TestLyingParty:
    @pytest.mark.parametrize("length", [4, 32, 48, 44])
    def test_a_vector_of_another_length_is_refused(self, length: int) -> None:
        simulation = Simulation(plan_of(3, 2)).until(2)
        simulation.speak(A, 2)
        wrong = MaskedVector(aggregation=simulation.plan.digest, sender=A, vector=bytes(length))
        with pytest.raises(PeerMessageError, match=f"40 bytes from {A}, got {length}"):
            simulation.server.take_vector(simulation.at_server, wrong)

    @pytest.mark.parametrize(
        "vector",
        [
            np.zeros(4, dtype="<u8"),
            np.zeros((5, 1), dtype="<u8"),
            np.zeros(5, dtype="<u4"),
            np.zeros(5, dtype="<i8"),
            np.zeros(5),
        ],
        ids=lambda vector: f"{vector.dtype}-{vector.shape}",
    )
    def test_an_input_of_another_shape_or_type_is_not_masked(self, vector: Any) -> None:
        simulation = Simulation(plan_of(3, 2)).until(2)
        with pytest.raises(InvalidParameterError, match="5 entries of 64 bits"):
            simulation.clients[A].mask(simulation.states[A], simulation.told[A], vector)

    @settings(max_examples=20)
    # X25519 ignores three low bits and the highest one of a key: another key, the same masks.
    @given(st.integers(3, 253), st.booleans(), st.integers(0, 2))
    def test_a_share_that_does_not_fit_gives_no_sum(
        self, bit: int, dropped: bool, owner: int
    ) -> None:
        plan = plan_of(3, 2)
        simulation = Simulation(plan, {C: 2} if dropped else {}).until(4)
        said = simulation.speak(B, 4)
        wrong = bytearray(said.shares[owner].share)
        wrong[bit // 8] ^= 1 << (bit % 8)
        lie = said.shares[owner].model_copy(update={"share": bytes(wrong)})
        items = tuple(lie if one.owner == lie.owner else one for one in said.shares)
        said = said.model_copy(update={"shares": items})
        state = simulation.server.take_unmasking(simulation.at_server, simulation.speak(A, 4))
        outside = int.from_bytes(wrong, "little") >= PRIME
        match = "below the field's order" if outside else "shares of .* do not fit"
        with pytest.raises(PeerMessageError, match=match):
            simulation.server.close(simulation.server.take_unmasking(state, said))

    def test_other_shares_than_those_asked_for_are_refused(self) -> None:
        simulation = Simulation(plan_of(3, 2), {C: 2}).until(4)
        said = simulation.speak(A, 4)
        other_kind = said.shares[1].model_copy(update={"kind": ShareKind.MASK_KEY})
        for shares in (
            said.shares[:2],
            (*said.shares[:1], other_kind, *said.shares[2:]),
            (),
        ):
            message = said.model_copy(update={"shares": shares})
            with pytest.raises(PeerMessageError, match="other shares than those asked for"):
                simulation.server.take_unmasking(simulation.at_server, message)
        outside = said.shares[0].model_copy(update={"share": PRIME.to_bytes(SHARE_BYTES, "little")})
        message = said.model_copy(update={"shares": (outside, *said.shares[1:])})
        with pytest.raises(PeerMessageError, match="below the field's order"):
            simulation.server.take_unmasking(simulation.at_server, message)

    def test_shares_for_others_than_neighbours_are_refused(self) -> None:
        simulation = Simulation(plan_of(3, 2)).until(1)
        said = simulation.speak(A, 1)
        for shares in (said.shares[:1], ()):
            with pytest.raises(PeerMessageError, match="others than its neighbours"):
                simulation.server.take_shares(
                    simulation.at_server, said.model_copy(update={"shares": shares})
                )

    def test_a_party_that_was_silent_does_not_come_back(self) -> None:
        plan = plan_of(4, 3)
        for number in range(1, ROUNDS):
            simulation = Simulation(plan, {D: number - 1}).until(number - 1)
            absent = Simulation(plan).until(number)
            simulation.round(number - 1)
            back = absent.speak(D, number)
            with pytest.raises(PeerMessageError, match=f"got one of {D}"):
                simulation.take(number)(simulation.at_server, back)

    def test_a_stranger_is_refused(self) -> None:
        plan = plan_of(3, 2)
        with pytest.raises(InvalidParameterError, match="does not name"):
            Client(plan, "stranger", Simulation(plan).directory.keys[A], Simulation(plan).directory)
        simulation = Simulation(plan)
        said = simulation.speak(A, 0).model_copy(update={"sender": "stranger"})
        with pytest.raises(PeerMessageError, match="expected a party of the plan"):
            simulation.server.take_keys(simulation.at_server, said)

    def test_keys_that_the_party_did_not_sign_are_refused_by_the_server(self) -> None:
        simulation = Simulation(plan_of(3, 2))
        said = simulation.speak(A, 0).model_copy(update={"sender": B})
        with pytest.raises(PeerMessageError, match="not signed"):
            simulation.server.take_keys(simulation.at_server, said)

    def test_a_confirmation_of_other_survivors_is_refused_by_the_server(self) -> None:
        simulation = Simulation(plan_of(4, 3)).until(3)
        _, said = simulation.clients[B].confirm(
            simulation.states[B], survivors(simulation, (B, C, D))
        )
        with pytest.raises(PeerMessageError, match="not signed"):
            simulation.server.take_confirmation(simulation.at_server, said)

    @pytest.mark.parametrize("number", range(ROUNDS))
    def test_a_message_of_another_aggregation_is_refused(self, number: int) -> None:
        simulation = Simulation(plan_of(3, 2)).until(number)
        other = Simulation(plan_of(3, 2, context="cd" * 32)).until(number)
        with pytest.raises(PeerMessageError, match="another agreement, job or round"):
            simulation.take(number)(simulation.at_server, other.speak(A, number))
        if number:
            told = other.told[A] if number == 2 else other.told
            step = (None, "share", "mask", "confirm", "unmask")[number]
            arguments = [told, simulation.inputs[A]] if number == 2 else [told]
            with pytest.raises(PeerMessageError, match="another agreement, job or round"):
                getattr(simulation.clients[A], step)(simulation.states[A], *arguments)
