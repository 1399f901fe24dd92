"""The command `comity`: parses, calls, prints; one place turns errors into exit codes.

Exit codes: 0 done · 1 refused, or a verification failed · 2 a mistake in the command, the
collaboration file, the data or the workspace · 130 interrupted.
"""

import json
import logging
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from compliance.errors import ComplianceError, PolicyError, RetentionError
from compliance.terms import Role
from federation.agreement_commands import agreement_app
from federation.api_commands import api_app
from federation.approval_commands import approval_app, approve, code_app
from federation.audit_commands import audit_command
from federation.consent_commands import consent_app
from federation.enrolment.commands import party_app
from federation.erasure_commands import erase_app
from federation.errors import EnrolmentError, FederationError, RefusedError, WorkspaceError
from federation.measurement_commands import measurement_app
from federation.model_commands import model_app
from federation.observing.formats import LogFormat
from federation.operations.coordinator_commands import coordinator_app
from federation.operations.run_commands import cancel, logs, resume, run, status
from federation.policy_commands import policy_app
from federation.progress import Progress
from federation.report_commands import report_app
from federation.retention_commands import retention_app
from federation.retrain_commands import retrain_app
from federation.secrets_commands import secrets_app
from federation.subject_commands import subject_app
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
log_app = typer.Typer(
    no_args_is_help=True,
    help="The parties' logs: verify them, read them.\n\nExample: comity log verify out/demo",
)
node_app = typer.Typer(
    no_args_is_help=True,
    help="A party's node, which answers a coordinator.\n\n"
    "Example: comity node up --config /srv/comity/node.toml",
)
app.add_typer(agreement_app, name="agreement")
app.add_typer(api_app, name="api")
app.add_typer(log_app, name="log")
app.add_typer(measurement_app, name="measurement")
app.add_typer(node_app, name="node")
app.add_typer(policy_app, name="policy")
app.add_typer(report_app, name="report")
app.command()(approve)
app.add_typer(approval_app, name="approval")
app.add_typer(code_app, name="code")
app.command("audit")(audit_command)
app.add_typer(consent_app, name="consent")
app.add_typer(erase_app, name="erase")
app.add_typer(model_app, name="model")
app.add_typer(retrain_app, name="retrain")
app.add_typer(party_app, name="party")
app.add_typer(retention_app, name="retention")
app.add_typer(secrets_app, name="secrets")
app.add_typer(subject_app, name="subject")
app.command("view")(view_command)
app.add_typer(coordinator_app, name="coordinator")
for command in (run, status, logs, cancel, resume):
    app.command()(command)

out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)

CollaborationFile = Annotated[Path, typer.Argument(help="The collaboration file (TOML).")]
WorkspaceOption = Annotated[
    Path, typer.Option("--workspace", help="Folder for the parties' folders and the report.")
]
JsonFileOption = Annotated[
    Path | None, typer.Option("--json", help="Write the report's figures to this file too.")
]
ModelFile = Annotated[
    Path, typer.Argument(metavar="MODEL", help="A party's model: PARTY/models/JOB.json.")
]
JsonFlag = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


_INTERRUPTED = 130


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
    from click import ClickException

    if isinstance(error, ClickException):
        error.show()
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


@app.command()
def demo(workspace: WorkspaceOption = Path("out/demo"), json_file: JsonFileOption = None) -> None:
    """Run the main job on real data: a brand, two partners and a coordinator.

    One person withdraws between match and training, and one is erased after it.

    Example: comity demo --workspace out/demo
    """
    file = _examples() / "lookalike" / "collaboration.toml"
    _simulate(file, workspace, json_file, with_scene=True)


@app.command("simulate")
def simulate_command(
    file: CollaborationFile,
    workspace: WorkspaceOption = Path("out/simulation"),
    json_file: JsonFileOption = None,
) -> None:
    """Run a collaboration file with every party on this machine.

    Run again in the same workspace, it goes on where it stopped.

    Example: comity simulate collaboration.toml --workspace out/trial --json out/trial.json
    """
    _simulate(file, workspace, json_file, with_scene=False)


def _simulate(file: Path, workspace: Path, json_file: Path | None, *, with_scene: bool) -> None:
    from federation.party import write_atomically
    from federation.progress import listening
    from federation.trial.simulation import simulate
    from federation.watch import Watch

    with Watch(err) as watch, listening(watch):
        report = simulate(file, workspace, with_scene=with_scene)
    if json_file is not None:
        write_atomically(json_file, report.model_dump_json(indent=2).encode() + b"\n")
    _print_report(report, workspace)


@app.command()
def plan(
    file: CollaborationFile,
    positives: Annotated[
        int | None,
        typer.Option(
            "--positives",
            help="Members whom the partners' tables hold together, for the forecast; left out, "
            "every row that the brand declares.",
        ),
    ] = None,
    auc: Annotated[
        float,
        typer.Option("--auc", help="AUC that a model is taken to reach without noise."),
    ] = 0.8,
    as_json: JsonFlag = False,
) -> None:
    """Say what a collaboration file would run, cost and leave, and what would be refused.

    Leaves with 1 if anything would be refused.

    Example: comity plan examples/lookalike/collaboration.toml --positives 300
    """
    from federation.collaboration import load_collaboration
    from federation.plan import plan as make_plan
    from federation.progress import Progress, report
    from federation.watch import watched

    with watched():
        report(Progress("plan", file.stem, "is read, and held against the tables that it names"))
        planned = make_plan(load_collaboration(file), positives=positives, auc=auc)
    if as_json:
        _print_json(planned.model_dump(mode="json"))
    else:
        _print_plan(planned)
    if planned.refused:
        raise typer.Exit(1)


@app.command("attack")
def attack_command(
    model: ModelFile,
    canaries: Annotated[
        int, typer.Option("--canaries", help="Made-up people to plant by fair coins.")
    ] = 1000,
    models: Annotated[
        int,
        typer.Option(
            "--models", help="Trainings for shadow models and their targets, 8 or more; 0 for none."
        ),
    ] = 64,
    unsafe_without: Annotated[
        str | None,
        typer.Option(
            "--unsafe-without",
            metavar="noise|clipping",
            help="Break this on purpose, to see that the attack finds it; nothing is kept.",
        ),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Attack a model's training on the party's own rows: which epsilon is refuted?

    Everything stays at the party; nothing is charged. Leaves with 1 if the stated epsilon is.

    Example: comity attack out/demo/retailer/models/lookalike-model.json
    """
    from federation.attack import attack
    from federation.progress import listening
    from federation.vertical_attack import attack_columns
    from federation.vertical_commands import print_vertical_attack
    from federation.vertical_rows import is_part
    from federation.watch import Watch
    from privacy.attacks import Flaw

    if unsafe_without is not None and unsafe_without not in set(Flaw):
        allowed = " or ".join(Flaw)
        raise typer.BadParameter(f"--unsafe-without takes {allowed}, got {unsafe_without!r}")
    flaw = None if unsafe_without is None else Flaw(unsafe_without)
    if is_part(model):
        with Watch(err) as watch, listening(watch):
            told = attack_columns(model, canaries=canaries, flaw=flaw)
        if as_json:
            _print_json(
                told.model_dump(mode="json") | {"refuted": told.refuted, "warning": told.warning}
            )
        else:
            print_vertical_attack(out, told)
        raise typer.Exit(1 if told.refuted else 0)
    with Watch(err) as watch, listening(watch):
        found = attack(model, canaries=canaries, models=models, flaw=flaw)
    if as_json:
        _print_json(
            found.model_dump(mode="json") | {"refuted": found.refuted, "warning": found.warning}
        )
    else:
        _print_attack(found)
    if found.refuted:
        raise typer.Exit(1)


@app.command()
def card(
    model: ModelFile,
    facts: Annotated[
        bool,
        typer.Option("--facts", help="Facts alone, which every party of the agreement has."),
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Make the card of a model: data, privacy, performance and groups on the party's own people.

    Writes PARTY/cards/JOB.html and JOB.json. Everything stays at the party; nothing is charged.

    Example: comity card out/demo/retailer/models/lookalike-model.json
    """
    from federation.card import make_card, write_card
    from federation.party import PartyFolder
    from federation.progress import listening
    from federation.vertical_card import make_vertical_card, write_vertical_card
    from federation.vertical_commands import print_vertical_card
    from federation.vertical_rows import is_part
    from federation.watch import Watch

    folder = PartyFolder(model.resolve().parent.parent)
    if is_part(model):
        with Watch(err) as watch, listening(watch):
            told = make_vertical_card(model, facts_alone=facts)
        place = folder.card(f"{told.spec.name}.facts" if facts else told.spec.name)
        write_vertical_card(told, place)
        if as_json:
            _print_json(told.model_dump(mode="json"))
        else:
            print_vertical_card(out, told, place)
        return
    with Watch(err) as watch, listening(watch):
        made = make_card(model, facts_alone=facts)
    name = f"{made.spec.name}.facts" if facts else made.spec.name
    place = folder.card(name)
    write_card(made, place)
    if as_json:
        _print_json(made.model_dump(mode="json"))
    else:
        _print_card(made, place)


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
            "--observe", metavar="HOST:PORT", help="Tell health and figures there; nowhere if out."
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
    from federation.apps.launchers import NodeConfig, run_node
    from federation.watch import line

    def tell(told: str) -> None:
        err.print(told, markup=False)

    def show(progress: Progress) -> None:
        if not progress.total:  # a long step's pace is of interest at a terminal only
            err.print(line(progress))

    given = {
        "party": party,
        "superlink": superlink,
        "root_certificates": root_certificates,
        "auth_supernode_private_key": auth_supernode_private_key,
        "allow_bundles": allow_bundle,
        "observe": observe,
        "traces": traces,
    }
    node = NodeConfig.of(config, given)
    if log_format is LogFormat.JSON:
        from federation.observing.json_lines import JsonLines

        lines = JsonLines(sys.stderr)
        lines.take_over()
        run_node(node, tell=lines.tell, listener=lines.progress, observers=[lines.answered])
    run_node(node, tell=tell, listener=show)


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
        _print_json(
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


def _print_verified(found: Any) -> None:
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
    logs = "1 log" if len(found) == 1 else f"{len(found)} logs"
    contracts = "1 agreement" if len(digests) == 1 else f"{len(digests)} agreements"
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
    """Serve a party's log over HTTP, and cosign heads of the other parties' logs, until Ctrl-C.

    Example: comity log serve out/demo/retailer --port 8096
    """
    from federation.log_commands import make_server

    with make_server(directory, host, port) as server:
        address = f"http://{host}:{server.server_port}/"
        err.print(f"serving {directory / 'log'} at {address}", markup=False)
        server.serve_forever()


@log_app.command("receipt", context_settings={"ignore_unknown_options": True})  # -1 is an index
def log_receipt(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="A party's folder.")],
    index: Annotated[int, typer.Argument(help="Which leaf, from 0.")],
    to: Annotated[
        Path | None, typer.Option("--to", help="File to write; left out, it is printed.")
    ] = None,
) -> None:
    """Make a receipt: one leaf, proved to be in a log, that anybody can check offline.

    Example: comity log receipt out/demo/retailer 0 --to out/first.tlog-proof
    """
    from federation.log_commands import make_receipt
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
    if to is None:
        sys.stdout.write(receipt.to_bytes().decode())
    else:
        write_atomically(to, receipt.to_bytes())
        out.print(f"wrote {to}", markup=False)


@log_app.command("prune")
def log_prune(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="A party's folder.")],
    before: Annotated[int, typer.Option("--before", min=0, help="First entry that stays.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Remove a log's first entries, by the agreement's retention term; their hashes stay.

    Example: comity log prune out/demo/retailer --before 4096
    """
    from datetime import UTC, datetime

    from federation.log_pruning import prune_log

    leaf, removed = prune_log(directory, before, now=datetime.now(UTC))
    if as_json:
        told = {"kept_from": leaf.kept_from, "root_hash": leaf.root_hash, "files": removed}
        sys.stdout.write(json.dumps(told, indent=2) + "\n")
    else:
        out.print(f"removed {removed} file(s): entries before {leaf.kept_from}")


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
) -> None:
    """Check a receipt offline; leaves with 1 if it does not hold, or is not public.

    Example: comity log check out/first.tlog-proof --agreement out/demo/agreement.json --party
    retailer
    """
    from federation.log_commands import check_receipt

    receipt, public, leaf = check_receipt(file, agreement=agreement, party=party, policy=policy)
    head, cosigned = public.checkpoint, ", ".join(public.cosigned) or "nobody"
    told = f"holds: leaf {receipt.index} of {head.tree_size} of {head.origin}, cosigned by"
    out.print(f"{told} {cosigned}", markup=False)
    out.print(
        "It is worth what the keys are by which you checked it: where a later version replaced "
        "them, whoever has the old ones can make such a receipt. Ask for one that holds by the "
        "latest version."
    )
    _print_json(leaf.model_dump(mode="json"))


@log_app.command("policy")
def log_policy(
    agreement: Annotated[Path, typer.Argument(help="The contract that every party signed.")],
    party: Annotated[str, typer.Option("--party", help="Whose log.")],
) -> None:
    """Print the policy (C2SP tlog-policy) under which heads of a party's log are public.

    Example: comity log policy out/demo/agreement.json --party retailer
    """
    from federation.log_commands import policy_file

    sys.stdout.write(policy_file(agreement, party).decode())


@log_app.command("show")
def log_show(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="A party's folder.")],
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
        _print_json([leaf.model_dump(mode="json") for leaf in log.leaves])
        return
    common = {"version", "kind", "time", "party", "agreement", "job"}
    out.print(f"[bold]{log.party}[/], {log.tree_size} leaves, root hash {log.root_hash}")
    for index, leaf in enumerate(log.leaves):
        told = leaf.model_dump(mode="json", exclude=common, exclude_none=True)
        what = ", ".join(f"{key} {_short(value)}" for key, value in told.items())
        moment = f"{leaf.time:%Y-%m-%d %H:%M:%S}"
        out.print(escape(f"{index:>4}  {moment}  {leaf.kind:<16}  {leaf.job or '–':<18}  {what}"))


def _short(value: Any) -> str:
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    return text if len(text) <= 60 else f"{text[:57]}…"


def _print_json(value: object) -> None:
    sys.stdout.write(json.dumps(value, indent=2) + "\n")


def _examples() -> Path:
    """Find the examples: beside the packages in a checkout, inside this one when installed."""
    here = Path(__file__).resolve().parent
    for path in (here.parent / "examples", here / "examples"):
        if path.is_dir():
            return path
    raise FederationError("the examples were not installed: run from a checkout")


def _print_plan(planned: Any) -> None:
    job_column = Column("job", no_wrap=True)
    table = Table(
        job_column, "computation", "epsilon", "spent after", "left after", "more would fit"
    )
    for job in planned.jobs:
        table.add_row(
            job.job,
            job.computation,
            f"{job.epsilon:.3f}" if job.epsilon else "–",
            f"{job.epsilon_spent:.3f}",
            f"{job.epsilon_left:.3f}",
            "–" if job.repeats is None else str(job.repeats),
        )
    out.print(table)
    for job in planned.jobs:
        refused = f"[bold red]would be refused[/] under {job.refused_by}: {job.remedy}"
        out.print(f"[bold]{job.job}[/]: {refused if job.refused_by else job.note}")
        details = [f"at {', '.join(job.who)}"]
        details += [f"takes {one.people} people ({one.term})" for one in job.minimums]
        if job.noise_multiplier is not None:
            details.append(f"noise multiplier {job.noise_multiplier:.3f}")
        out.print(f"  {'; '.join(details)}", markup=False)
        if job.forecast is not None:
            _print_forecast(job.forecast)
        if job.hidden_share is not None:
            out.print(f"  {job.hidden_share.sentence}", markup=False)
            if job.hidden_share.warning:
                out.print(f"  [bold yellow]warning[/] {escape(job.hidden_share.warning)}")
    tables = planned.max_parties_per_person
    held = "" if tables is None else f", a person in {_tables(tables)}"
    out.print(
        f"epsilon left: {planned.epsilon_left:.3f} of {planned.epsilon_cap:.3f} per person at "
        f"delta {planned.delta:g}{held}"
    )
    if (period := planned.period) is not None:
        out.print(
            f"epsilon left of any {period.days} days: {period.epsilon_left:.3f} of "
            f"{period.epsilon_cap:.3f} at delta {period.delta:g}, if all jobs run within them"
        )
    if len({job.forecast.family for job in planned.jobs if job.forecast is not None}) > 1:
        out.print("forecasts of different families cannot be compared with each other")
    if any(job.refused_by == "budget.epsilon" for job in planned.jobs):
        out.print(f"all of them fit from a budget of epsilon {planned.epsilon_for_all:.2f}")


def _print_forecast(forecast: Any) -> None:
    source = "assumed; --positives says otherwise" if forecast.assumed else "as given"
    out.print(
        f"  expected AUC loss {forecast.auc_loss:.3f} ({forecast.auc_loss_least:.3f} to "
        f"{forecast.auc_loss_most:.3f}) of a model that reaches {forecast.auc:.3f} without noise: "
        f"{forecast.positives} positives ({source}) of {forecast.rows} rows, {forecast.columns} "
        f"columns, signal to noise {forecast.signal_to_noise:.1f}",
        markup=False,
    )
    if forecast.warning:
        out.print(f"  [bold yellow]warning[/] {escape(forecast.warning)}")


def _print_attack(found: Any) -> None:
    table = Table("attack", "trainings", "guesses", "right", "epsilon is at least", "at most shown")
    guesses, exposure = found.canaries.guesses, found.exposure
    table.add_row(
        f"{guesses.coins} planted canaries, every sum seen",
        str(found.canaries.trainings),
        str(guesses.made),
        str(guesses.correct),
        f"{found.canaries.epsilon:.3f}",
        f"{found.canaries.most:.3f}",
    )
    if exposure is not None:
        rates = exposure.rates
        table.add_row(
            "shadow models, published models seen",
            f"{exposure.shadows} + {rates.positives + rates.negatives}",
            str(rates.positives + rates.negatives),
            str(rates.true_positives + rates.negatives - rates.false_positives),
            f"{exposure.epsilon:.3f}",
            f"{exposure.most:.3f}",
        )
    out.print(table)
    if exposure is not None:
        out.print(
            f"own rows told apart with AUC {exposure.auc:.3f} (0.5 is guessing); at 1 % false "
            f"alarms {exposure.true_positive_rate:.1%} of them are found"
        )
    if found.flaw is not None:
        out.print(f"without {found.flaw.value}, on purpose: nothing was kept", style="bold yellow")
    if found.stated_epsilon is None:
        said = "no epsilon is stated, none holds"
    else:
        said = f"stated: epsilon {found.stated_epsilon:g}"
    if found.warning:
        out.print(f"[bold yellow]warning[/] {escape(found.warning)}")
    verdict = "[bold red]refuted[/]" if found.refuted else "not refuted"
    out.print(
        f"{said}, for a person in {_tables(found.tables)}, at delta {found.delta:g}; at least "
        f"{found.epsilon:.3f} with {found.confidence:.0%} confidence"
        + ("" if found.stated_epsilon is None else f": {verdict}")
    )


def _tables(most: int) -> str:
    return "1 table" if most == 1 else f"up to {most} tables"


def _print_card(made: Any, place: Path) -> None:
    if made.epsilon is None:
        out.print("no epsilon holds: trained without noise", style="bold red")
    else:
        out.print(
            f"epsilon {made.epsilon:g} at delta {made.delta:g} for a person in "
            f"{_tables(made.tables)}"
        )
    if made.hidden_share is not None:
        out.print(made.hidden_share.sentence, markup=False)
    if made.judged is not None:
        _print_judged(made.judged)
    private = made.judged is not None or made.attack is not None
    whose = f", for {made.party} alone" if private else ", of facts alone"
    out.print(f"card{whose}: {place}.html", markup=False)


def _print_judged(judged: Any) -> None:
    out.print(
        f"{judged.eligible:,} of {judged.rows:,} rows judged, {judged.positives:,} of them positive"
    )
    if judged.quality is not None:
        table = Table("model", "AUC", "average precision", "lift at 5 %", "lift at 10 %")
        for name, quality in (("as published", judged.quality), ("averaged once", judged.one_shot)):
            if quality is not None:
                figures = (
                    quality.auc,
                    quality.average_precision,
                    quality.lift_at_5,
                    quality.lift_at_10,
                )
                table.add_row(
                    name, *(f"{one.value:.3f} ({one.low:.3f} to {one.high:.3f})" for one in figures)
                )
        out.print(table)
    for one in judged.fairness:
        for group in one.groups:
            if group.adverse:
                name = "other" if group.group is None else group.group
                out.print(
                    f"[bold yellow]below four fifths[/] {escape(f'{one.feature} {name}')}: chosen "
                    f"{group.ratio:.2f} times as often as the group that is chosen most"
                )


def _print_report(report: Any, workspace: Path) -> None:
    if report.models:
        table = Table("model trained by", "privacy", "AUC", "lift at 5 %", "AUC, no seeds")
        for model in report.models:
            if model.epsilon is not None:
                privacy = f"epsilon = {model.epsilon:g}"
            else:
                privacy = "–" if model.name == "random order" else "none"
            table.add_row(
                model.name,
                privacy,
                f"{model.everyone.auc:.3f}",
                f"{model.everyone.lift_at_5:.2f}",
                f"{model.unseen.auc:.3f}",
            )
        out.print(table)
    for change in report.changes:
        said = ", ".join(f"{count} {what}" for what, count in change.said.items())
        out.print(
            f"{change.party}: {said} between {change.before} and {change.after}; people used: "
            f"{change.eligible_before:,}, then {change.eligible_after:,}",
            markup=False,
        )
    if report.unprotected:
        names = ", ".join(report.unprotected)
        out.print(f"no epsilon holds for {names}: trained without noise", style="bold red")
    out.print(
        f"person-level epsilon {report.epsilon:.3f} at delta {report.delta:g}, of "
        f"{report.epsilon_cap:g} agreed; report: {workspace / 'report.html'}",
        markup=False,
    )
    out.print(f"verify every log: {_called_by()}{report.verify_command}", markup=False)


def _called_by() -> str:
    """Return the folder to put before `comity` where the shell would not find it by itself."""
    script = Path(sys.argv[0])
    return f"{script.parent}/" if script.name == "comity" and not shutil.which("comity") else ""
