"""Commands of the learn room: train, evaluate, experiment."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console

if TYPE_CHECKING:
    from pacs_cbir.embed.preprocess import Preprocessing
    from pacs_cbir.learn.experiment import Cohort
    from pacs_cbir.learn.stacks import Stack
    from pacs_cbir.learn.table import Table

commands = typer.Typer()

ManifestPath = Annotated[Path, typer.Option(help="The data, as `pacs-cbir dataset` lists it.")]
Weights = Annotated[
    Path | None,
    typer.Option(help="ResNet18's weights for what starts pretrained: torchvision's names, or a checkpoint of ours."),
]


@commands.command()
def train(
    recipe: Annotated[Path, typer.Argument(help="A TOML file, or a name of the package's own, such as `ours`.")],
    out: Annotated[Path, typer.Argument(help="The checkpoint without suffix; its last part is its name.")],
    *,
    manifest: ManifestPath,
    splits: Annotated[str | None, typer.Option(help="Train on these splits alone, as in `1,2,3`.")] = None,
    weights: Weights = None,
    seed: Annotated[
        int, typer.Option(min=0, max=2**32 - 1, help="The same seed gives the same weights on the same device.")
    ] = 0,
) -> None:
    """Train an encoder on a manifest's studies; called again after a kill, it goes on from its last saved epoch.

    Example: `pacs-cbir train unlabelled checkpoints/our-hospital --manifest studies.csv`
    """
    from pacs_cbir.learn.manifest_file import read_manifest
    from pacs_cbir.learn.order import train_and_calibrate
    from pacs_cbir.learn.recipe import read_recipe
    from pacs_cbir.learn.stacks import load_stacks

    settings, rows = read_recipe(recipe), read_manifest(manifest)
    stacks = load_stacks(rows, settings.preprocessing, splits=None if splits is None else splits.split(","))
    train_and_calibrate(settings, stacks, seed=seed, out=out, weights=weights)
    typer.echo(str(out))


@commands.command()
def evaluate(
    out: Annotated[Path, typer.Argument(help="The JSON file to write.")],
    *,
    manifest: ManifestPath,
    encoder: Annotated[str, typer.Option(help="A .safetensors file, `shipped`, or a baseline: `grey-histogram`, …")],
    protocol: Annotated[
        Literal["poster", "service", "robustness", "labelled"],
        typer.Option(help="Best slices, whole series, best slices with changed queries, or whole series by label."),
    ] = "service",
    test_split: Annotated[
        str | None, typer.Option(help="The split that asks; without it two folds by patient, each within itself.")
    ] = None,
) -> None:
    """Measure one encoder or baseline, without training it.

    Example: `pacs-cbir evaluate result.json --manifest lgg.csv --encoder shipped --protocol service`
    """
    from pacs_cbir.embed.whole_file import whole_file
    from pacs_cbir.learn.alone import alone
    from pacs_cbir.learn.comparison import Robustness
    from pacs_cbir.learn.experiment import Experiment
    from pacs_cbir.learn.results import Result, small_galleries
    from pacs_cbir.learn.rows import Rows
    from pacs_cbir.learn.summary import figures_table
    from pacs_cbir.learn.table import make_table

    kind = "checkpoint" if encoder == "shipped" or encoder.endswith(".safetensors") else "baseline"
    row = {"name": Path(encoder).stem, kind: encoder}
    table = make_table({"title": "evaluate", "protocols": [protocol], "test_split": test_split, "rows": [row]})
    experiment = Experiment(table, _cohort(table, manifest), Rows(table, Path(), None), out.parent)
    with alone(experiment.lock, out.parent):
        measured = experiment.measure(table.rows[0])[protocol]
    origin = experiment.origins[protocol][row["name"]]
    plain = measured.unchanged if isinstance(measured, Robustness) else measured
    small = small_galleries(plain) if isinstance(plain, Result) else None
    for warning in filter(None, (origin.warning(row["name"]), small)):
        typer.secho(f"pacs-cbir: {warning}", err=True, fg="yellow")
    with whole_file(out) as file:
        described = measured.model_dump(mode="json") | origin.model_dump(mode="json")
        file.write((json.dumps(described, indent=1) + "\n").encode())
    Console().print(figures_table(measured))
    typer.echo(str(out))


@commands.command()
def experiment(
    table: Annotated[Path, typer.Argument(help="A TOML file, or a name of the package's own, such as `quick`.")],
    *,
    results: Annotated[
        Path, typer.Option(help="Folder for figures, tables, plots, and what the next call goes on from.")
    ],
    manifest: Annotated[
        Path | None, typer.Option(help="The data; not needed for a table of simulated patients.")
    ] = None,
    weights: Weights = None,
) -> None:
    """Train and measure every row of a table on the same patients; called again, it goes on where it stopped.

    Example: `pacs-cbir experiment quick --manifest lgg.csv --results results --weights resnet18.pth`
    """
    from pacs_cbir.learn.alone import alone
    from pacs_cbir.learn.experiment import Experiment, report_of
    from pacs_cbir.learn.report import write_report
    from pacs_cbir.learn.rows import Rows
    from pacs_cbir.learn.table import read_table

    rows = read_table(table)
    run = Experiment(rows, _cohort(rows, manifest), Rows(rows, table.parent, weights), results)
    with alone(run.lock, results):
        measured, failed = run.run(Console(stderr=True))
        for protocol, of_rows in measured.items():
            write_report(report_of(run, protocol, failed), of_rows, results, protocol)
    typer.echo(str(results))
    if failed:
        raise typer.Exit(1)


def _cohort(table: Table, manifest: Path | None) -> Cohort:
    from pacs_cbir.errors import RecipeError
    from pacs_cbir.learn.disturb import CHANGES, SKULL_STRIPPED
    from pacs_cbir.learn.experiment import Cohort
    from pacs_cbir.learn.manifest_file import read_manifest
    from pacs_cbir.learn.stacks import load_stacks, simulate_stacks

    simulated = table.simulated
    if (manifest is None) == (simulated is None):
        raise RecipeError("name the data with --manifest, or take a table of simulated patients: one of the two")
    if simulated is None:
        rows = read_manifest(Path(str(manifest)))

        def read(preprocessing: Preprocessing, change: str | None) -> list[Stack]:
            return load_stacks(rows, preprocessing, change=None if change is None else CHANGES[change])

        return Cohort(Path(str(manifest)).stem, read)
    numbers = range(1, simulated.patients + 1)

    def simulate(preprocessing: Preprocessing, change: str | None) -> list[Stack]:
        stripped, of_source = change == SKULL_STRIPPED, CHANGES.get(change or "")
        return simulate_stacks(simulated.seed, numbers, preprocessing, skull_stripped=stripped, change=of_source)

    name = f"{simulated.patients} simulated patients of seed {simulated.seed}"
    return Cohort(name, simulate, changes=(*CHANGES, SKULL_STRIPPED), simulated=True)
