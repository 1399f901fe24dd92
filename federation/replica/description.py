"""What a folder says of itself and its node, as it is kept: without a password in it.

Guarantees: no URL is kept with a password, be it the user's or in the query: three stars stand in
its place, and go when the folder is restored; all else is kept as it is.

Leaves to others: what it means (`federation.party.configuration`), which imports this package.
"""

import json
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from federation.errors import ReplicaError

__all__ = [
    "DESCRIPTION",
    "NODE_FILE",
    "outside_of",
    "with_database",
    "without_passwords",
    "without_passwords_in_text",
]

DESCRIPTION: Final = "party.json"
NODE_FILE: Final = "node.toml"
"""What a party that has joined finds in its folder; it may name the folder's database."""
_PASSWORD: Final = re.compile(
    rb"(://[^\s/?#'\"]*?):[^\s'\"]*(?=@)|([?&][a-z]*pass[a-z]*=)[^\s&'\"]*", re.IGNORECASE
)
_STARS: Final = "***"
_FILES: Final = ("consent", "suppression")  # or tables
_URLS: Final = (
    *(("ledger",), ("database",), ("data", "url"), ("segments", "url")),
    *((name, "url") for name in _FILES),
)


def without_passwords(content: bytes) -> bytes:
    """Return a description of which no URL has a password.

    Raises:
        ReplicaError: it is none.
    """
    return _changed(content, lambda _, url: _with_passwords(url, _STARS))


def with_database(content: bytes, database: str) -> tuple[bytes, Sequence[str]]:
    """Return a description that names its database, and which of its URLs lost a password.

    Args:
        content: as it was kept.
        database: its URL.

    Raises:
        ReplicaError: it is none.
    """
    lacking: list[str] = []

    def change(key: tuple[str, ...], url: str) -> str:
        if key == ("database",):
            return database
        if (bare := _with_passwords(url, None)) != url:
            lacking.append(".".join(key))
        return bare

    return _changed(content, change), tuple(lacking)


def without_passwords_in_text(content: bytes) -> bytes:
    """Return text, such as a node's file, of which no URL has a password."""
    return _PASSWORD.sub(rb"\1\2", content)


def _changed(content: bytes, change: Callable[[tuple[str, ...], str], str]) -> bytes:
    try:
        document = json.loads(content)
        before = json.dumps(document)
        for key in _URLS:
            section: Any = document
            for name in key[:-1]:
                section = section.get(name) or {}
            if isinstance(section, str):  # a file
                continue
            if isinstance(url := section.get(key[-1]), str):
                section[key[-1]] = change(key, url)
    except (ValueError, AttributeError) as error:
        raise _no_description() from error
    if json.dumps(document) == before:
        return content
    return json.dumps(document, indent=2).encode() + b"\n"


def _with_passwords(url: str, password: str | None) -> str:
    """Return a URL in which each password that it has is another, or is gone."""
    import sqlalchemy as sa

    try:
        parsed = sa.make_url(url)
    except (sa.exc.ArgumentError, ValueError):
        raise ReplicaError(
            f"a URL in {DESCRIPTION} is malformed: mend it, or remove its key"
        ) from None
    hidden = [name for name in parsed.query if "pass" in name.lower()]
    if parsed.password is None and not hidden:
        return url
    other = parsed.difference_update_query(hidden)
    if parsed.password is not None:
        other = other._replace(password=password)
    if password is not None:
        other = other.update_query_dict(dict.fromkeys(hidden, password))
    return other.render_as_string(hide_password=False)


def outside_of(content: bytes, root: Path) -> dict[str, Path]:
    """Return the files outside of a folder that are kept too, by their names in the copy.

    Args:
        content: of the folder's description.
        root: the folder.

    Raises:
        ReplicaError: it is none.
    """
    try:
        document = json.loads(content)
        named = {f"/{key}": root / document[key] for key in _FILES if _is_file(document.get(key))}
    except (ValueError, AttributeError, TypeError) as error:
        raise _no_description() from error
    places = {name: Path(os.path.normpath(place)) for name, place in named.items()}
    return {name: place for name, place in places.items() if not place.is_relative_to(root)}


def _is_file(place: object) -> bool:
    return isinstance(place, str) and bool(place)


def _no_description() -> ReplicaError:
    return ReplicaError(f"{DESCRIPTION} is no description of a party: restore it")
