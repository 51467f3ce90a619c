"""What each batch of training shows: which stacks, which of their slices, and what of it belongs together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt
import torch

from pacs_cbir.errors import RecipeError
from pacs_cbir.learn.recipe import Recipe
from pacs_cbir.learn.stacks import Stack

Integers = npt.NDArray[np.intp]


@dataclass(frozen=True)
class Batch:
    """v views of s slices each; all of length n = v * s, view by view, where not said otherwise.

    Attributes:
        images: float32 (n, 1, size, size) in [0, 1].
        masks: float32 (n, 1, size, size), 0 or 1; 0 where not known.
        known: bool (n,), whether the mask is known.
        sequences: int (n,), equal for slices of like sequences.
        labels: int (v,), equal for views that belong together.
        classes: int (v,), of their labels; -1 where there is none.
        groups: int (v,), from 0 up: views that must be mirrored alike, since the side of a lesion tells patients apart.
    """

    images: torch.Tensor
    masks: torch.Tensor
    known: torch.Tensor
    sequences: torch.Tensor
    labels: torch.Tensor
    classes: torch.Tensor
    groups: torch.Tensor

    def to(self, device: str) -> Batch:
        """On a device."""
        return Batch(**{field.name: getattr(self, field.name).to(device) for field in fields(self)})

    def comparable(self) -> torch.Tensor:
        """Bool (n, n): other slices of like sequences, where relevance is known."""
        alike = (self.sequences[:, None] == self.sequences) & self.known[:, None] & self.known
        return alike.fill_diagonal_(False)


class Drawing:
    """The stacks that a recipe can train on, and the batches that it sees of them."""

    def __init__(self, stacks: Sequence[Stack], recipe: Recipe) -> None:
        """Choose the slices that may be drawn.

        Raises:
            RecipeError: no stack is left, or too little is unlike for the recipe's contrast.
        """
        shown = [(stack, _drawable(stack, recipe)) for stack in stacks]
        self._stacks = [(stack, slices) for stack, slices in shown if len(slices)]
        self._recipe = recipe
        if not self._stacks:
            raise RecipeError(f'none of {len(stacks)} stacks has a lesion mask: train with slices = "all"')
        names = [self._class_of(stack, number) for number, (stack, _) in enumerate(self._stacks)]
        _, self._classes = np.unique(names, return_inverse=True)
        _, self._sequences = np.unique([stack.sequence for stack, _ in self._stacks], return_inverse=True)
        classes = int(self._classes.max()) + 1
        if recipe.positives in {"picture", "patient", "label"} and classes < 2:
            raise RecipeError(f"contrast by {recipe.positives} needs two of them or more, and there is one")
        self._by_class = recipe.positives in {"picture", "patient", "label"}
        self._views = recipe.views if self._by_class else 1
        self._batch = min(recipe.groups_a_batch, classes) * self._views
        if not self._by_class:
            self._batch = min(recipe.groups_a_batch * recipe.views, len(self._stacks))
        draws = [recipe.draws_a_stack if self._by_class else min(recipe.draws_a_stack, len(s)) for _, s in self._stacks]
        self._draws = np.repeat(np.arange(len(self._stacks)), draws)
        self._chances = _chances([stack.split for stack, _ in self._stacks], recipe) if recipe.shares else None
        self.batches = -(-len(self._draws) // (recipe.slices_a_view * self._batch))
        known = sorted({stack.label for stack, _ in self._stacks if stack.label is not None})
        self._labels = np.array([-1 if s.label is None else known.index(s.label) for s, _ in self._stacks])

    def _class_of(self, stack: Stack, number: int) -> str:
        if self._recipe.positives == "label" and stack.label is None:
            raise RecipeError("contrast by label needs a label for every row of the manifest; some have none")
        known = {"patient": stack.patient, "label": stack.label}.get(self._recipe.positives)
        return f"{number:09d}" if known is None else known

    def epoch(self, seed: int, epoch: int) -> Iterator[Batch]:
        """The batches of one epoch: always the same for the same seed and epoch."""
        rng = np.random.default_rng((seed, epoch))
        views = self.batches * self._batch
        if self._by_class:
            order = [number for _ in range(self.batches) for number in self._some_of_each_class(rng)]
        elif self._chances is not None:
            order = rng.choice(len(self._stacks), views, p=self._chances).tolist()
        else:
            passes = -(-views // len(self._draws))
            order = np.concatenate([rng.permutation(self._draws) for _ in range(passes)])[:views].tolist()
        for start in range(0, views, self._batch):
            yield self._show(order[start : start + self._batch], rng)

    def _some_of_each_class(self, rng: np.random.Generator) -> list[int]:
        """The stacks of one batch: some classes, `views` of each, of few the same several times.

        As pytorch-metric-learning's MPerClassSampler draws them. To import it is to import faiss.contrib.torch_utils,
        which replaces the search that the service's index calls by one that cannot leave anything out.
        """
        chosen = rng.permutation(int(self._classes.max()) + 1)[: self._batch // self._views]
        of_class = [np.flatnonzero(self._classes == number) for number in chosen]
        return [int(i) for own in of_class for i in rng.choice(own, self._views, replace=len(own) < self._views)]

    def _show(self, views: list[int], rng: np.random.Generator) -> Batch:
        recipe = self._recipe
        chosen: list[tuple[int, Integers]] = []
        for place, number in enumerate(views):
            same_picture = recipe.positives == "picture" and place % self._views
            chosen.append(chosen[-1] if same_picture else (number, self._choose(number, rng)))
        labels = self._classes[views]
        if recipe.positives == "picture":  # a picture is a slice: in a memory it meets other slices of its stack
            labels = np.array([number * 10_000 + int(slices[0]) for number, slices in chosen])
        alike = self._views if recipe.positives in {"picture", "patient"} else 1
        groups = np.arange(len(views)) // alike
        repeated = np.repeat([number for number, _ in chosen], recipe.slices_a_view)
        stacks = [(self._stacks[number][0], slices) for number, slices in chosen]
        images = np.concatenate([stack.pixels[slices] for stack, slices in stacks])
        masks = [np.zeros((len(k), *s.pixels.shape[1:]), bool) if s.masks is None else s.masks[k] for s, k in stacks]
        return Batch(
            images=torch.from_numpy(images.astype(np.float32))[:, None],
            masks=torch.from_numpy(np.concatenate(masks).astype(np.float32))[:, None],
            known=torch.tensor([self._stacks[number][0].masks is not None for number in repeated]),
            sequences=torch.from_numpy(self._sequences[repeated]),
            labels=torch.from_numpy(labels.astype(np.int64)),
            classes=torch.from_numpy(self._labels[views]),
            groups=torch.from_numpy(groups),
        )

    def _choose(self, number: int, rng: np.random.Generator) -> Integers:
        """Slices of one view, ascending; of few the same one several times."""
        slices, wanted = self._stacks[number][1], self._recipe.slices_a_view
        return np.sort(rng.choice(slices, wanted, replace=len(slices) < wanted))


def _chances(splits: Sequence[str | None], recipe: Recipe) -> npt.NDArray[np.float64]:
    """Of each stack to be drawn next, so that each split gets its share."""
    names = [split or "" for split in splits]
    if set(names) != set(recipe.shares):
        have, named = (", ".join(sorted(s)) or "none" for s in (set(names), set(recipe.shares)))
        raise RecipeError(f"shares must name the splits that are trained on ({have}), and names {named}")
    chances = np.array([recipe.shares[name] / names.count(name) for name in names])
    return chances / chances.sum()  # type: ignore[no-any-return]


def _drawable(stack: Stack, recipe: Recipe) -> Integers:
    everything = np.arange(len(stack.pixels))
    if recipe.slices == "all" or len(everything) == 1:
        return everything
    if recipe.slices == "best":
        return everything[:0] if stack.best is None else np.array([stack.best])
    return everything[:0] if stack.masks is None else np.flatnonzero(stack.masks.any(axis=(1, 2)))
