"""What the pages say, held against the code: links, keys, commands, formats, and every snippet."""

import ast
import importlib
import json
import re
import shlex
import tomllib
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer
from conftest import ROOT, over, write_collaboration
from pydantic import BaseModel, TypeAdapter
from pydantic.fields import FieldInfo

from compliance import records
from compliance.agreement import Agreement
from compliance.consent import ExclusionReason
from compliance.terms import Reveal
from federation import cli, population
from federation.collaboration import Collaboration, load_collaboration
from federation.party import verified_agreement
from federation.progress import Progress, listening
from federation.routes import ROUTES, is_charged
from federation.trial.report import Report
from federation.trial.simulation import simulate
from federation.trial_commands import print_report

DOCS = ROOT / "docs"
PAGES = tuple(sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md"), *(ROOT / "examples").rglob("*.md")]))
DECISIONS = tuple(sorted((DOCS / "adr").glob("*.md")))

FENCE = re.compile(r"^```(\S*)([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]]+\]\(([^)\s]+)\)")
CODE = re.compile(r"`([^`\n]+)`")
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
MODULE = re.compile(r"(?:privacy|connectors|compliance|federation)(?:\.\w+)+")
OURS = r"session|prompt|assistant|agent|chatbot|issue #?\d|LLM|AI|GPT|Claude|Copilot|language model"


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    language: str
    flags: str
    text: str

    @property
    def runs(self) -> bool:
        return "run" in self.flags.split()


def named(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


@cache
def read(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def blocks(page: Path) -> list[Block]:
    return [Block(*found) for found in FENCE.findall(read(page))]


def prose(page: Path) -> str:
    return FENCE.sub("", read(page))


def anchors(page: Path) -> set[str]:
    """Return the anchors that GitHub gives a page's headings."""
    titles = [re.sub(r"[`*]", "", title).lower() for title in HEADING.findall(prose(page))]
    return {re.sub(r"[^\w\- ]", "", title).replace(" ", "-") for title in titles}


def section(page: Path, title: str) -> str:
    """Return what stands under a heading, up to the next one of its level or above."""
    level = re.search(rf"^(#+) {re.escape(title)}$", read(page), re.MULTILINE)
    assert level, f"{named(page)} has no section {title!r}"
    rest = read(page)[level.end() :]
    end = re.search(rf"^#{{1,{len(level[1])}}} ", FENCE.sub(blanked, rest), re.MULTILINE)
    return rest[: end.start()] if end else rest


def blanked(fence: re.Match[str]) -> str:
    return re.sub(r"[^\n]", " ", fence[0])


def table(text: str, *heads: str) -> list[dict[str, str]]:
    """Return the rows of every table whose first heads are these, by head."""
    rows: list[dict[str, str]] = []
    columns: list[str] | None = None
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if not line.startswith("|"):
            columns = None
        elif columns is None:
            columns = cells
        elif set(line) - set("|- ") and tuple(columns[: len(heads)]) == heads:
            rows.append(dict(zip(columns, cells, strict=True)))
    return rows


def ticked(cell: str) -> list[str]:
    return CODE.findall(cell)


# ---------------------------------------------------------------------------------------- pages


@over(PAGES, ids=named)
def test_every_link_inside_the_project_leads_somewhere(page: Path) -> None:
    for link in LINK.findall(prose(page)):
        if link.startswith(("https://", "mailto:")):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{named(page)} links to {link}"
        assert not anchor or anchor in anchors(target), f"{named(page)} links to {link}"


@over(PAGES, ids=named)
def test_every_file_module_and_target_that_a_page_names_exists(page: Path) -> None:
    makefile = read(ROOT / "Makefile")
    for code in CODE.findall(prose(page)):
        first = code.split("/")[0]
        if re.fullmatch(r"[\w./-]+/[\w./-]*", code) and first != "out":
            places = [base for base in (ROOT, page.parent) if (base / first).is_dir()]
            found = [base for base in places if (base / code.strip("/")).exists()]
            assert found or not places, f"{named(page)} names {code}"
        if MODULE.fullmatch(code):
            resolve(code)
        if target := re.fullmatch(r"make (\w+)", code):
            assert f"\n{target[1]}:" in makefile, f"{named(page)} names {code}"


def resolve(name: str) -> object:
    """Import what a dotted name stands for: a module, or what it holds."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        try:
            found: object = importlib.import_module(".".join(parts[:length]))
        except ModuleNotFoundError:
            continue
        for part in parts[length:]:
            found = getattr(found, part)
        return found
    raise AssertionError(f"there is no {name}")


@over(PAGES, ids=named)
def test_pages_speak_of_the_project_alone(page: Path) -> None:
    assert not re.findall(rf"\b(?:{OURS})s?\b", read(page))


@over(PAGES, ids=named)
def test_code_of_a_known_language_parses(page: Path) -> None:
    parsers = {"toml": tomllib.loads, "json": json.loads, "python": ast.parse}
    for block in blocks(page):
        if parse := parsers.get(block.language):
            parse(block.text)


def test_the_index_lists_every_page() -> None:
    index = DOCS / "README.md"
    listed = {(DOCS / link).resolve() for link in LINK.findall(read(index))}
    assert {page for page in DOCS.rglob("*.md") if page != index} <= listed


# ------------------------------------------------------------------------------------ decisions


@over(DECISIONS, ids=named)
def test_a_decision_has_its_sections_and_fits_on_a_page(page: Path) -> None:
    headings = HEADING.findall(read(page))
    assert headings[1:] == ["Context", "Drivers", "Options", "Outcome", "Negative consequences"]
    assert f"[{headings[0]}](adr/{page.name})" in read(DOCS / "README.md")
    assert headings[0].startswith(page.name[:4])
    assert "\nStatus: " in read(page)
    assert len(read(page).splitlines()) <= 60


def test_decisions_are_numbered_without_gaps() -> None:
    assert [int(page.name[:4]) for page in DECISIONS] == list(range(1, len(DECISIONS) + 1))


def test_every_dependency_is_accounted_for() -> None:
    project = tomllib.loads(read(ROOT / "pyproject.toml"))["project"]
    groups = {"base": project["dependencies"], **project["optional-dependencies"]}
    needed = {
        group: {re.split(r"[\[<>=]", requirement)[0] for requirement in groups[group]}
        for group in ("base", "node", "coordinator", "test")
    }
    page = read(DOCS / "adr" / "0011-dependencies-and-extras.md")
    rows = table(page, "package", "where")
    for group in ("base", "node", "coordinator"):
        told = {row["package"] for row in rows if group in row["where"].split(", ")}
        assert told == needed[group] - {"comity"}
    assert all(name in page for name in needed["test"] - {"comity"})


# ----------------------------------------------------------------------- the collaboration file


def nested(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in typing.get_args(annotation):
        yield from nested(part)


def keys(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Yield every key of a model and of the models in it, as the page spells them."""
    for name, field in model.model_fields.items():
        path = f"{prefix}{name}"
        yield path, field
        inner = list(nested(field.annotation))
        listed = typing.get_origin(field.annotation) is tuple
        for one in inner:
            index = one.model_fields["kind"].default if len(inner) > 1 else ""
            yield from keys(one, f"{path}[{index}]." if listed else f"{path}.")


KEYS = dict(keys(Collaboration))
ROWS = {ticked(row["key"])[0]: row for row in table(read(DOCS / "collaboration-file.md"), "key")}


def constraints(field: FieldInfo) -> Iterator[object]:
    def within(annotation: Any) -> Iterator[object]:
        for item in getattr(annotation, "__metadata__", ()):
            yield from item.metadata if isinstance(item, FieldInfo) else [item]
        for part in typing.get_args(annotation):
            yield from within(part)

    yield from field.metadata
    yield from within(field.annotation)


def test_every_key_of_the_collaboration_file_is_documented_and_no_other() -> None:
    assert sorted(ROWS) == sorted(KEYS)


@over(ROWS)
def test_the_default_of_a_key_is_the_models(key: str) -> None:
    told, field = ROWS[key]["default"], KEYS[key]
    if field.is_required():
        assert told == "required"
        return
    default = field.get_default(call_default_factory=True)
    if default is None:
        assert told == "none"
    elif default in ((), {}):
        assert told in {"empty", "none listed"}
    elif isinstance(default, tuple):
        assert ticked(told) == list(default)
    else:
        spelt = str(default).lower() if isinstance(default, bool) else str(default)
        assert ticked(told) == [spelt or '""']


@over(ROWS)
def test_the_range_of_a_key_is_the_models(key: str) -> None:
    told = ROWS[key]["range"]
    numbers = {float(n.replace(",", "")) for n in re.findall(r"\d[\d,]*(?:\.\d+)?", told)}
    field = KEYS[key]
    for constraint in constraints(field):
        for bound in ("ge", "gt", "le", "lt", "min_length", "max_length"):
            value = getattr(constraint, bound, None)
            if isinstance(value, datetime):
                value = value.year - (bound == "lt")
            if value is not None and value != 2**53 - 1:
                assert float(value) in numbers, f"{key}: {bound} {value} is not in {told!r}"
        pattern = getattr(constraint, "pattern", None)
        if isinstance(pattern, str) and r"\p" not in pattern:
            assert pattern in ticked(told)
    for kind in (field.annotation, *typing.get_args(field.annotation)):
        if isinstance(kind, type) and issubclass(kind, StrEnum):
            assert [member.value for member in kind] == ticked(told)[: len(kind)]


@over([key for key, row in ROWS.items() if ticked(row["example"])])
def test_the_example_of_a_key_is_valid(key: str) -> None:
    (example,) = ticked(ROWS[key]["example"])
    value = tomllib.loads(f"x = {example}")["x"]
    TypeAdapter(KEYS[key].rebuild_annotation()).validate_python(value)


def test_only_tables_go_without_an_example() -> None:
    without = {key for key, row in ROWS.items() if not ticked(row["example"])}
    assert without == {key for key, field in KEYS.items() if list(nested(field.annotation))}


def test_the_smallest_file_is_one(small_data: Path, tmp_path: Path) -> None:
    (tmp_path / "data").symlink_to(small_data)
    (smallest,) = [b for b in blocks(DOCS / "collaboration-file.md") if b.language == "toml"]
    (tmp_path / "collaboration.toml").write_text(smallest.text)
    assert load_collaboration(tmp_path / "collaboration.toml").name == "trial"


# --------------------------------------------------------------------- commands and the formats


def commands(group: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, f"{prefix}{name} ")
        else:
            yield f"{prefix}{name}", command


COMMANDS = dict(commands(typer.main.get_command(cli.app)))


def test_every_command_is_documented_and_no_other() -> None:
    headings = re.findall(r"^## `comity ([^`]+)`$", read(DOCS / "cli.md"), re.MULTILINE)
    assert sorted(headings) == sorted(COMMANDS)


@over(COMMANDS)
def test_a_command_is_told_with_its_parameters_an_example_and_its_exit_codes(name: str) -> None:
    told = section(DOCS / "cli.md", f"`comity {name}`")
    assert re.search(rf"^```sh[^\n]*\ncomity {name}\b", told, re.MULTILINE)
    assert "Exit codes: " in told
    for parameter in COMMANDS[name].params:
        if parameter.param_type_name == "option":
            assert f"- `{parameter.opts[0]}" in told
        else:
            assert f"- `{parameter.metavar or parameter.name.upper()}`" in told


def test_every_kind_of_leaf_is_documented_with_its_fields() -> None:
    common = {"version", "kind", "time", "party", "agreement", "job"}
    kinds = {
        model.model_fields["kind"].default: [
            name for name in model.model_fields if name not in common
        ]
        for model in nested(records.Record)
    }
    rows = table(read(DOCS / "log.md"), "kind", "further fields")
    assert {ticked(row["kind"])[0]: ticked(row["further fields"]) for row in rows} == kinds


def test_every_route_is_documented(finished: tuple[Path, Path]) -> None:
    agreement = verified_agreement(finished[1] / "brand" / "agreement.json")
    told = {
        ticked(row["kind"])[0]: (
            set(row["from"].split(", ")),
            set(row["to"].split(", ")),
            row["made from people"],
            row["costs ε"],
            row["encrypted"] == "yes",
        )
        for row in table(read(DOCS / "gate.md"), "kind", "from", "to")
    }
    assert told == {
        kind: (
            set(route.sender),
            set(route.recipient),
            "owed" if route.is_duty else "yes" if route.concerns_people else "no",
            costs(kind, agreement),
            route.encrypted,
        )
        for kind, route in ROUTES.items()
    }


def costs(kind: str, agreement: Agreement) -> str:
    """Say whether saying something costs privacy budget, over whatever may be agreed."""
    charged = {
        is_charged(
            kind,
            agreement.model_copy(
                update={
                    "match": agreement.match.model_copy(update={"reveal": reveal}),
                    "expand": agreement.expand.model_copy(update={"count_epsilon": epsilon}),
                }
            ),
        )
        for reveal in Reveal
        for epsilon in (None, 0.5)
    }
    return "by terms" if len(charged) > 1 else "yes" if charged.pop() else "no"


def test_every_reason_to_be_left_out_is_documented() -> None:
    told = [ticked(row["reason"])[0] for row in table(read(DOCS / "consent.md"), "reason")]
    ours = [population.DISPUTED, population.SUPPRESSED, population.DUPLICATE]
    assert told == [*ExclusionReason, *ours]


# ------------------------------------------------------------------------------------- snippets


@dataclass(frozen=True)
class Stage:
    """A directory in which a small collaboration has been run, and what it told."""

    path: Path
    told: tuple[Progress, ...]
    report: Report


@pytest.fixture(scope="session")
def stage(small_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Stage:
    path = tmp_path_factory.mktemp("stage")
    (path / "examples").symlink_to(ROOT / "examples")
    told: list[Progress] = []
    with listening(told.append):
        file = write_collaboration(small_data, path)
        report = simulate(file, path / "out" / "demo", with_scene=True)
    return Stage(path, tuple(told), report)


@pytest.mark.parametrize(
    "page", [page for page in PAGES if any(block.runs for block in blocks(page))], ids=named
)
def test_every_snippet_that_is_marked_so_runs(
    page: Path, stage: Stage, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(stage.path)
    for block in blocks(page):
        if block.runs and block.language == "python":
            exec(compile(block.text, named(page), "exec"), {"__name__": "snippet"})  # noqa: S102 -- ours
        elif block.runs and block.language == "toml":
            Path(block.flags.split("file=")[1]).write_text(block.text, encoding="utf-8")
        elif block.runs:
            assert block.language == "sh"
            expected = int(
                dict(flag.split("=") for flag in block.flags.split()[1:]).get("exits", 0)
            )
            for line in block.text.splitlines():
                command, *arguments = shlex.split(line)
                assert command == "comity", f"{named(page)}: only comity is run, got {line}"
                with pytest.raises(SystemExit) as end:
                    cli.main(arguments)
                assert end.value.code == expected, f"{line}: {capsys.readouterr().err}"


PASSING = re.compile(r" data: | (witness|retrain|erase)#| carries out | WARNING: unsafe_seed ")
"""What the README says that it leaves out of what the demo prints, and a seed of the tests."""


def shape(line: str) -> str:
    """Return a line without its figures and its padding."""
    return re.sub(r"[\d,.]+", "#", re.sub(r"\s+", " ", line)).strip()


def test_the_readme_shows_what_the_demo_prints(
    stage: Stage, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(stage.path)
    (shown,) = [block.text for block in blocks(ROOT / "README.md") if block.language == "text"]
    progress, outcome = shown.split("\n\n")
    told = {shape(f"{one.party} {one.job} {one.stage}") for one in stage.told if not one.total}
    shown = {shape(line.split(" · ")[0]) for line in progress.splitlines() if line != "…"}
    assert shown <= told
    left_out = {line for line in told - shown if not PASSING.search(line)}
    assert not left_out, "what is neither shown nor said to be left out"
    assert ("…" in progress.splitlines()) is (told != shown)
    print_report(stage.report, Path("out/demo"))
    printed = capsys.readouterr().out.replace(str(stage.path) + "/", "")
    told_here = outcome.replace(".venv/bin/", "")  # as `make demo` calls it
    assert list(map(shape, told_here.splitlines())) == list(map(shape, printed.splitlines()))


def test_the_changelog_tells_of_this_version() -> None:
    version = tomllib.loads(read(ROOT / "pyproject.toml"))["project"]["version"]
    assert f"\n## {version} " in read(ROOT / "CHANGELOG.md")
