"""A plan says beforehand what the run then does, costs and refuses."""

import shutil
from pathlib import Path

import pytest
from trials import Document, document, save, training, write_tables

from federation.audit import verify_party
from federation.collaboration import load_collaboration
from federation.errors import RefusedError
from federation.plan import Plan, plan
from federation.trial.simulation import simulate


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("tables")
    write_tables(directory)
    return directory


def planned(content: Document, tables: Path) -> Plan:
    return plan(load_collaboration(save(content, tables / "trial.toml")))


def with_jobs(*trainings: Document) -> Document:
    content = document()
    match, _, expand = content["jobs"]
    return content | {"jobs": [match, *trainings, expand]}


def test_every_job_is_told_with_who_works_and_what_it_costs(tables: Path) -> None:
    found = planned(document(), tables)
    assert [(job.job, job.computation, job.who) for job in found.jobs] == [
        ("find", "match", ("brand", "retailer", "courier")),
        ("model", "train", ("retailer", "courier")),
        ("best", "expand", ("retailer", "courier")),
    ]
    match, train, expand = found.jobs
    assert (match.epsilon, expand.epsilon) == (0, 0)
    assert 0.99 < train.epsilon <= 1.0
    assert train.noise_multiplier > 1
    assert train.epsilon_spent == expand.epsilon_spent == pytest.approx(1.2 - found.epsilon_left)
    assert (found.epsilon_cap, found.delta, found.max_parties_per_person) == (1.2, 1e-5, 2)
    assert "not differentially private" in match.note
    assert "up to 2 partners' tables; 2 round(s) of 20 steps" in train.note
    assert found.refused == []


def test_the_run_costs_what_was_planned(finished: tuple[Path, Path]) -> None:
    file, workspace = finished
    found = plan(load_collaboration(file))
    for name in ("retailer", "courier"):
        assert verify_party(workspace / name).epsilon_spent == found.jobs[-1].epsilon_spent


def test_planning_leaves_nothing_behind(tables: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in tables.rglob("*")}
    planned(document(), tables)
    after = {path: path.stat().st_mtime_ns for path in tables.rglob("*")}
    file = tables / "trial.toml"
    assert {**after, file: 0} == {**before, file: 0}


def test_several_trainings_cost_less_than_their_sum(tables: Path) -> None:
    trainings = training("model", epsilon=0.5), training("b", epsilon=0.5)
    jobs = planned(with_jobs(*trainings), tables).jobs
    assert jobs[1].epsilon_spent < jobs[2].epsilon_spent < jobs[1].epsilon + jobs[2].epsilon


class TestRefused:
    def test_what_passes_the_budget_with_what_would_pass(self, tables: Path) -> None:
        content = with_jobs(training("a"), training("model"))
        found = planned(content, tables)
        (first, refused, expand) = found.jobs[1:]
        assert first.refused_by is None
        assert refused.refused_by == "budget.epsilon"
        assert refused.epsilon_spent == first.epsilon_spent
        assert refused.remedy == (
            "ask for less than the 1 asked for, or agree on a budget of at least 1.47; 0.20 is left"
        )
        assert (expand.refused_by, expand.remedy) == (
            "expand.train",
            "training 'model' would be refused: mend it",
        )
        assert [job.job for job in found.refused] == ["model", "best"]
        content["agreement"]["budget"]["epsilon"] = 1.47
        assert planned(content, tables).refused == []

    def test_what_costs_nothing_more_for_being_refused(self, tables: Path) -> None:
        """A smaller training after a refused one is charged as if that had not been."""
        between = planned(
            with_jobs(training("model"), training("b"), training("c", epsilon=0.1)), tables
        )
        alone = planned(with_jobs(training("model"), training("c", epsilon=0.1)), tables)
        assert [job.job for job in between.refused] == ["b"]
        assert between.epsilon_left == alone.epsilon_left

    def test_the_run_refuses_what_was_planned_to_be(self, tables: Path, tmp_path: Path) -> None:
        content = with_jobs(training("model"), training("b"))
        assert [job.job for job in planned(content, tables).refused] == ["b"]
        shutil.copytree(tables, tmp_path / "t")
        with pytest.raises(RefusedError) as caught:
            simulate(save(content, tmp_path / "t" / "trial.toml"), tmp_path / "w")
        assert caught.value.term == "budget.epsilon"

    def test_an_epsilon_that_no_noise_keeps(self, tables: Path) -> None:
        job = planned(with_jobs(training("model", epsilon=1e-7)), tables).jobs[1]
        assert job.refused_by == "epsilon"
        assert "allow a larger epsilon" in (job.remedy or "")
        assert job.noise_multiplier is None
