"""What is said of models that have to be trained again."""

from typing import Annotated, Literal

from pydantic import Field

from compliance.erasure.retraining import DueModel
from federation.messages.vocabulary import Closed, Digest
from federation.specification import JobName

__all__ = ["RetrainAsk", "RetrainTold"]


class RetrainAsk(Closed):
    """The coordinator asks which models have to be trained again.

    Attributes:
        nonce: fresh, so that nobody answers as before.
    """

    kind: Literal["retrain.ask"] = "retrain.ask"
    nonce: Digest


class RetrainTold(Closed):
    """Which models of the party somebody who was erased was in; not who that was.

    Attributes:
        due: models that have to be trained again, each by its day.
        retired: models that nothing has taken the place of, and that nobody is scored with.
    """

    kind: Literal["retrain.told"] = "retrain.told"
    due: Annotated[tuple[DueModel, ...], Field(max_length=64)] = ()
    retired: Annotated[tuple[JobName, ...], Field(max_length=1024)] = ()
