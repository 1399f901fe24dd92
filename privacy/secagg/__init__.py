"""Secure aggregation: a server learns the sum of the parties' vectors, and none of them.

`client` and `server` hold the two sides of the protocol, `plan` what all know before it begins,
`messages` what they say to each other, `fixed_point` how numbers become entries of a vector;
`neighbourhood` says who masks with whom, `keys`, `shamir` and `roster` what masks rest on.
"""

from privacy.secagg.client import Client, ClientState, read_client_state
from privacy.secagg.fixed_point import FixedPoint
from privacy.secagg.keys import Signer, Verifier
from privacy.secagg.plan import Neighbours, Plan, ServerTrust
from privacy.secagg.server import Aggregate, Server, ServerState, read_server_state

__all__ = [
    "Aggregate",
    "Client",
    "ClientState",
    "FixedPoint",
    "Neighbours",
    "Plan",
    "Server",
    "ServerState",
    "ServerTrust",
    "Signer",
    "Verifier",
    "read_client_state",
    "read_server_state",
]
