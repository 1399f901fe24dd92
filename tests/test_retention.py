"""Retention: what is due, clocks that leap, holds, deleting once, and what uses it afterwards."""

import itertools
import json
import os
import shutil
import signal
import sys
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from parties import EXPAND, JOBS, NOW, PURPOSE, World

from compliance import records
from compliance.errors import RetentionError
from compliance.retention import LARGEST_STEP, Hold, Kept, Mark, State, assess
from compliance.terms import Artefact, RetentionTerm
from federation import retaining
from federation.artefacts import check_kept, deleted_in, places
from federation.audit import verify_party
from federation.cli import main
from federation.coordinator import write_jobs
from federation.errors import RefusedError, WorkspaceError
from federation.own_rows import KeptModel, OwnRows
from federation.party import PartyFolder

pytestmark = pytest.mark.xdist_group("retention")

DAY = timedelta(days=1)
TERMS = (
    {"artefact": "model", "days": 10, "basis": "the campaign"},
    {"artefact": "match", "purpose": PURPOSE, "days": 3, "basis": "the campaign"},
    {"artefact": "segment", "days": 400, "basis": "the campaign"},
)


def kept(artefact: Artefact = Artefact.MODEL, name: str = "model", purpose: str = PURPOSE) -> Kept:
    return Kept(artefact, name, purpose, NOW)


def term(days: int, purpose: str | None = None) -> RetentionTerm:
    return RetentionTerm(artefact=Artefact.MODEL, purpose=purpose, days=days, basis="agreed")


def hold(name: str = "case", artefact: str = "model", job: str | None = None) -> Hold:
    return Hold.of(name, artefact, "a court asked for it", name=job)


class TestMark:
    @given(st.lists(st.integers(-40 * 24, 40 * 24), max_size=12))
    def test_never_goes_back_nor_past_the_clock(self, hours: list[int]) -> None:
        mark, latest = Mark(moment=NOW), NOW
        for one in hours:
            reading = NOW + timedelta(hours=one)
            latest = max(latest, reading)
            after = mark.advance(reading)
            assert mark.moment <= after.moment <= latest
            if after.moment - mark.moment > LARGEST_STEP:
                assert mark.claimed is not None
                assert mark.claimed <= reading <= mark.claimed + LARGEST_STEP
            assert after == after.advance(reading) or after.claimed == reading
            mark = after

    @pytest.mark.parametrize(
        ("claimed", "reading", "moment", "claim"),
        [
            (None, -1, 0, None),
            (None, 0, 0, None),
            (None, 7, 7, None),
            (None, 8, 0, 8),
            (30, -1, 0, None),  # it was wrong, and was set right
            (30, 7, 7, None),
            (30, 8, 0, 8),  # still ahead, yet not where it was
            (30, 29, 0, 29),
            (30, 30, 30, None),
            (30, 37, 37, None),
            (30, 38, 0, 38),
        ],
    )
    def test_every_move(
        self, claimed: int | None, reading: int, moment: int, claim: int | None
    ) -> None:
        def at(days: int | None) -> datetime | None:
            return None if days is None else NOW + days * DAY

        mark = Mark(moment=NOW, claimed=at(claimed)).advance(NOW + reading * DAY)
        assert mark == Mark(moment=NOW + moment * DAY, claimed=at(claim))


class TestAssess:
    @pytest.mark.parametrize(
        ("days", "held", "state"),
        [
            (9, False, State.KEPT),
            (9, True, State.KEPT),
            (10, False, State.DUE),
            (10, True, State.HELD),
        ],
    )
    def test_time_and_holds_decide(self, days: int, held: bool, state: State) -> None:
        holds = (hold(),) if held else ()
        (found,) = assess((term(10),), (kept(),), holds, NOW + days * DAY)
        assert (found.state, found.due) == (state, NOW + 10 * DAY)
        assert found.holds == (("case",) if held else ())

    def test_states_follow_each_other_as_time_goes_on_and_holds_come_and_go(self) -> None:
        """Every pair of states, of moments in order with and without a hold."""
        moments = [(day, held) for day in (0, 10, 11) for held in (False, True)]
        pairs = set()
        for (early, first), (late, then) in itertools.product(moments, repeat=2):
            if early <= late:
                states = [
                    assess((term(10),), (kept(),), (hold(),) if held else (), NOW + day * DAY)
                    for day, held in ((early, first), (late, then))
                ]
                pairs.add((states[0][0].state, states[1][0].state))
        limited = set(State) - {State.UNLIMITED}
        assert pairs == set(itertools.product(limited, repeat=2)) - {
            (State.DUE, State.KEPT),
            (State.HELD, State.KEPT),
        }

    def test_the_shortest_term_that_covers_it_decides(self) -> None:
        terms = (term(10), term(400, PURPOSE), term(1, "newsletter"))
        (found,) = assess(terms, (kept(),), (), NOW)
        assert found.term == term(10)
        (found,) = assess((term(10), term(4, PURPOSE)), (kept(),), (), NOW)
        assert found.term == term(4, PURPOSE)

    def test_without_a_term_it_may_stay(self) -> None:
        (found,) = assess((term(10),), (kept(Artefact.SEGMENT),), (), NOW + 9999 * DAY)
        assert (found.state, found.due) == (State.UNLIMITED, None)

    def test_a_hold_covers_its_kind_or_one_of_it(self) -> None:
        two = kept(), kept(name="other")
        for placed, held in ((hold(), 2), (hold(job="other"), 1), (hold(artefact="match"), 0)):
            found = assess((term(1),), two, (placed,), NOW + DAY)
            assert [one.state for one in found].count(State.HELD) == held

    @pytest.mark.parametrize("name", ["", "../up", "Case", "a" * 64])
    def test_a_hold_is_named_as_a_file(self, name: str) -> None:
        with pytest.raises(RetentionError, match="hold"):
            hold(name)


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> World:
    """A world in which every job was run, with terms of retention."""
    world = World.make(tmp_path_factory.mktemp("ended"), unsafe_seed=3, retention=TERMS)
    world.run()
    return world


@pytest.fixture
def world(ended: World, tmp_path: Path) -> World:
    return ended.copy(tmp_path / "workspace")


@pytest.fixture
def retailer(world: World) -> PartyFolder:
    return world.folder("retailer")


def days(number: float) -> datetime:
    """A moment so long after the jobs, and an hour."""
    return NOW + number * DAY + timedelta(hours=1)


def go(folder: PartyFolder, until: int, *, after: int = 0) -> retaining.Retained:
    """Run every fifth day up to a day."""
    for day in range(after, until, 5):
        retaining.run(folder, now=days(day))
    return retaining.run(folder, now=days(until))


def told(folder: PartyFolder) -> list[tuple[str, str]]:
    leaves = verify_party(folder.path).leaves
    return [
        (leaf.artefact, leaf.name) for leaf in leaves if isinstance(leaf, records.ArtefactDeleted)
    ]


class TestRun:
    def test_deletes_what_is_due_and_says_what_and_why(self, retailer: PartyFolder) -> None:
        before = retaining.status(retailer, now=days(0))
        assert [(one.kept.artefact, one.state) for one in before.standings] == [
            ("match", State.KEPT),
            ("model", State.KEPT),
            ("segment", State.KEPT),
        ]
        done = retaining.run(retailer, now=days(4))
        assert [one.name for one in done.deleted] == ["find"]
        assert not places(retailer, Artefact.MATCH, "find")
        assert {path.name for path in retailer.job("find").iterdir()} == {
            "specification.json",
            "deleted-match.json",
        }
        leaf = verify_party(retailer.path).leaves[-1]
        assert isinstance(leaf, records.ArtefactDeleted)
        assert (leaf.artefact, leaf.name, leaf.purpose, leaf.days) == ("match", "find", PURPOSE, 3)
        assert retailer.model("model").exists()
        go(retailer, 11, after=5)
        assert not retailer.model("model").exists()
        assert retailer.segment("best").exists()
        assert told(retailer) == [("match", "find"), ("model", "model")]

    def test_again_changes_nothing(self, retailer: PartyFolder) -> None:
        go(retailer, 11)
        before = told(retailer)
        assert retaining.run(retailer, now=days(11)).deleted == ()
        assert told(retailer) == before

    def test_at_every_party(self, world: World) -> None:
        for folder in world.workspace.folders:
            go(folder, 11)
            assert not folder.model("model").exists()
            assert ("model", "model") in told(folder)

    def test_answers_of_the_job_go_too(self, retailer: PartyFolder) -> None:
        before = len(list(retailer.outbox.glob("*.bin")))
        retaining.run(retailer, now=days(4))
        assert len(list(retailer.outbox.glob("*.bin"))) < before
        assert len(list(retailer.outbox.glob("*.json"))) == before

    def test_what_comes_back_goes_again_without_a_leaf(
        self, retailer: PartyFolder, tmp_path: Path
    ) -> None:
        shutil.copy(retailer.members("find"), tmp_path / "backup")
        go(retailer, 4)
        shutil.copy(tmp_path / "backup", retailer.members("find"))
        retaining.run(retailer, now=days(4))
        assert not retailer.members("find").exists()
        assert told(retailer) == [("match", "find")]

    def test_a_clock_that_leaps_ahead_deletes_nothing_until_confirmed(
        self, retailer: PartyFolder
    ) -> None:
        first = retaining.run(retailer, now=days(300))
        assert (first.mark.claimed, first.deleted) == (days(300), ())
        assert retaining.run(retailer, now=days(1)).mark == Mark(moment=days(1))
        assert not told(retailer)
        retaining.run(retailer, now=days(300))
        retaining.run(retailer, now=days(301))
        assert told(retailer) == [("match", "find"), ("model", "model")]

    def test_a_clock_that_was_put_back_delays_nothing(self, retailer: PartyFolder) -> None:
        retaining.place(retailer, hold(artefact="match"), now=days(1))
        assert not retaining.run(retailer, now=days(4)).deleted
        retaining.lift(retailer, "case", now=days(0))
        assert [one.name for one in retaining.run(retailer, now=days(0)).deleted] == ["find"]

    def test_a_log_that_has_not_begun(self, tmp_path: Path) -> None:
        fresh = World.make(tmp_path / "fresh").folder("retailer")
        with pytest.raises(WorkspaceError, match="is empty"):
            retaining.run(fresh, now=NOW)


class TestHolds:
    def test_keep_what_is_due_until_lifted(self, retailer: PartyFolder) -> None:
        retaining.place(retailer, hold(), now=days(0))
        held = go(retailer, 11)
        assert [one.kept.name for one in held.standings if one.state is State.HELD] == ["model"]
        assert retailer.model("model").exists()
        retaining.lift(retailer, "case", now=days(11))
        retaining.run(retailer, now=days(11))
        assert not retailer.model("model").exists()
        kinds = [leaf.kind for leaf in verify_party(retailer.path).leaves]
        assert kinds.count("hold.placed") == kinds.count("hold.lifted") == 1

    def test_twice_changes_nothing_and_a_name_is_used_once(self, retailer: PartyFolder) -> None:
        for _ in range(2):
            retaining.place(retailer, hold(), now=NOW)
        with pytest.raises(RetentionError, match="used once"):
            retaining.place(retailer, hold(artefact="match"), now=NOW)
        for _ in range(2):
            retaining.lift(retailer, "case", now=NOW)
        with pytest.raises(RetentionError, match="used once"):
            retaining.place(retailer, hold(), now=NOW)
        with pytest.raises(RetentionError, match="no hold 'other' is in force"):
            retaining.lift(retailer, "other", now=NOW)
        kinds = [leaf.kind for leaf in verify_party(retailer.path).leaves]
        assert kinds.count("hold.placed") == kinds.count("hold.lifted") == 1

    @pytest.mark.parametrize(
        ("given", "told"),
        [
            (
                ("Case 12: a@b.example", "model", "an order"),
                (
                    "hold: expected 1 to 63 lowercase letters, digits and dashes, no dash first, such "
                    "as case-12, got another text of 20 characters"
                ),
            ),
            (("case", "mode1", "an order"), "artefact: expected one of match, model, "),
            (
                ("case", "model", "asked by a@b.example"),
                (
                    "reason: expected one line of 1 to 300 characters that names nobody, without '@', "
                    "got another text of 20 characters"
                ),
            ),
            (
                ("case", "model", ""),
                (
                    "reason: expected one line of 1 to 300 characters that names nobody, without '@', "
                    "got nothing"
                ),
            ),
        ],
        ids=["name", "artefact", "reason", "no reason"],
    )
    def test_what_is_malformed_is_told_with_what_was_expected_and_without_what_was_given(
        self, given: tuple[str, str, str], told: str
    ) -> None:
        with pytest.raises(RetentionError) as raised:
            Hold.of(*given)
        said = str(raised.value)
        assert said.startswith(f"no hold was placed: {told}")
        assert said.endswith(": give it anew")
        assert "@b" not in said

    def test_one_whose_file_is_lost_is_in_force(self, retailer: PartyFolder) -> None:
        retaining.place(retailer, hold(), now=NOW)
        shutil.rmtree(retailer.path / "retention" / "holds")
        go(retailer, 11)
        assert retailer.model("model").exists()
        assert retaining.status(retailer, now=days(11)).holds == (hold(),)


CUTS = ("os.rename", "os.rmdir")


def killed(step: int, act: Iterator[None]) -> bool:
    """Fork, act, and kill before the given step; tell whether it was reached."""
    child = os.fork()
    if child == 0:
        left = step

        def hook(event: str, _: object) -> None:
            nonlocal left
            if event in CUTS:
                left -= 1
                if left == 0:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(hook)
        try:
            for _ in act:
                pass
        except BaseException:  # noqa: BLE001 -- this process must not return
            os._exit(3)
        os._exit(0)
    ended = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert ended in (0, -signal.SIGKILL)
    return ended != 0


def test_killed_at_every_step_it_is_deleted_with_one_leaf(ended: World, tmp_path: Path) -> None:
    for step in itertools.count(1):
        path = tmp_path / f"{step}" / "retailer"
        shutil.copytree(ended.folder("retailer").path, path)
        folder = PartyFolder(path)

        def act(folder: PartyFolder = folder) -> Iterator[None]:
            with suppress(RetentionError):  # it was lifted before
                retaining.place(folder, hold(artefact="segment"), now=days(1))
            yield
            retaining.run(folder, now=days(4))
            yield
            retaining.lift(folder, "case", now=days(4))

        cut = killed(step, act())
        for _ in act():
            pass
        assert not places(folder, Artefact.MATCH, "find")
        assert [one.told for one in deleted_in(folder)] == [True]
        kinds = [leaf.kind for leaf in verify_party(path).leaves]
        for kind in ("artefact.deleted", "hold.placed", "hold.lifted"):
            assert kinds.count(kind) == 1
        assert not list((path / "retention" / "holds").glob("*.json"))
        shutil.rmtree(path.parent)
        if not cut:
            break
    assert step > 10


class TestUse:
    def test_an_expansion_with_a_deleted_model_is_refused_by_name(self, world: World) -> None:
        for name in ("retailer", "courier"):
            go(world.folder(name), 11)
        again = EXPAND.model_copy(update={"name": "again"})
        write_jobs(world.folder("coordinator"), (*JOBS, again))
        with pytest.raises(RefusedError, match=r"retention\.model: the model of job 'model'"):
            world.run()

    def test_the_coordinator_does_not_even_ask(self, world: World) -> None:
        folder = world.folder("coordinator")
        go(folder, 11)
        write_jobs(folder, (*JOBS, EXPAND.model_copy(update={"name": "again"})))
        with pytest.raises(RefusedError, match="refused by coordinator under retention"):
            world.run()

    def test_a_question_that_was_answered_is_not_answered_again(
        self, ended: World, world: World
    ) -> None:
        headers = [(world.read(one).header, one) for one in ended.wire]
        asked = next(
            one for header, one in headers if (header.recipient, header.job) == ("retailer", "find")
        )
        retaining.run(world.folder("retailer"), now=days(4))
        answer = world.ask("retailer", asked)
        assert answer.body.term == "retention.match"

    def test_judging_a_deleted_model_is_refused(self, retailer: PartyFolder) -> None:
        go(retailer, 11)
        with pytest.raises(RefusedError, match=r"retention\.model"):
            KeptModel.open(retailer.model("model"))

    def test_own_rows_beside_a_deleted_match_are_refused(self, retailer: PartyFolder) -> None:
        retaining.run(retailer, now=days(4))
        with pytest.raises(RefusedError, match=r"retention\.match"):
            OwnRows.read(KeptModel.open(retailer.model("model")), lambda: days(4))

    def test_what_uses_something_else_goes_on(self, retailer: PartyFolder) -> None:
        retaining.run(retailer, now=days(4))
        check_kept(retailer, "again", EXPAND)  # its model is there
        with pytest.raises(RefusedError, match=r"retention\.match"):
            check_kept(retailer, "again", JOBS[1])


class TestCommand:
    def call(self, capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main(["retention", *map(str, arguments)])
        told = capsys.readouterr()
        return ended.value.code, told.out, told.err

    def test_what_goes_on_by_itself_says_that_it_was_told_to_end(
        self,
        retailer: PartyFolder,
        capsys: pytest.CaptureFixture[str],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        before = signal.getsignal(signal.SIGTERM)
        monkeypatch.setattr("time.sleep", lambda _: os.kill(os.getpid(), signal.SIGTERM))
        try:
            code, _, told = self.call(capsys, "run", retailer.path, "--every", "60")
        finally:
            signal.signal(signal.SIGTERM, before)
        assert (code, "retention ends, as it was told to" in told) == (143, True)

    def test_status_run_hold_and_lift(
        self, retailer: PartyFolder, capsys: pytest.CaptureFixture[str]
    ) -> None:
        path = retailer.path
        code, told, _ = self.call(capsys, "status", path)
        assert code == 0
        assert "match find until 2026-" in told
        options = ("--artefact", "model", "--reason", "a court asked for it", "--json")
        code, told, _ = self.call(capsys, "hold", path, "--hold", "case", *options)
        assert (code, json.loads(told)["holds"][0]["hold"]) == (0, "case")
        code, told, _ = self.call(capsys, "run", path)  # the machine's clock is months ahead
        assert (code, "run once more to confirm" in told) == (1, True)
        code, told, _ = self.call(capsys, "run", path, "--json")
        assert (code, [one["name"] for one in json.loads(told)["deleted"]]) == (0, ["find"])
        assert self.call(capsys, "lift", path, "--hold", "case")[0] == 0
        code, _, problem = self.call(capsys, "lift", path, "--hold", "none")
        assert (code, "no hold 'none' is in force" in problem) == (2, True)

    def test_a_folder_that_is_none(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert self.call(capsys, "run", tmp_path)[0] == 2
