"""`comity node`: a party's node.

Guarantees: parses, calls, prints. Leaves to others: everything else (`federation.apps`).
"""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from federation.observing.formats import LogFormat
from federation.progress import Progress
from federation.terminal import err

if TYPE_CHECKING:
    from federation.apps.launchers import NodeConfig

__all__ = ["node_app"]

node_app = typer.Typer(
    no_args_is_help=True,
    help="A party's node, which answers a coordinator.\n\n"
    "Example: comity node up --config /srv/comity/node.toml",
)


@node_app.command("up")
def node_up(
    config: Annotated[
        Path | None, typer.Option("--config", help="File (TOML) of the options below.")
    ] = None,
    party: Annotated[Path | None, typer.Option("--party", help="The party's folder.")] = None,
    superlink: Annotated[
        str | None,
        typer.Option("--superlink", metavar="HOST:PORT", help="The coordinator's SuperLink."),
    ] = None,
    root_certificates: Annotated[
        Path | None,
        typer.Option(
            "--root-certificates",
            help="Certificates (PEM) that vouch for the SuperLink; the system's where left out.",
        ),
    ] = None,
    auth_supernode_private_key: Annotated[
        Path | None,
        typer.Option(
            "--auth-supernode-private-key", help="The key by which the SuperLink knows this node."
        ),
    ] = None,
    allow_bundle: Annotated[
        list[str] | None,
        typer.Option(
            "--allow-bundle",
            metavar="SHA256",
            help="Answer runs with this app bundle too, beside the installed one.",
        ),
    ] = None,
    observe: Annotated[
        str | None,
        typer.Option(
            "--observe",
            metavar="HOST:PORT",
            help="Tell health and figures there; nowhere if left out.",
        ),
    ] = None,
    traces: Annotated[
        str | None,
        typer.Option(
            "--traces", metavar="URL", help="Send spans to this collector of OpenTelemetry."
        ),
    ] = None,
    log_format: Annotated[
        LogFormat, typer.Option("--log-format", help="How lines on standard error look.")
    ] = LogFormat.HUMAN,
) -> None:
    """Answer a coordinator's messages as a party, until SIGTERM (leaves with 0) or Ctrl-C.

    Says when it is connected. A message is answered by a worker of its own, which is forked with
    everything loaded. No port is opened but by --observe, and nothing that the coordinator ships
    is run.

    Example: comity node up --config /srv/comity/node.toml
    """
    from federation.apps.zygote import set_environment

    set_environment()
    from federation.apps.launchers import NodeConfig

    given = {
        "party": party,
        "superlink": superlink,
        "root_certificates": root_certificates,
        "auth_supernode_private_key": auth_supernode_private_key,
        "allow_bundles": allow_bundle,
        "observe": observe,
        "traces": traces,
    }
    _run(NodeConfig.of(config, given), log_format)


def _run(node: "NodeConfig", log_format: LogFormat) -> None:
    """Run a node, which tells on standard error what it does."""
    from federation.apps.launchers import run_node

    if log_format is LogFormat.JSON:
        from federation.observing.json_lines import JsonLines

        lines = JsonLines(sys.stderr)
        lines.take_over()
        run_node(node, tell=lines.tell, listener=lines.progress, observers=[lines.answered])
    run_node(node, tell=_tell, listener=_show)


def _tell(told: str) -> None:
    err.print(told, markup=False)


def _show(progress: Progress) -> None:
    from federation.watch import line

    if not progress.total:  # a long step's pace is of interest at a terminal only
        err.print(line(progress))
