"""Make the tables of the vertical example from the census data beside it.

The same bytes on every run: every choice is a hash of a row number. Addresses lie under reserved
domains; nobody can be reached by them.
"""

import argparse
import gzip
import hashlib
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

HERE = Path(__file__).resolve().parent
SOURCE = HERE.parent / "data" / "adult.csv.gz"
PURPOSE = "income-model"
COLUMNS = {
    "brand": ("age", "sex", "race", "marital-status", "relationship", "native-country"),
    "recruiter": ("workclass", "occupation", "education-num", "hours-per-week"),
    "broker": ("capital-gain", "capital-loss"),
}
KNOWN_BY = 0.9  # share of the people that each party knows
UNLABELLED = 0.2  # share of the brand's people whose label it does not know
WITHDRAWN = 0.03


def chance(label: str, rows: Sequence[int]) -> NDArray[np.float64]:
    """Return a number in [0, 1) for each row, the same on every run."""
    digests = (hashlib.sha256(f"vertical|{label}|{row}".encode()).digest() for row in rows)
    return np.array([int.from_bytes(one[:8], "big") / 2**64 for one in digests])


def written(table: pd.DataFrame) -> bytes:
    """Return a table as CSV.gz, without the time of day."""
    content = io.BytesIO()
    with gzip.GzipFile(fileobj=content, mode="wb", mtime=0, compresslevel=9) as file:
        file.write(table.to_csv(index=False, lineterminator="\n").encode())
    return content.getvalue()


def party(name: str, source: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return a party's table and its consents."""
    rows = source.index[chance(f"knows/{name}", source.index) < KNOWN_BY]
    order = np.argsort(chance(f"order/{name}", rows), kind="stable")
    rows = rows[order]
    mine = source.loc[rows, list(COLUMNS[name])]
    mine.insert(0, "record", [f"{name[:2].upper()}{row:06}" for row in rows])
    emails = np.array([f"person{row}@mail.example" for row in rows])
    shouted = chance(f"case/{name}", rows) < 0.2
    mine.insert(1, "email", np.where(shouted, np.char.upper(emails), emails))
    if name == "brand":
        income = np.where(source.loc[rows, "class"] == ">50K", "high", "low")
        mine["income"] = np.where(chance("unlabelled", rows) < UNLABELLED, "", income)
    given = pd.DataFrame({"subject": mine["record"], "event": "given"})
    given = given.assign(time="2025-03-01T00:00:00Z")
    gone = given[chance(f"withdrawn/{name}", rows) < WITHDRAWN]
    gone = gone.assign(event="withdrawn", time="2025-09-01T00:00:00Z")
    return mine, pd.concat([given, gone]).assign(purpose=PURPOSE)


def main() -> None:
    """Write every table."""
    parser = argparse.ArgumentParser(description="Make the tables of the vertical example.")
    parser.add_argument("--people", type=int, default=4_000, help="of the census; default 4000")
    parser.add_argument("--output", type=Path, default=HERE / "data", metavar="DIR")
    given = parser.parse_args()
    given.output.mkdir(parents=True, exist_ok=True)
    source = pd.read_csv(SOURCE, dtype=str, keep_default_na=False)
    chosen = np.argsort(chance("chosen", source.index), kind="stable")[: given.people]
    source = source.iloc[np.sort(chosen)]
    for name in COLUMNS:
        table, consents = party(name, source)
        (given.output / f"{name}.csv.gz").write_bytes(written(table))
        (given.output / f"{name}_consents.csv.gz").write_bytes(written(consents))


if __name__ == "__main__":
    main()
