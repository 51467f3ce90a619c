"""A table: rows that are measured alike, in a TOML file."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from pacs_cbir.errors import RecipeError
from pacs_cbir.learn.recipe import Frozen, read_toml, validate

Seed = Annotated[int, Field(ge=0, lt=2**32)]


class TableRow(Frozen):
    """One row: a method without training, a recipe with changes, or a checkpoint as it is.

    Attributes:
        baseline: a name in `pacs_cbir.learn.baselines`.
        recipe: a file beside the table, or a name of the package's own.
        changes: settings of the recipe that this row has otherwise.
        checkpoint: a .safetensors file, or "shipped".
        against: another row, such as what this one starts from: rankings show the paired difference to it.
    """

    name: str = Field(min_length=1)
    baseline: str | None = None
    recipe: str | None = None
    changes: dict[str, Any] = Field(default_factory=dict)
    checkpoint: str | None = None
    against: str | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if sum(kind is not None for kind in (self.baseline, self.recipe, self.checkpoint)) != 1:
            raise ValueError(f"row {self.name!r} needs one of baseline, recipe and checkpoint")
        return self


class Simulated(Frozen):
    """A cohort in the place of a manifest."""

    seed: Seed = 0
    patients: int = Field(ge=4)


class Table(Frozen):
    """Rows that are measured alike.

    Attributes:
        title: names the results' files.
        protocols: how each row is measured.
        seeds: each recipe is trained with each.
        test_split: the split that is measured on, all others being trained on; without it two folds by patient, of
            which each is trained on once and measured on once.
        changes: recipe → settings that all its rows have otherwise, such as epochs: the budget.
        simulated: the data, where no manifest is given.
        rows_of: another table whose rows come before these.
    """

    title: str = Field(pattern=r"^[a-z0-9-]+$")
    protocols: tuple[Literal["poster", "service", "robustness", "labelled"], ...] = ("poster", "service")
    seeds: tuple[Seed, ...] = (0,)
    test_split: str | None = None
    changes: dict[str, dict[str, Any]] = Field(default_factory=dict)
    simulated: Simulated | None = None
    rows_of: str | None = None
    rows: tuple[TableRow, ...] = ()

    @model_validator(mode="after")
    def _check(self) -> Self:
        names = [row.name for row in self.rows]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"two rows are named {', '.join(twice)}")
        slugs = [slug(name) for name in names]
        alike = [name for name, short in zip(names, slugs, strict=True) if not short or slugs.count(short) > 1]
        if alike:
            raise ValueError(
                f"rows are kept under their letters a-z and digits, and these have none of their own: {alike}"
            )
        lost = sorted({row.against for row in self.rows if row.against is not None} - set(names))
        if self.rows_of is None and lost:
            raise ValueError(f"against names rows that the table has not: {', '.join(lost)}")
        recipes = {row.recipe for row in self.rows}
        if self.rows_of is None and (unused := sorted(set(self.changes) - recipes)):
            raise ValueError(f"changes names recipes that no row is of: {', '.join(unused)}")
        if not self.seeds or not self.protocols or not (self.rows or self.rows_of):
            raise ValueError("a table needs a seed, a protocol and a row")
        for named in (self.seeds, self.protocols):
            if len(set(named)) < len(named):
                raise ValueError(f"{', '.join(map(str, named))}: each seed and protocol counts once")
        if "labelled" in self.protocols and self.test_split is None:
            raise ValueError("the labelled protocol needs a test_split")
        return self


def read_table(path: Path, before: tuple[Path, ...] = ()) -> Table:
    """Read a table with the rows of the one it builds on; a bare name, such as `quick`, is one of the package's own.

    Args:
        before: tables that build on it.

    Raises:
        RecipeError: a file is missing, is no table, or builds on itself.
    """
    if path in before:
        raise RecipeError(f"{path}: rows_of leads back to it; name a table that does not build on this one")
    table = validate(Table, read_toml(path, "tables"), str(path))
    if table.rows_of is None:
        return table
    rows = [*read_table(path.parent / table.rows_of, (*before, path)).rows, *table.rows]
    own = table.model_dump(exclude={"rows_of"})
    return validate(Table, {**own, "rows": [row.model_dump() for row in rows]}, str(path))


def make_table(content: dict[str, Any]) -> Table:
    """A table that is in no file.

    Raises:
        RecipeError: it is none.
    """
    return validate(Table, content, "the table")


def slug(name: str) -> str:
    """A row's or fold's name as the name of a file."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower().replace("×", "x")).strip("-")
