"""A tiny collaboration file, for tests that run a whole collaboration many times."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from parties import PEOPLE, PURPOSE, ROLES, consents, record, table, terms

Document = dict[str, Any]


def document(**changes: Any) -> Document:
    """The file's content, as TOML would be parsed; `changes` replace whole top-level keys."""
    content: Document = {
        "version": 1,
        "name": "trial",
        "unsafe_seed": 7,
        "parties": [{"name": name, "role": str(role)} for name, role in ROLES.items()],
        "jobs": [
            {"kind": "match", "name": "find"},
            training("model"),
            {"kind": "expand", "name": "best", "train": "model", "share": 0.2},
        ],
        "evaluate": {"path": "truth.csv"},
        "agreement": terms()
        | {
            "valid_from": "2020-01-01T00:00:00Z",
            "valid_until": "2100-01-01T00:00:00Z",
        },
    }
    content["agreement"]["expand"]["fairness_groups"] = ["colour"]
    for party in content["parties"]:
        name = party["name"]
        if name in PEOPLE:
            party["declared_rows"] = 50
            party["consent"] = f"{name}-consents.csv"
            party["data"] = {
                "path": f"{name}.csv",
                "key": "record",
                "identifiers": {"email": "email", "phone": "phone"},
            }
    return content | changes


def training(name: str, **changes: Any) -> Document:
    """A training job, of few steps so that its noise is soon found."""
    return {
        "kind": "train",
        "name": name,
        "match": "find",
        "epsilon": 1.0,
        "delta": 1e-5,
        "steps": 40,
        "rounds": 2,
        "sampling_probability": 0.5,
    } | changes


def party(content: Document, name: str) -> Document:
    """A party's section."""
    return next(one for one in content["parties"] if one["name"] == name)


def toml(value: Any) -> str:
    """Write a value as inline TOML."""
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{json.dumps(key)} = {toml(one)}' for key, one in value.items())}}}"
    if isinstance(value, list):
        return f"[{', '.join(map(toml, value))}]"
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return json.dumps(value, ensure_ascii=False)


def save(content: Document, path: Path) -> Path:
    """Write a collaboration file."""
    lines = [f"{json.dumps(key)} = {toml(value)}\n" for key, value in content.items()]
    path.write_text("".join(lines), encoding="utf-8")
    return path


def write_tables(directory: Path) -> None:
    """Write everybody's tables and consents, and a truth that nobody holds."""
    directory.mkdir(parents=True, exist_ok=True)
    truth = []
    for name, people in PEOPLE.items():
        table(name).to_csv(directory / f"{name}.csv", index=False)
        given = consents(name).assign(time="2020-06-01T00:00:00Z")
        given.to_csv(directory / f"{name}-consents.csv", index=False)
        truth += [(name, record(name, person), person % 2) for person in people]
    rows = pd.DataFrame(truth, columns=["party", "record", "label"])
    rows[rows["party"] != "brand"].to_csv(directory / "truth.csv", index=False)


def write_trial(directory: Path, content: Document | None = None) -> Path:
    """Write a whole trial and return its collaboration file."""
    write_tables(directory)
    return save(document() if content is None else content, directory / "trial.toml")


def write_every_job(directory: Path, *, rounds: int = 2, **agreement: Any) -> Path:
    """Write a trial with every kind of training, over rows and over columns; return its file.

    `rounds` are those of a training with sums and noise; `agreement` are further terms.
    """
    content = document()
    sums = {"noise": "distributed", "epsilon": 1.0, "delta": 1e-5, "rounds": rounds}
    trees = {"model": "boosted-trees", "depth": 1, "rounds": 1}
    exact = trees | {"rounds": 2}
    content["jobs"] += [
        {"kind": "align", "name": "everybody"},
        {"kind": "train", "name": "summed", "match": "find", **sums},
        {"kind": "train", "name": "trees", "match": "find", **sums, **trees},
        {"kind": "train", "name": "exact-trees", "match": "find", "noise": "unsafe-none", **exact},
        {
            "kind": "train-vertical",
            "name": "columns",
            "align": "everybody",
            "rounds": 2,
            "label_epsilon": 3.0,
        },
        {"kind": "score-vertical", "name": "scores", "train": "columns", "align": "everybody"},
    ]
    content["agreement"] |= {
        name: terms(**{name: change})[name]
        for name, change in {
            "match": {"alignment": {"key": "email", "epsilon": 1.0}},
            "train": {
                "models": ["logistic-regression", "boosted-trees"],
                "noise": ["local", "distributed", "unsafe-none"],
                "colluding_partners": 0,
            },
            "budget": {"epsilon": 9.0, "delta": 1e-4},
        }.items()
    }
    content["agreement"]["vertical"] = {
        "purpose": PURPOSE,
        "columns": [
            {"party": "brand", "name": "visits", "type": "numeric", "minimum": 0, "maximum": 9},
            {"party": "courier", "name": "age", "type": "numeric", "minimum": 18, "maximum": 90},
            {
                "party": "retailer",
                "name": "colour",
                "type": "categorical",
                "categories": ["green", "red"],
            },
        ],
        "label_epsilon": 3.0,
        "minimum_people": 5,
    }
    content["agreement"] |= agreement
    labels = {"column": "bought", "positive": "yes", "negative": "no"}
    party(content, "brand")["data"]["labels"] = labels
    file = write_trial(directory, content)
    brand = pd.read_csv(directory / "brand.csv", keep_default_na=False, dtype=str)
    number = np.arange(len(brand))
    bought = np.where(number % 3 == 0, "yes", "no")
    brand.assign(visits=number % 10, bought=bought).to_csv(directory / "brand.csv", index=False)
    return file
