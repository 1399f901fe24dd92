"""Heads of logs carried between parties: public at the end of a run, split views stopped."""

import shutil
from pathlib import Path

import pytest
from parties import ROLES, World

from compliance.errors import LogCorruptedError, LogError
from compliance.log.note import NoteKey
from compliance.log.policy import Policy
from compliance.log.proving import TiledTree
from compliance.log.receipt import Receipt
from compliance.log.verifier import read_checkpoint
from compliance.log.checkpoint import Checkpoint
from federation.audit import verify_all, verify_party
from federation.errors import RefusedError
from federation.witnesses import policy_for, witness_in
from federation.witnessing import LogWitnessing


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> World:
    world = World.make(tmp_path_factory.mktemp("ended"))
    world.run()
    return world


@pytest.fixture
def world(ended: World, tmp_path: Path) -> World:
    return ended.copy(tmp_path / "copy")


def test_every_log_is_public_at_the_end_of_a_run(ended: World) -> None:
    for name in ROLES:
        party = verify_party(ended.folder(name).path)
        assert party.public_size is not None
        assert 0 < party.public_size < party.tree_size  # its own last words came after
        assert set(party.cosigned_by) == set(ROLES) - {name}
