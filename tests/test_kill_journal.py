"""A journal of kills goes on where it was cut, and forgets what other code did."""

from pathlib import Path

from kill_journal import Journal, Kill


def test_a_journal_has_what_was_killed_with_this_code_but_for_a_line_that_was_cut(
    tmp_path: Path,
) -> None:
    path = tmp_path / "out" / "kills.jsonl"
    journal = Journal.open(path)
    kept = Kill(journal.code, "find", "brand", 3, "flush", end="0", wrong=("models/a",))
    lost, other = (Kill(code, "find", "brand", 4, "flush") for code in (journal.code, "older"))
    for kill in (kept, other, lost):
        journal.write(kill)
    path.write_text(path.read_text()[:-9])
    found = Journal.open(path)
    assert list(found.done.values()) == [kept]
    again = Kill(journal.code, "find", "brand", 5, "os.rename")
    found.write(lost)  # it stands behind what was cut
    found.write(again)
    assert list(Journal.open(path).done.values()) == [kept, again]
