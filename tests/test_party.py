"""A party's folder: files whole or not at all, secrets of its own, one user at a time."""

import fcntl
import json
import os
import signal
import stat
import threading
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import UTC, datetime
from itertools import count
from pathlib import Path

import pytest
from parties import ROLES, World
from pydantic import ValidationError

from compliance.agreement import SignedAgreement
from compliance.errors import ComplianceError, UnsignedAgreementError
from compliance.signing import SigningKey
from compliance.terms import Role
from federation.errors import WorkspaceError
from federation.party import DataConfig, PartyConfig, PartyFolder, locked, write_atomically
from federation.party.abandoned import remove_abandoned
from federation.shelves import scratch
from privacy.randomness import seeded_secret

CONFIG = PartyConfig(name="retailer", role=Role.PARTNER)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World.make(tmp_path_factory.mktemp("made"))


@pytest.fixture
def world(made: World, tmp_path: Path) -> World:
    return made.copy(tmp_path / "copy")


@pytest.fixture
def folder(tmp_path: Path) -> PartyFolder:
    return PartyFolder.create(tmp_path / "retailer", CONFIG)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


# --- files -----------------------------------------------------------------------------------


def test_a_file_is_written_with_its_directories_and_mode(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "file"
    write_atomically(path, b"one", mode=0o600)
    write_atomically(path, b"two", mode=0o600)
    assert path.read_bytes() == b"two"
    assert mode(path) == 0o600
    assert list(path.parent.iterdir()) == [path]


def test_of_threads_that_write_at_once_one_is_left_whole(tmp_path: Path) -> None:
    path = tmp_path / "file"
    contents = [bytes([one]) * (10_000 + one) for one in range(8)]
    with ThreadPoolExecutor(len(contents)) as pool:
        for _ in range(10):
            list(pool.map(lambda content: write_atomically(path, content), contents))
            assert path.read_bytes() in contents
    assert list(tmp_path.iterdir()) == [path]


def in_killed_child(after: int, work: Callable[[], object]) -> bool:
    """Do the work in a process killed before its n-th system call that matters; tell if it was."""
    child = os.fork()
    if child == 0:
        try:
            countdown = count(after, -1)
            for owner, name in ((os, "open"), (os, "fsync"), (Path, "replace"), (Path, "mkdir")):
                real = getattr(owner, name)

                def watched(
                    *arguments: object, _real: Callable[..., object] = real, **fields: object
                ) -> object:
                    if next(countdown) == 0:
                        os.kill(os.getpid(), signal.SIGKILL)
                    return _real(*arguments, **fields)

                setattr(owner, name, watched)
            work()
            os._exit(0)
        except BaseException:  # noqa: BLE001 -- nothing may run on in the child
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
    return os.WIFSIGNALED(status)


def test_a_kill_leaves_the_old_content_or_the_new(tmp_path: Path) -> None:
    path = tmp_path / "file"
    seen = set()
    for after in count():
        path.write_bytes(b"old")
        ended = not in_killed_child(after, lambda: write_atomically(path, b"new" * 1000))
        seen.add(path.read_bytes())
        if ended:
            break
    assert seen == {b"old", b"new" * 1000}
    assert after >= 3


def test_a_file_and_its_name_are_on_disk_before_it_counts_as_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a loss of power could take back an answer that was given and paid for."""
    events: list[tuple[str, int]] = []
    real, rename = os.fsync, Path.replace

    def fsync(descriptor: int) -> None:
        events.append(("sync", os.fstat(descriptor).st_ino))
        real(descriptor)

    def replace(self: Path, target: Path) -> Path:
        events.append(("rename", self.stat().st_ino))
        return rename(self, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(Path, "replace", replace)
    path = tmp_path / "file"
    write_atomically(path, b"content")
    node = path.stat().st_ino
    assert events == [("sync", node), ("rename", node), ("sync", tmp_path.stat().st_ino)]


# --- the folder ---------------------------------------------------------------------------------


def test_a_folder_is_made_once_and_found_again(tmp_path: Path, folder: PartyFolder) -> None:
    again = PartyFolder.create(tmp_path / "retailer", CONFIG)
    assert (again.path, again.name, again.config) == (folder.path, "retailer", CONFIG)
    assert mode(folder.path / "party.json") == 0o600


def test_a_folder_of_another_configuration_is_refused(tmp_path: Path, folder: PartyFolder) -> None:
    other = CONFIG.model_copy(update={"unsafe_seed": 1})
    with pytest.raises(WorkspaceError, match="another"):
        PartyFolder.create(tmp_path / "retailer", other)
    assert PartyFolder(folder.path).config == CONFIG


def test_what_is_no_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WorkspaceError, match=r"no party\.json"):
        PartyFolder(tmp_path)
    for content in (b"", b"\xff", b"[]", b'{"name": "A", "role": "brand"}', b'{"name": "a"}'):
        (tmp_path / "party.json").write_bytes(content)
        with pytest.raises(WorkspaceError, match="mistake"):
            PartyFolder(tmp_path)


@pytest.mark.parametrize(
    "mistake", [{"table": None}, {"key": 5}, {"password": "s3cret"}, {"identifiers": "s3cret"}]
)
def test_a_configurations_mistakes_are_told_without_its_values(
    tmp_path: Path, mistake: dict[str, object]
) -> None:
    data = {"url": "postgresql://ann:s3cret@db/crm", "table": "s3cret", "key": "s3cret"}
    data |= {"identifiers": {"email": "s3cret"}} | mistake
    content = {"name": "retailer", "role": "partner", "data": data}
    (tmp_path / "party.json").write_text(json.dumps(content))
    with pytest.raises(WorkspaceError, match=r"party\.json: 1 mistakes: data") as caught:
        PartyFolder(tmp_path)
    assert "s3cret" not in "".join(traceback.format_exception(caught.value))


def test_everything_of_a_party_lies_in_its_folder(folder: PartyFolder) -> None:
    paths = [
        folder.log,
        folder.ledger,
        folder.outbox,
        folder.job("find"),
        folder.members("find"),
        folder.model("model"),
        folder.segment("best"),
        folder.resolve(Path("data/people.csv")),
    ]
    assert len(set(paths)) == len(paths)
    assert all(path.is_relative_to(folder.path) for path in paths)
    assert folder.resolve(Path("/srv/people.csv")) == Path("/srv/people.csv")


@pytest.mark.parametrize(
    "source",
    [
        {},
        {"path": "a.csv", "url": "sqlite:///a"},
        {"path": "a.csv", "table": "people"},
        {"url": "sqlite:///a"},
        {"table": "people"},
    ],
)
def test_a_table_is_a_file_or_a_databases(source: dict[str, str]) -> None:
    fields = {"key": "record", "identifiers": {"email": "email"}}
    with pytest.raises(ValidationError, match="either path, or url and table"):
        DataConfig.model_validate(fields | source)
    assert DataConfig.model_validate(fields | {"path": "a.csv"}).url is None
    DataConfig.model_validate(fields | {"url": "sqlite:///a", "table": "people"})
    with pytest.raises(ValidationError, match="identifiers"):
        DataConfig.model_validate({"path": "a.csv", "key": "record", "identifiers": {}})


# --- keys and secrets -----------------------------------------------------------------------------


KEYS = ("identity", "log", "encryption")


def test_keys_are_made_once_and_are_their_owners_alone(folder: PartyFolder) -> None:
    identity, log, decryption = folder.identity_key(), folder.log_key(), folder.decryption_key()
    again = PartyFolder(folder.path)
    assert again.identity_key().public == identity.public
    assert again.log_key().public == log.public
    assert again.decryption_key().public == decryption.public
    assert identity.public != log.public
    contents = [(folder.path / "keys" / name).read_bytes() for name in KEYS]
    assert len(set(contents)) == len(KEYS)
    for name in KEYS:
        assert mode(folder.path / "keys" / name) == 0o600


def test_a_key_that_is_put_in_anothers_place_counts_at_once(folder: PartyFolder) -> None:
    before = folder.identity_key().public, folder.cosigning_key().public
    for name in ("identity", "cosigning"):
        folder.keep_secret(folder.path / "keys" / name, seeded_secret(9, name).hex().encode())
    assert folder.identity_key() is folder.identity_key()
    assert folder.identity_key().public == SigningKey.from_seed(seeded_secret(9, "identity")).public
    assert folder.cosigning_key().public != before[1]
    assert folder.identity_key().public != before[0]


@pytest.mark.parametrize("content", [b"", b"00", b"zz" * 32, b"\xff" * 64, b"00" * 33])
def test_a_damaged_key_is_refused_and_not_replaced(folder: PartyFolder, content: bytes) -> None:
    folder.identity_key()
    (folder.path / "keys" / "identity").write_bytes(content)
    with pytest.raises(WorkspaceError, match="damaged"):
        folder.identity_key()
    assert (folder.path / "keys" / "identity").read_bytes() == content


@pytest.mark.parametrize("name", KEYS)
def test_a_key_that_an_agreement_rests_on_is_never_made_anew(world: World, name: str) -> None:
    folder = world.folder("retailer")
    path = folder.path / "keys" / name
    kept = path.read_bytes()
    path.unlink()
    key = {
        "identity": folder.identity_key,
        "log": folder.log_key,
        "encryption": folder.decryption_key,
    }[name]
    for use in (key, folder.agreement):
        with pytest.raises(WorkspaceError, match=f"keys/{name} is missing.* restore the key"):
            use()
        assert not path.exists()
    path.write_bytes(kept)
    assert folder.agreement() == world.agreement


def test_a_secret_is_fresh_unless_the_party_asked_for_a_trial(tmp_path: Path) -> None:
    folder = PartyFolder.create(tmp_path / "a", CONFIG)
    assert folder.fresh_secret("match") != folder.fresh_secret("match")
    trials = [
        PartyFolder.create(tmp_path / name, CONFIG.model_copy(update={"unsafe_seed": seed}))
        for name, seed in (("b", 1), ("c", 1), ("d", 2))
    ]
    one, same, other = [trial.fresh_secret("match") for trial in trials]
    assert one == same != other
    assert trials[0].fresh_secret("train") != one


# --- the agreement --------------------------------------------------------------------------------


def test_a_party_holds_the_agreement_that_all_signed(world: World) -> None:
    for name in ROLES:
        assert world.folder(name).agreement() == world.agreement


def test_an_agreement_that_is_missing_or_unreadable_is_refused(world: World) -> None:
    folder = world.folder("retailer")
    path = folder.path / "agreement.json"
    right = path.read_bytes()
    for content in (b"", b"{}", right[:-1], right.replace(b"retailer", b"courier")):
        path.write_bytes(content)
        with pytest.raises(ComplianceError):
            folder.agreement()
    path.write_bytes(SignedAgreement.draft(world.agreement).to_json())
    with pytest.raises(UnsignedAgreementError):
        folder.agreement()
    path.unlink()
    with pytest.raises(WorkspaceError, match="no such file"):
        folder.agreement()


def test_an_agreement_with_other_keys_of_this_party_is_refused(
    world: World, tmp_path: Path
) -> None:
    other = World.make(tmp_path / "other")
    path = world.folder("retailer").path / "agreement.json"
    path.write_bytes((other.folder("retailer").path / "agreement.json").read_bytes())
    with pytest.raises(WorkspaceError, match="other keys"):
        world.folder("retailer").agreement()


def test_an_agreement_with_another_encryption_key_of_this_party_is_refused(world: World) -> None:
    """Whoever draws it up could put in a key of its own, and read what is meant for this party."""
    folder = world.folder("brand")
    secret = world.folder("brand").path / "keys" / "encryption"
    secret.write_text("00" * 32)
    with pytest.raises(WorkspaceError, match="other keys"):
        folder.agreement()


def test_who_holds_people_and_nobody_else_has_an_encryption_key(world: World) -> None:
    for name, role in ROLES.items():
        folder = world.folder(name)
        assert folder.term() == world.agreement.party(name)
        has_key = (folder.path / "keys" / "encryption").exists()
        assert has_key == (folder.term().encryption_key is not None) == (role != "coordinator")


# --- one at a time --------------------------------------------------------------------------------


def test_a_folder_has_one_user_at_a_time(folder: PartyFolder) -> None:
    inside: list[int] = []
    most: list[int] = []

    def use(number: int) -> None:
        for _ in range(20):
            with locked(folder):
                inside.append(number)
                most.append(len(inside))
                inside.remove(number)

    threads = [threading.Thread(target=use, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(most) == 1
    assert len(most) == 80


def test_a_lock_holds_against_other_processes_and_ends_with_its_holder(
    folder: PartyFolder,
) -> None:
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        with locked(folder):
            os.write(write, b"held")
            signal.pause()
    try:
        assert os.read(read, 4) == b"held"
        with (folder.path / "lock").open("w") as file, pytest.raises(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    with locked(folder):
        pass
    os.close(read)
    os.close(write)


def test_what_a_killed_holder_left_half_written_goes_when_the_folder_is_held_again(
    folder: PartyFolder,
) -> None:
    def left() -> list[Path]:
        return list(folder.path.rglob("*.tmp"))

    child = os.fork()
    if child == 0:
        with locked(folder):
            (folder.path / "jobs").mkdir(exist_ok=True)
            for place in (folder.path, folder.path / "jobs"):
                (place / f".result.{os.getpid()}.tmp").write_bytes(b"half")
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    assert len(left()) == 2
    with locked(folder):
        assert left() == []
        (folder.path / ".result.2.tmp").write_bytes(b"being written")
    with locked(folder):  # the last holder ended well: nothing is looked for
        assert len(left()) == 1


@pytest.mark.parametrize("is_held", [True, False])
def test_what_a_killed_process_had_read_of_people_goes_and_what_is_in_use_stays(
    folder: PartyFolder, is_held: bool
) -> None:
    names = ("view.tmp", "jobs/model/own-rows.tmp", "erasures/showing/brand.tmp")
    places = [folder.path / name for name in names]
    child = os.fork()
    if child == 0:
        with ExitStack() as at_work:
            if is_held:
                at_work.enter_context(locked(folder))
            for place in places:
                (at_work.enter_context(scratch(place)) / "people").write_bytes(b"R-7")
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    assert all(place.exists() for place in places)
    with scratch(folder.path / "jobs" / "other" / "own-rows.tmp") as lent:
        with locked(folder):
            assert [place.exists() for place in places] == [not is_held] * 3
            remove_abandoned(folder.path)
            assert not any(place.exists() for place in places)
        assert lent.exists()


def test_a_file_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "result").mkdir()
    with pytest.raises(IsADirectoryError):
        write_atomically(tmp_path / "result", b"content")
    assert [path.name for path in tmp_path.iterdir()] == ["result"]


def test_a_lock_is_given_back_after_a_failure(folder: PartyFolder) -> None:
    with pytest.raises(ZeroDivisionError), locked(folder):
        1 / 0  # noqa: B018 -- any failure will do
    with locked(folder):
        pass


def test_a_configuration_reads_back_as_it_was_written(world: World) -> None:
    for name, role in ROLES.items():
        folder = world.folder(name)
        assert (folder.config.name, folder.config.role) == (name, role)
        stored = json.loads((folder.path / "party.json").read_bytes())
        assert PartyConfig.model_validate(stored) == folder.config


def test_the_agreements_moment_is_aware(world: World) -> None:
    assert world.agreement.valid_from == datetime(2026, 1, 1, tzinfo=UTC)
