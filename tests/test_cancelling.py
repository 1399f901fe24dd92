"""A run that is cancelled between two messages, and the one that goes on from there."""

import itertools
from collections.abc import Iterator, Sequence

import pytest
from flwr.serverapp import Grid
from flwr.supercore.task_identity import TaskIdentity
from parties import MATCH, PEOPLE, TRAIN, World

from compliance.records import JobEnded
from federation.channel import GridChannel, Parcel
from federation.coordinator import Coordinator, write_jobs
from federation.errors import RunCancelledError, WorkspaceError
from federation.messages import SealedMessage

EXCHANGES = 13


class Wanted:
    """Says that a run is no longer wanted, from the so-manieth time on that it is asked."""

    def __init__(self, times: int) -> None:
        self.left = times

    def __call__(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise RunCancelledError("run 1 was cancelled")


class Cancelled:
    """A channel to a world's nodes that is given up before an exchange."""

    def __init__(self, world: World, after: int) -> None:
        self._world = world
        self.wanted = Wanted(after)

    def nodes(self, at_least: int, **patience: float) -> Sequence[int]:
        return self._world.nodes(at_least, **patience)

    def exchange(
        self, parcels: Sequence[Parcel], *, most_missing: int = 0
    ) -> Sequence[SealedMessage | None]:
        self.wanted()
        return self._world.exchange(parcels, most_missing=most_missing)


def coordinator(world: World) -> Coordinator:
    return Coordinator.open(world.folder("coordinator").path, clock=world.clock)


@pytest.fixture(scope="module")
def worlds(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Worlds that are all the same, with a match and a training to run."""
    path = tmp_path_factory.mktemp("worlds")
    first = World.make(path / "first", unsafe_seed=7)
    write_jobs(first.folder("coordinator"), (MATCH, TRAIN))
    return (first.copy(path / str(number)) for number in itertools.count())


@pytest.fixture(scope="module")
def whole(worlds: Iterator[World]) -> tuple[World, int]:
    """A world in which nothing was cancelled, and how many exchanges that took."""
    world = next(worlds)
    channel = Cancelled(world, 1000)
    coordinator(world).run(channel)
    return world, 1000 - channel.wanted.left


def ended(world: World) -> list[str]:
    return [leaf.outcome for leaf in world.leaves("coordinator") if isinstance(leaf, JobEnded)]


def test_cancelled_before_any_message_it_goes_on_to_the_same_end(
    worlds: Iterator[World], whole: tuple[World, int], *, thorough: bool
) -> None:
    expected, exchanges = whole
    assert exchanges == EXCHANGES, exchanges
    for after in range(exchanges) if thorough else (2, 8):
        world = next(worlds)
        with pytest.raises(RunCancelledError):
            coordinator(world).run(Cancelled(world, after))
        cancelled = ended(world)
        coordinator(world).run(world)
        assert set(cancelled) <= {"cancelled", "done"}
        assert ended(world) == [*cancelled, *(2 - cancelled.count("done")) * ["done"]]
        for name in PEOPLE:
            model = world.folder(name).model("model").read_bytes()
            assert model == expected.folder(name).model("model").read_bytes()
            assert world.spent(name) == expected.spent(name)  # nothing twice


def test_only_the_jobs_that_are_named_are_run(worlds: Iterator[World]) -> None:
    world = next(worlds)
    with pytest.raises(WorkspaceError, match="no job is called expand-it: list it"):
        coordinator(world).run(world, only=["find", "expand-it"])
    coordinator(world).run(world, only=["find"])
    assert ended(world) == ["done"]
    assert not world.folder("brand").model("model").exists()


class SilentGrid(Grid):
    """A Grid to whose messages nobody ever answers."""

    def get_node_ids(self) -> list[int]:
        return []

    def push_messages(self, messages):  # noqa: ANN001, ANN201
        return [f"message {number}" for number, _ in enumerate(messages)]

    def pull_messages(self, message_ids):  # noqa: ANN001, ANN201
        return []

    create_message = send_and_receive = set_run = run = None


@pytest.mark.parametrize("looks", [0, 1, 3])
def test_a_channel_asks_at_every_look_whether_it_is_still_wanted(looks: int) -> None:
    TaskIdentity.task_id = TaskIdentity.run_id = TaskIdentity.node_id = 0
    wanted = Wanted(looks)
    channel = GridChannel(SilentGrid(), check_wanted=wanted, poll_seconds=0)
    with pytest.raises(RunCancelledError):
        channel.exchange([Parcel(1, SealedMessage(b"{}", b""))])
    wanted = Wanted(looks)
    with pytest.raises(RunCancelledError):
        GridChannel(SilentGrid(), check_wanted=wanted, poll_seconds=0).nodes(1)
    assert wanted.left == -1
