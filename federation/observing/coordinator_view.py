"""What a coordinator shows of itself: runs, rounds, bytes, refusals, when parties were heard last.

Guarantees: figures come from its own folder; one request reads at a time; no call changes anything.

Leaves to others: who may call (`federation.apps.control_listener`), the format (`metrics`).
"""

import threading
from collections.abc import Callable, Mapping
from datetime import datetime

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, Router
from starlette.types import ASGIApp

from federation.observing.log_counts import LogCounts
from federation.observing.metrics import TEXT, coordinator_metrics, exposition
from federation.operations.folder import CoordinatorFolder
from federation.operations.journal import RunJournal
from federation.operations.refused_calls import refused_calls

__all__ = ["metrics_app"]


def metrics_app(
    folder: CoordinatorFolder, *, contacts: Callable[[], Mapping[str, datetime]]
) -> ASGIApp:
    """Return an app that answers `GET /metrics`.

    Args:
        folder: the coordinator's.
        contacts: when each party's node was heard last, by the name of its key.
    """
    journal, log, reading = (
        RunJournal(folder.runs),
        LogCounts(folder.party / "log"),
        threading.Lock(),
    )

    def metrics(_: Request) -> Response:
        with reading:
            refused = refused_calls(folder, log)  # reads the log on
            told = exposition(coordinator_metrics(journal.all(), log, contacts(), refused))
        return Response(told, headers={"content-type": TEXT, "cache-control": "no-store"})

    return Router([Route("/metrics", metrics)], redirect_slashes=False)
