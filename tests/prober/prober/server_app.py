"""Sends every node a message that says nothing, round after round, and tells what comes back."""

import sys
import time

from flwr.app import Context, Message
from flwr.serverapp import Grid, ServerApp

from federation.channel import from_record, to_record
from federation.messages import SealedMessage

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    while len(nodes := list(grid.get_node_ids())) < int(context.run_config["nodes"]):
        time.sleep(0.05)
    for number in range(int(context.run_config["rounds"])):
        nothing = SealedMessage(b"{}", number.to_bytes())
        questions = [Message(to_record(nothing), node, "query") for node in nodes]
        sent = set(grid.push_messages(questions))
        while sent:
            for answer in grid.pull_messages(sent):
                sent.remove(answer.metadata.reply_to_message_id)
                told = f"error {answer.error.code}" if answer.has_error() else "answered"
                if not answer.has_error() and b"record," in from_record(answer.content).payload:
                    told = "answered with rows"
                sys.stdout.write(f"round {number}: {told}\n")
            time.sleep(0.05)
