"""Subjects: numbers that agree with equality, however the texts are cut into parts."""

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from compliance.consent import subjects as module
from compliance.consent.subjects import Subjects

TEXTS = st.lists(st.text(alphabet="aé\0", max_size=20), max_size=30)


def column(texts: list[str | None]) -> pa.Array:
    return pa.array(texts, pa.large_string())


class TestSubjects:
    @settings(max_examples=60)
    @given(known=TEXTS, asked=st.lists(st.none() | st.text("aé\0", max_size=20), max_size=30))
    def test_numbers_agree_with_equality_in_many_parts(
        self, known: list[str], asked: list[str | None]
    ) -> None:
        rows, module._PART_ROWS = module._PART_ROWS, 2  # type: ignore[misc]
        try:
            there, numbers = Subjects.numbered(column(known))
            found = there.find(column(["before", *asked, *known]).slice(1))
        finally:
            module._PART_ROWS = rows  # type: ignore[misc]
        names = [*there.texts.to_pylist(), None]
        assert sorted(names[:-1]) == sorted(set(known))
        assert [names[number] for number in numbers] == known
        expected = [text if text in known else None for text in [*asked, *known]]
        assert [names[number] for number in found] == expected

    def test_texts_with_the_same_bits_are_told_apart(self) -> None:
        texts = [f"the same{number:06}the end." for number in range(100_000)]
        there, numbers = Subjects.numbered(column(texts))
        assert np.count_nonzero(np.diff(there.edges)) == 1
        assert len(there) == len(texts)
        assert there.texts.take(pa.array(numbers)).to_pylist() == texts
        others = column([text.replace("the same", "the sane") for text in texts[:100]])
        assert there.find(others).tolist() == [len(there)] * 100

    def test_parts_are_about_even(self) -> None:
        there, _ = Subjects.numbered(column([f"R{number}" for number in range(200_000)]))
        sizes = np.diff(there.edges)
        assert len(sizes) == 8
        assert sizes.max() < 2 * sizes.min()
