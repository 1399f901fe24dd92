"""What was killed, kept so that nobody kills twice for the same code, whenever the run is cut."""

import hashlib
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

ROOT = Path(__file__).resolve().parent.parent
CODE = ("privacy", "connectors", "compliance", "federation", "tests")


@dataclass(frozen=True)
class Kill:
    """One kill, and what was found.

    Attributes:
        code: digest of the code.
        stage: job, or erasure.
        victim: who was killed.
        at: before which step, from 1.
        what: the step.
        like: an earlier step that leaves the same disk, if there is one.
        end: what all came to: digest of all but what is drawn; empty where something is wrong.
        wrong: what is not as it would be.
    """

    code: str
    stage: str
    victim: str
    at: int
    what: str
    like: int | None = None
    end: str = ""
    wrong: tuple[str, ...] = ()

    @property
    def step(self) -> tuple[str, str, int, str]:
        """Which step it was."""
        return self.stage, self.victim, self.at, self.what


KILL = TypeAdapter(Kill)


@dataclass
class Journal:
    """A line of JSON for each kill, written by several processes.

    Attributes:
        path: the file.
        code: digest of the code that runs.
        done: kills with it, as they were when it was opened or as this process did them.
    """

    path: Path
    code: str
    done: dict[tuple[str, str, int, str], Kill] = field(default_factory=dict)

    @classmethod
    def open(cls, path: Path) -> "Journal":
        """Read what was killed with this code."""
        found = cls(path, digest_of_code())
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        for line in path.read_text().splitlines():
            with suppress(ValidationError):  # it was cut, or is of other code
                read = KILL.validate_json(line)
                if read.code == found.code:
                    found.done[read.step] = read
        return found

    def write(self, kill: Kill) -> None:
        """Keep a kill."""
        self.done[kill.step] = kill
        with self.path.open("a") as file:
            file.write(KILL.dump_json(kill).decode() + "\n")


def digest_of_code() -> str:
    """Return what changes with whatever could change a kill's end; tests themselves could not."""
    digest = hashlib.sha256()
    for path in sorted(path for name in CODE for path in (ROOT / name).rglob("*.py")):
        if not path.name.startswith("test_"):
            content = path.read_bytes()
            digest.update(f"{path.relative_to(ROOT)} {len(content)}\n".encode() + content)
    return digest.hexdigest()
