"""How the lines look that a process tells its operator. Leaves to others: writing them."""

from enum import StrEnum

__all__ = ["LogFormat"]


class LogFormat(StrEnum):
    """How lines look."""

    HUMAN = "human"
    JSON = "json"
