"""`comity secrets`: seal what is secret in folders, and see how it lies.

Guarantees: parses, calls, prints; no secret and no key is printed.

Leaves to others: everything else (`resealing`, `unsealing`).
"""

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from federation.terminal import JsonFlag, answer, err

if TYPE_CHECKING:
    from compliance.sealing import UnsealingKey
    from federation.resealing import Resealed

__all__ = ["secrets_app", "warn_of_clear_secrets"]

secrets_app = typer.Typer(
    no_args_is_help=True,
    help="Keys and other secrets of folders, sealed on disk under a key that is kept elsewhere.\n\n"
    "Example: comity secrets seal /srv/comity/brand",
)

FolderArgument = Annotated[
    Path,
    typer.Argument(metavar="DIR", help="A party's or a coordinator's folder, or a workspace."),
]


@secrets_app.command("key")
def make_key(
    file: Annotated[Path, typer.Argument(help="Where the key goes; must not be there.")],
    as_json: JsonFlag = False,
) -> None:
    """Make an unsealing key, and print the name by which it is told from others.

    Example: comity secrets key /run/credentials/comity.key
    """
    from federation.errors import WorkspaceError
    from federation.party import write_atomically
    from federation.unsealing import read_key_file
    from privacy.randomness import new_secret

    if file.exists():
        raise WorkspaceError(f"{file} is there already: name another file")
    write_atomically(file, new_secret().hex().encode() + b"\n", mode=0o600)
    name = read_key_file(file).name
    told = f"written: {file}, key {name}; without it, nothing that is sealed opens: keep a copy"
    answer({"file": file, "key": name}, told, as_json=as_json)


@secrets_app.command("status")
def status(directory: FolderArgument, as_json: JsonFlag = False) -> None:
    """Say how secrets lie: sealed, in clear, or under another key than was given.

    Leaves with 1 if some lie in clear though an unsealing key is given, or do not open with it.

    Example: comity secrets status /srv/comity/brand
    """
    from federation.resealing import Standing, look, sealable_in
    from federation.unsealing import unsealing_key

    key = unsealing_key()
    found = [one for folder in sealable_in(directory) for one in look(folder.safe)]
    counts = Counter[Standing]()
    for one in found:
        counts[one.standing] += one.secrets
    document = {
        "key": key and key.name,
        **{str(standing): counts[standing] for standing in Standing},
        "files": {str(one.file): one.standing for one in found},
    }
    answer(
        document,
        *(f"{one.standing:<7} {one.file}" for one in found),
        str(key) if key else "no unsealing key is given",
        ", ".join(f"{counts[one]} {one}" for one in Standing),
        as_json=as_json,
    )
    if counts[Standing.CLOSED] or (key and counts[Standing.CLEAR]):
        raise typer.Exit(1)


@secrets_app.command("seal")
def seal(directory: FolderArgument, as_json: JsonFlag = False) -> None:
    """Seal every secret that lies in clear, under the unsealing key that is given.

    Stop what is at work on the folder first, and start it with the key.

    Example: comity secrets seal /srv/comity/brand
    """
    _tell(_reseal(directory, None, _needed()), "sealed", as_json=as_json)


@secrets_app.command("unseal")
def unseal(
    directory: FolderArgument,
    unsafe: Annotated[
        bool, typer.Option("--unsafe", help="Yes: secrets are to lie in clear.")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Have every secret lie in clear again, readable by its owner only.

    Example: comity secrets unseal /srv/comity/brand --unsafe
    """
    if not unsafe:
        raise typer.BadParameter("whoever reads the disk will have every secret: say --unsafe")
    _tell(_reseal(directory, _needed(), None), "put in clear", as_json=as_json)


@secrets_app.command("rotate")
def rotate(
    directory: FolderArgument,
    to: Annotated[Path, typer.Option("--to", metavar="FILE", help="File of the next key.")],
    as_json: JsonFlag = False,
) -> None:
    """Seal every secret under another key; the one that is given opens them.

    Interrupted, the same command goes on. Processes need the next key from then on.

    Example: comity secrets rotate /srv/comity/brand --to next.key
    """
    from federation.unsealing import read_key_file

    done = _reseal(directory, _needed(), read_key_file(to))
    _tell(done, "sealed under the next key", as_json=as_json)


def warn_of_clear_secrets(folder: Path) -> None:
    """Say that secrets of a folder lie in clear, where no unsealing key is given."""
    from federation.unsealing import unsealing_key

    if unsealing_key() is None:
        err.print(
            f"keys in {folder} lie in clear, readable by their owner only: `comity secrets --help` "
            "tells how to seal them",
            markup=False,
        )


def _needed() -> "UnsealingKey":
    from federation.errors import UnsealingError
    from federation.unsealing import SOURCES, unsealing_key

    if (key := unsealing_key()) is None:
        raise UnsealingError(
            f"no unsealing key was given: make one with `comity secrets key FILE`, and give it by "
            f"one of {', '.join(SOURCES)}"
        )
    return key


def _reseal(
    directory: Path, before: "UnsealingKey | None", after: "UnsealingKey | None"
) -> "Resealed":
    from federation.resealing import Resealed, reseal, sealable_in

    done = [reseal(folder, before, after) for folder in sealable_in(directory)]
    return Resealed(sum(one.written for one in done), sum(one.kept for one in done))


def _tell(done: "Resealed", what: str, *, as_json: bool) -> None:
    told = f"{done.written} secrets {what}; {done.kept} were before"
    answer({"written": done.written, "kept": done.kept}, told, as_json=as_json)
