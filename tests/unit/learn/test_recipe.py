from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Any

import pytest

from pacs_cbir.errors import RecipeError
from pacs_cbir.learn.recipe import Recipe, digest, read_recipe
from pacs_cbir.learn.rows import Rows
from pacs_cbir.learn.table import make_table, read_table

OWN = Path(str(resources.files("pacs_cbir.learn")))
LGG_STACKS, LGG_SLICES = 229, 4600
TRAINED_A_SECOND, EMBEDDED_A_SECOND = 25, 75


@pytest.mark.parametrize("path", sorted((OWN / "recipes").glob("*.toml")), ids=lambda path: path.stem)
def test_own_recipes_are_found_by_name(path: Path) -> None:
    assert read_recipe(Path(path.stem)) == read_recipe(path)


@pytest.mark.parametrize("path", sorted((OWN / "tables").glob("*.toml")), ids=lambda path: path.stem)
def test_every_row_of_the_own_tables_is_there(path: Path) -> None:
    table = read_table(path)
    for row in table.rows:
        Rows(table, path.parent, None).resolve(row)


def test_the_quick_table_fits_ninety_minutes_on_two_cores() -> None:
    table = read_table(Path("quick"))
    seconds = 0.0
    trained = []
    for row in table.rows:
        if row.recipe is not None:
            recipe = read_recipe(Path(row.recipe)).changed(table.changes.get(row.recipe, {})).changed(row.changes)
            if recipe.training not in trained:  # rows that differ in how they are measured share what was trained
                trained.append(recipe.training)
                seconds += recipe.epochs * recipe.draws_a_stack * LGG_STACKS / TRAINED_A_SECOND
            seconds += LGG_SLICES * (2 if recipe.pooling != "best" else 1) / EMBEDDED_A_SECOND
    assert seconds < 80 * 60  # and some minutes to read the pictures


def test_a_table_changes_each_recipe_by_its_name() -> None:
    content = {"title": "two", "changes": {"plain": {"epochs": 3}}, "rows": [{"name": "a", "recipe": "plain"}]}
    assert make_table(content).changes["plain"] == {"epochs": 3}
    with pytest.raises(RecipeError, match="no row is of: our"):
        make_table({**content, "changes": {"our": {"epochs": 3}}})


def test_the_full_table_has_all_rows_of_the_quick_one_and_three_seeds() -> None:
    full = read_table(Path("full"))
    assert full.rows[: len(read_table(Path("quick")).rows)] == read_table(Path("quick")).rows
    assert len(full.seeds) == 3


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"epoch": 3}, "epoch"),
        ({"parts": {"grey": -1}}, "parts needs"),
        ({"parts": {"grey": 0}}, "parts needs"),
        ({"dimension": 8, "pooling": "late"}, "dimension goes with"),
        ({"views": 1}, "views"),
        ({"memory": 4}, "memory"),
        ({"memory": 64, "positives": "relevance"}, "memory"),
        ({"lesion": 1.0}, "lesion_grid"),
        ({"slices_a_view": 2, "reconstruction": 1.0}, "slices_a_view"),
        ({"positives": "none"}, "nothing is trained"),
        ({"contrast": 0.0}, "nothing is trained"),
        ({"size": 100}, "size"),
        ({"augmentation": {"turn": -1}}, "augmentation.turn"),
        ({"learning_rate": float("inf")}, "learning_rate"),
        ({"parts": {"grey": float("inf")}}, "parts.grey"),
        ({"architecture": {"grey_levels": 8, "weights": {"grey": float("inf")}}}, "architecture.weights.grey"),
    ],
)
def test_settings_that_cannot_work_are_refused_by_name(settings: dict[str, Any], complaint: str) -> None:
    with pytest.raises(RecipeError, match=complaint):
        Recipe().changed(settings)


def test_a_change_of_a_nested_setting_leaves_its_neighbours() -> None:
    recipe = Recipe().changed({"augmentation": {"turn": 0.5}}).changed({"augmentation": {"flip": True}})
    assert (recipe.augmentation.turn, recipe.augmentation.flip) == (0.5, True)
    grey = Recipe().changed({"architecture": {"grey_levels": 64, "weights": {"grey": 1.0}}})
    assert grey.architecture.sizes == {"grey": 64}


def test_digests_tell_recipes_apart() -> None:
    assert digest(Recipe()) == digest(Recipe().changed({"epochs": 10}))
    assert digest(Recipe()) != digest(Recipe().changed({"augmentation": {"noise": 0.01}}))


def test_what_is_not_there_is_named_with_what_is() -> None:
    with pytest.raises(RecipeError, match="ours"):
        read_recipe(Path("hours"))
    with pytest.raises(RecipeError, match="quick"):
        read_table(Path("slow"))


def test_a_file_that_is_no_toml_is_refused(tmp_path: Path) -> None:
    (tmp_path / "bad.toml").write_text("epochs = = 3")
    with pytest.raises(RecipeError, match=r"bad\.toml"):
        read_recipe(tmp_path / "bad.toml")


@pytest.mark.parametrize("name", [".", "", "/", "a\0b", "a" * 5000])
def test_what_names_no_file_is_refused(name: str) -> None:
    with pytest.raises(RecipeError, match=r"names no file|cannot be read"):
        read_recipe(Path(name))
    with pytest.raises(RecipeError, match=r"names no file|cannot be read"):
        read_table(Path(name))


def test_a_table_that_builds_on_itself_is_refused(tmp_path: Path) -> None:
    for name, other in (("one", "two"), ("two", "one"), ("three", "three")):
        (tmp_path / f"{name}.toml").write_text(f'title = "{name}"\nrows_of = "{other}"\n')
    for name in ("one.toml", "three.toml"):
        with pytest.raises(RecipeError, match="rows_of leads back"):
            read_table(tmp_path / name)


PIXELS = {"name": "a", "baseline": "pixels"}


@pytest.mark.parametrize(
    "content",
    [
        {},
        {"rows": [PIXELS], "protocols": []},
        {"rows": [PIXELS], "protocols": ["poster", "poster"]},
        {"rows": [PIXELS], "seeds": [-1]},
        {"rows": [PIXELS], "seeds": [2**64]},
        {"rows": [PIXELS], "seeds": [1, 1]},
        {"rows": [PIXELS], "simulated": {"seed": -1, "patients": 4}},
        {"rows": [PIXELS | {"against": "another"}]},
        {"rows": [{"name": "a"}]},
        {"rows": [{"name": "a", "baseline": "pixels", "recipe": "ours"}]},
        {"rows": [{"name": "a", "baseline": "pixels"}, {"name": "a", "baseline": "pixels"}]},
        {"rows": [PIXELS], "seeds": []},
        {"rows": [PIXELS], "protocols": ["labelled"]},
    ],
)
def test_tables_that_cannot_work_are_refused(content: dict[str, Any]) -> None:
    with pytest.raises(RecipeError):
        make_table({"title": "bad", **content})


def test_rows_that_would_share_a_file_are_refused() -> None:
    for names in (("Pix", "pix!"), ("日本", "own")):
        with pytest.raises(RecipeError, match="none of their own"):
            make_table({"title": "t", "rows": [{"name": name, "baseline": "pixels"} for name in names]})
