"""Comity's match over a direct link, bucket by bucket, by the functions that a party's node calls.

Options: memory limit of the job, which decides the buckets, and threads, which are not used. The
program of each end runs in spu's own environment, named by COMITY_RR22_PYTHON.
"""

import os
from pathlib import Path

import numpy as np
from comity import TOKEN_BYTES, cut
from party import Party

from compliance.terms import MatchProtocol
from federation.rr22.configuration import Rr22Config
from federation.rr22.link import DirectLink
from federation.specification import MatchSpec
from privacy.certificates import OwnCertificate
from privacy.psi import plan_buckets
from privacy.psi.rr22 import found_tokens, padded_tags
from privacy.randomness import new_secret, seeded_secret


def main() -> None:
    """Play one party from its tokens on disk to its report."""
    party = Party()
    spec = MatchSpec(name="b", protocol=MatchProtocol.RR22, memory_limit=party.options[0])
    tokens = np.fromfile(party.folder / f"{party.role}.tokens", np.uint8).reshape(-1, TOKEN_BYTES)
    plan = plan_buckets(len(tokens), len(tokens), bucket_points=spec.bucket_points)
    address = f"127.0.0.1:{party.ports[0]}"
    config = Rr22Config(
        python=Path(os.environ["COMITY_RR22_PYTHON"]),
        listen=None if party.receives else address,
    )
    ends = [OwnCertificate.from_secret(seeded_secret(1, f"end {number}")) for number in range(2)]
    party.ready()
    found, received = [np.empty(0, np.int64)], 0
    for bucket, rows in enumerate(cut(tokens, plan)):
        tags, owners = padded_tags(
            tokens[rows],
            seeded_secret(1, f"key {bucket}"),
            new_secret(),
            capacity=plan.receiver_capacity + 1,
        )
        end = DirectLink(
            config=config,
            peer="the other",
            own=ends[party.receives],
            peer_certificate=ends[not party.receives].pem,
            dial=address if party.receives else None,
            binding=bucket.to_bytes(32, "little"),
            learns=party.receives,
            scratch=DirectLink.scratch_of(config, f"bench-{party.role}-{os.getpid()}"),
        ).match(tags)
        received += end.received_bytes
        if party.receives:
            found.append(rows[found_tokens(end.tags, tags, owners)])
    party.report(np.concatenate(found).tobytes(), received_bytes=received)


if __name__ == "__main__":
    main()
