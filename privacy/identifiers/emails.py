"""E-mail addresses in the one spelling that is hashed.

Guarantees: two addresses that the rule calls equal have one normal form, and normalising it again
changes nothing. Surrounding blanks off, Unicode NFC (RFC 6532 section 3.1), lower case, domain in
its ASCII form (UTS 46). `provider_rules` then treats Gmail alone, as Unified ID 2.0
("Normalization and Encoding") and Google ("Format user data") publish it: dots and a +tag leave
the local part, and googlemail.com becomes gmail.com, the same mailbox. Dots and +tags of other
providers stay, since nobody but the provider knows what they mean there.

Leaves to others: whether the mailbox exists; nothing is looked up.
"""

import re
import unicodedata
from enum import StrEnum
from functools import lru_cache

from email_validator import validate_email

from privacy.identifiers.blanks import BLANKS

__all__ = [
    "GMAIL_DOMAINS",
    "LONGEST_ADDRESS",
    "PLAIN_LOCAL_PART",
    "EmailRule",
    "ascii_domain",
    "normalise_email",
]

PLAIN_LOCAL_PART = r"[a-z0-9_+-]+(?:\.[a-z0-9_+-]+)*"
"""Local parts that need no parser, as a pattern."""

LONGEST_ADDRESS = 254
"""RFC 5321 section 4.5.3.1.3, less the angle brackets."""

GMAIL_DOMAINS = frozenset({"gmail.com", "googlemail.com"})
"""The domains, in lower case, of one provider."""

_PLAIN_LOCAL_PART = re.compile(PLAIN_LOCAL_PART)


class EmailRule(StrEnum):
    """How far e-mail addresses are merged."""

    AS_WRITTEN = "as_written"
    """Blanks, case and Unicode form only."""
    PROVIDER_RULES = "provider_rules"
    """Also Gmail's own: dots, +tags and googlemail.com name the same mailbox."""


def normalise_email(value: str, rule: EmailRule) -> str | None:
    """Return the address in the one spelling that is hashed, or None if it is malformed.

    Syntax only (RFC 5321, RFC 6531, through email-validator). Quoted local parts, address literals
    and special-use domains such as `.test` are malformed.
    """
    address = unicodedata.normalize("NFC", value.strip(BLANKS)).lower()
    local, _, written_domain = address.rpartition("@")
    domain = ascii_domain(written_domain)
    if domain is None:
        return None
    if not _PLAIN_LOCAL_PART.fullmatch(local):
        try:
            local = validate_email(f"{local}@{domain}", check_deliverability=False).local_part
        except ValueError:
            return None
    if rule is EmailRule.PROVIDER_RULES and domain in GMAIL_DOMAINS:
        local = local.partition("+")[0].replace(".", "")
        domain = "gmail.com"
    if not local or len(local) + 1 + len(domain) > LONGEST_ADDRESS:
        return None
    return f"{local}@{domain}"


@lru_cache(maxsize=65_536)
def ascii_domain(domain: str) -> str | None:
    """Return the domain's ASCII form, or None if no mail could reach it."""
    try:
        return validate_email(f"x@{domain}", check_deliverability=False).ascii_domain
    except ValueError:
        return None
