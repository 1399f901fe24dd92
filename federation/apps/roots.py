"""The certificates by which a party's node believes a coordinator.

Guarantees: for three months before the last of them ends, the operator is told so at each start of
the node, and what to do.

Leaves to others: believing (`superlink`), making them anew (the coordinator's authority).
"""

from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509

__all__ = ["warn_of_end"]

_WARNED: Final = timedelta(days=90)


def warn_of_end(roots: bytes, file: Path, tell: Callable[[str], None], now: datetime) -> None:
    """Tell that the certificates in a file end soon, if they do.

    Args:
        roots: what is in it, PEM.
        file: where they lie.
        tell: told so in one line.
        now: an aware moment.

    Raises:
        ValueError: there is none in it.
    """
    ends = max(one.not_valid_after_utc for one in x509.load_pem_x509_certificates(roots))
    if ends - now < _WARNED:
        tell(
            f"{file} ends on {ends:%Y-%m-%d}, and then this node believes the coordinator no more: "
            "ask its operator for the certificate that was made anew, and put it in its place"
        )
