"""References of records, in memory and on disk; members are numbers among them."""

import stat
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from federation.errors import WorkspaceError
from federation.members import Members, load_people, save_people
from federation.people_used import PeopleUsed
from federation.references import References

NAMES = st.lists(st.text(max_size=6), max_size=12)


def large(values: list[str]) -> pa.Array:
    return pa.array(values, pa.large_string())


class TestReferences:
    @settings(max_examples=50)
    @given(names=NAMES, cuts=st.lists(st.integers(0, 12), max_size=3), data=st.data())
    def test_they_are_the_same_in_memory_and_on_disk_however_cut(
        self,
        tmp_path_factory: pytest.TempPathFactory,
        names: list[str],
        cuts: list[int],
        data: st.DataObject,
    ) -> None:
        edges = [0, *sorted(min(cut, len(names)) for cut in cuts), len(names)]
        whole = large(names)
        parts = [whole.slice(low, high - low) for low, high in pairwise(edges)]
        held = References.of(names)
        written = References.write(tmp_path_factory.mktemp("some") / "names.arrow", parts)
        assert written == held
        assert len(held) == len(names)
        places = st.lists(st.integers(0, max(len(names) - 1, 0)), max_size=8 if names else 0)
        rows = np.array(data.draw(places), dtype=np.uint32)
        for one in (held, written):
            assert [name for batch in one.batches() for name in batch.to_pylist()] == names
            assert one.at(rows).to_pylist() == [names[row] for row in rows]

    @given(NAMES, NAMES)
    def test_different_references_have_different_digests(
        self, names: list[str], others: list[str]
    ) -> None:
        assert (References.of(names) == References.of(others)) is (names == others)

    def test_where_one_ends_and_the_next_begins_is_told_apart(self) -> None:
        assert References.of(["ab", "c"]).digest != References.of(["a", "bc"]).digest

    def test_a_file_of_them_is_the_owners_alone(self, tmp_path: Path) -> None:
        References.write(tmp_path / "names.arrow", [large(["a"])])
        assert stat.S_IMODE((tmp_path / "names.arrow").stat().st_mode) == 0o600

    def test_no_name_is_shown(self) -> None:
        assert "SECRET-77" not in repr(References.of(["SECRET-77"]))

    @pytest.mark.parametrize("damage", ["cut", "lost", "other", "nonsense"])
    def test_damage_is_told_without_a_name(self, tmp_path: Path, damage: str) -> None:
        path = tmp_path / "names.arrow"
        written = References.write(path, [large(["SECRET-77", "b"])])
        if damage == "cut":
            path.write_bytes(path.read_bytes()[:-40])
        elif damage == "lost":
            path.unlink()
        elif damage == "other":
            References.write(path, [large(["SECRET-77", "c"])])
        else:
            path.write_bytes(b"SECRET-77")
        with pytest.raises(WorkspaceError, match="is damaged: run its job") as caught:
            written.at(np.array([0], dtype=np.uint32))
        assert "SECRET" not in str(caught.value)


@pytest.fixture
def people(tmp_path: Path) -> PeopleUsed:
    return PeopleUsed(
        "newsletter",
        References.write(tmp_path / "used.arrow", [large(["a", "b"]), large(["c"])]),
        9,
        {"withdrawn": 5},
        linked=References.write(tmp_path / "linked.arrow", [large(["d"])]),
    )


class TestMembers:
    def test_who_takes_part_is_found_again(self, tmp_path: Path, people: PeopleUsed) -> None:
        save_people(tmp_path, people)
        assert load_people(tmp_path) == people
        assert stat.S_IMODE((tmp_path / "people.json").stat().st_mode) == 0o600

    @given(st.lists(st.integers(0, 2)))
    def test_rows_count_once_in_the_order_of_the_match(self, rows: list[int]) -> None:
        nobody = Members(PeopleUsed("", References.of("abc"), 3), np.zeros(0, dtype=np.uint32))
        found = nobody.of_rows(np.array(rows, dtype=np.int64))
        assert found.rows.tolist() == list(dict.fromkeys(rows))
        assert found.references().to_pylist() == ["abc"[row] for row in dict.fromkeys(rows)]
        asked = np.array(["c", "z", "a"])
        assert found.among(asked).tolist() == [2 in rows, False, 0 in rows]

    def test_they_are_stored_for_the_people_they_were_found_among(
        self, tmp_path: Path, people: PeopleUsed
    ) -> None:
        path = tmp_path / "members.npz"
        Members(people, np.array([2, 0], dtype=np.uint32)).save(path)
        assert Members.load(path, people).references().to_pylist() == ["c", "a"]
        others = PeopleUsed("newsletter", References.of(["a", "b", "d"]), 9)
        with pytest.raises(WorkspaceError, match=r"members\.npz is damaged"):
            Members.load(path, others)
        Members(people, np.array([3], dtype=np.uint32)).save(path)
        with pytest.raises(WorkspaceError, match=r"members\.npz is damaged"):
            Members.load(path, people)
