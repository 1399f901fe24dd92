"""Take a version over again and again, killed at every renaming of a file, each time in a new copy.

As a script: `killing_adoption.py FOLDER VERSION MOMENT SCRATCH`. Before the party has taken the
version over its folder refuses to work; asked once more, it always gets there. Prints how often it
was killed.
"""

import shutil
import signal
import sys
from datetime import datetime
from functools import partial
from pathlib import Path

from renamings import killed_at

from compliance.errors import LogCorruptedError
from compliance.log.cosignature import open_head
from compliance.log.note import NoteKey
from compliance.log.verifier import read_checkpoint
from federation import adoption
from federation.audit import verify_party
from federation.errors import WorkspaceError
from federation.party import PartyFolder, read_agreement


def check(folder: Path, file: Path) -> None:
    """Old keys alone head the log without the leaf, and new ones that with it; nobody works on."""
    before, after = (
        read_agreement(folder / "agreement.json").verify(),
        read_agreement(file).verify(),
    )
    signed = read_checkpoint(folder / "log")
    heads = []
    for version in (before, after):
        term = version.party(folder.name)
        try:
            heads.append(open_head(signed, NoteKey.from_string(term.log_key), term.cosigner))
        except LogCorruptedError:
            heads.append(None)
    if heads == [None, None]:
        raise SystemExit("neither the old keys nor the new ones head the log")
    if PartyFolder(folder).next_agreement.exists():
        try:
            PartyFolder(folder).agreement()
        except WorkspaceError:
            return
        raise SystemExit("a folder that was interrupted goes on")


def main(folder: Path, file: Path, now: datetime, scratch: Path) -> None:
    """Kill at every renaming, then take over."""
    kills, ended = 0, -signal.SIGKILL
    while ended == -signal.SIGKILL:
        copy = Path(shutil.copytree(folder, scratch / str(kills) / folder.name))
        adopts = partial(adoption.adopt, PartyFolder(copy), file, now=now)
        ended = killed_at(kills + 1, adopts)
        check(copy, file)
        after = adopts()
        party = verify_party(copy)
        rotated = [leaf.kind for leaf in party.leaves].count("key.rotated")
        if (party.agreement, rotated) != (after, 4) or list(copy.glob("keys/*.next")):
            raise SystemExit(f"killed at {kills + 1}: expected 4 keys replaced, got {rotated}")
        shutil.rmtree(copy.parent)
        kills += ended == -signal.SIGKILL
    if ended:
        raise SystemExit(ended)
    sys.stdout.write(f"{kills}\n")


if __name__ == "__main__":
    party, version, moment, place = sys.argv[1:]
    main(Path(party), Path(version), datetime.fromisoformat(moment), Path(place))
