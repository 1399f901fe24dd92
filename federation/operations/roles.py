"""Who may look, who may run, and who may do whatever else there is.

```
viewer     sees runs and nodes
operator   runs, cancels and resumes too
admin      whatever Flower's control interface can do besides, code on this machine included
```

Guarantees: each role may do what those before it may.

Leaves to others: which call needs which (`federation.apps.control_listener`).
"""

from enum import StrEnum

__all__ = ["OperatorRole"]


class OperatorRole(StrEnum):
    """What an operator may do; each may do what those before it may."""

    VIEWER = "viewer"
    OPERATOR = "operator"
    ADMIN = "admin"

    def may(self, needed: "OperatorRole") -> bool:
        """Whether whoever has this role may do what needs another."""
        order = list(OperatorRole)
        return order.index(self) >= order.index(needed)
