"""Secrets on disk: the sealed format, where its key comes from, folders, and changing keys."""

import base64
import hashlib
import hmac
import json
import os
import sqlite3
import ssl
import stat
from collections.abc import Iterator
from contextlib import closing
from itertools import count
from pathlib import Path

import keyring
import pytest
from crashing import charges, outcome
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given, settings
from hypothesis import strategies as st
from joining import Enrolment
from keyring.backend import KeyringBackend
from keyring.errors import KeyringLocked
from parties import NOW, World
from test_party import in_killed_child
from trials import write_every_job

from compliance.errors import SealingError, SealingKeyError, StoreFormatError
from compliance.sealing import UnsealingKey, is_sealed
from compliance.terms import Role
from federation import adoption, cli
from federation.api.answers import Answers
from federation.api.clients import Clients
from federation.api.scopes import Scope
from federation.apps.credential import read_node_key
from federation.collaboration import load_collaboration
from federation.coordinator import read_jobs, write_jobs
from federation.enrolment.joining import Membership, _node_key
from federation.errors import UnsealingError, WorkspaceError
from federation.messages import SealedMessage, SumPhase
from federation.operations.folder import CoordinatorConfig, CoordinatorFolder
from federation.operations.roles import OperatorRole
from federation.operations.tokens import TokenBook
from federation.party import PartyConfig, PartyFolder, write_atomically
from federation.resealing import Resealed, Standing, look, reseal, sealable_in
from federation.safe import PARTY_SECRETS, Safe
from federation.trial.workspace import prepare_workspace
from federation.unsealing import SOURCES, _is_exposed, read_key_file, unsealing_key
from privacy.randomness import Secret, new_secret

VALUE, FILE, KEYRING = SOURCES
RAW, NEXT = bytes(range(32)), bytes(range(1, 33))
KEY, OTHER = UnsealingKey(RAW), UnsealingKey(NEXT)
PLACE = {"owner": "party brand", "name": "keys/identity"}
CONFIG = PartyConfig(name="retailer", role=Role.PARTNER)


@pytest.fixture
def with_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have this process be given a key."""
    monkeypatch.setenv(VALUE, RAW.hex())


def files(root: Path) -> dict[str, bytes]:
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file() and path.name != "lock"
    }


def standings(folder: PartyFolder | CoordinatorFolder) -> set[Standing]:
    return {one.standing for one in look(folder.safe)}


# ----------------------------------------------------------------------------------- the format


class TestFormat:
    @settings(max_examples=30)
    @given(st.binary(max_size=300), st.text(max_size=20), st.text(max_size=20))
    def test_what_was_sealed_opens_in_its_place(
        self, content: bytes, owner: str, name: str
    ) -> None:
        sealed = KEY.seal(content, owner=owner, name=name, nonce=new_secret())
        assert is_sealed(sealed)
        assert KEY.open(sealed, owner=owner, name=name) == content
        assert content not in sealed or len(content) < 3
        for place in ({"owner": owner + "x", "name": name}, {"owner": owner, "name": name + "x"}):
            with pytest.raises(SealingKeyError, match="belongs to another key, or elsewhere"):
                KEY.open(sealed, **place)

    def test_owner_and_name_cannot_run_into_each_other(self) -> None:
        sealed = KEY.seal(b"", owner="ab", name="c", nonce=bytes(32))
        with pytest.raises(SealingKeyError):
            KEY.open(sealed, owner="a", name="bc")

    def test_no_byte_can_be_changed_taken_away_or_added(self) -> None:
        safe = Safe(Path("/brand"), "party brand", PARTY_SECRETS, KEY)
        path = safe.root / "keys" / "identity"
        sealed = safe.seal(path, bytes(64))
        assert safe.unseal(path, sealed) == bytes(64)
        for place in range(len(sealed)):
            for flipped in (1, 128):
                changed = bytearray(sealed)
                changed[place] ^= flipped
                with pytest.raises(UnsealingError, match="keys/identity"):
                    safe.unseal(path, bytes(changed))
        for stump in (sealed[:length] for length in range(len(sealed))):
            with pytest.raises(UnsealingError):
                safe.unseal(path, stump)
        with pytest.raises(UnsealingError):
            safe.unseal(path, sealed + b"\0")

    def test_another_key_is_told_by_its_name_which_tells_nothing_of_it(self) -> None:
        sealed = KEY.seal(b"seed", **PLACE, nonce=bytes(32))
        with pytest.raises(SealingKeyError, match=f"under key {KEY.name}, and key {OTHER.name}"):
            OTHER.open(sealed, **PLACE)
        assert repr(KEY) == f"UnsealingKey({KEY.name})"
        assert KEY.name not in RAW.hex()

    def test_a_later_format_is_told(self) -> None:
        with pytest.raises(SealingError, match="expected the sealed format of this version"):
            KEY.open(b"comity-sealed-2\n" + bytes(120), **PLACE)

    def test_a_key_of_another_length_is_none(self) -> None:
        with pytest.raises(SealingError, match="32 bytes, got 31"):
            UnsealingKey(bytes(31))

    def test_it_is_as_its_module_says(self) -> None:
        """Written again after its description, with HKDF (RFC 5869) from the standard library."""

        def hkdf(salt: bytes, info: bytes, length: int) -> bytes:
            extracted = hmac.digest(salt, RAW, "sha256")
            found, block = b"", b""
            for number in count(1):
                block = hmac.digest(extracted, block + info + bytes([number]), "sha256")
                found += block
                if len(found) >= length:
                    return found[:length]
            raise AssertionError

        nonce = hashlib.sha256(b"nonce").digest()
        head = b"comity-sealed-1\n" + hkdf(bytes(32), b"comity unsealing key id 1", 8)
        parts = (head, b"party brand", b"keys/identity")
        info = b"".join(len(one).to_bytes(8, "big") + one for one in parts)
        derived = hkdf(nonce, info, 64)
        body = AESGCM(derived[32:]).encrypt(bytes(12), b"seed", None)
        assert KEY.seal(b"seed", **PLACE, nonce=nonce) == head + nonce + derived[:32] + body


# ----------------------------------------------------------------------------- where the key is


class Ring(KeyringBackend):
    """A keyring in memory; locked ones give nothing."""

    priority = 1

    def __init__(self, *, locked: bool = False) -> None:
        super().__init__()
        self.locked = locked
        self.entries: dict[tuple[str, str], str] = {}

    def get_password(self, service: str, username: str) -> str | None:
        if self.locked:
            raise KeyringLocked
        return self.entries.get((service, username))

    def set_password(self, service: str, username: str, password: str) -> None:
        self.entries[service, username] = password

    def delete_password(self, service: str, username: str) -> None:
        del self.entries[service, username]


@pytest.fixture
def ring() -> Iterator[Ring]:
    before, made = keyring.get_keyring(), Ring()
    keyring.set_keyring(made)
    yield made
    keyring.set_keyring(before)


def key_file(path: Path, content: str = RAW.hex(), mode: int = 0o600) -> Path:
    path.write_text(content)
    path.chmod(mode)
    return path


class TestSource:
    def test_there_may_be_none(self) -> None:
        assert unsealing_key({}) is None

    def test_it_is_the_same_from_wherever_it_comes(self, tmp_path: Path, ring: Ring) -> None:
        keyring.set_password("comity-a", "brand", RAW.hex())
        file = key_file(tmp_path / "key", RAW.hex().upper() + "\n", 0o400)
        for where in ({VALUE: RAW.hex()}, {FILE: str(file)}, {KEYRING: "comity-a/brand"}):
            found = unsealing_key(where)
            assert found is not None
            assert found.name == KEY.name

    @pytest.mark.parametrize("name", SOURCES)
    def test_an_empty_one_is_a_mistake_and_not_none(self, name: str) -> None:
        with pytest.raises(UnsealingError, match=f"{name} is empty"):
            unsealing_key({name: " "})

    def test_two_are_one_too_many(self) -> None:
        with pytest.raises(UnsealingError, match=f"expected one of {VALUE}, {FILE}, got several"):
            unsealing_key({VALUE: RAW.hex(), FILE: "key"})

    @pytest.mark.parametrize("text", ["passphrase", RAW.hex()[1:], RAW.hex() + "00", "x" * 64])
    def test_what_is_no_key_is_refused_and_not_told(self, text: str) -> None:
        with pytest.raises(UnsealingError, match="64 hexadecimal digits") as told:
            unsealing_key({VALUE: text})
        assert text not in str(told.value)

    @pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602, 0o610, 0o601, 0o644])
    def test_a_file_that_others_can_have_is_refused(self, tmp_path: Path, mode: int) -> None:
        file = key_file(tmp_path / "key", mode=mode)
        with pytest.raises(UnsealingError, match=rf"mode {mode:04o}.*chmod 600 {file}"):
            read_key_file(file)

    @pytest.mark.parametrize(
        ("mode", "owner", "user", "exposed"),
        [
            (0o600, 7, 7, False),
            (0o640, 7, 7, True),
            (0o640, 0, 0, True),
            (0o400, 0, 7, False),  # handed over by root, by an access list or a group
            (0o440, 0, 7, False),
            (0o460, 0, 7, True),
            (0o444, 0, 7, True),
            (0o600, 8, 7, True),  # whoever owns it can write it
        ],
    )
    def test_what_root_hands_over_a_group_may_read(
        self, mode: int, owner: int, user: int, exposed: bool
    ) -> None:
        assert _is_exposed(mode, owner=owner, user=user) is exposed

    def test_what_is_no_file_is_refused_at_once(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "fifo", 0o600)
        for name, told in {"fifo": "no unsealing key", "none": "cannot be read"}.items():
            with pytest.raises(UnsealingError, match=told):
                read_key_file(tmp_path / name)

    def test_the_keyring_says_what_it_lacks(self, ring: Ring) -> None:
        with pytest.raises(UnsealingError, match="keyring set comity-b brand"):
            unsealing_key({KEYRING: "comity-b/brand"})
        with pytest.raises(UnsealingError, match="expected SERVICE/USER"):
            unsealing_key({KEYRING: "comity"})
        ring.locked = True
        with pytest.raises(UnsealingError, match=r"KeyringLocked\): unlock it"):
            unsealing_key({KEYRING: "comity-b/brand"})


# ------------------------------------------------------------------------------------ one folder


class TestFolder:
    @pytest.fixture
    def folder(self, tmp_path: Path, with_key: None) -> PartyFolder:
        folder = PartyFolder.create(tmp_path / "retailer", CONFIG)
        folder.term()
        folder.erasure_key()
        return folder

    def test_its_keys_are_sealed_from_the_first_byte(self, folder: PartyFolder) -> None:
        found = files(folder.path / "keys")
        assert found.keys() == {"identity", "log", "cosigning", "encryption", "erasure"}
        assert all(map(is_sealed, found.values()))
        modes = {stat.S_IMODE(path.stat().st_mode) for path in (folder.path / "keys").iterdir()}
        assert modes == {0o600}
        assert PartyFolder(folder.path).term() == folder.term()

    def test_without_the_key_or_with_another_nothing_opens_and_nothing_is_made(
        self, folder: PartyFolder, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        before = files(folder.path)
        monkeypatch.setenv(VALUE, NEXT.hex())
        with pytest.raises(UnsealingError, match="identity does not open: it is sealed under key"):
            folder.term()
        monkeypatch.delenv(VALUE)
        with pytest.raises(UnsealingError, match="identity is sealed, and no key was given"):
            folder.term()
        assert files(folder.path) == before

    def test_a_key_of_somebody_elses_choice_is_refused(self, folder: PartyFolder) -> None:
        (folder.path / "keys" / "log").write_text(bytes(32).hex())
        with pytest.raises(UnsealingError, match=r"log lies in clear.*somebody else put it"):
            folder.log_key()

    def test_two_secrets_cannot_change_places(self, folder: PartyFolder, tmp_path: Path) -> None:
        keys = folder.path / "keys"
        (keys / "log").write_bytes((keys / "identity").read_bytes())
        with pytest.raises(UnsealingError, match="elsewhere"):
            folder.log_key()
        other = PartyFolder.create(
            tmp_path / "courier", CONFIG.model_copy(update={"name": "courier"})
        )
        write_atomically(other.path / "keys" / "identity", (keys / "identity").read_bytes())
        with pytest.raises(UnsealingError, match="elsewhere"):
            other.identity_key()

    def test_a_folder_may_be_moved(self, folder: PartyFolder, tmp_path: Path) -> None:
        before = folder.term()
        folder.path.rename(tmp_path / "moved")
        assert PartyFolder(tmp_path / "moved").term() == before

    def test_only_what_is_listed_is_sealed(self, folder: PartyFolder) -> None:
        with pytest.raises(RuntimeError, match="not listed as a secret"):
            folder.keep_secret(folder.path / "keys" / "unknown", b"")

    def test_a_next_key_takes_its_place_under_its_new_name(self, folder: PartyFolder) -> None:
        folder.keep_secret(folder.path / "keys" / "log.next", bytes(32).hex().encode())
        adoption._replace_key(folder, adoption.RotatedKey.LOG)
        assert folder.log_key().public == adoption.SigningKey.from_seed(bytes(32)).public
        assert not (folder.path / "keys" / "log.next").exists()

    def test_the_key_of_its_node_is_read_by_path(self, folder: PartyFolder, tmp_path: Path) -> None:
        made, path = _node_key(folder), folder.path / "keys" / "node"
        assert is_sealed(path.read_bytes())
        assert read_node_key(path, folder=folder).private_numbers() == made.private_numbers()
        with pytest.raises(WorkspaceError, match="no private key in OpenSSH's format"):
            read_node_key(path)

    def test_keys_of_subjects_are_sealed_row_by_row(self, folder: PartyFolder) -> None:
        store = folder.open_subject_keys()
        first, second = store.of(["R#1", "R#2"])
        assert folder.open_subject_keys().of(["R#1"])[0]._raw == first._raw
        content = folder.subject_keys.read_bytes()
        assert first._raw not in content
        assert second._raw not in content
        with store._transaction() as connection:  # somebody exchanges two people's keys
            connection.execute(
                "UPDATE subject_key SET key = (SELECT key FROM subject_key WHERE subject = 'R#1')"
            )
        assert folder.open_subject_keys().of(["R#1"])[0]._raw == first._raw
        with pytest.raises(UnsealingError, match=r"subjects\.sqlite does not open"):
            folder.open_subject_keys().of(["R#2"])

    def test_clients_of_its_api_cannot_be_added_by_others(self, folder: PartyFolder) -> None:
        key = Clients(folder.path).add("website", Scope, now=NOW)
        place = folder.path / "api" / "clients.json"
        assert is_sealed(place.read_bytes())
        assert Clients(folder.path).authenticated(key, now=NOW).name == "website"
        place.write_bytes(b'{"clients": []}')
        with pytest.raises(UnsealingError, match="lies in clear"):
            Clients(folder.path).authenticated(key, now=NOW)

    def test_answers_are_told_apart_as_before(self, folder: PartyFolder) -> None:
        secret = Answers(folder.path, safe=folder.safe)._secret
        assert Answers(folder.path, safe=folder.safe)._secret == secret
        assert secret not in (folder.path / "api" / "answers.sqlite").read_bytes()


def test_a_party_joins_and_goes_on_with_its_token_sealed(tmp_path: Path, with_key: None) -> None:
    enrolment = Enrolment(tmp_path)
    invitation = enrolment.invite("brand")
    member = enrolment.join("brand", invitation=invitation)
    payload = json.loads(invitation.read_bytes())["payload"].encode()  # the token is in it
    assert not [name for name, one in files(member.folder.path).items() if payload in one]
    assert standings(member.folder) == {Standing.SEALED}
    again = enrolment.join("brand", invitation=invitation)
    assert again.registration == Membership.open(member.folder.path).registration
    assert again.invitation == member.invitation
    enrolment.store.answer(again.registration)


class TestCoordinatorFolder:
    @pytest.fixture
    def folder(self, tmp_path: Path, with_key: None) -> CoordinatorFolder:
        config = CoordinatorConfig.for_address("here", listen=None, control="127.0.0.1:9092")
        return CoordinatorFolder.init(tmp_path / "state", config, now=NOW)

    def test_its_keys_and_tokens_are_sealed(self, folder: CoordinatorFolder) -> None:
        book = TokenBook(folder.tokens, safe=folder.safe)
        token = book.add("alice", OperatorRole.VIEWER, now=NOW)
        assert all(is_sealed(one) for name, one in files(folder.path).items() if "key" in name)
        assert standings(folder) == {Standing.SEALED}
        operator = TokenBook(folder.tokens, safe=folder.safe).operator(token, now=NOW)
        assert operator is not None
        folder.check_certificate(NOW)
        folder.renew(NOW)

    def test_a_server_reads_the_key_and_nobody_else(self, folder: CoordinatorFolder) -> None:
        server = folder._certified("server")
        assert server is not None
        with folder.readable_server_key() as (file, password):
            assert stat.S_IMODE(file.stat().st_mode) == 0o600
            assert b"ENCRYPTED PRIVATE KEY" in file.read_bytes()
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(folder.server_certificate, file, password)
        assert not file.exists()
        body = base64.b64encode(base64.b64decode(b"".join(server.key_pem.splitlines()[1:-1])))
        assert not [name for name, one in files(folder.path).items() if body[:40] in one]

    def test_nothing_changes_while_somebody_serves_it(self, folder: CoordinatorFolder) -> None:
        (sealable,) = sealable_in(folder.path)
        with folder.served(), pytest.raises(WorkspaceError, match="served by another process"):
            reseal(sealable, KEY, OTHER)


# -------------------------------------------------------------------------- folders that are there


class TestResealing:
    @pytest.fixture
    def folder(self, tmp_path: Path) -> PartyFolder:
        """A folder in clear, with a secret of every sort."""
        folder = PartyFolder.create(tmp_path / "retailer", CONFIG)
        folder.term()
        folder.open_subject_keys().of(["R#1", "R#2"])
        folder.keep_secret(folder.job("find") / "with-brand" / "secret", new_secret())
        Answers(folder.path, safe=folder.safe)
        return folder

    @staticmethod
    def secrets(folder: PartyFolder) -> list[bytes]:
        keys = [one._raw for one in folder.open_subject_keys().of(["R#1", "R#2"])]
        job = folder.read_secret(folder.job("find") / "with-brand" / "secret")
        answers = Answers(folder.path, safe=folder.safe)._secret
        return [folder.term().model_dump_json().encode(), *keys, job, answers]

    @staticmethod
    def reseal(
        folder: PartyFolder, before: UnsealingKey | None, after: UnsealingKey | None
    ) -> Resealed:
        (sealable,) = sealable_in(folder.path)
        return reseal(sealable, before, after)

    def test_seal_rotate_unseal(self, folder: PartyFolder, monkeypatch: pytest.MonkeyPatch) -> None:
        secrets, before = self.secrets(folder), files(folder.path)
        assert standings(folder) == {Standing.CLEAR}
        assert self.reseal(folder, None, KEY) == Resealed(8, 0)
        monkeypatch.setenv(VALUE, RAW.hex())
        assert standings(folder) == {Standing.SEALED}
        assert self.secrets(folder) == secrets
        assert self.reseal(folder, KEY, OTHER) == Resealed(8, 0)
        assert standings(folder) == {Standing.CLOSED}
        monkeypatch.setenv(VALUE, NEXT.hex())
        assert self.secrets(folder) == secrets
        assert self.reseal(folder, OTHER, None) == Resealed(8, 0)
        monkeypatch.delenv(VALUE)
        assert self.secrets(folder) == secrets
        after = files(folder.path)
        assert {name: one for name, one in after.items() if "sqlite" not in name} == {
            name: one for name, one in before.items() if "sqlite" not in name
        }

    def test_nothing_of_what_lay_in_clear_is_left(self, folder: PartyFolder) -> None:
        clear = [one for one in self.secrets(folder)[1:] if len(one) == 32]
        clear += [one for name, one in files(folder.path).items() if name.startswith("keys/i")]
        assert len(clear) == 5
        assert all(any(one in held for held in files(folder.path).values()) for one in clear)
        self.reseal(folder, None, KEY)
        assert not [
            name for name, held in files(folder.path).items() for one in clear if one in held
        ]

    def test_where_one_secret_does_not_open_none_is_written(self, folder: PartyFolder) -> None:
        self.reseal(folder, None, KEY)
        path = folder.path / "keys" / "log"
        path.write_bytes(path.read_bytes()[:-1])
        before = files(folder.path)
        with pytest.raises(UnsealingError, match="log does not open"):
            self.reseal(folder, KEY, OTHER)
        with pytest.raises(UnsealingError, match="does not open: it is sealed under key"):
            self.reseal(folder, None, OTHER)
        assert files(folder.path) == before

    def test_what_a_later_version_wrote_is_refused_and_nothing_is_written(
        self, folder: PartyFolder
    ) -> None:
        with closing(sqlite3.connect(folder.subject_keys)) as connection:
            connection.execute("PRAGMA user_version = 2")
        before = files(folder.path)
        with pytest.raises(StoreFormatError, match=r"subjects\.sqlite has format 2"):
            self.reseal(folder, None, KEY)
        assert files(folder.path) == before

    @pytest.mark.parametrize(("before", "after"), [(None, KEY), (KEY, OTHER), (KEY, None)])
    def test_killed_anywhere_the_same_command_goes_on(
        self,
        folder: PartyFolder,
        monkeypatch: pytest.MonkeyPatch,
        before: UnsealingKey | None,
        after: UnsealingKey | None,
    ) -> None:
        secrets = self.secrets(folder)
        if before is not None:
            self.reseal(folder, None, before)
        mixed = 0
        for step in count(2, 2):
            killed = in_killed_child(step, lambda: self.reseal(folder, before, after))
            safe = folder.safe.under(after)
            found = {one.standing for one in look(safe)}
            mixed += len(found) > 1
            done = self.reseal(folder, before, after)
            assert sum(done) == 8
            assert list(folder.path.rglob("*.tmp")) == []
            if after is None:
                assert self.secrets(folder) == secrets
            else:
                monkeypatch.setenv(VALUE, (RAW if after is KEY else NEXT).hex())
                assert self.secrets(folder) == secrets
                monkeypatch.delenv(VALUE)
            if not killed:
                break
            self.reseal(folder, after, before)
        assert mixed > 3

    def test_a_workspace_and_a_coordinator_are_taken_as_a_whole(
        self, folder: PartyFolder, tmp_path: Path
    ) -> None:
        config = CoordinatorConfig.for_address("here", listen=None, control="127.0.0.1:9092")
        state = CoordinatorFolder.init(tmp_path / "state", config, now=NOW)
        operator = CONFIG.model_copy(update={"name": "coordinator", "role": Role.COORDINATOR})
        PartyFolder.create(state.party, operator).term()
        assert [one.safe.owner for one in sealable_in(tmp_path)] == ["party retailer"]
        owners = [one.safe.owner for one in sealable_in(state.path)]
        assert owners == ["coordinator", "party coordinator"]
        with pytest.raises(WorkspaceError, match="no folder of a party or a coordinator"):
            sealable_in(tmp_path / "retailer" / "keys")


# ------------------------------------------------------------------------------------- a whole run


JOBS = {"find", "everybody", "summed"}
"""A match, an alignment, and a training by secure sums."""


def every_secret_job(directory: Path) -> World:
    """Parties with shared seeds, and jobs that keep secrets between two messages."""
    file = write_every_job(directory / "trial")
    made = prepare_workspace(load_collaboration(file), file, directory / "workspace")
    world = World(made, NOW)
    coordinator = world.folder("coordinator")
    write_jobs(coordinator, [one for one in read_jobs(coordinator) if one.name in JOBS])
    return world


def test_a_sealed_run_comes_to_the_same_end_and_leaves_no_secret_in_clear(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every secret that a party draws is looked for, in every file, after every answer."""
    clear = every_secret_job(tmp_path / "clear")
    clear.run()
    monkeypatch.setenv(VALUE, RAW.hex())
    drawn: set[bytes] = set()
    draw = PartyFolder.fresh_secret

    def seen(self: PartyFolder, label: str) -> Secret:
        secret = draw(self, label)
        public = label.startswith("manifest/") or self.config.role is Role.COORDINATOR  # nonces
        if not public:
            drawn.update((secret, secret.hex().encode(), base64.b64encode(secret)))
        return secret

    monkeypatch.setattr(PartyFolder, "fresh_secret", seen)
    world = every_secret_job(tmp_path / "sealed")
    kept, looked = set[str](), dict[Path, int]()

    def look_through(name: str, _: SealedMessage, answer: SealedMessage) -> SealedMessage:
        folder = world.folder(name)
        assert standings(folder) == {Standing.SEALED}
        kept.update(one.file.name for one in look(folder.safe))
        for path in folder.path.rglob("*"):  # what was written since the last look
            if path.is_file() and looked.get(path) != (written := path.stat().st_mtime_ns):
                looked[path] = written
                content = path.read_bytes()
                assert not any(secret in content for secret in drawn), path.name
        return answer

    world.listener = look_through
    world.run()
    phases = {f"{phase}.json" for phase in SumPhase}
    assert {"identity", "secret", "seed", "commitment", "state.json", *phases} <= kept
    assert len(drawn) > 60
    found = outcome(world.workspace.path)
    assert found == outcome(clear.workspace.path)
    assert {"retailer/models/summed.json", "retailer/jobs/everybody/aligned.npz"} <= found.keys()
    for folder in world.workspace.people:
        here, there = (charges(one.workspace.path, folder.name) for one in (world, clear))
        assert here == there


# ------------------------------------------------------------------------------------- the command


def comity(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    capsys.readouterr()
    with pytest.raises(SystemExit) as left:
        cli.main([str(one) for one in arguments])
    code = left.value.code
    told = capsys.readouterr()
    assert isinstance(code, int)
    return code, told.out, told.err


def test_the_command_makes_a_key_seals_tells_rotates_and_unseals(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = PartyFolder.create(tmp_path / "retailer", CONFIG)
    before = folder.term()
    first, second = tmp_path / "first.key", tmp_path / "second.key"

    def run(*arguments: object, code: int = 0) -> str:
        found, out, err = comity(capsys, "secrets", *arguments)
        assert found == code, err
        for file in (first, second):
            assert not file.exists() or file.read_text().strip() not in out + err
        return out or err

    assert "no unsealing key was given" in run("seal", folder.path, code=2)
    assert "no unsealing key is given\n4 clear" in run("status", folder.path)
    name = json.loads(run("key", first, "--json"))["key"]
    assert stat.S_IMODE(first.stat().st_mode) == 0o600
    assert "is there already" in run("key", first, code=2)
    monkeypatch.setenv(FILE, str(first))
    assert json.loads(run("status", folder.path, "--json", code=1))["clear"] == 4
    assert "4 secrets sealed; 0 were before" in run("seal", folder.path)
    assert "0 secrets sealed; 4 were before" in run("seal", folder.path)
    told = json.loads(run("status", folder.path, "--json"))
    assert (told["key"], told["sealed"], told["closed"]) == (name, 4, 0)
    run("key", second)
    assert "4 secrets sealed under the next key" in run("rotate", folder.path, "--to", second)
    assert "closed" in run("status", folder.path, code=1)
    monkeypatch.setenv(FILE, str(second))
    assert folder.term() == before
    assert "--unsafe" in run("unseal", folder.path, code=2)
    assert "4 secrets put in clear" in run("unseal", folder.path, "--unsafe")
    monkeypatch.delenv(FILE)
    assert folder.term() == before


def test_who_begins_without_a_key_is_told_that_keys_lie_in_clear(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ("coordinator", "init", tmp_path / "state", "--address", "here", "--json")
    assert "lie in clear, readable by their owner only" in comity(capsys, *command)[2]
    monkeypatch.setenv(VALUE, RAW.hex())
    code, _, err = comity(capsys, *command)
    assert (code, "lies in clear, and an unsealing key was given" in err) == (2, True)
    code, _, err = comity(capsys, *command[:2], tmp_path / "sealed", *command[3:])
    assert (code, err) == (0, "")
