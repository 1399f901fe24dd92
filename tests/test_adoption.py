"""What a party takes over, and that no amendment gives anything back."""

import shutil
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from parties import MATCH, NOW, TRAIN, World

from compliance import records
from compliance.agreement import Agreement, SignedAgreement
from compliance.errors import InvalidAgreementError, LogCorruptedError, UnsignedAgreementError
from compliance.lifecycle import amend
from compliance.notice import SignedNotice
from federation import adoption
from federation.adoption import RotatedKey
from federation.audit import verify_all, verify_party
from federation.coordinator import write_jobs
from federation.errors import PartyUnreachableError, RefusedError, WorkspaceError
from federation.messages import Identify, SealedMessage, unseal_header
from federation.own_rows import KeptModel
from federation.party import PartyFolder
from federation.trial.workspace import Workspace
from federation.versions import ending_notice
from privacy.accounting.ledger import Budget, Ledger
from privacy.errors import LedgerError

LATER = NOW + timedelta(days=5)
TERMINATION = {"notice_days": 7}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Parties that have run all jobs once."""
    world = World.make(tmp_path_factory.mktemp("adoption"), termination=TERMINATION)
    world.run()
    return world


@pytest.fixture
def world(made: World, tmp_path: Path) -> Iterator[World]:
    return made.copy(tmp_path / "copy")


def drawn_up(world: World, file: Path, **changes: object) -> Agreement:
    """Write the next version, signed by all."""
    after = amend(world.agreement, {"valid_from": LATER, **changes})
    file.write_bytes(SignedAgreement.draft(after).to_json())
    for folder in world.workspace.folders:
        file.write_bytes(adoption.sign(folder, file).to_json())
    return after


def amended(world: World, file: Path, **changes: object) -> World:
    after = drawn_up(world, file, **changes)
    for folder in world.workspace.folders:
        assert adoption.adopt(folder, file, now=LATER) == after
    shutil.copy(file, world.workspace.path / "agreement.json")
    folders = tuple(PartyFolder(folder.path) for folder in world.workspace.folders)
    return World(Workspace(world.workspace.path, after, folders), LATER)


class TestAmended:
    def test_what_was_spent_stays_spent_and_the_log_goes_on(
        self, world: World, tmp_path: Path
    ) -> None:
        before, leaves = world.statement("retailer"), world.leaves("retailer")
        after = amended(world, tmp_path / "next.json", title="Changed")
        assert after.statement("retailer") == before
        grown = after.leaves("retailer")
        assert grown[: len(leaves)] == leaves
        (signed,) = grown[len(leaves) :]
        assert isinstance(signed, records.AgreementSigned)
        assert signed.supersedes == world.agreement.digest
        second = TRAIN.model_copy(update={"name": "again"})  # costs 1.0 of 1.2, which are spent
        write_jobs(after.folder("coordinator"), (MATCH, second))
        with pytest.raises(RefusedError, match=r"budget\.epsilon"):
            after.run()

    def test_a_higher_cap_that_all_signed_is_spent_beside_what_was(
        self, world: World, tmp_path: Path
    ) -> None:
        spent = world.statement("retailer").epsilon_spent
        after = amended(world, tmp_path / "next.json", budget={"epsilon": 3.0, "delta": 1e-5})
        second = TRAIN.model_copy(update={"name": "again"})
        write_jobs(after.folder("coordinator"), (MATCH, second))
        after.run()
        statement = after.statement("retailer")
        assert spent < statement.epsilon_spent <= statement.epsilon_cap == 3.0
        found, problems = verify_all([after.workspace.path])
        assert problems == ()
        assert {party.agreement.digest for party in found} == {after.agreement.digest}

    def test_models_of_the_version_before_are_still_its(self, world: World, tmp_path: Path) -> None:
        after = amended(world, tmp_path / "next.json", title="Changed")
        kept = KeptModel.open(after.folder("retailer").model("model"))
        assert kept.agreement == world.agreement

    def test_a_job_that_began_before_is_run_under_another_name(
        self, world: World, tmp_path: Path
    ) -> None:
        changes = {"name": "again", "rounds": 1, "epsilon": 0.05, "absent_partners": 1}
        begun = TRAIN.model_copy(update=changes)

        def lose(_: str, question: SealedMessage, answer: SealedMessage) -> SealedMessage:
            if unseal_header(question.envelope, world.agreement).kind == "model.published":
                raise PartyUnreachableError("no answer")
            return answer

        world.listener = lose
        write_jobs(world.folder("coordinator"), (MATCH, begun))
        with pytest.raises(PartyUnreachableError):
            world.run()
        after = amended(world, tmp_path / "next.json", title="Changed")
        with pytest.raises(WorkspaceError, match=r"agreement was amended since, .* another na"):
            after.run()
        other = begun.model_copy(update={"name": "once-more"})
        write_jobs(after.folder("coordinator"), (MATCH, other))
        after.run()
        assert after.folder("brand").model("once-more").exists()

    def test_matches_before_count(self, world: World, tmp_path: Path) -> None:
        match = world.agreement.match.model_copy(update={"maximum_matches": 1})
        after = amended(world, tmp_path / "next.json", match=match)
        again = MATCH.model_copy(update={"name": "find-again"})
        write_jobs(after.folder("coordinator"), (again,))
        with pytest.raises(RefusedError, match=r"match\.maximum_matches"):
            after.run()

    def test_taking_over_twice_changes_nothing(self, world: World, tmp_path: Path) -> None:
        after = amended(world, tmp_path / "next.json", title="Changed")
        leaves = after.leaves("retailer")
        adoption.adopt(after.folder("retailer"), tmp_path / "next.json", now=LATER)
        assert after.leaves("retailer") == leaves

    @pytest.mark.parametrize("step", ["open_log", "ledger_store", "none"])
    def test_a_crash_leaves_a_folder_that_waits_for_the_same_command(
        self, world: World, tmp_path: Path, step: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        drawn_up(world, tmp_path / "next.json", budget={"epsilon": 2.0, "delta": 1e-5})
        folder = world.folder("retailer")
        if step == "none":  # killed before any step of its own
            shutil.copy(tmp_path / "next.json", folder.next_agreement)
        else:
            with monkeypatch.context() as broken:
                broken.setattr(PartyFolder, step, _crash)
                with pytest.raises(KeyboardInterrupt):
                    adoption.adopt(folder, tmp_path / "next.json", now=LATER)
        with pytest.raises(WorkspaceError, match="comity agreement adopt"):
            folder.agreement()
        after = adoption.adopt(folder, tmp_path / "next.json", now=LATER)
        signed = [
            leaf
            for leaf in verify_party(folder.path).leaves
            if isinstance(leaf, records.AgreementSigned)
        ]
        assert [leaf.agreement for leaf in signed] == [world.agreement.digest, after.digest]

    def test_a_party_that_has_done_nothing_yet(self, tmp_path: Path) -> None:
        new = World.make(tmp_path / "new", termination=TERMINATION)
        after = amended(
            new, tmp_path / "next.json", budget={"epsilon": 2.0, "delta": 1e-5}, title="Changed"
        )
        assert after.statement("retailer").epsilon_cap == 2.0
        question = after.parties.seal("coordinator", "retailer", "roll-call", Identify())
        after.node("retailer").handle(question)

    def test_a_ledger_that_is_gone_is_not_begun_anew(self, world: World, tmp_path: Path) -> None:
        drawn_up(world, tmp_path / "next.json", title="Changed")
        folder = world.folder("retailer")
        away = folder.ledger.rename(tmp_path / "ledger")
        with pytest.raises(WorkspaceError, match="spend the budget twice"):
            adoption.adopt(folder, tmp_path / "next.json", now=LATER)
        assert not folder.ledger.exists()
        away.rename(folder.ledger)
        adoption.adopt(folder, tmp_path / "next.json", now=LATER)

    def test_a_party_that_comes_back_goes_on_in_its_old_folder(
        self, world: World, tmp_path: Path
    ) -> None:
        first, spent = world.agreement, world.statement("courier").epsilon_spent
        folder, other = world.folder("courier"), world.folder("retailer")
        without = {
            "parties": tuple(one for one in first.parties if one.name != "courier"),
            "datasets": tuple(one for one in first.datasets if one.party != "courier"),
            "train": first.train.model_copy(update={"max_parties_per_person": 1}),
        }
        second = amend(first, {"valid_from": LATER, **without})
        third = amend(
            second,
            {"valid_from": LATER + timedelta(days=1)}
            | {term: getattr(first, term) for term in without},
        )
        for number, version in ((2, second), (3, third)):
            signed = SignedAgreement.draft(version)
            for one in world.workspace.folders:
                if one.name in {party.name for party in version.parties}:
                    signed = signed.sign(one.name, one.identity_key())
            (tmp_path / f"{number}.json").write_bytes(signed.to_json())
        later = LATER + timedelta(days=1)
        with pytest.raises(InvalidAgreementError, match="expected number 2, got 3"):
            adoption.adopt(folder, tmp_path / "3.json", now=later)
        for one in (folder, other):
            assert adoption.adopt(one, tmp_path / "2.json", now=LATER) == second
        assert (folder.agreement(), other.agreement()) == (first, second)
        verify_party(folder.path)
        for one in (folder, other):
            assert adoption.adopt(one, tmp_path / "3.json", now=later) == third
            assert verify_party(one.path).agreement == third
        after = World(Workspace(world.workspace.path, third, world.workspace.folders), later)
        assert after.statement("courier").epsilon_spent == spent > 0
        new = tmp_path / "new" / "courier"
        shutil.copytree(folder.path, new)
        for kept in (new / "log", new / "agreements"):
            shutil.rmtree(kept)
        (new / "agreement.json").unlink()
        with pytest.raises(WorkspaceError, match="use its old folder"):
            adoption.adopt(PartyFolder(new), tmp_path / "3.json", now=later)

    def test_a_node_that_was_opened_before_does_not_answer(
        self, world: World, tmp_path: Path
    ) -> None:
        node = world.node("retailer")
        question = world.parties.seal("coordinator", "retailer", "roll-call", Identify())
        amended(world, tmp_path / "next.json", title="Changed")
        with pytest.raises(WorkspaceError, match="amended meanwhile"):
            node.handle(question)

    def test_what_is_not_taken_over(self, world: World, tmp_path: Path) -> None:
        after = drawn_up(world, tmp_path / "next.json", title="Changed")
        folder = world.folder("retailer")
        with pytest.raises(WorkspaceError, match="take it over from then on"):
            adoption.adopt(folder, tmp_path / "next.json", now=LATER - timedelta(seconds=1))
        (tmp_path / "draft.json").write_bytes(SignedAgreement.draft(after).to_json())
        with pytest.raises(UnsignedAgreementError):
            adoption.adopt(folder, tmp_path / "draft.json", now=LATER)
        assert folder.agreement() == world.agreement

    def test_a_log_that_leaves_out_a_version(self, world: World, tmp_path: Path) -> None:
        after = amended(world, tmp_path / "next.json", title="Changed")
        folder = after.folder("retailer")
        shutil.rmtree(folder.log)
        with folder.open_log() as log:
            names = tuple(party.name for party in after.agreement.parties)
            leaf = records.AgreementSigned(
                time=LATER, party="retailer", agreement=world.agreement.digest, parties=names
            )
            log.append([records.to_leaf(leaf)])
        with pytest.raises(LogCorruptedError, match="ends under version 1"):
            verify_party(folder.path)


def _crash(*_: object) -> None:
    raise KeyboardInterrupt


class TestRotation:
    def test_new_keys_are_named_used_and_logged(self, world: World, tmp_path: Path) -> None:
        folder = world.folder("retailer")
        old = folder.term()
        for key in RotatedKey:
            term = adoption.rotate(folder, key)
        assert adoption.rotate(folder, RotatedKey.IDENTITY) == term
        assert folder.term() == old  # until the next version is adopted
        assert (term.identity_key, term.encryption_key) != (old.identity_key, old.encryption_key)
        parties = [term if one.name == "retailer" else one for one in world.agreement.parties]
        after = amended(world, tmp_path / "next.json", parties=tuple(parties))
        assert after.folder("retailer").term() == term
        assert not list((folder.path / "keys").glob("*.next"))
        rotated = [one for one in after.leaves("retailer") if isinstance(one, records.KeyRotated)]
        keys = ["identity_key", "encryption_key", "log_key", "cosigning_key"]
        assert [one.key for one in rotated] == keys
        assert not [one for one in after.leaves("courier") if isinstance(one, records.KeyRotated)]
        again = MATCH.model_copy(update={"name": "find-again"})
        write_jobs(after.folder("coordinator"), (again,))
        after.run()  # sealed by, and encrypted to, the new keys
        assert verify_all([after.workspace.path])[1] == ()

    def test_a_coordinator_has_no_encryption_key(self, world: World) -> None:
        with pytest.raises(WorkspaceError, match="no encryption key"):
            adoption.rotate(world.folder("coordinator"), RotatedKey.ENCRYPTION)


class TestEnded:
    def test_nothing_leaves_from_the_notices_day_on_and_the_end_is_logged_once(
        self, world: World
    ) -> None:
        path, notice = adoption.give_notice(world.folder("brand"), "it is over", now=NOW)
        for name in ("retailer", "courier", "coordinator"):
            told = SignedNotice.from_json(path.read_bytes())
            kept = adoption.keep_notice(world.folder(name), told, now=NOW)
            assert kept == (notice, notice.effective_from)
        assert notice.effective_from == NOW + timedelta(days=7)
        again = MATCH.model_copy(update={"name": "find-again"})
        write_jobs(world.folder("coordinator"), (again,))
        for _ in range(2):
            world.now = notice.effective_from
            with pytest.raises(RefusedError, match="termination"):
                world.run()
        leaves = world.leaves("coordinator")
        ended = [one for one in leaves if isinstance(one, records.AgreementEnded)]
        assert [one.notice_digest for one in ended] == [notice.digest]
        assert isinstance(leaves[-1], records.Refusal)
        assert leaves[-1].term == "termination"

    def test_a_notice_that_says_it_was_given_before_it_came(self, world: World) -> None:
        early = NOW - timedelta(days=7)
        path, notice = adoption.give_notice(world.folder("brand"), "it is over", now=early)
        assert notice.effective_from == NOW
        folder, told = world.folder("retailer"), SignedNotice.from_json(path.read_bytes())
        ends = NOW + timedelta(days=7)
        for now in (NOW, LATER):  # once more changes nothing
            assert adoption.keep_notice(folder, told, now=now) == (notice, ends)
        agreement = folder.agreement()
        assert ending_notice(folder.path, agreement, ends - timedelta(seconds=1)) is None
        assert ending_notice(folder.path, agreement, ends) == notice
        (receipt,) = (folder.path / "notices").glob("*.received")
        receipt.write_text("yesterday")
        with pytest.raises(WorkspaceError, match="expected a time with a time zone"):
            ending_notice(folder.path, agreement, ends)

    def test_until_then_everything_goes_on(self, world: World) -> None:
        adoption.give_notice(world.folder("coordinator"), "it is over", now=NOW)
        again = MATCH.model_copy(update={"name": "find-again"})
        write_jobs(world.folder("coordinator"), (again,))
        world.now = NOW + timedelta(days=6)
        world.run()

    def test_a_release_after_the_end_is_found(self, world: World) -> None:
        folder = world.folder("retailer")
        common = {"time": NOW, "party": "retailer", "agreement": world.agreement.digest}
        end = records.AgreementEnded(
            **common, ended_by="brand", notice_digest="0" * 64, reason="over"
        )
        release = next(one for one in world.leaves("retailer") if one.kind == "release")
        with folder.open_log() as log:
            log.append([records.to_leaf(end), records.to_leaf(release)])
        with pytest.raises(LogCorruptedError, match="had ended"):
            verify_party(folder.path)

    def test_too_short(self, world: World) -> None:
        with pytest.raises(InvalidAgreementError, match="7 days of notice"):
            adoption.give_notice(world.folder("brand"), "over", now=NOW, effective_from=NOW)


class TestLedger:
    def test_the_earlier_cap_is_no_longer_held(self, tmp_path: Path) -> None:
        path = tmp_path / "ledger.sqlite"
        ledger = Ledger.open(path, agreement="a", budget=Budget(1.0, 1e-5))
        after = ledger.amend(Budget(2.0, 1e-5))
        assert after.statement().epsilon_cap == 2.0
        assert ledger.amend(Budget(2.0, 1e-5)).statement() == after.statement()
        with pytest.raises(LedgerError, match="other terms"):
            ledger.statement()
        with pytest.raises(LedgerError, match="other terms"):
            ledger.amend(Budget(5.0, 1e-5))
