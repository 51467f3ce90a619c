"""Commands that time things: `bench`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

commands = typer.Typer(help="Speeds, as ratios to a peer or ceiling in the same run.", no_args_is_help=True)


@commands.command()
def embed(
    checkpoint: Annotated[Path | None, typer.Argument(help="A .safetensors file; without it the packaged one.")] = None,
) -> None:
    """Time the embedding of slices against a plain ResNet18 on the same slices.

    Example: `pacs-cbir bench embed`
    """
    from pacs_cbir.embed.checkpoint import default_checkpoint_path, load_checkpoint
    from pacs_cbir.learn.bench import embedding_cost

    cost = embedding_cost(load_checkpoint(checkpoint or default_checkpoint_path()))
    typer.echo(f"encoder {cost.encoder:.0f} slices/s, ResNet18 {cost.resnet18:.0f} slices/s, cost {cost.ratio:.2f}×")


@commands.command()
def query(
    sizes: Annotated[
        list[int] | None, typer.Option("--size", min=1, help="Slices in the database; repeatable. 10k, 100k and 1M.")
    ] = None,
    clients: Annotated[
        list[int] | None, typer.Option("--clients", min=1, max=256, help="Asking at once; repeatable. 1, 8 and 32.")
    ] = None,
    seconds: Annotated[float, typer.Option(min=0.1, help="For which each kind of query is asked.")] = 5.0,
    results: Annotated[Path | None, typer.Option(help="Folder for bench-query.json and .md.")] = None,
) -> None:
    """Time every kind of query by example over HTTP against the same search in bare faiss.

    It fills a database of its own with made-up embeddings, serves it with `pacs-cbir api`, and removes it. A million
    slices take 6 GB of disk, 6 GB of memory and some minutes.

    Example: `pacs-cbir bench query --size 100000 --results results`
    """
    from pacs_cbir.bench.query import bench_query
    from pacs_cbir.bench.report import table, write_report

    console = Console(stderr=True)
    report = bench_query(sizes or [10_000, 100_000, 1_000_000], clients or [1, 8, 32], seconds, console)
    typer.echo(table(report))
    if results is not None:
        write_report(report, results)


@commands.command()
def reindex(
    patients: Annotated[int, typer.Option(min=1, help="Simulated patients with four series each.")] = 16,
    rounds: Annotated[int, typer.Option(min=1, help="Encoders, one after another.")] = 3,
    results: Annotated[Path | None, typer.Option(help="Folder for bench-reindex.json and .md.")] = None,
) -> None:
    """Time reindexing by a worker, from stored files to rows, against the encoder alone on the same slices.

    It stores simulated patients in a database and a data directory of its own, and removes them.

    Example: `pacs-cbir bench reindex --results results`
    """
    from pacs_cbir.bench.reindex import bench_reindex, table, write_report

    report = bench_reindex(patients, rounds, Console(stderr=True))
    typer.echo(table(report))
    if results is not None:
        write_report(report, results)


@commands.command()
def explain(
    checkpoint: Annotated[Path | None, typer.Argument(help="A .safetensors file; without it the packaged one.")] = None,
    *,
    pairs: Annotated[int, typer.Option(min=1, help="Pairs of simulated patients with one lesion.")] = 40,
    seed: Annotated[int, typer.Option(min=0)] = 21,
    results: Annotated[Path | None, typer.Option(help="Folder for figures, table and picture.")] = None,
) -> None:
    """Measure whether heat maps point at what two slices share: heat inside and outside of a lesion.

    Example: `pacs-cbir bench explain --results results`
    """
    from rich.progress import track

    from pacs_cbir.embed.checkpoint import default_checkpoint_path, load_checkpoint
    from pacs_cbir.embed.encoder import Encoder
    from pacs_cbir.learn.shared_lesions import shared_lesion_heat, table_of, write_results

    encoder = Encoder(load_checkpoint(checkpoint or default_checkpoint_path()))
    measured = shared_lesion_heat(encoder, pairs=pairs, seed=seed)
    found = [heat for of_pair in track(measured, "Explaining", pairs, console=Console(stderr=True)) for heat in of_pair]
    typer.echo(table_of(found))
    if results is not None:
        write_results(found, encoder.card.name, seed, results)
