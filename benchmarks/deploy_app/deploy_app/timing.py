"""Channels that take the time, and one that waits as Flower does."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from flwr.app import Message, MessageType
from flwr.serverapp import Grid

from compliance.agreement import Agreement
from federation.channel import Channel, Parcel, from_record, to_record
from federation.messages import SealedMessage, unseal_header

__all__ = ["StockChannel", "TimedChannel"]


@dataclass
class TimedChannel:
    """A channel that notes of each exchange what was said first, and how many seconds it took."""

    channel: Channel
    agreement: Agreement
    exchanges: list[tuple[str, float]] = field(default_factory=list)

    def nodes(self, at_least: int, **patience: float) -> Sequence[int]:
        """Return the nodes that are connected."""
        return self.channel.nodes(at_least, **patience)

    def exchange(
        self, parcels: Sequence[Parcel], *, most_missing: int = 0
    ) -> Sequence[SealedMessage | None]:
        """Hand an exchange on."""
        kind = unseal_header(parcels[0].message.envelope, self.agreement).kind
        begun = time.perf_counter()
        answers = self.channel.exchange(parcels, most_missing=most_missing)
        self.exchanges.append((kind, time.perf_counter() - begun))
        return answers


class StockChannel:
    """A channel that leaves sending and waiting to Flower's own Grid."""

    def __init__(self, grid: Grid) -> None:
        self._grid = grid

    def nodes(self, at_least: int, **_patience: float) -> Sequence[int]:
        """Wait for nodes."""
        while len(found := sorted(self._grid.get_node_ids())) < at_least:
            time.sleep(0.1)
        return found

    def exchange(
        self,
        parcels: Sequence[Parcel],
        *,
        most_missing: int = 0,  # noqa: ARG002 -- one that is missing fails the measurement
    ) -> Sequence[SealedMessage]:
        """Send and receive."""
        sent = [
            Message(to_record(one.message), one.node, MessageType.QUERY, group_id=str(place))
            for place, one in enumerate(parcels)
        ]
        replies = {one.metadata.src_node_id: one for one in self._grid.send_and_receive(sent)}
        return [from_record(replies[one.node].content) for one in parcels]
