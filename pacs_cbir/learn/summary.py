"""The figures of one row, for a terminal."""

from __future__ import annotations

from rich.table import Table

from pacs_cbir.learn.comparison import Robustness
from pacs_cbir.learn.labelled import LabelledResult
from pacs_cbir.learn.report import show, show_with_interval
from pacs_cbir.learn.results import Result


def figures_table(measured: Result | LabelledResult | Robustness) -> Table:
    """One line; of changed queries one a change."""
    match measured:
        case LabelledResult():
            table = Table("mAP (95 %)", "P@5", "P@10", "queries")
            precisions = show(measured.precision5), show(measured.precision10)
            table.add_row(
                show_with_interval(measured.map, measured.intervals["map"]), *precisions, str(measured.queries)
            )
        case Robustness(unchanged=unchanged):
            as_it_is = f"of {show_with_interval(unchanged.ndcg5, unchanged.interval)}"
            table = Table("the query changed", f"nDCG@5 falls by (95 %), {as_it_is}")
            for change, fall in measured.falls.items():
                table.add_row(change, show_with_interval(fall.ndcg5, fall.interval, " to "))
        case Result():
            table = Table("nDCG@5 (95 %)", "@10", "@20", "skill@5", "queries")
            others = map(show, (measured.ndcg10, measured.ndcg20, measured.skill5))
            table.add_row(show_with_interval(measured.ndcg5, measured.interval), *others, str(len(measured.queries)))
    return table
