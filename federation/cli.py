"""The command `comity`: its commands, by whom they are for; one place turns errors into exit codes.

Exit codes: 0 done · 1 refused, or a verification failed · 2 a mistake in the command, the
collaboration file, the data or the workspace · 130 interrupted.

Leaves to others: what the commands do (the modules of commands).
"""

import logging
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Final

import typer
from rich.markup import escape

from compliance.errors import ComplianceError, PolicyError, RetentionError
from federation.agreement_commands import agreement_app
from federation.api_commands import api_app
from federation.approval_commands import approval_app, approve, code_app
from federation.audit_commands import audit_command
from federation.consent_commands import consent_app
from federation.enrolment.commands import party_app
from federation.erasure_commands import erase_app
from federation.errors import EnrolmentError, FederationError, RefusedError
from federation.judging_commands import attack_command, card
from federation.log_commands import log_app
from federation.measurement_commands import measurement_app
from federation.model_commands import model_app
from federation.node_commands import node_app
from federation.operations.coordinator_commands import coordinator_app
from federation.operations.run_commands import cancel, logs, resume, run, status
from federation.plan_commands import plan
from federation.policy_commands import policy_app
from federation.report_commands import report_app
from federation.retention_commands import retention_app
from federation.retrain_commands import retrain_app
from federation.secrets_commands import secrets_app
from federation.subject_commands import subject_app
from federation.terminal import err, out
from federation.trial_commands import demo, simulate_command
from federation.view_commands import view_command

__all__ = ["app", "main"]

app = typer.Typer(
    name="comity",
    help="Match, train and expand together without pooling data, and prove what was done.\n\n"
    "Begin with: comity demo",
    epilog="Leaves with 0 when done, 1 when refused or when something does not verify, 2 for a "
    "mistake in the command, the file, the data or the workspace, 130 when interrupted.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)

_BEGIN: Final = "Begin here: every party on one machine"
_PARTY: Final = "A party: its contract and its node"
_PEOPLE: Final = "A party: its people"
_MODELS: Final = "A party: its models and figures"
_OPERATOR: Final = "The coordinator's operator"
_AUDITOR: Final = "An auditor"

_COMMANDS: Final[Mapping[str, Mapping[str, Callable[..., None]]]] = {
    _BEGIN: {"demo": demo, "simulate": simulate_command, "plan": plan},
    _PARTY: {"approve": approve},
    _PEOPLE: {"view": view_command},
    _MODELS: {"card": card, "attack": attack_command},
    _OPERATOR: {"run": run, "status": status, "logs": logs, "cancel": cancel, "resume": resume},
    _AUDITOR: {"audit": audit_command},
}
_GROUPS: Final[Mapping[str, Mapping[str, typer.Typer]]] = {
    _PARTY: {
        "agreement": agreement_app,
        "party": party_app,
        "node": node_app,
        "policy": policy_app,
        "approval": approval_app,
        "code": code_app,
        "secrets": secrets_app,
    },
    _PEOPLE: {
        "consent": consent_app,
        "subject": subject_app,
        "erase": erase_app,
        "retention": retention_app,
        "api": api_app,
    },
    _MODELS: {"model": model_app, "retrain": retrain_app, "measurement": measurement_app},
    _OPERATOR: {"coordinator": coordinator_app},
    _AUDITOR: {"log": log_app, "report": report_app},
}
"""By whom they are for; help shows them in this order, commands before groups."""

for panel, commands in _COMMANDS.items():
    for name, command in commands.items():
        app.command(name, rich_help_panel=panel)(command)
for panel, groups in _GROUPS.items():
    for name, group in groups.items():
        app.add_typer(group, name=name, rich_help_panel=panel)

_INTERRUPTED: Final = 130


def _print_version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        out.print(f"comity {version('comity')}")
        raise typer.Exit


@app.callback()
def _options(
    *,
    _version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and leave."
        ),
    ] = False,
) -> None:
    """Match, train and expand together without pooling data, and prove what was done.

    Begin with: comity demo
    """


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command and leave with its exit code."""
    # What a node logs about a refusal is printed as progress already.
    logging.getLogger("comity.node").addHandler(logging.NullHandler())
    try:
        code = app(args=arguments, prog_name="comity", standalone_mode=False)
    except (typer.Abort, KeyboardInterrupt):
        code = _INTERRUPTED
    except Exception as error:  # noqa: BLE001 -- the one handler; what it does not know is raised
        sys.exit(_explain(error))
    if code == _INTERRUPTED:
        err.print("stopped: nothing is half-written; the same command goes on from here")
        sys.stdout.flush()
        os._exit(_INTERRUPTED)  # at once: parties at work in other threads may be cut anywhere
    sys.exit(code if isinstance(code, int) else 0)


def _explain(error: Exception) -> int:
    """Print an error that was raised on purpose; anything else is our fault and goes on."""
    from click import ClickException, UsageError

    if isinstance(error, ClickException):
        error.show()
        if isinstance(error, UsageError) and error.ctx is not None:
            _, is_there, example = (error.ctx.command.help or "").rpartition("Example: ")
            if is_there:
                err.print(f"Example: {' '.join(example.split())}", markup=False)
        return error.exit_code
    from connectors.errors import ConnectorError
    from privacy.errors import PrivacyError

    told = str(error)
    if isinstance(error, OSError) and error.filename is not None:
        told = f"{error.filename}: {error.strerror}: name another path, or make room or rights"
    elif isinstance(error, ModuleNotFoundError):
        told = f"{error.name} is not installed: pip install 'comity[coordinator]' brings it"
    elif not isinstance(error, FederationError | ComplianceError | PrivacyError | ConnectorError):
        raise error
    err.print(f"[bold red]error[/] {escape(told)}")
    does_not_hold = isinstance(error, RefusedError | EnrolmentError | ComplianceError)
    return 1 if does_not_hold and not isinstance(error, PolicyError | RetentionError) else 2
