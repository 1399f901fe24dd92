"""`comity agreement`: the contract from its draft to its end.

Guarantees: parses, calls, prints. Leaves to others: everything else (`adoption`,
`compliance.lifecycle`, `compliance.comparison`).
"""

import shlex
import sys
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from compliance.agreement import iso
from compliance.errors import InvalidAgreementError
from compliance.log.note import NoteKey
from compliance.rendering import render
from federation.terminal import JsonFlag, answer, err, out, print_document, print_json

if TYPE_CHECKING:
    from compliance.agreement import SignedAgreement
    from compliance.comparison import Change
    from compliance.lifecycle import Status
    from compliance.terms import PartyTerm

__all__ = ["agreement_app"]

agreement_app = typer.Typer(
    no_args_is_help=True,
    help="The contract that every party signs.\n\n"
    "Example: comity agreement show out/demo/agreement.json",
)

AgreementFile = Annotated[Path, typer.Argument(metavar="FILE", help="The agreement file.")]
CollaborationFile = Annotated[Path, typer.Argument(help="The collaboration file (TOML).")]
PartyOption = Annotated[Path, typer.Option("--party", help="Folder of the party.")]
_FORMATS = ["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"]


@agreement_app.command("new")
def new(
    file: CollaborationFile,
    workspace: Annotated[
        Path, typer.Option("--workspace", help="Folder for the parties' folders and the contract.")
    ],
    as_json: JsonFlag = False,
) -> None:
    """Draw up the contract of a collaboration file, unsigned.

    Makes a folder with keys for every party that has none yet, and WORKSPACE/agreement.json.

    Example: comity agreement new collaboration.toml --workspace out/ours
    """
    from federation.collaboration import UNSAFE_SEED_WARNING, load_collaboration
    from federation.trial.workspace import draft_workspace

    collaboration = load_collaboration(file)
    if collaboration.unsafe_seed is not None:
        err.print(UNSAFE_SEED_WARNING, markup=False)
    path = draft_workspace(collaboration, file, workspace)
    agreement = _read(path).unverified()
    names = [party.name for party in agreement.parties]
    answer(
        {"file": path, "agreement": agreement.digest, "parties": names},
        f"drawn up: {path}, to be signed by {', '.join(names)}, each with its own folder:",
        f"  comity agreement sign {_quoted(path)} --party {_quoted(workspace / names[0])}",
        as_json=as_json,
    )


@agreement_app.command("sign")
def sign(
    file: Annotated[Path, typer.Argument(help="The agreement file; the signature is added to it.")],
    party: Annotated[Path, typer.Option("--party", help="Folder of the party that signs.")],
    as_json: JsonFlag = False,
) -> None:
    """Sign a contract as a party, with the key in its folder.

    Example: comity agreement sign out/ours/agreement.json --party out/ours/brand
    """
    from federation import adoption
    from federation.party import PartyFolder, write_atomically

    signed = adoption.sign(PartyFolder(party), file)
    write_atomically(file, signed.to_json())
    agreement = signed.unverified()
    missing = [one.name for one in agreement.parties if one.name not in signed.signed_by]
    next_step = f"not signed yet by {', '.join(missing)}"
    if not missing:
        next_step = (
            "all have signed: each adopts it, with: comity agreement adopt FILE --party FOLDER"
        )
    answer(
        {"agreement": agreement.digest, "signed_by": signed.signed_by, "missing": missing},
        f"agreement {agreement.digest}",
        f"signed by {', '.join(signed.signed_by)}",
        next_step,
        as_json=as_json,
    )


@agreement_app.command("show")
def show(
    file: AgreementFile,
    html: Annotated[
        Path | None, typer.Option("--html", metavar="PAGE", help="Write a page to print instead.")
    ] = None,
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Print Markdown as it is written.")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Show a contract's terms, and who has signed so far.

    Example: comity agreement show out/demo/agreement.json
    """
    from compliance.rendering import render_html
    from federation.party import write_atomically

    signed = _read(file)
    agreement = signed.unverified()
    if html is not None:
        write_atomically(html, render_html(agreement, signed.signed_by).encode())
        out.print(f"written: {html}", markup=False)
    elif as_json:
        print_json(agreement.model_dump(mode="json") | {"signed_by": signed.signed_by})
    elif markdown:
        sys.stdout.write(render(agreement, signed.signed_by))
    else:
        print_document(render(agreement, signed.signed_by))


@agreement_app.command("verify")
def verify(file: AgreementFile, as_json: JsonFlag = False) -> None:
    """Verify that every party signed these very terms; leaves with 1 if not.

    Example: comity agreement verify out/demo/agreement.json
    """
    from federation.party import verified_agreement

    agreement = verified_agreement(file)
    names = [party.name for party in agreement.parties]
    document = {"agreement": agreement.digest, "signed_by": names}
    signed_by = f"holds: signed by {', '.join(names)}"
    answer(document, signed_by, f"agreement {agreement.digest}", as_json=as_json)


@agreement_app.command("amend")
def amend(
    file: AgreementFile,
    collaboration: Annotated[
        Path, typer.Argument(help="Collaboration file (TOML) with the terms as they are to be.")
    ],
    output: Annotated[Path, typer.Option("--output", help="File for the next version.")],
    party: Annotated[
        list[Path] | None,
        typer.Option("--party", help="Folder of a party that joins, or has a new key; repeatable."),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Draw up the next version of a contract, unsigned, and say what it changes.

    It holds from the collaboration file's valid_from on. Parties keep their keys, unless a folder
    with others is named.

    Example: comity agreement amend out/ours/agreement.json changed.toml --output out/next.json
    """
    from compliance.agreement import Agreement, SignedAgreement
    from compliance.comparison import compare
    from compliance.lifecycle import amend as amended
    from federation.adoption import next_term
    from federation.collaboration import build_agreement, load_collaboration
    from federation.party import PartyFolder, verified_agreement, write_atomically

    before, asked = verified_agreement(file), load_collaboration(collaboration)
    named = {one.name: one for one in before.parties}
    named |= {one.name: next_term(one) for one in map(PartyFolder, party or ())}
    parties: list[PartyTerm] = []
    for section in asked.parties:
        if section.name not in named:
            raise InvalidAgreementError(
                f"{section.name} is no party of {file}: name its folder with --party"
            )
        parties.append(named[section.name])
    terms = build_agreement(asked, parties)
    after = amended(before, {name: getattr(terms, name) for name in Agreement.model_fields})
    write_atomically(output, SignedAgreement.draft(after).to_json())
    changes = compare(before, after)
    answer(
        {
            "file": output,
            "agreement": after.digest,
            "version": after.number,
            "changes": _listed(changes),
        },
        f"drawn up: {output}, version {after.number}, to be signed and adopted by every party",
        *(f"- {change.sentence}" for change in changes),
        as_json=as_json,
    )


@agreement_app.command("diff")
def diff(
    old: Annotated[Path, typer.Argument(help="An agreement file.")],
    new: Annotated[Path, typer.Argument(help="The one to hold against it.")],
    as_json: JsonFlag = False,
) -> None:
    """Say what changes from one contract to another, and whom it protects less or more.

    Leaves with 0 if the terms are the same, with 1 if they differ.

    Example: comity agreement diff out/ours/agreement.json out/next.json
    """
    from compliance.comparison import compare

    changes = compare(_read(old).unverified(), _read(new).unverified())
    lines = [f"- {change.sentence}" for change in changes] or ["the terms are the same"]
    answer(_listed(changes), *lines, as_json=as_json)
    if changes:
        raise typer.Exit(1)


@agreement_app.command("adopt")
def adopt(
    file: Annotated[
        Path, typer.Argument(help="An agreement that all signed, or another party's notice.")
    ],
    party: PartyOption,
    as_json: JsonFlag = False,
) -> None:
    """Have a party obey an agreement from here on, or heed a notice.

    Budget, log and match history go on. Next keys that the agreement names take their places.

    Example: comity agreement adopt out/next.json --party out/ours/retailer
    """
    from federation import adoption
    from federation.party import PartyFolder, read_agreement
    from federation.versions import read_notice

    folder = PartyFolder(party)
    try:
        read_agreement(file)
    except InvalidAgreementError as error:
        try:
            signed = read_notice(file)
        except InvalidAgreementError:
            raise error from None
        notice, ends = adoption.keep_notice(folder, signed, now=datetime.now(UTC))
        document = {"party": folder.name, "notice_of": notice.party, "ends": iso(ends)}
        told = f"{folder.name} heeds the notice of {notice.party}: ends {iso(ends)}"
        answer(document, told, as_json=as_json)
        return
    agreement = adoption.adopt(folder, file, now=datetime.now(UTC))
    named = any(one.name == folder.name for one in agreement.parties)
    does = "obeys" if named else "is left out by, and keeps,"
    answer(
        {
            "party": folder.name,
            "version": agreement.number,
            "agreement": agreement.digest,
            "obeys": named,
        },
        f"{folder.name} {does} version {agreement.number}",
        f"agreement {agreement.digest}",
        as_json=as_json,
    )


@agreement_app.command("rotate")
def rotate(
    party: PartyOption,
    key: Annotated[
        str, typer.Option("--key", metavar="identity|encryption|log|cosigning", help="Which key.")
    ],
    as_json: JsonFlag = False,
) -> None:
    """Make a party's next key, which the next version of the contract is to name.

    The old one is used until that version is adopted, and then destroyed.

    Example: comity agreement rotate --party out/ours/retailer --key identity
    """
    from federation import adoption
    from federation.party import PartyFolder

    if key not in set(adoption.RotatedKey):
        allowed = " or ".join(adoption.RotatedKey)
        raise typer.BadParameter(f"--key takes {allowed}, got {key!r}")
    term = adoption.rotate(PartyFolder(party), adoption.RotatedKey(key))
    encryption = f", encryption {term.encryption_fingerprint}" if term.encryption_key else ""
    log = f", log {NoteKey.from_string(term.log_key).key_id.hex()}"
    cosigning = f", cosigning {term.cosigner.key_id.hex()}" if term.cosigner else ""
    told = f"identity {term.verifying_key.fingerprint}{encryption}{log}{cosigning}"
    answer(
        term,
        f"next keys of {term.name}: {told}",
        f"The {key} key in use stays until the next version is adopted. Draw that version up, with",
        f"  comity agreement amend AGREEMENT COLLABORATION --output NEXT --party {_quoted(party)}",
        "have every party sign it, and adopt it everywhere.",
        as_json=as_json,
    )


@agreement_app.command("end")
def end(
    party: PartyOption,
    reason: Annotated[str, typer.Option("--reason", help="In one line; it is logged.")],
    on: Annotated[
        datetime | None,
        typer.Option(
            "--on", help="When, in UTC; as early as agreed if left out.", formats=_FORMATS
        ),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """End the contract by a party's notice, signed with its key.

    Give the file to every other party, which keeps it with `comity agreement adopt`.

    Example: comity agreement end --party out/ours/retailer --reason "campaign is over"
    """
    from federation import adoption
    from federation.party import PartyFolder

    at = None if on is None else on.replace(tzinfo=UTC)
    path, notice = adoption.give_notice(
        PartyFolder(party), reason, now=datetime.now(UTC), effective_from=at
    )
    answer(
        {"party": notice.party, "ends": iso(notice.effective_from), "file": path},
        f"ends {iso(notice.effective_from)}: {path}",
        f"give it to every other party, which runs: comity agreement adopt {_quoted(path)}",
        as_json=as_json,
    )


@agreement_app.command("status")
def status(
    path: Annotated[Path, typer.Argument(help="An agreement file, or a party's folder.")],
    at: Annotated[
        datetime | None,
        typer.Option("--at", help="When, in UTC; now if left out.", formats=_FORMATS),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Say where a contract stands: draft, partly signed, signed, active, amended or ended.

    Example: comity agreement status out/demo/retailer
    """
    from compliance.lifecycle import status_of
    from federation.errors import WorkspaceError
    from federation.versions import versions_of

    if not path.exists():
        raise WorkspaceError(f"there is no such file or folder: {path}")
    moment = datetime.now(UTC) if at is None else at.replace(tzinfo=UTC)
    if path.is_dir():
        held = versions_of(path)
        found = [held.status(one, moment) for one in held.versions]
    else:
        found = [status_of(_read(path), moment)]
    answer([_plain(one) for one in found], *map(_told, found), as_json=as_json)


def _told(status: "Status") -> str:
    parts = [f"version {status.number}: {status.state}"]
    if status.missing:
        parts.append(f"not signed by {', '.join(status.missing)}")
    if status.ends is not None:
        parts.append(f"ends {iso(status.ends)} by {status.ending}")
    if status.notice is not None:
        parts.append(f"notice of {status.notice.party}: {status.notice.reason}")
    if status.amended_from is not None:
        parts.append(f"amended from {iso(status.amended_from)}")
    return "; ".join(parts)


def _plain(status: "Status") -> dict[str, object]:
    return {
        "number": status.number,
        "state": status.state,
        "missing": list(status.missing),
        "ends": status.ends and iso(status.ends),
        "ending": status.ending,
        "notice": status.notice and status.notice.model_dump(mode="json"),
        "amended_by": status.amended_by,
        "amended_from": status.amended_from and iso(status.amended_from),
    }


def _read(file: Path) -> "SignedAgreement":
    from federation.party import read_agreement

    return read_agreement(file)


def _listed(changes: "Sequence[Change]") -> list[dict[str, object]]:
    return [asdict(one) | {"sentence": one.sentence} for one in changes]


def _quoted(path: Path) -> str:
    return shlex.quote(str(path))
