"""A log is believed only after everything in it was held against the contract beside it."""

import shutil
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from compliance import records
from compliance.errors import (
    AlteredAgreementError,
    ComplianceError,
    InvalidAgreementError,
    LogCorruptedError,
    RecordError,
)
from compliance.log.writer import LogWriter
from federation.audit import party_directories, verify_party
from federation.errors import WorkspaceError
from federation.party import PartyFolder


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
        with pytest.raises(WorkspaceError, match=r"agreement\.json is missing"):
            verify_party(workspace / "retailer")

    def test_anothers_log(self, workspace: Path) -> None:
        shutil.rmtree(workspace / "retailer" / "log")
        shutil.copytree(workspace / "courier" / "log", workspace / "retailer" / "log")
        with pytest.raises(ComplianceError, match="checkpoint"):
            verify_party(workspace / "retailer")

    def test_a_folder_called_otherwise(self, workspace: Path) -> None:
        (workspace / "retailer").rename(workspace / "shop")
        with pytest.raises(InvalidAgreementError, match="has no party 'shop', only brand, ret"):
            verify_party(workspace / "shop")

    def test_anothers_contract(self, workspace: Path) -> None:
        forged = (workspace / "brand" / "agreement.json").read_text().replace("cou", "cuo", 1)
        (workspace / "brand" / "agreement.json").write_text(forged)
        with pytest.raises((AlteredAgreementError, InvalidAgreementError)):
            verify_party(workspace / "brand")


def reserved(charge: str = "model/a", **changes: Any) -> Mapping[str, Any]:
    fields = {"charge_id": charge, "mechanism": "{}", "epsilon": 0.5, "delta": 1e-5}
    return {"kind": records.BudgetReserved, "epsilon_spent": 0.5, "epsilon_cap": 1.2} | (
        fields | changes
    )


def committed(charge: str = "model/a", spent: float = 0.5) -> Mapping[str, Any]:
    return {"kind": records.BudgetCommitted, "charge_id": charge, "epsilon_spent": spent}


def refunded(charge: str = "model/a") -> Mapping[str, Any]:
    return {"kind": records.BudgetRefunded, "charge_id": charge, "reason": "interrupted"}


def released(charge: str | None = "model/a") -> Mapping[str, Any]:
    return {
        "kind": records.Release,
        "release_id": "model/train.update",
        "computation": "train.update",
        "recipient": "coordinator",
        "content_digest": "0" * 64,
        "content_bytes": 1,
        "charge_id": charge,
    }


@pytest.fixture
def log(workspace: Path) -> Callable[..., float]:
    """Write leaves into a fresh log, signed by the party's own key; return the ε verified."""
    folder = PartyFolder(workspace / "courier")
    shutil.rmtree(folder.log)

    def write(*leaves: Mapping[str, Any], **changes: str) -> float:
        common = {
            "time": datetime(2026, 1, 1, tzinfo=UTC),
            "party": "courier",
            "agreement": folder.agreement().digest,
            "job": "model",
        } | changes
        with LogWriter.open(folder.log, origin=folder.log_origin, key=folder.log_key()) as writer:
            for leaf in leaves:
                fields = {key: value for key, value in leaf.items() if key != "kind"}
                writer.append([records.to_leaf(leaf["kind"](**common, **fields))])
        return verify_party(folder.path).epsilon_spent

    return write


class TestBudgetInTheLog:
    """A party that holds its own key can write what it likes; it is held against the contract."""

    @pytest.mark.parametrize(
        ("leaves", "spent"),
        [
            ([], 0),
            ([released(None)], 0),
            ([reserved(), released(), committed()], 0.5),
            ([reserved(), refunded(), reserved(), released(), committed()], 0.5),
            ([reserved(), refunded()], 0),
            ([reserved(), released()], 0),
            (
                [reserved(), committed(), reserved("b", epsilon_spent=1.2), committed("b", 1.2)],
                1.2,
            ),
        ],
    )
    def test_what_keeps_it(
        self, leaves: Sequence[Mapping[str, Any]], spent: float, log: Callable[..., float]
    ) -> None:
        assert log(*leaves) == spent

    @pytest.mark.parametrize(
        ("leaves", "said"),
        [
            ([reserved(epsilon_cap=5.0)], r"leaf 0 .* names another cap than the agreement's"),
            ([reserved(epsilon_spent=1.21)], r"leaf 0 .* passes the agreement's budget"),
            ([released()], r"leaf 0 \(release\) releases under a charge that was not reserved"),
            ([reserved("b"), released()], r"leaf 1 \(release\) releases under a charge"),
            ([committed()], r"leaf 0 \(budget.committed\) settles a charge that was not open"),
            ([refunded()], r"leaf 0 \(budget.refunded\) settles a charge"),
            ([reserved(), committed(), committed()], r"leaf 2 .* settles a charge"),
            ([reserved(), committed(), refunded()], r"leaf 2 .* settles a charge"),
            ([reserved(), refunded(), released()], r"leaf 2 .* releases under a charge"),
            ([reserved(), committed(), released()], r"leaf 2 .* releases under a charge"),
        ],
    )
    def test_what_does_not(
        self, leaves: Sequence[Mapping[str, Any]], said: str, log: Callable[..., float]
    ) -> None:
        with pytest.raises(LogCorruptedError, match=said):
            log(*leaves)

    @pytest.mark.parametrize(
        "changes", [{"party": "retailer"}, {"agreement": "f" * 64}], ids=lambda one: next(iter(one))
    )
    def test_leaves_about_others(
        self, changes: Mapping[str, str], log: Callable[..., float]
    ) -> None:
        with pytest.raises(LogCorruptedError, match=r"leaf 0 is of .* expected courier and"):
            log(released(None), **changes)

    def test_bytes_that_are_no_leaf(self, workspace: Path) -> None:
        folder = PartyFolder(workspace / "courier")
        with LogWriter.open(folder.log, origin=folder.log_origin, key=folder.log_key()) as writer:
            writer.append([b"{}"])
        with pytest.raises(RecordError):
            verify_party(folder.path)
