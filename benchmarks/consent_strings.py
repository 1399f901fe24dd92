"""Consent strings: how many are read a second, and a million damaged ones.

The damaged ones come from the tests' own generators, and are held against the tests' oracle, which
reads strings another way. Beside it, in an environment of its own: the decoder on PyPI.
"""

import random
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from compliance.consent_strings import VendorIds, decode_gpp, decode_tcf, encode_tcf
from compliance.errors import ConsentStringError

ROOT: Final = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT / "tests"))  # strings are damaged as they are in tests

from test_consent_strings import (  # noqa: E402  # found by the line above
    changed,
    consenting,
    damaged,
    oracle,
    permitted,
)

NOW: Final = datetime(2026, 11, 27, tzinfo=UTC)
READS: Final = 50_000
FUZZED: Final = 1_000_000
GPP: Final = "DBACNYA~CPXxRfAPXxRfAAfKABENB-CgAAAAAAAAAAYgAAAAAAAA~1YNN"
PEER: Final = """
import sys, time
from iab_tcf import decode
text, reads = sys.argv[1], 5000
begun = time.process_time()
for _ in range(reads):
    decode(text)
spent = time.process_time() - begun
accepted = []
for bad in ("", "!!!!", text[:60], text + "=="):
    try:
        decode(bad)
        accepted.append(bad[:8] or "''")
    except Exception:
        pass
print(f"{reads / spent:10,.0f} /s  {len(text)} characters, iab-tcf")
print(f"{len(accepted):10} of 4 broken ones accepted by iab-tcf")
"""


def peer(text: str) -> str:
    """Time the decoder on PyPI, installed apart."""
    place = ROOT / ".venv-bench" / "consent"
    python = place / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", place], check=True)
        command = [python, "-m", "pip", "install", "-qq", "iab-tcf==0.2.2"]
        subprocess.run(command, check=True)
    run = subprocess.run([python, "-c", PEER, text], check=True, capture_output=True, text=True)
    return run.stdout.strip("\n")


def main() -> None:
    """Print reads a CPU-second, and what became of the damaged strings."""
    text = encode_tcf(consenting())
    every = VendorIds.of(range(1, 1_200))
    some = VendorIds.of(vendor for vendor in every if vendor % 3)
    large = encode_tcf(consenting(vendor_consents=some, disclosed_vendors=every))
    for name, string, decode in (
        ("TC", text, decode_tcf),
        ("TC", large, decode_tcf),
        ("GPP", GPP, decode_gpp),
    ):
        begun = time.process_time()
        for _ in range(READS):
            decode(string, now=NOW)
        rate = READS / (time.process_time() - begun)
        print(f"{rate:10,.0f} /s  {len(string)} characters, {name} string", flush=True)
    print(peer(large), flush=True)

    chance = random.Random(2026)
    whole = permitted(consenting())
    tried = refused = wrong = 0
    while tried < FUZZED:
        for kind in (damaged, changed):
            for other in kind(text, chance):
                tried += 1
                try:
                    read = decode_tcf(other, now=NOW)
                except ConsentStringError:
                    refused += 1
                    continue
                allowed = whole if kind is damaged else oracle(other)
                wrong += not permitted(read) <= allowed
        if tried % 100_000 < 13:
            print(f"  {tried:9,} tried", end="\r", file=sys.stderr, flush=True)
    print(f"{tried:10,} damaged: {refused:,} refused, {wrong} permit what they may not")
    if wrong:
        sys.exit(1)


if __name__ == "__main__":
    main()
