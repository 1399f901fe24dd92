"""What is said in an alignment, in which every data party is one place of a ring."""

from typing import Literal

from federation.messages.vocabulary import Closed, Count, Digest, Place
from federation.specification import AlignSpec

__all__ = [
    "AlignBind",
    "AlignBlind",
    "AlignBound",
    "AlignCommon",
    "AlignDone",
    "AlignInvite",
    "AlignJoin",
    "AlignJoined",
    "AlignPass",
    "AlignSeed",
    "AlignSide",
    "AlignTags",
]


class AlignSide(Closed):
    """What a party of a ring says of itself before anything is computed.

    Attributes:
        recipe: fingerprint of how it normalises identifiers.
        commitment: binds it to its set, and tells nothing of it.
    """

    recipe: Digest
    commitment: Digest


class AlignJoin(Closed):
    """Coordinator to every data party: read your people for an alignment."""

    kind: Literal["align.join"] = "align.join"
    spec: AlignSpec


class AlignJoined(Closed):
    """Data party to coordinator: I have a set, and am bound to it."""

    kind: Literal["align.joined"] = "align.joined"
    side: AlignSide


class AlignBind(Closed):
    """Coordinator to every data party: what each said of itself.

    Payload: the envelopes of their `align.joined`, a line each, in the order of the ring.
    """

    kind: Literal["align.bind"] = "align.bind"
    spec: AlignSpec


class AlignBound(Closed):
    """Data party to coordinator: these are held to it, and what you will count is paid for."""

    kind: Literal["align.bound"] = "align.bound"


class AlignInvite(Closed):
    """Coordinator to the first party: give the seed to the one at `place`."""

    kind: Literal["align.invite"] = "align.invite"
    spec: AlignSpec
    place: Place


class AlignSeed(Closed):
    """First party to another: what common dummies are made of (payload: 32 bytes)."""

    kind: Literal["align.seed"] = "align.seed"
    spec: AlignSpec


class AlignBlind(Closed):
    """Coordinator to every data party: send a bucket of your own set round."""

    kind: Literal["align.blind"] = "align.blind"
    spec: AlignSpec
    bucket: Count


class AlignPass(Closed):
    """A party to the next: a bucket of the set of the one at `place` (payload: points)."""

    kind: Literal["align.pass"] = "align.pass"
    spec: AlignSpec
    bucket: Count
    place: Place


class AlignTags(Closed):
    """The last party to the coordinator: tags of a bucket of that set (payload: tags)."""

    kind: Literal["align.tags"] = "align.tags"
    bucket: Count
    place: Place


class AlignCommon(Closed):
    """Coordinator to a data party: where in its bucket is what all have (payload: places)."""

    kind: Literal["align.common"] = "align.common"
    spec: AlignSpec
    bucket: Count


class AlignDone(Closed):
    """Data party to coordinator: the people whom all know are kept. Who stays with the party."""

    kind: Literal["align.done"] = "align.done"
