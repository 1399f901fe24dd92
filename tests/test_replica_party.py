"""A party whose folder has a copy in a database: what it lets out, shows, takes, and comes back to."""

import json
import os
import shutil
import sqlite3
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from parties import NOW, PURPOSE, World
from test_ledger import postgres as postgres  # noqa: PLC0414 - a fixture
from test_observing import Observed
from test_replica import brought_back, execute
from test_witnessing import fetch

from compliance.log.verifier import read_checkpoint
from federation import cli
from federation.adoption import sign
from federation.api.bodies import Event
from federation.api.clients import Clients
from federation.api.consents import Consents
from federation.api.scopes import Scope
from federation.apps.launchers import _check_copy
from federation.consent_recording import ConsentRecording
from federation.errors import ReplicaError, TakenOverError
from federation.holding import held
from federation.log_sharing import WITNESSED, _FolderWitness, make_server
from federation.party import PartyFolder, locked
from federation.replica import Replica, ReplicaStore
from federation.replica.restoring import restore
from privacy.accounting.charge import ChargeState
from privacy.accounting.ledger import Ledger
from privacy.accounting.stores import ledger_store

WHO = "retailer"


class Lost(BaseException):
    """The machine is lost at this moment."""


@pytest.fixture(autouse=True)
def sealed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMITY_UNSEALING_KEY", "5a" * 32)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> World:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COMITY_UNSEALING_KEY", "5a" * 32)
        return World.make(tmp_path_factory.mktemp("made"), unsafe_seed=7)


@pytest.fixture(scope="module")
def whole(made: World, tmp_path_factory: pytest.TempPathFactory) -> World:
    """The same collaboration, run undisturbed by parties that keep no copy."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COMITY_UNSEALING_KEY", "5a" * 32)
        world = made.copy(tmp_path_factory.mktemp("whole") / "world")
        world.run()
    return world


@pytest.fixture
def elsewhere(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/elsewhere.sqlite"


@pytest.fixture
def world(made: World, tmp_path: Path, elsewhere: str) -> World:
    """Four parties, of whom the retailer keeps a copy."""
    return copied(made, tmp_path / "world", elsewhere)


def copied(made: World, path: Path, database: str) -> World:
    world = made.copy(path)
    file = path / WHO / "party.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"database": database}))
    return reopened(world)


def reopened(world: World) -> World:
    """The same world, whose folders describe themselves as they do now."""
    folders = tuple(PartyFolder(folder.path) for folder in world.workspace.folders)
    return World(replace(world.workspace, folders=folders), world.now)


def moved(world: World, database: str) -> World:
    """Lose the retailer's folder, and go on from its copy."""
    path = world.folder(WHO).path
    shutil.rmtree(path)
    restored = restore(ReplicaStore(database), path, database=database, party=WHO)
    assert (restored.in_clear, restored.lacking) == ((), ())
    return reopened(world)


def before_synchronising(lose: Callable[[], None], patch: pytest.MonkeyPatch) -> None:
    synchronise = Replica.synchronise

    def lost(self: Replica, *within: str) -> None:
        lose()
        synchronise(self, *within)

    patch.setattr(Replica, "synchronise", lost)


def after_synchronising(lose: Callable[[], None], patch: pytest.MonkeyPatch) -> None:
    synchronise = Replica.synchronise

    def lost(self: Replica, *within: str) -> None:
        synchronise(self, *within)
        lose()

    patch.setattr(Replica, "synchronise", lost)


def after_committing(lose: Callable[[], None], patch: pytest.MonkeyPatch) -> None:
    commit = Ledger.commit

    def lost(self: Ledger, charge_id: str) -> None:
        commit(self, charge_id)
        lose()

    patch.setattr(Ledger, "commit", lost)


@pytest.mark.parametrize("moment", [before_synchronising, after_synchronising, after_committing])
def test_with_its_ledger_in_the_same_database_nothing_is_charged_twice_or_told_otherwise(
    made: World,
    whole: World,
    tmp_path: Path,
    postgres: str,
    moment: Callable[[Callable[[], None], pytest.MonkeyPatch], None],
) -> None:
    """The ledger outlives the machine: it may know more than the folder that comes back."""
    execute(postgres, "DROP SCHEMA IF EXISTS public CASCADE", "CREATE SCHEMA public")
    world = copied(made, tmp_path / "world", postgres)
    agreement = world.agreement
    store = ledger_store(postgres, party=WHO, agreement=agreement.lineage)

    def lose() -> None:
        reserved = store.exists() and [
            one for one in store.look()[1] if one.state == ChargeState.RESERVED
        ]
        committed = moment is after_committing
        if reserved or committed:
            raise Lost

    with pytest.MonkeyPatch.context() as patch:
        moment(lose, patch)
        with pytest.raises(Lost):
            world.run()
    assert not world.folder(WHO).ledger.exists()
    world = moved(world, postgres)
    world.run()
    states = Counter(one.state for one in store.look()[1])
    assert states == Counter(charge.state for charge in whole.statement(WHO).charges)
    told = [Counter(leaf.kind for leaf in one.leaves(WHO)) for one in (world, whole)]
    assert told[0]["budget.committed"] == told[1]["budget.committed"] == states["committed"]
    assert told[0]["budget.reserved"] == told[0]["budget.committed"] + told[0]["budget.refunded"]
    for name in ("models/model.json", "segments/best.csv"):
        here, there = (one.folder(WHO).path / name for one in (world, whole))
        assert here.read_bytes() == there.read_bytes()


def test_a_ledger_that_has_begun_in_a_file_stays_there_and_is_copied(
    whole: World, tmp_path: Path, postgres: str
) -> None:
    execute(postgres, "DROP SCHEMA IF EXISTS public CASCADE", "CREATE SCHEMA public")
    world = copied(whole, tmp_path / "world", postgres)
    with world.node(WHO).desk() as desk:
        assert desk.ledger.statement() == whole.statement(WHO)
    assert moved(world, postgres).statement(WHO) == whole.statement(WHO)


def test_while_the_database_is_away_nothing_leaves_and_the_next_run_goes_on(
    world: World, elsewhere: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    synchronise = Replica.synchronise

    def away(self: Replica, *within: str) -> None:
        raise ReplicaError("away")

    left: list[str] = []
    world.listener = lambda name, _, answer: left.append(name) or answer
    monkeypatch.setattr(Replica, "synchronise", away)
    with pytest.raises(ReplicaError, match="away"):
        world.run()
    assert WHO not in left
    monkeypatch.setattr(Replica, "synchronise", synchronise)
    world.run()
    assert world.members(WHO).size
    assert moved(world, elsewhere).leaves(WHO) == world.leaves(WHO)


def test_a_node_on_the_lost_machine_answers_nobody_once_the_folder_is_elsewhere(
    world: World, elsewhere: str, tmp_path: Path
) -> None:
    world.run()
    restore(ReplicaStore(elsewhere), tmp_path / "new", database=elsewhere)
    with pytest.raises(TakenOverError, match="restored elsewhere"):
        world.run()


@pytest.fixture
def served(world: World) -> Iterator[str]:
    with locked(world.folder(WHO)):
        pass
    server = make_server(world.folder(WHO).path, "127.0.0.1", 0)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_no_head_is_shown_that_the_copy_has_not(world: World, served: str, elsewhere: str) -> None:
    world.run()
    kept = read_checkpoint(world.folder(WHO).log)
    with suppress(Lost), world.node(WHO).desk() as desk:
        desk.gate.note_refusal(desk.refusal("match", "none"), None, release_id="x")
        raise Lost  # before the copy has it
    assert read_checkpoint(world.folder(WHO).log) != kept
    assert fetch(f"{served}/checkpoint")[2] == kept
    with locked(world.folder(WHO)):
        pass
    assert fetch(f"{served}/checkpoint")[2] == read_checkpoint(world.folder(WHO).log)
    world = moved(world, elsewhere)
    assert fetch(f"{served}/checkpoint")[2] == read_checkpoint(world.folder(WHO).log)


def test_what_it_cosigned_over_http_is_in_the_copy_first(
    world: World, elsewhere: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with locked(folder := world.folder(WHO)):
        pass
    heard: list[tuple[str, ...]] = []
    monkeypatch.setattr(Replica, "synchronise", lambda _, *within: heard.append(within))

    class Cosigner:
        @staticmethod
        def add_checkpoint(body: bytes, *, now: int) -> bytes:
            return b"line"

    monkeypatch.setattr("federation.log_sharing.witness_of", lambda *_: Cosigner)
    assert _FolderWitness(folder).add_checkpoint(b"", now=0) == b"line"
    assert heard == [(WITNESSED,)]


def test_what_people_say_during_a_job_is_in_the_copy_when_it_is_taken(
    world: World, elsewhere: str, tmp_path: Path
) -> None:
    path = world.folder(WHO).path
    with held(path) as at:
        ConsentRecording(at.folder, at.agreement, at.gate.note).bring(None)
    said = {"subject": {"reference": "R#711"}, "purpose": PURPOSE, "event": "withdrawn"}
    with suppress(Lost), locked(world.folder(WHO)):
        Consents(path, {}, None).record([Event.model_validate(said)], NOW, seeing=True)
        brought_back(elsewhere, tmp_path / "new")
        raise Lost
    journal = (path / "consents.csv").read_bytes()
    assert b"R#711" in journal.splitlines()[-1]
    assert (tmp_path / "new" / "consents.csv").read_bytes() == journal


@pytest.mark.parametrize("named", ["../said.csv", "said/../consents.csv"])
def test_a_journal_is_called_one_thing_in_the_copy_however_it_is_named(
    world: World, elsewhere: str, tmp_path: Path, named: str
) -> None:
    path = world.folder(WHO).path
    with held(path) as at:
        ConsentRecording(at.folder, at.agreement, at.gate.note).bring(None)
    file = path / "party.json"
    journal = Path(os.path.normpath(path / named))
    journal.write_bytes((path / "consents.csv").read_bytes())
    (path / "said").mkdir()
    file.write_text(json.dumps(json.loads(file.read_text()) | {"consent": named}))
    with locked(PartyFolder(path)):
        pass
    said = {"subject": {"reference": "R#711"}, "purpose": PURPOSE, "event": "withdrawn"}
    Consents(path, {}, None).record([Event.model_validate(said)], NOW, seeing=True)
    expected = journal.read_bytes()
    shutil.rmtree(path)
    journal.unlink(missing_ok=True)
    brought_back(elsewhere, path)
    assert journal.read_bytes() == expected


def test_a_client_that_was_revoked_does_not_come_back(
    world: World, elsewhere: str, tmp_path: Path
) -> None:
    path = world.folder(WHO).path
    clients = Clients(path)
    with pytest.raises(ReplicaError, match="no copy of retailer yet"):
        clients.add("shop", [Scope.CONSENT_WRITE], now=NOW)
    with locked(world.folder(WHO)):
        pass
    clients.revoke("shop")
    clients.add("till", [Scope.CONSENT_WRITE], now=NOW)
    brought_back(elsewhere, tmp_path / "new")
    assert [one.name for one in Clients(tmp_path / "new").listed()] == ["till"]


def test_nobody_hears_of_a_key_or_a_signature_that_could_be_lost(
    world: World, elsewhere: str, tmp_path: Path
) -> None:
    folder = world.folder(WHO)
    sign(folder, folder.path / "agreement.json")
    brought_back(elsewhere, tmp_path / "new")
    key = Path("keys") / "identity"
    assert (tmp_path / "new" / key).read_bytes() == (folder.path / key).read_bytes()


def test_the_key_that_opens_all_others_is_not_kept(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = world.folder(WHO).path / "unsealing-key"
    key.write_text("5a" * 32)
    key.chmod(0o600)
    monkeypatch.delenv("COMITY_UNSEALING_KEY")
    monkeypatch.setenv("COMITY_UNSEALING_KEY_FILE", str(key))
    world = reopened(world)
    with locked(world.folder(WHO)):
        pass
    assert b"5a" * 32 not in (tmp_path / "elsewhere.sqlite").read_bytes()


def test_an_erasure_is_told_once_the_copy_knows(
    world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def away(self: Replica, *within: str) -> None:
        raise ReplicaError("away")

    world.run()
    monkeypatch.setattr(Replica, "synchronise", away)
    code, told, wrong = comity(capsys, "erase", "run", world.folder(WHO).path)
    assert (code, told) == (2, "")
    assert "away" in wrong


def test_the_node_is_not_ready_without_its_database(world: World, elsewhere: str) -> None:
    path = world.folder(WHO).path
    watched = Observed(path)
    watched.view.heard()
    with locked(world.folder(WHO)):
        pass
    assert watched.get("/ready") == (200, "ready\n")
    execute(elsewhere, "UPDATE comity_replicas SET holder = 'another'")
    watched.seconds = 6.0
    watched.view.heard()
    assert watched.get("/ready") == (503, "not ready: database\n")


def comity(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    capsys.readouterr()
    with pytest.raises(SystemExit) as left:
        cli.main([str(one) for one in arguments])
    told = capsys.readouterr()
    return int(left.value.code or 0), told.out, told.err


def test_a_folder_comes_back_by_a_command(
    world: World, elsewhere: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = world.folder(WHO)
    with locked(folder):
        pass
    code, told, _ = comity(capsys, "node", "replica", folder.path, "--json")
    assert (code, json.loads(told)["kept"], json.loads(told)["sequence"]) == (0, True, 1)
    assert json.loads(told)["in_clear"] == 0
    config = tmp_path / "etc" / "node.toml"
    config.parent.mkdir()
    config.write_text(f'party = "../world/{WHO}"\ndatabase = "{elsewhere}"\n')
    code, _, wrong = comity(capsys, "node", "restore", "--config", config)
    assert (code, "is there already" in wrong) == (2, True)
    code, told, _ = comity(capsys, "node", "restore", "--config", config, "--if-there")
    assert (code, "nothing was restored" in told) == (0, True)
    new = ("--party", tmp_path / "new", "--database", elsewhere, "--if-there")
    code, _, wrong = comity(capsys, "node", "restore", *new)
    assert (code, "give --name" in wrong) == (2, True)
    code, told, _ = comity(capsys, "node", "restore", *new, "--name", "brand")
    assert (code, "no copy of brand yet" in told) == (0, True)
    shutil.rmtree(folder.path)
    code, told, _ = comity(capsys, "node", "restore", "--config", config, "--json")
    assert (code, json.loads(told)["restored"], json.loads(told)["missing"]) == (0, True, [])
    code, told, _ = comity(capsys, "node", "replica", folder.path)
    assert (code, f"{WHO}: changed 1 times" in told) == (0, True)
    world = reopened(world)
    world.run()
    old = world.folder(WHO)
    with sqlite3.connect(elsewhere.removeprefix("sqlite:///")) as database:
        database.execute("UPDATE comity_replicas SET holder = 'another'")
    code, _, wrong = comity(capsys, "node", "replica", old.path)
    assert (code, "restored elsewhere" in wrong) == (2, True)
    code, _, wrong = comity(capsys, "node", "restore", "--party", old.path)
    assert (code, "--database" in wrong) == (2, True)
    code, told, _ = comity(capsys, "node", "replica", world.folder("brand").path)
    assert (code, "no copy is kept" in told) == (0, True)


def test_a_node_says_what_the_copy_lacks_and_does_not_start_once_it_is_elsewhere(
    world: World, elsewhere: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, told = world.folder(WHO), list[str]()
    with locked(folder):
        pass
    _check_copy(folder, told.append)
    assert told == []
    monkeypatch.delenv("COMITY_UNSEALING_KEY")
    _check_copy(folder, told.append)
    assert [one.split(":")[0] for one in told] == [
        f"secrets of {WHO} lie in clear, and are not in the copy of its folder"
    ]
    brought_back(elsewhere, tmp_path / "new")
    with pytest.raises(TakenOverError, match="was restored elsewhere"):
        _check_copy(folder, told.append)
