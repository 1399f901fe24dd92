"""The two Flower apps, as thin as they can be: they hand messages on, and decide nothing.

`BUNDLE` is the directory that `flwr run` ships: a stub that imports these two from wherever they
are installed.
"""

from pathlib import Path

__all__ = ["BUNDLE"]

BUNDLE = Path(__file__).resolve().parent / "bundle"
