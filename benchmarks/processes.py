"""What a process takes, as the kernel counts it. Linux only.

Each of these raises `OSError` where there is no such process, and of memory `IndexError` where it
has ended and is only waited for.
"""

import os
from pathlib import Path
from typing import Final, Literal

__all__ = ["Process", "cpu_seconds", "forget_peak", "parent", "peak_bytes", "shared_bytes"]

Process = int | Literal["self"]
"""By its number, or the one that asks."""

_TICKS: Final = os.sysconf("SC_CLK_TCK")
_KB: Final = 1024


def cpu_seconds(process: Process) -> tuple[float, float]:
    """Return what a process used itself, and what those of its children did that have ended."""
    cells = [int(cell) / _TICKS for cell in _stat(process)[11:15]]
    return cells[0] + cells[1], cells[2] + cells[3]


def parent(process: Process) -> int:
    """Return by which process one was started."""
    return int(_stat(process)[1])


def peak_bytes(process: Process) -> int:
    """Return the resident memory of a process, at its largest since `forget_peak`."""
    status = Path(f"/proc/{process}/status").read_text()
    return _KB * int(status.partition("VmHWM:")[2].split()[0])


def forget_peak(process: Process) -> None:
    """Have the peak of a process begin anew."""
    Path(f"/proc/{process}/clear_refs").write_text("5")


def shared_bytes(process: Process) -> int:
    """Return the memory that a process takes now, of shared pages its share."""
    text = Path(f"/proc/{process}/smaps_rollup").read_text()
    return _KB * int(text.partition("\nPss:")[2].split()[0])


def _stat(process: Process) -> list[str]:
    return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
