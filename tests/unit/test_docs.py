"""The documents are held to the code: commands, settings, tree, and what they point to."""

from __future__ import annotations

import ast
import re
import shlex
from pathlib import Path

import click
import pytest
import typer.main

from pacs_cbir.cli import app
from pacs_cbir.settings import Settings

ROOT = Path(__file__).parents[2]
REFERENCE = (ROOT / "deploy" / "reference.md").read_text()
TREE = (ROOT / "pacs_cbir" / "README.md").read_text()
PAGES = [
    ROOT / "README.md",
    *(
        path
        for name in ("deploy", "results", "pacs_cbir")
        for path in (ROOT / name).rglob("*.md")
        if "node_modules" not in path.parts
    ),
]


def _commands(group: object, prefix: str = "") -> dict[str, object]:
    found: dict[str, object] = {}
    for name, command in group.commands.items():  # type: ignore[attr-defined]
        if hasattr(command, "commands"):
            found |= _commands(command, f"{prefix}{name} ")
        else:
            found[f"{prefix}{name}"] = command
    return found


COMMANDS = _commands(typer.main.get_command(app))


def test_every_command_is_in_the_reference_and_none_else() -> None:
    written = re.findall(r"^\| `pacs-cbir ([a-z0-9 -]+)` \|", REFERENCE, re.MULTILINE)
    assert sorted(written) == sorted(COMMANDS)


def test_every_command_says_what_it_does_and_shows_an_example() -> None:
    without = [name for name, command in COMMANDS.items() if "Example: `" not in (command.help or "")]  # type: ignore[attr-defined]
    assert without == []


def _written_commands(page: Path) -> list[str]:
    """Every `pacs-cbir …` of a page, in a line to be typed or within a sentence."""
    text = page.read_text()
    fenced = re.findall(r"^```\w*\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    typed = "\n".join([*fenced, *re.findall(r"^ {4,}.*$", text, re.MULTILINE)])
    lines = re.findall(r"^ *(?:[A-Z_]+=\S+ )*(?:\S*/bin/|echo y \| )?pacs-cbir +(\S.*)$", typed, re.MULTILINE)
    return [*lines, *(" ".join(found.split()) for found in re.findall(r"`pacs-cbir +([^`|…]+)`", text))]


def test_the_documents_tell_commands() -> None:
    assert sum(len(_written_commands(page)) for page in PAGES) > 100


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_can_be_typed_as_they_are_written(page: Path) -> None:
    for written in _written_commands(page):
        words = shlex.split(written.replace("COMMAND", "serve"), comments=True)
        name = next((name for name in COMMANDS if words[: len(name.split())] == name.split()), None)
        if name is None:
            assert any(known.startswith(f"{' '.join(words)} ") for known in COMMANDS), f"{page.name}: {written}"
            continue
        command: click.Command = COMMANDS[name]  # type: ignore[assignment]
        options = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
        given = words[len(name.split()) :]
        assert {word.partition("=")[0] for word in given if word.startswith("--")} <= {*options, "--help"}, written


def test_every_setting_is_in_the_reference_with_its_default_and_meaning() -> None:
    rows = dict(re.findall(r"^\| `PACS_CBIR_([A-Z0-9_]+)` \| (.*) \|$", REFERENCE, re.MULTILINE))
    expected = {name.upper(): _setting_row(name) for name in Settings.model_fields}
    assert rows == expected


def _setting_row(name: str) -> str:
    field = Settings.model_fields[name]
    default = field.default
    if name == "data_dir":
        shown = "`~/.local/share/pacs-cbir`; root: `/var/lib/pacs-cbir`"
    elif field.is_required() or default in (None, ()) or field.default_factory is not None:
        shown = ""
    else:
        shown = f"`{default}`"
    return f"{shown} | {field.description}"


def test_every_module_has_its_line_in_the_tree() -> None:
    expected = {}
    for path in sorted((ROOT / "pacs_cbir").rglob("*.py")):
        document = ast.get_docstring(ast.parse(path.read_text()))
        assert document, f"{path} says nothing of itself"
        if path.name != "__init__.py":
            expected[str(path.relative_to(ROOT))] = document.splitlines()[0]
    rows = dict(re.findall(r"^\| `(pacs_cbir/[a-z0-9_/]+\.py)` \| (.*) \|$", TREE, re.MULTILINE))
    assert rows == expected


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\((?!http)([^)]+)\)", page.read_text()):
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), target
        if anchor:
            assert anchor in _anchors(file), target


def _anchors(page: Path) -> set[str]:
    """What the headings of a page are linked by, as GitHub makes it of them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_document_is_reached_from_the_readme() -> None:
    reached, new = set(), {ROOT / "README.md"}
    while new:
        reached |= new
        linked = {
            (page.parent / target).resolve()
            for page in new
            for target in re.findall(r"\]\((?!http)([^)#]+)", page.read_text())
        }
        pages = {path / "README.md" if path.is_dir() else path for path in linked}
        new = {path for path in pages if path.suffix == ".md" and path.exists()} - reached
    assert {str(page.relative_to(ROOT)) for page in PAGES if page not in reached} == set()


def test_the_top_level_is_the_agreed_one() -> None:
    agreed = {
        "README.md",
        "pyproject.toml",
        "pacs_cbir",
        "migrations",
        "docker",
        "tests",
        "deploy",
        "Makefile",
        "results",
    }
    agreed |= {"LICENSE", "CHANGELOG.md", "SECURITY.md", "build", "dist", "artefacts"}
    assert {path.name for path in ROOT.iterdir() if not path.name.startswith(".")} <= agreed
