"""The ledger: every order of steps, shared by processes, killed at every statement."""

import contextlib
import multiprocessing
import os
import signal
import sqlite3
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import count, product
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from privacy.accounting import (
    Budget,
    ChargeState,
    GaussianEvent,
    Ledger,
    RepeatedEvent,
    epsilon_of,
)
from privacy.errors import BudgetExceededError, InvalidParameterError, LedgerError

AGREEMENT = "a1" * 32
BUDGET = Budget(epsilon=3.0, delta=1e-6)
SMALL = GaussianEvent(noise_multiplier=8.0)
OTHER = GaussianEvent(noise_multiplier=9.0)
HUGE = GaussianEvent(noise_multiplier=0.5)
PROCESSES = multiprocessing.get_context("fork")

Step = Callable[[Ledger], object]
STEPS: dict[str, Step] = {
    "reserve": lambda ledger: ledger.reserve("job", SMALL),
    "commit": lambda ledger: ledger.commit("job"),
    "refund": lambda ledger: ledger.refund("job"),
}
PATHS: dict[str, tuple[str, ...]] = {
    "none": (),
    "reserved": ("reserve",),
    "committed": ("reserve", "commit"),
    "refunded": ("reserve", "refund"),
}
ALLOWED = {
    ("none", "reserve"): "reserved",
    ("reserved", "reserve"): "reserved",
    ("reserved", "commit"): "committed",
    ("reserved", "refund"): "refunded",
    ("committed", "reserve"): "committed",
    ("committed", "commit"): "committed",
    ("refunded", "reserve"): "reserved",
    ("refunded", "refund"): "refunded",
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.db"


@pytest.fixture
def ledger(path: Path) -> Ledger:
    return open_ledger(path)


def open_ledger(path: Path, budget: Budget = BUDGET) -> Ledger:
    return Ledger.open(path, agreement=AGREEMENT, budget=budget)


def price(*events: GaussianEvent) -> float:
    return epsilon_of(events, BUDGET.delta)


def state_of(ledger: Ledger, charge_id: str = "job") -> str:
    charge = ledger.charge(charge_id)
    return "none" if charge is None else str(charge.state)


class TestSteps:
    @pytest.mark.parametrize(("state", "step"), list(product(PATHS, STEPS)))
    def test_every_state_allows_its_steps_and_refuses_the_rest(
        self, ledger: Ledger, state: str, step: str
    ) -> None:
        for earlier in PATHS[state]:
            STEPS[earlier](ledger)
        before = ledger.statement()
        if (state, step) in ALLOWED:
            returned = STEPS[step](ledger)
            assert state_of(ledger) == ALLOWED[state, step]
            assert ledger.charge("job") == returned
            if ALLOWED[state, step] == state:
                assert ledger.statement() == before
        else:
            with pytest.raises(LedgerError, match="'job'"):
                STEPS[step](ledger)
            assert ledger.statement() == before

    @pytest.mark.parametrize("state", ["reserved", "committed"])
    def test_an_id_stands_for_one_event_while_it_counts(self, ledger: Ledger, state: str) -> None:
        for earlier in PATHS[state]:
            STEPS[earlier](ledger)
        with pytest.raises(LedgerError, match="another event"):
            ledger.reserve("job", OTHER)
        assert ledger.statement().epsilon_spent == price(SMALL)

    def test_a_refunded_id_may_be_reserved_for_another_event(self, ledger: Ledger) -> None:
        for earlier in PATHS["refunded"]:
            STEPS[earlier](ledger)
        charge = ledger.reserve("job", OTHER)
        assert (charge.event, charge.state) == (OTHER, ChargeState.RESERVED)
        assert ledger.statement().charges == (charge,)

    @pytest.mark.parametrize("charge_id", ["", " a", "é", "a" * 129, "a@b", "a\n", "-a"])
    def test_ids_have_a_plain_form(self, ledger: Ledger, charge_id: str) -> None:
        with pytest.raises(InvalidParameterError, match="charge id") as refusal:
            ledger.reserve(charge_id, SMALL)
        assert not charge_id or repr(charge_id) not in str(refusal.value)


class TestBudget:
    def test_reserved_counts_as_spent_and_refunded_does_not(self, ledger: Ledger) -> None:
        ledger.reserve("one", SMALL)
        ledger.commit("one")
        ledger.reserve("two", OTHER)
        ledger.reserve("three", SMALL)
        ledger.refund("three")
        statement = ledger.statement()
        assert statement.epsilon_committed == price(SMALL)
        assert statement.epsilon_spent == price(SMALL, OTHER)
        assert statement.epsilon_left == BUDGET.epsilon - price(SMALL, OTHER)
        assert (statement.epsilon_cap, statement.delta) == (BUDGET.epsilon, BUDGET.delta)
        assert [charge.charge_id for charge in statement.charges] == ["one", "two", "three"]

    def test_a_new_ledger_has_spent_nothing(self, ledger: Ledger) -> None:
        statement = ledger.statement()
        assert (statement.epsilon_spent, statement.epsilon_committed) == (0.0, 0.0)
        assert (statement.epsilon_left, statement.charges) == (BUDGET.epsilon, ())

    def test_a_charge_past_the_cap_is_refused_and_changes_nothing(self, ledger: Ledger) -> None:
        ledger.reserve("one", SMALL)
        before = ledger.statement()
        with pytest.raises(BudgetExceededError) as refusal:
            ledger.reserve("two", HUGE)
        assert ledger.statement() == before
        assert refusal.value.asked == price(SMALL, HUGE)
        assert refusal.value.spent == price(SMALL)
        assert refusal.value.cap == BUDGET.epsilon
        assert refusal.value.left == before.epsilon_left

    def test_a_charge_that_meets_the_cap_exactly_is_granted(self, path: Path) -> None:
        ledger = open_ledger(path, Budget(epsilon=price(SMALL, OTHER), delta=BUDGET.delta))
        ledger.reserve("one", OTHER)
        ledger.reserve("two", SMALL)
        assert ledger.statement().epsilon_left == 0.0

    def test_what_a_charge_would_bring_the_total_to_can_be_asked(self, ledger: Ledger) -> None:
        ledger.reserve("one", SMALL)
        before = ledger.statement()
        assert ledger.epsilon_if(HUGE) == price(SMALL, HUGE)
        assert ledger.statement() == before
        assert ledger.epsilon_if(OTHER) < price(SMALL) + price(OTHER)

    def test_an_event_that_cannot_be_priced_is_refused(self, ledger: Ledger) -> None:
        with pytest.raises(InvalidParameterError, match="cannot price"):
            ledger.reserve("free", "free of charge")
        assert ledger.charge("free") is None

    @pytest.mark.parametrize(
        ("epsilon", "delta"),
        [
            (0.0, 1e-06),
            (-1.0, 1e-06),
            (float("nan"), 1e-06),
            (float("inf"), 1e-06),
            (1.0, 0.0),
            (1.0, 1.0),
            (1.0, float("nan")),
            (1.0, 1e-12),
        ],
    )
    def test_a_budget_out_of_range_is_refused(self, epsilon: float, delta: float) -> None:
        with pytest.raises(InvalidParameterError):
            Budget(epsilon=epsilon, delta=delta)


class TestFile:
    def test_another_process_finds_what_was_written(self, ledger: Ledger, path: Path) -> None:
        ledger.reserve("job", SMALL)
        assert open_ledger(path).statement() == ledger.statement()

    @pytest.mark.parametrize(
        ("agreement", "budget"),
        [
            ("b2" * 32, BUDGET),
            (AGREEMENT, Budget(epsilon=4.0, delta=1e-6)),
            (AGREEMENT, Budget(epsilon=3.0, delta=1e-5)),
        ],
    )
    def test_a_ledger_of_other_terms_is_refused(
        self, ledger: Ledger, path: Path, agreement: str, budget: Budget
    ) -> None:
        with pytest.raises(LedgerError, match="other terms"):
            Ledger.open(path, agreement=agreement, budget=budget)

    def test_a_ledger_needs_an_agreement(self, path: Path) -> None:
        with pytest.raises(InvalidParameterError, match="agreement"):
            Ledger.open(path, agreement="", budget=BUDGET)

    def test_a_file_that_is_no_ledger_is_refused_and_kept(self, path: Path) -> None:
        path.write_bytes(b"these are not the bytes of a database" * 40)
        with pytest.raises(LedgerError, match=path.name):
            open_ledger(path)
        assert path.read_bytes().startswith(b"these are")

    def test_somebody_elses_database_is_refused_and_kept(self, path: Path) -> None:
        with contextlib.closing(sqlite3.connect(path)) as database:
            database.execute("CREATE TABLE charges (id)")
        before = path.read_bytes()
        with pytest.raises(LedgerError, match="not a ledger"):
            open_ledger(path)
        assert path.read_bytes() == before

    def test_a_missing_directory_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(LedgerError, match="nowhere"):
            open_ledger(tmp_path / "nowhere" / "ledger.db")

    def test_a_ledger_that_vanished_is_not_started_anew(self, ledger: Ledger, path: Path) -> None:
        path.unlink()
        with pytest.raises(LedgerError, match=path.name):
            ledger.reserve("job", SMALL)
        assert not path.exists()

    @pytest.mark.parametrize(
        "event", ["{}", '{"kind":"gaussian","noise_multiplier":8.0}', "", b"\xff"]
    )
    def test_a_damaged_charge_stops_all_spending(
        self, ledger: Ledger, path: Path, event: str | bytes
    ) -> None:
        ledger.reserve("job", SMALL)
        with contextlib.closing(sqlite3.connect(path)) as database, database:
            database.execute("UPDATE charges SET event = ?", (event,))
        for use in (ledger.statement, partial(ledger.reserve, "more", SMALL)):
            with pytest.raises(LedgerError, match="damaged"):
                use()

    def test_a_path_with_odd_characters_works(self, tmp_path: Path) -> None:
        odd = tmp_path / "a ledger?mode=ro&#%41.db"
        open_ledger(odd).reserve("job", SMALL)
        assert odd.exists()

    def test_a_process_that_keeps_the_lock_is_waited_for(self, ledger: Ledger, path: Path) -> None:
        with contextlib.closing(sqlite3.connect(path, check_same_thread=False)) as holder:
            holder.execute("BEGIN IMMEDIATE")
            release = threading.Timer(0.2, holder.rollback)
            release.start()
            ledger.reserve("job", SMALL)
            release.join()
        assert state_of(ledger) == "reserved"


class TestConcurrency:
    """Several spenders whose charges fit one by one, but not all together."""

    FITTING = 5

    @pytest.fixture
    def tight(self, path: Path) -> Ledger:
        cap = epsilon_of([RepeatedEvent(event=SMALL, count=self.FITTING)], BUDGET.delta)
        for number in range(1, self.FITTING + 2):  # price once, before the processes fork
            epsilon_of([RepeatedEvent(event=SMALL, count=number)], BUDGET.delta)
        return open_ledger(path, Budget(epsilon=cap, delta=BUDGET.delta))

    def test_processes_never_pass_the_cap_together(self, tight: Ledger) -> None:
        children = [PROCESSES.Process(target=spend, args=(tight, name)) for name in "abcd"]
        for child in children:
            child.start()
        for child in children:
            child.join()
        assert [child.exitcode for child in children] == [0] * 4
        self.check(tight)

    def test_threads_never_pass_the_cap_together(self, tight: Ledger) -> None:
        with ThreadPoolExecutor(4) as threads:
            list(threads.map(partial(spend, tight), "abcd"))
        self.check(tight)

    def check(self, ledger: Ledger) -> None:
        statement = ledger.statement()
        assert len(statement.charges) == self.FITTING
        assert statement.epsilon_spent == statement.epsilon_cap

    def test_one_charge_reserved_by_many_is_charged_once(self, ledger: Ledger) -> None:
        with ThreadPoolExecutor(4) as threads:
            charges = set(threads.map(lambda _: ledger.reserve("job", SMALL), range(8)))
        assert ledger.statement().charges == tuple(charges)

    def test_processes_that_start_a_ledger_together_start_one(self, path: Path) -> None:
        children = [
            PROCESSES.Process(target=start_and_reserve, args=(path, name)) for name in "abc"
        ]
        for child in children:
            child.start()
        for child in children:
            child.join()
        assert {charge.charge_id for charge in open_ledger(path).statement().charges} == set("abc")


def spend(ledger: Ledger, name: str) -> None:
    for number in range(4):
        with contextlib.suppress(BudgetExceededError):
            ledger.reserve(f"{name}{number}", SMALL)


def start_and_reserve(path: Path, name: str) -> None:
    open_ledger(path).reserve(name, SMALL)


class TestKilling:
    SCRIPT: tuple[tuple[str, str], ...] = (
        ("reserve", "one"),
        ("commit", "one"),
        ("reserve", "two"),
        ("refund", "two"),
        ("reserve", "two"),
    )

    def test_a_kill_before_any_statement_loses_nothing_acknowledged(self, tmp_path: Path) -> None:
        price(SMALL, SMALL)
        prefixes = list(self.prefixes(tmp_path))
        for survived in count():
            path = tmp_path / f"{survived}.db"
            acknowledged, died = self.run_and_kill(path, survived)
            found = self.states(open_ledger(path))
            # The step that was under way either happened wholly or not at all.
            assert found in prefixes[acknowledged : acknowledged + 2]
            if not died:
                break
            self.finish(path, acknowledged)
        assert survived > 4 * len(self.SCRIPT)
        assert acknowledged == len(self.SCRIPT)

    def test_a_kill_at_any_time_loses_nothing_acknowledged(self, path: Path) -> None:
        price(SMALL)
        receiver, sender = PROCESSES.Pipe(duplex=False)
        child = PROCESSES.Process(target=reserve_for_ever, args=(path, sender))
        child.start()
        for _ in range(40):
            acknowledged = receiver.recv()
        os.kill(child.pid, signal.SIGKILL)
        child.join()
        while receiver.poll():
            acknowledged = receiver.recv()
        ledger = open_ledger(path, WIDE)
        finished = len(ledger.statement().charges)
        assert acknowledged + 1 <= finished <= acknowledged + 2
        ledger.reserve("after", SMALL)

    def prefixes(self, tmp_path: Path) -> Iterator[dict[str, str]]:
        ledger = open_ledger(tmp_path / "undisturbed.db")
        yield self.states(ledger)
        for step, charge_id in self.SCRIPT:
            take(ledger, step, charge_id)
            yield self.states(ledger)

    def states(self, ledger: Ledger) -> dict[str, str]:
        return {charge.charge_id: charge.state for charge in ledger.statement().charges}

    def finish(self, path: Path, acknowledged: int) -> None:
        """Repeat the step that was under way, then go on: the end is the same."""
        ledger = open_ledger(path)
        for step, charge_id in self.SCRIPT[acknowledged:]:
            take(ledger, step, charge_id)
        assert self.states(ledger) == {"one": "committed", "two": "reserved"}

    def run_and_kill(self, path: Path, survived: int) -> tuple[int, bool]:
        receiver, sender = PROCESSES.Pipe(duplex=False)
        child = PROCESSES.Process(target=run_script, args=(path, self.SCRIPT, survived, sender))
        child.start()
        sender.close()
        acknowledged = 0
        with contextlib.suppress(EOFError):
            while True:
                acknowledged = receiver.recv()
        child.join()
        assert child.exitcode in {0, -signal.SIGKILL}
        return acknowledged, child.exitcode != 0


WIDE = Budget(epsilon=1000.0, delta=1e-6)


def take(ledger: Ledger, step: str, charge_id: str) -> None:
    if step == "reserve":
        ledger.reserve(charge_id, SMALL)
    else:
        getattr(ledger, step)(charge_id)


def run_script(
    path: Path, script: tuple[tuple[str, str], ...], survived: int, sender: Connection
) -> None:
    """Take the script's steps, and die by SIGKILL before the statement after `survived` ones."""
    left = iter(range(survived))

    class Mortal(sqlite3.Connection):
        def execute(self, *arguments: object) -> sqlite3.Cursor:
            if next(left, None) is None:
                os.kill(os.getpid(), signal.SIGKILL)
            return super().execute(*arguments)

    sqlite3.connect = partial(sqlite3.connect, factory=Mortal)
    ledger = open_ledger(path)
    for number, (step, charge_id) in enumerate(script, start=1):
        take(ledger, step, charge_id)
        sender.send(number)


def reserve_for_ever(path: Path, sender: Connection) -> None:
    ledger = open_ledger(path, WIDE)
    tiny = GaussianEvent(noise_multiplier=1e6)
    for number in count():
        ledger.reserve(f"charge {number}", tiny)
        sender.send(number)
