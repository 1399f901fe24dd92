"""Who does a party's arithmetic, as its configuration says, and what a match makes of it."""

import json
import os
import signal
import threading
from collections.abc import Iterator
from multiprocessing import current_process
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from parties import MATCH, NOW, PEOPLE, World, collaboration
from pydantic import ValidationError

from federation import workers as module
from federation.collaboration.document import PartySection
from federation.collaboration.mistakes import explain
from federation.coordinator import write_jobs
from federation.errors import RefusedError
from federation.messages import MatchBlinded, MatchReply, SealedMessage
from federation.party import PartyConfig, PartyFolder
from federation.progress import Progress, listening
from federation.trial.workspace import prepare_workspace
from federation.workers import RenewedProcesses, WorkerKind, WorkersConfig, engine_for
from privacy.psi import PortableEngine
from privacy.psi.distributed import DistributedEngine
from privacy.psi.engines import GENERATION_PAYS_FROM, EngineKind, choose_engine

PROCESSES = WorkersConfig(kind=WorkerKind.PROCESSES, count=2)


def started_as() -> str:
    return type(current_process()).__name__


@pytest.fixture
def renewed() -> Iterator[RenewedProcesses]:
    pool = RenewedProcesses(1)
    yield pool
    pool.shutdown()


class TestConfiguration:
    @pytest.mark.parametrize(
        "fields",
        [
            {"kind": "threads"},
            {"kind": "processes", "count": 1_024},
            {"kind": "ray", "count": 2},
            {"kind": "ray", "address": "head.internal:6379"},
        ],
        ids=str,
    )
    def test_is_read(self, fields: dict[str, Any]) -> None:
        config = PartyConfig.model_validate({"name": "a", "role": "brand", "workers": fields})
        assert config.workers == WorkersConfig(**fields)

    @pytest.mark.parametrize(
        ("fields", "told"),
        [
            (
                {"kind": "thread"},
                "workers.kind: found 'thread'; allowed: 'threads', 'processes' or 'ray'",
            ),
            ({"count": 2}, "workers.kind: is missing; add it: 'threads', 'processes' or 'ray'"),
            (
                {"kind": "ray", "count": 0},
                "workers.count: found 0; allowed: a whole number from 1 to 1,024",
            ),
            (
                {"kind": "ray", "address": "ray://head"},
                "workers.address: found 'ray://head'; allowed: host:port in quotes, such as 'head.internal:6379'",
            ),
            (
                {"kind": "threads", "address": "head:1"},
                "workers: only workers of kind 'ray' have an address; remove it",
            ),
            (
                {"kind": "ray", "address": "head:1", "count": 2},
                "workers: a cluster has the workers that it has; remove count or address",
            ),
            ({"kind": "ray", "cpus": 2}, "workers.cpus: is not a known key; did you mean"),
        ],
        ids=str,
    )
    def test_mistakes_are_told_with_what_is_allowed(
        self, fields: dict[str, Any], told: str
    ) -> None:
        section = {"name": "a", "role": "partner", "workers": fields}
        with pytest.raises(ValidationError) as caught:
            PartySection.model_validate_json(json.dumps(section), strict=True)
        (line,) = explain(caught.value, PartySection)
        assert line.startswith(told[: told.find("; did") + 1 or None])

    def test_a_coordinator_has_no_use_for_it(self) -> None:
        section = {"name": "a", "role": "coordinator", "workers": {"kind": "threads"}}
        with pytest.raises(ValidationError) as caught:
            PartySection.model_validate(section)
        assert explain(caught.value, PartySection) == [
            "workers: a coordinator computes nothing; remove it"
        ]

    def test_may_change_in_a_workspace_that_exists_and_nothing_else_may(
        self, tmp_path: Path
    ) -> None:
        world = World.make(tmp_path, unsafe_seed=7)
        document = collaboration(unsafe_seed=7)
        changed = document.model_copy(
            update={
                "parties": tuple(
                    party.model_copy(update={"workers": PROCESSES if party.data else None})
                    for party in document.parties
                )
            }
        )
        again = prepare_workspace(changed, tmp_path / "trial.toml", world.workspace.path)
        assert {folder.config.workers for folder in again.people} == {PROCESSES}
        assert again.coordinator.config.workers is None
        file = again.people[0].path / "party.json"
        assert file.stat().st_mode & 0o777 == 0o600
        assert PartyFolder(again.people[0].path).config.workers == PROCESSES
        before = file.stat().st_mtime_ns
        prepare_workspace(changed, tmp_path / "trial.toml", world.workspace.path)
        assert file.stat().st_mtime_ns == before


class TestEngines:
    def test_without_workers_it_is_the_local_one(self) -> None:
        assert engine_for(None, 1) == choose_engine(1)

    @pytest.mark.parametrize(("count", "threads"), [(None, len(os.sched_getaffinity(0))), (3, 3)])
    def test_threads_are_the_local_engines(self, count: int | None, threads: int) -> None:
        config = WorkersConfig(kind=WorkerKind.THREADS, count=count)
        assert engine_for(config, 1) == PortableEngine(workers=threads)

    def test_processes_share_the_chunks_of_a_bucket(self) -> None:
        few = engine_for(PROCESSES, 1)
        assert isinstance(few, DistributedEngine)
        assert isinstance(few.executor, RenewedProcesses)
        assert (few.kind, few.chunk_points, few.most_in_flight) == (EngineKind.PORTABLE, 16_384, 6)
        assert few.executor.count == 2

    @pytest.mark.parametrize(("workers", "chunk"), [(1, 16_384), (16, 8_192), (1_000, 3_072)])
    def test_chunks_are_neither_crumbs_nor_lumps(self, workers: int, chunk: int) -> None:
        assert module._chunk_points(workers) == chunk

    def test_code_is_generated_where_that_pays_for_every_worker(self) -> None:
        enough = 2 * GENERATION_PAYS_FROM
        assert engine_for(PROCESSES, enough).kind is None
        assert engine_for(PROCESSES, enough - 1).kind is EngineKind.PORTABLE

    def test_workers_are_kept_for_the_next_use_but_not_for_a_forked_process(self) -> None:
        one, other = engine_for(PROCESSES, 1), engine_for(PROCESSES, 1)
        assert one.executor is other.executor
        child = os.fork()
        if child == 0:
            kept = engine_for(PROCESSES, 1).executor is one.executor
            os._exit(1 if kept else 0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


class TestRenewedProcesses:
    def test_are_spawned_and_so_hold_no_memory_of_this_one(self, renewed: RenewedProcesses) -> None:
        assert renewed.submit(started_as).result() == "SpawnProcess"
        assert renewed.submit(os.getpid).result() != os.getpid()

    def test_are_made_anew_when_one_was_killed(self, renewed: RenewedProcesses) -> None:
        lost = renewed.submit(os.kill, renewed.submit(os.getpid).result(), signal.SIGKILL)
        assert "terminated abruptly" in str(lost.exception())
        assert renewed.submit(abs, -3).result() == 3
        assert list(renewed.map(abs, [-1, -2])) == [1, 2]

    def test_take_nothing_after_they_were_shut_down(self, renewed: RenewedProcesses) -> None:
        renewed.shutdown()
        with pytest.raises(RuntimeError, match="after shutdown"):
            renewed.submit(abs, 1)

    def test_cancel_what_is_queued_if_asked(self, renewed: RenewedProcesses) -> None:
        renewed.submit(abs, 1).result()
        queued = [renewed.submit(abs, 1) for _ in range(200)]
        renewed.shutdown(cancel_futures=True)
        assert any(future.cancelled() for future in queued)


def small_match(path: Path, workers: WorkersConfig | None) -> World:
    """A world in which everything is drawn from one seed, and only the match is to be run."""
    world = World.make(path, unsafe_seed=7)
    write_jobs(world.folder("coordinator"), [MATCH])
    for name in PEOPLE:
        file = world.folder(name).path / "party.json"
        stored = json.loads(file.read_text())
        stored["workers"] = None if workers is None else workers.model_dump(mode="json")
        file.write_text(json.dumps(stored))
    world.now = NOW
    return world


def points_sent(world: World) -> set[bytes]:
    """Every set of points that parties sent each other, decrypted."""
    messages = map(world.read, world.wire)
    kinds = MatchBlinded, MatchReply
    return {message.payload for message in messages if isinstance(message.body, kinds)}


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> World:
    world = small_match(tmp_path_factory.mktemp("plain"), None)
    world.run()
    return world


def assert_same_match(world: World, plain: World) -> None:
    assert points_sent(world) == points_sent(plain)
    assert len(points_sent(plain)) == 4
    for name in ("retailer", "courier"):
        assert np.array_equal(world.members(name), plain.members(name))
        assert len(plain.members(name))


class TestMatch:
    def test_by_processes_gives_the_same_bytes(self, plain: World, tmp_path: Path) -> None:
        told: list[Progress] = []
        world = small_match(tmp_path, PROCESSES)
        with listening(told.append):
            world.run()
        assert_same_match(world, plain)
        assert {one.stage for one in told} >= {"hashes to the curve", "multiplies points"}

    def test_whose_workers_were_killed_stops_and_goes_on_when_run_again(
        self, plain: World, tmp_path: Path
    ) -> None:
        world, pool = small_match(tmp_path, PROCESSES), engine_for(PROCESSES, 1).executor
        victims = {pool.submit(os.getpid).result() for _ in range(20)}
        killed = threading.Event()

        def kill() -> None:
            for victim in victims:
                os.kill(victim, signal.SIGKILL)

        def on_answer(party: str, question: SealedMessage, answer: SealedMessage) -> SealedMessage:
            body = world.read(answer).body
            if isinstance(body, MatchBlinded) and not killed.is_set():
                killed.set()
                for victim in victims:  # stopped first, so that none answers before its end
                    os.kill(victim, signal.SIGSTOP)
                threading.Timer(0.3, kill).start()
            return answer

        world.listener = on_answer
        told: list[Progress] = []
        with listening(told.append), pytest.raises(RefusedError) as caught:
            world.run()
        assert killed.is_set()
        assert caught.value.term == "computation"
        assert [one for one in told if "a worker ended before it answered" in one.stage]
        assert points_sent(world) < points_sent(plain)
        world.run()
        assert_same_match(world, plain)
