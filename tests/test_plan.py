"""A plan says beforehand what the run then does, costs and refuses."""

import re
import shutil
from pathlib import Path

import pandas as pd
import parties
import pytest
from test_walkthrough import blocks
from trials import Document, document, save, training, write_tables

from compliance.terms import ColumnTerm
from federation.audit import verify_party
from federation.cli import main
from federation.collaboration import Collaboration, load_collaboration
from federation.errors import CollaborationError, RefusedError
from federation.plan import Plan, PlannedJob, plan
from federation.plan_commands import _print_plan
from federation.specification import TrainSpec
from federation.trial.simulation import simulate
from federation.trial.workspace import prepare_workspace
from privacy.errors import InvalidParameterError


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("tables")
    write_tables(directory)
    return directory


def planned(content: Document, tables: Path) -> Plan:
    return plan(load_collaboration(save(content, tables / "trial.toml")))


def test_a_table_of_more_rows_than_are_declared_is_told_of_and_what_becomes_of_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_tables(tmp_path)
    content = document()
    held = load_collaboration(save(content, tmp_path / "trial.toml"))
    rows = {
        one.name: len(pd.read_csv(tmp_path / one.data.path)) for one in held.parties if one.data
    }
    assert plan(held, directory=tmp_path).fuller == ()
    content["parties"][1]["declared_rows"] = rows["retailer"] - 1
    file = save(content, tmp_path / "fewer.toml")
    (told,) = plan(load_collaboration(file), directory=tmp_path).fuller
    assert (told.party, told.declared_rows, told.rows) == (
        "retailer",
        rows["retailer"] - 1,
        rows["retailer"],
    )
    with pytest.raises(SystemExit) as left:
        main(["plan", str(file)])
    assert left.value.code == 0
    said = " ".join(capsys.readouterr().out.split())
    assert f"warning retailer declares {told.declared_rows} rows, and its table has" in said
    assert f"declare {told.rows} at least" in said


def test_a_table_is_parsed_only_where_it_may_have_more_rows_than_are_declared(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_tables(tmp_path)
    content = document()
    held = load_collaboration(save(content, tmp_path / "trial.toml"))
    (table,) = (tmp_path / one.data.path for one in held.parties if one.name == "retailer")
    lines = table.read_text().splitlines()
    content["parties"][1]["declared_rows"] = len(lines) - 2
    fewer = load_collaboration(save(content, tmp_path / "fewer.toml"))
    malformed = "secret@mail.example,and,much,more,than,there,are,columns"
    table.write_text("\n".join([*lines[:4], malformed, *lines[5:], ""]))
    assert plan(held, directory=tmp_path).uncounted == ()
    made = plan(fewer, directory=tmp_path)
    (told,) = made.uncounted
    assert (made.fuller, told.party) == ((), "retailer")
    assert f"{table.name}: row 5 has 8 fields, expected" in told.told
    _print_plan(made)  # what jobs cost is told all the same
    said = " ".join(capsys.readouterr().out.split())
    assert "warning the rows of retailer were not counted:" in said
    assert "secret" not in said + told.told


class TestWithoutTables:
    def test_the_operators_block_of_the_walk_through_does_it(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        terms, told = (one for one in blocks()[:2] if one.host == "coordinator")
        (tmp_path / "terms.toml").write_text(terms.text)
        monkeypatch.chdir(tmp_path)
        with pytest.raises(SystemExit) as left:
            main(told.text.split()[1:])
        assert (told.text.split()[:2], left.value.code) == (["comity", "plan"], 0)
        said = " ".join(capsys.readouterr().out.split())
        assert "epsilon left: 1.000 of 3.000 per person" in said
        assert "not computed without tables: whether files and columns are there" in said

    def test_it_prices_as_with_them(self, tables: Path, tmp_path: Path) -> None:
        content = document()
        held = plan(load_collaboration(save(content, tables / "held.toml")), directory=tables)
        elsewhere = load_collaboration(save(content, tmp_path / "elsewhere.toml"), elsewhere=True)
        assert plan(elsewhere) == held.model_copy(update={"tables_looked_at": False})

    def test_a_mistake_names_it_only_where_it_mends_all(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        content = document()
        file = save(content, tmp_path / "terms.toml")
        content["agreement"]["budget"]["epsilon"] = -1.0
        wrong = save(content, tmp_path / "wrong.toml")
        for one, named in ((file, True), (wrong, False)):
            with pytest.raises(SystemExit) as left:
                main(["plan", str(one)])
            assert left.value.code == 2
            assert ("--without-tables" in capsys.readouterr().err) is named


def match_alone(reveal: str, size_epsilon: float | None, budget: float) -> Collaboration:
    terms = {"reveal": reveal, "size_epsilon": size_epsilon, "keys": ["email"]}
    content = parties.collaboration(match=terms, budget={"epsilon": budget})
    document = content.model_dump(mode="json", exclude_unset=True)
    document["jobs"] = [parties.MATCH.model_dump(mode="json")]
    for party in document["parties"]:
        if "data" in party:
            party["data"]["identifiers"] = {"email": "email"}
    return Collaboration.model_validate(document)


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
    assert (match.epsilon_left, match.repeats, expand.repeats) == (1.2, None, None)
    assert train.epsilon_left == expand.epsilon_left == found.epsilon_left
    assert found.epsilon_spent == train.epsilon_spent
    assert train.repeats == 0  # 1.47 for two, see below
    assert [(one.term, one.people) for job in found.jobs for one in job.minimums] == [
        ("match.minimum_match", 5),
        ("match.minimum_match", 5),
        ("expand.minimum_segment", 3),
    ]
    assert "not differentially private" in match.note
    assert "up to 2 partners' tables; 2 rounds of 20 steps" in train.note
    assert found.refused == []


@pytest.mark.parametrize(
    ("terms", "told"),
    [
        (None, "retires it at once"),
        ({"deadline_days": 20}, "retires it at once"),
        ({"retrain_days": 7}, "trained again within 7 days"),
        ({"tolerated_epsilon": 1.0, "retrain_days": 7}, "leaves it in use"),
        ({"tolerated_epsilon": 0.9, "retrain_days": 7}, "trained again within 7 days"),
    ],
)
def test_it_says_what_one_erasure_will_do_to_each_model(
    tables: Path, terms: dict[str, object] | None, told: str
) -> None:
    content = document()
    content["agreement"] |= {} if terms is None else {"erasure": terms}
    match, train, expand = planned(content, tables).jobs
    assert (match.erasure, expand.erasure) == (None, None)
    assert train.erasure is not None
    assert train.erasure.startswith("one erasure of somebody in it ")
    assert told in train.erasure


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


def test_further_runs_are_those_that_would_not_be_refused(tables: Path) -> None:
    one = training("model", epsilon=0.5)
    more = planned(with_jobs(one), tables).jobs[1].repeats
    again = [training(f"again-{number}", epsilon=0.5) for number in range(more + 1)]
    found = planned(with_jobs(one, *again), tables)
    assert more > 1
    assert [job.job for job in found.refused] == [f"again-{more}"]


@pytest.mark.parametrize(
    ("reveal", "size_epsilon"),
    [
        ("partner-learns-members", 0.5),
        ("brand-learns-members", 0.5),
        ("both-learn-members", 0.5),
        ("size-only", 8.0),
    ],
)
def test_a_match_costs_what_was_planned(reveal: str, size_epsilon: float, tmp_path: Path) -> None:
    content = match_alone(reveal, size_epsilon, budget=50.0)
    expected = plan(content, clock=lambda: parties.NOW)
    for name in parties.PEOPLE:
        parties.table(name).to_csv(tmp_path / f"{name}.csv", index=False)
        parties.consents(name).to_csv(tmp_path / f"{name}-consents.csv", index=False)
    workspace = prepare_workspace(content, tmp_path / "trial.toml", tmp_path / "workspace")
    world = parties.World(workspace)
    world.run()
    spent = [world.statement(name).epsilon_spent for name in parties.PEOPLE]
    assert expected.epsilon_spent == expected.jobs[0].epsilon == max(spent)
    assert (expected.epsilon_spent == 0) is (reveal == "both-learn-members")


@pytest.mark.parametrize(
    ("reveal", "told"), [("both-learn-members", True), ("brand-learns-members", False)]
)
def test_a_match_of_more_than_a_message_tells_of_says_so(reveal: str, told: bool) -> None:
    content = match_alone(reveal, None, 1.0).model_dump(mode="json", exclude_unset=True)
    for party in content["parties"]:
        if "data" in party:
            party["declared_rows"] = 600_000_000
    (job,) = plan(Collaboration.model_validate(content)).jobs
    words = (
        "; with so many of retailer's it is refused: an outcome takes 600,000,000 pairs x 8 bytes "
        "= 4,800,000,000, or 600,000,000 places / 8 = 75,000,000, of the 66,977,792 bytes that "
        "one message tells"
    )
    assert job.note.endswith(words) is told
    assert job.refused_by is None  # fewer may be brought
    for party in content["parties"]:
        if "data" in party:
            party["declared_rows"] = 500_000_000
    (job,) = plan(Collaboration.model_validate(content)).jobs
    assert "refused" not in job.note


def test_a_training_over_the_columns_of_more_than_a_message_tells_of_says_so() -> None:
    file = Path(__file__).parents[1] / "examples" / "vertical" / "collaboration.toml"
    content = load_collaboration(file).model_dump(mode="json", exclude_unset=True)
    for rows in (16_744_446, 16_744_447):
        for party in content["parties"]:
            if "data" in party:
                party["declared_rows"] = rows
        jobs = plan(Collaboration.model_validate(content)).jobs
        over = [job for job in jobs if job.computation.endswith("vertical")]
        assert over
        words = f"if all are aligned it is refused: {rows:,} people x 4 bytes = {4 * rows:,}, of"
        assert [words in job.note for job in over] == [rows == 16_744_447] * len(over)


def test_no_more_matches_than_agreed() -> None:
    content = match_alone("size-only", 1.0, budget=50.0).model_dump(mode="json", exclude_unset=True)
    content["jobs"] += [content["jobs"][0] | {"name": f"again-{number}"} for number in range(2)]
    content["agreement"]["match"]["maximum_matches"] = 2
    found = plan(Collaboration.model_validate(content), clock=lambda: parties.NOW)
    assert [job.repeats for job in found.jobs] == [1, 0, 0]
    assert [job.refused_by for job in found.jobs] == [None, None, "match.maximum_matches"]
    assert found.epsilon_spent == found.jobs[1].epsilon_spent
    assert "2 matches come before it" in str(found.jobs[2].remedy)


class TestForecast:
    def forecast(self, tables: Path, **told: object) -> object:
        file = save(with_jobs(training("model")), tables / "trial.toml")
        return plan(load_collaboration(file), **told).jobs[1].forecast

    def test_positives_are_assumed_or_told(self, tables: Path) -> None:
        assumed, told = self.forecast(tables), self.forecast(tables, positives=20)
        assert (assumed.rows, assumed.positives, assumed.assumed) == (100, 50, True)
        assert (told.positives, told.assumed, told.columns) == (20, False, 4)
        assert told.lost > assumed.lost
        assert told.auc_loss == pytest.approx(told.lost * 0.3)
        assert told.auc_loss_least < told.auc_loss < told.auc_loss_most

    def test_a_better_model_has_more_to_lose_and_loses_a_smaller_share(self, tables: Path) -> None:
        good, poor = self.forecast(tables, auc=0.9), self.forecast(tables, auc=0.6)
        assert good.lost < poor.lost
        assert (good.auc, good.auc_loss) == (0.9, pytest.approx(good.lost * 0.4))

    @pytest.mark.parametrize(
        "told", [{"positives": 0}, {"positives": 100}, {"auc": 0.5}, {"auc": 1.0}], ids=str
    )
    def test_what_cannot_be_is_refused(self, tables: Path, told: dict[str, float]) -> None:
        with pytest.raises(InvalidParameterError, match=next(iter(told))):
            self.forecast(tables, **told)

    def test_few_positives_are_warned_of(self) -> None:
        """With 590 positives and wide rows, DP-SGD at epsilon 1 loses half of what it could rank."""

        def warned(rows: int, positives: int) -> str | None:
            content = parties.collaboration(train={"max_parties_per_person": 1, "max_steps": 300})
            job = TrainSpec(name="model", match="find", epsilon=1.0, delta=1e-5, steps=300)
            declared = tuple(
                party.model_copy(update={"declared_rows": rows}) if party.data else party
                for party in content.parties
            )
            wide = [
                {"name": f"f{number}", "type": "numeric", "minimum": 0, "maximum": 1}
                for number in range(250)
            ]
            features = [ColumnTerm.model_validate(one) for one in wide]
            agreed = content.agreement.model_copy(update={"features": tuple(features)})
            found = plan(
                content.model_copy(
                    update={"jobs": (job,), "parties": declared, "agreement": agreed}
                ),
                positives=positives,
                clock=lambda: parties.NOW,
            )
            return found.jobs[0].forecast.warning

        few = warned(2_000, 590)
        assert few is not None
        assert "about 590 positives cannot carry epsilon 1 over 251 columns" in few
        assert warned(20_000, 8_000) is None

    @pytest.mark.parametrize(
        ("family", "changes"),
        [
            ("ridge-regression", {}),
            ("network", {"network": {"hidden": [8]}}),
            ("boosted-trees", {}),
        ],
    )
    def test_is_told_of_every_family(
        self, family: str, changes: Document, tables: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        is_trees = family == "boosted-trees"

        def found(epsilon: float) -> PlannedJob:
            noise = "distributed" if is_trees else "local"
            content = summed(noise, models=[family])
            match, model, expand = content["jobs"]
            model |= {"model": family, "epsilon": epsilon, **changes}
            if not is_trees:
                model |= {"rounds": 1 if family == "ridge-regression" else 2, "steps": 40}
            return planned(content | {"jobs": [match, model, expand]}, tables).jobs[1]

        loud, quiet = found(0.3), found(0.9)
        assert loud.forecast.lost > quiet.forecast.lost
        assert loud.forecast.auc_loss_least < loud.forecast.auc_loss < loud.forecast.auc_loss_most
        assert "none was measured" not in loud.note
        assert "no forecast" not in loud.note
        assert "50 positives cannot carry epsilon 0.3" in loud.forecast.warning
        assert ("columns" in loud.forecast.warning) is not is_trees
        with pytest.raises(SystemExit):
            main(["plan", str(tables / "trial.toml")])
        assert "expected AUC loss" in capsys.readouterr().out

    def test_is_left_out_of_networks_that_are_averaged_once(self, tables: Path) -> None:
        content = summed("local", models=["network"])
        content["jobs"][1] |= {
            "model": "network",
            "network": {"hidden": [8]},
            "rounds": 1,
            "steps": 40,
        }
        once = planned(content, tables).jobs[1]
        assert once.forecast is None
        assert once.noise_multiplier is not None
        assert "; no forecast: noised networks that are averaged once" in once.note

    @pytest.mark.parametrize("several", [False, True])
    def test_families_are_not_to_be_compared(
        self, several: bool, tables: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        content = with_jobs(training("model", epsilon=0.3), training("b", epsilon=0.3))
        content["agreement"]["train"]["models"] = ["logistic-regression", "ridge-regression"]
        if several:
            content["jobs"][2]["model"] = "ridge-regression"
        with pytest.raises(SystemExit):
            main(["plan", str(save(content, tables / "families.toml"))])
        told = "cannot be compared with each other"
        assert (told in capsys.readouterr().out) is several

    def test_none_is_told_of_training_over_columns(
        self, capsys: pytest.CaptureFixture[str]
    ) -> None:
        file = Path(__file__).parents[1] / "examples" / "vertical" / "collaboration.toml"
        found = plan(load_collaboration(file))
        assert "no forecast for training over columns was measured" in found.jobs[1].note
        assert found.max_parties_per_person is None
        with pytest.raises(SystemExit):
            main(["plan", str(file)])
        assert "a person in up to" not in capsys.readouterr().out

    def test_the_command_tells_it(self, tables: Path, capsys: pytest.CaptureFixture[str]) -> None:
        file = save(document(), tables / "trial.toml")
        for words, code, told in (
            (("--positives", "20"), 0, "20 positives (as given) of 100 rows, 4 columns"),
            ((), 0, "50 positives (assumed; --positives says otherwise)"),
            (("--auc", "0.7"), 0, "of a model that reaches 0.700 without noise"),
            (("--positives", "100"), 2, "fewer than the 100 declared rows"),
        ):
            with pytest.raises(SystemExit) as left:
                main(["plan", str(file), *words])
            shown = capsys.readouterr()
            assert left.value.code == code
            assert told in shown.out + shown.err


class TestRefused:
    def test_what_passes_the_budget_with_what_would_pass(self, tables: Path) -> None:
        content = with_jobs(training("a"), training("model"))
        found = planned(content, tables)
        (first, refused, expand) = found.jobs[1:]
        assert first.refused_by is None
        assert refused.refused_by == "budget.epsilon"
        assert refused.epsilon_spent == first.epsilon_spent
        assert refused.remedy == (
            "ask for an epsilon of at most 0.6, or agree on a budget of at least 1.47; 0.20 is left"
        )
        for epsilon, names in ((0.6, []), (0.61, ["model", "best"])):
            asked = with_jobs(training("a"), training("model", epsilon=epsilon))
            assert [job.job for job in planned(asked, tables).refused] == names
        assert (expand.refused_by, expand.remedy) == (
            "expand.train",
            "training 'model' would be refused: mend it",
        )
        assert [job.job for job in found.refused] == ["model", "best"]
        assert found.epsilon_for_all == 1.47
        content["agreement"]["budget"]["epsilon"] = 1.47
        assert planned(content, tables).refused == []

    def test_what_budget_all_of_several_refused_jobs_fit(
        self, tables: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        content = with_jobs(training("a"), training("b"), training("model"))
        found = planned(content, tables)
        assert [job.remedy.partition("at least ")[2][:4] for job in found.refused[:2]] == [
            "1.47",
            "1.47",
        ]  # each as if the other did not run
        assert found.epsilon_for_all > 1.47
        with pytest.raises(SystemExit):
            main(["plan", str(save(content, tables / "several.toml"))])
        told = f"all of them fit from a budget of epsilon {found.epsilon_for_all:.2f}"
        assert told in capsys.readouterr().out
        for budget, fits in ((found.epsilon_for_all, True), (found.epsilon_for_all - 0.01, False)):
            content["agreement"]["budget"]["epsilon"] = budget
            assert (planned(content, tables).refused == []) is fits

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
        assert "allow a larger epsilon" in job.remedy
        assert job.noise_multiplier is None
        least = float(re.search(r"; (\S+) is the smallest in reach$", job.remedy)[1])
        for epsilon, refused in ((least, None), (0.98 * least, "epsilon")):
            job = planned(with_jobs(training("model", epsilon=epsilon)), tables).jobs[1]
            assert job.refused_by == refused

    @pytest.mark.parametrize(
        ("changes", "names", "remedy"),
        [
            (
                {"match": {"minimum_match": 51}},
                ["find", "model", "best"],
                "brand declares 50 rows, and it takes 51: agree on a minimum of at most 50",
            ),
            (
                {"expand": {"minimum_segment": 26}},
                ["best"],
                (
                    "0.5 of the 50 rows that a partner declares are 25 people: agree on a minimum "
                    "of at most 25, or on a larger maximum_share"
                ),
            ),
        ],
    )
    def test_a_minimum_that_the_declared_rows_cannot_meet(
        self, tables: Path, changes: Document, names: list[str], remedy: str
    ) -> None:
        content = document()
        for section, terms in changes.items():
            content["agreement"][section] |= terms
        found = planned(content, tables)
        assert [job.job for job in found.refused] == names
        assert found.refused[0].remedy == remedy
        (term,) = (f"{section}.{key}" for section, terms in changes.items() for key in terms)
        assert found.refused[0].refused_by == term

    @pytest.mark.parametrize("reveal", ["partner-learns-members", "size-only"])
    def test_sizes_that_the_budget_cannot_bear_with_what_it_can(self, reveal: str) -> None:
        def found(size_epsilon: float) -> PlannedJob:
            content = match_alone(reveal, size_epsilon, budget=1.2)
            return plan(content, clock=lambda: parties.NOW).jobs[0]

        refused = found(2.0)
        assert refused.refused_by == "budget.epsilon"
        best = float(
            re.search(r"ask for match\.size_epsilon of at most (\S+), or", refused.remedy)[1]
        )
        assert (found(best).refused_by, found(best + 0.01).refused_by) == (None, "budget.epsilon")
        # With sizes alone the brand tells every partner, a partner the brand.
        assert (best < 1.0) is (reveal == "size-only")


def summed(asked: str, **terms: object) -> Document:
    content = document()
    match, _, expand = content["jobs"]
    model = {"kind": "train", "name": "model", "match": "find", "noise": asked, "rounds": 3}
    if asked != "unsafe-none":
        model |= {"epsilon": 0.9, "delta": 1e-5}
    train = content["agreement"]["train"] | {"noise": [asked], **terms}
    agreement = content["agreement"] | {"train": train}
    return content | {"agreement": agreement, "jobs": [match, model, expand]}


def test_secure_sums_are_planned_with_whom_they_trust_and_what_the_noise_does(
    tables: Path,
) -> None:
    _, train, _ = planned(summed("distributed"), tables).jobs
    assert train.refused_by is None
    assert 0.8 < train.epsilon <= 0.9
    assert "1 partner colludes and 0 are missing; 3 secure sums" in train.note
    assert train.noise_multiplier is not None
    assert train.forecast is not None
    _, trusting, _ = planned(summed("distributed", colluding_partners=0), tables).jobs
    assert trusting.forecast is not None
    assert trusting.forecast.auc_loss < train.forecast.auc_loss


def test_sums_without_noise_are_planned_as_what_they_are(tables: Path) -> None:
    _, train, _ = planned(summed("unsafe-none", colluding_partners=0), tables).jobs
    assert train.refused_by is None
    assert (train.epsilon, train.noise_multiplier, train.forecast) == (0, None, None)
    assert train.note.startswith("protects no person")


def test_noise_that_is_not_agreed_is_no_plan(tables: Path) -> None:
    with pytest.raises(CollaborationError, match=r"agreement\.train\.noise"):
        planned(summed("distributed", noise=["local"]), tables)


class TestHiddenShare:
    """A plan of counting says what can come of it."""

    @staticmethod
    def planned(tables: Path, **terms: float) -> PlannedJob:
        content = with_jobs(training("model", labels="seeds-only"))
        content["agreement"]["train"] |= terms
        return planned(content, tables).jobs[1]

    @pytest.mark.parametrize(("epsilon", "heavy"), [(0.1, True), (0.5, True), (50.0, False)])
    def test_it_warns_where_noise_dominates_and_only_there(
        self, tables: Path, epsilon: float, heavy: bool
    ) -> None:
        expected = self.planned(tables, hidden_share_epsilon=epsilon).hidden_share
        assert expected is not None
        assert (expected.epsilon, expected.seeds, expected.others) == (epsilon, 50, 50)
        assert (expected.warning is not None) is heavy
        assert (expected.expected is None or expected.expected.lost) is heavy
        assert f"hidden share at epsilon {epsilon:g}" in expected.sentence

    def test_nothing_is_said_where_nobody_counts(self, tables: Path) -> None:
        assert self.planned(tables).hidden_share is None
        content = document()
        content["agreement"]["train"] |= {"hidden_share_epsilon": 0.5}
        assert planned(content, tables).jobs[1].hidden_share is None

    def test_the_command_prints_it(self, tables: Path, capsys: pytest.CaptureFixture[str]) -> None:
        content = with_jobs(training("model", labels="seeds-only"))
        content["agreement"]["train"] |= {"hidden_share_epsilon": 0.1}
        with pytest.raises(SystemExit):
            main(["plan", str(save(content, tables / "counted.toml"))])
        told = " ".join(capsys.readouterr().out.split())
        assert "hidden share at epsilon 0.1" in told
        assert "warning a hidden share from about 50 seeds" in told
