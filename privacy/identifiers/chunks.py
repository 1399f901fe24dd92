"""Split a column into its distinct values, and work on these in chunks, here or elsewhere.

Guarantees: the result depends neither on the executor nor on where the chunks are cut.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from typing import Any, TypeAlias, TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from privacy.errors import InvalidParameterError
from privacy.identifiers.blanks import BLANKS

__all__ = ["Progress", "Values", "distinct", "work"]

Values: TypeAlias = Sequence[str | None] | NDArray[Any] | pa.Array | pa.ChunkedArray
"""A column of text; None, NaN and Arrow's null are missing."""

Progress: TypeAlias = Callable[[int, int], None]
"""Is told how many distinct values are done, and of how many."""

_CHUNK = 16_384  # distinct values: a few hundredths of a second of work
_Result = TypeVar("_Result")


def distinct(values: Values) -> tuple[NDArray[np.intp], list[str]]:
    """Return each row's place among the distinct values, and these without surrounding blanks.

    A missing value is the empty text.

    Raises:
        InvalidParameterError: if a value is neither text nor missing.
    """
    if isinstance(values, pa.Array | pa.ChunkedArray):
        return _distinct_in_arrow(values)
    position: dict[object, int] = {}
    try:
        codes = np.fromiter(
            (position.setdefault(value, len(position)) for value in values),
            dtype=np.intp,
            count=len(values),
        )
    except TypeError as error:
        raise InvalidParameterError(
            "expected identifiers as text, got a column of lists or the like: spread several "
            "identifiers of a person over several columns"
        ) from error
    return codes, [_text_of(value) for value in position]


def _distinct_in_arrow(values: Any) -> tuple[NDArray[np.intp], list[str]]:
    held = values.type.value_type if pa.types.is_dictionary(values.type) else values.type
    readable = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
    if not any(is_text(held) for is_text in (*readable, pa.types.is_null)):
        raise InvalidParameterError(_expected_text(held))
    whole = pa.chunked_array(values) if isinstance(values, pa.Array) else values
    encoded = whole.cast(pa.large_string()).combine_chunks().dictionary_encode()
    texts = [text.strip(BLANKS) for text in encoded.dictionary.to_pylist()]
    codes = encoded.indices.fill_null(len(texts)).to_numpy(zero_copy_only=False)
    return codes.astype(np.intp), [*texts, ""]


def _text_of(value: object) -> str:
    if isinstance(value, str):
        return value.strip(BLANKS)
    if value is None or (isinstance(value, float) and np.isnan(value)):
        return ""
    raise InvalidParameterError(_expected_text(type(value).__name__))


def _expected_text(got: object) -> str:
    return (
        f"expected identifiers as text, got {got}: read the column as text, so that leading zeros "
        "and plus signs survive"
    )


def work(
    tasks: Sequence[tuple[Callable[[list[str]], _Result], list[str]]],
    executor: Executor | None,
    progress: Progress | None,
) -> list[list[_Result]]:
    """Return, for each task, its results over the chunks of its values, in order.

    Args:
        tasks: functions that can be pickled if the executor needs it, each with its values.
        executor: where to work; here, if None.
        progress: is told after each chunk.
    """
    apply = map if executor is None else executor.map
    cut = [
        [texts[start : start + _CHUNK] for start in range(0, len(texts), _CHUNK)]
        for _, texts in tasks
    ]
    begun = [apply(task, chunks) for (task, _), chunks in zip(tasks, cut, strict=True)]
    total, done = sum(len(texts) for _, texts in tasks), 0
    results: list[list[_Result]] = []
    for chunks, coming in zip(cut, begun, strict=True):
        results.append([])
        for chunk, result in zip(chunks, coming, strict=True):
            results[-1].append(result)
            done += len(chunk)
            if progress is not None:
                progress(done, total)
    return results
