"""Keys of logs and witnesses are replaced by amendment; who has the old ones can do nothing more."""

import errno
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from parties import MATCH, ROLES, World
from test_adoption import LATER, drawn_up
from test_auditing import of_files
from test_log import KEY, ORIGIN, CrashError, FastFiles, UnreliableFiles, entries, open_log
from test_witness import HASHES, LOG, NOW, OTHER, head, request
from test_witness import ORIGIN as WITNESSED
from test_witness import WITNESS as COSIGNER
from test_witnessing import fetch

from compliance import records
from compliance.agreement import Agreement, SignedAgreement
from compliance.auditing import FindingKind
from compliance.auditing.cryptoperiod import (
    Cryptoperiod,
    KeyNotInForceError,
    check_in_force,
    cryptoperiods,
)
from compliance.auditing.heads import KeptHeads, split_views, witnessed
from compliance.auditing.reading import read_log, read_versions
from compliance.errors import (
    LogBusyError,
    LogCorruptedError,
    LogError,
    NotWitnessedError,
    Objection,
    RecordError,
    SignatureError,
)
from compliance.log.checkpoint import Checkpoint
from compliance.log.cosignature import CosigningKey, open_head
from compliance.log.merkle import EMPTY_ROOT
from compliance.log.note import Note, NoteKey
from compliance.log.proving import TiledTree
from compliance.log.receipt import Receipt
from compliance.log.verifier import read_checkpoint, verify_log
from compliance.log.witness import AddCheckpoint, Evidence, SplitViewError
from compliance.log.witnessing import Witness, origin_hash
from compliance.log.writer import LogWriter
from compliance.signing import SigningKey
from federation import adoption
from federation.adoption import RotatedKey
from federation.audit import verify_all, verify_party
from federation.cli import main
from federation.coordinator import write_jobs
from federation.errors import WorkspaceError
from federation.jobs.witness import Answer
from federation.log_server import LogServer
from federation.log_sharing import check_receipt, make_receipt, make_server
from federation.party import PartyFolder
from federation.trial.workspace import Workspace
from federation.witnesses import witness_of
from federation.witnessing import LogWitnessing

K = FindingKind
KILLING = Path(__file__).with_name("killing_adoption.py")
ROTATED = ("retailer", "brand")
"""Who replaces keys in the second version."""


@dataclass(frozen=True)
class Thief:
    """What somebody copied of the retailer before its keys were replaced."""

    key: SigningKey
    second: CosigningKey
    log: Path

    def fork(self, directory: Path, *more: bytes) -> Path:
        """The log as it was then, with other entries after it, signed by the old keys."""
        shutil.copytree(self.log, directory)
        with LogWriter.open(
            directory,
            origin="comity/retailer",
            key=self.key,
            second_key=self.second,
            files=FastFiles(),
        ) as log:
            log.append(more)
        return directory


@dataclass(frozen=True)
class Story:
    """One run, an amendment that replaces keys, another run."""

    first: Path
    """Version 1, as all signed it."""
    early: bytes
    """A receipt made under it."""
    world: World
    cutover: int
    """Entries of the retailer's log before it took version 2 over."""
    thief: Thief
    waiting: World
    """The world when version 2 was signed, and nobody had taken it over."""
    second: Path


def rotated(world: World, file: Path) -> Agreement:
    """Write a version, signed by all, that replaces keys."""
    parties = {one.name: one for one in world.agreement.parties}
    for name in ROTATED:
        for key in RotatedKey:
            parties[name] = adoption.rotate(world.folder(name), key)
    return drawn_up(world, file, parties=tuple(parties.values()))


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Story:
    root = tmp_path_factory.mktemp("rotation")
    world = World.make(root / "made")
    write_jobs(world.folder("coordinator"), (MATCH,))
    world.run()
    first, second = root / "first.json", root / "second.json"
    shutil.copy(world.workspace.path / "agreement.json", first)
    folder = world.folder("retailer")
    receipt, version = make_receipt(folder.path, 0)
    assert version == world.agreement
    copied = Path(shutil.copytree(folder.log, root / "copied"))
    thief = Thief(folder.log_key(), folder.cosigning_key(), copied)
    cutover = verify_party(folder.path).tree_size
    after = rotated(world, second)
    waiting = world.copy(root / "waiting")
    for one in world.workspace.folders:
        adoption.adopt(one, second, now=LATER)
    shutil.copy(second, world.workspace.path / "agreement.json")
    folders = tuple(PartyFolder(one.path) for one in world.workspace.folders)
    world = World(Workspace(world.workspace.path, after, folders), LATER)
    write_jobs(world.folder("coordinator"), (MATCH.model_copy(update={"name": "again"}),))
    world.run()
    return Story(first, receipt.to_bytes(), world, cutover, thief, waiting, second)


@pytest.fixture
def world(story: Story, tmp_path: Path) -> World:
    return story.world.copy(tmp_path / "copy")


def term(agreement: Agreement, name: str = "retailer") -> tuple[NoteKey, CosigningKey | None]:
    party = agreement.party(name)
    return NoteKey.from_string(party.log_key), party.cosigner


# --- a whole story ------------------------------------------------------------------------------


def test_logs_and_witnesses_go_on_over_the_change(story: Story, tmp_path: Path) -> None:
    found, problems = verify_all([story.world.workspace.path])
    assert (len(found), problems) == (len(ROLES), ())
    for party in found:
        assert party.public_size is not None
        assert party.public_size > story.cutover - 5
        assert set(party.cosigned_by) == set(ROLES) - {party.party}
    assert of_files(story.world.workspace.path, scratch=tmp_path) == []


def test_the_leaf_that_tells_of_new_keys_names_old_and_new(story: Story) -> None:
    leaves = story.world.leaves("retailer")
    assert isinstance(leaves[story.cutover], records.AgreementSigned)
    told = leaves[story.cutover + 1 : story.cutover + 5]
    assert [leaf.key for leaf in told if isinstance(leaf, records.KeyRotated)] == [
        "identity_key",
        "encryption_key",
        "log_key",
        "cosigning_key",
    ]


def test_old_keys_are_gone_and_new_ones_sign(story: Story) -> None:
    folder = story.world.folder("retailer")
    assert not list((folder.path / "keys").glob("*.next"))
    assert folder.log_key().public != story.thief.key.public
    signed = read_checkpoint(folder.log)
    open_head(signed, *term(story.world.agreement))
    with pytest.raises(LogCorruptedError, match="got only those of"):
        open_head(signed, *term(story.waiting.agreement))


def test_receipts_hold_under_the_version_they_were_made_by(story: Story, tmp_path: Path) -> None:
    early, late = tmp_path / "early", tmp_path / "late"
    early.write_bytes(story.early)
    receipt, version = make_receipt(story.world.folder("retailer").path, story.cutover + 1)
    assert version == story.world.agreement
    late.write_bytes(receipt.to_bytes())
    of = {early: story.first, late: story.second}
    for file, agreement in of.items():
        check_receipt(file, agreement=agreement, party="retailer", policy=None)
    for file, other in ((early, story.second), (late, story.first)):
        with pytest.raises(LogCorruptedError, match="without a signature by a known key"):
            check_receipt(file, agreement=other, party="retailer", policy=None)


def test_a_receipt_of_a_head_that_was_public_before(story: Story, tmp_path: Path) -> None:
    world = story.waiting.copy(tmp_path / "copy")
    folder = world.folder("retailer")
    adoption.adopt(folder, story.second, now=LATER)
    receipt, version = make_receipt(folder.path, 0)
    assert version == story.waiting.agreement
    assert receipt.to_bytes() == story.early
    assert make_receipt(folder.path, story.cutover)[1] is None
    assert verify_party(folder.path).public_size is not None


def test_a_receipt_is_worth_what_its_keys_are(
    story: Story, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Old keys, of the log and of all who witness it, make one that only the old version takes."""
    fork = story.thief.fork(tmp_path / "fork", b'{"never": "said"}')
    head = Checkpoint.open(read_checkpoint(fork), term(story.waiting.agreement)[0])
    note = Note.parse(read_checkpoint(fork))
    lines = tuple(
        story.waiting.folder(name).cosigning_key().cosign(head, timestamp=NOW)
        for name in ROLES
        if name != "retailer"
    )
    leaf = records.to_leaf(story.world.leaves("retailer")[0])
    proof = TiledTree(fork, head).inclusion_proof(0)
    forged = Receipt(0, proof, Note(note.text, (*note.signatures, *lines)).to_bytes(), leaf)
    again, version = make_receipt(story.world.folder("retailer").path, 0)
    assert version == story.world.agreement
    file = tmp_path / "receipt"
    file.write_bytes(forged.to_bytes())
    asked = ["log", "check", str(file), "--party", "retailer", "--agreement"]
    with pytest.raises(SystemExit) as left:
        main([*asked, str(story.first)])
    assert left.value.code == 0
    assert "worth what the keys are" in " ".join(capsys.readouterr().out.split())
    with pytest.raises(SystemExit) as left:
        main([*asked, str(story.second)])
    assert left.value.code == 1
    file.write_bytes(again.to_bytes())
    check_receipt(file, agreement=story.second, party="retailer", policy=None)


def test_killed_at_every_step(story: Story, tmp_path: Path) -> None:
    folder = story.waiting.folder("retailer").path
    moment = LATER.isoformat()
    ran = subprocess.run(
        [sys.executable, KILLING, folder, story.second, moment, tmp_path],
        check=False,
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr
    assert int(ran.stdout) == 8  # the version beside, the head, the old version, four keys, it


def test_what_stands_in_the_way_of_taking_over(story: Story, tmp_path: Path) -> None:
    folder = story.waiting.copy(tmp_path / "copy").folder("retailer")
    before = read_checkpoint(folder.log)
    with folder.open_log(), pytest.raises(LogBusyError, match="another writer"):
        adoption.adopt(folder, story.second, now=LATER)
    with folder.open_log() as log:
        last = story.waiting.leaves("retailer")[-1]
        late = last.model_copy(update={"time": LATER + timedelta(days=1)})
        log.append([records.to_leaf(late)])
    with pytest.raises(WorkspaceError, match="set the clock, and adopt again"):
        adoption.adopt(folder, story.second, now=LATER)
    assert Note.parse(before).text != Note.parse(read_checkpoint(folder.log)).text
    with pytest.raises(WorkspaceError, match="comity agreement adopt"):
        folder.agreement()
    adoption.adopt(folder, story.second, now=LATER + timedelta(days=2))
    shutil.copytree(story.thief.log, tmp_path / "old")
    shutil.rmtree(folder.log)
    (tmp_path / "old").rename(folder.log)  # as a backup from before
    with pytest.raises(LogCorruptedError, match="got only those of"):
        folder.open_log()


def test_a_full_disk_hands_nothing_over(tmp_path: Path) -> None:
    class FullDisk(FastFiles):
        def replace(self, source: Path, target: Path) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

    with open_log(tmp_path) as log:
        log.append(entries(0, 3))
    with open_log(tmp_path, FullDisk()) as log:
        with pytest.raises(LogError, match=r"No space left.*then open the log again"):
            log.hand_over(entries(3, 4), key=NEXT)
        with pytest.raises(LogError, match="open the log again"):
            log.append(entries(3, 4))
    assert signers_of(tmp_path) == {BEFORE}
    with open_log(tmp_path) as log:
        log.hand_over(entries(3, 4), key=NEXT)
    assert signers_of(tmp_path) == {BEFORE, AFTER}


# --- a thief of the old keys --------------------------------------------------------------------


def forked(world: World, log: Path, *, public: bool = True) -> None:
    """Put a forged log in the place of the retailer's, with what witnesses cosigned of the real."""
    own = world.folder("retailer").log
    kept = own.parent / "kept"
    (own / "witness").rename(kept)
    shutil.rmtree(own)
    shutil.copytree(log, own, ignore=shutil.ignore_patterns("witness"))
    kept.rename(own / "witness")
    if not public:
        (own / "witness" / "public").unlink()


def test_a_head_by_old_keys_beyond_the_change_is_refused(
    story: Story, world: World, tmp_path: Path
) -> None:
    taken_over = [records.to_leaf(leaf) for leaf in world.leaves("retailer")[story.cutover :]]
    # All of the real log, and more, signed by the old keys: it even begins with what was cosigned.
    forked(world, story.thief.fork(tmp_path / "fork", *taken_over, taken_over[-1]))
    found = of_files(world.workspace.path, scratch=tmp_path / "s", agreement=story.second)
    assert [(one.kind, one.party) for one in found] == [(K.KEY_NOT_IN_FORCE, "retailer")]
    assert "keys of version 1 alone" in found[0].sentence
    assert f"from 0 to {story.cutover}, " in found[0].sentence
    with pytest.raises(LogCorruptedError, match="got only those of"):
        verify_party(world.folder("retailer").path)


def test_a_head_by_old_keys_of_no_more_than_the_leaf_that_replaces_them_is_refused(
    story: Story, world: World, tmp_path: Path
) -> None:
    told = records.to_leaf(world.leaves("retailer")[story.cutover])
    forked(world, story.thief.fork(tmp_path / "fork", told), public=False)
    found = of_files(world.folder("retailer").path, scratch=tmp_path / "s", agreement=story.second)
    assert [one.kind for one in found] == [K.KEY_NOT_IN_FORCE]


def test_a_fork_that_never_takes_the_version_over_is_seen(
    story: Story, world: World, tmp_path: Path
) -> None:
    real = world.leaves("retailer")[story.cutover - 1]
    forked(world, story.thief.fork(tmp_path / "fork", records.to_leaf(real)), public=False)
    found = of_files(world.folder("retailer").path, scratch=tmp_path / "s", agreement=story.second)
    assert K.OTHER_VERSION in {one.kind for one in found}
    every = of_files(world.workspace.path, scratch=tmp_path / "t", agreement=story.second)
    assert {K.OTHER_VERSION, K.REWRITTEN} <= {one.kind for one in every}


def test_no_witness_cosigns_what_old_keys_sign(story: Story, world: World, tmp_path: Path) -> None:
    real = records.to_leaf(world.leaves("retailer")[story.cutover])
    fork = story.thief.fork(tmp_path / "fork", real)
    witness = witness_of(world.folder("courier"), world.agreement)
    for size in (0, story.cutover):
        asked = AddCheckpoint(size, (), read_checkpoint(fork))
        with pytest.raises(NotWitnessedError, match="known key") as refusal:
            witness.add_checkpoint(asked.to_bytes(), now=int(LATER.timestamp()))
        assert refusal.value.objection is Objection.UNTRUSTED


def test_a_witness_that_was_deceived_before_accuses_the_keys(story: Story, tmp_path: Path) -> None:
    """The courier had not taken version 2 over, and cosigned what the thief signed."""
    world = story.waiting.copy(tmp_path / "copy")
    leaves = world.leaves("retailer")
    fork = story.thief.fork(tmp_path / "fork", *(records.to_leaf(leaves[-1]) for _ in range(30)))
    witness = witness_of(world.folder("courier"), world.agreement)
    seen = witness.last("comity/retailer")
    assert seen is not None
    signed = read_checkpoint(fork)
    longer = Checkpoint.open(signed, term(world.agreement)[0])
    proof = TiledTree(fork, longer).consistency_proof(seen.checkpoint)
    asked = AddCheckpoint(seen.checkpoint.tree_size, proof, signed)
    witness.add_checkpoint(asked.to_bytes(), now=int(LATER.timestamp()))
    deceived = world.folder("courier").witnessed / origin_hash("comity/retailer")
    after = story.world.copy(tmp_path / "after")
    place = after.folder("courier").witnessed / origin_hash("comity/retailer")
    shutil.rmtree(place)
    shutil.copytree(deceived, place)
    (found,) = of_files(after.workspace.path, scratch=tmp_path / "s", agreement=story.second)
    assert (found.kind, found.party) == (K.KEY_NOT_IN_FORCE, "retailer")
    assert "courier cosigned what replaced keys signed" in found.sentence


def test_a_thief_and_a_witness_spoil_no_log(story: Story, world: World, tmp_path: Path) -> None:
    """The courier keeps a head of what the log really says, which the old keys signed."""
    taken_over = [records.to_leaf(leaf) for leaf in world.leaves("retailer")[story.cutover :]]
    head = story.thief.fork(tmp_path / "fork", *taken_over[:-1])
    note = Note.parse(read_checkpoint(head))
    line = (
        world.folder("courier")
        .cosigning_key()
        .cosign(Checkpoint.from_body(note.text), timestamp=NOW)
    )
    place = world.folder("courier").witnessed / origin_hash("comity/retailer") / "checkpoint"
    place.write_bytes(Note(note.text, (*note.signatures, line)).to_bytes())
    assert of_files(world.workspace.path, scratch=tmp_path / "s", agreement=story.second) == []


def test_what_a_thief_has_cosigned_stops_nobody(story: Story, world: World) -> None:
    retailer, courier = world.folder("retailer"), world.folder("courier")
    log = LogWitnessing(retailer, world.agreement, clock=world.clock)

    def told(size: int, key: SigningKey, second: CosigningKey) -> Answer:
        longer = Checkpoint("comity/retailer", size, HASHES[0])
        lines = (
            *longer.note(key).signatures,
            second.cosign(longer, timestamp=0),
            courier.cosigning_key().cosign(longer, timestamp=NOW),
        )
        last = Note(longer.body(), lines).to_bytes().decode()
        return Answer(log="retailer", witness="courier", seen=size, last=last)

    log.keep([told(10**6, story.thief.key, story.thief.second)])
    with pytest.raises(LogError, match="put back to an earlier state"):
        log.keep([told(10**6, retailer.log_key(), retailer.cosigning_key())])


# --- served ---------------------------------------------------------------------------------


@contextmanager
def serving(world: World, *names: str) -> Iterator[list[str]]:
    """The logs of parties over HTTP; returns their addresses."""
    with ExitStack() as stack:
        urls = []
        for name in names:
            server = stack.enter_context(make_server(world.folder(name).path, "127.0.0.1", 0))
            options = {"poll_interval": 0.01}
            thread = threading.Thread(target=server.serve_forever, kwargs=options, daemon=True)
            thread.start()
            stack.callback(server.shutdown)
            urls.append(f"http://127.0.0.1:{server.server_address[1]}")
        yield urls


def test_a_served_log_is_audited_over_all_versions(
    story: Story, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with serving(story.world, *ROLES) as urls:
        # The latest is enough: earlier ones are those whose digests it leads to.
        assert of_files(*urls, scratch=tmp_path / "a", agreement=story.second) == []
        given = [f"--agreement={file}" for file in (story.first, story.second)]
        with pytest.raises(SystemExit) as left:
            main(["audit", *urls, *given])
        assert left.value.code == 0, capsys.readouterr().out
        found = of_files(*urls, scratch=tmp_path / "b", agreement=story.first)
        kinds = {one.party: one.kind for one in found}
        same = {name: K.VERSION_MISSING for name in ROLES if name not in ROTATED}
        assert kinds == same | dict.fromkeys(ROTATED, K.WRONG_KEY)
        assert all("bring" in one.sentence for one in found)


@pytest.mark.parametrize("number", [1, 2])
def test_a_server_is_not_believed_about_versions(
    story: Story, world: World, tmp_path: Path, number: int
) -> None:
    """One signed by all, of that number, that is not the one which the auditor's supersedes."""
    earlier = world.folder("courier").path / "agreements" / "1.json"
    if number == 1:
        other = World.make(tmp_path / "other")
        shutil.copy(other.workspace.path / "agreement.json", earlier)
    else:
        shutil.copy(story.second, earlier)
    address = LogServer(
        ("127.0.0.1", 0),
        world.folder("courier").log,
        witness=None,
        now=lambda: 0,
        version=lambda _: earlier.read_bytes(),
    )
    with address as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        (found,) = of_files(url, scratch=tmp_path / "a", agreement=story.second)
        assert (found.kind, found.party) == (K.AGREEMENT_DIFFERS, "courier")
        server.version = lambda _: None
        (found,) = of_files(url, scratch=tmp_path / "b", agreement=story.second)
        assert (found.kind, found.party) == (K.VERSION_MISSING, "courier")
        server.version = lambda _: b"{}"
        (found,) = of_files(url, scratch=tmp_path / "c", agreement=story.second)
        assert (found.kind, found.party) == (K.AGREEMENT_DIFFERS, "courier")
        server.shutdown()


def test_a_server_that_runs_on_cosigns_by_the_version_taken_over(
    story: Story, tmp_path: Path
) -> None:
    world, copied = story.waiting.copy(tmp_path / "copy"), story.world
    seen = witness_of(world.folder("courier"), world.agreement).last("comity/retailer")
    assert seen is not None

    def asked(log: Path) -> bytes:
        signed = read_checkpoint(log)
        claimed = Checkpoint.from_body(Note.parse(signed).text)
        proof = TiledTree(log, claimed).consistency_proof(seen.checkpoint)
        return AddCheckpoint(seen.checkpoint.tree_size, proof, signed).to_bytes()

    old, new = asked(world.folder("retailer").log), asked(copied.folder("retailer").log)
    with serving(world, "courier") as (url,):
        assert fetch(f"{url}/add-checkpoint", new)[0] == 403
        shutil.copy(story.second, world.folder("courier").next_agreement)
        assert fetch(f"{url}/add-checkpoint", old)[0] == 500  # half taken over
        adoption.adopt(world.folder("courier"), story.second, now=LATER)
        assert fetch(f"{url}/add-checkpoint", old)[0] == 403
        assert fetch(f"{url}/add-checkpoint", new)[0] == 200
        for number, file in ((1, story.first), (2, story.second)):
            status, kind, served = fetch(f"{url}/agreements/{number}")
            assert (status, kind) == (200, "application/json")
            assert (
                SignedAgreement.from_json(served).verify()
                == SignedAgreement.from_json(file.read_bytes()).verify()
            )
        for other in ("0", "01", "3", "1.json", "../party.json", "-1"):
            assert fetch(f"{url}/agreements/{other}")[0] == 404


# --- which keys sign heads of which sizes -------------------------------------------------------


@pytest.fixture(scope="module")
def periods(story: Story) -> tuple[Cryptoperiod, ...]:
    folder = story.world.folder("retailer")
    return cryptoperiods(read_versions(folder.path), "retailer", story.world.leaves("retailer"))


def test_the_last_size_of_the_old_keys_is_the_number_of_leaves_before(
    story: Story, periods: tuple[Cryptoperiod, ...]
) -> None:
    old, new = periods
    assert (old.first, old.last) == (0, story.cutover)
    assert (new.first, new.last) == (story.cutover + 1, None)


@given(st.integers(-3, 3), st.sampled_from(["old", "new", "both", "stranger"]))
def test_a_head_counts_by_the_keys_of_its_size_alone(
    story: Story, periods: tuple[Cryptoperiod, ...], beyond: int, by: str
) -> None:
    folder = story.world.folder("retailer")
    size = story.cutover + beyond
    checkpoint = Checkpoint("comity/retailer", size, EMPTY_ROOT)
    stranger = SigningKey.from_seed(b"s" * 32)
    signers = {
        "old": ((story.thief.key, story.thief.second),),
        "new": ((folder.log_key(), folder.cosigning_key()),),
        "both": (
            (story.thief.key, story.thief.second),
            (folder.log_key(), folder.cosigning_key()),
        ),
        "stranger": ((stranger, CosigningKey.from_seed("comity/retailer", b"s" * 32)),),
    }[by]
    lines = tuple(
        line
        for key, second in signers
        for line in (*checkpoint.note(key).signatures, second.cosign(checkpoint, timestamp=0))
    )
    signed = Note(checkpoint.body(), lines).to_bytes()
    right = {"both", "old" if beyond <= 0 else "new"}
    if by in right:
        assert check_in_force(signed, periods) == checkpoint
    else:
        expected = LogCorruptedError if by == "stranger" else KeyNotInForceError
        with pytest.raises(expected) as problem:
            check_in_force(signed, periods)
        assert type(problem.value) is expected


# --- the writer ---------------------------------------------------------------------------------

NEXT = SigningKey.from_seed(b"n" * 32)
NEXT_SECOND = CosigningKey.from_seed(ORIGIN, b"n" * 32)
BEFORE, AFTER = NoteKey(ORIGIN, KEY.public), NoteKey(ORIGIN, NEXT.public)


def signers_of(directory: Path) -> set[NoteKey]:
    signed, found = read_checkpoint(directory), set()
    for key in (BEFORE, AFTER):
        with suppress(LogCorruptedError):
            Checkpoint.open(signed, key)
            found.add(key)
    return found


def test_both_sign_the_head_that_tells_and_the_new_keys_all_later_ones(tmp_path: Path) -> None:
    with open_log(tmp_path) as log:
        log.append(entries(0, 3))
        assert signers_of(tmp_path) == {BEFORE}
        handed = log.hand_over(entries(3, 5), key=NEXT, second_key=NEXT_SECOND)
        assert handed == range(3, 5)
        assert signers_of(tmp_path) == {BEFORE, AFTER}
        open_head(read_checkpoint(tmp_path), AFTER, NEXT_SECOND.public)
        log.append(entries(5, 6))
        assert log.verification_key == AFTER.to_string()
    assert signers_of(tmp_path) == {AFTER}
    with pytest.raises(LogCorruptedError, match="got only those of"):
        open_log(tmp_path)
    found = verify_log(
        tmp_path,
        verification_key=AFTER.to_string(),
        second_key=NEXT_SECOND.public.to_string(),
    )
    assert found.entries == tuple(entries(0, 6))


def test_what_no_log_is_handed_over_with(tmp_path: Path) -> None:
    with open_log(tmp_path) as log:
        log.append(entries(0, 1))
        before = read_checkpoint(tmp_path)
        with pytest.raises(RecordError, match="an entry that tells of the new keys"):
            log.hand_over([], key=NEXT)
        stranger = CosigningKey.from_seed("example.com/other", b"o" * 32)
        with pytest.raises(SignatureError, match="in the name of the log"):
            log.hand_over(entries(1, 2), key=NEXT, second_key=stranger)
        assert read_checkpoint(tmp_path) == before
        log.append(entries(1, 2))
    assert signers_of(tmp_path) == {BEFORE}


def test_a_crash_at_any_operation_leaves_the_old_head_or_that_of_both(tmp_path: Path) -> None:
    crash_at, ended = 0, False
    while not ended:
        directory = tmp_path / str(crash_at)
        with open_log(directory) as log:
            log.append(entries(0, 255))
        files = UnreliableFiles(crash_at)
        try:
            with open_log(directory, files) as log:
                log.hand_over(entries(255, 257), key=NEXT)
            ended = True
        except CrashError:
            ended = False
        signers = signers_of(directory)
        assert signers in ({BEFORE}, {BEFORE, AFTER})
        size = 257 if AFTER in signers else 255
        key = AFTER if AFTER in signers else BEFORE
        assert verify_log(directory, verification_key=key.to_string()).tree_size == size
        shutil.rmtree(directory)
        crash_at += 1
    assert crash_at > 15


# --- the witness --------------------------------------------------------------------------------

OTHER_KEY = SigningKey.from_seed(b"l" * 32)
OTHER_COSIGNER = CosigningKey.from_seed(COSIGNER.public.name, b"w" * 32)


def changed_witness(directory: Path) -> Witness:
    """The witness after the log and itself have new keys."""
    return Witness(
        directory,
        logs={WITNESSED: (NoteKey(WITNESSED, OTHER_KEY.public),)},
        cosigner=OTHER_COSIGNER,
        former={WITNESSED: ((LOG,),)},
        former_cosigners=(COSIGNER.public,),
        files=FastFiles(),
    )


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    witness = Witness(tmp_path, logs={WITNESSED: (LOG,)}, cosigner=COSIGNER, files=FastFiles())
    witness.add_checkpoint(request(0, 5).to_bytes(), now=NOW)
    return tmp_path


def test_a_witness_goes_on_from_what_it_cosigned_under_old_keys(kept: Path) -> None:
    witness = changed_witness(kept)
    seen = witness.last(WITNESSED)
    assert seen is not None
    assert seen.checkpoint == head(5)
    witness.add_checkpoint(request(5, 9, key=OTHER_KEY).to_bytes(), now=NOW + 1)
    seen = witness.last(WITNESSED)
    assert seen is not None
    assert seen.checkpoint == head(9)
    OTHER_COSIGNER.public.verify(seen.checkpoint, seen.note)


def test_a_witness_cosigns_nothing_that_old_keys_sign_nor_what_does_not_extend(kept: Path) -> None:
    witness = changed_witness(kept)
    for asked, objection in (
        (request(5, 9), Objection.UNTRUSTED),
        (request(5, 9, OTHER, key=OTHER_KEY), Objection.INCONSISTENT),
        (request(0, 9, key=OTHER_KEY), Objection.CONFLICT),
    ):
        with pytest.raises(NotWitnessedError) as refusal:
            witness.add_checkpoint(asked.to_bytes(), now=NOW + 1)
        assert refusal.value.objection is objection
    seen = witness.last(WITNESSED)
    assert seen is not None
    assert seen.checkpoint == head(5)


def test_a_split_view_over_the_change_is_evidence(kept: Path) -> None:
    witness = changed_witness(kept)
    with pytest.raises(SplitViewError):
        witness.add_checkpoint(request(5, 5, OTHER, key=OTHER_KEY).to_bytes(), now=NOW + 1)
    (pair,) = changed_witness(kept).evidence(WITNESSED)
    new = (NoteKey(WITNESSED, OTHER_KEY.public),)
    pair.verify(new, former=((LOG,),))
    with pytest.raises(LogError):
        pair.verify(new)


def test_what_a_thief_signs_beyond_the_change_is_no_evidence(story: Story) -> None:
    retailer, courier = story.world.folder("retailer"), story.world.folder("courier")
    old, new = story.thief, (retailer.log_key(), retailer.cosigning_key())

    def lies(
        size: int,
        root: bytes,
        keys: tuple[SigningKey, CosigningKey] = (old.key, old.second),
        seen: datetime | None = None,
    ) -> bytes:
        checkpoint = Checkpoint("comity/retailer", size, root)
        note = checkpoint.note(keys[0])
        lines = [*note.signatures, keys[1].cosign(checkpoint, timestamp=0)]
        if seen is not None:
            time = int(seen.timestamp())
            lines.append(courier.cosigning_key().cosign(checkpoint, timestamp=time))
        return Note(note.text, tuple(lines)).to_bytes()

    def accuses(seen: bytes, submitted: bytes) -> bool:
        pair = Evidence(seen, AddCheckpoint(0, (), submitted).to_bytes())
        return split_views(log, "courier", [pair]) == (pair,)

    path = retailer.path
    versions = read_versions(path)
    log, _ = read_log(path / "log", versions.latest, "retailer", versions=versions)
    assert log is not None
    pairs = {
        size: Evidence(
            lies(size, HASHES[0]), AddCheckpoint(0, (), lies(size, HASHES[1])).to_bytes()
        )
        for size in (story.cutover, story.cutover + 1)
    }
    assert split_views(log, "courier", list(pairs.values())) == (pairs[story.cutover],)
    kept = KeptHeads(evidence={"comity/retailer": (pairs[story.cutover + 1],)})
    _, found = witnessed(log, None, [("courier", kept)], None)
    assert {one.kind for one in found} - {K.NOT_PUBLIC} == {K.KEY_NOT_IN_FORCE}
    # What the courier saw before the keys were replaced, the party signed; so it did with new keys.
    late, moment = story.cutover + 1, timedelta(seconds=1)
    other = lies(late, HASHES[1], new)
    assert accuses(lies(late, HASHES[0], seen=LATER - moment), other)
    assert not accuses(lies(late, HASHES[0], seen=LATER), other)
    assert accuses(lies(3, HASHES[0], new), lies(3, HASHES[1], new))
