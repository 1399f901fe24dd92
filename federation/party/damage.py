"""Files that a party wrote itself, and that are not any more what it wrote."""

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final
from zipfile import BadZipFile

from federation.errors import WorkspaceError

__all__ = ["undamaged"]

_OF_ZIP_ARCHIVES: Final = (BadZipFile, NotImplementedError, struct.error)


@contextmanager
def undamaged(path: Path) -> Iterator[None]:
    """Turn what is wrong with a file that this party wrote itself into its own error.

    Raises:
        WorkspaceError: it is damaged; the text names the file and the remedy.
    """
    try:
        yield
    except (*_OF_ZIP_ARCHIVES, EOFError, KeyError, ValueError) as error:
        raise WorkspaceError(f"{path} is damaged: run its job under another name") from error
