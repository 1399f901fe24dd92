"""`comity node`: a party's node.

Guarantees: parses, calls, prints. Leaves to others: everything else (`federation.apps`).
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from compliance.agreement import iso
from federation.observing.formats import LogFormat
from federation.progress import Progress
from federation.terminal import JsonFlag, answer, counted, err

if TYPE_CHECKING:
    from federation.apps.launchers import NodeConfig
    from federation.replica.restoring import Restored

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


@node_app.command("restore")
def node_restore(
    config: Annotated[
        Path | None, typer.Option("--config", help="The node's file (TOML), with `database`.")
    ] = None,
    party: Annotated[
        Path | None, typer.Option("--party", help="Where the party's folder is to be.")
    ] = None,
    database: Annotated[
        str | None, typer.Option("--database", metavar="URL", help="Where its copy is.")
    ] = None,
    name: Annotated[
        str | None, typer.Option("--name", help="The party's, where there are copies of several.")
    ] = None,
    if_there: Annotated[
        bool,
        typer.Option(
            "--if-there", help="Do nothing where the folder is, or there is no copy; with --name."
        ),
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Bring a party's folder back from its copy in a database, after its machine was lost.

    From then on the folder that it was copied from is refused. Nothing is overwritten.

    Example: comity node restore --config /etc/comity/node.toml
    """
    from federation.replica.restore_place import RestorePlace
    from federation.replica.restoring import restore
    from federation.replica.store import ReplicaStore

    place = RestorePlace.of(config, {"party": party, "database": database})
    store = ReplicaStore(place.database.get_secret_value())
    if if_there and (reason := place.reason_to_leave(store, name)) is not None:
        answer({"restored": False}, reason, as_json=as_json)
        return
    found = restore(
        store,
        place.party,
        database=place.database.get_secret_value(),
        party=name,
        tell=_every_tenth(lambda done: _tell(f"{done} % of the folder is there")),
    )
    _tell_restored(found, place.party, as_json=as_json)


@node_app.command("replica")
def node_replica(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="The party's folder.")],
    as_json: JsonFlag = False,
) -> None:
    """Say where the copy of a party's folder stands, and whether it is of this folder.

    Fails if it is of another, or the database is out of reach.

    Example: comity node replica /srv/comity/retailer
    """
    from federation.party import PartyFolder

    folder = PartyFolder(directory)
    if folder.replica is None:
        answer({"kept": False}, "party.json names no `database`: no copy is kept", as_json=as_json)
        return
    standing, extent = folder.replica.extent()
    if standing is None:
        told = "no copy yet: the first use of the folder makes one"
        answer({"kept": False}, told, as_json=as_json)
        return
    document = {
        "kept": True,
        "party": standing.party,
        "sequence": standing.sequence,
        "synchronised": iso(standing.synchronised),
        "held_since": iso(standing.held_since),
        "files": extent.files,
        "bytes": extent.size,
        "in_clear": extent.in_clear,
    }
    told = (
        f"{standing.party}: changed {standing.sequence} times, last at "
        f"{iso(standing.synchronised)}; {counted(extent.files, 'file')}, {extent.size} bytes; of "
        f"this folder since {iso(standing.held_since)}"
    )
    lines = [told]
    if extent.in_clear:
        lines.append(
            f"{counted(extent.in_clear, 'file')} of secrets in clear not in it: "
            f"`comity secrets seal {directory}`, or a lost machine takes them along"
        )
    answer(document, *lines, as_json=as_json)


def _tell_restored(found: "Restored", folder: Path, *, as_json: bool) -> None:
    when = iso(found.standing.synchronised)
    document = {
        "restored": True,
        "party": found.standing.party,
        "sequence": found.standing.sequence,
        "synchronised": when,
        "files": found.files,
        "bytes": found.size,
        "missing": found.in_clear,
        "passwords": found.lacking,
        "left": found.left,
    }
    much = f"{counted(found.files, 'file')}, {found.size} bytes"
    lines = [
        f"{folder} is the folder of {found.standing.party}, as of {when}: {much}",
        "where it was before, it is refused from now on",
    ]
    lines += [
        f"{one} lay in clear and is not kept: put it back from where you keep it"
        for one in found.in_clear
    ]
    lines += [
        f"the password of {one} in party.json is not kept: put it back, or give it by PGPASSWORD"
        for one in found.lacking
    ]
    lines += [f"{one} was there, later than what is kept, and was left" for one in found.left]
    answer(document, *lines, as_json=as_json)


def _every_tenth(tell: Callable[[int], None]) -> Callable[[int, int], None]:
    """Return what is told of bytes, and tells of each tenth part of them once."""
    last = [0]

    def told(done: int, total: int) -> None:
        tenth = 10 * (10 * done // max(total, 1))
        if tenth > last[0]:
            last[0] = tenth
            tell(tenth)

    return told


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
