"""Calls that a coordinator refused: how many for which reason, and nothing of who made them."""

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field

from compliance.records.leaf import Leaf, Positive, Time

__all__ = ["CallsRefused", "RefusedCalls", "RefusedFor"]


class RefusedFor(StrEnum):
    """Why a coordinator refused a call, or a connection before there was one."""

    HANDSHAKE = "handshake"
    """No TLS came about: the other end trusts another root, or spoke something else."""
    HEAD = "head"
    """A connection said too much, or nothing for too long, before what it wants was known."""
    BUSY = "busy"
    """As many connections as there may be were open."""
    REQUEST = "request"
    """It was malformed, or asked for what cannot be done."""
    CALL = "call"
    """There is no such call, or nobody may make it."""
    BODY = "body"
    """Its body was too long, or did not say its length."""
    TOKEN = "token"  # noqa: S105 -- a reason, no token
    """No operator's token that is good now."""
    ROLE = "role"
    """The operator's role does not reach so far."""
    EXECUTOR = "executor"
    """The executor's interface, from another machine, or without its secret or a task's token."""
    NODE = "node"
    """The nodes' interface, by a key that is not taken, or of a run that is over."""
    ENROLMENT = "enrolment"
    """An enrolment: no open invitation, another agreement, or a key that does not fit."""


RefusedCalls = Annotated[
    dict[Annotated[RefusedFor, Field(strict=False)], Positive],
    Field(min_length=1, max_length=len(RefusedFor)),
]


class CallsRefused(Leaf):
    """Calls that the coordinator refused from `since` to the time of this leaf.

    Attributes:
        since: when the first of them was refused.
        refused: how many, by the reason.
    """

    kind: Literal["calls.refused"] = "calls.refused"
    since: Time
    refused: RefusedCalls
