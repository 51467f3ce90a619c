"""A row's matches as a picture: simulated queries, and what the row finds nearest, with how alike and how relevant."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Plot
from PIL import Image

from pacs_cbir.embed.whole_file import whole_file
from pacs_cbir.learn.method import Method
from pacs_cbir.learn.relevance import relevance
from pacs_cbir.learn.stacks import Stack

QUERIES, MATCHES = 4, 5
SHOWN = "FLAIR"
"""Shown if it is there: lesions stand out in it."""
TONES = 48
"""Of the file: enough for grey levels and one colour, and a third of its size."""


def draw_contact_sheet(method: Method, stacks: Sequence[Stack], d95: float, path: Path, *, dataset: str) -> None:
    """A line a query: the query first, then its nearest by the poster's protocol, each with the outline of its lesion.

    For simulated patients alone: a sheet is published, and pictures of real ones are not ours to publish.

    Args:
        stacks: of one fold; those without picture or lesion are not shown.
        d95: of `gfd_d95` over the whole data set.
        dataset: what the patients are, for people.
    """
    known = [stack for stack in stacks if stack.picture is not None and stack.truth is not None and stack.truth.any()]
    sequences = {stack.sequence for stack in known}
    shown = SHOWN if SHOWN in sequences else min(sequences)
    gallery = [stack for stack in known if stack.sequence == shown]
    queries = gallery[:QUERIES]
    similarities = np.array(method.similarities(queries, gallery))
    relevances = relevance(queries, gallery, d95).mean
    nearest = [
        [i for i in np.argsort(-alike, kind="stable") if gallery[i].patient != query.patient][:MATCHES]
        for query, alike in zip(queries, similarities, strict=True)
    ]
    columns = 1 + max(map(len, nearest))
    plot = Plot(figsize=(max(1.6 * columns, 6), 1.9 * len(queries) + 0.7), layout="constrained")
    plot.suptitle(
        f"{method.name}: {shown}, best slices (the poster's protocol)\n{dataset}; outlined: the lesion", fontsize=9
    )
    grid = plot.subplots(len(queries), columns, squeeze=False)
    for line, axes in enumerate(grid):
        for one in axes:
            one.set_axis_off()
        _show(axes[0], queries[line], f"query\n{queries[line].patient}")
        for rank, (one, i) in enumerate(zip(axes[1:], nearest[line], strict=False), start=1):
            words = f"{rank}: similarity {similarities[line, i]:.3f}\nrelevance {relevances[line, i]:.2f}"
            _show(one, gallery[i], words)
    _save(plot, path)


def _show(axes: Axes, stack: Stack, words: str) -> None:
    axes.set_title(words, fontsize=7)
    if stack.picture is not None and stack.truth is not None:
        axes.imshow(stack.picture, cmap="gray", vmin=0, vmax=1)
        axes.contour(stack.truth, levels=[0.5], colors="C1", linewidths=0.8)


def _save(plot: Plot, path: Path) -> None:
    drawn = BytesIO()
    plot.savefig(drawn, dpi=110, format="png")
    with whole_file(path) as file:
        Image.open(drawn).convert("RGB").quantize(TONES, dither=Image.Dither.NONE).save(file, "PNG", optimize=True)
