"""A party attacks a training that it took part in: at home, on its own rows, under the job's terms."""

import json
import re
import shutil
from pathlib import Path

import pytest
from trials import document, write_trial

from compliance.terms import NoiseSource
from federation.attack import Attack, attack
from federation.cli import main
from federation.errors import WorkspaceError
from federation.trial.simulation import simulate
from privacy.attacks import Flaw
from privacy.errors import InvalidParameterError


@pytest.fixture
def workspace(finished: tuple[Path, Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished[1], tmp_path / "workspace"))


@pytest.fixture(scope="module")
def summed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trial with a model of shared noise and one of exact sums."""
    directory = tmp_path_factory.mktemp("summed")
    common = {"epsilon": 1.0, "delta": 1e-5, "rounds": 2}
    jobs = [
        {"kind": "match", "name": "find"},
        {"kind": "train", "name": "shared", "match": "find", "noise": "distributed"} | common,
        {"kind": "train", "name": "exact", "match": "find", "noise": "unsafe-none"},
    ]
    content = document(jobs=jobs)
    del content["evaluate"]
    content["agreement"]["train"] |= {
        "noise": ["distributed", "unsafe-none"],
        "max_rounds": 10,
        "colluding_partners": 0,
    }
    simulate(write_trial(directory, content), directory / "workspace")
    return directory / "workspace"


def model_of(workspace: Path, party: str = "retailer", job: str = "model") -> Path:
    return workspace / party / "models" / f"{job}.json"


def files(workspace: Path) -> dict[str, bytes]:
    return {
        path.relative_to(workspace).as_posix(): path.read_bytes()
        for path in workspace.rglob("*")
        if path.is_file()
    }


def test_the_stated_epsilon_holds_and_nothing_but_the_finding_is_left(workspace: Path) -> None:
    before = files(workspace)
    found = attack(model_of(workspace), models=8)
    assert found.stated_epsilon == 1.0
    assert found.epsilon <= 1.0
    assert not found.refuted
    assert (found.rows, found.tables, found.noise) == (50, 2, NoiseSource.LOCAL)
    assert found.canaries.most > 1.0
    after = files(workspace)
    assert {name for name in after if after[name] != before.get(name)} == {
        "retailer/attacks/model.json"
    }
    kept = workspace / "retailer" / "attacks" / "model.json"
    assert kept.stat().st_mode & 0o077 == 0
    assert Attack.model_validate_json(kept.read_bytes()) == found
    assert not re.search(r"gmx|\+1212|[BRC]#7\d\d", kept.read_text())


@pytest.mark.parametrize("flaw", Flaw)
def test_a_broken_training_is_refuted_and_not_kept(workspace: Path, flaw: Flaw) -> None:
    found = attack(model_of(workspace, "courier"), models=0, flaw=flaw)
    assert found.refuted
    assert found.exposure is None
    assert not (workspace / "courier" / "attacks").exists()


def test_shared_noise_is_attacked_by_its_sums(summed: Path) -> None:
    found = attack(model_of(summed, job="shared"), canaries=200, models=0)
    assert found.epsilon <= 1.0
    broken = attack(model_of(summed, job="shared"), canaries=200, models=0, flaw=Flaw.NOISE)
    assert broken.refuted
    assert broken.epsilon > 1.0
    with pytest.raises(InvalidParameterError, match="no clipping"):
        attack(model_of(summed, job="shared"), flaw=Flaw.CLIPPING)


def test_without_noise_nothing_is_stated_and_so_nothing_refuted(summed: Path) -> None:
    found = attack(model_of(summed, job="exact"), canaries=40, models=0)
    assert found.stated_epsilon is None
    assert found.epsilon == found.canaries.most > 0.0
    assert not found.refuted


def test_who_has_withdrawn_is_not_looked_at(workspace: Path) -> None:
    book = workspace / "retailer" / "data" / "consents" / "retailer-consents.csv"
    with book.open("a") as file:
        file.write("R#730,withdrawn,2021-01-01T00:00:00Z,lookalike-audiences\n")
    assert attack(model_of(workspace), canaries=10, models=0).rows == 49


class TestRefused:
    def test_a_brand_has_no_rows_that_were_trained_on(self, workspace: Path) -> None:
        with pytest.raises(WorkspaceError, match="name the model of a partner"):
            attack(model_of(workspace, "brand"))

    def test_a_model_that_is_not_there(self, workspace: Path) -> None:
        with pytest.raises(WorkspaceError, match="is missing: name PARTY/models/JOB"):
            attack(model_of(workspace, job="other"))

    def test_a_file_that_is_no_model(self, workspace: Path) -> None:
        model_of(workspace).write_text("{}")
        with pytest.raises(WorkspaceError, match="is no model"):
            attack(model_of(workspace))

    def test_a_model_under_another_name(self, workspace: Path) -> None:
        shutil.copy(model_of(workspace), model_of(workspace, job="other"))
        with pytest.raises(WorkspaceError, match="is of job 'model'"):
            attack(model_of(workspace, job="other"))

    def test_a_model_of_another_agreement(self, workspace: Path) -> None:
        path = model_of(workspace)
        content = json.loads(path.read_text()) | {"agreement": "0" * 64}
        path.write_text(json.dumps(content))
        with pytest.raises(WorkspaceError, match="another agreement"):
            attack(path)


class TestCommand:
    def run(self, *arguments: object) -> int:
        with pytest.raises(SystemExit) as caught:
            main(["attack", *map(str, arguments)])
        assert isinstance(caught.value.code, int)
        return caught.value.code

    def test_it_leaves_with_1_where_the_stated_epsilon_is_refuted(
        self, workspace: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        model = model_of(workspace)
        assert self.run(model, "--models", 8) == 0
        said = capsys.readouterr().out
        assert "not refuted" in said
        assert "own rows told apart" in said
        assert self.run(model, "--models", 0, "--unsafe-without", "noise") == 1
        said = capsys.readouterr().out
        assert "with 95% confidence: refuted" in said
        assert "nothing was kept" in said

    def test_json_tells_all(self, workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert self.run(model_of(workspace), "--models", 0, "--canaries", 20, "--json") == 0
        told = json.loads(capsys.readouterr().out)
        assert told.pop("refuted") is False
        assert told.pop("warning") is None or told["canaries"]["most"] <= 1.0
        assert Attack.model_validate(told).canaries.guesses.coins == 20

    def test_so_few_canaries_that_nothing_can_be_refuted_are_warned_of(
        self, workspace: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert self.run(model_of(workspace), "--models", 0, "--canaries", 5) == 0
        said = " ".join(capsys.readouterr().out.split())
        assert "5 canaries can refute nothing: had every guess been right, they would show" in said
        assert "at most, and 1 is stated; ask for more --canaries" in said

    @pytest.mark.parametrize(
        "mistake",
        [("--canaries", 0), ("--models", 3), ("--unsafe-without", "hope")],
        ids=str,
    )
    def test_what_it_cannot_do_is_a_mistake(self, workspace: Path, mistake: tuple) -> None:
        assert self.run(model_of(workspace), *mistake) == 2


@pytest.mark.parametrize("asked", [{"canaries": 0}, {"models": 3}, {"models": -1}], ids=str)
def test_numbers_are_held_against_their_range_before_anything_is_read(
    asked: dict[str, int], tmp_path: Path
) -> None:
    with pytest.raises(InvalidParameterError, match="expected"):
        attack(tmp_path / "no-such-model.json", **asked)
