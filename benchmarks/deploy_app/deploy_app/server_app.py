"""One stage of the measurement: exchanges that compute nothing, blobs, or jobs; takes the time."""

import json
import time
from pathlib import Path

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from compliance.agreement import Agreement
from deploy_app.planting import identify
from deploy_app.timing import StockChannel, TimedChannel
from federation.apps.server_app import prompt
from federation.channel import Channel, GridChannel, Parcel
from federation.coordinator import Coordinator
from federation.messages import SealedMessage, unseal
from federation.party import PartyFolder

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Measure one stage, and write down its figures."""
    begun, config = time.time(), context.run_config
    folder = PartyFolder(Path(str(config["coordinator"])))
    agreement, stage, count = folder.agreement(), str(config["stage"]), int(config["count"])
    if config["stock"]:
        channel: Channel = StockChannel(grid)
    else:
        channel = GridChannel(prompt(grid), deadline_seconds=float(config["patience-seconds"]))
    nodes = channel.nodes(len(agreement.parties) - 1)
    if stage == "rounds":
        pause = float(config["pause-seconds"])
        found = _rounds(channel, folder, nodes=list(nodes), count=count, pause=pause)
    elif stage.startswith("job-"):
        timed = TimedChannel(channel, agreement)
        Coordinator.open(folder.path).run(timed, only=[stage.removeprefix("job-")])
        found = [[kind, seconds] for kind, seconds in timed.exchanges]
    else:
        found = _blobs(channel, folder, list(nodes), stage, count)
    told = json.dumps({"begun": begun, "seconds": found})
    results = Path(str(config["results"]))
    results.with_suffix(".part").write_text(told, encoding="utf-8")
    results.with_suffix(".part").rename(results)


def _rounds(
    channel: Channel, folder: PartyFolder, *, nodes: list[int], count: int, pause: float
) -> list[float]:
    """Ask every node which party it is, again and again; the first round is not counted."""
    seconds = []
    for number in range(1 + count):
        time.sleep(pause)
        asked = identify(folder, f"round-{number}")
        begun = time.perf_counter()
        answers = channel.exchange([Parcel(node, asked) for node in nodes])
        seconds.append(time.perf_counter() - begun)
        if len({_sender(one, folder.agreement()) for one in answers}) != len(nodes):
            raise RuntimeError(f"expected answers of {len(nodes)} parties")
    return seconds[1:]


def _blobs(
    channel: Channel, folder: PartyFolder, nodes: list[int], stage: str, count: int
) -> list[float]:
    """Carry blobs from the brand to a partner and back (see `planting`)."""
    agreement = folder.agreement()
    asked = identify(folder, f"who-{stage}")
    answers = channel.exchange([Parcel(node, asked) for node in nodes])
    place = {_sender(one, agreement): node for one, node in zip(answers, nodes, strict=True)}
    seconds = []
    for number in range(count):
        message, party = identify(folder, f"{stage}-{number}"), "brand"
        begun = time.perf_counter()
        for following in ("retailer", "brand", "coordinator"):
            (answer,) = channel.exchange([Parcel(place[party], message)])
            if answer is None or unseal(answer, agreement).header.recipient != following:
                raise RuntimeError(f"expected what {party} has for {following}")
            message, party = answer, following
            del answer
        seconds.append(time.perf_counter() - begun)
    return seconds


def _sender(answer: SealedMessage | None, agreement: Agreement) -> str:
    if answer is None:
        raise RuntimeError("expected an answer of every node")
    return unseal(answer, agreement).header.sender
