"""Requests of the Data Deletion Request Framework, taken over HTTP.

```
1 the request's two signatures hold, it is for this party, of a trusted issuer and not too old
2 it becomes a request to erase; the same identifier again gives the same,
  while that is open
3 it is acknowledged: a token of this party's, with the framework's result code
```

Guarantees: a request that is refused is acknowledged too, with its code and no value of it; a key
that signs acknowledgements signs nothing else.

Leaves to others: the framework's tokens (`compliance.erasure.wire`), erasing (`erasing`). The
framework says that the token is posted and the answer JSON; the members `rqJWT` and `acJWT` around
them are its names of the tokens, and ours as a layout.
"""

import hashlib
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Final

from compliance.erasure.wire import (
    Discovery,
    Issuer,
    Keys,
    ResultCode,
    Supported,
    TokenError,
    public_jwk,
    read_request,
)
from compliance.errors import ErasureError
from compliance.signing import SigningKey
from federation.api import bodies, problems
from federation.api.configuration import DeletionConfig
from federation.api.problems import ProblemError
from federation.errors import WorkspaceError
from federation.party import PartyFolder
from privacy.randomness import SECRET_BYTES, new_secret

__all__ = ["Deletions"]

_ACCEPTED: Final = frozenset({("email", "plaintext"), ("phone", "plaintext")})


class Deletions:
    """Requests of the framework at one party.

    Args:
        directory: the party's folder.
        config: whose requests are taken; nobody's where None.
        keys: theirs.
        erase: takes a request to erase.
    """

    def __init__(
        self,
        directory: Path,
        config: DeletionConfig | None,
        keys: Keys | None,
        erase: Callable[[bodies.Identifier], bodies.Erasure],
    ) -> None:
        self._config = config
        self._keys = keys
        self._erase = erase
        self._issuer = None if config is None else _issuer(directory, config.domain)

    def discovery(self) -> bytes:
        """Return the party's `dsrdelete.json`.

        Raises:
            ProblemError: no requests are taken.
        """
        config, issuer = self._set_up()
        return Discovery(
            endpoint=config.endpoint,
            identifiers=tuple(
                Supported(id=number, type=kind, format=form)
                for number, (kind, form) in enumerate(sorted(_ACCEPTED), start=1)
            ),
            public_keys=(public_jwk(issuer.key.public, issuer.key_id),),
            vendor_script_required=False,
        ).to_json()

    def take(self, token: str, now: datetime) -> str:
        """Take a request, and return its acknowledgement.

        Raises:
            ProblemError: no requests are taken.
            PartyBusyError: a job is at work: it is not acknowledged, so that it is sent again.
        """
        config, issuer = self._set_up()
        code, told = ResultCode.ACCEPTED, None
        try:
            verified = read_request(  # 1
                token,
                self._keys or Keys({}),
                audience=config.domain,
                now=now,
                accepts=_ACCEPTED,
                audience_required=config.audience_required,
            )
            named = verified.identity.sub
            if named.type == "email":
                self._erase(bodies.NamedByEmail(email=named.value))  # 2
            else:
                self._erase(bodies.NamedByPhone(phone=named.value))
        except TokenError as error:
            code, told = error.code, str(error)[:500]
        except ErasureError as error:
            code, told = ResultCode.INCORRECT_IDENTIFIER_FORMAT, str(error)[:500]
        jti = new_secret().hex()[:32]
        return issuer.acknowledge(token, code, jti=jti, now=now, told=told)  # 3

    def _set_up(self) -> tuple[DeletionConfig, Issuer]:
        if self._config is None or self._issuer is None:
            raise ProblemError(problems.UNAVAILABLE, "expected `deletion`")
        return self._config, self._issuer


def _issuer(directory: Path, domain: str) -> Issuer:
    """Return who signs acknowledgements; its key is made at first use."""
    folder = PartyFolder(directory)
    path = folder.path / "keys" / "deletion"
    if not path.exists():
        secret = folder.fresh_secret("deletion key")
        folder.keep_secret(path, secret.hex().encode())
    try:
        seed = bytes.fromhex(folder.read_secret(path).decode("ascii"))
    except ValueError:
        seed = b""
    if len(seed) != SECRET_BYTES:
        raise WorkspaceError(f"{path} is damaged: restore it from a backup")
    key = SigningKey.from_seed(seed)
    return Issuer(domain, hashlib.sha256(key.public.raw).hexdigest()[:16], key)
