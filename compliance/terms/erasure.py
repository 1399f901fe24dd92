"""What is owed to a person who asks to be erased.

Leaves to others: doing it (`federation`), and how it is asked and shown (`compliance.erasure`).
"""

from typing import Annotated

from pydantic import Field

from compliance.terms.vocabulary import Epsilon, Terms

__all__ = ["ErasureTerms"]


class ErasureTerms(Terms):
    """What is owed to a person who asks to be erased.

    Attributes:
        deadline_days: days in which every party must have completed, 1 to 90.
        tolerated_epsilon: a model whose privacy loss per person is at most this may go on though
            it saw the person; left out, none may.
        retrain_days: days in which any other model that saw the person is trained again without
            them; left out, it is retired at once.
    """

    deadline_days: Annotated[int, Field(ge=1, le=90)] = 30
    tolerated_epsilon: Epsilon | None = None
    retrain_days: Annotated[int, Field(ge=1, le=90)] | None = None
