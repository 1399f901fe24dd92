"""Comity's own match, bucket by bucket, by the functions that a party's node calls.

Options: the kind of engine, and threads. The receiver blinds its next bucket while the sender
answers the last, so each party holds two buckets at most.
"""

from collections.abc import Iterator
from contextlib import closing

import numpy as np
from numpy.typing import NDArray
from party import Link, Party

from privacy.psi import (
    BucketPlan,
    CurveEngine,
    PortableEngine,
    SenderReply,
    bucket_numbers,
    plan_buckets,
    receiver_blind,
    receiver_intersect,
    sender_reply,
)
from privacy.psi.engines import EngineKind, choose_engine
from privacy.randomness import derive_secret, new_secret

TOKEN_BYTES = 33


def main() -> None:
    """Play one party from its tokens on disk to its report."""
    party = Party()
    kind, workers = EngineKind(party.options[0]), int(party.options[1])
    tokens = np.memmap(party.folder / f"{party.role}.tokens", np.uint8, "r")
    tokens = np.asarray(tokens).reshape(-1, TOKEN_BYTES)
    engine = choose_engine(2 * len(tokens), workers=workers, wanted=kind)
    if kind is not EngineKind.PORTABLE and isinstance(engine, PortableEngine):
        raise RuntimeError(f"expected the engine {kind}, got {engine.name}: its self-test failed")
    party.ready()
    with closing(party.connect()) as link:
        link.send(len(tokens).to_bytes(8, "little"))
        theirs = int.from_bytes(link.receive(), "little")
        if party.receives:
            plan = plan_buckets(len(tokens), theirs)
            rows = [*receive(link, tokens, plan, engine)]
            party.report(np.concatenate(rows).tobytes())
        else:
            plan = plan_buckets(theirs, len(tokens))
            send(link, tokens, plan, engine)
            party.report()


def receive(
    link: Link, tokens: NDArray[np.uint8], plan: BucketPlan, engine: CurveEngine
) -> Iterator[NDArray[np.int64]]:
    """Yield, bucket by bucket, the rows that the sender has too."""
    rows, secret = cut(tokens, plan), new_secret()
    secrets = [derive_secret(secret, f"bucket {number}") for number in range(plan.count)]

    def ask(number: int) -> None:
        if number < plan.count:
            mine, capacity = tokens[rows[number]], plan.receiver_capacity
            link.send(receiver_blind(mine, secrets[number], engine=engine, capacity=capacity).data)

    ask(0)
    for number, own in enumerate(rows):
        ask(number + 1)
        tags = matrix(link.receive(), plan.receiver_capacity)
        blinded = matrix(link.receive(), plan.sender_capacity)
        places = receiver_intersect(
            len(own),
            secrets[number],
            SenderReply(tags, blinded),
            engine=engine,
            capacity=plan.receiver_capacity,
            sender_capacity=plan.sender_capacity,
        )
        yield own[places >= 0]


def send(link: Link, tokens: NDArray[np.uint8], plan: BucketPlan, engine: CurveEngine) -> None:
    """Answer every bucket of the receiver's."""
    secret = new_secret()
    for number, own in enumerate(cut(tokens, plan)):
        reply = sender_reply(
            tokens[own],
            matrix(link.receive(), plan.receiver_capacity),
            derive_secret(secret, f"bucket {number}"),
            engine=engine,
            capacity=plan.sender_capacity,
            receiver_capacity=plan.receiver_capacity,
        )
        link.send(reply.tags.data)
        link.send(reply.blinded.data)


def cut(tokens: NDArray[np.uint8], plan: BucketPlan) -> list[NDArray[np.int64]]:
    """Return the rows of each bucket."""
    numbers = bucket_numbers(tokens, plan.count)
    ends = np.cumsum(np.bincount(numbers, minlength=plan.count))
    return np.split(np.argsort(numbers, kind="stable"), ends[:-1])


def matrix(message: bytearray, rows: int) -> NDArray[np.uint8]:
    """View a message as `rows` rows."""
    return np.frombuffer(message, np.uint8).reshape(rows, -1)


if __name__ == "__main__":
    main()
