"""A card in files: its figures, and the same as one page that loads nothing."""

from importlib import resources
from pathlib import Path

from pydantic import BaseModel

from federation.party import write_atomically

__all__ = ["write_card_files"]


def write_card_files(card: BaseModel, template: str, place: Path) -> None:
    """Write a card's figures and its page, readable by the party only.

    Args:
        card: what is told.
        template: the page's, in this package.
        place: of the files, without their suffix.
    """
    import jinja2

    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    written = resources.files(__package__).joinpath(template).read_text(encoding="utf-8")
    page = environment.from_string(written).render(card=card)
    for suffix, content in ((".json", card.model_dump_json(indent=2) + "\n"), (".html", page)):
        write_atomically(place.with_name(place.name + suffix), content.encode(), mode=0o600)
