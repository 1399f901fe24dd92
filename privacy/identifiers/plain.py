"""The short way for plain e-mail addresses: a column at a time, in Arrow.

Guarantees: what it gives is what `emails.normalise_email` gives, letter for letter, and never a
placeholder. It gives only addresses of ASCII letters, digits, dots and `_+-`.

Leaves to others: every other value (`readers`), which takes the long way, one at a time.
"""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from privacy.identifiers.emails import (
    GMAIL_DOMAINS,
    LONGEST_ADDRESS,
    PLAIN_LOCAL_PART,
    EmailRule,
    ascii_domain,
)
from privacy.identifiers.placeholders import PLACEHOLDER_ADDRESSES, PLACEHOLDER_LOCAL_PARTS

__all__ = ["plain_emails"]

# Not "of either case": that would let in the Kelvin sign, which is a K elsewhere.
_PLAIN: Final = rf"^{PLAIN_LOCAL_PART.replace('a-z', 'A-Za-z')}@[A-Za-z0-9.-]+$"


def plain_emails(texts: Sequence[str], rule: EmailRule) -> tuple[NDArray[np.bool_], list[bytes]]:
    """Return which values are plain addresses, shape (n,), and the normal forms of these.

    Args:
        texts: n values without surrounding blanks.
        rule: how far addresses are merged.
    """
    try:
        values = pa.array(texts, pa.large_string())
    except UnicodeEncodeError:  # half of a surrogate pair
        return np.zeros(len(texts), dtype=np.bool_), []
    plain = pc.match_substring_regex(values, _PLAIN)
    parts = pc.split_pattern(pc.ascii_lower(values.filter(plain)), "@").flatten()
    local, domain = (parts.take(np.arange(side, len(parts), 2)) for side in (0, 1))
    named = domain.dictionary_encode()
    ascii_forms = pa.array(map(ascii_domain, named.dictionary.to_pylist()), pa.large_string())
    domain = ascii_forms.take(named.indices)
    if rule is EmailRule.PROVIDER_RULES:
        gmail = pc.is_in(domain, value_set=pa.array(sorted(GMAIL_DOMAINS), pa.large_string()))
        local = pc.replace_with_mask(local, gmail, _mailbox(local.filter(gmail)))
        domain = pc.if_else(gmail, _text("gmail.com"), domain)
    address = pc.binary_join_element_wise(local, domain, _text("@"))
    usable = pc.and_(pc.greater(pc.binary_length(local), 0), _length_fits(address))
    usable = pc.and_(usable, pc.invert(_is_among(local, PLACEHOLDER_LOCAL_PARTS)))
    usable = pc.and_(usable, pc.invert(_is_among(address, PLACEHOLDER_ADDRESSES)))
    usable = pc.fill_null(usable, False)
    plain = pc.replace_with_mask(plain, plain, usable)
    normals: list[bytes] = address.filter(usable).cast(pa.large_binary()).to_pylist()
    return plain.to_numpy(zero_copy_only=False), normals


def _text(word: str) -> Any:
    return pa.scalar(word, pa.large_string())  # not when this is imported: Arrow then loads pandas


def _mailbox(local: Any) -> Any:
    """Return what Gmail reads of local parts: no tag, no dots."""
    return pc.replace_substring(pc.replace_substring_regex(local, r"\+.*$", ""), ".", "")


def _length_fits(address: Any) -> Any:
    return pc.less_equal(pc.binary_length(address), LONGEST_ADDRESS)


def _is_among(values: Any, words: frozenset[str]) -> Any:
    return pc.is_in(values, value_set=pa.array(sorted(words), pa.large_string()))
