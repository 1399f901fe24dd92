"""Private set intersection: who is in both sets, and nothing about who is in one.

`two_party`, `records` and `many_party` hold the protocols, on what `blinding` does to a set: two
parties' tokens, two parties' records whose keys stay hidden, and more parties; `buckets` cuts large
sets for them; `engine` says what they ask of a curve, `portable` is the engine on libsodium,
`hash_to_curve` and `field` the mathematics between them.
"""

from privacy.psi.buckets import BucketPlan, bucket_numbers, padded_count, plan_buckets
from privacy.psi.engine import CurveEngine, Points, validate_points
from privacy.psi.portable import PortableEngine
from privacy.psi.two_party import (
    SenderReply,
    TagOrder,
    receiver_blind,
    receiver_count,
    receiver_intersect,
    sender_places,
    sender_reply,
)

__all__ = [
    "BucketPlan",
    "CurveEngine",
    "Points",
    "PortableEngine",
    "SenderReply",
    "TagOrder",
    "bucket_numbers",
    "padded_count",
    "plan_buckets",
    "receiver_blind",
    "receiver_count",
    "receiver_intersect",
    "sender_places",
    "sender_reply",
    "validate_points",
]
