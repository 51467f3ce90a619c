"""A picture of an answer: the example above its matches, a column a sequence, the slices they share, by REST alone."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx
import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure
from PIL import Image

CELL_INCHES = 2.2
BACKGROUND, FOREGROUND, ACCENT = "#0f1115", "#d7dae0", "#f2b84b"
PREFERRED_ORDER = ("T1", "T1CE", "T2", "FLAIR")


def write_contact_sheet(url: str, query: str, matches: Sequence[Mapping[str, Any]], folder: Path) -> Path:
    """Draw contact-sheet.png: of each series the slice that the answer says to look at.

    Args:
        url: the API.
        query: the example's Study Instance UID.
        matches: plain JSON answers of /similar/studies, best first.

    Returns:
        the picture's path.
    """
    rows = [("the example", _paths(query, _best(matches, example=True)))]
    rows += [
        (f"{rank}. similarity {match['similarity']:.3f}", _paths(match["StudyInstanceUID"], _best([match])))
        for rank, match in enumerate(matches, start=1)
    ]
    sequences = _ordered({sequence for _, paths in rows for sequence in paths})
    with httpx.Client(base_url=url, timeout=60) as client:
        pictures = [[_picture(client, paths.get(sequence)) for sequence in sequences] for _, paths in rows]
    path = folder / "contact-sheet.png"
    _draw([title for title, _ in rows], sequences, pictures).savefig(path, dpi=110, facecolor=BACKGROUND)
    return path


def _best(matches: Sequence[Mapping[str, Any]], *, example: bool = False) -> dict[str, tuple[str, Mapping[str, Any]]]:
    """Sequence → series and slice: of the best match that has it, or what of the example it is like."""
    return {
        series["sequence"]: (series["like"], series["slice"]["like"])
        if example
        else (series["SeriesInstanceUID"], series["slice"])
        for match in reversed(matches)
        for series in reversed(match["series"])
        if "slice" in series
    }


def _paths(study: str, slices: Mapping[str, tuple[str, Mapping[str, Any]]]) -> dict[str, str]:
    """Sequence → where its slice is rendered."""
    return {
        sequence: f"/dicom-web/studies/{study}/series/{series}/instances/{picture['SOPInstanceUID']}"
        f"/frames/{picture['frame']}/rendered"
        for sequence, (series, picture) in slices.items()
    }


def _ordered(sequences: set[str]) -> list[str]:
    known = [sequence for sequence in PREFERRED_ORDER if sequence in sequences]
    return known + sorted(sequences - set(known))


def _picture(client: httpx.Client, path: str | None) -> npt.NDArray[np.uint8] | None:
    answer = None if path is None else client.get(path, headers={"Accept": "image/png"})
    if answer is None or not answer.is_success:
        return None
    return np.asarray(Image.open(io.BytesIO(answer.content)).convert("L"))


def _draw(
    titles: Sequence[str], sequences: Sequence[str], pictures: Sequence[Sequence[npt.NDArray[np.uint8] | None]]
) -> Figure:
    columns = max(1, len(sequences))
    with mpl.rc_context({"text.color": FOREGROUND, "axes.titlecolor": FOREGROUND}):
        figure = Figure(figsize=(columns * CELL_INCHES, len(titles) * (CELL_INCHES + 0.3)), layout="constrained")
        axes = np.atleast_2d(figure.subplots(len(titles), columns, squeeze=False))
        for row, (title, cells) in enumerate(zip(titles, pictures, strict=True)):
            for column, cell in enumerate(cells):
                axis = axes[row, column]
                axis.set_axis_off()
                axis.set_title(
                    f"{title}, {sequences[column]}" if column == 0 else sequences[column],
                    fontsize=8,
                    loc="left",
                    color=ACCENT if row == 0 else FOREGROUND,
                )
                if cell is not None:
                    axis.imshow(cell, cmap="gray", vmin=0, vmax=255)
        figure.suptitle("For research and teaching; similarity is of appearance alone", fontsize=7)
    return figure
