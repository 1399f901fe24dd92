"""A small collaboration over columns: 300 people whom all know, of whom each party knows other things."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import parties
from parties import NOW, PURPOSE, World, email, terms

from compliance.terms import Role
from federation.collaboration import Collaboration
from federation.coordinator import write_jobs
from federation.specification import AlignSpec, JobSpec, VerticalScoreSpec, VerticalTrainSpec
from federation.trial.workspace import prepare_workspace

COMMON = 300
ALONE = {"brand": 20, "courier": 15, "press": 5, "retailer": 10}
"""People whom one party alone knows."""
COLUMNS = {
    "brand": ("age",),
    "courier": ("parcels",),
    "press": ("clicks",),
    "retailer": ("spend", "colour"),
}
ALIGN = AlignSpec(name="rows")
PRIVATE = VerticalTrainSpec(name="model", align="rows", rounds=2, label_epsilon=2.0)
UNSAFE = VerticalTrainSpec(name="model", align="rows", rounds=2, unsafe_labels=True)
SCORE = VerticalScoreSpec(name="scores", train="model", align="rows")


def people() -> pd.DataFrame:
    """What there is to know of everybody; the last 40 people have no label."""
    draw = np.random.default_rng(5)
    known = {
        name: draw.normal(size=COMMON).round(3) for name in ("age", "parcels", "spend", "clicks")
    }
    colour = draw.choice(["green", "red"], size=COMMON)
    logit = 2.0 * known["age"] + 2.5 * known["parcels"] - 2.0 * known["spend"]
    logit += np.where(colour == "red", 1.0, -1.0)
    truth = draw.random(COMMON) < 1.0 / (1.0 + np.exp(-logit))
    seen = np.where(truth, "yes", "no").astype(object)
    seen[-40:] = ""
    return pd.DataFrame({**known, "colour": colour, "truth": truth, "bought": seen})


def record(party: str, person: int) -> str:
    return f"{party[0].upper()}-{7_000 + person}"


def table(party: str) -> pd.DataFrame:
    """A party's table, in an order of its own."""
    everybody = people()
    columns = [*COLUMNS[party], *(["bought"] if party == "brand" else [])]
    mine = everybody[columns].copy()
    mine.insert(0, "record", [record(party, person) for person in range(COMMON)])
    mine.insert(1, "email", [email(person) for person in range(COMMON)])
    strangers = mine.iloc[: ALONE[party]].copy()
    strangers["record"] = [record(party, 1_000 + row) for row in range(len(strangers))]
    strangers["email"] = [f"{party}{row}@gmx.net" for row in range(len(strangers))]
    whole = pd.concat([mine, strangers])
    return whole.sample(frac=1.0, random_state=sum(map(ord, party)))


def consents(party: str, *, without: tuple[str, ...] = ()) -> pd.DataFrame:
    given = [(name, "given", "2025-06-01T00:00:00Z") for name in table(party)["record"]]
    gone = [(name, "withdrawn", "2026-02-28T00:00:00Z") for name in without]
    book = pd.DataFrame(given + gone, columns=["subject", "event", "time"])
    return book.assign(purpose=PURPOSE)


def held() -> list[dict[str, Any]]:
    numeric = {"type": "numeric", "minimum": -4.0, "maximum": 4.0}
    found: list[dict[str, Any]] = [
        {"party": party, "name": name, **numeric}
        for party, names in COLUMNS.items()
        for name in names
        if name != "colour"
    ]
    colour = {"name": "colour", "type": "categorical", "categories": ["green", "red"]}
    return [*found, {"party": "retailer", **colour}]


def collaboration(
    *jobs: JobSpec,
    alignments: int = 1,
    period: Mapping[str, float] | None = None,
    **vertical: object,
) -> Collaboration:
    def party(name: str, role: Role) -> dict[str, Any]:
        if role is Role.COORDINATOR:
            return {"name": name, "role": role}
        data: dict[str, Any] = {
            "path": f"{name}.csv",
            "key": "record",
            "identifiers": {"email": "email"},
        }
        if role is Role.BRAND:
            data["labels"] = {"column": "bought", "positive": "yes", "negative": "no"}
        consent = f"{name}-consents.csv"
        return {"name": name, "role": role, "declared_rows": 400, "data": data, "consent": consent}

    agreed = terms(
        match={
            "alignment": {"key": "email", "epsilon": 10.0, "delta": 1e-3},
            "minimum_match": 20,
            "maximum_matches": alignments,
            "period_days": 365,
        },
        budget={"epsilon": 3.0 + 10.0 * alignments, "delta": 0.1}
        | ({} if period is None else {"period": period}),
    )
    agreed |= {
        "features": [],
        "vertical": {
            "purpose": PURPOSE,
            "columns": held(),
            "label_epsilon": 4.0,
            "unsafe_labels": True,
            "minimum_people": 30,
        }
        | vertical,
    }
    return Collaboration.model_validate(
        {
            "version": 1,
            "name": "columns",
            "unsafe_seed": 7,
            "parties": [party(name, role) for name, role in parties.ROLES.items()],
            "agreement": agreed,
            "jobs": [spec.model_dump() for spec in jobs or (ALIGN, PRIVATE, SCORE)],
        }
    )


def world(
    path: Path,
    *jobs: JobSpec,
    alignments: int = 1,
    period: Mapping[str, float] | None = None,
    **vertical: Mapping[str, object],
) -> World:
    path.mkdir(parents=True, exist_ok=True)
    for name in COLUMNS:
        table(name).to_csv(path / f"{name}.csv", index=False)
        consents(name).to_csv(path / f"{name}-consents.csv", index=False)
    document = collaboration(*jobs, alignments=alignments, period=period, **vertical)
    return World(prepare_workspace(document, path / "columns.toml", path / "workspace"), NOW)


def ask_for(found: World, *jobs: JobSpec) -> None:
    """List other jobs for the coordinator."""
    write_jobs(found.folder("coordinator"), jobs)
