"""The key that unseals the secrets of the folders that a process opens: where it comes from.

```
COMITY_UNSEALING_KEY         the key itself, 64 hexadecimal digits
COMITY_UNSEALING_KEY_FILE    a file that holds it, readable by its owner only
COMITY_UNSEALING_KEYRING     SERVICE/USER, in the system's keyring (extra `keyring`)
```

Guarantees: one of them counts; with two, or with one that is empty or no key, nothing is opened and
nothing is written, rather than in clear. The key is in no error and in no line.

Leaves to others: what is sealed (`safe`). Whoever can read this process's environment or memory
has the key; and where the key's file lies beside what it seals, nothing is gained.
"""

import os
import re
import stat
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Final

from compliance.sealing import UNSEALING_KEY_BYTES, UnsealingKey
from federation.errors import UnsealingError

__all__ = ["SOURCES", "key_file", "read_key_file", "unsealing_key"]

_VALUE: Final = "COMITY_UNSEALING_KEY"
_FILE: Final = "COMITY_UNSEALING_KEY_FILE"
_KEYRING: Final = "COMITY_UNSEALING_KEYRING"

SOURCES: Final = (_VALUE, _FILE, _KEYRING)
"""Variables of the environment that say where the key is."""

_HEX: Final = re.compile(rf"[0-9a-fA-F]{{{2 * UNSEALING_KEY_BYTES}}}")
_LONGEST_FILE: Final = 4096
_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO


def unsealing_key(environment: Mapping[str, str] | None = None) -> UnsealingKey | None:
    """Return the key that this process was given; None where it was given none.

    Args:
        environment: the process's where left out.

    Raises:
        UnsealingError: two were given, or what was given cannot be read or is none.
    """
    found = os.environ if environment is None else environment
    given = [name for name in SOURCES if name in found]
    if not given:
        return None
    if len(given) > 1:
        raise UnsealingError(f"expected one of {', '.join(given)}, got several: unset the others")
    (name,) = given
    value = found[name].strip()
    if not value:
        raise UnsealingError(f"{name} is empty: give what it names, or unset it")
    if name == _VALUE:
        return _parsed(value, name)
    return read_key_file(Path(value)) if name == _FILE else _from_keyring(value)


def key_file(environment: Mapping[str, str] | None = None) -> Path | None:
    """Return the file that holds the key that this process was given, if one does."""
    named = (os.environ if environment is None else environment).get(_FILE, "").strip()
    return Path(named).resolve() if named else None


def read_key_file(file: Path) -> UnsealingKey:
    """Return the key that a file holds.

    Raises:
        UnsealingError: it cannot be read, somebody else may read or write it, or it holds no key.
    """
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK)  # a FIFO would wait for its writer
        with os.fdopen(descriptor, "rb") as opened:
            found = os.fstat(descriptor)
            content = opened.read(_LONGEST_FILE) if stat.S_ISREG(found.st_mode) else b""
    except OSError as error:
        raise UnsealingError(
            f"the unsealing key's file {file} cannot be read ({error.strerror}): name another"
        ) from error
    if _is_exposed(found.st_mode, owner=found.st_uid, user=os.geteuid()):
        raise UnsealingError(
            f"the unsealing key's file {file} can be had by others (mode "
            f"{stat.S_IMODE(found.st_mode):04o}): make it its owner's alone, chmod 600 {file}; if "
            "others may have read it, seal under another key: comity secrets rotate"
        )
    return _parsed(content.decode("ascii", "replace").strip(), str(file))


def _is_exposed(mode: int, *, owner: int, user: int) -> bool:
    """Tell whether others than a user, and root, may have a file.

    A group may read what root handed over: so systemd and Kubernetes pass secrets to a user.
    """
    handed_over = owner == 0 and user != 0
    allowed = stat.S_IRGRP if handed_over else 0
    return owner not in {user, 0} or bool(stat.S_IMODE(mode) & _OTHERS & ~allowed)


def _parsed(text: str, source: str) -> UnsealingKey:
    if not _HEX.fullmatch(text):
        raise UnsealingError(
            f"{source} holds no unsealing key: expected {2 * UNSEALING_KEY_BYTES} hexadecimal "
            "digits, as `comity secrets key` makes them"
        )
    return UnsealingKey(bytes.fromhex(text))


@lru_cache(maxsize=8)
def _from_keyring(entry: str) -> UnsealingKey:
    """Return a key of the operating system's keyring; asked once, as people may be asked then."""
    try:
        import keyring
        from keyring.errors import KeyringError
    except ModuleNotFoundError as error:
        raise UnsealingError(
            f"{_KEYRING} needs the package keyring: pip install 'comity[keyring]' brings it"
        ) from error
    service, _, user = entry.rpartition("/")
    if not service or not user:
        raise UnsealingError(f"{_KEYRING}: expected SERVICE/USER, such as comity/brand")
    try:
        found = keyring.get_password(service, user)
    except KeyringError as error:
        raise UnsealingError(
            f"the keyring cannot be asked for {entry} ({type(error).__name__}): unlock it, or give "
            f"the key by {_FILE}"
        ) from error
    if found is None:
        raise UnsealingError(
            f"the keyring has no entry {entry}: put the key there, keyring set {service} {user}"
        )
    return _parsed(found.strip(), f"the keyring's entry {entry}")
