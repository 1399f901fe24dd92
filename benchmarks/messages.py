"""What carrying one message costs in one process: the Grid and the records, not the work.

Sends an `identify` question to a node that gives the same bytes back, over and over, through the
channel that the coordinator uses, and prints the median of each size.

Run it: python benchmarks/messages.py [MESSAGES]
"""

import statistics
import sys
import time
from pathlib import Path

import rfc8785
from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from compliance.signing import Envelope, SigningKey
from federation.channel import GridChannel, Parcel, from_record, to_record
from federation.embedded import FIRST_NODE, EmbeddedGrid
from federation.messages import (
    EVERYONE,
    HEADER_TYPE,
    Header,
    Identify,
    SealedMessage,
    content_digest,
)

SIZES = {"no payload": 0, "64 KiB payload": 1 << 16, "1 MiB payload": 1 << 20}

echo = ClientApp()


@echo.query()
def give_back(message: Message, _: Context) -> Message:
    """Unpack the question and pack it again as the answer."""
    return Message(to_record(from_record(message.content)), reply_to=message)


def identify(payload_bytes: int) -> SealedMessage:
    """Return the coordinator's first question, with so many bytes of payload."""
    payload = bytes(payload_bytes)
    header = Header(
        agreement="0" * 64,
        job="roll-call",
        sender="coordinator",
        recipient=EVERYONE,
        body=Identify(),
        payload_digest=content_digest(payload),
        payload_bytes=payload_bytes,
    )
    content = rfc8785.dumps(header.model_dump(mode="json"))
    key = SigningKey.from_seed(bytes(32))
    return SealedMessage(
        Envelope.sign(HEADER_TYPE, content, {"coordinator": key}).to_json(), payload
    )


def median_seconds(message: SealedMessage, count: int) -> float:
    """Return the median time from question to answer over `count` exchanges."""
    grid = EmbeddedGrid([Path("nowhere")], app=echo)
    channel = GridChannel(grid)
    parcels = [Parcel(FIRST_NODE, message)]
    seconds = []
    for _ in range(count):
        begun = time.perf_counter()
        channel.exchange(parcels)
        seconds.append(time.perf_counter() - begun)
    grid.close()
    return statistics.median(seconds)


def main() -> None:
    """Measure every size and print a line each."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 500
    for name, size in SIZES.items():
        milliseconds = 1e3 * median_seconds(identify(size), count)
        print(f"embedded, {name:<15} {milliseconds:7.3f} ms a message (median of {count})")


if __name__ == "__main__":
    main()
