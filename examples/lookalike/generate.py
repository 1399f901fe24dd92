"""The lookalike story's tables: one brand and two partners, made from Adult (1994 US Census).

Guarantees: the same bytes on every run. Every choice is a hash of a row number (`uniform`) and no
clock, locale or random generator is read, so the tables of `--people N` hold the same people as
the full ones. gzip carries no time and no name; only another zlib may compress the same content
to other bytes.

Nobody real is in here. Names are drawn from `names.txt`; addresses lie under the reserved example
domains (RFC 2606) or carry an underscore at Gmail, which issues none; phone numbers have real area
codes and the exchange 555, left to directory services and fiction.

Leaves to others: reading the tables, normalising their spellings, deciding who may be matched.

Written to `data/`:

- `brand_seeds`: 30 % of the people who earn more than 50,000 dollars, without any feature;
- `retailer`, `courier`: the customers of two partners, each about half of the people and nobody in
  both, with the features of `features.toml` and 25 customers registered twice;
- `brand_consents`, `retailer_consents`, `courier_consents`: consent events in order of time;
- `truth`: who earns more than 50,000 dollars, held by no party; registered twice, counted once.
"""

import argparse
import gzip
import hashlib
import io
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

HERE: Final = Path(__file__).resolve().parent
ADULT: Final = HERE.parent / "data" / "adult.csv.gz"

NUMERIC: Final = {
    "age": (17, 90, "linear"),
    "education-num": (1, 16, "linear"),
    "capital-gain": (0, 99_999, "log"),
    "capital-loss": (0, 4_356, "log"),
    "hours-per-week": (1, 99, "linear"),
}
"""Public bounds (least, greatest) and scale of each numeric feature."""

OMITTED: Final = frozenset({"fnlwgt", "education", "class"})
"""Census columns that are no feature: survey weight, education-num in words, label."""

SENSITIVE: Final = frozenset({"race"})
"""Features that reveal a special category of personal data (GDPR, article 9)."""

EXCHANGE: Final = "555"

SEED_SHARE: Final = 0.30
GMAIL_SHARE: Final = 0.45
HASHED_SHARE: Final = 0.05
MISSING_EMAIL_SHARE: Final = 0.04
MISSING_PHONE_SHARE: Final = 0.06
MALFORMED_EMAIL_SHARE: Final = 0.003
REGISTERED_TWICE: Final = 25

LOOKALIKE: Final = "lookalike-audiences"
NEWSLETTER: Final = "newsletter"
FIRST_EVENT: Final = np.datetime64("2024-01-01T00:00", "m")
MINUTES_PER_DAY: Final = 24 * 60

History = tuple[float, tuple[tuple[str, str], ...]]
"""A share of its list, and the steps (purpose, event) in order of time."""

CONSENTING: Final[tuple[History, ...]] = (
    (0.72, ((LOOKALIKE, "given"),)),
    (0.18, ((NEWSLETTER, "given"), (LOOKALIKE, "given"))),
    (0.06, ((LOOKALIKE, "given"), (LOOKALIKE, "withdrawn"), (LOOKALIKE, "given"))),
    (0.04, ((LOOKALIKE, "refused"), (LOOKALIKE, "given"))),
)
LAPSED: Final[tuple[History, ...]] = (
    (0.30, ((LOOKALIKE, "refused"),)),
    (0.30, ((LOOKALIKE, "given"), (LOOKALIKE, "withdrawn"))),
    (0.20, ((NEWSLETTER, "given"),)),
    (0.20, ()),
)


@dataclass(frozen=True)
class Party:
    """How one party numbers, spells and keeps its customers."""

    name: str
    prefix: str
    stride: int  # prime to 10: record numbers do not repeat
    tag: str  # what its customers append to a Gmail address when they register
    phone_formats: tuple[tuple[float, str], ...]  # share, template of area, exchange and line
    lapsed_share: float  # of the records, without consent in the end


BRAND: Final = Party(
    name="brand",
    prefix="B",
    stride=271_829,
    tag="offers",
    phone_formats=((0.7, "+1{}{}{}"), (0.2, "({}) {}-{}"), (0.1, "{}-{}-{}")),
    lapsed_share=0.03,
)
PARTNERS: Final = (
    Party(
        name="retailer",
        prefix="R",
        stride=611_953,
        tag="shop",
        phone_formats=((0.5, "({}) {}-{}"), (0.2, "{}{}{}"), (0.2, "{}.{}.{}"), (0.1, "+1{}{}{}")),
        lapsed_share=0.08,
    ),
    Party(
        name="courier",
        prefix="C",
        stride=274_177,
        tag="parcels",
        phone_formats=((0.5, "{}-{}-{}"), (0.3, "+1 {} {} {}"), (0.2, "1-{}-{}-{}")),
        lapsed_share=0.08,
    ),
)


def uniform(label: str, rows: NDArray[np.int64]) -> NDArray[np.float64]:
    """Hash row numbers into [0, 1), independently for each label.

    SplitMix64 (Steele, Lea and Flood, OOPSLA 2014) started from the label's SHA-256. Not secret.
    """
    start = np.uint64(int.from_bytes(hashlib.sha256(label.encode()).digest()[:8], "big"))
    state = rows.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) + start
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    state ^= state >> np.uint64(31)
    return (state >> np.uint64(11)).astype(np.float64) * 2.0**-53


def choose(label: str, rows: NDArray[np.int64], shares: Sequence[float]) -> NDArray[np.int64]:
    """Choose an option's index for each row; the last option takes the remainder."""
    return np.searchsorted(np.cumsum(shares[:-1]), uniform(label, rows), side="right")


def scrambled(rows: NDArray[np.int64], *, stride: int, digits: int) -> NDArray[np.int64]:
    """Number rows below 10**digits without repetition; the stride is prime to 10."""
    numbers: NDArray[np.int64] = (rows * stride + stride) % 10**digits
    return numbers


def read_names() -> dict[str, NDArray[np.object_]]:
    """Read the pools `first`, `last`, `domain` and `area`: a kind and a word a line."""
    lines = (HERE / "names.txt").read_text(encoding="ascii").splitlines()
    pairs = [line.split(" ") for line in lines if not line.startswith("#")]
    kinds = ("first", "last", "domain", "area")
    return {k: np.array([word for kind, word in pairs if kind == k], dtype=object) for k in kinds}


def feature_names(adult: pd.DataFrame) -> list[str]:
    """Name the census columns that are features, in their order."""
    return [name for name in adult.columns if name not in OMITTED]


def make_people(adult: pd.DataFrame) -> pd.DataFrame:
    """Give each census row a name, an e-mail address and a phone number of its own.

    Returns:
        The index is the row number. Columns: first, last, number, gmail (bool), user, domain, area
        and line to spell from; email and phone as every spelling normalises to; well_paid (bool,
        above 50,000 dollars a year).
    """
    rows = np.arange(len(adult), dtype=np.int64)
    pools = read_names()
    first, last, domain = (
        pools[kind][(uniform(kind, rows) * len(pools[kind])).astype(np.int64)]
        for kind in ("first", "last", "domain")
    )
    gmail = uniform("gmail", rows) < GMAIL_SHARE
    line = scrambled(rows, stride=48_271, digits=5)
    people = pd.DataFrame(
        {
            "first": first,
            "last": last,
            "number": pd.Series(scrambled(rows, stride=61_547, digits=5)).astype(str).str.zfill(5),
            "gmail": gmail,
            "domain": np.where(gmail, "gmail.com", domain),
            "area": pools["area"][line % len(pools["area"])],
            "line": pd.Series(2_000 + line // len(pools["area"])).astype(str),
            "well_paid": adult["class"] == ">50K",
        }
    )
    at_gmail = people["first"] + people["last"] + "_" + people["number"]
    elsewhere = people["first"] + "." + people["last"] + "." + people["number"]
    people["user"] = at_gmail.where(gmail, elsewhere)
    people["email"] = people["user"] + "@" + people["domain"]
    people["phone"] = "+1" + people["area"] + EXCHANGE + people["line"]
    return people


def spell_emails(people: pd.DataFrame, party: Party) -> pd.Series:
    """Write addresses as the party's customers typed them: dots, tags, capitals, stray spaces."""
    rows = people.index.to_numpy()
    local = people["user"]
    dots = choose(f"{party.name} dots", rows, (0.60, 0.30, 0.10))
    names = people["last"] + "_" + people["number"]
    local = local.mask(people["gmail"] & (dots == 1), people["first"] + "." + names)
    local = local.mask(people["gmail"] & (dots == 2), people["first"].str[0] + "." + local.str[1:])
    tagged = people["gmail"] & (uniform(f"{party.name} tag", rows) < 0.15)
    local = local.mask(tagged, local + "+" + party.tag)
    email = local + "@" + people["domain"]
    case = choose(f"{party.name} case", rows, (0.80, 0.15, 0.05))
    email = email.mask(case == 1, local.str.title() + "@" + people["domain"])
    email = email.mask(case == 2, email.str.upper())
    space = choose(f"{party.name} space", rows, (0.90, 0.06, 0.04))
    return email.mask(space == 1, email + " ").mask(space == 2, "  " + email)


def spell_phones(people: pd.DataFrame, party: Party) -> pd.Series:
    """Write phone numbers in the party's national and international formats."""
    shares, templates = zip(*party.phone_formats, strict=True)
    chosen = choose(f"{party.name} phone", people.index.to_numpy(), shares)
    phone = people["phone"]
    for option, template in enumerate(templates):
        start, middle, next_middle, end = template.split("{}")
        written = start + people["area"] + middle + EXCHANGE + next_middle + people["line"] + end
        phone = phone.mask(chosen == option, written)
    return phone


def number_records(rows: NDArray[np.int64], party: Party, *, registration: int = 0) -> pd.Series:
    """Give rows the party's own customer numbers, others at a second registration."""
    numbers = scrambled(rows + 500_000 * registration, stride=party.stride, digits=6)
    return party.prefix + pd.Series(numbers, index=rows).astype(str).str.zfill(6)


def make_seeds(people: pd.DataFrame) -> pd.DataFrame:
    """Make the brand's list, part of it hashed by the tool that exported it.

    Returns:
        Columns record, email, phone; the index is the row number. A hashed entry is the SHA-256,
        in hexadecimal, of the normalised address and of the E.164 phone number.
    """
    chosen = people["well_paid"] & (uniform("seed", people.index.to_numpy()) < SEED_SHARE)
    seeds = people[chosen]
    rows = seeds.index.to_numpy()
    hashed = uniform("hashed", rows) < HASHED_SHARE
    table = pd.DataFrame({"record": number_records(rows, BRAND)})
    for column, spelled in (
        ("email", spell_emails(seeds, BRAND)),
        ("phone", spell_phones(seeds, BRAND)),
    ):
        digests = [hashlib.sha256(value.encode()).hexdigest() for value in seeds[column][hashed]]
        table[column] = spelled
        table.loc[hashed, column] = digests
    return table


def make_customers(
    people: pd.DataFrame, features: pd.DataFrame, party: Party
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Make a partner's table of these people: gaps and mistakes, then the second registrations.

    Returns:
        The customers, and those of them who registered again under another number. Columns record,
        email, phone and the features; the index is the row number.
    """
    rows = people.index.to_numpy()
    name = party.name
    email = spell_emails(people, party)
    fault = choose(f"{name} fault", rows, (MISSING_EMAIL_SHARE, MALFORMED_EMAIL_SHARE, 0))
    mistake = choose(f"{name} mistake", rows, (0.5, 0.5))
    user = email.str.split("@").str[0]
    malformed = (user + "@").mask(mistake == 1, user + " at " + people["domain"])
    email = email.mask(fault == 0, "").mask(fault == 1, malformed)
    phone = spell_phones(people, party)
    phone = phone.mask(uniform(f"{name} no phone", rows) < MISSING_PHONE_SHARE, "")
    table = pd.DataFrame({"record": number_records(rows, party), "email": email, "phone": phone})
    table = table.join(features)
    complete = rows[(fault == 2) & (phone != "").to_numpy()]
    order = np.argsort(uniform(f"{name} again", complete), kind="stable")
    again = complete[order[: min(REGISTERED_TWICE, len(complete) // 10)]]
    records = number_records(again, party, registration=1)
    return table, table.loc[again].assign(record=records)


def make_consents(records: pd.Series, party: Party, *, lapsed_share: float) -> pd.DataFrame:
    """Tell the consent history of each record.

    Args:
        records: customer numbers; the index is the row number.
        party: whose customers these are.
        lapsed_share: in [0, 1], of the records that end without consent for the lookalike purpose.

    Returns:
        Columns subject, purpose, event, time (RFC 3339, UTC): one row an event, in no order.
    """
    rows = records.index.to_numpy()
    histories = [
        *((share * (1 - lapsed_share), steps) for share, steps in CONSENTING),
        *((share * lapsed_share, steps) for share, steps in LAPSED),
    ]
    chosen = choose(f"{party.name} history", rows, [share for share, _ in histories])
    first = (uniform(f"{party.name} time", rows) * 366 * MINUTES_PER_DAY).astype(np.int64)
    events = []
    for option, (_, steps) in enumerate(histories):
        told = chosen == option
        minutes = first[told]
        for step, (purpose, event) in enumerate(steps):
            time = np.datetime_as_string(FIRST_EVENT + minutes, unit="s")
            told_events = {"subject": records[told], "purpose": purpose, "event": event}
            events.append(pd.DataFrame(told_events).assign(time=time).astype(str))
            pause = 10 + 140 * uniform(f"{party.name} pause {step}", rows[told])
            minutes = minutes + (pause * MINUTES_PER_DAY).astype(np.int64)
    table = pd.concat(events, ignore_index=True)
    return table.assign(time=table["time"] + "Z")


def make_tables(adult: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Make every table of the story, in the order of its records or of its events."""
    people = make_people(adult)
    features = adult[feature_names(adult)].replace("?", "")
    seeds = make_seeds(people)
    consents = {BRAND: make_consents(seeds["record"], BRAND, lapsed_share=BRAND.lapsed_share)}
    tables = {"brand_seeds": seeds}
    truth = []
    at_retailer = uniform("retailer or courier", people.index.to_numpy()) < 0.5
    for party, held in zip(PARTNERS, (at_retailer, ~at_retailer), strict=True):
        customers, again = make_customers(people[held], features, party)
        tables[party.name] = pd.concat([customers, again])
        consents[party] = pd.concat(
            [
                make_consents(customers["record"], party, lapsed_share=party.lapsed_share),
                make_consents(again["record"], party, lapsed_share=0),
            ]
        )
        truth.append(
            pd.DataFrame(
                {
                    "party": party.name,
                    "record": customers["record"],
                    "label": people["well_paid"][held].astype(int),
                }
            )
        )
    tables = {name: table.sort_values("record") for name, table in tables.items()}
    for party, events in consents.items():
        tables[f"{party.name}_consents"] = events.sort_values(["time", "subject", "purpose"])
    return tables | {"truth": pd.concat(truth).sort_values(["party", "record"])}


def compress(table: pd.DataFrame) -> bytes:
    """Write a table as gzipped CSV that bears neither a time nor a file name."""
    buffer = io.BytesIO()
    with gzip.GzipFile(filename="", mode="wb", compresslevel=9, fileobj=buffer, mtime=0) as file:
        file.write(table.to_csv(index=False, lineterminator="\n").encode())
    return buffer.getvalue()


def describe_features(adult: pd.DataFrame) -> str:
    """Write the features as terms of an agreement, in TOML: public bounds and all categories."""
    terms = []
    for name in feature_names(adult):
        lines = ["[[agreement.features]]", f'name = "{name}"']
        if name in NUMERIC:
            minimum, maximum, scale = NUMERIC[name]
            lines += ['type = "numeric"', f"minimum = {minimum}", f"maximum = {maximum}"]
            lines += [f'scale = "{scale}"']
        else:
            categories = sorted(set(adult[name]) - {"?"})
            lines += ['type = "categorical"', "categories = ["]
            lines += [*(f'  "{category}",' for category in categories), "]"]
        if name in SENSITIVE:
            lines += ['classification = "sensitive"']
        terms.append("\n".join(lines) + "\n")
    return "\n".join(terms)


def write_tables(tables: Mapping[str, pd.DataFrame], output: Path) -> None:
    """Write each table to `output`, made if need be, as `<name>.csv.gz`."""
    output.mkdir(parents=True, exist_ok=True)
    for name, table in tables.items():
        (output / f"{name}.csv.gz").write_bytes(compress(table))


def small_collaboration(tables: Mapping[str, pd.DataFrame]) -> str:
    """Return the collaboration file for fewer people: tables beside it, smaller minimums."""
    text = (HERE / "collaboration.toml").read_text(encoding="utf-8").replace('"data/', '"')
    rows = iter(tables[name] for name in ("brand_seeds", "retailer", "courier"))  # as in the file
    text = re.sub(
        r"^declared_rows = \d+$",
        lambda _: f"declared_rows = {max(1, math.ceil(len(next(rows)) / 100)) * 100}",
        text,
        flags=re.MULTILINE,
    )
    for term, least in (("minimum_match", 20), ("minimum_segment", 10)):
        text = re.sub(rf"^{term} = \d+$", f"{term} = {least}", text, flags=re.MULTILINE)
    return text


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the tables; print the features' terms and, beside this file, keep them."""
    parser = argparse.ArgumentParser(description="Make the tables of the lookalike example.")
    parser.add_argument("--output", type=Path, metavar="DIR", help="default: data/ beside this")
    parser.add_argument("--people", type=int, metavar="N", help="only the first N people")
    options = parser.parse_args(arguments)
    if options.people is not None and options.people < 1:
        parser.error(f"--people: expected a number of at least 1, got {options.people}")
    if options.people is not None and options.output is None:
        parser.error("--people: name an --output too, so that the full tables stay as they are")
    adult = pd.read_csv(ADULT, dtype=str, keep_default_na=False)
    tables = make_tables(adult.head(options.people or len(adult)))
    write_tables(tables, options.output or HERE / "data")
    if options.people is not None:
        file = options.output / "collaboration.toml"
        file.write_text(small_collaboration(tables), encoding="utf-8")
    features = describe_features(adult)
    if options.output is None:
        (HERE / "features.toml").write_text(features, encoding="ascii")
    print(features, end="")


if __name__ == "__main__":
    main()
