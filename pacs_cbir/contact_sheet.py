"""A picture of an answer: the example above its matches, a row each, a column a sequence; drawn over REST alone."""

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

MIDDLE = 0.5
CELL_INCHES = 2.2
BACKGROUND, FOREGROUND, ACCENT = "#0f1115", "#d7dae0", "#f2b84b"
PREFERRED_ORDER = ("T1", "T1CE", "T2", "FLAIR")


def write_contact_sheet(
    url: str, query: str, matches: Sequence[Mapping[str, Any]], folder: Path, heights: Mapping[str, float]
) -> Path:
    """Draw contact-sheet.png.

    Args:
        url: the API.
        query: the example's Study Instance UID.
        matches: plain JSON answers of /similar/studies, best first.
        heights: Study Instance UID → which slice to show, 0 at the first position of a stack, 1 at the last;
            the middle one for studies that it lacks.

    Returns:
        the picture's path.
    """
    rows: list[tuple[str, str, dict[str, str]]] = [("the example", query, _example_series(matches))]
    rows += [
        (
            f"{rank}. similarity {match['similarity']:.3f}",
            match["StudyInstanceUID"],
            {series["sequence"]: series["SeriesInstanceUID"] for series in reversed(match["series"])},
        )
        for rank, match in enumerate(matches, start=1)
    ]
    sequences = _ordered({sequence for _, _, series in rows for sequence in series})
    with httpx.Client(base_url=url, timeout=60) as client:
        pictures = [
            [_picture(client, study, series.get(sequence), heights.get(study, MIDDLE)) for sequence in sequences]
            for _, study, series in rows
        ]
    path = folder / "contact-sheet.png"
    _draw([title for title, _, _ in rows], sequences, pictures).savefig(path, dpi=110, facecolor=BACKGROUND)
    return path


def _example_series(matches: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """The example's series by sequence, as the matches name them."""
    return {series["sequence"]: series["like"] for match in reversed(matches) for series in reversed(match["series"])}


def _ordered(sequences: set[str]) -> list[str]:
    known = [sequence for sequence in PREFERRED_ORDER if sequence in sequences]
    return known + sorted(sequences - set(known))


def _picture(client: httpx.Client, study: str, series: str | None, height: float) -> npt.NDArray[np.uint8] | None:
    if series is None:
        return None
    base = f"/dicom-web/studies/{study}/series/{series}/instances"
    listed = client.get(base, params={"includefield": "ImagePositionPatient,NumberOfFrames", "limit": 1000})
    instances = sorted(listed.raise_for_status().json(), key=_position)
    instance = instances[round(height * (len(instances) - 1))]
    frames = int((instance.get("00280008", {}).get("Value") or [1])[0])
    frame = 1 + round(height * (frames - 1))
    path = f"{base}/{instance['00080018']['Value'][0]}/frames/{frame}/rendered"
    answer = client.get(path, headers={"Accept": "image/png"})
    if not answer.is_success:
        return None
    return np.asarray(Image.open(io.BytesIO(answer.content)).convert("L"))


def _position(instance: Mapping[str, Any]) -> tuple[float, ...]:
    """Feet to head for axial slices; any order that the positions give for others."""
    position = instance.get("00200032", {}).get("Value")
    number = (instance.get("00200013", {}).get("Value") or [0])[0]
    return tuple(reversed([float(value) for value in position])) if position else (float(number),)


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
