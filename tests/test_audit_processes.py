"""Logs audited beside each other tell what they tell one after another, whatever becomes of one."""

import gc
import os
import signal
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from parties import MATCH, World
from test_auditing import PLANTED, built, clean

import federation.auditing
from compliance.auditing import Excerpt, Finding, FindingKind, PartyLog, Pricer, audit_alone
from compliance.auditing.rules import UnpriceableError
from federation import audit_processes
from federation.audit_processes import Audit, Audited, Told, audit_beside, audit_here
from federation.audit_rules import Accounting, rules_for
from federation.auditing import audit_places
from federation.coordinator import write_jobs

K = FindingKind


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    world = World.make(tmp_path_factory.mktemp("beside") / "made")
    write_jobs(world.folder("coordinator"), (MATCH,))
    world.run()
    return world


class Counted(Accounting):
    """Counts what it is asked."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: Counter[tuple[frozenset[tuple[str, int]], float]] = Counter()

    def epsilon(self, mechanisms: Mapping[str, int], delta: float) -> float:
        self.asked[frozenset(mechanisms.items()), delta] += 1
        return super().epsilon(mechanisms, delta)


def alone(world: World) -> Audit[PartyLog]:
    rules = rules_for(world.agreement, now=world.agreement.valid_from + timedelta(days=30))

    def audit(log: PartyLog, pricer: Pricer) -> Audited:
        return log, audit_alone(log, rules.priced_by(pricer))

    return audit


@pytest.mark.parametrize(
    "kind", [K.UNDERSTATED, K.UNPRICEABLE, K.OVER_CAP, K.DENIED, K.ERASURE_LATE], ids=str
)
def test_what_is_found_beside_each_other_is_what_is_found_here(kind: K, world: World) -> None:
    specs = clean(world.agreement)
    party, plant = PLANTED[kind]
    plant(specs, world.agreement)
    logs = built(world.agreement, specs)
    here, there = Counted(), Counted()
    expected = [audit_here(alone(world), log, here) for log in logs]
    assert audit_beside(alone(world), logs, there) == expected
    assert [one.kind for _, found in expected for one in found] == [kind]
    assert [found[0].party for _, found in expected if found] == [party]
    assert there.asked == here.asked
    assert here.asked


def test_there_may_be_more_logs_than_processes(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    logs = built(world.agreement, clean(world.agreement))
    expected = [audit_here(alone(world), log, Accounting()) for log in logs * 2]
    monkeypatch.setattr(audit_processes, "_MOST_PROCESSES", 3)
    assert audit_beside(alone(world), logs * 2, Accounting()) == expected
    assert audit_beside(alone(world), [], Accounting()) == []


def test_a_process_that_is_killed_stops_no_other(world: World) -> None:
    logs = built(world.agreement, clean(world.agreement))
    parent = os.getpid()

    def audit(log: PartyLog, pricer: Pricer) -> Audited:
        if log.party == "brand" and os.getpid() != parent:
            os.kill(os.getpid(), signal.SIGKILL)
        return alone(world)(log, pricer)

    told = audit_beside(audit, logs, Accounting())
    for log, (excerpt, found) in zip(logs, told, strict=True):
        if log.party == "brand":
            assert excerpt is None
            assert [(one.kind, one.party) for one in found] == [(K.UNREADABLE, "brand")]
        else:
            assert excerpt is not None
            assert excerpt.party == log.party
            assert not found


def test_prices_without_end_are_refused_to_whoever_asks(world: World) -> None:
    def audit(log: PartyLog, pricer: Pricer) -> Audited:
        with pytest.raises(UnpriceableError, match="cannot be priced"):
            pricer.epsilon({"{}": 1}, 1e-6)
        assert pricer.epsilon({}, 1e-6) == 0
        return log, ()

    logs = built(world.agreement, clean(world.agreement))[:2]
    assert [found for _, found in audit_beside(audit, logs, Accounting())] == [(), ()]


class Broken(Accounting):
    """Meets something that no accountant is made for."""

    def epsilon(self, mechanisms: Mapping[str, int], delta: float) -> float:
        del mechanisms, delta
        raise TypeError("unexpected")


def test_a_price_that_cannot_be_computed_stops_no_audit(world: World) -> None:
    def audit(log: PartyLog, pricer: Pricer) -> Audited:
        with pytest.raises(UnpriceableError, match="TypeError"):
            pricer.epsilon({}, 1e-6)
        return log, ()

    logs = built(world.agreement, clean(world.agreement))[:2]
    assert [found for _, found in audit_beside(audit, logs, Broken())] == [(), ()]


def test_garbage_is_collected_again_after_an_audit(world: World) -> None:
    seen: list[bool] = []

    def audit(log: PartyLog, _: Pricer) -> Audited:
        seen.append(gc.isenabled())
        return log, ()

    (log, *_) = built(world.agreement, clean(world.agreement))
    audit_here(audit, log, Accounting())
    assert (seen, gc.isenabled()) == ([False], True)


def test_large_logs_on_disk_are_audited_beside_each_other(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entries = world.folder("brand").log / "tile" / "entries" / "000.p"
    for file in entries.iterdir():
        file.write_bytes(file.read_bytes()[:-1])

    def audited(scratch: str) -> tuple[tuple[Excerpt, ...], tuple[Finding, ...], bool]:
        return audit_places(
            [str(world.workspace.path)],
            agreements=(),
            policy=None,
            scratch=tmp_path / scratch,
            now=world.now + timedelta(days=1),
        )

    expected = audited("here")
    beside: list[int] = []

    def watched(audit: Audit[Any], logs: Sequence[Any], pricer: Pricer) -> list[Told]:
        beside.append(len(logs))
        return audit_beside(audit, logs, pricer)

    monkeypatch.setattr(federation.auditing, "_LARGE", 1)
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    monkeypatch.setattr(federation.auditing, "audit_beside", watched)
    assert audited("beside") == expected
    assert beside == [4]
    assert (K.FILE_CUT, "brand") in [(one.kind, one.party) for one in expected[1]]
