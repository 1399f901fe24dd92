"""The Flower ServerApp of the coordinator: run the jobs in its folder over Flower's Grid.

The run configuration names the coordinator's folder (`coordinator="/srv/comity/coordinator"`) and,
if wanted, `deadline-seconds` for each exchange. Nothing in it can change a job or a term.

It leans on a name of Flower that is not public; `tests/test_node_process.py` fails when it moves.
"""

from functools import partial
from pathlib import Path

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp
from flwr.supercore.inflatable.inflatable_utils import pull_objects
from flwr.superlink.grid import http_grid

from federation.channel import GridChannel
from federation.coordinator import Coordinator
from federation.errors import WorkspaceError

__all__ = ["app", "look_often"]

_FIRST_PAUSE_SECONDS = 0.02
_LONGEST_PAUSE_SECONDS = 1.0

app = ServerApp()


def look_often() -> None:
    """Have Flower's Grid look again soon for what is still missing of an answer.

    A SuperLink tells of an answer before all of it is there. Flower's Grid then waits for a second,
    or longer; here for some hundredths of one, twice as long each time, up to a second.
    """
    http_grid.pull_objects = partial(
        pull_objects, initial_backoff=_FIRST_PAUSE_SECONDS, backoff_cap=_LONGEST_PAUSE_SECONDS
    )


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run every job that has not ended yet."""
    folder = context.run_config.get("coordinator")
    if not isinstance(folder, str) or not folder:
        raise WorkspaceError('the run\'s configuration lacks coordinator="FOLDER"')
    look_often()
    deadline = float(context.run_config.get("deadline-seconds", 600.0))
    Coordinator.open(Path(folder)).run(GridChannel(grid, deadline_seconds=deadline))
