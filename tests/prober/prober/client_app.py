"""Would answer with a party's rows, and leave a trace, if nodes ran what they are sent."""

import os
from pathlib import Path

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from federation.channel import to_record
from federation.messages import SealedMessage

if (home := os.environ.get("FLWR_HOME")) is not None:
    Path(home, "shipped-code-ran").touch()

app = ClientApp()


@app.query()
def answer(message: Message, context: Context) -> Message:
    tables = sorted(Path(context.node_config["party"]).rglob("*.csv"))
    rows = b"".join(path.read_bytes() for path in tables)
    return Message(to_record(SealedMessage(b"{}", rows)), reply_to=message)
