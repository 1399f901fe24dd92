"""A log is believed only after everything in it was held against the contract beside it."""

import os
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn

import pytest
from parties import World
from test_gate import opened, update

from compliance import records
from compliance.errors import (
    AlteredAgreementError,
    ComplianceError,
    InvalidAgreementError,
    LogCorruptedError,
    RecordError,
)
from federation.audit import VerifiedParty, party_directories, verify_party
from federation.errors import WorkspaceError
from federation.gate import outbox
from federation.party import PartyFolder
from privacy.accounting.accountant import epsilon_of
from privacy.accounting.events import GaussianEvent, to_json


@pytest.fixture
def workspace(finished: tuple[Path, Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished[1], tmp_path / "w"))


class TestWhatHolds:
    def test_says_what_the_party_did(self, workspace: Path) -> None:
        found = verify_party(workspace / "retailer")
        assert found.party == "retailer"
        assert found.tree_size == len(found.leaves)
        assert found.counts["budget.committed"] == 2
        assert found.counts["segment.written"] == 1
        assert 0.99 < found.epsilon_spent <= 1.0
        assert found.agreement == PartyFolder(workspace / "retailer").agreement()

    def test_needs_only_the_log_and_the_contract(self, workspace: Path, tmp_path: Path) -> None:
        copy = tmp_path / "auditor" / "courier"
        shutil.copytree(workspace / "courier" / "log", copy / "log")
        shutil.copy(workspace / "courier" / "agreement.json", copy)
        assert verify_party(copy) == verify_party(workspace / "courier")

    def test_a_party_that_released_nothing_for_a_charge_spent_nothing(
        self, workspace: Path
    ) -> None:
        assert verify_party(workspace / "brand").epsilon_spent == 0
        assert verify_party(workspace / "coordinator").epsilon_spent == 0


class TestDirectories:
    def test_a_workspace_a_party_or_its_log(self, workspace: Path) -> None:
        names = ("brand", "coordinator", "courier", "retailer")
        assert party_directories(workspace) == tuple(workspace / name for name in names)
        assert party_directories(workspace / "brand") == (workspace / "brand",)
        assert party_directories(workspace / "brand" / "log") == (workspace / "brand",)

    def test_nothing_there(self, tmp_path: Path) -> None:
        with pytest.raises(WorkspaceError, match="does not exist: name a party's folder"):
            party_directories(tmp_path / "nope")
        with pytest.raises(WorkspaceError, match="holds no log: name a party's folder"):
            party_directories(tmp_path)
        (tmp_path / "file").write_text("")
        with pytest.raises(WorkspaceError, match="holds no log"):
            party_directories(tmp_path / "file")


class TestWhatDoesNotHold:
    def test_one_bit_of_any_file_of_the_log(self, workspace: Path) -> None:
        files = [path for path in (workspace / "courier" / "log").rglob("*") if path.is_file()]
        assert len(files) > 10
        for path in files:
            content = path.read_bytes()
            path.write_bytes(content[:-9] + bytes([content[-9] ^ 1]) + content[-8:])
            with pytest.raises(ComplianceError) as caught:
                verify_party(workspace / "courier")
            assert str(path.relative_to(workspace / "courier" / "log")) in str(caught.value)
            path.write_bytes(content)
        verify_party(workspace / "courier")

    def test_one_byte_of_the_contract(self, workspace: Path) -> None:
        file = workspace / "retailer" / "agreement.json"
        content = file.read_bytes()
        for place in range(0, len(content), len(content) // 40):
            file.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
            with pytest.raises(InvalidAgreementError) as caught:
                verify_party(workspace / "retailer")
            assert str(file) in str(caught.value)

    def test_no_contract(self, workspace: Path) -> None:
        (workspace / "retailer" / "agreement.json").unlink()
        with pytest.raises(
            WorkspaceError, match=r"expected an agreement at .*agreement\.json, got no such file"
        ):
            verify_party(workspace / "retailer")

    def test_anothers_log(self, workspace: Path) -> None:
        shutil.rmtree(workspace / "retailer" / "log")
        shutil.copytree(workspace / "courier" / "log", workspace / "retailer" / "log")
        with pytest.raises(ComplianceError, match="checkpoint"):
            verify_party(workspace / "retailer")

    def test_a_folder_called_otherwise(self, workspace: Path) -> None:
        """Its own file says whose it is; a copy without one is called as the party."""
        (workspace / "retailer").rename(workspace / "shop")
        assert verify_party(workspace / "shop").party == "retailer"
        (workspace / "shop" / "party.json").write_text("{}")
        with pytest.raises(WorkspaceError, match="says no party's name"):
            verify_party(workspace / "shop")
        (workspace / "shop" / "party.json").unlink()
        with pytest.raises(InvalidAgreementError, match="has no party 'shop', only brand, ret"):
            verify_party(workspace / "shop")

    def test_anothers_contract(self, workspace: Path) -> None:
        forged = (workspace / "brand" / "agreement.json").read_text().replace("cou", "cuo", 1)
        (workspace / "brand" / "agreement.json").write_text(forged)
        with pytest.raises((AlteredAgreementError, InvalidAgreementError)):
            verify_party(workspace / "brand")


DELTA = 1e-5
COSTLY, CHEAP = (GaussianEvent(noise_multiplier=noise) for noise in (10.0, 20.0))
PRICE, CHEAP_PRICE = epsilon_of([COSTLY], DELTA), epsilon_of([CHEAP], DELTA)
BOTH = epsilon_of([COSTLY, CHEAP], DELTA)
OPENED: Mapping[str, Any] = {"kind": records.AgreementSigned, "parties": ("brand", "courier")}


def reserved(charge: str = "model/a", **changes: Any) -> Mapping[str, Any]:
    fields = {"charge_id": charge, "mechanism": to_json(COSTLY), "epsilon": PRICE, "delta": DELTA}
    return {"kind": records.BudgetReserved, "epsilon_spent": PRICE, "epsilon_cap": 1.2} | (
        fields | changes
    )


def second(charge: str = "b", **changes: Any) -> Mapping[str, Any]:
    """A cheaper charge after the first."""
    fields = {"mechanism": to_json(CHEAP), "epsilon": CHEAP_PRICE, "epsilon_spent": BOTH}
    return reserved(charge, **(fields | changes))


def committed(charge: str = "model/a", spent: float = PRICE) -> Mapping[str, Any]:
    return {"kind": records.BudgetCommitted, "charge_id": charge, "epsilon_spent": spent}


def refunded(charge: str = "model/a") -> Mapping[str, Any]:
    return {"kind": records.BudgetRefunded, "charge_id": charge, "reason": "interrupted"}


def released(charge: str | None = "model/a", said: str = "train.update") -> Mapping[str, Any]:
    return {
        "kind": records.Release,
        "release_id": "model/train.update",
        "computation": said,
        "recipient": "coordinator",
        "content_digest": "0" * 64,
        "content_bytes": 1,
        "charge_id": charge,
    }


FREE = released(None, "present")
DECIDED: Mapping[str, Any] = {
    "kind": records.AccessDecided,
    "release_id": "model/train.update",
    "computation": "train.update",
    "recipient": "coordinator",
    "allowed": True,
    "clauses": ("agreed:train.update",),
    "policy_digest": "1" * 64,
    "question_digest": "2" * 64,
}


def with_decisions(leaves: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The leaves, every release just after the decision that it may leave."""
    return [
        one
        for leaf in leaves
        for one in ([DECIDED, leaf] if leaf["kind"] is records.Release else [leaf])
    ]


def said_of(leaves: Sequence[Mapping[str, Any]], said: str) -> str:
    """What is said of a leaf, at its place among decisions."""
    place = int(said[5])
    before = sum(leaf["kind"] is records.Release for leaf in leaves[:place])
    return f"leaf {place + before}{said[6:]}"


@pytest.fixture
def log(workspace: Path) -> Callable[..., VerifiedParty]:
    """Write leaves into a fresh log, signed by the party's own key; verify it."""
    folder = PartyFolder(workspace / "courier")
    shutil.rmtree(folder.log)
    return log_of(folder)


def log_of(folder: PartyFolder) -> Callable[..., VerifiedParty]:

    def write(*leaves: Mapping[str, Any], **changes: str) -> VerifiedParty:
        common = {
            "time": datetime(2026, 1, 1, tzinfo=UTC),
            "party": "courier",
            "agreement": folder.agreement().digest,
            "job": "model",
        } | changes
        with folder.open_log() as writer:
            for leaf in leaves:
                fields = {key: value for key, value in leaf.items() if key != "kind"}
                writer.append([records.to_leaf(leaf["kind"](**common, **fields))])
        return verify_party(folder.path)

    return write


@pytest.fixture
def unpriced(monkeypatch: pytest.MonkeyPatch) -> None:
    """An auditor's installation: nothing here can price a mechanism."""
    monkeypatch.setitem(sys.modules, "dp_accounting", None)


def test_all_that_is_spent_is_priced_at_what_cuts_leave_of_delta(tmp_path: Path) -> None:
    alignment = {"key": "email", "epsilon": 1.0, "delta": 9e-7}
    once = {"maximum_matches": 1, "period_days": 365}
    world = World.make(tmp_path, match=once | {"alignment": alignment})
    left = epsilon_of([COSTLY], DELTA - 9e-7)
    assert left > PRICE
    folder = world.folder("courier")
    with pytest.raises(LogCorruptedError, match="understates epsilon_spent"):
        log_of(folder)(OPENED, reserved(epsilon_spent=PRICE))
    shutil.rmtree(folder.log)
    paid = [reserved(epsilon_spent=left), released(), committed(spent=left)]
    assert log_of(folder)(OPENED, *with_decisions(paid)).epsilon_spent == left


class TestAfterACrash:
    def test_a_release_cut_off_before_its_sending_and_made_again_holds(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        world = World.make(tmp_path)

        def cut_off(*_: Any, **__: Any) -> NoReturn:
            raise KeyboardInterrupt

        with monkeypatch.context() as patch, opened(world) as door:
            patch.setattr(outbox, "write_atomically", cut_off)
            with pytest.raises(KeyboardInterrupt):
                door.release(update())
        cut = verify_party(world.folder("retailer").path)
        assert (cut.epsilon_spent, cut.withdrawn_releases) == (0, 0)
        with opened(world) as door:
            assert verify_party(world.folder("retailer").path).withdrawn_releases == 1
            door.release(update())
        found = verify_party(world.folder("retailer").path)
        assert found.epsilon_spent == world.statement("retailer").epsilon_spent > 0
        assert (found.repriced, found.withdrawn_releases, found.counts["release"]) == (True, 1, 2)


class TestWhatIsNoRegularFile:
    """A stranger's folder may hold anything; nothing in it may hold the auditor."""

    @pytest.mark.parametrize("name", ["checkpoint", "tile/entries/000.p/1", "tile/0/000.p/1"])
    @pytest.mark.parametrize("make", [os.mkfifo, os.mkdir], ids=["fifo", "directory"])
    def test_in_the_log(
        self, name: str, make: Callable[[Path], None], workspace: Path, log: Any
    ) -> None:
        log(OPENED)
        file = workspace / "courier" / "log" / name
        file.unlink()
        make(file)
        with pytest.raises(ComplianceError, match=name):
            verify_party(workspace / "courier")

    @pytest.mark.parametrize("make", [os.mkfifo, os.mkdir], ids=["fifo", "directory"])
    def test_the_contract(self, make: Callable[[Path], None], workspace: Path) -> None:
        file = workspace / "courier" / "agreement.json"
        file.unlink()
        make(file)
        with pytest.raises(WorkspaceError, match=r"an agreement at .*agreement\.json, "):
            verify_party(workspace / "courier")

    def test_a_contract_without_end(self, workspace: Path) -> None:
        file = workspace / "courier" / "agreement.json"
        with file.open("r+b") as content:
            content.truncate(1 << 40)
        with pytest.raises(InvalidAgreementError, match="at most 1048576 bytes, got 1048577"):
            verify_party(workspace / "courier")


class TestBudgetInTheLog:
    """A party that holds its own key can write what it likes; it is held against the contract."""

    @pytest.mark.parametrize(
        ("leaves", "spent", "withdrawn"),
        [
            ([], 0, 0),
            ([FREE], 0, 0),
            ([reserved(), released(), committed()], PRICE, 0),
            ([reserved(), refunded()], 0, 0),
            ([reserved(), released()], 0, 0),
            ([reserved(), released(), refunded()], 0, 1),
            (
                [reserved(), released(), refunded(), reserved(), released(), committed()],
                PRICE,
                1,
            ),
            (
                [
                    reserved(),
                    released(),
                    committed(),
                    second(),
                    released("b"),
                    committed("b", BOTH),
                ],
                BOTH,
                0,
            ),
            ([reserved(), second(), committed("b", BOTH), committed(spent=BOTH)], BOTH, 0),
            ([reserved(), refunded(), second(epsilon_spent=CHEAP_PRICE)], 0, 0),
            ([reserved(epsilon_spent=1.0), released(), committed(spent=1.0)], 1.0, 0),
            ([reserved(epsilon=PRICE * (1 - 1e-12))], 0, 0),
        ],
    )
    def test_what_keeps_it(
        self,
        leaves: Sequence[Mapping[str, Any]],
        spent: float,
        withdrawn: int,
        log: Callable[..., VerifiedParty],
    ) -> None:
        found = log(OPENED, *with_decisions(leaves))
        assert (found.epsilon_spent, found.withdrawn_releases) == (spent, withdrawn)
        assert found.repriced

    STRUCTURE = (
        ([reserved(epsilon_cap=5.0)], r"leaf 1 .* names another cap than the agreement's"),
        ([reserved(delta=1e-3)], r"leaf 1 .* names another delta than the agreement's"),
        ([reserved(epsilon_spent=1.21)], r"leaf 1 .* passes the agreement's budget"),
        ([reserved(mechanism="{}")], r"leaf 1 .* names a mechanism, or a delta, that nobody"),
        ([reserved(mechanism=to_json(COSTLY) + " ")], r"leaf 1 .* names a mechanism"),
        ([reserved(), second("model/a")], r"leaf 2 .* reserves a charge that was reserved"),
        ([reserved(), committed(), reserved()], r"leaf 3 .* reserves a charge that was reserved"),
        ([released()], r"leaf 1 \(release\) releases under a charge that was not reserved"),
        ([released(None)], r"leaf 1 \(release\) releases without a charge"),
        ([reserved(), released(said="present")], r"leaf 2 .* names a charge for what is free"),
        ([FREE, released(None, "train.more")], r"leaf 2 .* releases what no computation says"),
        ([reserved("b"), released()], r"leaf 2 \(release\) releases under a charge"),
        ([reserved(), released(), released()], r"leaf 3 .* a second time under one charge"),
        ([committed()], r"leaf 1 \(budget.committed\) settles a charge that was not open"),
        ([refunded()], r"leaf 1 \(budget.refunded\) settles a charge"),
        ([reserved(), committed(), committed()], r"leaf 3 .* settles a charge"),
        ([reserved(), committed(), refunded()], r"leaf 3 .* settles a charge"),
        ([reserved(), refunded(), committed()], r"leaf 3 .* settles a charge"),
        ([reserved(), refunded(), released()], r"leaf 3 .* releases under a charge"),
        ([reserved(), committed(), released()], r"leaf 3 .* releases under a charge"),
        ([FREE, OPENED], r"leaf 2 \(agreement.signed\) opens the log a second time"),
    )

    @pytest.mark.parametrize(("leaves", "said"), STRUCTURE)
    def test_what_does_not(
        self, leaves: Sequence[Mapping[str, Any]], said: str, log: Callable[..., VerifiedParty]
    ) -> None:
        with pytest.raises(LogCorruptedError, match=said_of(leaves, said)):
            log(OPENED, *with_decisions(leaves))

    @pytest.mark.usefixtures("unpriced")
    @pytest.mark.parametrize(("leaves", "said"), STRUCTURE)
    def test_what_does_not_even_where_nothing_can_be_priced(
        self, leaves: Sequence[Mapping[str, Any]], said: str, log: Callable[..., VerifiedParty]
    ) -> None:
        with pytest.raises(LogCorruptedError, match=said_of(leaves, said)):
            log(OPENED, *with_decisions(leaves))

    @pytest.mark.parametrize(
        "before",
        [
            [],
            [DECIDED | {"allowed": False}],
            [DECIDED, DECIDED | {"allowed": False}],
            [DECIDED | {"release_id": "model/other"}],
            [DECIDED, FREE],
        ],
        ids=["no decision", "refused", "refused afterwards", "of another", "used up"],
    )
    def test_what_policies_did_not_allow(
        self, before: Sequence[Mapping[str, Any]], log: Callable[..., VerifiedParty]
    ) -> None:
        with pytest.raises(LogCorruptedError, match=f"leaf {len(before) + 1} .* no policy had"):
            log(OPENED, *before, FREE)

    UNDERSTATED = (
        ([reserved(epsilon=PRICE * (1 - 1e-7))], r"leaf 1 .* understates epsilon: expected at lea"),
        ([reserved(epsilon_spent=0.0)], r"leaf 1 .* understates epsilon_spent"),
        ([reserved(), second(epsilon_spent=PRICE)], r"leaf 2 .* understates epsilon_spent"),
        (
            [reserved(), committed(), second(epsilon_spent=CHEAP_PRICE)],
            r"leaf 3 .* understates epsilon_spent",
        ),
        ([reserved(), committed(spent=0.0)], r"leaf 2 \(budget.committed\) understates"),
        ([reserved(), second(), committed()], r"leaf 3 \(budget.committed\) understates"),
        (
            [reserved(mechanism=to_json(GaussianEvent(noise_multiplier=0.001)))],
            r"leaf 1 .* expected at least 10000\d\d\.",
        ),
    )

    @pytest.mark.parametrize(("leaves", "said"), UNDERSTATED)
    def test_prices_below_those_of_the_mechanisms(
        self, leaves: Sequence[Mapping[str, Any]], said: str, log: Callable[..., VerifiedParty]
    ) -> None:
        with pytest.raises(LogCorruptedError, match=said):
            log(OPENED, *leaves)

    @pytest.mark.usefixtures("unpriced")
    @pytest.mark.parametrize("leaves", [leaves for leaves, _ in UNDERSTATED])
    def test_where_nothing_can_be_priced_it_is_said(
        self, leaves: Sequence[Mapping[str, Any]], log: Callable[..., VerifiedParty]
    ) -> None:
        assert not log(OPENED, *leaves).repriced

    def test_a_log_without_the_agreement_first(self, log: Callable[..., VerifiedParty]) -> None:
        with pytest.raises(LogCorruptedError, match=r"leaf 0 \(release\) stands where agreement"):
            log(FREE, OPENED)

    def test_an_empty_log(self, log: Callable[..., VerifiedParty]) -> None:
        with pytest.raises(LogCorruptedError, match="as leaf 0, got an empty log"):
            log()

    @pytest.mark.parametrize(
        "changes", [{"party": "retailer"}, {"agreement": "f" * 64}], ids=lambda one: next(iter(one))
    )
    def test_leaves_about_others(
        self, changes: Mapping[str, str], log: Callable[..., VerifiedParty]
    ) -> None:
        with pytest.raises(LogCorruptedError, match=r"leaf 0 is of .* expected courier and"):
            log(OPENED, **changes)

    def test_bytes_that_are_no_leaf(self, workspace: Path) -> None:
        folder = PartyFolder(workspace / "courier")
        with folder.open_log() as writer:
            writer.append([b"{}"])
        with pytest.raises(RecordError):
            verify_party(folder.path)
