"""The people of one party that a job may use: read, checked, and excluded with a count each.

Guarantees: a row enters only if its person consents to the purpose now, under every record
that bears the same identifier; and at most one row enters per person as far as identifiers tell,
so that one person cannot count twice at this party. Nobody is dropped silently: every
exclusion has a reason and a count. Of rows, only numbers are held in memory, 15 bytes each;
references and tokens go to disk as they are read.

`people` reads `rows` of a `source`, with their `identifiers`, and tells `persons` apart; `encoding`
makes numbers of their columns.

Leaves to others: reading (`connectors`), deciding consent (`compliance`), normalising and hashing
(`privacy`), and keeping what is here from leaving (`gate`).
"""

from federation.population.encoding import encoder_for, encoder_of
from federation.population.identifiers import batch_tokens, recipe_for, tokens_allowed
from federation.population.people import (
    DISPUTED,
    DUPLICATE,
    SUPPRESSED,
    Population,
    read_population,
)
from federation.population.source import has_row, open_source, schema_for
from federation.population.use import Use

__all__ = [
    "DISPUTED",
    "DUPLICATE",
    "SUPPRESSED",
    "Population",
    "Use",
    "batch_tokens",
    "encoder_for",
    "encoder_of",
    "has_row",
    "open_source",
    "read_population",
    "recipe_for",
    "schema_for",
    "tokens_allowed",
]
