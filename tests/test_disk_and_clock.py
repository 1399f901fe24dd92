"""A disk that takes no more, and clocks that differ: nothing is lost, and a run goes on."""

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest
from parties import PEOPLE, World

from compliance.errors import ComplianceError
from federation.auditing import audit_places
from federation.errors import FederationError
from federation.messages import SealedMessage
from federation.node import Node


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World.make(tmp_path_factory.mktemp("made"), unsafe_seed=4)


@pytest.fixture(scope="module")
def whole(made: World, tmp_path_factory: pytest.TempPathFactory) -> World:
    """A run that nobody disturbed."""
    world = made.copy(tmp_path_factory.mktemp("whole") / "copy")
    world.run()
    return world


@contextmanager
def no_file_beyond(size: int) -> Iterator[None]:
    """Have the system refuse to let any file of this process grow past so many bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def same(world: World, whole: World) -> None:
    """Hold all outcomes and budgets against those of another run."""
    found, expected = world.folder("coordinator"), whole.folder("coordinator")
    assert found.model("model").read_bytes() == expected.model("model").read_bytes()
    for name in ("retailer", "courier"):
        segments = [one.folder(name).segment("best").read_bytes() for one in (world, whole)]
        assert segments[0] == segments[1]
        assert world.spent(name) == whole.spent(name)
        assert world.folder(name).model("model").read_bytes() == found.model("model").read_bytes()


def objections(world: World, scratch: Path) -> list[str]:
    places = [str(world.workspace.path)]
    scratch.mkdir()
    now = world.now + timedelta(hours=1)
    found = audit_places(places, agreements=(), policy=None, scratch=scratch, now=now)[1]
    return [f"{one.kind}: {one.text}" for one in found]


@pytest.mark.parametrize("size", [3_000, 1, 9_000])
def test_a_disk_that_takes_no_more_stops_a_run_that_goes_on_once_there_is_room(
    made: World, whole: World, tmp_path: Path, size: int, thorough: bool
) -> None:
    if not thorough and size != 3_000:
        pytest.skip("a sample is taken")
    world = made.copy(tmp_path / "copy")
    handle, asked = world.handle, 0

    def cramped(name: str, message: SealedMessage) -> SealedMessage:
        nonlocal asked
        asked += name == "retailer"
        if name != "retailer" or asked < 4:
            return handle(name, message)
        with no_file_beyond(size):
            return handle(name, message)

    world.handle = cramped  # type: ignore[method-assign]
    with pytest.raises((FederationError, ComplianceError), match="retailer"):
        world.run()
    world.handle = handle  # type: ignore[method-assign]
    world.now += timedelta(minutes=1)
    world.run()
    same(world, whole)
    assert objections(world, tmp_path / "scratch") == []
    assert not list(world.workspace.path.rglob("*.tmp"))


class SkewedWorld(World):
    """A world whose clocks are ten minutes ahead at one partner, and behind at the other."""

    def node(self, name: str) -> Node:
        skew = timedelta(minutes={"retailer": 10, "courier": -10}.get(name, 0))
        return Node.open(self.folder(name).path, clock=lambda: self.clock() + skew)


def test_clocks_ten_minutes_apart_change_nothing(made: World, whole: World, tmp_path: Path) -> None:
    world = SkewedWorld(made.copy(tmp_path / "copy").workspace)
    world.run()
    same(world, whole)
    times = {name: world.leaves(name)[-1].time for name in PEOPLE}
    assert times["retailer"] - times["courier"] > timedelta(minutes=19)
    assert objections(world, tmp_path / "scratch") == []
