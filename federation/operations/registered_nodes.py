"""Whose the key of each node is, by the number that the SuperLink gave the node.

```
FOLDER/nodes.json   number and name of each node whose key is taken now
```

Guarantees: a name is that of the file that the key lies in, `nodes/NAME.pub`, which the operator
answers for; whatever the node says of itself does not matter.

Leaves to others: taking keys (`federation.apps.operating`), what a name is good for (`roll_call`).
"""

from collections.abc import Mapping
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from federation.errors import WorkspaceError
from federation.party import write_atomically

__all__ = ["keep_registered", "registered_name"]

_NAMES = TypeAdapter(dict[int, str])


def keep_registered(file: Path, names: Mapping[int, str]) -> None:
    """Write down whose the nodes are whose keys are taken now; what is there already stays."""
    content = _NAMES.dump_json(dict(sorted(names.items())))
    if not file.exists() or file.read_bytes() != content:
        write_atomically(file, content, mode=0o600)


def registered_name(file: Path, node: int) -> str | None:
    """Return under whose name the key of a node is taken; None where nothing tells.

    Raises:
        WorkspaceError: the file is damaged.
    """
    try:
        return _NAMES.validate_json(file.read_bytes()).get(node)
    except FileNotFoundError:
        return None
    except ValidationError as error:
        raise WorkspaceError(f"{file} is damaged: remove it, and start the coordinator") from error
