"""Parties match over a direct link: who learns what, what is refused, and what a crash leaves.

A stand-in plays the program that does the cryptography, over the same sockets and the same TLS.
`test_rr22.py` runs the real one.
"""

import hashlib
import json
import os
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import direct
import pytest
from direct import DIRECT, Direct
from parties import MATCH, PEOPLE, Parties
from pydantic import ValidationError

from compliance import records
from compliance.agreement import Agreement
from compliance.terms import Linkage, MatchProtocol, Reveal
from federation.audit import verify_all
from federation.embedded import run_embedded
from federation.errors import MessageError, RefusedError
from federation.jobs.exchange import Relay, Say
from federation.jobs.match.direct import MOST_LINKS, DirectPlan, DirectState, coordinate_direct
from federation.messages import (
    Body,
    Encrypted,
    LinkSide,
    MatchAccept,
    MatchClose,
    MatchDone,
    MatchLink,
    MatchLinked,
    MatchOffer,
    MatchOpen,
    MatchOutcome,
    MatchReady,
    MatchRequest,
    MatchSide,
    Message,
    Refused,
    unseal,
)
from federation.objections import policy_objections
from federation.party import PartyFolder
from federation.rr22.link import DirectLink
from federation.specification import MatchSpec
from privacy.errors import PeerMessageError
from privacy.randomness import Secret, seeded_secret

PARTNERS = ("retailer", "courier")
PARTNER_LEARNS, BRAND_LEARNS = Reveal.PARTNER_LEARNS_MEMBERS, Reveal.BRAND_LEARNS_MEMBERS
SHARED = {name: [one for one in PEOPLE[name] if one in PEOPLE["brand"]] for name in PARTNERS}
ONE, TWO = "1" * 64, "2" * 64


@pytest.fixture(autouse=True, scope="module")
def quick_disk() -> Iterator[None]:
    """Do not wait for the disk: no test here cuts the power."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)
        yield


@pytest.fixture
def small_buckets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MatchSpec, "bucket_points", 25)  # two buckets for fifty people


def people(world: Direct, party: str, file: str = "members.npz") -> list[int]:
    return [int(key.split("#")[1]) - 700 for key in world.listed(party, f"find/{file}")]


def learnt(world: Direct, reveal: Reveal) -> dict[str, list[int]]:
    """Whom the learner of each pair found."""
    if reveal is BRAND_LEARNS:
        return {one: sorted(people(world, "brand", f"with-{one}/members.npz")) for one in PARTNERS}
    return {one: sorted(people(world, one)) for one in PARTNERS}


def state(world: Direct, party: str, peer: str) -> DirectState:
    path = world.folder(party).job("find") / f"with-{peer}" / "state.json"
    return DirectState.model_validate_json(path.read_bytes())


def scratch(world: Direct) -> list[Path]:
    """Directories of this world's programs that are still there."""
    left = []
    for folder in world.workspace.people:
        named = hashlib.sha256(str(folder.path).encode()).hexdigest()[:16]
        left.append(DirectLink.scratch_of(folder.config.rr22, f"{folder.name}-{named}"))
    return [directory for directory in left if directory.exists()]


# --- whole matches -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reveal", "linkage"),
    list(product((PARTNER_LEARNS, BRAND_LEARNS), Linkage)),
)
def test_the_outcome_is_that_of_ecdh(
    tmp_path: Path, reveal: Reveal, linkage: Linkage, small_buckets: None
) -> None:
    linked = direct.make(tmp_path / "linked", reveal, linkage=linkage)
    linked.run()
    carried = direct.make(tmp_path / "carried", reveal, linkage=linkage, spec=MATCH)
    carried.run()
    assert learnt(linked, reveal) == learnt(carried, reveal) == SHARED
    others = {"brand"} if reveal is PARTNER_LEARNS else set(PARTNERS)
    for name in others:
        assert not list(linked.folder(name).job("find").rglob("found-*"))
        assert not list(linked.folder(name).job("find").rglob("members.npz"))
    for name in PEOPLE:
        assert not list(linked.folder(name).job("find").rglob("secret"))
    parties, problems = verify_all([linked.workspace.path])
    assert (len(parties), problems) == (4, ())


@pytest.mark.parametrize("listening", [("brand",), PARTNERS, ("brand", *PARTNERS)])
def test_either_side_may_be_the_one_that_can_be_reached(
    tmp_path: Path, listening: tuple[str, ...]
) -> None:
    world = direct.make(tmp_path, listening=listening)
    world.run()
    assert learnt(world, PARTNER_LEARNS) == SHARED


def test_every_link_is_in_both_logs_before_it_opens_and_names_who_held_its_ends(
    tmp_path: Path, small_buckets: None
) -> None:
    world = direct.make(tmp_path)
    world.run()
    ends: dict[tuple[str, str, int], tuple[str, str]] = {}
    for name in PEOPLE:
        leaves = world.leaves(name)
        for index, leaf in enumerate(leaves):
            if not isinstance(leaf, records.LinkOpened):
                continue
            assert leaf.protocol == "rr22"
            ends[name, leaf.peer, leaf.bucket] = leaf.own_certificate, leaf.peer_certificate
            asked = leaves[index - 1]
            assert isinstance(asked, records.Release)
            assert (asked.computation, asked.recipient) == ("match.open", leaf.peer)
            later = leaves[index + 1 :]
            assert any(
                isinstance(one, records.Release) and one.computation == "match.linked"
                for one in later
            )
        bound = [leaf for leaf in leaves if isinstance(leaf, records.MatchBound)]
        assert len(bound) == (2 if name == "brand" else 1)
    assert len(ends) == 8  # two pairs, two sides, two buckets
    for (name, peer, bucket), (own, other) in ends.items():
        assert ends[peer, name, bucket] == (other, own)
        assert own != other


def test_the_peer_is_told_the_size_with_noise_where_that_is_agreed(tmp_path: Path) -> None:
    world = direct.make(tmp_path, size_epsilon=4.0)
    world.run()
    for name in PARTNERS:
        size = (world.folder("brand").job("find") / f"with-{name}" / "size").read_text()
        assert abs(int(size) - len(SHARED[name])) <= 5
        assert world.statement(name).epsilon_spent > 0
    assert not list(world.folder("brand").job("find").rglob("secret"))


def test_a_match_below_the_minimum_leaves_nothing(tmp_path: Path) -> None:
    world = direct.make(tmp_path, minimum_match=21)
    with pytest.raises(RefusedError, match="below the minimum of 21"):
        world.run()
    assert not list(world.workspace.path.rglob("members.npz"))
    states = world.workspace.path.glob("*/jobs/find/with-*/state.json")
    cleared = [path for path in states if json.loads(path.read_bytes())["below_minimum"]]
    assert len(cleared) == 1
    assert not list(cleared[0].parent.glob("found-*"))
    assert not (cleared[0].parent / "secret").exists()
    with pytest.raises(RefusedError, match="was not kept: run the job under another name"):
        world.run()


def test_nobody_but_the_two_reads_what_they_tell_each_other(tmp_path: Path) -> None:
    world = direct.make(tmp_path)
    world.run()
    carried = [unseal(message, world.agreement) for message in world.wire]
    opened = [one for one in carried if one.header.kind == "match.open"]
    assert len(opened) == 8  # an answer each, carried on each
    assert all(isinstance(one.body, Encrypted) for one in opened)
    content = b"".join(message.envelope + message.payload for message in world.wire)
    assert b"CERTIFICATE" not in content
    assert not scratch(world)


def test_all_parties_in_one_process_can_be_at_a_link_together(tmp_path: Path) -> None:
    valid = {"valid_until": "2190-01-01T00:00:00Z"}
    world = direct.make(tmp_path, agreement=valid)
    run_embedded(
        world.folder("coordinator").path, [folder.path for folder in world.workspace.people]
    )
    assert learnt(world, PARTNER_LEARNS) == SHARED


# --- crashes -------------------------------------------------------------------------------------


@pytest.mark.parametrize("party", ["brand", "courier"])
def test_after_a_crash_finished_buckets_are_not_matched_again(
    tmp_path: Path, party: str, small_buckets: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = direct.make(tmp_path)
    opened: list[tuple[str, str, int, bytes]] = []
    match = DirectLink.match

    def noted(link: DirectLink, tags: Any) -> Any:
        me = state_of(world, link)
        opened.append((*me, tags.tobytes()))
        if me == (party, "courier" if party == "brand" else "brand", 1) and len(opened) < 9:
            world.misbehave(party, "killed")
        else:
            world.misbehave(me[0], "none")
        return match(link, tags)

    monkeypatch.setattr(DirectLink, "match", noted)
    with pytest.raises(RefusedError, match="computation"):
        world.run()
    assert not scratch(world)
    before = list(opened)
    assert not list((world.folder("courier").job("find")).rglob("members.npz"))
    opened.extend(before * 9)  # well past the first nine
    world.run()
    again = opened[len(before) * 10 :]
    assert {one[:3] for one in again} == {("courier", "brand", 1), ("brand", "courier", 1)}
    last = {one[:3]: one[3] for one in before}
    assert all(last[one[:3]] != one[3] for one in again)  # another key, other dummies
    assert learnt(world, PARTNER_LEARNS) == SHARED


def state_of(world: Direct, link: DirectLink) -> tuple[str, str, int]:
    """Whose end this is, of which pair and bucket."""
    (own,) = (folder.name for folder in world.workspace.people if folder.config.rr22 == link.config)
    return own, link.peer, state(world, own, link.peer).bucket


def test_a_run_that_ended_at_the_learner_ends_at_the_coordinator_when_it_is_repeated(
    tmp_path: Path,
) -> None:
    world = direct.make(tmp_path)
    world.run()
    ended = world.folder("coordinator").job("find") / "ended.json"
    ended.unlink()
    links = {name: state(world, name, "brand").links for name in PARTNERS}
    world.run()
    assert ended.exists()
    assert {name: state(world, name, "brand").links for name in PARTNERS} == links
    assert learnt(world, PARTNER_LEARNS) == SHARED


# --- what is refused -----------------------------------------------------------------------------


def agreed(*, identifiers: int = 1, **match: object) -> Agreement:
    """A contract with one key, every protocol, and so many identifiers a person."""
    whole = Parties.in_memory().agreement
    changed = {"protocols": tuple(MatchProtocol), "keys": ("email",)} | match
    bearing = {"identifiers_per_person": identifiers}
    return whole.model_copy(
        update={
            "match": whole.match.model_copy(update=changed),
            "datasets": tuple(one.model_copy(update=bearing) for one in whole.datasets),
        }
    )


@pytest.mark.parametrize(
    ("term", "changes"),
    [
        ("match.protocols", {"protocols": (MatchProtocol.ECDH,)}),
        ("match.reveal", {"reveal": Reveal.BOTH_LEARN_MEMBERS}),
        ("match.reveal", {"reveal": Reveal.SIZE_ONLY}),
        ("match.keys", {"keys": ("email", "phone")}),
        ("match.linkage", {"identifiers": 2, "reveal_keys": True}),
    ],
)
def test_what_rr22_cannot_do_honestly_is_refused_with_the_remedy(
    term: str, changes: dict[str, Any]
) -> None:
    ((found, remedy),) = policy_objections(DIRECT, agreed(**changes))
    assert found == term
    assert "ecdh" in remedy
    assert not policy_objections(MATCH, agreed(**changes))


@pytest.mark.parametrize("reveal", [PARTNER_LEARNS, BRAND_LEARNS])
def test_what_rr22_can_do_is_not_refused(reveal: Reveal) -> None:
    assert not policy_objections(DIRECT, agreed(reveal=reveal))
    several = {"linkage": Linkage.ANY_KEY, "identifiers": 3}
    assert not policy_objections(DIRECT, agreed(**several, reveal_keys=True))
    hidden = policy_objections(DIRECT, agreed(**several))
    assert [term for term, _ in hidden] == ["match.reveal_keys"]


def test_ecdh_is_refused_where_only_rr22_is_agreed() -> None:
    only = agreed(protocols=(MatchProtocol.RR22,))
    assert [term for term, _ in policy_objections(MATCH, only)] == ["match.protocols"]


def test_a_limit_of_memory_that_the_program_would_pass_is_refused() -> None:
    with pytest.raises(ValidationError, match="at least 768MiB"):
        MatchSpec(name="find", protocol=MatchProtocol.RR22, memory_limit="767MiB")
    sizes = {
        limit: MatchSpec(name="find", protocol="rr22", memory_limit=limit).bucket_points
        for limit in ("768MiB", "1GiB", "2GiB", "64GiB")
    }
    assert sizes == {"768MiB": 1 << 17, "1GiB": 1 << 18, "2GiB": 1 << 20, "64GiB": 1 << 20}


def without(world: Direct, party: str, key: str | None = None) -> None:
    """Take from a party's file its environment, or one key of it."""
    folder = world.folder(party)
    config = folder.config.model_dump(mode="json")
    if key is None:
        del config["rr22"]
    else:
        del config["rr22"][key]
    changed = type(folder.config).model_validate(config)
    (folder.path / "party.json").write_text(changed.model_dump_json())


@pytest.mark.parametrize("party", ["brand", "retailer"])
def test_a_party_without_an_environment_says_how_to_make_one(tmp_path: Path, party: str) -> None:
    world = direct.make(tmp_path)
    without(world, party)
    with pytest.raises(RefusedError, match="pip install --no-deps spu==") as refused:
        world.run()
    assert (refused.value.party, refused.value.term) == (party, "match.protocols")


def test_a_pair_of_which_nobody_can_be_reached_is_refused(tmp_path: Path) -> None:
    world = direct.make(tmp_path, listening=())
    with pytest.raises(RefusedError, match=r"neither brand nor \w+ says where"):
        world.run()


def opened(world: Direct) -> tuple[Message, Message]:
    """Carry a pair's messages until both have let `match.open` out for the first bucket."""
    seal = world.parties.seal
    request = seal("coordinator", "retailer", "find", MatchRequest(spec=DIRECT, peer="brand"))
    accept = world.handle("brand", world.handle("retailer", request))
    world.handle("retailer", accept)
    return asked(world, "retailer", "brand"), asked(world, "brand", "retailer")


def asked(world: Direct, party: str, peer: str, bucket: int = 0, attempt: str = ONE) -> Message:
    body = MatchLink(spec=DIRECT, peer=peer, bucket=bucket, attempt=attempt)
    return world.ask(party, world.parties.seal("coordinator", party, "find", body))


def says(world: Direct, sender: str, to: str, body: Body) -> Message:
    return world.ask(to, world.parties.seal(sender, to, "find", body, answers=ONE))


def test_a_link_opens_for_no_bucket_or_attempt_but_the_one_that_was_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = direct.make(tmp_path)

    def never(*_: object) -> None:
        raise AssertionError("the link was opened")

    monkeypatch.setattr(DirectLink, "match", never)
    early = MatchOpen(spec=DIRECT, bucket=0, attempt=ONE)
    assert isinstance(says(world, "retailer", "brand", early).body, Refused)
    mine, theirs = opened(world)
    assert mine.body == theirs.body == early
    for party, peer in (("retailer", "brand"), ("brand", "retailer")):
        assert isinstance(asked(world, party, peer, bucket=1).body, Refused)
        for wrong in ({"bucket": 1}, {"attempt": TWO}):
            body = early.model_copy(update=wrong)
            refusal = says(world, peer, party, body).body
            assert isinstance(refusal, Refused)
            assert refusal.term == "message"
    assert isinstance(says(world, "courier", "brand", early).body, Refused)


def test_a_bucket_is_not_linked_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = direct.make(tmp_path)
    tried = []

    def fails(*_: object) -> None:
        tried.append(1)
        raise MessageError("the link broke")

    kept = []

    def synchronise(folder: PartyFolder, *_: str) -> None:
        if folder.name == "brand" and (folder.path / "jobs").exists():
            kept.append(state(world, "brand", "retailer").links)

    def links(*_: object) -> None:
        assert kept[-1] == state(world, "brand", "retailer").links  # or a lost machine forgets it
        fails()

    opened(world)
    monkeypatch.setattr(PartyFolder, "synchronise", synchronise)
    monkeypatch.setattr(DirectLink, "match", links)
    for attempt in "34567":
        asked(world, "brand", "retailer", attempt=attempt * 64)
        body = MatchOpen(spec=DIRECT, bucket=0, attempt=attempt * 64)
        assert isinstance(says(world, "retailer", "brand", body).body, Refused)
    assert len(tried) == MOST_LINKS
    assert state(world, "brand", "retailer").links == (0,) * MOST_LINKS


def test_an_outcome_before_the_last_bucket_is_refused(tmp_path: Path) -> None:
    world = direct.make(tmp_path, size_epsilon=4.0)
    opened(world)
    outcome = MatchOutcome(spec=DIRECT, size=7)
    assert isinstance(says(world, "retailer", "brand", outcome).body, Refused)
    close = MatchClose(spec=DIRECT, peer="brand")
    sealed = world.parties.seal("coordinator", "retailer", "find", close)
    assert isinstance(world.ask("retailer", sealed).body, Refused)


@pytest.mark.parametrize("certificate", ["", "nonsense", "-----BEGIN CERTIFICATE-----\n"])
def test_an_end_that_is_no_certificate_is_refused(tmp_path: Path, certificate: str) -> None:
    world = direct.make(tmp_path)
    seal = world.parties.seal
    request = seal("coordinator", "retailer", "find", MatchRequest(spec=DIRECT, peer="brand"))
    offer = world.ask("retailer", request).body
    assert isinstance(offer, MatchOffer)
    assert offer.link is not None
    for link in (None, offer.link.model_copy(update={"certificate": certificate})):
        wrong = says(world, "retailer", "brand", offer.model_copy(update={"link": link}))
        assert isinstance(wrong.body, Refused)
    assert not (world.folder("brand").job("find") / "with-retailer").exists()


# --- states and steps without a folder -----------------------------------------------------------


def side(points: int = 10, commitment: str = ONE) -> MatchSide:
    return MatchSide(recipe=ONE, points=points, commitment=commitment)


def end(share: str = ONE) -> LinkSide:
    return LinkSide(certificate="c", share=share)


def test_a_side_meets_the_other_once() -> None:
    met = DirectState(own=side()).meet(side(20), end())
    assert (met.other, met.link) == (side(20), end())
    assert met.meet(side(20), end()) == met
    for other, link in ((side(30), end()), (side(20, TWO), end()), (side(20), end(TWO))):
        with pytest.raises(MessageError, match="another set"):
            met.meet(other, link)


def test_a_state_is_stored_and_read_again_closed() -> None:
    whole = DirectState(own=side()).meet(side(20), end()).permit(ONE, 3).open(3)
    assert DirectState.model_validate_json(whole.model_dump_json()) == whole
    with pytest.raises(ValidationError):
        DirectState.model_validate(whole.model_dump() | {"more": 1})


def test_keys_and_bindings_are_of_one_match_bucket_and_attempt() -> None:
    agreement = Parties.in_memory().agreement
    plans = [
        DirectPlan.of(agreement, spec, sides, learner=side(10), peer=side(20))
        for spec, sides in product(
            (DIRECT, DIRECT.model_copy(update={"name": "other"})),
            (("retailer", "brand"), ("courier", "brand")),
        )
    ]
    shares = frozenset({Secret(bytes(32)), seeded_secret(1, "share")})
    runs = list(product(plans, (0, 1), (ONE, TWO)))
    assert len({plan.key(shares, bucket, attempt) for plan, bucket, attempt in runs}) == len(runs)
    assert len({plan.binding(bucket, attempt) for plan, bucket, attempt in runs}) == len(runs)
    with pytest.raises(PeerMessageError):
        plans[0].key(frozenset({Secret(bytes(32))}), 0, ONE)
    assert plans[0].capacity(learns=True) == 11
    assert plans[0].capacity(learns=False) == 21


def test_the_coordinator_links_one_pair_after_the_other_both_sides_at_once() -> None:
    parties = Parties.in_memory()
    job = coordinate_direct(parties.agreement, DIRECT, ONE)
    sent = next(job)
    assert [(one.recipient, one.body.peer) for one in sent if isinstance(one, Say)] == [
        ("retailer", "brand"),
        ("courier", "brand"),
    ]

    def said(pairs: Any) -> list[Message]:
        carried = (parties.seal(sender, to, "find", body) for sender, to, body in pairs)
        return [unseal(sealed, parties.agreement) for sealed in carried]

    offer = MatchOffer(spec=DIRECT, side=side(), link=end())
    accept = MatchAccept(spec=DIRECT, side=side(), link=end())
    sent = job.send(said((one, "brand", offer) for one in PARTNERS))
    assert all(isinstance(one, Relay) for one in sent)
    job.send(said(("brand", one, accept) for one in PARTNERS))
    ready = MatchReady(buckets=2)
    sent = job.send(said((one, "coordinator", ready) for one in PARTNERS))
    for partner in PARTNERS:
        for bucket in range(2):
            assert [(one.recipient, one.body.bucket, one.body.peer) for one in sent] == [
                (partner, bucket, "brand"),
                ("brand", bucket, partner),
            ]
            opens = MatchOpen(spec=DIRECT, bucket=bucket, attempt=ONE)
            sent = job.send(said([(partner, "brand", opens), ("brand", partner, opens)]))
            assert [one.message.header.recipient for one in sent] == ["brand", partner]
            linked = MatchLinked(bucket=bucket)
            sent = job.send(
                said([(partner, "coordinator", linked), ("brand", "coordinator", linked)])
            )
        assert [(one.recipient, one.body.kind) for one in sent] == [(partner, "match.close")]
        sent = job.send(said([(partner, "coordinator", MatchDone())]))
        assert [(one.recipient, one.body.kind) for one in sent] == [("brand", "match.close")]
        if partner == PARTNERS[-1]:
            with pytest.raises(StopIteration):
                job.send(said([("brand", "coordinator", MatchDone())]))
        else:
            sent = job.send(said([("brand", "coordinator", MatchDone())]))
