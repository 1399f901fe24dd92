"""Progress as a person sees it: a line a stage, a bar for whatever takes long.

Guarantees: prints counts and budgets only; lines from several parties never tear each other.

Leaves to others: what is worth telling (`progress`).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars

from federation.progress import Progress, listening
from federation.terminal import err

__all__ = ["Watch", "line", "watched"]


class Watch:
    """A listener that prints to a console; use it as a context."""

    def __init__(self, console: Console) -> None:
        self._bars = Bars(
            TextColumn("  {task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=console,
            transient=True,
        )
        self._tasks: dict[tuple[str, str, str], TaskID] = {}

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bars.stop()

    def __call__(self, progress: Progress) -> None:
        """Show one report."""
        if progress.total:
            self._advance(progress)
        else:
            self._bars.console.print(line(progress))

    def _advance(self, progress: Progress) -> None:
        key = (progress.party, progress.job, progress.stage)
        if key not in self._tasks:
            description = f"{progress.party} {progress.stage}"
            self._tasks[key] = self._bars.add_task(description, total=progress.total)
        self._bars.update(self._tasks[key], completed=progress.done)
        if progress.done >= progress.total:
            self._bars.remove_task(self._tasks.pop(key))


@contextmanager
def watched() -> Iterator[None]:
    """Print on standard error what is reported within the block."""
    with Watch(err) as watch, listening(watch):
        yield


def line(progress: Progress) -> str:
    """Return a report as a line, in the markup of a console."""
    parts = [escape(progress.stage)]
    if progress.rows is not None:
        parts.append(f"{progress.rows:,} people")
    if progress.excluded:
        total = sum(progress.excluded.values())
        reasons = ", ".join(
            f"{count:,} {reason.replace('_', ' ')}" for reason, count in progress.excluded.items()
        )
        parts.append(f"{total:,} left out ({escape(reasons)})")
    if progress.epsilon_spent is not None and progress.epsilon_left is not None:
        parts.append(
            f"epsilon spent {progress.epsilon_spent:.3f}, left {progress.epsilon_left:.3f}"
        )
    party = escape(f"{progress.party:<12}")
    return f"[bold]{party}[/] [cyan]{progress.job:<18}[/] {' · '.join(parts)}"
