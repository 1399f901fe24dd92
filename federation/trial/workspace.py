"""A workspace: one folder per party and the contract they signed, for a run on one machine.

```
WORKSPACE/
  agreement.json         signed by all
  brand/ retailer/ …     one folder a party, the coordinator's among them (see `party`)
```

Guarantees: preparing the same collaboration again finds everything as it was and changes nothing,
so that an interrupted run goes on; another collaboration, or data changed since they were used, is
refused.

Leaves to others: running it (`embedded`), judging it (`evaluation`).
"""

import filecmp
import hashlib
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from compliance.agreement import Agreement, SignedAgreement
from compliance.terms import DATA_ROLES, Role
from federation.audit import has_begun, verify_party
from federation.collaboration import (
    Collaboration,
    PartySection,
    build_agreement,
    drafted_agreement,
)
from federation.coordinator import read_jobs, write_jobs
from federation.errors import WorkspaceError
from federation.party import (
    FileOrTable,
    PartyConfig,
    PartyFolder,
    locked,
    read_agreement,
    verified_agreement,
    write_atomically,
)

__all__ = ["Workspace", "draft_workspace", "folders_in", "prepare_workspace"]


@dataclass(frozen=True)
class Workspace:
    """All parties' folders on one machine, and their contract."""

    path: Path
    agreement: Agreement
    folders: tuple[PartyFolder, ...]

    @property
    def coordinator(self) -> PartyFolder:
        """The coordinator's folder."""
        return self._by_roles(Role.COORDINATOR)[0]

    @property
    def partners(self) -> tuple[PartyFolder, ...]:
        """The partners' folders."""
        return self._by_roles(Role.PARTNER)

    @property
    def people(self) -> tuple[PartyFolder, ...]:
        """Folders of the brand and the partners."""
        return self._by_roles(Role.BRAND, Role.PARTNER)

    def _by_roles(self, *roles: Role) -> tuple[PartyFolder, ...]:
        return tuple(folder for folder in self.folders if folder.config.role in roles)


def folders_in(workspace: Path) -> tuple[PartyFolder, tuple[PartyFolder, ...]]:
    """Return the folders of the coordinator, and of those that hold people, in a workspace.

    Raises:
        WorkspaceError: there is no coordinator's folder in it, or there are several.
    """
    found = [PartyFolder(path.parent) for path in sorted(workspace.glob("*/party.json"))]
    coordinators = [folder for folder in found if folder.config.role is Role.COORDINATOR]
    if len(coordinators) != 1:
        raise WorkspaceError(
            f"expected one coordinator's folder in {workspace}, got {len(coordinators)}: name the "
            "folder that has a folder for every party"
        )
    return coordinators[0], tuple(one for one in found if one.config.role in DATA_ROLES)


def prepare_workspace(collaboration: Collaboration, source: Path, workspace: Path) -> Workspace:
    """Make the parties' folders, keys and contract, or find them made.

    1. Refuse a workspace that holds another contract, before anything is written.
    2. Note each party's configuration, copy its files into its folder, make its keys.
    3. Draw up the contract; every party signs it, unless that was begun by hand.
    4. Give every party the signed contract, and the coordinator the jobs.

    Args:
        collaboration: checked by `load_collaboration`.
        source: the collaboration file; relative paths in it are taken from its directory.
        workspace: directory to make or to go on with.

    Raises:
        WorkspaceError: the workspace holds another collaboration, or the data has changed.
        InvalidAgreementError: the contract there is unsigned by somebody, or altered.
    """
    folders, agreement = _draw_up(collaboration, source, workspace)  # 1, 2
    file = workspace / "agreement.json"
    if not file.exists():  # 3
        signed = SignedAgreement.draft(agreement)
        for folder in folders:
            signed = signed.sign(folder.name, folder.identity_key())
        write_atomically(file, signed.to_json())
    for path in (file, *(folder.path / "agreement.json" for folder in folders)):  # 4
        if not path.exists():
            write_atomically(path, file.read_bytes())
        _check_same(verified_agreement(path), agreement, path)
    prepared = Workspace(workspace, agreement, folders)
    _list_jobs(prepared, collaboration)
    return prepared


def draft_workspace(collaboration: Collaboration, source: Path, workspace: Path) -> Path:
    """Make the parties' folders and keys, and the contract with nobody's signature yet.

    Returns:
        The contract's file, for the parties to sign.

    Raises:
        WorkspaceError: the workspace holds another contract.
    """
    _, agreement = _draw_up(collaboration, source, workspace)
    file = workspace / "agreement.json"
    if not file.exists():
        write_atomically(file, SignedAgreement.draft(agreement).to_json())
    return file


def _draw_up(
    collaboration: Collaboration, source: Path, workspace: Path
) -> tuple[tuple[PartyFolder, ...], Agreement]:
    file = workspace / "agreement.json"
    if file.exists():
        found = read_agreement(file).unverified()
        _check_same(found, _with_keys_of(found, collaboration), file)
    _sweep(workspace)
    folders = tuple(
        _prepare_party(collaboration, party, source.parent, workspace / party.name)
        for party in collaboration.parties
    )
    agreement = build_agreement(collaboration, [folder.term() for folder in folders])
    if file.exists():
        _check_same(read_agreement(file).unverified(), agreement, file)
    return folders, agreement


def _with_keys_of(found: Agreement, collaboration: Collaboration) -> Agreement:
    """Return the contract that the collaboration makes of the keys in a contract."""
    drafted = drafted_agreement(collaboration)
    theirs = {party.name: party for party in found.parties}
    parties = tuple(theirs.get(party.name, party) for party in drafted.parties)
    return drafted.model_copy(update={"parties": parties})


def _check_same(found: Agreement, expected: Agreement, file: Path) -> None:
    terms = (key for key in Agreement.model_fields if key != "amends")  # the file says what holds
    other = [key for key in terms if getattr(found, key) != getattr(expected, key)]
    if other:
        raise WorkspaceError(
            f"{file} is another contract than the collaboration file makes (it differs in "
            f"{', '.join(other)}): name another workspace, or undo the change"
        )


def _prepare_party(
    collaboration: Collaboration, party: PartySection, source: Path, path: Path
) -> PartyFolder:
    data, copies = party.data, dict[Path, Path]()
    if data is not None and data.path is not None:
        inside = Path("data") / data.path.name
        copies[inside] = source / data.path
        data = data.model_copy(update={"path": inside})
    elif data is not None:
        data = data.within(source)
    config = PartyConfig(
        name=party.name,
        role=party.role,
        data=data,
        consent=_named(party.consent, source, "consents", copies),
        suppression=_named(party.suppression, source, "suppression", copies),
        segments=party.segments and party.segments.within(source),
        workers=party.workers,
        rr22=party.rr22,
        unsafe_seed=collaboration.unsafe_seed,
    )
    folder = PartyFolder.create(path, config)
    with locked(folder):
        _sweep(folder.path, "**/")
        for inside, original in copies.items():
            _copy(original, folder, inside)
    return folder


def _named(
    named: FileOrTable | None, source: Path, place: str, copies: dict[Path, Path]
) -> FileOrTable | None:
    """Return what a party calls a list: a file, to be copied, or a table, where it is."""
    if not isinstance(named, Path):
        return named and named.within(source)
    inside = Path("data") / place / named.name
    copies[inside] = source / named
    return inside


def _copy(source: Path, folder: PartyFolder, inside: Path) -> None:
    target = folder.path / inside
    taken = target.with_name(f".{target.name}.taken")  # what was copied, whatever became of it
    with source.open("rb") as original:
        digest = hashlib.file_digest(original, "sha256").hexdigest()
    if target.exists():
        if filecmp.cmp(source, target, shallow=False):
            return
        if taken.exists() and taken.read_text(encoding="ascii") == digest:
            return  # somebody was erased from the copy, or it was corrected
        if any(folder.erasures.glob("*.json")):
            return  # from which somebody was erased stays: a new copy would bring them back
        if has_begun(folder.log) and verify_party(folder.path).counts.get("consent.used"):
            raise WorkspaceError(
                f"{source} differs from its copy {target}, which this workspace has used: name "
                "another workspace, or copy it over yourself to go on with what it says now"
            )
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.tmp")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)  # swept before
    with os.fdopen(descriptor, "wb") as copy, source.open("rb") as original:
        shutil.copyfileobj(original, copy)
    partial.replace(target)
    write_atomically(taken, digest.encode(), mode=0o600)


def _sweep(directory: Path, below: str = "") -> None:
    """Remove what a crash left of files that were not whole yet."""
    for partial in directory.glob(f"{below}.*.tmp"):
        partial.unlink()


def _list_jobs(workspace: Workspace, collaboration: Collaboration) -> None:
    """List the jobs; one that ended must stay as it was, one that began can only be left out."""
    coordinator = workspace.coordinator
    file = coordinator.path / "jobs.json"
    asked = {spec.name: spec for spec in collaboration.jobs}
    for spec in read_jobs(coordinator) if file.exists() else ():
        now = asked.get(spec.name)
        ended = coordinator.has_ended(spec.name)
        begun = any(folder.job(spec.name).exists() for folder in workspace.people)
        if now != spec and (ended or (begun and now is not None)):
            raise WorkspaceError(
                f"job {spec.name!r} has {'ended' if ended else 'begun'} in this workspace, as "
                f"{file} lists it, and the collaboration file says otherwise now: give the changed "
                f"job another name{', and put this one back' if ended else ''}"
            )
    write_jobs(coordinator, collaboration.jobs)
