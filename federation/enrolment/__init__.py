"""How parties join a collaboration, each with keys that it made at home.

`invitation` is what a coordinator hands to a party, `registration` what that says of itself.
`request` is what parties ask and are told; `register` is the coordinator's state machine, `store`
that on disk, `app` its door; `joining` is the party's side, `means` where its people lie,
`exchange` the way to that door, `waiting` what a node does first; `commands` are those of `comity
party`.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from federation.enrolment.app import enrolment_app

__all__ = ["enrolment_app"]


def __getattr__(name: str) -> Any:
    """Load the coordinator's door for who wants it: parties need none."""
    if name == "enrolment_app":
        from federation.enrolment.app import enrolment_app

        return enrolment_app
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
