"""The README is held to the code: commands, settings, tree, and the files that it points to."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import typer.main

from pacs_cbir.cli import app
from pacs_cbir.settings import Settings

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def _commands(group: object, prefix: str = "") -> dict[str, object]:
    found: dict[str, object] = {}
    for name, command in group.commands.items():  # type: ignore[attr-defined]
        if hasattr(command, "commands"):
            found |= _commands(command, f"{prefix}{name} ")
        else:
            found[f"{prefix}{name}"] = command
    return found


COMMANDS = _commands(typer.main.get_command(app))


def test_every_command_is_in_the_readme_and_none_else() -> None:
    written = re.findall(r"^\| `pacs-cbir ([a-z0-9 -]+)` \|", README, re.MULTILINE)
    assert sorted(written) == sorted(COMMANDS)


def test_every_command_says_what_it_does_and_shows_an_example() -> None:
    without = [name for name, command in COMMANDS.items() if "Example: `" not in (command.help or "")]  # type: ignore[attr-defined]
    assert without == []


def test_every_setting_is_in_the_readme_with_its_default_and_meaning() -> None:
    rows = dict(re.findall(r"^\| `PACS_CBIR_([A-Z0-9_]+)` \| (.*) \|$", README, re.MULTILINE))
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
    rows = dict(re.findall(r"^\| `(pacs_cbir/[a-z0-9_/]+\.py)` \| (.*) \|$", README, re.MULTILINE))
    assert rows == expected


def test_links_lead_somewhere() -> None:
    targets = re.findall(r"\]\((?!http)([^)#]+)\)", README)
    assert [target for target in targets if not (ROOT / target).exists()] == []


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
