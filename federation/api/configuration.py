"""What an operator sets about a party's API, in a file of TOML.

Guarantees: a file that is read is complete, within its ranges, and names files that can be read.
Leaves to others: the party itself (`party.json`), and its clients (`clients`).
"""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from compliance.consent.record import ConsentNotice
from compliance.consent_strings import Purpose
from compliance.erasure.wire import Discovery, Keys
from compliance.errors import describe
from federation.consent_recording import read_notice
from federation.errors import WorkspaceError

__all__ = ["ApiConfig", "ConsentStringsConfig", "DeletionConfig"]


class _Closed(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class ConsentStringsConfig(_Closed):
    """Whose consent is read from consent strings, and for what.

    Attributes:
        vendor: the party's id in the IAB's list of vendors.
        purposes: for each purpose of the agreement, the IAB's purposes that it takes, all of them.
    """

    vendor: Annotated[int, Field(ge=1, le=65_535)]
    purposes: Annotated[
        Mapping[str, Annotated[tuple[Purpose, ...], Field(min_length=1)]], Field(min_length=1)
    ]


class DeletionConfig(_Closed):
    """How requests of the Data Deletion Request Framework are taken.

    Attributes:
        domain: under which `dsrdelete.json` stands.
        endpoint: where requests are sent to, as the outside sees it.
        trusted: for each domain whose requests are taken, a copy of its `dsrdelete.json`.
        audience_required: whether a request must name this domain.
    """

    domain: Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$")]
    endpoint: Annotated[str, Field(pattern=r"^https://[!-~]{1,2000}$")]
    trusted: Annotated[Mapping[str, Path], Field(min_length=1)]
    audience_required: bool = True


class ApiConfig(_Closed):
    """A party's API.

    Attributes:
        host, port: where it listens; port 0 takes a free one.
        requests_per_second, burst: how often one client may ask, on average and at once.
        most_body_bytes: length of the longest request.
        most_events: in one batch.
        patience_seconds: how long a request waits for a job that is at work, where it must.
        notices: files of `ConsentNotice`, one a purpose.
        consent_strings: see there; none are taken where left out.
        deletion: likewise.
    """

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65_535)] = 8097
    requests_per_second: Annotated[float, Field(gt=0, le=100_000)] = 50.0
    burst: Annotated[int, Field(ge=1, le=100_000)] = 100
    most_body_bytes: Annotated[int, Field(ge=1024, le=16 << 20)] = 256 << 10
    most_events: Annotated[int, Field(ge=1, le=10_000)] = 500
    patience_seconds: Annotated[float, Field(ge=0, le=60)] = 5.0
    notices: tuple[Path, ...] = ()
    consent_strings: ConsentStringsConfig | None = None
    deletion: DeletionConfig | None = None

    @classmethod
    def load(cls, file: Path) -> Self:
        """Read a file; paths in it are taken from its directory.

        Raises:
            WorkspaceError: it cannot be read, or has mistakes, all of which are named.
        """
        try:
            return cls.model_validate(tomllib.loads(file.read_text(encoding="utf-8"))).within(
                file.parent
            )
        except OSError as error:
            raise WorkspaceError(f"{file} cannot be read: {error.strerror}") from error
        except ValidationError as error:
            raise WorkspaceError(f"{file}: {describe(error)}") from error
        except (tomllib.TOMLDecodeError, UnicodeError) as error:
            raise WorkspaceError(f"{file} is no TOML: {error}") from error

    def within(self, directory: Path) -> Self:
        """Return the same with relative files taken from a directory."""
        deletion = self.deletion and self.deletion.model_copy(
            update={"trusted": {name: directory / p for name, p in self.deletion.trusted.items()}}
        )
        notices = tuple(directory / path for path in self.notices)
        return self.model_copy(update={"notices": notices, "deletion": deletion})

    def read_notices(self) -> dict[str, ConsentNotice]:
        """Read the notices, by purpose.

        Raises:
            WorkspaceError: two are about one purpose.
            ConsentError: a file cannot be read, or is no notice.
        """
        found = [read_notice(path) for path in self.notices]
        by_purpose = {notice.purpose: notice for notice in found}
        if len(by_purpose) < len(found):
            raise WorkspaceError("notices: expected one for each purpose, got two for one")
        return by_purpose

    def read_keys(self) -> Keys | None:
        """Read the keys of those whose requests to delete are taken.

        Raises:
            WorkspaceError: a file cannot be read.
            ErasureError: it is no `dsrdelete.json`, or its keys are no good.
        """
        if self.deletion is None:
            return None
        published = {}
        for domain, path in self.deletion.trusted.items():
            try:
                published[domain] = Discovery.from_json(path.read_bytes())
            except OSError as error:
                raise WorkspaceError(f"{path} cannot be read: {error.strerror}") from error
        return Keys(published)
