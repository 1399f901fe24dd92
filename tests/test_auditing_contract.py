"""Who left, who brings a contract of his own, and who hides behind new keys or a pruning."""

import shutil
from datetime import timedelta
from pathlib import Path

import pytest
from parties import MATCH, NOW, World
from test_adoption import LATER, drawn_up
from test_auditing import K
from test_key_rotation import serving

from compliance.agreement import Agreement, SignedAgreement
from compliance.auditing.contract import chain, obeys
from compliance.lifecycle import amend
from compliance.log.checkpoint import Checkpoint
from compliance.log.cosignature import CosigningKey
from compliance.log.note import Note, NoteKey
from compliance.log.verifier import verify_log
from compliance.log.witness import AddCheckpoint, Evidence
from compliance.log.witnessing import origin_hash
from compliance.log.writer import LogWriter
from compliance.signing import SigningKey
from federation import adoption
from federation.adoption import RotatedKey
from federation.audit import verify_all
from federation.auditing import audit_places
from federation.coordinator import write_jobs
from federation.party import PartyFolder
from privacy.randomness import new_secret

Found = list[tuple[K, str]]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> World:
    world = World.make(tmp_path_factory.mktemp("contract") / "made")
    write_jobs(world.folder("coordinator"), (MATCH,))
    world.run()
    return world


@pytest.fixture
def world(made: World, tmp_path: Path) -> World:
    return made.copy(tmp_path / "copy")


def audited(*places: Path | str, scratch: Path, agreements: tuple[Path, ...] = ()) -> Found:
    _, found, _ = audit_places(
        [*map(str, places)],
        agreements=agreements,
        policy=None,
        scratch=scratch,
        now=LATER + timedelta(days=1),
    )
    return [(one.kind, one.party) for one in found]


def without_courier(first: Agreement) -> dict[str, object]:
    return {
        "valid_from": LATER,
        "train": first.train.model_copy(update={"max_parties_per_person": 1}),
        "parties": tuple(one for one in first.parties if one.name != "courier"),
        "datasets": tuple(one for one in first.datasets if one.party != "courier"),
    }


def cut(folder: PartyFolder, key: NoteKey, keep: int) -> None:
    """Leave a log with its first entries, and what it has witnessed."""
    entries = verify_log(folder.log, verification_key=key.to_string()).entries
    assert keep < len(entries)
    kept = (folder.log / "witness").rename(folder.path / "kept")
    shutil.rmtree(folder.log)
    names = {"origin": folder.log_origin, "key": folder.log_key()}
    with LogWriter.open(folder.log, **names, second_key=folder.cosigning_key()) as log:
        log.append(list(entries[:keep]))
    kept.rename(folder.log / "witness")
    (folder.log / "witness" / "public").unlink()
    shutil.rmtree(folder.path / "shown", ignore_errors=True)


# --- who leaves ---------------------------------------------------------------------------------


@pytest.mark.parametrize("knows", [True, False])
def test_a_party_that_left_is_audited_under_what_it_obeyed(
    knows: bool, world: World, tmp_path: Path
) -> None:
    path, file = world.workspace.path, tmp_path / "second.json"
    file.write_bytes(
        SignedAgreement.draft(amend(world.agreement, without_courier(world.agreement))).to_json()
    )
    staying = [one for one in world.workspace.folders if one.name != "courier"]
    for one in staying:
        file.write_bytes(adoption.sign(one, file).to_json())
    for one in world.workspace.folders if knows else staying:
        adoption.adopt(one, file, now=LATER)
    shutil.copy(file, path / "agreement.json")
    assert audited(path, scratch=tmp_path / "a") == []
    assert audited(path / "courier", scratch=tmp_path / "b") == []
    assert audited(path, scratch=tmp_path / "c", agreements=(file,)) == []
    assert verify_all([path])[1] == ()
    with serving(world, *(one.name for one in world.workspace.folders)) as urls:
        assert audited(*urls, scratch=tmp_path / "d", agreements=(file,)) == []
    courier = world.folder("courier")
    cut(courier, NoteKey.from_string(world.agreement.party("courier").log_key), 4)
    found = audited(path, scratch=tmp_path / "e")
    assert found.count((K.REWRITTEN, "courier")) == 3
    with serving(world, *(one.name for one in world.workspace.folders)) as urls:
        found = audited(*urls, scratch=tmp_path / "f", agreements=(file,))
    assert found.count((K.REWRITTEN, "courier")) == 3


def test_a_party_obeys_the_last_version_that_names_it(made: World) -> None:
    first = made.agreement
    second = amend(first, without_courier(first))
    third = amend(second, {"valid_from": LATER + timedelta(days=1), "title": "Changed"})
    assert chain(third, (third, first, second)) == (first, second, third)
    assert chain(third, (first,)) == (third,)
    assert obeys("courier", first, (first, second, third))
    assert obeys("brand", third, (first, second, third))
    assert not obeys("brand", second, (first, second, third))
    assert not obeys("courier", first, (second, third))


# --- a contract that one party made alone -------------------------------------------------------


def made_alone(world: World) -> tuple[SignedAgreement, SigningKey, CosigningKey]:
    """A contract in all names, by keys that whoever made it has."""
    agreement = world.agreement
    identities = {one.name: SigningKey.from_seed(new_secret()) for one in agreement.parties}
    key = SigningKey.from_seed(new_secret())
    second = CosigningKey.from_seed("comity/retailer", new_secret())
    parties = []
    for one in agreement.parties:
        change = {"identity_key": identities[one.name].public.to_base64()}
        if one.name == "retailer":
            change["log_key"] = NoteKey("comity/retailer", key.public).to_string()
            change["cosigning_key"] = second.public.to_string()
        parties.append(one.model_copy(update=change))
    fields = {name: getattr(agreement, name) for name in Agreement.model_fields}
    signed = SignedAgreement.draft(Agreement.from_terms(fields | {"parties": tuple(parties)}))
    for name, identity in identities.items():
        signed = signed.sign(name, identity)
    return signed, key, second


def test_a_contract_that_one_party_made_alone_accuses_nobody(world: World, tmp_path: Path) -> None:
    courier = world.folder("courier")
    contract, key, second = made_alone(world)
    (courier.path / "agreement.json").write_bytes(contract.to_json())

    def head(size: int, root: bytes, *, seen: bool) -> bytes:
        checkpoint = Checkpoint("comity/retailer", size, root)
        note = checkpoint.note(key)
        lines = [*note.signatures, second.cosign(checkpoint, timestamp=0)]
        if seen:
            time = int(NOW.timestamp())
            lines.append(courier.cosigning_key().cosign(checkpoint, timestamp=time))
        return Note(note.text, tuple(lines)).to_bytes()

    place = courier.witnessed / origin_hash("comity/retailer")
    place.joinpath("checkpoint").write_bytes(head(999, b"a" * 32, seen=True))
    pair = Evidence(
        head(12, b"a" * 32, seen=True),
        AddCheckpoint(0, (), head(12, b"b" * 32, seen=False)).to_bytes(),
    )
    place.joinpath("evidence").mkdir(exist_ok=True)
    for name in ("seen", "submitted"):
        (place / "evidence" / f"{pair.digest}.{name}").write_bytes(getattr(pair, name))
    found = audited(world.workspace.path, scratch=tmp_path)
    assert found[0] == (K.AGREEMENT_DIFFERS, "courier")
    assert {party for _, party in found} == {"courier"}
    told = [str(one) for one in verify_all([world.workspace.path])[1]]
    assert told
    assert not any("of the log of retailer" in one for one in told)


# --- new keys -----------------------------------------------------------------------------------


@pytest.mark.parametrize("rotates", [True, False])
def test_new_keys_hide_no_log_that_was_cut_short(
    rotates: bool, world: World, tmp_path: Path
) -> None:
    path, file, retailer = world.workspace.path, tmp_path / "second.json", world.folder("retailer")
    before = NoteKey.from_string(world.agreement.party("retailer").log_key)
    parties = {one.name: one for one in world.agreement.parties}
    for key in (RotatedKey.LOG, RotatedKey.COSIGNING) if rotates else ():
        parties["retailer"] = adoption.rotate(retailer, key)
    drawn_up(world, file, title="Changed", parties=tuple(parties.values()))
    cut(retailer, before, 5)
    for one in world.workspace.folders:
        adoption.adopt(one, file, now=LATER)
    shutil.copy(file, path / "agreement.json")
    found = audited(path, scratch=tmp_path / "s", agreements=(file,))
    assert found.count((K.REWRITTEN, "retailer")) == 3
    assert K.KEY_NOT_IN_FORCE not in {kind for kind, _ in found}
    assert any("cut short" in str(one) for one in verify_all([path])[1])
