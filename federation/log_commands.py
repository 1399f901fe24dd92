"""`comity log`: verify logs, read them, and hand out what is in them.

Guarantees: parses, calls, prints. Leaves to others: everything else (`audit`, `log_sharing`).
"""

import re
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, NoReturn

import typer
from rich.markup import escape
from rich.table import Column, Table

from compliance.terms import Role
from federation.errors import WorkspaceError
from federation.terminal import (
    JsonFlag,
    answer,
    counted,
    err,
    out,
    print_json,
    print_row,
    shortened,
)

if TYPE_CHECKING:
    from federation.audit import VerifiedParty

__all__ = ["log_app"]

_DIGEST: Final = re.compile("[0-9a-f]{64}")

log_app = typer.Typer(
    no_args_is_help=True,
    help="The parties' logs: verify them, read them.\n\nExample: comity log verify out/demo",
)


@log_app.command("verify")
def log_verify(
    directories: Annotated[
        list[Path], typer.Argument(metavar="DIR…", help="Party folders, or a whole workspace.")
    ],
    as_json: JsonFlag = False,
) -> None:
    """Verify logs offline: agreement, signature, every hash, every leaf, the budget.

    Leaves with 1 if anything does not hold, and says what, party by party.

    Example: comity log verify out/demo
    """
    from federation.audit import verify_all
    from federation.watch import watched

    with watched():
        found, problems = verify_all(directories)
    for problem in problems:
        err.print(f"[bold red]error[/] {escape(str(problem))}")
    if problems:
        held = ", ".join(log.party for log in found) or "none"
        fail = "1 does" if len(problems) == 1 else f"{len(problems)} do"
        err.print(f"{fail} not hold; these do: {held}")
        raise typer.Exit(1)
    if as_json:
        print_json(
            [
                {
                    "party": log.party,
                    "agreement": log.agreement.digest,
                    "tree_size": log.tree_size,
                    "root_hash": log.root_hash,
                    "leaves": dict(log.counts),
                    "epsilon_spent": log.epsilon_spent,
                    "repriced": log.repriced,
                    "public_size": log.public_size,
                    "cosigned_by": list(log.cosigned_by),
                }
                for log in found
            ]
        )
        return
    _print_verified(found)


def _print_verified(found: "Sequence[VerifiedParty]") -> None:
    party, root_hash = (Column(name, no_wrap=True) for name in ("party", "root hash"))
    head = ("leaves", "public", "releases", "refusals", "epsilon spent")
    table = Table(party, *head, root_hash)
    for log in found:
        table.add_row(
            log.party,
            str(log.tree_size),
            "–" if log.public_size is None else f"{log.public_size}, by {len(log.cosigned_by)}",
            str(log.counts.get("release", 0)),
            str(log.counts.get("refusal", 0)),
            f"{log.epsilon_spent:.3f} of {log.agreement.budget.epsilon:.3f}",
            log.root_hash[:8] + "…",
        )
    out.print(table)
    digests = {log.agreement.digest for log in found}
    repriced = all(log.repriced for log in found)
    prices = "recomputed" if repriced else "not recomputed, which needs the `node` extra"
    logs, contracts = counted(len(found), "log"), counted(len(digests), "agreement")
    out.print(f"prices {prices}; all hold: {logs} under {contracts}")
    parties = {
        party.name
        for log in found
        for party in log.agreement.parties
        if party.role is not Role.AUDITOR
    }
    if unseen := sorted(parties - {log.party for log in found}):
        out.print(f"not looked at: {', '.join(unseen)}")


@log_app.command("serve")
def log_serve(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="A party's folder.")],
    host: Annotated[
        str, typer.Option("--host", help="Address to listen on; others than this machine need TLS.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", help="Port; 0 takes a free one.")] = 8096,
) -> None:
    """Serve a party's log over HTTP, and cosign heads of the other parties' logs.

    Until Ctrl-C or a SIGTERM, which the first process of a container gets only if it asks for it.

    Example: comity log serve out/demo/retailer --port 8096
    """
    from federation.log_sharing import make_server

    signal.signal(signal.SIGTERM, _end)
    with make_server(directory, host, port) as server:
        address = f"http://{host}:{server.server_port}/"
        err.print(f"serving {directory / 'log'} at {address}", markup=False)
        server.serve_forever()


def _end(*_: object) -> NoReturn:
    raise SystemExit(0)


@log_app.command("receipt", context_settings={"ignore_unknown_options": True})  # -1 is an index
def log_receipt(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="A party's folder.")],
    index: Annotated[int, typer.Argument(help="Which leaf, from 0.")],
    to: Annotated[
        Path | None, typer.Option("--to", help="File to write; left out, it is printed.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Make a receipt: one leaf, proved to be in a log, that anybody can check offline.

    Example: comity log receipt out/demo/retailer 0 --to out/first.tlog-proof
    """
    from federation.log_sharing import make_receipt
    from federation.party import write_atomically

    if index < 0:
        raise typer.BadParameter(
            f"expected the number of a leaf, 0 or more, got {index}: comity log show numbers them"
        )
    receipt, public = make_receipt(directory, index)
    if not public:
        err.print("the leaf is not public yet: too few other parties have cosigned a head with it")
    else:
        err.print(f"check it with version {public.number} of the agreement")
    content = receipt.to_bytes()
    if to is not None:
        write_atomically(to, content)
    if to is None and not as_json:
        sys.stdout.write(content.decode())
        return
    document = {
        "leaf": receipt.index,
        "version": public and public.number,
        "file": to,
        "receipt": content.decode(),
    }
    answer(document, f"wrote {to}", as_json=as_json)


@log_app.command("prune")
def log_prune(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="A party's folder.")],
    before: Annotated[int, typer.Option("--before", min=0, help="First entry that stays.")],
    as_json: JsonFlag = False,
) -> None:
    """Remove a log's first entries, by the agreement's retention term; their hashes stay.

    Example: comity log prune out/demo/retailer --before 4096
    """
    from datetime import UTC, datetime

    from federation.log_pruning import prune_log

    leaf, removed = prune_log(directory, before, now=datetime.now(UTC))
    document = {"kept_from": leaf.kept_from, "root_hash": leaf.root_hash, "files": removed}
    told = f"removed {counted(removed, 'file')}: entries before {leaf.kept_from}"
    answer(document, told, as_json=as_json)


@log_app.command("check")
def log_check(
    file: Annotated[Path, typer.Argument(help="The receipt.")],
    agreement: Annotated[
        Path | None, typer.Option("--agreement", help="The contract that every party signed.")
    ] = None,
    party: Annotated[str | None, typer.Option("--party", help="Whose log it is.")] = None,
    policy: Annotated[
        Path | None, typer.Option("--policy", help="Instead: a policy file (C2SP tlog-policy).")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Check a receipt offline; leaves with 1 if it does not hold, or is not public.

    Example: comity log check out/first.tlog-proof --agreement out/demo/agreement.json --party
    retailer
    """
    from federation.log_sharing import check_receipt

    receipt, public, leaf = check_receipt(file, agreement=agreement, party=party, policy=policy)
    head = public.checkpoint
    document = {
        "origin": head.origin,
        "leaf": receipt.index,
        "tree_size": head.tree_size,
        "cosigned_by": public.cosigned,
        "says": leaf,
    }
    cosigned = ", ".join(public.cosigned) or "nobody"
    answer(
        document,
        f"holds: leaf {receipt.index} of {head.tree_size} of {head.origin}, cosigned by {cosigned}",
        "It is worth what the keys are by which you checked it: where a later version replaced "
        "them, whoever has the old ones can make such a receipt. Ask for one that holds by the "
        "latest version.",
        leaf.model_dump_json(indent=2),
        as_json=as_json,
    )


@log_app.command("policy")
def log_policy(
    agreement: Annotated[Path, typer.Argument(help="The contract that every party signed.")],
    party: Annotated[str, typer.Option("--party", help="Whose log.")],
) -> None:
    """Print the policy (C2SP tlog-policy) under which heads of a party's log are public.

    Example: comity log policy out/demo/agreement.json --party retailer
    """
    from federation.log_sharing import policy_file

    sys.stdout.write(policy_file(agreement, party).decode())


@log_app.command("show")
def log_show(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="A party's folder.")],
    full: Annotated[
        bool, typer.Option("--full", help="Cut nothing on a terminal: no digest, and no line.")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Show a verified log, leaf by leaf.

    Example: comity log show out/demo/retailer
    """
    from federation.audit import party_directories, verify_party

    if len(found := party_directories(directory)) > 1:
        names = ", ".join(path.name for path in found)
        raise WorkspaceError(f"{directory} holds several logs: name the folder of one of {names}")
    log = verify_party(found[0])
    if as_json:
        print_json(log.leaves)
        return
    common = {"version", "kind", "time", "party", "agreement", "job"}
    out.print(f"[bold]{log.party}[/], {log.tree_size} leaves, root hash {log.root_hash}")
    for index, leaf in enumerate(log.leaves):
        told = leaf.model_dump(mode="json", exclude=common, exclude_none=True)
        what = ", ".join(f"{key} {_said(value, full=full)}" for key, value in told.items())
        moment = f"{leaf.time:%Y-%m-%d %H:%M:%S}"
        line = f"{index:>4}  {moment}  {leaf.kind:<16}  {leaf.job or '–':<18}  {what}"
        if full:
            out.print(line, markup=False)
        else:
            print_row(line)
    if out.is_terminal and not full:
        err.print("lines are cut to this terminal: --full tells everything")


def _said(value: Any, *, full: bool) -> str:
    """Return a value as people read it: of a digest, the beginning, by which it is told apart."""
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    return text if full else shortened(text, 13 if _DIGEST.fullmatch(text) else 58)
