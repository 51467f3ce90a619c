from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from painted_stacks import painted_stacks
from PIL import Image

from pacs_cbir.learn.baselines import OracleIou
from pacs_cbir.learn.contact_sheet import draw_contact_sheet
from pacs_cbir.learn.relevance import gfd_d95, relevance


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that are saved, before they are pixels."""
    figures: list[Figure] = []
    save = Figure.savefig

    def keep(figure: Figure, *arguments: object, **options: object) -> None:
        figures.append(figure)
        save(figure, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Figure, "savefig", keep)
    return figures


def test_a_contact_sheet_says_what_it_shows(drawn: list[Figure], tmp_path: Path) -> None:
    stacks = painted_stacks(8)
    draw_contact_sheet(OracleIou(), stacks, gfd_d95(stacks), tmp_path / "sheet.png", dataset="8 painted patients")
    [figure] = drawn
    assert figure.get_suptitle() == (
        "oracle IoU: FLAIR, best slices (the poster's protocol)\n8 painted patients; outlined: the lesion"
    )
    flair = [stack for stack in stacks if stack.sequence == "FLAIR"]
    alike = OracleIou().similarities(flair, flair)
    relevant = relevance(flair, flair, gfd_d95(stacks)).mean
    titles = [axes.get_title() for axes in figure.axes]
    assert len(titles) == 4 * 6
    for line in range(4):
        others = [i for i in np.argsort(-alike[line], kind="stable") if i != line]
        assert titles[6 * line] == f"query\n{flair[line].patient}"
        assert titles[6 * line + 1] == (
            f"1: similarity {alike[line, others[0]]:.3f}\nrelevance {relevant[line, others[0]]:.2f}"
        )
    with Image.open(tmp_path / "sheet.png") as image:
        shown = np.asarray(image.convert("L"))
    assert all(column.std() > 10 for column in np.array_split(shown, 6, axis=1))


def test_a_small_gallery_makes_a_small_sheet(drawn: list[Figure], tmp_path: Path) -> None:
    stacks = painted_stacks(2)
    draw_contact_sheet(OracleIou(), stacks, gfd_d95(stacks), tmp_path / "sheet.png", dataset="2 painted patients")
    [figure] = drawn
    assert len(figure.axes) == 2 * 2
    assert all(axes.images for axes in figure.axes)
