"""All parties in one process: a Flower Grid that calls the unmodified apps directly.

Guarantees: the same ServerApp, ClientApp, messages and party folders as over a SuperLink; no port
is opened, no process started, nothing pickled. Nodes work side by side in threads, each on its own
party's folder.

Leaves to others: everything that the apps do. It leans on three names of Flower that are not public
(`TaskIdentity`, `Run`, and the message id inside a message's metadata); `tests/test_embedded.py`
fails when they move.
"""

import contextvars
import math
import sys
import uuid
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path

from flwr.app import ConfigRecord, Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

from federation.apps import client_app, server_app
from federation.channel import GridChannel
from federation.coordinator import Coordinator
from federation.progress import listener, listening, log_progress

__all__ = ["EmbeddedGrid", "run_embedded", "spread_embedded"]

RUN_ID = 1
SERVER_NODE = 1
FIRST_NODE = 1001
NODE_FAILED = 2
"""Flower's error code for an app that raised."""
PATIENCE_SECONDS = 0.5
"""How long one look for answers waits for the last of them, so that nobody need poll."""


class EmbeddedGrid(Grid):
    """A Grid whose nodes are party folders on this machine.

    Args:
        folders: one per node; node ids count up from 1001 in this order.
        app: what every node runs.
        workers: nodes at work at the same time.
    """

    def __init__(
        self, folders: Sequence[Path], *, app: ClientApp = client_app.app, workers: int = 2
    ) -> None:
        TaskIdentity.task_id = TaskIdentity.run_id = RUN_ID  # every message bears its sender's
        TaskIdentity.node_id = SERVER_NODE
        self._app = app
        self._contexts = {
            FIRST_NODE + index: Context(
                run_id=RUN_ID,
                node_id=FIRST_NODE + index,
                node_config={"party": str(folder)},
                state=RecordDict({"unused": ConfigRecord()}),
                run_config={},
            )
            for index, folder in enumerate(folders)
        }
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="comity-node")
        self._answers: dict[str, Future[Message]] = {}
        self._run = Run.create_empty(RUN_ID)

    def set_run(self, run: Run) -> None:
        """Take note of Flower's run, of which there is one."""
        self._run = run

    @property
    def run(self) -> Run:
        """Flower's run."""
        return self._run

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        """Make a message, as Flower's older API wants it."""
        return Message(content, dst_node_id, message_type, group_id=group_id, ttl=ttl)

    def get_node_ids(self) -> Iterable[int]:
        """Return every node's id."""
        return list(self._contexts)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Hand every message to its node; returns their ids at once."""
        return [self._push(message) for message in messages]

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Return the answers to `message_ids` that come within a moment; the others may follow."""
        return self._take(message_ids, PATIENCE_SECONDS)

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Push, and return the answers that come within `timeout` seconds."""
        return self._take(self.push_messages(messages), timeout)

    def close(self, *, wait: bool = True) -> None:
        """Stop, letting running nodes finish unless told not to wait."""
        self._pool.shutdown(wait=wait, cancel_futures=not wait)

    def _take(self, message_ids: Iterable[str], timeout: float | None) -> list[Message]:
        wanted = {
            self._answers[identifier]: identifier
            for identifier in message_ids
            if identifier in self._answers
        }
        done, _ = wait(wanted, timeout)
        return [self._answers.pop(wanted[answer]).result() for answer in done]

    def _push(self, message: Message) -> str:
        identifier = _give_identifier(message)
        context = contextvars.copy_context()  # so that progress reaches who listens here
        self._answers[identifier] = self._pool.submit(context.run, self._answer, message)
        return identifier

    def _answer(self, message: Message) -> Message:
        try:
            answer = self._app(message, self._contexts[message.metadata.dst_node_id])
        except Exception as error:  # noqa: BLE001 -- the boundary where Flower, too, catches all
            answer = Message(Error(NODE_FAILED, type(error).__name__), reply_to=message)
        _give_identifier(answer)
        return answer


def _give_identifier(message: Message) -> str:
    identifier = uuid.uuid4().hex
    message.metadata.__dict__["_message_id"] = identifier
    return identifier


def run_embedded(coordinator: Path, parties: Sequence[Path]) -> None:
    """Run the jobs in a coordinator's folder with all parties in this process.

    Args:
        coordinator: the coordinator's folder.
        parties: folders of the brand and the partners.

    Raises:
        FederationError: as `Coordinator.run`.
    """
    grid = EmbeddedGrid(parties)
    context = Context(
        run_id=RUN_ID,
        node_id=SERVER_NODE,
        node_config={},
        state=RecordDict(),
        run_config={
            "coordinator": str(coordinator),
            "deadline-seconds": math.inf,  # nodes in this process cannot go missing
        },
    )
    try:
        with listening(listener() or log_progress):  # the app would print where nobody listens
            server_app.app(grid, context)
    finally:
        # What a party does may be cut anywhere, so whoever interrupts need not wait for it.
        grid.close(wait=not isinstance(sys.exception(), KeyboardInterrupt))


def spread_embedded(coordinator: Path, parties: Sequence[Path]) -> None:
    """Carry requests to erase between parties that are all in this process, and run no job.

    Args:
        coordinator: the coordinator's folder.
        parties: folders of the brand and the partners.

    Raises:
        FederationError: as `Coordinator.spread`.
    """
    grid = EmbeddedGrid(parties)
    try:
        with listening(listener() or log_progress):
            Coordinator.open(coordinator).spread(GridChannel(grid, deadline_seconds=math.inf))
    finally:
        grid.close(wait=not isinstance(sys.exception(), KeyboardInterrupt))
