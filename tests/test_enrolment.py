"""Joining with keys made at home: who may, what is kept, and what impersonators try."""

import hashlib
import json
import sqlite3
import stat
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from joining import INVITED, WEEK, Enrolment, changed, means_of, write_means, write_terms
from trials import save

from compliance.agreement import SignedAgreement
from compliance.draft import Draft
from compliance.errors import AlteredAgreementError, ComplianceError
from compliance.log.cosignature import Algorithm, CosignerKey, CosigningKey
from compliance.signing import Envelope, SigningKey, decode_base64, encode_base64
from federation.collaboration import load_collaboration
from federation.coordinator import read_jobs
from federation.enrolment import joining as party_side
from federation.enrolment.invitation import Invitation
from federation.enrolment.joining import Membership, join, open_invitation
from federation.enrolment.means import load_means
from federation.enrolment.registration import PartyKeys, Registration, Statement, spell_node_key
from federation.enrolment.request import REQUEST_LIMIT, Standing
from federation.enrolment.store import EnrolmentStore
from federation.errors import CollaborationError, EnrolmentError, WorkspaceError
from federation.party import PartyFolder, TableConfig
from privacy.encryption import DecryptionKey
from privacy.errors import PeerMessageError
from privacy.randomness import Secret, seeded_secret


@pytest.fixture(scope="module")
def finished(
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Enrolment, Mapping[str, Membership]]:
    """All have joined and signed; to be looked at only."""
    enrolment = Enrolment(tmp_path_factory.mktemp("finished"))
    members = enrolment.signed()
    for member in members.values():
        enrolment.ask(member)
    return enrolment, members


@pytest.fixture
def enrolment(tmp_path: Path) -> Enrolment:
    return Enrolment(tmp_path)


def files(directory: Path) -> dict[str, bytes]:
    return {
        path.relative_to(directory).as_posix(): path.read_bytes()
        for path in sorted(directory.rglob("*"))
        if path.is_file() and path.name != "lock"
    }


def secrets_of(path: Path) -> dict[str, bytes]:
    """Every secret of a party, as it might be spelt."""
    found = {}
    for file in (path / "keys").iterdir():
        text = file.read_bytes().strip()
        found[f"{file.name} as kept"] = text
        if file.name != "node":
            raw = bytes.fromhex(text.decode())
            found[f"{file.name} raw"] = raw
            found[f"{file.name} base64"] = encode_base64(raw).encode()
    return found


class TestTheWholeWay:
    def test_everybody_obeys_one_agreement_that_all_signed(self, finished: Any) -> None:
        enrolment, members = finished
        found = {member.folder.agreement().digest for member in members.values()}
        assert found == {PartyFolder(enrolment.store.party).agreement().digest}
        assert len({member.folder.agreement() for member in members.values()}) == 1
        standing = enrolment.store.standing()
        assert (standing.missing, standing.unsigned) == ((), ())

    def test_the_agreement_is_the_terms_with_keys(self, finished: Any) -> None:
        enrolment, members = finished
        agreement = members["brand"].folder.agreement()
        assert Draft.of(agreement) == enrolment.store.read().terms
        for name, member in members.items():
            assert agreement.party(name) == member.folder.term()

    def test_no_secret_of_a_party_leaves_it(self, finished: Any) -> None:
        enrolment, members = finished
        known = b"".join(files(enrolment.folder.path).values())
        for member in members.values():
            said = member.registration
            for what, secret in secrets_of(member.folder.path).items():
                assert secret not in known, what
                assert secret not in said, what

    def test_a_token_is_kept_nowhere_but_in_its_file(self, finished: Any) -> None:
        enrolment, members = finished
        known = b"".join(files(enrolment.folder.path).values())
        for member in members.values():
            token = member.invitation.token
            assert token.encode() not in known
            assert token.encode() not in member.registration
            assert decode_base64(token) not in known
            assert token not in repr(member.invitation)

    def test_what_is_secret_is_its_owners_alone(self, finished: Any) -> None:
        _, members = finished
        path = members["retailer"].folder.path
        secret = [
            *(path / "keys").iterdir(),
            path / "enrolment" / "invitation.json",
            path / "party.json",
        ]
        assert {file.name for file in (path / "keys").iterdir()} == {
            *("identity", "log", "cosigning", "encryption", "erasure", "node")
        }
        assert {stat.S_IMODE(file.stat().st_mode) for file in secret} == {0o600}
        assert stat.S_IMODE(path.stat().st_mode) == 0o700

    def test_the_superlink_gets_the_keys_of_nodes(self, finished: Any) -> None:
        from federation.apps.credential import read_node_key

        enrolment, members = finished
        assert {path.stem for path in enrolment.folder.nodes.iterdir()} == set(INVITED)
        for name, member in members.items():
            key = read_node_key(member.folder.path / "keys" / "node")
            written = (enrolment.folder.nodes / f"{name}.pub").read_text()
            assert written == spell_node_key(key.public_key()) + "\n"

    def test_a_node_finds_all_that_it_needs(self, finished: Any) -> None:
        from federation.apps.launchers import NodeConfig

        enrolment, members = finished
        path = members["brand"].folder.path
        config = NodeConfig.of(path / "node.toml", {})
        assert config.party.resolve() == path
        assert config.superlink == enrolment.address
        assert config.root_certificates is not None
        assert config.root_certificates.read_text() == enrolment.folder.ca_certificate.read_text()
        assert config.auth_supernode_private_key.resolve() == path / "keys" / "node"

    def test_nobody_is_said_to_have_yet_to_sign(self, finished: Any) -> None:
        finished[0].store.check_signed()

    def test_the_coordinator_knows_its_jobs(self, finished: Any) -> None:
        enrolment, _ = finished
        jobs = read_jobs(PartyFolder(enrolment.store.party))
        assert [spec.name for spec in jobs] == ["find", "model", "best"]

    def test_asked_again_nothing_changes(self, finished: Any) -> None:
        enrolment, members = finished
        before = files(enrolment.directory)
        for member in members.values():
            enrolment.ask(member)
            enrolment.sign(member)
            enrolment.join(
                member.folder.name,
                invitation=member.folder.path / "enrolment" / "invitation.json",
            )
        assert files(enrolment.directory) == before

    def test_a_folder_is_named_from_where_one_stands(
        self, enrolment: Enrolment, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        file = enrolment.invite("brand")
        monkeypatch.chdir(enrolment.directory)
        draft = open_invitation(file).terms.digest
        member = join(file, Path("brand"), accepted=draft, means=None, now=enrolment.now)
        assert Membership.open(Path("brand")).registration == member.registration
        assert member.folder.path == enrolment.directory / "brand"


class TestTokens:
    def test_a_second_join_in_a_name_with_other_keys_is_refused(self, enrolment: Enrolment) -> None:
        file = enrolment.invite("brand")
        first = enrolment.join("brand", invitation=file)
        second = enrolment.join("brand", folder="impostor", invitation=file)
        enrolment.ask(first)
        before = files(enrolment.folder.path)
        with pytest.raises(EnrolmentError, match="has joined with other keys"):
            enrolment.store.answer(second.registration)
        assert files(enrolment.folder.path) == before

    def test_whoever_is_first_is_found_out_by_the_one_who_was_meant(
        self, enrolment: Enrolment
    ) -> None:
        file = enrolment.invite("brand")
        thief = enrolment.join("brand", folder="thief", invitation=file)
        enrolment.ask(thief)
        with pytest.raises(EnrolmentError, match="tell the coordinator at once"):
            enrolment.ask(enrolment.join("brand", invitation=file))

    def test_a_token_is_good_until_its_end_and_not_at_it(self, enrolment: Enrolment) -> None:
        late, early = enrolment.join("brand"), enrolment.join("retailer")
        begun = enrolment.now
        enrolment.now = begun + WEEK - timedelta(microseconds=1)
        assert enrolment.ask(early).missing == ("brand", "courier")
        enrolment.now = begun + WEEK
        with pytest.raises(EnrolmentError, match="expired"):
            enrolment.store.answer(late.registration)
        assert enrolment.ask(early).missing == ("brand", "courier")

    def test_a_party_makes_nothing_for_an_invitation_that_expired(
        self, enrolment: Enrolment
    ) -> None:
        file = enrolment.invite("brand")
        enrolment.now += WEEK
        with pytest.raises(EnrolmentError, match="expired"):
            enrolment.join("brand", invitation=file)
        assert not (enrolment.directory / "brand").exists()

    def test_a_later_invitation_ends_the_earlier_one(self, enrolment: Enrolment) -> None:
        first = enrolment.invite("brand", file="first")
        member = enrolment.join("brand", invitation=first)
        second = enrolment.invite("brand", file="second")
        with pytest.raises(EnrolmentError, match="knows no such invitation"):
            enrolment.store.answer(member.registration)
        again = enrolment.join("brand", invitation=second)
        assert again.folder.term() == member.folder.term()
        assert enrolment.ask(again).missing == ("retailer", "courier")

    def test_a_token_of_another_coordinator_is_unknown(
        self, enrolment: Enrolment, tmp_path: Path
    ) -> None:
        stranger = Enrolment(tmp_path / "stranger")
        with pytest.raises(EnrolmentError, match="knows no such invitation"):
            enrolment.store.answer(stranger.join("brand").registration)

    def test_a_partys_token_lets_it_join_as_itself_alone(self, enrolment: Enrolment) -> None:
        member = enrolment.join("retailer")
        enrolment.invite("brand")
        for name, role in (("brand", "brand"), ("courier", "partner")):
            with pytest.raises(EnrolmentError, match="is for retailer"):
                enrolment.store.answer(forged(member, name=name, role=role))

    def test_a_public_token_key_lets_nobody_in(self, enrolment: Enrolment) -> None:
        member = enrolment.join("brand")
        known = enrolment.store.read().invited[0].token_key
        guess = SigningKey.from_seed(decode_base64(known))
        with pytest.raises(EnrolmentError, match="token key"):
            enrolment.store.answer(forged(member, token=guess))

    def test_lost_keys_are_replaced_on_purpose_only(self, enrolment: Enrolment) -> None:
        enrolment.ask(enrolment.join("brand"))
        with pytest.raises(EnrolmentError, match="--replace"):
            enrolment.invite("brand")
        again = enrolment.invite("brand", replacing=True)
        assert not (enrolment.folder.nodes / "brand.pub").exists()
        member = enrolment.join("brand", folder="again", invitation=again)
        assert enrolment.ask(member).missing == ("retailer", "courier")

    def test_nobody_is_replaced_once_all_have_joined(self, finished: Any) -> None:
        enrolment, _ = finished
        with pytest.raises(EnrolmentError, match="begin anew"):
            enrolment.invite("brand", replacing=True)


def forged(
    member: Membership,
    *,
    token: SigningKey | None = None,
    draft: str | None = None,
    encryption: DecryptionKey | None = None,
    **term: str,
) -> bytes:
    """What a party would say if it said other things of itself, all its own keys proved."""
    path = member.folder.path
    statement = Registration.model_validate_json(member.registration).unverified()
    party = statement.party
    name = term.get("name", party.name)
    keys = {
        use: SigningKey.from_seed(bytes.fromhex((path / "keys" / use).read_text()))
        for use in ("identity", "log")
    }
    origin = f"comity/{name}"
    cosigning = CosigningKey.from_seed(
        origin, bytes.fromhex((path / "keys" / "cosigning").read_text())
    )
    from compliance.log.note import NoteKey

    content = party.model_dump() | term
    content["log_key"] = NoteKey(origin, keys["log"].public).to_string()
    content["cosigning_key"] = cosigning.public.to_string()
    if encryption is not None:
        content["encryption_key"] = encryption.public.to_base64()
    from federation.apps.credential import read_node_key

    made = Registration.make(
        Statement(
            invitation=statement.invitation,
            draft=draft or statement.draft,
            party=content,
            node_key=statement.node_key,
        ),
        PartyKeys(
            identity=keys["identity"],
            log=keys["log"],
            cosigning=cosigning,
            node=read_node_key(path / "keys" / "node"),
            token=token or member.invitation.token_key,
        ),
    )
    return made.model_dump_json().encode()


class TestProofs:
    @pytest.mark.parametrize("proof", ["identity", "log", "cosigning", "node", "token"])
    def test_a_key_that_is_not_proved_is_refused_by_its_name(
        self, enrolment: Enrolment, proof: str
    ) -> None:
        """A party that registers another one's keys cannot prove them."""
        one, other = enrolment.join("brand"), enrolment.join("retailer")
        theirs = json.loads(other.registration)[proof]
        before = files(enrolment.folder.path)
        for value in (theirs, ""):
            with pytest.raises(EnrolmentError, match=f"holds the {proof} key"):
                enrolment.store.answer(changed(one.registration, **{proof: value}))
        assert files(enrolment.folder.path) == before

    def test_a_statement_changed_on_its_way_is_refused(self, enrolment: Enrolment) -> None:
        member = enrolment.join("brand")
        statement = json.loads(json.loads(member.registration)["statement"])
        statement["draft"] = "0" * 64
        told = json.dumps(statement, sort_keys=True, separators=(",", ":"))
        with pytest.raises(EnrolmentError, match="does not prove"):
            enrolment.store.answer(changed(member.registration, statement=told))

    def test_other_terms_than_the_drafts_are_refused(self, enrolment: Enrolment) -> None:
        with pytest.raises(EnrolmentError, match="accepted draft 0000"):
            enrolment.store.answer(forged(enrolment.join("brand"), draft="0" * 64))

    def test_a_key_that_was_copied_from_the_coordinator_cannot_be_proved(
        self, enrolment: Enrolment
    ) -> None:
        key = enrolment.store.read().coordinator.identity_key
        with pytest.raises(EnrolmentError, match="holds the identity key"):
            enrolment.store.answer(forged(enrolment.join("brand"), identity_key=key))

    def test_another_partys_encryption_key_is_refused(self, enrolment: Enrolment) -> None:
        one, other = enrolment.join("brand"), enrolment.join("retailer")
        enrolment.ask(one)
        copied = one.folder.decryption_key()
        with pytest.raises(EnrolmentError, match="one key stands twice"):
            enrolment.store.answer(forged(other, encryption=copied))

    def test_another_partys_node_key_is_refused(self, enrolment: Enrolment) -> None:
        one, other = enrolment.join("brand"), enrolment.join("retailer")
        enrolment.ask(one)
        copied = (one.folder.path / "keys" / "node").read_bytes()
        (other.folder.path / "keys" / "node").write_bytes(copied)
        again = enrolment.join("retailer", invitation=enrolment.directory / "retailer.invitation")
        with pytest.raises(EnrolmentError, match="node key is another party's"):
            enrolment.store.answer(again.registration)

    def test_who_cannot_read_what_is_encrypted_to_it_cannot_sign(
        self, enrolment: Enrolment
    ) -> None:
        """An encryption key signs nothing: it is proved by opening a challenge."""
        members = {name: enrolment.join(name) for name in INVITED}
        foreign = DecryptionKey(seeded_secret(3, "another's"))
        for name, member in members.items():
            request = member.registration if name != "brand" else forged(member, encryption=foreign)
            enrolment.store.answer(request)
        signed = enrolment.store.standing().signed
        assert signed is not None
        agreement = signed.unverified()
        key = SigningKey.from_seed(
            bytes.fromhex((members["brand"].folder.path / "keys" / "identity").read_text())
        )
        (signature,) = signed.sign("brand", key).envelope.signatures
        for answer in (None, encode_base64(bytes(32)), ""):
            request = {
                "kind": "signature",
                "agreement": agreement.digest,
                "signature": signature.model_dump(),
                "answer": answer,
            }
            with pytest.raises(EnrolmentError, match="has not opened"):
                enrolment.store.answer(json.dumps(request).encode())
        assert enrolment.store.read().signatures == ()

    def test_a_proof_of_the_cosigning_key_is_no_cosignature_and_no_other_proof(self) -> None:
        key = CosigningKey.from_seed("comity/brand", bytes(range(32)))
        proof = key.prove_possession(b"a statement")
        key.public.verify_possession(proof, b"a statement")
        other = CosigningKey.from_seed("comity/brand", bytes(range(1, 33)))
        for verifier, statement in ((key, b"another"), (other, b"a statement")):
            with pytest.raises(ComplianceError):
                verifier.public.verify_possession(proof, statement)
        plain = CosigningKey.from_seed("comity/brand", bytes(32), algorithm=Algorithm.ED25519)
        with pytest.raises(ComplianceError):
            plain.prove_possession(b"a statement")
        with pytest.raises(ComplianceError):
            plain.public.verify_possession(proof, b"a statement")
        assert isinstance(key.public, CosignerKey)

    def test_a_node_needs_a_key_of_p256(self, enrolment: Enrolment) -> None:
        statement = Registration.model_validate_json(
            enrolment.join("brand").registration
        ).unverified()
        larger = spell_node_key(ec.generate_private_key(ec.SECP384R1()).public_key())
        for key in (larger, f"{statement.node_key} comment", "ssh-ed25519 AAAA", None):
            content = statement.model_dump(mode="json") | {"node_key": key}
            with pytest.raises(ValueError, match="node_key"):
                Statement.model_validate_json(json.dumps(content))


class TestSigning:
    def test_nobody_signs_before_all_have_joined(self, enrolment: Enrolment) -> None:
        member = enrolment.join("brand")
        enrolment.ask(member)
        with pytest.raises(EnrolmentError, match="yet to join"):
            member.submission("0" * 64)
        with pytest.raises(EnrolmentError, match=r"retailer.* have yet to join"):
            enrolment.store.sign("0" * 64)
        with pytest.raises(WorkspaceError, match=r"not joined yet by .*retailer"):
            enrolment.store.check_signed()

    def test_who_has_signed_nothing_is_told_the_same_whomever_it_names(
        self, enrolment: Enrolment, finished: Any
    ) -> None:
        """It learns neither who has joined nor who has yet to."""
        enrolment.ask(enrolment.join("brand"))
        told = set()
        for store in (enrolment.store, finished[0].store):
            for name in ("stranger", "coordinator", "brand", "courier"):
                for agreement in (
                    "0" * 64,
                    finished[0].store.standing().signed.unverified().digest,
                ):
                    signature = {"keyid": name, "sig": encode_base64(bytes(64))}
                    request = {"kind": "signature", "agreement": agreement, "signature": signature}
                    with pytest.raises(EnrolmentError) as refused:
                        store.answer(json.dumps(request).encode())
                    told.add(str(refused.value))
        (words,) = told
        assert words.startswith("it is no party's signature")

    def test_only_what_was_accepted_is_signed(self, finished: Any) -> None:
        enrolment, members = finished
        with pytest.raises(EnrolmentError, match="was accepted"):
            members["brand"].submission("0" * 64)
        with pytest.raises(EnrolmentError, match="was accepted"):
            enrolment.store.sign("0" * 64)

    def test_a_signature_of_something_or_somebody_else_is_refused(
        self, enrolment: Enrolment
    ) -> None:
        members = enrolment.joined()
        signed = members["brand"].seen.signed
        assert signed is not None
        digest = signed.unverified().digest
        request = members["brand"].submission(digest).model_dump_json().encode()
        other = members["retailer"].submission(digest).model_dump_json().encode()
        content = json.loads(request)
        for name, changes in {
            "another agreement": {"agreement": "0" * 64},
            "another's signature": {
                "signature": content["signature"] | {"sig": json.loads(other)["signature"]["sig"]}
            },
            "another's answer": {"answer": json.loads(other)["answer"]},
            "a stranger": {"signature": content["signature"] | {"keyid": "stranger"}},
            "the coordinator": {"signature": content["signature"] | {"keyid": "coordinator"}},
        }.items():
            with pytest.raises(EnrolmentError):
                enrolment.store.answer(changed(request, **changes))
            assert enrolment.store.read().signatures == (), name
        enrolment.store.answer(request)
        assert [one.keyid for one in enrolment.store.read().signatures] == ["brand"]

    def test_nothing_is_obeyed_until_all_have_signed(self, enrolment: Enrolment) -> None:
        members = enrolment.joined()
        for name in INVITED:
            assert not (members["brand"].folder.path / "agreement.json").exists()
            enrolment.sign(members[name])
        assert enrolment.store.standing().unsigned == ("coordinator",)
        assert not (enrolment.store.party / "agreement.json").exists()
        signed = enrolment.store.standing().signed
        assert signed is not None
        enrolment.store.sign(signed.unverified().digest)
        assert enrolment.ask(members["brand"]).unsigned == ()
        assert members["brand"].folder.agreement() == PartyFolder(enrolment.store.party).agreement()


def told(member: Membership, agreement: Any, signatures: tuple[Any, ...] = ()) -> bytes:
    """What a coordinator says that has drawn up another agreement."""
    envelope = SignedAgreement.draft(agreement).envelope.model_copy(
        update={"signatures": signatures}
    )
    return Standing(agreement=envelope.to_json().decode()).model_dump_json().encode()


def with_party(agreement: Any, name: str, **keys: str) -> Any:
    """The agreement with other keys of a party."""
    parties = tuple(
        one.model_copy(update=keys) if one.name == name else one for one in agreement.parties
    )
    return agreement.model_copy(update={"parties": parties})


OTHER_KEY = SigningKey.from_seed(bytes(range(32))).public.to_base64()


class TestWhatACoordinatorMightDo:
    @pytest.fixture(scope="class")
    @staticmethod
    def seen(
        tmp_path_factory: pytest.TempPathFactory,
    ) -> tuple[Enrolment, Mapping[str, Membership]]:
        enrolment = Enrolment(tmp_path_factory.mktemp("seen"))
        return enrolment, enrolment.joined()

    def refused(self, seen: Any, answer: bytes, error: type[Exception], words: str) -> None:
        enrolment, members = seen
        member = members["brand"]
        before = files(member.folder.path)
        with pytest.raises(error, match=words):
            member.take(answer, now=enrolment.now)
        assert files(member.folder.path) == before

    def agreement(self, seen: Any) -> Any:
        return seen[1]["brand"].seen.signed.unverified()

    def test_it_changes_a_term_after_it_was_accepted(self, seen: Any) -> None:
        agreement = self.agreement(seen)
        budget = agreement.budget.model_copy(update={"epsilon": 9.0})
        other = agreement.model_copy(update={"budget": budget})
        self.refused(
            seen, told(seen[1]["brand"], other), AlteredAgreementError, "differs in budget"
        )

    def test_it_swaps_the_partys_own_keys(self, seen: Any) -> None:
        other = with_party(self.agreement(seen), "brand", identity_key=OTHER_KEY)
        self.refused(seen, told(seen[1]["brand"], other), WorkspaceError, "names other keys")

    def test_it_swaps_anothers_keys_after_they_were_seen(self, seen: Any) -> None:
        other = with_party(self.agreement(seen), "retailer", identity_key=OTHER_KEY)
        self.refused(seen, told(seen[1]["brand"], other), EnrolmentError, "keys of retailer are")

    def test_it_shows_each_party_other_keys_from_the_beginning(
        self, seen: Any, tmp_path: Path
    ) -> None:
        """No program can tell, but people who compare the digest or fingerprints can."""
        enrolment, members = seen
        agreement = self.agreement(seen)
        brand, retailer = members["brand"], members["retailer"]
        for member in (brand, retailer):
            (member.folder.path / "enrolment" / "agreement.json").rename(
                tmp_path / member.folder.name
            )
        try:
            for member, other in ((brand, "retailer"), (retailer, "brand")):
                view = with_party(agreement, other, identity_key=OTHER_KEY)
                member.take(told(member, view), now=enrolment.now)
            views = [member.seen.signed.unverified() for member in (brand, retailer)]
            assert len({view.digest for view in views}) == 2
            for name in ("brand", "retailer"):
                prints = {view.party(name).verifying_key.fingerprint for view in views}
                assert len(prints) == 2
        finally:
            for member in (brand, retailer):
                (tmp_path / member.folder.name).rename(
                    member.folder.path / "enrolment" / "agreement.json"
                )

    def test_it_is_another_coordinator_than_the_one_that_invited(self, seen: Any) -> None:
        other = with_party(self.agreement(seen), "coordinator", identity_key=OTHER_KEY)
        words = "other keys for the coordinator"
        self.refused(seen, told(seen[1]["brand"], other), EnrolmentError, words)

    def test_it_adds_a_signature_that_nobody_made(self, seen: Any) -> None:
        agreement = self.agreement(seen)
        content = json.loads(SignedAgreement.draft(agreement).to_json())
        content["signatures"] = [{"keyid": "retailer", "sig": encode_base64(bytes(64))}]
        answer = Standing(agreement=json.dumps(content)).model_dump_json().encode()
        self.refused(seen, answer, AlteredAgreementError, "not what 'retailer' signed")

    def test_it_says_that_parties_are_missing_again(self, seen: Any) -> None:
        answer = Standing(missing=("retailer",)).model_dump_json().encode()
        self.refused(seen, answer, EnrolmentError, "all had joined before")

    @pytest.mark.parametrize("answer", [b"", b"[]", b"{", b'{"agreement": "x"}', b"0" * 2**22])
    def test_it_answers_with_garbage(self, seen: Any, answer: bytes) -> None:
        enrolment, members = seen
        with pytest.raises((EnrolmentError, ComplianceError)):
            members["brand"].take(answer, now=enrolment.now)

    def test_it_sends_something_else_to_be_opened(self, seen: Any) -> None:
        """A message to the party, sealed in its own context, is not opened as a challenge."""
        _, members = seen
        member, digest = members["brand"], self.agreement(seen).digest
        challenge = member.folder.path / "enrolment" / "challenge"
        kept = challenge.read_bytes()
        key = member.folder.decryption_key()
        message = key.public.seal(bytes(32), b"a message of a job")
        try:
            for content in (encode_base64(message).encode(), b"garbage", b""):
                challenge.write_bytes(content)
                with pytest.raises(EnrolmentError, match="challenge"):
                    member.submission(digest)
        finally:
            challenge.write_bytes(kept)
        with pytest.raises(PeerMessageError):
            key.open(message, b"another context")


class TestInvitations:
    @pytest.fixture(scope="class")
    @staticmethod
    def file(finished: Any) -> Path:
        return Path(finished[1]["brand"].folder.path / "enrolment" / "invitation.json")

    def test_what_was_written_is_read_back(self, file: Path) -> None:
        found = open_invitation(file)
        assert found.party == "brand"
        assert Invitation.open(file.read_bytes()) == found

    @pytest.mark.parametrize(
        "changes",
        [
            {"address": "elsewhere.example:9091"},
            {"party": "retailer"},
            {"certificate": "-----BEGIN CERTIFICATE-----\n"},
            {"address": "http://x"},
            {"expires": "2001-01-01T00:00:00Z"},
            {"token": "AAAA"},
            {"draft": "{}"},
        ],
        ids=lambda changes: next(iter(changes)),
    )
    def test_whatever_is_changed_in_it_shows(self, file: Path, changes: dict[str, str]) -> None:
        envelope = json.loads(file.read_bytes())
        payload = json.loads(decode_base64(envelope["payload"])) | changes
        content = json.dumps(payload, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        envelope["payload"] = encode_base64(content.encode())
        with pytest.raises(EnrolmentError):
            Invitation.open(json.dumps(envelope).encode())

    def test_one_that_a_stranger_signed_in_the_coordinators_name_is_refused(
        self, file: Path
    ) -> None:
        found = open_invitation(file)
        stranger = SigningKey.from_seed(bytes(range(32)))
        with pytest.raises(EnrolmentError, match="altered"):
            Invitation.open(found.sign(stranger))

    def test_another_signed_file_is_none(self, file: Path) -> None:
        envelope = Envelope.sign("application/x", b"{}", {})
        for data in (envelope.to_json(), b"", b"{}", file.read_bytes() + b" x", b"0" * 2**21):
            with pytest.raises(EnrolmentError):
                Invitation.open(data)

    def test_who_is_none_of_the_drafts_cannot_be_invited(self, enrolment: Enrolment) -> None:
        for name in ("stranger", "coordinator", "NOT A NAME"):
            with pytest.raises(WorkspaceError, match="to invite: expected brand or"):
                enrolment.invite(name)

    def test_terms_that_change_need_another_folder(
        self, enrolment: Enrolment, tmp_path: Path
    ) -> None:
        enrolment.invite("brand")
        other = write_terms(tmp_path / "other", name="other")
        with pytest.raises(EnrolmentError, match="begin anew"):
            enrolment.store.begin(load_collaboration(other, elsewhere=True))

    def test_a_known_seed_is_for_trials_alone(self, tmp_path: Path) -> None:
        from trials import document

        file = save(document() | {"evaluate": {"path": "x"}}, tmp_path / "seeded.toml")
        seeded = load_collaboration(file, elsewhere=True)
        with pytest.raises(EnrolmentError, match="unsafe_seed"):
            EnrolmentStore(tmp_path / "c").begin(seeded)


class TestThePartysFolder:
    def test_terms_must_be_accepted_as_they_are(self, enrolment: Enrolment) -> None:
        file, path = enrolment.invite("brand"), enrolment.directory / "brand"
        with pytest.raises(EnrolmentError, match="was accepted"):
            join(file, path, accepted="0" * 64, means=None, now=enrolment.now)
        assert not path.exists()

    def test_a_folder_belongs_to_one_party_and_one_coordinator(
        self, enrolment: Enrolment, tmp_path: Path
    ) -> None:
        member = enrolment.join("brand")
        before = files(member.folder.path)
        with pytest.raises(EnrolmentError, match="another invitation"):
            enrolment.join("retailer", folder="brand")
        other = Enrolment(tmp_path / "other").invite("brand")
        with pytest.raises(EnrolmentError, match="differs in coordinator"):
            enrolment.join("brand", invitation=other)
        assert files(member.folder.path) == before

    def test_where_people_lie_may_be_told_later_and_stays_at_home(
        self, enrolment: Enrolment
    ) -> None:
        file, path = enrolment.invite("brand"), enrolment.directory / "brand"
        accepted = open_invitation(file).terms.digest
        first = join(file, path, accepted=accepted, means=None, now=enrolment.now)
        assert first.folder.config.data is None
        means = means_of(enrolment.directory / "home", "brand", file)
        second = join(file, path, accepted=accepted, means=means, now=enrolment.now)
        data = second.folder.config.data
        assert data is not None
        assert data.path == enrolment.directory / "home" / "brand.csv"
        assert second.registration == first.registration
        assert b"brand.csv" not in second.registration

    @pytest.mark.parametrize(
        ("changes", "mistake"),
        [
            ({"consent": "none.csv"}, "consent: there is no file"),
            (
                {
                    "data": {
                        "path": "brand.csv",
                        "key": "no",
                        "identifiers": {"email": "email", "phone": "phone"},
                    }
                },
                "data.key: there is no column",
            ),
            (
                {"data": {"path": "brand.csv", "key": "record", "identifiers": {"email": "email"}}},
                "brings phone too",
            ),
            (
                {
                    "data": {
                        "path": "brand.csv",
                        "key": "record",
                        "identifiers": {"email": ["email", "phone"], "phone": "phone"},
                    }
                },
                "3 identifiers a row",
            ),
            ({"role": "brand"}, "role"),
        ],
        ids=["consent", "key", "identifier", "too many", "unknown key"],
    )
    def test_what_a_party_brings_must_fit_the_terms(
        self, finished: Any, tmp_path: Path, changes: dict[str, Any], mistake: str
    ) -> None:
        enrolment, members = finished
        means_of(tmp_path, "brand", members["brand"].folder.path / "enrolment" / "invitation.json")
        file = write_means(tmp_path, "brand", **changes)
        with pytest.raises(CollaborationError, match=mistake):
            load_means(file, enrolment.store.read().terms, "brand")

    def test_lists_may_be_tables_and_a_relative_database_lies_beside_the_file(
        self, finished: Any, tmp_path: Path
    ) -> None:
        enrolment, members = finished
        path = members["retailer"].folder.path / "enrolment" / "invitation.json"
        means_of(tmp_path, "retailer", path)
        with sqlite3.connect(tmp_path / "lists.db") as database:
            database.execute("CREATE TABLE said (subject, purpose, event, time)")
            database.execute("CREATE TABLE never (record)")
        consent, listing = (
            {"url": "sqlite:///lists.db", "table": name} for name in ("said", "never")
        )
        file = write_means(tmp_path, "retailer", consent=consent, suppression=listing)
        config = load_means(file, enrolment.store.read().terms, "retailer")
        url = f"sqlite:///{tmp_path}/lists.db"
        assert config.consent == TableConfig(url=url, table="said")
        assert config.suppression == TableConfig(url=url, table="never")
        file = write_means(tmp_path, "retailer", consent=listing)
        with pytest.raises(CollaborationError, match=r"consent: .* lacks 'subject'"):
            load_means(file, enrolment.store.read().terms, "retailer")

    @pytest.mark.parametrize("content", [b"\xff", b"data = ", b""])
    def test_a_file_that_is_none_says_so(
        self, finished: Any, tmp_path: Path, content: bytes
    ) -> None:
        file = tmp_path / "brand.toml"
        file.write_bytes(content)
        with pytest.raises(CollaborationError):
            load_means(file, finished[0].store.read().terms, "brand")

    def test_cut_anywhere_it_goes_on_with_the_same_keys(
        self, enrolment: Enrolment, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Writing a file is how everything durable appears; each of them is the last once."""
        from federation.party import folder as party_folder
        from federation.party import keys as party_keys

        real = party_folder.write_atomically
        left = 0

        def cut(path: Path, content: bytes, **mode: int) -> None:
            nonlocal left
            if left == 0:
                raise KeyboardInterrupt
            left -= 1
            real(path, content, **mode)

        file = enrolment.invite("brand")
        for module in (party_folder, party_keys, party_side):
            monkeypatch.setattr(module, "write_atomically", cut)
        written = 1 + 6 + 2 + 1 + 1  # party.json, keys, for a node, invitation, registration
        for writes in range(written):
            left, path = writes, enrolment.directory / f"cut-{writes}"
            with pytest.raises(KeyboardInterrupt):
                enrolment.join("brand", folder=path.name, invitation=file)
            before = {one.name: one.read_bytes() for one in path.glob("keys/*")}
            assert len(before) == min(max(writes - 1, 0), 6)
            left = written
            member = enrolment.join("brand", folder=path.name, invitation=file)
            after = {one.name: one.read_bytes() for one in path.glob("keys/*")}
            assert len(after) == 6
            assert before.items() <= after.items()
        assert enrolment.ask(member).missing == ("retailer", "courier")

    def test_a_crash_of_the_coordinator_leaves_nothing_half_done(
        self, enrolment: Enrolment, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from federation.enrolment import store as store_module

        real = store_module.write_atomically
        member = enrolment.join("brand")
        written: list[str] = []

        def cut(path: Path, content: bytes, **mode: int) -> None:
            if path.name == "register.json" and written == ["brand.pub"]:
                written.append("cut")
                raise KeyboardInterrupt
            written.append(path.name)
            real(path, content, **mode)

        monkeypatch.setattr(store_module, "write_atomically", cut)
        with pytest.raises(KeyboardInterrupt):
            enrolment.store.answer(member.registration)
        assert enrolment.store.read().missing == INVITED
        assert enrolment.ask(member).missing == ("retailer", "courier")
        assert written == ["brand.pub", "cut", "brand.pub", "register.json"]

    def test_a_node_that_an_operator_removed_stays_away(self, enrolment: Enrolment) -> None:
        member = enrolment.join("brand")
        enrolment.ask(member)
        (enrolment.folder.nodes / "brand.pub").unlink()
        enrolment.ask(member)
        assert not (enrolment.folder.nodes / "brand.pub").exists()


class TestGarbage:
    @pytest.fixture(scope="class")
    @staticmethod
    def begun(tmp_path_factory: pytest.TempPathFactory) -> tuple[Enrolment, bytes, bytes]:
        enrolment = Enrolment(tmp_path_factory.mktemp("begun"))
        request = enrolment.join("brand").registration
        kept = enrolment.folder.path / "enrolment" / "register.json"
        return enrolment, request, kept.read_bytes()

    def check(self, begun: Any, request: bytes) -> None:
        enrolment, _, before = begun
        with pytest.raises((EnrolmentError, ComplianceError)):
            enrolment.store.answer(request)
        kept = enrolment.folder.path / "enrolment" / "register.json"
        assert kept.read_bytes() == before

    @given(st.binary(max_size=200))
    @settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
    def test_no_bytes_do_anything(self, begun: Any, request_bytes: bytes) -> None:
        self.check(begun, request_bytes)

    @given(data=st.data())
    @settings(max_examples=40)
    def test_no_changed_byte_passes(self, begun: Any, data: st.DataObject) -> None:
        _, request, _ = begun
        place = data.draw(st.integers(0, len(request) - 1))
        bits = data.draw(st.integers(1, 255))
        other = bytearray(request)
        other[place] ^= bits
        self.check(begun, bytes(other))

    def test_what_is_too_long_is_not_read(self, begun: Any) -> None:
        self.check(begun, b'{"kind":"registration","statement":"' + b"0" * REQUEST_LIMIT + b'"}')

    def test_a_register_that_is_damaged_stops_everything(self, enrolment: Enrolment) -> None:
        member = enrolment.join("brand")
        (enrolment.folder.path / "enrolment" / "register.json").write_bytes(b"{}")
        with pytest.raises(WorkspaceError, match="is damaged"):
            enrolment.store.answer(member.registration)

    def test_an_invitation_says_nothing_of_its_token_in_what_is_derived(self) -> None:
        secret = Secret(bytes(range(32)))
        from federation.enrolment.invitation import token_key

        assert token_key(secret).public != SigningKey.from_seed(secret).public
        assert hashlib.sha256(secret).digest() != token_key(secret).public.raw
