"""Private set intersection: who is in both sets, and nothing about who is in one.

`two_party` holds the protocol, `engine` what it asks of a curve, `portable` the engine on
libsodium, `hash_to_curve` and `field` the mathematics between them.
"""

from privacy.psi.engine import CurveEngine, Points, validate_points
from privacy.psi.portable import PortableEngine
from privacy.psi.two_party import (
    SenderReply,
    padded_count,
    receiver_blind,
    receiver_intersect,
    sender_reply,
)

__all__ = [
    "CurveEngine",
    "Points",
    "PortableEngine",
    "SenderReply",
    "padded_count",
    "receiver_blind",
    "receiver_intersect",
    "sender_reply",
    "validate_points",
]
