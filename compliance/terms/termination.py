"""How the contract ends before its time.

Leaves to others: notices and when they take effect (`compliance.lifecycle`).
"""

from typing import Annotated

from pydantic import Field

from compliance.terms.vocabulary import Terms, Text

__all__ = ["TerminationTerms"]


class TerminationTerms(Terms):
    """How a party ends the agreement by itself.

    Attributes:
        notice_days: days between a notice and its effect.
        text: whatever else is agreed about the end, in Markdown.
    """

    notice_days: Annotated[int, Field(strict=True, ge=0, le=3_650)]
    text: Text = ""
