"""The Flower ClientApp of a party: message in, released answer out.

The node's configuration names the party's folder (`--node-config 'party="/srv/comity/brand"'`).
Everything that steers privacy comes from the signed agreement in that folder; nothing is read from
Flower's run configuration.

Guarantees: the only reply it can build is one that `Node.handle` released.
"""

from pathlib import Path

from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp

from federation.channel import from_record, to_record
from federation.errors import WorkspaceError
from federation.gate import Released
from federation.node import Node

__all__ = ["app"]

app = ClientApp()


def _record(released: Released) -> RecordDict:
    return to_record(released.message)


@app.query()
def answer(message: Message, context: Context) -> Message:
    """Answer one message as the party whose folder the node's configuration names."""
    folder = context.node_config.get("party")
    if not isinstance(folder, str):
        raise WorkspaceError('the node\'s configuration lacks party="FOLDER"')
    released = Node.open(Path(folder)).handle(from_record(message.content))
    return Message(_record(released), reply_to=message)
