"""What a person may lose within any stretch of days: the ledger, the gate, the plan, the audit."""

import json
import tempfile
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from parties import JOBS, World, collaboration

from compliance import records
from compliance.agreement import Agreement
from compliance.auditing import FindingKind, PartyLog, audit
from compliance.comparison import Effect, compare
from compliance.rendering import render, render_html
from compliance.reporting import budget_report
from compliance.reporting import figures as figures_of
from federation.audit_rules import rules_for
from federation.collaboration import Collaboration, drafted_agreement
from federation.errors import RefusedError
from federation.messages import Refused, SealedMessage, unseal
from federation.plan import plan
from privacy.accounting import Budget, Event, GaussianEvent, Ledger, Period, epsilon_of, to_json
from privacy.errors import (
    BudgetExceededError,
    InvalidParameterError,
    LedgerError,
    PeriodExceededError,
)

EVENT = GaussianEvent(noise_multiplier=8.0)
BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
DELTA, DAYS = 1e-6, 10
IN_ALL, IN_PERIOD = 5, 2
"""How many charges fit over everything, and within the days."""


def of(count: int, delta: float = DELTA) -> float:
    return epsilon_of([EVENT] * count, delta)


BUDGET = Budget(of(IN_ALL), DELTA, Period(DAYS, of(IN_PERIOD), DELTA))


class Clock:
    """Reads what it was put to."""

    def __init__(self) -> None:
        self.now = BEGIN

    def __call__(self) -> datetime:
        return self.now

    def put(self, **since_begin: float) -> None:
        self.now = BEGIN + timedelta(**since_begin)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def ledger(tmp_path: Path, clock: Clock) -> Ledger:
    return open_ledger(tmp_path, clock)


def open_ledger(folder: Path, clock: Callable[[], datetime], budget: Budget = BUDGET) -> Ledger:
    return Ledger.open(folder / "ledger.db", agreement="a1" * 32, budget=budget, clock=clock)


def spend(ledger: Ledger, *names: str) -> None:
    for name in names:
        ledger.reserve(name, EVENT)
        ledger.commit(name)


class TestLedger:
    def test_a_period_bears_less_than_everything(self, ledger: Ledger, clock: Clock) -> None:
        spend(ledger, "a", "b")
        with pytest.raises(PeriodExceededError, match="within 10 days") as refused:
            ledger.reserve("c", EVENT)
        assert refused.value.fits_from == BEGIN + timedelta(days=DAYS)
        assert (refused.value.asked, refused.value.cap) == (of(3), of(2))
        assert ledger.charge("c") is None
        clock.put(days=DAYS)
        spend(ledger, "c", "d")
        clock.put(days=2 * DAYS)
        spend(ledger, "e")
        with pytest.raises(BudgetExceededError) as whole:
            ledger.reserve("f", EVENT)
        assert not isinstance(whole.value, PeriodExceededError)

    def test_what_fits_from_a_moment_does_not_fit_just_before(
        self, ledger: Ledger, clock: Clock
    ) -> None:
        spend(ledger, "a")
        clock.put(days=3, hours=5)
        spend(ledger, "b")
        with pytest.raises(PeriodExceededError) as refused:
            ledger.reserve("c", EVENT)
        moment = refused.value.fits_from
        assert moment == BEGIN + timedelta(days=DAYS)
        clock.now = moment - timedelta(microseconds=1)
        with pytest.raises(PeriodExceededError):
            ledger.check_period(EVENT, "c")
        clock.now = moment
        ledger.check_period(EVENT, "c")
        ledger.reserve("c", EVENT)

    def test_what_no_time_makes_fit_says_so(self, ledger: Ledger) -> None:
        spend(ledger, "a")
        with pytest.raises(PeriodExceededError) as refused:
            ledger.reserve("b", GaussianEvent(noise_multiplier=4.0))
        assert refused.value.fits_from is None
        assert "wait" not in str(refused.value)

    def test_a_clock_that_is_put_back_frees_nothing(self, ledger: Ledger, clock: Clock) -> None:
        clock.put(days=50)
        spend(ledger, "a", "b")
        for days in (0, 49, 50, 59.9):
            clock.put(days=days)
            with pytest.raises(PeriodExceededError):
                ledger.reserve("c", EVENT)
        clock.put(days=60)
        ledger.reserve("c", EVENT)

    def test_a_charge_that_is_open_weighs_however_old_it_is(
        self, ledger: Ledger, clock: Clock
    ) -> None:
        ledger.reserve("a", EVENT)
        clock.put(days=5 * DAYS)
        spend(ledger, "b")
        with pytest.raises(PeriodExceededError):
            ledger.reserve("c", EVENT)
        ledger.commit("a")  # what it paid for leaves now
        clock.put(days=6 * DAYS - 1)
        with pytest.raises(PeriodExceededError):
            ledger.reserve("c", EVENT)
        clock.put(days=6 * DAYS)
        ledger.reserve("c", EVENT)

    def test_a_refund_gives_the_period_back(self, ledger: Ledger) -> None:
        spend(ledger, "a")
        ledger.reserve("b", EVENT)
        ledger.refund("b")
        ledger.reserve("c", EVENT)
        assert ledger.statement().period.epsilon_left == 0.0
        with pytest.raises(PeriodExceededError):
            ledger.reserve("b", EVENT)

    def test_repeating_a_commit_does_not_renew_it(self, ledger: Ledger, clock: Clock) -> None:
        spend(ledger, "a", "b")
        clock.put(days=DAYS)
        ledger.commit("a")
        spend(ledger, "c", "d")
        assert len(ledger.statement().charges) == 4

    def test_what_leaves_again_weighs_anew_and_only_where_it_fits(
        self, ledger: Ledger, clock: Clock
    ) -> None:
        spend(ledger, "a", "b")
        clock.put(days=DAYS - 1)
        assert ledger.renew("a").since == clock.now  # it weighs still, and for longer from now on
        clock.put(days=DAYS)
        spend(ledger, "c")
        with pytest.raises(PeriodExceededError, match="'d'"):
            ledger.reserve("d", EVENT)
        before = ledger.statement().charges
        with pytest.raises(PeriodExceededError, match="'b'") as refused:
            ledger.renew("b")
        assert ledger.statement().charges == before
        assert refused.value.fits_from == BEGIN + timedelta(days=2 * DAYS - 1)
        clock.now = refused.value.fits_from
        ledger.renew("b")
        assert ledger.statement().period.epsilon_left == 0.0
        assert ledger.statement().epsilon_spent == of(3)

    @pytest.mark.parametrize("steps", [(), ("reserve",), ("reserve", "refund")])
    def test_only_what_is_committed_leaves_again(
        self, ledger: Ledger, steps: tuple[str, ...]
    ) -> None:
        for step in steps:
            take(ledger, step, "a")
        with pytest.raises(LedgerError, match="not committed"):
            ledger.renew("a")

    def test_a_period_that_is_agreed_later_weighs_what_was_before(
        self, tmp_path: Path, clock: Clock
    ) -> None:
        before = open_ledger(tmp_path, clock, Budget(BUDGET.epsilon, BUDGET.delta))
        spend(before, "a", "b")
        assert before.statement().period is None
        after = before.amend(BUDGET)
        with pytest.raises(PeriodExceededError):
            after.reserve("c", EVENT)
        with pytest.raises(LedgerError, match="other terms"):
            before.reserve("c", EVENT)
        assert open_ledger(tmp_path, clock).statement() == after.statement()

    @pytest.mark.parametrize(
        "wrong", [{"days": 0}, {"days": 40_000}, {"epsilon": 0.0}, {"delta": 0.0}]
    )
    def test_a_period_out_of_range_is_refused(self, wrong: dict[str, Any]) -> None:
        with pytest.raises(InvalidParameterError):
            Period(**{"days": DAYS, "epsilon": 1.0, "delta": DELTA} | wrong)


Step = tuple[str, str, int]
STEPS = st.tuples(
    st.sampled_from(["reserve", "reserve", "commit", "commit", "refund"]),
    st.sampled_from("abcdefgh"),
    st.integers(-12, 15),
)


class Oracle:
    """The same rules, told plainly: every charge has the stretch in which it may have left."""

    def __init__(self) -> None:
        self.state: dict[str, str] = {}
        self.stretches: dict[str, tuple[float, float]] = {}
        self.now = float("-inf")

    def take(self, step: str, name: str, day: float) -> str:
        """Return what is to become of a step: the charge's state, or why not."""
        now, state = max(self.now, day), self.state.get(name)
        if step == "reserve":
            if state in {"reserved", "committed"}:
                return state
            weighing = [one for one, stands in self.state.items() if stands != "refunded"]
            if len(weighing) == IN_ALL:
                return "cap"
            if sum(self.may_leave_after(one, now - DAYS) for one in weighing) == IN_PERIOD:
                return "period"
            self.now, self.state[name], self.stretches[name] = now, "reserved", (now, now)
            return "reserved"
        wanted = {"commit": "committed", "refund": "refunded"}[step]
        if state in {wanted, "reserved"}:
            if state == "reserved":
                self.now, self.state[name] = now, wanted
                self.stretches[name] = (self.stretches[name][0], now)
            return wanted
        return "wrong"

    def may_leave_after(self, name: str, day: float) -> bool:
        return self.state[name] == "reserved" or self.stretches[name][1] > day

    def most_at_once(self) -> int:
        """Return how many charges may have left within the fullest stretch of days."""
        left = [
            (begin, self.now if self.state[name] == "reserved" else end)
            for name, (begin, end) in self.stretches.items()
            if self.state[name] != "refunded"
        ]
        ends = [moment for stretch in left for moment in stretch]
        return max(
            (sum(begin <= at and end > at - DAYS for begin, end in left) for at in ends), default=0
        )


@settings(max_examples=40)
@given(st.lists(STEPS, max_size=25))
def test_charges_and_clocks_in_any_order_are_as_the_plain_rules_say(steps: list[Step]) -> None:
    clock, oracle, day = Clock(), Oracle(), 0
    with tempfile.TemporaryDirectory() as folder:
        ledger = open_ledger(Path(folder), clock)
        for step, name, further in steps:
            day += further
            clock.put(days=day)
            assert take(ledger, step, name) == oracle.take(step, name, day)
        assert oracle.most_at_once() <= IN_PERIOD
        states = {charge.charge_id: str(charge.state) for charge in ledger.statement().charges}
        assert states == oracle.state


def take(ledger: Ledger, step: str, name: str) -> str:
    try:
        if step == "reserve":
            return str(ledger.reserve(name, EVENT).state)
        return str(getattr(ledger, step)(name).state)
    except PeriodExceededError:
        return "period"
    except BudgetExceededError:
        return "cap"
    except LedgerError:
        return "wrong"


PERIOD: dict[str, Any] = {"days": 30, "epsilon": 1.1, "delta": 1e-5}


def terms(**period: Any) -> dict[str, Any]:
    return {"budget": {"period": PERIOD | period}} if period else {}


def agreed(**period: Any) -> Agreement:
    return drafted_agreement(collaboration(**terms(**period)))


class TestTerms:
    @pytest.mark.parametrize(
        ("wrong", "told"),
        [
            ({"epsilon": 1.2}, "not below"),
            ({"delta": 1e-4}, "passes the delta"),
            ({"days": 0}, "greater than or equal to 1"),
        ],
    )
    def test_contradictions_are_refused(self, wrong: dict[str, Any], told: str) -> None:
        with pytest.raises(ValueError, match=told):
            agreed(**wrong)

    def test_it_is_rendered_and_compared(self) -> None:
        without, with_it = agreed(), agreed(days=30)
        assert "- period: days: `30`" in render(with_it)
        assert "period: epsilon" in render_html(with_it)

        def effects(before: Agreement, after: Agreement) -> dict[str, Effect]:
            return {one.term: one.effect for one in compare(before, after)}

        assert effects(without, with_it) == {"budget.period": Effect.STRENGTHENS}
        assert effects(with_it, without) == {"budget.period": Effect.WEAKENS}
        assert effects(with_it, agreed(days=7, epsilon=0.5)) == {
            "budget.period.days": Effect.WEAKENS,
            "budget.period.epsilon": Effect.STRENGTHENS,
        }


class TestPlan:
    def test_jobs_that_do_not_fit_the_days_are_told_with_what_would(self) -> None:
        match, train = (one.model_dump(mode="json", exclude_none=True) for one in JOBS[:2])
        jobs = [match, train | {"epsilon": 0.8}, train | {"epsilon": 0.8, "name": "again"}]
        wide = {"epsilon": 5.0, "period": PERIOD | {"epsilon": 1.0}}
        document = collaboration(budget=wide).model_dump(mode="json", exclude_none=True)
        asked = Collaboration.model_validate_json(json.dumps(document | {"jobs": jobs}))
        found = plan(asked, clock=lambda: BEGIN)
        first, refused = found.jobs[1:]
        assert (first.refused_by, first.repeats) == (None, 0)
        assert refused.refused_by == "budget.period.epsilon"
        assert "run it 30 days after those before it" in refused.remedy
        assert found.period.epsilon_spent == first.epsilon_spent


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    spent = World.make(tmp_path_factory.mktemp("period"), **terms(days=30))
    spent.run()
    return spent


def reserved(log: Sequence[Any]) -> list[records.BudgetReserved]:
    return [leaf for leaf in log if isinstance(leaf, records.BudgetReserved)]


class TestGate:
    def check(self, world: World, charge: Event) -> None:
        with world.node("retailer").desk() as desk:
            desk.gate.charges.check(charge)

    def test_leaves_tell_what_weighs_and_the_gate_refuses_until_the_days_are_over(
        self, world: World, tmp_path: Path
    ) -> None:
        told = [leaf.period_epsilon_spent for leaf in reserved(world.leaves("retailer"))]
        assert told == sorted(told)
        assert all(0 < one <= PERIOD["epsilon"] for one in told)
        later = world.copy(tmp_path / "later")
        charge = GaussianEvent(noise_multiplier=6.5)
        with pytest.raises(RefusedError, match="within 30 days") as refused:
            self.check(later, charge)
        assert refused.value.term == "budget.period.epsilon"
        later.now += timedelta(days=31)
        self.check(later, charge)

    def test_answers_that_are_repeated_when_the_days_are_over_weigh_anew(
        self, world: World, tmp_path: Path
    ) -> None:
        """A crash may have kept them in then, between the commitment and the sending."""
        later = world.copy(tmp_path / "later")
        later.now += timedelta(days=31)
        answers = self.charged(world)
        for question, answer in answers:
            assert later.handle("retailer", question).payload == answer.payload
        with pytest.raises(RefusedError, match="within 30 days"):
            self.check(later, GaussianEvent(noise_multiplier=6.5))

    def test_an_answer_does_not_leave_again_on_top_of_what_left_since(
        self, world: World, tmp_path: Path
    ) -> None:
        later = world.copy(tmp_path / "later")
        later.now += timedelta(days=31)
        with later.node("retailer").desk() as desk:
            charge = GaussianEvent(noise_multiplier=6.5)
            desk.ledger.reserve("other", charge)
            desk.ledger.commit("other")
        answers = self.charged(world)
        again = [later.handle("retailer", question) for question, _ in answers]
        assert again[-1].digest != answers[-1][1].digest
        said = unseal(again[-1], later.agreement).body
        assert isinstance(said, Refused)
        assert said.term == "budget.period.epsilon"
        assert "within 30 days" in said.remedy
        later.now += timedelta(days=30)
        question, answer = answers[-1]
        assert later.handle("retailer", question).payload == answer.payload

    def charged(self, world: World) -> list[tuple[SealedMessage, SealedMessage]]:
        """Return the retailer's answers that cost, after what they answer."""
        leaves = [one for one in world.leaves("retailer") if isinstance(one, records.Release)]
        paid = {one.content_digest for one in leaves if one.charge_id is not None}
        spoken = zip(world.wire[::2], world.wire[1::2], strict=True)
        found = [(question, answer) for question, answer in spoken if answer.digest in paid]
        assert found
        return found

    def test_the_report_tells_the_days(self, world: World) -> None:
        leaves = world.leaves("retailer")
        log = figures_of.PartyLog.of("retailer", leaves, "0" * 64)
        text = budget_report(world.agreement, [log], world.now).model_dump_json()
        assert "within any 30 days" in text
        assert str(reserved(leaves)[-1].period_epsilon_spent) in text


def log_of(agreement: Agreement, *told: tuple[float, float]) -> PartyLog:
    """A log of charges: on which day, and what is told to weigh within the days."""
    common = {"party": "retailer", "agreement": agreement.digest}
    names = tuple(one.name for one in agreement.parties)
    leaves: list[Any] = [records.AgreementSigned(time=BEGIN, parties=names, **common)]
    delta = agreement.budget.delta
    for number, (day, weighs) in enumerate(told):
        charge = common | {"time": BEGIN + timedelta(days=day), "charge_id": f"c{number}"}
        spent = of(number + 1, agreement.accounted_delta)
        leaves += [
            records.BudgetReserved(
                mechanism=to_json(EVENT),
                epsilon=of(1, delta),
                delta=delta,
                epsilon_spent=spent,
                epsilon_cap=agreement.budget.epsilon,
                period_epsilon_spent=weighs,
                **charge,
            ),
            records.BudgetCommitted(epsilon_spent=spent, **charge),
        ]
    return PartyLog("retailer", agreement, tuple(leaves))


class TestAudit:
    ONE, BOTH = of(1, 1e-5), of(2, 1e-5)

    def found(self, log: PartyLog) -> list[tuple[FindingKind, tuple[int, ...]]]:
        rules = rules_for(log.agreement, now=BEGIN + timedelta(days=99))
        return [(one.kind, one.leaves) for one in audit([log], rules)]

    def test_what_passes_the_days_is_found_and_nothing_else(self) -> None:
        told = (0, self.ONE), (29, self.BOTH), (30, self.BOTH), (60, self.ONE)
        assert self.found(log_of(agreed(days=30), *told)) == []
        narrow = agreed(epsilon=self.ONE * 1.01)
        assert self.found(log_of(narrow, (0, self.ONE), (30, self.ONE))) == []
        unopened = (FindingKind.SETTLED_UNOPENED, (4,))
        over = self.found(log_of(narrow, (0, self.ONE), (29, self.BOTH)))
        assert over == [(FindingKind.OVER_PERIOD, (3,)), unopened]
        hidden = self.found(log_of(narrow, (0, self.ONE), (29.9, self.ONE)))
        assert hidden == [(FindingKind.UNDERSTATED, (3,)), unopened]

    def test_a_clock_that_is_put_back_frees_nothing(self) -> None:
        log = log_of(agreed(days=30), (40, self.ONE), (5, self.ONE))
        kinds = [kind for kind, _ in self.found(log)]
        assert FindingKind.UNDERSTATED in kinds
        assert FindingKind.TIME_BACKWARDS in kinds

    def test_what_is_not_told_is_found(self) -> None:
        log = log_of(agreed(days=30), (0, self.ONE))
        leaves = list(log.records)
        leaves[1] = leaves[1].model_copy(update={"period_epsilon_spent": None})
        quiet = PartyLog(log.party, log.agreement, tuple(leaves))
        assert self.found(quiet)[0] == (FindingKind.OTHER_PERIOD, (1,))

    def test_an_open_charge_weighs_however_old_it_is(self) -> None:
        def opened(weighs: float) -> PartyLog:
            log = log_of(agreed(days=30), (0, self.ONE), (60, weighs))
            return PartyLog(log.party, log.agreement, (*log.records[:2], *log.records[3:]))

        assert (FindingKind.UNDERSTATED, (2,)) in self.found(opened(self.ONE))
        assert (FindingKind.UNDERSTATED, (2,)) not in self.found(opened(self.BOTH))

    def test_a_run_holds(self, world: World) -> None:
        logs = [
            PartyLog(name, world.agreement, world.leaves(name))
            for name in ("retailer", "courier", "brand", "coordinator")
        ]
        assert audit(logs, rules_for(world.agreement, now=world.now)) == ()
