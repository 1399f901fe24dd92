"""A coordinator's runs from afar: `Runs` over HTTPS, with an operator's token.

Guarantees: the coordinator is known by the certificate authority that was named, and no other; the
token goes nowhere else; a redirection is not followed, no proxy is used, and an answer is bounded.
A coordinator that knows a call not yet, or answers it in a later form, is said to be of another
version.

Leaves to others: what the answers mean (`runs`).
"""

import ssl
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Self, TypeVar

import httpx
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from compliance.errors import describe
from compliance.records import RefusedFor
from federation.errors import (
    CoordinatorUnreachableError,
    RefusedError,
    RunStateError,
    VersionError,
    WorkspaceError,
)
from federation.model_standing import ModelStanding
from federation.operations.control_api import Problem
from federation.operations.folder import Address
from federation.operations.journal import Lines, Run
from federation.operations.runs import Order
from federation.specification import JobName, JobSpec

__all__ = ["RemoteConfig", "RemoteRuns"]

_Told = TypeVar("_Told")

_RUN: Final = TypeAdapter(Run)
_RUNS: Final = TypeAdapter(tuple[Run, ...])
_MODELS: Final = TypeAdapter(tuple[ModelStanding, ...])
_NAME: Final = TypeAdapter[str](JobName)
_JOB: Final = TypeAdapter[JobSpec](JobSpec)
_LINES: Final = TypeAdapter(Lines)
_COUNTS: Final = TypeAdapter(Mapping[RefusedFor, int])
_SECONDS: Final = 20.0
_LONGEST_ANSWER: Final = 1 << 24
_REFUSED: Final = frozenset({401, 403})
_UNKNOWN: Final = 404


class RemoteConfig(BaseModel):
    """How an operator elsewhere reaches a coordinator; the keys of a file of it have dashes.

    Attributes:
        address: host:port of its control listener.
        root_certificates: file of the coordinator's CA, PEM.
        token_file: file that holds the token and nothing else.
    """

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        alias_generator=lambda name: name.replace("_", "-"),
        populate_by_name=True,
    )

    address: Address
    root_certificates: Path
    token_file: Path

    @classmethod
    def read(cls, file: Path) -> Self:
        """Read it from TOML; paths in it are taken from its folder.

        Raises:
            WorkspaceError: it has mistakes.
        """
        try:
            found = tomllib.loads(file.read_text(encoding="utf-8"))
            config = cls.model_validate(found)
        except ValidationError as error:
            raise WorkspaceError(f"{file}: {describe(error)}") from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise WorkspaceError(f"{file} is no file of a coordinator: {error}") from error
        paths = {
            "root_certificates": file.parent / config.root_certificates,
            "token_file": file.parent / config.token_file,
        }
        return config.model_copy(update=paths)


class RemoteRuns:
    """The runs of a coordinator elsewhere; a context."""

    def __init__(self, config: RemoteConfig) -> None:
        self._config = config
        try:
            roots = ssl.create_default_context(cafile=str(config.root_certificates))
        except ssl.SSLError as error:
            raise WorkspaceError(
                f"{config.root_certificates} holds no certificates in PEM"
            ) from error
        token = config.token_file.read_text(encoding="ascii", errors="replace").strip()
        if not token.isascii() or not token.isprintable():
            raise WorkspaceError(f"{config.token_file} holds no token")
        self._client = httpx.Client(
            base_url=f"https://{config.address}/v1/comity",
            headers={"Authorization": f"Bearer {token}"},
            verify=roots,
            timeout=_SECONDS,
            trust_env=False,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    @property
    def is_served(self) -> bool:
        """Whether the coordinator is there: whoever answers, is."""
        return True

    def submit(self, order: Order) -> Run:
        """Queue a run; see `Runs.submit`."""
        return self._read(_RUN, "POST", "/runs", order.model_dump_json().encode())

    def all(self) -> tuple[Run, ...]:
        """Return every run; see `Runs.all`."""
        return self._read(_RUNS, "GET", "/runs")

    def run(self, number: int) -> Run:
        """Return one run; see `Runs.run`."""
        return self._read(_RUN, "GET", f"/runs/{number}")

    def lines(self, number: int, *, after: int = 0) -> Lines:
        """Return what it told; see `Runs.lines`."""
        return self._read(_LINES, "GET", f"/runs/{number}/lines?after={after}")

    def refused(self) -> Mapping[RefusedFor, int]:
        """Return how many calls were refused; see `Runs.refused`.

        Raises:
            VersionError: the coordinator is of an earlier version, which counts none.
        """
        return self._read(_COUNTS, "GET", "/refused")

    def models(self) -> tuple[ModelStanding, ...]:
        """Return where models stand; see `Runs.models`.

        Raises:
            VersionError: the coordinator is of an earlier version, which tells none.
        """
        return self._read(_MODELS, "GET", "/models")

    def cancel(self, number: int) -> Run:
        """Cancel it; see `Runs.cancel`."""
        return self._read(_RUN, "POST", f"/runs/{number}/cancel")

    def resume(self, number: int, *, patience_seconds: int | None = None) -> Run:
        """Resume it; see `Runs.resume`."""
        how = "" if patience_seconds is None else f"?patience={patience_seconds}"
        return self._read(_RUN, "POST", f"/runs/{number}/resume{how}")

    def drop(self, job: str) -> JobSpec:
        """Take a job out of the list; see `Runs.drop`."""
        try:
            name = _NAME.validate_python(job)
        except ValidationError as error:
            raise WorkspaceError(f"{job!r} is no name of a job") from error
        return self._read(_JOB, "POST", f"/jobs/{name}/cancel")

    def _read(
        self, kind: TypeAdapter[_Told], method: str, path: str, content: bytes = b""
    ) -> _Told:
        """Call, and return what the answer tells."""
        answer = self._call(method, path, content)
        try:
            return kind.validate_json(answer)
        except ValidationError as error:
            if answer[:1] not in {b"{", b"["}:
                raise self._strange() from error
            raise VersionError(
                f"the coordinator at {self._config.address} answers in a form that is not known "
                "here: it runs another version of Comity; install the same one on this side"
            ) from error

    def _call(self, method: str, path: str, content: bytes = b"") -> bytes:
        """Call, and return the answer, or raise the error that it tells."""
        try:
            with self._client.stream(method, path, content=content) as response:
                found = b""
                for piece in response.iter_bytes():
                    found += piece
                    if len(found) > _LONGEST_ANSWER:
                        raise self._strange()
        except httpx.HTTPError as error:
            raise CoordinatorUnreachableError(
                f"no answer from the coordinator at {self._config.address} "
                f"({str(error) or type(error).__name__}): see that it is up, and that address and "
                "root-certificates are its own"
            ) from error
        if response.status_code == 200:
            return found
        raise self._error(response.status_code, found)

    def _error(self, status: int, content: bytes) -> Exception:
        try:
            problem = Problem.model_validate_json(content)
        except ValidationError:
            return self._strange() if status != _UNKNOWN else self._older()
        if status in _REFUSED:
            return RefusedError(party="coordinator", term="operator token", remedy=problem.told)
        kind = RunStateError if problem.kind == RunStateError.__name__ else WorkspaceError
        return kind(problem.told)

    def _strange(self) -> CoordinatorUnreachableError:
        return CoordinatorUnreachableError(
            f"what answers at {self._config.address} is no coordinator's control listener: name "
            "the right address"
        )

    def _older(self) -> VersionError:
        return VersionError(
            f"the coordinator at {self._config.address} does not know this call: it runs an older "
            "version of Comity, or this is not its control listener; update it, or name the right "
            "address"
        )
