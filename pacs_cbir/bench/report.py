"""What `pacs-cbir bench query` measured, as JSON and as a table in markdown."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict

from pacs_cbir.embed.whole_file import whole_file

NAME = "bench-query"


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Speed(_Frozen):
    """Of one kind of query, asked by so many clients at once.

    Attributes:
        p50, p95, p99: milliseconds from the request to the whole answer.
        per_second: answers.
    """

    clients: int
    p50: float
    p95: float
    p99: float
    per_second: float


class Measured(_Frozen):
    """One kind of query over so many embeddings of slices.

    Attributes:
        bare: milliseconds of the same search in bare faiss, 0 where nothing is searched.
    """

    slices: int
    kind: str
    bare: float
    speeds: tuple[Speed, ...]


class Report(_Frozen):
    """A run, and how it came about.

    Attributes:
        dimension: of the embeddings.
        seconds: for which each kind was asked by each number of clients.
        commit: of the program that ran; with "+" where files differed from it.
    """

    dimension: int
    seconds: float
    device: str
    commit: str
    measured: list[Measured]


def write_report(report: Report, folder: Path) -> None:
    """Write bench-query.json and .md."""
    folder.mkdir(parents=True, exist_ok=True)
    with whole_file(folder / f"{NAME}.json") as file:
        file.write((report.model_dump_json(indent=1) + "\n").encode())
    head = (
        f"Milliseconds from request to answer over HTTP, one machine for clients, API and Postgres; {report.dimension} "
        f"numbers an embedding; {report.seconds:g} s each; {report.device}; commit {report.commit}. Bare faiss: the "
        "same vectors and filter in IndexFlatIP, one thread."
    )
    with whole_file(folder / f"{NAME}.md") as file:
        file.write(f"{head}\n\n{table(report)}\n".encode())


def table(report: Report) -> str:
    """A row for each size and kind."""
    clients = [speed.clients for speed in report.measured[0].speeds]
    titles = ["slices", "query", "bare faiss", "p50", "p95", "p99", "p50 ÷ bare", "p50 − 2 × bare"]
    for many in clients[1:]:
        titles += [f"p50, {many} clients", "p99"]
    titles += [f"answers/s, {many}" for many in clients]
    lines = [titles, ["---"] * len(titles)]
    for one in report.measured:
        first, *others = one.speeds
        compared = [f"{first.p50 / one.bare:.1f}", f"{first.p50 - 2 * one.bare:.1f}"] if one.bare else ["–", "–"]
        line = [f"{one.slices:,}", one.kind, _ms(one.bare), *map(_ms, (first.p50, first.p95, first.p99)), *compared]
        for speed in others:
            line += [_ms(speed.p50), _ms(speed.p99)]
        lines.append([*line, *(f"{speed.per_second:.0f}" for speed in one.speeds)])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _ms(milliseconds: float) -> str:
    return f"{milliseconds:.2f}" if milliseconds < 10 else f"{milliseconds:.0f}"
