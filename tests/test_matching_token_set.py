import hashlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from federation.errors import WorkspaceError
from federation.matching import token_set
from federation.matching.token_set import MatchingSet, TokenBatch
from privacy.psi.buckets import bucket_numbers


def batch(numbers: Sequence[int], kind: int = 1) -> TokenBatch:
    """Tokens of numbers, each of a person of that row."""
    raw = b"".join(
        bytes([kind]) + hashlib.sha256(str(number).encode()).digest() for number in numbers
    )
    rows = np.array(numbers, dtype=np.int64)
    return TokenBatch(np.frombuffer(raw, dtype=np.uint8).reshape(-1, 33), rows, rows % 3)


def contents(found: TokenBatch) -> set[tuple[bytes, int, int]]:
    return {(token.tobytes(), row, rank) for token, row, rank in zip(*found, strict=True)}


@settings(max_examples=25)
@given(
    st.lists(st.lists(st.integers(0, 60), max_size=30), max_size=4),
    st.integers(1, 40),
    st.sampled_from([1, 9, 1 << 16]),
)
def test_buckets_hold_every_token_once_where_the_hash_says(
    tmp_path_factory: pytest.TempPathFactory, parts: list[list[int]], count: int, together: int
) -> None:
    directory = tmp_path_factory.mktemp("set")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(token_set, "_TOGETHER", together)
        written = MatchingSet.write(directory, [batch(part) for part in parts])
    buckets = [written.bucket(number, count) for number in range(count)]
    everyone = {number for part in parts for number in part}
    assert written.token_count == sum(len(found.tokens) for found in buckets) == len(everyone)
    assert set().union(*(contents(found) for found in buckets)) == contents(batch(sorted(everyone)))
    for number, found in enumerate(buckets):
        assert (bucket_numbers(found.tokens, count) == number).all()


def test_a_token_that_comes_again_keeps_its_least_row(tmp_path: Path) -> None:
    again = batch([7, 7, 7])._replace(rows=np.array([9, 4, 6]))
    assert MatchingSet.write(tmp_path, [again]).bucket(0, 1).rows.tolist() == [4]


def test_one_hash_of_two_kinds_is_two_tokens(tmp_path: Path) -> None:
    written = MatchingSet.write(tmp_path, [batch([7], kind=1), batch([7], kind=2)])
    assert written.token_count == 2
    assert sorted(written.bucket(0, 1).tokens[:, 0].tolist()) == [1, 2]


def test_the_digest_follows_the_tokens_and_not_their_order_or_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    numbers = list(range(50))
    written = MatchingSet.write(tmp_path / "a", [batch(numbers)])
    monkeypatch.setattr(token_set, "_TOGETHER", 7)  # and not how many were sorted at once
    halves = [batch(numbers[30:])._replace(rows=np.arange(20)), batch(numbers[:30][::-1])]
    assert MatchingSet.write(tmp_path / "b", halves).digest == written.digest
    assert MatchingSet.write(tmp_path / "c", [batch(numbers[1:])]).digest != written.digest


def test_a_set_can_be_opened_again_and_is_the_owners_alone(tmp_path: Path) -> None:
    written = MatchingSet.write(tmp_path / "set", [batch(range(100))])
    assert MatchingSet.open(tmp_path / "set") == written
    assert {path.name for path in (tmp_path / "set").iterdir()} == {"set.json", "tokens.bin"}
    for path in (tmp_path / "set").iterdir():
        assert path.stat().st_mode & 0o077 == 0
    assert (tmp_path / "set").stat().st_mode & 0o077 == 0


def test_an_empty_set_has_empty_buckets(tmp_path: Path) -> None:
    written = MatchingSet.write(tmp_path, [])
    assert MatchingSet.open(tmp_path) == written
    assert [part.shape for part in written.bucket(2, 3)] == [(0, 33), (0,), (0,)]
    assert list(written.hashes()) == []


def test_hashes_come_sorted_and_once(tmp_path: Path) -> None:
    written = MatchingSet.write(tmp_path, [batch(range(40), kind=1), batch(range(30), kind=2)])
    tails = {token[-8:].tobytes() for token in batch(range(40)).tokens}
    expected = sorted(int.from_bytes(tail, "little") for tail in tails)
    assert np.concatenate(list(written.hashes())).tolist() == expected


def test_what_a_crash_leaves_is_no_set_and_is_swept_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    monkeypatch.setattr(token_set, "_TOGETHER", 1)
    real = {name: getattr(token_set, name) for name in ("_append", "_sorted", "write_atomically")}
    steps = 0

    def count(name: str) -> Callable[..., object]:
        def counted(*args: object, **kwargs: object) -> object:
            nonlocal steps
            steps += 1
            if steps == stop:
                raise Killed
            return real[name](*args, **kwargs)

        return counted

    for name in real:
        monkeypatch.setattr(token_set, name, count(name))
    stop, crashes = 1, 0
    while True:
        steps = 0
        try:
            whole = MatchingSet.write(tmp_path, [batch(range(30)), batch(range(20, 40))])
            break
        except Killed:
            assert MatchingSet.open(tmp_path) is None
            stop, crashes = stop + 1, crashes + 1
    assert crashes > 40
    stop = 0
    assert whole.digest == MatchingSet.write(tmp_path, [batch(range(40))]).digest


def test_a_full_disk_is_told_and_leaves_no_set(tmp_path: Path) -> None:
    # /dev/full refuses every write as a full disk does.
    directory = tmp_path / "set"
    shelf = tmp_path / "set.tmp" / f"shelf-{batch([1]).tokens[0, -1]:02x}.bin"

    def batches() -> Iterator[TokenBatch]:
        shelf.symlink_to("/dev/full")
        yield batch([1])

    with pytest.raises(WorkspaceError, match="No space left on device: make room"):
        MatchingSet.write(directory, batches())
    assert MatchingSet.open(directory) is None
    assert MatchingSet.write(directory, [batch([1, 2])]).token_count == 2


@pytest.mark.parametrize("damage", ["cut", "lost", "nonsense"])
def test_a_damaged_set_is_refused(tmp_path: Path, damage: str) -> None:
    MatchingSet.write(tmp_path, [batch(range(10))])
    tokens = tmp_path / "tokens.bin"
    if damage == "cut":
        tokens.write_bytes(tokens.read_bytes()[:-1])
    elif damage == "lost":
        tokens.unlink()
    else:
        (tmp_path / "set.json").write_text('{"tokens": -1}')
    with pytest.raises(WorkspaceError, match="remove it"):
        MatchingSet.open(tmp_path)
