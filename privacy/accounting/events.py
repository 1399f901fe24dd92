"""What was released, as data: the mechanism's name and parameters, nothing of the people.

Guarantees: an event that exists is in range, frozen and hashable; equal events have equal
canonical bytes (RFC 8785), and only those bytes are read back. Leaves to others: running the
mechanism (`privacy.training`) and pricing it (`accountant`).

Every event speaks of one person's rows being added or removed, and assumes that the mechanism
bounds what one person can change: by clipping for the Gaussians, by counting once for the Laplace.
Randomised response alone speaks of a person's bit being another, the person being there.
"""

import math
from typing import Annotated, Any, Literal, Self

import rfc8785
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from privacy.errors import InvalidParameterError

__all__ = [
    "MAXIMUM_COUNT",
    "MAXIMUM_NOISE",
    "MINIMUM_NOISE",
    "MINIMUM_NOISE_SCALE",
    "ComposedEvent",
    "DiscreteGaussianEvent",
    "DiscreteLaplaceEvent",
    "DistributedDiscreteGaussianEvent",
    "Event",
    "GaussianEvent",
    "RandomisedResponseEvent",
    "RepeatedEvent",
    "SampledGaussianEvent",
    "from_json",
    "to_json",
]

MAXIMUM_COUNT = 1_000_000
"""Most steps or repetitions that one event may hold."""

MAXIMUM_NOISE = 1e6
"""Most noise, relative to the sensitivity, that is worth an event."""

MINIMUM_NOISE = 1e-6
"""Least noise, relative to the sensitivity, that an event may have."""

MINIMUM_NOISE_SCALE = 0.5
"""Least spread, in units of the grid, at which sums of discrete Gaussians are understood."""

_MAXIMUM_GRID = 1e12
_MAXIMUM_PARTIES = 10_000
_MAXIMUM_DIMENSION = 1_000_000_000
_MAXIMUM_SENSITIVITY = 10_000
_MAXIMUM_PARTS = 10_000
_MAXIMUM_DEPTH = 16
_MAXIMUM_JSON_BYTES = 1 << 20

_Noise = Annotated[float, Field(ge=MINIMUM_NOISE, le=MAXIMUM_NOISE, allow_inf_nan=False)]
_Count = Annotated[int, Field(ge=1, le=MAXIMUM_COUNT)]
_Probability = Annotated[float, Field(gt=0.0, le=1.0, allow_inf_nan=False)]


class _Event(BaseModel):
    """What all events share: closed, frozen, strictly typed, refused with our own error."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    @model_validator(mode="wrap")
    @classmethod
    def _refuse(cls, data: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        try:
            event = handler(data)
        except ValidationError as error:
            raise InvalidParameterError(_explain(cls.__name__, error)) from error
        if event.depth > _MAXIMUM_DEPTH:
            raise InvalidParameterError(
                f"{cls.__name__} nests {event.depth} events deep, at most {_MAXIMUM_DEPTH} are "
                "accounted for: multiply the counts out"
            )
        return event

    @property
    def depth(self) -> int:
        """How many events are nested in one another, this one included."""
        return 1


class GaussianEvent(_Event):
    """One release of a sum plus normal noise.

    Attributes:
        noise_multiplier: standard deviation of the noise divided by the L2 sensitivity,
            in [10⁻⁶, 10⁶].
    """

    kind: Literal["gaussian"] = "gaussian"
    noise_multiplier: _Noise


class SampledGaussianEvent(_Event):
    """Gaussian releases, each of a fresh Poisson sample (Abadi et al. 2016, Algorithm 1).

    Attributes:
        noise_multiplier: standard deviation of the noise divided by the clipping norm,
            in [10⁻⁶, 10⁶].
        sampling_probability: chance of each row to be in a step's sample, independently, in (0, 1].
        steps: number of releases, 1 to `MAXIMUM_COUNT`.
    """

    kind: Literal["sampled-gaussian"] = "sampled-gaussian"
    noise_multiplier: _Noise
    sampling_probability: _Probability
    steps: _Count


class DiscreteLaplaceEvent(_Event):
    """One release of an integer plus two-sided geometric noise (Ghosh et al. 2012).

    The noise takes the integer k with probability proportional to exp(-|k| / scale), so that the
    release alone is (sensitivity / scale, 0)-private.

    Attributes:
        scale: spread of the noise in counts, in [10⁻⁶, 10⁶].
        sensitivity: most that one person can change the integer by, 1 to 10⁴.
    """

    kind: Literal["discrete-laplace"] = "discrete-laplace"
    scale: _Noise
    sensitivity: Annotated[int, Field(ge=1, le=_MAXIMUM_SENSITIVITY)] = 1


class DiscreteGaussianEvent(_Event):
    """One release of integers plus discrete Gaussian noise (Canonne, Kamath and Steinke 2020).

    Each coordinate's noise takes the integer k with probability proportional to exp(-k² / 2σ²).

    Attributes:
        noise_multiplier: σ divided by the L2 sensitivity of the integers, in [10⁻⁶, 10⁶].
    """

    kind: Literal["discrete-gaussian"] = "discrete-gaussian"
    noise_multiplier: _Noise


class DistributedDiscreteGaussianEvent(_Event):
    """Releases of sums of integer vectors, to which several parties added discrete Gaussian noise.

    Only the sum is seen (secure aggregation), modulo something large or not. The sum of discrete
    Gaussians is no discrete Gaussian; the accountant charges for the difference (Kairouz, Liu and
    Steinke 2021). Quantities are in units of the grid that vectors were rounded to, after rounding.

    Someone with rows at m parties weighs m times as much, and is in a sample with probability
    1 - (1 - q)^m: multiply `l2_sensitivity` and raise `sampling_probability` accordingly.

    Attributes:
        noise_scale: σ of the noise that each party adds to each coordinate, in [0.5, 10¹²].
        honest_parties: parties whose noise is surely in the sum and unknown to whoever looks at it,
            1 to 10⁴: without those that may drop out, those that collude, and the onlooker.
        dimension: coordinates of the vector, 1 to 10⁹.
        l2_sensitivity: most that one person can change the sum of integers by, in the Euclidean
            norm, rounding included, in (0, 10¹²].
        sampling_probability: chance of a person to be in a step's Poisson sample, in (0, 1].
        steps: number of releases, 1 to `MAXIMUM_COUNT`.
    """

    kind: Literal["distributed-discrete-gaussian"] = "distributed-discrete-gaussian"
    noise_scale: Annotated[
        float, Field(ge=MINIMUM_NOISE_SCALE, le=_MAXIMUM_GRID, allow_inf_nan=False)
    ]
    honest_parties: Annotated[int, Field(ge=1, le=_MAXIMUM_PARTIES)]
    dimension: Annotated[int, Field(ge=1, le=_MAXIMUM_DIMENSION)]
    l2_sensitivity: Annotated[float, Field(gt=0.0, le=_MAXIMUM_GRID, allow_inf_nan=False)]
    sampling_probability: _Probability = 1.0
    steps: _Count = 1


class RandomisedResponseEvent(_Event):
    """One release of a bit of each person, turned round with a known probability (Warner 1965).

    It protects what the bit is, not that there is one: of two data sets that differ in it, not in
    who is there. The release is (ln((1 - φ) / φ), 0)-private.

    Attributes:
        flip_probability: φ, in [10⁻⁶, 0.5).
    """

    kind: Literal["randomised-response"] = "randomised-response"
    flip_probability: Annotated[float, Field(ge=MINIMUM_NOISE, lt=0.5, allow_inf_nan=False)]

    @property
    def pure_loss(self) -> float:
        """ε at a δ of 0."""
        return math.log((1.0 - self.flip_probability) / self.flip_probability)


class RepeatedEvent(_Event):
    """The same event several times, each with fresh noise and free to depend on those before.

    Attributes:
        event: what is repeated.
        count: how often, 1 to `MAXIMUM_COUNT`.
    """

    kind: Literal["repeated"] = "repeated"
    event: "Event"
    count: _Count

    @property
    def depth(self) -> int:
        """How many events are nested in one another, this one included."""
        return 1 + self.event.depth


class ComposedEvent(_Event):
    """Several events on the same people, each free to depend on the outcomes of those before.

    Attributes:
        events: the parts, 1 to 10⁴ of them.
    """

    kind: Literal["composed"] = "composed"
    # JSON has no tuples; the wrapping validator hides from pydantic that it reads JSON.
    events: Annotated[
        tuple["Event", ...], Field(min_length=1, max_length=_MAXIMUM_PARTS, strict=False)
    ]

    @property
    def depth(self) -> int:
        """How many events are nested in one another, this one included."""
        return 1 + max(event.depth for event in self.events)


Event = Annotated[
    GaussianEvent
    | SampledGaussianEvent
    | DiscreteLaplaceEvent
    | DiscreteGaussianEvent
    | DistributedDiscreteGaussianEvent
    | RandomisedResponseEvent
    | RepeatedEvent
    | ComposedEvent,
    Field(discriminator="kind"),
]
"""Any event that can be priced."""

RepeatedEvent.model_rebuild()
ComposedEvent.model_rebuild()
_EVENT: TypeAdapter[Event] = TypeAdapter(Event)


def to_json(event: Event) -> str:
    """Write `event` in its one canonical form (RFC 8785: sorted keys, no spaces)."""
    return rfc8785.dumps(event.model_dump(mode="json")).decode()


def from_json(text: str) -> Event:
    """Read an event back.

    Args:
        text: what `to_json` wrote, at most 1 MiB.

    Raises:
        InvalidParameterError: if `text` is no known event, is out of range, or is spelt in any
            but the canonical way.
    """
    if len(text) > _MAXIMUM_JSON_BYTES:
        raise InvalidParameterError(
            f"an event's JSON has at most {_MAXIMUM_JSON_BYTES} characters, got {len(text)}"
        )
    try:
        event = _EVENT.validate_json(text)
    except ValidationError as error:
        raise InvalidParameterError(_explain("event", error)) from error
    if to_json(event) != text:
        raise InvalidParameterError(
            f"the {event.kind} event is not in canonical form (RFC 8785): write it with to_json()"
        )
    return event


def _explain(what: str, error: ValidationError) -> str:
    """Say which field expected what, and what it got."""
    mistakes = (
        f"{'.'.join(map(str, item['loc'])) or 'the whole'}: {item['msg']}, got "
        f"{str(item['input'])[:80]}"
        for item in error.errors(include_url=False)
    )
    return f"{what} is out of range: {'; '.join(mistakes)}"
