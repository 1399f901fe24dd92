"""Models that are trained again without somebody: the queue, the next name, the end of the old one."""

import json
from pathlib import Path
from typing import Any

import parties
import pytest
from parties import EXPAND, JOBS, MATCH, TRAIN, World

from compliance import records
from federation import retaining
from federation.cli import main
from federation.erasing import Erasing
from federation.gate import Gate
from federation.party import locked

TERMS = {"budget": {"epsilon": 5.0, "delta": 1e-4}, "erasure": {"retrain_days": 20}}


def erase(world: World, party: str, person: int) -> Any:
    folder = world.folder(party)
    with locked(folder), folder.open_log() as log:
        gate = Gate(folder, world.agreement, log, None, clock=world.clock)
        erasing = Erasing(folder, world.agreement, gate, clock=world.clock)
        asked = erasing.request("email", parties.email(person))
        erasing.run()
        return asked.execution.request, erasing.receipt(asked.execution.request)[1]


def test_end_to_end(tmp_path: Path) -> None:
    world = World.make(tmp_path, **TERMS)
    world.run()
    request, outcomes = erase(world, "retailer", 40)
    told = {one.target: one for one in outcomes.steps}
    print(told)
    print([leaf.kind for leaf in world.leaves("retailer")][-12:])
    world.run()
    print([leaf.kind for leaf in world.leaves("retailer")][-30:])
    print((world.folder("coordinator").path/"retrainings.json").read_text())
    for name in ("retailer", "courier", "coordinator"):
        with pytest.raises(SystemExit):
            main(["retrain", "list", str(world.folder(name).path)])
    with pytest.raises(SystemExit) as left:
        main(["model", "manifest", str(world.folder("retailer").path), "model-2", "--request", request])
    print(left.value.code)
    with pytest.raises(SystemExit) as left:
        main(["model", "manifest", str(world.folder("retailer").path), "model", "--request", request, "--json"])
    print(left.value.code)
