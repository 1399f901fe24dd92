"""What a party has matched before, and what that forbids."""

import hashlib
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compliance.terms import MatchTerms
from federation.errors import RefusedError, WorkspaceError
from federation.matching import history as module
from federation.matching.history import MatchHistory, forget_tokens
from federation.matching.token_set import MatchingSet, TokenBatch

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
DAY, TICK = timedelta(days=1), timedelta(microseconds=1)
TERMS = MatchTerms(
    purpose="p",
    default_region="US",
    email_rule="provider_rules",
    reveal="partner-learns-members",
    minimum_match=1,
    set_size_bucket=1,
    maximum_matches=2,
    period_days=7,
    maximum_change=0.5,
)


def terms(**changes: object) -> MatchTerms:
    return MatchTerms.model_validate(TERMS.model_dump() | changes)


Sets = Callable[[Sequence[int]], MatchingSet]


def set_of(directory: Path, numbers: Sequence[int]) -> MatchingSet:
    raw = b"".join(b"\x01" + hashlib.sha256(str(one).encode()).digest() for one in numbers)
    tokens = np.frombuffer(raw, dtype=np.uint8).reshape(-1, 33)
    rows = np.arange(len(numbers))
    return MatchingSet.write(directory, [TokenBatch(tokens, rows, np.zeros_like(rows))])


@pytest.fixture
def sets(tmp_path: Path) -> Sets:
    counted = iter(range(1000))
    return lambda numbers: set_of(tmp_path / f"set-{next(counted)}", numbers)


@pytest.fixture
def history(tmp_path: Path) -> Callable[[], MatchHistory]:
    return lambda: MatchHistory.open(tmp_path / "matches", "retailer")


History = Callable[[], MatchHistory]


# --- how often -----------------------------------------------------------------------------------


def test_as_many_matches_as_agreed_and_no_more_in_a_period(history: History, sets: Sets) -> None:
    own = sets(range(10))
    for number in range(2):
        history().check_count(f"job-{number}", "brand", TERMS, at=NOW + number * DAY)
        history().record(f"job-{number}", "brand", own, at=NOW + number * DAY)
    for at in (NOW + DAY, NOW + 7 * DAY - TICK):
        with pytest.raises(RefusedError) as caught:
            history().check_count("job-2", "brand", TERMS, at=at)
        assert (caught.value.party, caught.value.term) == ("retailer", "match.maximum_matches")
        assert "2 matches with brand in 7 days" in caught.value.remedy
        assert "2026-03-08" in caught.value.remedy  # when the first is a period old
    history().check_count("job-2", "brand", TERMS, at=NOW + 7 * DAY)
    history().record("job-2", "brand", own, at=NOW + 7 * DAY)
    with pytest.raises(RefusedError, match="2026-03-09"):
        history().check_count("job-3", "brand", TERMS, at=NOW + 7 * DAY)


def test_the_date_that_is_named_is_the_first_free_one(history: History, sets: Sets) -> None:
    for number in range(3):  # more than agreed: the limit may have been larger before
        history().record(f"job-{number}", "brand", sets(range(3)), at=NOW + number * DAY)
    with pytest.raises(RefusedError, match="wait until 2026-03-09"):
        history().check_count("more", "brand", TERMS, at=NOW + 3 * DAY)
    history().check_count("more", "brand", TERMS, at=datetime(2026, 3, 9, 12, tzinfo=UTC))


def test_every_peer_counts_for_itself(history: History, sets: Sets) -> None:
    for peer in ("brand", "store"):
        for number in range(2):
            history().check_count(f"job-{number}", peer, TERMS, at=NOW)
            history().record(f"job-{number}", peer, sets(range(3)), at=NOW)
    for peer in ("brand", "store"):
        with pytest.raises(RefusedError, match=f"2 matches with {peer}"):
            history().check_count("job-2", peer, TERMS, at=NOW)
    history().check_count("job-2", "another", TERMS, at=NOW)


def test_a_repeated_job_counts_once_and_keeps_its_time(
    history: History, sets: Sets, tmp_path: Path
) -> None:
    own = sets(range(3))
    for day in range(5):
        history().check_count("job-0", "brand", TERMS, at=NOW + day * DAY)
        history().record("job-0", "brand", own, at=NOW + day * DAY)
    history().record("job-1", "brand", own, at=NOW + 5 * DAY)
    with pytest.raises(RefusedError):
        history().check_count("job-2", "brand", TERMS, at=NOW + 5 * DAY)
    history().check_count("job-1", "brand", TERMS, at=NOW + 5 * DAY)
    history().check_count("job-2", "brand", TERMS, at=NOW + 7 * DAY)


def test_a_job_that_was_matched_is_not_new(history: History, sets: Sets) -> None:
    history().check_new("job-0")
    history().record("job-0", "brand", sets(range(3)), at=NOW)
    with pytest.raises(RefusedError, match="run it under another name") as caught:
        history().check_new("job-0")
    assert (caught.value.party, caught.value.term) == ("retailer", "match.maximum_matches")
    history().check_new("job-1")
    history().check_new("job-0", "courier")
    with pytest.raises(RefusedError, match="run it under another name"):
        history().check_new("job-0", "brand")


def test_what_record_returns_knows_what_it_recorded(history: History, sets: Sets) -> None:
    known = history()
    for number in range(2):
        known = known.record(f"job-{number}", "brand", sets(range(3)), at=NOW)
    with pytest.raises(RefusedError):
        known.check_count("job-2", "brand", TERMS, at=NOW)


def test_a_clock_that_went_back_forgets_nothing(history: History, sets: Sets) -> None:
    for number in range(2):
        history().record(f"job-{number}", "brand", sets(range(3)), at=NOW)
    with pytest.raises(RefusedError):
        history().check_count("job-2", "brand", TERMS, at=NOW - 365 * DAY)


# --- how much a set may change -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("share", "now", "passes"),
    [
        (0.5, range(10), True),
        (0.5, range(15), True),  # 5 of 10 came
        (0.5, range(16), False),
        (0.5, range(5, 10), True),  # 5 went
        (0.5, range(6, 10), False),
        (0.5, range(2, 13), True),  # 2 went, 3 came
        (0.5, range(3, 13), False),
        (1.0, range(20), True),
        (1.0, range(21), False),
        (1.0, range(5, 15), True),
        (0.1, range(11), True),
        (0.1, range(1, 11), False),
        (0.5, [], False),
    ],
)
def test_a_set_may_change_by_the_agreed_share_of_the_last_one(
    history: History, sets: Sets, share: float, now: Sequence[int], passes: bool
) -> None:
    history().record("job-0", "brand", sets(range(10)), at=NOW)
    if passes:
        history().check_change(sets(now), terms(maximum_change=share))
        return
    with pytest.raises(RefusedError) as caught:
        history().check_change(sets(now), terms(maximum_change=share))
    assert (caught.value.party, caught.value.term) == ("retailer", "match.maximum_change")
    assert f"{share:.0%}" in caught.value.remedy


@settings(max_examples=40)
@given(
    before=st.sets(st.integers(0, 30), max_size=20),
    now=st.sets(st.integers(0, 30), max_size=20),
    share=st.floats(0.05, 1.0),
)
def test_the_change_is_what_came_and_went(
    tmp_path_factory: pytest.TempPathFactory, before: set[int], now: set[int], share: float
) -> None:
    directory = tmp_path_factory.mktemp("change")
    history = MatchHistory.open(directory, "retailer")
    history = history.record("job", "brand", set_of(directory / "a", sorted(before)), at=NOW)
    own, agreed = set_of(directory / "b", sorted(now)), terms(maximum_change=share)
    if before and len(before ^ now) > share * len(before):
        with pytest.raises(RefusedError, match="maximum_change"):
            history.check_change(own, agreed)
    else:
        history.check_change(own, agreed)


def test_a_first_set_may_be_any(history: History, sets: Sets) -> None:
    history().check_change(sets(range(100)), terms(maximum_change=0.01))


def test_a_set_of_nobody_does_not_make_way_for_any_other(history: History, sets: Sets) -> None:
    whole = terms(maximum_change=1.0)
    history().record("job-0", "brand", sets(range(10)), at=NOW)
    history().check_change(sets([]), whole)
    history().record("job-1", "brand", sets([]), at=NOW)
    with pytest.raises(RefusedError, match="maximum_change"):
        history().check_change(sets(range(50, 60)), whole)
    history().check_change(sets(range(12)), TERMS)


def test_after_none_but_sets_of_nobody_comes_a_first_set(history: History, sets: Sets) -> None:
    history().record("job-0", "brand", sets([]), at=NOW)
    history().check_change(sets(range(10)), TERMS)
    history().record("job-1", "brand", sets(range(10)), at=NOW)
    with pytest.raises(RefusedError, match="maximum_change"):
        history().check_change(sets(range(50, 60)), TERMS)


def test_a_set_is_held_against_the_last_one_whomever_it_was_matched_with(
    history: History, sets: Sets
) -> None:
    history().record("job-0", "brand", sets(range(10)), at=NOW)
    history().record("job-1", "store", sets(range(15)), at=NOW)
    history().check_change(sets(range(22)), TERMS)
    with pytest.raises(RefusedError):
        history().check_change(sets(range(7)), TERMS)


def test_a_set_of_one_key_is_held_against_the_last_of_that_key(
    history: History, sets: Sets, tmp_path: Path
) -> None:
    history().record("job-0", "brand", sets(range(10)), at=NOW)
    history().check_change(sets(range(50, 60)), TERMS, key="email")
    history().record("job-1", "brand", sets(range(50, 60)), at=NOW, key="email")
    history().check_change(sets(range(12)), TERMS)
    for key, other in (("email", range(12)), (None, range(50, 60))):
        with pytest.raises(RefusedError, match="maximum_change"):
            history().check_change(sets(other), TERMS, key=key)
    with pytest.raises(RefusedError, match="2 matches"):  # counted together
        history().check_count("job-2", "brand", TERMS, at=NOW)
    (tmp_path / "matches" / "last-set-email.bin").unlink()
    with pytest.raises(WorkspaceError, match="missing"):
        history().check_change(sets(range(50, 60)), TERMS, key="email")


def test_whoever_was_taken_out_of_a_last_set_stays_out_when_its_job_goes_on(
    history: History, sets: Sets, tmp_path: Path
) -> None:
    own, last = sets(range(10)), tmp_path / "matches" / "last-set.bin"
    history().record("job-0", "courier", own, at=NOW)
    forget_tokens(tmp_path / "matches", own.bucket(0, 1)[0][:1])
    without = last.read_bytes()
    assert len(without) == 9 * 8
    history().record("job-0", "brand", own, at=NOW)
    assert last.read_bytes() == without
    history().record("job-1", "brand", own, at=NOW)
    assert len(last.read_bytes()) == 10 * 8


# --- what is on disk ---------------------------------------------------------------------------


def test_a_history_is_the_owners_alone(history: History, sets: Sets, tmp_path: Path) -> None:
    history().record("job-0", "brand", sets(range(10)), at=NOW)
    files = sorted((tmp_path / "matches").iterdir())
    assert [path.name for path in files] == ["history.json", "last-set.bin"]
    assert not any(path.stat().st_mode & 0o077 for path in files)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[",
        b"{}",
        b"\xff\xfe",
        b'[{"time":"2026-03-01T12:00:00Z","job":"a"}]',
        b'[{"time":"2026-03-01T12:00:00","job":"a","peer":"b"}]',
        b'[{"time":"2026-03-01T12:00:00Z","job":"a","peer":"b","more":1}]',
    ],
)
def test_a_damaged_history_is_refused_and_not_begun_anew(
    history: History, sets: Sets, tmp_path: Path, content: bytes
) -> None:
    history().record("job-0", "brand", sets(range(10)), at=NOW)
    file = tmp_path / "matches" / "history.json"
    file.write_bytes(content)
    with pytest.raises(WorkspaceError, match="restore it from a backup"):
        history()
    assert file.read_bytes() == content


def test_a_history_that_cannot_be_read_is_refused(history: History, tmp_path: Path) -> None:
    (tmp_path / "matches" / "history.json").mkdir(parents=True)
    with pytest.raises(WorkspaceError, match="cannot be read"):
        history()


@pytest.mark.parametrize("damage", ["cut", "lost"])
def test_a_last_set_that_is_damaged_or_lost_is_refused(
    history: History, sets: Sets, tmp_path: Path, damage: str
) -> None:
    history().record("job-0", "brand", sets(range(10)), at=NOW)
    file = tmp_path / "matches" / "last-set.bin"
    if damage == "cut":
        file.write_bytes(file.read_bytes()[:-1])
    else:
        file.unlink()
    with pytest.raises(WorkspaceError, match="restore it from a backup"):
        history().check_change(sets(range(10)), TERMS)


@pytest.mark.parametrize("last", ["last-set.bin", "last-set-email.bin"])
def test_a_history_that_is_lost_beside_a_last_set_is_not_begun_anew(
    history: History, sets: Sets, tmp_path: Path, last: str
) -> None:
    key = "email" if "email" in last else None
    history().record("job-0", "brand", sets(range(10)), at=NOW, key=key)
    (tmp_path / "matches" / "history.json").unlink()
    assert [path.name for path in (tmp_path / "matches").iterdir()] == [last]
    with pytest.raises(WorkspaceError, match=r"history\.json is missing: restore it"):
        history()


class Killed(BaseException):
    """A crash, that nothing catches."""


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("write", [1, 2])
def test_a_crash_at_any_write_forgets_nothing(
    history: History,
    sets: Sets,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    write: int,
    after: bool,
) -> None:
    first, second = sets(range(10)), sets(range(12))
    history().record("job-0", "brand", first, at=NOW)
    real, left = module.write_atomically, write

    def dying(path: Path, content: bytes, *, mode: int) -> None:
        nonlocal left
        left -= 1
        if left == 0 and not after:
            raise Killed
        real(path, content, mode=mode)
        if left == 0:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(module, "write_atomically", dying)
        with pytest.raises(Killed):
            history().record("job-1", "brand", second, at=NOW + DAY)
    tight = terms(maximum_matches=1)
    with pytest.raises(RefusedError):  # the first is not forgotten
        history().check_count("job-9", "brand", tight, at=NOW + 2 * DAY)
    with pytest.raises(RefusedError):  # nor is a set
        history().check_change(sets(range(50, 70)), TERMS)
    history().check_count("job-1", "brand", TERMS, at=NOW + 2 * DAY)
    history().check_change(second, TERMS)
    history().record("job-1", "brand", second, at=NOW + 2 * DAY)
    with pytest.raises(RefusedError):
        history().check_count("job-2", "brand", TERMS, at=NOW + 2 * DAY)
    undisturbed = MatchHistory.open(tmp_path / "other", "retailer")
    undisturbed.record("job-0", "brand", second, at=NOW)
    last = (tmp_path / "matches" / "last-set.bin").read_bytes()
    assert last == (tmp_path / "other" / "last-set.bin").read_bytes()


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("write", [1, 2, 3])
def test_a_crash_in_the_first_match_is_taken_for_no_loss(
    history: History, sets: Sets, monkeypatch: pytest.MonkeyPatch, write: int, after: bool
) -> None:
    own, real, left = sets(range(10)), module.write_atomically, write

    def dying(path: Path, content: bytes, *, mode: int) -> None:
        nonlocal left
        left -= 1
        if left or after:
            real(path, content, mode=mode)
        if not left:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(module, "write_atomically", dying)
        with pytest.raises(Killed):
            history().record("job-0", "brand", own, at=NOW)
    history().check_count("job-0", "brand", TERMS, at=NOW)
    history().check_change(own, TERMS)
    history().record("job-0", "brand", own, at=NOW)
    with pytest.raises(RefusedError, match="1 matches with brand"):
        history().check_count("job-1", "brand", terms(maximum_matches=1), at=NOW)


def test_a_match_is_counted_only_after_its_set_is_kept(
    history: History, sets: Sets, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that a match that was counted always has a set to hold the next one against."""
    written: list[str] = []
    real = module.write_atomically

    def watched(path: Path, content: bytes, *, mode: int) -> None:
        written.append(path.name)
        real(path, content, mode=mode)

    monkeypatch.setattr(module, "write_atomically", watched)
    history().record("job-0", "brand", sets(range(3)), at=NOW)
    assert written == ["history.json", "last-set.bin", "history.json"]
    history().record("job-1", "brand", sets(range(4)), at=NOW)
    assert written[3:] == ["last-set.bin", "history.json"]
