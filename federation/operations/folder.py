"""The coordinator's state folder: its configuration, certificates, and where everything else lies.

```
FOLDER/                 readable by its owner only
  coordinator.toml      the address that parties call, and where it listens
  certificates/         a CA of its own, and the server's certificate that it vouches for; keys
                        are sealed where there is an unsealing key (see `safe`)
  tokens.json           operators' tokens, as hashes; likewise
  nodes/NAME.pub        the key of party NAME's node: who may connect
  nodes.json            which node has which of these keys
  runs/                 the journal of runs
  audit.jsonl           calls that were refused
  refused.json          how many of them no leaf tells of yet
  taken-out.jsonl       jobs that operators took out of the list
  flower/               Flower's home, made anew at each start
  enrolment/            who is invited, and who has joined
  party/                the coordinator's folder as a party
```

Guarantees: the folder is its owner's alone, and so is every secret in it; preparing it again makes
no key anew, and issues the server's certificate again only where it ends within 30 days or names
another host.

Leaves to others: what lies in each part (`tokens`, `journal`, `certificates`).
"""

import fcntl
import json
import re
import time
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import IO, Annotated, Final, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from compliance.errors import describe
from federation.errors import WorkspaceError
from federation.observing.traces import Collector
from federation.operations.certificates import (
    Issued,
    issue_authority,
    issue_server,
    new_key,
    read_authority,
)
from federation.operations.identity_provider import IdentityProviderConfig
from federation.party import make_private, write_atomically
from federation.safe import COORDINATOR_SECRETS, Safe
from federation.unsealing import unsealing_key
from privacy.randomness import new_secret

__all__ = ["Address", "CoordinatorConfig", "CoordinatorFolder"]

DEFAULT_PORT: Final = 9091
_ADDRESS: Final = re.compile(r"(\[[0-9A-Fa-f:]+\]|[A-Za-z0-9.-]+):([0-9]{1,5})")
_NAME: Final = "coordinator.toml"
_LOCK_SECONDS: Final = 1.0
_ENDED: Final = (
    "give `comity coordinator init` a certificate of the same authority, for the same key, that "
    "lasts longer (--authority), and every party's node that certificate in place of its ca.pem"
)


def _well_formed(value: str) -> str:
    found = _ADDRESS.fullmatch(value)
    if found is None or not 0 < int(found[2]) < 1 << 16:
        raise ValueError("expected HOST:PORT, such as coordinator.example:9091 or [::1]:9091")
    return value


Address = Annotated[str, AfterValidator(_well_formed)]
"""host:port, an IPv6 address in brackets."""


def host_of(address: str) -> str:
    """Return the host of an address, without brackets."""
    return address.rpartition(":")[0].strip("[]")


def port_of(address: str) -> int:
    """Return the port of an address."""
    return int(address.rpartition(":")[2])


class CoordinatorConfig(BaseModel):
    """What `coordinator.toml` says; its keys have dashes.

    Attributes:
        address: host:port that parties call; the certificate names the host.
        listen: host:port at which the public listener waits.
        control: host:port at which the control listener waits; loopback unless operators are
            elsewhere.
        party: the coordinator's folder as a party, taken from the state folder.
        deadline_seconds: patience for the answers of one exchange, and for nodes to connect.
        traces: URL of the operator's own collector of OpenTelemetry; none where left out.
        identity_provider: whose tokens operators may show beside the coordinator's own; nobody's
            where left out. Paths in it are taken from the state folder.
    """

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        alias_generator=lambda name: name.replace("_", "-"),
        populate_by_name=True,
    )

    address: Address
    listen: Address
    control: Address = "127.0.0.1:9092"
    party: Path = Path("party")
    deadline_seconds: Annotated[float, Field(gt=0, le=7 * 86400, allow_inf_nan=False)] = 600.0
    traces: Collector | None = None
    identity_provider: IdentityProviderConfig | None = None

    @classmethod
    def for_address(cls, address: str, *, listen: str | None, control: str) -> Self:
        """Return the configuration of a coordinator that parties call at an address.

        Args:
            address: host, or host:port.
            listen: where the public listener waits; every interface where left out.
            control: where the control listener waits.

        Raises:
            WorkspaceError: an address is malformed.
        """
        if not _ADDRESS.fullmatch(address):
            address = f"{address}:{DEFAULT_PORT}"
        everywhere = f"0.0.0.0:{address.rpartition(':')[2]}"
        try:
            return cls(address=address, listen=listen or everywhere, control=control)
        except ValidationError as error:
            raise WorkspaceError(describe(error)) from error


class CoordinatorFolder:
    """Paths, configuration and certificates of one coordinator, under one directory."""

    def __init__(self, path: Path, config: CoordinatorConfig) -> None:
        self.path = path.resolve()
        self.config = config

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open a prepared folder.

        Args:
            path: the folder, or its `coordinator.toml`.

        Raises:
            WorkspaceError: it is none, or its configuration has mistakes.
        """
        file = path / _NAME if path.is_dir() else path
        try:
            found = tomllib.loads(file.read_text(encoding="utf-8"))
            return cls(file.parent, CoordinatorConfig.model_validate(found))
        except FileNotFoundError as error:
            raise WorkspaceError(
                f"expected a coordinator's {_NAME} at {file}, got no such file: make it with "
                "`comity coordinator init FOLDER --address HOST:PORT`"
            ) from error
        except ValidationError as error:
            raise WorkspaceError(f"{file}: {describe(error)}") from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise WorkspaceError(f"{file} is no file of a coordinator: {error}") from error

    @classmethod
    def init(
        cls,
        path: Path,
        config: CoordinatorConfig,
        *,
        now: datetime,
        authority: Path | None = None,
    ) -> Self:
        """Prepare a folder, or see that a prepared one is as it must be.

        1. The folder, its owner's alone.
        2. Its configuration, unless it has one; another than it has is refused, but for where spans
           go, and for an identity provider.
        3. The CA, unless there is one. 4. The server's certificate, unless it serves for longer.

        Args:
            path: the folder.
            config: its configuration.
            now: an aware moment.
            authority: folder with `tls.crt` and `tls.key` of a CA to take; one of its own if left
                out.

        Raises:
            WorkspaceError: it is another user's, or configured otherwise, a key is damaged, or
                the CA is none, or another than the folder has.
        """
        make_private(path)  # 1
        file = path / _NAME
        if not file.exists():  # 2
            write_atomically(file, _to_toml(config), mode=0o600)
        folder = cls.open(path)
        free = {"traces": config.traces, "identity_provider": config.identity_provider}
        if folder.config.model_copy(update=free) != config:
            raise WorkspaceError(
                f"{file} says otherwise than this command: change the file itself, which the next "
                "start and the next certificate heed, or give the same options"
            )
        if authority is not None:
            folder.take_authority(authority, now)
        folder.renew(now)
        return folder

    def take_authority(self, directory: Path, now: datetime) -> None:
        """Take a CA that was made elsewhere, or its certificate that was made anew for its key.

        Raises:
            WorkspaceError: there is none, or none that can be taken, or the folder has another.
        """
        files = directory / "tls.crt", directory / "tls.key"
        try:
            certificate, key = (file.read_bytes() for file in files)
        except OSError as error:
            raise WorkspaceError(
                f"expected tls.crt and tls.key of a certificate authority in {directory}, got no "
                f"such file ({error.strerror}): name their folder"
            ) from error
        given = read_authority(certificate, key, now, self._hosts, source=str(files[0]))
        known = self._certified("ca")
        if known is None or (given.is_another_of(known) and given.ends > known.ends):
            self._keep("ca", given)
        elif not given.is_another_of(known):
            raise WorkspaceError(
                f"{files[0]} is another certificate authority than {self.ca_certificate}, which "
                "parties were given: leave it out, or make a new folder and invite them anew"
            )

    def renew(self, now: datetime) -> bool:
        """Make what certificates are missing, and the server's anew where it is due.

        Returns:
            Whether the server has another certificate now.

        Raises:
            WorkspaceError: the CA's has ended, or does not begin yet; a file is missing or damaged.
        """
        authority = self._certified("ca")
        if authority is None:  # 3
            authority = issue_authority(now)
            self._keep("ca", authority)
        server = self._certified("server")
        if server is not None and not server.is_due(now, self._hosts, authority):
            return False
        authority.check_valid(now, remedy=_ENDED)
        key = new_key() if server is None else server.key
        issued = issue_server(authority, self._hosts, now, key=key)  # 4
        self._keep("server", issued)
        return True

    @property
    def authority_ends(self) -> datetime | None:
        """Until when parties' nodes believe the CA; None where there is none yet."""
        authority = self._certified("ca")
        return None if authority is None else authority.ends

    @property
    def _hosts(self) -> list[str]:
        return [host_of(self.config.address)]

    def check_certificate(self, now: datetime) -> None:
        """Refuse to serve with a certificate that no party would take.

        Raises:
            WorkspaceError: there is none, or it is not valid now.
        """
        server = self._certified("server")
        if server is None:
            raise WorkspaceError(
                f"{self.server_certificate} is missing: run `comity coordinator init` again"
            )
        server.check_valid(now, remedy="run `comity coordinator init` again, which renews it")

    def _certified(self, name: str) -> Issued | None:
        certificate, key = self._certificate(name), self._certificate(name).with_suffix(".key")
        if not key.exists() and not certificate.exists():
            return None
        if not key.exists() or not certificate.exists():
            raise WorkspaceError(
                f"{certificate} and {key} belong together, and one is missing: restore it from a "
                "backup; a new one would be nobody's"
            )
        content = self.safe.unseal(key, key.read_bytes())
        return Issued.parse(certificate.read_bytes(), content, source=str(certificate))

    def _keep(self, name: str, issued: Issued) -> None:
        certificate = self._certificate(name)
        key = certificate.with_suffix(".key")
        if not key.exists():
            write_atomically(key, self.safe.seal(key, issued.key_pem), mode=0o600)
        write_atomically(certificate, issued.certificate_pem)

    def _certificate(self, name: str) -> Path:
        return self.path / "certificates" / f"{name}.pem"

    @property
    def safe(self) -> Safe:
        """How the folder's secrets lie on disk.

        Raises:
            UnsealingError: the unsealing key cannot be had, though there is to be one.
        """
        return Safe(self.path, "coordinator", COORDINATOR_SECRETS, unsealing_key())

    @property
    def address(self) -> str:
        """What parties call, host:port."""
        return self.config.address

    @property
    def ca_certificate(self) -> Path:
        """What every party is given, to know this coordinator by."""
        return self._certificate("ca")

    @property
    def server_certificate(self) -> Path:
        """Certificate of both listeners."""
        return self._certificate("server")

    @property
    def server_key(self) -> Path:
        """Key of both listeners."""
        return self._certificate("server").with_suffix(".key")

    @contextmanager
    def readable_server_key(self) -> Iterator[tuple[Path, str | None]]:
        """Have a file of the listeners' key that a server can read, for the length of the block.

        It is the key's own file; where that is sealed, a copy under a password that is in memory
        alone.

        Yields:
            The file, and its password.

        Raises:
            UnsealingError: the key does not open.
        """
        server = self._certified("server")
        if self.safe.key is None or server is None:
            yield self.server_key, None
            return
        password = new_secret().hex()
        copy = self.server_key.with_suffix(".once")
        write_atomically(copy, server.key_pem_under(password), mode=0o600)
        try:
            yield copy, password
        finally:
            copy.unlink(missing_ok=True)

    @property
    def party(self) -> Path:
        """The coordinator's folder as a party."""
        return (self.path / self.config.party).resolve()

    @property
    def tokens(self) -> Path:
        """Operators' tokens, as hashes."""
        return self.path / "tokens.json"

    @property
    def nodes(self) -> Path:
        """Keys of the parties' nodes, NAME.pub each."""
        return self.path / "nodes"

    @property
    def registered_nodes(self) -> Path:
        """Which node has which of these keys."""
        return self.path / "nodes.json"

    @property
    def runs(self) -> Path:
        """The journal of runs."""
        return self.path / "runs"

    @property
    def audit(self) -> Path:
        """Calls that were refused."""
        return self.path / "audit.jsonl"

    @property
    def refused(self) -> Path:
        """How many calls were refused that no leaf tells of yet."""
        return self.path / "refused.json"

    @property
    def taken_out(self) -> Path:
        """Jobs that operators took out of the list."""
        return self.path / "taken-out.jsonl"

    @contextmanager
    def served(self) -> Iterator[None]:
        """Be the one process that serves this folder, for the length of the block.

        Raises:
            WorkspaceError: another process does.
        """
        with self._lock.open("w", encoding="ascii") as file:
            end = time.monotonic() + _LOCK_SECONDS  # somebody may be looking, see `is_served`
            while not _locks(file):
                if time.monotonic() > end:
                    raise WorkspaceError(
                        f"{self.path} is served by another process: end that one first"
                    )
                time.sleep(_LOCK_SECONDS / 20)
            yield

    @property
    def is_served(self) -> bool:
        """Whether a process serves this folder now."""
        with self._lock.open("a", encoding="ascii") as file:
            return not _locks(file)

    @property
    def _lock(self) -> Path:
        return self.path / "lock"


def _locks(file: IO[str]) -> bool:
    """Lock a file until it is closed, if nobody else has."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _to_toml(config: CoordinatorConfig) -> bytes:
    written = config.model_dump(mode="json", by_alias=True, exclude_none=True)
    lines = [f"{key} = {json.dumps(value)}" for key, value in written.items()]
    return ("\n".join(lines) + "\n").encode()


def party_in(directory: Path) -> Path:
    """Return a party's folder: a coordinator's folder has its own in it."""
    if (directory / "party.json").exists() or not (directory / "coordinator.toml").exists():
        return directory
    return CoordinatorFolder.open(directory).party


def authority_in(directory: Path) -> bytes | None:
    """Return the certificate by which parties believe a coordinator; None before there is one."""
    file = directory / "certificates" / "ca.pem"
    return file.read_bytes() if file.exists() else None
