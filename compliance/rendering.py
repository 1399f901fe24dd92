"""A contract as people read it, before they sign: Markdown, or a page (HTML) to print.

Guarantees: every term is shown, those that this module does not know by name too; text that the
parties chose is escaped or quoted, so that none of it can pass for a term. The page loads nothing
and runs nothing.

Leaves to others: what the terms are (`compliance.terms`), whether they hold (`agreement`).
"""

import json
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import rfc8785

from compliance.agreement import Agreement, iso
from compliance.draft import Draft
from compliance.terms import ApprovalTerms, ColumnTerm, ColumnType, Terms, VerticalTerms

__all__ = ["render", "render_draft", "render_html"]

_TEMPLATE: Final = Path(__file__).with_name("agreement.html.j2")

_SHOWN_FIRST: Final = frozenset(
    {
        *("version", "name", "title", "purposes", "parties", "datasets", "features"),
        *("vertical", "approval", "valid_from", "valid_until", "witness_quorum", "terms_text"),
    }
)
"""Fields that have a place of their own; every other one is a section, in the agreement's order."""


@dataclass(frozen=True)
class Table:
    """A table of plain text."""

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Section:
    """What stands under one heading.

    Attributes:
        title: the heading.
        paragraphs: of our own words; between backticks, names, digests and numbers alone.
        terms: what each is called, and its value.
        table: beside them.
        quote: text that the parties chose.
    """

    title: str
    paragraphs: tuple[str, ...] = ()
    terms: tuple[tuple[str, str], ...] = ()
    table: Table | None = None
    quote: str = ""


def render(agreement: Agreement, signed_by: Collection[str] = ()) -> str:
    """Write the agreement as Markdown for the people who have to sign it.

    Every term is in it, identity and encryption keys by their fingerprints. Text that the parties
    chose is escaped or quoted, so that none of it can pass for a term.

    Args:
        agreement: what to show.
        signed_by: names of the parties that have signed.
    """
    return _markdown(agreement, _beginning(agreement), _sections(agreement, signed_by))


def render_draft(draft: Draft) -> str:
    """Write the terms of a draft as Markdown for the people who are asked to accept them.

    It says what `render` says, but for keys: there are none yet.
    """
    agreement = draft.for_reading()
    beginning = [f"Draft of agreement `{agreement.name}`, digest `{draft.digest}`."]
    beginning += _beginning(agreement)[1:]
    invited = Table(("party", "role"), tuple((one.name, one.role) for one in draft.parties))
    parties, _, *others = _sections(agreement, ())
    return _markdown(
        agreement, beginning, [Section(parties.title, parties.paragraphs, table=invited), *others]
    )


def _markdown(agreement: Agreement, beginning: Iterable[str], sections: Iterable[Section]) -> str:
    parts = [f"# {_escape(agreement.title)}", *beginning]
    for section in sections:
        parts.append(f"## {section.title}")
        if section.table is not None and not section.terms:
            parts.append(_table(section.table))
        parts += section.paragraphs
        if section.terms:
            parts.append("\n".join(f"- {name}: {_code(value)}" for name, value in section.terms))
            parts += [_table(section.table)] if section.table is not None else []
        if section.quote:
            quoted = section.quote.replace("&", "&amp;").replace("<", "&lt;").split("\n")
            parts.append("\n".join(f"> {line}".rstrip() for line in quoted))
    return "\n\n".join(parts) + "\n"


def render_html(agreement: Agreement, signed_by: Collection[str] = ()) -> str:
    """Write the agreement as one page of HTML, to read on a screen or on paper.

    It says what `render` says, and needs `jinja2`.

    Args:
        agreement: what to show.
        signed_by: names of the parties that have signed.
    """
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    return environment.from_string(_TEMPLATE.read_text(encoding="utf-8")).render(
        agreement=agreement,
        beginning=[text.split("`") for text in _beginning(agreement)],
        sections=[
            (section, [text.split("`") for text in section.paragraphs])
            for section in _sections(agreement, signed_by)
        ],
    )


def _beginning(agreement: Agreement) -> list[str]:
    told = [
        f"Agreement `{agreement.name}`, digest `{agreement.digest}`.",
        f"In force from {iso(agreement.valid_from)} to before {iso(agreement.valid_until)}.",
        f"Purposes: {', '.join(f'`{purpose}`' for purpose in agreement.purposes)}.",
    ]
    if agreement.amends is not None:
        told.insert(1, f"Version `{agreement.number}`, in the place of `{agreement.supersedes}`.")
    return told


def _sections(agreement: Agreement, signed_by: Collection[str]) -> Iterator[Section]:
    datasets = tuple(
        (
            dataset.party,
            f"about {dataset.declared_rows:,}",
            ", ".join(dataset.identifiers),
            f"{dataset.identifiers_per_person}",
        )
        for dataset in agreement.datasets
    )
    features = tuple(
        (column.name, column.type, _values(column), column.classification)
        for column in agreement.features
    )
    yield Section("Parties", (_witnesses(agreement),), table=_parties(agreement, signed_by))
    yield Section("Keys", terms=_keys(agreement))
    yield Section(
        "People", table=Table(("party", "rows", "matched by", "identifiers each"), datasets)
    )
    yield Section(
        "Features", table=Table(("feature", "type", "values", "classification"), features)
    )
    for field in Agreement.model_fields:
        if field not in _SHOWN_FIRST and (value := getattr(agreement, field)):
            yield _generic(field, value)
    if agreement.vertical is not None:
        yield _vertical(agreement.vertical)
    if agreement.approval is not None:
        yield _approval(agreement.approval)
    if agreement.terms_text:
        yield Section("Further terms", quote=agreement.terms_text)


def _generic(field: str, value: object) -> Section:
    """Show any term, whoever added it."""
    title = field.replace("_", " ").capitalize()
    if isinstance(value, Terms):
        return Section(title, terms=_term_list(value))
    if isinstance(value, tuple) and all(isinstance(one, Terms) for one in value):
        head = tuple(type(value[0]).model_fields)
        rows = tuple(tuple(_say(getattr(one, name)) for name in head) for one in value)
        return Section(title, table=Table(tuple(map(_words, head)), rows))
    if isinstance(value, str):
        return Section(title, quote=value)
    return Section(title, terms=((_words(field), _say(value)),))


def _words(field: str) -> str:
    return field.replace("_", " ")


def _say(value: object) -> str:
    if isinstance(value, tuple):
        between = "; " if any(isinstance(one, dict | Terms) for one in value) else ", "
        return between.join(map(_say, value)) or "none"
    if isinstance(value, Terms):
        return _say(value.model_dump())
    if isinstance(value, dict):
        return ", ".join(f"{_words(name)} {_say(one)}" for name, one in value.items()) or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    text = "none" if value is None else str(value)  # an enum's is its value
    return json.dumps(text, ensure_ascii=False) if "\n" in text or "\t" in text else text


def _parties(agreement: Agreement, signed_by: Collection[str]) -> Table:
    parties = tuple(
        (party.name, party.role, "yes" if party.name in signed_by else "no")
        for party in agreement.parties
    )
    return Table(("party", "role", "signed"), parties)


def _keys(agreement: Agreement) -> tuple[tuple[str, str], ...]:
    """Return what people compare, each in a line of its own, which no column narrows."""
    told: list[tuple[str, str]] = []
    for party in agreement.parties:
        keys = {
            "key fingerprint": party.verifying_key.fingerprint,
            "encryption key": party.encryption_fingerprint or "none",
            "cosigning key": party.cosigner.key_id.hex() if party.cosigner else "none",
            "log key": party.log_key,
        }
        told += [(f"{party.name}, {name}", key) for name, key in keys.items()]
    return tuple(told)


def _witnesses(agreement: Agreement) -> str:
    quorum = agreement.witness_quorum
    enough = (
        "all other parties with a cosigning key, auditors excepted,"
        if quorum is None
        else f"`{quorum}` others"
    )
    return f"A head of a party's log is public once {enough} have cosigned it."


def _vertical(terms: VerticalTerms) -> Section:
    columns = tuple(
        (column.party, column.name, column.type, _values(column), column.classification)
        for column in terms.columns
    )
    head = ("party", "column", "type", "values", "classification")
    others = _term_list(terms, leaving_out="columns")
    return Section("Vertical training", terms=others, table=Table(head, columns))


def _approval(terms: ApprovalTerms) -> Section:
    people = tuple((one.name, one.party, one.verifying_key.fingerprint) for one in terms.approvers)
    others = _term_list(terms, leaving_out="approvers")
    return Section(
        "Approval", terms=others, table=Table(("approver", "party", "key fingerprint"), people)
    )


def _values(column: ColumnTerm) -> str:
    if column.type is ColumnType.CATEGORICAL:
        return ", ".join(json.dumps(category, ensure_ascii=False) for category in column.categories)
    bounds = " to ".join(
        rfc8785.dumps(bound).decode() for bound in (column.minimum, column.maximum)
    )
    unit = "" if column.unit is None else f", in {json.dumps(column.unit, ensure_ascii=False)}"
    return f"{bounds}, {column.scale} scale{unit}"


def _term_list(terms: Terms, *, leaving_out: str = "") -> tuple[tuple[str, str], ...]:
    told: list[tuple[str, str]] = []
    for field, value in terms.model_dump().items():
        if isinstance(getattr(terms, field), Terms):
            told += [(f"{_words(field)}: {_words(name)}", _say(of)) for name, of in value.items()]
        elif field != leaving_out:
            told.append((_words(field), _say(value)))
    return tuple(told)


def _code(value: str) -> str:
    """Fence a value by more backticks than it holds in a row."""
    longest = max(map(len, re.findall("`+", value)), default=0)
    fence = "`" * (longest + 1)
    return f"{fence} {value} {fence}" if longest else f"`{value}`"


def _table(table: Table) -> str:
    body: Iterable[Sequence[str]] = table.rows
    lines = [table.head, ["---"] * len(table.head), *(list(map(_escape, row)) for row in body)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _escape(text: str) -> str:
    """Take from Markdown every character that it might read as more than itself."""
    return re.sub(r"([\\`*_{}\[\]<>()#+|!~&])", r"\\\1", text)
