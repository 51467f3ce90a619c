"""The page about tables and recipes of one's own is held to the code."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import pytest
from pydantic import BaseModel

from pacs_cbir.embed.architecture import Architecture
from pacs_cbir.learn.recipe import Augmentation, Recipe
from pacs_cbir.learn.rows import BASELINES, Rows
from pacs_cbir.learn.table import Simulated, Table, TableRow, make_table

PAGE = (Path(__file__).parents[3] / "results" / "README.md").read_text()
PART = PAGE.partition("### Tables and recipes of your own\n")[2].partition("\n## ")[0]
IN_WORDS = {"architecture": "`appearance` of 512 alone", "augmentation": "all off"}


def test_the_table_that_is_shown_can_be_run() -> None:
    [shown] = re.findall(r"^```toml\n(.*?)^```$", PART, re.MULTILINE | re.DOTALL)
    table = make_table(tomllib.loads(shown))
    Rows(table, Path(), None).check()
    kinds = {
        row.name: next(kind for kind in ("baseline", "recipe", "checkpoint") if getattr(row, kind))
        for row in table.rows
    }
    assert set(kinds.values()) == {"baseline", "recipe", "checkpoint"}
    assert any(row.changes for row in table.rows)


@pytest.mark.parametrize(
    ("kind", "parts"),
    [
        (Table, {"": Table, "simulated.": Simulated, "rows.": TableRow}),
        (Recipe, {"": Recipe, "architecture.": Architecture, "augmentation.": Augmentation}),
    ],
)
def test_every_key_is_there_with_its_default_and_none_else(
    kind: type[BaseModel], parts: dict[str, type[BaseModel]]
) -> None:
    listed = PART.partition(f"| key of a {kind.__name__.lower()} |")[2].partition("\n\n")[0]
    written = dict(re.findall(r"^\| `([a-z_.]+)` \| (.*?) ?\| \S.*\|$", listed, re.MULTILINE))
    assert written == {f"{prefix}{key}": shown for prefix, part in parts.items() for key, shown in _keys(part).items()}


def _keys(part: type[BaseModel]) -> dict[str, str]:
    return {name: _default(part, name) for name in part.model_fields}


def _default(part: type[BaseModel], name: str) -> str:
    field = part.model_fields[name]
    if field.is_required():
        return "needed"
    default = field.get_default(call_default_factory=True)
    if default is None:
        return ""
    if isinstance(default, BaseModel):
        return IN_WORDS[name]
    shown = json.dumps(float(default) if field.annotation is float else default)
    return f"``{shown}``" if "`" in shown else f"`{shown}`"


def test_every_baseline_is_named_and_none_else() -> None:
    [listed] = re.findall(r"^Baselines: (.*?)\n\n", PART, re.MULTILINE | re.DOTALL)
    assert re.findall(r"`([a-z-]+)`", listed) == list(BASELINES)
