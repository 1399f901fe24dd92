"""Heads of logs carried between parties: public at the end of a run, split views stopped."""

import shutil
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from parties import MATCH, PEOPLE, ROLES, TRAIN, World

from compliance.errors import LogCorruptedError, LogError, NotPublicError
from compliance.log.checkpoint import Checkpoint
from compliance.log.cosignature import CosigningKey
from compliance.log.note import Note, NoteKey, NoteSignature
from compliance.log.policy import Policy
from compliance.log.proving import TiledTree
from compliance.log.receipt import Receipt
from compliance.log.verifier import read_checkpoint
from compliance.log.witness import REQUEST_LIMIT, AddCheckpoint
from compliance.log.witnessing import origin_hash
from compliance.records import to_leaf
from compliance.signing import SigningKey
from compliance.terms import PartyTerm, Role
from federation.audit import verify_all, verify_party
from federation.coordinator import write_jobs
from federation.coordinator.owed import OwedHeads
from federation.errors import RefusedError
from federation.jobs.witness import Answer, Request
from federation.log_sharing import check_receipt, make_receipt, make_server
from federation.messages import SealedMessage
from federation.progress import listening
from federation.witnesses import log_keys, policy_for, witness_in
from federation.witnessing import LogWitnessing


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> World:
    world = World.make(tmp_path_factory.mktemp("ended"))
    world.run()
    return world


@pytest.fixture
def world(ended: World, tmp_path: Path) -> World:
    return ended.copy(tmp_path / "copy")


def test_every_log_is_public_at_the_end_of_a_run(ended: World) -> None:
    for name in ROLES:
        party = verify_party(ended.folder(name).path)
        assert party.public_size is not None
        assert 0 < party.public_size < party.tree_size  # its own last words came after
        assert set(party.cosigned_by) == set(ROLES) - {name}


def test_a_showing_that_was_cut_is_made_up_for_though_no_job_is_left(tmp_path: Path) -> None:
    world = World.make(tmp_path)
    write_jobs(world.folder("coordinator"), (MATCH,))

    def cut(_: str, question: SealedMessage, answer: SealedMessage) -> SealedMessage:
        if world.read(question).header.kind == "witness.ask":
            raise ConnectionResetError
        return answer

    def silent(name: str, question: SealedMessage, answer: SealedMessage) -> SealedMessage:
        if (name, world.read(question).header.kind) == ("brand", "witness.show"):
            world.unreachable = {"retailer"}
        return answer

    world.listener = cut  # the coordinator goes while it carries them
    with pytest.raises(ConnectionResetError):
        world.run()
    assert public(world) == set()
    world.listener, world.away = World.listener, set(PEOPLE)
    world.run()  # nobody is there to be shown them
    world.listener, world.away = silent, set()
    world.run()
    assert "retailer" not in public(world)
    world.listener, world.unreachable = World.listener, set()
    world.run()
    assert public(world) == set(ROLES)
    world.wire.clear()
    world.run()  # once is enough
    assert not any(world.read(one).header.kind.startswith("witness.") for one in world.wire)


def public(world: World) -> set[str]:
    """Whose logs have a head that enough witnesses cosigned."""
    found = {name: verify_party(world.folder(name).path).public_size for name in ROLES}
    return {name for name, size in found.items() if size is not None}


def grown(world: World, before: dict[str, int]) -> set[str]:
    """Whose public heads tell of all that the logs had before; notes what they have by now."""
    found = {name: verify_party(world.folder(name).path) for name in ROLES}
    more = {name for name, one in found.items() if (one.public_size or 0) > before[name]}
    before |= {name: one.tree_size for name, one in found.items()}
    return more


def test_logs_are_shown_where_a_job_is_refused_in_every_run(world: World) -> None:
    job = TRAIN.model_copy(update={"name": "more"})  # for which no budget is left
    write_jobs(world.folder("coordinator"), (job,))
    before = dict.fromkeys(ROLES, 0)
    grown(world, before)
    for _ in range(2):
        with pytest.raises(RefusedError, match=r"budget\.epsilon") as refusal:
            world.run()
        party = verify_party(world.folder(refusal.value.party).path)
        shown = [leaf for leaf in party.leaves[: party.public_size] if leaf.kind == "refusal"]
        assert shown[-1].job == job.name
        assert grown(world, before) == set(ROLES)
    assert OwedHeads(world.folder("coordinator")).job is None


def test_a_refused_job_is_why_the_run_ends_though_logs_are_not_shown_either(world: World) -> None:
    write_jobs(world.folder("coordinator"), (TRAIN.model_copy(update={"name": "more"}),))
    (world.folder("retailer").shown / "seen.json").write_text("damaged")
    with pytest.raises(RefusedError) as refusal:
        world.run()
    assert refusal.value.term == "budget.epsilon"
    assert ". Logs were not shown: refused by retailer under " in str(refusal.value)


def test_where_the_coordinator_cosigns_nothing_others_still_do(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    coordinator, cosign = world.folder("coordinator"), LogWitnessing.cosign

    def refuse(log: LogWitnessing, requests: Sequence[Request]) -> tuple[Answer, ...]:
        if any(one.witness == "coordinator" for one in requests):
            raise coordinator.refusal("log", "it cannot be cosigned")
        return cosign(log, requests)

    monkeypatch.setattr(LogWitnessing, "cosign", refuse)
    OwedHeads(coordinator).owe(MATCH.name)
    with pytest.raises(RefusedError, match="refused by coordinator under log"):
        world.run()
    for name in PEOPLE:
        head = Note.parse((world.folder(name).shown / "head").read_bytes())
        cosigners = {one.name.removeprefix("comity/") for one in head.signatures}
        assert cosigners == {*PEOPLE}, "which it signed, and all others but the coordinator"
    assert [leaf.kind for leaf in world.leaves("coordinator")][-1] == "refusal"


def test_a_party_that_refuses_to_show_its_log_hinders_no_other_and_is_asked_again(
    world: World,
) -> None:
    OwedHeads(world.folder("coordinator")).owe(MATCH.name)
    (world.folder("retailer").shown / "seen.json").write_text("damaged")
    before = dict.fromkeys(ROLES, 0)
    grown(world, before)
    with pytest.raises(RefusedError, match="refused by retailer"):
        world.run()
    assert grown(world, before) == set(ROLES) - {"retailer"}
    (world.folder("retailer").shown / "seen.json").unlink()
    world.run()
    assert grown(world, before) == set(ROLES)


def test_what_is_owed_waits_without_an_error_where_the_agreement_has_ended(world: World) -> None:
    heads = OwedHeads(world.folder("coordinator"))
    heads.owe(MATCH.name)
    world.now = world.agreement.valid_until
    told: list[str] = []
    with listening(lambda progress: told.append(progress.stage)):
        world.run()
    assert world.wire == []
    assert any("logs have yet to be shown" in one and "valid_until" in one for one in told)
    assert heads.job == MATCH.name


def test_who_is_silent_for_the_third_time_is_shown_after_the_next_job(world: World) -> None:
    heads = OwedHeads(world.folder("coordinator"))
    heads.owe(MATCH.name)
    told: list[str] = []

    def silent(name: str, question: SealedMessage, answer: SealedMessage) -> SealedMessage:
        if (name, world.read(question).header.kind) == ("brand", "witness.show"):
            world.unreachable = {"retailer"}
        return answer

    world.listener = silent
    with listening(lambda progress: told.append(progress.stage)):
        world.run()
        heads.begin()  # a run that was cut
        world.unreachable = set()
        world.run()
    again = [one.rpartition(":")[0] for one in told if "to be shown again" in one]
    assert again == [
        "logs are to be shown again at the next run",
        "logs are to be shown again after the next job",
    ]
    assert heads.job is None


def test_logs_are_shown_as_they_stand_however_often_one_job_is_begun(world: World) -> None:
    def shown() -> list[int]:
        sizes = [verify_party(world.folder(name).path).public_size for name in ROLES]
        return [size or 0 for size in sizes]

    for _ in range(3):
        before = shown()
        OwedHeads(world.folder("coordinator")).owe(MATCH.name)
        world.run()
        assert all(now > then for now, then in zip(shown(), before, strict=True))


def test_what_each_keeps_of_the_others_is_what_they_hold(ended: World) -> None:
    found, problems = verify_all([ended.workspace.path])
    assert (len(found), problems) == (len(ROLES), ())
    record = witness_in(ended.folder("brand").path)
    assert record is not None
    head = record.last("comity/retailer")
    assert head is not None
    retailer = verify_party(ended.folder("retailer").path)
    assert head.checkpoint.tree_size == retailer.public_size


def rewrite(world: World, name: str) -> None:
    """Begin a party's log anew, as a cheat would: other leaves, as many or fewer."""
    folder = world.folder(name)
    leaves = world.leaves(name)
    shutil.rmtree(folder.log)
    with folder.open_log() as log:
        log.append([to_leaf(leaves[0])])


def test_a_rewritten_log_is_caught_by_what_others_cosigned(world: World) -> None:
    rewrite(world, "retailer")
    _, problems = verify_all([world.workspace.path])
    told = "\n".join(map(str, problems))
    assert "cosigned" in told
    for name in set(ROLES) - {"retailer"}:
        assert f"{world.folder(name).path}: {name} cosigned" in told


def test_a_log_put_back_to_an_earlier_state_stops_its_owner(world: World) -> None:
    folder = world.folder("retailer")
    witnessed = shutil.copytree(folder.witnessed, world.workspace.path / "witnessed")
    rewrite(world, "retailer")
    shutil.copytree(witnessed, folder.witnessed)
    log = LogWitnessing(folder, world.agreement, clock=world.clock)
    with pytest.raises(LogError, match="put back to an earlier state"):
        log.show()
    shutil.rmtree(folder.shown)  # it may have lost that too: its witnesses tell it
    shown = log.show()
    brand = LogWitnessing(world.folder("brand"), world.agreement, clock=world.clock)
    (answer,) = brand.cosign([one for one in shown if one.witness == "brand"])
    assert answer.cosignature is None
    with pytest.raises(LogError, match="brand has cosigned"):
        log.keep([answer])
    log.keep([answer.model_copy(update={"last": None})])  # who carries it can hold that back


def test_a_size_that_no_witness_signed_stops_nobody(world: World) -> None:
    log = LogWitnessing(world.folder("retailer"), world.agreement, clock=world.clock)
    before = log.show()
    head = read_checkpoint(world.folder("retailer").log).decode()
    longer = (
        world.folder("brand").witnessed / origin_hash("comity/retailer") / "checkpoint"
    ).read_text()
    size = verify_party(world.folder("retailer").path).public_size
    for last in (None, "", head, longer.replace(f"\n{size}\n", "\n999999999\n"), longer):
        log.keep([Answer(log="retailer", witness="brand", seen=10**18, last=last)])
    assert log.show() == before
    log.keep([Answer(log="retailer", witness="brand", seen=0)])  # a lie in bounds: asked again
    (asked,) = (one for one in log.show() if one.witness == "brand")
    brand = LogWitnessing(world.folder("brand"), world.agreement, clock=world.clock)
    (answer,) = brand.cosign([asked])
    assert (answer.seen, answer.last) == (size, longer)
    log.keep([answer])
    assert log.show() == before


def test_of_an_answer_only_lines_of_the_witness_count(world: World) -> None:
    """A line in the log's own name that is not valid would make its public head worthless."""
    log = LogWitnessing(world.folder("retailer"), world.agreement, clock=world.clock)
    brand = LogWitnessing(world.folder("brand"), world.agreement, clock=world.clock)
    shown = log.show()
    (answer,) = brand.cosign([one for one in shown if one.witness == "brand"])
    assert answer.cosignature
    own, *_ = log_keys(world.agreement.party("retailer"))
    made_up = NoteSignature(own.name, own.key_id, bytes(64))
    log.keep([answer.model_copy(update={"cosignature": answer.cosignature + made_up.line})])
    kept = Note.parse((world.folder("retailer").shown / "head").read_bytes())
    assert made_up not in kept.signatures
    assert answer.cosignature == kept.signatures[-1].line


def test_a_split_view_stops_the_run_and_both_heads_are_kept(world: World) -> None:
    folder = world.folder("retailer")
    size = verify_party(folder.path).public_size
    assert size is not None
    leaves = world.leaves("retailer")
    rewrite(world, "retailer")
    with folder.open_log() as log:  # as many leaves as the others have seen, and another last one
        log.append([to_leaf(leaf) for leaf in (*leaves[1 : size - 1], leaves[1])])
    cheat = LogWitnessing(folder, world.agreement, clock=world.clock)
    brand = LogWitnessing(world.folder("brand"), world.agreement, clock=world.clock)
    with pytest.raises(RefusedError, match="two roots"):
        brand.cosign([one for one in cheat.show() if one.witness == "brand"])
    record = witness_in(world.folder("brand").path)
    assert record is not None
    (evidence,) = record.evidence("comity/retailer")
    evidence.verify((NoteKey.from_string(world.agreement.party("retailer").log_key),))
    _, problems = verify_all([world.workspace.path])
    assert "brand keeps 1 pair of heads that retailer signed" in "\n".join(map(str, problems))


def test_a_changed_proof_stops_one_run_and_accuses_nobody(world: World) -> None:
    log = LogWitnessing(world.folder("retailer"), world.agreement, clock=world.clock)
    brand = LogWitnessing(world.folder("brand"), world.agreement, clock=world.clock)
    (asked,) = (one for one in log.show() if one.witness == "brand")
    parsed = AddCheckpoint.parse(asked.request.encode())
    assert parsed.proof
    changed = replace(parsed, proof=(bytes(32), *parsed.proof[1:])).to_bytes()
    with pytest.raises(RefusedError, match="ask the log itself"):
        brand.cosign([asked.model_copy(update={"request": changed.decode()})])
    evidence = world.folder("brand").witnessed / origin_hash("comity/retailer") / "evidence"
    assert not evidence.exists()
    evidence.mkdir()  # not even if somebody puts it there
    (evidence / "00.seen").write_bytes((evidence.parent / "checkpoint").read_bytes())
    (evidence / "00.submitted").write_bytes(changed)
    assert verify_all([world.workspace.path])[1] == ()
    log.keep(brand.cosign([asked]))


def test_a_changed_public_head_is_noticed(world: World) -> None:
    path = world.folder("retailer").witnessed / "public"
    signed = path.read_bytes()
    for position in range(0, len(signed), 997):
        changed = bytearray(signed)
        changed[position] ^= 1
        path.write_bytes(changed)
        with pytest.raises(LogError):
            verify_party(world.folder("retailer").path)


def test_policies_are_those_of_the_agreement(ended: World) -> None:
    policy = policy_for(ended.agreement, "retailer")
    assert Policy.parse(policy.to_bytes()) == replace(policy, every_key=False)
    assert policy.every_key
    assert set(policy.witnesses) == set(ROLES) - {"retailer"}
    assert policy.groups[policy.quorum].threshold == len(ROLES) - 1
    two = policy_for(ended.agreement.model_copy(update={"witness_quorum": 2}), "retailer")
    assert two.groups[two.quorum].threshold == 2


@pytest.mark.parametrize("quorum", [None, 3])
def test_no_two_quorums_are_strangers_to_each_other(ended: World, quorum: int | None) -> None:
    auditors = tuple(
        PartyTerm(
            name=name,
            role=Role.AUDITOR,
            identity_key=SigningKey.from_seed(name.encode() * 4).public.to_base64(),
            log_key=NoteKey(f"comity/{name}", SigningKey.from_seed(seed).public).to_string(),
            cosigning_key=CosigningKey.from_seed(f"comity/{name}", seed).public.to_string(),
        )
        for name, seed in (("auditor1", b"1" * 32), ("auditor2", b"2" * 32))
    )
    parties = (*ended.agreement.parties, *auditors)
    changed = {"parties": parties, "witness_quorum": quorum}
    policy = policy_for(ended.agreement.model_copy(update=changed), "retailer")
    group = policy.groups[policy.quorum]
    assert 2 * group.threshold > len(group.members)
    assert set(policy.witnesses) == set(ROLES) - {"retailer"} | {"auditor1", "auditor2"}
    counted = {"auditor1", "auditor2"} & set(group.members)
    assert bool(counted) == (quorum is not None)  # only where the number counts them too


# Receipts and HTTP


def test_a_receipt_is_checked_offline_and_any_change_is_noticed(
    ended: World, tmp_path: Path
) -> None:
    receipt, public = make_receipt(ended.folder("retailer").path, 0)
    assert public
    file, agreement = tmp_path / "a.tlog-proof", ended.workspace.path / "agreement.json"
    file.write_bytes(receipt.to_bytes())
    found, head, leaf = check_receipt(file, agreement=agreement, party="retailer", policy=None)
    assert (found, leaf.kind) == (receipt, "agreement.signed")
    assert set(head.cosigned) == set(ROLES) - {"retailer"}
    policy = policy_for(ended.agreement, "retailer")
    data = receipt.to_bytes()
    for position in (*range(0, 400, 3), *range(400, len(data), 211)):
        changed = bytearray(data)
        changed[position] ^= 1 << position % 8
        with suppress(LogError):  # the name of one of the log's two signatures may be any
            found = Receipt.parse(bytes(changed))
            assert (found.verify(policy), found.extra) == (head, receipt.extra)
            assert found.checkpoint != receipt.checkpoint
    with pytest.raises(LogCorruptedError):
        receipt.verify(policy, entry=b"another")
    with pytest.raises(LogError, match="bring it"):
        replace(receipt, extra=None).verify(policy)
    with pytest.raises(LogCorruptedError, match="known log"):
        receipt.verify(policy_for(ended.agreement, "brand"))


def test_a_leaf_that_nobody_has_cosigned_yet_is_not_public(ended: World) -> None:
    folder = ended.folder("retailer")
    last = verify_party(folder.path).tree_size - 1
    receipt, public = make_receipt(folder.path, last)
    assert not public
    with pytest.raises(NotPublicError):
        receipt.verify(policy_for(ended.agreement, "retailer"))
    with pytest.raises(LogError, match="within the"):
        make_receipt(folder.path, last + 1)


@pytest.fixture
def served(world: World) -> Iterator[str]:
    server = make_server(world.folder("retailer").path, "127.0.0.1", 0)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


def fetch(url: str, body: bytes | None = None) -> tuple[int, str, bytes]:
    try:
        with urllib.request.urlopen(url, body, timeout=10) as answer:  # noqa: S310  loopback
            return answer.status, answer.headers["Content-Type"], answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.headers["Content-Type"], error.read()


def test_a_served_log_is_the_one_on_disk_and_nothing_else(world: World, served: str) -> None:
    log = world.folder("retailer").log
    text, octets = "text/plain; charset=utf-8", "application/octet-stream"
    assert fetch(f"{served}/checkpoint") == (200, text, (log / "checkpoint").read_bytes())
    for path in (log / "tile").rglob("*"):
        if path.is_file():
            name = path.relative_to(log)
            assert fetch(f"{served}/{name}") == (200, octets, path.read_bytes())
    brand = origin_hash("comity/brand")
    kept = (log / "witness" / brand / "checkpoint").read_bytes()
    assert fetch(f"{served}/{brand}/checkpoint") == (200, text, kept)
    for path in (
        "",
        "tile/0/999",
        "tile/0/../../party.json",
        "../party.json",
        "keys/log",
        "witness/seen.json",
        "tile/0/000?x",
        f"{'0' * 64}/checkpoint",
        "%2e%2e/party.json",
    ):
        assert fetch(f"{served}/{path}")[0] == 404, path


def test_heads_are_cosigned_over_http(world: World, served: str) -> None:
    brand = world.folder("brand")
    record = witness_in(world.folder("retailer").path)
    assert record is not None
    seen = record.last("comity/brand")
    assert seen is not None
    signed = read_checkpoint(brand.log)
    head = Checkpoint.open(signed, NoteKey.from_string(world.agreement.party("brand").log_key))
    url, old = f"{served}/add-checkpoint", seen.checkpoint.tree_size
    stale = AddCheckpoint(0, (), signed).to_bytes()
    assert fetch(url, stale) == (409, "text/x.tlog.size", f"{old}\n".encode())
    proof = TiledTree(brand.log, head).consistency_proof(seen.checkpoint)
    status, _, lines = fetch(url, AddCheckpoint(old, proof, signed).to_bytes())
    assert status == 200
    cosigner = world.agreement.party("retailer").cosigner
    assert cosigner is not None
    assert cosigner.verify(head, Note.parse(head.body().encode() + b"\n" + lines)) > 0
    assert fetch(url, b"nonsense")[0] == 400
    assert fetch(url, b"x" * (REQUEST_LIMIT + 1))[0] == 413
    own = read_checkpoint(world.folder("retailer").log)
    assert fetch(url, AddCheckpoint(0, (), own).to_bytes())[0] == 404  # nobody witnesses himself
    assert fetch(f"{served}/checkpoint", b"x")[0] == 404


def test_tlog_scales_reads_a_log_over_http(served: str) -> None:
    reader = pytest.importorskip("tlog_scales.reader", reason="tlog-scales is not installed")
    backend = pytest.importorskip("tlog_scales.backend")
    found = reader.TilesReader(backend.HttpBackend(served))
    head = found.get_checkpoint()
    assert found.calculate_root_hash() == head.root_hash


def test_checking_and_serving_load_no_flower() -> None:
    code = (
        "import sys, federation.log_sharing, federation.audit;"
        "sys.exit(any(m in sys.modules for m in ('flwr', 'torch', 'compliance.log.writer')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
