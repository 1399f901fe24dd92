"""Measuring: what is counted, with which noise, what is told of it, and what it costs."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from parties import MATCH, PURPOSE, Parties, World
from pydantic import ValidationError
from trials import document, write_trial

from compliance import records
from compliance.agreement import Agreement
from compliance.errors import InvalidAgreementError
from compliance.rendering import render
from compliance.terms import CountNoise, Reveal
from federation.audit import _Charges, verify_party
from federation.cli import main
from federation.collaboration import load_collaboration
from federation.coordinator import write_jobs
from federation.errors import CollaborationError, MessageError, RefusedError
from federation.jobs.exchange import Say
from federation.jobs.measure import (
    WITHHELD,
    CountPlan,
    Measurement,
    coordinate_measure,
    count_people,
    read_measurement,
)
from federation.messages import (
    Acknowledged,
    MeasureCounts,
    MeasurePublished,
    MeasureRequest,
    Message,
)
from federation.objections import policy_objections
from federation.plan import plan
from federation.specification import MeasureSpec
from federation.trial.simulation import simulate
from privacy.accounting import (
    DiscreteGaussianEvent,
    DiscreteLaplaceEvent,
    RepeatedEvent,
    epsilon_of,
)
from privacy.accounting.events import to_json
from privacy.errors import InvalidParameterError
from privacy.measurement import Bins, Categories, Cells, count_mechanism, noised_counts
from privacy.randomness import SecretStream, seeded_secret

MEASURE_TERMS: Mapping[str, Any] = {
    "purpose": PURPOSE,
    "columns": [{"name": "age", "edges": [40, 65]}, {"name": "colour"}],
    "noise": ["discrete-laplace", "discrete-gaussian"],
    "epsilon": 1.0,
    "delta": 1e-5,
    "minimum_cell": 3,
}
PARTIES = Parties.in_memory(measure=MEASURE_TERMS)
AGREEMENT = PARTIES.agreement
PURE = MeasureSpec(name="count", match="find", columns=("colour",), epsilon=1.0)
BLURRED = MeasureSpec(
    name="count",
    match="find",
    columns=("age", "colour"),
    noise=CountNoise.DISCRETE_GAUSSIAN,
    epsilon=1.0,
    delta=1e-5,
)
PARTNERS = ("retailer", "courier")


def stream(label: str = "one") -> SecretStream:
    return SecretStream(seeded_secret(5, "measure"), label)


# --- cells and noise ----------------------------------------------------------------------------


def test_every_row_is_in_the_cell_of_what_it_holds() -> None:
    cells = Cells((Bins("age", (40.0, 65.0)), Categories("colour", ("green", "red"))))
    ages = np.array([39.9, 40.0, 65.0, np.nan])
    colours = np.array(["green", "red", "blue", ""])
    found = cells.of({"age": ages, "colour": colours})
    assert [cells.labels[cell] for cell in found] == [
        ("below 40", "green"),
        ("40 to below 65", "red"),
        ("65 or more", "other"),
        ("other", "other"),
    ]
    assert cells.count == len(cells.labels) == 12


@pytest.mark.parametrize("edges", [(), (2.0, 1.0), (1.0, 1.0), (1.0, float("inf"))])
def test_edges_that_do_not_rise_cut_nothing(edges: tuple[float, ...]) -> None:
    with pytest.raises(InvalidParameterError, match="rising"):
        Bins("age", edges)


@given(epsilon=st.floats(0.001, 20.0), tables=st.integers(1, 9))
def test_pure_noise_keeps_its_promise_over_all_tables(epsilon: float, tables: int) -> None:
    mechanism = count_mechanism(epsilon, None, tables=tables)
    assert isinstance(mechanism, DiscreteLaplaceEvent)
    assert tables * mechanism.sensitivity / mechanism.scale <= epsilon * (1 + 1e-15)
    assert tables / (mechanism.scale * (1 - 1e-9)) > epsilon


def test_gaussian_noise_keeps_its_promise_over_all_tables() -> None:
    mechanism = count_mechanism(1.0, 1e-5, tables=3)
    assert isinstance(mechanism, DiscreteGaussianEvent)
    assert 0.99 < epsilon_of([RepeatedEvent(event=mechanism, count=3)], 1e-5) <= 1.0


@pytest.mark.parametrize("delta", [None, 1e-5])
def test_counts_are_true_but_for_noise_of_the_stated_spread(delta: float | None) -> None:
    mechanism = count_mechanism(1.0, delta)
    cells = np.repeat(np.arange(300), 200)
    members = np.arange(len(cells)) % 4 == 0
    counts = noised_counts(cells, (members, ~members), 300, mechanism, stream())
    errors = counts - np.array([[50], [150]])
    if isinstance(mechanism, DiscreteLaplaceEvent):
        r = np.exp(-1 / mechanism.scale)
        spread = np.sqrt(2 * r) / (1 - r)
    else:
        spread = mechanism.noise_multiplier
    assert abs(errors.mean()) < 0.25 * spread
    assert 0.85 * spread < errors.std() < 1.15 * spread


def test_a_person_is_in_one_count() -> None:
    both, cells = np.ones(2, dtype=bool), np.zeros(2, dtype=np.int64)
    with pytest.raises(InvalidParameterError, match="two groups"):
        noised_counts(cells, (both, both), 1, count_mechanism(1.0, None), stream())


# --- the contract -------------------------------------------------------------------------------


def agreed(**changes: Any) -> Agreement:
    return Parties.in_memory(measure={**MEASURE_TERMS, **changes}).agreement


WRONG_TERMS = {
    "a purpose of nobody": {"purpose": "other"},
    "a column of nobody": {"columns": [{"name": "height", "edges": [1]}]},
    "numbers without edges": {"columns": [{"name": "age"}]},
    "words with edges": {"columns": [{"name": "colour", "edges": [1]}]},
    "edges that fall": {"columns": [{"name": "age", "edges": [2, 1]}]},
    "a column twice": {"columns": [{"name": "colour"}, {"name": "colour"}]},
    "no column": {"columns": []},
    "Gaussian noise without a delta": {"delta": None},
    "more than the budget": {"epsilon": 2.0},
    "more delta than the budget": {"delta": 1e-3},
}


@pytest.mark.parametrize("changes", WRONG_TERMS.values(), ids=WRONG_TERMS)
def test_terms_that_cannot_be_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises((InvalidAgreementError, ValidationError), match=r"measure|columns"):
        agreed(**changes)


def test_people_read_what_may_be_counted() -> None:
    text = render(AGREEMENT)
    assert "## Measure" in text
    assert "minimum cell: `3`" in text
    assert "## Measure" not in render(Parties.in_memory().agreement)


OBJECTIONS: dict[str, tuple[dict[str, Any], list[str]]] = {
    "more epsilon": ({"epsilon": 1.1}, ["measure.epsilon"]),
    "more delta": (
        {"noise": CountNoise.DISCRETE_GAUSSIAN, "delta": 1e-4},
        ["measure.delta"],
    ),
    "a column of nobody": ({"columns": ("height",)}, ["measure.columns"]),
}


@pytest.mark.parametrize(("changes", "terms"), OBJECTIONS.values(), ids=OBJECTIONS)
def test_a_job_keeps_within_the_contract(changes: dict[str, Any], terms: list[str]) -> None:
    spec = PURE.model_copy(update=changes)
    assert [term for term, _ in policy_objections(spec, AGREEMENT)] == terms


def test_what_is_agreed_may_be_counted_and_nothing_else() -> None:
    assert policy_objections(PURE, AGREEMENT) == policy_objections(BLURRED, AGREEMENT) == ()
    none = Parties.in_memory().agreement
    assert [term for term, _ in policy_objections(PURE, none)] == ["measure.columns"]
    laplace = agreed(noise=["discrete-laplace"], delta=None)
    assert [term for term, _ in policy_objections(BLURRED, laplace)] == ["measure.noise"]
    match = AGREEMENT.match.model_copy(update={"reveal": Reveal.BRAND_LEARNS_MEMBERS})
    hidden = AGREEMENT.model_copy(update={"match": match})
    assert [term for term, _ in policy_objections(PURE, hidden)] == ["match.reveal"]
    wide = agreed(columns=[{"name": "age", "edges": list(range(100))}, {"name": "colour"}])
    assert policy_objections(BLURRED, wide) == ()


@pytest.mark.parametrize(
    "fields",
    [
        {"columns": []},
        {"columns": ["age", "age"]},
        {"columns": ["a", "b", "c", "d"]},
        {"epsilon": 0.0},
        {"delta": 1e-5},
        {"noise": "discrete-gaussian"},
        {"noise": "none"},
    ],
    ids=str,
)
def test_a_job_that_contradicts_itself_is_none(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        MeasureSpec.model_validate(PURE.model_dump() | fields)


# --- the steps ----------------------------------------------------------------------------------


def said(sender: str, recipient: str, body: Any, payload: bytes = b"") -> Message:
    return PARTIES.message(sender, recipient, "count", body, payload)


def counts(name: str, values: list[int]) -> Message:
    payload = np.array(values, dtype="<i8").tobytes()
    return said(name, "coordinator", MeasureCounts(), payload)


def published(payload: bytes, spec: MeasureSpec = PURE) -> Message:
    return said("coordinator", "brand", MeasurePublished(spec=spec), payload)


def measured() -> Measurement:
    job = coordinate_measure(AGREEMENT, PURE)
    assert next(job) == [Say(name, "count", MeasureRequest(spec=PURE)) for name in PARTNERS]
    told = [counts("retailer", [7, WITHHELD, 3, 9, 8, 7]), counts("courier", [3] * 6)]
    (say,) = job.send(told)
    assert isinstance(say, Say)
    assert (say.recipient, say.body) == ("brand", MeasurePublished(spec=PURE))
    with pytest.raises(StopIteration) as end:
        job.send([said("brand", "coordinator", Acknowledged())])
    assert say.payload == end.value.value.canonical_bytes
    return end.value.value


def test_the_coordinator_collects_and_the_brand_reads() -> None:
    found = measured()
    assert found.cells == (("green",), ("red",), ("other",))
    assert found.parties[0].members == (7, None, 3)
    assert found.parties[0].others == (9, 8, 7)
    assert found.spread == 2.0  # two tables at epsilon 1
    assert read_measurement(published(found.canonical_bytes), AGREEMENT) == found


WRONG_COUNTS = {
    "too few": [3] * 5,
    "too many": [3] * 7,
    "below the minimum": [2, 3, 3, 3, 3, 3],
    "below nothing": [-2, 3, 3, 3, 3, 3],
    "beyond any": [1 << 41, 3, 3, 3, 3, 3],
}


@pytest.mark.parametrize("values", WRONG_COUNTS.values(), ids=WRONG_COUNTS)
def test_counts_that_cannot_be_are_refused(values: list[int]) -> None:
    job = coordinate_measure(AGREEMENT, PURE)
    next(job)
    with pytest.raises(MessageError, match="courier"):
        job.send([counts("retailer", [3] * 6), counts("courier", values)])


def altered(**changes: Any) -> bytes:
    return json.dumps(measured().model_dump(mode="json") | changes).encode()


WRONG_MEASUREMENTS: dict[str, dict[str, Any]] = {
    "another job": {"job": "other"},
    "another agreement": {"agreement": "0" * 64},
    "less noise than agreed": {"spread": 1.0},
    "other cells": {"cells": [["green"], ["red"], ["blue"]]},
    "a lower minimum": {"minimum_cell": 1},
    "nobody": {"parties": []},
    "an unknown field": {"more": 1},
    "one party twice": {
        "parties": [{"party": "courier", "members": [3] * 3, "others": [3] * 3}] * 2
    },
    "a cell missing": {
        "parties": [{"party": one, "members": [3] * 2, "others": [3] * 3} for one in PARTNERS]
    },
    "a count below the minimum": {
        "parties": [{"party": one, "members": [2] * 3, "others": [3] * 3} for one in PARTNERS]
    },
}


@pytest.mark.parametrize("changes", WRONG_MEASUREMENTS.values(), ids=WRONG_MEASUREMENTS)
def test_another_measurement_than_asked_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(MessageError, match="measurement"):
        read_measurement(published(altered(**changes)), AGREEMENT)


def test_no_measurement_is_read_without_terms() -> None:
    with pytest.raises(RefusedError, match="agree on terms"):
        CountPlan.of(PURE, Parties.in_memory().agreement)


def test_what_is_small_is_withheld_after_the_noise() -> None:
    counting = CountPlan.of(PURE, AGREEMENT)
    features = {"colour": np.array(["green"] * 500 + ["red"])}
    payload = count_people(counting, features, np.arange(501) < 300, seeded_secret(3, "small"))
    told = np.frombuffer(payload, dtype="<i8")
    assert np.all((told >= 3) | (told == WITHHELD))
    assert abs(told[0] - 300) < 50 > abs(told[3] - 200)
    assert counting.charge == RepeatedEvent(event=counting.mechanism, count=2)


# --- at the parties -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> World:
    world = World.make(tmp_path_factory.mktemp("measure"), unsafe_seed=3, measure=MEASURE_TERMS)
    write_jobs(world.folder("coordinator"), (MATCH, PURE.model_copy(update={"epsilon": 0.6})))
    return world


@pytest.fixture(scope="module")
def ended(made: World, tmp_path_factory: pytest.TempPathFactory) -> World:
    world = made.copy(tmp_path_factory.mktemp("ended") / "copy")
    world.run()
    return world


def test_brand_and_coordinator_keep_what_all_partners_told(ended: World) -> None:
    kept = [
        ended.folder(name).measurement("count").read_bytes() for name in ("brand", "coordinator")
    ]
    assert kept[0] == kept[1]
    found = Measurement.model_validate_json(kept[0])
    assert tuple(party.party for party in found.parties) == PARTNERS
    for name in ("brand", "coordinator"):
        (leaf,) = (one for one in ended.leaves(name) if isinstance(one, records.MeasurementMade))
        assert (leaf.measurement_digest, leaf.epsilon, leaf.delta) == (found.digest, 0.6, None)


def test_a_count_is_charged_once_for_all_tables_of_a_person(ended: World) -> None:
    for name in PARTNERS:
        (charge,) = ended.statement(name).charges
        assert charge.charge_id == "count/measure.counts/coordinator"
        event = DiscreteLaplaceEvent(scale=2 / 0.6)
        assert charge.event == RepeatedEvent(event=event, count=2)
        assert ended.statement(name).epsilon_spent <= 0.6
        used = [one for one in ended.leaves(name) if isinstance(one, records.ConsentUsed)]
        assert used[-1].purpose == PURPOSE


def test_another_question_under_the_same_name_is_refused(ended: World, tmp_path: Path) -> None:
    world = ended.copy(tmp_path / "copy")
    other = PURE.model_copy(update={"epsilon": 0.3})
    question = world.parties.seal("coordinator", "courier", "count", MeasureRequest(spec=other))
    answer = world.ask("courier", question)
    assert answer.body.kind == "refused"
    assert len(world.statement("courier").charges) == 1


def test_too_few_members_are_not_counted(ended: World, tmp_path: Path) -> None:
    world = ended.copy(tmp_path / "copy")
    spec = PURE.model_copy(update={"name": "again", "epsilon": 0.3})
    world.withdraw("courier", range(20, 28))
    question = world.parties.seal("coordinator", "courier", spec.name, MeasureRequest(spec=spec))
    answer = world.ask("courier", question)
    assert (answer.body.kind, answer.body.term) == ("refused", "match.minimum_match")
    assert len(world.statement("courier").charges) == 1


def test_a_log_that_counts_for_more_than_agreed_does_not_hold(ended: World) -> None:
    leaves = ended.leaves("courier")
    reserved = next(one for one in leaves if isinstance(one, records.BudgetReserved))
    released = next(
        one for one in leaves if isinstance(one, records.Release) and one.charge_id is not None
    )
    loud = DiscreteLaplaceEvent(scale=0.9)
    price = epsilon_of([loud], 1e-5)
    dear = reserved.model_copy(
        update={"mechanism": to_json(loud), "epsilon": price, "epsilon_spent": price}
    )
    charges = _Charges(ended.agreement)
    assert charges.replay(reserved) is charges.replay(released) is None
    charges = _Charges(ended.agreement)
    assert charges.replay(dear) is None
    assert "more epsilon than the agreement allows" in str(charges.replay(released))
    bare = ended.agreement.model_copy(update={"measure": None})
    charges = _Charges(bare)
    assert charges.replay(reserved) is None
    assert "allows none" in str(charges.replay(released))
    assert verify_party(ended.folder("courier").path).epsilon_spent > 0.5


# --- the file -----------------------------------------------------------------------------------


def content(**changes: Any) -> dict[str, Any]:
    found = document()
    found["agreement"]["measure"] = dict(MEASURE_TERMS)
    job = {
        "kind": "measure",
        "name": "count",
        "match": "find",
        "columns": ["colour"],
        "epsilon": 0.5,
    }
    found["jobs"] = [{"kind": "match", "name": "find"}, job | changes]
    del found["evaluate"]
    return found


def test_a_plan_prices_counts(tmp_path: Path) -> None:
    file = write_trial(tmp_path, content())
    planned = plan(load_collaboration(file)).jobs[1]
    assert planned.computation == "measure"
    assert 0.3 < planned.epsilon <= 0.5
    assert planned.refused_by is None
    assert "below 3 are withheld" in planned.note
    twice = content()
    twice["jobs"] += [twice["jobs"][1] | {"name": "again", "epsilon": 0.9}]
    refused = plan(load_collaboration(write_trial(tmp_path, twice))).jobs[2]
    assert refused.refused_by == "budget.epsilon"
    assert "ask for an epsilon of at most" in refused.remedy


def test_a_file_whose_job_passes_its_contract_is_mistaken(tmp_path: Path) -> None:
    with pytest.raises(CollaborationError, match=r"jobs\[1\].epsilon"):
        load_collaboration(write_trial(tmp_path, content(epsilon=1.1)))
    with pytest.raises(CollaborationError, match=r"jobs\[1\].match"):
        load_collaboration(write_trial(tmp_path, content(match="model")))


def test_a_whole_collaboration_counts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = simulate(write_trial(tmp_path, content()), tmp_path / "w")
    found = Measurement.model_validate_json(
        (tmp_path / "w/brand/jobs/count/measurement.json").read_bytes()
    )
    told = [one for party in found.parties for one in (*party.members, *party.others)]
    assert all(one is None or 3 <= one < 100 for one in told)
    assert any(one is not None for one in told)
    assert [one.measurement for one in report.measurements] == [found]
    page = (tmp_path / "w/report.html").read_text(encoding="utf-8")
    assert "Counts: count" in page
    assert f"± {found.standard_deviation:.1f}" in page
    for path in ("w", "w/brand"):
        with pytest.raises(SystemExit) as caught:
            main(["measurement", "show", str(tmp_path / path)])
        assert caught.value.code == 0
        said = capsys.readouterr().out
        assert said.count(f"± {found.standard_deviation:.1f}") == len(told) - found.withheld
        assert f"{found.withheld} withheld, which are below 3" in said
        assert said.count("withheld (below 3)") == found.withheld
    with pytest.raises(SystemExit):
        main(["measurement", "show", str(tmp_path / "w"), "--json"])
    (shown,) = json.loads(capsys.readouterr().out)
    assert shown["standard_deviation"] == found.standard_deviation
    with pytest.raises(SystemExit) as caught:
        main(["measurement", "show", str(tmp_path / "w/courier")])
    assert caught.value.code == 2
    assert "expected measurements in" in capsys.readouterr().err


def test_the_standard_deviation_is_that_of_the_noise() -> None:
    laplace = measured().model_copy(update={"spread": 4.0})
    values = np.arange(-400, 401)
    chances = np.exp(-np.abs(values) / 4.0)
    assert laplace.standard_deviation**2 == pytest.approx(
        float((values**2 * chances).sum() / chances.sum()), rel=1e-9
    )
