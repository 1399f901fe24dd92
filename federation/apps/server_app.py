"""The Flower ServerApp of the coordinator: run the jobs in its folder over Flower's Grid.

The run configuration names the coordinator's folder (`coordinator="/srv/comity/coordinator"`) and,
if wanted, `deadline-seconds` for each exchange. Nothing in it can change a job or a term.
"""

from pathlib import Path

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from federation.channel import GridChannel
from federation.coordinator import Coordinator
from federation.errors import WorkspaceError

__all__ = ["app"]

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run every job that has not ended yet."""
    folder = context.run_config.get("coordinator")
    if not isinstance(folder, str) or not folder:
        raise WorkspaceError('the run\'s configuration lacks coordinator="FOLDER"')
    deadline = float(context.run_config.get("deadline-seconds", 600.0))
    Coordinator.open(Path(folder)).run(GridChannel(grid, deadline_seconds=deadline))
