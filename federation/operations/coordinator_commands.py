"""`comity coordinator`: prepare a coordinator's folder, serve it, and say who may operate it.

Guarantees: parses, calls, prints; a token is told once, to standard output, or in a file that is
its owner's alone.

Leaves to others: everything else (`folder`, `tokens`, `federation.apps.operating`).
"""

import sys
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from federation.clock import utc_now
from federation.observing.formats import LogFormat
from federation.operations.roles import OperatorRole
from federation.terminal import JsonFlag, answer, err

if TYPE_CHECKING:
    from federation.operations.tokens import TokenBook

__all__ = ["coordinator_app"]

coordinator_app = typer.Typer(
    no_args_is_help=True,
    help="The coordinator, as a process that stays.\n\n"
    "Example: comity coordinator init /srv/comity/coordinator --address coordinator.example:9091",
)
token_app = typer.Typer(
    no_args_is_help=True,
    help="Operators' tokens.\n\nExample: comity coordinator token add alice --role operator",
)
coordinator_app.add_typer(token_app, name="token")

ConfigOption = Annotated[
    Path, typer.Option("--config", help="The coordinator's coordinator.toml, or its folder.")
]
CONFIG = Path("coordinator.toml")


@coordinator_app.command("init")
def init(
    folder: Annotated[Path, typer.Argument(help="Folder for the coordinator's state.")],
    address: Annotated[
        str, typer.Option("--address", metavar="HOST[:PORT]", help="What parties call.")
    ],
    listen: Annotated[
        str | None,
        typer.Option(
            "--listen",
            metavar="HOST:PORT",
            help="Where the public listener waits; every interface at the address's port if left "
            "out.",
        ),
    ] = None,
    control: Annotated[
        str,
        typer.Option("--control", metavar="HOST:PORT", help="Where the control listener waits."),
    ] = "127.0.0.1:9092",
    authority: Annotated[
        Path | None,
        typer.Option(
            "--authority",
            metavar="DIR",
            help="Folder with tls.crt and tls.key of a certificate authority made for this "
            "coordinator; it makes one of its own if left out.",
        ),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Make a coordinator's folder: certificates of its own, and coordinator.toml.

    Run again, it makes no key anew; a server's certificate that ends soon is issued again.

    Example: comity coordinator init /srv/comity/coordinator --address coordinator.example
    """
    from federation.operations.folder import CoordinatorConfig, CoordinatorFolder, authority_in
    from federation.secrets_commands import warn_of_clear_secrets

    config = CoordinatorConfig.for_address(address, listen=listen, control=control)
    former = authority_in(folder)
    made = CoordinatorFolder.init(folder, config, now=utc_now(), authority=authority)
    warn_of_clear_secrets(made.path)
    facts = {
        "config": made.path / "coordinator.toml",
        "ca_certificate": made.ca_certificate,
        "address": config.address,
        "listen": config.listen,
        "control": config.control,
    }
    is_other = former is not None and former != authority_in(folder)
    again = "anew, in place of the former, which its node believes until that ends: "
    answer(
        facts,
        f"{made.path} is a coordinator's folder for {config.address}",
        f"every party is given {again if is_other else ''}{made.ca_certificate}",
        as_json=as_json,
    )


@coordinator_app.command("up")
def up(
    config: ConfigOption = CONFIG,
    log_format: Annotated[
        LogFormat, typer.Option("--log-format", help="How lines on standard error look.")
    ] = LogFormat.HUMAN,
) -> None:
    """Serve parties and operators until SIGTERM or Ctrl-C; leaves with 0.

    Example: comity coordinator up --config /srv/comity/coordinator/coordinator.toml
    """
    from federation.apps.zygote import set_environment

    set_environment()
    from federation.apps.operating.service import serve
    from federation.operations.folder import CoordinatorFolder

    folder = CoordinatorFolder.open(config)
    if log_format is LogFormat.JSON:
        from federation.observing.json_lines import JsonLines

        lines = JsonLines(sys.stderr)
        lines.take_over()
        serve(folder, tell=lines.tell, log_format=log_format)
    else:
        serve(folder, tell=lambda told: err.print(told, markup=False))


@token_app.command("add")
def add(
    name: Annotated[str, typer.Argument(help="Whose it is: small letters, digits, hyphens.")],
    role: Annotated[OperatorRole, typer.Option("--role", help="What it opens.")],
    days: Annotated[
        int | None,
        typer.Option("--days", min=1, max=3650, help="For so long; for ever if left out."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", metavar="FILE", help="A new file for it; printed if left out."),
    ] = None,
    config: ConfigOption = CONFIG,
    as_json: JsonFlag = False,
) -> None:
    """Make a token, and print it, or write it to a file: it cannot be seen again.

    Example: comity coordinator token add alice --role operator --days 90 --output alice.token
    """
    from federation.errors import WorkspaceError
    from federation.party import write_atomically

    if output is not None and (output.exists() or output.is_symlink()):
        raise WorkspaceError(
            f"{output} is there already, perhaps with a token that is good: remove it, or name "
            "another file; no token was made"
        )
    now = utc_now()
    expires = None if days is None else now + timedelta(days=days)
    book = _book(config)
    token = book.add(name, role, now=now, expires=expires)
    if output is None:
        answer({"name": name, "role": role, "token": token}, token, as_json=as_json)
        return
    try:
        write_atomically(output, f"{token}\n".encode(), mode=0o600)
    except (OSError, WorkspaceError):
        book.revoke(name)  # nobody has seen it, and the name would be taken
        raise
    told = f"{output} holds {name}'s token, and nothing else does"
    answer({"name": name, "role": role, "file": output}, told, as_json=as_json)


@token_app.command("list")
def list_tokens(config: ConfigOption = CONFIG, as_json: JsonFlag = False) -> None:
    """Say who has a token, and what it opens.

    Example: comity coordinator token list --config /srv/comity/coordinator
    """
    tokens = _book(config).all()
    now, lines = utc_now(), []
    for one in tokens:
        until = "for ever" if one.expires is None else f"until {one.expires:%Y-%m-%d}"
        told = until if one.is_good(now) else f"expired {one.expires:%Y-%m-%d}"
        lines.append(f"{one.name:<24} {one.role:<9} {told}")
    document = [one.model_dump(mode="json", exclude={"digest"}) for one in tokens]
    answer(document, *(lines or ["nobody has a token"]), as_json=as_json)


@token_app.command("revoke")
def revoke(
    name: Annotated[str, typer.Argument(help="Whose token.")],
    config: ConfigOption = CONFIG,
    as_json: JsonFlag = False,
) -> None:
    """Have a token open nothing from now on.

    Example: comity coordinator token revoke alice
    """
    _book(config).revoke(name)
    answer({"name": name}, f"{name}'s token opens nothing any more", as_json=as_json)


@token_app.command("check")
def check(
    file: Annotated[Path, typer.Argument(help="File that holds a token and nothing else.")],
    config: ConfigOption = CONFIG,
    as_json: JsonFlag = False,
) -> None:
    """Say whose token it is and what it opens, or why it opens nothing.

    Example: comity coordinator token check alice.token --config /srv/comity/coordinator
    """
    from federation.operations.accounts import Accounts
    from federation.operations.folder import CoordinatorFolder

    token = file.read_text(encoding="ascii", errors="replace").strip()
    operator = Accounts.of(CoordinatorFolder.open(config)).operator(token, now=utc_now())
    document = {"name": operator.name, "role": operator.role}
    answer(document, f"{operator.name} is {operator.role}", as_json=as_json)


def _book(config: Path) -> "TokenBook":
    from federation.operations.folder import CoordinatorFolder
    from federation.operations.tokens import TokenBook

    folder = CoordinatorFolder.open(config)
    return TokenBook(folder.tokens, safe=folder.safe)
