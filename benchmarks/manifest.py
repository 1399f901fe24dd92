"""How long it takes to write down a million people before an update leaves, and how much room."""

import argparse
import shutil
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa

from compliance.terms import NoiseSource
from federation.collaboration import load_collaboration
from federation.people_used import PeopleUsed
from federation.references import References
from federation.specification import TrainSpec
from federation.training.manifests import Manifest, keep_manifest
from federation.trial.workspace import prepare_workspace


def main() -> None:
    """Measure, and print a line for each thing measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--people", type=int, default=1_000_000)
    parser.add_argument("--file", type=Path, default=Path("examples/lookalike/collaboration.toml"))
    asked = parser.parse_args()
    directory = Path(tempfile.mkdtemp())
    workspace = prepare_workspace(load_collaboration(asked.file), asked.file, directory / "all")
    folder, agreement = workspace.partners[0], workspace.agreement
    spec = TrainSpec(name="model", match="find", noise=NoiseSource.LOCAL, epsilon=1.0, delta=1e-6)
    numbers = np.random.default_rng(1).permutation(asked.people) + 10_000_000
    names = pa.array(np.char.add("R#", numbers.astype("U")), pa.large_string())
    people = PeopleUsed("lookalike-audiences", References.of(names), asked.people)
    now = datetime.now(UTC)
    for round_number in (1, 2):
        question = f"{round_number:064x}"
        begun = time.perf_counter()
        keep_manifest(
            folder,
            agreement,
            spec,
            people,
            question=question,
            computation="train.update",
            now=now,
        )
        print(f"round {round_number}: {time.perf_counter() - begun:.2f} s")
        folder.outbox.mkdir(exist_ok=True)
        (folder.outbox / f"{question}.{question}.json").write_bytes(b"")
    sizes = [path.stat().st_size for path in (folder.job("model") / "manifest").iterdir()]
    print(f"on disk: {sum(sizes):,} bytes, {sum(sizes) / asked.people:.1f} a person")
    begun = time.perf_counter()
    found = Manifest.open(folder, "model")
    wanted = [names[0].as_py()]
    print(f"is somebody in it: {found is not None and found.names(wanted)}", end=", ")
    print(f"{time.perf_counter() - begun:.2f} s")
    shutil.rmtree(directory)


if __name__ == "__main__":
    main()
