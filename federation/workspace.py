"""A workspace: one folder per party and the contract they signed, for a run on one machine.

```
WORKSPACE/
  agreement.json         signed by all
  brand/ retailer/ …     one folder a party, the coordinator's among them (see `party`)
```

Guarantees: preparing the same collaboration again finds everything as it was and changes nothing,
so that an interrupted run goes on; another collaboration, or changed data, is refused.

Leaves to others: running it (`embedded`), judging it (`evaluation`).
"""

import filecmp
import shutil
from dataclasses import dataclass
from pathlib import Path

from compliance.agreement import Agreement, SignedAgreement
from compliance.log.note import NoteKey
from compliance.terms import Role
from federation.collaboration import Collaboration, PartySection, build_agreement
from federation.coordinator import read_jobs, write_jobs
from federation.errors import WorkspaceError
from federation.party import PartyConfig, PartyFolder, write_atomically

__all__ = ["Workspace", "draft_workspace", "prepare_workspace"]


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


def prepare_workspace(collaboration: Collaboration, source: Path, workspace: Path) -> Workspace:
    """Make the parties' folders, keys and contract, or find them made.

    1. Copy each party's files into its folder, and note its configuration.
    2. Make each party's keys; no party's key is in another's folder.
    3. Draw up the contract; every party signs it.
    4. Give every party the signed contract, and the coordinator the jobs.

    Args:
        collaboration: checked by `load_collaboration`.
        source: the collaboration file; relative paths in it are taken from its directory.
        workspace: directory to make or to go on with.

    Raises:
        WorkspaceError: the workspace holds another collaboration, or the data has changed.
    """
    folders, agreement = _draw_up(collaboration, source, workspace)  # 1, 2
    signed = SignedAgreement.draft(agreement)
    for folder in folders:  # 3
        signed = signed.sign(folder.name, folder.identity_key())
    for path in (workspace, *(folder.path for folder in folders)):  # 4
        _keep(path / "agreement.json", signed)
    prepared = Workspace(workspace, agreement, folders)
    _list_jobs(prepared.coordinator, collaboration)
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
    elif SignedAgreement.from_json(file.read_bytes()).unverified() != agreement:
        raise WorkspaceError(
            f"{file} is another contract than this collaboration makes: name another workspace"
        )
    return file


def _draw_up(
    collaboration: Collaboration, source: Path, workspace: Path
) -> tuple[tuple[PartyFolder, ...], Agreement]:
    folders = tuple(
        _prepare_party(collaboration, party, source.parent, workspace / party.name)
        for party in collaboration.parties
    )
    keys = {
        folder.name: (
            folder.identity_key().public,
            NoteKey(folder.log_origin, folder.log_key().public),
        )
        for folder in folders
    }
    return folders, build_agreement(collaboration, keys)


def _prepare_party(
    collaboration: Collaboration, party: PartySection, source: Path, path: Path
) -> PartyFolder:
    data, consent = party.data, party.consent
    if data is not None and data.path is not None:
        data = data.model_copy(update={"path": _copy(source / data.path, path)})
    if consent is not None:
        consent = _copy(source / consent, path)
    config = PartyConfig(
        name=party.name,
        role=party.role,
        data=data,
        consent=consent,
        unsafe_seed=collaboration.unsafe_seed,
    )
    return PartyFolder.create(path, config)


def _copy(source: Path, folder: Path) -> Path:
    """Copy a party's file into its folder; return the path as seen from there."""
    inside = Path("data") / source.name
    target = folder / inside
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f".{target.name}.tmp")
        shutil.copyfile(source, partial)
        partial.replace(target)
    elif not filecmp.cmp(source, target, shallow=False):
        raise WorkspaceError(
            f"{source} differs from its copy {target}, with which this workspace was begun: "
            "name another workspace"
        )
    return inside


def _keep(path: Path, signed: SignedAgreement) -> None:
    content = signed.to_json()
    if not path.exists():
        write_atomically(path, content)
    elif path.read_bytes() != content:
        raise WorkspaceError(
            f"{path} is another contract than this collaboration makes: name another workspace"
        )


def _list_jobs(coordinator: PartyFolder, collaboration: Collaboration) -> None:
    if (coordinator.path / "jobs.json").exists():
        asked = {spec.name: spec for spec in collaboration.jobs}
        for spec in read_jobs(coordinator):
            if asked.get(spec.name) != spec:
                raise WorkspaceError(
                    f"job {spec.name!r} in {coordinator.path / 'jobs.json'} is not what the "
                    "collaboration file says now: give the changed job another name, or name "
                    "another workspace"
                )
    write_jobs(coordinator, collaboration.jobs)
