"""Erasing at a party whose jobs are over columns: while one is at work, and after it."""

from pathlib import Path
from typing import Any

import parties
import pytest
import vertical

from compliance import records
from compliance.terms import Role
from federation.erasing import Erasing
from federation.errors import RefusedError
from federation.gate import Gate
from federation.party import locked
from federation.training.manifests import Manifest
from federation.vertical_rows import KeptPart, read_own_rows

AGAIN = {"retrain_days": 20}
PEOPLE = {"brand": 0, "courier": 1, "press": 2, "retailer": 3}
ROLES = dict.fromkeys(PEOPLE, Role.PARTNER) | {"brand": Role.BRAND}


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> parties.World:
    monkeypatch.setattr(parties, "ROLES", ROLES | {"coordinator": Role.COORDINATOR})
    monkeypatch.setattr(parties, "PEOPLE", PEOPLE)
    return vertical.world(tmp_path, vertical.ALIGN, vertical.UNSAFE)


def erase(world: parties.World, person: int, *, run: bool, party: str = "courier") -> None:
    folder = world.folder(party)
    with locked(folder), folder.open_log() as log:
        gate = Gate(folder, world.agreement, log, None, clock=world.clock)
        erasing = Erasing(folder, world.agreement, gate, clock=world.clock)
        erasing.request("email", vertical.email(person))
        if run:
            erasing.run()


@pytest.mark.parametrize("run", [False, True])
def test_a_job_that_has_read_somebody_says_no_more(world: parties.World, run: bool) -> None:
    rows = world.folder("courier").job("model") / "rows.npz"
    before: list[int] = []

    def listener(name: str, _: Any, answer: Any) -> Any:
        if name == "courier" and rows.exists() and not before:
            before.append(len(world.leaves("courier")))
            erase(world, 3, run=run)
        return answer

    world.listener = listener
    with pytest.raises(RefusedError, match="was erased"):
        world.run()
    after = world.leaves("courier")[before[0] :]
    assert not [one for one in after if isinstance(one, records.ConsentUsed)]
    assert rows.exists() is not run


@pytest.mark.parametrize("party", ["courier", "brand"])
def test_what_a_job_at_work_has_made_of_columns_goes_with_the_person(
    world: parties.World, party: str
) -> None:
    """Rows, rounds and sums of everybody, which end the job; who took part stays known."""
    job = world.folder(party).job("model")
    made: set[str] = set()

    def listener(name: str, _: Any, answer: Any) -> Any:
        found = {path.name for path in job.glob("*")}
        wanted = {"rows.npz", "round-01.json"} if party == "courier" else {"rows.npz", "state.npz"}
        if not made and wanted <= found:
            made.update(found)
            erase(world, 3, run=True, party=party)
        return answer

    world.listener = listener
    with pytest.raises(RefusedError, match="was erased"):
        world.run()
    left = {path.name for path in job.glob("*")}
    gone = ("rows.npz", "labels.npz", "state.npz", "round-", "sum-", "scores-")
    assert not [name for name in left if name.startswith(gone)]
    assert {"people", "erased"} <= left <= made | {"erased"}


def test_a_part_of_a_model_is_retired_stops_nothing_and_is_judged_without_them(
    world: parties.World,
) -> None:
    world.run()
    courier = world.folder("courier")
    before = world.table("courier").read_bytes()
    erase(world, 5, run=True)
    assert courier.retired("model").exists()
    world.table("courier").write_bytes(before)  # an import
    part = KeptPart.open(courier.model("model"))
    read = set(read_own_rows(part, world.clock, with_labels=False).used.keys.to_numpy())
    assert vertical.record("courier", 6) in read
    assert vertical.record("courier", 5) not in read


def test_a_part_is_learnt_again_without_who_was_erased(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parties, "ROLES", ROLES | {"coordinator": Role.COORDINATOR})
    monkeypatch.setattr(parties, "PEOPLE", PEOPLE)
    terms = parties.terms
    monkeypatch.setattr(vertical, "terms", lambda **said: terms(erasure=AGAIN, **said))
    world = vertical.world(tmp_path, vertical.ALIGN, vertical.UNSAFE)
    world.run()
    erase(world, 5, run=True)
    world.run()
    for name in PEOPLE:  # the request has come to each, which retires its own part
        assert world.folder(name).retired("model").read_text() == "model-2"
        found = Manifest.open(world.folder(name), "model-2")
        assert found is not None
        assert found.names([vertical.record(name, 6)])
        assert not found.names([vertical.record(name, 5)])
        assert found.knew_erased([vertical.record(name, 5)])
        found.check(world.leaves(name))
