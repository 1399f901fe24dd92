"""The real program: `spu` in an environment of its own, named by COMITY_RR22_PYTHON."""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path

import direct
import numpy as np
import pytest
from parties import MATCH
from test_match_direct import learnt, scratch

from compliance.terms import Linkage, Reveal
from federation.rr22.configuration import Rr22Config
from federation.rr22.link import DirectLink, Found
from federation.specification import MatchSpec
from privacy.certificates import OwnCertificate
from privacy.psi.rr22 import found_tokens, padded_tags
from privacy.randomness import seeded_secret

PYTHON = os.environ.get("COMITY_RR22_PYTHON")
pytestmark = pytest.mark.skipif(
    PYTHON is None, reason="rr22 needs its own environment: name its python in COMITY_RR22_PYTHON"
)


@pytest.fixture(autouse=True)
def no_traces() -> Iterator[None]:
    before = set(Path("/tmp").glob("psi_*.trace"))  # noqa: S108 -- where spu leaves them
    yield
    assert set(Path("/tmp").glob("psi_*.trace")) <= before  # noqa: S108


@pytest.mark.parametrize(
    ("reveal", "linkage"),
    list(product((Reveal.PARTNER_LEARNS_MEMBERS, Reveal.BRAND_LEARNS_MEMBERS), Linkage)),
)
def test_the_outcome_is_that_of_ecdh(
    tmp_path: Path, reveal: Reveal, linkage: Linkage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(MatchSpec, "bucket_points", 25)
    linked = direct.make(tmp_path / "linked", reveal, linkage=linkage, python=Path(PYTHON or ""))
    linked.run()
    carried = direct.make(tmp_path / "carried", reveal, linkage=linkage, spec=MATCH)
    carried.run()
    assert learnt(linked, reveal) == learnt(carried, reveal)
    assert not scratch(linked)


def tokens(count: int) -> np.ndarray:
    drawn = np.random.default_rng(7).integers(0, 256, (count, 33), dtype=np.uint8)
    drawn[:, 0] = 1
    return drawn


def match(
    tmp_path: Path, learner: np.ndarray, peer: np.ndarray, room: int
) -> tuple[list[int], list[Found]]:
    """Match two sets, padded by `room`; return what the learner found, and both ends."""
    ends = [OwnCertificate.from_secret(seeded_secret(1, f"end {side}")) for side in (0, 1)]
    address = direct.free_address()

    def one(side: int, own: np.ndarray) -> tuple[list[int], Found]:
        fresh = seeded_secret(2, f"fresh {side}")
        tags, owners = padded_tags(own, seeded_secret(3, "key"), fresh, capacity=len(own) + room)
        link = DirectLink(
            config=Rr22Config(python=Path(PYTHON or ""), listen=None if side == 0 else address),
            peer="other",
            own=ends[side],
            peer_certificate=ends[1 - side].pem,
            dial=address if side == 0 else None,
            binding=bytes(32),
            learns=side == 0,
            scratch=tmp_path / f"scratch-{side}",
        )
        found = link.match(tags)
        return (found_tokens(found.tags, tags, owners).tolist() if side == 0 else []), found

    with ThreadPoolExecutor(2) as pool:
        (rows, mine), (_, theirs) = pool.map(one, (0, 1), (learner, peer))
    return rows, [mine, theirs]


@pytest.mark.parametrize(
    ("learner", "peer", "shared"),
    [
        (0, 0, 0),
        (1, 1, 1),
        (1, 300, 1),
        (300, 1, 0),
        (200, 200, 0),
        (200, 200, 200),
        (70_000, 40_000, 30_000),
    ],
)
def test_it_finds_whom_both_have_and_nobody_else(
    tmp_path: Path, learner: int, peer: int, shared: int
) -> None:
    people = tokens(learner + peer - shared)
    rows, _ = match(tmp_path, people[:learner], people[learner - shared :], 1)
    assert rows == list(range(learner - shared, learner))


def test_what_the_peer_receives_does_not_depend_on_who_matched(tmp_path: Path) -> None:
    people = tokens(4_000)
    sizes = []
    for first in (0, 1_000, 2_000):
        _, (_, peer) = match(tmp_path, people[:2_000], people[first : first + 2_000], 10)
        assert not len(peer.tags)
        sizes.append(peer.received_bytes)
    assert max(sizes) - min(sizes) < 2_000, sizes  # the program's own framing varies a little
