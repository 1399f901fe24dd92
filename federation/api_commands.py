"""`comity api`: serve a party's HTTP API, and say who may call it.

Guarantees: a client's key is printed once, when it is made. Leaves to others: everything else
(`federation.api`).
"""

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from federation.api.scopes import Scope
from federation.terminal import JsonFlag, answer

__all__ = ["api_app"]

api_app = typer.Typer(
    no_args_is_help=True,
    help="A party's HTTP API, for its website or its consent platform.\n\n"
    "Example: comity api serve out/demo/retailer --config api.toml",
)
client_app = typer.Typer(
    no_args_is_help=True,
    help="Who may call a party's API.\n\n"
    "Example: comity api client add out/demo/retailer website --scope consent:write",
)
api_app.add_typer(client_app, name="client")

PartyArgument = Annotated[Path, typer.Argument(metavar="DIR", help="A party's folder.")]
Name = Annotated[str, typer.Argument(metavar="NAME", help="What the client is called.")]


@api_app.command("serve")
def serve(
    directory: PartyArgument,
    config: Annotated[
        Path | None, typer.Option("--config", help="Its settings (TOML); defaults where left out.")
    ] = None,
    port: Annotated[int | None, typer.Option("--port", help="Instead of the file's.")] = None,
) -> None:
    """Serve a party's API until interrupted.

    Example: comity api serve out/demo/retailer --config api.toml
    """
    from federation.api.configuration import ApiConfig
    from federation.api.server import serve as serve_api

    settings = ApiConfig() if config is None else ApiConfig.load(config)
    if port is not None:
        settings = settings.model_copy(update={"port": port})

    def ready(at: int) -> None:
        sys.stderr.write(f"serving {directory} at http://{settings.host}:{at}/v1\n")

    serve_api(directory, settings, ready=ready)


@client_app.command("add")
def add(
    directory: PartyArgument,
    name: Name,
    scope: Annotated[list[Scope], typer.Option("--scope", help="What it may do; may repeat.")],
    expires: Annotated[
        datetime | None,
        typer.Option("--expires", help="When its key ends, in UTC.", formats=["%Y-%m-%dT%H:%M:%S"]),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Add a client, and print its key, which is shown this once.

    Example: comity api client add out/demo/retailer website --scope consent:write
    """
    from federation.api.clients import Clients
    from federation.party import PartyFolder

    until = expires and expires.replace(tzinfo=UTC)
    clients = Clients(PartyFolder(directory).path)
    key = clients.add(name, scope, now=datetime.now(UTC), expires=until)
    answer({"client": name, "key": key}, key, as_json=as_json)


@client_app.command("list")
def list_(directory: PartyArgument, as_json: JsonFlag = False) -> None:
    """List the clients of a party's API, without their keys.

    Example: comity api client list out/demo/retailer
    """
    from federation.api.clients import Clients

    found = Clients(directory).listed()
    document = [one.model_dump(mode="json", exclude={"key_digest"}) for one in found]
    lines = [f"{one.name}  {', '.join(one.scopes)}" for one in found]
    answer(document, *(lines or ["nobody may call it"]), as_json=as_json)


@client_app.command("revoke")
def revoke(directory: PartyArgument, name: Name, as_json: JsonFlag = False) -> None:
    """Take a client's key away, from its next request on.

    Example: comity api client revoke out/demo/retailer website
    """
    from federation.api.clients import Clients

    Clients(directory).revoke(name)
    answer({"client": name}, f"{name}'s key opens nothing any more", as_json=as_json)
