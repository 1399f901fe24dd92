"""Asks every node which party it is, as a coordinator does first of all, and takes the time."""

import json
import time
from pathlib import Path

import rfc8785
from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from compliance.signing import Envelope
from federation.apps.server_app import look_often
from federation.channel import GridChannel, Parcel
from federation.messages import (
    EVERYONE,
    HEADER_TYPE,
    Header,
    Identify,
    SealedMessage,
    content_digest,
    unseal,
)
from federation.party import PartyFolder

app = ServerApp()


def question(folder: PartyFolder, number: int) -> SealedMessage:
    """Return a question that no node has answered before."""
    header = Header(
        agreement=folder.agreement().digest,
        job=f"roll-call-{number}",
        sender=folder.name,
        recipient=EVERYONE,
        body=Identify(),
        payload_digest=content_digest(b""),
        payload_bytes=0,
    )
    content = rfc8785.dumps(header.model_dump(mode="json"))
    return SealedMessage(
        Envelope.sign(HEADER_TYPE, content, {folder.name: folder.identity_key()}).to_json(), b""
    )


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Ask, wait for every answer, and again; the first round is not counted."""
    look_often()
    config = context.run_config
    folder = PartyFolder(Path(str(config["coordinator"])))
    agreement = folder.agreement()
    channel = GridChannel(grid, deadline_seconds=120)
    nodes = channel.nodes(len(agreement.parties) - 1)
    seconds = []
    for number in range(1 + int(config["rounds"])):
        time.sleep(float(config["pause-seconds"]))
        asked = question(folder, number)
        begun = time.perf_counter()
        answers = channel.exchange([Parcel(node, asked) for node in nodes])
        seconds.append(time.perf_counter() - begun)
        senders = {unseal(answer, agreement).header.sender for answer in answers}
        if len(senders) != len(nodes):
            raise RuntimeError(f"expected answers of {len(nodes)} parties, got {len(senders)}")
    Path(str(config["results"])).write_text(json.dumps(seconds[1:]), encoding="utf-8")
