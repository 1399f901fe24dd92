"""`comity party`: inviting parties, and joining as one.

Guarantees: parses, shows, asks, calls, prints; nothing is accepted that was not shown, and nothing
is signed that was not asked about. Leaves to others: everything else (`store`, `joining`).
"""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer
from rich.console import Console

from federation.terminal import JsonFlag, answer, err, out, print_document

if TYPE_CHECKING:
    from compliance.agreement import Agreement
    from compliance.terms import PartyTerm
    from federation.enrolment.invitation import Invitation
    from federation.enrolment.joining import Membership
    from federation.enrolment.request import Standing
    from federation.enrolment.store import EnrolmentStore

__all__ = ["party_app"]

party_app = typer.Typer(
    no_args_is_help=True,
    help="Invite parties, and join as one, with keys that nobody else has ever had.\n\n"
    "Example: comity party join brand.invitation --folder /srv/comity/brand",
)

CoordinatorOption = Annotated[
    Path, typer.Option("--coordinator", help="The coordinator's folder (comity coordinator init).")
]
PartyArgument = Annotated[
    Path,
    typer.Argument(metavar="DIR", help="The party's folder; the coordinator's is FOLDER/party."),
]
ToOption = Annotated[
    Path | None,
    typer.Option("--to", metavar="FILE", help="Write the request to a file, and send nothing."),
]


@party_app.command("invite")
def invite(
    name: Annotated[str, typer.Argument(help="The party, by its name in the terms.")],
    coordinator: CoordinatorOption,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="File to give to the party; NAME.invitation if left out."
        ),
    ] = None,
    terms: Annotated[
        Path | None,
        typer.Option("--terms", help="The collaboration file (TOML); needed for the first party."),
    ] = None,
    days: Annotated[
        int, typer.Option("--days", min=1, max=365, help="How long the party may take.")
    ] = 7,
    replace: Annotated[
        bool,
        typer.Option("--replace", help="Drop the keys with which it has joined; ask it before."),
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Write the file with which a party joins. It holds a secret: give it to that party alone.

    A second invitation to a party ends the first.

    Example: comity party invite brand --coordinator /srv/comity/coordinator --terms ours.toml
    """
    from federation.collaboration import load_collaboration
    from federation.enrolment.joining import open_invitation
    from federation.enrolment.store import EnrolmentStore
    from federation.operations.folder import CoordinatorFolder
    from federation.party import write_atomically

    folder = CoordinatorFolder.open(coordinator)
    store = EnrolmentStore(folder.path)
    if terms is not None:
        store.begin(load_collaboration(terms, elsewhere=True))
    content = store.invite(
        name,
        address=folder.config.address,
        certificate=folder.ca_certificate.read_text(encoding="ascii"),
        lifetime=timedelta(days=days),
        replacing=replace,
    )
    file = output or Path(f"{name}.invitation")
    write_atomically(file, content, mode=0o600)
    invitation = open_invitation(file)
    fingerprint = invitation.coordinator.verifying_key.fingerprint
    answer(
        {
            "file": file,
            "party": name,
            "draft": invitation.terms.digest,
            "coordinator": fingerprint,
            "expires": invitation.expires.isoformat(),
        },
        f"written: {file}, for {name} alone, until {invitation.expires:%Y-%m-%d %H:%M} UTC",
        f"tell {name} over another channel: coordinator {fingerprint}",
        as_json=as_json,
    )


@party_app.command("join")
def join(
    invitation: Annotated[Path, typer.Argument(help="The file that the coordinator gave.")],
    folder: Annotated[Path, typer.Option("--folder", help="The party's folder, to be made.")],
    data: Annotated[
        Path | None,
        typer.Option("--data", help="File (TOML) that says where the party's people lie."),
    ] = None,
    accept: Annotated[
        str | None,
        typer.Option(
            "--accept",
            metavar="DIGEST",
            help="Accept the terms without being asked; with --coordinator-key.",
        ),
    ] = None,
    coordinator_key: Annotated[
        str | None,
        typer.Option(
            metavar="FINGERPRINT",
            help="The coordinator's key, as told over another channel; any other is refused.",
        ),
    ] = None,
    to: ToOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Accept an invitation's terms, make all keys here, and register their public halves.

    Run again, it goes on with the same keys.

    Example: comity party join brand.invitation --folder /srv/comity/brand --data brand.toml
    """
    from federation.enrolment import joining
    from federation.enrolment.means import load_means
    from federation.secrets_commands import warn_of_clear_secrets

    found = joining.open_invitation(invitation)
    means = None if data is None else load_means(data, found.terms, found.party)
    key = found.coordinator.verifying_key.fingerprint
    _show_invitation(found, err if as_json else out, is_unattended=accept is not None)
    _check_key(key, coordinator_key, is_unattended=accept is not None)
    if accept is None:
        _ask("Does your organisation accept these terms?")
    member = joining.join(
        invitation,
        folder,
        accepted=accept or found.terms.digest,
        means=means,
        now=datetime.now(UTC),
    )
    warn_of_clear_secrets(member.folder.path)
    if _handed_over(member.registration, to, as_json=as_json, coordinator=key):
        return
    standing = _send(member, member.registration)
    _tell(member.folder.name, standing, as_json=as_json, coordinator=key)


@party_app.command("register")
def register(
    file: Annotated[Path, typer.Argument(help="A request that a party wrote with --to.")],
    coordinator: CoordinatorOption,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="File for the answer to the party.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Take a party's request that came as a file, as the listener takes those that come by itself.

    The party reads the answer with: comity party fetch DIR --from FILE

    Example: comity party register brand.request --coordinator /srv/comity/coordinator -o answer
    """
    from compliance.log.verifier import read_regular
    from federation.enrolment.request import REQUEST_LIMIT, Standing
    from federation.enrolment.store import EnrolmentStore
    from federation.errors import WorkspaceError
    from federation.party import write_atomically

    try:
        request = read_regular(file, REQUEST_LIMIT + 1)
    except OSError as error:
        raise WorkspaceError(f"{file} cannot be read ({error.strerror}): name another") from error
    answer = EnrolmentStore(coordinator).answer(request)
    if output is not None:
        write_atomically(output, answer)
    _tell("coordinator", Standing.from_json(answer), as_json=as_json)


@party_app.command("fetch")
def fetch(
    folder: PartyArgument,
    source: Annotated[
        Path | None,
        typer.Option("--from", metavar="FILE", help="Read the coordinator's answer from a file."),
    ] = None,
    to: ToOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Ask the coordinator how things stand, check what it says, and show everybody's fingerprints.

    Once all have signed, the party obeys the agreement.

    Example: comity party fetch /srv/comity/brand
    """
    from compliance.log.verifier import read_regular
    from federation.enrolment.joining import Membership
    from federation.enrolment.request import STANDING_LIMIT
    from federation.errors import WorkspaceError

    if (store := _coordinators(folder)) is not None:
        _tell("coordinator", store.standing(), as_json=as_json)
        return
    member = Membership.open(folder)
    if _handed_over(member.registration, to, as_json=as_json):
        return
    if source is None:
        _tell(member.folder.name, _send(member, member.registration), as_json=as_json)
        return
    try:
        answer = read_regular(source, STANDING_LIMIT + 1)
    except OSError as error:
        raise WorkspaceError(f"{source} cannot be read ({error.strerror}): name another") from error
    _tell(member.folder.name, member.take(answer, now=datetime.now(UTC)), as_json=as_json)


@party_app.command("sign")
def sign(
    folder: PartyArgument,
    accept: Annotated[
        str | None,
        typer.Option(
            "--accept", metavar="DIGEST", help="Sign the agreement of this digest, without asking."
        ),
    ] = None,
    to: ToOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Sign the agreement, once all have joined and you have compared keys with each of them.

    Example: comity party sign /srv/comity/brand
    """
    from federation.enrolment.joining import Membership

    if (store := _coordinators(folder)) is not None:
        store.sign(_compared(store.standing(), accept, as_json=as_json))
        _tell("coordinator", store.standing(), as_json=as_json, has_asked=accept is None)
        return
    member = Membership.open(folder)
    seen = member.seen if to is not None else _send(member, member.registration)
    content = member.submission(_compared(seen, accept, as_json=as_json)).model_dump_json().encode()
    if not _handed_over(content, to, as_json=as_json):
        standing = _send(member, content)
        _tell(member.folder.name, standing, as_json=as_json, has_asked=accept is None)


def _coordinators(folder: Path) -> "EnrolmentStore | None":
    """Return the coordinator's register, where the folder is its own as a party."""
    from compliance.terms import Role
    from federation.enrolment.store import EnrolmentStore
    from federation.party import PartyFolder

    found = PartyFolder(folder)
    return EnrolmentStore(found.path.parent) if found.config.role is Role.COORDINATOR else None


def _show_invitation(found: "Invitation", console: "Console", *, is_unattended: bool) -> None:
    """Show who invites whom; the terms too, unless their digest was accepted beforehand."""
    from compliance.rendering import render_draft

    if not is_unattended:
        print_document(render_draft(found.terms), console)
    console.print(
        f"You are invited as {found.party} ({found.role}) by the coordinator "
        f"{found.coordinator.name} at {found.address}, whose key is "
        f"{found.coordinator.verifying_key.fingerprint}: compare it over another channel.",
        markup=False,
    )


def _check_key(key: str, expected: str | None, *, is_unattended: bool) -> None:
    """Hold the coordinator's key against what its people told; who is not asked must name it."""
    from federation.errors import EnrolmentError

    if expected is None and is_unattended:
        raise typer.BadParameter(
            "--accept needs --coordinator-key FINGERPRINT, as the coordinator's people told it: "
            "whoever else wrote an invitation can have taken the same terms"
        )
    if expected not in {None, key}:
        raise EnrolmentError(
            f"the invitation is of a coordinator with the key {key}, not {expected}: nothing was "
            "made, and nothing sent. Ask the coordinator, over another channel"
        )


def _handed_over(request: bytes, to: Path | None, *, as_json: bool, **more: str) -> bool:
    from federation.party import write_atomically

    if to is None:
        return False
    write_atomically(to, request)
    told = f"written: {to}; the operator takes it with: comity party register {to}"
    answer({"file": to, **more}, told, as_json=as_json)
    return True


def _send(member: "Membership", request: bytes) -> "Standing":
    from federation.enrolment.exchange import ask

    return member.take(ask(member.invitation, request), now=datetime.now(UTC))


def _compared(standing: "Standing", accept: str | None, *, as_json: bool) -> str:
    """Show everybody's keys, ask whether they were compared, and return what was accepted."""
    from federation.errors import EnrolmentError

    signed = standing.signed
    if signed is None:
        missing = ", ".join(standing.missing) or "parties"
        raise EnrolmentError(f"{missing} have yet to join: sign once all have")
    if accept is not None:
        return accept
    agreement = signed.unverified()
    (err if as_json else out).print("\n".join(_told_keys(agreement)), markup=False)
    _ask("Have you compared these keys with the other parties, and do you sign?")
    return agreement.digest


def _ask(question: str) -> None:
    if not typer.confirm(question, err=True):
        err.print("not accepted: nothing was made, and nothing sent")
        raise typer.Exit(1)


def _tell(
    party: str, standing: "Standing", *, as_json: bool, has_asked: bool = False, **more: str
) -> None:
    """Say how things stand; everybody's keys too, unless it was asked about them just now."""
    lines = []
    if standing.signed is None:
        waits = f"{party} waits for {', '.join(standing.missing)} to join"
        lines.append(f"{waits}; once all have, each signs: comity party sign FOLDER")
    else:
        agreement = standing.signed.unverified()
        names = ", ".join(standing.unsigned)
        lines += [] if has_asked else _told_keys(agreement)
        told = f"not signed yet by {names}" if names else "signed by all, nodes may start"
        lines.append(f"agreement {agreement.digest}: {told}")
    answer(_plain(party, standing) | more, *lines, as_json=as_json)


def _told_keys(agreement: "Agreement") -> list[str]:
    """Return everybody's fingerprints, a line each, and what people do with them."""
    lines = []
    for party in agreement.parties:
        prints = zip(_KEYS, _fingerprints(party), strict=True)
        keys = ", ".join(f"{name} {one}" for name, one in prints if one is not None)
        lines.append(f"{party.name} ({party.role}): {keys}")
    lines.append(
        f"The digest covers all of these keys: {agreement.digest}. Read it to every other party "
        "over another channel, such as a telephone; all must see the same."
    )
    return lines


_KEYS: Final = ("identity", "encryption", "log", "cosigning")


def _fingerprints(party: "PartyTerm") -> tuple[str, str | None, str, str | None]:
    cosigner = party.cosigner
    return (
        party.verifying_key.fingerprint,
        party.encryption_fingerprint,
        party.log_key.split("+")[1],
        cosigner.key_id.hex() if cosigner else None,
    )


def _plain(party: str, standing: "Standing") -> dict[str, object]:
    signed = standing.signed
    agreement = signed.unverified() if signed else None
    return {
        "party": party,
        "missing": list(standing.missing),
        "agreement": agreement.digest if agreement else None,
        "signed_by": list(signed.signed_by) if signed else [],
        "keys": {
            one.name: dict(zip(_KEYS, _fingerprints(one), strict=True))
            for one in (agreement.parties if agreement else ())
        },
    }
