"""Forgetting the beginning of a log: by the agreed rule alone, told by a leaf, proved afterwards."""

import errno
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from parties import World, email, record

import federation.log_pruning
from compliance import records
from compliance.agreement import SignedAgreement
from compliance.auditing import FindingKind
from compliance.auditing.reading import read_log
from compliance.auditing.trust import log_keys
from compliance.erasure.execution import Standing
from compliance.errors import LogBusyError, LogError, ModelAlteredError
from compliance.lifecycle import amend
from compliance.log.files import LocalFiles
from compliance.log.policy import open_checkpoint
from compliance.log.proving import TiledTree
from compliance.log.pruning import prune
from compliance.log.verifier import FileMissingError, read_checkpoint, verify_log
from compliance.log.writer import LogWriter
from federation import adoption, retaining
from federation.auditing import audit_places
from federation.erasing import Erasing
from federation.errors import WorkspaceError
from federation.holding import held
from federation.log_pruning import prune_log
from federation.log_reading import own_leaves
from federation.party import PartyFolder, locked
from federation.published import check_published
from federation.witnessing import LogWitnessing

RETENTION = [{"artefact": "log-body", "days": 1, "basis": "nobody asks longer"}]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World.make(tmp_path_factory.mktemp("pruning"), retention=RETENTION)


@pytest.fixture
def folder(made: World, tmp_path: Path) -> PartyFolder:
    """A party with 300 leaves."""
    world = made.copy(tmp_path / "copy")
    folder = world.folder("courier")
    with folder.open_log() as log:
        log.append([leaf(folder, number) for number in range(300)])
    witnessed(world)
    return folder


def witnessed(world: World, name: str = "courier") -> None:
    """Let the others cosign a log as it is."""
    agreement = world.agreement
    log = LogWitnessing(world.folder(name), agreement, clock=world.clock)
    for request in log.show():
        witness = LogWitnessing(world.folder(request.witness), agreement, clock=world.clock)
        log.keep(witness.cosign([request]))


def leaf(folder: PartyFolder, number: int) -> bytes:
    agreement = folder.agreement()
    return records.to_leaf(
        records.JobStarted(
            time=agreement.valid_from + timedelta(minutes=number),
            party=folder.name,
            agreement=agreement.digest,
            job=f"j{number}",
            computation="match",
        )
    )


def later(folder: PartyFolder) -> datetime:
    return folder.agreement().valid_until + timedelta(days=2)


def test_what_is_left_is_proved_and_said_to_be_pruned(folder: PartyFolder) -> None:
    told, removed = prune_log(folder.path, 299, now=later(folder))
    assert told.kept_from == 256
    assert removed > 0
    log, (found,) = read_log(folder.log, folder.agreement(), folder.name)
    assert log is None
    assert (found.kind, found.leaves) == (FindingKind.PRUNED, (300,))
    with pytest.raises(LogError):
        verify_log(folder.log, verification_key=folder.agreement().party("courier").log_key)


def test_a_party_whose_log_was_pruned_still_deletes_and_erases(tmp_path: Path) -> None:
    terms = [*RETENTION, {"artefact": "segment", "days": 90, "basis": "a campaign"}]
    world = World.make(tmp_path / "world", retention=terms)
    world.run()
    folder = world.folder("courier")
    with folder.open_log() as log:
        log.append([leaf(folder, number) for number in range(300)])
    witnessed(world)
    now = later(folder)
    prune_log(folder.path, 299, now=now)
    with pytest.raises(ModelAlteredError, match="was pruned"):
        check_published(folder, world.agreement, "model", "0" * 64)
    with held(folder.path, clock=lambda: now) as at:
        erasing = Erasing(at.folder, at.agreement, at.gate, clock=lambda: now)
        erasing.request("email", email(33))
        (done,) = erasing.run()
    assert done.execution.standing is Standing.COMPLETED
    assert record("courier", 33) not in world.table("courier").read_text()
    (found,) = [one for one in retaining.status(folder, now=now).standings if one.due is not None]
    assert found.kept.created <= records.parse_leaf(entry(folder, 256)).time
    assert [one.name for one in retaining.run(folder, now=now).deleted] == ["best"]
    assert not folder.segment("best").exists()


def test_a_party_whose_log_was_pruned_takes_over_the_next_version(
    made: World, folder: PartyFolder, tmp_path: Path
) -> None:
    now, file = later(folder), tmp_path / "next.json"
    folder.open_ledger(made.agreement, begun=False)
    prune_log(folder.path, 299, now=now)
    terms = {"valid_from": now, "valid_until": now + timedelta(days=30)}
    after = amend(made.agreement, terms)
    file.write_bytes(SignedAgreement.draft(after).to_json())
    for party in made.agreement.parties:
        signer = PartyFolder(folder.path.parent / party.name)
        file.write_bytes(adoption.sign(signer, file).to_json())
    for _ in range(2):  # the second time changes nothing
        assert adoption.adopt(folder, file, now=now) == after
        leaves = own_leaves(folder, after)
        signed = [one for one in leaves if isinstance(one, records.AgreementSigned)]
        assert [one.agreement for one in signed] == [after.digest]


def entry(folder: PartyFolder, index: int) -> bytes:
    keys = log_keys(folder.agreement().party(folder.name))
    head, _ = open_checkpoint(read_checkpoint(folder.log), keys)
    return TiledTree(folder.log, head).entry(index)


def test_a_log_with_a_gap_is_none_that_was_pruned(folder: PartyFolder) -> None:
    (folder.log / "tile/entries/000").unlink()
    with pytest.raises(FileMissingError):
        own_leaves(folder, folder.agreement())


def audited(folder: PartyFolder, tmp_path: Path, *, days: int = 3) -> list[FindingKind]:
    """Audit the workspace of a party; return what is found about it."""
    now = folder.agreement().valid_until + timedelta(days=days)
    _, found, _ = audit_places(
        [str(folder.path.parent)], agreements=[], policy=None, scratch=tmp_path, now=now
    )
    return [one.kind for one in found if one.party == folder.name]


def pruned_anyhow(folder: PartyFolder, *before: records.Record, time: datetime) -> None:
    with folder.open_log() as log:
        log.append([records.to_leaf(one) for one in before])
        leaf = records.LogPruned(
            time=time,
            party=folder.name,
            agreement=folder.agreement().digest,
            kept_from=256,
            root_hash=log.checkpoint.root_hash.hex(),
        )
        log.append([records.to_leaf(leaf)])
        prune(folder.log, log.checkpoint, 256)


def test_a_pruned_log_is_held_against_the_contract(folder: PartyFolder, tmp_path: Path) -> None:
    otherwise = [FindingKind.PRUNED, FindingKind.PRUNED_OTHERWISE]
    hold = records.HoldPlaced(
        time=later(folder),
        party=folder.name,
        agreement=folder.agreement().digest,
        hold="h",
        artefact="log-body",
        reason="a dispute",
    )
    kept = shutil.copytree(folder.path.parent, tmp_path / "kept")

    def anew() -> PartyFolder:
        shutil.rmtree(folder.path.parent)
        shutil.copytree(kept, folder.path.parent)
        return PartyFolder(folder.path)

    prune_log(folder.path, 299, now=later(folder))
    assert audited(folder, tmp_path) == otherwise[:1]
    assert audited(folder, tmp_path, days=1) == otherwise  # told in the future
    again = anew()
    pruned_anyhow(again, time=again.agreement().valid_from)
    assert audited(again, tmp_path) == otherwise
    again = anew()
    pruned_anyhow(again, hold, time=later(again))
    assert audited(again, tmp_path) == otherwise


def test_a_log_made_up_is_not_one_that_was_pruned(folder: PartyFolder, tmp_path: Path) -> None:
    witness = (folder.log / "witness").rename(tmp_path / "witness")
    shutil.rmtree(folder.log)
    with folder.open_log() as log:
        log.append([leaf(folder, 1)] * 300)
    shutil.copytree(witness, folder.log / "witness", dirs_exist_ok=True)
    pruned_anyhow(folder, time=later(folder))
    found = audited(folder, tmp_path)
    assert set(found) == {
        FindingKind.PRUNED, FindingKind.REWRITTEN, FindingKind.PRUNED_OTHERWISE
    }  # fmt: skip


def test_nothing_goes_that_nobody_cosigned(made: World, tmp_path: Path) -> None:
    folder = made.copy(tmp_path / "copy").folder("courier")
    with folder.open_log() as log:
        log.append([leaf(folder, number) for number in range(300)])
    with pytest.raises(WorkspaceError, match="cosigned 0 entries"):
        prune_log(folder.path, 299, now=later(folder))


def test_a_leaf_that_names_another_root_is_told(folder: PartyFolder) -> None:
    told, _ = prune_log(folder.path, 299, now=later(folder))
    with folder.open_log() as log:
        log.append([records.to_leaf(told)])  # its root is not that of the tree before it
    _, (found,) = read_log(folder.log, folder.agreement(), folder.name)
    assert (found.kind, found.leaves) == (FindingKind.PRUNED_OTHERWISE, (301,))


class KilledError(Exception):
    """The process ends here."""


@pytest.mark.parametrize("files", [0, 1])
def test_a_pruning_that_was_cut_off_is_ended_when_asked_again(
    files: int, made: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = made.copy(tmp_path / "copy")
    folder = world.folder("courier")
    with folder.open_log() as log:
        log.append([leaf(folder, number) for number in range(530)])
    witnessed(world)
    remove, removed_files = LocalFiles.remove, list[Path]()

    def dying(disk: LocalFiles, path: Path) -> None:
        if len(removed_files) == files:
            raise KilledError
        removed_files.append(path)
        remove(disk, path)

    with monkeypatch.context() as patch:
        patch.setattr(LocalFiles, "remove", dying)
        with pytest.raises(KilledError):
            prune_log(folder.path, 300, now=later(folder))
    told, removed = prune_log(folder.path, 300, now=later(folder))
    assert (told.kept_from, removed) == (256, 2 - files)
    again, removed = prune_log(folder.path, 520, now=later(folder))
    assert (again.kept_from, removed) == (512, 2)
    assert prune_log(folder.path, 300, now=later(folder)) == (again, 0)
    _, found = read_log(folder.log, folder.agreement(), folder.name)
    assert [one.kind for one in found] == [FindingKind.PRUNED]


def test_nothing_is_pruned_while_the_contract_is_amended(
    folder: PartyFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextmanager
    def amended(folder: PartyFolder) -> Iterator[None]:
        with locked(folder):
            folder.next_agreement.write_bytes(b"{}")
            yield

    monkeypatch.setattr(federation.log_pruning, "locked", amended)
    with pytest.raises(WorkspaceError, match="amended meanwhile"):
        prune_log(folder.path, 299, now=later(folder))


def test_nothing_goes_against_the_rule(folder: PartyFolder) -> None:
    agreement = folder.agreement()
    with pytest.raises(WorkspaceError, match="in force"):
        prune_log(folder.path, 299, now=agreement.valid_from)
    with pytest.raises(WorkspaceError, match="256 entries each"):
        prune_log(folder.path, 255, now=later(folder))
    with pytest.raises(LogError, match="at most the 300"):
        prune_log(folder.path, 301, now=later(folder))
    held = records.HoldPlaced(
        time=later(folder),
        party=folder.name,
        agreement=agreement.digest,
        hold="h",
        artefact="log-body",
        reason="a dispute",
    )
    with folder.open_log() as log:
        log.append([records.to_leaf(held)])
        with pytest.raises(LogBusyError):
            prune_log(folder.path, 299, now=later(folder))
    with pytest.raises(WorkspaceError, match="hold"):
        prune_log(folder.path, 299, now=later(folder))
    key = agreement.party("courier").log_key
    assert verify_log(folder.log, verification_key=key).tree_size == 301


class FullDisk(LocalFiles):
    """A disk with room for so many bytes: what passes them is written in part, and refused."""

    def __init__(self, room: int) -> None:
        self.room = room

    def write(self, path: Path, data: bytes) -> None:
        super().write(path, data[: self.room])
        if len(data) > self.room:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        self.room -= len(data)

    def sync(self, paths: Collection[Path]) -> None:
        del paths  # the machine goes on


@pytest.mark.parametrize("room", [0, 40, 500, 3_000, 9_000])
def test_a_full_disk_loses_nothing_that_was_published(room: int, folder: PartyFolder) -> None:
    key = folder.agreement().party("courier").log_key
    before = verify_log(folder.log, verification_key=key).entries
    names = {"origin": folder.log_origin, "key": folder.log_key()}
    added = [leaf(folder, 300 + number) for number in range(30)]
    files = FullDisk(room)
    with LogWriter.open(folder.log, **names, second_key=folder.cosigning_key(), files=files) as log:
        with pytest.raises(LogError, match=r"cannot be written: No space.*free the disk"):
            log.append(added)
        with pytest.raises(LogError, match="open the log again"):
            log.append(added)
    assert verify_log(folder.log, verification_key=key).entries == before
    with folder.open_log() as log:
        log.append(added)
    assert verify_log(folder.log, verification_key=key).entries == (*before, *added)


def test_a_second_writer_is_refused_and_the_first_goes_on(folder: PartyFolder) -> None:
    key = folder.agreement().party("courier").log_key
    with folder.open_log() as log:
        with pytest.raises(LogBusyError, match="another writer has this log open"):
            folder.open_log()
        log.append([leaf(folder, 300)])
    assert verify_log(folder.log, verification_key=key).tree_size == 301


def test_the_command_says_what_stands_against_it(
    folder: PartyFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    from federation.cli import main

    with pytest.raises(SystemExit) as caught:
        main(["log", "prune", str(folder.path), "--before", "1", "--json"])
    assert caught.value.code == 2
    assert "error" in capsys.readouterr().err
