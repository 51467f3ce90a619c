"""A row of a table → something that ranks: a baseline, a recipe that is trained first, or a checkpoint as it is."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pacs_cbir.embed.checkpoint import Training, default_checkpoint_path, load_checkpoint
from pacs_cbir.embed.preprocess import Preprocessing
from pacs_cbir.errors import CheckpointError, RecipeError, TableError
from pacs_cbir.learn.baselines import GreyHistogram, OracleIou, OracleIouHistogram, Pixels, RandomOrder
from pacs_cbir.learn.methods import Ranking, ranking
from pacs_cbir.learn.recipe import Recipe, digest, read_recipe
from pacs_cbir.learn.stacks import Stack
from pacs_cbir.learn.table import Table, TableRow
from pacs_cbir.learn.train import fingerprint, train
from pacs_cbir.learn.weights import check_start, training_of_start

BASELINES: dict[str, Callable[[str], Ranking]] = {
    "random-order": RandomOrder,
    "grey-histogram": GreyHistogram,
    "pixels": Pixels,
    "oracle-iou": OracleIou,
    "oracle-iou-histogram": OracleIouHistogram,
}
SHIPPED = "shipped"


@dataclass(frozen=True)
class Entry:
    """A row that is ready to be measured.

    Attributes:
        preprocessing: how its slices are drawn.
        identity: equal for rows that would be measured to be the same.
        seeded: whether another seed makes another row.
        make: stacks to train on, seed, folder for checkpoints, and what its progress is called → the row.
        training: of the checkpoint that it is or starts from; None for none.
    """

    preprocessing: Preprocessing
    identity: str
    seeded: bool
    make: Callable[[Sequence[Stack], int, Path, str], Ranking]
    training: Training | None = None


@dataclass(frozen=True)
class Rows:
    """Where rows find what they name.

    Attributes:
        folder: recipes and checkpoints are looked up here first.
        weights: file that recipes with `init = "pretrained"` start from; None for torchvision's own.
    """

    table: Table
    folder: Path
    weights: Path | None

    def check(self) -> None:
        """Look at what every row names, before the first is trained.

        Raises:
            TableError: with all faults.
        """
        faults, started = [], set()
        for row in self.table.rows:
            try:
                self.resolve(row)
                if row.recipe is not None:
                    recipe = self._recipe(row)
                    start = digest(recipe.architecture, recipe.init, recipe.masks)
                    if start not in started:
                        check_start(recipe, self.weights)
                    started.add(start)
            except (RecipeError, CheckpointError) as error:
                faults.append(f"row {row.name!r}: {error}")
        if faults:
            raise TableError(self.table.title, faults)

    def resolve(self, row: TableRow) -> Entry:
        """Find what a row is.

        Raises:
            RecipeError: no such baseline or recipe.
            CheckpointError: the checkpoint cannot be read.
        """
        if row.baseline is not None:
            return _baseline(row.name, row.baseline)
        if row.checkpoint is not None:
            path = default_checkpoint_path() if row.checkpoint == SHIPPED else self.folder / row.checkpoint
            return _checkpoint(row.name, path)
        return self._trained(row.name, self._recipe(row))

    def _recipe(self, row: TableRow) -> Recipe:
        name = str(row.recipe)
        return read_recipe(self.folder / name).changed(self.table.changes.get(name, {})).changed(row.changes)

    def _trained(self, name: str, recipe: Recipe) -> Entry:
        start = ""
        if recipe.init == "shipped":
            start = load_checkpoint(default_checkpoint_path()).card.weights_sha256
        elif recipe.init == "pretrained" and self.weights is not None:
            start = _sha256_of(self.weights)

        def make(stacks: Sequence[Stack], seed: int, folder: Path, shown: str) -> Ranking:
            # Rows that differ in how they are measured alone share what was trained.
            out = folder / digest(recipe.training, start, seed, fingerprint(stacks))[:24]
            trained = train(recipe, stacks, seed=seed, out=out, weights=self.weights, named_by_run=True, shown=shown)
            return ranking(name, trained, recipe, stacks)

        # Weights as they are know no chance.
        seeded = bool(recipe.epochs) or recipe.init == "random"
        training = training_of_start(recipe, self.weights)
        return Entry(recipe.preprocessing, digest(recipe, start), seeded, make, training)


def _sha256_of(weights: Path) -> str:
    try:
        return hashlib.sha256(weights.read_bytes()).hexdigest()
    except OSError as error:
        raise RecipeError(f"{weights} cannot be read: {error.strerror}; name another with --weights") from error


def _baseline(name: str, baseline: str) -> Entry:
    if baseline not in BASELINES:
        raise RecipeError(f"there is no baseline {baseline!r}; there are: {', '.join(BASELINES)}")
    return Entry(Preprocessing(), digest(baseline), seeded=False, make=lambda *_: BASELINES[baseline](name))


def _checkpoint(name: str, path: Path) -> Entry:
    checkpoint = load_checkpoint(path)
    return Entry(
        checkpoint.card.preprocessing,
        checkpoint.identity("measured"),
        seeded=False,
        make=lambda *_: ranking(name, {"": checkpoint}, Recipe()),
        training=checkpoint.card.training,
    )
