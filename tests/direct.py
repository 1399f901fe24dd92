"""Parties that match over a direct link on loopback, a stand-in being the program at each end."""

import socket
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any

from parties import PEOPLE, Parties, World, collaboration, consents, table

from compliance.terms import MatchProtocol, Reveal
from federation.channel import Parcel
from federation.collaboration import Collaboration
from federation.messages import SealedMessage
from federation.specification import MatchSpec
from federation.trial.workspace import prepare_workspace

DIRECT = MatchSpec(name="find", protocol=MatchProtocol.RR22)
STAND_IN = Path(__file__).with_name("rr22_stand_in.py")


def program(path: Path, misbehaviour: str = "none") -> Path:
    """An interpreter that runs the stand-in, whatever script it is told to run."""
    path.write_text(f"#!/bin/sh\nexec {sys.executable} {STAND_IN} {misbehaviour}\n")
    path.chmod(0o700)
    return path


def free_address() -> str:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"127.0.0.1:{server.getsockname()[1]}"


class Direct(World):
    """A world whose parties answer side by side, as they must to be at a link together."""

    @cached_property
    def parties(self) -> Parties:  # type: ignore[override]
        return super().parties

    def exchange(
        self, parcels: Sequence[Parcel], *, most_missing: int = 0
    ) -> Sequence[SealedMessage | None]:
        with ThreadPoolExecutor(len(parcels)) as pool:
            return list(pool.map(lambda parcel: World.exchange(self, [parcel])[0], parcels))

    def misbehave(self, party: str, misbehaviour: str) -> None:
        """Have the party's program behave otherwise from now on."""
        program(self.folder(party).config.rr22.python, misbehaviour)


def make(
    path: Path,
    reveal: Reveal = Reveal.PARTNER_LEARNS_MEMBERS,
    *,
    spec: MatchSpec = DIRECT,
    python: Path | None = None,
    listening: Sequence[str] = ("brand",),
    agreement: Mapping[str, Any] | None = None,
    **match: object,
) -> Direct:
    """A world whose one job is a match by e-mail over a direct link."""
    path.mkdir(parents=True, exist_ok=True)
    for name in PEOPLE:
        table(name).to_csv(path / f"{name}.csv", index=False)
        consents(name).to_csv(path / f"{name}-consents.csv", index=False)
    terms = {"reveal": reveal, "keys": ["email"], "protocols": ["ecdh", "rr22"]} | match
    document = collaboration(match=terms, budget={"epsilon": 50.0}).model_dump(
        mode="json", exclude_unset=True
    )
    document["agreement"] |= dict(agreement or {})
    document["jobs"] = [spec.model_dump(mode="json")]
    for party in document["parties"]:
        if "data" not in party:
            continue
        name = party["name"]
        party["data"]["identifiers"] = {"email": "email"}
        party["rr22"] = {"python": str(python or program(path / f"{name}-python"))}
        if name in listening:
            party["rr22"]["listen"] = free_address()
    prepared = prepare_workspace(
        Collaboration.model_validate(document), path / "trial.toml", path / "workspace"
    )
    return Direct(prepared)
