"""Views: a party's own people, in counts alone."""

import itertools
from collections import Counter
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from parties import PURPOSE, World, email, phone, record
from typer.testing import CliRunner

from compliance import records
from compliance.policy import ANALYST
from compliance.terms import Classification
from federation.auditing import audit_places
from federation.cli import app
from federation.errors import RefusedError, WorkspaceError
from federation.policies import policy_of, view_question
from federation.views import LEAST_UNIT, View, rounded_down, view
from privacy.errors import InvalidParameterError

MEASURE = {
    "purpose": PURPOSE,
    "columns": [{"name": "age", "edges": [32, 65]}, {"name": "colour"}],
    "epsilon": 1.0,
    "minimum_cell": 8,
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World.make(tmp_path_factory.mktemp("views"), measure=MEASURE)


@pytest.fixture
def world(made: World, tmp_path: Path) -> World:
    return made.copy(tmp_path / "workspace")


def look(world: World, *columns: str, match: str | None = None) -> View:
    return view(world.folder("retailer").path, columns, match=match, clock=world.clock)


def told(found: View) -> dict[tuple[str, ...], int | None]:
    return dict(zip(found.cells, found.counts, strict=True))


class TestWhatIsSeen:
    def test_people_by_category_rounded_down_to_the_agreed_minimum(self, world: World) -> None:
        found = look(world, "colour")  # of 50 people, 25 in each
        assert told(found) == {("green",): 24, ("red",): 24, ("other",): None}
        assert (found.party, found.purpose, found.unit) == ("retailer", PURPOSE, 8)

    def test_people_by_agreed_edges_and_cells_that_are_small_are_not_told(
        self, world: World
    ) -> None:
        ages = pd.read_csv(world.table("retailer"))["age"]
        assert (ages < 32).sum() == 4
        found = look(world, "age")
        assert told(found) == {
            ("below 32",): None,
            ("32 to below 65",): 32,
            ("65 or more",): 8,
            ("other",): None,
        }

    def test_by_two_columns(self, world: World) -> None:
        table = pd.read_csv(world.table("retailer"))
        exact = Counter(zip(table["age"] >= 32, table["colour"], strict=True))
        assert exact[False, "red"] == 2
        found = told(look(world, "colour", "age"))
        assert found["red", "below 32"] is None
        assert found["red", "32 to below 65"] == 16

    def test_only_of_people_who_consent_now(self, world: World) -> None:
        world.withdraw("retailer", range(10, 28, 2))
        assert told(look(world, "colour"))["red",] == 16

    def test_of_the_members_of_a_match_alone(self, world: World) -> None:
        with pytest.raises(WorkspaceError, match="keeps no members of that match"):
            look(world, "colour", match="find")
        world.run()
        assert told(look(world, "colour", match="find"))["red",] == 8  # of 10

    @given(st.lists(st.integers(0, 10_000), max_size=20), st.integers(LEAST_UNIT, 100))
    def test_a_count_is_a_multiple_at_most_one_unit_below(
        self, exact: list[int], unit: int
    ) -> None:
        for count, shown in zip(exact, rounded_down(np.array(exact, np.int64), unit), strict=True):
            assert (shown is None) is (count < unit)
            assert shown is None or (shown % unit == 0 and shown <= count < shown + unit)

    def test_a_smaller_minimum_is_no_licence_to_see_single_people(self, tmp_path: Path) -> None:
        world = World.make(tmp_path, measure=MEASURE | {"minimum_cell": 1})
        found = look(world, "age")
        assert found.unit == LEAST_UNIT
        assert told(found)["below 32",] is None


class TestWhatDecides:
    def test_the_log_tells_that_it_was_allowed_and_that_consent_was_read(
        self, world: World
    ) -> None:
        world.withdraw("retailer", [10, 12])
        look(world, "colour")
        *_, decided, used = world.leaves("retailer")
        assert isinstance(decided, records.AccessDecided)
        assert (decided.allowed, decided.clauses) == (True, ("agreed:view.counts",))
        assert (decided.computation, decided.recipient) == ("view.counts", ANALYST)
        assert isinstance(used, records.ConsentUsed)
        assert (used.purpose, used.rows, used.eligible) == (PURPOSE, 50, 48)
        assert used.recipients == ()
        assert used.cohort_root is not None

    def test_an_audit_finds_nothing_wrong_with_it(self, world: World, tmp_path: Path) -> None:
        world.run()
        ticks = itertools.count(1)
        retailer = world.folder("retailer").path
        view(retailer, ["age"], clock=lambda: world.now + timedelta(seconds=next(ticks)))
        _, found, _ = audit_places(
            [str(retailer)],
            agreements=(),
            policy=None,
            scratch=tmp_path / "scratch",
            now=world.now + timedelta(hours=1),
        )
        assert found == ()

    def test_it_costs_nothing_and_jobs_run_after_it(self, world: World) -> None:
        look(world, "colour")
        assert not world.statement("retailer").charges
        assert not list(world.folder("retailer").path.glob("view*"))
        world.run()
        assert any(isinstance(one, records.Release) for one in world.leaves("retailer"))

    def test_without_terms_of_counting_there_is_no_permit(self, tmp_path: Path) -> None:
        world = World.make(tmp_path)
        told = (
            "no permit of the agreement covers view.counts from own analyst to retailer "
            r"\(agreement.measure is missing\): ask for what it has terms for, or have it amended"
        )
        with pytest.raises(RefusedError, match=told):
            look(world, "colour")
        decided, refusal = world.leaves("retailer")[-2:]
        assert isinstance(decided, records.AccessDecided)
        assert (decided.allowed, decided.clauses) == (False, ())
        assert isinstance(refusal, records.Refusal)

    @pytest.mark.parametrize("head", ["principal", 'principal == Party::"own analyst"'])
    def test_the_party_may_forbid_it(self, world: World, head: str) -> None:
        world.folder("retailer").policy.write_text(
            f'@id("no-views") forbid ({head}, action, resource) '
            'when { principal.role == "analyst" && context.scenario == "view" };'
        )
        with pytest.raises(RefusedError, match="by no-views"):
            look(world, "colour")
        assert not [one for one in world.leaves("retailer") if one.kind == "consent.used"]

    def test_sensitive_columns_are_never_seen(self, made: World) -> None:
        age, colour = made.agreement.features
        colour = colour.model_copy(update={"classification": Classification.SENSITIVE})
        agreement = made.agreement.model_copy(update={"features": (age, colour)})
        folder = made.folder("retailer")
        for columns, allowed in ((("age",), True), (("age", "colour"), False)):
            asked = view_question(folder, agreement, columns, time=made.now)
            decision = policy_of(folder, agreement).decide(asked)
            assert decision.allowed is allowed
        assert decision.clauses == ("agreed:view.classification",)
        assert decision.remedy == "view columns that are not sensitive"

    def test_nobody_but_the_partys_own_analyst_sees_it(self, made: World) -> None:
        folder, agreement = made.folder("retailer"), made.agreement
        asked = view_question(folder, agreement, ("age",), time=made.now)
        for changed in ({"sender": "brand"}, {"sender": "retailer"}, {"recipient": "coordinator"}):
            assert not policy_of(folder, agreement).decide(replace(asked, **changed)).allowed

    def test_a_feature_that_is_not_agreed_for_counting_is_refused(self, tmp_path: Path) -> None:
        world = World.make(tmp_path, measure=MEASURE | {"columns": [{"name": "colour"}]})
        told = (
            "refused by retailer under measure.columns: expected columns that are agreed for "
            "counting, which are colour, got 'age': name these, or have measure.columns of the "
            "agreement amended"
        )
        with pytest.raises(RefusedError) as refused:
            look(world, "age")
        assert str(refused.value) == told
        assert isinstance(world.leaves("retailer")[-1], records.Refusal)

    @pytest.mark.parametrize(
        ("columns", "told"),
        [
            ((), "got none: name one of age, colour"),
            (("age", "age"), "got one of them twice: name it once"),
            (("age", "colour", "x"), "got 3: leave out others than two"),
            (
                ("email",),
                (
                    "expected columns among the agreed features age, colour, got another: name one of "
                    "these, or have the agreement amended"
                ),
            ),
            (("color", "age"), "got another: did you mean 'colour'?"),
        ],
    )
    def test_what_is_no_column_to_count_by_is_a_mistake(
        self, world: World, columns: tuple[str, ...], told: str
    ) -> None:
        with pytest.raises(InvalidParameterError, match="expected") as raised:
            look(world, *columns)
        assert str(raised.value).endswith(told)

    def test_not_after_the_agreement(self, world: World) -> None:
        world.now = world.agreement.valid_until
        with pytest.raises(RefusedError, match="valid_until"):
            look(world, "colour")


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_the_command_shows_counts_and_nobody(world: World, options: list[str]) -> None:
    path = world.folder("retailer").path
    shown = CliRunner().invoke(app, ["view", str(path), "--by", "colour,age", *options])
    assert shown.exit_code == 0, shown.output
    assert "green" in shown.output
    for person in range(70):
        for identifier in (record("retailer", person), email(person), phone(person)):
            assert identifier not in shown.output
    entries = (path / "log" / "tile" / "entries").rglob("*")  # no signature, which says anything
    log = b"".join(file.read_bytes() for file in entries if file.is_file())
    assert b"gmx" not in log
    assert b"R#7" not in log
