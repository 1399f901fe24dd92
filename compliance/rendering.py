"""A contract as people read it, before they sign.

Guarantees: every term is shown; text that the parties chose is escaped or quoted, so that none of
it can pass for a term.

Leaves to others: what the terms are (`compliance.terms`), whether they hold (`agreement`).
"""

import json
import re
from collections.abc import Collection, Iterable, Sequence

import rfc8785

from compliance.agreement import Agreement, iso
from compliance.terms import ColumnTerm, ColumnType, Terms, VerticalTerms

__all__ = ["render"]


def render(agreement: Agreement, signed_by: Collection[str] = ()) -> str:
    """Write the agreement as Markdown for the people who have to sign it.

    Every term is in it, identity and encryption keys by their fingerprints. Text that the parties
    chose is escaped or quoted, so that none of it can pass for a term.

    Args:
        agreement: what to show.
        signed_by: names of the parties that have signed.
    """
    datasets = [
        (
            dataset.party,
            f"about {dataset.declared_rows:,}",
            ", ".join(dataset.identifiers),
            f"{dataset.identifiers_per_person}",
        )
        for dataset in agreement.datasets
    ]
    features = [
        (column.name, column.type, _values(column), column.classification)
        for column in agreement.features
    ]
    sections = [
        f"# {_escape(agreement.title)}",
        f"Agreement `{agreement.name}`, digest `{agreement.digest}`.",
        f"In force from {iso(agreement.valid_from)} to before {iso(agreement.valid_until)}.",
        f"Purposes: {', '.join(f'`{purpose}`' for purpose in agreement.purposes)}.",
        "## Parties",
        _parties(agreement, signed_by),
        _witnesses(agreement),
        "## People",
        _table(("party", "rows", "matched by", "identifiers each"), datasets),
        "## Features",
        _table(("feature", "type", "values", "classification"), features),
        *(
            section
            for title in ("match", "train", "expand", "measure", "erasure", "budget")
            if (terms := getattr(agreement, title)) is not None
            for section in (f"## {title.capitalize()}", _term_list(terms))
        ),
        *_vertical(agreement.vertical),
    ]
    if agreement.terms_text:
        quoted = agreement.terms_text.replace("&", "&amp;").replace("<", "&lt;").split("\n")
        sections += ["## Further terms", "\n".join(f"> {line}".rstrip() for line in quoted)]
    return "\n\n".join(sections) + "\n"


def _parties(agreement: Agreement, signed_by: Collection[str]) -> str:
    parties = [
        (
            party.name,
            party.role,
            party.verifying_key.fingerprint,
            party.encryption_fingerprint or "none",
            party.log_key,
            party.cosigner.key_id.hex() if party.cosigner else "none",
            "yes" if party.name in signed_by else "no",
        )
        for party in agreement.parties
    ]
    keys = ("key fingerprint", "encryption key", "log key", "cosigning key")
    return _table(("party", "role", *keys, "signed"), parties)


def _witnesses(agreement: Agreement) -> str:
    quorum = agreement.witness_quorum
    enough = (
        "all other parties with a cosigning key, auditors excepted,"
        if quorum is None
        else f"`{quorum}` others"
    )
    return f"A head of a party's log is public once {enough} have cosigned it."


def _vertical(terms: VerticalTerms | None) -> list[str]:
    if terms is None:
        return []
    columns = [
        (column.party, column.name, column.type, _values(column), column.classification)
        for column in terms.columns
    ]
    head = ("party", "column", "type", "values", "classification")
    others = _term_list(terms, leaving_out="columns")
    return ["## Vertical training", others, _table(head, columns)]


def _values(column: ColumnTerm) -> str:
    if column.type is ColumnType.CATEGORICAL:
        return ", ".join(json.dumps(category, ensure_ascii=False) for category in column.categories)
    bounds = " to ".join(
        rfc8785.dumps(bound).decode() for bound in (column.minimum, column.maximum)
    )
    unit = "" if column.unit is None else f", in {json.dumps(column.unit, ensure_ascii=False)}"
    return f"{bounds}, {column.scale} scale{unit}"


def _term_list(terms: Terms, *, leaving_out: str = "") -> str:
    return "\n".join(
        f"- {field.replace('_', ' ')}: `{value}`"
        for field, value in terms.model_dump().items()
        if field != leaving_out
    )


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *(list(map(_escape, row)) for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _escape(text: str) -> str:
    """Take from Markdown every character that it might read as more than itself."""
    return re.sub(r"([\\`*_{}\[\]<>()#+|!~&])", r"\\\1", text)
