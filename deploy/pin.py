"""Write deploy/requirements.txt: the versions that an image has of everything that it installs.

They are those of the environment that this runs in, which has passed the tests.
"""

import sys
import tomllib
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

EXTRAS = ("node", "coordinator", "observe")
"""What an image is for: either side, and its traces."""
PROJECT = Path(__file__).resolve().parent.parent / "pyproject.toml"
FILE = Path(__file__).with_name("requirements.txt")


def pinned() -> str:
    """Return a line for each distribution that is needed, in order of their names."""
    project = tomllib.loads(PROJECT.read_text(encoding="utf-8"))["project"]
    asked = project["dependencies"] + [
        one for extra in EXTRAS for one in project["optional-dependencies"][extra]
    ]
    found: dict[str, str] = {}
    open_ = [one for one in map(Requirement, asked) if one.name != "comity"]
    seen: set[str] = set()
    while open_:
        requirement = open_.pop()
        if str(requirement) in seen:
            continue
        seen.add(str(requirement))
        name = canonicalize_name(requirement.name)
        try:
            installed = distribution(name)
        except PackageNotFoundError:
            sys.exit(f"{name} is not installed here: make test installs it")
        found[name] = installed.version
        for text in installed.requires or ():
            further = Requirement(text)
            extras = {"", *requirement.extras}
            if further.marker is None or any(
                further.marker.evaluate({"extra": extra}) for extra in extras
            ):
                open_.append(further)
    return "".join(f"{name}=={version.split('+')[0]}\n" for name, version in sorted(found.items()))


if __name__ == "__main__":
    FILE.write_text(pinned(), encoding="utf-8")
