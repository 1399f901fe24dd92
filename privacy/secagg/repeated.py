"""Sums of the same parties' vectors, many times under one set of keys: one message for each.

Each party shows a key once. For every sum each pair of parties derives a mask from their keys and
from what the sum is about: one adds it, the other takes it away (Bonawitz et al., CCS 2017, section
4.0.1). Whoever has all masked vectors has their sum, and nothing else.

Guarantees: a masked vector is uniformly random to whoever lacks one other party's vector of the
same sum; masks of two sums are independent; parties that were told different things of a sum, or
shown different keys, leave a sum that is random.

Leaves to others: that keys are whose they are said to be (they travel signed), that a party
answers once for each sum, and keeping its secret until the last. **Nobody may be missing**: without
one party's vector the rest is random (`client` and `server` bear that, for five messages a sum).
Whoever adds up learns from all parties but one, if those collude with it, that one's vector.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from privacy.errors import InvalidParameterError, PeerMessageError
from privacy.randomness import Secret, derive_secret
from privacy.secagg.keys import add_mask, agree, common_mask, private_key, public_bytes

__all__ = ["KEY_BYTES", "RepeatedSum"]

KEY_BYTES = 32
"""Length of a public key."""


@dataclass(frozen=True)
class RepeatedSum:
    """Who adds up, for what.

    Attributes:
        context: names agreement and job, so that keys and masks fit no other.
        parties: two or more names, no two alike.

    Raises:
        InvalidParameterError: fewer than two parties, or one twice: there is nothing to hide in.
    """

    context: str
    parties: tuple[str, ...]

    def __post_init__(self) -> None:
        if len(self.parties) < 2 or len(set(self.parties)) < len(self.parties):
            raise InvalidParameterError(
                f"a sum hides a vector among those of two parties or more, got {self.parties}"
            )

    def key(self, secret: Secret) -> bytes:
        """Return the public key of a party with this secret, 32 bytes."""
        return public_bytes(private_key(self._own(secret)))

    def mask(
        self,
        name: str,
        secret: Secret,
        keys: Mapping[str, bytes],
        vector: "NDArray[np.unsignedinteger[Any]]",
        about: str,
    ) -> "NDArray[np.unsignedinteger[Any]]":
        """Mask a vector for one sum.

        Args:
            name: whose it is.
            secret: its own.
            keys: public key of every party, its own included.
            vector: shape (n,), modulo the ring of its type.
            about: what all parties know of the sum: its number, and a digest of what was asked.

        Raises:
            PeerMessageError: keys are not one of each party, its own is another's, or one is weak.
        """
        if set(keys) != set(self.parties) or len(set(keys.values())) < len(keys):
            raise PeerMessageError(
                f"expected a key of each of {', '.join(self.parties)}, no two alike, got "
                f"{len(set(keys.values()))} of {', '.join(sorted(keys))}"
            )
        if any(len(key) != KEY_BYTES for key in keys.values()) or keys[name] != self.key(secret):
            raise PeerMessageError(f"the keys of a sum do not hold {name}'s own, or are no keys")
        listed = "".join(f"{party} {keys[party].hex()}\n" for party in self.parties)
        roster = hashlib.sha256(f"{self.context}\n{listed}{about}".encode()).hexdigest()
        private, masked = private_key(self._own(secret)), vector.copy()
        for other in self.parties:
            if other != name:
                stream = common_mask(agree(private, keys[other]), roster, name, other)
                add_mask(masked, stream, negative=name > other)
        return masked

    def _own(self, secret: Secret) -> Secret:
        return derive_secret(secret, f"repeated sums {self.context} mask key")
