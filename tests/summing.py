"""Parties that aggregate securely in one process, over bytes, and may fall silent at any round."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from numpy.typing import NDArray

from privacy.errors import PeerMessageError
from privacy.randomness import SecretStream, seeded_secret
from privacy.secagg import (
    Aggregate,
    Client,
    ClientState,
    Neighbours,
    Plan,
    Server,
    ServerTrust,
    read_client_state,
    read_server_state,
)

CONTEXT = "ab" * 32
ROUNDS = 5
Vector = NDArray[np.unsignedinteger[Any]]


class Directory:
    """Ed25519 keys of parties, from seeds that depend on nothing but their names."""

    def __init__(self, parties: Iterable[str]) -> None:
        self.keys = {
            name: Ed25519PrivateKey.from_private_bytes(seeded_secret(0, f"signing key {name}"))
            for name in parties
        }
        self._public = {name: key.public_key() for name, key in self.keys.items()}

    def verify(self, party: str, signature: bytes, message: bytes) -> None:
        try:
            self._public[party].verify(signature, message)
        except (InvalidSignature, KeyError) as error:
            raise PeerMessageError(f"not signed by {party}") from error


def names(count: int) -> tuple[str, ...]:
    return tuple(f"party-{number:03d}" for number in range(count))


def plan_of(
    count: int,
    threshold: int,
    *,
    colluding: int = 0,
    server: ServerTrust = ServerTrust.MAY_LIE,
    ring_bits: int = 64,
    length: int = 5,
    neighbours: Neighbours = Neighbours.ALL,
    context: str = CONTEXT,
) -> Plan:
    return Plan(
        context=context,
        parties=names(count),
        threshold=threshold,
        colluding=colluding,
        server=server,
        ring_bits=ring_bits,
        length=length,
        neighbours=neighbours,
    )


def inputs_of(plan: Plan, seed: int = 0) -> dict[str, Vector]:
    """Return a vector for each party, of entries that fill the ring."""
    stream = SecretStream(seeded_secret(seed, "inputs"), "inputs")
    return {
        name: np.frombuffer(stream.take(plan.vector_bytes), dtype=plan.entry)
        for name in plan.parties
    }


def plain_sum(plan: Plan, inputs: Mapping[str, Vector], parties: Iterable[str]) -> Vector:
    return sum((inputs[name] for name in parties), np.zeros(plan.length, dtype=plan.entry))


@dataclass
class Simulation:
    """All parties and the server of one aggregation; everything goes through bytes.

    Attributes:
        silent: the first round in which a party says nothing any more, 0 to 4.
        stored: whether states are written and read back after every step.
    """

    plan: Plan
    silent: Mapping[str, int] = field(default_factory=dict)
    seed: int = 0
    stored: bool = True

    def __post_init__(self) -> None:
        directory = Directory(self.plan.parties)
        self.directory = directory
        self.clients = {
            name: Client(self.plan, name, directory.keys[name], directory)
            for name in self.plan.parties
        }
        self.server = Server(self.plan, directory)
        self.inputs = inputs_of(self.plan, self.seed)
        self.states: dict[str, ClientState] = {}
        self.at_server: Any = self.server.open()
        self.told: Any = None

    def secret(self, name: str) -> Any:
        return seeded_secret(self.seed, f"aggregation of {name}")

    def run(self) -> Aggregate:
        for number in range(ROUNDS):
            aggregate = self.round(number)
        assert isinstance(aggregate, Aggregate)
        return aggregate

    def until(self, number: int) -> "Simulation":
        """Play the rounds before one."""
        for earlier in range(number):
            self.round(earlier)
        return self

    def round(self, number: int) -> Any:
        """Play one round; return what the server tells at its end."""
        for name in self.there(number):
            said = self.speak(name, number)
            self.at_server = self.keep(self.take(number)(self.at_server, said), read_server_state)
        if number == ROUNDS - 1:
            return self.server.close(self.at_server)
        state, told = self.close(number)(self.at_server)
        self.at_server = self.keep(state, read_server_state)
        self.told = {one.recipient: one for one in told} if number == 1 else told
        if number == 0:
            self.told_roster = told
        return self.told

    def there(self, number: int) -> list[str]:
        return [
            name
            for name in self.plan.parties
            if self.silent.get(name, ROUNDS) > number and (number == 0 or name in self.states)
        ]

    def speak(self, name: str, number: int) -> Any:
        """Let a party take what the server told, and return what it says."""
        client, state = self.clients[name], self.states.get(name)
        if number == 0:
            new, said = client.advertise(self.secret(name))
        elif number == 1:
            new, said = client.share(state, self.carried(self.told))
        elif number == 2:
            new, said = client.mask(state, self.carried(self.told[name]), self.inputs[name])
        elif number == 3:
            new, said = client.confirm(state, self.carried(self.told))
        else:
            new, said = client.unmask(state, self.carried(self.told))
        self.states[name] = self.keep(new, read_client_state)
        return self.carried(said)

    def take(self, number: int) -> Any:
        server = self.server
        return (
            server.take_keys,
            server.take_shares,
            server.take_vector,
            server.take_confirmation,
            server.take_unmasking,
        )[number]

    def close(self, number: int) -> Any:
        server = self.server
        return (
            server.close_keys,
            server.close_shares,
            server.close_vectors,
            server.close_confirmations,
        )[number]

    def carried(self, message: Any) -> Any:
        """Return a message as it arrives: written and read."""
        return type(message).from_json(message.to_json(), self.plan)

    def keep(self, state: Any, read: Any) -> Any:
        return read(state.model_dump_json().encode()) if self.stored else state
