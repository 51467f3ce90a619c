"""The documents are held to the code: commands, settings, tree, and what they point to."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
import typer.main

from pacs_cbir.cli import app
from pacs_cbir.settings import Settings

ROOT = Path(__file__).parents[2]
REFERENCE = (ROOT / "deploy" / "reference.md").read_text()
TREE = (ROOT / "pacs_cbir" / "README.md").read_text()
PAGES = [
    ROOT / "README.md",
    *(path for name in ("deploy", "results", "pacs_cbir") for path in (ROOT / name).rglob("*.md")),
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
