"""`comity approve`, `comity approval` and `comity code`: people's yes to a job, and what code runs.

Guarantees: parses, calls, prints. Leaves to others: everything else (`approvals`, `code`).
"""

import json
import sys
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from federation.terminal import JsonFlag, answer, err, out

if TYPE_CHECKING:
    from compliance.signing import SigningKey

__all__ = ["approval_app", "approve", "code_app"]

approval_app = typer.Typer(
    no_args_is_help=True,
    help="People's approvals of jobs.\n\nExample: comity approval key approver-1.key",
)
code_app = typer.Typer(
    no_args_is_help=True, help="The code that a party runs.\n\nExample: comity code digest"
)


def approve(
    job: Annotated[str, typer.Argument(help="Name of the job.")],
    directory: Annotated[
        Path, typer.Option("--in", help="A folder with agreement.json and the jobs, jobs.json.")
    ],
    approver: Annotated[str, typer.Option("--as", help="Approver, as the agreement says.")],
    key: Annotated[Path, typer.Option("--key", help="The approver's key file.")],
    to: Annotated[Path, typer.Option("--out", help="File to write the approval to.")],
    as_json: JsonFlag = False,
) -> None:
    """Approve a job as it stands, and write the signed approval to a file.

    Example: comity approve best --in out/demo/coordinator --as approver-1 --key approver-1.key
    --out best.approval.json
    """
    from compliance.approval import Approval, sign_approval
    from federation.approvals import job_digest
    from federation.coordinator import jobs_in
    from federation.errors import WorkspaceError
    from federation.party import verified_agreement, write_atomically
    from federation.successors import retrainings_in

    agreement = verified_agreement(directory / "agreement.json")
    specs = {spec.name: spec for spec in jobs_in(directory / "jobs.json")}
    specs |= {spec.name: spec for one in retrainings_in(directory) for spec in one.jobs}
    if job not in specs:
        raise WorkspaceError(f"{directory} has no job {job!r}, only {', '.join(specs)}")
    (err if as_json else out).print(
        specs[job].model_dump_json(indent=2), markup=False
    )  # before it is signed
    approval = Approval(
        agreement=agreement.digest,
        job=job,
        job_digest=job_digest(specs[job]),
        approver=approver,
        time=datetime.now(UTC).replace(microsecond=0),
    )
    envelope = sign_approval(approval, _read_key(key), agreement)
    write_atomically(to, envelope.to_json())
    told = f"approved by {approver}: digest {approval.job_digest}, written to {to}"
    next_step = f"The operator takes it with: comity approval add COORDINATOR_FOLDER {to}"
    answer(approval, told, next_step, as_json=as_json)


@approval_app.command("key")
def make_key(
    file: Annotated[Path, typer.Argument(help="Where the secret key goes; must not be there.")],
    as_json: JsonFlag = False,
) -> None:
    """Make an approver's key, and print its public half for the agreement.

    Example: comity approval key approver-1.key
    """
    from compliance.signing import SigningKey
    from federation.errors import WorkspaceError
    from federation.party import write_atomically
    from privacy.randomness import new_secret

    if file.exists():
        raise WorkspaceError(f"{file} is there already: name another file")
    secret = new_secret()
    write_atomically(file, secret.hex().encode(), mode=0o600)
    public = SigningKey.from_seed(secret).public.to_base64()
    answer({"key": public}, public, as_json=as_json)


@approval_app.command("add")
def add(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="The coordinator's folder.")],
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Approvals.")],
    as_json: JsonFlag = False,
) -> None:
    """Verify approvals, and keep them for the coordinator to carry to each party.

    Example: comity approval add out/demo/coordinator best.approval.json
    """
    from compliance.errors import ApprovalError
    from compliance.signing import Envelope
    from federation.approvals import job_digest, keep_approvals
    from federation.coordinator import read_jobs
    from federation.party import PartyFolder, locked
    from federation.successors import Retrainings

    folder = PartyFolder(directory)
    agreement = folder.agreement()
    listed = (*read_jobs(folder), *Retrainings(folder, agreement).specs)
    specs = {job_digest(spec): spec for spec in listed}
    added = []
    for file in files:
        envelope = Envelope.from_json(file.read_bytes())
        told = json.loads(envelope.payload_bytes).get("job_digest")
        if told not in specs:
            raise ApprovalError(f"{file}: of no job as it stands in {directory}: approve it anew")
        with locked(folder):
            kept = keep_approvals(folder, agreement, specs[told], [envelope])
        added += [{"job": one.job, "approver": one.approver} for one, _ in kept]
    lines = [f"job {one['job']}: approved by {one['approver']}" for one in added]
    answer(added, *lines, as_json=as_json)


@code_app.command("digest")
def digest(
    listed: Annotated[
        bool, typer.Option("--list", help="Print every file's digest: what is digested.")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Print the digest of the code that runs here, as an agreement lists it.

    Example: comity code digest
    """
    from federation.code import code_listing, running_code

    listing = code_listing() if listed else ""
    if listed and not as_json:
        sys.stdout.write(listing)
        return
    code = running_code()
    rows = [line.split("  ", 1) for line in listing.splitlines()]
    files = [{"digest": digest, "path": path} for digest, path in rows]
    answer(asdict(code) | ({"files": files} if listed else {}), code.digest, as_json=as_json)


def _read_key(file: Path) -> "SigningKey":
    from compliance.signing import SigningKey
    from federation.errors import WorkspaceError

    try:
        return SigningKey.from_seed(bytes.fromhex(file.read_text(encoding="ascii")))
    except ValueError as error:
        raise WorkspaceError(f"{file} is no key: expected 32 bytes in hex") from error
