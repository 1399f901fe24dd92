"""The Flower ClientApp of a party: message in, released answer out.

The node's configuration names the party's folder (`--node-config 'party="/srv/comity/brand"'`).
Everything that steers privacy comes from the signed agreement in that folder; nothing is read from
Flower's run configuration.

Guarantees: the only reply it can build is one that `Node.handle` released. Flower sends the text of
whatever an app raises to the coordinator; what this one raises says nothing but the error's kind.
"""

import logging
import traceback
from pathlib import Path

from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp

from compliance.errors import ComplianceError
from connectors.errors import ConnectorError
from federation.channel import from_record, to_record
from federation.errors import FederationError, WorkspaceError
from federation.gate import Released
from federation.node import Node
from privacy.errors import PrivacyError

__all__ = ["app"]

_logger = logging.getLogger("comity.apps")

_TOLD = (FederationError, ComplianceError, ConnectorError, PrivacyError, OSError)
"""Errors whose text holds no data: our own, and what the system says of a file."""

app = ClientApp()


def _record(released: Released) -> RecordDict:
    return to_record(released.message)


@app.query()
def answer(message: Message, context: Context) -> Message:
    """Answer one message as the party whose folder the node's configuration names."""
    try:
        released = Node.open(_folder(context)).handle(from_record(message.content))
    except Exception as error:  # noqa: BLE001 -- no text of any error may leave by way of Flower
        _logger.error("no answer from %s: %s", context.node_config.get("party"), _reason(error))  # noqa: TRY400 -- a traceback could show data
        raise FederationError(f"the node failed with {type(error).__name__}") from None
    return Message(_record(released), reply_to=message)


def _folder(context: Context) -> Path:
    folder = context.node_config.get("party")
    if not isinstance(folder, str) or not folder:
        raise WorkspaceError('the node\'s configuration lacks party="FOLDER"')
    return Path(folder)


def _reason(error: Exception) -> str:
    """Say for the party's own log what went wrong: no text that may hold data."""
    if isinstance(error, _TOLD):
        return str(error)
    place = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__} at {place.filename}:{place.lineno}"
