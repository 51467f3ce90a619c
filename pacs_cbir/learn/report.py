"""Measured rows → what people read: JSON, a table in markdown, and plots."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure as Plot
from pydantic import BaseModel, ConfigDict, Field

from pacs_cbir import __version__
from pacs_cbir.embed.whole_file import whole_file
from pacs_cbir.learn.comparison import Difference, Robustness, paired
from pacs_cbir.learn.labelled import LabelledResult
from pacs_cbir.learn.manifest import UNKNOWN_PATIENT
from pacs_cbir.learn.results import Figure, Origin, Result, small_galleries

NO_FIGURE = "–"
HISTOGRAM = "grey histogram"
"""The row that all others of a table are compared with."""


class Report(BaseModel):
    """Rows under one protocol, and how they came about.

    Attributes:
        split: fold → the patients that it measures, as the manifest names them: pseudonyms or public names.
        device: what it ran on.
        commit: of the program that wrote it; with "+" where files differ from it.
        table: digest of the table.
        rows: figures without the single queries, and the row's `Origin`; `above_histogram` is the paired difference to
            the grey histogram, `above_row` that to the row which `against` names.
        failed: rows that could not be measured, and why.
        origins: of the rows, by name; written with them.
        against: row → the other that the table compares it with.
    """

    model_config = ConfigDict(frozen=True)

    title: str
    dataset: str
    protocol: str
    split: dict[str, list[str]]
    seeds: tuple[int, ...]
    device: str
    commit: str
    table: str
    rows: list[dict[str, Any]]
    failed: dict[str, str]
    origins: dict[str, Origin] = Field(default_factory=dict, exclude=True)
    against: dict[str, str] = Field(default_factory=dict, exclude=True)


def write_report(
    report: Report, results: Sequence[Result | LabelledResult | Robustness], folder: Path, protocol: str
) -> None:
    """Write TITLE-PROTOCOL.json, .md and .png, and -sequences.png where rankings are shown by sequence.

    Args:
        report: all but its rows, which are taken from `results`.
    """
    base = folder / f"{report.title}-{protocol}"
    by_label = [result for result in results if isinstance(result, LabelledResult)]
    ranked = [result for result in results if isinstance(result, Result)]
    changed = [result for result in results if isinstance(result, Robustness)]
    above = _above(ranked, {result.name: HISTOGRAM for result in ranked if result.name != HISTOGRAM})
    above_row = _above(ranked, report.against)
    rows = [result.model_dump(mode="json", exclude={"per_query"}) for result in by_label]
    rows += [
        {
            **result.model_dump(mode="json", exclude={"queries"}),
            "above_histogram": _plain(above.get(result.name)),
            "against": report.against.get(result.name),
            "above_row": _plain(above_row.get(result.name)),
        }
        for result in ranked
    ]
    for robust in changed:
        falls = {name: fall.model_dump(mode="json") for name, fall in robust.falls.items()}
        rows.append({**robust.unchanged.model_dump(mode="json", exclude={"queries"}), "falls": falls})
    origins = report.origins
    full = report.model_copy(
        update={"rows": [row | (origins[row["name"]].model_dump() if row["name"] in origins else {}) for row in rows]}
    )
    with whole_file(base.with_suffix(".json")) as file:
        file.write((full.model_dump_json(indent=1) + "\n").encode())
    table = _labelled_table(by_label) if by_label else _ranked_table(ranked, above, report.against, above_row)
    words = next((r.unchanged.protocol if isinstance(r, Robustness) else r.protocol for r in results), protocol)
    if changed:
        table = _robustness_table(changed)
        words = f"{words}; how far nDCG@5 falls when the query's picture is changed (95 %), relevance staying"
    head = f"{report.dataset}, {words}; seeds {report.seeds}; {report.device}."
    plain = [*ranked, *(result.unchanged for result in changed)]
    notes = list(dict.fromkeys(note for result in plain if (note := small_galleries(result))))
    notes += [warning for name, origin in origins.items() if (warning := origin.warning(name))]
    notes += [f"left out: {name}: {reason}" for name, reason in report.failed.items()]
    listed = "".join(f"\n- {note}" for note in notes)
    with whole_file(base.with_suffix(".md")) as file:
        file.write(f"{head}\n\n{table}\n{listed}\n".encode())
    if by_label:
        figures_of = [(r.name, r.map, *r.intervals["map"]) for r in by_label]
        named = all(not query.patient.startswith(UNKNOWN_PATIENT) for result in by_label for query in result.per_query)
        over = "patients" if named else "studies, where patients are not known"
        _plot_rows(figures_of, "mAP", base.with_suffix(".png"), over)
    elif changed:
        _plot_falls(changed, base.with_suffix(".png"))
    elif ranked:
        _plot_rows([(r.name, r.ndcg5, *r.interval) for r in ranked], "nDCG@5", base.with_suffix(".png"))
        _plot_sequences(ranked, base.with_name(f"{base.name}-sequences.png"))


def _above(results: Sequence[Result], against: Mapping[str, str]) -> dict[str, Difference]:
    """Row → its paired difference to the other, of those that are both there."""
    there = {result.name: result for result in results}
    return {
        name: paired(there[name], there[other]) for name, other in against.items() if name in there and other in there
    }


def _plain(difference: Difference | None) -> dict[str, Any] | None:
    return None if difference is None else difference.model_dump(mode="json")


def _ranked_table(
    results: Sequence[Result],
    above: Mapping[str, Difference],
    against: Mapping[str, str],
    above_row: Mapping[str, Difference],
) -> str:
    sequences = sorted({sequence for result in results for sequence in result.by_sequence})
    components = list(results[0].by_component) if results else []
    titles = ["", "nDCG@5 (95 %)", "@10", "@20", "skill@5", *components, *sequences, f"above {HISTOGRAM} (95 %)"]
    titles += ["above another row (95 %)"] if above_row else []
    lines = [titles, ["---"] * len(titles)]
    for result in results:
        others = [_show_difference(above_row.get(result.name), against.get(result.name, ""))] if above_row else []
        lines.append(
            [
                result.name,
                show_with_interval(result.ndcg5, result.interval),
                *(show(figure) for figure in (result.ndcg10, result.ndcg20, result.skill5)),
                *(show(result.by_component[c].ndcg5 if c in result.by_component else None) for c in components),
                *(show(result.by_sequence[s].ndcg5 if s in result.by_sequence else None) for s in sequences),
                _show_difference(above.get(result.name)),
                *others,
            ]
        )
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _show_difference(difference: Difference | None, other: str = "") -> str:
    if difference is None:
        return NO_FIGURE
    shown = show_with_interval(difference.ndcg5, difference.interval, " to ")
    return f"{other}: {shown}" if other else shown


def _labelled_table(results: Sequence[LabelledResult]) -> str:
    lines = [["", "mAP (95 %)", "P@5", "P@10", "queries"], ["---"] * 5]
    for result in results:
        figures = [show_with_interval(result.map, result.intervals["map"]), show(result.precision5)]
        lines.append([result.name, *figures, show(result.precision10), str(result.queries)])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _robustness_table(results: Sequence[Robustness]) -> str:
    changes = list(results[0].falls)
    lines = [["", "unchanged", *changes], ["---"] * (len(changes) + 2)]
    for result in results:
        falls = (result.falls[change] for change in changes)
        shown = [show_with_interval(fall.ndcg5, fall.interval, " to ") for fall in falls]
        lines.append([result.unchanged.name, show(result.unchanged.ndcg5), *shown])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def show(figure: Figure) -> str:
    """Three places, or that there is none."""
    return NO_FIGURE if figure is None else f"{figure:.3f}"


def show_with_interval(figure: Figure, interval: tuple[Figure, Figure], between: str = "–") -> str:
    """A figure and, where there is one, its interval."""
    return NO_FIGURE if figure is None else f"{show(figure)} ({show(interval[0])}{between}{show(interval[1])})"


def _plot_rows(
    figures: Sequence[tuple[str, Figure, Figure, Figure]], title: str, path: Path, over: str = "patients"
) -> None:
    """Each row's figure with its interval, the table's first row on top."""
    plot = Plot(figsize=(8, 1 + 0.28 * len(figures)), layout="constrained")
    axes = plot.subplots()
    for place, (_, mean, low, high) in enumerate(figures):
        axes.plot([_number(low), _number(high)], [place, place], color="0.6", linewidth=3)
        axes.plot(_number(mean), place, "o", color="C0", markersize=5)
    axes.set_yticks(range(len(figures)), [figure[0] for figure in figures])
    axes.invert_yaxis()
    axes.set_xlabel(f"{title}, 95 % interval over {over}")
    axes.grid(axis="x", alpha=0.3)
    _save_plot(plot, path)


def _plot_sequences(results: Sequence[Result], path: Path) -> None:
    sequences = sorted({sequence for result in results for sequence in result.by_sequence})
    plot = Plot(figsize=(8, 1 + 0.28 * len(results)), layout="constrained")
    axes = plot.subplots()
    for number, sequence in enumerate(sequences):
        shown = [(result.by_sequence[sequence].ndcg5 if sequence in result.by_sequence else None) for result in results]
        axes.plot([_number(f) for f in shown], range(len(results)), "osD^vP*X"[number % 8], label=sequence, alpha=0.8)
    axes.set_yticks(range(len(results)), [result.name for result in results])
    axes.invert_yaxis()
    axes.set_xlabel("nDCG@5 by sequence")
    axes.grid(alpha=0.3)
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1))
    _save_plot(plot, path)


def _plot_falls(results: Sequence[Robustness], path: Path) -> None:
    """Rows by changes, the darker the farther nDCG@5 falls."""
    changes = list(results[0].falls)
    falls = np.array([[_number(result.falls[change].ndcg5) for change in changes] for result in results])
    plot = Plot(figsize=(3 + 0.6 * len(changes), 2 + 0.3 * len(results)), layout="constrained")
    axes = plot.subplots()
    axes.imshow(falls, cmap="Reds", vmin=0, vmax=0.15, aspect="auto")
    for (row, column), fall in np.ndenumerate(falls):
        axes.text(column, row, f"{fall:.2f}", ha="center", va="center", fontsize=7, color="w" if fall > 0.1 else "k")
    axes.set_xticks(range(len(changes)), changes, rotation=40, ha="right")
    axes.set_yticks(range(len(results)), [result.unchanged.name for result in results])
    axes.set_title("fall of nDCG@5 with the query changed")
    _save_plot(plot, path)


def device_in_words() -> str:
    """What trains and embeds here."""
    if torch.cuda.is_available():
        return f"GPU {torch.cuda.get_device_name()}"
    return f"CPU, {torch.get_num_threads()} threads"


@cache
def commit_of_program() -> str:
    """The commit this runs from; the version where it is installed without its repository.

    Asked once: the files may change while a table is measured, the program that runs does not.
    """
    git, here = shutil.which("git"), Path(__file__).parents[2]
    if git is None or not (here / ".git").exists():
        return __version__
    asked = [[git, "-C", str(here), "rev-parse", "HEAD"], [git, "-C", str(here), "status", "--porcelain", "-uno"]]
    head, changed = (subprocess.run(one, capture_output=True, text=True, check=False).stdout.strip() for one in asked)
    return f"{head}+" if changed else head or __version__


def _save_plot(plot: Plot, path: Path) -> None:
    with whole_file(path) as file:
        plot.savefig(file, dpi=110, format="png")


def _number(figure: Figure) -> float:
    return float("nan") if figure is None else figure
