"""A workspace: made once, found again unchanged, and never mixed with another collaboration."""

import logging
import os
import re
import shutil
import sqlite3
import stat
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import BinaryIO

import pytest
from parties import consents, table
from trials import Document, document, party, save, training, write_tables, write_trial

from compliance.agreement import SignedAgreement
from compliance.errors import AlteredAgreementError, UnsignedAgreementError
from federation.collaboration import load_collaboration
from federation.coordinator import read_jobs
from federation.embedded import run_embedded
from federation.errors import RefusedError, WorkspaceError
from federation.party import PartyFolder, verified_agreement, write_atomically
from federation.population import open_source
from federation.progress import Progress, listening
from federation.trial.simulation import simulate
from federation.trial.workspace import Workspace, draft_workspace, prepare_workspace


def prepare(file: Path, workspace: Path) -> Workspace:
    return prepare_workspace(load_collaboration(file), file, workspace)


def files(directory: Path) -> Mapping[str, tuple[bytes, int]]:
    """Content and time of change of every file, except locks."""
    return {
        str(path.relative_to(directory)): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in sorted(directory.rglob("*"))
        if path.is_file() and path.name not in {"lock", "jobs.json"}
    }


def without_seed(content: Document) -> Document:
    return {key: value for key, value in content.items() if key != "unsafe_seed"}


class TestMaking:
    def test_every_party_gets_what_is_its_own(self, tmp_path: Path) -> None:
        made = prepare(write_trial(tmp_path), tmp_path / "w")
        assert [folder.name for folder in made.people] == ["brand", "retailer", "courier"]
        assert [folder.name for folder in made.partners] == ["retailer", "courier"]
        assert made.coordinator.name == "coordinator"
        assert [spec.name for spec in read_jobs(made.coordinator)] == ["find", "model", "best"]
        contract = (tmp_path / "w" / "agreement.json").read_bytes()
        for folder in made.folders:
            assert (folder.path / "agreement.json").read_bytes() == contract
            assert folder.agreement() == made.agreement
        held = {path.name for path in (tmp_path / "w" / "retailer").rglob("*.csv")}
        assert held == {"retailer.csv", "retailer-consents.csv"}
        assert not list((tmp_path / "w").rglob("truth*"))

    def test_what_concerns_people_or_keys_is_for_its_owners_eyes(self, tmp_path: Path) -> None:
        prepare(write_trial(tmp_path), tmp_path / "w")
        secret = [*(tmp_path / "w").rglob("keys/*"), *(tmp_path / "w").rglob("*.csv")]
        secret += (tmp_path / "w").rglob("party.json")
        assert len(secret) == 15 + 6 + 4
        assert {stat.S_IMODE(path.stat().st_mode) for path in secret} == {0o600}

    def test_copies_are_for_their_owners_eyes_from_the_first_byte(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        seen = []
        real = shutil.copyfileobj

        def watched(original: BinaryIO, copy: BinaryIO) -> None:
            seen.append(stat.S_IMODE(os.fstat(copy.fileno()).st_mode))
            real(original, copy)

        monkeypatch.setattr(shutil, "copyfileobj", watched)
        file = write_trial(tmp_path)
        before = os.umask(0)
        try:
            made = prepare(file, tmp_path / "w")
        finally:
            os.umask(before)
        assert seen == [0o600] * 6
        copy = made.partners[0].path / "data" / "retailer.csv"
        assert copy.read_bytes() == (tmp_path / "retailer.csv").read_bytes()

    def test_a_contract_under_a_known_seed_says_so_in_its_first_line(self, tmp_path: Path) -> None:
        content = document()
        content["agreement"]["terms_text"] = "Segments are destroyed."
        file = write_trial(tmp_path, content)
        text = prepare(file, tmp_path / "w").agreement.terms_text
        assert re.match(r"NOT PRIVATE: all keys and all noise .* known seed .*private.*\n", text)
        assert text.endswith("\n\nSegments are destroyed.")
        save(without_seed(content), file)
        made = prepare(file, tmp_path / "honest").agreement
        assert made.terms_text == "Segments are destroyed."

    def test_no_key_lies_in_anothers_folder(self, tmp_path: Path) -> None:
        prepare(write_trial(tmp_path), tmp_path / "w")
        keys = {path.read_bytes() for path in (tmp_path / "w").rglob("keys/*")}
        assert len(keys) == 4 + 4 + 4 + 3  # the coordinator is sent nothing encrypted

    def test_keys_follow_from_a_seed_and_from_nothing_else(self, tmp_path: Path) -> None:
        file = write_trial(tmp_path)
        assert prepare(file, tmp_path / "a").agreement == prepare(file, tmp_path / "b").agreement
        save(without_seed(document()), file)
        assert prepare(file, tmp_path / "c").agreement != prepare(file, tmp_path / "d").agreement

    def test_again_changes_nothing(self, tmp_path: Path) -> None:
        file = write_trial(tmp_path, without_seed(document()))
        made = prepare(file, tmp_path / "w")
        before = files(tmp_path / "w")
        assert prepare(file, tmp_path / "w").agreement == made.agreement
        assert files(tmp_path / "w") == before

    def test_a_table_and_consents_of_the_same_file_name(self, tmp_path: Path) -> None:
        content = document()
        for name, frame in (("people", table("retailer")), ("consents", consents("retailer"))):
            (tmp_path / name).mkdir()
            frame.to_csv(tmp_path / name / "retailer.csv", index=False)
        party(content, "retailer")["data"]["path"] = "people/retailer.csv"
        party(content, "retailer")["consent"] = "consents/retailer.csv"
        made = prepare(write_trial(tmp_path, content), tmp_path / "w")
        folder = made.partners[0]
        assert (folder.resolve(folder.config.data.path)).read_text().startswith("record,")
        assert (folder.resolve(folder.config.consent)).read_text().startswith("subject,")

    def test_a_database_stays_where_it_is_and_is_found_from_anywhere(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        home = tmp_path / "a home"
        content = document()
        data = party(content, "retailer")["data"]
        del data["path"]
        data |= {"url": "sqlite:///people.db", "table": "customers"}
        file = write_trial(home, content)
        with sqlite3.connect(home / "people.db") as database:
            table("retailer").to_sql("customers", database, index=False)
        monkeypatch.chdir(tmp_path)
        made = prepare(Path("a home/trial.toml"), tmp_path / "w")
        monkeypatch.chdir("/")
        folder = made.partners[0]
        assert open_source(folder.config.data, folder.path).count() == len(table("retailer"))
        assert prepare(file, tmp_path / "w").agreement == made.agreement


OTHER: Mapping[str, tuple[Callable[[Document], object], str]] = {
    "another title": (
        lambda content: content["agreement"].update(title="Other"),
        "title",
    ),
    "a larger budget": (
        lambda content: content["agreement"]["budget"].update(epsilon=5.0),
        "budget",
    ),
    "another feature": (
        lambda content: content["agreement"]["features"].pop(0),
        "features",
    ),
    "another party": (
        lambda content: party(content, "retailer").update(name="shop"),
        "parties, datasets",
    ),
    "another collaboration": (lambda content: content.update(name="second"), "name"),
}


class TestAnotherCollaboration:
    @pytest.mark.parametrize("name", OTHER)
    def test_is_refused_before_anything_is_written(self, name: str, tmp_path: Path) -> None:
        change, differs = OTHER[name]
        prepare(write_trial(tmp_path), tmp_path / "w")
        before = files(tmp_path)
        content = document()
        change(content)
        other = save(content, tmp_path / "other.toml")
        contract = tmp_path / "w" / "agreement.json"
        with pytest.raises(WorkspaceError, match="name another workspace") as caught:
            prepare(other, tmp_path / "w")
        assert f"{contract} is another contract" in str(caught.value)
        assert f"it differs in {differs})" in str(caught.value)
        other.unlink()
        assert files(tmp_path) == before

    def test_with_other_columns_for_the_same_contract(self, tmp_path: Path) -> None:
        file = write_trial(tmp_path)
        prepare(file, tmp_path / "w")
        before = files(tmp_path / "w")
        content = document()
        party(content, "retailer")["data"]["key"] = "email"
        with pytest.raises(WorkspaceError, match=r"party\.json describes another configuration"):
            prepare(save(content, file), tmp_path / "w")
        assert files(tmp_path / "w") == before

    def test_keys_that_were_lost_are_no_reason_to_sign_anew(self, tmp_path: Path) -> None:
        file = write_trial(tmp_path, without_seed(document()))
        prepare(file, tmp_path / "w")
        shutil.rmtree(tmp_path / "w" / "courier" / "keys")
        with pytest.raises(WorkspaceError, match=r"identity is missing.* restore the key"):
            prepare(file, tmp_path / "w")
        (tmp_path / "w" / "courier" / "agreement.json").unlink()
        with pytest.raises(WorkspaceError, match="it differs in parties"):
            prepare(file, tmp_path / "w")


def test_a_table_that_lost_its_header_line_is_told_of_without_its_values(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made = prepare(write_trial(tmp_path), tmp_path / "w")
    people = table("retailer")
    people.to_csv(made.partners[0].path / "data" / "retailer.csv", index=False, header=False)
    heard: list[Progress] = []
    with (
        caplog.at_level(logging.DEBUG),
        listening(heard.append),
        pytest.raises(RefusedError) as caught,
    ):
        run_embedded(made.coordinator.path, [folder.path for folder in made.people])
    told = "".join(traceback.format_exception(caught.value)) + caplog.text + repr(heard)
    assert "has the file a header line?" in told
    values = [str(value) for value in people.iloc[0] if len(str(value)) > 3]
    assert len(values) == 3
    assert not [value for value in values if value in told]


class TestChangedFiles:
    def test_data_that_nothing_was_made_from_are_taken_anew(self, tmp_path: Path) -> None:
        file = write_trial(tmp_path)
        prepare(file, tmp_path / "w")
        table("retailer").iloc[:40].to_csv(tmp_path / "retailer.csv", index=False)
        made = prepare(file, tmp_path / "w")
        assert open_source(made.partners[0].config.data, made.partners[0].path).count() == 40

    @pytest.mark.parametrize("name", ["retailer.csv", "retailer-consents.csv"])
    def test_data_that_were_used_may_not_change(
        self, name: str, finished: tuple[Path, Path], tmp_path: Path
    ) -> None:
        shutil.copytree(finished[1], tmp_path / "w")
        write_tables(tmp_path)
        file = save(document(), tmp_path / "trial.toml")
        with (tmp_path / name).open("a", encoding="utf-8") as table:
            table.write("\n")
        with pytest.raises(
            WorkspaceError, match=r"differs from its copy .* name another"
        ) as caught:
            prepare(file, tmp_path / "w")
        assert str(tmp_path / name) in str(caught.value)


class TestChangedJobs:
    def jobs(self, finished: tuple[Path, Path], tmp_path: Path, content: Document) -> Workspace:
        shutil.copytree(finished[1], tmp_path / "w")
        write_tables(tmp_path)
        return prepare(save(content, tmp_path / "trial.toml"), tmp_path / "w")

    def test_a_job_that_has_ended_stays_what_it_was(
        self, finished: tuple[Path, Path], tmp_path: Path
    ) -> None:
        content = document()
        content["jobs"][2]["share"] = 0.3
        with pytest.raises(WorkspaceError, match=r"job 'best' has ended .* another name"):
            self.jobs(finished, tmp_path, content)

    def test_a_job_that_has_ended_is_not_forgotten(
        self, finished: tuple[Path, Path], tmp_path: Path
    ) -> None:
        content = document()
        content["jobs"].pop()
        with pytest.raises(WorkspaceError, match="job 'best' has ended"):
            self.jobs(finished, tmp_path, content)

    def test_jobs_may_be_added(self, finished: tuple[Path, Path], tmp_path: Path) -> None:
        content = document()
        content["jobs"].append(training("second", epsilon=0.1))
        made = self.jobs(finished, tmp_path, content)
        assert [spec.name for spec in read_jobs(made.coordinator)][-1] == "second"

    def test_a_job_that_anybody_answered_in_may_only_go(self, tmp_path: Path) -> None:
        file = write_trial(tmp_path)
        folder = prepare(file, tmp_path / "w").partners[0]
        write_atomically(folder.job("model") / "specification.json", b"{}")
        content = document()
        content["jobs"][1]["steps"] = 20
        with pytest.raises(WorkspaceError, match=r"job 'model' has begun .* another name$"):
            prepare(save(content, file), tmp_path / "w")
        content["jobs"][1]["name"] = content["jobs"][2]["train"] = "shorter"
        made = prepare(save(content, file), tmp_path / "w")
        assert [spec.name for spec in read_jobs(made.coordinator)] == ["find", "shorter", "best"]

    def test_a_job_that_has_not_begun_may_change_or_go(self, tmp_path: Path) -> None:
        file = write_trial(tmp_path)
        prepare(file, tmp_path / "w")
        content = document()
        content["jobs"] = [content["jobs"][0], training("model", epsilon=0.5)]
        made = prepare(save(content, file), tmp_path / "w")
        assert [spec.name for spec in read_jobs(made.coordinator)] == ["find", "model"]


class TestSigningByHand:
    def test_a_draft_bears_no_signature_and_is_found_again(self, tmp_path: Path) -> None:
        file = write_trial(tmp_path, without_seed(document()))
        collaboration = load_collaboration(file)
        draft = draft_workspace(collaboration, file, tmp_path / "w")
        assert SignedAgreement.from_json(draft.read_bytes()).signed_by == ()
        before = files(tmp_path / "w")
        assert draft_workspace(collaboration, file, tmp_path / "w") == draft
        assert files(tmp_path / "w") == before

    def test_who_has_not_signed_is_named_and_nothing_runs(self, tmp_path: Path) -> None:
        file = write_trial(tmp_path)
        draft = draft_workspace(load_collaboration(file), file, tmp_path / "w")
        self.sign(draft, "brand", "courier")
        with pytest.raises(UnsignedAgreementError) as caught:
            simulate(file, tmp_path / "w")
        assert str(caught.value) == (
            f"{draft}: agreement 'trial' is not signed by retailer, coordinator: each of them runs "
            "`comity agreement sign`"
        )
        assert not list((tmp_path / "w").glob("*/log"))

    def test_signatures_in_any_order_are_kept(self, tmp_path: Path) -> None:
        file = write_trial(tmp_path)
        draft = draft_workspace(load_collaboration(file), file, tmp_path / "w")
        self.sign(draft, "courier", "coordinator", "retailer", "brand")
        signed = draft.read_bytes()
        made = prepare(file, tmp_path / "w")
        assert draft.read_bytes() == signed
        assert made.coordinator.agreement() == made.agreement

    @pytest.mark.parametrize("where", ["", "retailer", "coordinator"])
    def test_an_altered_contract_is_refused_wherever_it_lies(
        self, where: str, tmp_path: Path
    ) -> None:
        file = write_trial(tmp_path)
        made = prepare(file, tmp_path / "w")
        contract = tmp_path / "w" / where / "agreement.json"
        envelope = SignedAgreement.from_json(contract.read_bytes()).envelope
        budget = made.agreement.budget.model_copy(update={"epsilon": 1000.0})
        richer = SignedAgreement.draft(made.agreement.model_copy(update={"budget": budget}))
        forged = richer.envelope.model_copy(update={"signatures": envelope.signatures})
        write_atomically(contract, forged.to_json())
        with pytest.raises((AlteredAgreementError, WorkspaceError)) as caught:
            simulate(file, tmp_path / "w")
        assert str(contract) in str(caught.value)
        assert not list((tmp_path / "w").glob("*/log"))
        with pytest.raises(AlteredAgreementError, match="is not what 'brand' signed"):
            verified_agreement(contract)

    def sign(self, contract: Path, *names: str) -> None:
        for name in names:
            folder = PartyFolder(contract.parent / name)
            signed = SignedAgreement.from_json(contract.read_bytes())
            write_atomically(contract, signed.sign(name, folder.identity_key()).to_json())


def test_paths_that_cannot_be_a_workspace(tmp_path: Path) -> None:
    file = write_trial(tmp_path)
    with pytest.raises(WorkspaceError, match="Not a directory"):
        prepare(file, file)
    if os.geteuid():  # root may write anywhere
        (tmp_path / "closed").mkdir(mode=0o500)
        with pytest.raises((PermissionError, WorkspaceError)):
            prepare(file, tmp_path / "closed" / "w")
